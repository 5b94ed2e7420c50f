package packets

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ballast/configs/model"
	"ballast/console"
	"ballast/services/capture"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

const inside = "PACKETS_TEST_IN"

// TestCapture runs in a network namespace of its own, in which lo is all there
// is: the session and what it captures are on one interface.
func TestCapture(t *testing.T) {
	if os.Getenv(inside) == "" {
		if os.Getuid() != 0 {
			t.Fatal("needs root: it makes a network namespace")
		}
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestCapture$", "-test.v", "-test.timeout=300s")
		cmd.Env = append(os.Environ(), inside+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("in its namespace: %v\n%s", err, out)
		}
		return
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b := newBox(t)
	traffic(t)

	// Everything on lo but the session that carries it, which would grow by itself.
	file := b.ssh("capture lo count 20")
	if got := b.tshark(file, "frame.interface_name", "udp.dstport", "tcp.port"); len(got) != 20 || slices.ContainsFunc(got, func(l string) bool { return l != "lo,9," }) {
		t.Errorf("lo but for the session: %q", got)
	}
	file = b.ssh("capture lo own 'tcp port " + b.port + "' count 5")
	if got := b.tshark(file, "tcp.port"); len(got) != 5 || slices.ContainsFunc(got, func(l string) bool { return !strings.Contains(l, b.port) }) {
		t.Errorf("the session itself: %q", got)
	}
	file = b.ssh("capture any udp and greater 60 for 1")
	if got := b.tshark(file, "udp.dstport"); !slices.Equal(got, []string{""}) {
		t.Errorf("packets that nobody sends: %q", got)
	}
	text := b.ssh("capture any 'udp port 9' text count 1")
	if !strings.Contains(text, " lo out IP 127.0.0.1:") || !strings.Contains(text, " > 127.0.0.1:9: UDP, length 8\n") {
		t.Errorf("as text: %q", text)
	}

	// A reader that ends early, as "head" or a Wireshark that is closed.
	cmd := exec.Command("ssh", append(b.args, "capture lo udp")...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 64)); err != nil {
		t.Fatal(err)
	}
	out.Close()
	cmd.Process.Signal(syscall.SIGINT)
	cmd.Wait()
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	ipc.Watch(ctx, b.dir.Client("capture"), func(_ uint64, s status.Capture) {
		if len(s.Running) == 0 {
			stop()
		}
	})
	if !errors.Is(ctx.Err(), context.Canceled) {
		t.Error("a capture goes on for nobody")
	}
}

// traffic sends a small datagram every 10 ms; somebody takes them, so that no
// error comes back.
func traffic(t *testing.T) {
	t.Helper()
	sink, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9})
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.DialUDP("udp4", nil, sink.LocalAddr().(*net.UDPAddr))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				c.Write([]byte("12345678"))
			case <-done:
				return
			}
		}
	})
	t.Cleanup(func() { close(done); wg.Wait(); c.Close(); sink.Close() })
}

// box is a console and the capture service.
type box struct {
	t    *testing.T
	dir  ipc.Dir
	port string
	args []string // of ssh
}

func newBox(t *testing.T) *box {
	t.Helper()
	dir := t.TempDir()
	b := &box{t: t, dir: ipc.Dir(dir)}
	key := filepath.Join(dir, "key")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v %s", err, out)
	}
	public, err := os.ReadFile(key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })
	env := func(name string) *ipc.Env {
		e, err := ipc.NewEnv(b.dir, name, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	conf := ipc.NewServer("conf")
	conf.Publish(status.Conf{Generation: 1, Config: model.Config{System: model.System{HostName: "lb1",
		Logins: []model.Login{{Name: "admin", Role: "admin", Keys: []string{strings.TrimSpace(string(public))}}}}}})
	confEnv, captureEnv, consoleEnv := env("conf"), env("capture"), env("console")
	wg.Go(func() { conf.Serve(ctx, confEnv.Listener) })
	wg.Go(func() { capture.Run(ctx, captureEnv) })
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	_, b.port, _ = net.SplitHostPort(l.Addr().String())
	l.Close()
	consoleEnv.Data = filepath.Join(dir, "data")
	if err := os.Mkdir(consoleEnv.Data, 0o700); err != nil {
		t.Fatal(err)
	}
	consoleEnv.Files = map[string]*os.File{"ssh": f}
	wg.Go(func() { console.Run(ctx, consoleEnv) })
	b.args = []string{"-F", "none", "-p", b.port, "-i", key, "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no",
		"-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "admin@127.0.0.1"}
	// The console knows its users once it has seen conf's state.
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		out, err := exec.Command("ssh", append(b.args, "show sessions")...).CombinedOutput()
		if err == nil {
			return b
		}
		if time.Now().After(end) {
			t.Fatalf("nobody can log in: %v: %s", err, out)
		}
	}
}

// ssh is the user's own.
func (b *box) ssh(command string) string {
	b.t.Helper()
	ctx, stop := context.WithTimeout(b.t.Context(), time.Minute)
	defer stop()
	var words strings.Builder
	cmd := exec.CommandContext(ctx, "ssh", append(b.args, command)...)
	cmd.Stderr = &words
	out, err := cmd.Output()
	if err != nil {
		b.t.Fatalf("%s: %v: %s", command, err, words.String())
	}
	if !strings.Contains(words.String(), "packets, 0 dropped") {
		b.t.Errorf("%s: beside the packets it said %q", command, words.String())
	}
	return string(out)
}

func (b *box) tshark(file string, fields ...string) []string {
	b.t.Helper()
	name := filepath.Join(b.t.TempDir(), "x.pcapng")
	if err := os.WriteFile(name, []byte(file), 0o644); err != nil {
		b.t.Fatal(err)
	}
	args := []string{"-r", name, "-T", "fields", "-E", "separator=,"}
	for _, f := range fields {
		args = append(args, "-e", f)
	}
	out, err := exec.Command("tshark", args...).Output()
	if err != nil {
		b.t.Fatalf("tshark: %v; make test-tools installs it", err)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}
