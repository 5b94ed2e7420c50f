package net

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ballast/configs/model"
	"ballast/services/ipc/status"
	"ballast/services/net/dhcp"
	"ballast/test/golden"
)

// nic is a link for tables: "eth0 02:…:0a".
func nic(index int, name, mac string) Link {
	return Link{Index: index, Name: name, Kind: "device", MAC: mac, PermMAC: mac, MTU: 1500, Up: true, Carrier: true,
		PCI: fmt.Sprintf("0000:00:%02x.0", index)}
}

func TestRenames(t *testing.T) {
	a, b, c := nic(2, "eth0", "0a"), nic(3, "eth1", "0b"), nic(4, "eth2", "0c")
	mac := func(name, mac string) Naming { return Naming{name, model.Match{MAC: mac}} }
	slave := a
	slave.MAC, slave.Master = "0b", "bond0"
	alt := a
	alt.AltNames = []string{"wan"}
	for _, tt := range []struct {
		name  string
		links []Link
		want  []Naming
		ops   []string
	}{
		{"none", []Link{a, b}, nil, nil},
		{"as it is", []Link{a, b}, []Naming{mac("eth0", "0a")}, nil},
		{"free name", []Link{a, b}, []Naming{mac("ens33", "0b")}, []string{"rename eth1 to ens33"}},
		{"by PCI path", []Link{a, b}, []Naming{{"ens33", model.Match{PCI: "0000:00:03.0"}}}, []string{"rename eth1 to ens33"}},
		{"MAC goes before PCI", []Link{a, b}, []Naming{{"ens33", model.Match{MAC: "0a", PCI: "0000:00:03.0"}}}, []string{"rename eth0 to ens33"}},
		{"swap", []Link{a, b}, []Naming{mac("eth0", "0b"), mac("eth1", "0a")},
			[]string{"rename eth1 to mv3", "rename eth0 to mv2", "rename mv2 to eth1", "rename mv3 to eth0"}},
		{"one half of a swap", []Link{a, b}, []Naming{mac("eth0", "0b")}, []string{"rename eth0 to mv2", "rename eth1 to eth0", "rename mv2 to eth1"}},
		{"ring of three", []Link{a, b, c}, []Naming{mac("eth1", "0a"), mac("eth2", "0b"), mac("eth0", "0c")},
			[]string{"rename eth1 to mv3", "rename eth2 to mv4", "rename eth0 to mv2", "rename mv2 to eth1", "rename mv3 to eth2", "rename mv4 to eth0"}},
		{"after a crash in a swap", []Link{nic(2, "mv2", "0a"), nic(3, "mv3", "0b")}, []Naming{mac("eth0", "0b"), mac("eth1", "0a")},
			[]string{"rename mv2 to eth1", "rename mv3 to eth0"}},
		{"after a crash in one half of a swap", []Link{nic(2, "mv2", "0a"), nic(3, "eth0", "0b")}, []Naming{mac("eth0", "0b")}, nil},
		{"eviction from a passing name", []Link{a, nic(3, "mv3", "0b")}, []Naming{mac("eth0", "0b")},
			[]string{"rename eth0 to mv2", "rename mv3 to eth0", "rename mv2 to nic2"}},
		{"the NIC is missing", []Link{a}, []Naming{mac("eth0", "0f")}, nil},
		{"two names for one NIC", []Link{a}, []Naming{mac("wan", "0a"), mac("lan", "0a")}, []string{"rename eth0 to wan"}},
		{"one name for two NICs", []Link{a, b}, []Naming{mac("wan", "0a"), mac("wan", "0b")}, []string{"rename eth0 to wan"}},
		{"a bond has its member's address", []Link{{Index: 9, Name: "bond0", Kind: "bond", MAC: "0b", PermMAC: "0b"}, slave, b},
			[]Naming{mac("lan", "0b")}, []string{"rename eth1 to lan"}},
		{"a member keeps its permanent address", []Link{slave, c}, []Naming{mac("lan", "0a")}, []string{"rename eth0 to lan"}},
		{"the name is an alternative one already", []Link{alt}, []Naming{mac("wan", "0a")}, nil},
	} {
		var got []string
		for _, r := range Renames(tt.links, tt.want) {
			got = append(got, r.String())
		}
		if d := cmp.Diff(tt.ops, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, d)
		}
	}
}

// Whatever the names are now and whatever is asked for: each step finds its name
// free, the end is as asked, and a second plan is empty, even after a crash
// between any two steps.
func TestRenamesAtRandom(t *testing.T) {
	for seed := range uint64(3000) {
		rng := rand.New(rand.NewPCG(seed, 1))
		n := 1 + rng.IntN(5)
		pool := []string{"eth0", "eth1", "eth2", "mv2", "mv3", "nic2", "wan", "lan"}
		perm := rng.Perm(len(pool))
		var links []Link
		for i := range n {
			links = append(links, nic(i+2, pool[perm[i]], fmt.Sprintf("%02x", i)))
		}
		var want []Naming
		perm = rng.Perm(len(pool))
		for i := range rng.IntN(n + 1) {
			want = append(want, Naming{pool[perm[i]], model.Match{MAC: fmt.Sprintf("%02x", i)}})
		}
		for crash := 0; ; crash++ {
			ops := Renames(links, want)
			if len(ops) == 0 {
				break
			}
			if crash > 20 {
				t.Fatalf("seed %d: no end", seed)
			}
			if rng.IntN(3) == 0 {
				ops = ops[:rng.IntN(len(ops))+1]
			}
			for _, o := range ops {
				for i := range links {
					if links[i].Name == o.To {
						t.Fatalf("seed %d: %s: the name is taken", seed, o)
					}
				}
				i := slices.IndexFunc(links, func(l Link) bool { return l.Index == o.Index })
				if links[i].Name != o.From {
					t.Fatalf("seed %d: %s: the NIC is called %s", seed, o, links[i].Name)
				}
				links[i].Name = o.To
			}
		}
		for _, w := range want {
			if l := pick(links, w); l == nil || l.Name != w.Name {
				t.Fatalf("seed %d: %+v is called %+v", seed, w, l)
			}
		}
	}
}

func TestDiff(t *testing.T) {
	now := time.Unix(1e9, 0)
	eth0, eth1 := nic(2, "eth0", "0a"), nic(3, "eth1", "0b")
	down := eth0
	down.Up = false
	member := eth0
	member.Master = "bond0"
	bond := Link{Index: 9, Name: "bond0", Kind: "bond", Alias: OwnAlias, Up: true, MTU: 1500, Bond: BondOptions{Mode: "active-backup", MIIMon: 100 * time.Millisecond, HashPolicy: "layer2"}}
	vlan := Link{Index: 10, Name: "v5", Kind: "vlan", Alias: OwnAlias, Up: true, MTU: 1500, Parent: "eth0", VLANID: 5}
	addr := func(s string, proto uint8) Addr { return Addr{Link: "eth0", Prefix: prefix(s), Proto: proto} }
	iface := model.Config{Interfaces: []model.Interface{{Name: "eth0", Addresses: []netip.Prefix{prefix("10.0.0.1/24")}}}}
	route := func(dst, via string) model.Config {
		return model.Config{StaticRoutes: []model.Route{{Dst: prefix(dst), Via: ip(via)}}}
	}
	kroute := func(dst, via, dev string, metric uint32, proto uint8) Route {
		return Route{model.Route{Dst: prefix(dst), Via: ip(via), Interface: dev, Metric: metric, Table: tableMain}, proto}
	}
	lease := map[string]dhcp.Lease{"eth0": {Addr: prefix("10.0.0.9/24"), Expires: now.Add(time.Minute), Routes: []dhcp.Route{{Dst: prefix("0.0.0.0/0"), Via: ip("10.9.9.9")}}}}
	leased := func(d time.Duration) Addr {
		a := addr("10.0.0.9/24", status.AddrProtoNet)
		a.Expires = now.Add(d)
		return a
	}
	dh := model.Config{Interfaces: []model.Interface{{Name: "eth0", DHCP: true}}}
	gw := Route{model.Route{Dst: prefix("0.0.0.0/0"), Via: ip("10.9.9.9"), Interface: "eth0", Metric: dhcpMetric, Table: tableMain, OnLink: true}, status.RouteProtoNet}
	bonded := model.Config{Bonds: []model.Bond{{Name: "bond0", Mode: "active-backup", MIIMon: 100 * time.Millisecond, Members: []string{"eth0"}}}}
	vlans := model.Config{VLANs: []model.VLAN{{Name: "v5", Link: "eth0", ID: 5}}}
	labelled := addr("10.0.0.1/24", status.AddrProtoNet)
	labelled.Label = "eth0:1"

	for _, tt := range []struct {
		name    string
		have    Facts
		conf    model.Config
		leases  map[string]dhcp.Lease
		ops     []string
		waiting []string
	}{
		{name: "a link that nobody configures is left alone", have: Facts{Links: []Link{down}, Addrs: []Addr{addr("10.0.0.1/24", 0)}}},
		{name: "an instance's interface is set up", have: Facts{Links: []Link{down}}, conf: model.Config{Instances: []model.Instance{{Interface: "eth0"}}}, ops: []string{"set eth0 up"}},
		{name: "so is one that is tracked, or holds a VIP", have: Facts{Links: []Link{down, {Index: 3, Name: "eth1", Kind: "device"}}},
			conf: model.Config{Instances: []model.Instance{{TrackInterfaces: []model.TrackInterface{{Interface: "eth1"}}, VIPs: []model.Address{{Interface: "eth0"}}}}},
			ops:  []string{"set eth0 up", "set eth1 up"}},
		{name: "disabled", have: Facts{Links: []Link{eth0}}, conf: model.Config{Interfaces: []model.Interface{{Name: "eth0", Disabled: true}}}, ops: []string{"set eth0 down"}},
		{name: "a missing NIC", have: Facts{Links: []Link{eth1}}, conf: iface, waiting: []string{`interface eth0: no such NIC yet (present: eth1); name one by "interface eth0 { mac … }"`}},
		{name: "address", have: Facts{Links: []Link{eth0}}, conf: iface, ops: []string{"add address 10.0.0.1/24 dev eth0"}},
		{name: "address is there", have: Facts{Links: []Link{eth0}, Addrs: []Addr{addr("10.0.0.1/24", status.AddrProtoNet)}}, conf: iface},
		{name: "address of somebody else is adopted", have: Facts{Links: []Link{eth0}, Addrs: []Addr{addr("10.0.0.1/24", 0)}}, conf: iface, ops: []string{"adopt address 10.0.0.1/24 dev eth0"}},
		{name: "address is a VIP", have: Facts{Links: []Link{eth0}, Addrs: []Addr{addr("10.0.0.1/24", status.AddrProtoVIP)}}, conf: iface,
			waiting: []string{"address 10.0.0.1/24 dev eth0 is a virtual address now; take it out of the interface block"}},
		{name: "other length: add before delete", have: Facts{Links: []Link{eth0}, Addrs: []Addr{addr("10.0.0.1/16", status.AddrProtoNet)}}, conf: iface,
			ops: []string{"add address 10.0.0.1/24 dev eth0", "delete address 10.0.0.1/16 dev eth0"}},
		{name: "other label: the kernel cannot change it", have: Facts{Links: []Link{eth0}, Addrs: []Addr{labelled}}, conf: iface,
			ops: []string{"delete address 10.0.0.1/24 dev eth0", "add address 10.0.0.1/24 dev eth0"}},
		{name: "only our own addresses are removed", have: Facts{Links: []Link{eth0}, Addrs: []Addr{addr("10.0.0.1/24", status.AddrProtoNet),
			addr("10.0.0.2/24", status.AddrProtoVIP), addr("fe80::1/64", 3), addr("10.0.0.3/24", 0)}}, ops: []string{"delete address 10.0.0.1/24 dev eth0"}},
		{name: "lease", have: Facts{Links: []Link{eth0}}, conf: dh, leases: lease, ops: []string{"add address 10.0.0.9/24 dev eth0", "set route default via 10.9.9.9 dev eth0 metric 200"}},
		{name: "lease is there", have: Facts{Links: []Link{eth0}, Addrs: []Addr{leased(59 * time.Second)}, Routes: []Route{gw}}, conf: dh, leases: lease},
		{name: "lease was renewed", have: Facts{Links: []Link{eth0}, Addrs: []Addr{leased(30 * time.Second)}, Routes: []Route{gw}}, conf: dh, leases: lease,
			ops: []string{"lifetime address 10.0.0.9/24 dev eth0"}},
		{name: "lease is lost", have: Facts{Links: []Link{eth0}, Addrs: []Addr{leased(30 * time.Second)}, Routes: []Route{gw}}, conf: dh,
			ops: []string{"delete address 10.0.0.9/24 dev eth0", "delete route default via 10.9.9.9 dev eth0 metric 200"}},
		{name: "route", have: Facts{Links: []Link{eth0}}, conf: route("192.0.2.0/24", "10.0.0.254"), ops: []string{"set route 192.0.2.0/24 via 10.0.0.254"}},
		{name: "route is there, by the link the kernel chose", have: Facts{Links: []Link{eth0}, Routes: []Route{kroute("192.0.2.0/24", "10.0.0.254", "eth0", 0, status.RouteProtoNet)}},
			conf: route("192.0.2.0/24", "10.0.0.254")},
		{name: "route by another gateway is replaced in one step", have: Facts{Links: []Link{eth0}, Routes: []Route{kroute("192.0.2.0/24", "10.0.0.1", "eth0", 0, status.RouteProtoNet)}},
			conf: route("192.0.2.0/24", "10.0.0.254"), ops: []string{"set route 192.0.2.0/24 via 10.0.0.254"}},
		{name: "IPv6 route: the kernel's metric is the default", have: Facts{Links: []Link{eth0}, Routes: []Route{kroute("2001:db8::/32", "fe80::1", "eth0", 1024, status.RouteProtoNet)}},
			conf: route("2001:db8::/32", "fe80::1")},
		{name: "only our own routes are removed", have: Facts{Links: []Link{eth0}, Routes: []Route{kroute("192.0.2.0/24", "10.0.0.1", "eth0", 0, status.RouteProtoNet),
			kroute("192.0.3.0/24", "10.0.0.1", "eth0", 0, 4), kroute("192.0.4.0/24", "10.0.0.1", "eth0", 0, status.RouteProtoVRRP)}}, ops: []string{"delete route 192.0.2.0/24 via 10.0.0.1 dev eth0"}},
		{name: "route by a link that is down waits", have: Facts{Links: []Link{down}}, ops: []string{"set eth0 up"},
			conf: model.Config{StaticRoutes: []model.Route{{Dst: prefix("192.0.2.0/24"), Via: ip("10.0.0.1"), Interface: "eth0"}}}},
		{name: "bond: made first, members in the next pass", have: Facts{Links: []Link{eth0}}, conf: bonded, ops: []string{"add bond bond0 mode active-backup"}},
		{name: "bond: a member is set down to go in", have: Facts{Links: []Link{eth0, bond}}, conf: bonded, ops: []string{"set eth0 down", "put eth0 into bond0", "set eth0 up"}},
		{name: "bond: done", have: Facts{Links: []Link{member, bond}}, conf: bonded},
		{name: "bond: gone", have: Facts{Links: []Link{member, bond}}, ops: []string{"delete link bond0: no longer configured"}},
		{name: "bond: a member less", have: Facts{Links: []Link{member, bond}}, conf: model.Config{Bonds: []model.Bond{{Name: "bond0", Mode: "active-backup", MIIMon: 100 * time.Millisecond}}},
			ops: []string{"take eth0 out of its bond"}},
		{name: "vlan", have: Facts{Links: []Link{eth0}}, conf: vlans, ops: []string{"add vlan v5 link eth0 id 5"}},
		{name: "vlan: its link is missing", have: Facts{Links: []Link{eth1}}, conf: vlans,
			waiting: []string{"vlan v5: its link eth0 is missing (present: eth1)", `interface eth0: no such NIC yet (present: eth1); name one by "interface eth0 { mac … }"`}},
		{name: "vlan: done", have: Facts{Links: []Link{eth0, vlan}}, conf: vlans},
		{name: "vlan: other id", have: Facts{Links: []Link{eth0, vlan}}, conf: model.Config{VLANs: []model.VLAN{{Name: "v5", Link: "eth0", ID: 6}}}, ops: []string{"delete link v5: link or id changes"}},
		{name: "vlan: the name is a NIC's", have: Facts{Links: []Link{eth0, {Index: 4, Name: "v5", Kind: "device", Up: true}}}, conf: vlans,
			waiting: []string{"vlan v5: the name is taken by a device; give the VLAN another name"}},
		{name: "MTU grows from below", have: Facts{Links: []Link{eth0, vlan}}, conf: model.Config{VLANs: vlans.VLANs, Interfaces: []model.Interface{{Name: "v5", MTU: 9000}, {Name: "eth0", MTU: 9000}}},
			ops: []string{"set eth0 mtu 1500 -> 9000", "set v5 mtu 1500 -> 9000"}},
		{name: "MTU shrinks from above", have: Facts{Links: []Link{eth0, vlan}}, conf: model.Config{VLANs: vlans.VLANs, Interfaces: []model.Interface{{Name: "eth0", MTU: 1300}, {Name: "v5", MTU: 1300}}},
			ops: []string{"set v5 mtu 1500 -> 1300", "set eth0 mtu 1500 -> 1300"}},
		{name: "names come before all else", have: Facts{Links: []Link{eth1}}, conf: model.Config{Interfaces: []model.Interface{{Name: "eth0", Match: model.Match{MAC: "0B"}, Addresses: []netip.Prefix{prefix("10.0.0.1/24")}}}},
			ops: []string{"rename eth1 to eth0"}},
	} {
		tt.have.Now = now
		tt.have.Links = append(tt.have.Links, Link{Index: 1, Name: "lo", Kind: "loopback", Up: true})
		w := Desired(tt.conf, tt.have.Links, tt.leases)
		ops, waiting := Diff(tt.have, w)
		var got []string
		for _, o := range ops {
			got = append(got, o.String())
		}
		if d := cmp.Diff(tt.ops, got); d != "" {
			t.Errorf("%s: ops (-want +got):\n%s", tt.name, d)
		}
		if d := cmp.Diff(tt.waiting, waiting); d != "" {
			t.Errorf("%s: waiting (-want +got):\n%s", tt.name, d)
		}
	}
}

func TestSysctls(t *testing.T) {
	c := model.Config{Interfaces: []model.Interface{{Name: "eth0.5", Accept: model.RAOn}}, VirtualServers: []model.VirtualServer{{Scheduler: "rr"}}}
	links := []Link{{Name: "lo", Kind: "loopback"}, nic(2, "eth0.5", "0a")}
	var b strings.Builder
	for _, s := range Sysctls(c, links) {
		fmt.Fprintf(&b, "%s = %s\n", s.Key, s.Value)
	}
	golden.Check(t, filepath.Join("testdata", "sysctls.txt"), b.String())
	c.Global.DisableLocalIGMP = true
	if !slices.Contains(Sysctls(c, links), Sysctl{Key: "net/ipv4/igmp_link_local_mcast_reports", Value: "0"}) {
		t.Error("disable_local_igmp: reports are sent")
	}
	value := func(key, v string) []Op {
		ops, _ := Diff(Facts{Links: links, Sysctls: map[string]string{key: v}}, World{Sysctls: Sysctls(c, links)})
		return ops
	}
	if ops := value("net/ipv4/vs/drop_entry", "2"); len(ops) != 0 {
		t.Errorf("the kernel's own answer to an attack is undone: %v", ops)
	}
	if ops := value("net/ipv4/vs/drop_entry", "0"); len(ops) != 1 {
		t.Errorf("ops %v", ops)
	}
	c.VirtualServers[0].Scheduler = "mh"
	if s := Sysctls(c, nil); !slices.Contains(s, Sysctl{Key: "net/ipv4/vs/sloppy_tcp", Value: "1"}) {
		t.Error("sloppy_tcp is off with mh")
	}
}

func TestPrepare(t *testing.T) {
	a, b := nic(2, "eth0", "02:00:00:00:00:0a"), nic(3, "eth1", "02:00:00:00:00:0b")
	a.Driver = "virtio_net"
	f := Facts{Links: []Link{a, b, {Index: 1, Name: "lo", Kind: "loopback"}}}
	for _, tt := range []struct {
		name string
		conf model.Config
		want []string // each a part of the error
	}{
		{"empty", model.Config{}, nil},
		{"a late NIC", model.Config{Interfaces: []model.Interface{{Name: "enp9s0"}}}, nil},
		{"a bond of NICs that get their names", model.Config{
			Interfaces: []model.Interface{{Name: "ens1", Match: model.Match{MAC: "02:00:00:00:00:0a"}}, {Name: "ens2", Match: model.Match{PCI: "0000:00:03.0"}}},
			Bonds:      []model.Bond{{Name: "bond0", Mode: "802.3ad", LACPRate: "fast", Members: []string{"ens1", "ens2"}}}, VLANs: []model.VLAN{{Name: "v", Link: "bond0", ID: 4094}}}, nil},
		{"every fault at once", model.Config{
			Interfaces: []model.Interface{{Name: "x", Match: model.Match{MAC: "02:00:00:00:00:0a"}}, {Name: "y", Match: model.Match{PCI: "0000:00:02.0"}}, {Name: "y"}},
			Bonds: []model.Bond{{Name: "bond0", Mode: "best", Members: []string{"eth7", "eth1"}, HashPolicy: "odd", LACPRate: "fast", Primary: "eth9"},
				{Name: "bond0", Mode: "active-backup"}, {Name: "bond1", Mode: "active-backup", Members: []string{"eth1"}}},
			VLANs: []model.VLAN{{Name: "a-name-too-long-for-it", Link: "eth8", ID: 4095}},
			Marks: []model.Mark{{Mark: 0}}},
			[]string{
				"interface x and interface y both mean the NIC eth0", "interface y: the name is that of a interface too",
				`bond bond0: unknown mode "best"; use active-backup`, `unknown hash policy "odd"`, `LACP rate "fast"`, "primary eth9 must be a member",
				"bond bond0: its member eth7 is not there; NICs present: eth0 (02:00:00:00:00:0a, 0000:00:02.0, virtio_net), eth1 (02:00:00:00:00:0b, 0000:00:03.0)",
				"eth1 is a member of bond bond0 and of bond bond1", "bond bond0: the name is that of a bond too",
				`vlan "a-name-too-long-for-it": the kernel takes names of 1 to 15 characters`, "id 4095; want 1 to 4094", "its link eth8 is not there", "mark 0: 0 means no mark"}},
	} {
		err := Prepare(tt.conf, f)
		if (err != nil) != (tt.want != nil) {
			t.Errorf("%s: %v", tt.name, err)
		}
		for _, w := range tt.want {
			if err != nil && !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %q is not in:\n%v", tt.name, w, err)
			}
		}
	}
}

func TestAddrCodec(t *testing.T) {
	now := time.Unix(1e9, 0)
	for _, a := range []Addr{
		{Link: "eth0", Label: "eth0", Prefix: prefix("10.0.0.1/24"), Proto: status.AddrProtoNet},
		{Link: "eth0", Label: "eth0:1", Prefix: prefix("10.0.0.1/32"), Broadcast: ip("10.0.0.255"), Scope: 253, Proto: status.AddrProtoVIP, NoPrefixRoute: true},
		{Link: "eth0", Label: "eth0", Prefix: prefix("10.0.0.1/32"), Peer: prefix("10.0.0.2/30"), Proto: 1},
		{Link: "eth0", Prefix: prefix("2001:db8::1/64"), Proto: status.AddrProtoNet, Expires: now.Add(time.Hour)},
		{Link: "eth0", Label: "eth0", Prefix: prefix("10.0.0.1/8"), Proto: status.AddrProtoNet, Expires: now.Add(maxLife * time.Second)},
	} {
		got, index, err := unmarshalAddr(marshalAddr(a, 7, now), now)
		if err != nil || index != 7 {
			t.Errorf("%s: index %d, %v", a, index, err)
		}
		got.Link = a.Link
		if d := cmp.Diff(a, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
			t.Errorf("%s (-want +got):\n%s", a, d)
		}
	}
}

func FuzzAddr(f *testing.F) {
	now := time.Unix(1e9, 0)
	f.Add(marshalAddr(Addr{Link: "eth0", Prefix: prefix("10.0.0.1/24"), Proto: 5, Broadcast: ip("10.0.0.255")}, 1, now))
	f.Add(marshalAddr(Addr{Link: "eth0", Prefix: prefix("2001:db8::1/64"), Expires: now.Add(time.Hour)}, 1, now))
	f.Add([]byte{2, 33, 0, 0, 1, 0, 0, 0, 8, 0, 2, 0, 10, 0, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		a, _, err := unmarshalAddr(b, now)
		if err == nil && (!a.Prefix.IsValid() || a.Peer.IsValid() && a.Peer.Addr() == a.Prefix.Addr()) {
			t.Errorf("accepted %+v", a)
		}
	})
}
