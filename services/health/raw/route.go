package raw

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"unsafe"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Route is the kernel's way to an address now.
type Route struct {
	Index int        // of the interface
	Via   netip.Addr // gateway; invalid: on link
	Src   netip.Addr // the address that we have on it
	Local bool       // an address of this box
}

type routeKey struct {
	dst   netip.Addr
	mark  uint32
	iface string
}

// mostRoutes bounds what is remembered; beyond it everything is asked anew. Who
// probes keeps its own answer until the next Epoch.
const mostRoutes = 1 << 10

// openEvents opens a socket that becomes readable when an address or a route of
// this box changes (rtnetlink(7)). It needs no privilege.
func openEvents() (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return -1, fmt.Errorf("netlink: %w", err)
	}
	groups := uint32(unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR | unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_ROUTE | unix.RTMGRP_LINK)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("netlink: %w", err)
	}
	return fd, nil
}

// stale forgets the routes. What the events say does not matter, nor whether
// one was lost.
func (s *Sockets) stale(buf []byte) {
	for {
		if _, err := unix.Read(s.events, buf); err != nil && err != unix.EINTR && err != unix.ENOBUFS {
			break
		}
	}
	clear(s.routes)
	s.Epoch++
	// A socket stays bound to the interface of its time: one of the same name
	// that was made anew since, a VLAN or a bond, is another.
	s.Flush()
	s.lastFD = -1
	for k, fd := range s.send {
		if k.iface != "" {
			unix.Close(fd)
			delete(s.send, k)
		}
	}
}

func (s *Sockets) conn() (*netlink.Conn, error) {
	if s.nl == nil {
		c, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
		if err != nil {
			return nil, fmt.Errorf("netlink: %w", err)
		}
		s.nl = c
	}
	return s.nl, nil
}

// Route asks for the way to an address. Answers are kept until something in the
// box's network changes.
func (s *Sockets) Route(dst netip.Addr, mark uint32, iface string) (Route, error) {
	k := routeKey{dst, mark, iface}
	if r, ok := s.routes[k]; ok {
		return r, nil
	}
	r, err := s.lookup(k)
	if err != nil {
		return r, err
	}
	if len(s.routes) >= mostRoutes {
		clear(s.routes)
	}
	s.routes[k] = r
	return r, nil
}

// structBytes is the memory of a kernel structure.
func structBytes[T any](v *T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(v)), int(unsafe.Sizeof(*v)))
}

func (s *Sockets) lookup(k routeKey) (Route, error) {
	c, err := s.conn()
	if err != nil {
		return Route{}, err
	}
	oif := k.iface
	if oif == "" {
		oif = k.dst.Zone()
	}
	dst := k.dst.WithZone("")
	m := unix.RtMsg{Family: unix.AF_INET, Dst_len: 32}
	if dst.Is6() {
		m.Family, m.Dst_len = unix.AF_INET6, 128
	}
	ae := netlink.NewAttributeEncoder()
	ae.Bytes(unix.RTA_DST, dst.AsSlice())
	if k.mark != 0 {
		ae.Uint32(unix.RTA_MARK, k.mark)
	}
	if oif != "" {
		ifi, err := net.InterfaceByName(oif)
		if err != nil {
			return Route{}, fmt.Errorf("interface %s: %w", oif, err)
		}
		ae.Uint32(unix.RTA_OIF, uint32(ifi.Index))
	}
	attrs, err := ae.Encode()
	if err != nil {
		return Route{}, fmt.Errorf("route to %s: %w", dst, err)
	}
	answers, err := c.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETROUTE, Flags: netlink.Request},
		Data:   append(structBytes(&m), attrs...),
	})
	if err != nil {
		return Route{}, err // ENETUNREACH and the like: the caller knows the errno
	}
	for _, a := range answers {
		if len(a.Data) < unix.SizeofRtMsg {
			continue
		}
		r := Route{Local: a.Data[7] == unix.RTN_LOCAL} // rtm_type
		switch a.Data[7] {
		case unix.RTN_UNREACHABLE:
			return r, unix.EHOSTUNREACH
		case unix.RTN_PROHIBIT:
			return r, unix.EACCES
		case unix.RTN_BLACKHOLE, unix.RTN_THROW:
			return r, unix.ENETUNREACH
		}
		ad, err := netlink.NewAttributeDecoder(a.Data[unix.SizeofRtMsg:])
		if err != nil {
			return r, fmt.Errorf("route to %s: %w", dst, err)
		}
		for ad.Next() {
			switch ad.Type() {
			case unix.RTA_OIF:
				r.Index = int(ad.Uint32())
			case unix.RTA_GATEWAY:
				r.Via, _ = netip.AddrFromSlice(ad.Bytes())
			case unix.RTA_PREFSRC:
				r.Src, _ = netip.AddrFromSlice(ad.Bytes())
			}
		}
		if err := ad.Err(); err != nil {
			return r, fmt.Errorf("route to %s: %w", dst, err)
		}
		if !r.Src.IsValid() {
			return r, fmt.Errorf("route to %s: this box has no address of its family there: %w", dst, unix.EADDRNOTAVAIL)
		}
		return r, nil
	}
	return Route{}, fmt.Errorf("route to %s: no answer of the kernel", dst)
}

// ErrNoNeighbor says that the kernel does not know the link-layer address.
var ErrNoNeighbor = errors.New("link-layer address not known")

// Neighbor is the link-layer address that the kernel has for the next hop of a
// route to dst: it has just been used by a probe to the server's own address.
// Links without such addresses give none.
func (s *Sockets) Neighbor(r Route, dst netip.Addr) ([]byte, error) {
	c, err := s.conn()
	if err != nil {
		return nil, err
	}
	hop := dst.WithZone("")
	if r.Via.IsValid() {
		hop = r.Via
	}
	m := unix.NdMsg{Family: unix.AF_INET, Ifindex: int32(r.Index)}
	if hop.Is6() {
		m.Family = unix.AF_INET6
	}
	ae := netlink.NewAttributeEncoder()
	ae.Bytes(unix.NDA_DST, hop.AsSlice())
	attrs, err := ae.Encode()
	if err != nil {
		return nil, fmt.Errorf("neighbour %s: %w", hop, err)
	}
	answers, err := c.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETNEIGH, Flags: netlink.Request},
		Data:   append(structBytes(&m), attrs...),
	})
	if errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("neighbour %s: %w", hop, ErrNoNeighbor)
	}
	if err != nil {
		return nil, fmt.Errorf("neighbour %s: %w", hop, err)
	}
	for _, a := range answers {
		if len(a.Data) < unix.SizeofNdMsg {
			continue
		}
		switch state := binary.NativeEndian.Uint16(a.Data[8:]); { // ndm_state
		case state&(unix.NUD_INCOMPLETE|unix.NUD_FAILED) != 0:
			return nil, fmt.Errorf("neighbour %s: %w", hop, ErrNoNeighbor)
		case state&unix.NUD_NOARP != 0:
			return nil, nil
		}
		ad, err := netlink.NewAttributeDecoder(a.Data[unix.SizeofNdMsg:])
		if err != nil {
			return nil, fmt.Errorf("neighbour %s: %w", hop, err)
		}
		for ad.Next() {
			if ad.Type() == unix.NDA_LLADDR {
				return ad.Bytes(), nil
			}
		}
	}
	return nil, fmt.Errorf("neighbour %s: %w", hop, ErrNoNeighbor)
}
