package bind

import (
	"fmt"
	"net"
	"net/netip"
	"strings"

	"ballast/configs/model"
	"ballast/configs/schema"
	"ballast/configs/syntax"
)

// vmac reads use_vmac [[name] IF] [MAC] [netlink_notify_msg] [group G], or
// use_ipvlan [[name] IF] [IP] [bridge|private|vepa] [group G].
func (b *binder) vmac(r *raw, l *syntax.Node) {
	ipvlan := l.Name() == "use_ipvlan"
	if r.VMAC != nil {
		b.warn(l.Pos, "leave one use_vmac or use_ipvlan", "%s: a second %s is ignored", r.Name, l.Name())
		return
	}
	v := &model.VMAC{IPVLAN: ipvlan}
	if r.VMAC = v; ipvlan {
		v.Mode = "bridge"
	}
	r.vmacAt = l.Pos
	args := l.Args()
	for i := 0; i < len(args); i++ {
		word, at := args[i].Text, l.ArgPos(i)
		switch {
		case word == "netlink_notify_msg" && !ipvlan:
			// For routing daemons that look at netlink: there is none on the box.
			b.note(at, "", "netlink_notify_msg has no effect here: it is for other daemons of the machine")
			continue
		case word == "group":
			i++
			n, err := schema.Arg{Max: 1<<32 - 1}.Int(l.Arg(i))
			if l.Arg(i) == "default" {
				n, err = 0, nil
			}
			if err != nil {
				b.fail(l.ArgPos(i), "write the number of the group", "%s: group: %v", l.Name(), err)
				continue
			}
			v.Group = uint32(n)
			continue
		case ipvlan && (word == "bridge" || word == "private" || word == "vepa"):
			v.Mode = word
			continue
		case ipvlan:
			if p, ok := prefix(word); ok {
				v.Addr = p
				continue
			}
		case strings.Contains(word, ":"):
			v.MAC = b.macOf(r, word, at)
			continue
		}
		if word == "name" && i+1 < len(args) {
			i++
			word = l.Arg(i)
		}
		if v.Name != "" {
			b.fail(l.ArgPos(i), "write "+l.Name()+" [NAME] …, one name", "%s: %s is a second name", l.Name(), quote(word))
			continue
		}
		if b.ifname(l, i, word) {
			v.Name = word
		}
	}
}

// macOf reads the address of a virtual MAC: six octets, or five, to which the
// virtual router's number is added later.
func (b *binder) macOf(r *raw, s string, at model.Pos) string {
	octets := strings.Split(strings.TrimSuffix(s, ":"), ":")
	hw := make(net.HardwareAddr, 0, 6)
	for _, o := range octets {
		var v byte
		if _, err := fmt.Sscanf(o, "%x", &v); err != nil || len(o) > 2 || strings.Trim(o, "0123456789abcdefABCDEF") != "" {
			hw = nil
			break
		}
		hw = append(hw, v)
	}
	switch {
	case len(hw) != 5 && len(hw) != 6:
		b.fail(at, "write six octets, or five and the virtual_router_id is added", "use_vmac: %s is no MAC address", quote(s))
		return ""
	case hw[0]&1 != 0:
		b.fail(at, "write an even first octet, such as 02", "use_vmac: %s is a multicast address", s)
		return ""
	case strings.HasPrefix(hw.String(), "00:00:5e:00:01") || strings.HasPrefix(hw.String(), "00:00:5e:00:02"):
		b.fail(at, "leave the address out: it is the default", "use_vmac: %s is of the range that VRRP itself gives to virtual routers", s)
		return ""
	}
	return hw.String()
}

// finishVMAC names the virtual interface of an instance, once its number and
// family are known, and checks what goes together.
func (b *binder) finishVMAC(n *syntax.Node, r *raw) {
	in, d := &r.Instance, &b.defaults
	v := in.VMAC
	if v == nil {
		if r.xmitBase.Line != 0 {
			b.warn(r.xmitBase, "add use_vmac", "%s: vmac_xmit_base does nothing without use_vmac", in.Name)
		}
		if in.VMACAddr {
			b.addrNames(r)
		}
		return
	}
	if in.Interface == "" {
		b.fail(r.vmacAt, "add interface NAME", "%s: a virtual MAC needs an interface below it", in.Name)
	}
	family := 1
	suffix := ""
	if in.IPv6 {
		family, suffix = 2, "6"
	}
	if v.Name == "" && in.VRID != 0 {
		v.Name = fmt.Sprintf("%s%s.%d", d.vmacPrefix, suffix, in.VRID)
		// keepalived counts up where another instance has taken the name.
		for i := 1; b.vmacs[v.Name] != "" && i < 1000; i++ {
			v.Name = fmt.Sprintf("%s%s.%d.%d", d.vmacPrefix, suffix, in.VRID, i)
		}
		if len(v.Name) > 15 {
			b.fail(r.vmacAt, "shorten vmac_prefix, or write use_vmac NAME", "%s: the name %s of the virtual interface is longer than 15 characters", in.Name, quote(v.Name))
		}
	} else if other := b.vmacs[v.Name]; other != "" {
		b.fail(r.vmacAt, "give each its own name", "%s and %s both make an interface %s", in.Name, other, v.Name)
	}
	if v.Name == in.Interface && v.Name != "" {
		b.fail(r.vmacAt, "write another name", "%s: the virtual interface cannot have the name of the interface below it", in.Name)
	}
	b.vmacs[v.Name] = in.Name
	if v.IPVLAN {
		if v.Addr.IsValid() && v.Addr.Addr().Is6() != in.IPv6 {
			b.fail(r.vmacAt, "", "%s: the address %s of the ipvlan is not of the instance's family", in.Name, v.Addr)
			v.Addr = netip.Prefix{}
		}
		if !v.Addr.IsValid() && !in.IPv6 {
			b.fail(r.vmacAt, "write use_ipvlan "+v.Name+" ADDRESS/LENGTH", "%s: an ipvlan needs an IPv4 address of its own", in.Name)
		}
		if v.Addr.IsValid() && !in.SrcIP.IsValid() {
			in.SrcIP = v.Addr.Addr()
		}
		if r.xmitBase.Line != 0 {
			b.warn(r.xmitBase, "delete it", "%s: vmac_xmit_base goes with use_vmac, not with use_ipvlan", in.Name)
		}
		return
	}
	switch strings.Count(v.MAC, ":") {
	case 0:
		if in.VRID != 0 {
			v.MAC = fmt.Sprintf("00:00:5e:00:%02x:%02x", family, in.VRID)
		}
	case 4:
		v.MAC = fmt.Sprintf("%s:%02x", v.MAC, in.VRID)
	}
	v.XmitBase = r.xmitBase.Line != 0
	if in.Strict && v.XmitBase {
		b.warn(r.xmitBase, "delete it, or vrrp_strict", "%s: strict mode advertises from the virtual MAC; vmac_xmit_base is ignored", in.Name)
		v.XmitBase = false
	}
	if in.Unicast && !v.XmitBase {
		b.note(r.vmacAt, "add vmac_xmit_base", "%s: unicast advertisements leave from the interface below, as if vmac_xmit_base were written", in.Name)
		v.XmitBase = true
	}
	if in.VMACAddr {
		b.addrNames(r)
	}
}

// addrNames puts addresses of other interfaces on virtual MACs (use_vmac_addr).
func (b *binder) addrNames(r *raw) {
	set := func(list []placed) {
		for i := range list {
			if list[i].Interface != "" && list[i].Interface != r.Interface {
				list[i].UseVMAC = true
			}
		}
	}
	set(r.vips)
	set(r.excluded)
}
