package schema

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// lines reads a table of tab-separated fields.
func lines(t *testing.T, file string, fields int) [][]string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out [][]string
	for line := range strings.Lines(string(text)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(f) != fields {
			t.Fatalf("%s: %d fields, want %d, in %q", file, len(f), fields, line)
		}
		out = append(out, f)
	}
	return out
}

var testFunc = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w*)\(`)

// tests are the test functions of a package, by its folder in the module.
func tests(t *testing.T, pkg string, seen map[string]map[string]bool) map[string]bool {
	t.Helper()
	if seen[pkg] != nil {
		return seen[pkg]
	}
	files, err := filepath.Glob(filepath.Join("../..", pkg, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	seen[pkg] = map[string]bool{}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range testFunc.FindAllSubmatch(text, -1) {
			seen[pkg][string(m[1])] = true
		}
	}
	return seen[pkg]
}

// TestEffects: what nearly every user or many users need (classes A and B) and
// is said to work has a test whose run shows its effect. testdata/effects.tsv
// names it (block, keyword, package, test function); testdata/owed.tsv lists
// the keywords that still have none, and only gets shorter.
func TestEffects(t *testing.T) {
	shown, found := map[string]bool{}, map[string]map[string]bool{}
	for _, f := range lines(t, "testdata/effects.tsv", 4) {
		key := f[0] + "\t" + f[1]
		shown[key] = true
		if rowOf(f[0], f[1]) == nil {
			t.Errorf("effects.tsv: there is no row %s %s", f[0], f[1])
		}
		if !tests(t, f[2], found)[f[3]] {
			t.Errorf("effects.tsv: %s %s: there is no %s in %s", f[0], f[1], f[3], f[2])
		}
	}
	owed := map[string]bool{}
	for _, f := range lines(t, "testdata/owed.tsv", 2) {
		key := f[0] + "\t" + f[1]
		owed[key] = true
		k := rowOf(f[0], f[1])
		switch {
		case k == nil:
			t.Errorf("owed.tsv: there is no row %s %s", f[0], f[1])
		case shown[key]:
			t.Errorf("%s %s has its test: delete its line in owed.tsv", f[0], f[1])
		case k.Status != Works || k.Class != 'A' && k.Class != 'B':
			t.Errorf("%s %s %s and is of class %c: delete its line in owed.tsv", f[0], f[1], k.Status, k.Class)
		}
	}
	for _, k := range Keywords() {
		key := k.Block + "\t" + k.Name
		if k.Status == Works && (k.Class == 'A' || k.Class == 'B') && !shown[key] && !owed[key] {
			t.Errorf("%s %s is said to work: name the test that shows it in testdata/effects.tsv", k.Block, k.Name)
		}
	}
	t.Logf("%d keywords have their test, %d are owed one", len(shown), len(owed))
}

// rowOf finds a row by its part of the manual and its name.
func rowOf(block, name string) *Keyword {
	rows := Keywords()
	for i := range rows {
		if rows[i].Block == block && rows[i].Name == name {
			return &rows[i]
		}
	}
	return nil
}
