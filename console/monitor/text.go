package monitor

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"ballast/configs/printable"
)

// style is how a piece of text looks. Every piece is readable without.
type style int

const (
	plain style = iota
	faint
	strong
	good
	bad
	warn
	head
	cursor
)

// sgr are the styles in colour, mono those of a terminal without.
var (
	sgr  = [...]string{faint: "2", strong: "1", good: "32", bad: "1;31", warn: "33", head: "7", cursor: "7"}
	mono = [...]string{faint: "", strong: "1", good: "", bad: "1", warn: "1", head: "7", cursor: "7"}
)

// look is what a terminal can show.
type look struct {
	mono, ascii bool
	none        bool // no styles at all: text for a file
}

// clean makes foreign text one line of characters that are one column wide
// each, so that columns stay columns.
func (l look) clean(s string) string {
	s = printable.Line(s)
	most := rune(0x52f) // Latin, Greek, Cyrillic
	if l.ascii {
		most = 0x7e
	}
	return strings.Map(func(r rune) rune {
		if r > most && r != '…' || r >= 0x300 && r < 0x370 { // wide, or combining
			return '?'
		}
		if r == '…' && l.ascii {
			return '~'
		}
		return r
	}, s)
}

func (l look) dots() string {
	if l.ascii {
		return "~"
	}
	return "…"
}

// fit makes s exactly w columns wide.
func (l look) fit(s string, w int) string {
	n := utf8.RuneCountInString(s)
	switch {
	case w <= 0:
		return ""
	case n <= w:
		return s + strings.Repeat(" ", w-n)
	}
	return string([]rune(s)[:w-1]) + l.dots()
}

// row is one line of the screen, put together piece by piece.
type row struct {
	l    look
	b    strings.Builder
	left int
	all  style // of the whole line, where it is not plain
}

func (l look) row(width int, all style) *row { return &row{l: l, left: width, all: all} }

// put adds text, as far as there is room.
func (r *row) put(st style, text string) *row {
	if n := utf8.RuneCountInString(text); n > r.left {
		text = r.l.fit(text, r.left)
	}
	r.left -= utf8.RuneCountInString(text)
	if r.all != plain {
		st = plain
	}
	r.b.WriteString(r.l.styled(st, text))
	return r
}

// cell adds text in a column of w, and a blank behind it.
func (r *row) cell(st style, text string, w int) *row {
	r.put(st, r.l.fit(text, min(w, r.left)))
	return r.put(plain, " ")
}

// num adds a number at the right of a column of w, and a blank behind it.
func (r *row) num(st style, text string, w int) *row {
	if n := utf8.RuneCountInString(text); n < w {
		text = strings.Repeat(" ", w-n) + text
	}
	return r.cell(st, text, w)
}

// String is the line, filled up when it has a style of its own.
func (r *row) String() string {
	if r.all == plain {
		return strings.TrimRight(r.b.String(), " ")
	}
	text := r.b.String() + strings.Repeat(" ", max(0, r.left))
	if r.l.none {
		return strings.TrimRight(text, " ")
	}
	return r.l.styled(r.all, text)
}

func (l look) styled(st style, text string) string {
	code := ""
	switch {
	case l.none || text == "" || st == plain:
	case l.mono:
		code = mono[st]
	default:
		code = sgr[st]
	}
	if code == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// count is a number in at most 6 columns: "999999", "12.3M".
func count(v uint64) string {
	if v < 1_000_000 {
		return strconv.FormatUint(v, 10)
	}
	return short(v, 1000)
}

// size is a number of bytes in at most 5 columns: "812", "14.2K", "120M".
func size(v uint64) string { return short(v, 1024) }

func short(v, step uint64) string {
	f, unit := float64(v), ""
	for _, u := range []string{"K", "M", "G", "T", "P", "E"} {
		if f < 1000 {
			break
		}
		f, unit = f/float64(step), u
	}
	switch {
	case unit == "":
		return strconv.FormatUint(v, 10)
	case f < 99.95:
		return fmt.Sprintf("%.1f%s", f, unit)
	}
	return fmt.Sprintf("%.0f%s", f, unit)
}
