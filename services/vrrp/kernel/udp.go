package kernel

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// UDP is a UDP socket for datagrams that must not wait: heartbeats and BFD. It
// allocates nothing after OpenUDP.
type UDP struct {
	fd      int
	ipv6    bool
	buf     [2048]byte
	oob     [256]byte
	iov     unix.Iovec
	hdr     unix.Msghdr
	name    unix.RawSockaddrInet6
	sendOOB [64]byte
}

// UDPOptions say how a socket is opened.
type UDPOptions struct {
	IPv6      bool
	Interface string     // bound to it; empty: any
	Addr      netip.Addr // bound to it; invalid: any
	Port      uint16
	TTL       int // TTL or hop limit of what is sent; 0: the kernel's default
}

// Datagram is one datagram. Payload is valid until the next Receive.
type Datagram struct {
	Src     netip.AddrPort
	Dst     netip.Addr
	TTL     int           // TTL or hop limit; -1: not told
	Index   int           // interface it came in by; 0: not told
	Age     time.Duration // since the kernel received it
	Payload []byte
}

// OpenUDP opens a socket. Several may share a port: the kernel prefers the one
// that is bound to the interface of a datagram.
func OpenUDP(o UDPOptions) (*UDP, error) {
	fam := unix.AF_INET
	if o.IPv6 {
		fam = unix.AF_INET6
	}
	fd, err := unix.Socket(fam, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open UDP socket: %w", err)
	}
	u := &UDP{fd: fd, ipv6: o.IPv6}
	k := opts{fd: fd}
	k.set("share the port", unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	k.set("timestamps", unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PRIORITY, 6)
	if o.Interface != "" {
		k.do("bind to "+o.Interface, unix.BindToDevice(fd, o.Interface))
	}
	const tos = 0xc0 // network control, as advertisements
	if o.IPv6 {
		k.set("IPv6 only", unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
		k.set("traffic class", unix.IPPROTO_IPV6, unix.IPV6_TCLASS, tos)
		k.set("packet info", unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
		k.set("hop limit", unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT, 1)
		if o.TTL != 0 {
			k.set("hops", unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, o.TTL)
		}
	} else {
		k.set("type of service", unix.IPPROTO_IP, unix.IP_TOS, tos)
		k.set("packet info", unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
		k.set("TTL", unix.IPPROTO_IP, unix.IP_RECVTTL, 1)
		if o.TTL != 0 {
			k.set("TTL to send", unix.IPPROTO_IP, unix.IP_TTL, o.TTL)
		}
	}
	if k.err == nil {
		if o.IPv6 {
			sa := &unix.SockaddrInet6{Port: int(o.Port)}
			if o.Addr.IsValid() {
				sa.Addr = o.Addr.As16()
			}
			k.do(fmt.Sprintf("port %d", o.Port), unix.Bind(fd, sa))
		} else {
			sa := &unix.SockaddrInet4{Port: int(o.Port)}
			if o.Addr.IsValid() {
				sa.Addr = o.Addr.As4()
			}
			k.do(fmt.Sprintf("port %d", o.Port), unix.Bind(fd, sa))
		}
	}
	if k.err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("UDP socket: %w", k.err)
	}
	return u, nil
}

// Close closes the socket.
func (u *UDP) Close() error { return unix.Close(u.fd) }

// FD is the descriptor, for Loop.
func (u *UDP) FD() int { return u.fd }

// Receive takes the next datagram without waiting. ok is false when there is none.
func (u *UDP) Receive() (d Datagram, ok bool) {
	u.iov.Base = &u.buf[0]
	u.iov.SetLen(len(u.buf))
	u.hdr = unix.Msghdr{Name: (*byte)(unsafe.Pointer(&u.name)), Namelen: unix.SizeofSockaddrInet6, Iov: &u.iov, Control: &u.oob[0]}
	u.hdr.SetIovlen(1)
	u.hdr.SetControllen(len(u.oob))
	n, _, e := unix.RawSyscall(unix.SYS_RECVMSG, uintptr(u.fd), uintptr(unsafe.Pointer(&u.hdr)), unix.MSG_DONTWAIT)
	if e != 0 {
		return d, false
	}
	d.TTL = -1
	u.control(&d, u.oob[:min(int(u.hdr.Controllen), len(u.oob))])
	d.Payload = u.buf[:n]
	// The port lies at the same place in both, in network order.
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&u.name.Port))[:])
	if u.ipv6 {
		d.Src = netip.AddrPortFrom(netip.AddrFrom16(u.name.Addr), port)
	} else {
		d.Src = netip.AddrPortFrom(netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(&u.name)).Addr), port)
	}
	return d, true
}

// control reads the ancillary data without allocating.
func (u *UDP) control(r *Datagram, b []byte) {
	for b != nil {
		var level, typ uint32
		var d []byte
		if level, typ, d, b = controlMessage(b); d == nil {
			return
		}
		switch {
		case level == unix.SOL_SOCKET && typ == unix.SO_TIMESTAMPNS && len(d) >= 16:
			r.Age = age(stamp(d))
		case level == unix.IPPROTO_IP && typ == unix.IP_PKTINFO && len(d) >= 12:
			r.Index = int(int32(binary.NativeEndian.Uint32(d)))
			r.Dst = netip.AddrFrom4([4]byte(d[8:12]))
		case level == unix.IPPROTO_IP && typ == unix.IP_TTL && len(d) >= 4:
			r.TTL = int(int32(binary.NativeEndian.Uint32(d)))
		case level == unix.IPPROTO_IPV6 && typ == unix.IPV6_PKTINFO && len(d) >= 20:
			r.Dst = netip.AddrFrom16([16]byte(d[:16]))
			r.Index = int(int32(binary.NativeEndian.Uint32(d[16:])))
		case level == unix.IPPROTO_IPV6 && typ == unix.IPV6_HOPLIMIT && len(d) >= 4:
			r.TTL = int(int32(binary.NativeEndian.Uint32(d)))
		}
	}
}

// Send sends one datagram, from an address (invalid: the kernel picks it) by
// an interface (0: by route; link-local addresses need one).
func (u *UDP) Send(b []byte, to netip.AddrPort, from netip.Addr, index int) error {
	u.iov.Base = &b[0]
	u.iov.SetLen(len(b))
	u.name = unix.RawSockaddrInet6{}
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&u.name.Port))[:], to.Port())
	u.hdr = unix.Msghdr{Name: (*byte)(unsafe.Pointer(&u.name)), Iov: &u.iov}
	u.hdr.SetIovlen(1)
	o := u.sendOOB[:]
	if u.ipv6 {
		u.name.Family, u.name.Addr = unix.AF_INET6, to.Addr().As16()
		if to.Addr().IsLinkLocalUnicast() {
			u.name.Scope_id = uint32(index)
		}
		u.hdr.Namelen = unix.SizeofSockaddrInet6
		if from.IsValid() || index != 0 {
			binary.NativeEndian.PutUint64(o, unix.SizeofCmsghdr+20)
			binary.NativeEndian.PutUint32(o[8:], unix.IPPROTO_IPV6)
			binary.NativeEndian.PutUint32(o[12:], unix.IPV6_PKTINFO)
			var a [16]byte
			if from.IsValid() {
				a = from.As16()
			}
			copy(o[16:], a[:])
			binary.NativeEndian.PutUint32(o[32:], uint32(index))
			u.hdr.Control = &u.sendOOB[0]
			u.hdr.SetControllen(40)
		}
	} else {
		in := (*unix.RawSockaddrInet4)(unsafe.Pointer(&u.name))
		in.Family, in.Addr = unix.AF_INET, to.Addr().As4()
		u.hdr.Namelen = unix.SizeofSockaddrInet4
		if from.IsValid() || index != 0 {
			binary.NativeEndian.PutUint64(o, unix.SizeofCmsghdr+12)
			binary.NativeEndian.PutUint32(o[8:], unix.IPPROTO_IP)
			binary.NativeEndian.PutUint32(o[12:], unix.IP_PKTINFO)
			binary.NativeEndian.PutUint32(o[16:], uint32(index))
			var a [4]byte
			if from.IsValid() {
				a = from.As4()
			}
			copy(o[20:], a[:])
			copy(o[24:], []byte{0, 0, 0, 0})
			u.hdr.Control = &u.sendOOB[0]
			u.hdr.SetControllen(32)
		}
	}
	_, _, e := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(u.fd), uintptr(unsafe.Pointer(&u.hdr)), unix.MSG_DONTWAIT)
	if e != 0 {
		return e
	}
	return nil
}
