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
	forever := false
	b.used(n)
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
		case "use_vmac":
			a.UseVMAC = true
		case "home", "mngtmpaddr":
			if !p.Addr().Is6() {
				b.warn(n.ArgPos(i), "delete it", "%s is for IPv6 only", word)
				continue
			}
			a.Home, a.MngTmpAddr = a.Home || word == "home", a.MngTmpAddr || word == "mngtmpaddr"
		case "autojoin":
			a.AutoJoin = true
		case "preferred_lft":
			a.Preferred = 0
			if value == "forever" {
				forever = true
				continue
			}
			v, err := schema.Arg{Max: 1<<32 - 1}.Int(value)
			if err != nil {
				b.fail(at, "write seconds, or forever", "preferred_lft: %v", err)
				continue
			}
			if forever = v == 1<<32-1; forever {
				continue
			}
			if a.Preferred = time.Duration(v) * time.Second; v == 0 {
				a.Preferred = -1
			}
		case "track_group":
			a.TrackGroup = b.trackGroupName(n, i, value)
		}
		if k.Status == schema.Planned && b.planned == 0 {
			b.warn(n.ArgPos(i), "", "%s is accepted but not implemented in this release: %s", word, k.Reason)
		}
	}
	if p.Addr().Is6() && p.IsSingleIP() && a.Preferred == 0 && !forever {
		a.Preferred = -1 // so that it is no source of the box's own traffic, RFC 6724
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
