package line

import (
	"io"
	"strings"

	"github.com/mattn/go-runewidth"
)

// Width is the number of columns that a terminal takes for r: 0 for a mark
// that goes with the character before it, 2 for wide characters.
func Width(r rune) int { return runewidth.RuneWidth(r) }

// widthOf is the number of columns of a text.
func widthOf(rs []rune) (n int) {
	for _, r := range rs {
		n += Width(r)
	}
	return n
}

func (e *Editor) write(s string) { io.WriteString(e.out, s) } // a terminal that is gone shows as the end of its input

// forget makes the next drawing a whole one.
func (e *Editor) forget() { e.shown, e.cursor, e.drawn = nil, 0, false }

// view is the part of prompt and line that is shown, and the column of the cursor.
// Of a line that is wider than the terminal that is a part around the cursor,
// so that it never wraps.
func (e *Editor) view() (cells []rune, cursor int) {
	cells = []rune(e.prompt)
	left := widthOf(cells)
	room := max(2, e.columns()-1-left)
	from := 0
	for w := widthOf(e.buf[:e.pos]); w >= room; from++ {
		w -= Width(e.buf[from])
	}
	for from > 0 && from < len(e.buf) && Width(e.buf[from]) == 0 { // no mark without its character
		from++
	}
	cursor = left + widthOf(e.buf[min(from, e.pos):e.pos])
	to, w := from, 0
	for to < len(e.buf) && w+Width(e.buf[to]) <= room {
		w += Width(e.buf[to])
		to++
	}
	return append(cells, e.buf[min(from, to):to]...), cursor
}

// draw shows prompt and line as they are now: only what has changed is sent, a
// serial line is slow.
func (e *Editor) draw() {
	cells, at := e.view()
	var b strings.Builder
	same := 0
	if e.drawn {
		for same < len(cells) && same < len(e.shown) && cells[same] == e.shown[same] {
			same++
		}
		for same > 0 && (same < len(cells) && Width(cells[same]) == 0 || same < len(e.shown) && Width(e.shown[same]) == 0) {
			same-- // a mark changed: its character is sent again
		}
	} else {
		b.WriteByte('\r')
	}
	e.move(&b, cells, widthOf(cells[:same]))
	if same < len(cells) || same < len(e.shown) {
		b.WriteString(string(cells[same:]))
		e.cursor = widthOf(cells)
		if n := widthOf(e.shown) - e.cursor; n > 0 {
			b.WriteString(strings.Repeat(" ", n))
			b.WriteString(strings.Repeat("\b", n))
		}
	}
	e.move(&b, cells, at)
	e.shown, e.drawn = cells, true
	if b.Len() > 0 {
		e.write(b.String())
	}
}

// move brings the cursor to a column: back with backspaces, forth by writing
// again what stands there.
func (e *Editor) move(b *strings.Builder, cells []rune, column int) {
	if e.cursor > column {
		b.WriteString(strings.Repeat("\b", e.cursor-column))
		e.cursor = column
	}
	for at, i := 0, 0; e.cursor < column && i < len(cells); i++ {
		if at >= e.cursor {
			b.WriteRune(cells[i])
		}
		at += Width(cells[i])
		if at >= column {
			e.cursor = column
		}
	}
}
