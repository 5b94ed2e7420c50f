package vrrp

import (
	"cmp"
	"fmt"
	"hash/crc32"
	"net"
	"net/netip"
	"slices"
	"strings"

	"ballast/configs/model"
	"ballast/services/ipc/status"
	"ballast/services/vrrp/kernel"
	"ballast/services/vrrp/packet"
)

// virtualLink is an interface of use_vmac, use_vmac_addr or use_ipvlan.
type virtualLink struct {
	kernel.NewLink // without Parent and Alias
	base           string
	addr           netip.Prefix // of an ipvlan, kept in every role; invalid: none
}

// ownAlias begins the alias of the interfaces that this service made: they are
// adopted after a crash, and removed once nothing asks for them. What follows
// it is what was changed on the interface below.
const ownAlias = "ballast vrrp"

// maxName is the longest name of an interface.
const maxName = 15

var ipvlanModes = map[string]uint32{"": kernel.IPVLANBridge, "bridge": kernel.IPVLANBridge, "private": kernel.IPVLANPrivate, "vepa": kernel.IPVLANVEPA}

// virtualLinks are those that a configuration asks for, sorted by name.
func virtualLinks(list []model.Instance) []virtualLink {
	var out []virtualLink
	add := func(v virtualLink) {
		if !slices.ContainsFunc(out, func(o virtualLink) bool { return o.Name == v.Name }) {
			out = append(out, v)
		}
	}
	for i := range list {
		c := &list[i]
		if m := c.VMAC; m != nil {
			v := virtualLink{NewLink: kernel.NewLink{Name: m.Name, IPVLAN: m.IPVLAN, Group: m.Group}, base: c.Interface}
			if m.IPVLAN {
				v.Mode, v.addr = ipvlanModes[m.Mode], m.Addr
			} else {
				v.Mode, v.MAC = kernel.MacvlanPrivate, macOf(c)
			}
			add(v)
		}
		for _, a := range slices.Concat(c.VIPs, c.ExcludedVIPs) {
			base := orElse(a.Interface, c.Interface)
			if name := placeName(c, &a); name != base && (c.VMAC == nil || name != c.VMAC.Name) {
				add(virtualLink{NewLink: kernel.NewLink{Name: name, Mode: kernel.MacvlanPrivate, MAC: routerMAC(c)}, base: base})
			}
		}
	}
	slices.SortFunc(out, func(a, b virtualLink) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// macOf is the MAC of an instance with use_vmac.
func macOf(c *model.Instance) packet.MAC {
	if m, err := net.ParseMAC(c.VMAC.MAC); err == nil && len(m) == 6 {
		return packet.MAC(m)
	}
	return routerMAC(c)
}

// routerMAC is the virtual MAC of RFC 9568 section 7.3.
func routerMAC(c *model.Instance) packet.MAC {
	if c.IPv6 {
		return packet.MAC{0, 0, 0x5e, 0, 2, c.VRID}
	}
	return packet.MAC{0, 0, 0x5e, 0, 1, c.VRID}
}

// placeName is the interface of an address: its own or the instance's, or the
// virtual one above that.
func placeName(c *model.Instance, v *model.Address) string {
	base := orElse(v.Interface, c.Interface)
	switch {
	case base == c.Interface && c.VMAC != nil:
		return c.VMAC.Name
	case v.UseVMAC || c.VMACAddr && base != c.Interface:
		return addrLinkName(c, base)
	}
	return base
}

// addrLinkName names the virtual MAC of an instance on an interface that is not
// its own: "vrrp.51.eth1", with a checksum in place of a name that is too long.
func addrLinkName(c *model.Instance, base string) string {
	prefix := "vrrp"
	if c.IPv6 {
		prefix = "vrrp6"
	}
	name := fmt.Sprintf("%s.%d.%s", prefix, c.VRID, base)
	if len(name) > maxName {
		name = fmt.Sprintf("%s.%d.%04x", prefix, c.VRID, crc32.ChecksumIEEE([]byte(base))&0xffff)
	}
	return name
}

// makeVirtualLinks makes those that are missing and can be made, and takes over
// those that are there.
func (s *service) makeVirtualLinks() {
	if len(s.vlinks) == 0 {
		clear(s.vtrouble)
		return
	}
	changed := false
	trouble := map[string]string{}
	for i := range s.vlinks {
		v := &s.vlinks[i]
		base := s.links[v.base]
		if base == nil {
			continue // the instance says so
		}
		have := s.links[v.Name]
		switch {
		case have == nil:
		case v.is(have, base):
			if have.Up && have.Alias != "" && s.vseen[have.Index] {
				continue
			}
		case strings.HasPrefix(have.Alias, ownAlias):
			if err := s.rtnl.Batch([]kernel.Op{kernel.RemoveLink(v.Name)}); err != nil {
				trouble[v.Name] = err.Error()
				continue
			}
			have = nil
		default:
			trouble[v.Name] = fmt.Sprintf("interface %s is there already and is no %s of ours on %s; give it another name by use_vmac", v.Name, v.Kind(), v.base)
			continue
		}
		changed = true
		if err := s.setUpVirtualLink(v, base, have); err != nil {
			trouble[v.Name] = err.Error()
		}
	}
	for name, text := range trouble {
		if s.vtrouble[name] != text {
			s.log.warn("%s: %s", name, text)
		}
	}
	s.vtrouble = trouble
	if !changed {
		return
	}
	s.refreshTables()
	for i := range s.vlinks {
		v := &s.vlinks[i]
		if l := s.links[v.Name]; l != nil && trouble[v.Name] == "" {
			s.vseen[l.Index] = true
			s.keepAddr(v, l.Index)
		}
	}
}

// is tells whether a link is the one that is wanted.
func (v *virtualLink) is(l, base *kernel.Link) bool {
	return l.Kind == v.Kind() && l.Parent == base.Index && l.Mode == v.Mode && l.Group == v.Group && (v.IPVLAN || l.MAC == v.MAC)
}

// What a virtual MAC needs, as keepalived sets it: the interface answers ARP
// for its own addresses only, takes packets whose source is an address of this
// box, whichever way they come, and keeps the others when one address goes.
var virtualSysctls = [...][2]string{
	{"ipv4/conf/%s/arp_ignore", "1"}, {"ipv4/conf/%s/accept_local", "1"}, {"ipv4/conf/%s/rp_filter", "0"},
	{"ipv4/conf/%s/promote_secondaries", "1"}, {"ipv6/conf/%s/accept_ra", "0"},
}

// baseSysctls keep the interface below from answering for the addresses above.
// Below an ipvlan it must not ask in their name either: of two links with one
// MAC the kernel hands an answer to the one that has the address which asked,
// and the one below would wait for it for ever.
var baseSysctls = [...]string{"arp_ignore", "arp_filter", "arp_announce"}

// below is what a link of this kind needs of the interface below it; empty:
// nothing.
func (v *virtualLink) below(sysctl string) string {
	switch {
	case sysctl != "arp_announce":
		return "1"
	case v.IPVLAN:
		return "2"
	}
	return ""
}

func baseKey(link, name string) string { return "net/ipv4/conf/" + link + "/" + name }

func (s *service) setUpVirtualLink(v *virtualLink, base, have *kernel.Link) error {
	n := v.NewLink
	n.Parent = base.Index
	var ops []kernel.Op
	if have == nil {
		ops = append(ops, kernel.AddLink(n))
	}
	if have == nil || !strings.HasPrefix(have.Alias, ownAlias) {
		ops = append(ops, kernel.MarkLink(v.Name, s.aliasFor(base)))
	}
	if err := s.rtnl.Batch(ops); err != nil {
		return err
	}
	for _, k := range virtualSysctls {
		key := "net/" + fmt.Sprintf(k[0], v.Name)
		if kernel.Sysctl(key) == "" {
			continue // a kernel without IPv6
		}
		if err := kernel.SetSysctl(key, k[1]); err != nil {
			return err
		}
	}
	for _, name := range baseSysctls {
		value := v.below(name)
		if value == "" {
			continue
		}
		if err := kernel.SetSysctl(baseKey(base.Name, name), value); err != nil {
			return err
		}
	}
	if err := s.rtnl.Batch([]kernel.Op{kernel.UpLink(v.Name)}); err != nil {
		return err
	}
	if have == nil {
		s.log.info("made %s %s on %s", v.Kind(), v.Name, base.Name)
	}
	return nil
}

// aliasFor says whose an interface is, and what the one below held before.
func (s *service) aliasFor(base *kernel.Link) string {
	for _, l := range s.byIndex {
		if l.Parent == base.Index && strings.HasPrefix(l.Alias, ownAlias) {
			return l.Alias // it was changed already
		}
	}
	text := ownAlias
	for _, name := range baseSysctls {
		text += " " + name + "=" + kernel.Sysctl(baseKey(base.Name, name))
	}
	return text
}

// keepAddr sets the source address of an ipvlan, which stays in every role.
func (s *service) keepAddr(v *virtualLink, index int) {
	if !v.addr.IsValid() || slices.ContainsFunc(s.addrs, func(a kernel.Addr) bool { return a.Index == index && a.Prefix == v.addr }) {
		return
	}
	op := kernel.SetAddr(kernel.NewAddr{Index: index, Prefix: v.addr, Proto: status.AddrProtoLink})
	if err := s.rtnl.Batch([]kernel.Op{op}); err != nil {
		s.vtrouble[v.Name] = err.Error()
	}
}

// dropVirtualLinks removes those of ours that nothing asks for any more, and
// puts back what was changed below them.
func (s *service) dropVirtualLinks() {
	for index := range s.vseen {
		if s.byIndex[index] == nil {
			delete(s.vseen, index)
		}
	}
	wanted := func(l *kernel.Link) bool {
		return slices.ContainsFunc(s.vlinks, func(v virtualLink) bool { return v.Name == l.Name })
	}
	gone := map[int]string{} // index of the link below: alias
	for _, l := range s.byIndex {
		if !strings.HasPrefix(l.Alias, ownAlias) || l.Kind != "macvlan" && l.Kind != "ipvlan" || wanted(l) {
			continue
		}
		if err := s.rtnl.Batch([]kernel.Op{kernel.RemoveLink(l.Name)}); err != nil {
			s.log.limited("virtual link", "%v", err)
			continue
		}
		s.log.info("removed %s %s", l.Kind, l.Name)
		gone[l.Parent] = l.Alias
	}
	for parent, alias := range gone {
		base := s.byIndex[parent]
		if base == nil || slices.ContainsFunc(s.vlinks, func(v virtualLink) bool { return s.links[v.base] == base }) {
			continue
		}
		for _, word := range strings.Fields(strings.TrimPrefix(alias, ownAlias)) {
			name, value, ok := strings.Cut(word, "=")
			if !ok || !slices.Contains(baseSysctls[:], name) || value == "" {
				continue
			}
			if err := kernel.SetSysctl(baseKey(base.Name, name), value); err != nil {
				s.log.warn("%v", err)
			}
		}
	}
	if len(gone) > 0 {
		s.refreshTables()
	}
}

// bindVirtual finds the instance's virtual interface.
func (r *router) bindVirtual() (missing string) {
	r.vlink = nil
	m := r.cfg.VMAC
	if m == nil {
		return ""
	}
	if text := r.s.vtrouble[m.Name]; text != "" {
		return text
	}
	l := r.s.links[m.Name]
	switch {
	case l == nil:
		return fmt.Sprintf("interface %s is not there", m.Name)
	case !l.Up:
		return fmt.Sprintf("interface %s is down", m.Name)
	}
	r.vlink = l
	return ""
}

// onVirtualMAC tells whether advertisements come to a virtual MAC. Those of
// unicast go to addresses of the interface below.
func (r *router) onVirtualMAC() bool {
	return r.vlink != nil && !r.cfg.VMAC.IPVLAN && !r.cfg.Unicast
}

// outlet is the socket that advertisements leave by. From a virtual MAC they go
// as frames: no address, route or netfilter rule of the virtual interface can
// then be in their way.
func (r *router) outlet() (*sock, *kernel.Link) {
	switch {
	case r.vlink == nil || r.cfg.Unicast:
		return r.sock, nil
	case r.cfg.VMAC.XmitBase && r.below != nil:
		return r.below, nil
	case r.cfg.VMAC.IPVLAN:
		return nil, r.link // it has the same MAC, and hands multicast over later
	}
	return nil, r.vlink
}

// transmit sends an advertisement; b is its IP packet, of IPv6 the payload only.
func (r *router) transmit(b []byte, dst netip.Addr, hops int) error {
	k, l := r.outlet()
	if k != nil {
		return k.Send(b, r.src, dst, hops)
	}
	f, err := r.s.framesOn(l)
	if err != nil {
		return err
	}
	r.frame = append(kernel.AppendEther(r.frame[:0], l.MAC, r.src, dst, len(b)), b...)
	return f.Send(r.frame)
}

// framesOn is the packet socket of an interface.
func (s *service) framesOn(l *kernel.Link) (*kernel.Frames, error) {
	if f := s.frames[l.Index]; f != nil {
		return f, nil
	}
	f, err := kernel.OpenFrames(l.Index, l.Name)
	if err != nil {
		return nil, err
	}
	s.frames[l.Index] = f
	return f, nil
}
