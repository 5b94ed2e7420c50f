package packet

import (
	"encoding/binary"
	"net/netip"
)

// MAC is an Ethernet address.
type MAC [6]byte

// Ethernet types.
const (
	EtherARP  = 0x0806
	EtherIPv6 = 0x86dd
)

// Broadcast is the Ethernet broadcast address.
var Broadcast = MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// AllNodesMAC is the Ethernet address of ff02::1 (RFC 2464 section 7).
var AllNodesMAC = MAC{0x33, 0x33, 0, 0, 0, 1}

var allNodes = netip.AddrFrom16([16]byte{0: 0xff, 1: 0x02, 15: 1})

// AppendGARP appends a gratuitous ARP frame for an IPv4 address, Ethernet
// header included. It is an ARP request (RFC 5227 section 3 says why) with the
// broadcast address as target hardware address, as keepalived sends it.
func AppendGARP(b []byte, mac MAC, addr netip.Addr) []byte {
	b = append(b, Broadcast[:]...)
	b = append(b, mac[:]...)
	b = binary.BigEndian.AppendUint16(b, EtherARP)
	b = append(b, 0, 1, 8, 0, 6, 4, 0, 1)
	b = append(b, mac[:]...)
	b = AppendAddr(b, addr)
	b = append(b, Broadcast[:]...)
	return AppendAddr(b, addr)
}

// AppendNA appends an unsolicited neighbour advertisement frame (RFC 4861
// section 7.2.6) for an IPv6 address, Ethernet header included: from the
// address to all nodes, Override set, Router set on a box that forwards, with
// the target link-layer address.
func AppendNA(b []byte, mac MAC, addr netip.Addr, router bool) []byte {
	const length = 32
	b = append(b, AllNodesMAC[:]...)
	b = append(b, mac[:]...)
	b = binary.BigEndian.AppendUint16(b, EtherIPv6)
	b = append(b, 0x60, 0, 0, 0, 0, length, 58, 255)
	b = AppendAddr(b, addr)
	b = AppendAddr(b, allNodes)
	start := len(b)
	flags := byte(0x20)
	if router {
		flags |= 0x80
	}
	b = append(b, 136, 0, 0, 0, flags, 0, 0, 0)
	b = AppendAddr(b, addr)
	b = append(b, 2, 1)
	b = append(b, mac[:]...)
	binary.BigEndian.PutUint16(b[start+2:], fold(add(pseudo(addr, allNodes, 58, length), b[start:])))
	return b
}
