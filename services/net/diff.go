package net

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"ballast/services/ipc/status"
)

// Op is one change of the kernel. Its String is what log and state show.
type Op interface{ String() string }

// Ops, one kernel message each.
type (
	// Rename gives link Index the name To.
	Rename struct {
		Index    int
		From, To string
	}
	// AddVLAN makes a VLAN interface.
	AddVLAN struct{ VLAN }
	// AddBond makes a bond.
	AddBond struct{ Bond }
	// SetBond changes what can be changed on a bond with members.
	SetBond struct{ Bond }
	// DelLink removes a bond or VLAN that net made.
	DelLink struct{ Name, Why string }
	// SetMTU changes a link's MTU.
	SetMTU struct {
		Link     string
		From, To int
	}
	// SetMaster puts a link into a bond; an empty Master takes it out.
	SetMaster struct{ Link, Master string }
	// SetUp sets the administrative state.
	SetUp struct {
		Link string
		Up   bool
	}
	// SetAddr adds an address, or takes over and refreshes one that is there.
	SetAddr struct {
		Addr
		Why string // "add", "adopt", "lifetime"
	}
	// DelAddr removes one of net's addresses.
	DelAddr struct{ Addr }
	// SetRoute adds a route or replaces the one of the same table, destination and metric.
	SetRoute struct{ Route }
	// DelRoute removes one of net's routes.
	DelRoute struct{ Route }
	// SetSysctl writes one value.
	SetSysctl struct {
		Sysctl
		From string
	}
)

func (o Rename) String() string { return fmt.Sprintf("rename %s to %s", o.From, o.To) }
func (o AddVLAN) String() string {
	return fmt.Sprintf("add vlan %s link %s id %d", o.Name, o.Parent, o.ID)
}
func (o AddBond) String() string { return fmt.Sprintf("add bond %s mode %s", o.Name, o.Mode) }
func (o SetBond) String() string { return fmt.Sprintf("set bond %s %+v", o.Name, o.BondOptions) }
func (o DelLink) String() string { return fmt.Sprintf("delete link %s: %s", o.Name, o.Why) }
func (o SetMTU) String() string  { return fmt.Sprintf("set %s mtu %d -> %d", o.Link, o.From, o.To) }
func (o SetMaster) String() string {
	if o.Master == "" {
		return "take " + o.Link + " out of its bond"
	}
	return fmt.Sprintf("put %s into %s", o.Link, o.Master)
}
func (o SetUp) String() string {
	if o.Up {
		return "set " + o.Link + " up"
	}
	return "set " + o.Link + " down"
}
func (o SetAddr) String() string   { return o.Why + " address " + o.Addr.String() }
func (o DelAddr) String() string   { return "delete address " + o.Addr.String() }
func (o SetRoute) String() string  { return "set route " + o.Route.String() }
func (o DelRoute) String() string  { return "delete route " + o.Route.String() }
func (o SetSysctl) String() string { return fmt.Sprintf("set %s %q -> %q", o.Key, o.From, o.Value) }

// lifetimeSlack is how far the kernel's idea of a lifetime, which it tells in
// whole seconds, may lag behind ours before it is refreshed.
const lifetimeSlack = 1500 * time.Millisecond

// Diff says what to change, and what cannot be changed yet because a link is
// missing. It is pure, and its ops are in an order that the kernel accepts:
// adds before deletes, except where the kernel holds one of a kind. Ops that
// depend on a link made or renamed in the same list are left to the next pass.
func Diff(have Facts, want World) (ops []Op, waiting []string) {
	have.Links = slices.Clone(have.Links) // links marks what its ops change
	d := diff{have: have, want: want, byName: map[string]*Link{}}
	for i := range have.Links {
		l := &have.Links[i]
		for _, a := range l.AltNames {
			if d.byName[a] == nil {
				d.byName[a] = l
			}
		}
	}
	for i := range have.Links {
		d.byName[have.Links[i].Name] = &have.Links[i]
	}
	d.sysctls()
	if rn := Renames(have.Links, want.Names); len(rn) > 0 {
		// Everything else speaks of links by name: not before the names are right.
		for _, r := range rn {
			d.op(r)
		}
		return d.ops, d.waiting
	}
	d.bonds()
	d.vlans()
	d.dropLinks()
	d.links()
	d.addrs()
	d.routes()
	d.rules()
	return d.ops, d.waiting
}

type diff struct {
	have    Facts
	want    World
	byName  map[string]*Link
	ops     []Op
	waiting []string
	gone    []string // links that this pass removes
}

func (d *diff) op(o Op) { d.ops = append(d.ops, o) }
func (d *diff) wait(format string, args ...any) {
	if s := fmt.Sprintf(format, args...); !slices.Contains(d.waiting, s) {
		d.waiting = append(d.waiting, s)
	}
}

func (d *diff) sysctls() {
	for _, s := range d.want.Sysctls {
		// A key that is not there belongs to a module that is not loaded, or to a
		// kernel without it: looked at again in each pass.
		if v, ok := d.have.Sysctls[s.Key]; ok && v != s.Value && (s.Or == "" || v != s.Or) {
			d.op(SetSysctl{s, v})
		}
	}
}

func (d *diff) bonds() {
	for _, b := range d.want.Bonds {
		l := d.byName[b.Name]
		if l == nil {
			d.op(AddBond{b})
			continue
		}
		if l.Kind != "bond" {
			d.wait("bond %s: the name is taken by a %s; give the bond another name or name the NIC by an interface block", b.Name, l.Kind)
			continue
		}
		h := l.Bond
		switch {
		case h.Mode != b.Mode || b.LACPRate != "" && h.LACPRate != b.LACPRate:
			// The kernel changes neither while the bond has members or is up.
			d.op(DelLink{b.Name, "mode or LACP rate changes"})
			d.gone = append(d.gone, b.Name)
		case h.MIIMon != b.MIIMon || b.HashPolicy != "" && h.HashPolicy != b.HashPolicy || h.Primary != b.Primary && d.isMember(b.Primary, b.Name) ||
			b.Primary == "" && h.Primary != "" || l.Alias != OwnAlias:
			d.op(SetBond{b})
		}
	}
}

// isMember tells whether a primary can be set: the kernel knows only members.
func (d *diff) isMember(name, bond string) bool {
	l := d.byName[name]
	return l != nil && l.Master == bond
}

func (d *diff) vlans() {
	for _, v := range d.want.VLANs {
		p := d.byName[v.Parent]
		l := d.byName[v.Name]
		switch {
		case p == nil:
			d.wait("vlan %s: its link %s is missing (%s)", v.Name, v.Parent, d.present())
		case l == nil:
			d.op(AddVLAN{v})
		case l.Kind != "vlan":
			d.wait("vlan %s: the name is taken by a %s; give the VLAN another name", v.Name, l.Kind)
		case l.VLANID != v.ID || l.Parent != p.Name:
			d.op(DelLink{v.Name, "link or id changes"})
			d.gone = append(d.gone, v.Name)
		case l.Alias != OwnAlias:
			d.op(AddVLAN{v}) // adopt: made by a run that died before it could mark it
		}
	}
}

// dropLinks removes what an earlier configuration made.
func (d *diff) dropLinks() {
	for _, l := range d.have.Links {
		if l.Alias != OwnAlias || l.Kind != "bond" && l.Kind != "vlan" {
			continue
		}
		if !slices.ContainsFunc(d.want.Bonds, func(b Bond) bool { return b.Name == l.Name }) &&
			!slices.ContainsFunc(d.want.VLANs, func(v VLAN) bool { return v.Name == l.Name }) {
			d.op(DelLink{l.Name, "no longer configured"})
			d.gone = append(d.gone, l.Name)
		}
	}
}

// usable is the link of a name if this pass may work on it.
func (d *diff) usable(name string) *Link {
	if slices.Contains(d.gone, name) {
		return nil
	}
	return d.byName[name]
}

func (d *diff) present() string {
	var names []string
	for _, l := range d.have.Links {
		if l.Kind != "loopback" {
			names = append(names, l.Name)
		}
	}
	slices.Sort(names)
	if len(names) == 0 {
		return "no NIC is present"
	}
	return "present: " + strings.Join(names, " ")
}

func (d *diff) willMake(name string) bool {
	return slices.ContainsFunc(d.want.Bonds, func(b Bond) bool { return b.Name == name }) ||
		slices.ContainsFunc(d.want.VLANs, func(v VLAN) bool { return v.Name == name })
}

func (d *diff) links() {
	var mtus []SetMTU
	for _, w := range d.want.Links {
		l := d.usable(w.Name)
		if l == nil {
			if !d.willMake(w.Name) {
				d.wait("interface %s: no such NIC yet (%s); name one by \"interface %s { mac … }\"", w.Name, d.present(), w.Name)
			}
			continue
		}
		if w.MTU != 0 && w.MTU != l.MTU {
			mtus = append(mtus, SetMTU{w.Name, l.MTU, w.MTU})
		}
	}
	// A VLAN may not exceed the link below it, and members follow their bond: grow
	// from below, shrink from above.
	depth := func(m SetMTU) int {
		n := 0
		for l := d.byName[m.Link]; l != nil && l.Parent != "" && n < 8; l = d.byName[l.Parent] {
			n++
		}
		return n
	}
	slices.SortStableFunc(mtus, func(a, b SetMTU) int {
		if grow := a.To > a.From; grow != (b.To > b.From) {
			if grow {
				return -1
			}
			return 1
		} else if grow {
			return depth(a) - depth(b)
		}
		return depth(b) - depth(a)
	})
	for _, m := range mtus {
		d.op(m)
	}

	bondName := func(name string) bool {
		return slices.ContainsFunc(d.want.Bonds, func(b Bond) bool { return b.Name == name })
	}
	for _, w := range d.want.Links { // out of and into bonds
		l := d.usable(w.Name)
		if l == nil || l.Master == w.Master {
			continue
		}
		if w.Master == "" {
			// Out only of a bond of ours: a bridge or bond that somebody else made is his.
			if m := d.byName[l.Master]; m == nil || m.Alias != OwnAlias && !bondName(m.Name) || slices.Contains(d.gone, m.Name) {
				continue
			}
		} else if d.usable(w.Master) == nil {
			continue // bond comes first
		}
		if l.Up && w.Master != "" {
			d.op(SetUp{w.Name, false}) // the kernel enslaves only links that are down
		}
		d.op(SetMaster{w.Name, w.Master})
		l.Up = l.Up && w.Master == ""
	}
	for _, w := range d.want.Links {
		l := d.usable(w.Name)
		if l == nil || l.Up == !w.Down {
			continue
		}
		d.op(SetUp{w.Name, !w.Down})
	}
	// Members that the configuration no longer names.
	for _, l := range d.have.Links {
		if l.Master == "" || !bondName(l.Master) || slices.Contains(d.gone, l.Master) {
			continue
		}
		if !slices.ContainsFunc(d.want.Links, func(w WantLink) bool { return d.byName[w.Name] != nil && d.byName[w.Name].Index == l.Index }) {
			d.op(SetMaster{l.Name, ""})
		}
	}
}

func (d *diff) addrs() {
	have := map[string]Addr{}
	for _, a := range d.have.Addrs {
		have[addrKey(a)] = a
	}
	keep := map[string]bool{}
	for _, w := range d.want.Addrs {
		l := d.usable(w.Link)
		if l == nil {
			continue // reported by links
		}
		w.Link = l.Name // the name may be an alternative one
		keep[addrKey(w)] = true
		h, ok := have[addrKey(w)]
		switch {
		case !ok:
			d.op(SetAddr{w, "add"})
		case h.Proto == status.AddrProtoVIP:
			d.wait("address %s is a virtual address now; take it out of the interface block", w)
		case h.Label != w.Label || h.Broadcast != w.Broadcast && (w.Broadcast.IsValid() || h.Proto == w.Proto) || h.Scope != w.Scope && w.Prefix.Addr().Is4():
			// The kernel changes neither of them in place. (The scope of an IPv6
			// address is its own.)
			d.op(DelAddr{h})
			d.op(SetAddr{w, "add"})
		case h.Proto != w.Proto || h.NoPrefixRoute != w.NoPrefixRoute:
			d.op(SetAddr{w, "adopt"})
		case h.Expires.IsZero() != w.Expires.IsZero() || h.Expires.Sub(w.Expires).Abs() > lifetimeSlack:
			d.op(SetAddr{w, "lifetime"})
		}
	}
	for _, h := range d.have.Addrs {
		if h.Proto == status.AddrProtoNet && !keep[addrKey(h)] && !slices.Contains(d.gone, h.Link) {
			d.op(DelAddr{h})
		}
	}
}

func (d *diff) routes() {
	have := map[string][]Route{}
	for _, r := range d.have.Routes {
		have[routeKey(r)] = append(have[routeKey(r)], r)
	}
	wanted := map[string][]Route{}
	for _, w := range d.want.Routes {
		w = resolved(w, d.have)
		wanted[routeKey(w)] = append(wanted[routeKey(w)], w)
		if slices.ContainsFunc(w.links(), func(name string) bool {
			l := d.usable(name)
			return l == nil || !l.Up // the kernel refuses it; the link's own event brings the next pass
		}) {
			continue
		}
		if !slices.ContainsFunc(have[routeKey(w)], func(h Route) bool { return sameRoute(h, w) }) {
			d.op(SetRoute{w})
		}
	}
	for _, h := range d.have.Routes {
		own := h.Proto == status.RouteProtoNet || slices.ContainsFunc(d.want.Gone.Routes, func(g Route) bool {
			return routeKey(g) == routeKey(h) && sameRoute(h, resolved(g, d.have))
		})
		if !own || slices.Contains(d.gone, h.Interface) {
			continue // the kernel takes the routes of a link along
		}
		slot := wanted[routeKey(h)]
		switch {
		case len(slot) == 0:
			d.op(DelRoute{h})
		case len(have[routeKey(h)]) > 1 && !slices.ContainsFunc(slot, func(w Route) bool { return sameRoute(h, w) }):
			d.op(DelRoute{h}) // the kernel keeps routes of one metric side by side
		}
	}
}

// sameRoute compares what the configuration states; what it leaves open is the
// kernel's.
func sameRoute(h, w Route) bool {
	if h.Proto != w.Proto || h.Type != w.Type || h.Via != w.Via || h.OnLink != w.OnLink && w.OnLink {
		return false
	}
	if w.Type != "" {
		return true
	}
	return (w.Interface == "" || h.Interface == w.Interface) && (h.Src == w.Src || w.Src == netip.Addr{}) &&
		(h.Dst.Addr().Is6() || h.Scope == w.Scope) && sameWays(h.NextHops, w.NextHops) && sameMetrics(h, w) &&
		h.Realms == w.Realms && h.Congestion == w.Congestion
}
