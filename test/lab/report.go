package lab

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"ballast/test/lab/wire"
)

// Report sums up a probe.
type Report struct {
	Sent, Good int
	ByServer   map[string]int
	Errors     map[string]int
	// Outage is the longest time between the sending of two requests that were
	// answered with none answered between them; without a failure it is about
	// Every. OutageAt is when it began.
	Outage, OutageAt time.Duration
	Every            time.Duration
	MaxLate          time.Duration // of the probe's own timer: an outage below it means nothing
	Median, Slowest  time.Duration // of the good answers
	Broken           int           // connections of a "held" probe that did not last
}

// NewReport sums up samples, which may be in any order.
func NewReport(every time.Duration, samples []wire.Sample) Report {
	r := Report{Every: every, ByServer: map[string]int{}, Errors: map[string]int{}}
	sorted := slices.Clone(samples)
	slices.SortFunc(sorted, func(a, b wire.Sample) int { return int(a.At - b.At) })
	var took []time.Duration
	last := time.Duration(-1)
	for _, s := range sorted {
		r.Sent++
		r.MaxLate = max(r.MaxLate, s.Late)
		if s.Error != "" {
			r.Errors[s.Error]++
			continue
		}
		r.Good++
		r.ByServer[s.Server]++
		took = append(took, s.Took)
		if gap := s.At - last; last >= 0 && gap > r.Outage {
			r.Outage, r.OutageAt = gap, last
		}
		last = s.At
	}
	// One that is not over yet counts with what it has.
	if n := len(sorted); n > 0 && last >= 0 {
		if gap := sorted[n-1].At - last; gap > r.Outage {
			r.Outage, r.OutageAt = gap, last
		}
	}
	if len(took) > 0 {
		slices.Sort(took)
		r.Median, r.Slowest = took[len(took)/2], took[len(took)-1]
	}
	r.Broken = r.Sent - r.Good
	return r
}

// Failed is how many requests were not answered well.
func (r Report) Failed() int { return r.Sent - r.Good }

func (r Report) String() string {
	return fmt.Sprintf("%d of %d answered (%s)%s, longest gap %v, median %v, slowest %v, timer late at most %v",
		r.Good, r.Sent, counts(r.ByServer), prefixed(", errors: ", counts(r.Errors)),
		r.Outage.Round(time.Millisecond), r.Median.Round(100*time.Microsecond), r.Slowest.Round(time.Millisecond), r.MaxLate.Round(time.Millisecond))
}

func counts(m map[string]int) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, fmt.Sprintf("%s %d", k, m[k]))
	}
	return strings.Join(out, ", ")
}

func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}
