package main

import (
	"context"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"
)

// A small heap is collected often, because the box counts its megabytes. A
// large one, of a table of thousands of virtual servers, is not: each collection
// reads all of it, and would be most of what one changed weight costs. Nor is
// one that grows: while a large configuration is loaded, each collection finds
// that next to nothing is garbage. The soft limit of the service bounds it all
// the same.
const (
	largeHeap = 16 * mib
	largeGC   = 300
	// growingHeap is the live heap from which on growth counts, and growingRoom
	// what may be allocated then before the next collection, or the next look.
	growingHeap = 3 * mib
	growingRoom = 32 * mib
	heapLook    = 2 * time.Second
)

// tuneCollector follows the size of the live heap with the collector's pace: at
// the end of each collection, and now and then.
func tuneCollector(ctx context.Context, small int) {
	c := &collector{small: small, now: small}
	afterCollection(ctx, func() { c.look(true) })
	for t := time.NewTicker(heapLook); ; {
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
		c.look(false)
	}
}

// afterCollection calls f at the end of each collection until ctx ends.
func afterCollection(ctx context.Context, f func()) {
	// An object that nobody refers to is finalized by the collection that finds
	// that out.
	type sentinel struct{ _ [16]byte }
	var arm func(*sentinel)
	arm = func(*sentinel) {
		if ctx.Err() == nil {
			runtime.SetFinalizer(&sentinel{}, arm) // before f, which may bring about the next collection
			f()
		}
	}
	runtime.SetFinalizer(&sentinel{}, arm)
}

// collector is the pace of the collector.
type collector struct {
	mu         sync.Mutex
	small, now int
	live       uint64 // after the collection before
}

// look sets the pace; done says that a collection is just over.
func (c *collector) look(done bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	live := liveHeap()
	want := pace(live, c.small)
	if done {
		if grows(c.live, live) {
			want = max(largeGC, int(growingRoom*100/live))
		}
		c.live = live
	}
	if want != c.now {
		debug.SetGCPercent(want)
		c.now = want
	}
}

// liveHeap is what the collection before found to be in use.
func liveHeap() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// grows reports whether a live heap is on its way to a large one.
func grows(before, live uint64) bool { return live >= growingHeap && live > before+before/8 }

// pace is GOGC for a live heap of so many bytes.
func pace(live uint64, small int) int {
	if live >= largeHeap {
		return largeGC
	}
	return small
}
