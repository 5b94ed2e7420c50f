package console

import (
	"context"
	"encoding/json"
	"log/slog"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

// fakeNotify keeps the audit log.
type fakeNotify struct {
	mu   sync.Mutex
	got  []status.AuditEntry
	news chan struct{}
}

func (l *lab) notify() *fakeNotify {
	l.t.Helper()
	n := &fakeNotify{news: make(chan struct{}, 1)}
	env, err := ipc.NewEnv(ipc.Dir(l.dir), "notify", slog.New(slog.DiscardHandler))
	if err != nil {
		l.t.Fatal(err)
	}
	s := ipc.NewServer("notify")
	s.Handle("audit", func(_ context.Context, _ ipc.Peer, body json.RawMessage) (any, error) {
		var list []status.AuditEntry
		if err := json.Unmarshal(body, &list); err != nil {
			return nil, err
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		n.got = append(n.got, list...)
		select {
		case n.news <- struct{}{}:
		default:
		}
		return nil, nil
	}, ipc.GroupView)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(ctx, env.Listener) }()
	l.t.Cleanup(func() { cancel(); <-done })
	return n
}

// await waits for an entry and returns it.
func (n *fakeNotify) await(t *testing.T, fits func(status.AuditEntry) bool) status.AuditEntry {
	t.Helper()
	end := time.After(patience)
	for {
		n.mu.Lock()
		for _, e := range n.got {
			if fits(e) {
				n.mu.Unlock()
				return e
			}
		}
		n.mu.Unlock()
		select {
		case <-n.news:
		case <-end:
			n.mu.Lock()
			defer n.mu.Unlock()
			t.Fatalf("no such entry among %+v", n.got)
		}
	}
}

func (l *lab) sessions() []status.ConsoleSession {
	l.t.Helper()
	var st status.Console
	if _, err := ipc.Dir(l.dir).Client("console").State(l.t.Context(), &st); err != nil {
		l.t.Fatal(err)
	}
	return st.Sessions
}

// awaitSessions waits until so many are open: the client of one that was closed
// may be gone before the console has forgotten it.
func (l *lab) awaitSessions(n int) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), patience)
	defer cancel()
	var last []status.ConsoleSession
	ipc.Watch(ctx, ipc.Dir(l.dir).Client("console"), func(_ uint64, st status.Console) {
		if last = st.Sessions; len(last) == n {
			cancel()
		}
	})
	if len(last) != n {
		l.t.Errorf("%d sessions are open, want %d: %+v", len(last), n, last)
	}
}

func (l *lab) wantEnd(cmd *exec.Cmd) {
	l.t.Helper()
	done := make(chan struct{})
	go func() { cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(patience):
		l.t.Fatal("the client is still there")
	}
}

func TestKick(t *testing.T) {
	l := newLab(t)
	n := l.notify()
	l.start()
	s, cmd := l.onTerminal("operate")
	s.expect("lb1> ")
	var id uint64
	for _, o := range l.sessions() {
		if o.User == "operate" {
			id = o.ID
			if o.Role != "operate" || o.Kind != "terminal" || o.Address != "127.0.0.1" || !strings.HasPrefix(o.Key, "SHA256:") {
				t.Errorf("%+v", o)
			}
		}
	}
	l.ssh("operate", "", "kick 1").want(t, 1, "", "permission denied: it needs role admin")
	l.ssh("admin", "", "kick 9999").want(t, 1, "", "there is no session 9999")
	l.ssh("admin", "", "show sessions").want(t, 0, "operate  operate  127.0.0.1", "")
	l.ssh("admin", "", "kick", jsonNumber(id)).want(t, 0, "of operate from 127.0.0.1 is closed", "")
	s.expect("session closed by admin@127.0.0.1")
	l.wantEnd(cmd)
	e := n.await(t, func(e status.AuditEntry) bool { return e.Command == "session closed" })
	if e.User != "operate" || e.Result != "kicked by admin@127.0.0.1" {
		t.Errorf("%+v", e)
	}
	e = n.await(t, func(e status.AuditEntry) bool { return strings.HasPrefix(e.Command, "kick "+jsonNumber(id)) })
	if e.User != "admin" || e.Address != "127.0.0.1" || e.Result != "ok" || !strings.HasPrefix(e.Key, "SHA256:") || e.Time.IsZero() {
		t.Errorf("%+v", e)
	}
	e = n.await(t, func(e status.AuditEntry) bool { return e.User == "operate" && e.Command == "kick 1" })
	if !strings.Contains(e.Result, "permission denied") {
		t.Errorf("%+v", e)
	}
}

func jsonNumber(n uint64) string { b, _ := json.Marshal(n); return string(b) }

// A script that reads its commands, and a command that reads its input, are
// sessions too.
func TestKickWithoutATerminal(t *testing.T) {
	l := newLab(t).start()
	for _, command := range [][]string{nil, {"check"}} {
		cmd := exec.Command("ssh", append(l.sshArgs("view", "view@127.0.0.1"), command...)...)
		if command != nil {
			cmd = exec.Command("ssh", append(l.sshArgs("admin", "admin@127.0.0.1"), command...)...)
		}
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out := newLockedBuffer()
		cmd.Stdout, cmd.Stderr = out, out
		var before uint64 // one that has ended may still be there
		for _, o := range l.sessions() {
			before = max(before, o.ID)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var id uint64
		for end := time.Now().Add(patience); id == 0 && time.Now().Before(end); {
			for _, o := range l.sessions() {
				if o.ID > before {
					id = o.ID
				}
			}
		}
		if err := ipc.Dir(l.dir).Client("console").Call(t.Context(), "kick", status.Kick{ID: id, By: "root"}, nil); err != nil {
			t.Fatal(err)
		}
		out.await(t, 0, "session closed by root")
		l.wantEnd(cmd)
		in.Close()
	}
}

// A key that is taken out of the configuration ends what it opened; the user's
// other key does not.
func TestRevokedKeyEndsTheSession(t *testing.T) {
	l := newLab(t)
	n := l.notify()
	l.key("second")
	second := l.key("third")
	setKeys := func(keys ...string) {
		l.conf.change(func() {
			l.conf.state.Generation++
			logins := append([]model.Login{}, l.conf.state.Config.System.Logins...)
			for i := range logins {
				if logins[i].Name == "operate" {
					logins[i].Keys = keys
				}
			}
			l.conf.state.Config.System.Logins = logins
		})
	}
	var first string
	for _, u := range l.conf.state.Config.System.Logins {
		if u.Name == "operate" {
			first = u.Keys[0]
		}
	}
	setKeys(first, second)
	l.start()
	s, cmd := l.onTerminal("operate")
	s.expect("lb1> ")
	// The other key's session, under the same name.
	m, slave := openPTY(t)
	other := exec.Command("ssh", append(l.sshArgs("third", "-tt"), "operate@127.0.0.1")...)
	other.Stdin, other.Stdout, other.Stderr = slave, slave, slave
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Process.Kill(); other.Wait() })
	o := newScreen(t, m)
	o.expect("lb1> ")
	setKeys(second)
	s.expect("the key of operate was taken out of the configuration: session closed")
	l.wantEnd(cmd)
	n.await(t, func(e status.AuditEntry) bool {
		return e.User == "operate" && e.Command == "session closed" && strings.Contains(e.Result, "taken out")
	})
	o.send("show version\r")
	o.expect("Kernel", "lb1> ")
	l.awaitSessions(1)
	// The whole user.
	l.conf.change(func() { l.conf.state.Generation++; l.conf.state.Config.System.Logins = nil })
	o.expect("taken out of the configuration: session closed")
	l.wantEnd(other)
}

// The configuration's idle time is that of sessions that are open, from their
// next key on.
func TestIdleTimeoutOfTheConfiguration(t *testing.T) {
	l := newLab(t)
	l.conf.change(func() { l.conf.state.Config.System.IdleTimeout = 700 * time.Millisecond })
	l.start()
	s, cmd := l.onTerminal("view")
	s.expect("lb1> ", "nobody typed for a long time")
	l.wantEnd(cmd)
	l.idleTime("lb2", time.Hour)
	s, _ = l.onTerminal("view")
	s.expect("lb2> ")
	s.send("show version\r")
	s.expect("Kernel", "lb2> ")
}

// idleTime sets the configuration's idle time, and a host name, and waits until
// the console knows of both: a greeting tells.
func (l *lab) idleTime(host string, d time.Duration) {
	l.t.Helper()
	l.conf.change(func() {
		l.conf.state.Generation++
		l.conf.state.Config.System.IdleTimeout, l.conf.state.Config.System.HostName = d, host
	})
	for end := time.Now().Add(patience); !strings.Contains(l.run("exit\r", l.sshArgs("view", "-tt", "view@127.0.0.1")...).out, "director "+host); {
		if time.Now().After(end) {
			l.t.Fatal("the console does not follow the configuration")
		}
	}
}

func TestAuditor(t *testing.T) {
	a := newAuditor()
	for i := range auditWaiting + 3 {
		a.add(status.AuditEntry{Command: jsonNumber(uint64(i))})
	}
	list, dropped := a.next()
	if len(list) != auditBatch || dropped != 3 || list[0].Command != "3" {
		t.Fatalf("%d entries from %s, %d dropped", len(list), list[0].Command, dropped)
	}
	a.add(status.AuditEntry{Command: "more"}) // the first of those that are being handed over is dropped
	a.done(len(list), dropped)
	list, dropped = a.next()
	if want := jsonNumber(3 + auditBatch); dropped != 0 || list[0].Command != want {
		t.Errorf("then from %s, want %s; %d dropped", list[0].Command, want, dropped)
	}
	total := 0
	for {
		list, dropped := a.next()
		if len(list) == 0 {
			break
		}
		total += len(list)
		a.done(len(list), dropped)
	}
	if total != auditWaiting-auditBatch+1 {
		t.Errorf("%d entries left", total)
	}
}
