package vrrp

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ballast/configs/model"
	"ballast/services/ipc/status"
	"ballast/services/vrrp/kernel"
	"ballast/services/vrrp/packet"
)

var (
	peerAddr = netip.MustParseAddr("192.168.200.2")
	group4   = netip.MustParseAddr("224.0.0.18")
	vip16    = netip.MustParsePrefix("192.168.200.16/32")
	vip17    = netip.MustParsePrefix("192.168.200.17/32")
)

// TestReceiveChecks is what is wrong with a packet, what becomes of it, and
// what is counted.
func TestReceiveChecks(t *testing.T) {
	v2 := model.Instance{VRID: 51, Version: 2, AdvertInt: time.Second, AuthPass: []byte("1111"), VIPs: []model.Address{{Prefix: vip16}, {Prefix: vip17}}}
	v3 := v2
	v3.Version, v3.AuthPass = 3, nil
	uni := v3
	uni.Unicast, uni.Peers = true, []model.Peer{{Addr: peerAddr, MinTTL: 254, MaxTTL: -1}}
	strict := uni
	strict.CheckUnicastSrc = true
	noauth := v2
	noauth.AuthPass = nil
	lenient := v3
	lenient.ChecksumNoPseudo = true
	skip := v3
	skip.SkipCheckAdvAddr = true

	good2 := packet.Advert{Version: 2, VRID: 51, Priority: 100, AuthType: 1, Auth: [8]byte{'1', '1', '1', '1'}, AdvertInt: time.Second,
		Addrs: packet.AppendAddr(packet.AppendAddr(nil, vip16.Addr()), vip17.Addr())}
	good3 := good2
	good3.Version, good3.AuthType, good3.Auth = 3, 0, [8]byte{}
	edit := func(a packet.Advert, fn func(*packet.Advert)) packet.Advert { fn(&a); return a }

	type want struct {
		bad   string
		stats status.VRRPStats
	}
	for _, c := range []struct {
		name     string
		cfg      model.Instance
		a        packet.Advert
		dst      netip.Addr
		ttl      int
		noPseudo bool
		mangle   func([]byte) []byte
		last     netip.Addr // sender of the packet before
		want     want
	}{
		{name: "v2", cfg: v2, a: good2, dst: group4, ttl: 255},
		{name: "v3", cfg: v3, a: good3, dst: group4, ttl: 255},
		{name: "padding behind", cfg: v2, a: good2, dst: group4, ttl: 255, mangle: func(b []byte) []byte { return append(b, make([]byte, 6)...) }},
		{name: "cut off", cfg: v2, a: good2, dst: group4, ttl: 255, mangle: func(b []byte) []byte { return b[:len(b)-1] },
			want: want{"is too short", status.VRRPStats{PacketLenErr: 1}}},
		{name: "TTL of a router in between", cfg: v2, a: good2, dst: group4, ttl: 254,
			want: want{"has the wrong TTL or hop limit", status.VRRPStats{IPTTLErr: 1}}},
		{name: "unicast TTL in range", cfg: uni, a: good3, dst: peerAddr, ttl: 254},
		{name: "unicast TTL below min_ttl", cfg: uni, a: good3, dst: peerAddr, ttl: 253,
			want: want{"has the wrong TTL or hop limit", status.VRRPStats{IPTTLErr: 1}}},
		{name: "other version", cfg: v3, a: good2, dst: group4, ttl: 255,
			want: want{"is of another version", status.VRRPStats{VersionErr: 1}}},
		{name: "version 7", cfg: v3, a: good3, dst: group4, ttl: 255, mangle: func(b []byte) []byte { b[0] = 0x71; return b },
			want: want{"is of another version", status.VRRPStats{VersionErr: 1}}},
		{name: "unknown authentication", cfg: v2, a: edit(good2, func(a *packet.Advert) { a.AuthType = 3 }), dst: group4, ttl: 255,
			want: want{"has an unknown authentication type", status.VRRPStats{InvalidAuthtype: 1}}},
		{name: "no authentication where PASS is configured", cfg: v2, a: edit(good2, func(a *packet.Advert) { a.AuthType = 0 }), dst: group4, ttl: 255,
			want: want{"has another authentication type", status.VRRPStats{AuthtypeMismatch: 1}}},
		{name: "PASS where none is configured", cfg: noauth, a: good2, dst: group4, ttl: 255,
			want: want{"has another authentication type", status.VRRPStats{AuthtypeMismatch: 1}}},
		{name: "other password", cfg: v2, a: edit(good2, func(a *packet.Advert) { a.Auth[7] = 'x' }), dst: group4, ttl: 255,
			want: want{"has another password", status.VRRPStats{AuthFailure: 1}}},
		{name: "v2, other interval", cfg: v2, a: edit(good2, func(a *packet.Advert) { a.AdvertInt = 2 * time.Second }), dst: group4, ttl: 255,
			want: want{"has another advert_int", status.VRRPStats{AdvertIntervalErr: 1}}},
		{name: "v3, other interval is accepted", cfg: v3, a: edit(good3, func(a *packet.Advert) { a.AdvertInt = 2 * time.Second }), dst: group4, ttl: 255,
			want: want{"", status.VRRPStats{AdvertIntervalErr: 1}}},
		{name: "v3, interval 0", cfg: v3, a: edit(good3, func(a *packet.Advert) { a.AdvertInt = 0 }), dst: group4, ttl: 255,
			want: want{"has an advert_int of 0", status.VRRPStats{AdvertIntervalErr: 1}}},
		{name: "other type", cfg: v3, a: good3, dst: group4, ttl: 255, mangle: func(b []byte) []byte { b[0] = 0x32; return b },
			want: want{"is no advertisement", status.VRRPStats{InvalidTypeRcvd: 1}}},
		{name: "bad checksum", cfg: v3, a: good3, dst: group4, ttl: 255, mangle: func(b []byte) []byte { b[6]++; return b },
			want: want{"has a bad checksum", status.VRRPStats{ChecksumErr: 1}}},
		{name: "checksum without pseudo header", cfg: v3, a: good3, dst: group4, ttl: 255, noPseudo: true,
			want: want{"has a bad checksum", status.VRRPStats{ChecksumErr: 1}}},
		{name: "the same with v3_checksum_as_v2", cfg: lenient, a: good3, dst: group4, ttl: 255, noPseudo: true},
		{name: "unicast to a multicast instance", cfg: v3, a: good3, dst: peerAddr, ttl: 255,
			want: want{"is multicast where unicast is configured, or the other way round", status.VRRPStats{}}},
		{name: "other addresses are accepted", cfg: v3, a: edit(good3, func(a *packet.Advert) { a.Addrs = a.Addrs[:4] }), dst: group4, ttl: 255,
			want: want{"", status.VRRPStats{AddrListErr: 1}}},
		{name: "other addresses, skip_check_adv_addr, of a new sender", cfg: skip, a: edit(good3, func(a *packet.Advert) { a.Addrs = a.Addrs[:4] }), dst: group4, ttl: 255,
			want: want{"", status.VRRPStats{AddrListErr: 1}}},
		{name: "the same, of the same sender again", cfg: skip, a: edit(good3, func(a *packet.Advert) { a.Addrs = a.Addrs[:4] }), dst: group4, ttl: 255, last: peerAddr},
		{name: "owner_ignore_adverts", cfg: with(v3, func(c *model.Instance) { c.Priority, c.OwnerIgnoreAdverts = 255, true }), a: good3, dst: group4, ttl: 255,
			want: want{"does not count for the address owner (owner_ignore_adverts)", status.VRRPStats{}}},
		{name: "owner_ignore_adverts of another", cfg: with(v3, func(c *model.Instance) { c.Priority, c.OwnerIgnoreAdverts = 254, true }), a: good3, dst: group4, ttl: 255},
		{name: "from no peer, while a peer has a range of TTLs", cfg: with(uni, func(c *model.Instance) { c.Peers = []model.Peer{{Addr: vip16.Addr(), MinTTL: 1, MaxTTL: -1}} }), a: good3, dst: peerAddr, ttl: 255,
			want: want{"is from no unicast_peer", status.VRRPStats{}}},
		{name: "unicast TTL above max_ttl", cfg: with(uni, func(c *model.Instance) { c.Peers = []model.Peer{{Addr: peerAddr, MinTTL: -1, MaxTTL: 64}} }), a: good3, dst: peerAddr, ttl: 65,
			want: want{"has the wrong TTL or hop limit", status.VRRPStats{IPTTLErr: 1}}},
		{name: "v3_checksum_as_v2 here, with the pseudo header there", cfg: lenient, a: good3, dst: group4, ttl: 255},
		{name: "other order of addresses", cfg: v3, a: edit(good3, func(a *packet.Advert) {
			a.Addrs = packet.AppendAddr(packet.AppendAddr(nil, vip17.Addr()), vip16.Addr())
		}), dst: group4, ttl: 255},
		{name: "from no peer", cfg: with(strict, func(c *model.Instance) { c.Peers = []model.Peer{{Addr: vip16.Addr(), MinTTL: -1, MaxTTL: -1}} }), a: good3, dst: peerAddr, ttl: 255,
			want: want{"is from no unicast_peer", status.VRRPStats{}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := c.a.Append(nil, peerAddr, c.dst, c.noPseudo)
			if c.mangle != nil {
				b = c.mangle(b)
			}
			var got want
			var m memory
			m.settle(&c.cfg, &model.Instance{})
			m.last = c.last
			_, got.bad = m.check(&c.cfg, arrival{src: peerAddr, dst: c.dst, ttl: c.ttl, payload: b}, &got.stats)
			if d := cmp.Diff(c.want, got, cmp.AllowUnexported(want{})); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func with(c model.Instance, fn func(*model.Instance)) model.Instance { fn(&c); return c }

// The line about a priority names what moved it.
func TestMoved(t *testing.T) {
	up := []status.Tracker{{Kind: "script", Name: "chk", Up: true, Weight: -20}, {Kind: "interface", Name: "eth1", Up: true, Weight: 10}, {Kind: "script", Name: "hard", Up: true}}
	down := slices.Clone(up)
	down[0].Up, down[0].Detail = false, "exit 1"
	down[1].Up, down[1].Detail = false, "interface eth1 has no carrier"
	down[2].Up = false
	for want, list := range map[string][2][]status.Tracker{
		"script chk fails (weight -20), exit 1; interface eth1 down (weight 10), interface eth1 has no carrier": {up, down},
		"script chk succeeds (weight -20); interface eth1 up (weight 10)":                                       {down, up},
		"configuration": {up, up},
	} {
		if d := cmp.Diff(want, moved(list[0], list[1])); d != "" {
			t.Error(d)
		}
	}
}

// Two routers of one VRID on one link are told apart by group or by peer.
func TestPick(t *testing.T) {
	other := netip.MustParseAddr("224.0.0.19")
	a := &router{cfg: model.Instance{Name: "a", VRID: 51, McastGroup: group4}}
	b := &router{cfg: model.Instance{Name: "b", VRID: 51, McastGroup: other}}
	k := &sock{}
	k.routers[51] = []*router{a, b}
	for dst, want := range map[netip.Addr]*router{group4: a, other: b, netip.MustParseAddr("224.0.0.20"): nil} {
		if got := k.pick(&kernel.Received{Src: peerAddr, Dst: dst, Payload: []byte{0x21, 51}}); got != want {
			t.Errorf("to %s: %v", dst, got)
		}
	}
}

func TestReceiveDoesNotAllocate(t *testing.T) {
	c := model.Instance{VRID: 51, Version: 2, AdvertInt: time.Second, VIPs: []model.Address{{Prefix: vip16}}}
	a := packet.Advert{Version: 2, VRID: 51, Priority: 100, AdvertInt: time.Second, Addrs: packet.AppendAddr(nil, vip16.Addr())}
	b := a.Append(nil, peerAddr, group4, false)
	var st status.VRRPStats
	var m memory
	if n := testing.AllocsPerRun(100, func() {
		if _, bad := m.check(&c, arrival{src: peerAddr, dst: group4, ttl: 255, payload: b}, &st); bad != "" {
			t.Error(bad)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestTrackerArithmetic(t *testing.T) {
	for _, c := range []struct {
		up      bool
		weight  int
		reverse bool
		delta   int
		fault   bool
	}{
		{true, 0, false, 0, false},
		{false, 0, false, 0, true},
		{true, 0, true, 0, true},
		{false, 0, true, 0, false},
		{true, 20, false, 20, false},
		{false, 20, false, 0, false},
		{true, 20, true, -20, false},
		{true, -20, false, 0, false},
		{false, -20, false, -20, false},
		{false, -20, true, 20, false},
	} {
		if d, f := weigh(c.up, c.weight, c.reverse); d != c.delta || f != c.fault {
			t.Errorf("up %v weight %d reverse %v: %d %v, want %d %v", c.up, c.weight, c.reverse, d, f, c.delta, c.fault)
		}
	}
	for _, c := range []struct{ base, sum, want int }{
		{100, 0, 100}, {100, -50, 50}, {100, -253, 1}, {100, 253, 254}, {255, -100, 255}, {254, 1, 254},
	} {
		if got := clampPriority(uint8(c.base), c.sum); int(got) != c.want {
			t.Errorf("%d%+d = %d, want %d", c.base, c.sum, got, c.want)
		}
	}
}

func TestPrepare(t *testing.T) {
	good := model.Instance{Name: "VI_1", Interface: "eth0", VRID: 51, Version: 2, Priority: 100, AdvertInt: time.Second, McastGroup: group4, VIPs: []model.Address{{Prefix: vip16}}}
	for _, c := range []struct {
		name string
		edit func(*model.Config)
		want string
	}{
		{"good", func(*model.Config) {}, ""},
		{"no such interface", func(c *model.Config) { c.Instances[0].Interface = "eth7" },
			"vrrp_instance VI_1: interface eth7 does not exist; there are: eth0, eth1. Correct the name, or write dynamic_interfaces in global_defs if it comes later"},
		{"made by the configuration", func(c *model.Config) {
			c.Instances[0].Interface = "bond0"
			c.Bonds = []model.Bond{{Name: "bond0"}}
		}, ""},
		{"no such tracked interface", func(c *model.Config) {
			c.Instances[0].TrackInterfaces = []model.TrackInterface{{Interface: "eth9"}}
		}, "vrrp_instance VI_1: tracked interface eth9 does not exist; there are: eth0, eth1. Correct the name, or write dynamic_interfaces in global_defs if it comes later"},
		{"half a second in version 2", func(c *model.Config) { c.Instances[0].AdvertInt = time.Second / 2 },
			"vrrp_instance VI_1: advert_int 500ms; version 2 takes whole seconds from 1 to 255"},
		{"VRID twice", func(c *model.Config) {
			two := good
			two.Name = "VI_2"
			c.Instances = append(c.Instances, two)
		}, "vrrp_instance VI_2: virtual_router_id 51 on eth0 is that of vrrp_instance VI_1; give one of them another"},
		{"all faults at once", func(c *model.Config) { c.Instances[0].VRID, c.Instances[0].Version = 0, 4 },
			"vrrp_instance VI_1: virtual_router_id is 0; it must be 1 to 255, the same on both boxes\nvrrp_instance VI_1: version 4; it must be 2 or 3"},
	} {
		cfg := model.Config{Instances: []model.Instance{good}}
		c.edit(&cfg)
		got := ""
		if err := prepare(&cfg, []string{"eth0", "eth1", "lo"}); err != nil {
			got = err.Error()
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, d)
		}
	}
}
