package soak

import (
	"testing"
	"time"
)

func TestStandstill(t *testing.T) {
	at := func(ms int) time.Time { return time.UnixMilli(int64(ms)) }
	var o onlookers
	o.note(at(100), at(100+int(standsStill.Milliseconds())-1))
	o.note(at(1000), at(1300))
	o.note(at(5000), at(5900))
	for _, c := range []struct{ from, to, want int }{
		{0, 900, 0}, {0, 1001, 300}, {1299, 2000, 300}, {1300, 5000, 0}, {0, 6000, 900}, {5500, 5600, 900},
	} {
		if got := o.worst(at(c.from), at(c.to)); got != time.Duration(c.want)*time.Millisecond {
			t.Errorf("%d-%d: %v, want %d ms", c.from, c.to, got, c.want)
		}
	}
	w := watchProcessors() // ends when it is told to
	w.close()
}
