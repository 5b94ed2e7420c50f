package net

import (
	"fmt"
	"slices"
	"time"

	"ballast/services/ipc/status"
)

// publish makes the state of the last dump the service's state.
func (s *service) publish() {
	s.watchCarrier()
	st := State(s.facts)
	st.Applied, st.Marks, st.DNS = s.applied, s.marks, s.dns()
	st.NoAccept, st.Missing, st.Firewall = s.noAccept, s.missing, s.filter
	st.Transitions = slices.Clone(s.ring)
	if s.conf != nil {
		named := map[string]bool{}
		for _, i := range s.conf.Config.Interfaces {
			named[i.Name] = true
		}
		for i := range st.Links {
			l := &st.Links[i]
			l.Configured = named[l.Name] || slices.ContainsFunc(l.AltNames, func(a string) bool { return named[a] })
		}
	}
	s.srv.Publish(st)
}

// State shows facts as the rest of the box sees them. It is pure.
func State(f Facts) status.Net {
	var st status.Net
	for _, l := range f.Links {
		n := status.Link{
			Index: l.Index, Name: l.Name, AltNames: l.AltNames, Kind: l.Kind, MAC: l.MAC, PermMAC: l.PermMAC, PCI: l.PCI, Driver: l.Driver,
			MTU: l.MTU, Up: l.Up, Carrier: l.Carrier, Master: l.Master, Speed: l.Speed,
			RxBytes: l.RxBytes, TxBytes: l.TxBytes, RxPackets: l.RxPackets, TxPackets: l.TxPackets,
			RxErrors: l.RxErrors, TxErrors: l.TxErrors, RxDropped: l.RxDropped, TxDropped: l.TxDropped,
		}
		for _, a := range f.Addrs {
			if a.Link == l.Name {
				n.Addresses = append(n.Addresses, status.LinkAddress{Prefix: a.Prefix, Origin: addrOrigin(a, l)})
			}
		}
		st.Links = append(st.Links, n)
	}
	for _, r := range f.Routes {
		if r.Table != tableMain || r.Dst.Addr().IsMulticast() {
			continue
		}
		iface := r.Interface
		if r.Type != "" {
			iface = r.Type
		}
		st.Routes = append(st.Routes, status.Route{Dst: r.Dst, Via: r.Via, Interface: iface, Src: r.Src, Metric: r.Metric, Origin: routeOrigin(r)})
	}
	return st
}

// addrProtoKernelLast is the last of the kernel's own values of IFA_PROTO
// (linux/if_addr.h): loopback, router advertisement, link-local.
const addrProtoKernelLast = 3

func addrOrigin(a Addr, l Link) string {
	switch {
	case a.Proto == status.AddrProtoVIP:
		return "vip"
	case a.Proto == status.AddrProtoNet && !a.Expires.IsZero():
		return "dhcp"
	case a.Proto == status.AddrProtoNet:
		return "static"
	case a.Proto >= 1 && a.Proto <= addrProtoKernelLast, l.Kind == "loopback", a.Prefix.Addr().IsLinkLocalUnicast():
		return "kernel"
	}
	return "other"
}

func routeOrigin(r Route) string {
	switch r.Proto {
	case status.RouteProtoNet:
		if r.Metric >= dhcpMetric && r.Metric < dhcpMetric+100 && r.Dst.Addr().Is4() {
			return "dhcp"
		}
		return "static"
	case status.RouteProtoVRRP:
		return "vip"
	case 2, 9: // RTPROT_KERNEL, RTPROT_RA
		return "kernel"
	}
	return "other"
}

// watchCarrier keeps the ring of carrier changes.
func (s *service) watchCarrier() {
	now := map[string]bool{}
	for _, l := range s.facts.Links {
		if l.Kind == "loopback" {
			continue
		}
		now[l.Name] = l.Carrier
		was, known := s.carrier[l.Name]
		if s.carrier == nil || known && was == l.Carrier {
			continue // the first look is no change
		}
		word := map[bool]string{true: "up", false: "down"}
		from, reason := word[was], "carrier"
		switch {
		case !known:
			from, reason = "absent", "the NIC appeared"
		case !l.Up:
			reason = "set down"
		case !l.Carrier:
			reason = "no carrier"
		}
		s.transition(l.Name, from, word[l.Carrier], reason)
	}
	for name, was := range s.carrier {
		if _, still := now[name]; !still {
			s.transition(name, map[bool]string{true: "up", false: "down"}[was], "absent", "the NIC is gone or renamed")
		}
	}
	s.carrier = now
}

func (s *service) transition(link, from, to, reason string) {
	s.seq++
	s.ring = append(s.ring, status.Transition{Seq: s.seq, Time: time.Now(), Object: link, Kind: "link", From: from, To: to, Reason: reason})
	if n := len(s.ring) - status.RingSize; n > 0 {
		s.ring = slices.Delete(s.ring, 0, n)
	}
	s.env.Log.Info(fmt.Sprintf("%s: %s -> %s: %s", link, from, to, reason))
}
