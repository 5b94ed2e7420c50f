package main

import (
	"runtime/metrics"
	"slices"
	"testing"
)

func TestPaceOfTheCollector(t *testing.T) {
	for live, want := range map[uint64]int{0: 50, largeHeap - 1: 50, largeHeap: largeGC, 1 << 30: largeGC} {
		if got := pace(live, 50); got != want {
			t.Errorf("%d bytes: %d, want %d", live, got, want)
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
