package fullscreen

import (
	"fmt"
	"io"
	"strings"
	"sync/atomic"
)

// height is the number of rows for text.
func (m *model) height() int { return m.rows - 3 }

// view is what the screen shows, row by row, and where the cursor is.
func (m *model) view() (rows []string, row, col int) {
	c := m.text.cursor
	at := width(m.text.line()[:c.at])
	h, w := m.height(), m.columns-2 // a column for the mark of problems, none in the last one: it may wrap
	switch {
	case c.line < m.top:
		m.top = c.line
	case c.line >= m.top+h:
		m.top = c.line - h + 1
	}
	switch {
	case at < m.side:
		m.side = max(0, at-w/2)
	case at >= m.side+w:
		m.side = at - w/2
	}
	state := ""
	if m.modified() {
		state = "  changed"
	}
	if n := len(m.problems); n > 0 {
		state += fmt.Sprintf("  %d problems", n)
	}
	rows = append(rows, fmt.Sprintf(" candidate  line %d of %d%s", c.line+1, len(m.text.lines), state))
	bad := map[int]bool{}
	for _, p := range m.problems {
		bad[p.Line-1] = true
	}
	for i := m.top; i < m.top+h; i++ {
		switch {
		case i >= len(m.text.lines):
			rows = append(rows, "~")
		case bad[i]:
			rows = append(rows, "!"+part(m.text.lines[i], m.side, w))
		default:
			rows = append(rows, " "+part(m.text.lines[i], m.side, w))
		}
	}
	row, col = c.line-m.top+1, at-m.side+1
	switch m.ask {
	case "search":
		rows = append(rows, "find: "+part(m.answer, 0, w-8))
		row, col = m.rows-2, 6+width(part(m.answer, 0, w-8))
	case "leave":
		rows = append(rows, "Take over what was changed? y: yes  n: no, forget it  ^C: go on editing")
	default:
		rows = append(rows, part(strings.ReplaceAll(m.message, "\n", " "), 0, w))
	}
	return append(rows, keysLine), row, col
}

// part is what is shown of s from a column on.
func part(s string, side, w int) string {
	var b strings.Builder
	n := 0
	for _, r := range s {
		text, cells := cell(r, n)
		if n+cells > side+w {
			break
		}
		switch {
		case n >= side:
			b.WriteString(text)
		case n+cells > side: // half of a wide one
			b.WriteString(strings.Repeat(" ", n+cells-side))
		}
		n += cells
	}
	return b.String()
}

// drawer shows rows on a terminal.
type drawer struct {
	out   io.Writer
	shown []string
	all   atomic.Bool // what is shown is not known
}

func (d *drawer) begin(second bool) {
	if second {
		io.WriteString(d.out, "\x1b[?1049h\x1b[?2004h")
	}
	d.whole()
}

func (d *drawer) end(second bool) {
	if second {
		io.WriteString(d.out, "\x1b[?2004l\x1b[?1049l")
		return
	}
	io.WriteString(d.out, "\x1b[2J\x1b[H")
}

// whole makes the next drawing a whole one.
func (d *drawer) whole() { d.all.Store(true) }

// draw shows what has changed.
func (d *drawer) draw(m *model) {
	rows, row, col := m.view()
	var b strings.Builder
	if d.all.Swap(false) || len(d.shown) != len(rows) {
		b.WriteString("\x1b[m\x1b[2J")
		d.shown = make([]string, len(rows))
	}
	for i, r := range rows {
		r = part(r, 0, m.columns-1)
		if i == 0 || i == len(rows)-1 {
			r = "\x1b[7m" + r + strings.Repeat(" ", max(0, m.columns-1-width(r))) + "\x1b[m"
		}
		if r != d.shown[i] {
			fmt.Fprintf(&b, "\x1b[%d;1H%s\x1b[K", i+1, r)
			d.shown[i] = r
		}
	}
	fmt.Fprintf(&b, "\x1b[%d;%dH", row+1, min(col, m.columns-2)+1)
	io.WriteString(d.out, b.String())
}
