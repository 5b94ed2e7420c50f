// Package stall tells a test whether this machine stood still. The processors of
// a virtual machine on a busy host stop for tenths of a second, one of them or
// all: what is measured against the clock meanwhile says nothing about the
// program under test.
package stall

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// nap is how often each processor is looked after.
	nap = 2 * time.Millisecond
	// attempts is how many runs Judge makes before it believes a failure whatever
	// the machine did.
	attempts = 30
)

// Witness has a thread on each processor that does nothing but look whether it
// runs. It is as little nice as can be, but not of the real-time class: the
// garbage collector of the test would wait for it, and it for the collector.
type Witness struct {
	t    testing.TB
	mu   sync.Mutex
	last []time.Time // per processor: when it was seen to run
	gaps []gap
	done bool
}

// gap is a time in which a processor was not seen to run.
type gap struct{ from, to time.Time }

// Watch looks until the test ends.
func Watch(t testing.TB) *Witness {
	t.Helper()
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	w := &Witness{t: t}
	var running sync.WaitGroup
	for cpu := range len(all) * 64 {
		if !all.IsSet(cpu) {
			continue
		}
		n := len(w.last)
		w.last = append(w.last, time.Now())
		running.Go(func() { w.look(cpu, n) })
	}
	t.Cleanup(func() {
		w.mu.Lock()
		w.done = true
		w.mu.Unlock()
		running.Wait()
	})
	return w
}

func (w *Witness) look(cpu, n int) {
	runtime.LockOSThread() // never unlocked: the thread ends with this
	var one unix.CPUSet
	one.Set(cpu)
	unix.SchedSetaffinity(0, &one)
	unix.Setpriority(unix.PRIO_PROCESS, 0, -20)
	for w.seen(n, time.Now()) {
		t := unix.NsecToTimespec(int64(nap))
		unix.Nanosleep(&t, nil) // a signal ends it early: no harm
	}
}

// seen notes that a processor runs, and tells whether anybody wants to know.
func (w *Witness) seen(n int, now time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if now.Sub(w.last[n]) > 2*nap {
		w.gaps = append(w.gaps, gap{w.last[n].Add(nap), now})
	}
	w.last[n] = now
	return !w.done
}

// Longest is the longest time for which a processor stood still that ended
// after a moment, or lasts.
func (w *Witness) Longest(since time.Time) (worst time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, g := range w.gaps {
		if g.to.After(since) {
			worst = max(worst, g.to.Sub(g.from))
		}
	}
	for _, last := range w.last {
		worst = max(worst, time.Since(last)-nap)
	}
	return worst
}

// Judge does what is measured against the clock, and does it again when it fails
// while a processor stood still for longer than limit. A fault of the program
// fails in the next run as well; of thirty runs that were all disturbed the last
// one counts.
func (w *Witness) Judge(limit time.Duration, try func() error) error {
	for n := 1; ; n++ {
		begin := time.Now()
		err := try()
		if err == nil {
			return nil
		}
		stood := w.Longest(begin)
		if stood <= limit || n == attempts {
			return fmt.Errorf("%w (run %d; no processor stood still for longer than %v)", err, n, stood)
		}
		w.t.Logf("run %d is not judged, a processor stood still for %v: %v", n, stood, err)
	}
}
