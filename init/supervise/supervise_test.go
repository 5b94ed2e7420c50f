package supervise

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ballast/init/journal"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

func TestRights(t *testing.T) {
	f := newFixture(t, "")
	f.add(t, Spec{Name: "net", UID: ipc.UIDNet, GID: ipc.GroupBallast, Caps: []uintptr{unix.CAP_NET_ADMIN, unix.CAP_NET_RAW}},
		Spec{Name: "conf", UID: ipc.UIDConf, GID: ipc.GroupBallast},
		Spec{Name: "notify", UID: ipc.UIDNotify, GID: ipc.GroupBallast, Caps: []uintptr{unix.CAP_SETUID, unix.CAP_SETGID, unix.CAP_KILL}})
	f.Start()
	if m := f.WaitReady(t.Context()); m != nil {
		t.Fatal(m)
	}
	for _, tt := range []struct {
		name           string
		uid            int
		caps, bounding string
		nnp            string
	}{
		{"net", ipc.UIDNet, "0000000000003000", "0000000000003000", "1"},
		{"conf", ipc.UIDConf, "0000000000000000", "0000000000000000", "1"},
		{"notify", ipc.UIDNotify, "00000000000000e0", "00000000000000e0", "1"},
	} {
		var id identity
		if _, err := f.dir.Client(tt.name).State(t.Context(), &id); err != nil {
			t.Fatal(err)
		}
		if id.UID != tt.uid || id.GID != ipc.GroupBallast || !slices.Equal(id.Groups, []int{ipc.GroupBallast}) || !id.Session {
			t.Errorf("%s runs as %+v", tt.name, id)
		}
		for k, want := range map[string]string{"CapEff": tt.caps, "CapPrm": tt.caps, "CapAmb": tt.caps, "CapBnd": tt.bounding, "NoNewPrivs": tt.nnp} {
			if id.Status[k] != want {
				t.Errorf("%s: %s is %s, want %s", tt.name, k, id.Status[k], want)
			}
		}
		st, err := os.Stat(id.Data)
		if err != nil || st.Mode().Perm() != 0o700 {
			t.Errorf("%s: its folder %q: %v, %v", tt.name, id.Data, st, err)
		}
		// What it puts there (resolv.conf) may be for scripts too.
		st, err = os.Stat(id.Run)
		if err != nil || st.Mode().Perm() != 0o755 || int(st.Sys().(*syscall.Stat_t).Uid) != tt.uid {
			t.Errorf("%s: its folder in memory %q: %v, %v", tt.name, id.Run, st, err)
		}
	}
	// The limits belong to threads that are gone: init keeps everything.
	if id := self(); id.Status["NoNewPrivs"] != "0" || strings.Trim(id.Status["CapBnd"], "0") == "" {
		t.Errorf("init itself lost rights: %v", id.Status)
	}
}

// A service that is killed is back at once, and a caller that comes meanwhile
// is not refused.
func TestRestart(t *testing.T) {
	f := newFixture(t, "")
	f.add(t, Spec{Name: "ipvs", UID: ipc.UIDIPVS, GID: ipc.GroupBallast})
	f.Start()
	p := f.await(t, "ipvs", isReady)
	begin := time.Now()
	if err := f.Signal("ipvs", unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	f.await(t, "ipvs", func(q status.Process) bool { return q.PID != p.PID }) // it may be back before anybody looks
	var id identity
	if _, err := f.dir.Client("ipvs").State(t.Context(), &id); err != nil {
		t.Errorf("a call while it was away: %v", err)
	}
	q := f.await(t, "ipvs", isReady)
	t.Logf("ready again after %v", time.Since(begin))
	if q.PID == p.PID || q.Restarts != 1 || q.LastExit != "killed (SIGKILL)" {
		t.Errorf("after the kill: %+v", q)
	}
}

// An optional service runs while it is wanted, and no longer.
func TestOptional(t *testing.T) {
	f := newFixture(t, "")
	f.add(t, Spec{Name: "net", UID: ipc.UIDNet, GID: ipc.GroupBallast}, Spec{Name: "snmp", UID: ipc.UIDSNMP, GID: ipc.GroupBallast, Optional: true})
	f.Start()
	if missing := f.WaitReady(t.Context()); missing != nil {
		t.Fatal(missing)
	}
	stopped := func(p status.Process) bool { return p.State == Stopped && p.PID == 0 }
	f.await(t, "snmp", stopped)
	f.Want("net", false) // not optional
	f.Want("nobody", true)
	var pids []int
	for range 2 {
		f.Want("snmp", true)
		f.Want("snmp", true)
		pids = append(pids, f.await(t, "snmp", isReady).PID)
		f.Want("snmp", false)
		f.await(t, "snmp", stopped)
	}
	if pids[0] == pids[1] {
		t.Errorf("the same process twice: %v", pids)
	}
	f.await(t, "net", isReady)
	f.Want("snmp", true)
	f.await(t, "snmp", isReady)
	f.Stop("snmp", "net")
	f.Want("snmp", true)
	f.await(t, "snmp", stopped)
	f.Stop("snmp")
}

// A data disk that takes no new folder costs what is kept, never the service.
func TestNoDataFolder(t *testing.T) {
	f := newFixture(t, "")
	if err := os.WriteFile(filepath.Join(f.cfg.Data, "net"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	f.add(t, Spec{Name: "net", UID: ipc.UIDNet, GID: ipc.GroupBallast})
	f.Start()
	f.await(t, "net", isReady)
	var id identity
	if _, err := f.dir.Client("net").State(t.Context(), &id); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(id.Data)
	if err != nil || id.Data != filepath.Join(f.cfg.Run, "net", "data") || st.Mode().Perm() != 0o700 || st.Sys().(*syscall.Stat_t).Uid != ipc.UIDNet {
		t.Errorf("its folder is %q: %v, %v", id.Data, st, err)
	}
	if l, _ := f.j.Lines(status.LogQuery{Service: "init"}); !strings.Contains(fmt.Sprint(l), "net keeps its files in memory") {
		t.Errorf("log: %v", l)
	}
}

// Nothing is written where all is as it should be: the disk may be read-only.
func TestFolderReadOnly(t *testing.T) {
	d := t.TempDir()
	if err := folder(d, ipc.UIDNet, ipc.GroupBallast, 0o700); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(d)
	if err != nil {
		t.Fatal(err)
	}
	if err := folder(d, ipc.UIDNet, ipc.GroupBallast, 0o700); err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(d)
	if err != nil {
		t.Fatal(err)
	}
	if a, b := before.Sys().(*syscall.Stat_t).Ctim, after.Sys().(*syscall.Stat_t).Ctim; a != b {
		t.Errorf("its inode was written: %v, %v", a, b)
	}
}

func TestBackoff(t *testing.T) {
	s := Spec{MaxBackoff: time.Second}
	var got []time.Duration
	for n := 1; n < 8; n++ {
		got = append(got, s.backoff(n))
	}
	ms := time.Millisecond
	if want := []time.Duration{0, 100 * ms, 200 * ms, 400 * ms, 800 * ms, 1000 * ms, 1000 * ms}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if d := (Spec{}).backoff(1 << 30); d != 30*time.Second {
		t.Errorf("after many: %v", d)
	}
}

func TestCrashLoop(t *testing.T) {
	f := newFixture(t, "")
	lost := make(chan struct{}, 100)
	f.add(t, Spec{Name: "crash", MaxBackoff: 50 * time.Millisecond, StopTimeout: time.Minute, LostAfter: 100 * time.Millisecond, Lost: func() { lost <- struct{}{} }})
	f.Start()
	<-lost
	p := f.await(t, "crash", func(p status.Process) bool { return p.State == Backoff && p.Restarts >= 3 })
	if p.LastExit != "exit 3" {
		t.Errorf("%+v", p)
	}
	if l := f.log(t, "crash"); l[0] != "about to fail" {
		t.Errorf("log: %q", l)
	}
	begin := time.Now()
	f.Stop("crash")
	if d := time.Since(begin); d > 30*time.Second {
		t.Errorf("stopping what is not running took %v", d)
	}
}

// A service that gets ready and dies, again and again, is lost too.
func TestCrashLoopReady(t *testing.T) {
	f := newFixture(t, "")
	lost := make(chan struct{}, 100)
	f.add(t, Spec{Name: "crash-ready", MaxBackoff: time.Millisecond, LostAfter: time.Hour, Lost: func() { lost <- struct{}{} }})
	f.Start()
	select {
	case <-lost:
	case <-time.After(patience):
		t.Fatal("not told")
	}
	if p := f.State()[0]; p.Restarts < hopeless-1 {
		t.Errorf("given up after %d", p.Restarts)
	}
}

func TestHang(t *testing.T) {
	f := newFixture(t, "")
	f.add(t, Spec{Name: "hang", Hang: 500 * time.Millisecond})
	f.Start()
	p := f.await(t, "hang", func(p status.Process) bool { return p.Restarts > 0 })
	if !strings.HasPrefix(p.LastExit, "no progress for") {
		t.Errorf("%+v", p)
	}
	if l := strings.Join(f.log(t, "hang"), "\n"); !strings.Contains(l, "SIGQUIT") || !strings.Contains(l, "goroutine 1 ") {
		t.Errorf("its goroutines are not in the log: %s", l)
	}
}

func TestStopDeaf(t *testing.T) {
	f := newFixture(t, "")
	f.add(t, Spec{Name: "deaf", StopTimeout: 200 * time.Millisecond})
	f.Start()
	f.await(t, "deaf", isReady)
	f.Stop("deaf")
	if p := f.State()[0]; p.State != Stopped || p.LastExit != "did not end within 200ms, killed (SIGKILL)" || p.PID != 0 {
		t.Errorf("%+v", p)
	}
	if err := f.Signal("deaf", unix.SIGTERM); err == nil {
		t.Error("a signal to what has stopped was no error")
	}
	if err := f.Signal("nobody", unix.SIGTERM); err == nil {
		t.Error("a signal to nobody was no error")
	}
	f.Stop("nobody")
}

func TestStopOrder(t *testing.T) {
	f := newFixture(t, "")
	order := filepath.Join(t.TempDir(), "order")
	if err := os.WriteFile(order, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"conf", "net", "vrrp"} {
		f.add(t, Spec{Name: n, Env: []string{"ORDER=" + order}})
	}
	f.Start()
	if m := f.WaitReady(t.Context()); m != nil {
		t.Fatal(m)
	}
	f.Stop("vrrp")
	f.Stop("net", "none")
	f.Stop("conf")
	b, _ := os.ReadFile(order)
	if string(b) != "vrrp\nnet\nconf\n" {
		t.Errorf("ended in this order: %q", b)
	}
}

func TestFlood(t *testing.T) {
	f := newFixture(t, "")
	f.add(t, Spec{Name: "flood"})
	f.Start()
	f.await(t, "flood", isReady)
	f.Stop("flood")
	l := f.log(t, "flood")
	if len(l) > journal.MaxLines || len(l) < 100 || l[len(l)-1] != `up arg=` && !strings.HasPrefix(l[len(l)-1], "up") {
		t.Errorf("%d lines, the last one %q", len(l), l[len(l)-1])
	}
}

// What a process said before its end is in the log, however late it is read.
func TestLastWordsOnASlowMachine(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close() // somebody else has it too
	words := strings.Repeat("panic: no more\n", 4000)
	if _, err := w.WriteString(words); err != nil {
		t.Fatal(err)
	}
	r.SetReadDeadline(time.Now().Add(-time.Second))
	var log strings.Builder
	if copyLog(&log, r); log.String() != words {
		t.Errorf("%d of %d bytes are in the log", log.Len(), len(words))
	}
}

func TestFiles(t *testing.T) {
	f := newFixture(t, "")
	opened := 0
	f.add(t, Spec{Name: "console", Files: func() (map[string]*os.File, error) {
		opened++
		r, err := os.Open(os.DevNull)
		if opened == 1 {
			return map[string]*os.File{"ssh": r}, errors.New("ttyS9: no such line")
		}
		return map[string]*os.File{"ssh": r}, err
	}})
	f.Start()
	f.await(t, "console", isReady)
	if l, _ := f.j.Lines(status.LogQuery{Service: "init"}); !strings.Contains(fmt.Sprint(l), "ttyS9: no such line") {
		t.Errorf("log: %v", l)
	}
	if err := f.Signal("console", unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	f.await(t, "console", func(p status.Process) bool { return p.State == Ready && p.Restarts == 1 })
	if opened != 2 {
		t.Errorf("files were opened %d times, want once a start", opened)
	}
}

// Orphans become children of PID 1; the reaper must collect them. Here we are
// their subreaper.
func TestOrphans(t *testing.T) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	defer unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
	f := newFixture(t, "")
	pid, exit, err := f.cfg.Reaper.start(func() (int, error) {
		return spawn(command{exe: "/bin/sh", args: []string{"sh", "-c", "sleep 0.05 & exit 7"}, files: []uintptr{os.Stdin.Fd(), 1, 2}, cgroup: -1})
	})
	if err != nil {
		t.Fatal(err)
	}
	if e := <-exit; e.Status.ExitStatus() != 7 {
		t.Errorf("pid %d: %v", pid, e)
	}
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/children", os.Getpid()))
		if strings.TrimSpace(string(b)) == "" {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("children left: %s", b)
		}
	}
}

func TestStateJSON(t *testing.T) {
	f := newFixture(t, "")
	f.add(t, Spec{Name: "net"})
	f.Start()
	p := f.await(t, "net", isReady)
	if p.RSS == 0 || p.PSS == 0 || p.PSS > p.RSS {
		t.Errorf("memory figures: %+v", p)
	}
	if _, err := json.Marshal(p); err != nil {
		t.Error(err)
	}
	if l, ok := f.Life("net"); !ok || !l.Ready || l.First.IsZero() {
		t.Errorf("%+v", l)
	}
}
