package kernel

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"ballast/services/vrrp/packet"
)

// Socket is one raw socket for VRRP: of an interface and a family for
// multicast, of a family alone for unicast. It allocates nothing after Open.
type Socket struct {
	fd      int
	ipv6    bool
	ah      bool
	tap     bool // a packet socket on a virtual MAC: receives only
	index   int  // 0: not bound to an interface
	hops    int  // IPv6: hop limit last set; -2: not set yet
	iov     unix.Iovec
	hdr     unix.Msghdr
	from    unix.RawSockaddrInet6
	sendOOB [64]byte
}

// Received is one packet. Payload is valid until the next Receive into its Ring.
type Received struct {
	Src, Dst netip.Addr
	TTL      int           // hop limit; -1: not told
	Index    int           // interface it came in by; 0: not told
	Age      time.Duration // since the kernel received it
	Payload  []byte
	Packet   []byte // with an authentication header: all of it, IPv4 header first
	IPv4Err  error  // the IPv4 header makes no sense
}

const (
	ipv6MulticastAll = 29 // IPV6_MULTICAST_ALL, kernel 4.20
	ipMulticastAll   = 49 // IP_MULTICAST_ALL
)

// OpenMulticast opens a socket that is bound to an interface and hears its
// groups. Loopback is off: a router does not hear itself. With ah it hears
// packets that have an authentication header, which are of another protocol.
func OpenMulticast(index int, name string, ipv6, ah bool) (*Socket, error) {
	s, err := open(ipv6, ah)
	if err != nil {
		return nil, err
	}
	s.index = index
	o := opts{fd: s.fd}
	o.do("bind to "+name, unix.BindToDevice(s.fd, name))
	if ipv6 {
		o.set("multicast interface", unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, index)
		o.set("multicast hops", unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255)
		o.set("multicast loop", unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_LOOP, 0)
	} else {
		o.do("multicast interface", unix.SetsockoptIPMreqn(s.fd, unix.IPPROTO_IP, unix.IP_MULTICAST_IF, &unix.IPMreqn{Ifindex: int32(index)}))
		o.set("multicast loop", unix.IPPROTO_IP, unix.IP_MULTICAST_LOOP, 0)
	}
	if o.err != nil {
		s.Close()
		return nil, fmt.Errorf("vrrp socket on %s: %w", name, o.err)
	}
	return s, nil
}

// OpenUnicast opens a socket that hears what is sent to any address of this
// box, and no multicast.
func OpenUnicast(ipv6, ah bool) (*Socket, error) {
	s, err := open(ipv6, ah)
	if err != nil {
		return nil, err
	}
	o := opts{fd: s.fd}
	if ipv6 {
		o.set("multicast all", unix.IPPROTO_IPV6, ipv6MulticastAll, 0)
	} else {
		o.set("multicast all", unix.IPPROTO_IP, ipMulticastAll, 0)
	}
	if o.err != nil {
		s.Close()
		return nil, fmt.Errorf("vrrp socket for unicast: %w", o.err)
	}
	return s, nil
}

func open(ipv6, ah bool) (*Socket, error) {
	fam, proto := unix.AF_INET, packet.Protocol
	if ipv6 {
		fam = unix.AF_INET6
	}
	if ah {
		proto = packet.ProtocolAH
	}
	fd, err := unix.Socket(fam, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
	if err != nil {
		return nil, fmt.Errorf("open vrrp socket: %w", err)
	}
	s := &Socket{fd: fd, ipv6: ipv6, ah: ah, hops: -2}
	o := opts{fd: fd}
	o.set("timestamps", unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)
	// Advertisements go before the queue of everything else.
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PRIORITY, 6)
	if ipv6 {
		o.set("traffic class", unix.IPPROTO_IPV6, unix.IPV6_TCLASS, packet.TOS)
		o.set("packet info", unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
		o.set("hop limit", unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT, 1)
	} else {
		o.set("own header", unix.IPPROTO_IP, unix.IP_HDRINCL, 1)
		o.set("packet info", unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
	}
	if o.err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("vrrp socket: %w", o.err)
	}
	return s, nil
}

type opts struct {
	fd  int
	err error
}

func (o *opts) set(what string, level, name, value int) {
	o.do(what, unix.SetsockoptInt(o.fd, level, name, value))
}

func (o *opts) do(what string, err error) {
	if o.err == nil && err != nil {
		o.err = fmt.Errorf("%s: %w", what, err)
	}
}

// Close closes the socket; the kernel leaves its groups.
func (s *Socket) Close() error { return unix.Close(s.fd) }

// FD is the descriptor, for Loop.
func (s *Socket) FD() int { return s.fd }

// Join joins a group. Joining again leaves it first: the kernel forgets the
// membership of an interface whose IPv6 was switched off, the socket does not.
func (s *Socket) Join(group netip.Addr) error {
	if s.tap {
		return s.joinTap(group)
	}
	var err error
	if s.ipv6 {
		unix.SetsockoptIPv6Mreq(s.fd, unix.IPPROTO_IPV6, unix.IPV6_LEAVE_GROUP,
			&unix.IPv6Mreq{Multiaddr: group.As16(), Interface: uint32(s.index)})
		err = unix.SetsockoptIPv6Mreq(s.fd, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP,
			&unix.IPv6Mreq{Multiaddr: group.As16(), Interface: uint32(s.index)})
	} else {
		err = unix.SetsockoptIPMreqn(s.fd, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP,
			&unix.IPMreqn{Multiaddr: group.As4(), Ifindex: int32(s.index)})
	}
	if err != nil && err != unix.EADDRINUSE {
		return fmt.Errorf("join %s: %w", group, err)
	}
	return nil
}

// controlMessage takes the first message off ancillary data. d is nil when there is
// none, rest when it was the last.
func controlMessage(b []byte) (level, typ uint32, d, rest []byte) {
	if len(b) < unix.SizeofCmsghdr {
		return 0, 0, nil, nil
	}
	n := int(binary.NativeEndian.Uint64(b))
	if n < unix.SizeofCmsghdr || n > len(b) {
		return 0, 0, nil, nil
	}
	level, typ, d = binary.NativeEndian.Uint32(b[8:]), binary.NativeEndian.Uint32(b[12:]), b[unix.SizeofCmsghdr:n]
	if n = (n + 7) &^ 7; n <= len(b) {
		rest = b[n:]
	}
	return level, typ, d, rest
}

// stamp reads a struct timespec, in nanoseconds.
func stamp(d []byte) int64 {
	return int64(binary.NativeEndian.Uint64(d))*1e9 + int64(binary.NativeEndian.Uint64(d[8:]))
}

// maxAge bounds the age of a packet: a wall clock that was set while it
// waited must not make it older than a socket buffer keeps anything.
const maxAge = time.Minute

// age is how long ago a stamp of the kernel was. The time comes from the vDSO:
// unix.ClockGettime would be a system call for each packet.
func age(stamp int64) time.Duration { return ageAt(stamp, time.Now().UnixNano()) }

func ageAt(stamp, now int64) time.Duration {
	d := time.Duration(now - stamp)
	if d < 0 || d > maxAge {
		return 0
	}
	return d
}

// Send sends one advertisement. Over IPv4 b begins with the IP header; over
// IPv6 the kernel makes one from src and hops (-1: its default).
func (s *Socket) Send(b []byte, src, dst netip.Addr, hops int) error {
	s.iov.Base = &b[0]
	s.iov.SetLen(len(b))
	s.from = unix.RawSockaddrInet6{}
	s.hdr = unix.Msghdr{Name: (*byte)(unsafe.Pointer(&s.from)), Iov: &s.iov}
	s.hdr.SetIovlen(1)
	if s.ipv6 {
		if hops != s.hops && !dst.IsMulticast() {
			if err := unix.SetsockoptInt(s.fd, unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, hops); err != nil {
				return err
			}
			s.hops = hops
		}
		s.from.Family, s.from.Addr = unix.AF_INET6, dst.As16()
		if dst.IsLinkLocalUnicast() || dst.IsLinkLocalMulticast() {
			s.from.Scope_id = uint32(s.index)
		}
		s.hdr.Namelen = unix.SizeofSockaddrInet6
		o := s.sendOOB[:unix.SizeofCmsghdr+20]
		binary.NativeEndian.PutUint64(o, uint64(len(o)))
		binary.NativeEndian.PutUint32(o[8:], unix.IPPROTO_IPV6)
		binary.NativeEndian.PutUint32(o[12:], unix.IPV6_PKTINFO)
		a := src.As16()
		copy(o[16:], a[:])
		binary.NativeEndian.PutUint32(o[32:], uint32(s.index))
		s.hdr.Control = &s.sendOOB[0]
		s.hdr.SetControllen(40)
	} else {
		in := (*unix.RawSockaddrInet4)(unsafe.Pointer(&s.from))
		in.Family, in.Addr = unix.AF_INET, dst.As4()
		s.hdr.Namelen = unix.SizeofSockaddrInet4
	}
	_, _, e := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&s.hdr)), unix.MSG_DONTWAIT)
	if e != 0 {
		return e
	}
	return nil
}
