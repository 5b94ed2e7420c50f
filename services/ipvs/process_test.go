package ipvs

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
	"ballast/services/ipc/verdicts"
)

// envServe makes the test binary be the service, as a process of its own.
const envServe = "BALLAST_IPVS_SERVE"

func TestMain(m *testing.M) {
	dir := os.Getenv(envServe)
	if dir == "" {
		os.Exit(m.Run())
	}
	env, err := ipc.NewEnv(ipc.Dir(dir), "ipvs", slog.New(ipc.NewLogHandler(os.Stderr)))
	if err == nil {
		err = Run(context.Background(), env)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// process starts the service as a process and returns it.
func process(t *testing.T, dir ipc.Dir) *exec.Cmd {
	t.Helper()
	os.Remove(dir.Path("ipvs"))
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), envServe+"="+string(dir))
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd
}

func rss(pid int) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	var out []string
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && (f[0] == "VmHWM:" || f[0] == "VmRSS:" || f[0] == "RssAnon:") {
			out = append(out, f[0]+f[1])
		}
	}
	return strings.Join(out, " ")
}

// The service is killed -9 under traffic and started again: no request fails,
// and the new process finds nothing to do.
func TestKernelKilledUnderTraffic(t *testing.T) {
	r, _ := newKernelWorld(t)
	addresses(t, "10.99.0.1/32", "10.99.0.2/32", "10.99.0.3/32")
	listen(t, "10.99.0.2:8080")
	listen(t, "10.99.0.3:8080")
	nat := func(r *model.RealServer) { r.Forward, r.Port = model.NAT, 8080 }
	c := config(vs("10.99.0.1", nil, rs("10.99.0.2", 1, nat), rs("10.99.0.3", 1, nat), rs("10.99.0.4", 1, nat)))
	dir := ipc.Dir(t.TempDir())
	conf, hs := neighbour(t, dir, "conf"), neighbour(t, dir, "health")
	conf.Publish(status.Conf{Generation: 1, Config: *c})
	hs.Publish(verdicts.NewBook().Enter(verdictsOf(health(1, c, "10.99.0.4"))))
	p := process(t, dir)
	await(t, dir, "programmed", func(s status.IPVS) bool { return len(s.Services) == 1 && len(s.Services[0].Dests) == 2 })

	var ok, failed atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 64)
		for ctx.Err() == nil {
			conn, err := net.DialTimeout("tcp", "10.99.0.1:80", 5*time.Second)
			if err == nil {
				conn.SetDeadline(time.Now().Add(5 * time.Second))
				conn.(*net.TCPConn).SetLinger(0)
				_, err = conn.Read(b)
				conn.Close()
			}
			if err != nil {
				failed.Add(1)
				t.Logf("request: %v", err)
			} else {
				ok.Add(1)
			}
		}
	}()
	for range 3 {
		p.Process.Kill()
		p.Wait()
		p = process(t, dir)
		s := await(t, dir, "adopted", func(s status.IPVS) bool { return s.Config == 1 && s.Passes >= 3 })
		if s.Ops != 0 || s.Error != "" {
			t.Errorf("the new process did %d operations: %q, %s", s.Ops, s.LastOps, s.Error)
		}
	}
	cancel()
	<-done
	if ok.Load() == 0 || failed.Load() != 0 {
		t.Errorf("%d requests, %d failed", ok.Load(), failed.Load())
	}
	t.Logf("%d requests, none failed; memory of a small service in kB: %s", ok.Load(), rss(p.Process.Pid))
	_ = r
}

// TestKernelMemory prints what the process needs for 1,000 services with 10
// destinations each.
func TestKernelMemory(t *testing.T) {
	newKernelWorld(t)
	dir := ipc.Dir(t.TempDir())
	conf, hs := neighbour(t, dir, "conf"), neighbour(t, dir, "health")
	c := large(1000, 10)
	conf.Publish(status.Conf{Generation: 1, Config: *c})
	hs.Publish(verdicts.NewBook().Enter(verdictsOf(health(1, c))))
	p := process(t, dir)
	start := time.Now()
	for { // not by await: reading the whole state each time would be measured too
		time.Sleep(200 * time.Millisecond)
		if s := mustDump(t); len(s.Services) == 1000 && len(s.Services[999].Dests) == 10 {
			break
		}
		if time.Since(start) > 3*time.Minute {
			t.Fatal("not programmed")
		}
	}
	t.Logf("programmed by a process of its own, from its start: at most %.1f s; memory in kB: %s", time.Since(start).Seconds(), rss(p.Process.Pid))
	time.Sleep(30 * time.Second)
	t.Logf("after 30 s: %s", rss(p.Process.Pid))
	await(t, dir, "state", func(s status.IPVS) bool { return s.Config == 1 && len(s.Services) == 1000 })
	t.Logf("after its state was read: %s", rss(p.Process.Pid))
}
