package bind

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"ballast/configs/model"
	"ballast/configs/schema"
	"ballast/configs/syntax"
)

// maxGroup bounds the services that one group may expand to.
const maxGroup = 4096

// group is a virtual_server_group: services without their protocol.
type group struct {
	services []model.ServiceID
	used     bool
}

// serverGroup binds virtual_server_group.
func (b *binder) serverGroup(n *syntax.Node) {
	name := n.Arg(0)
	if b.groups[name] != nil {
		b.warn(n.Pos, "rename one of them", "virtual_server_group %s is defined twice; this one is ignored", quote(name))
		return
	}
	g := &group{}
	b.groups[name] = g
	b.each("virtual_server_group", n.Children, func(k *schema.Keyword, l *syntax.Node) {
		g.services = append(g.services, model.ServiceID{Mark: uint32(number(l)), IPv6: l.Arg(1) == "inet6"})
	}, func(l *syntax.Node) bool {
		if !strings.ContainsAny(l.Name(), ".:") || l.Block {
			return false
		}
		addrs, err := addressRange(l.Name())
		if err != "" {
			b.use(l, Unknown, "")
			b.fail(l.Pos, "write ADDRESS, A.B.C.D-E, FIRST-LAST or NETWORK/LENGTH, and a port behind it", "%s: %s", quote(l.Name()), err)
			return true
		}
		port, ok := b.port(l, 0)
		if !ok {
			b.use(l, Unknown, "")
			return true
		}
		b.use(l, Works, "")
		if len(g.services)+len(addrs) > maxGroup {
			b.fail(l.Pos, "use a firewall mark for so many addresses", "virtual_server_group %s makes more than %d services", name, maxGroup)
			return true
		}
		for _, a := range addrs {
			g.services = append(g.services, model.ServiceID{Addr: a, Port: port})
		}
		return true
	})
}

// port reads the i-th argument as a port, 0 when there is none.
func (b *binder) port(n *syntax.Node, i int) (uint16, bool) {
	if n.Arg(i) == "" {
		return 0, true
	}
	v, err := schema.Arg{Max: 65535}.Int(n.Arg(i))
	if err != nil {
		b.fail(n.ArgPos(i), "write a port of 1…65535", "port %v", err)
		return 0, false
	}
	return uint16(v), true
}

// addressRange expands the notations of a group.
func addressRange(s string) (out []netip.Addr, problem string) {
	first, last := netip.Addr{}, netip.Addr{}
	if p, err := netip.ParsePrefix(s); err == nil {
		first, last = p.Masked().Addr(), broadcast(p.Masked())
	} else if from, to, ok := strings.Cut(s, "-"); ok {
		first, _ = netip.ParseAddr(from)
		last, _ = netip.ParseAddr(to)
		if !last.IsValid() && first.Is4() {
			if v, err := strconv.ParseUint(to, 10, 8); err == nil {
				a := first.As4()
				a[3] = byte(v)
				last = netip.AddrFrom4(a)
			}
		}
		if !last.IsValid() && first.Is6() {
			if v, err := strconv.ParseUint(to, 16, 16); err == nil {
				a := first.As16()
				a[14], a[15] = byte(v>>8), byte(v)
				last = netip.AddrFrom16(a)
			}
		}
	} else {
		first, _ = netip.ParseAddr(s)
		last = first
	}
	switch {
	case !first.IsValid() || !last.IsValid() || first.Is4() != last.Is4():
		return nil, "no address and no range of addresses"
	case last.Less(first):
		return nil, "the range ends before it starts"
	}
	for a := first; ; a = a.Next() {
		if out = append(out, a); len(out) > maxGroup {
			return nil, "the range holds more than " + itoa(maxGroup) + " addresses"
		}
		if a == last {
			return out, ""
		}
	}
}

// inherited are the settings of checks that pass down from virtual server to
// real server to check; -1 and Unset: not set here.
type inherited struct {
	retry                                   int
	delayBeforeRetry, warmup, timeout, loop time.Duration
	alpha, through                          model.Tristate
}

func unset() inherited {
	return inherited{retry: -1, delayBeforeRetry: -1, warmup: -1, timeout: -1, loop: -1}
}

// take reads a line that sets one of these; false when it is none.
func (v *inherited) take(l *syntax.Node) bool {
	switch l.Name() {
	case "retry":
		v.retry = number(l)
	case "delay_before_retry":
		v.delayBeforeRetry = duration(l)
	case "warmup":
		v.warmup = duration(l)
	case "connect_timeout":
		v.timeout = duration(l)
	case "delay_loop":
		v.loop = duration(l)
	case "alpha":
		v.alpha = tristate(l)
	case "through_vip":
		v.through = tristate(l)
	default:
		return false
	}
	return true
}

// under fills what is not set here from the level above.
func (v inherited) under(up inherited) inherited {
	v.retry = orInt(v.retry, up.retry)
	v.delayBeforeRetry = orDuration(v.delayBeforeRetry, up.delayBeforeRetry)
	v.warmup = orDuration(v.warmup, up.warmup)
	v.timeout = orDuration(v.timeout, up.timeout)
	v.loop = orDuration(v.loop, up.loop)
	if v.alpha == model.Unset {
		v.alpha = up.alpha
	}
	if v.through == model.Unset {
		v.through = up.through
	}
	return v
}

// virtual is what a virtual_server block says, before the defaults.
type virtual struct {
	model.VirtualServer
	inherited
	pos            model.Pos
	id             model.ServiceID // when it is no group
	group          *group
	groupName      string
	forwardSet     bool
	weight         int
	inhibit        bool
	mail           model.Tristate
	granularitySet bool
	familySet      bool
	host           string
	sorryAt        *syntax.Node
	sorryForward   *forward
	real           []*syntax.Node
	flags          []*syntax.Node
	seen           map[netip.AddrPort]bool // real servers; nil: they are few
}

type forward struct {
	method model.Forward
	tunnel model.Tunnel
}

func (b *binder) virtualServer(n *syntax.Node) {
	v := &virtual{inherited: unset(), pos: n.Pos, weight: 1}
	v.timeout, v.loop = 5*time.Second, 60*time.Second
	v.Quorum = 1
	if !b.header(n, v) {
		return
	}
	b.each("virtual_server", n.Children, func(k *schema.Keyword, l *syntax.Node) { b.serverLine(v, k, l) }, nil)
	b.finishServer(n, v)
}

// header reads what is balanced: IP [PORT], fwmark N or group NAME.
func (b *binder) header(n *syntax.Node, v *virtual) bool {
	switch n.Arg(0) {
	case "fwmark":
		m, err := schema.Arg{Min: 1, Max: 4294967295}.Int(n.Arg(1))
		if err != nil {
			b.fail(n.ArgPos(1), "write virtual_server fwmark N", "fwmark: %v", err)
			return false
		}
		v.id.Mark = uint32(m)
	case "group":
		g := b.groups[n.Arg(1)]
		if g == nil {
			fix := b.meant(n.Arg(1), func() []string { return slices.Sorted(maps.Keys(b.groups)) }, "define it with virtual_server_group "+n.Arg(1)+" { … }")
			b.fail(n.ArgPos(1), fix, "there is no virtual_server_group %s", quote(n.Arg(1)))
			return false
		}
		if len(g.services) == 0 {
			b.fail(n.ArgPos(1), "", "virtual_server_group %s is empty", quote(n.Arg(1)))
			return false
		}
		v.group, v.groupName = g, n.Arg(1)
	default:
		a, err := netip.ParseAddr(n.Arg(0))
		if err != nil || a.Zone() != "" {
			b.fail(n.ArgPos(0), "write virtual_server ADDRESS PORT, fwmark N or group NAME", "%s is no IP address", quote(n.Arg(0)))
			return false
		}
		port, ok := b.port(n, 1)
		if !ok {
			return false
		}
		v.id.Addr, v.id.Port = a, port
	}
	return true
}

// serverLine binds one line of a virtual_server block.
func (b *binder) serverLine(v *virtual, k *schema.Keyword, l *syntax.Node) {
	if v.inherited.take(l) {
		return
	}
	switch k.Name {
	case "lb_algo":
		v.Scheduler = l.Arg(0)
	case "flag-1":
		v.flags = append(v.flags, l)
	case "ops":
		v.OnePacket = true
	case "lb_kind":
		if f, ok := b.forward(l, 0); ok {
			v.Forward, v.Tunnel, v.forwardSet = f.method, f.tunnel, true
		}
	case "persistence_timeout":
		v.Persistence = 360 * time.Second
		if l.Arg(0) != "" {
			v.Persistence = seconds(l)
			if v.Persistence == 0 {
				b.mapped(l, "read as off")
				b.note(l.Pos, "delete the line", "persistence_timeout 0 is read as off; keepalived refuses the value, to the same effect")
			}
		}
	case "persistence_granularity":
		b.granularity(v, l)
	case "persistence_engine":
		v.PersistenceEngine = l.Arg(0)
	case "protocol":
		switch strings.ToUpper(l.Arg(0)) {
		case "TCP":
			v.id.Protocol = model.TCP
		case "UDP":
			v.id.Protocol = model.UDP
		case "SCTP":
			v.id.Protocol = model.SCTP
		default:
			b.fail(l.ArgPos(0), "write TCP, UDP or SCTP", "protocol: %s is not one of TCP, UDP, SCTP", quote(l.Arg(0)))
		}
	case "ip_family":
		v.familySet = true
		v.id.IPv6 = l.Arg(0) == "inet6"
	case "weight":
		v.weight = number(l)
	case "inhibit_on_failure":
		v.inhibit = truth(l)
	case "omega":
		v.Omega = true
	case "quorum":
		v.Quorum = number(l)
	case "hysteresis":
		v.Hysteresis = number(l)
	case "quorum_up":
		v.QuorumUp = b.command(l, false)
	case "quorum_down":
		v.QuorumDown = b.command(l, false)
	case "sorry_server":
		v.sorryAt = l
	case "sorry_server_inhibit":
		v.SorryInhibit = true
	case "sorry_server_lvs_method":
		if f, ok := b.forward(l, 0); ok {
			v.sorryForward = &f
		}
	case "real_server":
		v.real = append(v.real, l)
	case "ha_suspend":
		v.HASuspend = true
	case "virtualhost":
		v.host = l.Arg(0)
	case "snmp_name":
		v.SNMPName = l.Arg(0)
	case "smtp_alert":
		v.mail = tristate(l)
	}
}

// forward reads NAT|DR|TUN [type ipip|gue port N|gre] [nocsum|csum|remcsum].
func (b *binder) forward(n *syntax.Node, from int) (forward, bool) {
	var f forward
	switch n.Arg(from) {
	case "NAT":
		f.method = model.NAT
	case "DR":
		f.method = model.DR
	case "TUN":
		f.method = model.TUN
		f.tunnel.Type = "ipip"
	default:
		fix := "write NAT, DR or TUN"
		if u := strings.ToUpper(n.Arg(from)); u == "NAT" || u == "DR" || u == "TUN" {
			fix = "write " + u + ", in upper case"
		}
		b.fail(n.ArgPos(from), fix, "%s: %s is not one of NAT, DR, TUN", n.Name(), quote(n.Arg(from)))
		return f, false
	}
	args := n.Args()
	for i := from + 1; i < len(args); i++ {
		switch w := args[i].Text; w {
		case "type":
			i++
			f.tunnel.Type = n.Arg(i)
			if t := f.tunnel.Type; t != "ipip" && t != "gue" && t != "gre" {
				b.fail(n.ArgPos(i), "write ipip, gue or gre", "%s: unknown tunnel %s", n.Name(), quote(t))
				return f, false
			}
		case "port":
			i++
			v, err := schema.Arg{Min: 1, Max: 65535}.Int(n.Arg(i))
			if err != nil {
				b.fail(n.ArgPos(i), "", "%s port: %v", n.Name(), err)
				return f, false
			}
			f.tunnel.Port = uint16(v)
		case "nocsum", "csum", "remcsum":
			f.tunnel.Csum = w
		default:
			b.warn(n.ArgPos(i), "write TUN type ipip|gue port N|gre nocsum|csum|remcsum", "%s: unknown word %s, ignored", n.Name(), quote(w))
		}
	}
	t := f.tunnel
	switch {
	case f.method != model.TUN && t != (model.Tunnel{}):
		b.warn(n.Pos, "", "%s: tunnel options count with TUN only", n.Name())
		f.tunnel = model.Tunnel{}
	case t.Type == "gue" && t.Port == 0:
		b.fail(n.Pos, "write type gue port N", "%s: a gue tunnel needs a port", n.Name())
		return f, false
	case t.Type != "gue" && t.Port != 0, t.Type == "ipip" && t.Csum != "", t.Type == "gre" && t.Csum == "remcsum":
		b.fail(n.Pos, "port goes with gue; checksums with gue, and csum or nocsum with gre", "%s: these options do not go with a tunnel of type %s", n.Name(), t.Type)
		return f, false
	}
	return f, true
}

// granularity reads a netmask, or a length for IPv6.
func (b *binder) granularity(v *virtual, l *syntax.Node) {
	s := l.Arg(0)
	if a, err := netip.ParseAddr(s); err == nil && a.Is4() {
		bits, m := 0, a.As4()
		word := uint32(m[0])<<24 | uint32(m[1])<<16 | uint32(m[2])<<8 | uint32(m[3])
		for word<<bits != 0 {
			bits++
		}
		if bits < 32 && word != ^uint32(0)<<(32-bits) {
			b.fail(l.ArgPos(0), "write a netmask such as 255.255.255.0", "%s is no netmask", s)
			return
		}
		v.Granularity, v.granularitySet = bits, true
		return
	}
	n, err := schema.Arg{Min: 1, Max: 128}.Int(s)
	if err != nil {
		b.fail(l.ArgPos(0), "write a netmask, or for IPv6 a length of 1…128", "persistence_granularity: %v", err)
		return
	}
	v.Granularity, v.granularitySet = int(n), true
}
