package net

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"ballast/configs/model"
	"ballast/services/ipc/status"
)

// Static rules and routes with all that a line can say: set once, repaired,
// taken away with their lines.
func TestStaticRulesAndRoutes(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	for _, n := range []string{"0", "1"} {
		sh(t, "ip link add eth"+n+" type veth peer name p"+n)
		sh(t, "ip link set p"+n+" up")
	}
	c := model.Config{
		Interfaces: []model.Interface{
			{Name: "eth0", Addresses: []netip.Prefix{prefix("192.0.2.1/24"), prefix("2001:db8::1/64")}},
			{Name: "eth1", Addresses: []netip.Prefix{prefix("10.0.0.1/24"), prefix("2001:db8:1::1/64")}},
		},
		StaticRoutes: []model.Route{
			{Dst: prefix("198.51.100.0/24"), NextHops: []model.NextHop{{Via: ip("192.0.2.254"), Weight: 1}, {Via: ip("10.0.0.254"), Interface: "eth1", Weight: 5}}},
			{Dst: prefix("2001:db8:2::/48"), NextHops: []model.NextHop{{Via: ip("2001:db8::fe"), Weight: 1}, {Via: ip("2001:db8:1::fe"), Weight: 2}}},
			{Dst: prefix("198.51.101.0/24"), Via: ip("192.0.2.254"), TOS: 0x10, Metric: 7, Metrics: []model.Metric{
				{Kind: unix.RTAX_MTU, Value: 1200, Lock: true}, {Kind: unix.RTAX_ADVMSS, Value: 1100}, {Kind: unix.RTAX_INITCWND, Value: 20, Lock: true}}},
			{Dst: prefix("198.51.102.0/24"), Via: ip("192.0.2.254"), Protocol: 142},
			{Dst: prefix("198.51.105.0/24"), Via: ip("192.0.2.254"), Realms: 3<<16 | 4, Congestion: "reno", CongestionLock: true},
			{Dst: prefix("2001:db8:3::/48"), Via: ip("2001:db8::fe"), Pref: "high"},
			{Dst: prefix("198.51.103.0/24"), Via: ip("2001:db8::fe"), Interface: "eth0"},
			{Dst: prefix("198.51.104.0/24"), Via: ip("192.0.2.254"), Metric: 3},
			{Dst: prefix("198.51.104.0/24"), Via: ip("192.0.2.253"), Metric: 3, Append: true},
		},
		StaticRules: []model.Rule{
			{From: prefix("192.0.2.0/24"), Table: 100, Preference: 1000},
			{IPv6: true, To: prefix("2001:db8:9::/48"), Action: "prohibit", Preference: 1001},
			{Mark: 3, MarkMask: 0xff, Table: 101, Preference: 1002, Protocol: 43},
		},
	}
	b := newBox(t)
	if st := b.commit(c); st.Error != "" {
		t.Fatalf("faults: %s", st.Error)
	}
	b.idle(c)
	b.log.applied()
	b.commit(c)
	if ops := b.log.applied(); len(ops) > 0 {
		t.Errorf("the second pass did %q", ops)
	}
	words := func(line string) string { return strings.Join(strings.Fields(sh(t, line)), " ") }
	shows := func(line string, want ...string) {
		t.Helper()
		out := words(line)
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("%s: %q is not in\n%s", line, w, out)
			}
		}
	}
	shows("ip rule", "1000: from 192.0.2.0/24 lookup 100 proto 176", "1002: from all fwmark 0x3/0xff lookup 101 proto 43")
	shows("ip -6 rule", "1001: from all to 2001:db8:9::/48 prohibit proto 176")
	shows("ip route", "nexthop via 192.0.2.254 dev eth0 weight 1 nexthop via 10.0.0.254 dev eth1 weight 5",
		"198.51.101.0/24 tos 0x10 via 192.0.2.254 dev eth0 proto 176 metric 7 mtu lock 1200 advmss 1100 initcwnd lock 20", "198.51.102.0/24 via 192.0.2.254 dev eth0 proto 142",
		"198.51.103.0/24 via inet6 2001:db8::fe dev eth0", "198.51.104.0/24 via 192.0.2.254 dev eth0 proto 176 metric 3 198.51.104.0/24 via 192.0.2.253 dev eth0 proto 176 metric 3")
	shows("ip route", "198.51.105.0/24 via 192.0.2.254 dev eth0 proto 176 realms 3/4 congctl lock reno")
	shows("ip -6 route", "2001:db8:3::/48 via 2001:db8::fe dev eth0 proto 176 metric 1024 pref high")
	shows("ip -6 route", "nexthop via 2001:db8::fe dev eth0 weight 1 nexthop via 2001:db8:1::fe dev eth1 weight 2")

	for _, tt := range []struct{ damage, repair string }{
		{"ip rule del pref 1000", "set rule 1000 from 192.0.2.0/24 lookup 100"},
		{"ip -6 rule del pref 1001", "set rule 1001 to 2001:db8:9::/48 prohibit"},
		{"ip route del 198.51.100.0/24", "set route 198.51.100.0/24 nexthop via 192.0.2.254"},
		{"ip route replace 198.51.100.0/24 proto 176 nexthop via 192.0.2.254 weight 9 nexthop via 10.0.0.254", "set route 198.51.100.0/24 nexthop via 192.0.2.254"},
		{"ip route replace 198.51.101.0/24 tos 0x10 metric 7 via 192.0.2.254 proto 176", "set route 198.51.101.0/24 via 192.0.2.254 tos 0x10"},
		{"ip route replace 198.51.105.0/24 via 192.0.2.254 proto 176 realms 3/5", "set route 198.51.105.0/24"},
		{"ip -6 route del 2001:db8:2::/48", "set route 2001:db8:2::/48 nexthop"},
	} {
		b.log.applied()
		sh(t, tt.damage)
		b.log.await(t, tt.repair)
	}
	b.commit(c)
	b.idle(c)

	sh(t, "ip rule add from 192.0.2.77 lookup 102 pref 1003") // somebody else's
	empty := model.Config{Interfaces: c.Interfaces}
	b.commit(empty)
	if out := words("ip rule") + words("ip -6 rule"); strings.Contains(out, "1000:") || strings.Contains(out, "1001:") || strings.Contains(out, "1002:") || !strings.Contains(out, "1003:") {
		t.Errorf("rules left: %s", out)
	}
	if out := words("ip route") + words("ip -6 route"); strings.Contains(out, "198.51.") || strings.Contains(out, "2001:db8:2::") {
		t.Errorf("routes left: %s", out)
	}
	b.idle(empty)
}

// What carries a track_group and cannot be set is told with the reason, until
// it is there; no_track and groups that do not exist count for nothing.
func TestMissing(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	sh(t, "ip link add eth0 type veth peer name p0")
	sh(t, "ip link set p0 up")
	sh(t, "ip link set eth0 up")
	sh(t, "ip addr add 10.5.0.1/24 dev eth0") // nobody restores it
	route := func(dst, group string, off bool) model.Route {
		return model.Route{Dst: prefix(dst), Via: ip("10.5.0.254"), Interface: "eth0", TrackGroup: group, NoTrack: off}
	}
	c := model.Config{
		Interfaces:   []model.Interface{{Name: "eth0"}},
		TrackGroups:  []model.TrackGroup{{Name: "uplink", Instances: []string{"VI_1"}}},
		StaticAddrs:  []model.Address{{Prefix: prefix("192.0.2.9/24"), Interface: "eth0", TrackGroup: "uplink"}, {Prefix: prefix("192.0.3.9/24"), Interface: "eth9", TrackGroup: "uplink"}},
		StaticRoutes: []model.Route{route("10.9.0.0/16", "uplink", false), route("10.10.0.0/16", "uplink", true), route("10.11.0.0/16", "none", false)},
		StaticRules:  []model.Rule{{Table: 100, Preference: 1000, TrackGroup: "uplink"}},
	}
	b := newBox(t)
	late := status.Missing{Group: "uplink", What: "address 192.0.3.9/24 dev eth9: interface eth9 is not there"}
	st := b.commit(c)
	if d := cmp.Diff([]status.Missing{late}, st.Missing); d != "" {
		t.Errorf("missing (-want +got):\n%s", d)
	}
	sh(t, "ip addr del 10.5.0.1/24 dev eth0")
	sh(t, "ip route del 10.9.0.0/16")
	st = b.await("the route is missed", func(n status.Net) bool { return len(n.Missing) == 2 })
	if d := cmp.Diff([]status.Missing{late, {Group: "uplink", What: "route 10.9.0.0/16 via 10.5.0.254 dev eth0: network is unreachable"}}, st.Missing); d != "" {
		t.Errorf("missing (-want +got):\n%s", d)
	}
	b.log.applied()
	sh(t, "ip rule del pref 1000")
	b.log.await(t, "set rule 1000")
	sh(t, "ip addr add 10.5.0.1/24 dev eth0")
	sh(t, "ip link add eth9 type veth peer name p9")
	st = b.await("nothing is missed", func(n status.Net) bool { return len(n.Missing) == 0 })
	if !slices.ContainsFunc(st.Routes, func(r status.Route) bool { return r.Dst == prefix("10.9.0.0/16") }) {
		t.Errorf("routes %+v", st.Routes)
	}
}
