package packet

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"hash"
	"net/netip"
)

// TrailerLen is the length of what auth_hmac puts behind an advertisement.
const TrailerLen = 28

const (
	trailerType = 1 // HMAC-SHA256, its first 128 bits
	trailerHead = 12
	trailerMAC  = TrailerLen - trailerHead
	pseudoLen   = 20
)

// Why a trailer is none of ours.
var (
	ErrTrailer     = errors.New("vrrp: trailer makes no sense")
	ErrTrailerAuth = errors.New("vrrp: trailer was made with another key")
)

// Trailer is the part of an auth_hmac trailer that is not the signature.
type Trailer struct {
	Key uint8 // id
	// Seq grows with each packet of a sender: seconds since 1970 in the upper
	// half, then 16 bits of their fraction, then a counter.
	Seq uint64
}

// Trail returns the trailer behind the message that a was decoded from; ok is
// false where there is none. Its signature is not checked yet.
func (a *Advert) Trail(b []byte) (t Trailer, ok bool, err error) {
	n := a.Len()
	if len(b) < n+TrailerLen {
		return t, false, nil
	}
	b = b[n:]
	if b[0] != trailerType || b[2] != 0 || b[3] != 0 {
		return t, false, ErrTrailer
	}
	return Trailer{Key: b[1], Seq: binary.BigEndian.Uint64(b[4:])}, true, nil
}

// HMAC is one key of auth_hmac. It allocates nothing after NewHMAC, and is for
// one goroutine.
type HMAC struct {
	mac    hash.Hash
	pseudo [pseudoLen]byte
	sum    [sha256.Size]byte
}

// NewHMAC makes one of a key of 32 to 64 bytes.
func NewHMAC(key []byte) *HMAC { return &HMAC{mac: hmac.New(sha256.New, key)} }

// Append appends a signed trailer to an advertisement that Append has just put
// at b[start:]. Over IPv6 the checksum, which covers it, is made anew.
func (h *HMAC) Append(b []byte, start int, a *Advert, t Trailer, src, dst netip.Addr) []byte {
	b = append(b, trailerType, t.Key, 0, 0)
	b = binary.BigEndian.AppendUint64(b, t.Seq)
	b = append(b, h.sign(b[start:], a.IPv6, src)...)
	if a.IPv6 {
		m := b[start:]
		m[6], m[7] = 0, 0
		binary.BigEndian.PutUint16(m[6:], fold(add(pseudo(src, dst, Protocol, len(m)), m)))
	}
	return b
}

// Check checks the signature of the trailer that Trail found.
func (h *HMAC) Check(b []byte, a *Advert, src netip.Addr) error {
	n := a.Len() + trailerHead
	if len(b) < n+trailerMAC {
		return ErrTrailer
	}
	if subtle.ConstantTimeCompare(b[n:n+trailerMAC], h.sign(b[:n], a.IPv6, src)) != 1 {
		return ErrTrailerAuth
	}
	return nil
}

// sign is over a header of family, version, VRID and source, then the message
// with its checksum as zero, then the trailer with its signature as zero.
func (h *HMAC) sign(b []byte, ipv6 bool, src netip.Addr) []byte {
	h.pseudo = [pseudoLen]byte{4, b[0] >> 4, b[1]}
	if ipv6 {
		h.pseudo[0] = 6
		v := src.As16()
		copy(h.pseudo[4:], v[:])
	} else {
		v := src.As4()
		copy(h.pseudo[4:], v[:])
	}
	h.mac.Reset()
	h.mac.Write(h.pseudo[:])
	h.mac.Write(b[:6])
	h.mac.Write(zeros[:2])
	h.mac.Write(b[8:])
	h.mac.Write(zeros[:trailerMAC])
	return h.mac.Sum(h.sum[:0])[:trailerMAC]
}
