package ipvs

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ballast/configs/model"
	"ballast/services/ipvs/ipvsnl"
)

// Connections through IPVS to listeners of this machine: statistics, the
// connection table, and a drain.
func TestKernelTrafficAndDrain(t *testing.T) {
	r, _ := newKernelWorld(t)
	addresses(t, "10.99.0.1/32", "10.99.0.2/32", "10.99.0.3/32", "2001:db8:99::1/128", "2001:db8:99::2/128")
	listen(t, "10.99.0.2:8080")
	listen(t, "10.99.0.3:8080")
	listen(t, "[2001:db8:99::2]:8080")
	nat := func(r *model.RealServer) { r.Forward, r.Port = model.NAT, 8080 }
	for _, sched := range []string{"sh", "mh"} {
		t.Run(sched, func(t *testing.T) {
			both := config(
				vs("10.99.0.1", func(v *model.VirtualServer) { v.Scheduler, v.SchedFlags = sched, []string{sched + "-port"} }, rs("10.99.0.2", 1, nat), rs("10.99.0.3", 1, nat)),
				vs("2001:db8:99::1", nil, rs("2001:db8:99::2", 1, nat)))
			both.Global.Timeouts.TCPFin = time.Second
			r.configure(r.config+1, both)
			r.pass()
			dial := func(addr string) (net.Conn, string) {
				t.Helper()
				c, err := net.DialTimeout("tcp", addr, 5*time.Second)
				if err != nil {
					t.Fatalf("dial: %v\n%s", err, ipvsadm(t, "-Ln"))
				}
				// Closed by a reset, a connection leaves IPVS after 10 s, not 60.
				c.(*net.TCPConn).SetLinger(0)
				t.Cleanup(func() { c.Close() })
				b := make([]byte, 64)
				n, err := c.Read(b)
				if err != nil {
					t.Fatal(err)
				}
				return c, strings.TrimSpace(string(b[:n]))
			}
			c6, _ := dial("[2001:db8:99::1]:80")
			defer c6.Close()
			var held net.Conn
			for held == nil {
				c, who := dial("10.99.0.1:80")
				if who == "10.99.0.3:8080" {
					held = c
				} else {
					c.Close()
				}
			}
			// The kernel sums up its counters every 2 s.
			for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(100 * time.Millisecond) {
				r.pass()
				s := r.snapshot().status().Services[0].Stats
				if s.Conns > 0 && s.InPackets > 0 && s.OutPackets > 0 && s.InBytes > 0 && s.OutBytes > 0 && s.CPS+s.InPPS+s.InBPS > 0 {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("statistics %+v", s)
				}
			}
			answer, err := connections(t.Context(), ipvsnl.ConnTab, []byte(`{"limit":50,"dest":"10.99.0.3:0"}`))
			if text := fmt.Sprint(answer); err != nil || !strings.Contains(text, held.LocalAddr().String()) || !strings.Contains(text, "ESTABLISHED") {
				t.Errorf("connections: %v, %s", err, text)
			}
			answer, err = connections(t.Context(), ipvsnl.ConnTab, nil)
			if text := fmt.Sprint(answer); err != nil || !strings.Contains(text, c6.LocalAddr().String()) {
				t.Errorf("connections: %v, %s has no %s", err, text, c6.LocalAddr())
			}

			one := config(both.VirtualServers...)
			one.VirtualServers[0].Real = one.VirtualServers[0].Real[:1]
			one.Global = both.Global
			r.configure(r.config+1, one)
			r.pass()
			for range 60 { // weight 0 keeps its places in the tables of sh and mh
				c, who := dial("10.99.0.1:80")
				if who != "10.99.0.2:8080" {
					t.Fatalf("a new connection reached %s", who)
				}
				c.Close()
			}
			fmt.Fprint(held, "still there\n")
			b := make([]byte, 12)
			if _, err := io.ReadFull(held, b); err != nil || string(b) != "still there\n" {
				t.Errorf("the old connection: %q, %v", b, err)
			}
			if d := r.snapshot().status().Services[0].Dests; len(d) != 2 || !d[1].Draining {
				t.Errorf("destinations %+v", d)
			}
			held.Close()
			for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(200 * time.Millisecond) {
				r.pass()
				s := mustDump(t).find(model.ServiceID{Addr: ip("10.99.0.1"), Port: 80, Protocol: model.TCP})
				if len(s.Dests) == 1 && s.Flags&ipvsnl.FlagSched1 == 0 {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("the drain does not end: %+v\n%s", s, ipvsadm(t, "-Lnc"))
				}
			}
		})
	}
}

// large is n services with m destinations each.
func large(n, m int) *model.Config {
	c := &model.Config{}
	for i := range n {
		var real []model.RealServer
		for j := range m {
			real = append(real, rs(fmt.Sprintf("10.%d.%d.%d", 100+j, i/250, i%250+1), 1))
		}
		c.VirtualServers = append(c.VirtualServers, vs(fmt.Sprintf("10.50.%d.%d", i/250, i%250+1), nil, real...))
	}
	return c
}

// inNamespace runs f in a network namespace of its own, where IPVS is empty.
// In a used one the kernel keeps deleted destinations for two minutes and
// searches them at each addition.
func inNamespace(t testing.TB, f func()) {
	t.Helper()
	inside(t)
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with us
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			// Without the local routes of a loopback that is up, no address is
			// good enough for a destination (EINVAL).
			err = netlink.LinkSetUp(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: "lo", Index: 1}})
		}
		if err == nil {
			f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// restore has ipvsadm program what it saved.
func restore(t testing.TB, saved string) {
	cmd := exec.Command("ipvsadm", "--restore")
	cmd.Stdin = strings.NewReader(saved)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// TestKernelLarge programs 1,000 services with 10 destinations each, prints
// how long that takes, and how long ipvsadm --restore takes for the same.
func TestKernelLarge(t *testing.T) {
	inside(t)
	c := large(1000, 10)
	p := mustCompile(t, c)
	want := Desired(p, NoBeliefs(p), Roles{})
	timed := func(name string, f func()) time.Duration {
		start := time.Now()
		f()
		took := time.Since(start)
		t.Logf("%-44s %8.3f s", name, took.Seconds())
		return took
	}
	var saved string
	var ours, theirs []time.Duration
	for range 3 {
		inNamespace(t, func() {
			k := &netlinkKernel{}
			defer k.Close()
			ours = append(ours, timed("program 1,000 x 10, diff and netlink", func() {
				ops := Diff(&State{}, want, nil)
				reqs := make([]ipvsnl.Request, len(ops))
				for i := range ops {
					reqs[i] = ops[i].Request
				}
				errs, err := k.Do(reqs, func() {})
				if err := errors.Join(append(errs, err)...); err != nil {
					t.Errorf("%.300s", err)
				}
			}))
			timed("dump 1,000 x 10", func() { mustDump(t) })
			saved = ipvsadm(t, "-Sn")
		})
	}
	if n := strings.Count(saved, "\n"); n != 11000 {
		t.Errorf("ipvsadm saves %d lines", n)
	}
	for range 3 {
		inNamespace(t, func() {
			theirs = append(theirs, timed("ipvsadm --restore of the same", func() {
				restore(t, saved)
			}))
			k := &netlinkKernel{}
			defer k.Close()
			r := newReconciler(k, slog.New(slog.DiscardHandler), time.Now)
			timed("whole pass, nothing to do", func() {
				r.configure(1, c)
				if r.pass(); r.ops != 0 {
					t.Errorf("adopting ipvsadm's table did %d operations: %q", r.ops, r.lastOps[:1])
				}
			})
			r.hear(health(1, c))
			r.pass()
			timed("one real server goes down, event to kernel", func() {
				r.hear(health(1, c, "10.100.0.1"))
				r.event()
			})
			if d := mustDump(t).Services[0].Dests; len(d) != 9 {
				t.Errorf("%d destinations", len(d))
			}
			timed("state as JSON", func() {
				b, err := json.Marshal(r.snapshot().State())
				if err != nil {
					t.Error(err)
				}
				t.Logf("%d bytes", len(b))
			})
		})
	}
	o, i := slices.Sorted(slices.Values(ours))[1], slices.Sorted(slices.Values(theirs))[1]
	t.Logf("median of three: ours %.3f s, %s %.3f s, ratio %.1f", o.Seconds(),
		strings.TrimSpace(strings.SplitN(ipvsadm(t, "--version"), "2", 2)[0]), i.Seconds(), i.Seconds()/o.Seconds())
}
