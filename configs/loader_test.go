package configs

import (
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"ballast/configs/check"
)

var (
	steps = flag.Int("edits", 25, "random edits of each file")
	seed  = flag.Uint64("seed", 7, "of the edits")
)

// corpus is every configuration that the tests know.
func corpus(t testing.TB) map[string]string {
	out := map[string]string{}
	for _, root := range []string{"testdata", "examples"} {
		err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(p, ".conf") {
				return err
			}
			b, err := os.ReadFile(p)
			out[p] = string(b)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(out) < 20 {
		t.Fatalf("only %d configurations are there", len(out))
	}
	return out
}

// edit changes a text in one of the ways that people do, and in some that they
// do not: pieces holds what may come in.
func edit(rnd *rand.Rand, text string, pieces []string) string {
	lines := strings.SplitAfter(text, "\n")
	at := rnd.IntN(len(lines))
	switch rnd.IntN(9) {
	case 0: // a line comes in
		return strings.Join(slices.Insert(lines, at, []string{"\n", "! c\n", "}\n", "{\n", "  weight 7\n", "$P=9\n", "@other\n", "@^other weight 3\n", "include inc.conf\n",
			"smtp_alert\n", "global_defs {\n smtp_alert\n}\n", "virtual_server_group g { 192.0.2.9 80\n}\n", "vrrp_sctipt x {\n}\n", "track_file f { file /x\n}\n", "a \"b\n", "$L= \\\n"}[rnd.IntN(16)]), "")
	case 1: // a line goes
		return strings.Join(slices.Delete(lines, at, at+1), "")
	case 2: // a line comes twice
		return strings.Join(slices.Insert(lines, at, lines[at]), "")
	case 3: // two change places
		o := rnd.IntN(len(lines))
		lines[at], lines[o] = lines[o], lines[at]
		return strings.Join(lines, "")
	case 4: // a piece of another file
		return strings.Join(slices.Insert(lines, at, pieces[rnd.IntN(len(pieces))]), "")
	case 5, 6: // a digit
		for i := range text {
			if j := (i + at*7) % len(text); text[j] >= '0' && text[j] <= '9' {
				return text[:j] + string('0'+byte(rnd.IntN(10))) + text[j+1:]
			}
		}
		return text
	case 7: // any byte
		if text == "" {
			return text
		}
		j := rnd.IntN(len(text))
		return text[:j] + string("{}#!\"\\$@~\n \x00x"[rnd.IntN(13)]) + text[j+1:]
	}
	// a block moves to the end
	s := spans(text)
	if len(s) == 0 {
		return text
	}
	x := s[rnd.IntN(len(s))]
	return text[:x.start] + text[x.end:] + "\n" + text[x.start:x.end]
}

// compareLoads loads a text in both ways.
func compareLoads(t testing.TB, l *Loader, text string, opts Options) {
	t.Helper()
	wantC, wantP := Load("x.conf", []byte(text), opts)
	gotC, gotP := l.Load("x.conf", []byte(text), opts)
	if !reflect.DeepEqual(gotC, wantC) {
		for i := range min(len(gotC.VirtualServers), len(wantC.VirtualServers)) {
			if !reflect.DeepEqual(gotC.VirtualServers[i], wantC.VirtualServers[i]) {
				t.Errorf("virtual server %d:\n%+v\nwant\n%+v", i, gotC.VirtualServers[i], wantC.VirtualServers[i])
				break
			}
		}
		t.Fatalf("another configuration (%d virtual servers, want %d) from\n%s", len(gotC.VirtualServers), len(wantC.VirtualServers), text)
	}
	if !reflect.DeepEqual(gotP, wantP) {
		t.Fatalf("problems\n%v\nwant\n%v\nin\n%s", gotP, wantP, text)
	}
}

// TestLoaderEqualsLoad: whatever came before, a Loader finds in a text exactly
// what Load finds in it.
func TestLoaderEqualsLoad(t *testing.T) {
	files := corpus(t)
	var names, pieces []string
	for name, text := range files {
		names = append(names, name)
		for _, s := range spans(text) {
			pieces = append(pieces, text[s.start:s.end])
		}
	}
	slices.Sort(names)
	slices.Sort(pieces)
	inc := fstest.MapFS{"inc.conf": {Data: []byte("virtual_server 192.0.2.77 80 {\n protocol TCP\n real_server 10.0.0.7 80 {\n }\n}\n"), Mode: 0o644}}
	opts := Options{ConfigID: "box1", Facts: &check.Facts{Files: []string{}},
		Open: func(p string) (fs.File, error) { return inc.Open(strings.TrimPrefix(p, "/")) }}
	rnd := rand.New(rand.NewPCG(*seed, 7))
	n := *steps
	if testing.Short() {
		n = 8
	}
	for _, name := range names {
		l := &Loader{}
		text := files[name]
		compareLoads(t, l, text, opts)
		for range n {
			text = edit(rnd, text, pieces)
			compareLoads(t, l, text, opts)
			if rnd.IntN(4) == 0 {
				text = files[name]
			}
		}
	}
}

func FuzzLoader(f *testing.F) {
	f.Add("virtual_server 10.0.0.1 80 {\n}\n", "virtual_server 10.0.0.1 80 { real_server 10.0.0.2 80 {\n}\n}\n")
	f.Add("$X= \\\nvirtual_server 10.0.0.1 80 {\n}\n", "}\nvirtual_server group g {\n}\n")
	f.Fuzz(func(t *testing.T, a, b string) {
		if len(a)+len(b) > 1<<16 {
			return
		}
		l := &Loader{}
		for _, text := range []string{a, b, a + "\n" + b} {
			compareLoads(t, l, text, Options{ConfigID: "x"})
		}
	})
}

// servers is a configuration with n virtual servers of m real ones.
func servers(n, m int) string {
	var b strings.Builder
	b.WriteString("global_defs {\n router_id B\n}\nvrrp_instance V {\n interface eth0\n virtual_router_id 7\n virtual_ipaddress { 192.0.2.80 }\n}\n")
	for i := range n {
		fmt.Fprintf(&b, "virtual_server 10.%d.%d.1 80 {\n    delay_loop 6\n    lb_algo rr\n    lb_kind DR\n    protocol TCP\n", i/250, i%250)
		for j := range m {
			fmt.Fprintf(&b, "    real_server 10.%d.%d.%d 80 {\n        weight 1\n        TCP_CHECK {\n            connect_timeout 3\n        }\n    }\n", 100+i/250, i%250, j+1)
		}
		b.WriteString("}\n")
	}
	return b.String()
}

// TestLoaderShares: of 1,000 virtual servers, those that did not change are not
// made again.
func TestLoaderShares(t *testing.T) {
	text := servers(1000, 2)
	l := &Loader{}
	a, _ := l.Load("x", []byte(text), Options{})
	b, _ := l.Load("y", []byte("! more\n"+strings.Replace(text, "weight 1", "weight 2", 1)), Options{})
	same := 0
	for i := range a.VirtualServers {
		if &a.VirtualServers[i].Real[0] == &b.VirtualServers[i].Real[0] {
			same++
		}
	}
	if same != 999 || b.VirtualServers[0].Real[0].Weight != 2 {
		t.Errorf("%d of 1,000 virtual servers were kept, weight %d", same, b.VirtualServers[0].Real[0].Weight)
	}
}

// processor reports what a benchmark took of processors, on all threads: other
// work on the machine does not count.
func processor(b *testing.B, f func()) {
	used := func() time.Duration {
		var r syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
			b.Fatal(err)
		}
		return time.Duration(r.Utime.Nano() + r.Stime.Nano())
	}
	start := used()
	n := 0
	for b.Loop() {
		f()
		n++
	}
	b.ReportMetric(float64(used()-start)/float64(n)/1e6, "cpu-ms/op")
}

func BenchmarkLoader(b *testing.B) {
	for _, size := range [][2]int{{1000, 10}, {10000, 2}} {
		text := servers(size[0], size[1])
		facts := &check.Facts{Files: []string{}}
		b.Run(fmt.Sprintf("whole/%dx%d", size[0], size[1]), func(b *testing.B) {
			processor(b, func() { Load("x", []byte(text), Options{Facts: facts}) })
		})
		b.Run(fmt.Sprintf("again/%dx%d", size[0], size[1]), func(b *testing.B) {
			l := &Loader{}
			l.Load("x", []byte(text), Options{Facts: facts})
			i := 0
			processor(b, func() {
				i++
				l.Load("x", []byte(text[:len(text)/2]+strings.Replace(text[len(text)/2:], "weight 1\n", fmt.Sprintf("weight %d\n", 2+i%9), 1)), Options{Facts: facts})
			})
		})
	}
}
