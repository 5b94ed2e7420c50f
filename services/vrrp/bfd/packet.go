// Package bfd is Bidirectional Forwarding Detection (RFC 5880) over one hop
// (RFC 5881) and several (RFC 5883), in asynchronous mode: a codec, and one
// session as a pure state machine. Sockets and clocks are the caller's.
package bfd

import (
	"encoding/binary"
	"errors"
	"time"
)

// State of a session (RFC 5880 section 4.1).
type State uint8

// States, with the values of the wire.
const (
	AdminDown State = iota
	Down
	Init
	Up
)

func (s State) String() string { return [...]string{"AdminDown", "Down", "Init", "Up"}[s&3] }

// Diag is why a session went down last (RFC 5880 section 4.1).
type Diag uint8

// Diagnostics that this implementation gives.
const (
	NoDiag           Diag = 0
	TimeExpired      Diag = 1
	NeighborSaidDown Diag = 3
	AdminDiag        Diag = 7
)

func (d Diag) String() string {
	list := [...]string{
		"", "control detection time expired", "echo function failed", "neighbour signalled session down",
		"forwarding plane reset", "path down", "concatenated path down", "administratively down", "reverse concatenated path down",
	}
	if int(d) < len(list) {
		return list[d]
	}
	return "unknown"
}

// Packet is a control packet (RFC 5880 section 4.1).
type Packet struct {
	Diag             Diag
	State            State
	Poll, Final      bool
	Demand           bool
	Auth             bool
	Multiplier       uint8
	Mine, Yours      uint32 // discriminators
	MinTx, MinRx     time.Duration
	MinEchoRx        time.Duration
	Multipoint       bool
	ControlPlaneIndp bool
}

// Len is the length of a packet without authentication.
const Len = 24

// ErrPacket is a packet that RFC 5880 section 6.8.6 has dropped before its
// session is looked for.
var ErrPacket = errors.New("is no valid BFD control packet")

// Append appends the packet as it goes over the wire.
func (p *Packet) Append(b []byte) []byte {
	flags := uint8(p.State) << 6
	for bit, set := range [...]bool{p.Multipoint, p.Demand, p.Auth, p.ControlPlaneIndp, p.Final, p.Poll} {
		if set {
			flags |= 1 << bit
		}
	}
	b = append(b, 1<<5|uint8(p.Diag)&31, flags, p.Multiplier, Len)
	b = binary.BigEndian.AppendUint32(b, p.Mine)
	b = binary.BigEndian.AppendUint32(b, p.Yours)
	b = binary.BigEndian.AppendUint32(b, micro(p.MinTx))
	b = binary.BigEndian.AppendUint32(b, micro(p.MinRx))
	return binary.BigEndian.AppendUint32(b, micro(p.MinEchoRx))
}

func micro(d time.Duration) uint32 { return uint32(min(d/time.Microsecond, 1<<32-1)) }

// Decode reads a packet and does the checks of RFC 5880 section 6.8.6 that
// need no session. Authentication is not spoken: a packet that has it is
// dropped, as one for a session without it must be.
func Decode(b []byte) (p Packet, err error) {
	if len(b) < Len || b[0]>>5 != 1 || int(b[3]) < Len || int(b[3]) > len(b) {
		return p, ErrPacket
	}
	interval := func(i int) time.Duration {
		return time.Duration(binary.BigEndian.Uint32(b[i:])) * time.Microsecond
	}
	p = Packet{
		Diag: Diag(b[0] & 31), State: State(b[1] >> 6), Poll: b[1]&0x20 != 0, Final: b[1]&0x10 != 0,
		ControlPlaneIndp: b[1]&8 != 0, Auth: b[1]&4 != 0, Demand: b[1]&2 != 0, Multipoint: b[1]&1 != 0,
		Multiplier: b[2], Mine: binary.BigEndian.Uint32(b[4:]), Yours: binary.BigEndian.Uint32(b[8:]),
		MinTx: interval(12), MinRx: interval(16), MinEchoRx: interval(20),
	}
	switch {
	case p.Multiplier == 0, p.Multipoint, p.Mine == 0, p.Auth:
		return p, ErrPacket
	case p.Yours == 0 && p.State != Down && p.State != AdminDown:
		return p, ErrPacket
	}
	return p, nil
}
