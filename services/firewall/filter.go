package firewall

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc/status"
)

// The input filter: what may reach the box itself. Its chain stands behind
// IPVS, as that of no_accept does: balanced packets never come here, so no
// virtual server needs a rule and no forwarded packet pays for one.
//
// It keeps no connections. Tracking them would make the kernel look at every
// packet of every balanced connection and give each an entry in a table of
// limited size; a director carries millions. What belongs to a connection of
// the box is known without it: TCP that opens nothing (anything but SYN without
// ACK) can only reach a socket that has a connection, or is answered with a
// reset; and UDP that answers somebody reaches a socket that is connected, which
// the rule asks the kernel's socket table for.
const (
	filterChain = "input"
	// PriorityInput is behind IPVS and behind no_accept.
	PriorityInput = PriorityNoAccept + 10

	pingsPerSecond = 500
	logsPerSecond  = 5
)

// Does is what a rule of the filter does with a packet.
type Does string

// What rules of the filter do.
const (
	Accepts Does = "accept"
	Drops   Does = "drop"
	Logs    Does = "log" // and goes on
)

// Entry is one rule of the filter. Its name is for people, and what keeps its
// counter together over a change; no two of a chain have the same.
type Entry struct {
	Name   string
	Match  []Match
	Does   Does
	Second int // at most so many packets a second match; 0: any number
}

// Set is what a rule looks addresses or interfaces up in, sorted.
type Set struct {
	Name       string
	Addrs      []netip.Addr // of one family
	Interfaces []string

	// Clients is how long an address and port stays that rules put into it; 0: they
	// put none.
	Clients time.Duration
	Six     bool // addresses of clients are of IPv6
}

// Fixed ports and protocols.
const (
	protoICMP, protoIGMP, protoTCP, protoUDP, protoAH, protoICMP6, protoVRRP = 1, 2, 6, 17, 51, 58, 112

	sshPort                = 22
	dhcpServer, dhcpClient = 67, 68
	bfdPort, bfdMultihop   = 3784, 4784
	syncPort               = 8848
	tftpPort, proxyDHCP    = 69, 4011
	netbootHTTP            = 1914 // services/netboot
)

// Filter adds the input filter that a configuration asks for. name gives the
// kernel's name of an interface that the configuration may call by another one.
// It is pure.
func Filter(rs Ruleset, c *model.Config, name func(string) string) Ruleset {
	f := &filter{c: c, iface: name, at: map[string]int{}, named: map[string]int{}}
	f.always()
	f.allowed()
	f.pair()
	f.services()
	f.netboot()
	f.add(Accepts, "answers to the box by UDP", proto(protoUDP), connected())
	if c.Firewall.Log && !c.Firewall.Accept {
		f.append(Entry{Name: "log", Does: Logs, Second: logsPerSecond})
	}
	last := Drops
	if c.Firewall.Accept {
		last = Accepts
	}
	f.add(last, "everything else")
	rs.Chains = append(slices.Clone(rs.Chains), Chain{Name: filterChain, Hook: Input, Priority: PriorityInput, Drop: last == Drops, Entries: f.entries})
	for i := range f.sets {
		slices.SortFunc(f.sets[i].Addrs, netip.Addr.Compare)
		slices.Sort(f.sets[i].Interfaces)
	}
	rs.Sets = f.sets
	return rs
}

// syncGroup is the kernel's default (linux/ip_vs.h).
var syncGroup = netip.AddrFrom4([4]byte{224, 0, 0, 81})

type filter struct {
	c       *model.Config
	iface   func(string) string
	entries []Entry
	sets    []Set
	at      map[string]int // sets, by name
	named   map[string]int // entries, by name: there may be many before they are counted
}

// add appends a rule. A second one of the name says nothing new or gets a number.
func (f *filter) add(does Does, name string, match ...Match) {
	e := Entry{Name: name, Match: match, Does: does}
	for n := 2; ; n++ {
		i, ok := f.named[e.Name]
		if !ok {
			break
		}
		if slices.Equal(f.entries[i].Match, match) && f.entries[i].Does == does {
			return
		}
		e.Name = fmt.Sprintf("%s (%d)", name, n)
	}
	f.append(e)
}

func (f *filter) append(e Entry) {
	f.named[e.Name] = len(f.entries)
	f.entries = append(f.entries, e)
}

// refuse drops what was not accepted where nothing else would: elsewhere the
// last rule does it, and logs it.
func (f *filter) refuse(name string, match ...Match) {
	if f.c.Firewall.Accept {
		f.add(Drops, name, match...)
	}
}

// addr puts an address into the set of its family and returns the match for it.
func (f *filter) addr(set string, a netip.Addr) Match {
	a = a.Unmap().WithZone("")
	set += "4"
	if a.Is6() {
		set = set[:len(set)-1] + "6"
	}
	s := f.set(set)
	if !slices.Contains(s.Addrs, a) {
		s.Addrs = append(s.Addrs, a)
	}
	return sourceIn(set, a.Is6())
}

// on puts an interface into a set and returns the match for it.
func (f *filter) on(set, iface string) Match {
	s := f.set(set)
	if n := f.iface(iface); !slices.Contains(s.Interfaces, n) {
		s.Interfaces = append(s.Interfaces, n)
	}
	return interfaceIn(set)
}

func (f *filter) set(name string) *Set {
	i, ok := f.at[name]
	if !ok {
		i = len(f.sets)
		f.at[name] = i
		f.sets = append(f.sets, Set{Name: name})
	}
	return &f.sets[i]
}

const (
	// The other box tells of a connection two seconds after it changed at the latest
	// (IPVS_SYNC_FLUSH_TIME of net/netfilter/ipvs/ip_vs_sync.c).
	patienceTime = 2900 * time.Millisecond
	// forgetTime is how long a client that was given that time is given no more.
	forgetTime = time.Minute
	// maxClients bounds those sets; beyond it nobody is waited for.
	maxClients = 16384
)

// patience keeps the kernel from resetting a connection that the other box has
// balanced until a moment ago, and has not told of yet: IPVS does not know it, nor
// does a socket. What comes of it is dropped for a while, so that the client sends
// it again; a connection that is still not known then is reset as ever.
func (f *filter) patience() {
	f.add(Accepts, "TCP connections of the box", proto(protoTCP), opensNothing(), somebody())
	for _, version := range []string{"4", "6"} {
		six, known, waits := version == "6", "sync_known"+version, "sync_waits"+version
		*f.set(known) = Set{Name: known, Clients: forgetTime, Six: six}
		*f.set(waits) = Set{Name: waits, Clients: patienceTime, Six: six}
		f.add(Drops, "TCP connections not told of yet, IPv"+version, proto(protoTCP), opensNothing(), clientIn(waits, six))
		f.add(Drops, "TCP connections not told of yet, IPv"+version+", first packet", proto(protoTCP), opensNothing(), notedIn(known, waits, six))
	}
}

// always is what a host needs whatever it is for.
func (f *filter) always() {
	f.add(Accepts, "from the box itself", from("lo"))
	if f.c.Global.SyncDaemon != nil {
		f.patience()
	}
	f.add(Accepts, "TCP connections", proto(protoTCP), opensNothing())
	// The first piece of a packet has the ports, and is judged by them; what
	// follows it leads nowhere without it. Only IPv6 gets pieces here.
	f.add(Accepts, "IPv6 fragments", laterFragment())
	f.add(Accepts, "IPv6 neighbours", proto(protoICMP6), icmpType(neighbourSolicitation, neighbourAdvertisement))
	f.add(Accepts, "IPv6 routers", proto(protoICMP6), icmpType(routerAdvertisement, routerAdvertisement))
	f.add(Accepts, "ICMPv6 errors", proto(protoICMP6), icmpType(1, 4))
	f.add(Accepts, "ICMP unreachable", family(false), proto(protoICMP), icmpType(3, 3))
	f.add(Accepts, "ICMP time exceeded, parameter problem", family(false), proto(protoICMP), icmpType(11, 12))
	f.add(Accepts, "ping answers", family(false), proto(protoICMP), icmpType(0, 0))
	f.add(Accepts, "ping answers, IPv6", proto(protoICMP6), icmpType(129, 129))
	for _, p := range []struct {
		name        string
		proto, kind byte
		v6          bool
	}{{"ping", protoICMP, 8, false}, {"ping, IPv6", protoICMP6, 128, true}} {
		m := []Match{family(p.v6), proto(p.proto), icmpType(p.kind, p.kind)}
		f.append(Entry{Name: p.name, Match: m, Does: Accepts, Second: pingsPerSecond})
		f.add(Drops, fmt.Sprintf("%s, more than %d a second", p.name, pingsPerSecond), m...)
	}
	// Switches ask which groups the box is in, or stop sending it the
	// advertisements of VRRP.
	f.add(Accepts, "multicast membership", family(false), proto(protoIGMP))
	f.add(Accepts, "multicast membership, IPv6", proto(protoICMP6), icmpType(130, 130))
}

// allowed are the lines of the firewall block, SSH, and what rests on both.
func (f *filter) allowed() {
	for _, a := range f.c.Firewall.Allow {
		for _, p := range joinPorts(a.Ports) {
			var m []Match
			what := "any protocol"
			if a.Protocol != 0 {
				m, what = []Match{proto(a.Protocol)}, protocolName(a.Protocol)
			}
			if p != anyPort {
				m, what = append(m, port(p.From, p.To)), what+" "+ports(p)
			}
			f.each("allow "+what, a.From, m)
		}
	}
	ssh := []Match{proto(protoTCP), port(sshPort, sshPort)}
	for _, w := range f.c.Firewall.SSH {
		f.each("SSH", w, ssh)
	}
	if len(f.c.Firewall.SSH) == 0 {
		f.add(Accepts, "SSH", ssh...)
	} else {
		f.refuse("SSH from elsewhere", ssh...)
	}
	for _, i := range f.c.Interfaces {
		if i.DHCP && !i.Disabled {
			f.add(Accepts, "DHCP answers", f.on("dhcp", i.Name), family(false), proto(protoUDP), sourcePort(dhcpServer), port(dhcpClient, dhcpClient))
		}
	}
}

// each adds one rule for each pair of a source and an interface.
func (f *filter) each(name string, w model.Whence, m []Match) {
	sources, ifaces := w.Sources, w.Interfaces
	if len(sources) == 0 {
		sources = []netip.Prefix{{}}
	}
	for _, i := range w.Interfaces {
		for j := range f.c.Instances { // what is for a virtual MAC comes in by the interface made for it
			if in := &f.c.Instances[j]; in.VMAC != nil && in.VMAC.Name != "" && in.Interface == i && !slices.Contains(ifaces, in.VMAC.Name) {
				ifaces = append(slices.Clone(ifaces), in.VMAC.Name)
			}
		}
	}
	if len(ifaces) == 0 {
		ifaces = []string{""}
	}
	for _, i := range ifaces {
		for _, s := range sources {
			n, match := name, slices.Clone(m)
			if s.IsValid() {
				n += " from " + prefixText(s)
				match = append([]Match{source(s.Masked())}, match...)
			}
			if i != "" {
				n += " on " + i
				match = append([]Match{from(f.iface(i))}, match...)
			}
			f.add(Accepts, n, match...)
		}
	}
}

// pair is what directors say to one another.
func (f *filter) pair() {
	for i := range f.c.Instances {
		in := &f.c.Instances[i]
		protos := []byte{protoVRRP}
		if in.AuthAH {
			protos = append(protos, protoAH)
		}
		for _, p := range protos {
			what := "VRRP"
			if p == protoAH {
				what = "VRRP with AH"
			}
			for _, peer := range in.Peers {
				f.add(Accepts, sixth(what+" from peers", peer.Addr), f.addr("vrrp_peers", peer.Addr), proto(p))
			}
			// An advertisement of the segment is judged by the instance itself:
			// peers may send from another address than the one they listen at.
			if in.Interface != "" && (!in.Unicast || !in.CheckUnicastSrc) {
				f.add(Accepts, what, f.on("vrrp", in.Interface), proto(p))
				if in.VMAC != nil && in.VMAC.Name != "" {
					f.on("vrrp", in.VMAC.Name)
				}
			}
		}
	}
	if h := f.c.Heartbeat; h != nil {
		for _, p := range h.Paths {
			f.add(Accepts, sixth("heartbeat", p.Peer), f.addr("heartbeat", p.Peer), proto(protoUDP), port(h.Port, h.Port))
		}
		f.add(Drops, "heartbeat from elsewhere", proto(protoUDP), port(h.Port, h.Port))
	}
	for i := range f.c.BFD {
		b := &f.c.BFD[i]
		to, set, what := uint16(bfdPort), "bfd", "BFD"
		if b.Multihop {
			to, set, what = bfdMultihop, "bfd_multihop", "BFD over several hops"
		}
		f.add(Accepts, sixth(what, b.Neighbor), f.addr(set, b.Neighbor), proto(protoUDP), port(to, to))
	}
	for _, b := range f.c.BFD {
		if b.Multihop {
			f.add(Drops, "BFD over several hops from elsewhere", proto(protoUDP), port(bfdMultihop, bfdMultihop))
		} else {
			f.add(Drops, "BFD from elsewhere", proto(protoUDP), port(bfdPort, bfdPort))
		}
	}
	if s := f.c.Global.SyncDaemon; s != nil {
		p := s.Port
		if p == 0 {
			p = syncPort
		}
		group := s.Group
		if !group.IsValid() {
			group = syncGroup
		}
		f.add(Accepts, "IPVS synchronisation", from(f.iface(s.Interface)), destination(group), proto(protoUDP), port(p, p))
		f.add(Drops, "IPVS synchronisation from elsewhere", proto(protoUDP), port(p, p))
	}
	if p := f.c.Pair; p != nil && p.Addr.IsValid() {
		f.add(Accepts, "peer", f.addr("peer", p.Addr), proto(protoTCP), port(p.Port, p.Port))
		f.refuse("peer from elsewhere", proto(protoTCP), port(p.Port, p.Port))
	}
}

// sixth is the name of a rule for the family of an address.
func sixth(what string, a netip.Addr) string {
	if a.Unmap().Is6() {
		return what + ", IPv6"
	}
	return what
}

// services are those that strangers ask.
func (f *filter) services() {
	s := f.c.Global.SNMP
	for _, l := range s.Listen {
		m, who := []Match{proto(protoUDP), port(l.Port(), l.Port())}, model.Whence{Sources: s.Clients}
		if a := l.Addr(); !a.IsUnspecified() {
			m = append([]Match{destination(a)}, m...)
			who.Sources = slices.DeleteFunc(slices.Clone(s.Clients), func(p netip.Prefix) bool { return p.Addr().Is6() != a.Is6() })
			if len(who.Sources) < len(s.Clients) && len(who.Sources) == 0 {
				continue
			}
		}
		f.each("SNMP at "+l.String(), who, m)
	}
	for _, l := range s.Listen {
		f.add(Drops, fmt.Sprintf("SNMP from elsewhere, port %d", l.Port()), proto(protoUDP), port(l.Port(), l.Port()))
	}
}

// netboot is what a box that boots from this one asks for. Who may have it is
// known to the service only, and it can be told at the console as well as in the
// configuration: while it serves nobody it has no socket, and nothing comes in.
func (f *filter) netboot() {
	for _, p := range []uint16{dhcpServer, tftpPort, proxyDHCP} {
		f.add(Accepts, fmt.Sprintf("netboot, udp %d", p), proto(protoUDP), port(p, p), somebody())
	}
	// It looks whether there is another DHCP server before it gives addresses.
	f.add(Accepts, "netboot, DHCP answers", proto(protoUDP), sourcePort(dhcpServer), port(dhcpClient, dhcpClient), somebody())
	f.add(Accepts, fmt.Sprintf("netboot, tcp %d", netbootHTTP), proto(protoTCP), port(netbootHTTP, netbootHTTP), somebody())
}

func prefixText(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

func ports(p model.PortRange) string {
	if p.From == p.To {
		return fmt.Sprint(p.From)
	}
	return fmt.Sprintf("%d-%d", p.From, p.To)
}

// protocolName is the name that the firewall block calls a protocol by.
func protocolName(p uint8) string {
	for n, v := range model.FirewallProtocols {
		if v == p {
			return n
		}
	}
	return fmt.Sprintf("protocol %d", p)
}

// CheckFilter says whether the kernel could take the filter of a configuration.
func CheckFilter(c *model.Config) error {
	rs := Filter(Ruleset{}, c, func(n string) string { return n })
	if n := len(rs.Chains[0].Entries); n > maxRules {
		return fmt.Errorf("firewall: %d rules; at most %d: write networks in place of addresses, ranges in place of ports", n, maxRules)
	}
	return nil
}

// Filter is the input filter with its counters, for the state of net.
func (h Held) Filter() *status.Firewall {
	for _, c := range h.Chains {
		if c.Name != filterChain {
			continue
		}
		st := &status.Firewall{Default: string(Accepts)}
		if c.Drop {
			st.Default = string(Drops)
		}
		for i, e := range c.Entries {
			n := h.entryCounts[i]
			st.Rules = append(st.Rules, status.FirewallRule{Rule: e.Name, Does: string(e.Does), Packets: n.Packets, Bytes: n.Bytes})
		}
		return st
	}
	return nil
}

// String is the content of a set for the log.
func (s Set) String() string {
	out := slices.Clone(s.Interfaces)
	for _, a := range s.Addrs {
		out = append(out, a.String())
	}
	if s.Clients > 0 {
		out = append(out, "clients, for "+s.Clients.String())
	}
	return s.Name + ": " + strings.Join(out, " ")
}
