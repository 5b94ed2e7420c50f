// Package plan lays a lab out around a configuration: from any user's
// keepalived.conf it derives the segments, the subnets, the addresses of the
// two directors, the real servers (those that the file only names by address),
// a client, and what the client should ask for. It is pure: the same
// configuration always gives the same lab.
package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"ballast/configs/model"
)

// Plan is a lab to be.
type Plan struct {
	Segments  []Segment
	Directors [2]Director
	Client    Machine
	Routers   []Machine
	Servers   []Server
	Targets   []Target
	// Management is the interface name of the directors' management NIC, which
	// comes after those of the segments.
	Management string
	Notes      []string // what of the configuration the lab could not provide
}

// Segment is one Ethernet segment. Its place in Plan.Segments is that of its
// NIC in each director.
type Segment struct {
	Interface string // its name in the configuration
	Subnets   []netip.Prefix
}

// Director is one of the two boxes.
type Director struct {
	Name      string
	Addresses [][]netip.Prefix // by segment
	MACs      []string         // by segment
	// Configured tells, by segment, that the configuration has its own
	// interface block, so that the lab must not write one.
	Configured []bool
}

// Machine is a client or a router: a link on some segments.
type Machine struct {
	Name  string
	Links []Link
}

// Link is a machine's link to a segment.
type Link struct {
	Segment   int
	MAC       string
	Addresses []netip.Prefix
}

// Server is a real server or a sorry server.
type Server struct {
	Name    string
	Addr    netip.Addr
	Sorry   bool
	Link    Link
	VIPs    []netip.Addr // on lo (DR) or on its tunnel device (TUN)
	Forward map[model.Forward]bool
	TCP     []uint16
	UDP     []uint16
	Passive [2]uint16
	Gateway netip.Addr // of NAT; invalid: none
	Routes  []netip.Prefix
}

// Target is one service that the client may ask.
type Target struct {
	Name     string // of the virtual server
	Addr     netip.AddrPort
	Protocol model.Protocol
}

// MinSegments is how many segments a lab has at least, so that one with a
// single segment can take on a configuration with two later.
const MinSegments = 2

// SegmentMAC is the address of the NIC of director i (0 or 1) on a segment.
func SegmentMAC(segment, i int) string { return mac(segment, 1+i) }

// ManagementMAC is the address of the NIC of director i (0 or 1) that leads to
// the host; it comes after those of the segments.
func ManagementMAC(i int) string { return mac(0xfe, 1+i) }

// Names of the two boxes when the configuration gives none.
var Names = [2]string{"director-a", "director-b"}

// maker collects the plan.
type maker struct {
	p    *Plan
	cfg  [2]model.Config
	used map[netip.Addr]bool // addresses that are somebody's
	own  [2]map[netip.Addr]bool
	host map[netip.Prefix]int
}

// Make derives the lab. b is the second box's configuration; nil when it is
// not known yet, because it will be derived from the first one (see Peer).
func Make(a model.Config, b *model.Config) Plan {
	m := &maker{p: &Plan{}, used: map[netip.Addr]bool{}, own: [2]map[netip.Addr]bool{{}, {}}, host: map[netip.Prefix]int{}}
	m.cfg[0] = a
	if b != nil {
		m.cfg[1] = *b
	}
	for i := range m.p.Directors {
		m.p.Directors[i].Name = Names[i]
		if h := m.cfg[i].System.HostName; h != "" {
			m.p.Directors[i].Name = h
		}
	}
	m.collectUsed()
	m.segments()
	m.servers()
	m.directors()
	m.client()
	m.routers()
	m.gateways()
	m.targets()
	m.p.Management = m.freeInterface(max(MinSegments, len(m.p.Segments)))
	return *m.p
}

func (m *maker) note(format string, args ...any) {
	m.p.Notes = append(m.p.Notes, fmt.Sprintf(format, args...))
}

// mac numbers the lab's NICs: 52:54:00 is QEMU's own prefix.
func mac(segment, machine int) string {
	return fmt.Sprintf("52:54:00:ba:%02x:%02x", segment, machine)
}

// collectUsed remembers every address that the configuration names, so that no
// machine of the lab gets one of them by chance.
func (m *maker) collectUsed() {
	use := func(a netip.Addr) {
		if a.IsValid() {
			m.used[a] = true
		}
	}
	for i, c := range m.cfg {
		for _, in := range c.Instances {
			use(in.SrcIP)
			if in.SrcIP.IsValid() {
				m.own[i][in.SrcIP] = true
			}
			for _, p := range in.Peers {
				use(p.Addr)
				if len(in.Peers) == 1 {
					m.own[1-i][p.Addr] = true
				}
			}
			for _, v := range slices.Concat(in.VIPs, in.ExcludedVIPs) {
				use(v.Prefix.Addr())
			}
		}
		for _, itf := range c.Interfaces {
			for _, p := range itf.Addresses {
				use(p.Addr())
				m.own[i][p.Addr()] = true
			}
		}
		for _, v := range c.VirtualServers {
			for _, s := range v.Services {
				use(s.Addr)
			}
			for _, r := range realServers(v) {
				use(r.Addr)
			}
		}
	}
}

// realServers are all of a virtual server, the sorry server last.
func realServers(v model.VirtualServer) []model.RealServer {
	out := slices.Clone(v.Real)
	if v.Sorry != nil {
		out = append(out, *v.Sorry)
	}
	return out
}

// segments makes one segment for each interface that the configuration names.
func (m *maker) segments() {
	var names []string
	add := func(n string) {
		if n != "" && n != "lo" && !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	for _, c := range m.cfg {
		for _, in := range c.Instances {
			add(in.Interface)
			for _, v := range slices.Concat(in.VIPs, in.ExcludedVIPs) {
				add(v.Interface)
			}
			for _, t := range in.TrackInterfaces {
				add(t.Interface)
			}
		}
		if c.Global.SyncDaemon != nil {
			add(c.Global.SyncDaemon.Interface)
		}
		for _, a := range c.StaticAddrs {
			add(a.Interface)
		}
		for _, itf := range c.Interfaces {
			if !itf.DHCP {
				add(itf.Name)
			}
		}
	}
	if len(names) == 0 {
		names = []string{"eth0"}
	}
	names = slots(names)
	for _, n := range names {
		m.p.Segments = append(m.p.Segments, Segment{Interface: n})
	}
	for _, c := range m.cfg {
		for _, itf := range c.Interfaces {
			if i := m.segment(itf.Name); i >= 0 {
				for _, p := range itf.Addresses {
					m.addSubnet(i, p)
				}
			}
		}
		for _, in := range c.Instances {
			for _, v := range slices.Concat(in.VIPs, in.ExcludedVIPs) {
				dev := v.Interface
				if dev == "" {
					dev = in.Interface
				}
				if i := m.segment(dev); i >= 0 {
					m.addSubnet(i, v.Prefix)
				}
			}
			if i := m.segment(in.Interface); i >= 0 {
				if in.SrcIP.IsValid() {
					m.addSubnet(i, single(in.SrcIP))
				}
				for _, p := range in.Peers {
					m.addSubnet(i, single(p.Addr))
				}
			}
		}
	}
	// A service whose address no instance holds lies on the first segment.
	for _, v := range m.cfg[0].VirtualServers {
		for _, s := range v.Services {
			if s.Addr.IsValid() && m.find(s.Addr) < 0 {
				m.addSubnet(0, single(s.Addr))
				m.note("no vrrp_instance holds %s: nobody answers there", s.Addr)
			}
		}
	}
}

// slots orders interface names as the NICs will be: the kernel calls them eth0,
// eth1, … in the order of their slots, so such a name gets that slot, and the
// other names fill what is free.
func slots(names []string) []string {
	var out, others []string
	for _, n := range names {
		i, err := strconv.Atoi(strings.TrimPrefix(n, "eth"))
		if err != nil || n != "eth"+strconv.Itoa(i) || i < 0 || i > 7 {
			others = append(others, n)
			continue
		}
		for len(out) <= i {
			out = append(out, "")
		}
		out[i] = n
	}
	for _, n := range others {
		if i := slices.Index(out, ""); i >= 0 {
			out[i] = n
		} else {
			out = append(out, n)
		}
	}
	for i, n := range out {
		if n == "" {
			out[i] = "eth" + strconv.Itoa(i)
		}
	}
	return out
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// segment is the index of an interface's segment, -1 when there is none.
func (m *maker) segment(itf string) int {
	return slices.IndexFunc(m.p.Segments, func(s Segment) bool { return s.Interface == itf })
}

// find is the segment that has a subnet with a in it, -1 when none has.
func (m *maker) find(a netip.Addr) int {
	return slices.IndexFunc(m.p.Segments, func(s Segment) bool { return s.subnet(a).IsValid() })
}

// subnet is the segment's subnet that a is in.
func (s Segment) subnet(a netip.Addr) netip.Prefix {
	for _, n := range s.Subnets {
		if n.Contains(a) {
			return n
		}
	}
	return netip.Prefix{}
}

// addSubnet makes sure that an address has a subnet on a segment. A host
// address says nothing of its subnet: the usual /24 or /64 then.
func (m *maker) addSubnet(i int, p netip.Prefix) {
	if p.Addr().IsLinkLocalUnicast() || p.Addr().IsMulticast() {
		return
	}
	seg := &m.p.Segments[i]
	if seg.subnet(p.Addr()).IsValid() {
		return
	}
	if p.IsSingleIP() {
		bits := 24
		if p.Addr().Is6() {
			bits = 64
		}
		p = netip.PrefixFrom(p.Addr(), bits)
	}
	seg.Subnets = append(seg.Subnets, p.Masked())
}

// freeInterface is the first ethN from number n on that the configuration does
// not use.
func (m *maker) freeInterface(n int) string {
	for ; ; n++ {
		name := "eth" + strconv.Itoa(n)
		if m.segment(name) < 0 {
			return name
		}
	}
}

// pick picks a free address of a subnet, counting from a number on.
func (m *maker) pick(n netip.Prefix, from int) netip.Prefix {
	size := 1 << min(n.Addr().BitLen()-n.Bits(), 16)
	for i := range size {
		h := (from + i) % size
		if h == 0 || n.Addr().Is4() && h == size-1 && size > 2 {
			continue // the network's own address and the broadcast address
		}
		a := add(n.Masked().Addr(), h)
		if !m.used[a] {
			m.used[a] = true
			return netip.PrefixFrom(a, n.Bits())
		}
	}
	m.note("the subnet %s has no free address left", n)
	return netip.Prefix{}
}

// add counts an address up by less than 65536, inside its subnet.
func add(a netip.Addr, n int) netip.Addr {
	b := a.AsSlice()
	for i := len(b) - 1; i >= 0 && n > 0; i-- {
		n += int(b[i])
		b[i] = byte(n)
		n >>= 8
	}
	out, _ := netip.AddrFromSlice(b)
	return out
}
