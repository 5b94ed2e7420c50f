package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// A small heap is collected often, because the box counts its megabytes. A
// large one, of a table of thousands of virtual servers, is not: each collection
// reads all of it, and would be most of what one changed weight costs. The
// soft limit of the service bounds it all the same.
const (
	largeHeap = 16 * mib
	largeGC   = 300
	heapLook  = 2 * time.Second
)

// tuneCollector follows the size of the live heap with the collector's pace.
func tuneCollector(ctx context.Context, small int) {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	now := small
	for t := time.NewTicker(heapLook); ; {
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
		metrics.Read(live)
		if want := pace(live[0].Value.Uint64(), small); want != now {
			debug.SetGCPercent(want)
			now = want
		}
	}
}

// pace is GOGC for a live heap of so many bytes.
func pace(live uint64, small int) int {
	if live >= largeHeap {
		return largeGC
	}
	return small
}
