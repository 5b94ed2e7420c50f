package net

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ballast/configs/model"
	"ballast/services/ipc/status"
	"ballast/test/golden"
)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func ip(s string) netip.Addr       { return netip.MustParseAddr(s) }

// ipJSON runs ip -j and keeps the fields that do not differ from run to run.
func ipJSON(t *testing.T, args string, fields ...string) string {
	t.Helper()
	var rows []map[string]any
	if err := json.Unmarshal([]byte(sh(t, "ip -j "+args)), &rows); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	var clean func(v any) any
	clean = func(v any) any {
		switch v := v.(type) {
		case []any:
			out := []any{}
			for _, e := range v {
				if m, ok := e.(map[string]any); ok && (m["scope"] == "link" && m["family"] == "inet6" || m["protocol"] == "kernel_ll") {
					continue // made from a random MAC
				}
				out = append(out, clean(e))
			}
			return out
		case map[string]any:
			out := map[string]any{}
			for k, e := range v {
				if slices.Contains(fields, k) {
					out[k] = clean(e)
				}
			}
			return out
		}
		return v
	}
	for _, r := range rows {
		dst, _ := r["dst"].(string)
		if strings.HasPrefix(dst, "fe80") || strings.HasPrefix(dst, "multicast") {
			continue
		}
		line, err := json.Marshal(clean(r))
		if err != nil {
			t.Fatal(err)
		}
		b.Write(line)
		b.WriteByte('\n')
	}
	return b.String()
}

func TestApplyTwice(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	sh(t, "ip link add eth0 address 02:00:00:00:00:0a type veth peer name p0")
	sh(t, "ip link add eth1 address 02:00:00:00:00:0b type veth peer name p1")
	for _, p := range []string{"p0", "p1"} {
		sh(t, "ip link set "+p+" up")
	}
	c := model.Config{
		System: model.System{HostName: "director-a", DNS: []netip.Addr{ip("192.0.2.53")}},
		Interfaces: []model.Interface{
			{Name: "eth0", MTU: 1400, Addresses: []netip.Prefix{prefix("192.0.2.1/24"), prefix("192.0.2.2/24"), prefix("2001:db8::1/64")}},
			{Name: "eth1", Addresses: []netip.Prefix{prefix("10.0.0.1/16")}, Accept: model.RAOn},
		},
		StaticAddrs: []model.Address{
			{Prefix: prefix("192.0.2.9/32"), Interface: "eth0", Label: "eth0:9", Broadcast: ip("192.0.2.255")},
			{Prefix: prefix("10.9.0.1/24"), Interface: "eth1", NoPrefixRoute: true, Scope: 253},
			{Prefix: prefix("10.8.0.1/32"), Peer: prefix("10.8.0.2/32"), Interface: "eth1"},
		},
		StaticRoutes: []model.Route{
			{Dst: prefix("0.0.0.0/0"), Via: ip("192.0.2.254")},
			{Dst: prefix("::/0"), Via: ip("2001:db8::fe"), Interface: "eth0"},
			{Dst: prefix("198.51.100.0/24"), Type: "blackhole"},
			{Dst: prefix("2001:db8:dead::/48"), Type: "unreachable", Metric: 5},
			{Dst: prefix("203.0.113.0/24"), Via: ip("10.0.0.254"), Interface: "eth1", Src: ip("10.0.0.1"), Metric: 50, MTU: 1300},
			{Dst: prefix("203.0.113.0/24"), Via: ip("10.0.255.254"), Table: 100},
			{Dst: prefix("172.16.0.0/12"), Interface: "eth1"},
			{Dst: prefix("172.32.0.0/16"), Via: ip("192.168.99.1"), Interface: "eth1", OnLink: true},
		},
		Marks: []model.Mark{{Mark: 300, Rules: []model.MarkRule{{Protocol: model.TCP, Dst: prefix("192.168.100.111/32"), Ports: []model.PortRange{{From: 8000, To: 10000}}}}}},
	}
	b := newBox(t)
	st := b.commit(c)
	if st.Error != "" {
		t.Fatalf("faults: %s", st.Error)
	}
	b.idle(c)
	if d := cmp.Diff([]status.MarkCount{{Mark: 300, Rule: "tcp 192.168.100.111 8000-10000"}}, st.Marks); d != "" {
		t.Errorf("marks (-want +got):\n%s", d)
	}
	b.log.applied()
	b.commit(c)
	if ops := b.log.applied(); len(ops) > 0 {
		t.Errorf("the second pass did %q", ops)
	}
	// The kernel notices a little later than the link that there is carrier, and marks
	// routes until then as those of a dead one.
	for end := time.Now().Add(30 * time.Second); strings.Count(sh(t, "ip link show eth0")+sh(t, "ip link show eth1"), "state UP") < 2; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("eth0 and eth1 do not come up")
		}
	}
	addr := []string{"ifname", "addr_info", "mtu", "local", "prefixlen", "scope", "label", "broadcast", "family", "noprefixroute", "address"}
	route := []string{"type", "dst", "gateway", "dev", "protocol", "scope", "prefsrc", "metric", "metrics", "mtu", "flags", "table"}
	golden.Check(t, filepath.Join("testdata", "apply.txt"), ipJSON(t, "addr show dev eth0", addr...)+ipJSON(t, "addr show dev eth1", addr...)+
		ipJSON(t, "route show table all type unicast proto 0xb0", route...)+ipJSON(t, "route show type blackhole", route...)+ipJSON(t, "-6 route show proto 0xb0", route...))
	// Everything goes away again; what is not ours stays.
	sh(t, "ip addr add 192.0.2.77/24 dev eth0")
	sh(t, "ip route add 198.18.0.0/15 via 192.0.2.200")
	k, err := OpenKernel()
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	f, err := k.Dump()
	if err != nil {
		t.Fatal(err)
	}
	vip := Addr{Link: "eth0", Prefix: prefix("192.0.2.100/32"), Proto: status.AddrProtoVIP}
	if err := k.Apply(SetAddr{vip, "add"}, f); err != nil {
		t.Fatal(err)
	}
	empty := model.Config{Interfaces: []model.Interface{{Name: "eth0"}, {Name: "eth1", Disabled: true}}}
	st = b.commit(empty)
	if d := cmp.Diff([]string{"192.0.2.100/32 vip", "192.0.2.77/24 other"}, addrsOf(st, "eth0")); d != "" {
		t.Errorf("what is left (-want +got):\n%s", d)
	}
	if out := sh(t, "ip route show"); !strings.Contains(out, "198.18.0.0/15") || strings.Contains(out, "default") {
		t.Errorf("routes left:\n%s", out)
	}
	if l := linkNamed(st, "eth1"); l.Up || !l.Configured {
		t.Errorf("eth1 is disabled: %+v", l)
	}
	b.idle(empty)
}

// The operator, or a program, took something away or put it in wrongly.
func TestDriftIsRepaired(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	sh(t, "ip link add eth0 type veth peer name p0")
	sh(t, "ip link set p0 up")
	c := model.Config{
		Interfaces:   []model.Interface{{Name: "eth0", Addresses: []netip.Prefix{prefix("192.0.2.1/24"), prefix("2001:db8::1/64")}}},
		StaticRoutes: []model.Route{{Dst: prefix("0.0.0.0/0"), Via: ip("192.0.2.254")}, {Dst: prefix("::/0"), Via: ip("2001:db8::fe")}},
	}
	b := newBox(t)
	b.commit(c)
	whole := func(n status.Net) bool {
		var routes []string
		for _, r := range n.Routes {
			if r.Origin == "static" {
				routes = append(routes, r.Dst.String()+" "+r.Via.String())
			}
		}
		return slices.Equal(addrsOf(n, "eth0"), []string{"192.0.2.1/24 static", "2001:db8::1/64 static"}) &&
			slices.Equal(routes, []string{"0.0.0.0/0 192.0.2.254", "::/0 2001:db8::fe"}) && linkNamed(n, "eth0").Up
	}
	b.await("the first state", whole)
	b.await("carrier", func(n status.Net) bool { return whole(n) && linkNamed(n, "eth0").Carrier })
	for _, tt := range []struct{ damage, repair string }{
		{"ip addr del 192.0.2.1/24 dev eth0", "add address 192.0.2.1/24"},
		{"ip -6 addr flush dev eth0 scope global", "add address 2001:db8::1/64"},
		{"ip route del default proto 0xb0", "set route default via 192.0.2.254"},
		{"ip route replace default via 192.0.2.253 proto 0xb0", "set route default via 192.0.2.254"},
		{"ip link set eth0 down", "set eth0 up"},
		{"ip link set p0 down", "eth0: up -> down: no carrier"},
		{"ip link set p0 up", "eth0: down -> up: carrier"},
	} {
		b.log.applied()
		sh(t, tt.damage)
		b.log.await(t, tt.repair)
		// The carrier too: what is told of it late would be taken for that of the next damage.
		carrier := !strings.HasSuffix(tt.repair, "no carrier")
		b.await("all is well after: "+tt.damage, func(n status.Net) bool { return linkNamed(n, "eth0").Carrier == carrier && (whole(n) || !carrier) })
	}
	b.idle(c)
	st := b.await("transitions", func(n status.Net) bool { return len(n.Transitions) > 0 })
	var last []string
	for _, tr := range st.Transitions {
		if tr.Object == "eth0" {
			last = append(last, tr.From+" "+tr.To+" "+tr.Reason)
		}
	}
	if !slices.Contains(last, "up down no carrier") || !slices.Contains(last, "down up carrier") {
		t.Errorf("transitions of eth0: %q", last)
	}
}

func TestRenameSwapAndLateNIC(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	sh(t, "ip link add eth0 address 02:00:00:00:00:0a type veth peer name p0")
	sh(t, "ip link add eth1 address 02:00:00:00:00:0b type veth peer name p1")
	for _, l := range []string{"eth0", "eth1", "p0", "p1"} {
		sh(t, "ip link set "+l+" up")
	}
	c := model.Config{
		Interfaces: []model.Interface{
			{Name: "eth0", Match: model.Match{MAC: "02:00:00:00:00:0B"}, Addresses: []netip.Prefix{prefix("192.0.2.1/24")}},
			{Name: "eth1", Match: model.Match{MAC: "02:00:00:00:00:0a"}, Addresses: []netip.Prefix{prefix("10.0.0.1/24")}},
			{Name: "enp9s0", Match: model.Match{MAC: "02:00:00:00:00:0c"}, Addresses: []netip.Prefix{prefix("10.1.0.1/24"), prefix("2001:db8:1::1/64")}},
		},
		StaticRoutes: []model.Route{{Dst: prefix("198.51.100.0/24"), Via: ip("10.1.0.254")}},
	}
	b := newBox(t)
	st := b.commit(c)
	if m := linkNamed(st, "eth0").MAC + " " + linkNamed(st, "eth1").MAC; m != "02:00:00:00:00:0b 02:00:00:00:00:0a" {
		t.Errorf("after the swap: %s", m)
	}
	if !strings.Contains(st.Error, "interface enp9s0: no such NIC yet (present: eth0 eth1 p0 p1)") {
		t.Errorf("fault of the missing NIC: %q", st.Error)
	}
	if d := cmp.Diff([]string{"192.0.2.1/24 static"}, addrsOf(st, "eth0")); d != "" {
		t.Error(d)
	}
	t.Logf("%q", b.log.applied())

	sh(t, "ip link add late type veth peer name p2")
	sh(t, "ip link set p2 up")
	sh(t, "ip link set late up")
	sh(t, "ip link set late address 02:00:00:00:00:0c")
	st = b.await("the late NIC", func(n status.Net) bool {
		return n.Error == "" && slices.Equal(addrsOf(n, "enp9s0"), []string{"10.1.0.1/24 static", "2001:db8:1::1/64 static"})
	})
	if !slices.ContainsFunc(st.Routes, func(r status.Route) bool { return r.Dst == prefix("198.51.100.0/24") }) {
		t.Errorf("the route by the late NIC is missing: %+v", st.Routes)
	}
	t.Logf("%q", b.log.applied())

	// A restart finds everything as it should be.
	b.stop()
	b.start()
	b.await("the state after a restart", func(n status.Net) bool { return n.Config == b.gen && n.Error == "" })
	if ops := b.log.applied(); len(ops) > 0 {
		t.Errorf("the restarted service did %q", ops)
	}

	// The NIC goes and another one comes that the configuration does not know.
	sh(t, "ip link del enp9s0")
	b.await("the NIC is missed", func(n status.Net) bool { return strings.Contains(n.Error, "enp9s0") })
	sh(t, "ip link add enp9s0 address 02:00:00:00:00:0c type veth peer name p2")
	sh(t, "ip link set p2 up")
	b.await("the NIC is back", func(n status.Net) bool { return n.Error == "" && len(addrsOf(n, "enp9s0")) == 2 })
}

// BenchmarkPass is one pass over a large, settled box: 200 links, 2,000 addresses.
func BenchmarkPass(b *testing.B) {
	runtime.LockOSThread() // never unlocked: the thread and its namespace end with the benchmark
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		b.Fatal(err)
	}
	k, err := OpenKernel()
	if err != nil {
		b.Fatal(err)
	}
	defer k.Close()
	var c model.Config
	for i := range 100 {
		name := fmt.Sprintf("eth%d", i)
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "p" + name}); err != nil {
			b.Fatal(err)
		}
		n := model.Interface{Name: name}
		for j := range 20 {
			n.Addresses = append(n.Addresses, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i), byte(j), 1}), 24))
		}
		c.Interfaces = append(c.Interfaces, n)
	}
	pass := func() []Op {
		f, err := k.Dump()
		if err != nil {
			b.Fatal(err)
		}
		w := Desired(c, f.Links, nil)
		f.Sysctls = readSysctls(w.Sysctls)
		ops, _ := Diff(f, w)
		for _, o := range ops {
			if err := k.Apply(o, f); err != nil {
				b.Fatal(err)
			}
		}
		return ops
	}
	for len(pass()) > 0 {
	}
	for b.Loop() {
		if ops := pass(); len(ops) > 0 {
			b.Fatal(ops)
		}
	}
}
