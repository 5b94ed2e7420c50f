package configs

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"ballast/configs/model"
)

func linksOf(c model.Config) []string {
	set := map[string]bool{}
	for _, i := range c.Instances {
		set[i.Interface] = true
		for _, t := range i.TrackInterfaces {
			set[t.Interface] = true
		}
		for _, a := range slices.Concat(i.VIPs, i.ExcludedVIPs) {
			set[a.Interface] = true
		}
		for _, r := range i.VirtualRoutes {
			set[r.Interface] = true
		}
	}
	delete(set, "")
	return slices.Sorted(maps.Keys(set))
}

// exception is a difference that is meant: where keepalived 2.2.7 does
// something else by design, ours or theirs. A * at the end stands for any rest.
type exception struct{ file, object, field, why string }

var vrrpExceptions = []exception{
	{"*", "VRRP Script *", "", "keepalived drops a script whose file is not on the machine; here that is told, and the script may be loaded later"},
	{"*", "*", "Tracked scripts", "for the same reason; and a vrrp_script below the instance is tracked here"},
	{"22-script-quotes.conf", "VRRP Script bare", "Command", "arguments behind a command without quotes are lost in keepalived"},
	{"22-script-quotes.conf", "VRRP Script shell", "Command", "shell syntax is run by a shell here"},
	{"web-dr-sorry.conf", "VRRP Script chk_keepalived_down", "Command", "the same"},
	{"28-address-forms.conf", "VRRP Instance A", "Virtual IP", "an address is held once, also when it is listed with two lengths"},
	{"05-unknown-block.conf", "VRRP Instance A", "*", "an unknown block ends its surroundings in keepalived"},
}

func like(pattern, s string) bool {
	if p, any := strings.CutSuffix(pattern, "*"); any {
		return strings.HasPrefix(s, p)
	}
	return pattern == s
}

// compare tells what of our facts keepalived sees otherwise.
func compare(t *testing.T, file string, ours, theirs objects, table []exception, used []atomic.Int32) {
	t.Helper()
	differ := func(object, field, our, their string) {
		for i, e := range table {
			if like(e.file, file) && like(e.object, object) && like(e.field, field) {
				used[i].Add(1)
				return
			}
		}
		t.Errorf("%s, %s: %q, in keepalived %q", object, field, our, their)
	}
	for _, name := range slices.Sorted(maps.Keys(ours)) {
		their, known := theirs[name]
		if !known {
			differ(name, "", "is there", "is missing")
			continue
		}
		for _, field := range slices.Sorted(maps.Keys(ours[name])) {
			if ours[name][field] != their[field] {
				differ(name, field, ours[name][field], their[field])
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(theirs)) {
		if _, known := ours[name]; !known {
			differ(name, "", "is missing", "is there")
		}
	}
}

// oracleFiles are the files that keepalived is asked about: users' files, odd ones,
// and one with all that the others leave out.
func oracleFiles(t *testing.T) []string {
	t.Helper()
	var out []string
	for _, dir := range []string{"cases", "quirks", "oracle"} {
		files, err := filepath.Glob("testdata/" + dir + "/*.conf")
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, files...)
	}
	if len(out) < 46 {
		t.Fatalf("%d files", len(out))
	}
	return out
}

// TestKeepalivedAgreesVRRP starts keepalived on every file that has instances,
// lets it dump what it made of it, and compares that with our model.
func TestKeepalivedAgreesVRRP(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts keepalived once a file")
	}
	if _, err := exec.LookPath("keepalived"); err != nil {
		t.Skip("keepalived is not installed")
	}
	if os.Geteuid() != 0 {
		t.Skip("namespaces need root")
	}
	used := make([]atomic.Int32, len(vrrpExceptions))
	t.Run("files", func(t *testing.T) {
		for _, f := range oracleFiles(t) {
			t.Run(filepath.Base(f), func(t *testing.T) {
				text, err := os.ReadFile(f)
				if err != nil {
					t.Fatal(err)
				}
				c, problems := Load(f, text, Options{ConfigID: "main"})
				if len(c.Instances) == 0 {
					t.SkipNow() // nothing of VRRP in it
				}
				t.Parallel()
				a := ask(t, order{Text: string(text), Links: linksOf(c), Args: []string{"-P"}})
				if a.Exit != 0 {
					if errorsOf(problems) == 0 {
						t.Errorf("keepalived ends with %d and we have no error: %s", a.Exit, a.Log)
					}
					return
				}
				theirs := readDump(a.Files["keepalived.data"], []string{"VRRP Instance", "VRRP Sync Group", "VRRP Script", "Track file", "VRRP Track process"})
				maps.Copy(theirs, readDump(a.Files["keepalived_bfd.data"], []string{"BFD Instance"}))
				settle(theirs)
				compare(t, filepath.Base(f), ourVRRP(c), theirs, vrrpExceptions, used)
			})
		}
	})
	for i := range used {
		if used[i].Load() == 0 && !t.Failed() {
			t.Errorf("no difference is like %+v any more: delete the line", vrrpExceptions[i])
		}
	}
}
