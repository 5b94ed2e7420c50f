// Package kernel is the thin edge of VRRP to Linux: links, addresses and
// routes by rtnetlink, raw sockets for advertisements, frames for gratuitous
// ARP and neighbour advertisements, one loop of epoll and timerfd, real-time
// scheduling. It decides nothing.
//
// All of it belongs to one locked thread and its network namespace, and none
// of it blocks except Wait.
package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"ballast/services/vrrp/packet"
)

// ifaProto is IFA_PROTO (kernel 5.18), who put an address there.
const ifaProto = 11

// Rtnl asks and tells the kernel about links, addresses and routes.
type Rtnl struct {
	c *netlink.Conn
	// Between is called after each send of a long batch; nil: nothing is.
	Between func()
}

// DialRtnl opens a socket in the thread's network namespace.
func DialRtnl() (*Rtnl, error) {
	r := &Rtnl{}
	if err := r.dial(); err != nil {
		return nil, err
	}
	return r, nil
}

// dial opens the socket anew. After a failure answers may still be on their way
// that would be taken for those of later questions.
func (r *Rtnl) dial() error {
	c, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return fmt.Errorf("open rtnetlink: %w", err)
	}
	// Errors come without the whole request behind them.
	if err := c.SetOption(netlink.CapAcknowledge, true); err != nil {
		c.Close()
		return fmt.Errorf("rtnetlink: short acknowledgements: %w", err)
	}
	if r.c != nil {
		r.c.Close()
	}
	r.c = c
	return nil
}

// Close closes the socket.
func (r *Rtnl) Close() error { return r.c.Close() }

// Link is a network interface.
type Link struct {
	Index int
	Name  string
	Alt   []string // further names
	MAC   packet.MAC
	Ether bool // has an Ethernet address: can send ARP and neighbour advertisements
	MTU   int
	Up    bool // administratively
	Run   bool // has a carrier

	Kind   string // of rtnetlink: "macvlan", "ipvlan", "vrf", …; empty: hardware
	Parent int    // index of the link below; 0: none
	Master int    // index of the bond, bridge or VRF that it is in; 0: none
	Alias  string // IFLA_IFALIAS
	Mode   uint32 // of a macvlan or ipvlan
	Group  uint32
}

// Addr is an address of an interface.
type Addr struct {
	Index  int
	Prefix netip.Prefix // address with the length of its subnet
	Peer   netip.Prefix // far end of a point-to-point address; invalid: none
	Proto  uint8        // IFA_PROTO, 0: not told
	Flags  uint32       // IFA_F_*
	Scope  uint8
}

// Secondary tells whether an IPv4 address is not the first of its subnet.
func (a Addr) Secondary() bool { return a.Prefix.Addr().Is4() && a.Flags&unix.IFA_F_SECONDARY != 0 }

// Usable tells whether packets can be sent from it: an IPv6 address must have
// passed duplicate address detection.
func (a Addr) Usable() bool { return a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) == 0 }

// Links dumps all interfaces.
func (r *Rtnl) Links() ([]Link, error) {
	msgs, err := r.dump(unix.RTM_GETLINK, make([]byte, unix.SizeofIfInfomsg))
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	var out []Link
	for _, m := range msgs {
		if l, ok := parseLink(m.Data); ok {
			out = append(out, l)
		}
	}
	return out, nil
}

// Addrs dumps the addresses of all interfaces, in the kernel's order: the
// primary address of an interface comes first.
func (r *Rtnl) Addrs() ([]Addr, error) {
	msgs, err := r.dump(unix.RTM_GETADDR, make([]byte, unix.SizeofIfAddrmsg))
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var out []Addr
	for _, m := range msgs {
		if a, ok := parseAddr(m.Data); ok {
			out = append(out, a)
		}
	}
	return out, nil
}

func (r *Rtnl) dump(typ uint16, body []byte) ([]netlink.Message, error) {
	var err error
	for range 10 { // a dump that a change cut through is asked for again
		var msgs []netlink.Message
		msgs, err = r.c.Execute(netlink.Message{
			Header: netlink.Header{Type: netlink.HeaderType(typ), Flags: netlink.Request | netlink.Dump},
			Data:   body,
		})
		switch {
		case err == nil && !interrupted(msgs):
			return msgs, nil
		case err == nil:
			err = unix.EINTR
		case !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN):
			return nil, errors.Join(err, r.dial())
		}
	}
	return nil, err
}

// interrupted tells that something changed during a dump: what it lacks may be
// there.
func interrupted(msgs []netlink.Message) bool {
	for i := range msgs {
		if msgs[i].Header.Flags&unix.NLM_F_DUMP_INTR != 0 {
			return true
		}
	}
	return false
}

func parseLink(b []byte) (Link, bool) {
	if len(b) < unix.SizeofIfInfomsg {
		return Link{}, false
	}
	flags := binary.NativeEndian.Uint32(b[8:])
	l := Link{
		Index: int(int32(binary.NativeEndian.Uint32(b[4:]))),
		Up:    flags&unix.IFF_UP != 0,
		Run:   flags&unix.IFF_RUNNING != 0,
	}
	ad, err := netlink.NewAttributeDecoder(b[unix.SizeofIfInfomsg:])
	if err != nil {
		return Link{}, false
	}
	for ad.Next() {
		switch ad.Type() {
		case unix.IFLA_IFNAME:
			l.Name = ad.String()
		case unix.IFLA_MTU:
			l.MTU = int(ad.Uint32())
		case unix.IFLA_ADDRESS:
			if v := ad.Bytes(); len(v) == 6 && binary.NativeEndian.Uint16(b[2:]) == unix.ARPHRD_ETHER {
				l.MAC, l.Ether = packet.MAC(v), true
			}
		case unix.IFLA_LINK:
			l.Parent = int(int32(ad.Uint32()))
		case unix.IFLA_MASTER:
			l.Master = int(int32(ad.Uint32()))
		case unix.IFLA_IFALIAS:
			l.Alias = ad.String()
		case unix.IFLA_GROUP:
			l.Group = ad.Uint32()
		case unix.IFLA_LINKINFO:
			ad.Nested(l.info)
		case unix.IFLA_PROP_LIST:
			ad.Nested(func(n *netlink.AttributeDecoder) error {
				for n.Next() {
					if n.Type() == unix.IFLA_ALT_IFNAME {
						l.Alt = append(l.Alt, n.String())
					}
				}
				return nil
			})
		}
	}
	return l, ad.Err() == nil && l.Name != ""
}

// info reads IFLA_LINKINFO. The kernel puts the kind before the data.
func (l *Link) info(n *netlink.AttributeDecoder) error {
	for n.Next() {
		switch n.Type() {
		case unix.IFLA_INFO_KIND:
			l.Kind = n.String()
		case unix.IFLA_INFO_DATA:
			n.Nested(func(d *netlink.AttributeDecoder) error {
				for d.Next() {
					switch {
					case l.Kind == "macvlan" && d.Type() == iflaMacvlanMode && len(d.Bytes()) == 4:
						l.Mode = d.Uint32()
					case l.Kind == "ipvlan" && d.Type() == iflaIPVLANFlags && len(d.Bytes()) == 2:
						l.Mode = uint32(d.Uint16())
					}
				}
				return nil
			})
		}
	}
	return nil
}

func parseAddr(b []byte) (Addr, bool) {
	if len(b) < unix.SizeofIfAddrmsg || b[0] != unix.AF_INET && b[0] != unix.AF_INET6 {
		return Addr{}, false
	}
	a := Addr{Flags: uint32(b[2]), Scope: b[3], Index: int(int32(binary.NativeEndian.Uint32(b[4:])))}
	var local, address netip.Addr
	ad, err := netlink.NewAttributeDecoder(b[unix.SizeofIfAddrmsg:])
	if err != nil {
		return Addr{}, false
	}
	for ad.Next() {
		switch ad.Type() {
		case unix.IFA_LOCAL:
			local, _ = netip.AddrFromSlice(ad.Bytes())
		case unix.IFA_ADDRESS:
			address, _ = netip.AddrFromSlice(ad.Bytes())
		case unix.IFA_FLAGS:
			a.Flags = ad.Uint32()
		case ifaProto:
			a.Proto = ad.Uint8()
		}
	}
	if !local.IsValid() {
		local = address // IPv6 has IFA_LOCAL only with a peer
	}
	if ad.Err() != nil || !local.IsValid() || local.Is4() != (b[0] == unix.AF_INET) || int(b[1]) > local.BitLen() {
		return Addr{}, false
	}
	a.Prefix = netip.PrefixFrom(local, int(b[1]))
	if address.IsValid() && address != local && address.Is4() == local.Is4() {
		a.Peer = netip.PrefixFrom(address, int(b[1]))
	}
	return a, true
}
