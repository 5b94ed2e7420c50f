package line

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
)

// typed feeds keys to an editor and returns every line it gave.
func typed(keys string, e func(*Editor)) (lines []string, screen string, last error) {
	in := make(chan byte, len(keys))
	for i := range len(keys) {
		in <- keys[i]
	}
	close(in)
	var out bytes.Buffer
	ed := New(in, &out)
	if e != nil {
		e(ed)
	}
	for {
		l, err := ed.ReadLine(context.Background(), "> ")
		if errors.Is(err, ErrInterrupted) {
			lines = append(lines, "^C")
			continue
		}
		if err != nil {
			return lines, out.String(), err
		}
		lines = append(lines, l)
	}
}

func TestEditing(t *testing.T) {
	for _, tc := range []struct{ name, keys, want string }{
		{"plain", "show vrrp\r", "show vrrp"},
		{"ends", "a\rb\nc\r\nd\n", "a,b,c,d"},
		{"backspace", "abx\x7fc\r", "abc"},
		{"beginning", "bc\x01a\r", "abc"},
		{"end", "b\x01a\x05c\r", "abc"},
		{"left and right", "ac\x1b[Db\x1b[Cd\r", "abcd"},
		{"home and end", "b\x1b[1~a\x1b[4~c\x1b[H<\x1b[F>\r", "<abc>"},
		{"application keys", "b\x1bOHa\r", "ab"},
		{"delete", "abc\x01\x1b[3~\x04\r", "c"},
		{"kill", "abcdef\x02\x02\x0b\r", "abcd"},
		{"kill before", "abc\x15d\r", "d"},
		{"word", "show log vrrp \x17\x17x\r", "show x"},
		{"history", "one\rtwo\r\x1b[A\x1b[A\r", "one,two,one"},
		{"history and back", "one\rhalf\x10\x0e!\r", "one,half!"},
		{"history is not changed", "one\r\x10x\r\x10\x10\r", "one,onex,one"},
		{"interrupt", "abc\x03def\r", "^C,def"},
		{"utf-8", "gr\xc3\xbc\xc3\x9fe\x7f\x7fn\r", "grün"},
		{"broken utf-8", "a\xff\xc3b\r", "a\uFFFD\uFFFDb"},
		{"unknown keys", "a\x1b[99;5Xb\x1b\x1bc\x00\x1d\r", "ab"},
		{"question mark", "a?\r", "a?"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			lines, screen, err := typed(tc.keys, nil)
			got := strings.Join(lines, ",")
			if tc.name == "broken utf-8" || tc.name == "unknown keys" {
				if len(lines) != 1 { // what it is does not matter, that it goes on does
					t.Errorf("lines %q", lines)
				}
			} else if got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
			if !errors.Is(err, ErrEnd) {
				t.Errorf("ended with %v", err)
			}
			if strings.Contains(screen, "\x1b") {
				t.Errorf("escape sequences on the screen: %q", screen)
			}
		})
	}
}

// shown plays what was written on a terminal of one line.
func shown(out string) string {
	var rows []string
	row, at := []rune{}, 0
	for _, r := range out {
		switch r {
		case '\r':
			at = 0
		case '\n':
			rows = append(rows, strings.TrimRight(string(row), " "))
			row, at = nil, 0
		case '\b':
			at = max(0, at-1)
		case '\a':
		default:
			for len(row) <= at {
				row = append(row, ' ')
			}
			row[at] = r
			at++
		}
	}
	return strings.Join(append(rows, string(row)), "\n")
}

func TestScreen(t *testing.T) {
	_, out, _ := typed("abc\x7f\x7fxyz\x01<\r", nil)
	if got := shown(out); !strings.HasPrefix(got, "> <axyz\n") {
		t.Errorf("the screen shows %q", got)
	}
	// A line wider than the terminal never wraps.
	_, out, _ = typed(strings.Repeat("0123456789", 20)+"\x01\r", func(e *Editor) { e.SetWidth(40) })
	for _, row := range strings.Split(shown(out), "\n") {
		if len(row) > 40 {
			t.Errorf("%d columns: %q", len(row), row)
		}
	}
}

func TestCompletion(t *testing.T) {
	complete := func(before string) (int, []string, []string) {
		start := strings.LastIndex(before, " ") + 1
		var words []string
		for _, w := range []string{"show", "shut", "version", "vrrp", "<NAME>", "<Enter>"} {
			if strings.HasPrefix(w, before[start:]) || w[0] == '<' && before == "show vrrp " {
				words = append(words, w)
			}
		}
		return start, words, []string{"help of the first"}
	}
	with := func(e *Editor) { e.Complete = complete }
	for _, tc := range []struct{ keys, want, screen string }{
		{"sho\t\r", "show ", ""},
		{"s\tw\r", "shw", "> sh"},
		{"s\t\to\t\r", "show ", "  show            help of the first\n  shut\n"},
		{"x\t\r", "x", ""},
		{"show v\trr\t\r", "show vrrp ", "  version"},
		{"show vrrp vr\t\r", "show vrrp vrrp ", ""},
		{"show vrrp \t\r", "show vrrp ", "  <NAME>"}, // what can be typed is told, never typed for one
		{"show ?vr\t\r", "show vrrp ", "  version"},
		{"commit comment why?\r", "commit comment why?", ""},
	} {
		lines, out, _ := typed(tc.keys, with)
		if len(lines) != 1 || lines[0] != tc.want || !strings.Contains(shown(out), tc.screen) {
			t.Errorf("%q: %q, want %q; screen %q, want %q in it", tc.keys, lines, tc.want, shown(out), tc.screen)
		}
	}
}

func TestReadText(t *testing.T) {
	for _, tc := range []struct{ keys, want, err string }{
		{"a {\r}\r.\rrest", "a {\n}\n", ""},
		{"a\r\nb\r\n.\r\n", "a\nb\n", ""},
		{"a\n\x04", "a\n", ""},
		{"a", "a", ""},
		{"ax\x7f\r\tb\x00\r.\r", "a\n\tb\x00\n", ""},
		{"a\r\x03", "", "interrupted"},
		{strings.Repeat("x", 200), "", "too long"},
	} {
		in := make(chan byte, len(tc.keys))
		for i := range len(tc.keys) {
			in <- tc.keys[i]
		}
		close(in)
		got, err := New(in, &bytes.Buffer{}).ReadText(context.Background(), 100)
		if got != tc.want || (err == nil) != (tc.err == "") || (err != nil && !strings.Contains(err.Error(), tc.err)) {
			t.Errorf("%q: %q %v, want %q %s", tc.keys, got, err, tc.want, tc.err)
		}
	}
}

// What is pasted may come from anywhere: the echo does not obey it.
func TestPasteOnScreen(t *testing.T) {
	const keys = "é\x1b[2J\u009b2J\x9bx\u202e\xe2\x82\ny\xe2\x7f\x7f.\n"
	in := make(chan byte, len(keys))
	for i := range len(keys) {
		in <- keys[i]
	}
	var out bytes.Buffer
	got, err := New(in, &out).ReadText(context.Background(), 100)
	if want := "é\x1b[2J\u009b2J\x9bx\u202e\xe2\x82\n"; got != want || err != nil {
		t.Errorf("read %q, %v, want %q", got, err, want)
	}
	if want := "é?[2J?2J?x?\r\ny\b \b.\r\n"; out.String() != want {
		t.Errorf("screen %q, want %q", out.String(), want)
	}
}

func TestContextEndsALine(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := New(make(chan byte), &bytes.Buffer{}).ReadLine(ctx, ""); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func FuzzReadLine(f *testing.F) {
	for _, s := range []string{"show\r", "\x1b[A\x1b[1;5C\r", "\xc3\x28\t?\x17\x15\x0b\r", "a\x10\x0e\x04\x03\x0c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, keys string) {
		lines, screen, err := typed(keys, func(e *Editor) {
			e.Complete = func(b string) (int, []string, []string) { return len(b), []string{"x", "xy"}, nil }
		})
		if !errors.Is(err, ErrEnd) && !errors.Is(err, ErrInterrupted) {
			t.Errorf("%q: %v", keys, err)
		}
		if strings.ContainsRune(screen, 0x1b) {
			t.Errorf("%q: escape sequences: %q", keys, screen)
		}
		for _, l := range lines {
			if len(l) > maxLine || strings.ContainsAny(l, "\x1b\r\n") && l != "^C" {
				t.Errorf("line %q", l)
			}
		}
	})
}
