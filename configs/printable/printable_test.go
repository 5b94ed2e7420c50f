package printable

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestHostile(t *testing.T) {
	for _, c := range []struct{ name, in, line, text, escaped string }{
		{"harmless", "né 10.0.0.1 → 5\u00a0% 日本 🙂", "né 10.0.0.1 → 5\u00a0% 日本 🙂", "né 10.0.0.1 → 5\u00a0% 日本 🙂", "né 10.0.0.1 → 5\u00a0% 日本 🙂"},
		{"empty", "", "", "", ""},
		{"clear screen", "a\x1b[2Jb", "a?[2Jb", "a?[2Jb", `a\u001b[2Jb`},
		{"window title", "\x1b]0;owned\ab", "?]0;owned?b", "?]0;owned?b", `\u001b]0;owned\u0007b`},
		{"C1 CSI", "a\u009b2Jb", "a?2Jb", "a?2Jb", `a\u009b2Jb`},
		{"C1 OSC and ST", "\u009d0;x\u009c", "?0;x?", "?0;x?", `\u009d0;x\u009c`},
		{"C1 as a byte", "a\x9b2Jb", "a?2Jb", "a?2Jb", `a\ufffd2Jb`},
		{"DEL, NUL, backspace", "a\x7f\x00\b", "a???", "a???", `a\u007f\u0000\u0008`},
		{"no UTF-8", "a\xff\xc3(\xe2\x82", "a??(??", "a??(??", `a\ufffd\ufffd(\ufffd\ufffd`},
		{"overlong ESC", "\xc0\x9b[2J", "??[2J", "??[2J", `\ufffd\ufffd[2J`},
		{"surrogate", "\xed\xa0\x80", "???", "???", `\ufffd\ufffd\ufffd`},
		{"replacement character", "a\ufffd", "a\ufffd", "a\ufffd", "a\ufffd"},
		{"bidi override", "user\u202enimda\u202c", "user?nimda?", "user?nimda?", `user\u202enimda\u202c`},
		{"bidi isolate, marks", "\u2066a\u2069\u200e\u200f\u061c", "?a????", "?a????", `\u2066a\u2069\u200e\u200f\u061c`},
		{"invisible", "a\u200bb\ufeffc\u00add", "a?b?c?d", "a?b?c?d", `a\u200bb\ufeffc\u00add`},
		{"tag above the BMP", "a\U000e0041", "a?", "a?", `a\udb40\udc41`},
		{"line separators", "a\u2028b\u2029c\u0085d", "a?b?c?d", "a?b?c?d", `a\u2028b\u2029c\u0085d`},
		{"lines", "a\tb\r\nc\n", "a b c ", "a\tb\nc\n", `a\u0009b\u000ac\u000a`},
		{"a line written over", "safe\revil\r", "safe?evil?", "safe?evil?", `safe\u000devil\u000d`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := Line(c.in); got != c.line {
				t.Errorf("Line(%q) = %q, want %q", c.in, got, c.line)
			}
			if got := Text(c.in); got != c.text {
				t.Errorf("Text(%q) = %q, want %q", c.in, got, c.text)
			}
			if got := Escaped(c.in); got != c.escaped {
				t.Errorf("Escaped(%q) = %q, want %q", c.in, got, c.escaped)
			}
		})
	}
}

func TestShort(t *testing.T) {
	for _, c := range []struct {
		in   string
		n    int
		want string
	}{{"abc", 3, "abc"}, {"abcd", 3, "abc…"}, {"aéb", 2, "a…"}, {"日本", 4, "日…"}, {"日本", 2, "…"}, {"\x80\x80", 1, "…"}} {
		if got := Short(c.in, c.n); got != c.want {
			t.Errorf("Short(%q, %d) = %q, want %q", c.in, c.n, got, c.want)
		}
	}
}

// obeyed finds what a terminal would obey, written down apart from Rune.
func obeyed(s string) bool {
	return !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool {
		return r < ' ' || r >= 0x7f && r < 0xa0 || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Co, unicode.Cs)
	})
}

func FuzzPrintable(f *testing.F) {
	for _, s := range []string{"ok é", "\x1b]0;x\a\u009b2J\x9b", "\xff\u202e\U000e0001\r\n\t\r"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		line, text, escaped := Line(s), Text(s), Escaped(s)
		if obeyed(line) {
			t.Errorf("Line(%q) = %q", s, line)
		}
		if obeyed(strings.NewReplacer("\n", "", "\t", "").Replace(text)) {
			t.Errorf("Text(%q) = %q", s, text)
		}
		if obeyed(escaped) {
			t.Errorf("Escaped(%q) = %q", s, escaped)
		}
		if Line(line) != line || Text(text) != text || Escaped(escaped) != escaped {
			t.Errorf("%q: a second pass changes it again", s)
		}
		if short := Short(line, 9); len(short) > 9+len("…") || obeyed(short) {
			t.Errorf("Short(%q) = %q", line, short)
		}
		j, err := json.MarshalIndent(map[string]string{"k": s}, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		var want, got map[string]string
		if err := json.Unmarshal(j, &want); err != nil {
			t.Fatal(err)
		}
		shown := JSON(string(j))
		if err := json.Unmarshal([]byte(shown), &got); err != nil || got["k"] != want["k"] || obeyed(strings.ReplaceAll(shown, "\n", "")) {
			t.Errorf("JSON: %q: %q, %v", s, shown, err)
		}
	})
}
