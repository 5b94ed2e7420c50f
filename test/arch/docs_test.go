package arch

import (
	"cmp"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// page is one text of the manual.
type page struct {
	path  string // in the repository
	lines []string
	code  []bool // lines inside of a block of code
}

// top is the repository's folder.
func top(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Dir(strings.TrimSpace(string(out)))
}

func pages(t *testing.T) (list []page) {
	t.Helper()
	root := top(t)
	add := func(name string) {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, makePage(filepath.ToSlash(rel), string(b)))
	}
	add(filepath.Join(root, "README.md"))
	err := filepath.WalkDir(filepath.Join(root, "docs"), func(name string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(name, ".md") {
			add(name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func makePage(name, text string) page {
	p := page{path: name, lines: strings.Split(strings.TrimSuffix(text, "\n"), "\n")}
	fenced, before := false, ""
	indented := false
	for _, l := range p.lines {
		fence := strings.HasPrefix(l, "```")
		// Four blanks are code behind an empty line, and go on to the next line
		// without them.
		indented = strings.HasPrefix(l, "    ") && (indented || strings.TrimSpace(before) == "") || indented && strings.TrimSpace(l) == ""
		p.code = append(p.code, fenced || fence || indented)
		if fence {
			fenced = !fenced
		}
		before = l
	}
	return p
}

// anchors are the names that a page's headings have on the web.
func (p page) anchors() map[string]bool {
	out := map[string]bool{}
	for i, l := range p.lines {
		if p.code[i] || !strings.HasPrefix(l, "#") {
			continue
		}
		name := anchor(strings.TrimSpace(strings.TrimLeft(l, "#")))
		for n, base := 1, name; out[name]; n++ {
			name = fmt.Sprintf("%s-%d", base, n)
		}
		out[name] = true
	}
	return out
}

// anchor is what the usual hosts of Markdown make of a heading.
func anchor(heading string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
			return unicode.ToLower(r)
		}
		return -1
	}, heading)
}

var (
	linkRE = regexp.MustCompile(`\]\(([^()\s]+)\)`)
	codeRE = regexp.MustCompile("`([^`]+)`")
)

// broken lists the links of a page that lead nowhere. exists tells of a path in
// the repository, anchorsOf of the headings of a page.
func (p page) broken(exists func(string) bool, anchorsOf func(string) map[string]bool) (list []string) {
	for i, l := range p.lines {
		if p.code[i] {
			continue
		}
		for _, m := range linkRE.FindAllStringSubmatch(codeRE.ReplaceAllString(l, ""), -1) {
			if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
				continue
			}
			file, name, _ := strings.Cut(m[1], "#")
			target := p.path
			if file != "" {
				target = path.Join(path.Dir(p.path), file)
			}
			switch {
			case !exists(target):
				list = append(list, fmt.Sprintf("%s:%d: %s: there is no %s", p.path, i+1, m[1], target))
			case name != "" && !anchorsOf(target)[name]:
				list = append(list, fmt.Sprintf("%s:%d: %s: %s has no heading #%s", p.path, i+1, m[1], target, name))
			}
		}
	}
	return list
}

func TestDocLinks(t *testing.T) {
	root := top(t)
	list := pages(t)
	exists := func(name string) bool {
		_, err := os.Stat(filepath.Join(root, filepath.FromSlash(name)))
		return err == nil
	}
	anchorsOf := func(name string) map[string]bool {
		if i := slices.IndexFunc(list, func(p page) bool { return p.path == name }); i >= 0 {
			return list[i].anchors()
		}
		return nil
	}
	for _, p := range list {
		for _, fault := range p.broken(exists, anchorsOf) {
			t.Error(fault)
		}
	}
}

func TestBrokenLinks(t *testing.T) {
	p := makePage("docs/a.md", "# One thing\n\n[x](b.md) [y](b.md#two-things) [z](#one-thing) ![p](p.svg) [w](https://example.net/q#r)\n"+
		"`[code](none)`\n\n    [code](none)\n\n```\n[code](none)\n```\n[1](c.md) [2](b.md#three) [3](#two) [4](../b.md)")
	files := map[string]map[string]bool{"docs/a.md": p.anchors(), "docs/b.md": makePage("docs/b.md", "## Two: `things`").anchors(), "docs/p.svg": nil}
	got := p.broken(func(n string) bool { _, ok := files[n]; return ok }, func(n string) map[string]bool { return files[n] })
	want := []string{"docs/a.md:11: c.md: there is no docs/c.md", "docs/a.md:11: b.md#three: docs/b.md has no heading #three",
		"docs/a.md:11: #two: docs/a.md has no heading #two", "docs/a.md:11: ../b.md: there is no b.md"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

// rooms are the folders whose paths the manual names.
var rooms = []string{"board/", "configs/", "console/", "docs/", "image/", "init/", "services/", "test/"}

var (
	pathRE = regexp.MustCompile(`^[a-z0-9_./-]+$`)
	testRE = regexp.MustCompile(`\bTest[A-Z][A-Za-z0-9]+\b`)
	makeRE = regexp.MustCompile(`^(?:\s*|\s*\$ )make ([a-z][a-z-]*)\b`)
)

// TestDocNames: the paths, tests and targets of make that the manual names are
// there.
func TestDocNames(t *testing.T) {
	root := top(t)
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]bool{}
	funcRE := regexp.MustCompile(`(?m)^func (Test[A-Za-z0-9]+)\(`)
	err = filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() && (d.Name() == ".git" || d.Name() == "out") {
			return cmp.Or(err, fs.SkipDir)
		}
		if strings.HasSuffix(name, "_test.go") {
			b, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			for _, m := range funcRE.FindAllSubmatch(b, -1) {
				tests[string(m[1])] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pages(t) {
		for i, l := range p.lines {
			at := fmt.Sprintf("%s:%d", p.path, i+1)
			words := []string{l}
			if !p.code[i] {
				words = nil
				for _, m := range codeRE.FindAllStringSubmatch(l, -1) {
					words = append(words, m[1])
				}
			}
			for _, w := range words {
				for _, name := range testRE.FindAllString(w, -1) {
					if !tests[name] && name != "TestKernel" { // the example of docs/lab.md
						t.Errorf("%s: there is no %s", at, name)
					}
				}
				for _, m := range makeRE.FindAllStringSubmatch(w, -1) {
					if !strings.Contains(string(makefile), "\n"+m[1]+":") {
						t.Errorf("%s: the Makefile has no target %s", at, m[1])
					}
				}
				for _, f := range strings.Fields(w) {
					f = strings.TrimPrefix(f, "./")
					f = strings.TrimSuffix(f, "/...")
					if pathRE.MatchString(f) && slices.ContainsFunc(rooms, func(r string) bool { return strings.HasPrefix(f, r) }) {
						if _, err := os.Stat(filepath.Join(root, f)); err != nil {
							t.Errorf("%s: there is no %s", at, f)
						}
					}
				}
			}
		}
	}
}
