package format

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func run(stdin string, args ...string) (int, string, string) {
	var out, errs bytes.Buffer
	code := Main(args, strings.NewReader(stdin), &out, &errs)
	return code, out.String(), errs.String()
}

const (
	odd  = "global_defs\n{\n  router_id   a # name\n}\n"
	even = "global_defs {\n    router_id a # name\n}\n"
)

func TestStandardInput(t *testing.T) {
	for _, args := range [][]string{nil, {"-"}} {
		if code, out, errs := run(odd, args...); code != Done || out != even || errs != "" {
			t.Errorf("%v: exit %d, %q, %q", args, code, out, errs)
		}
	}
}

func TestDiff(t *testing.T) {
	code, out, _ := run(odd, "-d")
	want := "--- -\n+++ -, laid out\n@@ -1,4 +1,3 @@\n-global_defs\n-{\n-  router_id   a # name\n+global_defs {\n+    router_id a # name\n }\n"
	if code != Differ || out != want {
		t.Errorf("exit %d\n%s", code, out)
	}
	if code, out, _ := run(even, "-d"); code != Done || out != "" {
		t.Errorf("of a text that is laid out: exit %d, %q", code, out)
	}
}

// TestWrite: files are replaced as a whole, with their mode; one that is laid
// out is not touched; what cannot be read hides nothing else.
func TestWrite(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for name, text := range map[string]string{"odd": odd, "even": even} {
		if err := os.WriteFile(at(name), []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("odd", at("link")); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(at("even"))
	if err != nil {
		t.Fatal(err)
	}
	code, out, errs := run("", "-w", at("none"), dir, at("link"), at("even"))
	if code != Cannot || out != "" || !strings.Contains(errs, "none: no such file") || !strings.Contains(errs, "no regular file") {
		t.Errorf("exit %d, %q, %q", code, out, errs)
	}
	for _, name := range []string{"odd", "even", "link"} {
		got, err := os.ReadFile(at(name))
		if err != nil || string(got) != even {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	st, err := os.Lstat(at("link"))
	if err != nil || st.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link became %v, %v", st, err)
	}
	if st, err := os.Stat(at("odd")); err != nil || st.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", st, err)
	}
	if after, err := os.Stat(at("even")); err != nil || !os.SameFile(before, after) {
		t.Errorf("a file that was laid out was written: %v", err)
	}
	if left, _ := filepath.Glob(at(".fmt-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestUsage(t *testing.T) {
	for _, tt := range []struct {
		args []string
		code int
		errs string
	}{
		{[]string{"-h"}, Done, ""},
		{[]string{"-x"}, Cannot, "unknown option -x"},
		{[]string{"-w"}, Cannot, "-w needs a file"},
		{[]string{"-wd", "-"}, Cannot, "-w needs a file"},
		{[]string{"--", "-w"}, Cannot, "no such file"},
	} {
		code, _, errs := run("", tt.args...)
		if code != tt.code || !strings.Contains(errs, tt.errs) {
			t.Errorf("%v: exit %d, %q", tt.args, code, errs)
		}
	}
}
