package syntax

import (
	"bytes"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

// show prints a tree in one line a node.
func show(nodes []*Node, indent string, b *strings.Builder) {
	for _, n := range nodes {
		b.WriteString(indent)
		for i, w := range n.Words {
			if i > 0 {
				b.WriteByte(' ')
			}
			if w.Quoted {
				fmt.Fprintf(b, "%q", w.Text)
			} else {
				b.WriteString(w.Text)
			}
		}
		if n.Block {
			b.WriteString(" {")
		}
		b.WriteByte('\n')
		show(n.Children, indent+" ", b)
	}
}

func open(files fstest.MapFS) func(string) (fs.File, error) {
	return func(p string) (fs.File, error) { return files.Open(strings.TrimPrefix(p, "/")) }
}

func parse(text string, files fstest.MapFS) (string, string) {
	opts := Options{ConfigID: "a"}
	if files != nil {
		opts.Open = open(files)
	}
	tree, problems := Parse("/c/main", []byte(text), opts)
	var b, p strings.Builder
	show(tree.Nodes, "", &b)
	for _, x := range problems {
		fmt.Fprintf(&p, "%s\n", x)
	}
	return b.String(), p.String()
}

// TestLexer is the lexical grammar, one rule a row.
func TestLexer(t *testing.T) {
	for _, tt := range []struct{ name, in, want, problem string }{
		{"words", "a  b\tc\n", "a b c\n", ""},
		{"dos lines", "a b\r\nc\r\n", "a b\nc\n", ""},
		{"no newline at the end", "a", "a\n", ""},
		{"byte order mark", "\xef\xbb\xbfa\n", "a\n", ""},
		{"comments", "! x\n# y\na # z\nb#z\nc!z\n", "a\nb\nc\n", ""},
		{"comment in quotes", `a "b#c!d" # e`, "a \"b#c!d\"\n", ""},
		{"single quotes protect nothing", `a 'b#c'`, "a 'b\n", ""},
		{"escaped comment", `a b\#c \! d\x`, `a b#c ! d\x` + "\n", ""},
		{"quoted word touches", `a"b c"d`, "a \"b c\" d\n", ""},
		{"empty quotes", `a "" b`, "a \"\" b\n", ""},
		{"quote not closed", "a \"b c\nd\n", "a \"b c\"\nd\n", "the quote is not closed"},
		{"brace behind", "a {\nb\n}\n", "a {\n b\n", ""},
		{"brace without blank", "a{\nb\n}", "a {\n b\n", ""},
		{"brace below", "a\n{\nb\n}", "a {\n b\n", ""},
		{"all on one line", "a { b 1 } c { d { e } }", "a {\n b 1\nc {\n d {\n  e\n", ""},
		{"brace in quotes", `a "{" "}"`, "a \"{\" \"}\"\n", ""},
		{"close and open", "a {\n} b {\n}", "a {\nb {\n", ""},
		{"empty block", "a {\n}", "a {\n", ""},
		{"extra close", "a\n}\nb\n", "a\nb\n", "this } closes nothing"},
		{"stray open", "{ a }\nb", "b\n", "this { follows no line"},
		{"open at the end", "a {\n b {\n", "a {\n b {\n", "2 blocks are open: b (line 2), a (line 1)"},
		{"condition holds", "@a b 1\n@^b c 2\n", "b 1\nc 2\n", ""},
		{"condition does not hold", "@b b 1\n@^a c 2\n  @b d\n", "", ""},
		{"condition before a definition", "@a $X=1\n@b $X=2\nv $X\n", "v 1\n", ""},
		{"condition without a line", "@a\n", "", "no name or nothing after it"},
		{"definition", "$X=1 2\na $X\n", "a 1 2\n", ""},
		{"definition in braces", "$X=1\na ${X}/24 x${X}y\n", "a 1/24 x1y\n", ""},
		{"definition not replaced", "$X=1\na $X/24\n", "a $X/24\n", "is not replaced, since '/' follows"},
		{"not replaced in quotes", "$X=1\na \"$X\" \"${X}\"\n", "a \"$X\" \"1\"\n", "is not replaced"},
		{"before comma", "$X=1\na $X,$X)\n", "a 1,1)\n", ""},
		{"late binding", "$X=${Y}\n$Y=1\na $X\n$Y=2\na $X\n", "a 1\na 2\n", ""},
		{"not defined", "a ${X} $Y\n", "a ${X} $Y\n", "parameter ${X} is not defined"},
		{"defined by itself", "$X=${X}\na $X\n", "a ${X}\n", "a definition must not use itself"},
		{"grows", "$X=${X}${X}\na $X\n", "", "must not use itself"},
		{"comment out of a definition", "$X=1 ${_HASH} 2\na $X\n", "a 1\n", ""},
		{"braces out of a definition", "$X={ b }\na $X\n", "a {\n b\n", ""},
		{"several lines", "$X= \\\n a 1 \\\n b { \\\n c \\\n }\n$X\n", "a 1\nb {\n c\n", ""},
		{"several lines with a condition", "$X= \\\n@a a \\\n@b b \\\nc\nd {\n$X\n}", "d {\n a\n c\n", ""},
		{"several lines skipped", "@b $X= \\\n a \\\n b\nc\n", "c\n", ""},
		{"several lines inside a line", "$X= \\\n a\nb ${X} c\n", "b ${X} c\n", "put $X alone on its line"},
		{"several lines at the end", "$X= \\\n a \\\n", "", "goes on to the end of the file"},
		{"builtin", "a ${_INSTANCE} ${_PWD} \"${_HASH}${_BANG}\"\n", "a a /c \"#!\"\n", ""},
		{"unknown builtin", "a ${_FOO}\n", "a ${_FOO}\n", "is no built-in parameter"},
		{"environment", "a ${_ENV HOME} b\n", "a b\n", "there is no environment"},
		{"sequence", "~SEQ(X,1,3) a ${X}\n", "a 1\na 2\na 3\n", ""},
		{"sequence with step", "~SEQ(X, 10, -5, 0) a $X\n", "a 10\na 5\na 0\n", ""},
		{"sequence from one", "~SEQ(X, 2) a $X\n~SEQ(X, -2) b $X\n", "a 1\na 2\nb -1\nb -2\n", ""},
		{"hex sequence", "~SEQx(X, 9, 11) a $X\n", "a 9\na a\na b\n", ""},
		{"nested sequence", "~SEQ(X,1,2) ~SEQ(Y,1,2) a ${X}.${Y}\n", "a 1.1\na 1.2\na 2.1\na 2.2\n", ""},
		{"sequence with definition", "$N=2\n~SEQ(X,1,${N}) a $X\n", "a 1\na 2\n", ""},
		{"sequence hides a definition", "$X=9\n~SEQ(X,1,1) a $X\nb $X\n", "a 1\nb 9\n", ""},
		{"list", "~LST(X, p, q) a $X\n", "a p\na q\n", ""},
		{"list of groups", "~LST({X,Y}, {1,2}, {3,4}) a $X $Y\n", "a 1 2\na 3 4\n", ""},
		{"bad sequence", "~SEQ(X) a\n~SEQ(X,1,0,5) a\n~LST(X) a\n~SEQ(X,1,2)\n", "", "is not complete"},
		{"NUL", "a\x00b\nc\n", "c\n", "NUL byte"},
		{"long line", "a\n" + strings.Repeat("x", MaxLine+1) + "\nb\n", "a\nb\n", "too long"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, problems := parse(tt.in, nil)
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("tree (-want +got)\n%s", d)
			}
			if !strings.Contains(problems, tt.problem) || (tt.problem == "") != (problems == "") {
				t.Errorf("problems %q, want %q", problems, tt.problem)
			}
		})
	}
}

func TestRandom(t *testing.T) {
	a, _ := parse("x ${_RANDOM 5 7} ${_RANDOM}\n", nil)
	b, _ := parse("x ${_RANDOM 5 7} ${_RANDOM}\n", nil)
	if a != b {
		t.Errorf("the same text gives %q and %q", a, b)
	}
	if f := strings.Fields(a); f[1] != "5" && f[1] != "6" && f[1] != "7" {
		t.Error(a)
	}
}

func TestPositions(t *testing.T) {
	tree, _ := Parse("f", []byte("# c1\na {\n  bb \"cc\" dd # c2\n}\n@x e 1\n"), Options{ConfigID: "x"})
	b := tree.Nodes[0].Children[0]
	got := fmt.Sprintf("%v %v %v %v; %v; %v", b.Pos, b.ArgPos(0), b.ArgPos(1), b.ArgPos(9), tree.Nodes[0].End, tree.Nodes[1].Pos)
	want := "{f 3 3} {f 3 6} {f 3 11} {f 3 3}; {f 4 1}; {f 5 4}"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if d := cmp.Diff(fmt.Sprint([]Comment{{Pos: b.Pos, Text: ""}}[0:0]), "[]"); d != "" {
		t.Error(d)
	}
	if len(tree.Comments) != 2 || tree.Comments[1].Text != "# c2" || tree.Comments[1].Pos.Col != 14 {
		t.Errorf("%+v", tree.Comments)
	}
}

func TestInclude(t *testing.T) {
	f := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s), Mode: 0o644} }
	files := fstest.MapFS{
		"c/one.conf": f("one 1\n"), "c/two.conf": f("two\ninclude sub/*\n"), "c/open": f("x {\n y\n"), "c/close": f("}\n"),
		"c/sub/b": f("b ${_PWD}\n"), "c/sub/a": f("include ../one.conf\n"), "c/sub/.hidden": f("h\n"),
		"c/loop": f("l\ninclude loop\n"), "c/gone/x": f(""),
	}
	for _, tt := range []struct{ in, want, problem string }{
		{"include one.conf\nz\n", "one 1\nz\n", ""},
		{"a {\n  include one.conf\n}\n", "a {\n one 1\n", ""},
		{"include *.conf\n", "one 1\ntwo\none 1\nb /c/sub\n", ""},
		{"include /c/{two,one}.conf\n", "two\none 1\nb /c/sub\none 1\n", ""},
		{"include s?b/[b-c]\n", "b /c/sub\n", ""},
		{"include open\ninclude close\nz\n", "x {\n y\nz\n", ""},
		{"include loop\n", "l\n", "includes itself"},
		{"include none\n", "", "warning: include: nothing matches /c/none"},
		{"includem none\n", "", "error: include: nothing matches"},
		{"includem non*\n", "", "warning: include: nothing matches"},
		{"includew non*\n", "", "error: include: nothing matches"},
		{"includeb {one.conf,none}\n", "one 1\n", "error: include: nothing matches /c/none"},
		{"includea none\n", "", "error"},
		{"includer sub\n", "", "error: include: /c/sub is no regular file"},
		{"include\n", "", "include has no file name"},
		{"includex a\n", "includex a\n", ""},
	} {
		got, problems := parse(tt.in, files)
		if got != tt.want || !strings.Contains(problems, tt.problem) || (tt.problem == "") != (problems == "") {
			t.Errorf("%q:\n%s%s", tt.in, got, problems)
		}
	}
	if _, problems := parse("include one.conf\n", nil); !strings.Contains(problems, "one text") {
		t.Error(problems)
	}
}

// TestIncludeBounds: many files that include many files end.
func TestIncludeBounds(t *testing.T) {
	files := fstest.MapFS{}
	for i := range 40 {
		files[fmt.Sprintf("c/%d", i)] = &fstest.MapFile{Data: []byte(fmt.Sprintf("n%d\ninclude {%s}\n", i, "1,2,3,4,5,6,7,8,9")), Mode: 0o644}
	}
	_, problems := parse("include *\n", files)
	if !strings.Contains(problems, "more than 256 files") {
		t.Errorf("%.300s", problems)
	}
}

func TestSplitCommand(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want []string
		ok   bool
	}{
		{`a b  c`, []string{"a", "b", "c"}, true},
		{`"a b" c`, []string{"a b", "c"}, true},
		{`/bin/true 'one two' three`, []string{"/bin/true", "one two", "three"}, true},
		{`a"b"'c d'e`, []string{"abc de"}, true},
		{`a\ b \x41\101\n\cA`, []string{"a b", "AA\n\x01"}, true},
		{`'a\n'`, []string{`a\n`}, true},
		{`""`, []string{""}, true},
		{`"a`, []string{"a"}, false},
		{``, nil, true},
		{`\xZ a\`, []string{"xZ", `a\`}, true},
	} {
		got, ok := SplitCommand(tt.in)
		if d := cmp.Diff(tt.want, got); d != "" || ok != tt.ok {
			t.Errorf("%q: %q %v", tt.in, got, ok)
		}
	}
}

// FuzzParse: any input ends, without a panic, in a tree whose places lie in
// the text.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"a { b 1 }\n", "$X= \\\n a \\\n b\n$X\n", "~SEQ(X,1,3) ~LST(Y,a,b) c ${X}${Y}\n", "@a b\n@^a {\n}}{", "include *\n", "a \"b\n{\n",
		"\x00\xff{}\n", "$A=$B \n$B=$A \n$A\n", "~SEQ(X,1,99999999) ~SEQ(Y,1,99999999) a\n", strings.Repeat("{", 200), strings.Repeat("}", 200), "a\\", "a \\#\\! ${_RANDOM 1 2}",
	} {
		f.Add([]byte(s))
	}
	files := open(fstest.MapFS{"c/x": {Data: []byte("y {\n"), Mode: 0o644}})
	f.Fuzz(func(t *testing.T, text []byte) {
		tree, _ := Parse("/c/m", text, Options{ConfigID: "a", Open: files})
		lines := bytes.Count(text, []byte("\n")) + 1
		var walk func([]*Node, int)
		walk = func(nodes []*Node, depth int) {
			if depth > MaxDepth+1 {
				t.Fatal("too deep")
			}
			for _, n := range nodes {
				if len(n.Words) == 0 || n.Pos.Line < 1 || n.Pos.File == "/c/m" && n.Pos.Line > lines {
					t.Fatalf("%+v", n)
				}
				walk(n.Children, depth+1)
			}
		}
		walk(tree.Nodes, 0)
		SplitCommand(string(text))
	})
}
