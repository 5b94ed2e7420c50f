// Package simulation is the ground under seeded simulations of services: a
// clock that only events move, a scheduler that runs them in one order for
// ever, wires that lose, delay and part, and a trace of what happened. What a
// simulation does to its nodes, and what they must keep to, is its own.
package simulation

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// World is one run. All chance comes from Rand, so that a seed is the same run
// for ever. It is for one goroutine.
type World struct {
	testing.TB
	Seed uint64
	Rand *rand.Rand
	Now  time.Duration // since the begin

	Loss  float64       // of any wire, 0 to 1
	Delay time.Duration // longest of any wire

	again string
	queue queue
	order uint64
	trace []string
}

// New begins a run. stream tells simulations with the same seed apart; again is
// the command that runs the seed once more, %d its place.
func New(t testing.TB, seed, stream uint64, again string) *World {
	return &World{TB: t, Seed: seed, Rand: rand.New(rand.NewPCG(seed, stream)), again: again}
}

type item struct {
	at    time.Duration
	order uint64
	fn    func()
}

type queue []item

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].order < q[j].order
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(item)) }
func (q *queue) Pop() any {
	old := *q
	x := old[len(old)-1]
	*q = old[:len(old)-1]
	return x
}

// After has fn happen in d, after what is due at the same time already.
func (w *World) After(d time.Duration, fn func()) {
	w.order++
	heap.Push(&w.queue, item{w.Now + max(d, 0), w.order, fn})
}

// Run lets d pass.
func (w *World) Run(d time.Duration) {
	until := w.Now + d
	for w.queue.Len() > 0 && w.queue[0].at <= until {
		it := heap.Pop(&w.queue).(item)
		w.Now = it.at
		it.fn()
	}
	w.Now = until
}

// UpTo is a random time from 0 to d.
func (w *World) UpTo(d time.Duration) time.Duration {
	return time.Duration(w.Rand.Int64N(int64(d) + 1))
}

// Lost draws whether a frame is lost.
func (w *World) Lost() bool { return w.Rand.Float64() < w.Loss }

// Note adds a line to the trace.
func (w *World) Note(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf("%10.4f ", w.Now.Seconds())+fmt.Sprintf(format, args...))
}

// Trace is what was noted so far.
func (w *World) Trace() []string { return w.trace }

// Violated ends the test: what was promised did not hold. It tells how to run
// the seed again, and what came before.
func (w *World) Violated(format string, args ...any) {
	w.Helper()
	w.Fatalf("seed %d at %v: %s\nrun it again: %s\n%s", w.Seed, w.Now, fmt.Sprintf(format, args...),
		fmt.Sprintf(w.again, w.Seed), strings.Join(w.trace[max(0, len(w.trace)-60):], "\n"))
}

// Clock is a node's own, which drifts by up to half a second in a thousand.
type Clock struct {
	w     *World
	rate  float64
	ahead time.Duration
}

// Clock draws one that shows ahead at the begin.
func (w *World) Clock(ahead time.Duration) Clock {
	return Clock{w, 1 + (w.Rand.Float64()-0.5)/1000, ahead}
}

// Now is what the clock shows.
func (c Clock) Now() time.Duration { return time.Duration(float64(c.w.Now)*c.rate) + c.ahead }

// Real is how much time of the world passes while d passes on the clock.
func (c Clock) Real(d time.Duration) time.Duration { return time.Duration(float64(d) / c.rate) }

// Wire joins nodes, or parts them into two sides: the side of each.
type Wire []int

// Joined tells whether two nodes are on one side.
func (s Wire) Joined(a, b int) bool { return s[a] == s[b] }

// Part draws a side for each node.
func (w *World) Part(s Wire) {
	for i := range s {
		s[i] = w.Rand.IntN(2)
	}
}
