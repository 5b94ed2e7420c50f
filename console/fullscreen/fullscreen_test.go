package fullscreen

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"ballast/console/line"
)

// terminal plays what was drawn: only what a VT100 knows.
type terminal struct {
	t        *testing.T
	rows     [][]rune
	row, col int
}

func newTerminal(t *testing.T, columns, rows int) *terminal {
	s := &terminal{t: t}
	for range rows {
		s.rows = append(s.rows, []rune(strings.Repeat(" ", columns)))
	}
	return s
}

func (s *terminal) Write(p []byte) (int, error) {
	text := []rune(string(p))
	for i := 0; i < len(text); i++ {
		if text[i] != 27 {
			if text[i] < ' ' || s.row >= len(s.rows) || s.col >= len(s.rows[0]) {
				s.t.Fatalf("%q at %d,%d", text[i], s.row, s.col)
			}
			s.rows[s.row][s.col] = text[i]
			for w := line.Width(text[i]); w > 0; w-- {
				if s.col++; w == 2 {
					s.rows[s.row][s.col] = 0
				}
			}
			continue
		}
		j := i + 2
		for j < len(text) && (text[j] >= '0' && text[j] <= '?') {
			j++
		}
		args := string(text[i+2 : j])
		switch text[j] {
		case 'H':
			s.row, s.col = 1, 1
			fmt.Sscanf(args, "%d;%d", &s.row, &s.col)
			s.row, s.col = s.row-1, s.col-1
		case 'K':
			for k := s.col; k < len(s.rows[s.row]); k++ {
				s.rows[s.row][k] = ' '
			}
		case 'J':
			for _, r := range s.rows {
				for k := range r {
					r[k] = ' '
				}
			}
		case 'm', 'h', 'l':
		default:
			s.t.Fatalf("escape sequence %q", string(text[i:j+1]))
		}
		i = j
	}
	return len(p), nil
}

func (s *terminal) String() string {
	var out []string
	for _, r := range s.rows {
		out = append(out, strings.TrimRight(strings.ReplaceAll(string(r), "\x00", ""), " "))
	}
	return strings.Join(out, "\n")
}

// edited types keys into an editor with a check that finds lines with "bad".
func edited(t *testing.T, text, keys string) (result string, changed bool, screen *terminal) {
	t.Helper()
	in := make(chan byte, len(keys))
	for i := range len(keys) {
		in <- keys[i]
	}
	close(in)
	screen = newTerminal(t, 80, 24)
	result, changed, err := Edit(context.Background(), Screen{Keys: line.NewKeys(in), Out: screen, Size: func() (int, int) { return 80, 24 }}, text,
		func(_ context.Context, s string) (list []Problem, err error) {
			if strings.Contains(s, "down") {
				return nil, errors.New("conf does not answer")
			}
			for i, l := range strings.Split(s, "\n") {
				if strings.Contains(l, "bad") {
					list = append(list, Problem{i + 1, fmt.Sprintf("candidate:%d: unknown keyword bad", i+1)})
				}
			}
			return list, nil
		})
	if err != nil && !errors.Is(err, line.ErrEnd) {
		t.Errorf("%q: %v", keys, err)
	}
	return result, changed, screen
}

func TestEdit(t *testing.T) {
	const abc = "a {\n    b\n}\n"
	for _, c := range []struct{ name, text, keys, want string }{
		{"nothing", abc, "\x18", "-"},
		{"type", abc, "x\x0f\x18", "xa {\n    b\n}\n"},
		{"not taken over", abc, "x\x18n", "-"},
		{"asked and taken over", abc, "x\x18y", "xa {\n    b\n}\n"},
		{"asked and gone on", abc, "x\x18\x03y\x0f\x18", "xya {\n    b\n}\n"},
		{"a new line is indented", abc, "\x1b[B\x1b[F\rc\x0f\x18", "a {\n    b\n    c\n}\n"},
		{"a paste is not", abc, "\x1b[B\x1b[F\x1b[200~\r\n  c\tx\x1b[201~\x0f\x18", "a {\n    b\n  c\tx\n}\n"},
		{"tab", abc, "\x1b[B\x1b[F \tx\x0f\x18", "a {\n    b   x\n}\n"},
		{"backspace joins", abc, "\x1b[B\x7f\x0f\x18", "a {    b\n}\n"},
		{"delete joins", abc, "\x1b[F\x1b[3~\x04\x0f\x18", "a {   b\n}\n"},
		{"cut and paste", abc, "\x0b\x0b\x1b[F\x19\x0f\x18", "a {\n    b\n}\n"},
		{"cut all", abc, "\x0b\x0b\x0b\x0f\x18", "\n"},
		{"undo", abc, "xyz\x1b[B\x0b\x1a\x1a\x0f\x18", abc},
		{"undo typing of a line at once", abc, "xyz\x7f\x1a\x0f\x18", abc},
		{"find", abc, "\x06B\rx\x0f\x18", "a {\n    xb\n}\n"},
		{"find from the start again", abc, "\x1b[6~\x06A\rx\x0f\x18", "xa {\n    b\n}\n"},
		{"find in vain", abc, "\x06zebra\r\x18", "-"},
		{"problems", "a\nbad 1\nbad 2\n", "\x0fx\x07y\x07z\x0f\x18", "a\nzxbad 1\nybad 2\n"},
		{"up and down keep the column", "abcdef\nx\nabcdef\n", "\x1b[F\x1b[B\x1b[B!\x0f\x18", "abcdef\nx\nabcdef!\n"},
		{"page", strings.Repeat("x\n", 100), "\x1b[6~\x1b[5~\x1b[6~!\x0f\x18", strings.Repeat("x\n", 21) + "!" + strings.Repeat("x\n", 79)},
		{"wide", "日本\n", "\x1b[C!\x0f\x18", "日!本\n"},
		{"the service is down", abc, "down\x18yn", "-"},
		{"the service is down, and left", abc, "down\x18y\x18n", "-"},
		{"no end of line at the end", "a", "x\x0f\x18", "xa\n"},
		{"empty", "", "x\x0f\x18", "x\n"},
		{"carriage returns", "a\r\nb\r\n", "x\x0f\x18", "xa\nb\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, changed, screen := edited(t, c.text, c.keys)
			if want := c.want; changed == (want == "-") || changed && got != want {
				t.Errorf("%q: changed %v, %q, want %q; screen\n%s", c.keys, changed, got, want, screen)
			}
		})
	}
}

func TestScreen(t *testing.T) {
	in := make(chan byte, 100)
	for _, b := range []byte("\x0f") {
		in <- b
	}
	screen := newTerminal(t, 80, 24)
	m := &model{text: newText("vrrp_instance VI_1 {\n\tbad 1\n}\n! \x1b[2J日本\n" + strings.Repeat("x", 200) + "\n"), columns: 80, rows: 10}
	m.check = func(context.Context, string) ([]Problem, error) {
		return []Problem{{2, "candidate:2:2: error: unknown keyword bad"}}, nil
	}
	d := &drawer{out: screen}
	d.whole()
	m.key(context.Background(), line.Key{Code: line.Text, Rune: 'x'})
	m.key(context.Background(), line.Key{Code: line.Control, Rune: ctrl('O')})
	d.draw(m)
	const want = ` candidate  line 2 of 5  1 problems
 xvrrp_instance VI_1 {
!        bad 1
 }
 ! ?[2J日本
 xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
~
~
1 of 1: candidate:2:2: error: unknown keyword bad
` + keysLine
	if got := strings.TrimSpace(screen.String()); got != strings.TrimSpace(want) {
		t.Errorf("screen\n%s\nwant\n%s", got, want)
	}
	if screen.row != 2 || screen.col != 1 {
		t.Errorf("cursor at %d,%d", screen.row, screen.col)
	}
	// The end of a long line is shown by moving all to the side.
	m.text.cursor = point{4, 200}
	d.draw(m)
	if screen.row != 5 || screen.col > 78 || !strings.HasPrefix(screen.String()[strings.Index(screen.String(), "\n")+1:], " \n") && screen.rows[5][1] != 'x' {
		t.Errorf("cursor at %d,%d\n%s", screen.row, screen.col, screen)
	}
}

// A key that changes one row sends about one row.
func TestLittleIsSent(t *testing.T) {
	var b strings.Builder
	m := &model{text: newText(strings.Repeat("line\n", 1000)), columns: 80, rows: 24, taken: "x"}
	d := &drawer{out: &b}
	d.whole()
	m.key(context.Background(), line.Key{Code: line.Text, Rune: 'x'})
	d.draw(m)
	b.Reset()
	m.key(context.Background(), line.Key{Code: line.Text, Rune: 'y'})
	d.draw(m)
	if b.Len() > 50 {
		t.Errorf("%d bytes: %q", b.Len(), b.String())
	}
}

func FuzzEdit(f *testing.F) {
	for _, k := range []string{"x\x0f\x18", "\x0b\x0b\x19\x1a\x1a", "\x06a\r\x18y", "\x1b[B\x1b[6~\x7f\x04\t\r\x0f\x07"} {
		f.Add("a {\n  b\n}\n", k)
	}
	f.Fuzz(func(t *testing.T, text, keys string) {
		m := &model{text: newText(text), taken: text, columns: 40, rows: 6,
			check: func(context.Context, string) ([]Problem, error) { return []Problem{{1000, "x"}, {}}, nil }}
		in := make(chan byte, len(keys))
		for i := range len(keys) {
			in <- keys[i]
		}
		close(in)
		k := line.NewKeys(in)
		for {
			key, err := k.Read(context.Background())
			if err != nil {
				break
			}
			m.key(context.Background(), key)
			if rows, row, col := m.view(); len(rows) != m.rows || row >= m.rows || col < 0 || m.text.cursor.at > len(m.text.line()) {
				t.Fatalf("%d rows, cursor %d,%d", len(rows), row, col)
			}
			size := 0
			for _, l := range m.text.lines {
				size += len(l) + 1
			}
			if d := size - m.text.size; d < -len(text)-1 || d > len(text)+2 {
				t.Fatalf("%d bytes, counted %d", size, m.text.size)
			}
		}
	})
}

// drawn tells of each drawing of the whole screen.
type drawn chan struct{}

func (d drawn) Write(p []byte) (int, error) {
	if strings.Contains(string(p), "\x1b[m\x1b[2J") {
		d <- struct{}{}
	}
	return len(p), nil
}

// A size that comes while a key is taken is drawn, whoever is late.
func TestResizedBetweenKeys(t *testing.T) {
	for range 2000 {
		keys, resized, whole := make(chan byte, 10), make(chan struct{}, 1), make(drawn, 10)
		const typed = "xyz"
		for i := range len(typed) {
			keys <- typed[i]
		}
		looks := 0
		size := func() (int, int) { // asked before each key, and here it changes behind the last answer
			if looks++; looks == len(typed)+1 {
				resized <- struct{}{}
			}
			return 80, 24
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			Edit(context.Background(), Screen{Keys: line.NewKeys(keys), Out: whole, Size: size, Resized: resized}, "a\n", nil)
		}()
		<-whole // the first
		select {
		case <-whole:
		case <-time.After(time.Minute):
			t.Fatal("the new size is not drawn")
		}
		close(keys)
		<-done
	}
}
