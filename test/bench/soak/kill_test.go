package soak

import (
	"testing"
	"time"

	"ballast/test/lab/wire"
)

// TestJudged: only a timeout, and only in a stall of the client, is excused.
func TestJudged(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		name            string
		samples         []wire.Sample
		counts, excused int
	}{
		{"well", []wire.Sample{{At: 50 * ms, Took: ms}}, 0, 0},
		{"timeout", []wire.Sample{{At: 50 * ms, Took: 5000 * ms, Error: "timeout"}}, 1, 0},
		{"its deadline late", []wire.Sample{{At: 50 * ms, Took: 9000 * ms, Error: "timeout"}}, 0, 1},
		{"another one's timer late meanwhile", []wire.Sample{{At: 50 * ms, Took: 5000 * ms, Error: "timeout"}, {At: 3000 * ms, Late: 2000 * ms}}, 0, 1},
		{"a timer late long after", []wire.Sample{{At: 50 * ms, Took: 5000 * ms, Error: "timeout"}, {At: 9000 * ms, Late: 2000 * ms}}, 1, 0},
		{"reset in a stall", []wire.Sample{{At: 50 * ms, Took: 5000 * ms, Error: "reset"}, {At: 3000 * ms, Late: 2000 * ms}}, 1, 0},
	} {
		x := traffic{good: map[string]int{}}
		for _, s := range c.samples {
			x.saw("http", 5*time.Second, s)
		}
		if list, n := x.judged(); len(list) != c.counts || n != c.excused || (x.check() != nil) != (c.counts > 0) {
			t.Errorf("%s: %d count (%v), %d excused", c.name, len(list), list, n)
		}
	}
}
