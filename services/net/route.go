package net

import (
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ballast/configs/model"
)

// The netlink library locks no metric but two and knows no weight of IPv6 by
// IPv4 gateways, so routes are coded here; it reads them.

// marshalRoute is the payload of RTM_NEWROUTE or RTM_DELROUTE: struct rtmsg and
// attributes. index finds the interface of a name.
func marshalRoute(r Route, index func(name string) (int, error)) ([]byte, error) {
	family := byte(unix.AF_INET)
	if r.Dst.Addr().Is6() {
		family = unix.AF_INET6
	}
	var table byte
	if r.Table < 256 {
		table = byte(r.Table)
	}
	var flags uint32
	if r.OnLink {
		flags = unix.RTNH_F_ONLINK
	}
	b := []byte{family, byte(r.Dst.Bits()), 0, r.TOS, table, r.Proto, r.Scope, byte(routeType(r.Type))}
	b = binary.NativeEndian.AppendUint32(b, flags)
	number := func(b []byte, typ uint16, v uint32) []byte {
		return appendAttr(b, typ, binary.NativeEndian.AppendUint32(nil, v))
	}
	b = number(b, unix.RTA_TABLE, r.Table)
	if r.Dst.Bits() > 0 {
		b = appendAttr(b, unix.RTA_DST, r.Dst.Masked().Addr().AsSlice())
	}
	b = appendGateway(b, r.Via, r.Dst.Addr().Is4())
	if r.Interface != "" {
		i, err := index(r.Interface)
		if err != nil {
			return nil, err
		}
		b = number(b, unix.RTA_OIF, uint32(i))
	}
	if len(r.NextHops) > 0 {
		var hops []byte
		for _, h := range r.NextHops {
			i := 0
			if h.Interface != "" {
				var err error
				if i, err = index(h.Interface); err != nil {
					return nil, fmt.Errorf("nexthop %s: %w", h.Via, err)
				}
			}
			attrs := appendGateway(nil, h.Via, r.Dst.Addr().Is4())
			hops = binary.NativeEndian.AppendUint16(hops, uint16(unix.SizeofRtNexthop+len(attrs)))
			var on byte
			if h.OnLink {
				on = unix.RTNH_F_ONLINK
			}
			hops = append(hops, on, byte(max(h.Weight, 1)-1))
			hops = binary.NativeEndian.AppendUint32(hops, uint32(i))
			hops = append(hops, attrs...)
		}
		b = appendAttr(b, unix.RTA_MULTIPATH, hops)
	}
	if r.Src.IsValid() {
		b = appendAttr(b, unix.RTA_PREFSRC, r.Src.AsSlice())
	}
	if r.Metric != 0 {
		b = number(b, unix.RTA_PRIORITY, r.Metric)
	}
	if r.Realms != 0 {
		b = number(b, unix.RTA_FLOW, r.Realms)
	}
	if pref, stated := routePrefs[r.Pref]; stated {
		b = appendAttr(b, unix.RTA_PREF, []byte{pref})
	}
	var metrics []byte
	var locks uint32
	if r.MTU != 0 {
		metrics = number(metrics, unix.RTAX_MTU, r.MTU)
	}
	for _, m := range r.Metrics {
		metrics = number(metrics, m.Kind, m.Value)
		if m.Lock {
			locks |= 1 << m.Kind
		}
	}
	if r.Congestion != "" {
		metrics = appendAttr(metrics, unix.RTAX_CC_ALGO, append([]byte(r.Congestion), 0))
		if r.CongestionLock {
			locks |= 1 << unix.RTAX_CC_ALGO
		}
	}
	if locks != 0 {
		metrics = number(metrics, unix.RTAX_LOCK, locks)
	}
	if metrics != nil {
		b = appendAttr(b, unix.RTA_METRICS|unix.NLA_F_NESTED, metrics)
	}
	return b, nil
}

// routePrefs are the two bits of RFC 4191 section 2.1.
var routePrefs = map[string]byte{"low": 3, "high": 1}

func appendGateway(b []byte, via netip.Addr, v4 bool) []byte {
	switch {
	case !via.IsValid():
		return b
	case via.Is4() == v4:
		return appendAttr(b, unix.RTA_GATEWAY, via.AsSlice())
	}
	family := uint16(unix.AF_INET) // IPv4 by an IPv6 gateway
	if via.Is6() {
		family = unix.AF_INET6
	}
	return appendAttr(b, unix.RTA_VIA, append(binary.NativeEndian.AppendUint16(nil, family), via.AsSlice()...))
}

// gatewayOf reads a gateway as the library shows it.
func gatewayOf(gw []byte, via netlink.Destination, v4 bool) netip.Addr {
	a, _ := netip.AddrFromSlice(gw)
	if v, ok := via.(*netlink.Via); ok && v != nil {
		a, _ = netip.AddrFromSlice(v.Addr)
	}
	if v4 && a.Is4In6() {
		a = a.Unmap()
	}
	return a
}

// nextHops are the ways of a multipath route.
func nextHops(r netlink.Route, names map[int]string, v4 bool) (out []model.NextHop) {
	for _, h := range r.MultiPath {
		out = append(out, model.NextHop{Via: gatewayOf(h.Gw, h.Via, v4), Interface: names[h.LinkIndex], Weight: h.Hops + 1,
			OnLink: h.Flags&int(netlink.FLAG_ONLINK) != 0})
	}
	return out
}

// metrics are those of RTA_METRICS that the configuration knows, but for a plain
// MTU. The library tells of a lock on the MTU only.
func metrics(r netlink.Route) (mtu uint32, out []model.Metric) {
	mtu = uint32(r.MTU)
	if r.MTULock {
		mtu, out = 0, append(out, model.Metric{Kind: unix.RTAX_MTU, Value: uint32(r.MTU), Lock: true})
	}
	for _, m := range []struct {
		kind  uint16
		value int
	}{
		{unix.RTAX_WINDOW, r.Window}, {unix.RTAX_RTT, r.Rtt}, {unix.RTAX_RTTVAR, r.RttVar}, {unix.RTAX_SSTHRESH, r.Ssthresh}, {unix.RTAX_CWND, r.Cwnd},
		{unix.RTAX_ADVMSS, r.AdvMSS}, {unix.RTAX_REORDERING, r.Reordering}, {unix.RTAX_HOPLIMIT, r.Hoplimit}, {unix.RTAX_INITCWND, r.InitCwnd},
		{unix.RTAX_FEATURES, r.Features}, {unix.RTAX_RTO_MIN, r.RtoMin}, {unix.RTAX_INITRWND, r.InitRwnd}, {unix.RTAX_QUICKACK, r.QuickACK},
		{unix.RTAX_FASTOPEN_NO_COOKIE, r.FastOpenNoCookie},
	} {
		if m.value != 0 {
			out = append(out, model.Metric{Kind: m.kind, Value: uint32(m.value)})
		}
	}
	return mtu, out
}

// sameMetrics compares what is stated. A metric of 0 is as none; a lock can be
// read only where there is but one, on the MTU.
func sameMetrics(have, want Route) bool {
	locks := 0
	for _, m := range want.Metrics {
		if m.Lock {
			locks++
		}
	}
	values := func(r Route) map[uint16]model.Metric {
		out := map[uint16]model.Metric{}
		for _, m := range append([]model.Metric{{Kind: unix.RTAX_MTU, Value: r.MTU}}, r.Metrics...) {
			if m.Value != 0 {
				m.Lock = m.Lock && m.Kind == unix.RTAX_MTU && locks < 2
				out[m.Kind] = m
			}
		}
		return out
	}
	return maps.Equal(values(have), values(want))
}

// sameWays compares gateways, whatever their order; an interface that the
// wanted one leaves open is any.
func sameWays(have, want []model.NextHop) bool {
	if len(have) != len(want) {
		return false
	}
	left := slices.Clone(have)
	for _, w := range want {
		i := slices.IndexFunc(left, func(h model.NextHop) bool {
			return h.Via == w.Via && h.Weight == max(w.Weight, 1) && (w.Interface == "" || h.Interface == w.Interface) && (h.OnLink || !w.OnLink)
		})
		if i < 0 {
			return false
		}
		left = slices.Delete(left, i, i+1)
	}
	return true
}

// waysText is the gateways for messages: " nexthop via 10.0.0.1 dev eth0 weight 2".
func waysText(list []model.NextHop) string {
	var b strings.Builder
	for _, h := range list {
		b.WriteString(" nexthop")
		if h.Via.IsValid() {
			b.WriteString(" via " + h.Via.String())
		}
		if h.Interface != "" {
			b.WriteString(" dev " + h.Interface)
		}
		if h.Weight > 1 {
			fmt.Fprintf(&b, " weight %d", h.Weight)
		}
	}
	return b.String()
}

// links are the interfaces that a route names.
func (r Route) links() (out []string) {
	if r.Interface != "" {
		out = append(out, r.Interface)
	}
	for _, h := range r.NextHops {
		if h.Interface != "" {
			out = append(out, h.Interface)
		}
	}
	return out
}
