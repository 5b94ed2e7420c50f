package monitor

import (
	"strings"
	"time"

	"ballast/services/ipc/status"
)

// history is how many seconds a series remembers.
const history = 120

// mostSeries bounds how many series are kept: those that were on the screen
// last.
const mostSeries = 256

// rate is one of the rates that a series keeps.
type rate int

const (
	rateConns rate = iota
	rateIn
	rateOut
	rates
)

// series are the rates of one object over the last seconds.
type series struct {
	last   time.Time
	values [rates][history]float32 // the newest last
	n      int                     // how many are known
}

// add takes in the rates of a moment. Seconds that were not looked at are taken
// to be as the one before.
func (s *series) add(now time.Time, st status.Stats) {
	steps := int(now.Unix() - s.last.Unix())
	switch {
	case s.n == 0:
		steps = 1
	case steps < 0: // the clock was set back
		steps = 1
	case steps > history:
		steps, s.n = 1, 0
	}
	for r, v := range [rates]uint64{st.CPS, st.InBPS, st.OutBPS} {
		values := &s.values[r]
		before := values[history-1]
		if steps > 0 {
			copy(values[:], values[steps:])
		}
		for i := history - steps; i < history; i++ {
			values[i] = before
		}
		values[history-1] = float32(v)
	}
	s.n = min(history, s.n+steps)
	s.last = now
}

// spark draws a rate in so many columns, the newest right; each column is the
// most of its seconds. What is not known is blank.
func (s *series) spark(r rate, columns int, ascii bool) string {
	if s == nil || columns <= 0 {
		return strings.Repeat(" ", max(0, columns))
	}
	bars := []rune("▁▂▃▄▅▆▇█")
	if ascii {
		bars = []rune("_.:-=+*#")
	}
	columns = min(columns, history)
	each := history / columns
	top := float32(0)
	for i := history - min(s.n, columns*each); i < history; i++ {
		top = max(top, s.values[r][i])
	}
	var b strings.Builder
	for c := range columns {
		from := history - (columns-c)*each
		if from+each <= history-s.n {
			b.WriteByte(' ')
			continue
		}
		most := float32(0)
		for i := from; i < from+each; i++ {
			most = max(most, s.values[r][i])
		}
		level := 0
		if top > 0 && most > 0 {
			level = 1 + int(most/top*float32(len(bars)-2)+0.5)
		}
		b.WriteRune(bars[min(level, len(bars)-1)])
	}
	return b.String()
}

// histories are the series by object: "" is the sum.
type histories map[string]*series

// add takes in the rates of an object, and makes room for it.
func (h histories) add(name string, now time.Time, st status.Stats) {
	s := h[name]
	if s == nil {
		if len(h) >= mostSeries {
			h.forget()
		}
		s = &series{}
		h[name] = s
	}
	s.add(now, st)
}

// forget drops what was not looked at for the longest time.
func (h histories) forget() {
	oldest, at := "", time.Time{}
	for name, s := range h {
		if name != "" && (at.IsZero() || s.last.Before(at)) {
			oldest, at = name, s.last
		}
	}
	delete(h, oldest)
}
