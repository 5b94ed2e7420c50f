package vrrp_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ballast/configs/model"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
	"ballast/test/locked"
)

// quick is what the tests between routers run: a backup waits for longer than a
// processor of a busy virtual machine stands still.
var quick = kind{"", 3, false, false, "", 500 * time.Millisecond}

// pair is two directors on one switch, a with the higher priority.
func pair(t *testing.T, k kind, edit func(*model.Instance)) (*lan, *director, *director) {
	t.Helper()
	l := newLAN(t)
	l.host("a", 1)
	l.host("b", 2)
	ca, cb := k.instance(1, 200), k.instance(2, 100)
	if edit != nil {
		edit(&ca)
		edit(&cb)
	}
	return l, l.director("a", config(ca)), l.director("b", config(cb))
}

func (d *director) awaitInstance(limit time.Duration, what string, ok func(status.VRRPInstance) bool) status.VRRPInstance {
	d.l.t.Helper()
	v := d.await(limit, what, func(v status.VRRP) bool { return len(v.Instances) > 0 && ok(v.Instances[0]) })
	return v.Instances[0]
}

func (d *director) call(verb string, in any) error {
	return d.dir.Client("vrrp").Call(context.Background(), verb, in, nil)
}

// oneHolder asserts that exactly one of the hosts has the address.
func (l *lan) movesTo(k kind, host, other string) {
	l.t.Helper()
	vip := k.vips()[0]
	l.until(k.down(), "the address moves to "+host, func() bool { return l.has(host, vip) && !l.has(other, vip) })
}

func TestResignAndResume(t *testing.T) {
	t.Parallel()
	l, a, b := pair(t, quick, nil)
	a.start()
	b.start()
	a.awaitState(quick.down(), status.VRRPMaster)
	b.awaitState(quick.down(), status.VRRPBackup)
	if err := a.call("resign", status.Resign{By: "test"}); err != nil {
		t.Fatal(err)
	}
	l.movesTo(quick, "b", "a")
	got := a.await(quick.down(), "resigned", func(v status.VRRP) bool { return v.Resigned })
	if got.ResignedBy != "test" || got.Instances[0].State != status.VRRPBackup || got.Instances[0].Reason != "resigned by the operator" {
		t.Errorf("%+v", got)
	}
	// It stays resigned over a crash of its own, and when the peer is gone.
	a.kill(syscall.SIGKILL)
	a.start()
	a.await(quick.down(), "still resigned", func(v status.VRRP) bool { return v.Resigned && len(v.Instances) == 1 })
	b.kill(syscall.SIGTERM)
	if l.has("a", quick.vips()[0]) {
		t.Error("a resigned director took over")
	}
	if err := a.call("resume", nil); err != nil {
		t.Fatal(err)
	}
	a.awaitState(quick.down(), status.VRRPMaster)
	if err := a.call("resign", status.Resign{Instance: "nobody"}); err == nil || !strings.Contains(err.Error(), `no instance "nobody"`) {
		t.Errorf("resign of nobody: %v", err)
	}
}

func TestNoPreempt(t *testing.T) {
	t.Parallel()
	l, a, b := pair(t, quick, func(c *model.Instance) { c.NoPreempt = true })
	b.start()
	b.awaitState(quick.down(), status.VRRPMaster)
	a.start()
	a.awaitInstance(quick.down(), "a hears b", func(i status.VRRPInstance) bool { return i.MasterPriority == 100 })
	time.Sleep(8 * quick.adv) // twice its master-down interval: nothing is to happen
	if l.has("a", quick.vips()[0]) {
		t.Error("a preempted")
	}
	b.kill(syscall.SIGKILL)
	l.run("b", "ip link set eth0 down")
	a.awaitState(quick.down(), status.VRRPMaster)
}

func TestPreemptDelay(t *testing.T) {
	t.Parallel()
	const delay = 5 * time.Second
	l, a, b := pair(t, quick, func(c *model.Instance) { c.PreemptDelay = delay })
	b.start()
	b.awaitState(quick.down(), status.VRRPMaster)
	start := time.Now()
	a.start()
	l.movesTo(quick, "a", "b")
	if took := time.Since(start); took < delay {
		t.Errorf("preempted after %s", took)
	}
}

// A router whose carrier goes is in fault at once and its peer takes over; when
// the carrier is back it listens, and preempts. With unicast it first tells
// the others its own address.
func TestLinkFlap(t *testing.T) {
	t.Parallel()
	for _, k := range []kind{quick, {"", 3, false, true, "", quick.adv}, {"", 3, true, false, "", quick.adv}} {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			l, a, b := pair(t, k, nil)
			a.start()
			b.start()
			l.captureOn("a", "eth0") // the switch's port forwards a moment later than the link is up
			a.awaitState(k.down(), status.VRRPMaster)
			b.awaitState(k.down(), status.VRRPBackup)
			for range 2 {
				l.run("sw", "ip link set p1 down")
				i := a.awaitState(k.down(), status.VRRPFault)
				if d := cmp.Diff([]string{"interface eth0 has no carrier"}, i.Faults[:1]); d != "" {
					t.Error(d)
				}
				l.movesTo(k, "b", "a")
				l.run("sw", "ip link set p1 up")
				l.movesTo(k, "a", "b")
				a.awaitState(k.down(), status.VRRPMaster)
				b.awaitInstance(k.down(), "b hears a", func(i status.VRRPInstance) bool { return i.State == status.VRRPBackup })
			}
			if k.unicast {
				l.caughtUp()
				own := l.framesOf(macA, func(f []byte) bool {
					return isARP(f) && f[21] == 1 && string(f[28:32]) == "\xc0\xa8\xc8\x01" && string(f[38:42]) == "\xc0\xa8\xc8\x01"
				})
				if len(own) < 2 {
					t.Errorf("%d gratuitous ARPs for its own address", len(own))
				}
			}
		})
	}
}

func TestInterfaceThatComesLateAndGoes(t *testing.T) {
	t.Parallel()
	l := newLAN(t)
	l.addNS("a")
	d := l.director("a", config(quick.instance(1, 100)))
	d.start()
	i := d.awaitState(quick.down(), status.VRRPFault)
	if d := cmp.Diff([]string{"interface eth0 is not there"}, i.Faults); d != "" {
		t.Error(d)
	}
	d.await(quick.down(), "it is told to conf", func(v status.VRRP) bool { return v.Error == "VI_1: interface eth0 is not there" })
	for n := range 2 {
		l.run("sw", "ip link add p1 type veth peer name eth0 address "+macA+" netns "+l.ns("a"))
		l.run("sw", "ip link set p1 master br0 up")
		l.run("a", "ip link set eth0 up")
		d.awaitInstance(quick.down(), "an address is missing", func(i status.VRRPInstance) bool {
			return len(i.Faults) > 0 && i.Faults[0] == "interface eth0 has no IPv4 address"
		})
		l.run("a", "ip addr add 192.168.200.1/24 dev eth0")
		d.awaitState(quick.down(), status.VRRPMaster)
		l.until(quick.down(), "the address is set", func() bool { return l.has("a", quick.vips()[0]) })
		if n == 0 {
			l.run("sw", "ip link del p1")
			d.awaitState(quick.down(), status.VRRPFault)
		}
	}
}

// What somebody takes away from a master is put back.
func TestVIPRemovedFromOutside(t *testing.T) {
	t.Parallel()
	l, a, _ := pair(t, quick, nil)
	a.start()
	a.awaitState(quick.down(), status.VRRPMaster)
	l.run("a", "ip addr del "+quick.vips()[0]+"/32 dev eth0")
	l.until(quick.down(), "the address is back", func() bool { return l.has("a", quick.vips()[0]) })
	if i := a.awaitState(quick.down(), status.VRRPMaster); i.Stats.BecomeMaster != 1 {
		t.Errorf("became master %d times", i.Stats.BecomeMaster)
	}
}

// Lists of addresses are compared; addresses move between instances, instances
// come and go, and what did not change does not notice.
func TestReload(t *testing.T) {
	t.Parallel()
	l, a, _ := pair(t, quick, nil)
	one := quick.instance(1, 200)
	a.start()
	a.awaitState(quick.down(), status.VRRPMaster)
	watch := l.watchAddrs("a")

	one.VIPs = append(one.VIPs[:1:1], model.Address{Prefix: netip.MustParsePrefix("192.168.200.18/24"), Label: "eth0:v"})
	a.commit(config(one))
	l.until(quick.down(), "18 comes, 17 goes", func() bool {
		have := l.addrs("a")
		return have[netip.MustParseAddr("192.168.200.18")] && !have[netip.MustParseAddr("192.168.200.17")]
	})
	two := quick.instance(1, 200)
	two.Name, two.VRID, two.VIPs = "VI_2", 52, one.VIPs[1:]
	one.VIPs = one.VIPs[:1]
	a.commit(config(one, two))
	a.awaitState(quick.down(), status.VRRPMaster)
	l.until(quick.down(), "18 is VI_2's", func() bool { return l.has("a", "192.168.200.18") })
	if out := l.run("a", "ip -o addr show dev eth0"); !strings.Contains(out, "eth0:v") {
		t.Errorf("label is missing:\n%s", out)
	}
	a.commit(config(two))
	l.until(quick.down(), "16 goes", func() bool { return !l.has("a", "192.168.200.16") })
	v := a.await(quick.down(), "one instance", func(v status.VRRP) bool { return v.Config == a.gen && len(v.Instances) == 1 })
	if n := v.Instances[0].Stats.BecomeMaster; n != 1 {
		t.Errorf("VI_2 became master %d times", n)
	}
	if n := strings.Count(watch(), "Deleted"); n > 3 {
		t.Errorf("%d addresses were removed", n)
	}
}

func TestVirtualRoutes(t *testing.T) {
	t.Parallel()
	l, a, _ := pair(t, quick, func(c *model.Instance) {
		c.VirtualRoutes = []model.Route{
			{Dst: netip.MustParsePrefix("10.9.0.0/16"), Via: netip.MustParseAddr("192.168.200.2"), Interface: "eth0", Src: netip.MustParseAddr("192.168.200.16")},
			{Type: "blackhole", Dst: netip.MustParsePrefix("10.8.0.0/16")},
		}
	})
	a.start()
	a.awaitState(quick.down(), status.VRRPMaster)
	got := l.run("a", "ip route show proto 18")
	want := "blackhole 10.8.0.0/16 \n10.9.0.0/16 via 192.168.200.2 dev eth0 src 192.168.200.16 \n"
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	a.kill(syscall.SIGTERM)
	if got := l.run("a", "ip route show proto 18"); got != "" {
		t.Errorf("routes are left: %s", got)
	}
}

// A director that was stopped longer than the master-down interval must not
// believe that everybody else was dead meanwhile.
func TestStoppedProcessListensFirst(t *testing.T) {
	t.Parallel()
	_, a, b := pair(t, quick, nil)
	a.start()
	a.awaitState(quick.down(), status.VRRPMaster)
	b.start() // not before: who starts a moment earlier may be master for a moment
	b.awaitInstance(quick.down(), "b hears a", func(i status.VRRPInstance) bool { return i.MasterPriority == 200 })
	pid := b.cmd.Process.Pid
	syscall.Kill(pid, syscall.SIGSTOP)
	time.Sleep(10 * quick.adv)
	syscall.Kill(pid, syscall.SIGCONT)
	i := b.awaitInstance(quick.down(), "the lateness is counted", func(i status.VRRPInstance) bool { return i.Stats.LateTimers > 0 })
	if i.Stats.BecomeMaster != 0 || i.State != status.VRRPBackup || i.Stats.MaxLate < 5*quick.adv {
		t.Errorf("%+v", i)
	}
}

func TestPrepareRefuses(t *testing.T) {
	t.Parallel()
	_, a, _ := pair(t, quick, nil)
	a.start()
	a.awaitState(quick.down(), status.VRRPMaster)
	good := quick.instance(1, 100)
	if err := a.call("prepare", status.Prepare{Config: config(good)}); err != nil {
		t.Errorf("a good one: %v", err)
	}
	bad, twin := good, good
	bad.Interface, twin.Name = "eht0", "VI_2"
	err := a.call("prepare", status.Prepare{Config: config(bad, good, twin)})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{
		"vrrp_instance VI_1: interface eht0 does not exist; there are: eth0.",
		"vrrp_instance VI_2: virtual_router_id 51 on eth0 is that of vrrp_instance VI_1",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in:\n%v", want, err)
		}
	}
	dyn := config(bad)
	dyn.Global.DynamicInterfaces = true
	if err := a.call("prepare", status.Prepare{Config: dyn}); err != nil {
		t.Errorf("with dynamic_interfaces: %v", err)
	}
}

// A thousand addresses move, and advertisements go on meanwhile.
func TestManyVIPs(t *testing.T) {
	t.Parallel()
	l, a, b := pair(t, quick, func(c *model.Instance) {
		for i := range 1000 {
			a := netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})
			c.ExcludedVIPs = append(c.ExcludedVIPs, model.Address{Prefix: netip.PrefixFrom(a, 32)})
		}
	})
	a.start()
	a.awaitState(quick.down(), status.VRRPMaster)
	b.start()
	b.awaitInstance(quick.down(), "b hears a", func(i status.VRRPInstance) bool { return i.MasterPriority == 200 })
	l.until(quick.down(), "all are set", func() bool { return len(l.addrs("a")) > 1000 })
	start := time.Now()
	a.kill(syscall.SIGTERM)
	l.until(quick.down(), "all have moved", func() bool { return len(l.addrs("b")) > 1000 && len(l.addrs("a")) < 10 })
	t.Logf("1002 addresses moved in %s", time.Since(start))
	i := b.awaitState(30*time.Second, status.VRRPMaster)
	b1, _ := json.Marshal(i.Stats)
	t.Logf("%s", b1)
}

// All 255 virtual routers of a segment between two directors: each has one
// master, and none of them moves.
func TestEveryVRID(t *testing.T) {
	k := quick
	l, a, b := pair(t, k, nil)
	all := func(n int, priority uint8) model.Config {
		var c model.Config
		for id := 1; id <= 255; id++ {
			i := k.instance(n, priority)
			i.Name, i.VRID, i.GARPMasterDelay = fmt.Sprintf("VI_%d", id), uint8(id), 0
			i.VIPs = []model.Address{{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 2, 0, byte(id)}), 32)}}
			c.Instances = append(c.Instances, i)
		}
		return c
	}
	a.commit(all(1, 200))
	b.commit(all(2, 100))
	a.start()
	a.awaitState(k.down(), status.VRRPMaster)
	b.start()
	b.await(k.down(), "b hears all masters", func(v status.VRRP) bool {
		for _, i := range v.Instances {
			if i.MasterPriority != 200 {
				return false
			}
		}
		return len(v.Instances) == 255
	})
	before := cpu(t, a)
	v := b.await(60*time.Second, "ten intervals more", func(v status.VRRP) bool {
		return v.Instances[254].LastAdvert.Sub(v.Instances[0].Since) > 10*k.adv
	})
	for _, i := range v.Instances {
		if i.State != status.VRRPBackup || i.Stats.BecomeMaster != 0 {
			t.Errorf("%s of b: %s, became master %d times: %s", i.Name, i.State, i.Stats.BecomeMaster, i.Reason)
		}
	}
	t.Logf("master of 255: %s of CPU since, %s", cpu(t, a)-before, strings.ReplaceAll(rss(a), "\n", " "))
	t.Logf("backup of 255: late timers %d, at most %s late", v.Instances[0].Stats.LateTimers, v.Instances[0].Stats.MaxLate)
	l.until(k.down(), "a holds all", func() bool { return len(l.addrs("a")) >= 255 })
}

// cpu is what a director's process has used.
func cpu(t *testing.T, d *director) time.Duration {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", d.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	var user, system int
	fmt.Sscan(f[11], &user)
	fmt.Sscan(f[12], &system)
	return time.Duration(user+system) * 10 * time.Millisecond
}

// Without conf and notify it waits, answers, and ends when it is told to.
func TestWaitsForItsConfiguration(t *testing.T) {
	t.Parallel()
	l := newLAN(t)
	l.host("a", 1)
	d := &director{l: l, host: "a", dir: ipc.Dir(t.TempDir()), out: &locked.Buffer{}}
	t.Cleanup(func() { d.kill(syscall.SIGKILL) })
	d.start()
	d.await(quick.down(), "a state", func(v status.VRRP) bool { return v.Config == 0 })
	cmd := d.cmd
	cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, d.out.String())
	}
}
