// Package arch holds the tests of the architecture: which package may import
// which (docs/architecture.md, section 1), that every package says what it is
// for, and that every dependency is explained (docs/dependencies.md).
package arch

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "ballast"

// pkg is what go list tells of a package.
type pkg struct {
	ImportPath                         string
	Dir                                string
	Doc                                string
	GoFiles                            []string
	TestGoFiles, XTestGoFiles          []string
	Imports, TestImports, XTestImports []string
	Error                              *struct{ Err string }
}

func list(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Dir,Doc,GoFiles,TestGoFiles,XTestGoFiles,Imports,TestImports,XTestImports,Error", module+"/...")
	var words bytes.Buffer
	cmd.Stderr = &words
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v: %s", err, words.String())
	}
	var ps []pkg
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return ps
		} else if err != nil {
			t.Fatal(err)
		}
		ps = append(ps, p)
	}
}

// rule is a line of the table of rooms: packages below room may import, of this
// module, what is below one of allow, and, unless std is set, any dependency.
type rule struct {
	room  string
	allow []string
	std   bool
}

// The first rule whose room fits counts. "." is the package's own subject: the
// room's folder and the one below it ("services/vrrp").
var rules = []rule{
	{"configs/model", nil, true},
	{"configs/printable", nil, true},
	{"configs", []string{"configs"}, false},
	{"services/ipc", []string{"configs/model", "services/ipc"}, false},
	// firewall has no process of its own: net is the only writer of nftables.
	{"services/net", []string{"configs", "services/ipc", "services/firewall", "."}, false},
	// What a bundle and a disk look like is known to those who build them and to
	// those who install them.
	{"services/firmware", []string{"configs", "services/ipc", "image/layout", "image/bootenv", "image/bundle", "image/disk", "."}, false},
	{"services/netboot", []string{"configs", "services/ipc", "image/layout", "image/bundle", "image/disk", "."}, false},
	{"services", []string{"configs", "services/ipc", "."}, false},
	{"console", []string{"configs", "services/ipc", "console"}, false},
	// The names that the one binary answers to become links of the image; a room
	// of its own says that they are data only.
	{"init/applet/names", nil, true},
	{"image/layout", nil, true},
	{"image/bootenv", []string{"image/layout"}, true},
	{"image/bundle", []string{"image/layout"}, false},
	{"image/disk", []string{"image/layout", "image/bootenv", "image/bundle", "image/disk"}, false},
	{"image", []string{"board", "image", "init/applet/names"}, false},
	{"board", []string{"board"}, true},
	{"init", []string{"init", "configs", "services", "console", "board", "image/layout", "image/bootenv", "image/bundle", "image/disk"}, false},
	{"test", []string{""}, false},
}

func below(path, room string) bool {
	return room == "" || path == room || strings.HasPrefix(path, room+"/")
}

func ruleFor(path string) (rule, bool) {
	i := slices.IndexFunc(rules, func(r rule) bool { return below(path, r.room) })
	if i < 0 {
		return rule{}, false
	}
	return rules[i], true
}

// subject of services/vrrp/wire is services/vrrp.
func subject(path string) string {
	parts := strings.SplitN(path, "/", 3)
	return strings.Join(parts[:min(2, len(parts))], "/")
}

// forbidden says why an import is not allowed; empty when it is.
func forbidden(from, to string, inTest bool) string {
	path, ok := strings.CutPrefix(from, module+"/")
	if !ok {
		return "" // the module's root
	}
	r, ok := ruleFor(path)
	if !ok {
		return fmt.Sprintf("%s is in no room of docs/architecture.md", path)
	}
	target, own := strings.CutPrefix(to, module+"/")
	if !own {
		if r.std && !inTest && strings.Contains(strings.SplitN(to, "/", 2)[0], ".") {
			return fmt.Sprintf("%s may import the standard library only, not %s", path, to)
		}
		return ""
	}
	if inTest && (below(target, "test") || below(target, "services/ipc")) {
		return "" // tests may use the virtual machine, and compare with the contracts
	}
	for _, a := range r.allow {
		if a == "." {
			a = subject(path)
		}
		if below(target, a) {
			return ""
		}
	}
	return fmt.Sprintf("%s may not import %s", path, target)
}

func TestImports(t *testing.T) {
	for _, p := range list(t) {
		for _, i := range p.Imports {
			if why := forbidden(p.ImportPath, i, false); why != "" {
				t.Error(why)
			}
		}
		for _, i := range append(slices.Clone(p.TestImports), p.XTestImports...) {
			if why := forbidden(p.ImportPath, i, true); why != "" {
				t.Errorf("test: %s", why)
			}
		}
	}
}

func TestForbidden(t *testing.T) {
	for _, c := range []struct {
		from, to string
		test, ok bool
	}{
		{"configs/model", "net/netip", false, true},
		{"configs/model", "golang.org/x/sys/unix", false, false},
		{"configs/model", "ballast/configs/check", false, false},
		{"configs/bind", "ballast/configs/schema", false, true},
		{"configs/bind", "ballast/services/ipc", false, false},
		{"services/vrrp", "ballast/services/ipc/status", false, true},
		{"services/vrrp", "ballast/services/net", false, false},
		{"services/vrrp", "ballast/services/vrrp/wire", false, true},
		{"services/vrrp/wire", "ballast/services/vrrp", false, true},
		{"services/ipc", "ballast/configs/schema", false, false},
		{"services/vrrp", "ballast/test/guest", false, false},
		{"services/vrrp", "ballast/test/guest", true, true},
		{"services/vrrp", "ballast/services/net", true, false},
		{"console/cli", "ballast/services/conf", false, false},
		{"image", "ballast/services/ipc", false, false},
		{"image/modules", "github.com/ulikunitz/xz", false, true},
		{"board", "ballast/configs/model", false, false},
		{"init", "ballast/services/vrrp", false, true},
		{"init", "ballast/image/archive", false, false},
		{"test/lab", "ballast/image/archive", false, true},
		{"elsewhere", "fmt", false, false},
	} {
		why := forbidden(module+"/"+c.from, c.to, c.test)
		if (why == "") != c.ok {
			t.Errorf("%s imports %s: %q, want allowed %v", c.from, c.to, why, c.ok)
		}
	}
}

func TestDocComments(t *testing.T) {
	for _, p := range list(t) {
		if len(p.GoFiles) == 0 {
			// A package of tests alone: go list shows the comment of no test file.
			if !testFilesHaveDoc(t, p) {
				t.Errorf("%s has no package comment that says what it is for", p.ImportPath)
			}
			continue
		}
		if strings.TrimSpace(p.Doc) == "" {
			t.Errorf("%s has no package comment that says what it is for", p.ImportPath)
		}
	}
}

func testFilesHaveDoc(t *testing.T, p pkg) bool {
	t.Helper()
	for _, f := range append(slices.Clone(p.TestGoFiles), p.XTestGoFiles...) {
		b, err := os.ReadFile(filepath.Join(p.Dir, f))
		if err != nil {
			t.Fatal(err)
		}
		if before, _, ok := strings.Cut(string(b), "\npackage "); ok && strings.Contains(before, "// Package ") {
			return true
		}
	}
	return false
}

// requirements reads the module paths that go.mod requires.
func requirements(t *testing.T, gomod string) []string {
	t.Helper()
	f, err := os.Open(gomod)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []string
	in := false
	for s := bufio.NewScanner(f); s.Scan(); {
		w := strings.Fields(s.Text())
		switch {
		case len(w) >= 2 && w[0] == "require" && w[1] == "(":
			in = true
		case len(w) == 1 && w[0] == ")":
			in = false
		case in && len(w) >= 2:
			out = append(out, w[0])
		case len(w) >= 3 && w[0] == "require":
			out = append(out, w[1])
		}
	}
	return out
}

// explained tells whether the page names a module; those of the Go project may
// be shortened to "x/NAME".
func explained(page, mod string) bool {
	if rest, ok := strings.CutPrefix(mod, "golang.org/"); ok && strings.Contains(page, rest) {
		return true
	}
	return strings.Contains(page, mod)
}

func TestDependencies(t *testing.T) {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		t.Fatal(err)
	}
	gomod := strings.TrimSpace(string(out))
	page, err := os.ReadFile(filepath.Join(filepath.Dir(gomod), "docs", "dependencies.md"))
	if err != nil {
		t.Fatal(err)
	}
	required := requirements(t, gomod)
	if len(required) == 0 {
		t.Fatal("go.mod requires nothing")
	}
	used := map[string]string{} // module: a package that imports it
	for _, p := range list(t) {
		for _, i := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			best := ""
			for _, m := range required {
				if below(i, m) && len(m) > len(best) {
					best = m
				}
			}
			if best != "" {
				used[best] = p.ImportPath
			}
		}
	}
	for m, by := range used {
		if !explained(string(page), m) {
			t.Errorf("docs/dependencies.md does not explain %s, which %s imports", m, by)
		}
	}
}
