package edit

import (
	"fmt"
	"slices"
	"strings"

	"ballast/configs/bind"
	"ballast/configs/schema"
	"ballast/configs/syntax"
)

// stubs are first lines, and lines below them, of blocks that a line is looked
// at in: what is wrong with the line must not come from the block.
var stubs = map[string]string{
	"virtual_server": "virtual_server 192.0.2.1 80 {\nlb_kind TUN",
	"real_server":    "real_server 192.0.2.2 80 {",
	"mark":           "mark 1 {",
}

// verify looks at one line of the block that a target leads to, as the binder
// does: its keyword and its values. block tells that it opens one.
func (t *target) verify(above []head, line string, block bool) error {
	var b strings.Builder
	depth := 0
	for _, h := range above {
		stub := stubs[h.k.Name]
		if stub == "" {
			stub = h.words[0]
			if len(h.k.Args) > 0 && !h.k.Args[0].Optional {
				stub += " x"
			}
			stub += " {"
		}
		if h.k.Name == "virtual_server" && h.words[0] != "virtual_server" {
			stub = strings.Replace(stub, "virtual_server", h.words[0], 1)
		}
		b.WriteString(stub + "\n")
		depth++
	}
	n := 1 + strings.Count(b.String(), "\n")
	b.WriteString(line)
	if block {
		b.WriteString(" {\n}")
	}
	b.WriteString("\n" + strings.Repeat("}\n", depth))
	if block && strings.HasPrefix(line, "virtual_server group ") {
		name := syntax.Words(line)
		fmt.Fprintf(&b, "virtual_server_group \"%s\" {\nfwmark 1\n}\n", name[len(name)-1].Text)
	}
	tree, problems := syntax.Parse("", b.String(), syntax.Options{Grammar: schema.Grammar{}})
	for _, p := range append(problems, bind.Statement(tree, n)...) {
		if p.Line == n && p.Severity == "error" {
			text := p.Text
			if len(above) > 0 && !strings.HasPrefix(text, "unknown ") && !strings.HasPrefix(text, above[len(above)-1].words[0]+":") {
				text = printed(above[len(above)-1].String()) + ": " + text
			}
			return wrong(p.Fix, "%s", text)
		}
	}
	return nil
}

// above are the heads of the blocks that a target leads through.
func (t *target) above() []head {
	var out []head
	for s := t.scopes[0]; s.own != nil; s = s.outer {
		w := s.d.words(s.own)
		if k := schema.Lookup(s.outer.block, w[0]); k != nil {
			out = append(out, head{words: w, k: k})
		}
	}
	slices.Reverse(out)
	return append(out, t.missing...)
}

// unknown is the error of a word that no row has.
func (t *target) unknown(words []string) error {
	line, err := written(words, nil)
	if err != nil {
		return err
	}
	if err := t.verify(t.above(), line, false); err != nil {
		return err
	}
	return wrong("", "unknown keyword %q in %s", printed(words[0]), t.title())
}

// parameter tells whether a text takes values from parameters: what it means
// nobody can tell here.
func parameter(s string) bool { return strings.Contains(s, "$") }

// check judges a line before it is set, and gives it as the text needs it.
func (t *target) check(words []string, k *schema.Keyword) (string, error) {
	line, err := written(words, k)
	if err != nil {
		return "", err
	}
	if k != nil && k.Opens == "" {
		if most := most(k); most >= 0 && len(words)-1 > most {
			what := "takes no value"
			if most == 1 {
				what = "takes one value"
			} else if most > 1 {
				what = fmt.Sprintf("takes %d values", most)
			}
			at := printed(words[most+1])
			if slices.Contains(secrets, k.Name) {
				return "", wrong(`quote a value with blanks: "…"`, "%s %s", words[0], what)
			}
			return "", wrong("write "+strings.TrimSpace(words[0]+" "+k.Grammar()), "%s %s: %q is too much", words[0], what, at)
		}
	}
	if parameter(line) {
		return line, nil
	}
	return line, t.verify(t.above(), line, false)
}

// most is how many words a keyword takes; -1: any number.
func most(k *schema.Keyword) int {
	for _, a := range k.Args {
		switch a.Kind {
		case schema.KindWords, schema.KindFree, schema.KindCmd:
			return -1
		}
	}
	return len(k.Args)
}
