package packet

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"hash"
	"net/netip"
)

// ProtocolAH is the IP protocol of the authentication header (RFC 2402).
const ProtocolAH = 51

// AHLen is the length of the authentication header that auth_type AH puts
// between the IPv4 header and the advertisement.
const AHLen = 24

const icvLen = 12 // HMAC-MD5-96 (RFC 2403)

var zeros [16]byte // where a signature will be, while it is made

// Why an authentication header is none of ours.
var (
	ErrAH     = errors.New("vrrp: authentication header makes no sense")
	ErrAHSPI  = errors.New("vrrp: SPI of the authentication header is not the source address")
	ErrAHAuth = errors.New("vrrp: authentication header was made with another password")
)

// AH signs and checks IPv4 packets with the authentication header. It
// allocates nothing after NewAH, and is for one goroutine.
type AH struct {
	mac hash.Hash
	ip  [IPv4HeaderLen]byte
	sum [md5.Size]byte
}

// NewAH makes one for a password, of which 8 bytes count.
func NewAH(password []byte) *AH {
	var key [8]byte
	copy(key[:], password)
	return &AH{mac: hmac.New(md5.New, key[:])}
}

// AppendAH appends the header without its check value. The SPI is the source
// address of the packet, as keepalived has it.
func AppendAH(b []byte, src netip.Addr, seq uint32) []byte {
	b = append(b, Protocol, AHLen/4-2, 0, 0)
	b = AppendAddr(b, src)
	b = binary.BigEndian.AppendUint32(b, seq)
	return append(b, zeros[:icvLen]...)
}

// Sign fills in the check value of a whole packet: IPv4 header without options,
// authentication header, advertisement.
func (a *AH) Sign(b []byte, unicast bool) {
	copy(b[IPv4HeaderLen+12:], a.icv(b, unicast))
}

// Check returns the sequence number of a packet whose check value is right.
func (a *AH) Check(b []byte, unicast bool) (seq uint32, err error) {
	if len(b) < IPv4HeaderLen+AHLen || b[0] != 0x45 || b[9] != ProtocolAH {
		return 0, ErrAH
	}
	h := b[IPv4HeaderLen:]
	if h[0] != Protocol || h[1] != AHLen/4-2 {
		return 0, ErrAH
	}
	if [4]byte(h[4:]) != [4]byte(b[12:]) {
		return 0, ErrAHSPI
	}
	if subtle.ConstantTimeCompare(h[12:AHLen], a.icv(b, unicast)) != 1 {
		return 0, ErrAHAuth
	}
	return binary.BigEndian.Uint32(h[8:]), nil
}

// icv is computed with what routers may change set to zero (RFC 2402 section
// 3.3.3.1.1.1). keepalived leaves the TTL of multicast packets in: no router
// forwards them.
func (a *AH) icv(b []byte, unicast bool) []byte {
	copy(a.ip[:], b)
	a.ip[1], a.ip[6], a.ip[7], a.ip[10], a.ip[11] = 0, 0, 0, 0, 0
	if unicast {
		a.ip[8] = 0
	}
	a.mac.Reset()
	a.mac.Write(a.ip[:])
	a.mac.Write(b[IPv4HeaderLen : IPv4HeaderLen+12])
	a.mac.Write(zeros[:icvLen])
	a.mac.Write(b[IPv4HeaderLen+AHLen:])
	return a.mac.Sum(a.sum[:0])[:icvLen]
}
