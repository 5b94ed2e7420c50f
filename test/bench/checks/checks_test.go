// Package checks holds the bench of health checks. It runs inside a virtual
// machine that counts instructions, because keepalived does not start where the
// kernel has no IPVS: the product's health process and keepalived's checker
// probe the same real servers, one after the other, and their processor time
// and memory are read from /proc.
package checks

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ballast/configs"
	"ballast/configs/model"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
	"ballast/test/bench/program/figure"
	"ballast/test/guest"
)

var (
	real   = flag.Int("real", 500, "real servers, each probed once a second")
	kinds  = flag.String("kinds", "TCP half-open HTTP reaction", "what is measured")
	during = flag.Duration("during", 20*time.Second, "how long processor time is counted")
)

// acceptorEnv makes this test be the real servers: a process of its own, so
// that its time is nobody's.
const acceptorEnv = "BENCH_ACCEPTOR"

func TestMain(m *testing.M) {
	if os.Getenv(acceptorEnv) != "" {
		accept()
		return
	}
	os.Exit(m.Run())
}

// accept answers on every address of the machine: port 80 closes at once, port
// 8080 answers HTTP.
func accept() {
	go serve(80, false)
	serve(8080, true)
}

func serve(port int, web bool) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: port}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	if err := unix.Listen(fd, 4096); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	b := make([]byte, 1024)
	for {
		c, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
		if err != nil {
			continue
		}
		if web {
			unix.Read(c, b)
			unix.Write(c, []byte("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"))
		}
		unix.Close(c)
	}
}

// text is a configuration with one kind of check.
func text(check string) string {
	var b strings.Builder
	b.WriteString("global_defs {\n    router_id BENCH\n}\nvirtual_server 10.100.0.1 80 {\n    delay_loop 1\n    lb_algo rr\n    lb_kind NAT\n    protocol TCP\n")
	for i := range *real {
		fmt.Fprintf(&b, "    real_server 127.1.%d.%d 80 {\n        %s\n    }\n", i/250, 1+i%250, check)
	}
	b.WriteString("}\n")
	return b.String()
}

const (
	tcp  = "TCP_CHECK {\n connect_timeout 3\n }"
	half = "TCP_CHECK {\n connect_timeout 3\n half_open\n }"
	web  = "HTTP_GET {\n url {\n path /\n status_code 200\n }\n connect_port 8080\n connect_timeout 3\n }"
)

// TestFigures prints processor time a check and memory.
func TestFigures(t *testing.T) {
	if !guest.Inside() {
		if testing.Short() {
			t.Skip("a virtual machine is not for short runs")
		}
		if _, err := exec.LookPath("keepalived"); err != nil {
			t.Skip("this machine has no keepalived to compare with")
		}
		bin := filepath.Join(t.TempDir(), "ballast")
		build := exec.Command("go", "build", "-trimpath", "-o", bin, "ballast/init")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		guest.Run(t, guest.Options{
			Package: "./test/bench/checks", Args: []string{"-test.run", "^TestFigures$", "-test.v", "-real", strconv.Itoa(*real), "-during", during.String(), "-kinds", *kinds},
			Binaries: []string{bin, "keepalived"}, Modules: []string{"ip_vs", "ip_vs_rr"},
			Memory: 512, Timeout: 20 * time.Minute, Extra: []string{"-icount", "shift=1,sleep=off"},
		})
		return
	}
	servers := acceptor(t)
	stop := sync.OnceFunc(func() { servers.Process.Kill(); servers.Wait() })
	defer stop()
	runtime.GC()
	wanted := strings.Fields(*kinds)
	for _, f := range []struct{ name, check string }{{"TCP", tcp}, {"half-open", half}, {"HTTP", web}} {
		if !slices.Contains(wanted, f.name) {
			continue
		}
		ours(t, f.name, text(f.check), func(pid int, dir ipc.Dir) {
			measure(t, "ballast", f.name, pid)
			probed(t, f.name, dir)
		})
		if f.name != "half-open" {
			theirs(t, text(f.check), func(pid int) { measure(t, "keepalived", f.name, pid) })
		}
	}
	if slices.Contains(wanted, "reaction") {
		stop()
		reactions(t)
	}
}

// acceptor starts the real servers.
func acceptor(t *testing.T) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	servers := exec.Command(self)
	servers.Env = append(os.Environ(), acceptorEnv+"=1")
	servers.Stderr = os.Stderr
	if err := servers.Start(); err != nil {
		t.Fatal(err)
	}
	return servers
}

// measure reads what a process used while checks ran at one a second and server.
func measure(t *testing.T, who, what string, pid int) {
	t.Helper()
	time.Sleep(5 * time.Second) // the first probes are spread over a second, then all is steady
	before := used(t, pid)
	time.Sleep(*during)
	cpu := used(t, pid) - before
	checks := float64(*real) * during.Seconds()
	fmt.Printf("CHECKS %s %s: %.1f us/check, RSS %s\n", who, what, float64(cpu.Nanoseconds())/1e3/checks, rss(pid))
	kib, _ := strconv.ParseFloat(strings.TrimSuffix(rss(pid), " kB"), 64)
	print(figure.Figure{Name: who + " " + what, Seconds: cpu.Seconds() / checks, MiB: kib / 1024})
}

func print(f figure.Figure) {
	b, _ := json.Marshal(f)
	fmt.Println(figure.Mark + string(b))
}

// used is user and system time (proc(5), fields 14 and 15, in hundredths).
func used(t *testing.T, pid int) time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	u, _ := strconv.Atoi(f[11])
	s, _ := strconv.Atoi(f[12])
	return time.Duration(u+s) * 10 * time.Millisecond
}

func rss(pid int) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for l := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(l, "VmRSS:"); ok {
			return strings.TrimSpace(v)
		}
	}
	return "?"
}

// ours is the health process alone, with this test in the place of conf.
func ours(t *testing.T, what, conf string, do func(pid int, dir ipc.Dir)) {
	t.Helper()
	dir := ipc.Dir(t.TempDir())
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	cfg, problems := configs.Load("bench.conf", []byte(conf), configs.Options{ConfigID: "bench"})
	for _, p := range problems {
		if p.Severity == model.Error {
			t.Fatal(p)
		}
	}
	env, err := ipc.NewEnv(dir, "conf", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	server := ipc.NewServer("conf")
	go server.Serve(ctx, env.Listener)
	server.Publish(status.Conf{Generation: 1, Config: cfg})
	if what == "reaction" { // the kernel's table is the figure
		_, stop := process(t, dir, "ipvs")
		defer stop()
	}
	pid, stop := process(t, dir, "health")
	defer stop()
	do(pid, dir)
}

// process starts a service as init does.
func process(t *testing.T, dir ipc.Dir, name string) (pid int, stop func()) {
	t.Helper()
	l, err := net.Listen("unix", dir.Path(name))
	if err != nil {
		t.Fatal(err)
	}
	lf, err := l.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	go io.Copy(io.Discard, r)
	cmd := exec.Command("/bin/ballast", "run", name)
	cmd.ExtraFiles = []*os.File{lf, w}
	cmd.Env = []string{"PATH=/bin:/sbin", ipc.EnvDir + "=" + string(dir)}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lf.Close()
	w.Close()
	return cmd.Process.Pid, func() { cmd.Process.Signal(syscall.SIGKILL); cmd.Wait(); r.Close(); l.Close() }
}

// probed: every real server was probed, and found well.
func probed(t *testing.T, what string, dir ipc.Dir) {
	t.Helper()
	var h status.Health
	if _, err := dir.Client("health").State(t.Context(), &h); err != nil {
		t.Fatal(err)
	}
	alive := 0
	for _, rs := range h.Servers[0].Real {
		if rs.Alive && rs.Checks[0].Known {
			alive++
		}
	}
	if alive != *real {
		t.Errorf("%s: %d of %d real servers were probed and found well: %+v", what, alive, *real, h.Servers[0].Real[0].Checks)
	}
}

// theirs is keepalived; its checker is the child of the process we start.
func theirs(t *testing.T, conf string, do func(pid int)) {
	t.Helper()
	dir := t.TempDir()
	file, pids := filepath.Join(dir, "keepalived.conf"), filepath.Join(dir, "pid")
	if err := os.WriteFile(file, []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/bin/keepalived", "--dont-fork", "--check", "--use-file", file, "--pid", pids, "--checkers_pid", pids+".checkers")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Signal(syscall.SIGTERM); cmd.Wait() }()
	for end := time.Now().Add(20 * time.Second); ; {
		b, err := os.ReadFile(pids + ".checkers")
		if pid, bad := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && bad == nil {
			do(pid)
			return
		}
		if time.Now().After(end) {
			t.Error("keepalived did not start its checker")
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}
