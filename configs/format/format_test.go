package format_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"ballast/configs"
	"ballast/configs/format"
	"ballast/configs/model"
	"ballast/configs/syntax"
	"ballast/test/golden"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestFormat(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"empty", "", ""},
		{"blank", " \n\t\n\n", ""},
		{"one line", "vrrp_instance a { state MASTER }", "vrrp_instance a {\n    state MASTER\n}\n"},
		{"brace below", "global_defs\n\n  {\nrouter_id   a\n\t}\n", "global_defs {\n    router_id a\n}\n"},
		{"brace below a comment", "global_defs\n# why\n{\n}\n", "global_defs\n# why\n{\n}\n"},
		{"two comments", "a # x\n{ # y\n}\n", "a # x\n{ # y\n}\n"},
		{"one comment", "a # x\n{\n}\nb\n{ ! y\n}\n", "a { # x\n}\nb { ! y\n}\n"},
		{"comment of a line that is cut", "a { b 1 } # x", "a {\n    b 1\n} # x\n"},
		{"empty lines", "\n\na {\n\n\nb\n\n\n\nc\n\n}\n\n\n", "a {\n    b\n\n    c\n}\n"},
		{"quotes", "a   \"x   { # y\"   z\n", "a \"x   { # y\" z\n"},
		{"command", "vrrp_script s {\nscript   /bin/x  a   b\n}\n", "vrrp_script s {\n    script /bin/x  a   b\n}\n"},
		{"conditional command", "@a   script   x  y\n", "@a script x  y\n"},
		{"apostrophe", "router_id   it's   me\n", "router_id   it's   me\n"},
		{"conditions", "@a x {\n@b y {\nz\n}\nw\n", "@a x {\n@b y {\n    z\n}\nw\n"},
		{"whole block under a condition", "@a x {\n@a z\n@a }\nw\n", "@a x {\n    @a z\n@a }\nw\n"},
		{"conditional line is not cut", "@a x { y }\n", "@a x { y }\n"},
		{"definition", "$X=a   b\n$Y= \\\n  c { \\\n d \\\n }\ne\n", "$X=a   b\n$Y= \\\n    c { \\\n        d \\\n    }\ne\n"},
		{"definition ends at an empty line", "$Y= \\\na \\\n\nb   c\n", "$Y= \\\n    a \\\n\nb c\n"},
		{"sequence", "x {\n~SEQ(N, 1,  3)  a   ${N}\n~LST(A, {1}, {2}) b {\n}\n}\n", "x {\n    ~SEQ(N, 1,  3)  a   ${N}\n    ~LST(A, {1}, {2}) b {\n    }\n}\n"},
		{"parameter keeps its line", "x { ${A}  b }\n", "x { ${A} b }\n"},
		{"include in a block", "x { include   a b }\n", "x { include a b }\n"},
		{"random numbers stay on their lines", "a\n{\n\n\nb ${_RANDOM 1 9}   c\n}\n", "a\n{\n\n\n    b ${_RANDOM 1 9} c\n}\n"},
		{"line ends of other systems", "a {\r\n  b\r\n}\r\n", "a {\n    b\n}\n"},
		{"byte order mark", "\xef\xbb\xbfa\n", "a\n"},
		{"not text", "a\x00  b\n", "a\x00  b\n"},
		{"too many }", "}\n}\na {\n}\n", "}\n}\na {\n}\n"},
		{"comments", "  # a\nx {\n# b\n   ! c\n}   # d\n", "# a\nx {\n    # b\n    ! c\n} # d\n"},
	} {
		got := format.Format(tt.in)
		if got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
		if again := format.Format(got); again != got {
			t.Errorf("%s: once more: %q", tt.name, again)
		}
	}
}

// TestFormatGolden shows a whole file.
func TestFormatGolden(t *testing.T) {
	text, err := os.ReadFile("testdata/odd.conf")
	if err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "testdata/odd.txt", format.Format(string(text)))
}

func texts(t testing.TB) map[string]string {
	out := map[string]string{}
	for _, pattern := range []string{"../testdata/*/*.conf", "../examples/*.conf", "testdata/*.conf", "../../init/check/testdata/*.conf"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", pattern, len(files), err)
		}
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			out[f] = string(text)
		}
	}
	return out
}

var lineNumber = regexp.MustCompile(`\(?\b(to )?line \d+\)?`)

// meaning is what a text comes to, without the places.
func meaning(text string) (model.Config, []string) {
	c, problems := configs.Load("f", []byte(text), configs.Options{ConfigID: "director-a"})
	var out []string
	for _, p := range problems {
		text := fmt.Sprint(p.Severity) + ": " + lineNumber.ReplaceAllString(p.Text, "") + "; " + p.Fix
		out = append(out, strings.Join(strings.Fields(text), " ")) // some quote a line, with its blanks
	}
	slices.Sort(out)          // two on a line may be in another order when they stand on two
	out = slices.Compact(out) // of the same on one line one is told, on two both are
	if len(problems) > 100 {
		out = nil // so many are told of in part, and which depends on their number
	}
	return c, out
}

// comments are those of a text, by its parser, without blanks at their ends.
func comments(text string) []string {
	tree, _ := syntax.Parse("f", text, syntax.Options{ConfigID: "director-a"})
	var out []string
	for _, c := range tree.Comments {
		out = append(out, strings.TrimRight(c.Text, " \t\f\v\r"))
	}
	return out
}

var plainly = cmp.Options{cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}, netip.AddrPort{}), cmpopts.EquateEmpty()}

// holds checks what Format promises of a text.
func holds(t *testing.T, text string) {
	t.Helper()
	once := format.Format(text)
	if twice := format.Format(once); twice != once {
		t.Errorf("not stable (-once +twice):\n%s", cmp.Diff(once, twice))
	}
	if d := cmp.Diff(comments(text), comments(once)); d != "" {
		t.Errorf("comments (-before +after):\n%s", d)
	}
	was, said := meaning(text)
	is, says := meaning(once)
	if d := cmp.Diff(was, is, plainly); d != "" {
		t.Errorf("meaning (-before +after):\n%s", d)
	}
	if d := cmp.Diff(said, says); d != "" {
		t.Errorf("problems (-before +after):\n%s", d)
	}
}

// TestMeaning: users' files, odd ones, damaged ones and the shipped ones mean the same afterwards.
func TestMeaning(t *testing.T) {
	for name, text := range texts(t) {
		t.Run(name, func(t *testing.T) { holds(t, text) })
	}
}

func FuzzFormat(f *testing.F) {
	for _, text := range texts(f) {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 64<<10 {
			t.Skip("large texts teach nothing new")
		}
		holds(t, text)
	})
}
