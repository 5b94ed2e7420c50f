package manual_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ballast/configs"
	"ballast/configs/format"
	"ballast/configs/schema"
	"ballast/configs/schema/manual"
	"ballast/configs/syntax"
	"ballast/test/golden"

	"github.com/google/go-cmp/cmp"
)

const dir = "../../../docs/reference"

// TestCurrent: docs/reference is what the rows say; -update, or "make
// reference", writes it anew.
func TestCurrent(t *testing.T) {
	pages, err := manual.Pages()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range pages {
		golden.Check(t, filepath.Join(dir, name), text)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if _, ok := pages[filepath.Base(f)]; !ok {
			t.Errorf("%s is no page of the manual any more: run make reference", f)
		}
	}
}

// TestPages: every keyword of every block is on the block's page, with its
// arguments and its help.
func TestPages(t *testing.T) {
	pages, err := manual.Pages()
	if err != nil {
		t.Fatal(err)
	}
	for i := range schema.Keywords() {
		k := &schema.Keywords()[i]
		if strings.HasPrefix(k.Opens, "list:") && strings.Contains(pages["top-level.md"]+pages["vrrp_instance.md"], "("+k.Opens) {
			t.Errorf("%s: what a line of %s holds is not said: add it to lists", k.Name, k.Opens)
		}
	}
	for _, block := range manual.Blocks() {
		text := pages[manual.Page(block)+".md"]
		for _, word := range schema.Words(block) {
			k := schema.Lookup(block, word)
			help := strings.ReplaceAll(k.Word(word).Help, "|", `\|`)
			if !strings.Contains(text, "`"+word+"`") || !strings.Contains(text, help) {
				t.Errorf("the page of %q does not tell of %s", block, word)
			}
			if k.Status != schema.Works && !strings.Contains(text, strings.ReplaceAll(k.Reason, "|", `\|`)) {
				t.Errorf("the page of %q does not say why %s does nothing", block, word)
			}
		}
	}
}

// opens tells whether a block, or a list whose lines the page is of, is in the
// tree.
func opens(nodes []*syntax.Node, in, block string) bool {
	return slices.ContainsFunc(nodes, func(n *syntax.Node) bool {
		k := schema.Lookup(in, n.Name())
		if k == nil {
			return false
		}
		list := map[string]string{"list:address": "address-line", "list:route": "route-line", "list:rule": "rule-line"}[k.Opens]
		return k.Opens == block || list == block || opens(n.Children, k.Opens, block)
	})
}

// TestExamples: the example of each block has that block in it, is laid out, and loads with nothing to say.
func TestExamples(t *testing.T) {
	for _, block := range manual.Blocks() {
		text, err := manual.Example(block)
		if err != nil {
			t.Error(err)
			continue
		}
		for _, id := range []string{"director-a", "director-b"} {
			if _, problems := configs.Load(block, []byte(text), configs.Options{ConfigID: id}); len(problems) > 0 {
				t.Errorf("%q as %s: %v", block, id, problems)
			}
		}
		if d := cmp.Diff(format.Format(text), text); d != "" {
			t.Errorf("%q is not laid out (-laid out +example):\n%s", block, d)
		}
		tree, _ := syntax.Parse(block, text, syntax.Options{Grammar: schema.Grammar{}})
		if block != "" && !opens(tree.Nodes, "", block) {
			t.Errorf("the example of %q does not have it", block)
		}
	}
	files, err := os.ReadDir("examples")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) > len(manual.Blocks()) {
		t.Errorf("%d examples for %d blocks: one is of a block that is gone", len(files), len(manual.Blocks()))
	}
}
