package fullscreen

import (
	"context"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"ballast/configs/printable"
	"ballast/console/line"
)

// Problem is what a check says about a line; 0: about no line.
type Problem struct {
	Line int
	Text string
}

// Screen is where an editor is shown.
type Screen struct {
	Keys    *line.Keys
	Out     io.Writer
	Size    func() (columns, rows int)
	Resized <-chan struct{} // gets a token when Size changes
	Paste   bool            // the terminal has a second screen, and marks what is pasted
}

// Least size of a screen.
const (
	MinColumns = 40
	MinRows    = 6
)

// Edit lets the user edit s until she leaves. check tells what is wrong with a
// text, when it is taken over. changed is false when nothing was taken over.
func Edit(ctx context.Context, on Screen, s string, check func(context.Context, string) ([]Problem, error)) (result string, changed bool, err error) {
	m := &model{text: newText(s), taken: s, check: check}
	d := &drawer{out: on.Out}
	d.begin(on.Paste)
	defer d.end(on.Paste)
	for !m.left {
		m.columns, m.rows = on.Size()
		m.columns, m.rows = max(m.columns, MinColumns), max(m.rows, MinRows)
		d.draw(m)
		kctx, cancel := context.WithCancel(ctx)
		over := make(chan struct{})
		go func() {
			defer close(over)
			select {
			case <-on.Resized:
				d.whole()
				cancel()
			case <-kctx.Done():
			}
		}()
		key, err := on.Keys.Read(kctx)
		resized := kctx.Err() != nil
		cancel()
		<-over // or it could take the next size's token, and nobody would draw for it
		switch {
		case err == nil:
			m.key(ctx, key)
		case ctx.Err() != nil || !resized:
			return m.taken, m.changed, err
		}
	}
	return m.taken, m.changed, nil
}

// model is an editor without its screen.
type model struct {
	text    *text
	check   func(context.Context, string) ([]Problem, error)
	taken   string // what was taken over last
	changed bool   // something was taken over
	left    bool

	columns, rows int
	top, side     int // first line and column that are shown
	want          int // column that Up and Down go for; 0: the cursor's
	pasting       bool
	afterCR       bool // in a paste
	cuts          []string
	cutting       bool
	problems      []Problem
	next          int // of problems, for the key that goes there
	message       string
	ask           string // a question: "search", "leave"
	answer        string
	found         string
}

const keysLine = "^O check+take  ^X leave  ^F find  ^G next problem  ^K cut  ^Y paste  ^Z undo"

// modified tells whether there is something to take over.
func (m *model) modified() bool { return m.text.String() != ended(m.taken) }

func ended(s string) string { return strings.TrimSuffix(s, "\n") + "\n" }

// key does what a key means.
func (m *model) key(ctx context.Context, k line.Key) {
	if m.ask != "" {
		m.answered(ctx, k)
		return
	}
	cutting, want := m.cutting, m.want
	m.cutting, m.want, m.message = false, 0, ""
	t := m.text
	switch k.Code {
	case line.Text:
		if m.afterCR = false; !k.Alt {
			t.insert(string(k.Rune))
		}
		return
	case line.PasteBegins:
		m.pasting = true
	case line.PasteEnds:
		m.pasting = false
	case line.Control:
		m.control(ctx, k, cutting)
		return
	case line.Delete:
		t.delete()
		return
	case line.F2:
		m.take(ctx)
	case line.F8:
		m.problem()
	}
	t.still()
	m.move(k, want)
}

// move moves the cursor.
func (m *model) move(k line.Key, want int) {
	t := m.text
	c := &t.cursor
	switch k.Code {
	case line.Left:
		if c.at > 0 {
			c.at = before(t.line(), c.at)
		} else if c.line > 0 {
			*c = point{c.line - 1, len(t.lines[c.line-1])}
		}
	case line.Right:
		if c.at < len(t.line()) {
			c.at = after(t.line(), c.at)
		} else if c.line+1 < len(t.lines) {
			*c = point{c.line + 1, 0}
		}
	case line.Home:
		if c.at = 0; k.Ctrl {
			c.line = 0
		}
	case line.End:
		if k.Ctrl {
			c.line = len(t.lines) - 1
		}
		c.at = len(t.line())
	case line.Up, line.Down, line.PageUp, line.PageDown:
		if want == 0 {
			want = width(t.line()[:c.at])
		}
		m.want = want
		step := map[line.Code]int{line.Up: -1, line.Down: 1, line.PageUp: -m.height(), line.PageDown: m.height()}[k.Code]
		c.line = min(max(0, c.line+step), len(t.lines)-1)
		c.at = column(t.line(), want)
	}
}

func ctrl(letter rune) rune { return letter - 'A' + 1 }

func (m *model) control(ctx context.Context, k line.Key, cutting bool) {
	t := m.text
	if m.pasting {
		switch k.Rune {
		case '\r', '\n':
			if k.Rune == '\r' || !m.afterCR { // CR LF is one end of line
				t.newline(false)
			}
		case '\t':
			t.insert("\t")
		}
		m.afterCR = k.Rune == '\r'
		return
	}
	switch k.Rune {
	case 8, 127:
		t.backspace()
		return
	case ctrl('D'):
		t.delete()
		return
	case '\t':
		t.insert(strings.Repeat(" ", 4-width(t.line()[:t.cursor.at])%4))
		return
	}
	t.still()
	switch k.Rune {
	case '\r', '\n':
		t.newline(true)
	case ctrl('A'):
		m.move(line.Key{Code: line.Home}, 0)
	case ctrl('E'):
		m.move(line.Key{Code: line.End}, 0)
	case ctrl('P'):
		m.move(line.Key{Code: line.Up}, 0)
	case ctrl('N'):
		m.move(line.Key{Code: line.Down}, 0)
	case ctrl('B'):
		m.move(line.Key{Code: line.PageUp}, 0)
	case ctrl('V'):
		m.move(line.Key{Code: line.PageDown}, 0)
	case ctrl('K'):
		if !cutting {
			m.cuts = nil
		}
		m.cutting = true
		m.cuts = append(m.cuts, t.cut())
	case ctrl('Y'), ctrl('U'):
		t.paste(m.cuts)
	case ctrl('Z'):
		if !t.undo() {
			m.message = "nothing more to undo"
		}
	case ctrl('O'), ctrl('S'):
		m.take(ctx)
	case ctrl('G'):
		m.problem()
	case ctrl('F'), ctrl('W'):
		m.ask, m.answer = "search", ""
	case ctrl('L'):
		m.message = "^X leaves"
	case ctrl('X'), ctrl('C'), ctrl('Q'):
		if !m.modified() {
			m.left = true
			return
		}
		m.ask = "leave"
	}
}

// answered takes a key of an answer.
func (m *model) answered(ctx context.Context, k line.Key) {
	if k.Code == line.Control && (k.Rune == ctrl('C') || k.Rune == ctrl('G')) {
		m.ask = ""
		return
	}
	if m.ask == "leave" {
		switch k.Rune {
		case 'y', 'Y':
			m.ask = ""
			if m.take(ctx); m.taken == m.text.String() {
				m.left = true
			}
		case 'n', 'N':
			m.left = true
		}
		return
	}
	switch {
	case k.Code == line.Text && len(m.answer) < 100:
		m.answer += string(k.Rune)
	case k.Code == line.Control && (k.Rune == 8 || k.Rune == 127):
		m.answer = m.answer[:before(m.answer, len(m.answer))]
	case k.Code == line.Control && (k.Rune == '\r' || k.Rune == '\n'):
		m.ask = ""
		if m.answer != "" {
			m.found = m.answer
		}
		if m.message = ""; !m.text.find(m.found) {
			m.message = fmt.Sprintf("%q is not there", m.found)
		}
	}
}

// take takes the text over and checks it: what is wrong is shown, and is no
// reason to lose what was typed.
func (m *model) take(ctx context.Context) {
	s := m.text.String()
	list, err := m.check(ctx, s)
	if err != nil {
		m.message = "not taken over: " + err.Error()
		return
	}
	m.taken, m.changed = s, true
	m.problems, m.next = list, 0
	if len(list) == 0 {
		m.message = "taken over; no faults found. ^X leaves, \"commit\" makes it run"
		return
	}
	m.problem()
}

// problem goes to the next problem.
func (m *model) problem() {
	if len(m.problems) == 0 {
		m.message = "no problem is known; ^O checks"
		return
	}
	n := m.next % len(m.problems)
	p := m.problems[n]
	m.next = n + 1
	if p.Line > 0 {
		m.text.cursor = point{min(p.Line, len(m.text.lines)) - 1, 0}
	}
	m.message = fmt.Sprintf("%d of %d: %s", n+1, len(m.problems), p.Text)
}

func before(s string, at int) int {
	for at > 0 {
		r, n := utf8.DecodeLastRuneInString(s[:at])
		if at -= n; line.Width(r) > 0 || r < ' ' {
			break
		}
	}
	return at
}

func after(s string, at int) int {
	for first := true; at < len(s); first = false {
		r, n := utf8.DecodeRuneInString(s[at:])
		if !first && line.Width(r) > 0 || !first && r < ' ' {
			break
		}
		at += n
	}
	return at
}

// cell is how a character is shown behind some columns.
func cell(r rune, columns int) (string, int) {
	switch {
	case r == '\t':
		n := 8 - columns%8
		return strings.Repeat(" ", n), n
	case r == utf8.RuneError || !printable.Rune(r):
		return "?", 1
	}
	return string(r), line.Width(r)
}

// width is the number of columns of s.
func width(s string) (n int) {
	for _, r := range s {
		_, w := cell(r, n)
		n += w
	}
	return n
}

// column is the byte of s that stands in a column.
func column(s string, want int) int {
	n := 0
	for i, r := range s {
		_, w := cell(r, n)
		if n+w > want {
			return i
		}
		n += w
	}
	return len(s)
}
