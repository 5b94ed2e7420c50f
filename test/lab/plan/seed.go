package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"ballast/configs/model"
	"ballast/test/lab/wire"
)

// Blocks writes the appliance's own blocks of a director: its name, the lab's
// key, and which NIC has which name and addresses. They go before the user's
// text, which stays as it is.
func (p Plan) Blocks(i int, key string) string {
	d := p.Directors[i]
	var b strings.Builder
	fmt.Fprintf(&b, "system {\n    host_name %s\n    login admin {\n        key \"%s\"\n        role admin\n    }\n}\n", d.Name, key)
	for s, seg := range p.Segments {
		if d.Configured[s] {
			continue
		}
		fmt.Fprintf(&b, "interface %s {\n    mac %s\n", seg.Interface, d.MACs[s])
		for _, a := range d.Addresses[s] {
			fmt.Fprintf(&b, "    address %s\n", a)
		}
		b.WriteString("}\n")
	}
	fmt.Fprintf(&b, "interface %s {\n    mac %s\n    dhcp\n}\n", p.Management, ManagementMAC(i))
	return b.String()
}

// bridge is the name of a segment's bridge in the node VM.
func bridge(segment int) string { return fmt.Sprintf("seg%d", segment) }

// NodeMAC is the address of the node VM's NIC on a segment.
func NodeMAC(segment int) string { return mac(segment, 4) }

// Net is what the node VM holds: the client and the real servers.
func (p Plan) Net() wire.Net {
	var n wire.Net
	for i := range p.Segments {
		n.Bridges = append(n.Bridges, wire.Bridge{Name: bridge(i), MAC: NodeMAC(i)})
	}
	c := wire.Space{Name: p.Client.Name}
	for i, l := range p.Client.Links {
		link := fmt.Sprintf("eth%d", i)
		c.Links = append(c.Links, wire.Link{Name: link, Kind: "veth", Bridge: bridge(l.Segment), MAC: l.MAC, Addresses: l.Addresses})
		for _, s := range p.Segments[l.Segment].Subnets {
			if !slices.ContainsFunc(l.Addresses, func(a netip.Prefix) bool { return a.Masked() == s }) {
				c.Routes = append(c.Routes, wire.Route{Dst: s, Link: link})
			}
		}
	}
	n.Spaces = append(n.Spaces, c)
	for _, r := range p.Routers {
		w := wire.Space{Name: r.Name, Sysctls: map[string]string{
			"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1", "net/ipv4/conf/all/send_redirects": "0",
		}}
		for i, l := range r.Links {
			w.Links = append(w.Links, wire.Link{Name: fmt.Sprintf("eth%d", i), Kind: "veth", Bridge: bridge(l.Segment), MAC: l.MAC, Addresses: l.Addresses})
		}
		n.Spaces = append(n.Spaces, w)
	}
	for _, s := range p.Servers {
		n.Spaces = append(n.Spaces, s.space())
	}
	return n
}

// space is a real server as its administrator sets it up.
func (s Server) space() wire.Space {
	const link = "eth0"
	w := wire.Space{
		Name:    s.Name,
		Links:   []wire.Link{{Name: link, Kind: "veth", Bridge: bridge(s.Link.Segment), MAC: s.Link.MAC, Addresses: s.Link.Addresses}},
		Sysctls: map[string]string{},
	}
	if s.Forward[model.DR] || s.Forward[model.TUN] {
		// The VIP is this machine's too, but only the directors may say so on
		// the wire (the "ARP problem" of LVS).
		w.Sysctls["net/ipv4/conf/all/arp_ignore"] = "1"
		w.Sysctls["net/ipv4/conf/all/arp_announce"] = "2"
	}
	for _, v := range s.VIPs {
		w.Loopback = append(w.Loopback, single(v))
	}
	if s.Forward[model.TUN] {
		w.Links = append(w.Links, wire.Link{Name: "tunl0", Kind: "ipip"})
		// What comes out of the tunnel is from a client that another link leads to.
		w.Sysctls["net/ipv4/conf/all/rp_filter"] = "0"
		w.Sysctls["net/ipv4/conf/tunl0/rp_filter"] = "0"
	}
	for _, r := range s.Routes {
		w.Routes = append(w.Routes, wire.Route{Dst: r, Link: link})
	}
	if s.Gateway.IsValid() {
		all := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if s.Gateway.Is6() {
			all = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		w.Routes = append(w.Routes, wire.Route{Dst: all, Via: s.Gateway, Link: link})
		// A director may tell that the client is a neighbour; it must not be believed.
		w.Sysctls["net/ipv4/conf/all/accept_redirects"] = "0"
		w.Sysctls["net/ipv4/conf/"+link+"/accept_redirects"] = "0"
	}
	return w
}

// Serve is the argument of the server program of a real server.
func (s Server) Serve() wire.Serve {
	return wire.Serve{Name: s.Name, TCP: s.TCP, UDP: s.UDP, Passive: s.Passive}
}

// String draws the lab.
func (p Plan) String() string {
	var b strings.Builder
	for i, s := range p.Segments {
		nets := make([]string, len(s.Subnets))
		for j, n := range s.Subnets {
			nets[j] = n.String()
		}
		fmt.Fprintf(&b, "%s ══ %s\n", s.Interface, strings.Join(nets, " "))
		for _, d := range p.Directors {
			fmt.Fprintf(&b, "  ├ %-12s %s\n", d.Name, join(d.Addresses[i]))
		}
		for _, m := range append([]Machine{p.Client}, p.Routers...) {
			for _, l := range m.Links {
				if l.Segment == i {
					fmt.Fprintf(&b, "  ├ %-12s %s\n", m.Name, join(l.Addresses))
				}
			}
		}
		for _, s := range p.Servers {
			if s.Link.Segment != i {
				continue
			}
			fmt.Fprintf(&b, "  ├ %-12s %s %s", s.Name, join(s.Link.Addresses), s.methods())
			if len(s.VIPs) > 0 {
				fmt.Fprintf(&b, " VIP %s", join(s.VIPs))
			}
			if s.Gateway.IsValid() {
				fmt.Fprintf(&b, " via %s", s.Gateway)
			}
			b.WriteByte('\n')
		}
	}
	for _, t := range p.Targets {
		fmt.Fprintf(&b, "asked: %s %s\n", t.Protocol, t.Addr)
	}
	for _, n := range p.Notes {
		fmt.Fprintf(&b, "note: %s\n", n)
	}
	return b.String()
}

func (s Server) methods() string {
	var out []string
	for _, f := range []model.Forward{model.NAT, model.DR, model.TUN} {
		if s.Forward[f] {
			out = append(out, f.String())
		}
	}
	return strings.Join(out, "+")
}

func join[T fmt.Stringer](list []T) string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = v.String()
	}
	return strings.Join(out, " ")
}
