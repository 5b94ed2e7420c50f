package conf_test

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ballast/services/conf"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

const confEnv = "BALLAST_TEST_CONF"

// TestConfProcess is no test: it is conf as a process of its own, which the
// test below kills.
func TestConfProcess(t *testing.T) {
	dir, services, ok := strings.Cut(os.Getenv(confEnv), "|")
	if !ok {
		return
	}
	os.Remove(ipc.Dir(dir).Path("conf")) // of the one that was killed
	env, err := ipc.NewEnv(ipc.Dir(dir), "conf", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	env.Data = filepath.Join(dir, "data")
	err = conf.RunWith(context.Background(), env, conf.Options{Language: toy, Root: filepath.Join(dir, "root"), Services: strings.Split(services, ","),
		NICs: func() []string { return []string{"eth0"} }})
	t.Fatal(err)
}

// startProcess is start with conf in a process of its own. stop kills it.
func (b *box) startProcess() {
	b.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		b.t.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.run=^TestConfProcess$")
	cmd.Env = append(os.Environ(), confEnv+"="+string(b.dir)+"|"+strings.Join(b.opts.Services, ","))
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	b.stop = func() {
		cmd.Process.Kill()
		cmd.Wait()
		b.stop = nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	pid := 0
	ipc.Watch(ctx, b.dir.Client("conf"), func(_ uint64, s status.Conf) { pid = cmd.Process.Pid; cancel() })
	if pid == 0 {
		b.t.Fatal("conf does not start")
	}
}

// conf is killed while a commit is being applied, and while one waits to be
// confirmed: the first did not happen, the second goes on waiting, once the time
// is over what ran before runs again.
func TestConfIsKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the end of a time to confirm, which must be longer than a start of conf takes")
	}
	t.Parallel()
	b := newBox(t, "net", "vrrp")
	b.startProcess()
	b.mustCommit("vs one\n")

	svc := b.svcs["net"]
	applying := make(chan struct{}, 10)
	svc.set(func() {
		svc.mute = true
		svc.heard = func(c status.Conf) {
			if len(c.Config.VirtualServers) > 0 && c.Config.VirtualServers[0].Name == "two" {
				applying <- struct{}{}
			}
		}
	})
	done := make(chan error, 1)
	go func() { _, err := b.confirmed("vs two\n", time.Minute); done <- err }()
	<-applying
	b.stop()
	if <-done == nil {
		t.Error("the commit was reported as done")
	}
	svc.set(func() { svc.mute, svc.heard = false, nil })
	b.startProcess()
	s := b.state()
	serves(t, s, "one")
	if s.Pending != nil || !hasProblem(s.Problems, "the box stopped before every service had applied it") {
		t.Errorf("killed while it was applied: %+v", s)
	}

	r := b.mustConfirmed("vs three\n", 10*time.Second)
	b.stop()
	b.startProcess()
	s = b.state()
	if s.Pending == nil || s.Generation != r.Generation || s.Pending.Deadline.Sub(r.Pending.Deadline).Abs() > time.Second {
		t.Errorf("killed while it waited: %+v, want %+v", s.Pending, r.Pending)
	}
	serves(t, s, "three")
	s = b.until("roll back", back)
	serves(t, s, "one")
	if late := time.Since(r.Pending.Deadline); late < 0 || late > 20*time.Second {
		t.Errorf("rolled back %v after the deadline", late)
	}
	for _, svc := range b.svcs {
		for svc.last().Generation != s.Generation {
			<-svc.gens
		}
		serves(t, svc.last(), "one")
	}

	r = b.mustConfirmed("vs four\n", time.Minute)
	if err := b.call("confirm", status.Confirmation{}, nil); err != nil {
		t.Fatal(err)
	}
	b.stop() // what was answered is on the disk
	b.startProcess()
	if s := b.state(); s.Pending != nil || s.Generation != r.Generation {
		t.Errorf("killed after it was confirmed: %+v", s)
	}
}
