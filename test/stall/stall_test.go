package stall

import (
	"errors"
	"testing"
	"time"
)

func TestLongest(t *testing.T) {
	begin := time.Now()
	w := &Witness{last: []time.Time{begin.Add(time.Hour), begin.Add(time.Hour)}} // whose threads run
	for _, g := range []struct{ from, to time.Duration }{{1, 5}, {10, 40}, {50, 60}} {
		w.gaps = append(w.gaps, gap{begin.Add(g.from * time.Millisecond), begin.Add(g.to * time.Millisecond)})
	}
	for since, want := range map[time.Duration]time.Duration{0: 30, 39: 30, 40: 10, 59: 10, 60: 0} {
		if got := w.Longest(begin.Add(since * time.Millisecond)); got != want*time.Millisecond {
			t.Errorf("since %d ms: %v, want %d ms", since, got, want)
		}
	}
	w.last[1] = time.Now().Add(-time.Second)
	if got := w.Longest(time.Now()); got < 900*time.Millisecond {
		t.Errorf("a processor that is away now: %v", got)
	}
}

func TestSeen(t *testing.T) {
	begin := time.Now()
	w := &Witness{last: []time.Time{begin}}
	for _, at := range []time.Duration{2, 4, 104, 106} {
		if !w.seen(0, begin.Add(at*time.Millisecond)) {
			t.Error("it ends")
		}
	}
	if len(w.gaps) != 1 || w.gaps[0] != (gap{begin.Add(6 * time.Millisecond), begin.Add(104 * time.Millisecond)}) {
		t.Errorf("gaps %v", w.gaps)
	}
	w.done = true
	if w.seen(0, begin) {
		t.Error("it goes on")
	}
}

func TestWatch(t *testing.T) {
	var w *Witness
	t.Run("", func(t *testing.T) {
		w = Watch(t)
		for begin := time.Now(); ; time.Sleep(nap) {
			w.mu.Lock()
			all := len(w.last) > 0
			for _, last := range w.last {
				all = all && last.After(begin)
			}
			w.mu.Unlock()
			if all {
				break
			}
			if time.Since(begin) > time.Minute {
				t.Fatal("not all processors are looked after")
			}
		}
	})
	if !w.done {
		t.Error("it goes on after the test")
	}
}

// TestJudge: a failure on a machine that stood still is no failure, one on a
// machine that did not is, and for ever nobody tries.
func TestJudge(t *testing.T) {
	fault := errors.New("too late")
	for _, c := range []struct {
		name  string
		stood []time.Duration // in each run
		fails int             // how many of the runs
		runs  int
		err   bool
	}{
		{"well", []time.Duration{0}, 0, 1, false},
		{"well on a bad machine", []time.Duration{time.Second}, 0, 1, false},
		{"a fault", []time.Duration{0}, 9, 1, true},
		{"the machine's", []time.Duration{time.Second, time.Second, 0}, 2, 3, false},
		{"a fault on a bad machine", []time.Duration{time.Second, 0}, 9, 2, true},
		{"a bad machine for ever", make([]time.Duration, attempts), 99, attempts, true},
	} {
		w := &Witness{t: t, last: []time.Time{time.Now().Add(time.Hour)}}
		if c.runs == attempts {
			for i := range c.stood {
				c.stood[i] = time.Second
			}
		}
		runs := 0
		err := w.Judge(100*time.Millisecond, func() error {
			now := time.Now()
			w.gaps = append(w.gaps[:0], gap{now, now.Add(c.stood[runs])})
			if runs++; runs <= c.fails {
				return fault
			}
			return nil
		})
		if runs != c.runs || errors.Is(err, fault) != c.err {
			t.Errorf("%s: %d runs, %v", c.name, runs, err)
		}
	}
}
