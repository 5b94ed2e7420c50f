package vrrp

import (
	"math/bits"
	"time"

	"ballast/services/ipc/status"
)

// lateness counts how late timers fire, in buckets that grow by an eighth of a
// power of two, so that a quantile is exact to one part in eight.
type lateness struct {
	buckets [512]uint64
	count   uint64
	max     time.Duration
}

func (l *lateness) add(d time.Duration) {
	l.buckets[bucket(d)]++
	l.count++
	l.max = max(l.max, d)
}

// bucket is for whole microseconds: exact up to 15, then 8 to each power of two.
func bucket(d time.Duration) int {
	us := uint64(max(d, 0) / time.Microsecond)
	if us < 16 {
		return int(us)
	}
	n := bits.Len64(us) - 4 // us>>n is 8 to 15
	return n*8 + int(us>>n)
}

// limit is the longest time that a bucket counts.
func limit(i int) time.Duration {
	if i < 16 {
		return time.Duration(i) * time.Microsecond
	}
	n := i/8 - 1
	return (time.Duration(i-n*8+1)<<n - 1) * time.Microsecond
}

// quantile is the time that the fraction q of all timers did not exceed.
func (l *lateness) quantile(q float64) time.Duration {
	want := uint64(q * float64(l.count))
	var sum uint64
	for i, n := range l.buckets {
		if sum += n; sum > want {
			return min(limit(i), l.max)
		}
	}
	return l.max
}

func (l *lateness) status(realTime bool) status.Lateness {
	return status.Lateness{
		Count: l.count, P50: l.quantile(0.5), P99: l.quantile(0.99), P999: l.quantile(0.999), Max: l.max, RealTime: realTime,
	}
}
