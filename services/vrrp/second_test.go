package vrrp_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc/status"
)

// second gives a host eth1 with the address 10.1.1.1/24; its other end is p in
// the switch's namespace, on no bridge.
func (l *lan) second(host string) {
	l.t.Helper()
	l.run("sw", "ip link add second type veth peer name eth1 address "+macSecond+" netns "+l.ns(host))
	l.run("sw", "ip link set second up")
	l.run(host, "ip link set eth1 addrgenmode none")
	l.run(host, "ip addr add 10.1.1.1/24 dev eth1")
	l.run(host, "ip link set eth1 up")
}

const macSecond = "02:00:00:00:01:01"

// An address line that changes its length, its label or its broadcast address takes effect
// at the commit, and the old form does not stay beside it.
func TestReloadOfAddressLines(t *testing.T) {
	t.Parallel()
	l, a, _ := pair(t, quick, nil)
	one := quick.instance(1, 200)
	six := netip.MustParseAddr("fd00::1:5")
	one.ExcludedVIPs = []model.Address{{Prefix: netip.PrefixFrom(six, 128)}}
	a.conf.Publish(status.Conf{Generation: a.gen, Config: config(one)})
	a.start()
	a.awaitState(quick.down(), status.VRRPMaster)
	shown := func() string { return l.run("a", "ip -o addr show dev eth0") }
	has := func(want ...string) func() bool {
		return func() bool {
			out := shown()
			for _, w := range want {
				not := strings.HasPrefix(w, "!")
				if strings.Contains(out, strings.TrimPrefix(w, "!")) == not {
					return false
				}
			}
			return true
		}
	}
	l.until(quick.down(), "the addresses come", has("192.168.200.16/32", "fd00::1:5/128"))
	for _, step := range []struct {
		what string
		edit func()
		want []string
	}{
		{"lengths", func() {
			one.VIPs[0].Prefix = netip.MustParsePrefix("192.168.200.16/24")
			one.ExcludedVIPs[0].Prefix = netip.PrefixFrom(six, 64)
		}, []string{"192.168.200.16/24", "!192.168.200.16/32", "fd00::1:5/64", "!fd00::1:5/128"}},
		{"label", func() { one.VIPs[0].Label = "eth0:vip" }, []string{"192.168.200.16/24", "eth0:vip"}},
		{"broadcast", func() { one.VIPs[0].Broadcast = netip.MustParseAddr("192.168.200.255") },
			[]string{"192.168.200.16/24 brd 192.168.200.255"}},
	} {
		step.edit()
		one.VIPs = append([]model.Address(nil), one.VIPs...)
		one.ExcludedVIPs = append([]model.Address(nil), one.ExcludedVIPs...)
		a.commit(config(one))
		a.await(quick.down(), "applied", func(v status.VRRP) bool { return v.Config == a.gen })
		l.until(quick.down(), step.what+" of the addresses:\n"+shown(), has(step.want...))
	}
	if i := a.awaitState(quick.down(), status.VRRPMaster); i.Stats.BecomeMaster != 1 {
		t.Errorf("became master %d times", i.Stats.BecomeMaster)
	}
}

// A link that carries virtual addresses and routes, but is not tracked, goes
// away and comes back: the routes, which the kernel dropped, are set again, and
// the neighbours on whatever switch is there now learn the addresses.
func TestSecondLinkFlaps(t *testing.T) {
	t.Parallel()
	l := newLAN(t)
	l.host("a", 1)
	l.second("a")
	c := quick.instance(1, 200)
	c.GARPMasterDelay, c.GARPMasterRepeat = 0, 1
	vip := netip.MustParseAddr("10.1.1.100")
	c.ExcludedVIPs = []model.Address{{Prefix: netip.PrefixFrom(vip, 32), Interface: "eth1", NoTrack: true}}
	c.VirtualRoutes = []model.Route{{Dst: netip.MustParsePrefix("10.9.0.0/16"), Via: netip.MustParseAddr("10.1.1.2"), Interface: "eth1", NoTrack: true}}
	a := l.director("a", config(c))
	l.captureOn("a", "eth1")
	announced := func() int {
		return len(l.framesOf(macSecond, func(f []byte) bool { return isARP(f) && string(f[28:32]) == string(vip.AsSlice()) }))
	}
	a.start()
	a.awaitState(quick.down(), status.VRRPMaster)
	l.until(quick.down(), "the first announcement", func() bool { return announced() == 1 })
	for n := range 2 {
		l.run("a", "ip link set eth1 down")
		l.until(quick.down(), "the kernel drops the route", func() bool { return l.run("a", "ip route show 10.9.0.0/16") == "" })
		a.await(quick.down(), "the loss is told", func(v status.VRRP) bool { return strings.Contains(v.Error, "10.9.0.0/16") })
		l.run("a", "ip link set eth1 up")
		l.until(quick.down(), "the route is back", func() bool { return strings.Contains(l.run("a", "ip route show 10.9.0.0/16"), "via 10.1.1.2") })
		l.until(quick.down(), "the address is announced again", func() bool { return announced() > n+1 })
		a.await(quick.down(), "all is well", func(v status.VRRP) bool { return v.Error == "" })
	}
	time.Sleep(300 * time.Millisecond) // what is announced too often comes now
	if n := announced(); n > 5 {
		t.Errorf("%d announcements for 2 flaps", n)
	}
}
