package notify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"ballast/configs/model"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

func TestCounter(t *testing.T) {
	for _, c := range []struct {
		name       string
		rise, fall int
		initFail   bool
		in, want   string // "+-" results; after each: "?" unknown, "+" OK, "-" KO
	}{
		{"one success is enough at the start", 3, 3, false, "+", "+"},
		{"one failure too", 3, 3, false, "-", "-"},
		{"then rise counts", 3, 2, false, "-+++", "---+"},
		{"any failure on the way up begins anew", 3, 2, false, "-++-+++", "------+"},
		{"fall counts", 2, 3, false, "+---", "+++-"},
		{"any success on the way down refills", 2, 3, false, "+--+--+---", "+++++++++-"},
		{"all of rise again after a fall", 2, 2, false, "+--++", "++--+"},
		{"rise 1 fall 1", 1, 1, false, "+-+-", "+-+-"},
		{"rise 1 fall 2", 1, 2, false, "+-+--+", "++++-+"},
		{"init_fail needs all of rise", 2, 1, true, "+", "-"},
		{"init_fail, then up", 2, 1, true, "++-", "-+-"},
		{"zero means one", 0, 0, false, "+-", "+-"},
	} {
		n := newCounter(&model.Script{Rise: c.rise, Fall: c.fall, InitFail: c.initFail})
		got := ""
		for _, r := range c.in {
			n.add(r == '+')
			switch {
			case !n.known:
				got += "?"
			case n.ok():
				got += "+"
			default:
				got += "-"
			}
		}
		if got != c.want {
			t.Errorf("%s: %s gave %s, want %s", c.name, c.in, got, c.want)
		}
	}
}

// folder is a folder that the script user can reach too.
func folder(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "notify-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}

func write(t testing.TB, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	os.Chmod(path, 0o755)
	return path
}

func testRunner() *runner { return newRunner(Options{Socket: "@ballast-test"}) }

func TestRunner(t *testing.T) {
	dir := folder(t)
	r := testRunner()
	plain := write(t, filepath.Join(dir, "plain"), "")
	os.Chmod(plain, 0o644)
	for _, c := range []struct {
		name    string
		cmd     model.Command
		exit    int
		detail  string
		output  string
		missing bool
	}{
		{"exit 0", model.Command{Argv: []string{write(t, filepath.Join(dir, "ok"), "echo $# $1 $2"), "a b", "c"}}, 0, "exit 0", "2 a b c\n", false},
		{"exit 7", model.Command{Argv: []string{write(t, filepath.Join(dir, "seven"), "echo out; echo err >&2; exit 7")}}, 7, "exit 7", "out\nerr\n", false},
		{"found along PATH", model.Command{Argv: []string{"echo", "x"}}, 0, "exit 0", "x\n", false},
		{"shell line", model.Command{Shell: "[ -e /nope ] && exit 1 || exit 3"}, 3, "exit 3", "", false},
		{"no such file", model.Command{Argv: []string{dir + "/none"}}, -1, dir + "/none: no such file or directory", "", true},
		{"not on PATH", model.Command{Argv: []string{"no-such-command-at-all"}}, -1, "no-such-command-at-all: not found in " + scriptPath, "", true},
		{"not executable", model.Command{Argv: []string{plain}}, -1, plain + ": not executable (mode 0644)", "", true},
		{"a folder", model.Command{Argv: []string{dir}}, -1, dir + ": is a folder", "", true},
		{"no interpreter", model.Command{Argv: []string{func() string {
			p := filepath.Join(dir, "perl")
			os.WriteFile(p, []byte("#!/usr/bin/no-such-perl\n"), 0o755)
			return p
		}()}}, -1, dir + "/perl: its interpreter (the #! line) is not on this box", "", true},
		{"killed by a signal", model.Command{Shell: "kill -9 $$"}, -1, "killed by SIGKILL", "", false},
		{"nothing", model.Command{}, -1, "no command", "", true},
	} {
		res := r.run(context.Background(), c.cmd, nil, 5*time.Second)
		if res.exit != c.exit || res.detail != c.detail || res.output != c.output || res.missing != c.missing {
			t.Errorf("%s: %+v", c.name, res)
		}
	}
}

// TestRunnerIsolation: what a script is and has.
func TestRunnerIsolation(t *testing.T) {
	t.Setenv("SECRET", "x")
	res := testRunner().run(context.Background(), model.Command{Shell: `
		echo "$(id -u) $(id -g) $(id -G)"
		pwd
		grep -E 'Cap(Prm|Eff|Amb)' /proc/self/status
		ps -o pgid= -p $$ | tr -d ' '
		echo $$
		env | sort
		read x && echo stdin`}, nil, 5*time.Second)
	lines := strings.Split(res.output, "\n")
	if len(lines) < 8 {
		t.Fatalf("%+v", res)
	}
	who := fmt.Sprintf("%d %d %d", os.Getuid(), os.Getgid(), os.Getgid())
	if maySetUser() {
		who = "200 200 200"
		for _, l := range lines[2:5] {
			if !strings.HasSuffix(l, "0000000000000000") {
				t.Errorf("capabilities reach a script: %s", l)
			}
		}
	}
	if !strings.HasPrefix(lines[0]+" ", who+" ") || lines[1] != "/" {
		t.Errorf("runs as %q in %q", lines[0], lines[1])
	}
	if lines[5] != lines[6] {
		t.Errorf("process group %s of process %s", lines[5], lines[6])
	}
	if strings.Contains(res.output, "SECRET") || !strings.Contains(res.output, "BALLAST_SCRIPT=@ballast-test\n") || strings.Contains(res.output, "stdin") {
		t.Errorf("environment:\n%s", res.output)
	}
}

// TestTimeoutKillsTheGroup: also a child that ignores SIGTERM, and one whose
// parent has gone.
func TestTimeoutKillsTheGroup(t *testing.T) {
	dir := folder(t)
	pids := filepath.Join(dir, "pids")
	child := write(t, filepath.Join(dir, "child"), `trap '' TERM; echo $$ >>`+pids+`; while :; do sleep 0.05; done`)
	began := time.Now()
	res := testRunner().run(context.Background(), model.Command{Shell: child + " & " + child + " & trap '' TERM; while [ $(wc -l <" + pids + ") -lt 2 ]; do sleep 0.02; done; wait"},
		nil, 300*time.Millisecond)
	if res.exit != -1 || res.detail != "timeout after 300ms, killed" {
		t.Errorf("%+v", res)
	}
	if d := time.Since(began); d < killAfter || d > killAfter+3*time.Second {
		t.Errorf("took %s: SIGKILL comes %s after SIGTERM", d, killAfter)
	}
	b, err := os.ReadFile(pids)
	if err != nil {
		t.Fatal(err)
	}
	list := strings.Fields(string(b))
	if len(list) != 2 {
		t.Fatalf("children %q", list)
	}
	for _, p := range list {
		var pid int
		fmt.Sscan(p, &pid)
		await(t, "the end of child "+p, func() bool { return gone(pid) })
	}
	// SIGTERM reaches the children too, and gives them time to tidy up.
	tidy := filepath.Join(dir, "tidied")
	child = write(t, filepath.Join(dir, "tidy"), `trap 'echo x >`+tidy+`; exit' TERM; echo >`+tidy+`.up; while :; do sleep 0.02; done`)
	testRunner().run(context.Background(), model.Command{Shell: child + " & trap '' TERM; while [ ! -e " + tidy + ".up ]; do sleep 0.02; done; while :; do sleep 0.02; done"},
		nil, 400*time.Millisecond)
	if _, err := os.Stat(tidy); err != nil {
		t.Errorf("the child was not asked to end: %v", err)
	}
	// One that dies of SIGTERM is not waited for longer.
	began = time.Now()
	testRunner().run(context.Background(), model.Command{Argv: []string{"sleep", "60"}}, nil, 50*time.Millisecond)
	if d := time.Since(began); d > time.Second {
		t.Errorf("took %s", d)
	}
}

// gone counts a zombie that init has yet to reap as gone.
func gone(pid int) bool {
	if unix.Kill(pid, 0) == unix.ESRCH {
		return true
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(b), ") Z ")
}

func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	end := time.Now().Add(10 * time.Second)
	for !ok() {
		if time.Now().After(end) {
			t.Fatalf("waited 10 s for %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// TestBackgroundChild: a script that leaves something running with its output
// open has ended all the same.
func TestBackgroundChild(t *testing.T) {
	began := time.Now()
	res := testRunner().run(context.Background(), model.Command{Shell: "sleep 3 & echo done"}, nil, 10*time.Second)
	if res.exit != 0 || res.output != "done\n" || time.Since(began) > 2*time.Second {
		t.Errorf("%+v after %s", res, time.Since(began))
	}
}

func TestTail(t *testing.T) {
	res := testRunner().run(context.Background(), model.Command{Shell: "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done"}, nil, 20*time.Second)
	if len(res.output) > tailSize+8 || !strings.HasSuffix(res.output, "line 19999\n") || !strings.HasPrefix(res.output, "…") {
		t.Errorf("%d bytes: %.20q…", len(res.output), res.output)
	}
	var big tail
	big.Write([]byte(strings.Repeat("x", 3*tailSize)))
	big.Write([]byte("end"))
	if s := big.String(); len(s) != tailSize+len("…") || !strings.HasSuffix(s, "xend") {
		t.Errorf("%d bytes", len(s))
	}
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// TestScriptsNeverOverlap: a script that takes longer than its interval is
// skipped, also across a reload that changes it.
func TestScriptsNeverOverlap(t *testing.T) {
	dir := folder(t)
	log := filepath.Join(dir, "log")
	os.WriteFile(log, nil, 0o666)
	os.Chmod(log, 0o666)
	// The kernel drops this lock with the process, however it ends.
	path := write(t, filepath.Join(dir, "slow"), "trap '' TERM; exec 9>"+dir+"/lock; flock -n 9 || echo OVERLAP >>"+log+"; echo run >>"+log+"; sleep 0.12 9>&-")
	cfg := func(fall int) *model.Config {
		return &model.Config{
			Scripts: []model.Script{
				{Name: "slow", Command: model.Command{Argv: []string{path}}, Interval: 50 * time.Millisecond, Timeout: 5 * time.Second, Rise: 1, Fall: fall},
				{Name: "idle", Command: model.Command{Argv: []string{path}}, Interval: time.Millisecond},
			},
			Instances: []model.Instance{{Name: "VI_1", TrackScripts: []model.TrackScript{{Script: "slow"}}}},
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &scripts{run: testRunner(), log: discard(), did: func(bool) {}}
	runs := func() int {
		b, _ := os.ReadFile(log)
		if strings.Contains(string(b), "OVERLAP") {
			t.Fatal("two at one time")
		}
		return strings.Count(string(b), "run")
	}
	began := time.Now()
	s.apply(ctx, cfg(1))
	await(t, "3 runs", func() bool { return runs() >= 3 })
	for i := range 3 {
		s.apply(ctx, cfg(i+2))
	}
	at := runs()
	await(t, "3 more", func() bool { return runs() >= at+3 })
	if most := int(time.Since(began)/(100*time.Millisecond)) + 4; runs() > most {
		t.Errorf("%d runs in %s", runs(), time.Since(began))
	}
	res := s.results()
	if !res[0].Known || res[1].Known || !strings.Contains(res[1].Detail, "not tracked") {
		t.Errorf("%+v", res)
	}
	cancel()
	s.wg.Wait()
}

func TestScriptMissingThenThere(t *testing.T) {
	dir := folder(t)
	path := filepath.Join(dir, "check.sh")
	ctx, cancel := context.WithCancel(context.Background())
	s := &scripts{run: testRunner(), log: discard(), did: func(bool) {}}
	s.apply(ctx, &model.Config{
		Scripts:    []model.Script{{Name: "chk", Command: model.Command{Argv: []string{path}}, Interval: 30 * time.Millisecond, Rise: 1, Fall: 1}},
		SyncGroups: []model.SyncGroup{{Name: "G", TrackScripts: []model.TrackScript{{Script: "chk"}}}},
	})
	await(t, "missing", func() bool { r := s.results()[0]; return r.Missing && !r.Known })
	write(t, path, "exit 0")
	await(t, "OK", func() bool { r := s.results()[0]; return !r.Missing && r.Known && r.OK })
	os.Remove(path)
	await(t, "KO", func() bool { r := s.results()[0]; return !r.Missing && r.Known && !r.OK })
	cancel()
	s.wg.Wait()
}

// TestScriptsResume: the verdict of the run before holds until fall failures.
func TestScriptsResume(t *testing.T) {
	cmd := model.Command{Shell: "exit 1"}
	cfg := &model.Config{
		Scripts:   []model.Script{{Name: "chk", Command: cmd, Interval: 20 * time.Millisecond, Timeout: 5 * time.Second, Rise: 1, Fall: 2}},
		Instances: []model.Instance{{TrackScripts: []model.TrackScript{{Script: "chk"}}}},
	}
	ctx, cancel := context.WithCancel(context.Background())
	var mu sync.Mutex
	var seen []bool
	s := &scripts{run: testRunner(), log: discard(), before: map[string]verdict{"chk": {hashOf(cmd), true}}}
	s.did = func(bool) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, s.results()[0].OK)
	}
	s.apply(ctx, cfg)
	await(t, "two runs", func() bool { mu.Lock(); defer mu.Unlock(); return len(seen) >= 2 })
	cancel()
	s.wg.Wait()
	if d := cmp.Diff([]bool{true, false}, seen[:2]); d != "" {
		t.Error(d)
	}
	want := map[string]verdict{"chk": {hashOf(cmd), false}}
	if d := cmp.Diff(want, s.verdicts()); d != "" {
		t.Error(d)
	}
}

// TestQueueOrder: one object's scripts in order and alone, others beside them.
func TestQueueOrder(t *testing.T) {
	dir := folder(t)
	var want []string
	q := newQueues(testRunner(), discard(), func() {})
	for i := range 8 {
		for _, o := range []string{"a", "b"} {
			q.add(job{object: o, cmd: model.Command{Shell: fmt.Sprintf("mkdir %s/%s || echo OVERLAP >>%s/%s.log; sleep 0.0%d; echo %d >>%s/%s.log; rmdir %s/%s",
				dir, o, dir, o, 8-i, i, dir, o, dir, o)}})
		}
		want = append(want, fmt.Sprint(i))
	}
	q.drain(20 * time.Second)
	for _, o := range []string{"a", "b"} {
		b, _ := os.ReadFile(dir + "/" + o + ".log")
		if d := cmp.Diff(want, strings.Fields(string(b))); d != "" {
			t.Errorf("%s: %s", o, d)
		}
	}
}

func TestQueueIsBounded(t *testing.T) {
	q := newQueues(testRunner(), discard(), func() {})
	for range 3 * queueSize {
		q.add(job{object: "a", cmd: model.Command{Argv: []string{"sleep", "100"}}})
	}
	q.mu.Lock()
	n := len(q.byName["a"].jobs)
	q.mu.Unlock()
	if n != queueSize {
		t.Errorf("%d wait", n)
	}
	began := time.Now()
	q.drain(0)
	if time.Since(began) > time.Second {
		t.Errorf("took %s to end", time.Since(began))
	}
}

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.FixedZone("", 3600))

func command(name string) model.Command { return model.Command{Argv: []string{name}} }

func eventConfig() *model.Config {
	return &model.Config{
		Global: model.Global{RouterID: "LVS_DEVEL"},
		Instances: []model.Instance{{Name: "VI_1", SMTPAlert: true, Notify: model.Notify{
			Master: command("m"), Backup: command("b"), Fault: command("f"), Stop: command("s"), Any: command("any")}}},
		SyncGroups: []model.SyncGroup{{Name: "G", SMTPAlert: true, Notify: model.Notify{Any: command("gany")}}},
		VirtualServers: []model.VirtualServer{{
			Name: "[10.10.10.2]:tcp:80", QuorumUp: command("qup"), QuorumDown: command("qdown"), SMTPAlert: true,
			Services: []model.ServiceID{{Protocol: model.TCP}},
			Real: []model.RealServer{{Addr: netip.MustParseAddr("192.168.200.2"), ConfPort: 80, SMTPAlert: true,
				NotifyUp: command("up"), NotifyDown: command("down")}},
		}},
	}
}

func TestEvents(t *testing.T) {
	cfg := eventConfig()
	cfg.VirtualServers[0].Sorry = nil
	for _, c := range []struct {
		t    status.Transition
		want []string
		subj string
	}{
		{status.Transition{Kind: "instance", Object: "VI_1", To: "MASTER", Priority: 100}, []string{"m", "any INSTANCE VI_1 MASTER 100"}, "[LVS_DEVEL] VRRP Instance VI_1 - Entering MASTER state"},
		{status.Transition{Kind: "instance", Object: "VI_1", To: "BACKUP", Priority: 98}, []string{"b", "any INSTANCE VI_1 BACKUP 98"}, "[LVS_DEVEL] VRRP Instance VI_1 - Entering BACKUP state"},
		{status.Transition{Kind: "instance", Object: "VI_1", To: "FAULT", Priority: 98}, []string{"f", "any INSTANCE VI_1 FAULT 98"}, "[LVS_DEVEL] VRRP Instance VI_1 - Entering FAULT state"},
		{status.Transition{Kind: "instance", Object: "VI_1", To: "STOP", Priority: 98}, []string{"s", "any INSTANCE VI_1 STOP 98"}, "[LVS_DEVEL] VRRP Instance VI_1 - Stopping"},
		{status.Transition{Kind: "instance", Object: "VI_1", To: "INIT"}, nil, ""},
		{status.Transition{Kind: "instance", Object: "VI_9", To: "MASTER"}, nil, ""},
		{status.Transition{Kind: "group", Object: "G", To: "MASTER", Priority: 100}, []string{"gany GROUP G MASTER 0"}, "[LVS_DEVEL] VRRP Group G - Entering MASTER state"},
		{status.Transition{Kind: "virtual server", Object: "[10.10.10.2]:tcp:80", From: "UP", To: "DOWN"}, []string{"qdown"}, "[LVS_DEVEL] Virtualserver [10.10.10.2]:tcp:80 - DOWN"},
		{status.Transition{Kind: "virtual server", Object: "[10.10.10.2]:tcp:80", From: "INIT", To: "UP"}, []string{"qup"}, "[LVS_DEVEL] Virtualserver [10.10.10.2]:tcp:80 - UP"},
		{status.Transition{Kind: "virtual server", Object: "[10.10.10.2]:tcp:80", From: "INIT", To: "DOWN"}, nil, ""},
		{status.Transition{Kind: "real server", Object: "[192.168.200.2]:tcp:80 of [10.10.10.2]:tcp:80", To: "DOWN"}, []string{"down"},
			"[LVS_DEVEL] Realserver [192.168.200.2]:tcp:80 of virtual server [10.10.10.2]:tcp:80 - DOWN"},
		{status.Transition{Kind: "real server", Object: "[192.168.200.2]:tcp:80 of [10.10.10.2]:tcp:80", To: "UP"}, []string{"up"},
			"[LVS_DEVEL] Realserver [192.168.200.2]:tcp:80 of virtual server [10.10.10.2]:tcp:80 - UP"},
		{status.Transition{Kind: "real server", Object: "[192.168.200.9]:tcp:80 of [10.10.10.2]:tcp:80", To: "UP"}, nil, ""},
	} {
		find := forHealth
		if c.t.Kind == kindInstance || c.t.Kind == kindGroup {
			find = forVRRP
		}
		a := find(objectsOf(cfg), c.t)
		var got []string
		for _, j := range a.jobs {
			got = append(got, strings.Join(append(j.cmd.Argv, j.extra...), " "))
		}
		subj := ""
		if a.mail != nil {
			subj = a.mail.subject
		}
		if d := cmp.Diff(c.want, got); d != "" || subj != c.subj {
			t.Errorf("%+v: %s; subject %q", c.t, d, subj)
		}
	}
	cfg.Global.NoEmailFaults = true
	if a := forVRRP(objectsOf(cfg), status.Transition{Kind: "instance", Object: "VI_1", To: "FAULT"}); a.mail != nil {
		t.Error("no_email_faults")
	}
}

func TestNews(t *testing.T) {
	ring := func(from, n int, at time.Time) (out []status.Transition) {
		for i := range n {
			out = append(out, status.Transition{Seq: uint64(from + i), Time: at.Add(time.Duration(i) * time.Second)})
		}
		return out
	}
	for _, c := range []struct {
		name string
		ring []status.Transition
		last mark
		want int

		missed uint64
	}{
		{"empty", nil, mark{}, 0, 0},
		{"nothing new", ring(1, 3, t0), markOf(ring(3, 1, t0.Add(2*time.Second))[0]), 0, 0},
		{"two new", ring(1, 5, t0), markOf(ring(3, 1, t0.Add(2*time.Second))[0]), 2, 0},
		{"the first ever", ring(1, 2, t0), mark{}, 2, 0},
		{"missed a whole ring", ring(900, 5, t0), mark{3, t0.Add(-time.Hour).UnixNano()}, 5, 896},
		{"restarted, lower numbers", ring(1, 2, t0), mark{40, t0.Add(-time.Minute).UnixNano()}, 2, 0},
		{"restarted, and the clock was set back", ring(1, 2, t0), mark{40, t0.Add(time.Hour).UnixNano()}, 2, 0},
		{"restarted, same numbers", ring(1, 3, t0), mark{2, t0.Add(-time.Minute).UnixNano()}, 3, 0},
	} {
		list, missed := news(c.ring, c.last)
		if missed != c.missed {
			t.Errorf("%s: %d missed, want %d", c.name, missed, c.missed)
		}
		if got := len(list); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

// peer is another service of the director, made up.
func peer(t *testing.T, ctx context.Context, dir ipc.Dir, name string) *ipc.Server {
	t.Helper()
	env, err := ipc.NewEnv(dir, name, discard())
	if err != nil {
		t.Fatal(err)
	}
	srv := ipc.NewServer(name)
	go srv.Serve(ctx, env.Listener)
	return srv
}

// TestRun drives the whole service, through a restart of its own.
func TestRun(t *testing.T) {
	dir, work := ipc.Dir(t.TempDir()), folder(t)
	outer, end := context.WithCancel(context.Background())
	defer end()
	conf, vrrp, health := peer(t, outer, dir, "conf"), peer(t, outer, dir, "vrrp"), peer(t, outer, dir, "health")
	resigned := make(chan string, 1)
	vrrp.Handle("resign", func(_ context.Context, _ ipc.Peer, b json.RawMessage) (any, error) {
		var r status.Resign
		json.Unmarshal(b, &r)
		resigned <- r.By
		return nil, nil
	})
	log := filepath.Join(work, "log")
	note := func(what string) model.Command { return model.Command{Shell: "echo " + what + " $* >>" + log} }
	seen := func() []string {
		b, _ := os.ReadFile(log)
		return strings.Split(strings.TrimSpace(string(b)), "\n")
	}
	cfg := eventConfig()
	cfg.SyncGroups = nil
	cfg.Instances[0].Notify = model.Notify{Master: note("master"), Backup: note("backup"), Any: note("any")}
	cfg.VirtualServers[0].QuorumUp, cfg.VirtualServers[0].QuorumDown = note("quorum up"), note("quorum down")
	cfg.VirtualServers[0].Real[0].NotifyDown = note("real down")
	conf.Publish(status.Conf{Generation: 4, Config: *cfg})
	inst := func(state string) []status.VRRPInstance {
		return []status.VRRPInstance{{Name: "VI_1", State: state, Effective: 100}}
	}
	trans := func(seq uint64, kind, object, from, to string) status.Transition {
		return status.Transition{Seq: seq, Time: t0.Add(time.Duration(seq) * time.Second), Kind: kind, Object: object, From: from, To: to, Priority: 100}
	}
	ring := []status.Transition{trans(1, "instance", "VI_1", "INIT", "BACKUP"), trans(2, "instance", "VI_1", "BACKUP", "MASTER"), trans(3, "instance", "VI_1", "MASTER", "BACKUP")}
	vrrp.Publish(status.VRRP{Applied: status.Applied{Config: 4}, Instances: inst("BACKUP"), Transitions: ring})

	start := func() (stop func()) {
		env, err := ipc.NewEnv(dir, "notify", discard())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(outer)
		done := make(chan error, 1)
		go func() {
			done <- RunWith(ctx, env, Options{Socket: ipc.Dir(fmt.Sprintf("@ballast-notify-%d", os.Getpid()))})
		}()
		return func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	expect := func(want ...string) {
		t.Helper()
		await(t, fmt.Sprint(want), func() bool { return len(seen()) >= len(want) })
		if d := cmp.Diff(want, seen()); d != "" {
			t.Fatal(d)
		}
	}
	stop := start()
	// The first start runs the scripts of the state that is, not of the past.
	want := []string{"backup", "any INSTANCE VI_1 BACKUP 100"}
	expect(want...)
	ring = append(ring, trans(4, "instance", "VI_1", "BACKUP", "MASTER"), trans(5, "instance", "VI_1", "MASTER", "BACKUP"))
	vrrp.Publish(status.VRRP{Applied: status.Applied{Config: 4}, Instances: inst("BACKUP"), Transitions: ring})
	want = append(want, "master", "any INSTANCE VI_1 MASTER 100", "backup", "any INSTANCE VI_1 BACKUP 100")
	expect(want...)

	// What happens while it is away is done when it is back, once.
	stop()
	ring = append(ring, trans(6, "instance", "VI_1", "BACKUP", "MASTER"))
	vrrp.Publish(status.VRRP{Applied: status.Applied{Config: 4}, Instances: inst("MASTER"), Transitions: ring})
	stop = start()
	want = append(want, "master", "any INSTANCE VI_1 MASTER 100")
	expect(want...)

	// Health's transitions, with the first state of the quorum.
	vs := status.VirtualServerHealth{Name: "[10.10.10.2]:tcp:80", QuorumUp: true}
	health.Publish(status.Health{Applied: status.Applied{Config: 4}, Servers: []status.VirtualServerHealth{vs}})
	want = append(want, "quorum up")
	expect(want...)
	health.Publish(status.Health{Applied: status.Applied{Config: 4}, Servers: []status.VirtualServerHealth{vs}, Transitions: []status.Transition{
		trans(1, "real server", "[192.168.200.2]:tcp:80 of [10.10.10.2]:tcp:80", "UP", "DOWN")}})
	want = append(want, "real down")
	expect(want...)

	// A newer configuration than ours is waited for.
	cfg2 := *cfg
	cfg2.Instances = []model.Instance{{Name: "VI_2", Notify: model.Notify{Master: note("second")}}}
	ring = append(ring, trans(7, "instance", "VI_2", "INIT", "MASTER"))
	vrrp.Publish(status.VRRP{Applied: status.Applied{Config: 5}, Instances: inst("MASTER"), Transitions: ring})
	conf.Publish(status.Conf{Generation: 5, Config: cfg2})
	want = append(want, "second")
	expect(want...)

	// The verbs.
	c := dir.Client("notify")
	var res status.RunResult
	if err := c.Call(outer, "run", status.Run{Name: "x", Command: model.Command{Shell: "echo hi; exit 4"}, Timeout: time.Second}, &res); err != nil || res.Exit != 4 || res.Output != "hi\n" || res.Detail != "exit 4: hi" {
		t.Errorf("%+v, %v", res, err)
	}
	slow := make(chan error, 1)
	go func() {
		slow <- c.Call(outer, "run", status.Run{Name: "y", Command: model.Command{Shell: "echo >" + work + "/y; sleep 0.3"}, Timeout: time.Second}, nil)
	}()
	await(t, "the slow run", func() bool { _, err := os.Stat(work + "/y"); return err == nil })
	var refused *ipc.Refused
	if err := c.Call(outer, "run", status.Run{Name: "y", Command: model.Command{Shell: ":"}, Timeout: time.Second}, nil); !errors.As(err, &refused) {
		t.Errorf("a second run of one name: %v", err)
	}
	if err := <-slow; err != nil {
		t.Error(err)
	}
	script := ipc.Dir(fmt.Sprintf("@ballast-notify-%d", os.Getpid())).Client("script")
	if err := script.Call(outer, "resign", status.Resign{By: "killall"}, nil); err != nil {
		t.Error(err)
	}
	if by := <-resigned; !strings.HasPrefix(by, "script ") || !strings.HasSuffix(by, "(killall)") {
		t.Errorf("by %q", by)
	}
	var n status.Notify
	if _, err := c.State(outer, &n); err != nil || n.Config != 5 {
		t.Errorf("%+v, %v", n, err)
	}
	stop()
}

// objectsOf lists the virtual servers of a configuration as package follow does.
func objectsOf(cfg *model.Config) *objects {
	o := &objects{Config: cfg}
	for i := range cfg.VirtualServers {
		o.list = append(o.list, &cfg.VirtualServers[i])
	}
	return o
}

// TestJoined: a ring that is told in parts is the same ring.
func TestJoined(t *testing.T) {
	ring := func(from, to uint64) (out []status.Transition) {
		for n := from; n <= to; n++ {
			out = append(out, status.Transition{Seq: n})
		}
		return out
	}
	for _, c := range []struct{ ring, more, want []status.Transition }{
		{nil, ring(4, 9), ring(4, 9)},
		{ring(1, 3), nil, ring(1, 3)},
		{ring(1, 3), ring(4, 5), ring(1, 5)},
		{ring(1, 3), ring(1, 2), ring(1, 2)}, // the service was restarted
		{ring(1, 3), ring(2, 6), ring(2, 6)}, // read anew
		{ring(1, status.RingSize), ring(status.RingSize+1, status.RingSize+2), ring(3, status.RingSize+2)},
	} {
		if d := cmp.Diff(c.want, joined(c.ring, c.more)); d != "" {
			t.Errorf("%d and %d: %s", len(c.ring), len(c.more), d)
		}
	}
}
