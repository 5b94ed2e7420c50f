package kernel

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Address appends the destination that Send gives an advertisement, as sendmsg
// takes it.
func (s *Socket) Address(b []byte, dst netip.Addr) []byte {
	if !s.ipv6 {
		a := unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: dst.As4()}
		return append(b, unsafe.Slice((*byte)(unsafe.Pointer(&a)), unix.SizeofSockaddrInet4)...)
	}
	a := unix.RawSockaddrInet6{Family: unix.AF_INET6, Addr: dst.As16()}
	if dst.IsLinkLocalUnicast() || dst.IsLinkLocalMulticast() {
		a.Scope_id = uint32(s.index)
	}
	return append(b, unsafe.Slice((*byte)(unsafe.Pointer(&a)), unix.SizeofSockaddrInet6)...)
}

// Ancillary appends the ancillary data of an advertisement. Other than Send it
// says the hop limit, which Send may have changed on the socket for another one.
func (s *Socket) Ancillary(b []byte, src, dst netip.Addr, hops int) []byte {
	if !s.ipv6 {
		return b
	}
	b = appendControl(b, unix.IPV6_PKTINFO, 20)
	a := src.As16()
	b = append(b, a[:]...)
	b = binary.NativeEndian.AppendUint32(b, uint32(s.index))
	b = append(b, 0, 0, 0, 0) // to a multiple of eight
	if hops >= 0 && !dst.IsMulticast() {
		b = appendControl(b, unix.IPV6_HOPLIMIT, 4)
		b = binary.NativeEndian.AppendUint32(b, uint32(hops))
		b = append(b, 0, 0, 0, 0)
	}
	return b
}

// appendControl appends the head of an IPv6 control message with n bytes of data.
func appendControl(b []byte, kind uint32, n int) []byte {
	b = binary.NativeEndian.AppendUint64(b, uint64(unix.SizeofCmsghdr+n))
	b = binary.NativeEndian.AppendUint32(b, unix.IPPROTO_IPV6)
	return binary.NativeEndian.AppendUint32(b, kind)
}

// FD is the descriptor.
func (f *Frames) FD() int { return f.fd }

// Address appends the destination that Send gives a frame, as sendmsg takes it.
func (f *Frames) Address(b, frame []byte) []byte {
	a := unix.RawSockaddrLinklayer{Family: unix.AF_PACKET, Ifindex: int32(f.to.Ifindex), Halen: 6}
	a.Protocol = uint16(frame[13])<<8 | uint16(frame[12]) // network order in host memory
	copy(a.Addr[:], frame[:6])
	return append(b, unsafe.Slice((*byte)(unsafe.Pointer(&a)), unix.SizeofSockaddrLinklayer)...)
}
