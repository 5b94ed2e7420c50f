package notify

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"ballast/configs/model"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

// recorder is what both sides call: it writes one line with everything that a
// script can tell of how it was started.
const recorder = `#!/bin/sh
l="$0"
for a; do l="$l|$a"; done
l="$l|stdin=$(readlink /proc/self/fd/0)"
for v in INSTANCE PRIORITY STATE KEEPALIVED_INSTANCE KEEPALIVED_CONFIG_ID; do eval "x=\$$v"; [ -n "$x" ] && l="$l|$v=$x"; done
echo "$l" >>%s
`

// stage is what one side made of one step.
type stage struct {
	Argv  []string // sorted: keepalived starts scripts side by side
	Lines []string
	Mails []string // sorted
}

// witness collects them.
type witness struct {
	t     *testing.T
	log   string
	mails <-chan string
	fifo  *os.File

	seen int
}

func (w *witness) openFIFO(path string) {
	w.t.Helper()
	await(w.t, "the pipe "+path, func() bool {
		st, err := os.Stat(path)
		return err == nil && st.Mode()&os.ModeNamedPipe != 0
	})
	f, err := openPipe(path)
	if err != nil {
		w.t.Fatal(err)
	}
	w.fifo = f
	w.t.Cleanup(func() { w.fifo.Close() })
}

func openPipe(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

// expect waits for so many scripts, lines and mails and returns them.
func (w *witness) expect(step string, argv, lines, mails int) stage {
	w.t.Helper()
	var s stage
	for range mails {
		select {
		case m := <-w.mails:
			s.Mails = append(s.Mails, m)
		case <-time.After(time.Minute):
			w.t.Fatalf("%s: %d mails, want %d", step, len(s.Mails), mails)
		}
	}
	var got string
	w.fifo.SetReadDeadline(time.Now().Add(time.Minute))
	buf := make([]byte, 4096)
	end := time.Now().Add(time.Minute)
	for strings.Count(got, "\n") < lines {
		n, err := w.fifo.Read(buf)
		if err == io.EOF { // keepalived makes a new pipe at a reload
			time.Sleep(time.Millisecond)
			if f, err := openPipe(w.fifo.Name()); err == nil {
				w.fifo.Close()
				w.fifo = f
			}
			w.fifo.SetReadDeadline(time.Now().Add(time.Minute))
			if time.Now().After(end) {
				w.t.Fatalf("%s: lines %q: the pipe is closed", step, got)
			}
			continue
		}
		if err != nil {
			w.t.Fatalf("%s: lines %q: %v", step, got, err)
		}
		got += string(buf[:n])
	}
	s.Lines = strings.SplitAfter(got, "\n")
	s.Lines = s.Lines[:len(s.Lines)-1]
	await(w.t, fmt.Sprintf("%s: %d scripts", step, argv), func() bool {
		b, _ := os.ReadFile(w.log)
		return strings.Count(string(b), "\n") >= w.seen+argv
	})
	b, _ := os.ReadFile(w.log)
	s.Argv = strings.Split(strings.TrimSpace(string(b)), "\n")[w.seen:]
	w.seen += len(s.Argv)
	slices.Sort(s.Argv)
	slices.Sort(s.Mails)
	return s
}

// head is what of a message must be equal: everything up to the first line of
// the body, but the time.
func head(session string) string {
	var out []string
	for l := range strings.SplitSeq(session, "\r\n") {
		if strings.HasPrefix(l, "Date: ") {
			if _, err := time.Parse("Mon, 02 Jan 2006 15:04:05 -0700", strings.TrimPrefix(l, "Date: ")); err != nil {
				l = "bad " + l
			} else {
				l = "Date:"
			}
		}
		out = append(out, l)
		if strings.HasPrefix(l, "=> ") {
			break
		}
	}
	return strings.Join(out, "\n")
}

// TestAgainstKeepalived runs the same configuration through the same events,
// first with the keepalived of this machine, then here, and compares what the
// scripts, a reader of the pipe and a mail server get.
func TestAgainstKeepalived(t *testing.T) {
	if testing.Short() {
		t.Skip("runs keepalived for some seconds")
	}
	bin, err := exec.LookPath("keepalived")
	if err != nil {
		t.Skip("there is no keepalived on this machine")
	}
	dir := folder(t)
	rec, log, fifo := filepath.Join(dir, "rec.sh"), filepath.Join(dir, "log"), filepath.Join(dir, "fifo")
	if err := os.WriteFile(rec, fmt.Appendf(nil, recorder, log), 0o755); err != nil {
		t.Fatal(err)
	}
	clear := func() {
		os.Remove(fifo)
		os.WriteFile(log, nil, 0o666)
		os.Chmod(log, 0o666)
	}
	clear()
	want := keepalivedStages(t, bin, dir, rec, log, fifo)
	clear()
	have := ourStages(t, rec, log, fifo)
	if d := cmp.Diff(want, have); d != "" {
		t.Errorf("keepalived (-) and we (+):\n%s", d)
	}
}

func keepalivedStages(t *testing.T, bin, dir, rec, log, fifo string) map[string]stage {
	ns := fmt.Sprintf("notify%d", os.Getpid())
	ip := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v: %s", args, err, out)
		}
	}
	ip("netns", "add", ns)
	defer exec.Command("ip", "netns", "del", ns).Run()
	in := func(args ...string) { t.Helper(); ip(append([]string{"-n", ns}, args...)...) }
	in("link", "set", "lo", "up")
	in("link", "add", "v0", "type", "veth", "peer", "name", "v1")
	in("link", "set", "v0", "up")
	in("link", "set", "v1", "up")
	in("addr", "add", "10.9.9.1/24", "dev", "v0")
	addr, sessions := smtpServerIn(t, ns)
	port := addr[strings.LastIndexByte(addr, ':')+1:]

	conf := func(second bool) string {
		text := `global_defs {
  router_id LVS_DEVEL
  vrrp_version 3
  script_user root
  notify_fifo ` + fifo + `
  vrrp_notify_priority_changes on
  smtp_server 127.0.0.1 ` + port + `
  smtp_helo_name lb1
  notification_email {
    admin@example.com
    ops@example.com
  }
  notification_email_from root@example.com
  smtp_alert on
}
track_file tf {
  file ` + dir + `/tf
  weight 1
}
vrrp_sync_group G {
  group { VI_1 }
  notify_master "` + rec + ` gmaster"
  notify "` + rec + ` gany"
}
vrrp_instance VI_1 {
  interface v0
  virtual_router_id 7
  advert_int 0.1
  virtual_ipaddress { 10.9.9.9/24 }
  notify_master "` + rec + ` master 'x y'"
  notify_backup "` + rec + ` backup"
  notify_fault "` + rec + ` fault"
  notify "` + rec + ` any"
}
`
		if second {
			text += `vrrp_instance VI_2 {
  interface v0
  virtual_router_id 8
  priority 90
  advert_int 0.1
  track_file { tf weight 1 }
  virtual_ipaddress { 10.9.9.10/24 }
  notify_deleted "` + rec + ` deleted"
  notify "` + rec + ` any2"
}
`
		}
		return text
	}
	path := filepath.Join(dir, "keepalived.conf")
	write := func(name, text string) {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(path, conf(true))
	write(filepath.Join(dir, "tf"), "0\n")
	out, err := os.Create(filepath.Join(dir, "keepalived.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command("ip", "netns", "exec", ns, bin, "-n", "-l", "-D", "-P", "-f", path, "-p", filepath.Join(dir, "k.pid"), "-r", filepath.Join(dir, "v.pid"))
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Signal(unix.SIGTERM); cmd.Wait() }()
	defer func() {
		if t.Failed() {
			b, _ := os.ReadFile(out.Name())
			t.Logf("keepalived:\n%s", b)
		}
	}()
	w := &witness{t: t, log: log, mails: sessions}
	w.openFIFO(fifo)
	got := map[string]stage{}
	got["start"] = w.expect("start", 9, 6, 6)
	write(filepath.Join(dir, "tf"), "5\n")
	got["priority"] = w.expect("priority", 0, 1, 0)
	in("link", "set", "v1", "down")
	got["fault"] = w.expect("fault", 4, 3, 3)
	in("link", "set", "v1", "up")
	got["back"] = w.expect("back", 9, 6, 6)
	write(path, conf(false))
	cmd.Process.Signal(unix.SIGHUP)
	got["deleted"] = w.expect("deleted", 2, 1, 0)
	return got
}

// smtpServerIn is smtpServer in a network namespace.
func smtpServerIn(t *testing.T, ns string) (string, <-chan string) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	there, err := netns.GetFromName(ns)
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	if err := netns.Set(there); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err := netns.Set(home); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return serveHeads(t, l)
}

// serveHeads takes mail and hands over the head of each session.
func serveHeads(t *testing.T, l net.Listener) (string, <-chan string) {
	addr, sessions := serveSMTP(t, l, goodSMTP)
	heads := make(chan string, 100)
	go func() {
		for s := range sessions {
			heads <- head(s)
		}
	}()
	return addr, heads
}

func ourStages(t *testing.T, rec, log, fifo string) map[string]stage {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr, mails := serveHeads(t, l)
	call := func(args ...string) model.Command { return model.Command{Argv: append([]string{rec}, args...)} }
	cfg := model.Config{
		Global: model.Global{
			RouterID: "LVS_DEVEL", SMTPServer: addr, SMTPHELO: "lb1", NotificationEmail: []string{"admin@example.com", "ops@example.com"},
			NotificationEmailFrom: "root@example.com", SMTPConnectTimeout: 5 * time.Second, NotifyFIFO: model.FIFO{Path: fifo},
		},
		SyncGroups: []model.SyncGroup{{
			Name: "G", Instances: []string{"VI_1"}, SMTPAlert: true,
			Notify: model.Notify{Master: call("gmaster"), Any: call("gany")},
		}},
		Instances: []model.Instance{
			{Name: "VI_1", SMTPAlert: true, Notify: model.Notify{
				Master: call("master", "x y"), Backup: call("backup"), Fault: call("fault"), Any: call("any")}},
			{Name: "VI_2", SMTPAlert: true, Notify: model.Notify{
				Deleted: call("deleted"), TellDeleted: true, Any: call("any2")}},
		},
	}
	b := newBox(t)
	b.conf.Publish(status.Conf{Generation: 1, Config: cfg})
	v := status.VRRP{Applied: status.Applied{Config: 1}}
	state := func(g, one, two string, prio int) {
		v.Groups, v.Instances = nil, nil
		v.Groups = append(v.Groups, status.VRRPGroup{Name: "G", State: g})
		v.Instances = append(v.Instances, status.VRRPInstance{Name: "VI_1", State: one, Effective: prio})
		if two != "" {
			v.Instances = append(v.Instances, status.VRRPInstance{Name: "VI_2", State: two, Effective: 90})
		}
	}
	tell := func(kind, object, to string, prio int) {
		v.Transitions = append(slices.Clone(v.Transitions), status.Transition{
			Seq: uint64(len(v.Transitions) + 1), Time: time.Now(), Kind: kind, Object: object, To: to, Priority: prio, Reason: "a reason"})
	}
	w := &witness{t: t, log: log, mails: mails}
	got := map[string]stage{}
	state("BACKUP", "BACKUP", "BACKUP", 100)
	b.vrrp.Publish(v)
	b.start()
	w.openFIFO(fifo)
	b.applied(1)
	// The states that it found are acted on before news are.
	await(t, "the first states", func() bool { raw, _ := os.ReadFile(log); return strings.Count(string(raw), "\n") >= 4 })
	tell("instance", "VI_1", "MASTER", 100)
	tell("group", "G", "MASTER", 100)
	tell("instance", "VI_2", "MASTER", 90)
	b.vrrp.Publish(v)
	got["start"] = w.expect("start", 9, 6, 6)
	tell("priority", "VI_2", "MASTER_PRIORITY", 95)
	b.vrrp.Publish(v)
	got["priority"] = w.expect("priority", 0, 1, 0)
	tell("instance", "VI_1", "FAULT", 100)
	tell("group", "G", "FAULT", 0)
	tell("instance", "VI_2", "FAULT", 95)
	b.vrrp.Publish(v)
	got["fault"] = w.expect("fault", 4, 3, 3)
	for _, to := range []string{"BACKUP", "MASTER"} {
		tell("instance", "VI_1", to, 100)
		tell("group", "G", to, 0)
		tell("instance", "VI_2", to, 95)
	}
	b.vrrp.Publish(v)
	got["back"] = w.expect("back", 9, 6, 6)
	cfg.Instances = cfg.Instances[:1]
	b.conf.Publish(status.Conf{Generation: 2, Config: cfg})
	tell("instance", "VI_2", "STOP", 95) // what vrrp says of an instance that a commit takes away
	v.Config = 2
	b.vrrp.Publish(v)
	got["deleted"] = w.expect("deleted", 2, 1, 0)
	b.stop()
	return got
}

// box is a director's other services, made up, and notify among them.
type box struct {
	t                             *testing.T
	dir                           ipc.Dir
	ctx                           context.Context
	data                          string
	conf, vrrp, health, ipvs, net *ipc.Server
	init                          *ipc.Server
	end                           context.CancelFunc
	done                          chan error
}

func newBox(t *testing.T) *box {
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	b := &box{t: t, dir: ipc.Dir(t.TempDir()), ctx: ctx}
	b.conf, b.vrrp, b.health = peer(t, ctx, b.dir, "conf"), peer(t, ctx, b.dir, "vrrp"), peer(t, ctx, b.dir, "health")
	b.ipvs, b.net, b.init = peer(t, ctx, b.dir, "ipvs"), peer(t, ctx, b.dir, "net"), peer(t, ctx, b.dir, "init")
	return b
}

func (b *box) start() {
	b.t.Helper()
	env, err := ipc.NewEnv(b.dir, "notify", discard())
	if err != nil {
		b.t.Fatal(err)
	}
	env.Data = b.data
	ctx, cancel := context.WithCancel(b.ctx)
	b.end, b.done = cancel, make(chan error, 1)
	go func() {
		b.done <- RunWith(ctx, env, Options{Socket: ipc.Dir(fmt.Sprintf("@ballast-%s-%d", filepath.Base(string(b.dir)), os.Getpid())) + ipc.Dir(strings.ReplaceAll(b.t.Name(), "/", "-"))})
	}()
}

func (b *box) stop() {
	b.t.Helper()
	b.end()
	select {
	case err := <-b.done:
		if err != nil {
			b.t.Error(err)
		}
	case <-time.After(time.Minute):
		b.t.Fatal("notify does not end")
	}
}

func (b *box) state() (n status.Notify) {
	b.t.Helper()
	if _, err := b.dir.Client("notify").State(b.ctx, &n); err != nil {
		b.t.Fatal(err)
	}
	return n
}

func (b *box) applied(gen uint64) {
	b.t.Helper()
	await(b.t, fmt.Sprintf("configuration %d", gen), func() bool { return b.state().Config == gen })
}
