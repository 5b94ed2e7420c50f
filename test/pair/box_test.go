package pair

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"ballast/services/conf"
	"ballast/services/ipc"
	"ballast/services/ipc/follow"
	"ballast/services/ipc/status"
	"ballast/services/peer"

	"github.com/vishvananda/netlink"
)

// Environment of a process that this test starts of itself.
const (
	asConf  = "PAIR_TEST_CONF"  // folder of the box whose conf it is
	inSpace = "PAIR_TEST_SPACE" // it is in its network namespace
	killAt  = "kill-at"         // file in that folder: the step at which conf dies
)

func TestMain(m *testing.M) {
	switch {
	case os.Getenv(asConf) != "":
		if err := runConf(os.Getenv(asConf)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	case os.Getenv(inSpace) == "":
		os.Exit(enterSpace())
	}
	if err := loopback(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// enterSpace runs the tests again in a network namespace of their own.
func enterSpace() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inSpace+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

var hosts = [2]string{"lb1", "lb2"}

var pairs atomic.Int32 // made so far: each has addresses of its own

// newAddrs are two addresses that no other pair has.
func newAddrs(t *testing.T) (addrs [2]netip.Addr) {
	t.Helper()
	n := byte(pairs.Add(1))
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	for i := range addrs {
		addrs[i] = netip.AddrFrom4([4]byte{10, 99, n, byte(i + 1)})
		a, err := netlink.ParseAddr(addrs[i].String() + "/32")
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.AddrAdd(lo, a); err != nil {
			t.Fatal(err)
		}
	}
	return addrs
}

func loopback() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}

var services = []string{"vrrp", "ipvs"}

// runConf is the process of conf.
func runConf(dir string) error {
	log := slog.New(ipc.NewLogHandler(os.Stderr))
	env, err := ipc.NewEnv(ipc.Dir(dir), "conf", log)
	if err != nil {
		return err
	}
	env.Data = filepath.Join(dir, "data")
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return conf.RunWith(ctx, env, conf.Options{
		Root: filepath.Join(dir, "root"), Seed: filepath.Join(dir, "seed"), Services: services,
		ApplyBound: 30 * time.Second, PrepareBound: 30 * time.Second, SettleBound: 200 * time.Millisecond,
		NICs: func() []string { return nil }, Host: func() string { return filepath.Base(dir) },
		Pair: conf.PairTimes{Hello: 100 * time.Millisecond, Tick: 30 * time.Millisecond, Ask: 200 * time.Millisecond, Bound: 4 * time.Second, Turn: 5 * time.Second, Recover: 50 * time.Millisecond},
		Step: func(step string) {
			path := filepath.Join(dir, killAt)
			if want, err := os.ReadFile(path); err == nil && string(want) == step {
				os.Remove(path)
				syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {}
			}
		},
	})
}

// box is one box of the pair.
type box struct {
	t    *testing.T
	i    int
	dir  string
	addr netip.Addr
	conf *exec.Cmd
	wire func() // stops the peer process
	svcs map[string]*service
	key  string
}

// service is a service that does as it is told.
type service struct {
	mu      sync.Mutex
	refuse  string // of prepare
	failing string // Applied.Error, for the configuration with failAt
	failAt  string
	runs    string // router_id of what it has applied
}

func (s *service) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func (b *box) service(ctx context.Context, name string) (stop func()) {
	s := &service{}
	b.svcs[name] = s
	env, err := ipc.NewEnv(ipc.Dir(b.dir), name, slog.New(slog.DiscardHandler))
	if err != nil {
		b.t.Fatal(err)
	}
	server := ipc.NewServer(name)
	server.Publish(status.Applied{})
	f := follow.New(ipc.Dir(b.dir).Client("conf"), follow.Whole)
	server.Handle("prepare", f.Prepare(func(_ context.Context, u follow.Update) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.refuse != "" {
			return errors.New(s.refuse)
		}
		return nil
	}), ipc.AnyUID)
	var wg sync.WaitGroup
	wg.Go(func() { server.Serve(ctx, env.Listener) })
	wg.Go(func() {
		f.Run(ctx, func(u follow.Update) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.runs = u.Conf.Config.Global.RouterID
			a := status.Applied{Config: u.Conf.Generation}
			if s.failing != "" && s.runs == s.failAt {
				a.Error = s.failing
			}
			server.Publish(a)
		})
	})
	return wg.Wait
}

// pair is both boxes, running the configuration "first".
func pair(t *testing.T) (boxes [2]*box) {
	t.Helper()
	root, err := os.MkdirTemp("", "pair")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	ctx, cancel := context.WithCancel(context.Background())
	addrs := newAddrs(t)
	for i := range boxes {
		b := &box{t: t, i: i, addr: addrs[i], dir: filepath.Join(root, hosts[i]), svcs: map[string]*service{}}
		for _, d := range []string{"data", "root", "seed", "wire"} {
			if err := os.MkdirAll(filepath.Join(b.dir, d), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		for _, name := range services {
			wait := b.service(ctx, name)
			t.Cleanup(wait)
		}
		b.plug()
		var st status.Peer
		if _, err := ipc.Dir(b.dir).Client("peer").State(ctx, &st); err != nil {
			t.Fatal(err)
		}
		b.key = st.PublicKey
		boxes[i] = b
	}
	t.Cleanup(cancel)
	for _, b := range boxes {
		if err := os.WriteFile(filepath.Join(b.dir, "seed", "config"), []byte(text(boxes, "first")), 0o600); err != nil {
			t.Fatal(err)
		}
		b.start()
		t.Cleanup(b.unplug)
		t.Cleanup(b.kill)
	}
	for _, b := range boxes {
		b.await("in step", func(st status.PairState) bool { return st.Reachable && !st.Drift })
	}
	return boxes
}

// text is a configuration that both boxes can run.
func text(boxes [2]*box, id string) string {
	var b strings.Builder
	b.WriteString("system {\n")
	for _, h := range hosts {
		fmt.Fprintf(&b, "    @%s host_name %s\n", h, h)
	}
	b.WriteString("    login ann {\n        role admin\n        key \"" + boxes[0].key + "\"\n    }\n}\n")
	b.WriteString("peer {\n")
	for i, h := range hosts {
		fmt.Fprintf(&b, "    @%s address %s\n    @%s key \"%s\"\n    @%s from %s\n", h, boxes[1-i].addr, h, boxes[1-i].key, h, boxes[i].addr)
	}
	b.WriteString("}\ninterface eth0 {\n")
	for i, h := range hosts {
		fmt.Fprintf(&b, "    @%s address 192.0.2.%d/24\n", h, i+1)
	}
	b.WriteString("}\n")
	fmt.Fprintf(&b, "global_defs {\n    router_id %s\n}\n", id)
	return b.String()
}

// start runs conf and waits until it answers.
func (b *box) start() {
	b.t.Helper()
	os.Remove(ipc.Dir(b.dir).Path("conf"))
	b.conf = exec.Command("/proc/self/exe")
	b.conf.Env = append(os.Environ(), asConf+"="+b.dir)
	log, err := os.OpenFile(filepath.Join(b.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		b.t.Fatal(err)
	}
	defer log.Close()
	b.conf.Stdout, b.conf.Stderr = log, log
	b.conf.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := b.conf.Start(); err != nil {
		b.t.Fatal(err)
	}
	b.until("conf answers", func() error { return b.call("peer-state", nil, new(status.PairState)) })
}

func (b *box) kill() {
	if b.conf != nil {
		b.conf.Process.Kill()
		b.conf.Wait()
		b.conf = nil
	}
	if b.t.Failed() {
		log, _ := os.ReadFile(filepath.Join(b.dir, "log"))
		b.t.Logf("%s:\n%s", hosts[b.i], log)
	}
}

// dead waits until conf has been killed by its own hand.
func (b *box) dead() {
	b.t.Helper()
	done := make(chan struct{})
	go func() { b.conf.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(2 * time.Minute):
		b.t.Fatalf("%s: conf did not get to the step at which it dies", hosts[b.i])
	}
	b.conf = nil
}

// plug runs the peer process; unplug is the cable that is out.
func (b *box) plug() {
	b.t.Helper()
	os.Remove(ipc.Dir(b.dir).Path("peer"))
	env, err := ipc.NewEnv(ipc.Dir(b.dir), "peer", slog.New(slog.DiscardHandler))
	if err != nil {
		b.t.Fatal(err)
	}
	env.Data = filepath.Join(b.dir, "wire")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- peer.Run(ctx, env) }()
	b.wire = func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Error(err)
		}
	}
}

func (b *box) unplug() {
	if b.wire != nil {
		b.wire()
		b.wire = nil
	}
}

func (b *box) call(verb string, in, out any) error {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	return ipc.Dir(b.dir).Client("conf").Call(ctx, verb, in, out)
}

func (b *box) commit(text string, change ...func(*status.Candidate)) (status.CommitResult, error) {
	c := status.Candidate{Text: text, Author: "ann@" + hosts[b.i], Override: true}
	for _, f := range change {
		f(&c)
	}
	var r status.CommitResult
	err := b.call("commit", c, &r)
	return r, err
}

func local(c *status.Candidate) { c.Local = true }

// until polls what nothing announces across processes that come and go.
func (b *box) until(what string, ok func() error) {
	b.t.Helper()
	end := time.Now().Add(2 * time.Minute)
	for {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			b.t.Fatalf("%s: not %s: %v", hosts[b.i], what, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (b *box) await(what string, ok func(status.PairState) bool) (st status.PairState) {
	b.t.Helper()
	b.until(what, func() error {
		st = status.PairState{}
		if err := b.call("peer-state", nil, &st); err != nil {
			return err
		}
		if !ok(st) {
			return fmt.Errorf("%+v", st)
		}
		return nil
	})
	return st
}

// runs waits until text and services of a box have id.
func (b *box) runs(id string) {
	b.t.Helper()
	b.until("running "+id, func() error {
		var c status.Candidate
		if err := b.call("text", status.Rollback{}, &c); err != nil {
			return err
		}
		if !strings.Contains(c.Text, "router_id "+id+"\n") {
			return errors.New("another text")
		}
		for name, s := range b.svcs {
			s.mu.Lock()
			got := s.runs
			s.mu.Unlock()
			if got != id {
				return fmt.Errorf("%s runs %q", name, got)
			}
		}
		return nil
	})
}

func (b *box) state(s *status.Conf) error {
	_, err := ipc.Dir(b.dir).Client("conf").State(context.Background(), s)
	return err
}

func (b *box) wireState(s *status.Peer) error {
	_, err := ipc.Dir(b.dir).Client("peer").State(context.Background(), s)
	return err
}

func firstError(errs ...error) error { return errors.Join(errs...) }

func says(got, want string) error {
	if got != want {
		return fmt.Errorf("%q", got)
	}
	return nil
}
