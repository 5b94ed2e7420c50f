package check

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ballast/test/golden"

	"github.com/google/go-cmp/cmp"
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
			again, out, errs := run(t, "", "--report", "-i", "director-a", f)
			if again != code || errs != "" {
				t.Errorf("with --report: exit %d, want %d; stderr %q", again, code, errs)
			}
			golden.Check(t, strings.TrimSuffix(f, ".conf")+".report", out)
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

// TestJSONShape: the fields of the JSON stay as docs/configuration.md has them.
func TestJSONShape(t *testing.T) {
	code, out, errs := run(t, "", "--json", "--report", "-i", "director-a", "testdata/live.conf")
	if code != Notes || errs != "" {
		t.Errorf("exit %d, %q", code, errs)
	}
	golden.Check(t, "testdata/live.json", out)
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

// TestReportJSON: --report adds the outcome of each line to the JSON, without secrets.
func TestReportJSON(t *testing.T) {
	code, out, _ := run(t, "vrrp_instance A {\n interface eth0\n virtual_router_id 7\n authentication {\n  auth_type PASS\n  auth_pass verysecret # no\n }\n"+
		" virtual_ipaddress {\n  192.0.2.1\n }\n debug 1\n}\n", "-v", "--json", "-")
	var s Summary
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatal(err, out)
	}
	var got []string
	for _, o := range s.Outcomes {
		got = append(got, fmt.Sprint(o.Line, " ", o.What, ": ", o.Text, " ", len(o.Problems)))
	}
	want := []string{"1 works: vrrp_instance A { 0", "2 works: interface eth0 0", "3 works: virtual_router_id 7 0", "4 works: authentication { 0", "5 works: auth_type PASS 0",
		"6 works: auth_pass ******** 1", "8 works: virtual_ipaddress { 0", "9 works: 192.0.2.1 0", "11 no effect here: debug 1 1"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if code != Notes || strings.Contains(out, "verysecret") {
		t.Errorf("exit %d\n%s", code, out)
	}
}

// TestFolder reads the files of a folder as one text.
func TestFolder(t *testing.T) {
	dir := t.TempDir()
	if code, out, errs := run(t, "", dir); code != Cannot || errs != "" || !strings.Contains(out, "nothing matches "+dir+"/*.conf") {
		t.Errorf("of an empty folder: exit %d, %q, %q", code, out, errs)
	}
	for name, text := range map[string]string{"10-a.conf": "global_defs {\n router_id A\n", "20-b.conf": " frob\n}\n", "note.txt": "frob\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	code, out, _ := run(t, "", "--report", dir)
	want := dir + "/*.conf:\n  1  include          includea *.conf\n" +
		dir + "/10-a.conf:\n  1  works            global_defs {\n  2  works            router_id A\n" +
		dir + "/20-b.conf:\n  1  not understood   frob\n                      error: unknown keyword \"frob\" in global_defs; delete it, or correct the name\n"
	if code != Cannot || !strings.HasPrefix(out, want) {
		t.Errorf("exit %d\n%s\nwant\n%s", code, out, want)
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
