// Package line tells a packet in one line, for who looks at a terminal. It
// knows what a director sends and hears; a file of packets has everything.
package line

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// Types of Ethernet.
const (
	typeIP4  = 0x0800
	typeARP  = 0x0806
	typeVLAN = 0x8100
	typeIP6  = 0x86dd
	typeQinQ = 0x88a8
	typeLLDP = 0x88cc
)

// Ethernet tells a frame; tag is the VLAN that the kernel took off, 0 for none.
// length is that on the wire.
func Ethernet(b []byte, tag uint16, length int) string {
	if len(b) < 14 {
		return fmt.Sprintf("a frame of %d bytes", length)
	}
	var out strings.Builder
	if tag != 0 {
		fmt.Fprintf(&out, "vlan %d ", tag&0xfff)
	}
	kind, rest := binary.BigEndian.Uint16(b[12:]), b[14:]
	for kind == typeVLAN || kind == typeQinQ {
		if len(rest) < 4 {
			return out.String() + "vlan, cut short"
		}
		fmt.Fprintf(&out, "vlan %d ", binary.BigEndian.Uint16(rest)&0xfff)
		kind, rest = binary.BigEndian.Uint16(rest[2:]), rest[4:]
	}
	if kind != typeIP4 && kind != typeIP6 {
		fmt.Fprintf(&out, "%s > %s ", net.HardwareAddr(b[6:12]), net.HardwareAddr(b[:6]))
	}
	return out.String() + Network(kind, rest, length-(len(b)-len(rest)))
}

// Network tells a packet from its network header on.
func Network(kind uint16, b []byte, length int) string {
	switch kind {
	case typeIP4:
		return ip4(b)
	case typeIP6:
		return ip6(b)
	case typeARP:
		return arp(b)
	case typeLLDP:
		return fmt.Sprintf("LLDP, length %d", length)
	}
	if kind < 0x600 {
		return fmt.Sprintf("802.3, length %d", length)
	}
	return fmt.Sprintf("type 0x%04x, length %d", kind, length)
}

func arp(b []byte) string {
	if len(b) < 28 || binary.BigEndian.Uint16(b[2:]) != typeIP4 || b[4] != 6 || b[5] != 4 {
		return "ARP, not of IPv4 on Ethernet"
	}
	sha, spa, tpa := net.HardwareAddr(b[8:14]), netip.AddrFrom4([4]byte(b[14:18])), netip.AddrFrom4([4]byte(b[24:28]))
	switch op := binary.BigEndian.Uint16(b[6:]); {
	case spa == tpa:
		return fmt.Sprintf("ARP %s is at %s, gratuitous", spa, sha)
	case op == 1 && spa.IsUnspecified():
		return fmt.Sprintf("ARP who has %s, probe", tpa)
	case op == 1:
		return fmt.Sprintf("ARP who has %s, tell %s", tpa, spa)
	case op == 2:
		return fmt.Sprintf("ARP %s is at %s", spa, sha)
	default:
		return fmt.Sprintf("ARP operation %d", op)
	}
}

func ip4(b []byte) string {
	if len(b) < 20 || b[0]>>4 != 4 || int(b[0]&15)*4 < 20 || int(b[0]&15)*4 > len(b) {
		return "IP, cut short or not IPv4"
	}
	src, dst := netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	total := int(binary.BigEndian.Uint16(b[2:]))
	head := int(b[0]&15) * 4
	rest := b[head:]
	if total >= head && total < len(b) {
		rest = b[head:total] // without the padding of a short frame
	}
	off := binary.BigEndian.Uint16(b[6:])
	if off&0x1fff != 0 {
		return fmt.Sprintf("IP %s > %s: fragment at %d of protocol %d, length %d", src, dst, int(off&0x1fff)*8, b[9], total-head)
	}
	more := ""
	if off&0x2000 != 0 {
		more = ", first fragment"
	}
	return "IP " + upper(src, dst, b[9], rest, max(total-head, len(rest))) + more
}

func ip6(b []byte) string {
	if len(b) < 40 || b[0]>>4 != 6 {
		return "IP6, cut short or not IPv6"
	}
	src, dst := netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
	next, rest := b[6], b[40:]
	if n := int(binary.BigEndian.Uint16(b[4:])); n > 0 && n < len(rest) {
		rest = rest[:n]
	}
	length := int(binary.BigEndian.Uint16(b[4:]))
	for range 8 { // extension headers
		if next != 0 && next != 43 && next != 44 && next != 60 {
			break
		}
		if len(rest) < 8 {
			return fmt.Sprintf("IP6 %s > %s: header %d, cut short", src, dst, next)
		}
		n := 8 + int(rest[1])*8
		if next == 44 {
			n = 8
			if off := binary.BigEndian.Uint16(rest[2:]) &^ 7; off != 0 {
				return fmt.Sprintf("IP6 %s > %s: fragment at %d of protocol %d, length %d", src, dst, off, rest[0], length-n)
			}
		}
		if n > len(rest) {
			return fmt.Sprintf("IP6 %s > %s: header %d, cut short", src, dst, next)
		}
		next, rest, length = rest[0], rest[n:], length-n
	}
	return "IP6 " + upper(src, dst, next, rest, max(length, len(rest)))
}

// upper tells what is in a packet of IP; length is that of b before it was cut.
func upper(src, dst netip.Addr, proto byte, b []byte, length int) string {
	both := fmt.Sprintf("%s > %s: ", src, dst)
	short := func(name string) string { return fmt.Sprintf("%s%s, length %d", both, name, length) }
	switch proto {
	case 6:
		if len(b) < 20 {
			return short("TCP, cut short")
		}
		return tcp(src, dst, b, length)
	case 17:
		if len(b) < 8 {
			return short("UDP, cut short")
		}
		return fmt.Sprintf("%s > %s: UDP%s, length %d", netip.AddrPortFrom(src, binary.BigEndian.Uint16(b)), netip.AddrPortFrom(dst, binary.BigEndian.Uint16(b[2:])), service(b), max(length-8, 0))
	case 1:
		return both + icmp(icmp4Names, "ICMP", b, length)
	case 58:
		return both + icmp6(b, length)
	case 112:
		return both + vrrp(src.Is6(), b)
	case 51:
		if n := 8; len(b) >= n {
			if n += int(b[1]) * 4; b[0] == 112 && n <= len(b) {
				return both + "AH, " + vrrp(src.Is6(), b[n:])
			}
		}
		return short("AH")
	case 4, 41:
		if proto == 4 {
			return both + ip4(b)
		}
		return both + ip6(b)
	case 2:
		return short("IGMP")
	case 47:
		return short("GRE")
	case 50:
		return short("ESP")
	case 132:
		if len(b) < 12 {
			return short("SCTP, cut short")
		}
		return fmt.Sprintf("%s > %s: SCTP, length %d", netip.AddrPortFrom(src, binary.BigEndian.Uint16(b)), netip.AddrPortFrom(dst, binary.BigEndian.Uint16(b[2:])), length)
	}
	return short(fmt.Sprintf("protocol %d", proto))
}

func tcp(src, dst netip.Addr, b []byte, length int) string {
	var flags []byte
	for i, c := range "FSRP.UEW" {
		if b[13]&(1<<i) != 0 {
			flags = append(flags, byte(c))
		}
	}
	if flags == nil {
		flags = []byte("none")
	}
	n := length - int(b[12]>>4)*4
	out := fmt.Sprintf("%s > %s: TCP [%s] seq %d", netip.AddrPortFrom(src, binary.BigEndian.Uint16(b)), netip.AddrPortFrom(dst, binary.BigEndian.Uint16(b[2:])), flags, binary.BigEndian.Uint32(b[4:]))
	if b[13]&16 != 0 {
		out += fmt.Sprintf(" ack %d", binary.BigEndian.Uint32(b[8:]))
	}
	return out + fmt.Sprintf(" win %d, length %d", binary.BigEndian.Uint16(b[14:]), max(n, 0))
}

// services are the ports of which a director has traffic of its own.
var services = map[uint16]string{53: "DNS", 67: "DHCP", 68: "DHCP", 69: "TFTP", 123: "NTP", 161: "SNMP", 162: "SNMP trap", 514: "syslog", 546: "DHCPv6", 547: "DHCPv6",
	3784: "BFD", 4784: "BFD", 8848: "IPVS sync"}

func service(b []byte) string {
	for _, p := range []uint16{binary.BigEndian.Uint16(b[2:]), binary.BigEndian.Uint16(b)} {
		if name, ok := services[p]; ok {
			if name == "BFD" {
				name += bfd(b[8:])
			}
			return " " + name
		}
	}
	return ""
}

// bfd tells a control packet (RFC 5880, section 4.1).
func bfd(b []byte) string {
	if len(b) < 24 {
		return ", cut short"
	}
	return fmt.Sprintf(" %s, diag %d, my %#x, your %#x", [...]string{"AdminDown", "Down", "Init", "Up"}[b[1]>>6], b[0]&31, binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint32(b[8:]))
}

var icmp4Names = map[byte]string{0: "echo reply", 3: "unreachable", 5: "redirect", 8: "echo request", 11: "time exceeded", 12: "parameter problem"}

func icmp(names map[byte]string, proto string, b []byte, length int) string {
	if len(b) < 4 {
		return proto + ", cut short"
	}
	name, ok := names[b[0]]
	if !ok {
		name = fmt.Sprintf("type %d", b[0])
	}
	if (proto == "ICMP" && (b[0] == 0 || b[0] == 8) || proto == "ICMP6" && (b[0] == 128 || b[0] == 129)) && len(b) >= 8 {
		return fmt.Sprintf("%s %s, id %d, seq %d, length %d", proto, name, binary.BigEndian.Uint16(b[4:]), binary.BigEndian.Uint16(b[6:]), length)
	}
	return fmt.Sprintf("%s %s, code %d, length %d", proto, name, b[1], length)
}

var icmp6Names = map[byte]string{1: "unreachable", 2: "packet too big", 3: "time exceeded", 4: "parameter problem", 128: "echo request", 129: "echo reply",
	130: "listener query", 131: "listener report", 132: "listener done", 133: "router solicitation", 134: "router advertisement", 135: "neighbour solicitation", 136: "neighbour advertisement", 137: "redirect", 143: "listener report v2"}

func icmp6(b []byte, length int) string {
	if len(b) >= 24 && (b[0] == 135 || b[0] == 136) {
		return fmt.Sprintf("ICMP6 %s, %s", icmp6Names[b[0]], netip.AddrFrom16([16]byte(b[8:24])))
	}
	return icmp(icmp6Names, "ICMP6", b, length)
}

// vrrp tells an advertisement (RFC 3768, RFC 9568), never its password.
func vrrp(six bool, b []byte) string {
	if len(b) < 8 || b[0]>>4 < 2 || b[0]>>4 > 3 {
		return "VRRP, cut short or of another version"
	}
	version, n := b[0]>>4, int(b[3])
	out := fmt.Sprintf("VRRPv%d vrid %d prio %d", version, b[1], b[2])
	if b[2] == 0 {
		out += " (resigns)"
	}
	if version == 2 {
		out += fmt.Sprintf(" intvl %ds", b[5])
		if b[4] != 0 {
			out += [...]string{"", " auth simple", " auth AH"}[min(b[4], 2)]
		}
	} else {
		out += fmt.Sprintf(" intvl %dcs", binary.BigEndian.Uint16(b[4:])&0xfff)
	}
	size := 4
	if six {
		size = 16
	}
	var addrs []string
	for b = b[8:]; n > 0 && len(b) >= size && len(addrs) < 4; n, b = n-1, b[size:] {
		a, _ := netip.AddrFromSlice(b[:size])
		addrs = append(addrs, a.String())
	}
	if len(addrs) > 0 {
		out += " addrs " + strings.Join(addrs, ",")
	}
	if n > 0 {
		out += fmt.Sprintf(" and %d more", n)
	}
	return out
}
