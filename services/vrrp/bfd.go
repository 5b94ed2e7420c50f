package vrrp

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc/status"
	"ballast/services/vrrp/bfd"
	"ballast/services/vrrp/kernel"
)

// UDP ports of BFD control packets: one hop (RFC 5881 section 4), several
// (RFC 5883 section 5), and the first of those to send from.
const (
	bfdPort         = 3784
	bfdMultihopPort = 4784
	bfdFromPort     = 49152
)

// bfdRoom is all BFD of this box.
type bfdRoom struct {
	s        *service
	sessions []*bfdSession
	socks    map[bfdSock]*kernel.UDP
	due      time.Duration
	buf      [bfd.Len]byte
	retry    time.Duration // something could not be opened
}

type bfdSock struct{ ipv6, multihop bool }

type bfdSession struct {
	cfg      model.BFD
	st       bfd.Session
	out      *kernel.UDP
	known    bool // was up once
	told     told
	sent     uint64
	received uint64
}

// setBFD takes over the sessions of a configuration. Those that it does not
// change go on.
func (s *service) setBFD(list []model.BFD) {
	if s.detect == nil {
		if len(list) == 0 {
			return
		}
		s.detect = &bfdRoom{s: s, socks: map[bfdSock]*kernel.UDP{}}
		s.bfd = s.detect.up
	}
	d := s.detect
	old := d.sessions
	d.sessions = nil
	for _, c := range list {
		i := slices.IndexFunc(old, func(n *bfdSession) bool { return n.cfg == c })
		if i >= 0 {
			d.sessions = append(d.sessions, old[i])
			old = slices.Delete(slices.Clone(old), i, i+1)
			continue
		}
		n := &bfdSession{cfg: c, st: bfd.Session{Cfg: bfdConfig(&c, d.discriminator(old))}}
		n.st, _ = bfd.Step(n.st, bfd.Event{Kind: bfd.Start, At: s.now, Jitter: rand.Float64()})
		n.told = newTold(n.st.State.String(), s.now)
		d.sessions = append(d.sessions, n)
	}
	for _, n := range old {
		var out bfd.Send
		n.st, out = bfd.Step(n.st, bfd.Event{Kind: bfd.Admin, At: s.now})
		d.send(n, out)
		if n.out != nil {
			n.out.Close()
		}
	}
	d.open()
	d.due = s.now
}

func bfdConfig(c *model.BFD, local uint32) bfd.Config {
	return bfd.Config{
		MinTx: max(c.MinTx, time.Millisecond), MinRx: max(c.MinRx, time.Millisecond), IdleTx: c.IdleTx,
		Multiplier: min(max(c.Multiplier, 1), 255), Passive: c.Passive, Local: local,
	}
}

// discriminator draws one that no session has.
func (d *bfdRoom) discriminator(old []*bfdSession) uint32 {
	for {
		n := rand.Uint32()
		taken := func(x *bfdSession) bool { return x.st.Cfg.Local == n }
		if n != 0 && !slices.ContainsFunc(old, taken) && !slices.ContainsFunc(d.sessions, taken) {
			return n
		}
	}
}

func (d *bfdRoom) close() {
	for _, u := range d.socks {
		u.Close()
	}
	for _, n := range d.sessions {
		if n.out != nil {
			n.out.Close()
		}
	}
}

// open opens the sockets that are missing, and closes those of no session.
func (d *bfdRoom) open() {
	d.retry = 0
	need := map[bfdSock]bool{}
	for _, n := range d.sessions {
		key := bfdSock{n.cfg.Neighbor.Is6(), n.cfg.Multihop}
		need[key] = true
		var err error
		if d.socks[key] == nil {
			var u *kernel.UDP
			if u, err = kernel.OpenUDP(kernel.UDPOptions{IPv6: key.ipv6, Port: n.port()}); err == nil {
				if err = d.s.read(u.FD(), d.drain); err != nil {
					u.Close()
				} else {
					d.socks[key] = u
				}
			}
		}
		if n.out == nil && err == nil {
			from := bfdFromPort + uint16(n.st.Cfg.Local%(1<<14))
			n.out, err = kernel.OpenUDP(kernel.UDPOptions{IPv6: key.ipv6, Addr: n.cfg.Source, Port: from, TTL: n.ttl()})
		}
		if err != nil {
			d.s.log.limited("bfd socket", "BFD session %s: %v", n.cfg.Name, err)
			d.retry = d.s.now + time.Second
		}
	}
	for key, u := range d.socks {
		if !need[key] {
			delete(d.s.readers, u.FD())
			u.Close()
			delete(d.socks, key)
		}
	}
}

func (n *bfdSession) port() uint16 {
	if n.cfg.Multihop {
		return bfdMultihopPort
	}
	return bfdPort
}

func (n *bfdSession) ttl() int {
	switch {
	case n.cfg.TTL != 0:
		return n.cfg.TTL
	case n.cfg.Neighbor.Is6():
		return 64 // keepalived's default for IPv6
	}
	return 255
}

// near tells whether a packet crossed no more hops than are allowed: the
// neighbour is taken to send with our own TTL (RFC 5881 section 5 has 255).
func (n *bfdSession) near(ttl int) bool {
	return n.cfg.MaxHops < 0 || n.cfg.MaxHops >= 255 || ttl < 0 || n.ttl()-ttl <= n.cfg.MaxHops
}

// drain takes what the kernel holds.
func (d *bfdRoom) drain() {
	for key, u := range d.socks {
		for range drainMax {
			g, ok := u.Receive()
			if !ok {
				break
			}
			d.receive(key, &g)
		}
	}
}

func (d *bfdRoom) receive(key bfdSock, g *kernel.Datagram) {
	p, err := bfd.Decode(g.Payload)
	if err != nil {
		d.s.log.limited("bfd packet", "BFD packet from %s %v, ignored", g.Src.Addr(), err)
		return
	}
	for _, n := range d.sessions {
		if n.cfg.Neighbor != g.Src.Addr() || n.cfg.Multihop != key.multihop || p.Yours != 0 && p.Yours != n.st.Cfg.Local ||
			n.cfg.Source.IsValid() && n.cfg.Source != g.Dst {
			continue
		}
		if !n.near(g.TTL) {
			d.s.log.limited("bfd ttl", "BFD packet from %s has TTL %d, more than max_hops %d away from %d, ignored", g.Src.Addr(), g.TTL, n.cfg.MaxHops, n.ttl())
			return
		}
		n.received++
		now := d.s.loop.Now()
		d.step(n, bfd.Event{Kind: bfd.Control, At: now, RxAt: now - g.Age, Packet: p})
		return
	}
	d.s.log.limited("bfd stranger", "BFD packet from %s is of no bfd_instance here (or of its process before), ignored", g.Src.Addr())
}

// turn is this room's part of a turn of the loop.
func (d *bfdRoom) turn() {
	if d.retry != 0 && d.s.now >= d.retry {
		d.open()
	}
	now := d.s.loop.Now()
	d.due = now + idleTurn
	for _, n := range d.sessions {
		if at := n.st.Deadline(); at != 0 && at <= now {
			if end := n.st.DetectAt(); end != 0 && end <= now {
				d.drain() // our lateness is not its death
			}
			d.step(n, bfd.Event{Kind: bfd.Timer, At: now})
		}
		if n.told.pending() {
			d.tell(n, now)
		}
		if at := n.st.Deadline(); at != 0 {
			d.due = min(d.due, at)
		}
	}
	d.due = max(d.due, now+100*time.Microsecond)
}

func (d *bfdRoom) step(n *bfdSession, ev bfd.Event) {
	ev.Jitter = rand.Float64()
	before := n.st.State
	var out bfd.Send
	n.st, out = bfd.Step(n.st, ev)
	d.send(n, out)
	if n.st.State == before {
		return
	}
	s := d.s
	s.dirty = true
	d.tell(n, ev.At)
	if n.st.State == bfd.Up {
		n.known = true
	}
	if n.st.State == bfd.Up || before == bfd.Up {
		s.reevaluate()
	}
}

// tell logs what a session is now. Packets carry no authentication: who can
// send them can make it change at any rate.
func (d *bfdRoom) tell(n *bfdSession, at time.Duration) {
	s, is := d.s, n.st.State.String()
	from, missed, tell := n.told.change(is, at)
	if !tell {
		return
	}
	reason := n.st.Diag.String()
	if reason == "" {
		reason = "neighbour is " + n.st.Remote.String()
	}
	reason += leftOut(missed)
	s.transition(status.Transition{Time: s.loop.Time(at), Object: n.cfg.Name, Kind: "bfd", From: from, To: is, Reason: reason})
	s.log.info("BFD session %s with %s: %s -> %s: %s", n.cfg.Name, n.cfg.Neighbor, from, is, reason)
}

func (d *bfdRoom) send(n *bfdSession, out bfd.Send) {
	if !out.Do || n.out == nil {
		return
	}
	b := out.Packet.Append(d.buf[:0])
	if err := n.out.Send(b, netip.AddrPortFrom(n.cfg.Neighbor, n.port()), n.cfg.Source, 0); err != nil {
		d.s.log.limited(fmt.Sprint("bfd send ", n.cfg.Name), "BFD session %s: send to %s: %v", n.cfg.Name, n.cfg.Neighbor, err)
		return
	}
	n.sent++
}

// up is what trackers ask.
func (d *bfdRoom) up(name string) (up, known bool) {
	for _, n := range d.sessions {
		if n.cfg.Name == name && n.cfg.VRRP { // else checks alone are told
			return n.st.State == bfd.Up, n.known
		}
	}
	return false, false
}

func (d *bfdRoom) status() (list []status.BFDSession) {
	for _, n := range d.sessions {
		list = append(list, status.BFDSession{
			Name: n.cfg.Name, Neighbor: n.cfg.Neighbor, State: n.st.State.String(), Diagnostic: n.st.Diag.String(),
			Remote: n.st.Remote.String(), Since: d.s.loop.Time(n.st.Since), Interval: n.st.Interval(), Detect: n.st.Detect(),
			Sent: n.sent, Received: n.received, VRRP: n.cfg.VRRP, Checker: n.cfg.Checker,
		})
	}
	return list
}
