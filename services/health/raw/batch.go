package raw

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Sizes of the batches: many packets cost one call of the kernel.
const (
	batchSize = 64
	// heardSize is what is read of a packet: IP, ICMP and the quoted headers of
	// ours, all with every option. Only answers through the VIP are longer.
	heardSize = 512
)

// mmsghdr is struct mmsghdr of sendmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
	_   [4]byte
}

// outbox is what waits for Flush, all of it for one socket.
type outbox struct {
	fd   int
	n    int
	port [batchSize]uint16
	hdr  [batchSize]mmsghdr
	iov  [batchSize]unix.Iovec
	to   [batchSize]unix.RawSockaddrInet6 // large enough for IPv4 too
}

// inbox is what one call reads.
type inbox struct {
	hdr  [batchSize]mmsghdr
	iov  [batchSize]unix.Iovec
	from [batchSize]unix.RawSockaddrInet6
	buf  [batchSize][heardSize]byte
}

// Queue hands a whole packet, which must not change before Flush, to the
// kernel's IP layer. An error is that of a socket that cannot be had; those of
// sending come to Failed with the port.
func (s *Sockets) Queue(b []byte, dst netip.Addr, mark uint32, iface string, port uint16) error {
	fd, err := s.sender(sendKey{dst.Is6(), mark, iface})
	if err != nil {
		return err
	}
	zone, err := zoneIndex(dst)
	if err != nil {
		return err
	}
	if s.out == nil {
		s.out = &outbox{}
	}
	o := s.out
	if o.n == batchSize || o.n > 0 && o.fd != fd {
		s.Flush()
	}
	i := o.n
	o.fd, o.port[i] = fd, port
	o.n++
	o.iov[i].Base = &b[0]
	o.iov[i].SetLen(len(b))
	h := &o.hdr[i].hdr
	h.Name, h.Iov = (*byte)(unsafe.Pointer(&o.to[i])), &o.iov[i]
	h.SetIovlen(1)
	if dst.Is6() {
		o.to[i] = unix.RawSockaddrInet6{Family: unix.AF_INET6, Addr: dst.As16(), Scope_id: zone}
		h.Namelen = unix.SizeofSockaddrInet6
	} else {
		*(*unix.RawSockaddrInet4)(unsafe.Pointer(&o.to[i])) = unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: dst.As4()}
		h.Namelen = unix.SizeofSockaddrInet4
	}
	return nil
}

// Flush sends what was queued.
func (s *Sockets) Flush() {
	o := s.out
	if o == nil || o.n == 0 {
		return
	}
	type failure struct {
		port uint16
		err  error
	}
	var failed []failure
	for at := 0; at < o.n; {
		n, _, e := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(o.fd), uintptr(unsafe.Pointer(&o.hdr[at])), uintptr(o.n-at), unix.MSG_DONTWAIT, 0, 0)
		switch e {
		case 0:
			at += int(n)
		case unix.EINTR:
		default: // of the first one; the others may have another way
			failed = append(failed, failure{o.port[at], e})
			at++
		}
	}
	for i := range o.n {
		o.iov[i].Base = nil
	}
	o.n = 0
	for _, f := range failed { // who is told may queue again
		s.Failed(f.port, f.err)
	}
}

// readBatch calls fn for each packet that waits at a raw socket, at most so
// many.
func (s *Sockets) readBatch(fd int, k listenKey, most int, fn func(*Packet)) {
	if s.in == nil {
		s.in = &inbox{}
		for i := range batchSize {
			s.in.iov[i].Base = &s.in.buf[i][0]
			s.in.iov[i].SetLen(heardSize)
			h := &s.in.hdr[i].hdr
			h.Name, h.Iov = (*byte)(unsafe.Pointer(&s.in.from[i])), &s.in.iov[i]
			h.SetIovlen(1)
		}
	}
	in := s.in
	proto := byte(TCP)
	if k.use == Echo {
		proto = ICMPv6
	}
	for most > 0 {
		for i := range batchSize {
			in.hdr[i].hdr.Namelen = unix.SizeofSockaddrInet6
		}
		n, _, e := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&in.hdr[0])), uintptr(min(batchSize, most)), unix.MSG_DONTWAIT, 0, 0)
		if e == unix.EINTR {
			continue
		}
		if e != 0 {
			return
		}
		for i := range int(n) {
			b := in.buf[i][:in.hdr[i].n]
			var ok bool
			if k.v6 {
				s.pkt, ok = ParseTransport(proto, netip.AddrFrom16(in.from[i].Addr), netip.Addr{}, b)
			} else {
				s.pkt, ok = Parse(b)
			}
			if ok {
				fn(&s.pkt)
			}
		}
		if int(n) < batchSize {
			return
		}
		most -= int(n)
	}
}

// zoneIndex is the interface of a link-local address, 0: none.
func zoneIndex(a netip.Addr) (uint32, error) {
	z := a.Zone()
	if z == "" {
		return 0, nil
	}
	ifi, err := net.InterfaceByName(z)
	if err != nil {
		return 0, fmt.Errorf("address %s: interface %s: %w", a, z, err)
	}
	return uint32(ifi.Index), nil
}

func htons(v uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], v)
	return *(*uint16)(unsafe.Pointer(&b))
}
