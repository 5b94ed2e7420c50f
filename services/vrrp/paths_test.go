package vrrp_test

import (
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"ballast/configs/model"
	"ballast/services/ipc/status"
)

func withPaths(c *model.Instance) {
	c.VirtualRoutes = []model.Route{
		{Dst: netip.MustParsePrefix("10.9.0.0/16"), Via: netip.MustParseAddr("192.168.200.77"), Interface: "eth0", Metric: 7, TOS: 4,
			Metrics: []model.Metric{{Kind: 8, Value: 1200, Lock: true}}, MTU: 1400},
		{Dst: netip.MustParsePrefix("10.10.0.0/16"), Table: 300, NextHops: []model.NextHop{
			{Via: netip.MustParseAddr("192.168.200.78"), Interface: "eth0", Weight: 3}, {Via: netip.MustParseAddr("192.168.200.79"), Weight: 1}}},
		{Dst: netip.MustParsePrefix("10.11.0.0/16"), Type: "blackhole", Protocol: 99},
		{Dst: netip.MustParsePrefix("10.12.0.0/16"), Via: netip.MustParseAddr("192.168.200.77"), Interface: "eth0", Realms: 3<<16 | 4, Congestion: "reno", CongestionLock: true},
		{Dst: netip.MustParsePrefix("fd0a::/64"), Via: netip.MustParseAddr("fd00::77"), Interface: "eth0", Pref: "low"},
		{Dst: netip.MustParsePrefix("fd0b::/64"), Via: netip.MustParseAddr("fd00::77"), Interface: "eth0", Pref: "high"},
		{Dst: netip.MustParsePrefix("fd09::/64"), Via: netip.MustParseAddr("fd00::77"), NextHops: nil, Interface: "eth0"},
	}
	c.VirtualRules = []model.Rule{
		{From: netip.MustParsePrefix("10.66.0.0/16"), Preference: 77, Table: 300},
		{Not: true, To: netip.MustParsePrefix("10.67.0.0/16"), Preference: 78, Action: "nop", Mark: 5, MarkMask: 0xff, TOS: 8,
			IIF: "eth0", OIF: "eth9", UIDRange: true, UIDFrom: 10, UIDTo: 20, IPProto: 6, SPort: model.PortRange{From: 1, To: 9}, DPort: model.PortRange{From: 80, To: 80}},
		{IPv6: true, From: netip.MustParsePrefix("fd66::/64"), Preference: 79, Table: 301, SuppressPrefix: 1, SuppressGroup: 3},
		{Preference: 80, Action: "goto", Goto: 90, Protocol: 98},
	}
}

func (l *lan) pathsOf(host string) string {
	l.t.Helper()
	return l.run(host, "ip route show table all proto 18") + l.run(host, "ip route show proto 99") + l.run(host, "ip -6 route show proto 18") +
		l.run(host, "ip rule") + l.run(host, "ip -6 rule")
}

func allIn(text string, words ...string) bool {
	for _, w := range words {
		if !strings.Contains(text, w) {
			return false
		}
	}
	return true
}

// The master sets its routes and rules, with all words of their lines; one that
// is deleted from outside comes back at once; a backup has none; and none
// stays when the configuration drops it while the process is dead.
func TestVirtualRoutesAndRules(t *testing.T) {
	t.Parallel()
	l, a, b := pair(t, quick, withPaths)
	l.run("a", "ip route flush cache")
	a.start()
	a.awaitState(quick.down(), status.VRRPMaster)
	words := []string{
		"10.9.0.0/16 tos lowdelay|10.9.0.0/16 tos 0x04|10.9.0.0/16 tos throughput", "via 192.168.200.77 dev eth0 metric 7 mtu 1400 advmss lock 1200",
		"nexthop via 192.168.200.78 dev eth0 weight 3", "nexthop via 192.168.200.79 dev eth0 weight 1",
		"blackhole 10.11.0.0/16", "fd09::/64 via fd00::77 dev eth0", "10.12.0.0/16 via 192.168.200.77 dev eth0 realms 3/4 congctl lock reno",
		"fd0a::/64 via fd00::77 dev eth0 metric 1024 pref low", "fd0b::/64 via fd00::77 dev eth0 metric 1024 pref high",
		"77:\tfrom 10.66.0.0/16 lookup 300 proto 18|77:\tfrom 10.66.0.0/16 lookup 300 proto keepalived",
		"not from all to 10.67.0.0/16 tos 0x08|not from all to 10.67.0.0/16 tos throughput", "fwmark 0x5/0xff iif eth0 oif eth9 [detached]", "uidrange 10-20 ipproto tcp sport 1-9 dport 80",
		"79:\tfrom fd66::/64 lookup 301 suppress_prefixlength 0 suppress_ifgroup 2", "80:\tfrom all goto 90 [unresolved] proto 98",
	}
	whole := func() bool {
		text := l.pathsOf("a")
		if strings.Contains(text, "192.168.200.99") { // the altered route
			return false
		}
		for _, w := range words {
			found := false
			for _, alt := range strings.Split(w, "|") {
				found = found || strings.Contains(text, alt)
			}
			if !found {
				return false
			}
		}
		return true
	}
	if !whole() {
		t.Fatalf("missing some of %q:\n%s", words, l.pathsOf("a"))
	}
	for _, cut := range []string{
		"ip route del 10.9.0.0/16 tos 4", "ip route del 10.10.0.0/16 table 300", "ip route del blackhole 10.11.0.0/16", "ip -6 route del fd09::/64",
		"ip rule del pref 77", "ip rule del pref 78", "ip -6 rule del pref 79", "ip rule del pref 80",
		"ip route replace 10.9.0.0/16 tos 4 metric 7 via 192.168.200.99 proto 18",
	} {
		l.run("a", cut)
		l.until(quick.down(), "restored after "+cut+":\n"+l.pathsOf("a"), whole)
	}
	if i := a.awaitState(quick.down(), status.VRRPMaster); i.Stats.BecomeMaster != 1 || len(i.Faults) > 0 {
		t.Errorf("%+v", i)
	}

	// A master that dies leaves them; its next run, with another configuration, removes them.
	a.kill(syscall.SIGKILL)
	b.start()
	b.awaitState(quick.down(), status.VRRPMaster)
	l.until(quick.down(), "the other one has them", func() bool { return allIn(l.pathsOf("b"), "10.9.0.0/16", "from 10.66.0.0/16") })
	bare := quick.instance(1, 50)
	a.commit(config(bare))
	a.start()
	a.awaitState(quick.down(), status.VRRPBackup)
	l.until(quick.down(), "no route or rule of ours is left", func() bool {
		text := l.pathsOf("a")
		return !strings.Contains(text, "10.9.0.0") && !strings.Contains(text, "10.66.0.0") && !strings.Contains(text, "fd09") && !strings.Contains(text, "fd66")
	})
	b.kill(syscall.SIGTERM)
	if text := l.pathsOf("b"); strings.Contains(text, "10.9.0.0") || strings.Contains(text, "10.66") || strings.Contains(text, "10.11.0.0") {
		t.Errorf("left after a stop:\n%s", text)
	}
}

// What somebody takes away and cannot be set again is a fault, until it can;
// an interface of an address or a route that goes down is one too, unless the
// line says no_track.
func TestLostPathsAreAFault(t *testing.T) {
	t.Parallel()
	l := newLAN(t)
	l.host("a", 1)
	l.second("a")
	c := quick.instance(1, 200)
	c.VirtualRoutes = []model.Route{
		{Dst: netip.MustParsePrefix("10.9.0.0/16"), Via: netip.MustParseAddr("10.5.0.9"), Interface: "eth0"},
		{Dst: netip.MustParsePrefix("10.12.0.0/16"), Via: netip.MustParseAddr("10.5.0.9"), Interface: "eth0", NoTrack: true},
	}
	c.ExcludedVIPs = []model.Address{{Prefix: netip.MustParsePrefix("10.1.1.100/32"), Interface: "eth1"}}
	l.run("a", "ip addr add 10.5.0.1/24 dev eth0")
	a := l.director("a", config(c))
	a.start()
	a.awaitState(quick.down(), status.VRRPMaster)
	l.until(quick.down(), "the route is there", func() bool { return allIn(l.pathsOf("a"), "10.9.0.0/16", "10.12.0.0/16") })
	l.run("a", "ip addr del 10.5.0.1/24 dev eth0") // the gateway cannot be reached any more
	l.run("a", "ip route del 10.9.0.0/16")
	i := a.awaitState(quick.down(), status.VRRPFault)
	if len(i.Faults) != 1 || !allIn(i.Faults[0], "route 10.9.0.0/16 was taken away and cannot be set again", "network is unreachable") {
		t.Errorf("faults %q", i.Faults)
	}
	l.run("a", "ip addr add 10.5.0.1/24 dev eth0")
	a.awaitState(quick.down(), status.VRRPMaster)
	l.until(quick.down(), "the routes are back", func() bool { return allIn(l.pathsOf("a"), "10.9.0.0/16", "10.12.0.0/16") })

	l.run("a", "ip link set eth1 down")
	i = a.awaitState(quick.down(), status.VRRPFault)
	if len(i.Faults) != 1 || i.Faults[0] != "10.1.1.100: interface eth1 is down" {
		t.Errorf("faults %q", i.Faults)
	}
	l.run("a", "ip link set eth1 up")
	a.awaitState(quick.down(), status.VRRPMaster)

	// A foreign route in the way is told.
	l.run("a", "ip route add 10.13.0.0/16 via 192.168.200.3")
	c.VirtualRoutes = append(c.VirtualRoutes[:1:1], model.Route{Dst: netip.MustParsePrefix("10.13.0.0/16"), Via: netip.MustParseAddr("10.5.0.9"), Interface: "eth0"})
	a.commit(config(c))
	a.await(quick.down(), "the clash is told", func(v status.VRRP) bool {
		return v.Config == a.gen && strings.Contains(v.Error, "10.13.0.0/16: something else of the same destination and metric is there")
	})
	l.run("a", "ip route del 10.13.0.0/16")
	a.await(quick.down(), "all is well", func(v status.VRRP) bool { return v.Error == "" })
}
