package packet

import (
	"encoding/binary"
	"net/netip"
)

// IPv4HeaderLen is the length of the header that AppendIPv4 writes.
const IPv4HeaderLen = 20

// TOS is the IPv4 type of service and the IPv6 traffic class of advertisements:
// CS6, network control.
const TOS = 0xc0

// AppendIPv4 appends the IPv4 header of an advertisement whose payload, of
// protocol proto, will be n bytes: TOS c0, DF clear. The kernel fills in an id of 0 with one of its
// own, so a sender that counts must skip 0.
func AppendIPv4(b []byte, proto uint8, id uint16, ttl uint8, src, dst netip.Addr, n int) []byte {
	start := len(b)
	b = append(b, 0x45, TOS)
	b = binary.BigEndian.AppendUint16(b, uint16(IPv4HeaderLen+n))
	b = binary.BigEndian.AppendUint16(b, id)
	b = append(b, 0, 0, ttl, proto, 0, 0)
	b = AppendAddr(b, src)
	b = AppendAddr(b, dst)
	binary.BigEndian.PutUint16(b[start+10:], fold(add(0, b[start:])))
	return b
}

// ClearID sets the id in an IPv4 header without options to 0. A raw socket gives
// it an id of its own then; in a frame 0 does as well, for nothing fragments it.
func ClearID(b []byte) {
	h := b[:IPv4HeaderLen]
	h[4], h[5], h[10], h[11] = 0, 0, 0, 0
	binary.BigEndian.PutUint16(h[10:], fold(add(0, h)))
}

// IPv4 is what a receiver needs of an IPv4 header.
type IPv4 struct {
	TTL      uint8
	Proto    uint8 // Protocol, or ProtocolAH with a payload of at least AHLen
	Src, Dst netip.Addr
	Payload  []byte
}

// DecodeIPv4 reads a packet as a raw socket delivers it: header first. Where
// there is an authentication header, Payload begins with it.
func DecodeIPv4(b []byte) (IPv4, error) {
	if len(b) < IPv4HeaderLen || b[0]>>4 != 4 {
		return IPv4{}, ErrLength
	}
	hl := int(b[0]&0x0f) * 4
	total := int(binary.BigEndian.Uint16(b[2:]))
	if hl < IPv4HeaderLen || total < hl || total > len(b) ||
		b[9] != Protocol && (b[9] != ProtocolAH || total < hl+AHLen) {
		return IPv4{}, ErrLength
	}
	return IPv4{
		TTL:     b[8],
		Proto:   b[9],
		Src:     netip.AddrFrom4([4]byte(b[12:16])),
		Dst:     netip.AddrFrom4([4]byte(b[16:20])),
		Payload: b[hl:total],
	}, nil
}
