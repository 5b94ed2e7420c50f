package bind

import (
	"net/netip"
	"strconv"
	"strings"

	"ballast/configs/model"
	"ballast/configs/schema"
	"ballast/configs/syntax"
)

// firstRule is the preference of the first rule that names none; the next one
// gets one less, for each family.
const firstRule = 16384

// tables are the names that every kernel knows.
var tables = map[string]uint32{"main": 254, "local": 255, "default": 253}

// table reads a routing table.
func table(s string) (uint32, bool) {
	if v, ok := tables[s]; ok {
		return v, true
	}
	v, err := strconv.ParseUint(s, 0, 32)
	return uint32(v), err == nil
}

// ipProtocols are the protocols that people write by name.
var ipProtocols = map[string]uint8{"icmp": 1, "igmp": 2, "ipip": 4, "tcp": 6, "udp": 17, "dccp": 33, "gre": 47, "esp": 50, "ah": 51,
	"ipv6-icmp": 58, "icmpv6": 58, "vrrp": 112, "sctp": 132, "udplite": 136}

// rule reads a rule line, in the words of ip rule. A line with a fault is left
// out as a whole: half a rule would send traffic elsewhere.
func (b *binder) rule(n *syntax.Node) (model.Rule, bool) {
	b.used(n)
	var r model.Rule
	good, acted, family := true, false, 0
	bad := func(i int, fix, format string, args ...any) {
		good = false
		b.fail(n.ArgPos(i-1), fix, "rule: "+format, args...)
	}
	words := n.Words
	preferenceSet := false
	for i := 0; i < len(words); i++ {
		at, word := i, words[i].Text
		k := schema.Lookup("rule-line", word)
		if word == "type" {
			i++
			if word = n.Arg(i - 1); word != "unreachable" && word != "prohibit" && word != "blackhole" {
				bad(at, "write unreachable, prohibit or blackhole", "unknown type %s", quote(word))
				continue
			}
		} else if k == nil && word != "unreachable" && word != "prohibit" && word != "blackhole" {
			bad(at, b.nearWord("rule-line", word), "unknown word %s; the rule is left out", quote(word))
			return r, false // what follows cannot be told apart
		}
		value := ""
		switch word {
		case "not", "nop", "l3mdev", "inet", "inet6", "no_track", "unreachable", "prohibit", "blackhole":
		default:
			i++
			if value = n.Arg(i - 1); value == "" {
				bad(at, "", "%s needs a value", word)
				continue
			}
		}
		number := func(most uint64) uint64 {
			v, err := strconv.ParseUint(value, 0, 64)
			if err != nil || v > most {
				bad(i, "", "%s: %s is no number of 0…%d", word, quote(value), most)
				return 0
			}
			return v
		}
		act := func() {
			if acted {
				bad(at, "write one of lookup, goto, nop, blackhole, prohibit, unreachable and l3mdev", "a second action %s", word)
			}
			acted = true
		}
		switch word {
		case "from", "to":
			p, ok := netip.Prefix{}, true
			switch value {
			case "any", "all", "default", "0":
			default:
				if p, ok = prefix(value); !ok {
					bad(i, "write ADDRESS/LENGTH", "%s: %s is no address and no network", word, quote(value))
					continue
				}
				p = p.Masked()
				f := 4
				if p.Addr().Is6() {
					f = 6
				}
				if family != 0 && family != f {
					bad(i, "", "%s %s is of another family than the rest of the line", word, value)
				}
				family = f
			}
			if word == "from" {
				r.From = p
			} else {
				r.To = p
			}
		case "inet", "inet6":
			f := 4
			if word == "inet6" {
				f = 6
			}
			if family != 0 && family != f {
				bad(at, "", "%s does not go with the addresses of the line", word)
			}
			family = f
		case "lookup", "table":
			act()
			v, ok := table(value)
			if !ok || v == 0 {
				bad(i, "write the number of the table", "%s: %s is no table", word, quote(value))
			}
			r.Table = v
		case "l3mdev":
			act()
			r.L3MDev = true
		case "goto":
			act()
			r.Action, r.Goto = "goto", uint32(number(1<<32-1))
		case "nop", "unreachable", "prohibit", "blackhole":
			act()
			r.Action = word
		case "not":
			r.Not = true
		case "preference", "priority", "order":
			r.Preference, preferenceSet = uint32(number(1<<32-1)), true
		case "fwmark":
			mark, mask, masked := strings.Cut(value, "/")
			v, err := strconv.ParseUint(mark, 0, 32)
			m := uint64(1<<32 - 1)
			if masked && err == nil {
				m, err = strconv.ParseUint(mask, 0, 32)
			}
			if err != nil {
				bad(i, "write fwmark MARK or MARK/MASK", "fwmark: %s is no mark", quote(value))
			}
			r.Mark, r.MarkMask = uint32(v), uint32(m)
		case "tos", "dsfield":
			if v, ok := tos(value); ok {
				r.TOS = v
			} else {
				bad(i, "write a number of 0…255", "%s: %s is no type of service", word, quote(value))
			}
		case "realms":
			if v, ok := realms(value); ok {
				r.Realms = v
			} else {
				bad(i, "write realms FROM/TO, by number", "realms: %s is no pair of realms", quote(value))
			}
		case "dev", "iif", "oif":
			if !b.ifname(n, i-1, value) {
				good = false
			} else if word == "oif" {
				r.OIF = value
			} else {
				r.IIF = value
			}
		case "uidrange":
			from, to, ok := span(value, 1<<32-1)
			if !ok {
				bad(i, "write uidrange FIRST-LAST", "uidrange: %s is no range of user numbers", quote(value))
			}
			r.UIDRange, r.UIDFrom, r.UIDTo = true, uint32(from), uint32(to)
		case "tunnel-id":
			r.TunnelID = number(1<<64 - 1)
		case "ipproto", "ip_proto":
			if p, ok := ipProtocols[value]; ok {
				r.IPProto = p
			} else {
				r.IPProto = uint8(number(255))
			}
		case "sport", "dport":
			from, to, ok := span(value, 65535)
			if !ok || from == 0 {
				bad(i, "write "+word+" PORT or FIRST-LAST", "%s: %s is no port and no range of ports", word, quote(value))
			}
			p := model.PortRange{From: uint16(from), To: uint16(to)}
			if word == "sport" {
				r.SPort = p
			} else {
				r.DPort = p
			}
		case "protocol":
			r.Protocol = uint8(number(255))
		case "suppress_prefixlength", "sup_pl":
			r.SuppressPrefix = int(number(128)) + 1
		case "suppress_ifgroup", "sup_group":
			if value == "default" {
				value = "0"
			}
			r.SuppressGroup = int(number(1<<31-1)) + 1
		case "no_track":
			r.NoTrack = true
		case "track_group":
			r.TrackGroup = b.trackGroupName(n, i-1, value)
		}
	}
	r.IPv6 = family == 6
	return r, good && b.finishRule(n, &r, acted, preferenceSet)
}

// finishRule checks what goes together and gives a preference.
func (b *binder) finishRule(n *syntax.Node, r *model.Rule, acted, preferenceSet bool) bool {
	switch {
	case !acted:
		b.fail(n.Pos, "add lookup TABLE", "the rule has no action")
		return false
	case r.Action == "goto" && (!preferenceSet || r.Preference >= r.Goto):
		b.fail(n.Pos, "write preference N below goto M", "goto %d leads forward only: the rule needs a preference below it", r.Goto)
		return false
	case r.Action != "" && (r.Realms != 0 || r.SuppressPrefix != 0 || r.SuppressGroup != 0):
		b.fail(n.Pos, "", "realms and suppress_… go with lookup only, not with %s", r.Action)
		return false
	case r.Realms != 0 && r.IPv6:
		b.fail(n.Pos, "", "realms are for IPv4 only")
		return false
	}
	if !r.NoTrack && r.Protocol != 0 && r.Protocol != keepalivedProtocol {
		b.warn(n.Pos, "add no_track, or delete protocol", "a rule of protocol %d cannot be told from others' rules; protocol %d is used, as keepalived does", r.Protocol, keepalivedProtocol)
		r.Protocol = 0
	}
	if r.TrackGroup != "" && r.IIF == "" {
		b.warn(n.Pos, "add iif INTERFACE", "track_group needs dev or iif on a rule; it is ignored, as in keepalived")
		r.TrackGroup = ""
	}
	if !preferenceSet {
		next := &b.nextRule[0]
		if r.IPv6 {
			next = &b.nextRule[1]
		}
		r.Preference = uint32(firstRule - *next)
		*next++
		b.warn(n.Pos, "write preference N", "the rule has no preference; %d is used, as keepalived does", r.Preference)
	}
	return true
}

// keepalivedProtocol is RTPROT_KEEPALIVED, the mark of routes and rules.
const keepalivedProtocol = 18

// tos reads a type of service: a number, as iproute2 reads it in hexadecimal
// with 0x, or one of its common names.
func tos(s string) (uint8, bool) {
	switch s {
	case "default":
		return 0, true
	case "lowdelay":
		return 0x10, true
	case "throughput":
		return 0x08, true
	case "reliability":
		return 0x04, true
	}
	v, err := strconv.ParseUint(s, 0, 8)
	return uint8(v), err == nil
}

// realms reads [FROM/]TO.
func realms(s string) (uint32, bool) {
	from, to, both := strings.Cut(s, "/")
	if !both {
		from, to = "0", s
	}
	f, err1 := strconv.ParseUint(from, 0, 16)
	t, err2 := strconv.ParseUint(to, 0, 16)
	return uint32(f<<16 | t), err1 == nil && err2 == nil
}

// span reads N or A-B.
func span(s string, most uint64) (from, to uint64, ok bool) {
	lo, hi, two := strings.Cut(s, "-")
	if !two {
		hi = lo
	}
	from, err1 := strconv.ParseUint(lo, 10, 64)
	to, err2 := strconv.ParseUint(hi, 10, 64)
	return from, to, err1 == nil && err2 == nil && from <= to && to <= most
}

// trackGroupName finds the track_group that a static line names.
func (b *binder) trackGroupName(n *syntax.Node, arg int, name string) string {
	if _, known := b.places["track_group/"+name]; !known {
		b.warn(n.ArgPos(arg), "define it with track_group "+name+" { group { INSTANCE … } }", "there is no track_group %s; it is left out, as in keepalived", quote(name))
		return ""
	}
	return name
}
