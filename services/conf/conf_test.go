package conf_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"ballast/configs"
	"ballast/configs/model"
	"ballast/services/conf"
	"ballast/services/ipc"
	"ballast/services/ipc/follow"
	"ballast/services/ipc/status"
	"ballast/test/locked"

	"github.com/google/go-cmp/cmp"
)

// toy is a language of one word and one name a line, so that these tests do
// not depend on the real one.
var toy = conf.Language{
	Load: func(name, text string, o configs.Options) (c model.Config, ps []model.Problem) {
		for i, l := range strings.Split(text, "\n") {
			word, arg, _ := strings.Cut(strings.TrimSpace(l), " ")
			switch word {
			case "", "}", "dhcp", "!":
			case "interface":
				arg = strings.TrimSuffix(arg, " {")
				c.Interfaces = append(c.Interfaces, model.Interface{Name: arg, DHCP: strings.Contains(text, "dhcp")})
				if o.Facts != nil && o.Facts.Interfaces != nil && o.Facts.Interfaces[0].Name != arg {
					ps = append(ps, model.Problem{Severity: model.Error, File: name, Line: i + 1, Text: "no interface " + arg})
				}
			case "hostname":
				c.System.HostName = arg
			case "login":
				c.System.Logins = append(c.System.Logins, model.Login{Name: arg})
			case "vs":
				c.VirtualServers = append(c.VirtualServers, model.VirtualServer{Name: arg})
			case "id":
				c.Global.RouterID = o.ConfigID
			case "file":
				if o.Facts != nil && !contains(o.Facts.Files, arg) {
					ps = append(ps, model.Problem{Severity: model.Error, File: name, Line: i + 1, Text: "no file " + arg})
				}
			case "include":
				f, err := o.Open(arg)
				if err != nil {
					ps = append(ps, model.Problem{Severity: model.Error, File: name, Line: i + 1, Text: err.Error()})
					continue
				}
				f.Close()
			default:
				ps = append(ps, model.Problem{Severity: model.Error, File: name, Line: i + 1, Text: "unknown " + word})
			}
		}
		return c, ps
	},
	Merge: func(running, candidate string) string {
		for _, kind := range []string{"interface", "hostname", "login"} {
			if strings.Contains("\n"+candidate, "\n"+kind+" ") {
				continue
			}
			for _, l := range strings.Split(running, "\n") {
				if strings.HasPrefix(l, kind+" ") {
					candidate += l + "\n"
				}
			}
		}
		return candidate
	},
	Diff: func(a, b string) string {
		if a == b {
			return ""
		}
		return "-" + a + "+" + b
	},
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

// service is a service that does as it is told.
type service struct {
	server *ipc.Server

	mu      sync.Mutex
	refuse  string                        // of prepare
	failing func(cfg model.Config) string // Applied.Error
	judge   func(cfg model.Config)        // sees what prepare is asked about
	heard   func(c status.Conf)           // sees what runs from now on
	mute    bool                          // never applies
	seen    []status.Conf                 // every state that came
	asked   int                           // prepares
	extra   func(a status.Applied) any    // the state to publish
	hold    chan struct{}                 // prepare waits for it
	entered chan struct{}                 // told when prepare begins
	gens    chan uint64
}

func (s *service) set(fn func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fn()
}

func (s *service) last() status.Conf {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.seen) == 0 {
		return status.Conf{}
	}
	return s.seen[len(s.seen)-1]
}

func startService(t testing.TB, ctx context.Context, dir ipc.Dir, name string) *service {
	t.Helper()
	s := &service{server: ipc.NewServer(name), extra: func(a status.Applied) any { return a }, gens: make(chan uint64, 1000)}
	f := follow.New(dir.Client("conf"), follow.Whole)
	s.server.Handle("prepare", f.Prepare(func(_ context.Context, u follow.Update) error {
		s.mu.Lock()
		if s.judge != nil {
			s.judge(u.Conf.Config)
		}
		s.asked++
		hold, entered := s.hold, s.entered
		var err error
		if s.refuse != "" {
			err = errors.New(s.refuse)
		}
		s.mu.Unlock()
		if hold != nil {
			close(entered)
			<-hold
		}
		return err
	}), ipc.AnyUID)
	env, err := ipc.NewEnv(dir, name, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { s.server.Serve(ctx, env.Listener) })
	wg.Go(func() {
		f.Run(ctx, func(u follow.Update) {
			c := u.Conf
			s.mu.Lock()
			defer s.mu.Unlock()
			s.seen = append(s.seen, c)
			s.gens <- c.Generation
			if s.heard != nil {
				s.heard(c)
			}
			if s.mute {
				return
			}
			a := status.Applied{Config: c.Generation}
			if s.failing != nil {
				a.Error = s.failing(c.Config)
			}
			s.server.Publish(s.extra(a))
		})
	})
	t.Cleanup(wg.Wait)
	return s
}

// box is a conf with its services.
type box struct {
	t    testing.TB
	dir  ipc.Dir
	data string
	root string
	log  *locked.Buffer
	opts conf.Options
	svcs map[string]*service
	stop func()
}

// newBox makes a box whose conf does not run yet.
func newBox(t testing.TB, services ...string) *box {
	t.Helper()
	dir, err := os.MkdirTemp("", "conf") // t.TempDir is too long for a socket's path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	b := &box{t: t, dir: ipc.Dir(dir), data: filepath.Join(dir, "data"), root: filepath.Join(dir, "root"), log: &locked.Buffer{}, svcs: map[string]*service{}}
	for _, d := range []string{b.data, b.root} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	b.opts = conf.Options{Language: toy, Root: b.root, Services: append([]string{}, services...), ApplyBound: 30 * time.Second, PrepareBound: 30 * time.Second, SettleBound: 300 * time.Millisecond,
		NICs: func() []string { return []string{"eth0", "eth1"} }}
	ctx, cancel := context.WithCancel(context.Background())
	for _, name := range services {
		b.svcs[name] = startService(t, ctx, b.dir, name)
	}
	t.Cleanup(func() {
		if b.stop != nil {
			b.stop()
		}
		cancel()
	})
	return b
}

func (b *box) start() *box {
	b.t.Helper()
	env, err := ipc.NewEnv(b.dir, "conf", slog.New(ipc.NewLogHandler(b.log)))
	if err != nil {
		b.t.Fatal(err)
	}
	env.Data = b.data
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- conf.RunWith(ctx, env, b.opts) }()
	b.stop = func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Errorf("conf: %v", err)
		}
		b.stop = nil
	}
	b.state() // answered once it has booted
	return b
}

func (b *box) restart() {
	b.stop()
	b.start()
}

func (b *box) state() (s status.Conf) {
	b.t.Helper()
	if _, err := b.dir.Client("conf").State(context.Background(), &s); err != nil {
		b.t.Fatal(err)
	}
	return s
}

func (b *box) call(verb string, in, out any) error {
	return b.dir.Client("conf").Call(context.Background(), verb, in, out)
}

func (b *box) commit(text string) (status.CommitResult, error) {
	var r status.CommitResult
	err := b.call("commit", status.Candidate{Text: text, Author: "bob@10.0.0.9", Comment: "why"}, &r)
	return r, err
}

func (b *box) mustCommit(text string) uint64 {
	b.t.Helper()
	r, err := b.commit(text)
	if err != nil {
		b.t.Fatal(err)
	}
	return r.Generation
}

func (b *box) history() (out []status.Generation) {
	b.t.Helper()
	if err := b.call("history", nil, &out); err != nil {
		b.t.Fatal(err)
	}
	return out
}

func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", parts)
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("error %q lacks %q", err, p)
		}
	}
}

func TestCommitReachesEveryService(t *testing.T) {
	b := newBox(t, "net", "vrrp").start()
	if s := b.state(); s.Source != "factory" || len(s.Config.Interfaces) != 2 || !s.Config.Interfaces[0].DHCP {
		t.Fatalf("factory default: %+v", s)
	}
	n := b.mustCommit("hostname a\nvs one\n")
	s := b.state()
	if s.Generation != n || s.Source != "commit" || s.Author != "bob@10.0.0.9" || s.Text != "" {
		t.Errorf("state %+v: want generation %d, and no text", s, n)
	}
	if len(s.Config.Interfaces) != 2 {
		t.Errorf("the interfaces of the running configuration did not stay: %+v", s.Config)
	}
	for name, svc := range b.svcs {
		if got := svc.last(); got.Generation != n || svc.asked != 1 {
			t.Errorf("%s: generation %d, asked %d times", name, got.Generation, svc.asked)
		}
	}
	h := b.history()
	if len(h) != 1 || !h[0].Running || h[0].Comment != "why" || h[0].Author != "bob@10.0.0.9" {
		t.Errorf("history %+v", h)
	}
	b.restart()
	if s := b.state(); s.Generation != n || s.Config.System.HostName != "a" || len(s.Problems) > 0 {
		t.Errorf("after a restart: %+v", s)
	}
	if !strings.Contains(b.log.String(), fmt.Sprintf("commit by bob@10.0.0.9: generation %d runs", n)) {
		t.Errorf("no audit line in the log:\n%s", b.log)
	}
}

func TestEveryFaultIsListedAndNothingChanges(t *testing.T) {
	b := newBox(t, "net").start()
	n := b.mustCommit("vs one\n")
	_, err := b.commit("bad x\nvs two\nworse y\n")
	wantError(t, err, "2 errors", "candidate:1: error: unknown bad", "candidate:3: error: unknown worse")
	if s := b.state(); s.Generation != n || s.Config.VirtualServers[0].Name != "one" {
		t.Errorf("state %+v", s)
	}
	var r status.CheckReport
	if err := b.call("check", status.Candidate{Text: "bad x\n"}, &r); err != nil || r.Errors != 1 || r.Diff == "" {
		t.Errorf("check: %+v %v", r, err)
	}
	if len(b.history()) != 1 {
		t.Error("a refused commit is in the history")
	}
}

func TestEveryRefusalIsListed(t *testing.T) {
	b := newBox(t, "net", "vrrp", "health").start()
	n := b.mustCommit("vs one\n")
	b.svcs["net"].set(func() { b.svcs["net"].refuse = "no such bond" })
	b.svcs["health"].set(func() { b.svcs["health"].refuse = "too many checks" })
	_, err := b.commit("vs two\n")
	wantError(t, err, "nothing changed", "net: no such bond", "health: too many checks")
	if s := b.state(); s.Generation != n {
		t.Errorf("generation %d", s.Generation)
	}
}

func TestAbsentService(t *testing.T) {
	b := newBox(t, "net")
	b.opts.Services = []string{"net", "ipvs"}
	b.start()
	_, err := b.commit("vs one\n")
	wantError(t, err, "ipvs does not run", "commit force")
	var r status.CommitResult
	if err := b.call("commit", status.Candidate{Text: "vs one\n", Force: true}, &r); err != nil || r.Warnings["ipvs"] == "" {
		t.Errorf("forced: %+v %v", r, err)
	}
	b.svcs["net"].set(func() { b.svcs["net"].refuse = "no" })
	err = b.call("commit", status.Candidate{Text: "vs two\n", Force: true}, nil)
	wantError(t, err, "net: no")
}

func TestFailureToApplyRollsBack(t *testing.T) {
	b := newBox(t, "net", "vrrp").start()
	b.mustCommit("vs one\n")
	b.svcs["vrrp"].set(func() {
		b.svcs["vrrp"].failing = func(c model.Config) string {
			if c.VirtualServers[0].Name == "two" {
				return "address in use"
			}
			return ""
		}
	})
	_, err := b.commit("vs two\n")
	wantError(t, err, "rolled back", "vrrp: address in use", "runs with what ran before")
	s := b.state()
	if s.Source != "rollback" || s.Config.VirtualServers[0].Name != "one" {
		t.Errorf("state %+v", s)
	}
	for name, svc := range b.svcs {
		if got := svc.last(); got.Generation != s.Generation || got.Config.VirtualServers[0].Name != "one" {
			t.Errorf("%s runs generation %d", name, got.Generation)
		}
	}
	h := b.history()
	if len(h) != 2 || !strings.Contains(h[0].Comment, "address in use") {
		t.Errorf("history %+v", h)
	}
	b.restart()
	if s2 := b.state(); s2.Generation != s.Generation {
		t.Errorf("after a restart generation %d, want %d", s2.Generation, s.Generation)
	}
}

func TestFirstCommitThatFailsGoesBackToFactory(t *testing.T) {
	b := newBox(t, "net")
	b.start()
	b.svcs["net"].set(func() {
		b.svcs["net"].failing = func(c model.Config) string {
			if len(c.VirtualServers) > 0 {
				return "no"
			}
			return ""
		}
	})
	_, err := b.commit("vs one\n")
	wantError(t, err, "net: no")
	if s := b.state(); s.Source != "factory" || len(s.Config.Interfaces) != 2 || b.svcs["net"].last().Generation != s.Generation {
		t.Errorf("state %+v", s)
	}
}

func TestSilentServiceRollsBack(t *testing.T) {
	b := newBox(t, "net")
	b.start()
	b.mustCommit("vs one\n")
	b.svcs["net"].set(func() { b.svcs["net"].mute = true })
	b.opts.ApplyBound = 200 * time.Millisecond
	b.restart()
	_, err := b.commit("vs two\n")
	wantError(t, err, "net did not apply it within 200ms", "has trouble too")
	if s := b.state(); s.Config.VirtualServers[0].Name != "one" {
		t.Errorf("state %+v", s)
	}
}

func TestOldComplaintIsAWarning(t *testing.T) {
	b := newBox(t, "net").start()
	<-b.svcs["net"].gens // the factory default, without a complaint
	b.svcs["net"].set(func() { b.svcs["net"].failing = func(model.Config) string { return "eth9 is not there" } })
	_, err := b.commit("vs one\n")
	wantError(t, err, "eth9 is not there")
	r, err := b.commit("vs one\n") // it complains of the factory default as well now
	if err != nil || r.Warnings["net"] != "eth9 is not there" {
		t.Errorf("%+v %v", r, err)
	}
}

func TestCommitOverAnotherOne(t *testing.T) {
	b := newBox(t, "net").start()
	n := b.mustCommit("vs one\n")
	b.mustCommit("vs two\n")
	err := b.call("commit", status.Candidate{Text: "vs three\n", Base: n}, nil)
	wantError(t, err, "moved from generation", "bob@10.0.0.9")
}

// A client that goes away in the middle must not leave a commit half done.
func TestCommitOutlivesItsCaller(t *testing.T) {
	b := newBox(t, "net").start()
	svc := b.svcs["net"]
	svc.set(func() { svc.hold, svc.entered = make(chan struct{}), make(chan struct{}) })
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- b.dir.Client("conf").Call(ctx, "commit", status.Candidate{Text: "vs one\n"}, nil)
	}()
	<-svc.entered
	cancel()
	<-done
	svc.set(func() { close(svc.hold); svc.hold = nil })
	for g := range svc.gens {
		if g >= 2 {
			break
		}
	}
	if n := b.mustCommit("vs two\n"); n < 3 { // waits for its turn
		t.Errorf("generation %d", n)
	}
	if h := b.history(); len(h) != 2 {
		t.Errorf("history %+v: the first commit is not there", h)
	}
}

func TestRollback(t *testing.T) {
	b := newBox(t, "net").start()
	wantError(t, b.call("rollback", status.Rollback{}, nil), "no earlier generation")
	one := b.mustCommit("vs one\n")
	b.mustCommit("vs two\n")
	var r status.CommitResult
	if err := b.call("rollback", status.Rollback{Author: "eve@serial"}, &r); err != nil {
		t.Fatal(err)
	}
	s := b.state()
	if s.Generation != r.Generation || s.Source != "rollback" || s.Author != "eve@serial" || s.Config.VirtualServers[0].Name != "one" {
		t.Errorf("%+v", s)
	}
	wantError(t, b.call("rollback", status.Rollback{Generation: 77}, nil), "generation 77", "not stored")
	var c status.Candidate
	if err := b.call("text", status.Rollback{Generation: one}, &c); err != nil || !strings.HasPrefix(c.Text, "vs one\n") {
		t.Errorf("%+v %v", c, err)
	}
}

func TestFiles(t *testing.T) {
	b := newBox(t, "net").start()
	const path = "/etc/keepalived/check.sh"
	_, err := b.commit("file " + path + "\n")
	wantError(t, err, "no file "+path)
	if err := b.call("file-put", status.File{Path: path, Content: []byte("exit 0")}, nil); err != nil {
		t.Fatal(err)
	}
	onBox := filepath.Join(b.root, path)
	check := func(want string) {
		t.Helper()
		got, err := os.ReadFile(onBox)
		if want == "" {
			if !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the file is still there: %q %v", got, err)
			}
			return
		}
		st, _ := os.Stat(onBox)
		if string(got) != want || st.Mode().Perm() != 0o755 {
			t.Errorf("on the box %q %v, want %q", got, err, want)
		}
	}
	check("exit 0")
	one := b.mustCommit("file " + path + "\ninclude check.sh\n")
	b.call("file-put", status.File{Path: path, Content: []byte("exit 1")}, nil)
	check("exit 1")
	b.mustCommit("vs two\n")
	if err := b.call("rollback", status.Rollback{Generation: one}, nil); err != nil {
		t.Fatal(err)
	}
	check("exit 0")
	os.RemoveAll(b.root) // a reboot: the root is in memory
	os.Mkdir(b.root, 0o755)
	b.restart()
	check("exit 0")
	var list []status.File
	if err := b.call("file-list", nil, &list); err != nil || !cmp.Equal(list, []status.File{{Path: path, Mode: 0o755, Size: 6}}) {
		t.Errorf("%+v %v", list, err)
	}
	if err := b.call("file-delete", status.File{Path: path}, nil); err != nil {
		t.Fatal(err)
	}
	check("")
	wantError(t, b.call("file-delete", status.File{Path: path}, nil), "no file")
}

func TestFilePaths(t *testing.T) {
	b := newBox(t).start()
	os.Mkdir(filepath.Join(b.root, "secret"), 0o755)
	for _, bad := range []string{"", "x", "/etc/passwd", "/etc/keepalived", "/etc/keepalived/", "/etc/keepalived/../passwd", "/opt/../init",
		"/usr/bin/x", "/etc/keepalivedx", "/opt/a\nb", "/opt//x", "/etc/keepalived/keepalived.conf", "/opt/" + strings.Repeat("x", 600)} {
		if err := b.call("file-put", status.File{Path: bad, Content: []byte("x")}, nil); err == nil {
			t.Errorf("%q was stored", bad)
		}
	}
	if err := b.call("file-put", status.File{Path: "/opt/x", Mode: 0o4755}, nil); err == nil {
		t.Error("a set-uid file was stored")
	}
	// A link that leads out of the root must not be followed.
	outside := t.TempDir()
	for _, top := range []string{"opt", "usr"} { // a folder, and what another one is in
		if err := os.Symlink(outside, filepath.Join(b.root, top)); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{"/opt/x", "/usr/local/x", "/usr/libexec/keepalived/x"} {
		if err := b.call("file-put", status.File{Path: path, Content: []byte("x")}, nil); err == nil {
			t.Errorf("%s: a link out of the root was followed", path)
		}
	}
	if es, _ := os.ReadDir(outside); len(es) > 0 {
		t.Errorf("written outside: %v", es)
	}
}

func TestSecretsAreServedToTheConsoleOnly(t *testing.T) {
	b := newBox(t).start()
	b.mustCommit("vs topsecret\n")
	resp, err := rawState(b.dir)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(resp, "vs topsecret") {
		t.Errorf("the state holds the text: %s", resp)
	}
	if strings.Contains(b.log.String(), "topsecret") {
		t.Errorf("the log holds the text")
	}
}

func rawState(dir ipc.Dir) (string, error) {
	c, err := net.Dial("unix", dir.Path("conf"))
	if err != nil {
		return "", err
	}
	defer c.Close()
	fmt.Fprint(c, "GET /state HTTP/1.0\r\n\r\n")
	var b strings.Builder
	buf := make([]byte, 4096)
	for {
		n, err := c.Read(buf)
		b.Write(buf[:n])
		if err != nil {
			return b.String(), nil
		}
	}
}

func TestFactsOfTheBox(t *testing.T) {
	b := newBox(t, "net").start()
	b.svcs["net"].set(func() {
		b.svcs["net"].extra = func(a status.Applied) any {
			return status.Net{Applied: a, Links: []status.Link{{Name: "eth0", MAC: "02:00:00:00:00:01"}}}
		}
	})
	b.mustCommit("vs one\ninterface eth0\n") // net tells its links with this one
	_, err := b.commit("interface eth7\n")
	wantError(t, err, "no interface eth7")
}
