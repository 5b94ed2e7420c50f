package vrrp

import (
	"fmt"
	"time"
)

// told keeps what the log and the list of transitions say of something that
// may come and go at any rate: a few changes at once, then one a second, with
// how many were left out. A path that flaps would else push everything else
// out of both.
type told struct {
	said  string // what was told last
	is    string // what it is
	news  int    // changes that were not told yet
	left  int    // lines that may be told at once
	since time.Duration
}

const (
	toldAtOnce = 4
	toldEvery  = time.Second
)

// change takes the state now. It reports whether that is to be told, after
// which state that was told before, and how many changes between were not.
func (t *told) change(is string, now time.Duration) (from string, missed int, tell bool) {
	if is != t.is {
		t.is = is
		t.news++
	}
	if n := int((now - t.since) / toldEvery); n > 0 {
		t.left = min(t.left+n, toldAtOnce)
		t.since = now
	}
	if t.news == 0 || t.left == 0 {
		return "", 0, false
	}
	from, missed = t.said, t.news-1
	t.said, t.news = is, 0
	t.left--
	return from, missed, true
}

// newTold is for something whose state nobody has to be told.
func newTold(is string, now time.Duration) told {
	return told{said: is, is: is, left: toldAtOnce, since: now}
}

// pending tells whether something waits to be told.
func (t *told) pending() bool { return t.news > 0 }

// leftOut is the end of a line that stands for several.
func leftOut(missed int) string {
	if missed == 0 {
		return ""
	}
	return fmt.Sprintf(" (after %d changes more, not logged)", missed)
}
