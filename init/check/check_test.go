package check

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ballast/test/golden"
)

func run(t *testing.T, stdin string, args ...string) (int, string, string) {
	t.Helper()
	var out, errs bytes.Buffer
	code := Main(args, strings.NewReader(stdin), &out, &errs)
	return code, out.String(), errs.String()
}

// TestReports compares whole reports with golden files, with their exit codes.
func TestReports(t *testing.T) {
	files, err := filepath.Glob("testdata/*.conf")
	if err != nil || len(files) == 0 {
		t.Fatal("no test data", err)
	}
	want := map[string]int{"clean": Clean, "live": Notes, "broken": Cannot, "garbage": Cannot, "empty": Clean}
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".conf")
		t.Run(name, func(t *testing.T) {
			code, out, errs := run(t, "", "-i", "director-a", f)
			if code != want[name] || errs != "" {
				t.Errorf("exit %d, want %d; stderr %q", code, want[name], errs)
			}
			golden.Check(t, strings.TrimSuffix(f, ".conf")+".txt", out)
		})
	}
}

// TestExamples: what we ship must be clean, or have notes at most, on both boxes.
func TestExamples(t *testing.T) {
	files, _ := filepath.Glob("../../configs/examples/*.conf")
	if len(files) < 4 {
		t.Fatalf("%d examples", len(files))
	}
	for _, f := range files {
		for _, id := range []string{"director-a", "director-b"} {
			code, out, errs := run(t, "", "-i", id, f)
			if code == Cannot || strings.Contains(out, "warning: ") || errs != "" {
				t.Errorf("%s as %s: exit %d\n%s%s", f, id, code, out, errs)
			}
		}
	}
}

func TestJSON(t *testing.T) {
	code, out, _ := run(t, "virtual_server 192.0.2.1 80 {\n lb_algo rr\n nat_mask 1\n}\nfrob\n", "-", "--json")
	var s Summary
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatal(err, out)
	}
	if code != Cannot || s.Errors != 1 || s.File != "<stdin>" || s.Lines["not understood"] != 1 || s.Lines["no effect here"] != 1 {
		t.Errorf("exit %d, %+v", code, s)
	}
	if s.Problems[len(s.Problems)-1].Line != 5 {
		t.Errorf("problems %+v", s.Problems)
	}
}

func TestUsage(t *testing.T) {
	dir := t.TempDir()
	for _, tt := range []struct {
		args []string
		code int
		errs string
	}{
		{[]string{"-h"}, Clean, ""},
		{nil, Cannot, "no file is named"},
		{[]string{"-i"}, Cannot, "-i needs"},
		{[]string{"--frob", "x"}, Cannot, "unknown option --frob"},
		{[]string{"a", "b"}, Cannot, "one file at a time"},
		{[]string{dir + "/none.conf"}, Cannot, "no such file"},
		{[]string{dir}, Cannot, "is a folder"},
	} {
		code, _, errs := run(t, "", tt.args...)
		if code != tt.code || !strings.Contains(errs, tt.errs) {
			t.Errorf("%v: exit %d, stderr %q", tt.args, code, errs)
		}
	}
}

// TestInclude reads the parts of a file from the folder that it stands in.
func TestInclude(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("main.conf", "include part-*.conf\ninclude missing.conf\n")
	write("part-1.conf", "global_defs {\n router_id A\n")
	write("part-2.conf", "}\nfrob\n")
	code, out, _ := run(t, "", filepath.Join(dir, "main.conf"))
	if code != Cannot || !strings.Contains(out, "part-2.conf:2:1: error: unknown keyword \"frob\"") ||
		!strings.Contains(out, "main.conf:2:9: warning: include: nothing matches") {
		t.Errorf("exit %d\n%s", code, out)
	}
}
