package vrrp

import (
	"crypto/rand"
	"encoding/binary"
	"net/netip"
	"reflect"
	"time"

	"ballast/configs/model"
	"ballast/services/vrrp/core"
	"ballast/services/vrrp/heartbeat"
	"ballast/services/vrrp/kernel"
)

// mate is the other box of the pair, as the private heartbeat shows it, and
// what the loop needs to speak with it.
type mate struct {
	s     *service
	raw   model.Heartbeat // as configured
	cfg   model.Heartbeat
	codec *heartbeat.Codec
	peer  *heartbeat.Peer
	agent heartbeat.Agent
	paths []path
	socks map[mateSock]*kernel.UDP
	asks  map[askKey]*asker

	seq    uint64
	next   time.Duration // next regular heartbeat
	due    time.Duration // when this has to run; what it promised the loop
	cursor int           // first router of the next regular heartbeat
	table  uint32
	keys   []heartbeat.Key
	retry  time.Duration // sockets that are missing

	views []heartbeat.View
	now   []heartbeat.Record // of our routers
	said  []heartbeat.Record // as they were last sent
	acts  []heartbeat.Action

	saidAt time.Duration // when everything was told last

	in    heartbeat.Message
	out   heartbeat.Message
	buf   []byte
	up    bool // in the turn before
	told  told
	heard bool // something came in this turn
}

// path is one address of the peer.
type path struct {
	model.HeartbeatPath
	sock     *kernel.UDP
	index    int // of the interface; 0: by route
	up       bool
	told     told
	sent     uint64
	received uint64
	rejected uint64
}

type mateSock struct {
	name string
	ipv6 bool
}

type askKey struct {
	index int
	ipv6  bool
}

// asker asks on one link. It hears every answer there, so it goes when nobody
// was asked for a while.
type asker struct {
	*kernel.Neighbours
	last time.Duration // asked
}

const askerIdle = time.Second

func drawn() uint64 {
	var b [8]byte
	rand.Read(b[:])
	return binary.NativeEndian.Uint64(b[:])
}

// setHeartbeat takes over the configuration. A heartbeat that it does not
// change goes on.
func (s *service) setHeartbeat(c *model.Heartbeat) {
	if s.mate != nil && (c == nil || !reflect.DeepEqual(*c, s.mate.raw)) {
		s.mate.close()
		s.mate = nil
		for _, r := range s.routers {
			r.abandon()
		}
	}
	if c == nil || s.mate != nil {
		return
	}
	m := &mate{
		s: s, raw: *c, cfg: *c, told: newTold(upWord(false), s.now), codec: heartbeat.NewCodec(c.Key), next: s.now,
		socks: map[mateSock]*kernel.UDP{}, asks: map[askKey]*asker{}, buf: make([]byte, 0, heartbeat.MaxLen),
	}
	if m.cfg.Interval < 5*time.Millisecond {
		m.cfg.Interval = 10 * time.Millisecond
	}
	if m.cfg.Multiplier < 2 {
		m.cfg.Multiplier = 3
	}
	if m.cfg.Port == 0 {
		m.cfg.Port = 1912
	}
	for _, p := range c.Paths {
		m.paths = append(m.paths, path{HeartbeatPath: p, told: newTold(upWord(false), s.now)})
	}
	m.peer = heartbeat.NewPeer(len(m.paths), m.cfg.Interval, m.cfg.Multiplier, s.now, drawn)
	m.in.Records = make([]heartbeat.Record, 0, heartbeat.MaxRecords)
	s.mate = m
	m.open()
	m.reset()
}

func (m *mate) close() {
	for _, u := range m.socks {
		delete(m.s.readers, u.FD())
		u.Close()
	}
	for key := range m.asks {
		m.dropAsker(key)
	}
}

func (m *mate) dropAsker(key askKey) {
	n := m.asks[key]
	delete(m.s.readers, n.FD())
	n.Close()
	delete(m.asks, key)
}

// open opens the sockets that are missing, and anew those of an interface that
// is another one now. Paths by one interface share a socket.
func (m *mate) open() {
	m.retry = m.s.now + time.Second
	for key, n := range m.asks {
		if m.s.now-n.last > askerIdle {
			m.dropAsker(key)
		}
	}
	for i := range m.paths {
		p := &m.paths[i]
		index := 0
		if p.Interface != "" {
			if l := m.s.links[p.Interface]; l != nil {
				index = l.Index
			}
		}
		if index != p.index {
			m.drop(mateSock{p.Interface, p.Peer.Is6()})
		}
		p.index = index
	}
	for i := range m.paths {
		p := &m.paths[i]
		key := mateSock{p.Interface, p.Peer.Is6()}
		if m.socks[key] == nil && (p.Interface == "" || p.index != 0) {
			u, err := kernel.OpenUDP(kernel.UDPOptions{IPv6: key.ipv6, Interface: p.Interface, Port: m.cfg.Port})
			if err == nil {
				if err = m.s.read(u.FD(), m.drain); err != nil {
					u.Close()
				}
			}
			if err != nil {
				m.s.log.limited("heartbeat socket", "heartbeat to %s: %v", p.Peer, err)
			} else {
				m.socks[key] = u
			}
		}
		p.sock = m.socks[key]
	}
}

func (m *mate) drop(key mateSock) {
	if u := m.socks[key]; u != nil {
		delete(m.s.readers, u.FD())
		u.Close()
		delete(m.socks, key)
	}
}

// reset follows a new list of routers.
func (m *mate) reset() {
	m.view()
	m.agent.Reset(m.views)
	changed := len(m.keys) != len(m.views)
	for i := range m.views {
		changed = changed || m.keys[i] != m.views[i].Key
	}
	if changed {
		m.table++
		m.keys = m.keys[:0]
		for i := range m.views {
			m.keys = append(m.keys, m.views[i].Key)
		}
	}
}

// phases of the machine, as they go over the wire.
var phases = [...]heartbeat.Phase{core.Init: heartbeat.Init, core.Backup: heartbeat.Backup, core.Master: heartbeat.Master, core.Fault: heartbeat.Fault}

// view looks at our own routers.
func (m *mate) view() {
	m.views, m.now = m.views[:0], m.now[:0]
	for i, r := range m.s.routers {
		v := heartbeat.View{Key: r.key, Phase: phases[r.st.Phase], Source: r.src, Wants: r.st.Want, Group: r.groupNumber()}
		switch r.st.Phase {
		case core.Backup:
			v.Master = r.st.MasterAddr
			v.Ready = !r.st.Held && m.s.gate.open() && m.s.now >= r.deafUntil && !r.outranked()
		case core.Master:
			v.Answers = !r.claiming && m.s.announced(r)
		}
		m.views = append(m.views, v)
		m.now = append(m.now, heartbeat.Record{
			Key: r.key, Phase: v.Phase, Priority: r.st.Effective, Source: r.src,
			Vacant: r.vacant, Answers: v.Answers, Asks: m.agent.Asks(i),
		})
	}
}

// groupNumber is the place of the router's group; 0: it has none.
func (r *router) groupNumber() int {
	if r.group == nil {
		return 0
	}
	return r.group.number
}

// drain takes what the sockets hold.
func (m *mate) drain() {
	for _, u := range m.socks {
		for range drainMax {
			d, ok := u.Receive()
			if !ok {
				break
			}
			m.receive(&d)
		}
	}
	for _, n := range m.asks {
		for range drainMax {
			a := n.Answer()
			if !a.IsValid() {
				break
			}
			for i, r := range m.s.routers {
				if r.st.MasterAddr == a {
					m.agent.Alive(i)
				}
			}
		}
	}
}

func (m *mate) receive(d *kernel.Datagram) {
	i := m.pathOf(d)
	if i < 0 {
		m.s.log.limited("heartbeat stranger", "heartbeat from %s, which is no peer of the heartbeat block, ignored", d.Src.Addr())
		return
	}
	p := &m.paths[i]
	if err := m.codec.Open(d.Payload, d.Dst, &m.in); err != nil {
		p.rejected++
		m.s.log.limited("heartbeat key", "heartbeat from %s %v, ignored; both boxes must have the same key in the heartbeat block", d.Src.Addr(), err)
		return
	}
	switch v := m.peer.Heard(i, m.s.loop.Now()-d.Age, &m.in); v {
	case heartbeat.Accepted:
		p.received++
		m.heard = true
	case heartbeat.Replayed, heartbeat.Own:
		p.rejected++
		m.s.log.limited("heartbeat replay", "heartbeat from %s was heard before, ignored", d.Src.Addr())
	}
}

// pathOf finds the path that a datagram came by.
func (m *mate) pathOf(d *kernel.Datagram) int {
	for i := range m.paths {
		p := &m.paths[i]
		if p.Peer == d.Src.Addr() && (p.index == 0 || p.index == d.Index) && d.Src.Port() == m.cfg.Port {
			return i
		}
	}
	return -1
}

// turn is this room's part of a turn of the loop: all that the kernel holds is
// read before anything is decided.
func (m *mate) turn() {
	s := m.s
	if s.now >= m.retry {
		m.open()
	}
	if !m.heard && s.now < m.due {
		return
	}
	m.drain()
	m.heard = false
	late := time.Duration(0)
	if at := m.peer.Deadline(0); at != 0 && s.now > at {
		late = s.now - at
	}
	m.peer.Expire(s.now, late)
	m.tell()
	m.view()
	m.acts = m.agent.Decide(s.now, m.views, m.peer, m.acts[:0])
	for _, a := range m.acts {
		m.act(a)
	}
}

// reasons of the agent, as the machine says them.
var whys = [...]core.Code{heartbeat.PeerDead: core.PeerDead, heartbeat.PeerLeft: core.PeerLeft, heartbeat.PeerAsked: core.PeerAsked}

func (m *mate) act(a heartbeat.Action) {
	r := m.s.routers[a.Router]
	switch a.Do {
	case heartbeat.TakeOver:
		if a.Why == heartbeat.PeerDead && r.sock != nil {
			m.s.drain(r.sock) // its last advertisements: it may have changed its mind, or its place
		}
		r.step(core.Event{Kind: core.TakeOver, From: a.From, Why: whys[a.Why], After: a.After, Until: a.Until})
	case heartbeat.LetGo:
		r.letGo()
	case heartbeat.Stay:
		r.abandon()
	case heartbeat.Announce:
		m.s.announce(r, 1)
	case heartbeat.Contest:
		r.advertise(r.st.Effective)
	case heartbeat.Probe:
		if !m.ask(r, a.From) {
			m.agent.Alive(a.Router) // nobody knows: the protocol decides
		}
	}
}

// ask asks for the master's address on the link where it advertises.
func (m *mate) ask(r *router, addr netip.Addr) bool {
	l := r.link
	if l == nil || !l.Ether || !m.s.onLink(l.Index, addr) {
		return false
	}
	key := askKey{l.Index, addr.Is6()}
	n := m.asks[key]
	if n == nil {
		socket, err := kernel.OpenNeighbours(l.Index, l.Name, key.ipv6)
		if err == nil {
			if err = m.s.read(socket.FD(), m.drain); err != nil {
				socket.Close()
			}
		}
		if err != nil {
			m.s.log.limited("heartbeat ask", "%v", err)
			return false
		}
		n = &asker{Neighbours: socket}
		m.asks[key] = n
	}
	n.last = m.s.now
	if err := n.Ask(addr, l.MAC, r.src); err != nil {
		m.s.log.limited("heartbeat ask", "ask for %s on %s: %v", addr, l.Name, err)
		m.dropAsker(key)
		return false
	}
	return true
}

// onLink tells whether an address is one of the link's own subnets.
func (s *service) onLink(index int, addr netip.Addr) bool {
	for _, a := range s.addrs {
		if a.Index == index && a.Prefix.Masked().Contains(addr) && a.Prefix.Bits() < addr.BitLen() {
			return true
		}
	}
	return false
}

// finish ends a turn: what changed is said at once, the rest in its time.
func (m *mate) finish() {
	s := m.s
	for i, r := range s.routers {
		if r.leaving != stayHere && !m.agent.Leaving(i) {
			r.abandon() // its key is another one now, or it lost the place otherwise
		}
	}
	m.view()
	if len(m.now) != len(m.said) {
		m.say()
	} else {
		for i := range m.now {
			if m.now[i] != m.said[i] {
				m.say()
				break
			}
		}
	}
	now := s.loop.Now()
	if now >= m.next {
		if m.cursor >= len(m.now) {
			m.cursor = 0
		}
		m.cursor += m.send(m.cursor)
		if m.next += m.cfg.Interval; m.next <= now {
			m.next = now + m.cfg.Interval
		}
	}
	m.due = m.next
	silent := m.peer.Deadline(heartbeat.Ahead)
	if silent <= s.now {
		silent = m.peer.Deadline(0) // suspected already
	}
	for _, at := range [...]time.Duration{silent, m.agent.Deadline()} {
		if at != 0 {
			m.due = min(m.due, at)
		}
	}
	m.due = max(m.due, now+500*time.Microsecond) // a loop of real-time priority must never spin
}

// pulse keeps the heartbeat going while the loop does something long.
func (m *mate) pulse() {
	if now := m.s.loop.Now(); now >= m.next {
		m.send(0)
		m.next = now + m.cfg.Interval
	}
}

// sayNow tells in the middle of a turn what must not wait for its end. Of many
// routers that change in one turn not each is worth a word of its own.
func (m *mate) sayNow() {
	if len(m.s.routers) <= heartbeat.MaxRecords || m.s.loop.Now() >= m.saidAt+m.cfg.Interval/2 {
		m.say()
	}
}

// say tells the peer everything, now.
func (m *mate) say() {
	m.view()
	m.saidAt = m.s.loop.Now()
	m.said = append(m.said[:0], m.now...)
	for from := 0; ; from += heartbeat.MaxRecords {
		m.send(from)
		if from+heartbeat.MaxRecords >= len(m.now) {
			return
		}
	}
}

// send sends the records from one on to every path and tells how many.
func (m *mate) send(from int) int {
	m.seq++
	m.peer.Stamp(&m.out, m.seq)
	m.out.Table = m.table
	m.out.Records = m.now[from:min(len(m.now), from+heartbeat.MaxRecords)]
	b := m.out.Append(m.buf[:0])
	for i := range m.paths {
		p := &m.paths[i]
		if p.sock == nil {
			continue
		}
		sealed := m.codec.Seal(b, p.Peer)
		if err := p.sock.Send(sealed, netip.AddrPortFrom(p.Peer, m.cfg.Port), p.From, p.index); err == nil {
			p.sent++
		}
	}
	return len(m.out.Records)
}

// linkGone tells that the router cannot be reached where it advertises, so that
// the peer may take over before our addresses are gone.
func (r *router) linkGone() bool { return r.link == nil || !r.link.Up || !r.link.Run }

// keyOf names the router as both boxes know it.
func keyOf(c *model.Instance) heartbeat.Key {
	var vips []netip.Addr
	for _, v := range c.VIPs {
		vips = append(vips, v.Prefix.Addr())
	}
	for _, v := range c.ExcludedVIPs {
		vips = append(vips, v.Prefix.Addr())
	}
	return heartbeat.NewKey(c.VRID, c.IPv6, vips)
}
