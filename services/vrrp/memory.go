package vrrp

import (
	"net/netip"
	"time"

	"ballast/configs/model"
	"ballast/services/vrrp/packet"
)

// memory is what sending and judging the packets of a router needs besides its
// configuration, and what it learns from them.
type memory struct {
	auth      [8]byte    // PASS
	ah        *packet.AH // nil: no authentication header
	seq       uint32     // of it, the last one sent or accepted: there is one for both, as with keepalived
	hmac      *signer    // nil: no auth_hmac
	oldSum    bool       // checksums are those of keepalived up to 1.3.6
	peersOnly bool       // check_unicast_src
	last      netip.Addr // who sent the last accepted packet
}

// settle takes over a configuration. What was learned about the peers stays as
// long as the configuration says nothing else.
func (m *memory) settle(c, before *model.Instance) {
	m.auth = [8]byte{}
	copy(m.auth[:], c.AuthPass)
	m.peersOnly = c.CheckUnicastSrc
	for _, p := range c.Peers { // a range of TTLs says who it is about
		m.peersOnly = m.peersOnly || p.MinTTL >= 0 || p.MaxTTL >= 0
	}
	if c.OldUnicastChecksum != before.OldUnicastChecksum || c.Version != before.Version {
		m.oldSum = c.OldUnicastChecksum == "on"
	}
	switch {
	case !c.AuthAH || c.AuthPass == nil:
		m.ah = nil
	default:
		m.ah = packet.NewAH(c.AuthPass)
	}
	if c.AuthHMAC == nil {
		m.hmac = nil
	} else {
		m.hmac = newSigner(c.AuthHMAC, m.hmac)
	}
}

// nextSeq is the number of the next authentication header. keepalived begins at
// 0, and its peers do not believe it after it started anew; the time is above
// whatever an earlier run of ours has sent.
func (m *memory) nextSeq(wall time.Time) { m.seq = max(m.seq+1, uint32(wall.Unix())) }

// signer makes and checks the trailers of auth_hmac.
type signer struct {
	cfg     model.AuthHMAC
	keys    map[uint8]*packet.HMAC
	sent    uint64    // sequence of the last packet
	senders [8]sender // whose packets were accepted
	uses    uint64    // of senders
}

// sender is the last sequence of one source.
type sender struct {
	from netip.Addr
	seq  uint64
	used uint64 // 0: free
}

// newSigner keeps what an earlier one knows: a change of keys must not let old
// packets in.
func newSigner(c *model.AuthHMAC, old *signer) *signer {
	s := &signer{cfg: *c, keys: map[uint8]*packet.HMAC{}}
	for _, k := range c.Keys {
		s.keys[k.ID] = packet.NewHMAC(k.Key)
	}
	if old != nil {
		s.sent, s.senders, s.uses = old.sent, old.senders, old.uses
	}
	return s
}

// stamp is a moment in a sequence number: seconds, then 16 bits of a second.
func stamp(t time.Time) uint64 {
	return uint64(uint32(t.Unix()))<<32 | uint64(t.Nanosecond())<<16/1e9<<16
}

// after compares sequence numbers as RFC 1982 does.
func after(a, b uint64) bool { return int64(a-b) > 0 }

// signs tells whether packets go out with a trailer: not in receive-only mode.
func (s *signer) signs() bool {
	return s != nil && s.cfg.Mode != "receive-only" && s.keys[s.cfg.Active] != nil
}

// append appends the trailer to the advertisement at b[start:].
func (s *signer) append(b []byte, start int, a *packet.Advert, src, dst netip.Addr, wall time.Time) []byte {
	k := s.keys[s.cfg.Active]
	if now := stamp(wall); after(now, s.sent) {
		s.sent = now
	} else {
		s.sent++
	}
	return k.Append(b, start, a, packet.Trailer{Key: s.cfg.Active, Seq: s.sent}, src, dst)
}

// check returns why a packet's trailer does not do; empty: it does.
func (s *signer) check(a *packet.Advert, p *arrival) string {
	t, ok, err := a.Trail(p.payload)
	switch {
	case err != nil:
		return "has an auth_hmac trailer of another kind"
	case !ok && (s.cfg.Mode == "permissive" || s.cfg.Mode == "receive-only"):
		return ""
	case !ok:
		return "has no auth_hmac trailer"
	}
	if !s.cfg.Monotonic && !s.fresh(t.Seq, p.wall) {
		return "was signed outside the time_window; do the clocks of the two boxes agree?"
	}
	k := s.keys[t.Key]
	if k == nil {
		return "is signed with an auth_hmac key that is not configured here"
	}
	if k.Check(p.payload, a, p.src) != nil {
		return "has a wrong auth_hmac signature"
	}
	// What follows trusts the packet: only now may a source take a place.
	n := s.place(p.src)
	if n.used != 0 && after(t.Seq, n.seq) || n.used == 0 || !s.cfg.Monotonic && !s.fresh(n.seq, p.wall) {
		s.uses++
		*n = sender{p.src, t.Seq, s.uses}
		return ""
	}
	return "is a replay: its auth_hmac sequence does not grow"
}

// fresh tells whether a sequence number is of now.
func (s *signer) fresh(seq uint64, wall time.Time) bool {
	age := int32(uint32(wall.Unix()) - uint32(seq>>32))
	window := int32(s.cfg.TimeWindow / time.Second)
	return -window <= age && age <= window
}

// place finds the memory of a source: its own, or that of the one not heard
// for the longest time.
func (s *signer) place(from netip.Addr) *sender {
	oldest := &s.senders[0]
	for i := range s.senders {
		n := &s.senders[i]
		if n.used != 0 && n.from == from {
			return n
		}
		if n.used < oldest.used {
			oldest = n
		}
	}
	*oldest = sender{}
	return oldest
}
