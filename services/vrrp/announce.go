package vrrp

import (
	"bytes"
	"net/netip"
	"os"
	"time"

	"ballast/configs/model"
	"ballast/services/vrrp/packet"
)

// burst is a run of gratuitous ARPs or neighbour advertisements on its way:
// rounds over all addresses, interleaved as keepalived does. It goes out in
// pieces between the loop's turns, so that a thousand addresses do not hold up
// the next advertisement.
type burst struct {
	r      *router
	items  []announcement
	i      int // next item of this round
	rounds int // left, this one included
	total  int // rounds that were asked for
	next   time.Duration
}

type announcement struct {
	index int
	addr  netip.Addr
}

// perTurn is how many frames one turn of the loop sends.
const perTurn = 64

// announce starts a burst for all addresses of a router. One that runs still
// begins anew.
func (s *service) announce(r *router, rounds int) {
	if rounds <= 0 {
		return
	}
	var b *burst
	for _, old := range s.bursts {
		if old.r == r {
			b = old
		}
	}
	if b == nil {
		b = &burst{r: r}
		s.bursts = append(s.bursts, b)
	}
	b.items = b.items[:0]
	r.allVIPs(func(v *model.Address) {
		if index := r.place(v); index != 0 {
			b.items = append(b.items, announcement{index, v.Prefix.Addr()})
		}
	})
	b.i, b.rounds, b.next = 0, max(rounds, b.rounds), s.now
	b.total = b.rounds
	// The first round of a small burst goes right behind the addresses.
	s.advance(b, min(len(b.items)*b.rounds, perTurn))
}

func (s *service) dropBurst(r *router) {
	for _, b := range s.bursts {
		if b.r == r {
			b.rounds = 0
		}
	}
}

// announced tells whether all addresses of a master have been announced once.
func (s *service) announced(r *router) bool {
	for _, b := range s.bursts {
		if b.r == r && b.rounds == b.total && len(b.items) > 0 {
			return false
		}
	}
	return true
}

// announceSelf sends one for the router's own source address.
func (s *service) announceSelf(r *router) {
	for _, a := range s.addrs {
		if a.Prefix.Addr() == r.src {
			s.sendAnnouncement(r, announcement{a.Index, r.src})
			return
		}
	}
}

// pump sends what is due of all bursts.
func (s *service) pump() {
	if len(s.bursts) == 0 {
		return
	}
	budget := perTurn
	keep := s.bursts[:0]
	for _, b := range s.bursts {
		budget -= s.advance(b, budget)
		if b.rounds > 0 && len(b.items) > 0 {
			keep = append(keep, b)
		}
	}
	clear(s.bursts[len(keep):])
	s.bursts = keep
}

// advance sends at most n frames of a burst and tells how many it sent.
func (s *service) advance(b *burst, n int) (sent int) {
	gap := b.r.cfg.GARPInterval
	if b.r.cfg.IPv6 {
		gap = b.r.cfg.GNAInterval
	}
	for b.rounds > 0 && len(b.items) > 0 && sent < n && b.next <= s.now {
		s.sendAnnouncement(b.r, b.items[b.i])
		sent++
		if b.i++; b.i == len(b.items) {
			b.i = 0
			b.rounds--
		}
		if gap > 0 {
			b.next = s.now + gap
		}
	}
	return sent
}

func (s *service) sendAnnouncement(r *router, a announcement) {
	l := s.byIndex[a.index]
	if l == nil || !l.Ether {
		return // no Ethernet, no neighbours to tell
	}
	f, err := s.framesOn(l)
	if err != nil {
		s.log.limitedRouter(r, "%v", err)
		return
	}
	var buf [96]byte
	b := buf[:0]
	if a.addr.Is4() {
		b = packet.AppendGARP(b, l.MAC, a.addr)
	} else {
		b = packet.AppendNA(b, l.MAC, a.addr, forwards(l.Name))
	}
	if err := f.Send(b); err != nil {
		s.log.limitedRouter(r, "announce %s on %s: %v", a.addr, l.Name, err)
		return
	}
	r.announced()
}

// forwards tells whether an interface forwards IPv6, which the Router flag of
// its neighbour advertisements must say (RFC 4861 section 4.4).
func forwards(name string) bool {
	b, err := os.ReadFile("/proc/sys/net/ipv6/conf/" + name + "/forwarding")
	return err == nil && !bytes.HasPrefix(b, []byte("0"))
}
