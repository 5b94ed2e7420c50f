package syntax

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// spansOf shows an outline: kind, condition, words, and what is inside.
func spansOf(text string, from, to int, out *strings.Builder, indent string) {
	for _, s := range Outline(text, from, to) {
		out.WriteString(indent + string("LBDSIF"[s.Kind]) + " " + s.Cond + "|" + text[s.Head:s.Stop])
		if s.Alternatives {
			out.WriteString("|or")
		}
		if s.Unclosed {
			out.WriteString("|open")
		}
		out.WriteString("\n")
		if s.Kind == SpanBlock {
			spansOf(text, s.Open, s.Close, out, indent+" ")
		}
	}
}

func TestOutline(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"nested", "a 1 # b {\nc x {\n d 2\n e { f; g }\n}\n", "L |a 1\nB |c x\n L |d 2\n B |e\n  L |f; g\n"},
		{"brace below", "a\n# {\n\n{\nb }\nc\n", "B |a\n L |b\nL |c\n"},
		{"one line", "a { b } c { } d\n", "B |a\n L |b\nB |c\nL |d\n"},
		{"quotes", "a \"{\" {\n b \"}\" \\# x\n}\n", "B |a \"{\"\n L |b \"}\" \\# x\n"},
		{"parameter", "a ${B} {\n c ${D}\n}\n$X={ #\n$Y=\\\n a {\\\n }\nb\n", "B |a ${B}\n L |c ${D}\nD |$X={\nD |$Y=\\\n a {\\\n }\nL |b\n"},
		{"conditions", "@x a 1\n@^x a { b }\n@x\n@x # y\n", "L @x|a 1\nB @^x|a\n L |b\nF |@x\nF |@x\n"},
		{"alternatives", "a {\n@x b 1 {\n # c\n@y b 2 {\n d\n}\ne\n}\nf\n", "B |a\n B @x|b 1|or\n  L |d\n L |e\nL |f\n"},
		{"sequence", "~SEQ(i, 1, 3) a $i { b }\n~LST({a,b},{1,2}) c $a\nd\n", "S |~SEQ(i, 1, 3) a $i { b }\nS |~LST({a,b},{1,2}) c $a\nL |d\n"},
		{"include", "include /{a,b}.conf # {\na {\ninclude x\n}\n", "I |include /{a,b}.conf\nB |a\n I |include x\n"},
		{"faults", "} a {\n b\n", "B |a|open\n L |b\n"},
		{"stray brace", "{ a }\nb\n", "F |{\nL |b\n"},
		{"no byte order mark", "\xef\xbb\xbfa 1", "L |a 1\n"},
	} {
		var out strings.Builder
		spansOf(tt.text, 0, len(tt.text), &out, "")
		if diff := cmp.Diff(tt.want, out.String()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

// FuzzOutline: spans are in order, inside the text and do not overlap, and the
// blocks that the parser finds in a text without faults are those of Outline.
func FuzzOutline(f *testing.F) {
	f.Add("a { b }\n@x c {\n@y c {\n}\n$A=\\\nb\n~SEQ(i, 1, 2) d { }\n")
	f.Add("{ } } { \" \n include x\n\x00")
	f.Fuzz(func(t *testing.T, text string) {
		var walk func(from, to, depth int) int
		walk = func(from, to, depth int) (count int) {
			last := from
			for _, s := range Outline(text, from, to) {
				if s.Start < last || s.Head < s.Start || s.Stop < s.Head || s.End < s.Stop || s.End > to {
					t.Fatalf("%+v in %d…%d behind %d", s, from, to, last)
				}
				count++
				last = s.End
				if s.Kind == SpanBlock {
					if s.Open < s.Stop || s.Close < s.Open || s.Close > s.End {
						t.Fatalf("block %+v", s)
					}
					if depth < 64 {
						count += walk(s.Open, s.Close, depth+1)
					}
				}
			}
			return count
		}
		have := walk(0, len(text), 0)
		if strings.ContainsAny(text, `@$~\`) || strings.HasPrefix(text, "\xef") || strings.Contains(text, "include") {
			return
		}
		tree, problems := Parse("f", text, Options{})
		if len(problems) > 0 {
			return
		}
		var number func(nodes []*Node) int
		number = func(nodes []*Node) (n int) {
			for _, x := range nodes {
				n += 1 + number(x.Children)
			}
			return n
		}
		if want := number(tree.Nodes); have != want {
			t.Fatalf("%d statements, the parser has %d", have, want)
		}
	})
}
