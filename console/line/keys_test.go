package line

import (
	"context"
	"fmt"
	"strings"
	"testing"
)

func feed(keys string) <-chan byte {
	in := make(chan byte, len(keys))
	for i := range len(keys) {
		in <- keys[i]
	}
	close(in)
	return in
}

// What xterm, PuTTY, VT100, rxvt and the Linux console send.
func TestKeys(t *testing.T) {
	for _, c := range []struct{ bytes, want string }{
		{"\x1b[A\x1b[B\x1b[C\x1b[D", "up down right left"},
		{"\x1bOA\x1bOB", "up down"},                                             // application mode
		{"\x1b[C\x1bOC\x1bOD", "right C-right C-left"},                          // PuTTY with Ctrl
		{"\x1b[1;5C\x1b[1;5D\x1b[1;3C\x1b[5D", "C-right C-left A-right C-left"}, // xterm, old terminals
		{"\x1bOc\x1bOd", "C-right C-left"},                                      // rxvt
		{"\x1b\x1b[C", "A-right"},
		{"\x1b[H\x1b[F\x1bOH\x1bOF\x1b[1~\x1b[4~\x1b[7~\x1b[8~", "home end home end home end home end"},
		{"\x1b[2~\x1b[3~\x1b[5~\x1b[6~\x1b[3;5~", "insert delete pgup pgdn C-delete"},
		{"\x1bOP\x1b[11~\x1b[[A\x1b[[E\x1b[19~\x1b[24~", "f1 f1 f1 f5 f8 f12"},
		{"\x1bb\x1bf\x1b\x7f", "A-b A-f A-^127"},
		{"\x1bOM", "^13"},
		{"aé\x01", "a é ^1"},
		{"\x1b[200~x\x1b[201~", "paste x end-paste"},
		{"\x1b[99;5X\x1b[?1;2c", "? ?"},
		{"\x1b[\r", "^13"}, // a sequence that is none does not swallow Enter
		{"\x1b[1\x1b[A", "up"},
	} {
		k := NewKeys(feed(c.bytes))
		var got []string
		for {
			key, err := k.Read(context.Background())
			if err != nil {
				break
			}
			got = append(got, name(key))
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%q: %s, want %s", c.bytes, s, c.want)
		}
	}
}

func name(k Key) string {
	s := map[Code]string{Unknown: "?", Text: string(k.Rune), Control: fmt.Sprintf("^%d", k.Rune), Up: "up", Down: "down", Left: "left", Right: "right",
		Home: "home", End: "end", PageUp: "pgup", PageDown: "pgdn", Insert: "insert", Delete: "delete", PasteBegins: "paste", PasteEnds: "end-paste"}[k.Code]
	if k.Code >= F1 && k.Code <= F12 {
		s = fmt.Sprintf("f%d", k.Code-F1+1)
	}
	if k.Alt {
		s = "A-" + s
	}
	if k.Ctrl {
		s = "C-" + s
	}
	return s
}

func TestWords(t *testing.T) {
	for _, c := range []struct{ name, keys, want string }{
		{"word left", "show ipvs\x1bbx\r", "show xipvs"},
		{"word left of an address", "drain 10.0.0.21\x1bb\x1bbx\r", "drain 10.0.x0.21"},
		{"word right", "show ipvs\x01\x1bfx\r", "showx ipvs"},
		{"ctrl arrows", "show ipvs\x1b[1;5D\x1b[1;5Dx\x1b[1;5Cy\r", "xshowy ipvs"},
		{"delete word", "show ipvs\x01\x1bd\r", " ipvs"},
		{"delete word back", "show 10.0.0.1\x1b\x7f\r", "show 10.0.0."},
		{"yank", "show ipvs\x17\x19 \x19\r", "show ipvs ipvs"},
		{"kills belong together", "a b c\x17\x17\x01x\x19\r", "xb ca "},
		{"kill and yank", "abcdef\x02\x02\x0b\x01\x19\r", "efabcd"},
		{"first and last line", "one\rtwo\r\x1b<\r\x1b<\x1b>x\r", "one,two,one,x"},
		{"search", "show vrrp\rshow ipvs\r\x12vr\r", "show vrrp,show ipvs,show vrrp"},
		{"search again", "a one\rb one\r\x12one\x12\r", "a one,b one,a one"},
		{"search and forth", "a one\rb one\rx\r\x12one\x12\x13\r", "a one,b one,x,b one"},
		{"search and edit", "show vrrp\rx\r\x12vrr\x05 VI_1\r", "show vrrp,x,show vrrp VI_1"},
		{"search given up", "show vrrp\rhalf\x12vr\x07!\r", "show vrrp,half!"},
		{"search and interrupt", "show vrrp\r\x12vr\x03\r", "show vrrp,"},
		{"search shorter", "ab\rac\r\x12ab\x7fc\r", "ab,ac,ac"},
		{"search in vain", "ab\r\x12zz\x07\r", "ab,"},
		{"marks go with their character", "xe\xcc\x81\x7f\r", "x"},
		{"over marks", "xe\xcc\x81y\x1b[D\x1b[Dz\r", "xze\xcc\x81y"},
		{"paste", "\x1b[200~a\tb?\x1b[201~c\r", "a b?c"},
		{"paste of lines", "\x1b[200~one\r\ntwo\rthree\x1b[201~!\r", "one,two,three!"},
		{"paste of control characters", "\x1b[200~a\x03\x04\x15b\x1b[Ac\x1b[201~\r", "abc"},
	} {
		t.Run(c.name, func(t *testing.T) {
			lines, screen, _ := typed(c.keys, func(e *Editor) {
				e.Complete = func(string) (int, []string, []string) { t.Error("completed"); return 0, nil, nil }
			})
			if got := strings.Join(lines, ","); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if strings.Contains(screen, "\x1b") {
				t.Errorf("escape sequences on the screen: %q", screen)
			}
		})
	}
}

func TestDropPaste(t *testing.T) {
	e := New(feed("\x1b[200~bad\r\none\r\n\r\n two\r\nthree\x1b[201~after\r"), &strings.Builder{})
	ctx := context.Background()
	if l, err := e.ReadLine(ctx, ""); l != "bad" || err != nil {
		t.Fatal(l, err)
	}
	if n := e.DropPaste(ctx); n != 3 {
		t.Errorf("%d lines dropped, want 3", n)
	}
	if l, err := e.ReadLine(ctx, ""); l != "after" || err != nil {
		t.Error(l, err)
	}
	if n := e.DropPaste(ctx); n != 0 {
		t.Errorf("%d lines dropped without a paste", n)
	}
}

func TestPasteIntoText(t *testing.T) {
	var screen strings.Builder
	e := New(feed("load\r\n\x1b[200~a {\r\n}\r\n.\r\n\x1b[201~x\r"), &screen)
	e.MarkPaste = true
	ctx := context.Background()
	e.ReadLine(ctx, "")
	if text, err := e.ReadText(ctx, 100); text != "a {\n}\n" || err != nil {
		t.Errorf("%q %v", text, err)
	}
	if l, _ := e.ReadLine(ctx, ""); l != "x" {
		t.Errorf("%q", l)
	}
	if s := screen.String(); strings.Contains(s, "200~") || strings.Count(s, markPaste) != 2 || strings.Count(s, unmarkPaste) != 2 {
		t.Errorf("screen %q", s)
	}
}

func TestAnswer(t *testing.T) {
	e := New(feed("y\r\x1b[A\r"), &strings.Builder{})
	ctx := context.Background()
	if l, err := e.ReadAnswer(ctx, "? "); l != "y" || err != nil {
		t.Error(l, err)
	}
	if l, _ := e.ReadLine(ctx, ""); l != "" {
		t.Errorf("an answer came back as a command: %q", l)
	}
}

func TestHistoryIsBoundedAndHoldsNoSecrets(t *testing.T) {
	e := New(feed(""), &strings.Builder{})
	var lines []string
	for i := range 2000 {
		lines = append(lines, fmt.Sprintf("show log vrrp %d", i))
	}
	e.SetHistory(lines)
	if h := e.history; len(h) != maxHistory || h[maxHistory-1] != "show log vrrp 1999" || len(e.History()) != 0 {
		t.Errorf("%d lines, last %q", len(h), h[len(h)-1])
	}
	e.remember("show vrrp")
	if h := e.History(); len(h) != 1 || h[0] != "show vrrp" {
		t.Errorf("new are %q", h)
	}
	for i := range 2000 {
		e.remember(fmt.Sprint(i))
	}
	if len(e.History()) != maxHistory {
		t.Errorf("%d new lines", len(e.History()))
	}
	long := strings.Repeat("x", 4000)
	for i := range 100 {
		e.remember(fmt.Sprint(i) + long)
	}
	if n := len(strings.Join(e.History(), "")); n > maxHistoryBytes || n < maxHistoryBytes/2 {
		t.Errorf("%d bytes", n)
	}
	e.SetHistory(nil)
	for _, l := range []string{"set vrrp_instance VI_1 authentication auth_pass hunter2", "show vrrp", "set snmp community c0", "set system login ann key \"ssh-ed25519 AAAA\"",
		"set smtp Password x", "upgrade http://ann:x@192.0.2.1/fw"} {
		e.remember(l)
	}
	if h := e.History(); len(h) != 1 || h[0] != "show vrrp" {
		t.Errorf("kept %q", h)
	}
	if len(e.history) != 6 {
		t.Error("the session itself has forgotten lines")
	}
}

// column plays what was written on a row and tells where the cursor is.
func column(out string) (row string, at int) {
	cells := make([]string, 300)
	for _, r := range out {
		switch w := Width(r); {
		case r == '\r':
			at = 0
		case r == '\b':
			at--
		case r < ' ':
		case w == 0 && at > 0:
			cells[at-1] += string(r)
		default:
			cells[at] = string(r)
			if w == 2 {
				cells[at+1] = ""
			}
			at += w
		}
	}
	return strings.TrimRight(strings.Join(cells, ""), " "), at
}

func TestWideCharacters(t *testing.T) {
	for _, c := range []struct {
		keys, row string
		at        int
	}{
		{"日本語", "> 日本語", 8},
		{"日本語\x7f", "> 日本", 6},
		{"日本語\x1b[D\x1b[Dx", "> 日x本語", 5},
		{"日本語\x01", "> 日本語", 2},
		{"日本語\x01\x04", "> 本語", 2},
		{"ae\u0301b\x1b[D\x1b[D", "> ae\u0301b", 3},
		{"🙂x\x1b[D\x1b[D\x1b[C", "> 🙂x", 4},
	} {
		in := make(chan byte, 100)
		var out strings.Builder
		for i := range len(c.keys) {
			in <- c.keys[i]
		}
		close(in)
		New(in, &out).ReadLine(context.Background(), "> ")
		row, at := column(out.String())
		if row != c.row || at != c.at {
			t.Errorf("%q: %q at %d, want %q at %d", c.keys, row, at, c.row, c.at)
		}
	}
	// Wider than the terminal: never beyond its last column, the cursor in it.
	var out strings.Builder
	e := New(feed(strings.Repeat("日本語x", 30)+strings.Repeat("\x1b[D", 60)), &out)
	e.SetWidth(40)
	e.ReadLine(context.Background(), "> ")
	if row, at := column(out.String()); widthOf([]rune(row)) > 40 || at >= 40 {
		t.Errorf("%d columns, cursor at %d: %q", widthOf([]rune(row)), at, row)
	}
}

// A serial line is slow: a character at the end of a line is sent as itself.
func TestLittleIsSent(t *testing.T) {
	in := make(chan byte)
	var out strings.Builder
	done := make(chan struct{})
	go func() { New(in, &out).ReadLine(context.Background(), "lb1> "); close(done) }()
	for range 60 {
		in <- 'x'
	}
	close(in)
	<-done
	if n := out.Len(); n > len("\rlb1> ")+60 {
		t.Errorf("%d bytes for 60 characters", n)
	}
}
