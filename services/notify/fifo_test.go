package notify

import (
	"bufio"
	"fmt"
	"os"
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

func TestPipesOf(t *testing.T) {
	cmd := func(s string) model.Command { return model.Command{Argv: []string{s}} }
	for _, c := range []struct {
		name     string
		g        model.Global
		want     []pipeConf
		problems int
	}{
		{"none", model.Global{}, nil, 0},
		{"three", model.Global{NotifyFIFO: model.FIFO{Path: "/run/a"}, VRRPFIFO: model.FIFO{Path: "/run/b", Script: cmd("x")}, LVSFIFO: model.FIFO{Path: "/run/c"}},
			[]pipeConf{{"notify_fifo", "/run/a", true, true, model.Command{}}, {"vrrp_notify_fifo", "/run/b", true, false, cmd("x")}, {"lvs_notify_fifo", "/run/c", false, true, model.Command{}}}, 0},
		{"the one for all comes first", model.Global{NotifyFIFO: model.FIFO{Path: "/run/a"}, VRRPFIFO: model.FIFO{Path: "/run/a"}, LVSFIFO: model.FIFO{Path: "/run/a"}},
			[]pipeConf{{"notify_fifo", "/run/a", true, true, model.Command{}}}, 2},
		{"one for both", model.Global{VRRPFIFO: model.FIFO{Path: "/run/a", Script: cmd("x")}, LVSFIFO: model.FIFO{Path: "/run/a"}},
			[]pipeConf{{"vrrp_notify_fifo", "/run/a", true, true, cmd("x")}}, 0},
		{"one reader for both", model.Global{VRRPFIFO: model.FIFO{Path: "/run/a", Script: cmd("x")}, LVSFIFO: model.FIFO{Path: "/run/a", Script: cmd("y")}},
			[]pipeConf{{"vrrp_notify_fifo", "/run/a", true, true, cmd("x")}}, 1},
	} {
		got, problems := pipesOf(&c.g)
		if d := cmp.Diff(c.want, got); d != "" || len(problems) != c.problems {
			t.Errorf("%s: %s; %q", c.name, d, problems)
		}
	}
}

func TestCheckPath(t *testing.T) {
	for p, want := range map[string]bool{
		"/run/x": true, "/var/run/keepalived.fifo": true, "/tmp/a/b": true, "/etc/keepalived/x": true, "/opt/x": true,
		"run/x": false, "/run": false, "/run/../etc/x": false, "/run/ballast/vrrp.sock": false, "/run/service/net/x": false,
		"/var/run/service/x": false, "/etc/passwd": false, "/data/x": false, "/tmpx/y": false, "/tmp//x": false,
	} {
		if err := checkPath(p); (err == nil) != want {
			t.Errorf("%s: %v", p, err)
		}
	}
}

func testPipes(t *testing.T) *fifos {
	r := testRunner()
	s := &fifos{run: r, user: &scriptUser{cred: r.cred}, log: discard(), did: func() {}, tell: func(string, string) {}}
	t.Cleanup(func() { s.stop(0) })
	return s
}

// TestPipe: who owns it, what is in it, and that nobody who does not read it
// holds us up.
func TestPipe(t *testing.T) {
	dir := folder(t)
	s := testPipes(t)
	path := filepath.Join(dir, "sub", "fifo")
	g := &model.Global{NotifyFIFO: model.FIFO{Path: path}, LVSFIFO: model.FIFO{Path: filepath.Join(dir, "lvs")}}
	s.apply(t.Context(), g)
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	owner := uint32(os.Getuid())
	if maySetUser() {
		owner = ipc.UIDScript
	}
	if st.Mode != unix.S_IFIFO|0o600 || st.Uid != owner {
		t.Errorf("mode %o, owner %d", st.Mode, st.Uid)
	}
	began := time.Now()
	many := 0
	await(t, "more lines than kernel and queue hold", func() bool {
		for range 200 {
			s.add(fmt.Sprintf("INSTANCE \"VI_1\" MASTER %05d\n", many), false)
			many++
		}
		st := s.states()[0]
		return st.Dropped > 0 && st.Written > 1000
	})
	if d := time.Since(began); d > 30*time.Second {
		t.Errorf("nobody reads, and that held us up for %s", d)
	}
	s.add("VS x UP\n", true)
	await(t, "the writer", func() bool { st := s.states(); return st[0].Waiting > 0 && st[1].Written == 1 })
	f, err := openPipe(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	f.SetReadDeadline(time.Now().Add(time.Minute))
	r := bufio.NewReader(f)
	lines := 0
	for {
		l, err := r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if l == "VS x UP\n" {
			break
		}
		if len(l) != len("INSTANCE \"VI_1\" MASTER 00000\n") {
			t.Fatalf("torn: %q", l)
		}
		lines++
	}
	await(t, "an empty queue", func() bool { return s.states()[0].Waiting == 0 })
	now := s.states()[0]
	if lines+1 != int(now.Written) || int(now.Dropped) != many-lines || now.Dropped == 0 {
		t.Errorf("%d lines read; %+v", lines, now)
	}
	if l := s.states()[1]; l.Written != 1 {
		t.Errorf("the pipe of virtual servers: %+v", l)
	}
	// What it is not allowed to be.
	plain := filepath.Join(dir, "plain")
	os.WriteFile(plain, []byte("x"), 0o666)
	link := filepath.Join(dir, "link")
	os.Symlink(path, link)
	for _, p := range []string{plain, link, "/etc/passwd", "/etc/keepalived/sub/none"} {
		s.apply(t.Context(), &model.Global{VRRPFIFO: model.FIFO{Path: p}})
		if st := s.states()[0]; st.Error == "" {
			t.Errorf("%s is a pipe: %+v", p, st)
		}
	}
	if b, _ := os.ReadFile(plain); string(b) != "x" {
		t.Errorf("the plain file holds %q", b)
	}
}

// TestPipeReader: the script gets the path as its last argument, comes back
// when it dies, gets the last lines, and ends with us.
func TestPipeReader(t *testing.T) {
	dir := folder(t)
	out := filepath.Join(dir, "out")
	script := write(t, filepath.Join(dir, "reader"), `echo "start $# $1 $2 $$" >>`+out+`
while read l; do echo "$l" >>`+out+`; [ "$l" = die ] && exit 3; done <"$2"`)
	s := testPipes(t)
	died := make(chan string, 10)
	s.tell = func(name, why string) { died <- name + ": " + why }
	path := filepath.Join(dir, "fifo")
	g := &model.Global{VRRPFIFO: model.FIFO{Path: path, Script: model.Command{Argv: []string{script, "arg"}}}}
	s.apply(t.Context(), g)
	read := func() []string { b, _ := os.ReadFile(out); return strings.Split(strings.TrimSpace(string(b)), "\n") }
	s.add("one\n", false)
	await(t, "the first line", func() bool { return len(read()) == 2 })
	if l := read(); !strings.HasPrefix(l[0], "start 2 arg "+path+" ") || l[1] != "one" {
		t.Errorf("%q", l)
	}
	pid := strings.Fields(read()[0])[4]
	s.apply(t.Context(), g) // nothing changed: it goes on
	s.add("die\n", false)
	s.add("two\n", false)
	await(t, "the reader's return", func() bool { l := read(); return len(l) == 5 && l[4] == "two" })
	if l := read(); strings.HasSuffix(l[3], " "+pid) || l[2] != "die" {
		t.Errorf("%q", l)
	}
	if d := <-died; d != "vrrp_notify_fifo_script: exit 3" {
		t.Errorf("%q", d)
	}
	await(t, "the count", func() bool { st := s.states()[0]; return st.Reader == "running" && st.Written == 3 })
	s.add("last\n", false)
	last := strings.Fields(read()[3])[4]
	s.stop(time.Minute)
	if l := read(); l[len(l)-1] != "last" {
		t.Errorf("the last line is lost: %q", l)
	}
	var n int
	fmt.Sscan(last, &n)
	await(t, "the reader's end", func() bool { return gone(n) })
}

// TestPipesOfTheService: which lines go where, all states after a commit, and
// a restart in the middle.
func TestPipesOfTheService(t *testing.T) {
	dir := folder(t)
	b := newBox(t)
	p := func(name string) model.FIFO {
		return model.FIFO{Path: filepath.Join(dir, name), Script: model.Command{Argv: []string{write(t, filepath.Join(dir, name+".sh"), `exec cat "$1" >>`+dir+"/"+name+".out")}}}
	}
	cfg := eventConfig()
	cfg.Global.NotifyFIFO, cfg.Global.VRRPFIFO, cfg.Global.LVSFIFO = p("all"), p("vrrp"), p("lvs")
	cfg.Global.FIFOStatesOnReload, cfg.Global.RSInitNotifies = true, true
	cfg.Instances[0].Notify, cfg.SyncGroups[0].Notify = model.Notify{}, model.Notify{}
	cfg.Instances = append(cfg.Instances, model.Instance{Name: "VI_2"})
	vs := &cfg.VirtualServers[0]
	vs.QuorumUp, vs.QuorumDown, vs.Real[0].NotifyUp, vs.Real[0].NotifyDown = model.Command{}, model.Command{}, model.Command{}, model.Command{}
	b.conf.Publish(status.Conf{Generation: 1, Config: *cfg})
	v := status.VRRP{
		Applied: status.Applied{Config: 1}, Groups: []status.VRRPGroup{{Name: "G", State: "BACKUP"}},
		Instances: []status.VRRPInstance{{Name: "VI_1", State: "BACKUP", Effective: 100}, {Name: "VI_2", State: "INIT"}},
	}
	b.vrrp.Publish(v)
	rs := status.RealServerHealth{Addr: vs.Real[0].Addr, Port: vs.Real[0].ConfPort, Alive: true}
	h := status.Health{Applied: status.Applied{Config: 1}, Servers: []status.VirtualServerHealth{{Name: vs.Name, QuorumUp: true, Real: []status.RealServerHealth{rs}}}}
	b.health.Publish(h)
	b.start()
	var all, vrrp, lvs string
	expect := func(more string) {
		t.Helper()
		for l := range strings.SplitAfterSeq(more, "\n") {
			all += l
			if strings.HasPrefix(l, "VS") || strings.HasPrefix(l, "RS") {
				lvs += l
			} else {
				vrrp += l
			}
		}
		for name, want := range map[string]string{"all": all, "vrrp": vrrp, "lvs": lvs} {
			got := ""
			await(t, name+" "+more, func() bool {
				b, _ := os.ReadFile(dir + "/" + name + ".out")
				got = string(b)
				return len(got) >= len(want)
			})
			if name != "all" && got != want || name == "all" && len(got) != len(want) { // two services, one pipe: no order between them
				t.Fatalf("%s: %s", name, cmp.Diff(want, got))
			}
		}
	}
	real := "[192.168.200.2]:tcp:80"
	expect("GROUP \"G\" BACKUP 0\nINSTANCE \"VI_1\" BACKUP 100\nRS " + real + " " + vs.Name + " UP\nVS " + vs.Name + " UP\n")
	tell := func(kind, object, to string, prio int) {
		v.Transitions = append(append([]status.Transition(nil), v.Transitions...), status.Transition{
			Seq: uint64(len(v.Transitions) + 1), Time: t0.Add(time.Duration(len(v.Transitions)) * time.Second), Kind: kind, Object: object, To: to, Priority: prio})
	}
	tell("instance", "VI_1", "MASTER", 100)
	tell("instance", "VI_1", "MASTER_RX_LOWER_PRI", 100)
	tell("priority", "VI_1", "MASTER_PRIORITY", 90)
	tell("instance", "VI_1", "BACKUP", 90)
	tell("priority", "VI_1", "BACKUP_PRIORITY", 80)
	v.Instances[0].Effective = 80
	b.vrrp.Publish(v)
	expect("INSTANCE \"VI_1\" MASTER 100\nINSTANCE \"VI_1\" MASTER_RX_LOWER_PRI 100\nINSTANCE \"VI_1\" MASTER_PRIORITY 90\nINSTANCE \"VI_1\" BACKUP 90\nINSTANCE \"VI_1\" BACKUP_PRIORITY 80\n")
	h.Transitions = []status.Transition{{Seq: 1, Time: t0, Kind: "real server", Object: real + " of " + vs.Name, From: "UP", To: "DOWN"}, {Seq: 2, Time: t0, Kind: "virtual server", Object: vs.Name, From: "UP", To: "DOWN"}}
	b.health.Publish(h)
	expect("RS " + real + " " + vs.Name + " DOWN\nVS " + vs.Name + " DOWN\n")

	// While it is away nothing is lost, and nothing is told twice.
	b.stop()
	tell("instance", "VI_1", "MASTER", 80)
	b.vrrp.Publish(v)
	b.start()
	expect("INSTANCE \"VI_1\" MASTER 80\n")

	// A commit: all states again, and the real server that it brings.
	cfg2 := *cfg
	cfg2.VirtualServers = append([]model.VirtualServer(nil), cfg.VirtualServers...)
	added := cfg.VirtualServers[0].Real[0]
	added.ConfPort, added.Port = 81, 81
	cfg2.VirtualServers[0].Real = append(append([]model.RealServer(nil), vs.Real...), added)
	b.conf.Publish(status.Conf{Generation: 2, Config: cfg2})
	b.applied(2)
	v.Config, v.Instances[0].State = 2, "MASTER"
	b.vrrp.Publish(v)
	expect("INSTANCE \"VI_1\" MASTER 80\nGROUP \"G\" BACKUP 0\n")
	h.Config = 2
	h.Servers[0].Real = append(h.Servers[0].Real, status.RealServerHealth{Addr: added.Addr, Port: 81, Alive: true})
	b.health.Publish(h)
	expect("RS [192.168.200.2]:tcp:81 " + vs.Name + " UP\n")
	var states []string
	for _, f := range b.state().FIFOs {
		states = append(states, filepath.Base(f.Path)+" "+f.Reader)
	}
	if d := cmp.Diff([]string{"all running", "vrrp running", "lvs running"}, states); d != "" {
		t.Error(d)
	}
	b.stop()
}

// TestQueuesSideBySide: a site that loses everything at once does not start
// everything at once, and a failover does not wait for it.
func TestQueuesSideBySide(t *testing.T) {
	dir := folder(t)
	q := newQueues(testRunner(), discard(), func() {})
	gate := filepath.Join(dir, "gate")
	wait := model.Command{Shell: "echo >" + dir + "/up.$$; while [ ! -e " + gate + " ]; do sleep 0.02; done"}
	for i := range sideBySide + 10 {
		q.add(job{object: fmt.Sprint("real server ", i), what: "notify_down", cmd: wait, lvs: true})
	}
	running := func() int { l, _ := filepath.Glob(dir + "/up.*"); return len(l) }
	await(t, "a full house", func() bool { return running() == sideBySide })
	q.add(job{object: "instance VI_1", what: "notify_master", cmd: model.Command{Shell: "echo >" + dir + "/master"}})
	await(t, "the failover's script", func() bool { _, err := os.Stat(dir + "/master"); return err == nil })
	if n := running(); n != sideBySide {
		t.Errorf("%d side by side", n)
	}
	for range queueSize + 7 {
		q.add(job{object: "real server 0", what: "notify_up", cmd: model.Command{Shell: ":"}, lvs: true})
	}
	if q.lost() != 7 {
		t.Errorf("%d dropped", q.lost())
	}
	os.WriteFile(gate, nil, 0o644)
	q.drain(time.Minute)
	if running() != sideBySide+10 {
		t.Errorf("%d ran", running())
	}
}
