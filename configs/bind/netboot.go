package bind

import (
	"net"
	"slices"

	"ballast/configs/model"
	"ballast/configs/schema"
	"ballast/configs/syntax"
)

// netboot binds the appliance's netboot block: who boots from this box.
func (b *binder) netboot(n *syntax.Node) {
	b.each("netboot", n.Children, func(_ *schema.Keyword, l *syntax.Node) { b.netbootBox(l) }, nil)
}

func (b *binder) netbootBox(n *syntax.Node) {
	hw, err := net.ParseMAC(n.Arg(0))
	if err != nil || len(hw) != 6 || hw[0]&1 != 0 {
		b.fail(n.ArgPos(0), "write six bytes, as 52:54:00:12:34:56", "%s is no MAC address of a network card", quote(n.Arg(0)))
		return
	}
	box := model.NetbootBox{MAC: hw.String()}
	place := "netboot/" + box.MAC
	if _, twice := b.places[place]; twice {
		b.fail(n.Pos, "write one block", "netboot: box %s has two blocks", box.MAC)
		return
	}
	b.places[place] = n.Pos
	b.each("box", n.Children, func(k *schema.Keyword, l *syntax.Node) {
		switch k.Name {
		case "name":
			if !HostName(l.Arg(0)) {
				b.fail(l.ArgPos(0), "write the NAME of the lines @NAME that are for the box", "%s is no name of a box", quote(l.Arg(0)))
				return
			}
			box.Name = l.Arg(0)
		case "interface":
			if b.ifname(l, 0, l.Arg(0)) {
				box.Interface = l.Arg(0)
			}
		case "address":
			a, err := schema.Addr(l.Arg(0))
			if err != nil || !a.Is4() || a.IsMulticast() || a.IsUnspecified() || a.IsLoopback() {
				b.fail(l.ArgPos(0), "write an IPv4 address of the network that the box boots from", "netboot: %s is no IPv4 address of a box", quote(l.Arg(0)))
				return
			}
			box.Addr = a
		case "dhcp":
			if mode := model.DHCPMode(l.Arg(0)); mode == model.DHCPServer || mode == model.DHCPProxy {
				box.DHCP = mode
			}
		}
	}, nil)
	if box.Name == "" {
		if !has(n, "name") {
			b.fail(n.Pos, "add name NAME: which box of the configuration it is", "netboot: box %s has no name", box.MAC)
		}
		return
	}
	if i := slices.IndexFunc(b.cfg.Netboot, func(o model.NetbootBox) bool { return o.Name == box.Name }); i >= 0 {
		b.fail(n.Pos, "give each box a name of its own", "netboot: boxes %s and %s are both %s", b.cfg.Netboot[i].MAC, box.MAC, box.Name)
		return
	}
	b.cfg.Netboot = append(b.cfg.Netboot, box)
}
