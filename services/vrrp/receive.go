package vrrp

import (
	"crypto/subtle"
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
}

// check judges a packet that carries the VRID of c, in keepalived's order and
// with its counters. The returned text says why it is dropped; empty: accepted.
func check(c *model.Instance, auth [8]byte, p arrival, st *status.VRRPStats) (packet.Advert, string) {
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
	if a.Version == 2 {
		want := uint8(packet.AuthNone)
		if c.AuthPass != nil {
			want = packet.AuthPass
		}
		switch {
		case a.AuthType > packet.AuthAH:
			st.InvalidAuthtype++
			return a, "has an unknown authentication type"
		case a.AuthType != want:
			st.AuthtypeMismatch++
			return a, "has another authentication type"
		case want == packet.AuthPass && subtle.ConstantTimeCompare(a.Auth[:], auth[:]) != 1:
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
	if a.Verify(p.payload, p.src, p.dst, c.ChecksumNoPseudo) != nil {
		st.ChecksumErr++
		return a, "has a bad checksum"
	}
	if p.dst.IsMulticast() == c.Unicast {
		return a, "is multicast where unicast is configured, or the other way round"
	}
	if !c.SkipCheckAdvAddr && !sameAddrs(c, &a) {
		st.AddrListErr++ // counted only: two boxes of a pair are reloaded one after the other
	}
	if c.CheckUnicastSrc && peer == nil {
		return a, "is from no unicast_peer"
	}
	return a, ""
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
