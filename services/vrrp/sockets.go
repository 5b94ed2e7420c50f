package vrrp

import (
	"fmt"
	"net/netip"
	"time"

	"ballast/services/vrrp/core"
	"ballast/services/vrrp/kernel"
)

// sockKey names a socket: one for each interface and family with multicast
// routers, one for each family with unicast ones (index 0).
type sockKey struct {
	index int
	ipv6  bool
	ah    bool // packets with an authentication header
	tap   bool // on the interface of a virtual MAC
}

type sock struct {
	*kernel.Socket
	key     sockKey
	groups  []netip.Addr
	routers [256][]*router // by VRID
	users   int
	read    uint64 // the turn in which it was read last
}

// attach gives a router the socket that it needs now, opening it if need be.
// On a virtual MAC that is a receiver of its own; the interface below then
// joins the group, and sends where vmac_xmit_base says so.
func (s *service) attach(r *router, key sockKey, name string) error {
	var below sockKey
	if r.onVirtualMAC() {
		below, key.index, key.tap = key, r.vlink.Index, true
		if r.below != nil && r.below.key != below {
			s.detach(r)
		}
	}
	if r.sock != nil && r.sock.key == key {
		return nil
	}
	s.detach(r)
	if key.tap {
		k, err := s.open(r, below, name)
		if err != nil {
			return err
		}
		k.users++
		r.below = k
		name = r.vlink.Name
	}
	k, err := s.open(r, key, name)
	if err != nil {
		return err
	}
	k.routers[r.cfg.VRID] = append(k.routers[r.cfg.VRID], r)
	k.users++
	r.sock = k
	return nil
}

// open finds or opens a socket and joins the router's group on it.
func (s *service) open(r *router, key sockKey, name string) (*sock, error) {
	k := s.socks[key]
	if k == nil {
		var raw *kernel.Socket
		var err error
		switch {
		case key.tap:
			raw, err = kernel.OpenVirtual(key.index, name, key.ipv6, key.ah)
		case key.index == 0:
			raw, err = kernel.OpenUnicast(key.ipv6, key.ah)
		default:
			raw, err = kernel.OpenMulticast(key.index, name, key.ipv6, key.ah)
		}
		if err != nil {
			return nil, err
		}
		if err := s.loop.Add(raw.FD()); err != nil {
			raw.Close()
			return nil, err
		}
		k = &sock{Socket: raw, key: key}
		s.socks[key], s.byFD[raw.FD()] = k, k
	}
	if !r.cfg.Unicast && !contains(k.groups, r.cfg.McastGroup) {
		if err := k.Join(r.cfg.McastGroup); err != nil {
			return nil, err
		}
		k.groups = append(k.groups, r.cfg.McastGroup)
	}
	return k, nil
}

func contains(list []netip.Addr, a netip.Addr) bool {
	for _, v := range list {
		if v == a {
			return true
		}
	}
	return false
}

func (s *service) detach(r *router) {
	if r.below != nil {
		r.below.users--
		r.below = nil
	}
	k := r.sock
	if k == nil {
		return
	}
	list := k.routers[r.cfg.VRID]
	for i := range list {
		if list[i] == r {
			k.routers[r.cfg.VRID] = append(list[:i:i], list[i+1:]...)
			k.users--
			break
		}
	}
	r.sock = nil
}

// dropSockets closes what no router uses.
func (s *service) dropSockets() {
	for key, k := range s.socks {
		if k.users == 0 {
			delete(s.socks, key)
			delete(s.byFD, k.FD())
			// The pacer may hold the socket a moment longer, and with it what
			// epoll knows of it.
			s.loop.Remove(k.FD())
			s.stand.forget(k.FD())
			k.Close()
		}
	}
}

// rejoin renews the memberships after the interface came back.
func (k *sock) rejoin(s *service) {
	for _, g := range k.groups {
		if err := k.Join(g); err != nil {
			s.log.limited("join", "%v", err)
		}
	}
}

// drainMax bounds what one turn reads from one socket, so that a flood cannot
// keep the timers waiting.
const drainMax = 512

// drain reads what a socket holds.
func (s *service) drain(k *sock) {
	k.read = s.turns.Load()
	s.taken.Anew()
	for n := 0; n < drainMax || s.taken.Left() > 0; n++ {
		p, ok := k.Receive(s.taken)
		if !ok {
			return
		}
		s.packets++
		if len(p.Payload) < 2 {
			continue
		}
		r := k.pick(&p)
		if r == nil {
			if s.unknownVRIDs {
				s.log.limited(fmt.Sprint("vrid", p.Payload[1]), "packet from %s of virtual router %d, which is not configured here", p.Src, p.Payload[1])
			}
			continue
		}
		if s.now < r.deafUntil {
			continue
		}
		r.receive(&p, s.now-p.Age)
	}
}

// pick finds the router that a packet is for. Several routers may share a VRID;
// then the groups tell them apart, or the peers where they are unicast.
func (k *sock) pick(p *kernel.Received) *router {
	var found *router
	for _, r := range k.routers[p.Payload[1]] {
		if r.cfg.Unicast == p.Dst.IsMulticast() || !r.cfg.Unicast && r.cfg.McastGroup != p.Dst {
			continue
		}
		if peerOf(&r.cfg, p.Src) != nil {
			return r
		}
		if found == nil {
			found = r
		}
	}
	return found
}

// receive judges a packet and lets the machine see it.
func (r *router) receive(p *kernel.Received, at time.Duration) {
	if r.st.Phase == core.Fault || r.st.Phase == core.Init {
		return
	}
	r.stats.AdvertRcvd++
	lists, intervals := r.stats.AddrListErr, r.stats.AdvertIntervalErr
	oldSum := r.mem.oldSum
	a, bad := r.mem.check(&r.cfg, arrival{p.Src, p.Dst, p.TTL, p.Payload, p.Packet, time.Now()}, &r.stats)
	if bad != "" {
		r.reject(p.Src, bad, at)
		r.s.log.limitedRouter(r, "packet from %s %s, ignored", p.Src, bad)
		return
	}
	if oldSum != r.mem.oldSum {
		r.s.log.info("%s: %s makes checksums as keepalived up to 1.3.6 did; doing the same from now on", r.cfg.Name, p.Src)
	}
	r.heard(p.Src, &a, at)
	if lists != r.stats.AddrListErr {
		r.s.log.limitedRouter(r, "%s advertises other virtual addresses than are configured here", p.Src)
	}
	if intervals != r.stats.AdvertIntervalErr {
		r.s.log.limitedRouter(r, "%s has advert_int %s, here it is %s", p.Src, a.AdvertInt, r.cfg.AdvertInt)
	}
	if a.Priority == 0 {
		r.stats.PriZeroRcvd++
	}
	r.noteRival(p.Src, a.Priority, a.AdvertInt)
	if a.Priority != 0 {
		r.vacant = false
	}
	ev := core.Event{Kind: core.Advert, From: p.Src, Priority: a.Priority, AdvertInt: a.AdvertInt, RxAt: at}
	if !r.yield(ev) {
		r.step(ev)
	}
}
