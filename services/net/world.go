package net

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc/iprule"
	"ballast/services/ipc/status"
	"ballast/services/net/dhcp"
)

// Facts is what the kernel holds, as one dump read it.
type Facts struct {
	Links   []Link
	Addrs   []Addr
	Routes  []Route // of every table
	Rules   []Rule
	Sysctls map[string]string
	Now     time.Time // when it was read; lifetimes count from it
}

// Link is one network interface. Counters are in it for the state only; no
// decision depends on them.
type Link struct {
	Index    int
	Name     string
	AltNames []string
	Alias    string // ifalias; OwnAlias marks a link that net made
	Kind     string // rtnetlink kind; "device" for hardware, "loopback"
	MAC      string // lower case with colons
	PermMAC  string
	PCI      string // "0000:00:02.0"
	Driver   string
	MTU      int
	Up       bool // administratively
	Carrier  bool
	Master   string // name of the bond or bridge that it is a member of
	Parent   string // name of the link below a VLAN
	VLANID   int
	Bond     BondOptions // of kind "bond"
	Speed    int         // Mbit/s; 0: unknown

	RxBytes, TxBytes, RxPackets, TxPackets, RxErrors, TxErrors, RxDropped, TxDropped uint64
}

// OwnAlias is the interface alias of the bonds and VLANs that net made, so
// that it removes only those when the configuration drops them.
const OwnAlias = "ballast"

// BondOptions are the settings of a bond, in the kernel's words.
type BondOptions struct {
	Mode       string
	MIIMon     time.Duration // whole milliseconds
	HashPolicy string
	LACPRate   string // 802.3ad only
	Primary    string // member name; empty: none
}

// Addr is an address on a link.
type Addr struct {
	Link          string
	Prefix        netip.Prefix // the local address with its length
	Peer          netip.Prefix // invalid: none
	Broadcast     netip.Addr
	Label         string // empty: none, or the link's own name
	Scope         uint8
	NoPrefixRoute bool
	Proto         uint8     // IFA_PROTO, see status.AddrProto*
	Expires       time.Time // zero: for ever
}

// Route is one unicast or blackhole-like route.
type Route struct {
	model.Route
	Proto uint8
}

// World is what the configuration asks for.
type World struct {
	Names   []Naming
	Bonds   []Bond
	VLANs   []VLAN
	Links   []WantLink // sorted by name
	Addrs   []Addr
	Routes  []Route
	Rules   []Rule
	Sysctls []Sysctl
	Tracked []Tracked
	Gone    Foreign // what an earlier configuration set with a protocol of its own; Diff removes it
}

// Naming gives the NIC that Match picks the name Name.
type Naming struct {
	Name  string
	Match model.Match
}

// Bond is a bond to be made.
type Bond struct {
	Name string
	BondOptions
}

// VLAN is a VLAN interface to be made.
type VLAN struct {
	Name, Parent string
	ID           int
}

// WantLink is what one link must be like.
type WantLink struct {
	Name   string
	Down   bool   // disabled by the operator; otherwise up
	MTU    int    // 0: leave
	Master string // bond it is a member of; empty: none of ours
}

// dhcpMetric is the metric of the default route of the first DHCP interface;
// each further one gets the next number. A configured default route (metric 0,
// or whatever the operator wrote) wins over it.
const dhcpMetric = 200

// Desired says what the kernel should hold for a configuration. It is pure:
// links are those present (per-interface sysctls need their names), leases
// those held by the DHCP clients, by interface.
func Desired(c model.Config, links []Link, leases map[string]dhcp.Lease) World {
	var w World
	want := map[string]*WantLink{"lo": {Name: "lo"}}
	link := func(name string) *WantLink {
		if want[name] == nil {
			want[name] = &WantLink{Name: name}
		}
		return want[name]
	}
	track := func(group string, off bool) bool {
		return group != "" && !off && slices.ContainsFunc(c.TrackGroups, func(g model.TrackGroup) bool { return g.Name == group })
	}
	addr := func(a model.Address) {
		if a.Interface == "" || !a.Prefix.IsValid() {
			return
		}
		link(a.Interface)
		label := a.Label
		if label == a.Interface {
			label = ""
		}
		if a.Peer.IsValid() { // the kernel keeps one length, the peer's
			a.Prefix = netip.PrefixFrom(a.Prefix.Addr(), a.Prefix.Addr().BitLen())
		}
		n := Addr{Link: a.Interface, Prefix: a.Prefix, Peer: a.Peer, Broadcast: a.Broadcast, Label: label,
			Scope: a.Scope, NoPrefixRoute: a.NoPrefixRoute, Proto: status.AddrProtoNet}
		w.Addrs = append(w.Addrs, n)
		if track(a.TrackGroup, a.NoTrack) {
			w.Tracked = append(w.Tracked, trackAddr(n, a.TrackGroup))
		}
	}
	route := func(r model.Route) {
		n := Route{Route: normalRoute(r), Proto: orProto(r.Protocol)}
		for _, name := range n.links() {
			link(name)
		}
		w.Routes = append(w.Routes, n)
		if track(r.TrackGroup, r.NoTrack) {
			w.Tracked = append(w.Tracked, trackRoute(n, r.TrackGroup))
		}
	}

	for _, v := range c.Instances {
		link(v.Interface)
		for _, a := range slices.Concat(v.VIPs, v.ExcludedVIPs) {
			if a.Interface != "" {
				link(a.Interface)
			}
		}
		for _, t := range v.TrackInterfaces {
			link(t.Interface)
		}
	}
	for _, g := range c.SyncGroups {
		for _, t := range g.TrackInterfaces {
			link(t.Interface)
		}
	}
	if s := c.Global.SyncDaemon; s != nil && s.Interface != "" {
		link(s.Interface)
	}
	for _, b := range c.Bonds {
		o := BondOptions{b.Mode, b.MIIMon, b.HashPolicy, b.LACPRate, b.Primary}
		if o.HashPolicy == "" {
			o.HashPolicy = "layer2" // the kernel's default: what is taken out of the file goes back to it
		}
		if o.LACPRate == "" && o.Mode == "802.3ad" {
			o.LACPRate = "slow"
		}
		w.Bonds = append(w.Bonds, Bond{b.Name, o})
		link(b.Name)
		for _, m := range b.Members {
			link(m).Master = b.Name
		}
	}
	for _, v := range c.VLANs {
		w.VLANs = append(w.VLANs, VLAN{v.Name, v.Link, v.ID})
		link(v.Name)
		link(v.Link)
	}
	for i, n := range c.Interfaces {
		l := link(n.Name)
		l.Down, l.MTU = n.Disabled, n.MTU
		if n.Match != (model.Match{}) {
			w.Names = append(w.Names, Naming{n.Name, model.Match{MAC: strings.ToLower(n.Match.MAC), PCI: strings.ToLower(n.Match.PCI)}})
		}
		for _, p := range n.Addresses {
			addr(model.Address{Prefix: p, Interface: n.Name})
		}
		if lease, ok := leases[n.Name]; ok && n.DHCP {
			w.Addrs = append(w.Addrs, Addr{Link: n.Name, Prefix: lease.Addr, Proto: status.AddrProtoNet, Expires: lease.Expires})
			for _, r := range lease.Routes {
				route(model.Route{Dst: r.Dst, Via: r.Via, Interface: n.Name, Metric: dhcpMetric + uint32(i),
					OnLink: r.Via.IsValid() && !lease.Addr.Masked().Contains(r.Via)})
			}
		}
	}
	// A VLAN takes the MTU of its link when it is made, but does not follow it
	// upwards: without this it would depend on the order of events.
	for range min(len(c.VLANs), 4) {
		for _, v := range c.VLANs { // on VLANs too
			if l := link(v.Name); l.MTU == 0 {
				l.MTU = link(v.Link).MTU
			}
		}
	}
	for _, a := range c.StaticAddrs {
		addr(a)
	}
	for _, r := range c.StaticRoutes {
		route(r)
	}

	for _, r := range c.StaticRules {
		n := Rule{iprule.Normal(r), orProto(r.Protocol)}
		if !slices.ContainsFunc(w.Rules, func(o Rule) bool { return o.Rule == n.Rule }) {
			w.Rules = append(w.Rules, n)
		}
		if track(r.TrackGroup, r.NoTrack) {
			w.Tracked = append(w.Tracked, trackRule(n, r.TrackGroup))
		}
	}

	delete(want, "") // an instance of unicast peers may have no interface
	for _, l := range want {
		w.Links = append(w.Links, *l)
	}
	slices.SortFunc(w.Links, func(a, b WantLink) int { return strings.Compare(a.Name, b.Name) })
	w.Addrs = dedup(w.Addrs, addrKey)
	w.Routes = dedup(w.Routes, func(r Route) string {
		if r.Append { // beside the others
			return r.String()
		}
		return routeKey(r)
	})
	w.Sysctls = Sysctls(c, links)
	return w
}

// dedup keeps the first entry of each key, in order: the kernel holds only one.
func dedup[T any](in []T, key func(T) string) []T {
	seen := map[string]bool{}
	var out []T
	for _, v := range in {
		if k := key(v); !seen[k] {
			seen[k] = true
			out = append(out, v)
		}
	}
	return out
}

// addrKey is what makes two addresses one for the kernel: it refuses a second
// one with the same local address, length and peer on a link.
func addrKey(a Addr) string {
	return fmt.Sprintf("%s %s %s", a.Link, a.Prefix, a.Peer)
}

// routeKey is what makes two routes one for the kernel: a replace of the same
// table, destination, TOS and metric replaces.
func routeKey(r Route) string {
	return fmt.Sprintf("%d %s %d %d", r.Table, r.Dst, r.TOS, r.Metric)
}

// Route tables and scopes (linux/rtnetlink.h).
const (
	tableMain     = 254
	scopeLink     = 253
	ip6DefaultMet = 1024 // IP6_RT_PRIO_USER
)

// normalRoute fills in what the kernel fills in, so that a route read back
// compares equal.
func normalRoute(r model.Route) model.Route {
	r.Dst = r.Dst.Masked()
	if r.Table == 0 {
		r.Table = tableMain
	}
	if r.Dst.Addr().Is6() {
		r.Scope = 0 // IPv6 routes have none
		if r.Metric == 0 {
			r.Metric = ip6DefaultMet
		}
	} else if r.Type == "" && !r.Via.IsValid() && len(r.NextHops) == 0 && r.Scope == 0 {
		r.Scope = scopeLink
	}
	if r.Type != "" {
		r.Interface, r.Via, r.OnLink, r.NextHops = "", netip.Addr{}, false, nil
	}
	r.NoTrack, r.TrackGroup, r.Protocol = false, "", 0 // told elsewhere
	return r
}

func (a Addr) String() string {
	s := a.Prefix.String()
	if a.Peer.IsValid() {
		s += " peer " + a.Peer.String()
	}
	return s + " dev " + a.Link
}

func (r Route) String() string {
	var b strings.Builder
	if r.Type != "" {
		b.WriteString(r.Type + " ")
	}
	if r.Dst.Bits() == 0 {
		b.WriteString("default")
		if r.Dst.Addr().Is6() {
			b.WriteString(" (IPv6)")
		}
	} else {
		b.WriteString(r.Dst.String())
	}
	if r.Via.IsValid() {
		b.WriteString(" via " + r.Via.String())
	}
	if r.Interface != "" {
		b.WriteString(" dev " + r.Interface)
	}
	b.WriteString(waysText(r.NextHops))
	if r.TOS != 0 {
		fmt.Fprintf(&b, " tos %#x", r.TOS)
	}
	if r.Src.IsValid() {
		b.WriteString(" src " + r.Src.String())
	}
	if r.Table != tableMain {
		fmt.Fprintf(&b, " table %d", r.Table)
	}
	if r.Metric != 0 {
		fmt.Fprintf(&b, " metric %d", r.Metric)
	}
	return b.String()
}
