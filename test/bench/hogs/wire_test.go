package hogs

import (
	"testing"
	"time"
)

func TestGaps(t *testing.T) {
	var g gaps
	at := time.Hour
	for i := range 1001 {
		g.add(at, 200)
		if at += 10 * time.Millisecond; i == 500 {
			at += 50 * time.Millisecond
		}
	}
	g.add(at, 0)
	if g.n != 1000 || g.over != 1 || g.worst != 60*time.Millisecond || g.resign != 1 || g.quantile(0.5) > 11*time.Millisecond || g.quantile(1) != g.worst {
		t.Errorf("%+v: %s", g.n, &g)
	}
}

// A gap is the machine's when a processor stood still for half of what it is too
// long.
func TestInnocent(t *testing.T) {
	text := "something\nprocessor 100 150\nprocessor 300 302\nsilence 1 2\n"
	stalls := spans(text, stallLine)
	if len(stalls) != 2 || stalls[0] != (span{100, 150}) || len(spans(text, gapLine)) != 1 {
		t.Fatalf("%v", stalls)
	}
	for _, c := range []struct {
		gap  span
		want int
	}{{span{95, 160}, 1}, {span{140, 200}, 0}, {span{290, 400}, 0}, {span{500, 600}, 0}} {
		if got := innocent([]span{c.gap}, stalls, 15); got != c.want {
			t.Errorf("%v: %d, want %d", c.gap, got, c.want)
		}
	}
}
