// Package dhcp is a DHCPv4 client for one interface (RFC 2131): it gets a lease,
// renews it, and tells its owner about each change. It writes nothing to the
// kernel; the packets are insomniacslk/dhcp's.
package dhcp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// Lease is what a server granted.
type Lease struct {
	Addr    netip.Prefix
	Server  netip.Addr // invalid: not known (adopted from the kernel after a restart)
	Routes  []Route
	DNS     []netip.Addr
	Start   time.Time
	T1, T2  time.Time // renew, rebind
	Expires time.Time
}

// Route is a route that comes with a lease: from option 121 (RFC 3442), or else
// the default route by the first router. Via is invalid for an on-link one.
type Route struct {
	Dst netip.Prefix
	Via netip.Addr
}

// Bounds that keep a careless server from making work: at most maxRoutes and
// maxDNS entries are used; a lease shorter than minLease is refused.
const (
	minLease  = 2 * time.Second
	maxLease  = 10 * 365 * 24 * time.Hour // "infinite" too, so that addition cannot overflow
	maxRoutes = 32
	maxDNS    = 4
)

// leaseOf reads a DHCPACK that arrived for a request sent at start.
func leaseOf(ack *dhcpv4.DHCPv4, start time.Time) (Lease, error) {
	l := Lease{Start: start}
	ip, ok := netip.AddrFromSlice(ack.YourIPAddr.To4())
	if !ok || !usable(ip) {
		return l, fmt.Errorf("the server offers %v, which is no host's address", ack.YourIPAddr)
	}
	ones, bits := ack.SubnetMask().Size()
	if bits != 32 { // absent, or not contiguous
		if len(ack.SubnetMask()) != 0 {
			return l, fmt.Errorf("the server sends the subnet mask %v", net.IP(ack.SubnetMask()))
		}
		ones = 32
	}
	l.Addr = netip.PrefixFrom(ip, ones)
	if l.Server, ok = addrOf(ack.ServerIdentifier()); !ok {
		return l, errors.New("the server sends no server identifier")
	}
	d := ack.IPAddressLeaseTime(0)
	if d < minLease {
		return l, fmt.Errorf("the server grants %v; want at least %v", d, minLease)
	}
	d = min(d, maxLease)
	// RFC 2131 4.4.5: T1 is half, T2 seven eighths of the lease unless the server
	// says otherwise; nonsense is not followed.
	t1, t2 := ack.IPAddressRenewalTime(d/2), ack.IPAddressRebindingTime(d*7/8)
	if t1 <= 0 || t1 >= t2 || t2 >= d {
		t1, t2 = d/2, d*7/8
	}
	l.T1, l.T2, l.Expires = start.Add(t1), start.Add(t2), start.Add(d)

	for _, r := range ack.ClasslessStaticRoute() {
		dst, ok := netip.AddrFromSlice(r.Dest.IP.To4())
		n, bits := r.Dest.Mask.Size()
		if !ok || bits != 32 || len(l.Routes) == maxRoutes {
			continue
		}
		via, _ := addrOf(r.Router) // 0.0.0.0: on link
		l.Routes = append(l.Routes, Route{netip.PrefixFrom(dst, n).Masked(), via})
	}
	if len(l.Routes) == 0 { // RFC 3442: routers count only without option 121
		for _, r := range ack.Router() {
			if via, ok := addrOf(r); ok {
				l.Routes = []Route{{netip.PrefixFrom(netip.IPv4Unspecified(), 0), via}}
				break
			}
		}
	}
	for _, s := range ack.DNS() {
		if a, ok := addrOf(s); ok && len(l.DNS) < maxDNS {
			l.DNS = append(l.DNS, a)
		}
	}
	return l, nil
}

func addrOf(ip net.IP) (netip.Addr, bool) {
	a, ok := netip.AddrFromSlice(ip.To4())
	if !ok || !usable(a) {
		return netip.Addr{}, false
	}
	return a, true
}

func usable(a netip.Addr) bool {
	return a.Is4() && !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback() && a.As4()[0] != 0 && a.As4()[0] < 240
}
