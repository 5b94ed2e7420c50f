package ipvs

import (
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"ballast/configs/model"
	"ballast/services/ipvs/ipvsnl"
	"ballast/test/guest"
)

var (
	kernelTests  = flag.String("kernel-tests", "^TestKernel", "which tests TestGuest runs in the virtual machine")
	instructions = flag.Bool("instructions", false, "its clock counts instructions: figures that a busy machine does not change")
)

// TestGuest runs every TestKernel… of this package in a virtual machine with
// the firmware's kernel. They print figures, but no figure fails them.
func TestGuest(t *testing.T) {
	if guest.Inside() {
		t.Skip("this test starts the virtual machine")
	}
	var extra []string
	if *instructions {
		extra = []string{"-icount", "shift=1,sleep=off"}
	}
	guest.Run(t, guest.Options{
		Package: "./services/ipvs", Args: []string{"-test.v", "-test.run", *kernelTests}, Binaries: []string{"ipvsadm"}, Memory: 1024, Extra: extra,
	})
}

func inside(t testing.TB) {
	t.Helper()
	if !guest.Inside() {
		t.Skip("runs in the virtual machine, started by TestGuest")
	}
}

// real world: a reconciler over the kernel.
func newKernelWorld(t testing.TB) (*reconciler, *netlinkKernel) {
	t.Helper()
	inside(t)
	ipvsadm(t, "-C")
	ipvsadm(t, "--set", "900", "120", "300")
	for _, d := range mustDump(t).Daemons {
		ipvsadm(t, "--stop-daemon", d.Role.String())
	}
	k := &netlinkKernel{}
	t.Cleanup(func() { k.Close() })
	return newReconciler(k, slog.New(slog.DiscardHandler), time.Now), k
}

func ipvsadm(t testing.TB, args ...string) string {
	t.Helper()
	out, err := exec.Command("ipvsadm", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("ipvsadm %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func mustDump(t testing.TB) *State {
	t.Helper()
	k := &netlinkKernel{}
	defer k.Close()
	s, err := k.Dump(nil, func() {})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// converge runs a pass and checks that it did what was wanted: the kernel holds
// the table, another pass does nothing, and neither does a new process.
func converge(t *testing.T, r *reconciler, c *model.Config) {
	t.Helper()
	if !r.pass() || r.problem() != "" {
		t.Fatalf("pass: %s", r.problem())
	}
	w := &world{k: &fakeKernel{state: *mustDump(t)}, r: r}
	checkHolds(t, w)
	ops := r.ops
	if r.pass(); r.ops != ops {
		t.Errorf("a second pass does %q", r.lastOps)
	}
	fresh := newReconciler(r.kernel, r.log, time.Now)
	fresh.roles = r.roles
	fresh.configure(r.config, c)
	fresh.pass()
	fresh.hear(health(r.config, c))
	fresh.pass()
	if fresh.ops != 0 {
		t.Errorf("a restarted process does %q", fresh.lastOps)
	}
}

func listen(t testing.TB, addr string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.WriteString(c, addr+"\n")
				io.Copy(c, c)
			}()
		}
	}()
	return l
}

// addresses puts addresses on a dummy interface of its own.
func addresses(t testing.TB, as ...string) {
	t.Helper()
	d := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: "dummy9"}}
	if err := netlink.LinkAdd(d); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { netlink.LinkDel(d) })
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range []netlink.Link{d, lo} {
		if err := netlink.LinkSetUp(l); err != nil {
			t.Fatal(err)
		}
	}
	for _, a := range as {
		addr, err := netlink.ParseAddr(a)
		if err == nil {
			addr.Flags = 0x02 // IFA_F_NODAD
			err = netlink.AddrAdd(d, addr)
		}
		if err != nil {
			t.Fatalf("%s: %v", a, err)
		}
	}
}

// allKinds is a configuration with everything that a service or destination
// can be.
func allKinds() *model.Config {
	c := &model.Config{}
	for fam, p := range []string{"10.0.0.", "2001:db8::"} {
		for i, proto := range []model.Protocol{model.TCP, model.UDP, model.SCTP} {
			id := model.ServiceID{Addr: ip(fmt.Sprintf("%s%d", p, i+1)), Port: 80, Protocol: proto}
			v := model.VirtualServer{Name: id.String(), Services: []model.ServiceID{id}, Scheduler: "wlc", Quorum: 1}
			for j, f := range []model.Forward{model.NAT, model.DR, model.TUN} {
				a := fmt.Sprintf("%s1%d", p, j)
				v.Real = append(v.Real, rs(a, j*70000, func(r *model.RealServer) {
					r.Forward, r.UThreshold, r.LThreshold = f, uint32(j*100000), uint32(j*1000)
					if f == model.NAT {
						r.Port = 8080
					}
				}))
			}
			for j, tn := range []model.Tunnel{{Type: "gue", Port: 6080}, {Type: "gue", Port: 6081, Csum: "csum"}, {Type: "gue", Port: 6082, Csum: "remcsum"},
				{Type: "gre"}, {Type: "gre", Csum: "csum"}} {
				v.Real = append(v.Real, rs(fmt.Sprintf("%s2%d", p, j), 1, func(r *model.RealServer) { r.Forward, r.Tunnel = model.TUN, tn }))
			}
			if fam == 1 { // of the other family
				v.Real = append(v.Real, rs("10.0.0.30", 1, func(r *model.RealServer) { r.Forward = model.TUN }))
			}
			c.VirtualServers = append(c.VirtualServers, v)
		}
		c.VirtualServers = append(c.VirtualServers, model.VirtualServer{Name: fmt.Sprint("mark", fam), Scheduler: "rr", Quorum: 1,
			Services: []model.ServiceID{{Mark: uint32(7 + fam), IPv6: fam == 1}, {Mark: 1<<31 + uint32(fam), IPv6: fam == 1}},
			Real:     []model.RealServer{rs(p+"40", 3, func(r *model.RealServer) { r.Port = 0 })}})
	}
	return c
}

func TestKernelEveryKind(t *testing.T) {
	r, _ := newKernelWorld(t)
	c := allKinds()
	r.configure(1, c)
	converge(t, r, c)
	if s := r.snapshot().status(); len(s.Services) != 10 {
		t.Errorf("%d services", len(s.Services))
	}
	t.Logf("\n%s", ipvsadm(t, "-Ln", "--tun-info"))
	// The same services with other destinations, by edits only.
	for i := range c.VirtualServers {
		for j := range c.VirtualServers[i].Real {
			r := &c.VirtualServers[i].Real[j]
			r.Weight++
			r.UThreshold += 2
			if r.Forward == model.DR {
				r.Forward = model.TUN
			}
		}
	}
	r.configure(2, c)
	converge(t, r, c)
	if strings.Contains(strings.Join(r.lastOps, "\n"), "delete") {
		t.Errorf("%q", r.lastOps)
	}
	// Away with all of it: nothing has connections.
	r.configure(3, config())
	for range 3 {
		r.pass()
	}
	if s := mustDump(t); len(s.Services) != 0 || r.problem() != "" {
		t.Errorf("%d services left, %s", len(s.Services), r.problem())
	}
}

func TestKernelSchedulersAndPersistence(t *testing.T) {
	r, _ := newKernelWorld(t)
	gen := uint64(0)
	for _, id := range []model.ServiceID{
		{Addr: ip("10.0.0.1"), Port: 5060, Protocol: model.UDP}, {Addr: ip("2001:db8::1"), Port: 5060, Protocol: model.UDP}, {Mark: 9},
	} {
		for _, s := range []string{"rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh sh-port", "sh sh-fallback sh-port", "mh mh-port", "mh mh-fallback mh-port hashed",
			"sed", "nq", "fo", "ovf", "twos", "rr flag-1 flag-2 flag-3"} {
			f := strings.Fields(s)
			for n, persist := range []time.Duration{0, 6 * time.Minute, time.Second} {
				v := model.VirtualServer{Name: "v", Services: []model.ServiceID{id}, Scheduler: f[0], SchedFlags: f[1:], Quorum: 1, Persistence: persist,
					Granularity: []int{0, 24, 1}[n], OnePacket: n == 0, PersistenceEngine: []string{"", "sip", ""}[n]}
				if id.Addr.Is6() {
					v.Real = []model.RealServer{rs("2001:db8::10", 1), rs("2001:db8::11", 1)}
				} else {
					v.Real = []model.RealServer{rs("10.0.1.1", 1), rs("10.0.1.2", 1)}
				}
				if id.Mark != 0 {
					v.PersistenceEngine = ""
				}
				c := config(v)
				gen++
				r.configure(gen, c)
				converge(t, r, c)
				if t.Failed() {
					t.Fatalf("%v %s persistence %s", id, s, persist)
				}
			}
		}
		// Leave the next one a clean table.
		gen++
		r.configure(gen, config())
		for range 3 {
			r.pass()
		}
	}
	if r.repairs != 0 {
		t.Errorf("%d repairs", r.repairs)
	}
}

func TestKernelMissingScheduler(t *testing.T) {
	r, _ := newKernelWorld(t)
	r.configure(1, config(vs("10.0.0.1", func(v *model.VirtualServer) { v.Scheduler = "nosuch" }, rs("10.0.1.1", 1)), vs("10.0.0.2", nil, rs("10.0.1.1", 1))))
	r.pass()
	if !strings.Contains(r.problem(), "load module ip_vs_nosuch") || strings.Contains(r.problem(), "destination") {
		t.Errorf("problem %q", r.problem())
	}
	if s := mustDump(t); len(s.Services) != 1 || len(s.Services[0].Dests) != 1 {
		t.Errorf("the good service is not there: %+v", s.Services)
	}
}

func TestKernelDaemonsAndTimeouts(t *testing.T) {
	r, _ := newKernelWorld(t)
	addresses(t, "10.99.1.1/24", "2001:db8:99::1/64")
	gen := uint64(0)
	step := func(d *model.SyncDaemon, master bool, tm model.Timeouts) {
		t.Helper()
		gen++
		c := config(vs("10.0.0.1", nil, rs("10.0.1.1", 1)))
		c.Global.SyncDaemon, c.Global.Timeouts = d, tm
		r.roles = Roles{Known: true, Master: map[string]bool{"VI_1": master}}
		r.configure(gen, c)
		if !r.pass() || r.problem() != "" {
			t.Fatalf("step %d: %s", gen, r.problem())
		}
		ops := r.ops
		if r.pass(); r.ops != ops {
			t.Errorf("step %d: a second pass does %q", gen, r.lastOps)
		}
	}
	roles := func() (out []string) {
		for _, d := range mustDump(t).Daemons {
			out = append(out, fmt.Sprintf("%s %s %d", d.Role, d.Interface, d.ID))
		}
		return out
	}
	d := model.SyncDaemon{Interface: "dummy9", Instance: "VI_1", ID: 51}
	step(&d, false, model.Timeouts{})
	if diff := cmp.Diff([]string{"backup dummy9 51"}, roles()); diff != "" {
		t.Error(diff)
	}
	step(&d, true, model.Timeouts{TCP: 100 * time.Second})
	if diff := cmp.Diff([]string{"master dummy9 51"}, roles()); diff != "" {
		t.Error(diff)
	}
	if got := mustDump(t).Timeouts; got != (ipvsnl.Timeouts{TCP: 100, TCPFin: 120, UDP: 300}) {
		t.Errorf("timeouts %+v", got)
	}
	step(&model.SyncDaemon{Interface: "dummy9", ID: 7, MaxLen: 100, Port: 9000, TTL: 4, Group: ip("224.1.2.3")}, true, model.Timeouts{})
	if diff := cmp.Diff([]string{"master dummy9 7", "backup dummy9 7"}, roles()); diff != "" {
		t.Error(diff)
	}
	if got := mustDump(t).Timeouts; got != (ipvsnl.Timeouts{TCP: 900, TCPFin: 120, UDP: 300}) {
		t.Errorf("timeouts %+v, want those found at start", got)
	}
	step(&model.SyncDaemon{Interface: "dummy9", MaxLen: 65507}, false, model.Timeouts{})
	step(&model.SyncDaemon{Interface: "dummy9", MaxLen: 65507, Group: ip("ff02::51")}, false, model.Timeouts{})
	step(nil, false, model.Timeouts{})
	if got := roles(); len(got) != 0 {
		t.Errorf("left over: %v", got)
	}

	// An interface that is not there yet.
	c := config()
	c.Global.SyncDaemon = &model.SyncDaemon{Interface: "nosuch0"}
	r.configure(100, c)
	r.pass()
	if !strings.Contains(r.problem(), "there is no interface nosuch0 (yet)") {
		t.Errorf("problem %q", r.problem())
	}
}

func TestKernelRepairsDrift(t *testing.T) {
	r, _ := newKernelWorld(t)
	c := config(vs("10.0.0.1", nil, rs("10.0.1.1", 1), rs("10.0.1.2", 1)), vs("10.0.0.2", nil, rs("10.0.1.1", 1)))
	r.configure(1, c)
	converge(t, r, c)
	for _, args := range [][]string{
		{"-D", "-t", "10.0.0.2:80"},
		{"-d", "-t", "10.0.0.1:80", "-r", "10.0.1.1"},
		{"-e", "-t", "10.0.0.1:80", "-r", "10.0.1.2", "-m", "-w", "77"},
		{"-E", "-t", "10.0.0.1:80", "-s", "rr", "-p", "10"},
		{"-A", "-u", "10.0.0.9:53", "-s", "rr"},
		{"-C"},
	} {
		ipvsadm(t, args...)
		before := r.repairs
		converge(t, r, c)
		if r.repairs == before {
			t.Errorf("%v: no repair counted: %q", args, r.lastOps)
		}
	}
	ipvsadm(t, "-a", "-t", "10.0.0.1:80", "-r", "10.7.7.7")
	r.pass()
	converge(t, r, c)
	if d := mustDump(t).Services[0].Dests; len(d) != 2 {
		t.Errorf("the stranger stays: %+v", d)
	}
}
