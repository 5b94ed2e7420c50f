package packet

import (
	"encoding/binary"
	"net/netip"
)

// ICMPv6 types of neighbour discovery (RFC 4861 section 4).
const (
	NeighbourSolicitation  = 135
	NeighbourAdvertisement = 136
)

// AppendARPRequest appends an ARP request frame that asks for addr.
func AppendARPRequest(b []byte, mac MAC, own, addr netip.Addr) []byte {
	b = append(b, Broadcast[:]...)
	b = append(b, mac[:]...)
	b = binary.BigEndian.AppendUint16(b, EtherARP)
	b = append(b, 0, 1, 8, 0, 6, 4, 0, 1)
	b = append(b, mac[:]...)
	b = AppendAddr(b, own)
	b = append(b, 0, 0, 0, 0, 0, 0)
	return AppendAddr(b, addr)
}

// ARPReply reads who answers in a frame; ok is false for anything but an ARP
// reply for IPv4 over Ethernet.
func ARPReply(b []byte) (addr netip.Addr, ok bool) {
	if len(b) < 42 || binary.BigEndian.Uint16(b[12:]) != EtherARP || [8]byte(b[14:22]) != [8]byte{0, 1, 8, 0, 6, 4, 0, 2} {
		return addr, false
	}
	return netip.AddrFrom4([4]byte(b[28:32])), true
}

// AppendNS appends a neighbour solicitation, from the ICMPv6 header on. The
// kernel fills in its checksum.
func AppendNS(b []byte, mac MAC, addr netip.Addr) []byte {
	b = append(b, NeighbourSolicitation, 0, 0, 0, 0, 0, 0, 0)
	b = AppendAddr(b, addr)
	b = append(b, 1, 1)
	return append(b, mac[:]...)
}

// AdvertisedNeighbour reads who answers in an ICMPv6 message; ok is false for
// anything but a neighbour advertisement.
func AdvertisedNeighbour(b []byte) (addr netip.Addr, ok bool) {
	if len(b) < 24 || b[0] != NeighbourAdvertisement || b[1] != 0 {
		return addr, false
	}
	return netip.AddrFrom16([16]byte(b[8:24])), true
}

// SolicitedNode is the multicast address at which the holder of addr listens
// (RFC 4291 section 2.7.1).
func SolicitedNode(addr netip.Addr) [16]byte {
	a := addr.As16()
	return [16]byte{0: 0xff, 1: 2, 11: 1, 12: 0xff, 13: a[13], 14: a[14], 15: a[15]}
}
