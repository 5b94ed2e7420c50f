// Package filter compiles tcpdump's filter language (pcap-filter(7)) for the
// kernel: the part of it that is of use on a director. What it does not know it
// refuses; it never takes a part of an expression for the whole.
//
// It differs from tcpdump where that serves: "vrrp" is VRRP over IPv6 too, and a
// VLAN tag, which the kernel takes off most frames, hides nothing: "tcp" is TCP
// inside a VLAN as well, "vlan 5 and tcp" that in VLAN 5.
package filter

import (
	"fmt"

	"golang.org/x/net/bpf"
)

// Link is what frames begin with.
type Link int

// Links.
const (
	Ethernet Link = iota
	Cooked        // at the network header: a tunnel, or several kinds of links
)

// Snap is the longest piece of a packet that is ever taken.
const Snap = 256 << 10

// longest bounds an expression; the kernel takes 4096 instructions.
const (
	longest = 8 << 10
	most    = 4096
)

// Program is a compiled filter.
type Program struct {
	Instructions []bpf.Instruction
	Raw          []bpf.RawInstruction
}

// Compile compiles an expression, the empty one takes all. but are expressions of
// what is left out whatever it says. Of each packet snap bytes are kept.
func Compile(expr string, link Link, snap int, but ...string) (*Program, error) {
	e, err := parse(expr)
	if err != nil {
		return nil, err
	}
	for _, b := range but {
		x, err := parse(b)
		if err != nil {
			return nil, err
		}
		if x = negate(x); e == nil {
			e = x
		} else {
			e = &logic{and: true, a: e, b: x}
		}
	}
	if snap < 1 || snap > Snap {
		return nil, fmt.Errorf("filter: snap %d: want 1 to %d bytes", snap, Snap)
	}
	return assemble(e, link, uint32(snap))
}
