package line

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// page shows text by pages.
type page struct {
	e        *Editor
	lines    []string
	rows     int    // of the screen
	columns  int    // of the screen
	top, end int    // the lines that are on the screen
	found    string // what was searched for last
}

// Page shows text on a screen of some rows; what does not fit in one screen waits
// for a key. It returns when all is shown, or the user has had enough: q or
// Ctrl-C. What is drawn takes no more of a terminal than the line does.
func (e *Editor) Page(ctx context.Context, text string, rows int) error {
	p := &page{e: e, rows: rows, columns: e.columns(), lines: strings.Split(strings.TrimSuffix(text, "\n"), "\n")}
	if !p.longer() {
		e.write(strings.ReplaceAll(text, "\n", "\r\n"))
		return nil
	}
	p.forth(rows - 1)
	for p.end < len(p.lines) {
		more, err := p.key(ctx)
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// height is the number of rows that a line takes.
func (p *page) height(i int) int {
	return max(1, (widthOf([]rune(expand(p.lines[i])))+p.columns-1)/p.columns)
}

// expand puts blanks for tabs, whose width depends on where they stand.
func expand(s string) string {
	if !strings.Contains(s, "\t") {
		return s
	}
	var b strings.Builder
	at := 0
	for _, r := range s {
		if r == '\t' {
			n := 8 - at%8
			b.WriteString(strings.Repeat(" ", n))
			at += n
			continue
		}
		b.WriteRune(r)
		at += Width(r)
	}
	return b.String()
}

// longer tells whether the text is longer than the screen.
func (p *page) longer() bool {
	n := 0
	for i := range p.lines {
		if n += p.height(i); n > p.rows-1 {
			return true
		}
	}
	return false
}

// forth shows what follows, up to some rows: at least a line.
func (p *page) forth(rows int) {
	for n := 0; p.end < len(p.lines) && (n == 0 || n+p.height(p.end) <= rows); p.end++ {
		n += p.height(p.end)
		p.e.write(expand(p.lines[p.end]) + "\r\n")
	}
	p.top = p.above(p.end, p.rows-1)
}

// above is the first line of a screen of some rows that ends before line end.
func (p *page) above(end, rows int) int {
	for n := 0; end > 0; end-- {
		if n += p.height(end - 1); n > rows {
			break
		}
	}
	return end
}

// at shows the screen that begins with a line.
func (p *page) at(top int) {
	p.top, p.end = top, top
	p.forth(p.rows - 1)
}

// key shows where the screen is and does what a key asks for.
func (p *page) key(ctx context.Context) (more bool, err error) {
	prompt := fmt.Sprintf("-- more -- %d%%, %d lines; h: help --", 100*p.end/len(p.lines), len(p.lines))
	p.e.write(prompt)
	key, err := p.e.keys.Read(ctx)
	wipe := "\r" + strings.Repeat(" ", len(prompt)) + "\r"
	p.e.write(wipe)
	if err != nil {
		return false, err
	}
	r := key.Rune
	if key.Code == Control && !key.Alt {
		switch key.Rune {
		case cr, lf:
			r = 'j'
		case ctrlC, ctrlD, ctrlG:
			r = 'q'
		case ctrlF:
			r = ' '
		case ctrlB:
			r = 'b'
		}
	}
	switch key.Code {
	case Down:
		r = 'j'
	case Up:
		r = 'k'
	case PageDown:
		r = ' '
	case PageUp:
		r = 'b'
	case Home:
		r = 'g'
	case End:
		r = 'G'
	}
	switch r {
	case ' ', 'f':
		p.forth(p.rows - 1)
	case 'j':
		p.forth(1)
	case 'k':
		p.at(max(0, p.top-1))
	case 'b':
		p.at(p.above(p.top, p.rows-1))
	case 'g':
		p.at(0)
	case 'G':
		p.at(p.above(len(p.lines), p.rows-1))
	case '/':
		return true, p.search(ctx)
	case 'n':
		p.next()
	case 'q', 'Q':
		return false, nil
	case 'h', '?':
		p.e.write("space page  Enter line  b back  g start  G end  /TEXT search  n next  q enough\r\n")
	}
	return true, nil
}

// search asks for a text and shows where it is.
func (p *page) search(ctx context.Context) error {
	text, err := p.e.ReadAnswer(ctx, "/")
	switch {
	case errors.Is(err, ErrInterrupted):
		return nil
	case err != nil:
		return err
	}
	if text != "" {
		p.found = strings.ToLower(text)
	}
	p.next()
	return nil
}

// next shows the next line with what was searched for, first after the first of
// the screen.
func (p *page) next() {
	if p.found == "" {
		p.e.write("nothing was searched for: /TEXT\r\n")
		return
	}
	for i := p.top + 1; i < len(p.lines); i++ {
		if strings.Contains(strings.ToLower(p.lines[i]), p.found) {
			p.e.write("...\r\n")
			p.at(i)
			return
		}
	}
	p.e.write("not found further down\r\n")
}
