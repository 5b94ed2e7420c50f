package filter

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"

	"golang.org/x/net/bpf"
)

// node is a test: its code goes to yes or to no.
type node interface {
	code(a *assembler, yes, no *label)
}

// logic is two tests.
type logic struct {
	and  bool
	a, b node
}

func (l *logic) code(a *assembler, yes, no *label) {
	second := &label{}
	if l.and {
		l.a.code(a, second, no)
	} else {
		l.a.code(a, yes, second)
	}
	a.mark(second)
	l.b.code(a, yes, no)
}

type inverse struct{ n node }

func (i *inverse) code(a *assembler, yes, no *label) { i.n.code(a, no, yes) }

func negate(n node) node { return &inverse{n} }

func all(ns ...node) node  { return join(true, ns) }
func some(ns ...node) node { return join(false, ns) }

func join(and bool, ns []node) node {
	n := ns[0]
	for _, m := range ns[1:] {
		n = &logic{and: and, a: n, b: m}
	}
	return n
}

// value is a number of a packet.
type value interface {
	// load puts it into the accumulator; a packet that has none is not taken
	// (no).
	load(a *assembler, no *label)
}

type operation struct {
	op string
	n  uint32
}

// compare is a number of a packet, what is done to it, and what it must be.
type compare struct {
	value value
	ops   []operation
	op    string
	n     uint32
}

var alu = map[string]bpf.ALUOp{"&": bpf.ALUOpAnd, "|": bpf.ALUOpOr, "+": bpf.ALUOpAdd, "-": bpf.ALUOpSub, "*": bpf.ALUOpMul, "<<": bpf.ALUOpShiftLeft, ">>": bpf.ALUOpShiftRight}

var tests = map[string]bpf.JumpTest{"=": bpf.JumpEqual, "==": bpf.JumpEqual, "!=": bpf.JumpNotEqual, "<": bpf.JumpLessThan, ">": bpf.JumpGreaterThan,
	"<=": bpf.JumpLessOrEqual, ">=": bpf.JumpGreaterOrEqual}

func (c *compare) code(a *assembler, yes, no *label) {
	c.value.load(a, no)
	for _, o := range c.ops {
		a.emit(bpf.ALUOpConstant{Op: alu[o.op], Val: o.n})
	}
	a.jump(tests[c.op], c.n, yes, no)
}

type length struct{}

func (length) load(a *assembler, _ *label) { a.emit(bpf.LoadExtension{Num: bpf.ExtLen}) }

// field is bytes from the network header on, or from the link's.
type field struct {
	off  uint32
	size int
	link bool
}

func (f field) load(a *assembler, _ *label) {
	switch {
	case f.link || a.link == Cooked:
		a.emit(bpf.LoadAbsolute{Off: f.off, Size: f.size})
	default:
		a.emit(bpf.LoadScratch{Dst: bpf.RegX, N: networkAt})
		a.emit(bpf.LoadIndirect{Off: f.off, Size: f.size})
	}
}

// transport is bytes behind the header of IPv4, whose length varies.
type transport struct {
	off  uint32
	size int
}

func (t transport) load(a *assembler, _ *label) {
	if a.link == Cooked {
		a.emit(bpf.LoadMemShift{Off: 0})
	} else {
		a.emit(bpf.LoadScratch{Dst: bpf.RegX, N: networkAt})
		a.emit(bpf.LoadIndirect{Off: 0, Size: 1})
		a.emit(bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 15})
		a.emit(bpf.ALUOpConstant{Op: bpf.ALUOpShiftLeft, Val: 2})
		a.emit(bpf.ALUOpX{Op: bpf.ALUOpAdd})
		a.emit(bpf.TAX{})
	}
	a.emit(bpf.LoadIndirect{Off: t.off, Size: t.size})
}

// etherType is the protocol behind a VLAN tag, if there is one.
type etherType struct{}

func (etherType) load(a *assembler, _ *label) {
	if a.link == Cooked {
		a.emit(bpf.LoadExtension{Num: bpf.ExtProto})
		return
	}
	a.emit(bpf.LoadScratch{Dst: bpf.RegA, N: typeAt})
}

const (
	typeIP   = 0x0800
	typeARP  = 0x0806
	typeRARP = 0x8035
	typeIP6  = 0x86dd
	typeVLAN = 0x8100
	typeQinQ = 0x88a8
)

var etherTypes = map[string]uint32{"ip": typeIP, "ip6": typeIP6, "arp": typeARP, "rarp": typeRARP}

func is(v value, n uint32) node { return &compare{value: v, op: "=", n: n} }

func ether(t uint32) node { return is(etherType{}, t) }

// guarded is a value of packets that pass a test only.
type guarded struct {
	test node
	value
}

func (g guarded) load(a *assembler, no *label) {
	in := &label{}
	g.test.code(a, in, no)
	a.mark(in)
	g.value.load(a, no)
}

// first is the first fragment of IPv4, or a whole packet.
func first() node {
	return &compare{value: field{off: 6, size: 2}, ops: []operation{{"&", 0x1fff}}, op: "=", n: 0}
}

// ipProto and ip6Proto are packets of a protocol, fragments included.
func ipProto(n uint32) node { return all(ether(typeIP), is(field{off: 9, size: 1}, n)) }

func ip6Proto(n uint32) node {
	return all(ether(typeIP6), some(is(field{off: 6, size: 1}, n), all(is(field{off: 6, size: 1}, 44), is(field{off: 40, size: 1}, n))))
}

var protoNumbers = map[string]uint32{"icmp": 1, "igmp": 2, "tcp": 6, "udp": 17, "gre": 47, "esp": 50, "ah": 51, "icmp6": 58, "pim": 103, "vrrp": 112, "sctp": 132}

// protocol is a protocol that stands alone.
func protocol(name string) (node, error) {
	if t, ok := etherTypes[name]; ok {
		return ether(t), nil
	}
	switch name {
	case "ether":
		return nil, fmt.Errorf("filter: \"ether\" stands before host, src, dst, proto, broadcast or multicast")
	case "icmp", "igmp":
		return ipProto(protoNumbers[name]), nil
	case "icmp6":
		return ip6Proto(58), nil
	}
	n := protoNumbers[name]
	return some(ipProto(n), ip6Proto(n)), nil
}

// protoNode is [ether|ip|ip6] proto NUMBER.
func protoNode(q qualifier, s string, fail func(string, ...any) (node, error)) (node, error) {
	if q.proto == "ether" {
		if n, ok := etherTypes[s]; ok {
			return ether(n), nil
		}
		n, err := strconv.ParseUint(s, 0, 16)
		switch {
		case err != nil || n < 0x600:
			return fail("want a type such as 0x88cc, or ip, ip6, arp")
		case n == typeVLAN || n == typeQinQ:
			return fail("write vlan")
		}
		return ether(uint32(n)), nil
	}
	num, ok := protoNumbers[s]
	if !ok {
		n, err := strconv.ParseUint(s, 0, 8)
		if err != nil {
			return fail("want a protocol of IP: a number, or tcp, udp, icmp, vrrp, …")
		}
		num = uint32(n)
	}
	switch q.proto {
	case "ip":
		return ipProto(num), nil
	case "ip6":
		return ip6Proto(num), nil
	case "":
		return some(ipProto(num), ip6Proto(num)), nil
	}
	return fail("want proto, ip proto, ip6 proto or ether proto")
}

// sides makes a test of source and destination.
func sides(dir string, f func(src bool) node) node {
	switch dir {
	case "src":
		return f(true)
	case "dst":
		return f(false)
	case "src and dst":
		return all(f(true), f(false))
	}
	return some(f(true), f(false))
}

func etherHost(mac [6]byte, src bool) node {
	off := uint32(0)
	if src {
		off = 6
	}
	return &linked{all(is(field{off: off + 2, size: 4, link: true}, binary.BigEndian.Uint32(mac[2:])),
		is(field{off: off, size: 2, link: true}, uint32(binary.BigEndian.Uint16(mac[:]))))}
}

// linked is a test of a header of Ethernet.
type linked struct{ n node }

func (l *linked) code(a *assembler, yes, no *label) {
	if a.link != Ethernet && a.err == nil {
		a.err = fmt.Errorf("filter: MAC addresses cannot be told here: there is no Ethernet header; name one interface")
	}
	l.n.code(a, yes, no)
}

func cast(proto, kind string) node {
	switch {
	case proto == "ip":
		return all(ether(typeIP), &compare{value: field{off: 16, size: 1}, op: ">=", n: 224})
	case proto == "ip6":
		return all(ether(typeIP6), is(field{off: 24, size: 1}, 255))
	case kind == "broadcast":
		return etherHost([6]byte{255, 255, 255, 255, 255, 255}, false)
	}
	return &linked{&compare{value: field{size: 1, link: true}, ops: []operation{{"&", 1}}, op: "!=", n: 0}}
}

// hostNet is a host or a net of IP, and of IPv4 in ARP too.
func hostNet(q qualifier, p netip.Prefix, fail func(string, ...any) (node, error)) (node, error) {
	// at is the address at an offset of the network header.
	at := func(off uint32) node {
		b := p.Addr().AsSlice()
		var ns []node
		bits := p.Bits()
		for i := 0; i < len(b) && bits > 0; i += 4 {
			n := binary.BigEndian.Uint32(b[i:])
			c := &compare{value: field{off: off + uint32(i), size: 4}, op: "=", n: n}
			if bits < 32 {
				c.ops = []operation{{"&", ^uint32(0) << (32 - bits)}}
			}
			ns = append(ns, c)
			bits -= 32
		}
		if ns == nil {
			return &compare{value: length{}, op: ">=", n: 0} // 0/0: all of them
		}
		return all(ns...)
	}
	pick := func(t, src, dst uint32) node {
		return all(ether(t), sides(q.dir, func(s bool) node {
			if s {
				return at(src)
			}
			return at(dst)
		}))
	}
	if p.Addr().Is6() {
		switch q.proto {
		case "", "ip6":
			return pick(typeIP6, 8, 24), nil
		case "tcp", "udp", "sctp", "icmp6":
			n, err := protocol(q.proto)
			return all(n, pick(typeIP6, 8, 24)), err
		}
		return fail("%s has no IPv6 addresses", q.proto)
	}
	ip, arp, rarp := pick(typeIP, 12, 16), pick(typeARP, 14, 24), pick(typeRARP, 14, 24)
	switch q.proto {
	case "":
		return some(ip, arp, rarp), nil
	case "ip":
		return ip, nil
	case "arp":
		return arp, nil
	case "rarp":
		return rarp, nil
	case "tcp", "udp", "sctp", "icmp", "igmp":
		return all(ipProto(protoNumbers[q.proto]), ip), nil
	}
	return fail("%s has no IPv4 addresses", q.proto)
}

// portNode is a port, or several, of TCP, UDP and SCTP.
func portNode(q qualifier, lo, hi uint32) node {
	in := func(v value) node {
		if lo == hi {
			return is(v, lo)
		}
		return all(&compare{value: v, op: ">=", n: lo}, &compare{value: v, op: "<=", n: hi})
	}
	protos := func(off uint32) node {
		if n, ok := protoNumbers[q.proto]; ok {
			return is(field{off: off, size: 1}, n)
		}
		return some(is(field{off: off, size: 1}, 6), is(field{off: off, size: 1}, 17), is(field{off: off, size: 1}, 132))
	}
	side := func(f func(off uint32) value) node {
		return sides(q.dir, func(src bool) node {
			if src {
				return in(f(0))
			}
			return in(f(2))
		})
	}
	v4 := all(ether(typeIP), protos(9), first(), side(func(off uint32) value { return transport{off, 2} }))
	v6 := all(ether(typeIP6), protos(6), side(func(off uint32) value { return field{off: 40 + off, size: 2} }))
	switch q.proto {
	case "ip":
		return v4
	case "ip6":
		return v6
	}
	return some(v4, v6)
}

// header is bytes of a protocol's header, as in "tcp[13]".
func header(proto string, off uint32, size int) (value, error) {
	if t, ok := etherTypes[proto]; ok {
		return guarded{ether(t), field{off: off, size: size}}, nil
	}
	switch proto {
	case "ether":
		return linkValue{field{off: off, size: size, link: true}}, nil
	case "icmp6":
		return guarded{all(ether(typeIP6), is(field{off: 6, size: 1}, 58)), field{off: 40 + off, size: size}}, nil
	}
	return guarded{all(ipProto(protoNumbers[proto]), first()), transport{off, size}}, nil
}

// linkValue is a number of a header of Ethernet.
type linkValue struct{ field }

func (l linkValue) load(a *assembler, no *label) {
	if a.link != Ethernet && a.err == nil {
		a.err = fmt.Errorf("filter: there is no Ethernet header here; name one interface")
	}
	l.field.load(a, no)
}

// vlan is a tag, which the kernel has taken off most frames.
type vlan struct {
	any bool
	id  uint32
}

func (v *vlan) code(a *assembler, yes, no *label) {
	frame, off, inFrame := &label{}, &label{}, &label{}
	a.emit(bpf.LoadExtension{Num: bpf.ExtVLANTagPresent})
	a.jump(bpf.JumpEqual, 0, frame, off)
	a.mark(off)
	if v.any {
		a.jump(bpf.JumpGreaterOrEqual, 0, yes, yes)
	} else {
		a.emit(bpf.LoadExtension{Num: bpf.ExtVLANTag})
		a.emit(bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0xfff})
		a.jump(bpf.JumpEqual, v.id, yes, no)
	}
	a.mark(frame)
	if a.link == Cooked {
		a.jump(bpf.JumpGreaterOrEqual, 0, no, no)
		return
	}
	second := &label{}
	a.emit(bpf.LoadAbsolute{Off: 12, Size: 2})
	a.jump(bpf.JumpEqual, typeVLAN, inFrame, second)
	a.mark(second)
	a.jump(bpf.JumpEqual, typeQinQ, inFrame, no)
	a.mark(inFrame)
	if v.any {
		a.jump(bpf.JumpGreaterOrEqual, 0, yes, yes)
		return
	}
	a.emit(bpf.LoadAbsolute{Off: 14, Size: 2})
	a.emit(bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0xfff})
	a.jump(bpf.JumpEqual, v.id, yes, no)
}

// direction is whether this box sent the packet.
type direction struct{ out bool }

func (d *direction) code(a *assembler, yes, no *label) {
	if !d.out {
		yes, no = no, yes
	}
	a.emit(bpf.LoadExtension{Num: bpf.ExtType})
	a.jump(bpf.JumpEqual, 4, yes, no) // PACKET_OUTGOING
}
