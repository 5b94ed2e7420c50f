package kernel

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"ballast/services/vrrp/packet"
)

// Multicast is the Ethernet address of a group (RFC 1112 section 6.4, RFC 2464
// section 7).
func Multicast(group netip.Addr) packet.MAC {
	if group.Is4() {
		g := group.As4()
		return packet.MAC{0x01, 0x00, 0x5e, g[1] & 0x7f, g[2], g[3]}
	}
	g := group.As16()
	return packet.MAC{0x33, 0x33, g[12], g[13], g[14], g[15]}
}

// OpenVirtual opens a receiver of advertisements on the interface of a virtual
// MAC. A macvlan that has the source MAC of a frame swallows it, so the frames
// of a peer with the same virtual MAC come out nowhere else. It is a packet
// socket: it needs no address on the interface, and its membership (Join) is
// one of the NIC's filter only. A membership of the IP layer would send IGMP
// or MLD reports from the virtual MAC, also as backup, and draw the switch's
// table to the wrong port; the interface below sends them.
func OpenVirtual(index int, name string, ipv6, ah bool) (*Socket, error) {
	ether := uint16(unix.ETH_P_IP)
	if ipv6 {
		ether = unix.ETH_P_IPV6
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open vrrp socket on %s: %w", name, err)
	}
	s := &Socket{fd: fd, ipv6: ipv6, index: index, hops: -2, tap: true, ah: ah}
	o := opts{fd: fd}
	o.set("timestamps", unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)
	at := uint32(9) // protocol in the IPv4 header
	if ipv6 {
		at = 6
	}
	proto := uint32(packet.Protocol)
	if ah {
		proto = packet.ProtocolAH
	}
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: at},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: proto, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0xffff},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
	o.do("filter", unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}))
	// Bound last: before, it would hear every interface.
	o.do("bind to "+name, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: ether<<8 | ether>>8, Ifindex: index}))
	if o.err != nil {
		s.Close()
		return nil, fmt.Errorf("vrrp socket on %s: %w", name, o.err)
	}
	return s, nil
}

// joinTap lets the NIC's filter pass the frames of a group.
func (s *Socket) joinTap(group netip.Addr) error {
	m := Multicast(group)
	mreq := unix.PacketMreq{Ifindex: int32(s.index), Type: unix.PACKET_MR_MULTICAST, Alen: 6}
	copy(mreq.Address[:], m[:])
	// The kernel counts memberships of one socket: a second one would stay.
	unix.SetsockoptPacketMreq(s.fd, unix.SOL_PACKET, unix.PACKET_DROP_MEMBERSHIP, &mreq)
	if err := unix.SetsockoptPacketMreq(s.fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &mreq); err != nil {
		return fmt.Errorf("join %s: %w", group, err)
	}
	return nil
}

// intact tells whether a packet socket delivered something to read on: what
// this box sends passes there too, and nobody has checked the header yet.
func (s *Socket) intact(r *Received, ll *unix.RawSockaddrLinklayer, b []byte) bool {
	if ll.Pkttype == unix.PACKET_OUTGOING {
		return false
	}
	r.Index = int(ll.Ifindex)
	if s.ipv6 {
		return len(b) >= ipv6HeaderLen && b[0]>>4 == 6 && int(binary.BigEndian.Uint16(b[4:])) <= len(b)-ipv6HeaderLen
	}
	return len(b) >= packet.IPv4HeaderLen && headerIntact(b)
}

// readIPv6 reads the header in front of the payload.
func readIPv6(r *Received, b []byte) {
	r.TTL = int(b[7])
	r.Src, r.Dst = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
	r.Payload = b[ipv6HeaderLen : ipv6HeaderLen+int(binary.BigEndian.Uint16(b[4:]))]
}

const ipv6HeaderLen = 40

// headerIntact verifies the checksum of an IPv4 header.
func headerIntact(b []byte) bool {
	n := int(b[0]&0x0f) * 4
	if n < packet.IPv4HeaderLen || n > len(b) {
		return false
	}
	var sum uint32
	for i := 0; i < n; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return sum == 0xffff
}

// AppendEther appends the Ethernet header of an advertisement to a group, and
// for IPv6 the IP header of its n bytes of payload.
func AppendEther(b []byte, from packet.MAC, src, group netip.Addr, n int) []byte {
	to := Multicast(group)
	b = append(b, to[:]...)
	b = append(b, from[:]...)
	if group.Is4() {
		return binary.BigEndian.AppendUint16(b, unix.ETH_P_IP)
	}
	b = binary.BigEndian.AppendUint16(b, unix.ETH_P_IPV6)
	b = append(b, 0x60|packet.TOS>>4, packet.TOS&0x0f<<4, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(n))
	b = append(b, packet.Protocol, 255)
	b = packet.AppendAddr(b, src)
	return packet.AppendAddr(b, group)
}
