package bind

import (
	"net/netip"
	"strconv"
	"strings"

	"ballast/configs/model"
	"ballast/configs/schema"
	"ballast/configs/syntax"
)

// prefix reads IP[/LEN]; without a length the address alone.
func prefix(s string) (netip.Prefix, bool) {
	if strings.Contains(s, "/") {
		p, err := netip.ParsePrefix(s)
		return p, err == nil && p.Addr().Zone() == ""
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(a, a.BitLen()), true
}

// broadcast is the highest address of a prefix.
func broadcast(p netip.Prefix) netip.Addr {
	s := p.Addr().AsSlice()
	for i := range s {
		if n := p.Bits() - 8*i; n <= 0 {
			s[i] = 0xff
		} else if n < 8 {
			s[i] |= 0xff >> n
		}
	}
	a, _ := netip.AddrFromSlice(s)
	return a
}

var scopes = map[string]uint8{"global": 0, "site": 200, "link": 253, "host": 254, "nowhere": 255}

func scope(s string) (uint8, bool) {
	if v, ok := scopes[s]; ok {
		return v, true
	}
	v, err := strconv.ParseUint(s, 0, 8)
	return uint8(v), err == nil
}

// address reads one address line. iface is the interface when it names none.
func (b *binder) address(n *syntax.Node, iface string) (model.Address, bool) {
	a := model.Address{Interface: iface}
	p, ok := prefix(n.Name())
	if !ok {
		b.use(n, Unknown, "")
		b.fail(n.Pos, "write IP/LENGTH, for example 192.0.2.10/24", "%s is no IP address", quote(n.Name()))
		return a, false
	}
	a.Prefix = p
	b.use(n, Works, "")
	args := n.Args()
	for i := 0; i < len(args); i++ {
		word, value := args[i].Text, ""
		if i+1 < len(args) {
			value = args[i+1].Text
		}
		k := schema.Lookup("address-line", word)
		if k == nil {
			if _, is := prefix(word); is {
				b.fail(n.ArgPos(i), "write it on a line of its own", "a second address %s on the line is not taken", word)
				continue
			}
			b.warn(n.ArgPos(i), b.nearWord("address-line", word), "unknown word %s on an address line, ignored", quote(word))
			continue
		}
		if len(k.Args) > 0 {
			if value == "" {
				b.fail(n.ArgPos(i), "", "%s needs a value", word)
				break
			}
			i++
		}
		at := n.ArgPos(i)
		switch k.Name {
		case "brd":
			switch value {
			case "+":
				a.Broadcast = broadcast(p)
			case "-":
				a.Broadcast = p.Masked().Addr()
			default:
				addr, err := schema.Addr(value)
				if err != nil || addr.Is4() != p.Addr().Is4() {
					b.fail(at, "", "brd: %s is no address of the same family", quote(value))
				} else {
					a.Broadcast = addr
				}
			}
		case "dev":
			if b.ifname(n, i, value) {
				a.Interface = value
			}
		case "label":
			a.Label = value
			if len(value) > 15 {
				b.fail(at, "shorten it", "label %s is longer than 15 characters", quote(value))
				a.Label = ""
			}
		case "scope":
			if v, ok := scope(value); ok {
				a.Scope = v
			} else {
				b.fail(at, "write global, site, link, host, nowhere or a number", "unknown scope %s", quote(value))
			}
		case "peer":
			if peer, ok := prefix(value); ok && peer.Addr().Is4() == p.Addr().Is4() {
				a.Peer = peer
			} else {
				b.fail(at, "", "peer: %s is no address of the same family", quote(value))
			}
		case "no_track":
			a.NoTrack = true
		case "noprefixroute":
			a.NoPrefixRoute = true
		default:
			if k.Status == schema.Planned && b.planned == 0 {
				b.warn(n.ArgPos(i), "", "%s is accepted but not implemented in this release: %s", word, k.Reason)
			}
		}
	}
	return a, true
}

func (b *binder) nearWord(block, word string) string {
	if near := schema.Nearest(block, word); near != "" {
		return "did you mean " + near + "?"
	}
	return "delete it"
}

// ifname judges the name of an interface (15 bytes at most, the kernel's limit).
func (b *binder) ifname(n *syntax.Node, arg int, name string) bool {
	if name == "" || len(name) > 15 || name == "." || name == ".." || strings.ContainsAny(name, "/ \t:%") {
		b.fail(n.ArgPos(arg), "a name has 1 to 15 characters without / : and blanks", "%s is no name of an interface", quote(name))
		return false
	}
	return true
}

// route reads a route, from words.
func (b *binder) route(words []syntax.Word, n *syntax.Node) (model.Route, bool) {
	if n.Name() != "route" {
		b.use(n, Works, "")
	}
	r := model.Route{}
	at := func(i int) model.Pos { p := n.Pos; p.Col = words[i].Col; return p }
	good, isDefault, multipath := true, false, false
	bad := func(i int, fix, format string, args ...any) {
		good = false
		b.fail(at(i), fix, format, args...)
	}
	for i := 0; i < len(words); i++ {
		word, value := words[i].Text, ""
		if i+1 < len(words) {
			value = words[i+1].Text
		}
		u32 := func(to *uint32) {
			v, err := strconv.ParseUint(value, 0, 32)
			if err != nil {
				bad(i, "", "route: %s needs a number", word)
			}
			*to = uint32(v)
			i++
		}
		switch word {
		case "blackhole", "unreachable", "prohibit", "throw":
			r.Type = word
		case "unicast", "to", "append", "prepend":
		case "inet", "inet6":
		case "local", "broadcast", "multicast", "anycast", "nat", "xresolve":
			b.warn(at(i), "", "routes of type %s are not implemented in this release: the route is left out", word)
			return r, false
		case "default":
			isDefault = true
		case "default6":
			r.Dst = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		case "via", "gw":
			if value == "inet" || value == "inet6" {
				if i++; i+1 < len(words) {
					value = words[i+1].Text
				}
			}
			a, err := schema.Addr(value)
			if err != nil {
				bad(i, "", "route: via needs an address")
			}
			r.Via = a
			i++
		case "nexthop", "or":
			multipath = true
		case "src", "from":
			a, err := schema.Addr(value)
			if err != nil {
				bad(i, "", "route: %s needs an address", word)
			}
			r.Src = a
			i++
		case "dev", "oif":
			r.Interface = value
			i++
		case "table":
			switch value {
			case "main":
				i++
			case "local":
				r.Table = 255
				i++
			case "default":
				r.Table = 253
				i++
			default:
				u32(&r.Table)
			}
		case "metric", "priority", "preference":
			u32(&r.Metric)
		case "mtu":
			if value == "lock" {
				if i++; i+1 < len(words) {
					value = words[i+1].Text
				}
			}
			u32(&r.MTU)
		case "scope":
			v, ok := scope(value)
			if !ok {
				bad(i, "", "route: unknown scope %s", quote(value))
			}
			r.Scope = v
			i++
		case "onlink":
			r.OnLink = true
		case "no_track":
			r.NoTrack = true
		default:
			if p, ok := prefix(word); ok {
				if r.Dst.IsValid() || isDefault {
					bad(i, "", "route: a second destination %s", word)
				}
				r.Dst = p.Masked()
				continue
			}
			if k := schema.Lookup("route-line", word); k != nil && i > 0 {
				b.warn(at(i), "", "route: %s is read over", word)
				i++
				continue
			}
			if strings.ContainsAny(word, ".:/") {
				bad(i, "write NETWORK/LENGTH or default", "route: %s is no destination", quote(word))
				continue
			}
			b.warn(at(i), b.nearWord("route-line", word), "route: unknown word %s, ignored", quote(word))
		}
	}
	if multipath {
		b.warn(n.Pos, "write one gateway with via", "routes with several gateways are not implemented in this release: the route is left out")
		return r, false
	}
	if isDefault {
		r.Dst = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if r.Via.Is6() {
			r.Dst = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
	}
	switch {
	case !good:
	case !r.Dst.IsValid():
		b.fail(n.Pos, "write DESTINATION via GATEWAY [dev INTERFACE]", "the route has no destination")
		good = false
	case r.Via.IsValid() && r.Via.Is4() != r.Dst.Addr().Is4():
		b.fail(n.Pos, "", "gateway %s and destination %s are of different families", r.Via, r.Dst)
		good = false
	case r.Type == "" && !r.Via.IsValid() && r.Interface == "":
		b.fail(n.Pos, "add via GATEWAY or dev INTERFACE", "the route to %s leads nowhere", r.Dst)
		good = false
	}
	return r, good
}
