package vrrp

import (
	"math"
	"testing"
	"time"
)

// Each time falls into a bucket whose limit is not below it and not more than
// an eighth above.
func TestBuckets(t *testing.T) {
	last := -1
	for us := time.Duration(0); us < 1<<40; us += 1 + us/100 {
		d := us * time.Microsecond
		i := bucket(d)
		if i < last || i >= len(lateness{}.buckets) {
			t.Fatalf("%s: bucket %d after %d", d, i, last)
		}
		last = i
		if l := limit(i); l < d || l > d+d/8+time.Microsecond {
			t.Fatalf("%s: bucket %d, which counts up to %s", d, i, l)
		}
	}
	bucket(math.MaxInt64)
	bucket(-1)
}

func TestLatenessQuantiles(t *testing.T) {
	var l lateness
	if s := l.status(true); s.P50 != 0 || s.P999 != 0 || s.Count != 0 || !s.RealTime {
		t.Errorf("empty: %+v", s)
	}
	for i := range 10000 {
		l.add(time.Duration(i) * time.Microsecond)
	}
	s := l.status(false)
	for _, c := range []struct {
		name      string
		got, want time.Duration
	}{{"p50", s.P50, 5000}, {"p99", s.P99, 9900}, {"p99.9", s.P999, 9990}, {"max", s.Max, 9999}} {
		if want := c.want * time.Microsecond; c.got < want || c.got > want+want/8 {
			t.Errorf("%s: %s, want %s", c.name, c.got, want)
		}
	}
	if s.Count != 10000 {
		t.Errorf("count %d", s.Count)
	}
	if n := testing.AllocsPerRun(100, func() { l.add(time.Millisecond) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
