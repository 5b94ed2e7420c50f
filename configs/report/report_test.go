package report_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"ballast/configs"
	"ballast/configs/model"
	"ballast/configs/report"
	"ballast/test/golden"

	"github.com/google/go-cmp/cmp"
)

func lines(text string, files fstest.MapFS) []model.Outcome {
	return report.Lines(configs.Inspect("f", []byte(text), configs.Options{ConfigID: "a", Open: func(p string) (fs.File, error) { return files.Open(p) }}))
}

func TestLines(t *testing.T) {
	files := fstest.MapFS{"part": {Data: []byte("global_defs {\n script_user root\n}\n"), Mode: 0o644}}
	for _, tt := range []struct {
		name, in string
		want     []string
	}{
		{"nothing", "# a\n\n", nil},
		{"several on a line, the worst counts", "global_defs { router_id x }\nvrrp_instance a { debug 1\n interface e\n virtual_router_id 1 }\n",
			[]string{"1 works x2", "2 no effect here x2", "3 works", "4 works"}},
		{"conditions", "@a global_defs {\n@b router_id x\n@^a router_id y\n}\n", []string{"1 works", "2 other box", "3 other box"}},
		{"parameters", "$X=1\n@b $Y= \\\n a \\\n b\nglobal_defs {\n router_id $X\n}\n", []string{"1 parameter", "2 parameter", "3 parameter", "4 parameter", "5 works", "6 works"}},
		{"a block that has no effect", "linkbeat_interfaces {\n eth0\n}\n", []string{"1 no effect here", "2 no effect here"}},
		{"an unknown block", "frob {\n a 1\n b {\n c 1\n }\n}\n", []string{"1 not understood", "2 skipped", "3 skipped", "4 skipped"}},
		{"an include", "include part\ninclude none\n", []string{"1 include", "2 include", "1 works", "2 mapped"}},
		{"not text", "a\x00b\n", []string{"1 not understood"}},
		{"a wrong brace", "}\n", []string{"1 not understood"}},
		{"a check of the whole", "vrrp_instance a {\n interface e\n virtual_router_id 1\n}\nvrrp_instance b {\n interface e\n virtual_router_id 1\n}\n",
			[]string{"1 works", "2 works", "3 works", "5 works", "6 works", "7 not understood"}},
		{"a sequence", "static_ipaddress {\n ~SEQ(N, 1, 3) 192.0.2.${N}/24 dev e\n}\n", []string{"1 works", "2 works x3"}},
	} {
		var got []string
		for _, o := range lines(tt.in, files) {
			s := fmt.Sprint(o.Line, " ", o.What)
			if o.Times > 0 {
				s += fmt.Sprint(" x", o.Times)
			}
			got = append(got, s)
			if o.What == model.NotUnderstood && len(o.Problems) == 0 {
				t.Errorf("%s: line %d does not say what is wrong", tt.name, o.Line)
			}
		}
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, d)
		}
	}
}

// TestEveryProblemIsTold: of every file of the language's tests, each problem
// stands at a line of the report or is listed behind it, and no line says two
// things.
func TestEveryProblemIsTold(t *testing.T) {
	files, err := filepath.Glob("../testdata/*/*.conf")
	if err != nil || len(files) < 50 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		r := configs.Inspect("f", text, configs.Options{ConfigID: "main"})
		list := report.Lines(r)
		told := len(report.Elsewhere(r.Problems, list))
		seen := map[int]bool{}
		for _, o := range list {
			told += len(o.Problems)
			if seen[o.Line] {
				t.Errorf("%s: line %d is told of twice", f, o.Line)
			}
			seen[o.Line] = true
		}
		if told != len(r.Problems) {
			t.Errorf("%s: %d problems are told of %d", f, told, len(r.Problems))
		}
		wants := strings.HasPrefix(report.Verdict(r.Problems), "cannot run")
		for _, p := range r.Problems {
			wants = wants && p.Severity != model.Error
		}
		if wants {
			t.Errorf("%s: %s, of %v", f, report.Verdict(r.Problems), r.Problems)
		}
	}
}

func TestWrite(t *testing.T) {
	files := fstest.MapFS{"part": {Data: []byte("global_defs {\n script_user root\n smtp_server a\n}\n"), Mode: 0o644}}
	text := "include part\nvrrp_instance a {\n interface e\n debug 1\n virtual_router_id 300\n authentication {\n  auth_type PASS\n  auth_pass abcdefghi # x\n }\n virtual_ipaddress {\n ~SEQ(N, 1, 2) 192.0.2.${N}\n }\n}\nfrob {\n a\n}\n"
	r := configs.Inspect("f", []byte(text), configs.Options{ConfigID: "a", Open: func(p string) (fs.File, error) { return files.Open(p) }})
	list := report.Lines(r)
	var b strings.Builder
	if err := report.Write(&b, list); err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "testdata/report.golden", b.String()+report.Total(list, r.Problems))
}

// FuzzLines: no text makes the report panic, and no problem of it is lost.
func FuzzLines(f *testing.F) {
	files, _ := filepath.Glob("../testdata/*/*.conf")
	for _, name := range files {
		if text, err := os.ReadFile(name); err == nil {
			f.Add(text)
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		r := configs.Inspect("f", text, configs.Options{ConfigID: "a"})
		list := report.Lines(r)
		told := len(report.Elsewhere(r.Problems, list))
		for i, o := range list {
			told += len(o.Problems)
			if i > 0 && o.Line <= list[i-1].Line {
				t.Errorf("line %d behind %d", o.Line, list[i-1].Line)
			}
		}
		if told != len(r.Problems) {
			t.Errorf("%d problems are told of %d", told, len(r.Problems))
		}
		var b strings.Builder
		if err := report.Write(&b, list); err != nil {
			t.Error(err)
		}
	})
}
