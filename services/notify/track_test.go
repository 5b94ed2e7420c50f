package notify

import (
	"context"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"ballast/configs/model"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

func TestNumber(t *testing.T) {
	for s, want := range map[string]struct {
		n  int
		ok bool
	}{
		"5\n": {5, true}, "": {0, false}, "\n": {0, false}, "abc": {0, false}, " \t\n-7 x": {-7, true}, "+3": {3, true},
		"0x1F": {31, true}, "0X1fg": {31, true}, "010": {8, true}, "08": {0, true}, "0x": {0, true}, "0xz": {0, true}, "1.9": {1, true},
		"2147483647": {math.MaxInt32, true}, "-2147483648": {math.MinInt32, true}, "- 5": {0, false}, "--5": {0, false},
	} {
		n, ok, err := number(s)
		if n != want.n || ok != want.ok || err != nil {
			t.Errorf("%q: %d %v %v", s, n, ok, err)
		}
	}
	for _, s := range []string{"2147483648", "-2147483649", strings.Repeat("9", 100), "0xfffffffffffff"} {
		if _, _, err := number(s); err == nil {
			t.Errorf("%q is in range", s)
		}
	}
}

func FuzzNumber(f *testing.F) {
	f.Add("-12")
	f.Add("0x7f ")
	f.Fuzz(func(t *testing.T, s string) {
		if n, ok, err := number(s); (!ok || err != nil) && n != 0 || n > math.MaxInt32 || n < math.MinInt32 {
			t.Errorf("%q: %d %v %v", s, n, ok, err)
		}
	})
}

func FuzzInotify(f *testing.F) {
	f.Add([]byte("\x01\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00\x10\x00\x00\x00file\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		n := 0
		for e := range inotifyEvents(b) {
			if n += unix.SizeofInotifyEvent + len(e.name); n > len(b) {
				t.Fatal("more than there is")
			}
		}
	})
}

// TestTrackFile: what is written is published, at once and by every way that
// writes files.
func TestTrackFile(t *testing.T) {
	dir := folder(t)
	b := newBox(t)
	path := filepath.Join(dir, "run", "drain")
	old, link := filepath.Join(dir, "old"), filepath.Join(dir, "link")
	os.WriteFile(old, []byte("3\n"), 0o666)
	os.Chmod(old, 0o666)
	if err := os.Symlink(old, link); err != nil {
		t.Fatal(err)
	}
	later := filepath.Join(dir, "later", "x") // its folder comes later
	cfg := model.Config{TrackFiles: []model.TrackFile{
		{Name: "drain", Path: path, Weight: 1, Init: true, InitValue: 7},
		{Name: "kept", Path: old, Init: true, InitValue: 9},
		{Name: "over", Path: filepath.Join(dir, "over"), Init: true, InitValue: -4, Overwrite: true},
		{Name: "link", Path: link},
		{Name: "none", Path: filepath.Join(dir, "none")},
		{Name: "later", Path: later},
		{Name: "theirs", Path: "/etc/ballast-none/x", Init: true},
	}}
	os.WriteFile(filepath.Join(dir, "over"), []byte("100"), 0o666)
	os.Chmod(filepath.Join(dir, "over"), 0o666)
	b.conf.Publish(status.Conf{Generation: 1, Config: cfg})
	states := make(chan status.Notify, 1000)
	go ipc.Watch(b.ctx, b.dir.Client("notify"), func(_ uint64, n status.Notify) { states <- n })
	b.start()
	var now status.Notify
	value := func(name string) (v status.FileResult, ok bool) {
		for _, f := range now.Files {
			if f.Name == name {
				return f, true
			}
		}
		return
	}
	until := func(name string, want int) (took time.Duration) {
		t.Helper()
		began := time.Now()
		end := time.After(time.Minute)
		for {
			if v, ok := value(name); ok && v.Value == want {
				return time.Since(began)
			}
			select {
			case now = <-states:
			case <-end:
				t.Fatalf("%s is not %d: %+v", name, want, now.Files)
			}
		}
	}
	for name, want := range map[string]int{"drain": 7, "kept": 3, "over": -4, "link": 3, "none": 0, "later": 0, "theirs": 0} {
		until(name, want)
		if v, _ := value(name); v.Last.IsZero() {
			t.Errorf("%s is not known: %+v", name, v)
		}
	}
	if v, _ := value("none"); v.Detail != "no such file" {
		t.Errorf("%+v", v)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil || maySetUser() && st.Uid != ipc.UIDScript {
		t.Errorf("the file belongs to %d: %v", st.Uid, err)
	}
	// A script writes: as its user, with the shell's truncation first.
	script := func(line string) { // as the scripts' user
		t.Helper()
		if res := testRunner().run(b.ctx, model.Command{Shell: line}, nil, time.Minute); res.exit != 0 {
			t.Fatalf("%s: %+v", line, res)
		}
	}
	var took []time.Duration
	for i := range 20 {
		if err := os.WriteFile(old, []byte(fmt.Sprint(1000+i)), 0o666); err != nil {
			t.Fatal(err)
		}
		took = append(took, until("link", 1000+i))
		until("kept", 1000+i)
	}
	t.Logf("from write to published state: %v", took)
	script("echo 12 >" + path)
	until("drain", 12)
	script("echo 13 >" + path + ".new; mv " + path + ".new " + path)
	until("drain", 13)
	script("echo 99999999999 >" + path) // out of range: what was holds
	script("echo 14 >" + dir + "/none")
	until("none", 14)
	if v, _ := value("drain"); v.Value != 13 {
		t.Errorf("a number out of range: %+v", v)
	}
	script("echo what >" + path)
	until("drain", 0)
	script("echo 5 >" + path)
	until("drain", 5)
	script("rm " + path)
	until("drain", 0)
	os.Mkdir(filepath.Join(dir, "later"), 0o777)
	os.Chmod(filepath.Join(dir, "later"), 0o777)
	script("echo 6 >" + later)
	until("later", 6)
	os.RemoveAll(filepath.Dir(later))
	until("later", 0)

	// The verb, and a restart: nothing is initialised again.
	c := b.dir.Client("notify")
	if err := c.Call(b.ctx, "track-file", status.TrackValue{Name: "drain", Value: -200}, nil); err != nil {
		t.Fatal(err)
	}
	until("drain", -200)
	if text, _ := os.ReadFile(path); string(text) != "-200\n" {
		t.Errorf("%q", text)
	}
	if err := c.Call(b.ctx, "track-file", status.TrackValue{Name: "drane", Value: 1}, nil); err == nil || !strings.Contains(err.Error(), "track-file drane: the running configuration has no track_file of this name; it has: drain, ") {
		t.Errorf("a name that is none: %v", err)
	}
	if err := c.Call(b.ctx, "track-file", status.TrackValue{Name: "theirs", Value: 1}, nil); err == nil || !strings.Contains(err.Error(), "/run") {
		t.Errorf("a path that is not allowed: %v", err)
	}
	if err := c.Call(b.ctx, "track-file", status.TrackValue{Name: "over", Value: 77}, nil); err != nil {
		t.Fatal(err)
	}
	until("over", 77)
	b.stop()
	b.start()
	await(t, "the numbers after a restart", func() bool {
		n := b.state()
		return len(n.Files) == 7 && n.Files[0].Value == -200 && n.Files[2].Value == 77
	})
	b.conf.Publish(status.Conf{Generation: 2, Config: model.Config{}})
	await(t, "no files", func() bool { n := b.state(); return n.Config == 2 && len(n.Files) == 0 })
	b.stop()
}

func TestProcessMatches(t *testing.T) {
	p := process{comm: "haproxy", args: []byte("/usr/sbin/haproxy\x00-f\x00/etc/haproxy.cfg\x00-Ws\x00")}
	none := process{comm: "nginx", args: []byte("/usr/sbin/nginx\x00")}
	for _, c := range []struct {
		t    model.TrackProcess
		p    process
		want bool
	}{
		{model.TrackProcess{Argv: []string{"haproxy"}}, p, true},
		{model.TrackProcess{Argv: []string{"haprox"}}, p, false},
		{model.TrackProcess{Argv: []string{"a-name-longer-than-the-kernel-keeps"}}, process{comm: "a-name-longer-t"}, true},
		{model.TrackProcess{Argv: []string{"haproxy"}, FullCommand: true}, p, false},
		{model.TrackProcess{Argv: []string{"/usr/sbin/haproxy"}, FullCommand: true}, p, true},
		{model.TrackProcess{Argv: []string{"/usr/sbin/haproxy", "-f", "/etc/haproxy.cfg", "-Ws"}}, p, true},
		{model.TrackProcess{Argv: []string{"/usr/sbin/haproxy", "-f", "/etc/haproxy.cfg"}}, p, false},
		{model.TrackProcess{Argv: []string{"/usr/sbin/haproxy", "-f", "/etc/haproxy.cfg"}, Match: "partial"}, p, true},
		{model.TrackProcess{Argv: []string{"/usr/sbin/haproxy", "-f", "/etc/hap"}, Match: "partial"}, p, false},
		{model.TrackProcess{Argv: []string{"/usr/sbin/haproxy", "-f", "/etc/hap"}, Match: "initial"}, p, true},
		{model.TrackProcess{Argv: []string{"/usr/sbin/haproxy", "-f", "/opt"}, Match: "initial"}, p, false},
		{model.TrackProcess{Argv: []string{"/usr/sbin/nginx"}, Match: "initial"}, none, true},
		{model.TrackProcess{Argv: []string{"/usr/sbin/nginx", "-g"}}, none, false},
		{model.TrackProcess{}, none, false},
		{model.TrackProcess{Argv: []string{"x"}, FullCommand: true}, process{comm: "x"}, false}, // cleared its command line
	} {
		if got := matches(&c.t, &c.p); got != c.want {
			t.Errorf("%+v: %v", c.t, got)
		}
	}
}

func TestProcessDelays(t *testing.T) {
	at := func(ms int) time.Time { return t0.Add(time.Duration(ms) * time.Millisecond) }
	type step struct {
		ms, n int
		ok    bool
	}
	for name, c := range map[string]struct {
		conf  model.TrackProcess
		steps []step
	}{
		"no delays":                  {model.TrackProcess{Quorum: 1, QuorumMax: -1}, []step{{0, 0, false}, {1, 1, true}, {2, 5, true}, {3, 0, false}}},
		"the first count needs none": {model.TrackProcess{Quorum: 1, QuorumMax: -1, ForkDelay: time.Hour, TerminateDelay: time.Hour}, []step{{0, 1, true}, {1, 0, true}}},
		"fork delay": {model.TrackProcess{Quorum: 2, QuorumMax: -1, ForkDelay: 100 * time.Millisecond},
			[]step{{0, 1, false}, {10, 2, false}, {100, 2, false}, {110, 2, true}, {120, 1, false}}},
		"a death before it is over": {model.TrackProcess{Quorum: 1, QuorumMax: -1, ForkDelay: 100 * time.Millisecond},
			[]step{{0, 0, false}, {10, 1, false}, {60, 0, false}, {90, 1, false}, {150, 1, false}, {190, 1, true}}},
		"terminate delay": {model.TrackProcess{Quorum: 1, QuorumMax: -1, TerminateDelay: 100 * time.Millisecond},
			[]step{{0, 1, true}, {10, 0, true}, {60, 1, true}, {70, 0, true}, {169, 0, true}, {170, 0, false}, {171, 1, true}}},
		"too many": {model.TrackProcess{Quorum: 1, QuorumMax: 2, ForkDelay: 50 * time.Millisecond},
			[]step{{0, 2, true}, {10, 3, true}, {60, 3, false}, {70, 2, true}}},
		"none at all": {model.TrackProcess{Quorum: 0, QuorumMax: 0}, []step{{0, 0, true}, {1, 1, false}, {2, 0, true}}},
	} {
		tr := &tracked{conf: c.conf}
		for _, s := range c.steps {
			tr.observe(s.n, at(s.ms))
			if tr.ok != s.ok {
				t.Errorf("%s: at %d ms with %d: %v", name, s.ms, s.n, tr.ok)
			}
		}
	}
}

// TestTrackProcess counts real processes through the whole service: what comes
// is seen at the next look, what ends at once.
func TestTrackProcess(t *testing.T) {
	dir := folder(t)
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(sleep)
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("trk%d", os.Getpid())
	prog := filepath.Join(dir, name)
	if err := os.WriteFile(prog, text, 0o755); err != nil {
		t.Fatal(err)
	}
	b := newBox(t)
	b.conf.Publish(status.Conf{Generation: 1, Config: model.Config{TrackProcesses: []model.TrackProcess{
		{Name: "any", Argv: []string{name}, Quorum: 1, QuorumMax: -1},
		{Name: "two", Argv: []string{prog, "600"}, Quorum: 2, QuorumMax: -1},
		{Name: "none", Argv: []string{name}, Quorum: 0, QuorumMax: 0, ForkDelay: time.Hour},
		{Name: "absent", Argv: []string{"no-such-process"}, Quorum: 1, QuorumMax: -1},
	}}})
	b.start()
	is := func(want ...string) func() bool {
		return func() bool {
			var got []string
			for _, p := range b.state().Processes {
				got = append(got, fmt.Sprintf("%s %v %d", p.Name, p.OK, p.Count))
			}
			return cmp.Equal(got, want)
		}
	}
	await(t, "the first look", is("any false 0", "two false 0", "none true 0", "absent false 0"))
	run := func(arg string) *exec.Cmd {
		c := exec.Command(prog, arg)
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Process.Kill(); c.Wait() })
		return c
	}
	one := run("600")
	await(t, "one", is("any true 1", "two false 1", "none true 1", "absent false 0"))
	run("600")
	other := run("601")
	await(t, "three", is("any true 3", "two true 2", "none true 3", "absent false 0"))
	states := make(chan status.Notify, 1000)
	ctx, cancel := context.WithCancel(b.ctx)
	defer cancel()
	go ipc.Watch(ctx, b.dir.Client("notify"), func(_ uint64, n status.Notify) { states <- n })
	<-states
	began := time.Now()
	one.Process.Kill()
	for n := range states {
		if !n.Processes[1].OK {
			break
		}
	}
	t.Logf("a death is known after %s", time.Since(began))
	other.Process.Kill()
	await(t, "one again", is("any true 1", "two false 1", "none true 1", "absent false 0"))
	var told []string
	for _, tr := range b.state().Transitions {
		if tr.Kind == "process" && tr.Object == "two" {
			told = append(told, tr.From+" "+tr.To+" "+tr.Reason)
		}
	}
	if d := cmp.Diff([]string{"INIT KO 0 processes, wanted at least 2", "KO OK 2 processes, wanted at least 2", "OK KO 1 processes, wanted at least 2"}, told); d != "" {
		t.Error(d)
	}
	b.conf.Publish(status.Conf{Generation: 2})
	await(t, "none tracked", func() bool { return len(b.state().Processes) == 0 })
	b.stop()
}

func FuzzStat(f *testing.F) {
	f.Add([]byte("12 (a (b) c) S 1 2 3"))
	f.Add([]byte("12 (x) Z 18446744073709551616 "))
	f.Fuzz(func(t *testing.T, b []byte) {
		comm, parent, _, ok := parseStat(b)
		if ok && (parent < 0 || !strings.Contains(string(b), comm)) {
			t.Errorf("%q: %q %d", b, comm, parent)
		}
	})
}

func TestTrackFileWithoutAny(t *testing.T) {
	err := (&trackFiles{}).set("load", 5)
	const want = "track-file load: the running configuration has no track_file; one is added with: track_file load { file /run/load }"
	if err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

// A file that is being written holds the number before, also while another one
// is looked for.
func TestTrackFileThatIsBeingWritten(t *testing.T) {
	// Not below /tmp, where folders are made as they are needed.
	dir, err := os.MkdirTemp("/var/tmp", "notify")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path, later := filepath.Join(dir, "drain"), filepath.Join(dir, "none", "later")
	if err := os.WriteFile(path, []byte("5\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := &trackFiles{user: &scriptUser{}, log: discard(), did: func() {}, now: time.Now, tell: func(string, int, int) {}}
	s.apply(t.Context(), []model.TrackFile{{Name: "drain", Path: path}, {Name: "later", Path: later}}, false)
	defer s.stop()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.Mkdir(filepath.Dir(later), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(later, []byte("7\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	await(t, "the other number", func() bool { return s.results()[1].Value == 7 })
	if r := s.results()[0]; r.Value != 5 {
		t.Errorf("between the emptying and the writing: %+v", r)
	}
	f.WriteString("6\n")
	f.Close()
	await(t, "the next number", func() bool { return s.results()[0].Value == 6 })
}

// A file whose folder is not there is looked for each second; that is no news
// each time, and its state says which folder it is.
func TestTrackFileWithoutFolder(t *testing.T) {
	// Not below /tmp, where folders are made as they are needed.
	dir, err := os.MkdirTemp("/var/tmp", "notify")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	write := func(path, text string) {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	news := make(chan struct{}, 1000)
	s := &trackFiles{user: &scriptUser{}, log: discard(), did: func() { news <- struct{}{} }, now: time.Now, tell: func(string, int, int) {}}
	missing := filepath.Join(dir, "none", "drain")
	bad := filepath.Join(dir, "bad")
	write(bad, "99999999999\n")
	s.apply(t.Context(), []model.TrackFile{{Name: "drain", Path: missing}, {Name: "bad", Path: bad}}, false)
	defer s.stop()
	if r := s.results(); !strings.Contains(r[0].Detail, filepath.Dir(missing)) || !strings.Contains(r[1].Detail, "out of range") {
		t.Errorf("%+v", r)
	}
	for len(news) > 0 {
		<-news
	}
	for range 3 { // what poll does
		s.mu.Lock()
		s.rewatch(t.Context())
		for _, f := range s.list {
			s.read(f)
		}
		s.mu.Unlock()
	}
	if n := len(news); n != 0 {
		t.Errorf("%d times news of nothing", n)
	}
	if err := os.Mkdir(filepath.Dir(missing), 0o777); err != nil {
		t.Fatal(err)
	}
	write(missing, "7\n")
	await(t, "the number", func() bool { r := s.results(); return r[0].Value == 7 && r[0].Detail == "" })
}
