package vrrp

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc/status"
	"ballast/services/vrrp/packet"
)

var now = time.Unix(1760000000, 0)

// keepalived up to 1.3.6 makes the checksum of unicast packets as if they went
// to the group. It is noticed once and remembered, unless that is forbidden.
func TestOldUnicastChecksum(t *testing.T) {
	c := model.Instance{VRID: 51, Version: 3, AdvertInt: time.Second, Unicast: true, McastGroup: group4, VIPs: []model.Address{{Prefix: vip16}}}
	own := netip.MustParseAddr("192.168.200.1")
	a := packet.Advert{Version: 3, VRID: 51, Priority: 100, AdvertInt: time.Second, Addrs: packet.AppendAddr(nil, vip16.Addr())}
	old, new := a.Append(nil, peerAddr, group4, false), a.Append(nil, peerAddr, own, false)
	type step struct {
		b   []byte
		bad bool
		old bool
	}
	for say, steps := range map[string][]step{
		"":      {{new, false, false}, {old, false, true}, {old, false, true}, {new, true, true}},
		"on":    {{old, false, true}, {new, true, true}},
		"never": {{old, true, false}, {new, false, false}},
	} {
		c.OldUnicastChecksum = say
		var m memory
		m.settle(&c, &model.Instance{})
		for i, step := range steps {
			_, bad := m.check(&c, arrival{src: peerAddr, dst: own, ttl: 255, payload: step.b}, &status.VRRPStats{})
			if (bad != "") != step.bad || m.oldSum != step.old {
				t.Errorf("%q, step %d: %q, old %v; want bad %v, old %v", say, i, bad, m.oldSum, step.bad, step.old)
			}
		}
		m.settle(&c, &c)
		if m.oldSum != steps[len(steps)-1].old {
			t.Errorf("%q: forgotten", say)
		}
	}
}

// An authentication header is accepted once, and only a later one after it;
// what we send counts too.
func TestAHReplay(t *testing.T) {
	c := model.Instance{VRID: 51, Version: 2, AdvertInt: time.Second, AuthPass: []byte("1111"), AuthAH: true, VIPs: []model.Address{{Prefix: vip16}}}
	var m memory
	m.settle(&c, &model.Instance{})
	m.seq = 10
	packetOf := func(seq uint32, password string) arrival {
		a := packet.Advert{Version: 2, VRID: 51, Priority: 100, AuthType: packet.AuthAH, AdvertInt: time.Second, Addrs: packet.AppendAddr(nil, vip16.Addr())}
		b := packet.AppendIPv4(nil, packet.ProtocolAH, 1, 255, peerAddr, group4, packet.AHLen+a.Len())
		b = a.Append(packet.AppendAH(b, peerAddr, seq), peerAddr, group4, false)
		packet.NewAH([]byte(password)).Sign(b, false)
		return arrival{src: peerAddr, dst: group4, ttl: 255, header: b, payload: b[packet.IPv4HeaderLen+packet.AHLen:]}
	}
	for _, step := range []struct {
		seq      uint32
		password string
		want     string
	}{
		{11, "1111", ""},
		{11, "1111", "is a replay: its authentication header has number 11, after 11"},
		{9, "1111", "is a replay: its authentication header has number 9, after 11"},
		{20, "2222", "has an authentication header that was made with another password or for another packet"},
		{12, "1111", ""},
	} {
		var st status.VRRPStats
		if _, got := m.check(&c, packetOf(step.seq, step.password), &st); got != step.want || (got != "") != (st.AuthFailure == 1) {
			t.Errorf("%d %s: %q %+v", step.seq, step.password, got, st)
		}
	}
	// What we send is above all that an earlier run can have sent, and above
	// what was heard; a change of something else does not put it back.
	m.nextSeq(now)
	if m.seq != uint32(now.Unix()) {
		t.Errorf("the first packet has number %d", m.seq)
	}
	next := c
	next.Priority = 7
	m.settle(&next, &c)
	m.nextSeq(now)
	if m.seq != uint32(now.Unix())+1 {
		t.Errorf("the next packet has number %d", m.seq)
	}
}

func TestHMAC(t *testing.T) {
	k1, k2 := []byte(strings.Repeat("1", 32)), []byte(strings.Repeat("2", 40))
	base := model.AuthHMAC{Keys: []model.HMACKey{{ID: 1, Key: k1}, {ID: 2, Key: k2}}, Active: 1, TimeWindow: 5 * time.Second, Mode: "enforce"}
	inst := func(h model.AuthHMAC) model.Instance {
		return model.Instance{VRID: 51, Version: 3, AdvertInt: time.Second, McastGroup: group4, AuthHMAC: &h, VIPs: []model.Address{{Prefix: vip16}}}
	}
	other := netip.MustParseAddr("192.168.200.3")
	msg := func(h *signer, from netip.Addr, at time.Time) arrival {
		a := packet.Advert{Version: 3, VRID: 51, Priority: 100, AdvertInt: time.Second, Addrs: packet.AppendAddr(nil, vip16.Addr())}
		b := a.Append(nil, from, group4, false)
		if h.signs() {
			b = h.append(b, 0, &a, from, group4, at)
		}
		return arrival{src: from, dst: group4, ttl: 255, payload: b, wall: now}
	}
	edit := func(fn func(*model.AuthHMAC)) model.AuthHMAC { h := base; fn(&h); return h }
	permissive := edit(func(h *model.AuthHMAC) { h.Mode = "permissive" })
	receiveOnly := edit(func(h *model.AuthHMAC) { h.Mode = "receive-only" })
	monotonic := edit(func(h *model.AuthHMAC) { h.Monotonic = true })
	wrong := edit(func(h *model.AuthHMAC) { h.Keys = []model.HMACKey{{ID: 1, Key: k2}} })
	second := edit(func(h *model.AuthHMAC) { h.Active = 2 })
	unknown := edit(func(h *model.AuthHMAC) { h.Keys, h.Active = []model.HMACKey{{ID: 9, Key: k1}}, 9 })
	for _, c := range []struct {
		name           string
		receive, sends model.AuthHMAC
		age            time.Duration
		want           string
	}{
		{"signed", base, base, 0, ""},
		{"signed with the other key", base, second, 0, ""},
		{"signed with a key of the same number", base, wrong, 0, "has a wrong auth_hmac signature"},
		{"signed with an unknown key", base, unknown, 0, "is signed with an auth_hmac key that is not configured here"},
		{"not signed", base, receiveOnly, 0, "has no auth_hmac trailer"},
		{"not signed, permissive", permissive, receiveOnly, 0, ""},
		{"not signed, receive-only", receiveOnly, receiveOnly, 0, ""},
		{"wrongly signed, permissive", permissive, wrong, 0, "has a wrong auth_hmac signature"},
		{"signed, receive-only", receiveOnly, base, 0, ""},
		{"five seconds old", base, base, 5 * time.Second, ""},
		{"six seconds old", base, base, 6 * time.Second, "was signed outside the time_window; do the clocks of the two boxes agree?"},
		{"six seconds ahead", base, base, -6 * time.Second, "was signed outside the time_window; do the clocks of the two boxes agree?"},
		{"an hour old, monotonic", monotonic, base, time.Hour, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := inst(c.receive)
			var m memory
			m.settle(&cfg, &model.Instance{})
			var st status.VRRPStats
			p := msg(newSigner(&c.sends, nil), peerAddr, now.Add(-c.age))
			if _, got := m.check(&cfg, p, &st); got != c.want || (got != "") != (st.AuthFailure == 1) {
				t.Errorf("%q %+v, want %q", got, st, c.want)
			}
		})
	}

	// Each source has a sequence of its own; none goes back, not even over a
	// change of keys. What no longer is fresh holds nobody back.
	const replay = "is a replay: its auth_hmac sequence does not grow"
	cfg := inst(base)
	var m memory
	m.settle(&cfg, &model.Instance{})
	check := func(what string, p arrival, want string) {
		t.Helper()
		if _, got := m.check(&cfg, p, &status.VRRPStats{}); got != want {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	s := newSigner(&base, nil)
	first := msg(s, peerAddr, now)
	check("first", first, "")
	check("again", first, replay)
	check("another source", msg(newSigner(&base, nil), other, now.Add(-time.Second)), "")
	check("next within the same moment", msg(s, peerAddr, now), "")
	check("from before", msg(newSigner(&base, nil), peerAddr, now.Add(-time.Second)), replay)
	next := inst(second)
	m.settle(&next, &cfg)
	check("again after a change of keys", first, replay)
	later := msg(newSigner(&base, nil), peerAddr, now.Add(-4*time.Second))
	m.hmac.senders[0].seq = stamp(now.Add(time.Hour)) // its clock was an hour ahead
	check("after its clock was set back", later, "")
	for i := range 20 { // no more places than senders
		check("many sources", msg(newSigner(&base, nil), netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), now), "")
	}
}
