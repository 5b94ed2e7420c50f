package check

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"ballast/configs/model"
)

// Session is a session of somebody who changes the configuration.
type Session struct {
	User string
	// Local is the address of this box that the client talks to, Remote the
	// client's. Not valid on the serial line, which no configuration cuts off.
	Local, Remote netip.Addr
	// Interface holds Local now; empty: not known. Who has an address by DHCP
	// is not in the configuration.
	Interface string
}

const sshPort = 22

// Cuts says why next, in place of old, would cut off s or keep its user from
// coming back: what carries the session goes, or the user does. Nil: nothing of
// the kind is seen. What neither configuration says (a lease that is not given
// again, a router elsewhere) is not found out.
func Cuts(old, next *model.Config, s Session) []string {
	p := &wayIn{old: old, next: next, s: s}
	p.login()
	if s.Local.IsValid() && !s.Local.IsLoopback() {
		p.address()
		p.link()
		p.way()
		p.taken()
		p.filtered()
	}
	return p.cuts
}

type wayIn struct {
	old, next *model.Config
	s         Session
	device    string // that carries the session
	gone      bool   // the address goes
	cuts      []string
}

func (p *wayIn) cut(format string, args ...any) {
	if t := fmt.Sprintf(format, args...); !slices.Contains(p.cuts, t) {
		p.cuts = append(p.cuts, t)
	}
}

// login looks at the user.
func (p *wayIn) login() {
	named := func(c *model.Config) *model.Login {
		for i := range c.System.Logins {
			if c.System.Logins[i].Name == p.s.User {
				return &c.System.Logins[i]
			}
		}
		return nil
	}
	old, next := named(p.old), named(p.next)
	switch {
	case old == nil: // the serial line, or a user who is out already
	case next == nil:
		p.cut("login %s, who you are, is removed", old.Name)
	case old.Role == "admin" && next.Role != "admin":
		p.cut("login %s, who you are, gets role %s, which cannot take that back", old.Name, next.Role)
	case !slices.ContainsFunc(old.Keys, func(k string) bool {
		return slices.ContainsFunc(next.Keys, func(n string) bool { return sameKey(k, n) })
	}):
		p.cut("login %s, who you are, keeps none of its keys", old.Name)
	}
}

// sameKey compares two lines of authorized_keys without their comments.
func sameKey(a, b string) bool {
	fa, fb := strings.Fields(a), strings.Fields(b)
	return len(fa) > 1 && len(fb) > 1 && slices.Equal(fa[:2], fb[:2])
}

// holder is who holds an address.
type holder struct {
	device string
	prefix netip.Prefix
	of     string // "vrrp_instance VI_1"; empty: the interface itself
}

func (h holder) String() string {
	if h.of != "" {
		return h.of
	}
	return h.device
}

// holders are those of an address.
func holders(c *model.Config, addr netip.Addr) (out []holder) {
	for _, i := range c.Interfaces {
		for _, a := range i.Addresses {
			if a.Addr() == addr && !i.Disabled {
				out = append(out, holder{i.Name, a, ""})
			}
		}
	}
	for _, a := range c.StaticAddrs {
		if a.Prefix.Addr() == addr {
			out = append(out, holder{a.Interface, a.Prefix, ""})
		}
	}
	for i := range c.Instances {
		in := &c.Instances[i]
		for _, a := range slices.Concat(in.VIPs, in.ExcludedVIPs) {
			if a.Prefix.Addr() == addr {
				out = append(out, holder{a.Interface, a.Prefix, "vrrp_instance " + in.Name})
			}
		}
	}
	return out
}

func block(c *model.Config, name string) model.Interface {
	for _, i := range c.Interfaces {
		if i.Name == name {
			return i
		}
	}
	return model.Interface{}
}

// asks says whether an interface gets addresses of addr's family by itself.
func asks(i model.Interface, addr netip.Addr) bool {
	if addr.Is4() {
		return i.DHCP && !i.Disabled
	}
	return (i.DHCP6 || i.Accept != model.RAOff) && !i.Disabled
}

// address looks at the address that the session came in on.
func (p *wayIn) address() {
	p.device = p.s.Interface
	local := p.s.Local
	old, next := holders(p.old, local), holders(p.next, local)
	if len(old) > 0 {
		n := len(p.cuts)
		defer func() { p.gone = len(p.cuts) > n }()
		h := old[0]
		if i := slices.IndexFunc(old, func(h holder) bool { return h.device == p.s.Interface }); i >= 0 {
			h = old[i]
		}
		p.device = h.device
		switch {
		case len(next) == 0:
			p.cut("address %s of %s, which your session came in on, is removed", local, h)
		case !slices.ContainsFunc(next, func(n holder) bool { return n.device == h.device && n.of == h.of }):
			p.cut("address %s, which your session came in on, moves from %s to %s", local, h, next[0])
		}
		return
	}
	for _, i := range p.old.Interfaces { // who has it by DHCP
		if !asks(i, local) || p.device != "" && i.Name != p.device || asks(block(p.next, i.Name), local) {
			continue
		}
		if !slices.ContainsFunc(next, func(n holder) bool { return n.device == i.Name }) {
			p.cut("%s gets no address by itself any more; your session came in on %s, which nothing gives it then", i.Name, local)
		}
	}
}

// link looks at what carries the address: the card, and below it bonds and VLANs.
func (p *wayIn) link() {
	dev := p.device
	for range 8 { // a VLAN on a VLAN on a bond; check refuses loops
		if dev == "" || dev == "lo" {
			return
		}
		old, next := block(p.old, dev), block(p.next, dev)
		switch {
		case next.Disabled && !old.Disabled:
			p.cut("%s, which carries your session, is disabled", dev)
		case old.Match != next.Match && next.Match != (model.Match{}):
			p.cut("%s, which carries your session, becomes another card: %s", dev, next.Match.MAC+next.Match.PCI)
		}
		p.bond(dev)
		dev = p.vlan(dev)
	}
}

// bond looks at a bond that carries the session.
func (p *wayIn) bond(dev string) {
	named := func(c *model.Config) *model.Bond {
		for i := range c.Bonds {
			if c.Bonds[i].Name == dev {
				return &c.Bonds[i]
			}
		}
		return nil
	}
	old, next := named(p.old), named(p.next)
	switch {
	case old == nil:
	case next == nil:
		p.cut("bond %s, which carries your session, is removed", dev)
	case old.Mode != next.Mode:
		p.cut("bond %s, which carries your session, goes from mode %s to %s", dev, old.Mode, next.Mode)
	case !slices.ContainsFunc(old.Members, func(m string) bool { return slices.Contains(next.Members, m) }):
		p.cut("bond %s, which carries your session, keeps none of its members", dev)
	}
}

// vlan looks at a VLAN that carries the session and returns its link.
func (p *wayIn) vlan(dev string) string {
	named := func(c *model.Config) *model.VLAN {
		for i := range c.VLANs {
			if c.VLANs[i].Name == dev {
				return &c.VLANs[i]
			}
		}
		return nil
	}
	old, next := named(p.old), named(p.next)
	switch {
	case old == nil:
		return ""
	case next == nil:
		p.cut("vlan %s, which carries your session, is removed", dev)
	case *old != *next:
		p.cut("vlan %s, which carries your session, goes from id %d on %s to id %d on %s", dev, old.ID, old.Link, next.ID, next.Link)
	}
	return old.Link
}

// lead is how packets leave for an address.
type lead struct {
	bits   int
	metric uint32
	dev    string // empty: the kernel picks it
	vias   []netip.Addr
	kind   string // "blackhole", …
}

func (l lead) String() string {
	switch {
	case l.kind != "":
		return l.kind
	case len(l.vias) == 0:
		return "directly by " + l.dev
	}
	var vias []string
	for _, v := range l.vias {
		vias = append(vias, v.String())
	}
	return "by " + strings.Join(vias, ", ")
}

// same says whether packets go on going where they go.
func (l lead) same(o lead) bool {
	if l.kind != o.kind || len(l.vias) == 0 != (len(o.vias) == 0) || l.dev != o.dev && l.dev != "" && o.dev != "" {
		return false
	}
	return len(l.vias) == 0 || slices.ContainsFunc(l.vias, func(v netip.Addr) bool { return slices.Contains(o.vias, v) })
}

// leads is the best way to an address that a configuration says; it does not
// say what DHCP and router advertisements bring.
func leads(c *model.Config, to netip.Addr) (best lead, ok bool) {
	add := func(l lead) {
		if !ok || l.bits > best.bits || l.bits == best.bits && l.metric < best.metric {
			best, ok = l, true
		}
	}
	for _, i := range c.Interfaces {
		for _, a := range i.Addresses {
			if !i.Disabled && a.Masked().Contains(to) {
				add(lead{bits: a.Bits(), dev: i.Name})
			}
		}
	}
	for _, a := range c.StaticAddrs {
		if a.Prefix.Masked().Contains(to) {
			add(lead{bits: a.Prefix.Bits(), dev: a.Interface})
		}
	}
	for _, r := range c.StaticRoutes {
		if r.Dst.IsValid() && r.Dst.Masked().Contains(to) && (r.Table == 0 || r.Table == mainTable) {
			l := lead{bits: r.Dst.Bits(), metric: r.Metric, dev: r.Interface, kind: r.Type}
			if r.Via.IsValid() {
				l.vias = []netip.Addr{r.Via}
			}
			for _, h := range r.NextHops {
				l.vias = append(l.vias, h.Via)
			}
			add(l)
		}
	}
	return best, ok
}

const mainTable = 254

// way looks at how answers get to the client.
func (p *wayIn) way() {
	to := p.s.Remote
	if p.gone {
		return // and with it whatever led by it
	}
	if !to.IsValid() || to.IsLoopback() || to.IsLinkLocalUnicast() {
		return
	}
	old, had := leads(p.old, to)
	next, has := leads(p.next, to)
	switch {
	case had && !has && !asks(block(p.next, p.device), p.s.Local):
		p.cut("no route leads to you (%s) any more; so far it was %s", to, old)
	case had && has && !old.same(next):
		p.cut("answers to you (%s) would go %s; so far they go %s", to, next, old)
	case !had && has && next.kind != "":
		p.cut("answers to you (%s) would go nowhere: %s", to, next)
	case !had && !has && p.device != "" && asks(block(p.old, p.device), p.s.Local) && !asks(block(p.next, p.device), p.s.Local):
		p.cut("no route leads to you (%s) any more; so far %s got one by itself", to, p.device)
	}
}

// taken looks at who else gets the packets of SSH.
func (p *wayIn) taken() {
	for name := range sshTakers(p.next, p.s.Local) {
		if !sshTakers(p.old, p.s.Local)[name] {
			p.cut("%s takes the connections to %s port %d, which are your way in", name, p.s.Local, sshPort)
		}
	}
	drops := func(c *model.Config) string {
		for i := range c.Instances {
			in := &c.Instances[i]
			if !in.NoAccept || in.Priority == 255 {
				continue
			}
			for _, a := range slices.Concat(in.VIPs, in.ExcludedVIPs) {
				if a.Prefix.Addr() == p.s.Local {
					return in.Name
				}
			}
		}
		return ""
	}
	if name := drops(p.next); name != "" && drops(p.old) == "" {
		p.cut("vrrp_instance %s gets no_accept: the box does not answer on %s any more, which your session came in on", name, p.s.Local)
	}
}

// filtered looks at the packet filter.
func (p *wayIn) filtered() {
	dev := p.device
	if p.s.Remote.IsValid() && p.old.Firewall.AdmitsSSH(p.s.Remote, dev, sshPort) && !p.next.Firewall.AdmitsSSH(p.s.Remote, dev, sshPort) {
		on := ""
		if dev != "" {
			on = " on " + dev
		}
		p.cut("the firewall block lets nobody in by SSH from %s%s; you come from there", p.s.Remote, on)
	}
}

// sshTakers are the virtual servers that balance what comes to the port of SSH
// at addr.
func sshTakers(c *model.Config, addr netip.Addr) map[string]bool {
	marks := map[uint32]bool{}
	for _, m := range c.Marks {
		for _, r := range m.Rules {
			ports := len(r.Ports) == 0 || slices.ContainsFunc(r.Ports, func(p model.PortRange) bool { return p.From <= sshPort && sshPort <= p.To })
			if (r.Protocol == 0 || r.Protocol == model.TCP) && ports && (!r.Dst.IsValid() || r.Dst.Contains(addr)) {
				marks[m.Mark] = true
			}
		}
	}
	out := map[string]bool{}
	for i := range c.VirtualServers {
		for _, id := range c.VirtualServers[i].Services {
			if id.Mark != 0 && marks[id.Mark] && id.IPv6 == addr.Is6() ||
				id.Mark == 0 && id.Addr == addr && id.Protocol == model.TCP && (id.Port == sshPort || id.Port == 0) {
				out["virtual_server "+id.String()] = true
			}
		}
	}
	return out
}
