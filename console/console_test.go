package console

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

// lockedBuffer collects what several goroutines write.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
	// changed gets one token whenever something was written.
	changed chan struct{}
}

func newLockedBuffer() *lockedBuffer { return &lockedBuffer{changed: make(chan struct{}, 1)} }

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.b.Write(p)
	select {
	case b.changed <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// await waits until the text holds part after the given offset, and returns
// the offset behind it.
func (b *lockedBuffer) await(t *testing.T, from int, part string) int {
	t.Helper()
	end := time.After(10 * time.Second)
	for {
		s := b.String()
		if i := strings.Index(s[from:], part); i >= 0 {
			return from + i + len(part)
		}
		select {
		case <-b.changed:
		case <-end:
			t.Fatalf("no %q in:\n%s", part, s[from:])
		}
	}
}

// fakeConf stands for conf.
type fakeConf struct {
	mu     sync.Mutex
	server *ipc.Server
	state  status.Conf
	got    []status.Candidate
	files  []status.File
	refuse string
	hold   chan struct{} // a commit waits for it
	began  chan struct{}
	ended  chan struct{}
}

func (f *fakeConf) publish() {
	st := f.state
	st.Text = ""
	f.server.Publish(st)
}

func (f *fakeConf) change(fn func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fn()
	f.publish()
}

func (f *fakeConf) handle(verb string, fn func(body json.RawMessage) (any, error)) {
	f.server.Handle(verb, func(_ context.Context, _ ipc.Peer, body json.RawMessage) (any, error) { return fn(body) }, ipc.AnyUID)
}

func report(text string) status.CheckReport {
	r := status.CheckReport{Problems: []model.Problem{}, Merged: text, Diff: "--- running\n+++ candidate\n+" + text}
	for i, l := range strings.Split(text, "\n") {
		if strings.HasPrefix(l, "bad") {
			r.Problems = append(r.Problems, model.Problem{Severity: model.Error, File: "candidate", Line: i + 1, Text: "unknown keyword bad", Fix: "write good"})
			r.Errors++
		}
	}
	return r
}

func (f *fakeConf) serve() {
	f.handle("check", func(body json.RawMessage) (any, error) {
		var c status.Candidate
		ipc.Argument(body, &c)
		return report(c.Text), nil
	})
	f.handle("commit", func(body json.RawMessage) (any, error) {
		var c status.Candidate
		ipc.Argument(body, &c)
		f.mu.Lock()
		hold, began := f.hold, f.began
		f.mu.Unlock()
		if hold != nil {
			close(began)
			<-hold
			defer close(f.ended)
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		if r := report(c.Text); r.Errors > 0 {
			return nil, fmt.Errorf("not committed: %d errors\n%s", r.Errors, r.Problems[0])
		}
		if f.refuse != "" {
			return nil, errors.New(f.refuse)
		}
		f.got = append(f.got, c)
		f.state.Generation++
		f.state.Author, f.state.Source, f.state.Time = c.Author, "commit", time.Now()
		f.state.Text = c.Text
		f.publish()
		return status.CommitResult{Generation: f.state.Generation, Took: 42 * time.Millisecond}, nil
	})
	f.handle("rollback", func(body json.RawMessage) (any, error) {
		var r status.Rollback
		json.Unmarshal(body, &r)
		return nil, fmt.Errorf("rollback to %d by %s", r.Generation, r.Author)
	})
	f.handle("text", func(json.RawMessage) (any, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		return status.Candidate{Text: f.state.Text, Name: "generation"}, nil
	})
	f.handle("history", func(json.RawMessage) (any, error) {
		return []status.Generation{{Generation: 7, Source: "commit", Author: "a@b", Running: true}}, nil
	})
	f.handle("file-put", func(body json.RawMessage) (any, error) {
		var file status.File
		json.Unmarshal(body, &file)
		f.mu.Lock()
		defer f.mu.Unlock()
		file.Size = len(file.Content)
		f.files = append(f.files, file)
		return nil, nil
	})
	f.handle("file-list", func(json.RawMessage) (any, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.files, nil
	})
}

// lab is a console with the services it talks to.
type lab struct {
	t      *testing.T
	dir    string
	port   string
	conf   *fakeConf
	log    *lockedBuffer
	verbs  chan string // what other services were asked: "init reboot {}"
	stop   func()
	idle   time.Duration
	serial *os.File // handed to the console, when set before start
}

func newLab(t *testing.T) *lab {
	t.Helper()
	dir, err := os.MkdirTemp("", "con")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l := &lab{t: t, dir: dir, idle: idleTimeout, log: newLockedBuffer(), verbs: make(chan string, 100)}
	os.Mkdir(filepath.Join(dir, "data"), 0o700)
	var logins []model.Login
	for _, role := range []string{"admin", "operate", "view"} {
		logins = append(logins, model.Login{Name: role, Role: role, Keys: []string{l.key(role)}})
	}
	l.key("stranger")
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })
	serve := func(s *ipc.Server, name string) {
		env, err := ipc.NewEnv(ipc.Dir(dir), name, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() { s.Serve(ctx, env.Listener) })
	}
	l.conf = &fakeConf{server: ipc.NewServer("conf"), state: status.Conf{Generation: 7, Source: "commit", Text: "vrrp_instance VI_1 {\n}\n",
		Config: model.Config{System: model.System{HostName: "lb1", Logins: logins}}}}
	l.conf.publish()
	l.conf.serve()
	serve(l.conf.server, "conf")
	vrrp := ipc.NewServer("vrrp")
	vrrp.Publish(status.VRRP{Instances: []status.VRRPInstance{{Name: "VI_1", State: status.VRRPMaster, Interface: "eth0", VRID: 51, Priority: 100, Effective: 100,
		Reason: "no advertisement from 10.0.0.12 for 3.61s", VIPs: []netip.Prefix{netip.MustParsePrefix("10.0.0.100/24")}}}})
	init := ipc.NewServer("init")
	init.Publish(status.Init{Version: "0.1", Kernel: "6.12", Services: []status.Process{{Name: "vrrp", PID: 12, State: "ready"}, {Name: "ipvs"}}})
	netd := ipc.NewServer("net")
	netd.Publish(status.Net{Links: []status.Link{{Name: "eth0", Kind: "device", Up: true, Carrier: true,
		Addresses: []status.LinkAddress{{Prefix: netip.MustParsePrefix("10.0.0.11/24"), Origin: "dhcp"}}}}})
	for s, verbs := range map[*ipc.Server][]string{vrrp: {"resign", "resume"}, init: {"reboot", "poweroff", "restart"}, netd: nil} {
		name := map[*ipc.Server]string{vrrp: "vrrp", init: "init", netd: "net"}[s]
		for _, v := range verbs {
			s.Handle(v, func(_ context.Context, _ ipc.Peer, body json.RawMessage) (any, error) {
				l.verbs <- strings.TrimSpace(name + " " + v + " " + string(body))
				return nil, nil
			}, ipc.AnyUID)
		}
		serve(s, name)
	}
	init.Handle("log", func(context.Context, ipc.Peer, json.RawMessage) (any, error) {
		return []status.LogLine{{Service: "vrrp", Priority: 5, Text: "VI_1: backup -> master"}, {Service: "net", Priority: 4, Text: "eth0 flaps"}}, nil
	}, ipc.AnyUID)
	return l
}

// key makes a key pair with the real tool and returns its public line.
func (l *lab) key(name string) string {
	l.t.Helper()
	path := filepath.Join(l.dir, "key_"+name)
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", path).CombinedOutput(); err != nil {
		l.t.Fatalf("ssh-keygen: %v %s", err, out)
	}
	b, err := os.ReadFile(path + ".pub")
	if err != nil {
		l.t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

func (l *lab) start() *lab {
	l.t.Helper()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		l.t.Fatal(err)
	}
	f, err := tcp.(*net.TCPListener).File()
	if err != nil {
		l.t.Fatal(err)
	}
	_, l.port, _ = net.SplitHostPort(tcp.Addr().String())
	tcp.Close()
	env, err := ipc.NewEnv(ipc.Dir(l.dir), "console", slog.New(ipc.NewLogHandler(l.log)))
	if err != nil {
		l.t.Fatal(err)
	}
	env.Data = filepath.Join(l.dir, "data")
	env.Files = map[string]*os.File{"ssh": f}
	if l.serial != nil {
		env.Files["serial"] = l.serial
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx, env, l.idle) }()
	l.stop = func() {
		l.stop = func() {}
		cancel()
		if err := <-done; err != nil {
			l.t.Errorf("console: %v", err)
		}
	}
	l.t.Cleanup(func() { l.stop() })
	// Users are there once the console has seen conf's state.
	for range 200 {
		if l.ssh("admin", "", "show", "version").code == 0 {
			return l
		}
		time.Sleep(10 * time.Millisecond)
	}
	l.t.Fatalf("nobody can log in:\n%s", l.log)
	return l
}

type outcome struct {
	out, err string
	code     int
}

func (l *lab) sshArgs(user string, more ...string) []string {
	return append([]string{"-F", "none", "-p", l.port, "-i", filepath.Join(l.dir, "key_"+user), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
		"-o", "StrictHostKeyChecking=accept-new", "-o", "UserKnownHostsFile=" + filepath.Join(l.dir, "known_hosts"), "-o", "LogLevel=INFO"}, more...)
}

// ssh runs the real client.
func (l *lab) ssh(user, stdin string, command ...string) outcome {
	l.t.Helper()
	return l.run(stdin, append(l.sshArgs(user, user+"@127.0.0.1"), command...)...)
}

func (l *lab) run(stdin string, args ...string) outcome {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "ssh", args...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		l.t.Fatal(err)
	}
	return outcome{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

func (o outcome) want(t *testing.T, code int, out, errs string) {
	t.Helper()
	if o.code != code || !strings.Contains(o.out, out) || !strings.Contains(o.err, errs) {
		t.Errorf("status %d, want %d\nstdout %q, want %q in it\nstderr %q, want %q in it", o.code, code, o.out, out, o.err, errs)
	}
}

func TestOneShots(t *testing.T) {
	l := newLab(t).start()
	l.ssh("view", "", "show", "vrrp").want(t, 0, "VI_1      MASTER", "")
	l.ssh("view", "", "sh vr").want(t, 0, "VI_1      MASTER", "")
	l.ssh("view", "", "show vrrp VI_2").want(t, 1, "", "there is no instance \"VI_2\"; there are: VI_1")
	l.ssh("view", "", "shwo vrrp").want(t, 2, "", "\"shwo\" is not a command; possible: exit, explain, file, help, quit, show")
	l.ssh("view", "", "show log | match flaps | count").want(t, 0, "1\n", "")
	l.ssh("view", "", "show ipvs").want(t, 1, "", "ipvs does not answer; see \"show processes\"")
	var st status.VRRP
	o := l.ssh("view", "", "show vrrp --json")
	if err := json.Unmarshal([]byte(o.out), &st); err != nil || st.Instances[0].VRID != 51 {
		t.Errorf("--json: %v %q", err, o.out)
	}
	l.ssh("admin", "", "show version; show processes").want(t, 0, "Kernel", "")
	l.ssh("admin", "", "show nothing; show version").want(t, 2, "", "possible: ")
	l.ssh("admin", "", "rollback 3").want(t, 1, "", "rollback to 3 by admin@127.0.0.1")
	l.ssh("admin", "", "restart vrrp signal 9").want(t, 0, "starts it again", "")
	if got := <-l.verbs; got != `init restart {"service":"vrrp","signal":9}` {
		t.Error(got)
	}
	l.ssh("admin", "", "reboot").want(t, 0, "rebooting", "")
	if got := <-l.verbs; got != "init reboot" {
		t.Error(got)
	}
	l.ssh("operate", "", "resign").want(t, 0, "resigned", "")
	if got := <-l.verbs; got != `vrrp resign {"by":"operate@127.0.0.1"}` {
		t.Error(got)
	}
}

func TestConfigurationOverSSH(t *testing.T) {
	l := newLab(t).start()
	const good = "vrrp_instance VI_1 {\n  authentication { auth_pass topsecret }\n}\n"
	l.ssh("admin", good, "commit comment from a file").want(t, 0, "committed: generation 8 runs, applied in 42ms", "")
	if got := l.conf.got[0]; got.Text != good || got.Author != "admin@127.0.0.1" || got.Comment != "from a file" || got.Base != 7 {
		t.Errorf("conf got %+v", got)
	}
	l.ssh("admin", good+"bad\n", "check").want(t, 1, "", "candidate:4: error: unknown keyword bad; write good\n1 error")
	l.ssh("admin", good, "check").want(t, 0, "no faults found", "")
	l.ssh("admin", good+"bad\nbad\n", "load").want(t, 1, "", "2 errors")
	l.ssh("admin", good, "compare").want(t, 0, "+++ candidate", "")
	l.ssh("admin", "bad\nbad\n", "commit").want(t, 1, "", "2 errors")
	l.ssh("admin", "", "commit").want(t, 2, "", "nothing was sent")
	l.ssh("admin", good, "load; commit").want(t, 0, "committed: generation 9", "")
	// A heredoc: commands and the configuration on one standard input.
	l.ssh("admin", "load\n"+good+".\ncompare\ncommit comment here\nexit\n").want(t, 0, "committed: generation 10", "")
	l.ssh("admin", "load\nbad\n.\ncommit\n").want(t, 1, "", "1 error")
	l.ssh("admin", "load\n"+good+".\n").want(t, 1, "loaded", "the candidate was not committed")
	l.ssh("admin", "commit\n").want(t, 1, "", "nothing is loaded")
	if len(l.conf.got) != 3 {
		t.Errorf("%d commits reached conf, want 3", len(l.conf.got))
	}
	l.ssh("admin", "exit 0\n", "file put /etc/keepalived/x.sh 700").want(t, 0, "stored, 7 bytes", "")
	l.ssh("view", "", "file list").want(t, 0, "0700  7     /etc/keepalived/x.sh", "")
	if s := l.log.String(); strings.Contains(s, "topsecret") {
		t.Error("the log holds a secret")
	}
	for _, want := range []string{"admin from 127.0.0.1: commit comment from a file: ok", "admin from 127.0.0.1: check: 1 errors"} {
		if !strings.Contains(l.log.String(), want) {
			t.Errorf("no %q in the log:\n%s", want, l.log)
		}
	}
}

func TestConfRefuses(t *testing.T) {
	l := newLab(t).start()
	l.conf.change(func() { l.conf.refuse = "not committed, nothing changed:\n  vrrp: no\n  net: neither" })
	l.ssh("admin", "good\n", "commit").want(t, 1, "", "vrrp: no\n  net: neither")
}

func TestTwoSessionsCommitting(t *testing.T) {
	l := newLab(t).start()
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("ssh", l.sshArgs("admin", "admin@127.0.0.1")...)
	out := newLockedBuffer()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = pr, out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(pw, "load\nmine\n.\n")
	out.await(t, 0, "loaded")
	l.ssh("admin", "theirs\n", "commit").want(t, 0, "generation 8", "")
	fmt.Fprint(pw, "commit\n")
	out.await(t, 0, "moved from generation 7 to 8 (commit by admin@127.0.0.1")
	pw.Close()
	if err := cmd.Wait(); err == nil {
		t.Error("the refused commit left status 0")
	}
	if len(l.conf.got) != 1 {
		t.Errorf("%+v", l.conf.got)
	}
}

func TestWhoGetsIn(t *testing.T) {
	l := newLab(t).start()
	as := func(user, key string, more ...string) outcome {
		args := l.sshArgs(key, more...)
		return l.run("", append(args, user+"@127.0.0.1", "show version")...)
	}
	as("admin", "admin").want(t, 0, "Kernel", "")
	as("admin", "stranger").want(t, 255, "", "Permission denied (publickey)")
	as("admin", "view").want(t, 255, "", "Permission denied (publickey)")
	as("nobody", "admin").want(t, 255, "", "Permission denied (publickey)")
	as("admin", "stranger", "-o", "PreferredAuthentications=password,keyboard-interactive", "-o", "BatchMode=no", "-o", "NumberOfPasswordPrompts=1").
		want(t, 255, "", "Permission denied (publickey)")
	// Old algorithms are not even offered.
	as("admin", "admin", "-o", "KexAlgorithms=diffie-hellman-group14-sha256").want(t, 255, "", "no matching key exchange")
	as("admin", "admin", "-o", "Ciphers=aes128-cbc").want(t, 255, "", "no matching cipher")
	as("admin", "admin", "-o", "HostKeyAlgorithms=ssh-rsa").want(t, 255, "", "no matching host key")
	if !strings.Contains(l.log.String(), "ssh: login from 127.0.0.1 refused") {
		t.Errorf("refused logins are not in the log:\n%s", l.log)
	}
	// A user who is taken out of the configuration is out at once.
	l.conf.change(func() { l.conf.state.Generation++; l.conf.state.Config.System.Logins = nil })
	for range 100 {
		if as("admin", "admin").code == 255 {
			return
		}
	}
	t.Error("a user who is no longer in the configuration gets in")
}

func TestRoles(t *testing.T) {
	l := newLab(t).start()
	for _, tc := range []struct {
		user, command string
		code          int
	}{
		{"view", "commit", 1}, {"view", "load", 1}, {"view", "check", 1}, {"view", "rollback", 1}, {"view", "resign", 1}, {"view", "resume", 1},
		{"view", "restart vrrp", 1}, {"view", "reboot", 1}, {"view", "poweroff", 1}, {"view", "file put /opt/x", 1}, {"view", "file delete /opt/x", 1},
		{"view", "show history", 0}, {"view", "help", 0}, {"view", "show interfaces", 0},
		{"operate", "commit", 1}, {"operate", "reboot", 1}, {"operate", "file put /opt/x", 1}, {"operate", "restart vrrp", 0}, {"operate", "resume", 0},
		{"admin", "show files", 0}, {"admin", "poweroff", 0},
	} {
		o := l.ssh(tc.user, "x\n", tc.command)
		if o.code != tc.code || (tc.code == 1 && !strings.Contains(o.err, "permission denied: it needs role")) {
			t.Errorf("%s: %s: status %d %q, want %d", tc.user, tc.command, o.code, o.err, tc.code)
		}
	}
	if len(l.conf.got)+len(l.conf.files) > 0 {
		t.Errorf("conf got %+v %+v", l.conf.got, l.conf.files)
	}
}

func TestHostKeyStays(t *testing.T) {
	l := newLab(t).start()
	var st State
	if _, err := ipc.Dir(l.dir).Client("console").State(t.Context(), &st); err != nil {
		t.Fatal(err)
	}
	first := st.Fingerprint
	l.stop()
	if fi, err := os.Stat(filepath.Join(l.dir, "data", hostKeyFile)); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("host key file: %v %v", fi.Mode(), err)
	}
	l.start()
	ipc.Dir(l.dir).Client("console").State(t.Context(), &st)
	if st.Fingerprint != first {
		t.Errorf("host key changed from %s to %s", first, st.Fingerprint)
	}
	l.stop()
	os.WriteFile(filepath.Join(l.dir, "data", hostKeyFile), []byte("torn"), 0o600)
	os.Remove(filepath.Join(l.dir, "known_hosts"))
	l.start() // a damaged key must not keep people out
	if !strings.Contains(l.log.String(), "the SSH host key is damaged") {
		t.Error("the log does not tell")
	}
}

func TestFailedLoginsAreSlowedDown(t *testing.T) {
	l := newLab(t).start()
	refused := -1
	for i := range 30 {
		if o := l.run("", append(l.sshArgs("stranger"), "admin@127.0.0.1", "show version")...); !strings.Contains(o.err, "Permission denied") {
			refused = i
			break
		}
	}
	if refused < 5 || refused > 15 {
		t.Errorf("connections are dropped after %d failed logins, want about %v", refused, limitBurst)
	}
	if n := strings.Count(l.log.String(), "too many failed logins from 127.0.0.1"); n != 1 {
		t.Errorf("told %d times in the log, want once", n)
	}
}

// Somebody who opens connections and says nothing takes the places of his own
// address only.
func TestSilentConnections(t *testing.T) {
	l := newLab(t).start()
	for range 2 * maxLoggingIn {
		c, err := net.Dial("tcp", "127.0.0.1:"+l.port)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		// Served or dropped: its place is decided on when something comes back.
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		c.Read(make([]byte, 1))
	}
	if o := l.run("", append(l.sshArgs("admin", "-b", "127.0.0.9"), "admin@127.0.0.1", "show version")...); o.code != 0 {
		t.Errorf("an administrator is kept out: %+v", o)
	}
}
