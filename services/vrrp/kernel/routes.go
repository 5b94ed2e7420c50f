package kernel

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// NextHop is one gateway of a route with several.
type NextHop struct {
	Via    netip.Addr // invalid: on link
	Index  int        // 0: the kernel picks it by Via
	Weight int        // 1..256
	OnLink bool
}

// Metric is one number of RTA_METRICS, by its RTAX_* number.
type Metric struct {
	Kind  uint16
	Value uint32
	Lock  bool
}

// NewRoute is a route to set.
type NewRoute struct {
	Type     uint8 // RTN_*
	Dst      netip.Prefix
	Via      netip.Addr
	Index    int // 0: the kernel picks it by Via
	NextHops []NextHop
	Src      netip.Addr
	Table    uint32 // 0: main
	Metric   uint32
	MTU      uint32
	Metrics  []Metric
	TOS      uint8
	Scope    uint8
	OnLink   bool
	Proto    uint8
	Append   bool // beside one of the same destination and metric
	Realms   uint32
	Pref     uint8  // of a router, RFC 4191: the two bits; IPv6 only
	CC       string // RTAX_CC_ALGO
	CCLock   bool
}

// SetRoute adds a route. One of the same table, destination and metric that is
// there already stays as it is.
func SetRoute(r NewRoute) Op {
	if r.Append {
		return routeOp("add route", unix.RTM_NEWROUTE, netlink.Create|netlink.Append, r, unix.EEXIST)
	}
	return routeOp("add route", unix.RTM_NEWROUTE, netlink.Create|netlink.Excl, r, unix.EEXIST)
}

// Preferences of a router as the kernel has them (RFC 4191 section 2.1).
const (
	PrefHigh = 1
	PrefLow  = 3
)

// UnsetRoute removes a route if it is there.
func UnsetRoute(r NewRoute) Op { return routeOp("remove route", unix.RTM_DELROUTE, 0, r, unix.ESRCH) }

func (r *NewRoute) table() uint32 {
	if r.Table == 0 {
		return unix.RT_TABLE_MAIN
	}
	return r.Table
}

func gateway(ae *netlink.AttributeEncoder, via netip.Addr, v4 bool) {
	switch {
	case !via.IsValid():
	case via.Is4() == v4:
		ae.Bytes(unix.RTA_GATEWAY, via.AsSlice())
	default:
		ae.Bytes(unix.RTA_VIA, append(binary.NativeEndian.AppendUint16(nil, uint16(family(via))), via.AsSlice()...))
	}
}

func routeOp(what string, typ uint16, flags netlink.HeaderFlags, r NewRoute, ok unix.Errno) Op {
	b := make([]byte, unix.SizeofRtMsg)
	table := r.table()
	b[0], b[1], b[3] = family(r.Dst.Addr()), uint8(r.Dst.Bits()), r.TOS
	if table < 256 {
		b[4] = uint8(table)
	}
	b[5], b[6], b[7] = r.Proto, r.Scope, r.Type
	v4 := r.Dst.Addr().Is4()
	ae := netlink.NewAttributeEncoder()
	ae.Uint32(unix.RTA_TABLE, table)
	if r.Dst.Bits() > 0 {
		ae.Bytes(unix.RTA_DST, r.Dst.Masked().Addr().AsSlice())
	}
	gateway(ae, r.Via, v4)
	if r.Index != 0 {
		ae.Uint32(unix.RTA_OIF, uint32(r.Index))
	}
	if len(r.NextHops) > 0 {
		ae.Bytes(unix.RTA_MULTIPATH, nextHops(r.NextHops, v4))
	}
	if r.Src.IsValid() {
		ae.Bytes(unix.RTA_PREFSRC, r.Src.AsSlice())
	}
	if r.Metric != 0 {
		ae.Uint32(unix.RTA_PRIORITY, r.Metric)
	}
	metrics := r.Metrics
	if r.MTU != 0 {
		metrics = append(slices.Clone(metrics), Metric{Kind: unix.RTAX_MTU, Value: r.MTU})
	}
	if r.Realms != 0 {
		ae.Uint32(unix.RTA_FLOW, r.Realms)
	}
	if r.Pref != 0 {
		ae.Uint8(unix.RTA_PREF, r.Pref)
	}
	if len(metrics) > 0 || r.CC != "" {
		ae.Nested(unix.RTA_METRICS, func(n *netlink.AttributeEncoder) error {
			var lock uint32
			if r.CC != "" {
				n.String(unix.RTAX_CC_ALGO, r.CC)
			}
			if r.CCLock {
				lock = 1 << unix.RTAX_CC_ALGO
			}
			for _, m := range metrics {
				n.Uint32(m.Kind, m.Value)
				if m.Lock {
					lock |= 1 << m.Kind
				}
			}
			if lock != 0 {
				n.Uint32(unix.RTAX_LOCK, lock)
			}
			return nil
		})
	}
	if r.OnLink {
		binary.NativeEndian.PutUint32(b[8:], unix.RTNH_F_ONLINK)
	}
	return Op{what: fmt.Sprintf("%s %s", what, r.Dst), msg: message(typ, flags, b, ae), ok: ok}
}

// nextHops is RTA_MULTIPATH: struct rtnexthop and its attributes, again and again.
func nextHops(list []NextHop, v4 bool) []byte {
	var out []byte
	for _, n := range list {
		ae := netlink.NewAttributeEncoder()
		gateway(ae, n.Via, v4)
		attrs, err := ae.Encode()
		if err != nil {
			attrs = nil
		}
		var flags byte
		if n.OnLink {
			flags = unix.RTNH_F_ONLINK
		}
		out = binary.NativeEndian.AppendUint16(out, uint16(unix.SizeofRtNexthop+len(attrs)))
		out = append(out, flags, byte(max(n.Weight, 1)-1))
		out = binary.NativeEndian.AppendUint32(out, uint32(n.Index))
		out = append(out, attrs...)
	}
	return out
}

// RouteID is what makes a route one in the kernel, for comparison of what is
// there with what should be. It leaves out what the kernel fills in by itself.
type RouteID struct {
	Dst    netip.Prefix
	Table  uint32
	Metric uint32
	TOS    uint8
	Type   uint8
	Ways   string // gateways and interfaces
}

// ID is the identity under which a dump shows the route once it is set.
func (r NewRoute) ID() RouteID {
	id := RouteID{Dst: r.Dst.Masked(), Table: r.table(), Metric: r.Metric, TOS: r.TOS, Type: r.Type}
	if r.Dst.Addr().Is6() && r.Metric == 0 {
		id.Metric = 1024 // IP6_RT_PRIO_USER
	}
	if r.Type != unix.RTN_UNICAST {
		return id // no way at all, or for IPv6 the kernel's own "lo"
	}
	ways := r.NextHops
	if len(ways) == 0 {
		ways = []NextHop{{Via: r.Via, Index: r.Index}}
	}
	id.Ways = waysText(ways)
	return id
}

func waysText(list []NextHop) string {
	var words []string
	for _, n := range list {
		words = append(words, fmt.Sprintf("%v@%d", n.Via, n.Index))
	}
	slices.Sort(words)
	return strings.Join(words, " ")
}

// Route is a route that the kernel holds.
type Route struct {
	NewRoute // without Src, MTU, metrics, realms and preference
}

// Is tells whether a route is the wanted one. An interface that the wanted one
// leaves open is any.
func (r Route) Is(w NewRoute) bool {
	have, want := r.ID(), w.ID()
	if have == want {
		return true
	}
	if w.Index == 0 && len(w.NextHops) == 0 || slices.ContainsFunc(w.NextHops, func(n NextHop) bool { return n.Index == 0 }) {
		open := r.NewRoute
		open.Index, open.NextHops = 0, slices.Clone(r.NextHops)
		for i := range open.NextHops {
			open.NextHops[i].Index = 0
		}
		w.NextHops = slices.Clone(w.NextHops)
		for i := range w.NextHops {
			w.NextHops[i].Index = 0
		}
		return open.ID() == w.ID()
	}
	return false
}

// Routes lists the routes of all tables that carry a protocol.
func (r *Rtnl) Routes(proto uint8) ([]Route, error) {
	body := make([]byte, unix.SizeofRtMsg)
	body[5] = proto // the kernel filters by it, where it is new enough
	msgs, err := r.dump(unix.RTM_GETROUTE, body)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	var out []Route
	for _, m := range msgs {
		if n, ok := parseRoute(m.Data); ok && n.Proto == proto {
			out = append(out, n)
		}
	}
	return joinWays(out), nil
}

// joinWays puts the ways of one IPv6 route together, which older kernels list
// as routes of their own.
func joinWays(list []Route) []Route {
	var out []Route
	for _, r := range list {
		i := slices.IndexFunc(out, func(o Route) bool {
			a, b := o.ID(), r.ID()
			a.Ways, b.Ways = "", ""
			return r.Dst.Addr().Is6() && a == b && r.Type == unix.RTN_UNICAST
		})
		if i < 0 {
			out = append(out, r)
			continue
		}
		o := &out[i]
		for _, n := range []*NewRoute{&o.NewRoute, &r.NewRoute} {
			if len(n.NextHops) == 0 {
				n.NextHops = []NextHop{{Via: n.Via, Index: n.Index, Weight: 1}}
				n.Via, n.Index = netip.Addr{}, 0
			}
		}
		o.NextHops = append(o.NextHops, r.NextHops...)
	}
	return out
}

func parseRoute(b []byte) (Route, bool) {
	if len(b) < unix.SizeofRtMsg || b[0] != unix.AF_INET && b[0] != unix.AF_INET6 {
		return Route{}, false
	}
	if binary.NativeEndian.Uint32(b[8:])&unix.RTM_F_CLONED != 0 {
		return Route{}, false
	}
	r := Route{NewRoute{TOS: b[3], Table: uint32(b[4]), Proto: b[5], Scope: b[6], Type: b[7]}}
	dst := netip.IPv4Unspecified()
	if b[0] == unix.AF_INET6 {
		dst = netip.IPv6Unspecified()
	}
	if int(b[1]) > dst.BitLen() {
		return Route{}, false
	}
	ad, err := netlink.NewAttributeDecoder(b[unix.SizeofRtMsg:])
	if err != nil {
		return Route{}, false
	}
	for ad.Next() {
		switch ad.Type() {
		case unix.RTA_DST:
			a, ok := netip.AddrFromSlice(ad.Bytes())
			if !ok || a.Is4() != dst.Is4() {
				return Route{}, false
			}
			dst = a
		case unix.RTA_TABLE:
			r.Table = ad.Uint32()
		case unix.RTA_PRIORITY:
			r.Metric = ad.Uint32()
		case unix.RTA_OIF:
			r.Index = int(int32(ad.Uint32()))
		case unix.RTA_GATEWAY, unix.RTA_VIA:
			r.Via = parseVia(ad.Type(), ad.Bytes())
		case unix.RTA_MULTIPATH:
			r.NextHops = parseNextHops(ad.Bytes())
		}
	}
	if len(r.NextHops) > 0 {
		r.Via, r.Index = netip.Addr{}, 0
	}
	r.Dst = netip.PrefixFrom(dst, int(b[1]))
	return r, ad.Err() == nil
}

func parseVia(typ uint16, b []byte) netip.Addr {
	if typ == unix.RTA_VIA && len(b) > 2 {
		b = b[2:] // the family comes first
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func parseNextHops(b []byte) (out []NextHop) {
	for len(b) >= unix.SizeofRtNexthop {
		n := int(binary.NativeEndian.Uint16(b))
		if n < unix.SizeofRtNexthop || n > len(b) {
			return out
		}
		h := NextHop{OnLink: b[2]&unix.RTNH_F_ONLINK != 0, Weight: int(b[3]) + 1, Index: int(int32(binary.NativeEndian.Uint32(b[4:])))}
		if ad, err := netlink.NewAttributeDecoder(b[unix.SizeofRtNexthop:n]); err == nil {
			for ad.Next() {
				if t := ad.Type(); t == unix.RTA_GATEWAY || t == unix.RTA_VIA {
					h.Via = parseVia(t, ad.Bytes())
				}
			}
		}
		out = append(out, h)
		b = b[min((n+3)&^3, len(b)):]
	}
	return out
}
