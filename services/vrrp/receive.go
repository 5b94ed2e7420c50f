package vrrp

import (
	"crypto/subtle"
	"fmt"
	"net/netip"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc/status"
	"ballast/services/vrrp/packet"
)

// arrival is one packet as it came in.
type arrival struct {
	src, dst netip.Addr
	ttl      int // -1: not told
	payload  []byte
	header   []byte    // the whole IPv4 packet where it has an authentication header
	wall     time.Time // for the age of an auth_hmac trailer
}

// check judges a packet that carries the VRID of c, in keepalived's order and
// with its counters. The returned text says why it is dropped; empty: accepted.
func (m *memory) check(c *model.Instance, p arrival, st *status.VRRPStats) (packet.Advert, string) {
	var seq uint32
	if m.ah != nil {
		var err error
		if seq, err = m.ah.Check(p.header, c.Unicast); err != nil {
			st.AuthFailure++
			return packet.Advert{}, "has an authentication header that was made with another password or for another packet"
		}
		if seq <= m.seq {
			st.AuthFailure++
			return packet.Advert{}, fmt.Sprintf("is a replay: its authentication header has number %d, after %d", seq, m.seq)
		}
	}
	a, err := packet.Decode(p.payload, c.IPv6)
	if err == packet.ErrLength {
		st.PacketLenErr++
		return a, "is too short"
	}
	peer := peerOf(c, p.src)
	if !ttlFits(c, peer, p.ttl) {
		st.IPTTLErr++
		return a, "has the wrong TTL or hop limit"
	}
	if err != nil || int(a.Version) != c.Version {
		st.VersionErr++
		return a, "is of another version"
	}
	if m.hmac != nil {
		if bad := m.hmac.check(&a, &p); bad != "" {
			st.AuthFailure++
			return a, bad
		}
	}
	if a.Version == 2 {
		want := authType(c)
		switch {
		case a.AuthType > packet.AuthAH:
			st.InvalidAuthtype++
			return a, "has an unknown authentication type"
		case a.AuthType != want:
			st.AuthtypeMismatch++
			return a, "has another authentication type"
		case want == packet.AuthPass && subtle.ConstantTimeCompare(a.Auth[:], m.auth[:]) != 1:
			st.AuthFailure++
			return a, "has another password"
		case a.AdvertInt != c.AdvertInt:
			st.AdvertIntervalErr++
			return a, "has another advert_int"
		}
	}
	if a.Type != packet.TypeAdvertisement {
		st.InvalidTypeRcvd++
		return a, "is no advertisement"
	}
	if a.Version == 3 {
		if a.AdvertInt < 10*time.Millisecond { // a master-down interval of nothing
			st.AdvertIntervalErr++
			return a, "has an advert_int of 0"
		}
		if a.AdvertInt != c.AdvertInt {
			st.AdvertIntervalErr++ // counted, and its interval is ours while it is master
		}
	}
	if m.verify(c, &a, &p) != nil {
		st.ChecksumErr++
		return a, "has a bad checksum"
	}
	if p.dst.IsMulticast() == c.Unicast {
		return a, "is multicast where unicast is configured, or the other way round"
	}
	if c.OwnerIgnoreAdverts && c.Priority == 255 {
		return a, "does not count for the address owner (owner_ignore_adverts)"
	}
	// The same sender is not asked twice under skip_check_adv_addr. Counted
	// only: two boxes of a pair are reloaded one after the other.
	if !(c.SkipCheckAdvAddr && p.src == m.last) && !sameAddrs(c, &a) {
		st.AddrListErr++
	}
	if m.peersOnly && peer == nil {
		return a, "is from no unicast_peer"
	}
	// Only what was accepted moves the counter, which the next one must exceed.
	m.last, m.seq = p.src, max(m.seq, seq)
	return a, ""
}

// verify checks the checksum. keepalived up to 1.3.6 made that of a unicast
// packet of version 3 over IPv4 as if it went to the group; who does so once is
// answered in the same way from then on, unless old_unicast_checksum says never.
func (m *memory) verify(c *model.Instance, a *packet.Advert, p *arrival) error {
	dst := p.dst
	odd := a.Version == 3 && !a.IPv6 && c.Unicast
	if odd && m.oldSum {
		dst = c.McastGroup
	}
	err := a.Verify(p.payload, p.src, dst, c.ChecksumNoPseudo)
	if err != nil && odd && !m.oldSum && c.OldUnicastChecksum != "never" && a.Verify(p.payload, p.src, c.McastGroup, false) == nil {
		m.oldSum = true
		return nil
	}
	return err
}

// authType is what the packets of an instance of version 2 must say.
func authType(c *model.Instance) uint8 {
	switch {
	case c.AuthPass == nil:
		return packet.AuthNone
	case c.AuthAH:
		return packet.AuthAH
	}
	return packet.AuthPass
}

func peerOf(c *model.Instance, src netip.Addr) *model.Peer {
	for i := range c.Peers {
		if c.Peers[i].Addr == src {
			return &c.Peers[i]
		}
	}
	return nil
}

func ttlFits(c *model.Instance, peer *model.Peer, ttl int) bool {
	switch {
	case ttl < 0:
		return true
	case !c.Unicast:
		return ttl == 255
	case peer != nil:
		return (peer.MinTTL < 0 || ttl >= peer.MinTTL) && (peer.MaxTTL < 0 || ttl <= peer.MaxTTL)
	}
	return true
}

// sameAddrs compares the advertised addresses with the configured ones as sets.
func sameAddrs(c *model.Instance, a *packet.Advert) bool {
	if a.Count() != len(c.VIPs) {
		return false
	}
	// The usual case, and the one without a square in it: the same order.
	for i := range c.VIPs {
		if a.Addr(i) == c.VIPs[i].Prefix.Addr() {
			continue
		}
		found := false
		for j := range c.VIPs {
			if found = a.Addr(j) == c.VIPs[i].Prefix.Addr(); found {
				break
			}
		}
		if !found {
			return false
		}
	}
	return true
}
