package simulation

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const again = "go test -first %d"

func TestOrder(t *testing.T) {
	w := New(t, 1, 1, again)
	w.After(2*time.Second, func() {
		w.Note("second")
		w.After(-time.Second, func() { w.Note("at once, and after what was due") })
	})
	w.After(2*time.Second, func() { w.Note("same time, later") })
	w.After(time.Second, func() { w.Note("first") })
	w.After(5*time.Second, func() { w.Note("not yet") })
	w.Run(4 * time.Second)
	want := []string{"    1.0000 first", "    2.0000 second", "    2.0000 same time, later", "    2.0000 at once, and after what was due"}
	if diff := cmp.Diff(want, w.Trace()); diff != "" || w.Now != 4*time.Second {
		t.Errorf("%v\n%s", w.Now, diff)
	}
}

// told takes what Violated says.
type told struct {
	testing.TB
	text string
}

func (t *told) Helper() {}
func (t *told) Fatalf(format string, args ...any) {
	t.text = strings.TrimSpace(strings.NewReplacer("\n", " / ").Replace(fmt.Sprintf(format, args...)))
}

func TestViolated(t *testing.T) {
	tb := &told{TB: t}
	w := New(tb, 42, 1, again)
	w.Run(time.Second)
	w.Note("it happened")
	w.Violated("%d masters", 2)
	if want := "seed 42 at 1s: 2 masters / run it again: go test -first 42 /     1.0000 it happened"; tb.text != want {
		t.Errorf("%q, want %q", tb.text, want)
	}
}

// run draws all that can be drawn.
func run(t *testing.T, seed, stream uint64) []string {
	w := New(t, seed, stream, again)
	w.Loss, w.Delay = 0.5, time.Second
	s := make(Wire, 8)
	c := w.Clock(time.Hour)
	for range 100 {
		w.After(w.UpTo(w.Delay), func() {
			w.Part(s)
			w.Note("%v %v %v %v", w.Lost(), s, s.Joined(0, 7), c.Now())
		})
	}
	w.Run(time.Minute)
	return w.Trace()
}

func TestSeedIsTheRun(t *testing.T) {
	a := run(t, 3, 1)
	if diff := cmp.Diff(a, run(t, 3, 1)); diff != "" {
		t.Error(diff)
	}
	if cmp.Equal(a, run(t, 4, 1)) || cmp.Equal(a, run(t, 3, 2)) {
		t.Error("another seed or stream is the same run")
	}
}

func TestClock(t *testing.T) {
	for seed := range uint64(20) {
		w := New(t, seed, 1, again)
		c := w.Clock(time.Hour)
		w.Run(1000 * time.Second)
		off := c.Now() - time.Hour - w.Now
		if off == 0 || off.Abs() > 500*time.Millisecond {
			t.Errorf("seed %d: %v off after 1000 s", seed, off)
		}
		if d := c.Real(c.Now() - time.Hour); (d - w.Now).Abs() > time.Microsecond {
			t.Errorf("seed %d: %v, want %v", seed, d, w.Now)
		}
	}
}
