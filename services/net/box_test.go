package net

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ballast/configs/model"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
	"ballast/test/golden"
)

// inNamespace runs the rest of the test in network, mount and UTS namespaces of
// its own, by starting the test binary again: they vanish with that process. It
// returns false in the first process, which has nothing more to do then.
func inNamespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv("NET_TEST_IN") == t.Name() {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil { // shows the namespace of its mounter
			t.Fatal(err)
		}
		if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, ""); err != nil { // where ip keeps named namespaces
			t.Fatal(err)
		}
		return true
	}
	if os.Getuid() != 0 {
		t.Fatal("needs root: it makes network namespaces")
	}
	var out bytes.Buffer
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=300s", fmt.Sprintf("-update=%v", golden.Update()))
	cmd.Env = append(os.Environ(), "NET_TEST_IN="+t.Name())
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWUTS, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	if err != nil {
		t.Fatalf("in its namespace: %v\n%s", err, out.Bytes())
	}
	if testing.Verbose() {
		t.Logf("%s", out.Bytes())
	}
	return false
}

// sh runs a command line without a shell, and returns its output.
func sh(t *testing.T, line string) string {
	t.Helper()
	words := strings.Fields(line)
	out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return string(out)
}

// box is a net service that runs in the test's process, with a conf of its own.
type box struct {
	t    *testing.T
	dir  ipc.Dir
	conf *ipc.Server
	log  *lines
	gen  uint64
	stop func() // ends the service, not conf
}

// lines keeps what is logged.
type lines struct {
	mu  sync.Mutex
	all []string
	new chan struct{} // closed at the next line
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, strings.TrimSpace(string(b)))
	close(l.new)
	l.new = make(chan struct{})
	return len(b), nil
}

// await waits for a line that holds text, among those not yet taken by applied.
func (l *lines) await(t *testing.T, text string) {
	t.Helper()
	late := time.After(40 * time.Second)
	for {
		l.mu.Lock()
		found := slices.ContainsFunc(l.all, func(s string) bool { return strings.Contains(s, text) })
		next := l.new
		l.mu.Unlock()
		if found {
			return
		}
		select {
		case <-next:
		case <-late:
			t.Fatalf("never logged: %s", text)
		}
	}
}

// applied are the changes that the service made since the last call.
func (l *lines) applied() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for _, s := range l.all {
		if _, op, ok := strings.Cut(s, "apply: "); ok {
			out = append(out, strings.Trim(op, `"`))
		}
	}
	l.all = nil
	return out
}

func newBox(t *testing.T) *box {
	t.Helper()
	b := &box{t: t, dir: ipc.Dir(t.TempDir()), conf: ipc.NewServer("conf"), log: &lines{new: make(chan struct{})}}
	env, err := ipc.NewEnv(b.dir, "conf", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.conf.Serve(ctx, env.Listener) }()
	b.start()
	t.Cleanup(func() {
		b.stop()
		cancel()
		<-done
		if t.Failed() {
			b.log.mu.Lock()
			defer b.log.mu.Unlock()
			t.Logf("log:\n%s", strings.Join(b.log.all, "\n"))
		}
	})
	return b
}

func (b *box) start() {
	b.t.Helper()
	env, err := ipc.NewEnv(b.dir, "net", slog.New(slog.NewTextHandler(b.log, &slog.HandlerOptions{Level: slog.LevelDebug,
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}})))
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, env) }()
	b.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Errorf("Run: %v", err)
		}
	})
}

// commit hands out a configuration and waits until the service took it.
func (b *box) commit(c model.Config) status.Net {
	b.t.Helper()
	b.gen++
	b.conf.Publish(status.Conf{Generation: b.gen, Config: c})
	return b.await("the configuration is applied", func(n status.Net) bool { return n.Config == b.gen })
}

// await waits for a state that fits.
func (b *box) await(what string, fits func(status.Net) bool) status.Net {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 40*time.Second)
	defer cancel()
	var last, found status.Net
	ok := false
	ipc.Watch(ctx, b.dir.Client("net"), func(_ uint64, n status.Net) {
		last = n
		if !ok && fits(n) {
			found, ok = n, true
			cancel()
		}
	})
	if !ok {
		b.t.Fatalf("never seen: %s; last state %+v", what, last)
	}
	return found
}

// idle checks that nothing is left to do: a dump of our own gives no op.
func (b *box) idle(c model.Config) {
	b.t.Helper()
	k, err := OpenKernel()
	if err != nil {
		b.t.Fatal(err)
	}
	defer k.Close()
	f, err := k.Dump()
	if err != nil {
		b.t.Fatal(err)
	}
	want := Desired(c, f.Links, nil)
	f.Sysctls = readSysctls(want.Sysctls)
	if ops, _ := Diff(f, want); len(ops) > 0 {
		b.t.Errorf("a second pass would do: %v", ops)
	}
}

func linkNamed(n status.Net, name string) *status.Link {
	for i := range n.Links {
		if n.Links[i].Name == name {
			return &n.Links[i]
		}
	}
	return nil
}

// addrsOf prints the addresses of a link but for the kernel's, "10.0.0.1/24 static".
func addrsOf(n status.Net, name string) []string {
	var out []string
	if l := linkNamed(n, name); l != nil {
		for _, a := range l.Addresses {
			if a.Origin != "kernel" {
				out = append(out, a.Prefix.String()+" "+a.Origin)
			}
		}
	}
	slices.Sort(out)
	return out
}
