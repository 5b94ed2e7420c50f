package health

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ballast/configs/model"
	"ballast/services/health/raw"
)

// flight is a probe that is packets of our own making: a half-open TCP check, a
// ping, or a probe through the VIP. It has a source port (of an echo: the
// sequence number) to itself, by which its answer is found.
type flight struct {
	proto  byte
	port   uint16
	remote netip.AddrPort // who must answer
	src    netip.Addr
	cookie uint32 // sequence number of the SYN, or in the echo's payload
	packet []byte
	tries  int
	seeks  int          // times that the link-layer address was not known
	why    string       // it could not be sent so far
	wire   bool         // through the VIP: sent and heard below the IP layer
	send   func() error // nil: to the check's own address, with others of the same turn
	began  time.Time
}

// flights is the table of probes that are under way, by port.
type flights struct {
	socks  *raw.Sockets // nil: never needed
	byNum  []*check
	spare  []*flight // to be used again
	landed []*flight // the same, once their packets are sent
	free   []uint16  // ports, the longest unused first
	head   int
}

// echoSize is the payload of a ping, as ping(8) sends it.
const echoSize = 56

// resend are the waits for an answer before a packet is sent again, as the
// kernel does it with a SYN: one lost packet is no dead server.
var resend = [...]time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second}

// openFlights makes sure that answers of a use are heard.
func (l *loop) openFlights(use raw.Use, v6 bool) error {
	f := &l.flights
	if f.socks == nil {
		ports, err := raw.FreePorts()
		if err != nil {
			return err
		}
		f.socks = raw.New(ports)
		f.socks.Failed = func(port uint16, err error) {
			if c := f.at(port); c != nil {
				l.unsent(c, err, time.Now())
			}
		}
		n := int(ports.Last) - int(ports.First) + 1
		f.byNum = make([]*check, n)
		for i := range n {
			f.free = append(f.free, ports.First+uint16(i))
		}
	}
	opened, err := f.socks.Listen(use, v6)
	for _, fd := range opened {
		if err := l.io.add(fd, unix.EPOLLIN); err != nil {
			return fmt.Errorf("epoll: %w", err)
		}
	}
	return err
}

// fresh is a flight to fill in.
func (f *flights) fresh() *flight {
	n := len(f.spare)
	if n == 0 {
		return &flight{}
	}
	x := f.spare[n-1]
	f.spare = f.spare[:n-1]
	return x
}

// flush sends what is to be sent; after that the packets of those that have
// landed may be used again.
func (f *flights) flush() {
	if f.socks == nil {
		return
	}
	f.socks.Flush()
	f.spare = append(f.spare, f.landed...)
	clear(f.landed)
	f.landed = f.landed[:0]
}

func (f *flights) available() bool { return f.socks == nil || f.head < len(f.free) }

func (f *flights) take(c *check) uint16 {
	p := f.free[f.head]
	f.head++
	if f.head > 4096 && 2*f.head > len(f.free) {
		f.free = append(f.free[:0], f.free[f.head:]...)
		f.head = 0
	}
	f.byNum[p-f.socks.Ports.First] = c
	return p
}

func (f *flights) release(p uint16) {
	f.byNum[p-f.socks.Ports.First] = nil
	f.free = append(f.free, p)
}

// at is the check whose probe has a port, nil: none.
func (f *flights) at(p uint16) *check {
	if f.socks == nil || p < f.socks.Ports.First || p > f.socks.Ports.Last {
		return nil
	}
	return f.byNum[p-f.socks.Ports.First]
}

// halfOpen starts a TCP_CHECK that ends with the SYN-ACK.
func (l *loop) halfOpen(c *check, now time.Time) { l.fly(c, raw.HalfOpen, raw.TCP, now) }

// ping starts a PING_CHECK.
func (l *loop) ping(c *check, now time.Time) { l.fly(c, raw.Echo, raw.ICMP, now) }

// fly sends a packet to the check's own address.
func (l *loop) fly(c *check, use raw.Use, proto byte, now time.Time) {
	dst := c.spec.Addr.Unmap()
	if proto == raw.ICMP && dst.Is6() {
		proto = raw.ICMPv6
	}
	if err := l.openFlights(use, dst.Is6()); err != nil {
		l.finish(c, outcome{local: true, reason: err.Error()}, now)
		return
	}
	if !l.room(c) {
		return
	}
	if epoch := l.flights.socks.Epoch; c.edge.epoch != epoch {
		src, err := l.source(c, dst)
		if err != nil {
			o := outcome{local: isOurs(err), away: isAway(err), reason: explain(err)}
			if o.local {
				o.reason = err.Error() // with what it is about
			}
			l.finish(c, o, now)
			return
		}
		c.edge.src, c.edge.epoch = src, epoch
	}
	f := l.flights.fresh()
	*f = flight{packet: f.packet[:0], proto: proto, remote: netip.AddrPortFrom(dst.WithZone(""), c.spec.Port), src: c.edge.src}
	l.launch(c, f, nil, now)
	l.transmit(c, now)
}

// source is the address that a probe comes from. The kernel would send our own
// packets from any: one that is not on this box has no answer, which would say
// nothing about the server.
func (l *loop) source(c *check, dst netip.Addr) (netip.Addr, error) {
	socks := l.flights.socks
	src := c.spec.BindAddr.Unmap()
	if !src.IsValid() {
		r, err := socks.Route(dst, c.spec.Mark, c.spec.BindInterface)
		return r.Src, err
	}
	r, err := socks.Route(src, 0, "")
	if err != nil || !r.Local {
		return src, fmt.Errorf("bindto %s: %w", src, unix.EADDRNOTAVAIL)
	}
	return src.WithZone(""), nil
}

// isOurs tells errors before anything was sent that are not about the way to
// the server: an interface that is missing has no number.
func isOurs(err error) bool {
	var errno syscall.Errno
	return isLocal(err) || errors.Is(err, unix.ENODEV) || !errors.As(err, &errno)
}

// room queues a check when every port is in use.
func (l *loop) room(c *check) bool {
	if l.flights.available() {
		return true
	}
	c.edge.phase = queued
	l.waiting = append(l.waiting, c)
	return false
}

// launch gives a flight its port, cookie and packet.
func (l *loop) launch(c *check, f *flight, payload []byte, now time.Time) {
	f.port, f.cookie, f.began = l.flights.take(c), rand.Uint32(), now
	c.edge.flight, c.edge.phase = f, flying
	from := netip.AddrPortFrom(f.src, f.port)
	switch f.proto {
	case raw.TCP:
		f.packet = raw.AppendTCP(f.packet[:0], from, f.remote, f.cookie, 0, raw.SYN)
	case raw.UDP:
		f.packet = raw.AppendUDP(f.packet[:0], from, f.remote, payload)
	default:
		body := make([]byte, echoSize)
		binary.BigEndian.PutUint32(body, f.cookie)
		f.packet = raw.AppendEcho(f.packet[:0], f.src, f.remote.Addr(), l.flights.socks.ID, f.port, body)
	}
}

// transmit sends the packet of a flight, for the first time or again.
func (l *loop) transmit(c *check, now time.Time) {
	f := c.edge.flight
	var err error
	if f.send != nil {
		err = f.send()
	} else {
		err = l.flights.socks.Queue(f.packet, c.spec.Addr.Unmap(), c.spec.Mark, c.spec.BindInterface, f.port)
	}
	if errors.Is(err, raw.ErrNoNeighbor) {
		l.seek(c, err, now)
		return
	}
	if err != nil && l.unsent(c, err, now) {
		return
	}
	f.why = ""
	at := f.began.Add(c.spec.ConnectTimeout)
	if f.tries < len(resend) && f.proto != raw.UDP {
		if again := now.Add(resend[f.tries]); again.Before(at) {
			at = again
		}
	}
	f.tries++
	l.timers.set(c, at)
}

// seek waits for the kernel to learn the link-layer address of a server: what
// was sent to make it learn is on its way. The probe of the server's own address
// need not have done so: bind_if may have led it over another link.
func (l *loop) seek(c *check, err error, now time.Time) {
	f := c.edge.flight
	pause := min(firstSeek<<min(f.seeks, 10), lastSeek)
	f.seeks++
	f.why = err.Error()
	at := f.began.Add(c.spec.ConnectTimeout)
	if again := now.Add(pause); again.Before(at) {
		at = again
	}
	l.timers.set(c, at)
}

// Pauses of seek. The kernel itself asks for an address once a second.
const (
	firstSeek = 5 * time.Millisecond
	lastSeek  = 500 * time.Millisecond
)

// unsent reports whether a packet that could not be sent ends its probe: where
// the box is too busy it is sent again later.
func (l *loop) unsent(c *check, err error, now time.Time) bool {
	if errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.EAGAIN) {
		return false
	}
	l.finish(c, outcome{local: isOurs(err), away: isAway(err), reason: explain(err)}, now)
	return true
}

// waited is called when the timer of a flight fires.
func (l *loop) waited(c *check, now time.Time) {
	f := c.edge.flight
	if now.Before(f.began.Add(c.spec.ConnectTimeout)) {
		l.transmit(c, now)
		return
	}
	if l.spare(c, now) {
		return
	}
	if f.why != "" {
		l.finish(c, outcome{reason: f.why}, now)
		return
	}
	if c.edge.asked != nil {
		ok, reason := c.edge.asked.Silence(c.spec.ConnectTimeout)
		l.finish(c, outcome{ok: ok, reason: reason}, now)
		return
	}
	l.finish(c, outcome{reason: "no answer within " + c.spec.ConnectTimeout.String()}, now)
}

// land forgets a flight.
func (l *loop) land(c *check) {
	if f := c.edge.flight; f != nil {
		l.flights.release(f.port)
		c.edge.flight = nil
		f.send = nil // which holds on to the check
		l.flights.landed = append(l.flights.landed, f)
	}
}

// arrived gives a packet to the probe that it answers. Whoever cannot see our
// packets cannot know the cookie.
func (l *loop) arrived(p *raw.Packet, now time.Time) {
	if p.Unreachable {
		l.lost(p, now)
		return
	}
	port := p.Dst.Port()
	if p.Echo {
		port = p.Num
	}
	c := l.flights.at(port)
	if c == nil {
		return
	}
	f := c.edge.flight
	if f.proto != p.Proto || f.remote.Addr() != p.Src.Addr().WithZone("") {
		return
	}
	switch {
	case p.Echo:
		if p.ID == l.flights.socks.ID && len(p.Payload) >= 4 && binary.BigEndian.Uint32(p.Payload) == f.cookie {
			l.finish(c, outcome{ok: true, reason: "echo reply"}, now)
		}
	case f.remote.Port() != p.Src.Port():
	case p.Proto == raw.UDP:
		l.judged(c, p.Payload, now)
	case p.Ack != f.cookie+1:
	case p.Flags&raw.RST != 0:
		l.finish(c, outcome{reason: "connection refused"}, now)
	case p.Flags&(raw.SYN|raw.ACK) == raw.SYN|raw.ACK:
		if f.wire {
			// The kernel may not see this answer at all: while the VIP is here it
			// drops it as a martian.
			f.packet = raw.AppendTCP(f.packet[:0], netip.AddrPortFrom(f.src, f.port), f.remote, f.cookie+1, 0, raw.RST)
			f.send()
		}
		l.finish(c, outcome{ok: true, reason: "SYN answered"}, now)
	}
}

// lost takes an ICMP error about a packet of ours.
func (l *loop) lost(p *raw.Packet, now time.Time) {
	port := p.About.Src.Port()
	if p.About.Proto == raw.ICMP || p.About.Proto == raw.ICMPv6 {
		if p.About.ID != l.flights.socks.ID {
			return
		}
		port = p.About.Num
	}
	c := l.flights.at(port)
	if c == nil {
		return
	}
	f := c.edge.flight
	if f.proto != p.About.Proto || f.remote.Addr() != p.About.Dst.Addr() ||
		f.proto == raw.TCP && p.About.Seq != f.cookie || f.proto == raw.UDP && p.About.Sum != raw.UDPSum(f.packet) || f.proto <= raw.UDP && f.remote.Port() != p.About.Dst.Port() && f.proto != raw.ICMP {
		return
	}
	why := p.Why()
	if from := p.Src.Addr(); from.IsValid() && from.WithZone("") != f.remote.Addr() && from.Unmap() != f.src {
		why += ", says " + from.String()
	}
	l.finish(c, outcome{reason: why}, now)
}

// evidenceSize is how much of a failed answer is shown.
const evidenceSize = 120

// throughVIP is the second half of a probe with through_vip: the server is well
// at its own address, and must now answer for the virtual one, by the way that
// IPVS takes: on the link to it, or inside a tunnel packet.
type throughVIP struct {
	real     netip.Addr
	forward  model.Forward
	tunnel   model.Tunnel
	services []model.ServiceID
	at       int // whose turn it is

	route raw.Route // to the real server
	epoch uint64    // when that was asked for, see raw.Sockets
}

// newThroughVIP says also why it cannot be done.
func newThroughVIP(vs *model.VirtualServer, r *model.RealServer) (*throughVIP, error) {
	v := &throughVIP{real: r.Addr.Unmap(), forward: r.Forward, tunnel: r.Tunnel}
	if r.Forward == model.NAT {
		return nil, errors.New("through_vip is for lvs_method DR and TUN: with NAT the real server never sees the virtual address")
	}
	for _, s := range vs.Services {
		switch {
		case s.Mark != 0:
			return nil, fmt.Errorf("through_vip: %s has no address that could be probed", s)
		case s.Protocol != model.TCP && s.Protocol != model.UDP:
			return nil, fmt.Errorf("through_vip: %s cannot be probed, only TCP and UDP", s.Protocol)
		case s.Addr.Unmap().Is4() != v.real.Is4():
			return nil, fmt.Errorf("through_vip: %s and %s are of different families: that way is not implemented", s.Addr, r.Addr)
		}
		v.services = append(v.services, s)
	}
	if len(v.services) == 0 {
		return nil, errors.New("through_vip: the virtual server has no address")
	}
	switch v.tunnel.Type {
	case "", "ipip", "gre", "gue":
	default:
		return nil, fmt.Errorf("through_vip: tunnel type %s is not implemented", v.tunnel.Type)
	}
	return v, nil
}

// beginVIP starts it.
func (l *loop) beginVIP(c *check, now time.Time) {
	v := c.via
	svc := v.services[v.at%len(v.services)]
	vip := svc.Addr.Unmap()
	fail := func(err error) {
		l.finish(c, outcome{local: true, reason: "through " + svc.String() + ": " + explain(err)}, now)
	}
	if err := l.openFlights(raw.Wire, vip.Is6()); err != nil {
		fail(err)
		return
	}
	if !l.room(c) {
		return
	}
	socks := l.flights.socks
	if v.epoch != socks.Epoch {
		route, err := socks.Route(v.real, c.spec.Mark, "")
		if err != nil {
			fail(err)
			return
		}
		v.route, v.epoch = route, socks.Epoch
	}
	route := v.route
	if route.Local {
		// This box is its own real server: it holds the VIP as a director does.
		l.finish(c, outcome{ok: true, reason: "this director itself"}, now)
		return
	}
	port := svc.Port
	if port == 0 {
		port = c.spec.Port // a service of all ports
	}
	f := l.flights.fresh()
	*f = flight{packet: f.packet[:0], proto: byte(svc.Protocol), remote: netip.AddrPortFrom(vip, port), src: route.Src, wire: true}
	var payload []byte
	switch {
	case c.spec.Kind == model.PingCheck && vip.Is6():
		f.proto = raw.ICMPv6
	case c.spec.Kind == model.PingCheck:
		f.proto = raw.ICMP
	case svc.Protocol == model.UDP:
		x, err := c.exchange()
		if err != nil {
			fail(err)
			return
		}
		c.edge.asked, payload = x, x.Payload()
	}
	l.launch(c, f, payload, now)
	var mac []byte
	known := false
	f.send = func() error {
		if v.forward == model.DR {
			if !known {
				var err error
				if mac, err = socks.Neighbor(route, v.real); errors.Is(err, raw.ErrNoNeighbor) {
					// Any packet makes the kernel ask for it. The echo's number is
					// none that a probe has, so that nobody takes the answer.
					socks.Send(raw.AppendEcho(nil, route.Src, v.real.WithZone(""), socks.ID, 0, nil), v.real, c.spec.Mark, "")
				}
				if err != nil {
					return err
				}
				known = true
			}
			return socks.SendWire(f.packet, route.Index, mac)
		}
		t := raw.Tunnel{Type: v.tunnel.Type, Port: v.tunnel.Port, Csum: v.tunnel.Csum != "" && v.tunnel.Csum != "nocsum"}
		b, err := raw.Wrap(f.packet, f.src, v.real, t, f.port)
		if err != nil {
			return err
		}
		return socks.Send(b, v.real, c.spec.Mark, "")
	}
	l.transmit(c, now)
}

// vipOutcome says what the second half of a probe means.
func (c *check) vipOutcome(own, o outcome) outcome {
	svc := c.via.services[c.via.at%len(c.via.services)]
	switch {
	case o.local || o.away:
		return o
	case o.ok:
		// The next probe asks for the next address; a failed one is asked again.
		c.via.at = (c.via.at + 1) % len(c.via.services)
		o.reason = own.reason + ", " + o.reason + " for " + svc.String()
		o.weight = own.weight
		return o
	}
	o.reason = fmt.Sprintf("well at its own address (%s), but as %s: %s; does it hold the virtual address?", own.reason, svc, o.reason)
	return o
}
