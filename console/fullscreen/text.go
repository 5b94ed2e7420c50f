// Package fullscreen edits a configuration on the whole screen of a terminal:
// no more than VT100 is asked of it, and only rows that change are sent.
package fullscreen

import (
	"slices"
	"strings"
)

// Bounds of what is edited.
const (
	maxUndo = 1000
	maxSize = 32 << 20
)

// point is a place in the text: a line, and a byte in it.
type point struct{ line, at int }

// change is what undo takes back.
type change struct {
	from, to int      // the lines that are there now
	old      []string // what was there
	cursor   point
	typing   bool // more typing in the same line goes with it
}

// text is the lines that are edited. Every change goes through splice.
type text struct {
	lines  []string
	cursor point
	undone []change
	size   int
}

func newText(s string) *text {
	s = strings.ReplaceAll(s, "\r\n", "\n")
	return &text{lines: strings.Split(strings.TrimSuffix(s, "\n"), "\n"), size: len(s)}
}

func (t *text) String() string { return strings.Join(t.lines, "\n") + "\n" }

// splice puts with in the place of lines from…to-1.
func (t *text) splice(from, to int, typing bool, with ...string) {
	n := len(t.undone)
	old := slices.Clone(t.lines[from:to])
	for _, l := range old {
		t.size -= len(l) + 1
	}
	for _, l := range with {
		t.size += len(l) + 1
	}
	if typing && n > 0 && t.undone[n-1].typing && t.undone[n-1].from == from && to == from+1 && len(with) == 1 {
		t.lines[from] = with[0]
		return
	}
	t.lines = slices.Replace(t.lines, from, to, with...)
	t.undone = append(t.undone, change{from, from + len(with), old, t.cursor, typing})
	if len(t.undone) > maxUndo {
		t.undone = slices.Delete(t.undone, 0, len(t.undone)-maxUndo)
	}
}

// undo takes the last change back.
func (t *text) undo() bool {
	n := len(t.undone)
	if n == 0 {
		return false
	}
	c := t.undone[n-1]
	t.splice(c.from, c.to, false, c.old...)
	t.undone = t.undone[:n-1]
	t.cursor = c.cursor
	return true
}

// still ends what belongs together as typing.
func (t *text) still() {
	if n := len(t.undone); n > 0 {
		t.undone[n-1].typing = false
	}
}

func (t *text) line() string { return t.lines[t.cursor.line] }

// insert puts s, which has no end of line, at the cursor.
func (t *text) insert(s string) {
	if t.size+len(s) > maxSize {
		return
	}
	l, c := t.line(), t.cursor
	t.splice(c.line, c.line+1, true, l[:c.at]+s+l[c.at:])
	t.cursor.at += len(s)
}

// newline breaks the line at the cursor; indent begins the next one as this one.
func (t *text) newline(indent bool) {
	l, c := t.line(), t.cursor
	lead := ""
	if indent {
		lead = l[:len(l)-len(strings.TrimLeft(l, " \t"))]
		lead = lead[:min(len(lead), c.at)]
	}
	t.splice(c.line, c.line+1, false, l[:c.at], lead+l[c.at:])
	t.cursor = point{c.line + 1, len(lead)}
}

// backspace removes the character before the cursor, or joins two lines.
func (t *text) backspace() {
	l, c := t.line(), t.cursor
	switch {
	case c.at > 0:
		at := before(l, c.at)
		t.splice(c.line, c.line+1, true, l[:at]+l[c.at:])
		t.cursor.at = at
	case c.line > 0:
		up := t.lines[c.line-1]
		t.splice(c.line-1, c.line+1, false, up+l)
		t.cursor = point{c.line - 1, len(up)}
	}
}

// delete removes the character at the cursor.
func (t *text) delete() {
	c := t.cursor
	switch l := t.line(); {
	case c.at < len(l):
		t.splice(c.line, c.line+1, true, l[:c.at]+l[after(l, c.at):])
	case c.line+1 < len(t.lines):
		t.splice(c.line, c.line+2, false, l+t.lines[c.line+1])
	}
}

// cut removes the line of the cursor and returns it.
func (t *text) cut() string {
	c := t.cursor
	l := t.line()
	if len(t.lines) == 1 {
		t.splice(0, 1, false, "")
		t.cursor = point{}
		return l
	}
	t.splice(c.line, c.line+1, false)
	t.cursor = point{min(c.line, len(t.lines)-1), 0}
	return l
}

// paste puts lines above the one of the cursor.
func (t *text) paste(lines []string) {
	n := 0
	for _, l := range lines {
		n += len(l) + 1
	}
	if len(lines) == 0 || t.size+n > maxSize {
		return
	}
	t.splice(t.cursor.line, t.cursor.line, false, lines...)
	t.cursor = point{t.cursor.line + len(lines), 0}
}

// find moves the cursor to the next place of what behind it, from the start
// again after the end.
func (t *text) find(what string) bool {
	if what == "" {
		return false
	}
	what = strings.ToLower(what)
	for n := 0; n <= len(t.lines); n++ {
		i := (t.cursor.line + n) % len(t.lines)
		l, from := strings.ToLower(t.lines[i]), 0
		if len(l) != len(t.lines[i]) { // letters whose other case has another length
			l = t.lines[i]
		}
		if n == 0 {
			from = min(after(l, t.cursor.at), len(l))
		}
		if at := strings.Index(l[from:], what); at >= 0 {
			t.cursor = point{i, from + at}
			return true
		}
	}
	return false
}
