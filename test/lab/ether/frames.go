package ether

import (
	"encoding/binary"
	"net/netip"
)

// Advert is what a tap can tell of a VRRP advertisement (RFC 5798 5.2, RFC 3768
// 5.3: both versions begin alike).
type Advert struct {
	Source   MAC
	From     netip.Addr
	Version  int
	VRID     uint8
	Priority uint8
}

// ParseAdvert finds a VRRP advertisement in an Ethernet frame, over IPv4 or
// IPv6, and reports whether there is one.
func ParseAdvert(frame []byte) (Advert, bool) {
	const vrrp = 112
	if len(frame) < 14 {
		return Advert{}, false
	}
	a := Advert{Source: MAC(frame[6:12])}
	kind, b := binary.BigEndian.Uint16(frame[12:]), frame[14:]
	switch kind {
	case 0x0800:
		if len(b) < 20 || b[0]>>4 != 4 || b[9] != vrrp {
			return Advert{}, false
		}
		n := int(b[0]&15) * 4
		if n < 20 || len(b) < n {
			return Advert{}, false
		}
		a.From = netip.AddrFrom4([4]byte(b[12:16]))
		b = b[n:]
	case 0x86dd:
		if len(b) < 40 || b[6] != vrrp {
			return Advert{}, false
		}
		a.From = netip.AddrFrom16([16]byte(b[8:24]))
		b = b[40:]
	default:
		return Advert{}, false
	}
	if len(b) < 8 || b[0]&15 != 1 {
		return Advert{}, false
	}
	a.Version, a.VRID, a.Priority = int(b[0]>>4), b[1], b[2]
	return a, true
}

// ARP is an ARP packet over Ethernet (RFC 826).
type ARP struct {
	Op                   uint16
	SenderMAC, TargetMAC MAC
	Sender, Target       netip.Addr
}

// Gratuitous tells whether a host announces its own address (RFC 5227, 3).
func (a ARP) Gratuitous() bool { return a.Sender == a.Target }

// ParseARP finds an ARP packet in an Ethernet frame.
func ParseARP(frame []byte) (ARP, bool) {
	if len(frame) < 14+28 || binary.BigEndian.Uint16(frame[12:]) != 0x0806 {
		return ARP{}, false
	}
	b := frame[14:]
	if binary.BigEndian.Uint64(append([]byte{0, 0}, b[0:6]...)) != 0x000108000604 {
		return ARP{}, false
	}
	return ARP{
		Op: binary.BigEndian.Uint16(b[6:]), SenderMAC: MAC(b[8:14]), Sender: netip.AddrFrom4([4]byte(b[14:18])),
		TargetMAC: MAC(b[18:24]), Target: netip.AddrFrom4([4]byte(b[24:28])),
	}, true
}
