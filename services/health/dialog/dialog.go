// Package dialog holds what a probe says over one stream and how it judges the
// answer: HTTP/1, HTTP/2, SMTP. It is pure: bytes go in, bytes and a verdict
// come out; the stream itself, time and TLS are the caller's.
//
// Everything here reads what strangers send. Each dialog bounds the bytes that
// it holds and the bytes that it reads at all.
package dialog

import (
	"fmt"
	"strconv"
	"time"
)

// Dialog is one conversation. It is used once.
type Dialog interface {
	// Open is what we say first, nil when the server speaks first.
	Open() []byte
	// Hear takes the next bytes of the server. It returns what to say to them
	// and whether the verdict is known, so that nothing more needs to be read.
	Hear(b []byte) (say []byte, done bool)
	// End gives the verdict; when Hear did not say that it is known, the server
	// has closed its side.
	End() (ok bool, reason string)
	// Stalled gives the verdict on a server from which nothing came for step,
	// or, with step 0, that was not done after whole.
	Stalled(step, whole time.Duration) (ok bool, reason string)
	// Broken gives the reason when the stream ended by an error.
	Broken(err string) string
	// Evidence is the start of what the server sent.
	Evidence() []byte
}

// Limits on what a real server may make us hold or read. They are far above
// what a health page needs; keepalived has none but time.
const (
	maxHeader = 16 << 10 // bytes of status line and header fields
	maxRegex  = 1 << 20  // bytes of body that a regex is matched against
	maxBody   = 64 << 20 // bytes of body read at all
	maxTexts  = 64 << 20 // bytes of body kept for regexes by all dialogs together
	// quickRegex is how much a regex may be matched against in passing: a hard
	// one takes a millisecond for it.
	quickRegex = 4 << 10
	// EvidenceSize is the most that Evidence returns.
	EvidenceSize = 120
)

// evidence keeps the start of what was heard.
type evidence struct{ first []byte }

func (e *evidence) keep(b []byte) {
	if n := EvidenceSize - len(e.first); n > 0 {
		e.first = append(e.first, b[:min(n, len(b))]...)
	}
}

// Evidence is the start of what the server sent.
func (e *evidence) Evidence() []byte { return e.first }

// Clip quotes the start of what a server sent.
func Clip(b []byte) string {
	const most = 40
	if len(b) > most {
		return strconv.QuoteToASCII(string(b[:most])) + "…"
	}
	return strconv.QuoteToASCII(string(b))
}

// Silence is the reason for a server from which nothing came at all.
func Silence(step, whole time.Duration) string {
	return fmt.Sprintf("no answer within %s", orWhole(step, whole))
}

// Known says whether a dialog that has not been done is sure of its verdict
// already, whatever becomes of the stream.
func Known(d Dialog) bool {
	s, ok := d.(*smtp)
	return ok && s.step >= awaitBye
}

// Heavy says whether End is going to take long: a regex over much text.
func Heavy(d Dialog) bool {
	h, ok := d.(interface{ heavy() bool })
	return ok && h.heavy()
}

// Starved says that a dialog failed for want of room of our own.
func Starved(d Dialog) bool {
	s, ok := d.(interface{ isStarved() bool })
	return ok && s.isStarved()
}

// Release gives back what a dialog holds. It is not used any more after that.
func Release(d Dialog) {
	if r, ok := d.(interface{ release() }); ok {
		r.release()
	}
}
