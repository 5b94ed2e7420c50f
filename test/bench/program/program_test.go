// Package program holds the part of the bench that runs inside a virtual
// machine: it puts thousands of virtual servers into the kernel with the
// product's own processes, with ipvsadm and with keepalived, and changes one
// weight among them.
package program

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ballast/configs"
	"ballast/configs/model"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
	"ballast/services/ipc/verdicts"
	"ballast/services/ipvs/ipvsnl"
	"ballast/test/bench/program/figure"
	"ballast/test/guest"
	"ballast/test/lab"
)

var (
	runs     = flag.Int("runs", 1, "how often each figure is taken")
	services = flag.Int("services", 1000, "virtual servers")
	servers  = flag.Int("servers", 10, "real servers of each")
	parts    = flag.String("parts", "apply commit restore keepalived", "what is measured")
)

// text is the configuration. weight is that of the last real server.
func text(weight int) string {
	var b strings.Builder
	b.WriteString("global_defs {\n    router_id BENCH\n}\n")
	for i := range *services {
		a := last(i)
		fmt.Fprintf(&b, "virtual_server %s 80 {\n    lb_algo rr\n    lb_kind DR\n    protocol TCP\n", a)
		for j := range *servers {
			w := 1
			if i == *services-1 && j == *servers-1 {
				w = weight
			}
			fmt.Fprintf(&b, "    real_server 10.%d.%d.%d 80 {\n        weight %d\n    }\n", 1+i/250, i%250, j+1, w)
		}
		b.WriteString("}\n")
	}
	return b.String()
}

// last is the address of virtual server i.
func last(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 100, byte(i / 250), byte(1 + i%250)}) }

// TestFigures prints them; the bench, which starts it inside the virtual
// machine, reads them. Outside it only tries whether they can be had.
func TestFigures(t *testing.T) {
	if !guest.Inside() {
		for _, p := range []string{"keepalived", "ipvsadm"} {
			if _, err := exec.LookPath(p); err != nil {
				t.Skipf("this machine has no %s to compare with", p)
			}
		}
		guest.Run(t, guest.Options{
			Package: "./test/bench/program", Args: []string{"-test.run", "^TestFigures$", "-test.v", "-services", "20"},
			Binaries: []string{filepath.Join("..", "..", "..", lab.DefaultImage, "ballast"), "keepalived", "ipvsadm"},
			Modules:  []string{"ip_vs", "ip_vs_rr"},
		})
		return
	}
	all := map[string]func(*testing.T){"apply": apply, "commit": commit, "restore": restore, "keepalived": keepalived}
	for range *runs {
		for _, part := range strings.Fields(*parts) {
			f := all[part]
			if f == nil {
				t.Fatalf("there is no part %q", part)
			}
			// The kernel keeps deleted destinations for two minutes and searches
			// them at each addition, so nothing is ever deleted: each has a network
			// namespace, and with it a table, of its own.
			inNamespace(t, f)
		}
	}
}

func print(name string, took time.Duration) {
	b, _ := json.Marshal(figure.Figure{Name: name, Seconds: took.Seconds()})
	fmt.Println(figure.Mark + string(b))
}

// inNamespace runs f, and what it starts, in a new network namespace.
func inNamespace(t *testing.T, f func(*testing.T)) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Error(err)
			return
		}
		// Without a table of local routes, which comes with the first interface
		// that is up, the kernel takes every address for a broadcast one.
		lo, err := netlink.LinkByName("lo")
		if err == nil {
			err = netlink.LinkSetUp(lo)
		}
		if err != nil {
			t.Error(err)
			return
		}
		f(t)
	}()
	<-done
	if t.Failed() {
		t.FailNow()
	}
}

// running are the processes of the box, by service.
var running = map[string]int{}

// clocks is the processor time that each of them has used so far, and this test
// under "bench".
func clocks() map[string]time.Duration {
	out := map[string]time.Duration{}
	read := func(name string, pid int) {
		var ts unix.Timespec
		// MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED) of posix-timers.h: to the nanosecond, where /proc counts ticks.
		if unix.ClockGettime(int32(^pid)<<3|2, &ts) == nil {
			out[name] = time.Duration(ts.Nano())
		}
	}
	for name, pid := range running {
		read(name, pid)
	}
	read("bench", os.Getpid())
	return out
}

// spent logs who used the processor since before.
func spent(t *testing.T, what string, before map[string]time.Duration) {
	t.Helper()
	var out []string
	now := clocks()
	for _, name := range slices.Sorted(maps.Keys(now)) {
		out = append(out, fmt.Sprintf("%s %.1f", name, (now[name]-before[name]).Seconds()*1000))
	}
	t.Logf("%s, ms of processor time: %s", what, strings.Join(out, ", "))
}

// process starts a service as init does: descriptor 3 its listener, 4 the pipe
// to init, the environment of the table of services.
func process(t *testing.T, dir ipc.Dir, data, name string) (stop func()) {
	t.Helper()
	l, err := net.Listen("unix", dir.Path(name))
	if err != nil {
		t.Error(err)
		return func() {}
	}
	lf, err := l.(*net.UnixListener).File()
	if err != nil {
		t.Error(err)
		return func() {}
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Error(err)
		return func() {}
	}
	go io.Copy(io.Discard, r)
	var words bytes.Buffer
	cmd := exec.Command("/bin/ballast", "run", name)
	cmd.ExtraFiles = []*os.File{lf, w}
	cmd.Stderr = &words
	cmd.Env = []string{"PATH=/bin:/sbin", ipc.EnvDir + "=" + string(dir), ipc.EnvData + "=" + data}
	if err := cmd.Start(); err != nil {
		t.Error(err)
		return func() {}
	}
	lf.Close()
	w.Close()
	running[name] = cmd.Process.Pid
	return func() {
		delete(running, name)
		cmd.Process.Signal(syscall.SIGKILL)
		cmd.Wait()
		r.Close()
		l.Close()
		t.Logf("%s used %v of processor time", name, cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime())
		if t.Failed() {
			t.Logf("%s:\n%.2000s", name, words.String())
		}
	}
}

// serve is this test in the place of a service.
func serve(ctx context.Context, dir ipc.Dir, name string) (*ipc.Server, error) {
	env, err := ipc.NewEnv(dir, name, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	s := ipc.NewServer(name)
	go s.Serve(ctx, env.Listener)
	return s, nil
}

// apply is the ipvs process alone, with this test in the place of conf and of a
// health that has nothing to check.
func apply(t *testing.T) {
	dir := ipc.Dir(t.TempDir())
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	conf, err := serve(ctx, dir, "conf")
	if err != nil {
		t.Error(err)
		return
	}
	health, err := serve(ctx, dir, "health")
	if err != nil {
		t.Error(err)
		return
	}
	conf.Publish(status.Conf{Generation: 1})
	health.Publish(verdicts.NewBook().Enter(&status.Health{Applied: status.Applied{Config: 2}}))
	defer process(t, dir, "", "ipvs")()
	if !applied(ctx, t, dir, 1) {
		return
	}
	cfg, problems := configs.Load("bench.conf", []byte(text(1)), configs.Options{ConfigID: "bench"})
	for _, p := range problems {
		if p.Severity == model.Error {
			t.Error(p)
			return
		}
	}
	start := time.Now()
	conf.Publish(status.Conf{Generation: 2, Config: cfg})
	if !becomes(t, "ipvs", 1) {
		return
	}
	print(figure.Apply, time.Since(start))
	if applied(ctx, t, dir, 2) {
		print(figure.Told, time.Since(start))
	}
	complete(t)
}

// applied waits until the ipvs process has applied a generation.
func applied(ctx context.Context, t *testing.T, dir ipc.Dir, n uint64) bool {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var got status.Applied
	ipc.Watch(ctx, dir.Client("ipvs"), func(_ uint64, a status.Applied) {
		if got = a; a.Config >= n {
			cancel()
		}
	})
	if got.Config < n || got.Error != "" {
		t.Errorf("ipvs: %.500s, want generation %d", fmt.Sprintf("%+v", got), n)
		return false
	}
	return true
}

// complete checks that the kernel of this namespace holds the whole table.
func complete(t *testing.T) {
	t.Helper()
	c, err := ipvsnl.Dial()
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	s, err := c.Services()
	if err != nil || len(s) != *services {
		t.Errorf("%d services: %v", len(s), err)
		return
	}
	for _, i := range []int{0, *services / 2, *services - 1} {
		if d, err := c.Dests(id(i)); err != nil || len(d) != *servers {
			t.Errorf("virtual server %d: %d destinations: %v", i, len(d), err)
		}
	}
}

func id(i int) model.ServiceID {
	return ipvsnl.Canonical(model.ServiceID{Addr: last(i), Port: 80, Protocol: model.TCP})
}

// commit is the product: all processes that a commit waits for.
func commit(t *testing.T) {
	dir := ipc.Dir(t.TempDir())
	data := t.TempDir()
	for _, name := range []string{"conf", "net", "vrrp", "ipvs", "health", "notify"} {
		own := filepath.Join(data, name)
		if err := os.MkdirAll(own, 0o755); err != nil {
			t.Error(err)
			return
		}
		defer process(t, dir, own, name)()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	call := func(inKernel, told string, weight int) bool {
		candidate := status.Candidate{Text: text(weight), Name: "bench.conf", Author: "bench"}
		before := clocks()
		start := time.Now()
		done := make(chan error, 1)
		go func() {
			var r status.CommitResult
			err := dir.Client("conf").Call(ctx, "commit", candidate, &r)
			if err == nil && len(r.Warnings) > 0 {
				err = fmt.Errorf("warnings: %v", r.Warnings)
			}
			done <- err
		}()
		if becomes(t, "commit", weight) {
			print(inKernel, time.Since(start))
			spent(t, inKernel, before)
		}
		if err := <-done; err != nil {
			t.Errorf("commit: %v", err)
			return false
		}
		print(told, time.Since(start))
		spent(t, told, before)
		return true
	}
	// The first commit finds every process at work.
	var r status.CommitResult
	if err := dir.Client("conf").Call(ctx, "commit", status.Candidate{Text: "global_defs {\n    router_id BENCH\n}\n", Author: "bench"}, &r); err != nil {
		t.Errorf("the first, empty, commit: %v", err)
		return
	}
	if call(figure.Commit, figure.CommitTold, 1) {
		complete(t)
		call(figure.Weight, figure.WeightTold, 2)
		order(ctx, t, dir)
	}
}

// order is a weight given by the operator, which answers when the kernel has it,
// and the same by ipvsadm.
func order(ctx context.Context, t *testing.T, dir ipc.Dir) {
	t.Helper()
	i := *services - 1
	real := netip.AddrFrom4([4]byte{10, byte(1 + i/250), byte(i % 250), byte(*servers)})
	before := clocks()
	start := time.Now()
	err := dir.Client("ipvs").Call(ctx, "order", status.ServerOrder{Addr: real, Port: 80, Action: status.OrderWeight, Weight: 3, By: "bench"}, nil)
	took := time.Since(start)
	if w := weight(t); err != nil || w != 3 {
		t.Errorf("order: weight %d in the kernel: %v", w, err)
		return
	}
	print(figure.Order, took)
	spent(t, figure.Order, before)
	start = time.Now()
	out, err := exec.Command("/bin/ipvsadm", "-e", "-t", last(i).String()+":80", "-r", real.String()+":80", "-g", "-w", "4").CombinedOutput()
	took = time.Since(start)
	if err != nil || weight(t) != 4 {
		t.Errorf("ipvsadm -e: %v: %s", err, out)
		return
	}
	print(figure.IPVSEdit, took)
}

// weight is that of the last real server in the kernel, -1 when it is not there.
func weight(t *testing.T) int {
	t.Helper()
	c, err := ipvsnl.Dial()
	if err != nil {
		return -1
	}
	defer c.Close()
	d, err := c.Dests(id(*services - 1))
	if err != nil || len(d) != *servers {
		return -1
	}
	for _, x := range d { // in the kernel's order
		if x.Addr.As4()[3] == byte(*servers) {
			return int(x.Weight)
		}
	}
	return -1
}

// restore is ipvsadm with the same table.
func restore(t *testing.T) {
	var b strings.Builder
	for i := range *services {
		fmt.Fprintf(&b, "-A -t %s:80 -s rr\n", last(i))
		for j := range *servers {
			fmt.Fprintf(&b, "-a -t %s:80 -r 10.%d.%d.%d:80 -g -w 1\n", last(i), 1+i/250, i%250, j+1)
		}
	}
	cmd := exec.Command("/bin/ipvsadm", "--restore")
	cmd.Stdin = strings.NewReader(b.String())
	start := time.Now()
	out, err := cmd.CombinedOutput()
	took := time.Since(start)
	if err != nil {
		t.Errorf("ipvsadm --restore: %v: %s", err, out)
		return
	}
	print(figure.IPVSAdm, took)
	if out, err := exec.Command("/bin/ipvsadm", "--version").Output(); err == nil {
		fmt.Println(figure.Version + string(bytes.TrimSpace(out)))
	}
	complete(t)
}

// poll is how often the table is looked at: one small question, so that the
// looking costs the looked at little.
const poll = 20 * time.Millisecond

// patience is how long it is looked for.
const patience = 3 * time.Minute

// keepalived is the daemon from its start to the last real server.
func keepalived(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "keepalived.conf")
	write := func(weight int) bool {
		if err := os.WriteFile(file, []byte(text(weight)), 0o644); err != nil {
			t.Error(err)
			return false
		}
		return true
	}
	if !write(1) {
		return
	}
	pid := filepath.Join(dir, "pid")
	cmd := exec.Command("/bin/keepalived", "--dont-fork", "--use-file", file, "--pid", pid,
		"--checkers_pid", pid+".checkers", "--vrrp_pid", pid+".vrrp")
	start := time.Now()
	if err := cmd.Start(); err != nil {
		t.Error(err)
		return
	}
	defer func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
	}()
	if !becomes(t, "keepalived", 1) {
		return
	}
	print(figure.Keepalived, time.Since(start))
	complete(t)
	time.Sleep(2 * time.Second) // its start is over
	if !write(2) {
		return
	}
	start = time.Now()
	cmd.Process.Signal(syscall.SIGHUP)
	if becomes(t, "keepalived", 2) {
		print(figure.Reload, time.Since(start))
	}
}

// becomes waits for the weight of the last real server in the kernel, which
// everybody here programs last.
func becomes(t *testing.T, who string, want int) bool {
	t.Helper()
	for range int(patience / poll) {
		if weight(t) == want {
			return true
		}
		time.Sleep(poll)
	}
	t.Errorf("%s: weight %d is not in the kernel after %v", who, want, patience)
	return false
}
