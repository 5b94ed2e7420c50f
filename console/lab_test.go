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
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

// patience is how long a test waits for what must come: far longer than it
// takes on any machine.
const patience = time.Minute

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
	end := time.After(patience)
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

// commits and stored are what it has got so far.
func (f *fakeConf) commits() []status.Candidate {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.got)
}

func (f *fakeConf) stored() []status.File {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.files)
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
		f.files = slices.DeleteFunc(f.files, func(old status.File) bool { return old.Path == file.Path })
		f.files = append(f.files, file)
		return nil, nil
	})
	f.handle("file-get", func(body json.RawMessage) (any, error) {
		var file status.File
		json.Unmarshal(body, &file)
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, one := range f.files {
			if one.Path == file.Path {
				return one, nil
			}
		}
		return nil, errors.New("there is no file " + file.Path)
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
	init   *ipc.Server
	log    *lockedBuffer
	verbs  chan string // what other services were asked: "init reboot {}"
	stop   func()
	idle   time.Duration
	serial *os.File // handed to the console, when set before start
	screen *os.File // the same
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
	l.init = ipc.NewServer("init")
	l.init.Publish(status.Init{Version: "0.1", Kernel: "6.12", Services: []status.Process{{Name: "vrrp", PID: 12, State: "ready"}, {Name: "ipvs"}}})
	netd := ipc.NewServer("net")
	netd.Publish(status.Net{Links: []status.Link{{Name: "eth0", Kind: "device", Up: true, Carrier: true,
		Addresses: []status.LinkAddress{{Prefix: netip.MustParsePrefix("10.0.0.11/24"), Origin: "dhcp"}}}}})
	for s, verbs := range map[*ipc.Server][]string{vrrp: {"resign", "resume"}, l.init: {"reboot", "poweroff", "restart"}, netd: nil} {
		name := map[*ipc.Server]string{vrrp: "vrrp", l.init: "init", netd: "net"}[s]
		for _, v := range verbs {
			s.Handle(v, func(_ context.Context, _ ipc.Peer, body json.RawMessage) (any, error) {
				l.verbs <- strings.TrimSpace(name + " " + v + " " + string(body))
				return nil, nil
			}, ipc.AnyUID)
		}
		serve(s, name)
	}
	l.init.Handle("log", func(context.Context, ipc.Peer, json.RawMessage) (any, error) {
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
	if l.screen != nil {
		env.Files["screen"] = l.screen
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
	for end := time.Now().Add(patience); time.Now().Before(end); {
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
	ctx, cancel := context.WithTimeout(context.Background(), patience)
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
