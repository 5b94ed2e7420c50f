package ipvs

import (
	"bufio"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc/status"
)

// held is a connection through IPVS that is kept open.
type held struct {
	net.Conn
	r   *bufio.Reader
	who string // the real server that answered
}

func dialHeld(t *testing.T, addr string) (*held, error) {
	c, err := net.DialTimeout("tcp", addr, 3*time.Second)
	if err != nil {
		return nil, err
	}
	c.(*net.TCPConn).SetLinger(0)
	t.Cleanup(func() { c.Close() })
	h := &held{Conn: c, r: bufio.NewReader(c)}
	c.SetDeadline(time.Now().Add(3 * time.Second))
	h.who, err = h.r.ReadString('\n')
	h.who = strings.TrimSpace(h.who)
	return h, err
}

// works sends a line through the connection and back.
func (h *held) works() error {
	h.SetDeadline(time.Now().Add(3 * time.Second))
	if _, err := fmt.Fprintln(h, "still there"); err != nil {
		return err
	}
	s, err := h.r.ReadString('\n')
	if err == nil && s != "still there\n" {
		err = fmt.Errorf("answer %q", s)
	}
	return err
}

func natTo8080(r *model.RealServer) { r.Forward, r.Port, r.ConfPort = model.NAT, 8080, 8080 }

// Orders and foreign changes under a live connection.
func TestKernelOrdersAndSweep(t *testing.T) {
	r, k := newKernelWorld(t)
	addresses(t, "10.99.0.1/32", "10.99.0.2/32", "10.99.0.3/32")
	listen(t, "10.99.0.2:8080")
	listen(t, "10.99.0.3:8080")
	c := config(vs("10.99.0.1", nil, rs("10.99.0.2", 1, natTo8080), rs("10.99.0.3", 1, natTo8080)))
	r.configure(1, c)
	converge(t, r, c)
	r.hear(health(1, c))
	r.event()
	both := map[string]*held{}
	for range 10 {
		h, err := dialHeld(t, "10.99.0.1:80")
		if err != nil {
			t.Fatal(err)
		}
		both[h.who] = h
	}
	if len(both) != 2 {
		t.Fatalf("%d real servers answer", len(both))
	}
	order := func(action string) {
		t.Helper()
		start := time.Now()
		d, err := r.order(status.ServerOrder{Addr: ip("10.99.0.3"), Port: 8080, Action: action, Weight: 5})
		if err != nil {
			t.Fatalf("%s: %v", action, err)
		}
		t.Logf("%s: %v from verb to kernel: %+v", action, time.Since(start), d)
	}
	expect := func(what string, want ...string) {
		t.Helper()
		got := map[string]bool{}
		for range 12 {
			h, err := dialHeld(t, "10.99.0.1:80")
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			got[h.who] = true
			h.Close()
		}
		if len(got) != len(want) {
			t.Errorf("%s: %v answer, want %v", what, got, want)
		}
		for _, w := range want {
			if !got[w] {
				t.Errorf("%s: %s does not answer", what, w)
			}
		}
	}
	order(status.OrderDrain)
	expect("drained", "10.99.0.2:8080")
	if err := both["10.99.0.3:8080"].works(); err != nil {
		t.Errorf("the connection of the drained server: %v", err)
	}
	order(status.OrderWeight)
	expect("weighed", "10.99.0.2:8080", "10.99.0.3:8080")
	order(status.OrderDrain)

	// Somebody else is at it: it comes back, and the connections stay.
	for _, args := range [][]string{
		{"-e", "-t", "10.99.0.1:80", "-r", "10.99.0.3:8080", "-m", "-w", "77"},
		{"-d", "-t", "10.99.0.1:80", "-r", "10.99.0.2:8080"},
		{"-E", "-t", "10.99.0.1:80", "-s", "rr"},
		{"-a", "-t", "10.99.0.1:80", "-r", "10.99.0.9:8080", "-m"},
		{"--set", "77", "0", "0"},
	} {
		ipvsadm(t, args...)
		before := r.repairs
		if err := r.sweep(k); err != nil {
			t.Fatal(err)
		}
		if n := r.repairs - before; n != 1 {
			t.Errorf("%v: %d repairs: %q", args, n, r.repaired)
		}
		for who, h := range both {
			if err := h.works(); err != nil {
				t.Errorf("%v: the connection to %s: %v", args, who, err)
			}
		}
	}
	r.sweep(k)
	r.sweep(k)
	expect("repaired", "10.99.0.2:8080")

	order(status.OrderDisable)
	// With expire_nodest_conn, which net sets, this ends at once; without, the
	// packets of the connection go nowhere.
	if err := both["10.99.0.3:8080"].works(); err == nil {
		t.Error("the connection of the disabled server goes on")
	} else {
		t.Logf("the connection of the disabled server: %v", err)
	}
	order(status.OrderEnable)
	expect("enabled", "10.99.0.2:8080", "10.99.0.3:8080")
	if err := both["10.99.0.2:8080"].works(); err != nil {
		t.Errorf("the other connection: %v", err)
	}
}

// A random series of commits never drops a connection, nor refuses one.
func TestKernelCommitsUnderTraffic(t *testing.T) {
	r, k := newKernelWorld(t)
	addresses(t, "10.99.0.1/32", "10.99.0.2/32", "10.99.0.3/32", "10.99.0.4/32")
	for i := 2; i <= 4; i++ {
		listen(t, fmt.Sprintf("10.99.0.%d:8080", i))
	}
	seed := uint64(time.Now().UnixNano())
	rnd := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	var open []*held
	commits, refused := 60, 0
	for n := range commits {
		c := config(vs("10.99.0.1", func(v *model.VirtualServer) {
			v.Scheduler = []string{"rr", "wrr", "lc", "wlc", "sh", "mh", "sed", "nq"}[rnd.IntN(8)]
			if v.Scheduler == "sh" || v.Scheduler == "mh" {
				v.SchedFlags = []string{v.Scheduler + "-port", v.Scheduler + "-fallback"}[:1+rnd.IntN(2)]
			}
			if rnd.IntN(3) == 0 {
				v.Persistence = time.Duration(1+rnd.IntN(100)) * time.Second
			}
		}))
		v := &c.VirtualServers[0]
		for i := 2; i <= 4; i++ {
			if rnd.IntN(3) > 0 || i == 2+n%3 {
				v.Real = append(v.Real, rs(fmt.Sprintf("10.99.0.%d", i), 1+rnd.IntN(3), natTo8080))
			}
		}
		r.configure(uint64(n+1), c)
		r.event()
		if n == 0 {
			r.hear(health(1, c))
			r.event()
		}
		if r.problem() != "" {
			t.Fatalf("commit %d: %s", n, r.problem())
		}
		for range 3 {
			h, err := dialHeld(t, "10.99.0.1:80")
			if err != nil {
				refused++
				t.Errorf("commit %d: %v\n%s", n, err, ipvsadm(t, "-Ln"))
				continue
			}
			if open = append(open, h); len(open) > 30 {
				open[0].Close()
				open = open[1:]
			}
		}
		for _, h := range open {
			if err := h.works(); err != nil {
				t.Fatalf("commit %d: a connection to %s ends: %v\n%s\n%q", n, h.who, err, ipvsadm(t, "-Ln"), r.lastOps)
			}
		}
		if err := r.sweep(k); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d commits under 30 connections: none ended, %d refused; %d operations, %d repairs", commits, refused, r.ops, r.repairs)
	if r.repairs != 0 {
		t.Errorf("%d repairs: %q", r.repairs, r.repaired)
	}
}

// TestKernelTable prints what 10,000 services with 2 destinations cost, beside
// ipvsadm --restore of the same, and 500 services of mh with 10.
func TestKernelTable(t *testing.T) {
	inside(t)
	timed := func(name string, f func()) {
		start := time.Now()
		f()
		t.Logf("%-52s %8.1f ms", name, time.Since(start).Seconds()*1000)
	}
	c := large(10000, 2)
	var saved string
	inNamespace(t, func() {
		k := &netlinkKernel{}
		defer k.Close()
		r := newReconciler(k, slog.New(slog.DiscardHandler), time.Now)
		timed("10,000 x 2: plan", func() { r.configure(1, c) })
		timed("10,000 x 2: into the kernel", func() { r.pass() })
		if r.problem() != "" || r.ops != 30000 {
			t.Errorf("%d operations, %.300s", r.ops, r.problem())
		}
		r.hear(health(1, c))
		timed("one weight of it, plan to kernel", func() {
			r.follow(2, r.plan.Next(c, reweighed(listed(c), 4711, 7)))
			r.event()
		})
		timed("one order", func() {
			if _, err := r.order(status.ServerOrder{Addr: ip("10.100.3.4"), Action: status.OrderDrain}); err != nil {
				t.Error(err)
			}
		})
		if r.ops != 30002 {
			t.Errorf("%d operations", r.ops)
		}
		timed("a sweep of it", func() {
			if err := r.sweep(k); err != nil || r.repairs != 0 {
				t.Errorf("%d repairs, %v", r.repairs, err)
			}
		})
		if d := r.have.Services[4711].Dests; d[0].Weight != 7 {
			t.Errorf("%+v", d)
		}
		saved = ipvsadm(t, "-Sn")
	})
	inNamespace(t, func() { timed("ipvsadm --restore of the same", func() { restore(t, saved) }) })
	m := large(500, 10)
	for i := range m.VirtualServers {
		m.VirtualServers[i].Scheduler = "mh"
	}
	inNamespace(t, func() {
		k := &netlinkKernel{}
		defer k.Close()
		r := newReconciler(k, slog.New(slog.DiscardHandler), time.Now)
		r.configure(1, m)
		timed("500 x 10 with mh", func() { r.pass() })
		if err := r.sweep(k); err != nil || r.repairs != 0 || r.problem() != "" {
			t.Errorf("%d repairs, %v, %s", r.repairs, err, r.problem())
		}
		saved = ipvsadm(t, "-Sn")
	})
	inNamespace(t, func() { timed("ipvsadm --restore of the same", func() { restore(t, saved) }) })
}
