// Package printable makes text that came from outside safe to show on a
// terminal: a stranger's answer, a pasted configuration, a log line must not
// move the cursor, rename the window, type into the session (ESC, CSI, OSC and
// their C1 forms) or show its words in another order than they stand (the
// marks of bidirectional and invisible text). It is the one place that decides
// what such a character is.
package printable

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// substitute stands for what is not shown.
const substitute = '?'

// Rune tells whether a terminal only shows r: no control character (C0, DEL,
// C1), no separator of lines, no invisible or bidirectional mark, and nothing
// that Unicode leaves unassigned or to private use.
func Rune(r rune) bool { return unicode.IsGraphic(r) }

// Line makes s one line: tabs and ends of lines become blanks, whatever else a
// terminal would obey or not show becomes "?", each byte that is not UTF-8 too.
func Line(s string) string {
	return replace(s, func(r rune) string {
		if r == '\t' || r == '\n' {
			return " "
		}
		return string(substitute)
	})
}

// Text is Line for text of several lines: tabs and ends of lines stay.
func Text(s string) string {
	return replace(s, func(r rune) string {
		if r == '\t' || r == '\n' {
			return string(r)
		}
		return string(substitute)
	})
}

// Escaped makes s one line in which whatever Line would replace can still be
// told: it is written as JSON writes it, \u001b.
func Escaped(s string) string { return replace(s, escape) }

// JSON escapes inside of JSON, which stays the same value, what a terminal
// would obey: encoding/json leaves DEL, the C1 set and the marks as they are.
func JSON(s string) string {
	return replace(s, func(r rune) string {
		if r == '\n' { // between values: inside of a string it is escaped
			return "\n"
		}
		return escape(r)
	})
}

func escape(r rune) string {
	if r > 0xffff { // a pair, as UTF-16 has it
		r -= 0x10000
		return fmt.Sprintf(`\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
	}
	return fmt.Sprintf(`\u%04x`, r)
}

// replace writes with what stands for each character that is not only shown.
// The carriage return of an end of line is left out. A byte that is not UTF-8
// comes to with as utf8.RuneError.
func replace(s string, with func(rune) string) string {
	odd := strings.IndexFunc(s, func(r rune) bool { return r == utf8.RuneError || !Rune(r) })
	if odd < 0 {
		return s
	}
	var b strings.Builder
	b.WriteString(s[:odd])
	for i := odd; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == '\r' && strings.HasPrefix(s[i+1:], "\n"):
		case Rune(r) && (r != utf8.RuneError || n > 1):
			b.WriteRune(r)
		default:
			b.WriteString(with(r))
		}
		i += n
	}
	return b.String()
}

// Short is at most n bytes of s, cut where a character ends; "…" says that
// there was more.
func Short(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}
