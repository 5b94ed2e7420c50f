package plan

import (
	"net/netip"
	"slices"
	"strconv"

	"ballast/configs/model"
)

// servers makes a machine for each address that a real_server or sorry_server
// line names, unless it is a director's own.
func (m *maker) servers() {
	index := map[netip.Addr]int{}
	named, sorry := 0, 0
	for _, v := range m.cfg[0].VirtualServers {
		for i, r := range realServers(v) {
			isSorry := i == len(v.Real)
			if m.own[0][r.Addr] || m.own[1][r.Addr] {
				m.note("real server %s of %s is a director itself: nothing listens there", r.Addr, v.Name)
				continue
			}
			j, ok := index[r.Addr]
			if !ok {
				j = len(m.p.Servers)
				index[r.Addr] = j
				s := Server{Addr: r.Addr, Sorry: isSorry, Forward: map[model.Forward]bool{}}
				if isSorry {
					sorry++
					s.Name = "sorry" + strconv.Itoa(sorry)
				} else {
					named++
					s.Name = "rs" + strconv.Itoa(named)
				}
				s.Link.Segment = m.place(v, r)
				n := m.p.Segments[s.Link.Segment].subnet(r.Addr)
				s.Link.Addresses = []netip.Prefix{netip.PrefixFrom(r.Addr, n.Bits())}
				s.Link.MAC = mac(s.Link.Segment, 16+j)
				m.p.Servers = append(m.p.Servers, s)
			}
			m.fill(&m.p.Servers[j], v, r)
		}
	}
}

// place picks the segment of a real server.
func (m *maker) place(v model.VirtualServer, r model.RealServer) int {
	if i := m.find(r.Addr); i >= 0 {
		return i
	}
	front := 0 // where the service's address is
	for _, s := range v.Services {
		if s.Addr.IsValid() {
			front = max(m.find(s.Addr), 0)
		}
	}
	i := front
	if r.Forward == model.NAT {
		// Behind the directors: the segment beside the one with the service.
		i = -1
		for k := range m.p.Segments {
			if k != front {
				i = k
				break
			}
		}
		if i < 0 {
			m.p.Segments = append(m.p.Segments, Segment{Interface: m.freeInterface(len(m.p.Segments))})
			i = len(m.p.Segments) - 1
		}
	}
	m.addSubnet(i, single(r.Addr))
	return i
}

// fill adds what one real_server line asks of a machine.
func (m *maker) fill(s *Server, v model.VirtualServer, r model.RealServer) {
	s.Forward[r.Forward] = true
	open := func(proto model.Protocol, port uint16) {
		list := &s.TCP
		if proto == model.UDP {
			list = &s.UDP
		}
		if port != 0 && !slices.Contains(*list, port) {
			*list = append(*list, port)
		}
	}
	for _, id := range v.Services {
		if r.Forward != model.NAT && id.Addr.IsValid() && !slices.Contains(s.VIPs, id.Addr) {
			s.VIPs = append(s.VIPs, id.Addr)
		}
		proto := id.Protocol
		if proto == 0 {
			proto = model.TCP
		}
		open(proto, r.Port)
		open(proto, r.ConfPort)
		for _, mk := range m.cfg[0].Marks {
			if mk.Mark != id.Mark || id.Mark == 0 {
				continue
			}
			for _, rule := range mk.Rules {
				if a := rule.Dst.Addr(); r.Forward != model.NAT && rule.Dst.IsSingleIP() && !slices.Contains(s.VIPs, a) {
					s.VIPs = append(s.VIPs, a)
				}
				for _, p := range rule.Ports {
					if p.From == p.To {
						open(rule.Protocol, p.From)
					} else {
						s.Passive = [2]uint16{p.From, p.To} // a range: FTP's passive ports
					}
				}
			}
		}
		if id.Mark != 0 && len(m.cfg[0].Marks) == 0 && r.Forward != model.NAT {
			// Marks that come from elsewhere: any VIP of the file may be meant.
			for _, in := range m.cfg[0].Instances {
				for _, a := range in.VIPs {
					if !slices.Contains(s.VIPs, a.Prefix.Addr()) {
						s.VIPs = append(s.VIPs, a.Prefix.Addr())
					}
				}
			}
		}
	}
	for _, c := range r.Checks {
		if c.Addr != r.Addr && c.Addr.IsValid() {
			m.note("a check of %s asks %s, which the lab does not have", r.Addr, c.Addr)
			continue
		}
		switch c.Kind {
		case model.TCPCheck, model.HTTPGet, model.SSLGet:
			open(model.TCP, c.Port)
		case model.UDPCheck:
			open(model.UDP, c.Port)
		}
	}
}

// directors gives each box an address in every subnet of every segment.
func (m *maker) directors() {
	for si, seg := range m.p.Segments {
		for i := range m.p.Directors {
			d := &m.p.Directors[i]
			d.MACs = append(d.MACs, SegmentMAC(si, i))
			d.Addresses = append(d.Addresses, nil)
			d.Configured = append(d.Configured, false)
			for _, itf := range m.cfg[i].Interfaces {
				if itf.Name == seg.Interface {
					d.Addresses[si], d.Configured[si] = itf.Addresses, true
				}
			}
		}
		for _, n := range seg.Subnets {
			for i := range m.p.Directors {
				d := &m.p.Directors[i]
				if d.Configured[si] {
					continue
				}
				// The address that the file calls its own, or one from the top.
				a := netip.Prefix{}
				for _, in := range m.cfg[i].Instances {
					if in.Interface == seg.Interface && n.Contains(in.SrcIP) {
						a = netip.PrefixFrom(in.SrcIP, n.Bits())
					}
				}
				for _, in := range m.cfg[1-i].Instances {
					if in.Interface == seg.Interface && len(in.Peers) > 0 && n.Contains(in.Peers[0].Addr) {
						a = netip.PrefixFrom(in.Peers[0].Addr, n.Bits())
					}
				}
				if !a.IsValid() {
					a = m.pick(n, 251+i)
				}
				if a.IsValid() {
					d.Addresses[si] = append(d.Addresses[si], a)
				}
			}
		}
	}
}

// client puts a client into each subnet that holds a service.
func (m *maker) client() {
	m.p.Client.Name = "client"
	links := map[int]*Link{}
	add := func(a netip.Addr) {
		i := m.find(a)
		if i < 0 {
			return
		}
		if links[i] == nil {
			links[i] = &Link{Segment: i, MAC: mac(i, 8)}
		}
		n := m.p.Segments[i].subnet(a)
		for _, have := range links[i].Addresses {
			if n.Contains(have.Addr()) {
				return
			}
		}
		if p := m.pick(n, 100); p.IsValid() {
			links[i].Addresses = append(links[i].Addresses, p)
		}
	}
	for _, v := range m.cfg[0].VirtualServers {
		for _, s := range v.Services {
			if s.Addr.IsValid() {
				add(s.Addr)
			}
		}
	}
	for _, mk := range m.cfg[0].Marks {
		for _, r := range mk.Rules {
			if r.Dst.IsValid() {
				add(r.Dst.Addr())
			}
		}
	}
	if len(links) == 0 { // no service at all: the client watches the VIPs
		for _, in := range m.cfg[0].Instances {
			for _, v := range in.VIPs {
				add(v.Prefix.Addr())
			}
		}
	}
	for i := range m.p.Segments {
		if links[i] != nil {
			m.p.Client.Links = append(m.p.Client.Links, *links[i])
		}
	}
}

// gateways gives the real servers their way back to the client: through a
// director for NAT, straight for DR and TUN.
func (m *maker) gateways() {
	for i := range m.p.Servers {
		s := &m.p.Servers[i]
		if s.Forward[model.NAT] {
			s.Gateway = m.gateway(s)
			if m.clientIn(s.Link.Addresses[0]) {
				// The client is a neighbour. A host address makes the answers go
				// through the director all the same.
				s.Link.Addresses[0] = single(s.Addr)
			}
			continue
		}
		for _, l := range m.p.Client.Links {
			if l.Segment != s.Link.Segment {
				m.note("%s answers clients of %s directly, but is not on that segment", s.Name, m.p.Segments[l.Segment].Interface)
				continue
			}
			for _, a := range l.Addresses {
				if n := a.Masked(); !n.Contains(s.Addr) && n.Addr().Is4() == s.Addr.Is4() {
					s.Routes = append(s.Routes, n)
				}
			}
		}
	}
}

// routers makes the gateways that the configuration's routes name. A router
// also has an address in each subnet of its segment that the directors are not
// in: real servers of LVS-TUN that are far away.
func (m *maker) routers() {
	made := map[netip.Addr]bool{}
	for _, r := range m.cfg[0].StaticRoutes {
		i := m.find(r.Via)
		if !r.Via.IsValid() || i < 0 || made[r.Via] || m.used[r.Via] {
			continue
		}
		made[r.Via] = true
		m.used[r.Via] = true
		n := len(m.p.Routers) + 1
		l := Link{Segment: i, MAC: mac(i, 10+n), Addresses: []netip.Prefix{netip.PrefixFrom(r.Via, m.p.Segments[i].subnet(r.Via).Bits())}}
		for _, s := range m.p.Segments[i].Subnets {
			near := func(a netip.Prefix) bool { return s.Contains(a.Addr()) }
			if !slices.ContainsFunc(m.p.Directors[0].Addresses[i], near) && !near(l.Addresses[0]) {
				if a := m.pick(s, 1); a.IsValid() {
					l.Addresses = append(l.Addresses, a)
				}
			}
		}
		m.p.Routers = append(m.p.Routers, Machine{Name: "router" + strconv.Itoa(n), Links: []Link{l}})
	}
}

func (m *maker) clientIn(n netip.Prefix) bool {
	for _, l := range m.p.Client.Links {
		for _, a := range l.Addresses {
			if n.Contains(a.Addr()) {
				return true
			}
		}
	}
	return false
}

// gateway is a VIP in the real server's subnet, which moves with the master,
// or else the first director's address there.
func (m *maker) gateway(s *Server) netip.Addr {
	n := m.p.Segments[s.Link.Segment].subnet(s.Addr)
	service := map[netip.Addr]bool{}
	for _, v := range m.cfg[0].VirtualServers {
		for _, id := range v.Services {
			service[id.Addr] = true
		}
	}
	found := netip.Addr{}
	for _, in := range m.cfg[0].Instances {
		for _, v := range slices.Concat(in.VIPs, in.ExcludedVIPs) {
			if a := v.Prefix.Addr(); n.Contains(a) && (!found.IsValid() || service[found] && !service[a]) {
				found = a // one that is no service's is more likely meant as the gateway
			}
		}
	}
	if found.IsValid() {
		return found
	}
	for _, a := range m.p.Directors[0].Addresses[s.Link.Segment] {
		if n.Contains(a.Addr()) {
			m.note("no VIP in %s can be the gateway of %s: it uses %s's address and loses its way when that one is down", n, s.Name, m.p.Directors[0].Name)
			return a.Addr()
		}
	}
	return netip.Addr{}
}

// targets lists what the client can ask.
func (m *maker) targets() {
	for _, v := range m.cfg[0].VirtualServers {
		for _, id := range v.Services {
			proto := id.Protocol
			if proto == 0 {
				proto = model.TCP
			}
			if id.Addr.IsValid() {
				m.p.Targets = append(m.p.Targets, Target{v.Name, netip.AddrPortFrom(id.Addr, id.Port), proto})
				continue
			}
			for _, mk := range m.cfg[0].Marks {
				if mk.Mark != id.Mark {
					continue
				}
				for _, r := range mk.Rules {
					if r.Dst.IsValid() && len(r.Ports) > 0 {
						m.p.Targets = append(m.p.Targets, Target{v.Name, netip.AddrPortFrom(r.Dst.Addr(), r.Ports[0].From), r.Protocol})
					}
				}
			}
		}
	}
}
