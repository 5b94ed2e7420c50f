package supervise

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
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

// patience is how long a test waits for what must come.
const patience = time.Minute

// The test binary is also the service: its behaviour is its second argument.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "service" {
		os.Exit(child(os.Args[2]))
	}
	os.Exit(m.Run())
}

func child(mode string) int {
	mode, arg, _ := strings.Cut(mode, "=")
	env, err := ipc.FromInit()
	if err != nil {
		fmt.Fprintln(os.Stderr, "<3>", err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	switch mode {
	case "crash":
		env.Log.Warn("about to fail")
		return 3
	case "quit":
		env.Ready()
		return 0
	case "crash-ready":
		env.Ready()
		time.Sleep(10 * time.Millisecond)
		return 4
	case "flood":
		for i := range 100000 {
			fmt.Fprintf(os.Stderr, "<6>line %d\n", i)
		}
	case "scripts":
		// A program of another part of the cgroup, as notify starts them.
		cmd := exec.Command("/bin/sh", "-c", "cat /proc/self/cgroup; ls -l /proc/self/fd >&2")
		if f := env.Files["scripts"]; f != nil {
			cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(f.Fd())}
		}
		var fds strings.Builder
		cmd.Stderr = &fds
		out, err := cmd.Output()
		own, _ := os.ReadFile("/proc/self/cgroup")
		env.Log.Info(fmt.Sprintf("own=%s script=%s err=%v leaks=%t", unified(own), unified(out), err, strings.Contains(fds.String(), "pipe:["+pipeOf(4)+"]")))
	case "hang":
		env.Ready()
		select {}
	case "deaf":
		signal.Ignore(unix.SIGTERM)
		env.Ready()
		time.Sleep(time.Hour)
	}
	srv := ipc.NewServer("test")
	srv.Publish(self())
	env.Ready()
	env.Progress()
	env.Log.Info("up", "arg", arg)
	err = srv.Serve(ctx, env.Listener)
	if f := os.Getenv("ORDER"); f != "" {
		o, err := os.OpenFile(f, os.O_APPEND|os.O_WRONLY, 0)
		if err == nil {
			fmt.Fprintln(o, mode)
		}
	}
	if err != nil && !errors.Is(err, ipc.ErrIdle) {
		return 1
	}
	return 0
}

// unified is the path of a process in the cgroup2 hierarchy.
func unified(b []byte) string {
	for line := range strings.Lines(string(b)) {
		if p, ok := strings.CutPrefix(line, "0::"); ok {
			return strings.TrimSpace(p)
		}
	}
	return "?"
}

func pipeOf(fd int) string {
	name, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	return strings.Trim(strings.TrimPrefix(name, "pipe:"), "[]")
}

// identity is what a process may do.
type identity struct {
	UID, GID int
	Groups   []int
	Files    map[string]bool
	Status   map[string]string
	Session  bool
	Data     string
	Run      string
}

func self() identity {
	id := identity{UID: os.Getuid(), GID: os.Getgid(), Status: map[string]string{}, Data: os.Getenv(ipc.EnvData), Run: os.Getenv(ipc.EnvOwn)}
	id.Groups, _ = os.Getgroups()
	b, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(b)) {
		k, v, _ := strings.Cut(line, ":")
		if strings.HasPrefix(k, "Cap") || k == "NoNewPrivs" {
			id.Status[k] = strings.TrimSpace(v)
		}
	}
	sid, _ := unix.Getsid(0)
	id.Session = sid == os.Getpid()
	return id
}

type fixture struct {
	*Supervisor
	j   *journal.Journal
	dir ipc.Dir
}

func newFixture(t *testing.T, cgroup string) *fixture {
	t.Helper()
	// The services may run as another user: its folders must be open to it.
	base, err := os.MkdirTemp("/tmp", "supervise")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	os.Chmod(base, 0o755)
	exe := filepath.Join(base, "exe")
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(exe, b, 0o755); err != nil {
		t.Fatal(err)
	}
	j := journal.New(nil)
	r := NewReaper()
	t.Cleanup(r.Stop)
	dir := ipc.Dir(filepath.Join(base, "run"))
	s, err := New(Config{
		Exe: exe, Args: func(n string) []string { return []string{"ballast", "service", n} },
		Dir: dir, Data: filepath.Join(base, "data"), Run: filepath.Join(base, "own"), GID: ipc.GroupBallast, Cgroup: cgroup, Journal: j, Reaper: r,
	})
	if err != nil {
		t.Fatal(err)
	}
	os.Mkdir(filepath.Join(base, "data"), 0o755)
	t.Cleanup(func() { s.Stop(s.Names()...) })
	return &fixture{s, j, dir}
}

func (f *fixture) add(t *testing.T, specs ...Spec) {
	t.Helper()
	for _, s := range specs {
		if err := f.Add(s); err != nil {
			t.Fatal(err)
		}
	}
}

// await returns when ok says so of a service.
func (f *fixture) await(t *testing.T, name string, ok func(status.Process) bool) status.Process {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	for {
		f.mu.Lock()
		changed := f.changed
		f.mu.Unlock()
		ps := f.State()
		i := slices.IndexFunc(ps, func(p status.Process) bool { return p.Name == name })
		if ok(ps[i]) {
			return ps[i]
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("%s: %+v; log: %v", name, ps[i], f.log(t, name))
		}
	}
}

func (f *fixture) log(t *testing.T, name string) []string {
	t.Helper()
	ls, err := f.j.Lines(status.LogQuery{Service: name, Lines: journal.MaxLines})
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, l := range ls {
		out = append(out, l.Text)
	}
	return out
}

// starts is how often a service has told that it is up.
func (f *fixture) starts(t *testing.T, name string) (n int) {
	t.Helper()
	for _, l := range f.log(t, name) {
		if strings.HasPrefix(l, "up") {
			n++
		}
	}
	return n
}

func isReady(p status.Process) bool { return p.State == Ready }
