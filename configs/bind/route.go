package bind

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	"ballast/configs/model"
	"ballast/configs/schema"
	"ballast/configs/syntax"
)

// rtax are the numbers of linux/rtnetlink.h for the metrics of a route.
var rtax = map[string]uint16{
	"mtu": 2, "window": 3, "rtt": 4, "rttvar": 5, "ssthresh": 6, "cwnd": 7, "advmss": 8, "reordering": 9, "hoplimit": 10,
	"initcwnd": 11, "features": 12, "rto_min": 13, "initrwnd": 14, "quickack": 15, "fastopen_no_cookie": 17,
}

// routeProtocols are the names that every system knows.
var routeProtocols = map[string]uint8{"redirect": 1, "kernel": 2, "boot": 3, "static": 4, "ra": 9, "dhcp": 16, "keepalived": keepalivedProtocol, "bird": 12, "zebra": 11, "bgp": 186, "ospf": 188, "rip": 189}

// routeLine reads the words of one route.
type routeLine struct {
	b         *binder
	n         *syntax.Node
	words     []syntax.Word
	i         int
	r         model.Route
	isDefault bool
	bad       bool // it has a fault
	left      bool // it cannot be set here, and is left out
}

// route reads a route, from words.
func (b *binder) route(words []syntax.Word, n *syntax.Node) (model.Route, bool) {
	if n.Name() != "route" {
		b.used(n)
	}
	p := routeLine{b: b, n: n, words: words}
	for ; p.i < len(words) && !p.left; p.i++ {
		p.word(words[p.i].Text)
	}
	if p.left {
		return p.r, false
	}
	return p.r, p.finish()
}

func (p *routeLine) at(i int) model.Pos {
	pos := p.n.Pos
	pos.Col = p.words[min(i, len(p.words)-1)].Col
	return pos
}

func (p *routeLine) fail(i int, fix, format string, args ...any) {
	p.bad = true
	p.b.fail(p.at(i), fix, "route: "+format, args...)
}

// next takes the value of the word that is read now.
func (p *routeLine) next() string {
	p.i++
	if p.i < len(p.words) {
		return p.words[p.i].Text
	}
	return ""
}

func (p *routeLine) number(word string, most uint64) uint32 {
	value := p.next()
	v, err := strconv.ParseUint(value, 0, 64)
	switch {
	case value == "":
		p.fail(p.i-1, "", "%s needs a number", word)
	case err != nil || v > most:
		p.fail(p.i, "", "%s needs a number of 0…%d, not %s", word, most, quote(value))
	}
	return uint32(v)
}

func (p *routeLine) addr(word string) netip.Addr {
	value := p.next()
	if value == "inet" || value == "inet6" {
		value = p.next()
	}
	a, err := schema.Addr(value)
	if err != nil {
		p.fail(p.i, "", "%s needs an address", word)
	}
	return a
}

func (p *routeLine) ifname(word string) string {
	value := p.next()
	if value == "" {
		p.fail(p.i-1, "", "%s needs the name of an interface", word)
	} else if !p.b.ifname(&syntax.Node{Pos: p.at(p.i), Words: p.words[p.i : p.i+1]}, -1, value) {
		p.bad = true
	}
	return value
}

// leave says why a route is not set.
func (p *routeLine) leave(i int, fix, format string, args ...any) {
	p.left = true
	p.b.warn(p.at(i), fix, format+" in this release: the route is left out", args...)
}

// word reads one word and its value.
func (p *routeLine) word(word string) {
	r := &p.r
	switch word {
	case "blackhole", "unreachable", "prohibit", "throw":
		r.Type = word
	case "unicast", "to", "prepend", "inet", "inet6":
	case "append":
		r.Append = true
	case "local", "broadcast", "multicast", "anycast", "nat", "xresolve":
		p.leave(p.i, "", "routes of type %s are not implemented", word)
	case "default":
		p.isDefault = true
	case "default6":
		r.Dst = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	case "via", "gw":
		r.Via = p.addr(word)
	case "or":
		// An old way to write two gateways of the same weight.
		if !r.Via.IsValid() && len(r.NextHops) == 0 {
			p.fail(p.i, "write via A or B", "or needs a gateway before it")
		}
		r.NextHops = append(r.NextHops, model.NextHop{Via: p.addr(word), Weight: 1})
	case "nexthop":
		p.nexthop()
	case "src":
		r.Src = p.addr(word)
	case "from":
		p.leave(p.i, "", "routes by source address are not implemented")
	case "dev", "oif":
		r.Interface = p.ifname(word)
	case "table":
		value := p.next()
		v, ok := table(value)
		if !ok {
			p.fail(p.i, "write the number of the table", "table %s is not known", quote(value))
		}
		if v != tables["main"] {
			r.Table = v
		}
	case "metric", "priority", "preference":
		r.Metric = p.number(word, 1<<32-1)
	case "scope":
		v, ok := scope(p.next())
		if !ok {
			p.fail(p.i, "write global, site, link, host, nowhere or a number", "unknown scope")
		}
		r.Scope = v
	case "tos", "dsfield":
		v, ok := tos(p.next())
		if !ok {
			p.fail(p.i, "write a number of 0…255", "%s is no type of service", word)
		}
		r.TOS = v
	case "protocol":
		value := p.next()
		v, known := routeProtocols[value]
		if n, err := strconv.ParseUint(value, 0, 8); err == nil {
			v, known = uint8(n), true
		}
		if !known {
			p.fail(p.i, "write a number of 0…255", "protocol %s is not known", quote(value))
		}
		r.Protocol = v
	case "onlink":
		r.OnLink = true
	case "no_track":
		r.NoTrack = true
	case "track_group":
		value := p.next()
		r.TrackGroup = p.b.trackGroupName(&syntax.Node{Pos: p.at(p.i), Words: p.words[:1]}, 1, value)
	case "realms":
		value := p.next()
		v, ok := realms(value)
		if !ok {
			p.fail(p.i, "write realms FROM/TO, by number", "%s is no pair of realms", quote(value))
		}
		r.Realms = v
	case "pref":
		switch value := p.next(); value {
		case "low", "high":
			r.Pref = value
		case "medium":
			r.Pref = ""
		default:
			p.fail(p.i, "write low, medium or high", "%s is no preference of a router", quote(value))
		}
	case "congctl":
		if p.i+1 < len(p.words) && p.words[p.i+1].Text == "lock" {
			r.CongestionLock = true
			p.i++
		}
		// TCP_CA_NAME_MAX of the kernel, with the 0 that ends it.
		if r.Congestion = p.next(); r.Congestion == "" || len(r.Congestion) > 15 {
			p.fail(p.i, "write congctl cubic", "congctl needs the name of an algorithm")
		}
	case "encap":
		p.encap()
	case "expires", "ttl-propagate", "vrf":
		p.b.warn(p.at(p.i), "delete it", "route: %s has no effect here: %s", word, noRouteWord[word])
		p.next()
	default:
		p.other(word)
	}
}

// noRouteWord says why a word of ip route does nothing on a box.
var noRouteWord = map[string]string{
	"expires":       "a route lasts as long as the configuration asks for it, and is set again when it goes",
	"ttl-propagate": "the box has no MPLS",
	"vrf":           "no block of the configuration makes a VRF, so the box has none; name the table by number",
}

// encap reads over what an encapsulation consists of: none of its words is one
// of the route. A box has no tunnel that would carry it out.
func (p *routeLine) encap() {
	p.b.warn(p.at(p.i), "use a tunnel interface", "route: encap has no effect here: the box has no tunnel that takes its ends from a route")
	switch p.next() {
	case "ip", "ip6":
		for p.i+2 < len(p.words) {
			switch p.words[p.i+1].Text {
			case "id", "dst", "src", "remote", "local", "tos", "dsfield", "ttl", "tc", "hoplimit", "flags":
				p.i += 2
				continue
			}
			return
		}
	default: // mpls LABELS, ila LOCATOR
		p.next()
	}
}

// other reads a metric, the destination, or what is read over.
func (p *routeLine) other(word string) {
	r := &p.r
	if kind, is := rtax[word]; is {
		p.metric(word, kind)
		return
	}
	if dst, ok := prefix(word); ok {
		if r.Dst.IsValid() || p.isDefault {
			p.fail(p.i, "", "a second destination %s", word)
		}
		r.Dst = dst.Masked()
		return
	}
	if k := schema.Lookup("route-line", word); k != nil && p.i > 0 {
		p.b.warn(p.at(p.i), "", "route: %s is read over", word)
		p.next()
		return
	}
	if strings.ContainsAny(word, ".:/") {
		p.fail(p.i, "write NETWORK/LENGTH or default", "%s is no destination", quote(word))
		return
	}
	p.b.warn(p.at(p.i), p.b.nearWord("route-line", word), "route: unknown word %s, ignored", quote(word))
}

// metric reads [lock] N of RTA_METRICS.
func (p *routeLine) metric(word string, kind uint16) {
	m := model.Metric{Kind: kind}
	if p.i+1 < len(p.words) && p.words[p.i+1].Text == "lock" {
		m.Lock = true
		p.i++
	}
	switch word {
	case "rtt", "rttvar", "rto_min":
		m.Value = p.time(word)
	case "features":
		if value := p.next(); value != "ecn" {
			p.fail(p.i, "write features ecn", "unknown feature %s", quote(value))
		}
		m.Value = 1
	case "hoplimit":
		m.Value = p.number(word, 255)
	case "quickack", "fastopen_no_cookie":
		m.Value = p.number(word, 1)
	default:
		m.Value = p.number(word, 1<<32-1)
	}
	if word == "mtu" && !m.Lock {
		p.r.MTU = m.Value
		return
	}
	p.r.Metrics = append(p.r.Metrics, m)
}

// time reads milliseconds, or a number with s or ms behind it. The kernel
// keeps rtt in eighths and rttvar in quarters of a millisecond; a number alone
// is taken as the kernel's.
func (p *routeLine) time(word string) uint32 {
	value := p.next()
	if v, err := strconv.ParseUint(value, 10, 32); err == nil {
		return uint32(v)
	}
	d, err := time.ParseDuration(value)
	if err != nil || d < 0 || d > 100*time.Hour {
		p.fail(p.i, "write "+word+" 200ms", "%s: %s is no time", word, quote(value))
		return 0
	}
	scale := map[string]int64{"rtt": 8, "rttvar": 4, "rto_min": 1}[word]
	return uint32(d.Milliseconds() * scale)
}

// nexthop reads one gateway of several: via IP dev IF weight N onlink.
func (p *routeLine) nexthop() {
	h := model.NextHop{Weight: 1}
	start := p.i
	for p.i+1 < len(p.words) && p.words[p.i+1].Text != "nexthop" {
		p.i++
		switch word := p.words[p.i].Text; word {
		case "via":
			h.Via = p.addr(word)
		case "dev", "oif":
			h.Interface = p.ifname(word)
		case "weight":
			if h.Weight = int(p.number(word, 256)); h.Weight == 0 {
				p.fail(p.i, "write weight 1…256", "a nexthop has no weight 0")
			}
		case "onlink":
			h.OnLink = true
		default:
			p.b.warn(p.at(p.i), "write nexthop via IP dev IF weight N", "route: %s in a nexthop is read over", quote(word))
			if word == "encap" || word == "realms" {
				p.next()
			}
		}
	}
	if !h.Via.IsValid() && h.Interface == "" {
		p.fail(start, "write nexthop via IP dev IF weight N", "a nexthop leads nowhere")
	}
	p.r.NextHops = append(p.r.NextHops, h)
}

// finish checks the line as a whole.
func (p *routeLine) finish() bool {
	r, b, n := &p.r, p.b, p.n
	if len(r.NextHops) > 0 && (r.Via.IsValid() || r.Interface != "") {
		// "via A or B", and "dev IF nexthop …": the first one joins the others.
		if r.Via.IsValid() {
			r.NextHops = append([]model.NextHop{{Via: r.Via, Weight: 1}}, r.NextHops...)
		}
		for i := range r.NextHops {
			if r.NextHops[i].Interface == "" {
				r.NextHops[i].Interface = r.Interface
			}
		}
		r.Via, r.Interface = netip.Addr{}, ""
	}
	if p.isDefault {
		r.Dst = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if r.Via.Is6() || len(r.NextHops) > 0 && r.NextHops[0].Via.Is6() {
			r.Dst = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
	}
	switch {
	case p.bad:
		return false
	case !r.Dst.IsValid():
		b.fail(n.Pos, "write DESTINATION via GATEWAY [dev INTERFACE]", "the route has no destination")
		return false
	case r.Via.IsValid() && r.Via.Is4() != r.Dst.Addr().Is4():
		b.fail(n.Pos, "", "gateway %s and destination %s are of different families", r.Via, r.Dst)
		return false
	case r.Src.IsValid() && r.Src.Is4() != r.Dst.Addr().Is4():
		b.fail(n.Pos, "", "source %s and destination %s are of different families", r.Src, r.Dst)
		return false
	case r.Type == "" && !r.Via.IsValid() && r.Interface == "" && len(r.NextHops) == 0:
		b.fail(n.Pos, "add via GATEWAY or dev INTERFACE", "the route to %s leads nowhere", r.Dst)
		return false
	case r.Realms != 0 && r.Dst.Addr().Is6():
		b.fail(n.Pos, "", "realms are for IPv4 only")
		return false
	case r.Pref != "" && r.Dst.Addr().Is4():
		b.fail(n.Pos, "", "pref is for IPv6 only")
		return false
	case r.Type != "" && len(r.NextHops) > 0:
		b.fail(n.Pos, "", "a %s route has no gateways", r.Type)
		return false
	}
	for _, h := range r.NextHops {
		if h.Via.IsValid() && h.Via.Is4() != r.Dst.Addr().Is4() {
			b.fail(n.Pos, "", "gateway %s and destination %s are of different families", h.Via, r.Dst)
			return false
		}
	}
	if r.Protocol != 0 && r.Protocol != keepalivedProtocol && !r.NoTrack {
		b.note(n.Pos, "add no_track, or delete protocol", "the route to %s has protocol %d, so its loss is not noticed", r.Dst, r.Protocol)
	}
	if r.TrackGroup != "" && r.Interface == "" {
		b.warn(n.Pos, "add dev INTERFACE", "track_group needs dev on a route; it is ignored, as in keepalived")
		r.TrackGroup = ""
	}
	return true
}
