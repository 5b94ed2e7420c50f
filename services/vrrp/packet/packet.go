// Package packet is the codec of what VRRP puts on the wire: advertisements of
// version 2 (RFC 3768 with the authentication of RFC 2338) and version 3
// (RFC 9568), their IPv4 header, gratuitous ARP and unsolicited neighbour
// advertisements, with every checksum. The bytes are those that keepalived sends.
//
// Nothing here allocates: encoders append to the caller's buffer, the decoder
// returns a value that refers to the caller's bytes.
package packet

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"time"
)

// Protocol is VRRP's IP protocol number.
const Protocol = 112

// Authentication types of version 2 (RFC 2338 section 5.3.6).
const (
	AuthNone = 0
	AuthPass = 1
	AuthAH   = 2
)

// TypeAdvertisement is the only packet type there is.
const TypeAdvertisement = 1

const (
	headerLen = 8
	authLen   = 8
	// MaxAddrs is how many addresses the count octet can tell of.
	MaxAddrs = 255
	// MaxAdvertInt is the longest interval that version 3 can tell of (12 bits of 10 ms).
	MaxAdvertInt = 4095 * 10 * time.Millisecond
)

// Why bytes are not an advertisement.
var (
	ErrLength   = errors.New("vrrp: packet too short for what it says it holds")
	ErrVersion  = errors.New("vrrp: version is neither 2 nor 3")
	ErrChecksum = errors.New("vrrp: bad checksum")
)

// Advert is one advertisement. Decode leaves Addrs pointing into its input.
type Advert struct {
	Version  uint8 // 2 or 3
	Type     uint8
	VRID     uint8
	Priority uint8 // 0: the master resigns
	IPv6     bool
	AuthType uint8 // version 2
	// AdvertInt is the sender's interval: whole seconds up to 255 s in
	// version 2, steps of 10 ms up to MaxAdvertInt in version 3.
	AdvertInt time.Duration
	Addrs     []byte  // the virtual addresses, 4 or 16 bytes each
	Auth      [8]byte // version 2: the password, padded with zeros
	Checksum  uint16  // as received; Append computes it
}

func (a *Advert) addrLen() int {
	if a.IPv6 {
		return 16
	}
	return 4
}

// Count is how many virtual addresses there are.
func (a *Advert) Count() int { return len(a.Addrs) / a.addrLen() }

// Addr is the i-th virtual address, 0 <= i < Count().
func (a *Advert) Addr(i int) netip.Addr {
	n := a.addrLen()
	v, _ := netip.AddrFromSlice(a.Addrs[i*n : i*n+n])
	return v
}

// AppendAddr appends an address in its 4 or 16 bytes.
func AppendAddr(b []byte, a netip.Addr) []byte {
	if a.Is4() {
		v := a.As4()
		return append(b, v[:]...)
	}
	v := a.As16()
	return append(b, v[:]...)
}

// Len is how many bytes Append appends.
func (a *Advert) Len() int {
	n := headerLen + len(a.Addrs)
	if a.Version == 2 {
		n += authLen
	}
	return n
}

// Append appends the advertisement, checksum included. src and dst enter the
// pseudo header: always for IPv6 (RFC 8200 section 8.1), and for version 3 over
// IPv4 unless noPseudo is set. keepalived and FRR do use it there; RFC 9568
// section 5.2.8 and several vendors do not.
func (a *Advert) Append(b []byte, src, dst netip.Addr, noPseudo bool) []byte {
	start := len(b)
	b = append(b, a.Version<<4|TypeAdvertisement, a.VRID, a.Priority, uint8(a.Count()))
	if a.Version == 2 {
		b = append(b, a.AuthType, uint8(a.AdvertInt/time.Second))
	} else {
		b = binary.BigEndian.AppendUint16(b, uint16(a.AdvertInt/(10*time.Millisecond))&0x0fff)
	}
	b = append(b, 0, 0)
	b = append(b, a.Addrs...)
	if a.Version == 2 {
		b = append(b, a.Auth[:]...) // always there, even without authentication (RFC 3768 section 5.3.10)
	}
	var sum uint32
	if a.IPv6 || a.Version == 3 && !noPseudo {
		sum = pseudo(src, dst, Protocol, len(b)-start)
	}
	binary.BigEndian.PutUint16(b[start+6:], fold(add(sum, b[start:])))
	return b
}

// Decode reads the payload of an IP packet. It checks lengths and the version,
// nothing else: checksum, type, authentication and interval are the receiver's
// to judge, in keepalived's order and with its counters. Bytes after the
// message are ignored, as keepalived does.
func Decode(b []byte, ipv6 bool) (Advert, error) {
	if len(b) < headerLen {
		return Advert{}, ErrLength
	}
	a := Advert{
		Version:  b[0] >> 4,
		Type:     b[0] & 0x0f,
		VRID:     b[1],
		Priority: b[2],
		IPv6:     ipv6,
		Checksum: binary.BigEndian.Uint16(b[6:]),
	}
	n := int(b[3]) * a.addrLen()
	rest := b[headerLen:]
	switch a.Version {
	case 2:
		if len(rest) < n+authLen {
			return a, ErrLength
		}
		a.AuthType = b[4]
		a.AdvertInt = time.Duration(b[5]) * time.Second
		copy(a.Auth[:], rest[n:])
	case 3:
		if len(rest) < n {
			return a, ErrLength
		}
		a.AdvertInt = time.Duration(binary.BigEndian.Uint16(b[4:])&0x0fff) * 10 * time.Millisecond
	default:
		return a, ErrVersion
	}
	a.Addrs = rest[:n:n]
	return a, nil
}

// Verify checks the checksum of the bytes that Decode read. With either set,
// version 3 over IPv4 passes with or without the pseudo header.
func (a *Advert) Verify(b []byte, src, dst netip.Addr, either bool) error {
	n := a.Len()
	if len(b) < n {
		return ErrLength
	}
	plain := add(0, b[:n])
	switch {
	case a.IPv6:
		// The kernel of the sender summed over all of the payload.
		if fold(add(pseudo(src, dst, Protocol, len(b)), b)) == 0 {
			return nil
		}
	case a.Version == 2:
		if fold(plain) == 0 {
			return nil
		}
	default:
		if fold(plain+pseudo(src, dst, Protocol, n)) == 0 || either && fold(plain) == 0 {
			return nil
		}
	}
	return ErrChecksum
}

// add adds b to a one's complement sum (RFC 1071).
func add(sum uint32, b []byte) uint32 {
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	return sum
}

// fold ends a sum: carries folded in, complemented.
func fold(sum uint32) uint16 {
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// pseudo is the sum of the pseudo header; that of IPv6 (RFC 8200 section 8.1)
// differs only in the length of its fields, which a sum does not see.
func pseudo(src, dst netip.Addr, proto, n int) uint32 {
	sum := uint32(proto) + uint32(n)
	for _, a := range [2]netip.Addr{src, dst} {
		if a.Is4() {
			v := a.As4()
			sum = add(sum, v[:])
		} else {
			v := a.As16()
			sum = add(sum, v[:])
		}
	}
	return sum
}
