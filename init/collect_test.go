package main

import (
	"context"
	"runtime"
	"runtime/metrics"
	"slices"
	"testing"
	"time"
)

func TestPaceOfTheCollector(t *testing.T) {
	for live, want := range map[uint64]int{0: 50, largeHeap - 1: 50, largeHeap: largeGC, 1 << 30: largeGC} {
		if got := pace(live, 50); got != want {
			t.Errorf("%d bytes: %d, want %d", live, got, want)
		}
	}
	for _, g := range []struct {
		before, live uint64
		want         bool
	}{{0, growingHeap - 1, false}, {0, growingHeap, true}, {growingHeap, growingHeap, false}, {growingHeap, 2 * growingHeap, true}, {8 << 20, 8<<20 + 1<<19, false}} {
		if grows(g.before, g.live) != g.want {
			t.Errorf("from %d to %d bytes: grows is not %v", g.before, g.live, g.want)
		}
	}
	if !slices.ContainsFunc(metrics.All(), func(d metrics.Description) bool {
		return d.Name == "/gc/heap/live:bytes" && d.Kind == metrics.KindUint64
	}) {
		t.Error("this Go does not tell the size of the live heap")
	}
	for _, s := range services {
		if s.soft*mib < 2*largeHeap || s.soft >= s.memory {
			t.Errorf("%s: soft limit %d MiB of %d", s.name, s.soft, s.memory)
		}
	}
}

func TestAfterCollection(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan struct{}, 1)
	afterCollection(ctx, func() {
		select {
		case done <- struct{}{}:
		default:
		}
	})
	for i := range 3 {
		runtime.GC()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Fatalf("collection %d was not told", i+1)
		}
	}
}
