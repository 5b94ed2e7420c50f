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

	"github.com/google/go-cmp/cmp"

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

// compareLoads loads a text in both ways, and says whether the Loader read no
// more of it than what had changed.
func compareLoads(t testing.TB, l *Loader, name, text string, opts Options) bool {
	t.Helper()
	wantC, wantP := Load(name, []byte(text), opts)
	gotC, gotP, quick := l.again(name, text, opts)
	if !quick {
		gotC, gotP = l.Load(name, text, opts)
	}
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
		t.Fatalf("problems (-want +got), read anew as a whole: %v\n%s\nin\n%s", !quick, cmp.Diff(wantP, gotP), text)
	}
	return quick
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
		compareLoads(t, l, "x.conf", text, opts)
		for range n {
			text = edit(rnd, text, pieces)
			compareLoads(t, l, "x.conf", text, opts)
			if rnd.IntN(4) == 0 {
				text = files[name]
			}
		}
	}
}

// patient is a configuration with what may stand around virtual servers and in
// them, and with notes about it.
const patient = `! head
global_defs {
    router_id P
    vrrp_strict
    script_user root
}
$PORT=80
track_file f {
    file /tmp/f
}
vrrp_instance V {
    interface eth0
    virtual_router_id 7
    priority 100
    advert_int 1
    virtual_ipaddress {
        10.0.0.1
        10.0.0.2
    }
}
virtual_server_group g {
    10.0.0.1 8080
}
`

// TestLoaderReadsWhatChanged edits virtual servers in ways that leave nothing to say
// about them, with some that do, and some elsewhere, in between.
func TestLoaderReadsWhatChanged(t *testing.T) {
	rnd := rand.New(rand.NewPCG(*seed, 8))
	server := func() string {
		return []string{
			fmt.Sprintf("virtual_server 10.0.0.1 %d {\n    lb_kind NAT\n    lb_algo rr\n    protocol TCP\n    real_server 10.9.0.%d 80 {\n        weight %d\n    }\n}\n", 1+rnd.IntN(60000), 1+rnd.IntN(200), 1+rnd.IntN(200)),
			fmt.Sprintf("virtual_server 10.0.0.2 %d { # one line\n  protocol UDP\n  real_server 10.9.1.1 53 { FILE_CHECK { track_file f\n } }\n}  ! its end\n", 1+rnd.IntN(60000)),
			fmt.Sprintf("\t virtual_server\t10.0.0.2 %d\n{\n  lb_kind NAT\n  lb_algo rr\n  protocol SCTP\n  quorum_up \"/etc/keepalived/up.sh x\"\n  real_server 10.9.1.%d 53 {\n  }\n  real_server 10.9.1.1 54 {\n  TCP_CHECK {\n  connect_timeout 3\n } } \n}\n", 1+rnd.IntN(60000), 1+rnd.IntN(200)),
			// Some that are never read apart, or have something to say.
			"virtual_server group g {\n protocol TCP\n real_server 10.9.1.1 80 {\n }\n}\n",
			"virtual_server 10.0.0.1 ${PORT} {\n protocol TCP\n real_server 10.9.1.1 80 {\n }\n}\n",
			"virtual_server fwmark 7 {\n protocol TCP\n real_server 10.9.1.1 80 {\n }\n}\n",
			"virtual_server 10.7.7.7 80 {\n protocol TCP\n real_server 10.9.1.1 80 {\n }\n}\n", // carried by nobody
			"virtual_server 10.0.0.1 80 {\n frob 1\n real_server 10.9.1.1 80 {\n }\n}\n",
		}[[]int{0, 0, 0, 0, 1, 1, 2, 2, 2, 3, 4, 5, 6, 7}[rnd.IntN(14)]]
	}
	between := []string{"", "", "\n", "# words { \"\n", "\n! more\n\n", "vrrp_script s {\n script /bin/true\n}\n", "mark 7 {\n tcp 10.0.0.1 81\n}\n", "smtp_alert\n", "@b virtual_server 10.0.0.1 7 {\n@b }\n"}
	n, quick, all := 60, 0, 0
	if testing.Short() {
		n = 12
	}
	for k := range n {
		l := &Loader{}
		plain := k%2 == 0 // nothing but virtual servers that are well
		next := func() string {
			for {
				if s := server(); !plain || strings.Contains(s, "NAT") || strings.Contains(s, "/up.sh") {
					return s
				}
			}
		}
		pieces := []string{patient}
		for range 1 + rnd.IntN(30) {
			gap := between[rnd.IntN(len(between))]
			if plain {
				gap = between[rnd.IntN(5)]
			}
			pieces = append(pieces, gap, next())
		}
		facts := &check.Facts{Files: []string{"/etc/keepalived/up.sh"}}
		load := func() {
			opts := Options{ConfigID: "a", Facts: facts}
			name := []string{"x.conf", "y.conf"}[rnd.IntN(2)]
			if rnd.IntN(10) == 0 {
				opts.Facts = &check.Facts{Files: []string{}}
			}
			if rnd.IntN(20) == 0 {
				opts.ConfigID = "b"
			}
			read := compareLoads(t, l, name, strings.Join(pieces, ""), opts)
			if plain {
				all++
			}
			if plain && read {
				quick++
			}
		}
		load()
		for range 20 {
			before := slices.Clone(pieces)
			i := 1 + 2*rnd.IntN(len(pieces)/2)
			switch rnd.IntN(10) {
			case 0:
				pieces = slices.Delete(pieces, i, min(len(pieces), i+2*(1+rnd.IntN(3))))
				if len(pieces) == 1 {
					pieces = append(pieces, "", next())
				}
			case 1, 2:
				pieces = slices.Insert(pieces, i, "", next())
			case 3:
				pieces[i] = between[rnd.IntN(len(between))]
			case 4:
				pieces[0] = strings.Replace(pieces[0], "priority 100", fmt.Sprintf("priority %d", 1+rnd.IntN(250)), 1)
			case 5:
				pieces[i+1] = edit(rnd, pieces[i+1], between[1:])
			case 6: // the same text
			default:
				pieces[i+1] = next()
			}
			load()
			if rnd.IntN(3) == 0 {
				pieces = before
			}
		}
	}
	if quick < all/10 {
		t.Errorf("of %d texts only %d were not read as a whole", all, quick)
	} else {
		t.Logf("of %d texts %d were not read as a whole", all, quick)
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
			compareLoads(t, l, "x.conf", text, Options{ConfigID: "x"})
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
	a, _ := l.Load("x", text, Options{})
	b, _ := l.Load("y", "! more\n"+strings.Replace(text, "weight 1", "weight 2", 1), Options{})
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

// used is what this process has taken of processors so far.
func used(t testing.TB) time.Duration {
	t.Helper()
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		t.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// processor reports what a benchmark took of processors, on all threads: other
// work on the machine does not count.
func processor(b *testing.B, f func()) {
	start := used(b)
	n := 0
	for b.Loop() {
		f()
		n++
	}
	b.ReportMetric(float64(used(b)-start)/float64(n)/1e6, "cpu-ms/op")
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
			l.Load("x", text, Options{Facts: facts})
			i := 0
			processor(b, func() {
				i++
				l.Load("x", text[:len(text)/2]+strings.Replace(text[len(text)/2:], "weight 1\n", fmt.Sprintf("weight %d\n", 2+i%9), 1), Options{Facts: facts})
			})
		})
	}
}
