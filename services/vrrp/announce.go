package vrrp

import (
	"bytes"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"ballast/configs/model"
	"ballast/services/vrrp/core"
	"ballast/services/vrrp/kernel"
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
const perTurn = kernel.BatchSize

// announce starts a burst for all addresses of a router. One that runs still
// begins anew.
func (s *service) announce(r *router, rounds int) {
	earlyRound := r.early
	if earlyRound { // addVIPs sent the first round
		r.early = false
		rounds--
	}
	if rounds <= 0 {
		return
	}
	total := rounds
	if earlyRound {
		total++
	}
	s.announceSome(r, rounds, total, func(int) bool { return true })
}

// announceSome starts a burst for the addresses on some interfaces: rounds are
// left of total.
func (s *service) announceSome(r *router, rounds, total int, on func(index int) bool) {
	b := r.burst
	if b == nil {
		b = &burst{r: r}
		r.burst = b
		s.bursts = append(s.bursts, b)
	}
	b.items = b.items[:0]
	r.allVIPs(func(v *model.Address) {
		if index := r.place(v); index != 0 && on(index) {
			b.items = append(b.items, announcement{index, v.Prefix.Addr()})
		}
	})
	more := total - rounds
	b.i, b.rounds, b.next = 0, max(rounds, b.rounds), s.now
	b.total = b.rounds + more
	// The first round of a small burst goes right behind the addresses.
	s.advance(b, min(len(b.items)*b.rounds, perTurn))
}

func (s *service) dropBurst(r *router) {
	r.early = false
	if r.burst != nil {
		r.burst.rounds = 0
	}
}

// announced tells whether all addresses of a master have been announced once.
func (s *service) announced(r *router) bool {
	b := r.burst
	return b == nil || b.rounds != b.total || len(b.items) == 0
}

// announceSelf sends one for the router's own source address.
func (s *service) announceSelf(r *router) {
	for _, a := range s.addrs {
		if a.Prefix.Addr() == r.src {
			s.sendAll(r, []announcement{{a.Index, r.src}})
			return
		}
	}
}

// pump sends what is due of all bursts.
func (s *service) pump(list []*router) {
	for _, r := range list {
		if due := r.extraDue(); due != 0 && due <= s.now {
			r.extraAt = s.now
			s.announceSome(r, 1, 2, r.extra)
		}
	}
	if len(s.bursts) == 0 {
		return
	}
	budget := perTurn
	keep := s.bursts[:0]
	for _, b := range s.bursts {
		budget -= s.advance(b, budget)
		if b.rounds > 0 && len(b.items) > 0 {
			keep = append(keep, b)
		} else {
			b.r.burst = nil
		}
	}
	clear(s.bursts[len(keep):])
	s.bursts = keep
}

// advance sends at most n frames of a burst and tells how many it sent.
func (s *service) advance(b *burst, n int) (sent int) {
	for b.rounds > 0 && len(b.items) > 0 && sent < n && b.next <= s.now {
		a := b.items[b.i]
		if key, gap := s.gap(b.r, a); gap > 0 {
			if at := s.pace[key]; at > s.now {
				b.next = at
				break
			}
			s.pace[key] = s.now + gap
			b.next = s.now + gap
		}
		s.put(b.r, a)
		sent++
		if b.i++; b.i == len(b.items) {
			b.i = 0
			b.rounds--
		}
	}
	s.flush(b.r)
	return sent
}

// gap is how far apart announcements are that leave by an interface, and what
// is paced together: the interfaces of a garp_group, else each one by itself.
func (s *service) gap(r *router, a announcement) (key string, gap time.Duration) {
	v4 := a.addr.Is4()
	if len(s.garpGroups) == 0 && (v4 && r.cfg.GARPInterval == 0 || !v4 && r.cfg.GNAInterval == 0) {
		return "", 0 // as nearly always: nothing to find out for each frame
	}
	family := "6 "
	if v4 {
		family = "4 "
	}
	name := ""
	if l := s.byIndex[a.index]; l != nil {
		name = l.Name
		if below := s.byIndex[l.Parent]; below != nil && strings.HasPrefix(l.Alias, ownAlias) {
			name = below.Name
		}
	}
	for i := range s.garpGroups {
		g := &s.garpGroups[i]
		for _, n := range g.Interfaces {
			if n != name {
				continue
			}
			if v4 {
				return family + strconv.Itoa(i), g.GARPInterval
			}
			return family + strconv.Itoa(i), g.GNAInterval
		}
	}
	gap = r.cfg.GNAInterval
	if v4 {
		gap = r.cfg.GARPInterval
	}
	return family + name, gap
}

// unpaced tells whether all announcements of a router may go at once.
func (r *router) unpaced() bool {
	return r.cfg.GARPInterval == 0 && r.cfg.GNAInterval == 0 && len(r.s.garpGroups) == 0
}

// extra tells whether garp_extra_if is about an interface: one that
// advertisements do not leave by, so that no switch on its side hears of its
// MAC; of a virtual MAC, or with "all" of any.
func (r *router) extra(index int) bool {
	from := 0
	switch {
	case r.onVirtualMAC() && !r.cfg.VMAC.XmitBase:
		from = r.vlink.Index
	case r.link != nil:
		from = r.link.Index
	}
	if index == from {
		return false
	}
	l := r.s.byIndex[index]
	return l != nil && (r.cfg.GARPExtraAll || strings.HasPrefix(l.Alias, ownAlias))
}

// extraDue is when garp_extra_if announces next; 0: never.
func (r *router) extraDue() time.Duration {
	if r.cfg.GARPExtra == 0 || r.st.Phase != core.Master {
		return 0
	}
	return max(r.extraAt, r.st.Since) + r.cfg.GARPExtra
}

// sendAll sends an announcement for each address at once.
func (s *service) sendAll(r *router, list []announcement) {
	for _, a := range list {
		s.put(r, a)
	}
	s.flush(r)
}

// put makes the frame of an announcement; it goes out with others of its
// interface, at the next flush at the latest.
func (s *service) put(r *router, a announcement) {
	l := s.byIndex[a.index]
	if l == nil || !l.Ether {
		return // no Ethernet, no neighbours to tell
	}
	if s.batch.Index != a.index || s.batch.Full() {
		s.flush(r)
	}
	s.batch.Index = a.index
	b := s.batch.Next()
	if a.addr.Is4() {
		b = packet.AppendGARP(b, l.MAC, a.addr)
	} else {
		if !s.routes6.known { // once for each batch: it is a file
			s.routes6.known, s.routes6.yes = true, forwards(l.Name)
		}
		b = packet.AppendNA(b, l.MAC, a.addr, s.routes6.yes)
	}
	s.batch.Add(b)
}

// flush sends the frames that put made, with one call of the kernel.
func (s *service) flush(r *router) {
	if s.batch.Len() == 0 {
		return
	}
	s.routes6.known = false
	defer s.batch.Reset()
	l := s.byIndex[s.batch.Index]
	if l == nil {
		return
	}
	f, err := s.framesOn(l)
	if err != nil {
		s.log.limitedRouter(r, "%v", err)
		return
	}
	if err := f.SendBatch(&s.batch); err != nil {
		s.log.limitedRouter(r, "announce on %s: %v", l.Name, err)
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
