package soak

import (
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// standstill is a time in which a processor of this machine ran nobody, or had
// something else to do: the boxes, emulated here, could do nothing meanwhile either.
type standstill struct{ from, to time.Time }

// standsStill is how late a thread that only waits is on a machine that stands still.
// A master is dead for the lab's boxes after 0.75 s.
const standsStill = 200 * time.Millisecond

// onlookers are threads, one for each processor, that note when it stood still.
type onlookers struct {
	mu   sync.Mutex
	seen []standstill
	stop chan struct{}
	wg   sync.WaitGroup
}

func watchProcessors() *onlookers {
	o := &onlookers{stop: make(chan struct{})}
	var allowed unix.CPUSet
	if unix.SchedGetaffinity(0, &allowed) != nil {
		allowed.Zero() // one onlooker, anywhere
	}
	found := false
	for cpu := range 1024 {
		if allowed.IsSet(cpu) {
			found = true
			o.wg.Go(func() { o.look(cpu) })
		}
	}
	if !found {
		o.wg.Go(func() { o.look(-1) })
	}
	return o
}

// look runs on one processor; -1 is any.
func (o *onlookers) look(cpu int) {
	runtime.LockOSThread() // never unlocked: the thread ends, and what it was bound to with it
	if cpu >= 0 {
		var set unix.CPUSet
		set.Set(cpu)
		if unix.SchedSetaffinity(0, &set) != nil {
			return
		}
	}
	const every = 20 * time.Millisecond
	nap := unix.NsecToTimespec(int64(every))
	for {
		select {
		case <-o.stop:
			return
		default:
		}
		due := time.Now().Add(every)
		unix.Nanosleep(&nap, nil) // a signal ends it early: no harm
		o.note(due, time.Now())
	}
}

// note takes when an onlooker was to wake, and when it did.
func (o *onlookers) note(due, woke time.Time) {
	if woke.Sub(due) < standsStill {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.seen = append(o.seen, standstill{due, woke})
}

// worst is the longest standstill that touches a time.
func (o *onlookers) worst(from, to time.Time) (longest time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, s := range o.seen {
		if s.from.Before(to) && s.to.After(from) {
			longest = max(longest, s.to.Sub(s.from))
		}
	}
	return longest
}

func (o *onlookers) close() {
	close(o.stop)
	o.wg.Wait()
}
