// Package raw speaks to real servers by packets that the kernel's sockets would
// not send: a SYN without a connection behind it, ICMP echo, and a probe that is
// addressed to a virtual IP but goes to one real server, as IPVS would send it.
//
// packet.go builds and reads packets and is pure; sockets.go and route.go are
// the edge, which needs CAP_NET_RAW and nothing else.
package raw

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// IP protocol numbers.
const (
	ICMP   = 1
	IPIP   = 4
	TCP    = 6
	UDP    = 17
	IPv6   = 41
	GRE    = 47
	ICMPv6 = 58
)

// TCP flags.
const (
	SYN = 0x02
	RST = 0x04
	ACK = 0x10
)

const (
	ipv4Head = 20
	ipv6Head = 40
	tcpHead  = 20
	udpHead  = 8
	echoHead = 8
	hops     = 64
)

// Types of ICMP and ICMPv6 (RFC 792, RFC 4443).
const (
	icmpEchoReply    = 0
	icmpUnreachable  = 3
	icmpEcho         = 8
	icmp6Unreachable = 1
	icmp6Echo        = 128
	icmp6EchoReply   = 129
)

// appendIP begins a packet whose transport part will have n bytes.
func appendIP(b []byte, src, dst netip.Addr, proto byte, n int) []byte {
	if dst.Is4() {
		s, d := src.As4(), dst.As4()
		at := len(b)
		b = append(b, 0x45, 0)
		b = binary.BigEndian.AppendUint16(b, uint16(ipv4Head+n))
		b = append(b, 0, 0, 0x40, 0, hops, proto, 0, 0) // don't fragment
		b = append(append(b, s[:]...), d[:]...)
		binary.BigEndian.PutUint16(b[at+10:], fold(sum(0, b[at:])))
		return b
	}
	s, d := src.As16(), dst.As16()
	b = append(b, 0x60, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(n))
	b = append(b, proto, hops)
	return append(append(b, s[:]...), d[:]...)
}

// sum adds 16-bit words (RFC 1071).
func sum(s uint32, b []byte) uint32 {
	for ; len(b) >= 2; b = b[2:] {
		s += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	return s
}

func fold(s uint32) uint16 {
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return ^uint16(s)
}

// checksum of a transport part with its pseudo header.
func checksum(src, dst netip.Addr, proto byte, b []byte) uint16 {
	s := uint32(proto) + uint32(len(b))
	if src.Is4() {
		a, d := src.As4(), dst.As4()
		s = sum(sum(s, a[:]), d[:])
	} else {
		a, d := src.As16(), dst.As16()
		s = sum(sum(s, a[:]), d[:])
	}
	return fold(sum(s, b))
}

// AppendTCP appends a whole packet with an empty TCP segment. A SYN says the
// maximum segment size of Ethernet: some filters drop one without.
func AppendTCP(b []byte, src, dst netip.AddrPort, seq, ack uint32, flags byte) []byte {
	n := tcpHead
	if flags&SYN != 0 {
		n += 4
	}
	b = appendIP(b, src.Addr(), dst.Addr(), TCP, n)
	at := len(b)
	b = binary.BigEndian.AppendUint16(b, src.Port())
	b = binary.BigEndian.AppendUint16(b, dst.Port())
	b = binary.BigEndian.AppendUint32(b, seq)
	b = binary.BigEndian.AppendUint32(b, ack)
	window := uint16(64240)
	if flags&RST != 0 {
		window = 0
	}
	b = append(b, byte(n/4)<<4, flags)
	b = binary.BigEndian.AppendUint16(b, window)
	b = append(b, 0, 0, 0, 0)
	if flags&SYN != 0 {
		mss := uint16(1460)
		if dst.Addr().Is6() {
			mss = 1440
		}
		b = binary.BigEndian.AppendUint16(append(b, 2, 4), mss)
	}
	binary.BigEndian.PutUint16(b[at+16:], checksum(src.Addr(), dst.Addr(), TCP, b[at:]))
	return b
}

// AppendUDP appends a whole packet.
func AppendUDP(b []byte, src, dst netip.AddrPort, payload []byte) []byte {
	n := udpHead + len(payload)
	b = appendIP(b, src.Addr(), dst.Addr(), UDP, n)
	at := len(b)
	b = binary.BigEndian.AppendUint16(b, src.Port())
	b = binary.BigEndian.AppendUint16(b, dst.Port())
	b = binary.BigEndian.AppendUint16(b, uint16(n))
	b = append(append(b, 0, 0), payload...)
	c := checksum(src.Addr(), dst.Addr(), UDP, b[at:])
	if c == 0 {
		c = 0xffff // 0 means none (RFC 768)
	}
	binary.BigEndian.PutUint16(b[at+6:], c)
	return b
}

// AppendEcho appends a whole ICMP or ICMPv6 echo request.
func AppendEcho(b []byte, src, dst netip.Addr, id, seq uint16, payload []byte) []byte {
	n := echoHead + len(payload)
	kind, proto := byte(icmpEcho), byte(ICMP)
	if dst.Is6() {
		kind, proto = icmp6Echo, ICMPv6
	}
	b = appendIP(b, src, dst, proto, n)
	at := len(b)
	b = append(b, kind, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, id)
	b = binary.BigEndian.AppendUint16(b, seq)
	b = append(b, payload...)
	c := uint16(0)
	if proto == ICMPv6 { // only there a pseudo header
		c = checksum(src, dst, ICMPv6, b[at:])
	} else {
		c = fold(sum(0, b[at:]))
	}
	binary.BigEndian.PutUint16(b[at+2:], c)
	return b
}

// Tunnel is how a packet is wrapped for a real server with the TUN method.
type Tunnel struct {
	Type string // "ipip", also when empty; "gre", "gue"
	Port uint16 // of gue
	Csum bool   // gue and gre: with checksum
}

// Wrap puts a packet into another one from src to dst as IPVS does. sport is
// the source port of gue.
func Wrap(inner []byte, src, dst netip.Addr, t Tunnel, sport uint16) ([]byte, error) {
	if len(inner) == 0 {
		return nil, errors.New("no packet to wrap")
	}
	proto, ether := byte(IPIP), uint16(0x0800)
	if inner[0]>>4 == 6 {
		proto, ether = IPv6, 0x86dd
	}
	switch t.Type {
	case "", "ipip":
		return append(appendIP(nil, src, dst, proto, len(inner)), inner...), nil
	case "gre": // RFC 2784
		head := []byte{0, 0, byte(ether >> 8), byte(ether)}
		if t.Csum {
			head = append(head, 0, 0, 0, 0)
			head[0] = 0x80
			c := fold(sum(sum(0, head), inner))
			binary.BigEndian.PutUint16(head[4:], c)
		}
		b := appendIP(nil, src, dst, GRE, len(head)+len(inner))
		return append(append(b, head...), inner...), nil
	case "gue": // version 0, no optional fields, data of an IP protocol
		b := AppendUDP(nil, netip.AddrPortFrom(src, sport), netip.AddrPortFrom(dst, t.Port), append([]byte{0, proto, 0, 0}, inner...))
		if !t.Csum && dst.Is4() {
			clear(b[ipv4Head+6 : ipv4Head+8])
		}
		return b, nil
	}
	return nil, errors.New("tunnel type " + t.Type + ": not one of ipip, gre, gue")
}

// Packet is what one that came in says.
type Packet struct {
	Proto    byte
	Src, Dst netip.AddrPort // ports of TCP and UDP only
	Flags    byte           // TCP
	Seq, Ack uint32         // TCP
	Echo     bool           // ICMP: an echo reply
	ID, Num  uint16         // of an echo
	Payload  []byte         // of UDP and echo; shares memory with what was read

	// An ICMP error about a packet of ours.
	Unreachable bool
	Code        byte
	About       Quoted
}

// Quoted is the packet of ours that an ICMP error quotes.
type Quoted struct {
	Proto    byte
	Src, Dst netip.AddrPort
	Seq      uint32 // TCP
	Sum      uint16 // UDP: the checksum, which no other payload is likely to have
	ID, Num  uint16 // echo
}

// UDPSum is the checksum of a whole UDP packet as AppendUDP made it.
func UDPSum(b []byte) uint16 {
	_, _, proto, rest, ok := header(b)
	if !ok || proto != UDP || len(rest) < udpHead {
		return 0
	}
	return binary.BigEndian.Uint16(rest[6:])
}

// Parse reads a whole IPv4 or IPv6 packet.
func Parse(b []byte) (Packet, bool) {
	src, dst, proto, rest, ok := header(b)
	if !ok {
		return Packet{}, false
	}
	return ParseTransport(proto, src, dst, rest)
}

// header takes the IP header off. Fragments but the first, and IPv6 with
// extension headers, are nothing that answers our probes.
func header(b []byte) (src, dst netip.Addr, proto byte, rest []byte, ok bool) {
	if len(b) < ipv4Head {
		return
	}
	switch b[0] >> 4 {
	case 4:
		n := int(b[0]&15) * 4
		if n < ipv4Head || len(b) < n || binary.BigEndian.Uint16(b[6:])&0x1fff != 0 {
			return
		}
		total := int(binary.BigEndian.Uint16(b[2:]))
		rest = b[n:]
		if total >= n && total < len(b) {
			rest = b[n:total] // padding of short Ethernet frames
		}
		return netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20])), b[9], rest, true
	case 6:
		if len(b) < ipv6Head {
			return
		}
		rest = b[ipv6Head:]
		if n := int(binary.BigEndian.Uint16(b[4:])); n < len(rest) {
			rest = rest[:n]
		}
		return netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40])), b[6], rest, true
	}
	return
}

// ParseTransport reads what follows an IP header. dst may be invalid where the
// socket does not tell it.
func ParseTransport(proto byte, src, dst netip.Addr, b []byte) (Packet, bool) {
	p := Packet{Proto: proto}
	switch proto {
	case TCP:
		if len(b) < tcpHead {
			return p, false
		}
		p.Src, p.Dst = ports(src, dst, b)
		p.Seq, p.Ack, p.Flags = binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint32(b[8:]), b[13]
		return p, true
	case UDP:
		if len(b) < udpHead {
			return p, false
		}
		p.Src, p.Dst = ports(src, dst, b)
		p.Payload = b[udpHead:]
		return p, true
	case ICMP, ICMPv6:
		if len(b) < echoHead {
			return p, false
		}
		p.Src, p.Dst = netip.AddrPortFrom(src, 0), netip.AddrPortFrom(dst, 0)
		reply, lost := byte(icmpEchoReply), byte(icmpUnreachable)
		if proto == ICMPv6 {
			reply, lost = icmp6EchoReply, icmp6Unreachable
		}
		switch b[0] {
		case reply:
			p.Echo, p.ID, p.Num = true, binary.BigEndian.Uint16(b[4:]), binary.BigEndian.Uint16(b[6:])
			p.Payload = b[echoHead:]
			return p, true
		case lost:
			p.Unreachable, p.Code = true, b[1]
			var ok bool
			p.About, ok = quoted(b[echoHead:])
			return p, ok
		}
	}
	return p, false
}

func ports(src, dst netip.Addr, b []byte) (netip.AddrPort, netip.AddrPort) {
	return netip.AddrPortFrom(src, binary.BigEndian.Uint16(b)), netip.AddrPortFrom(dst, binary.BigEndian.Uint16(b[2:]))
}

// quoted reads the start of a packet of ours: 8 bytes of its transport part
// are all that an ICMP error must have (RFC 792).
func quoted(b []byte) (Quoted, bool) {
	src, dst, proto, rest, ok := header(b)
	if !ok || len(rest) < 8 {
		return Quoted{}, false
	}
	q := Quoted{Proto: proto}
	switch proto {
	case TCP:
		q.Src, q.Dst = ports(src, dst, rest)
		q.Seq = binary.BigEndian.Uint32(rest[4:])
	case UDP:
		q.Src, q.Dst = ports(src, dst, rest)
		q.Sum = binary.BigEndian.Uint16(rest[6:])
	case ICMP, ICMPv6:
		q.Src, q.Dst = netip.AddrPortFrom(src, 0), netip.AddrPortFrom(dst, 0)
		if rest[0] != icmpEcho && rest[0] != icmp6Echo {
			return q, false
		}
		q.ID, q.Num = binary.BigEndian.Uint16(rest[4:]), binary.BigEndian.Uint16(rest[6:])
	default:
		return q, false
	}
	return q, true
}

// Why says an ICMP error in the words of the kernel's errors.
func (p *Packet) Why() string {
	if p.Proto == ICMPv6 {
		switch p.Code { // RFC 4443 section 3.1
		case 0:
			return "network is unreachable"
		case 1:
			return "refused by a filter on the way"
		case 4:
			return "connection refused"
		}
		return "no route to host"
	}
	switch p.Code { // RFC 792, RFC 1812 section 5.2.7.1
	case 0, 6, 11:
		return "network is unreachable"
	case 2:
		return "protocol not available"
	case 3:
		return "connection refused"
	case 4:
		return "packet too large for the way"
	case 9, 10, 13:
		return "refused by a filter on the way"
	}
	return "no route to host"
}
