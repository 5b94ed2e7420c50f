package firewall

import (
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// routerAdvertisement is the ICMPv6 type of RFC 4861.
const routerAdvertisement = 134

// Match is one thing that a packet must be like. It is comparable; exprs says it
// in the kernel's terms.
type Match struct {
	kind     matchKind
	six      bool
	from, to uint16 // ports, types
	name     string // of an interface or a set
	second   string // of a set
	prefix   netip.Prefix
}

type matchKind uint8

const (
	byFamily matchKind = iota
	byProtocol
	byPort
	bySourcePort
	byType
	byInterface
	byInterfaceSet
	bySource
	bySourceSet
	byDestination
	byOpening
	byFragment
	bySocket
	byAnySocket
	byClient
	byNewClient
)

func family(six bool) Match        { return Match{kind: byFamily, six: six} }
func proto(p uint8) Match          { return Match{kind: byProtocol, from: uint16(p)} }
func port(from, to uint16) Match   { return Match{kind: byPort, from: from, to: to} }
func sourcePort(p uint16) Match    { return Match{kind: bySourcePort, from: p, to: p} }
func icmpType(from, to byte) Match { return Match{kind: byType, from: uint16(from), to: uint16(to)} }
func from(name string) Match       { return Match{kind: byInterface, name: name} }
func interfaceIn(set string) Match { return Match{kind: byInterfaceSet, name: set} }
func source(p netip.Prefix) Match  { return Match{kind: bySource, prefix: p, six: p.Addr().Is6()} }
func opensNothing() Match          { return Match{kind: byOpening} }
func laterFragment() Match         { return Match{kind: byFragment} }
func connected() Match             { return Match{kind: bySocket} }
func destination(a netip.Addr) Match {
	return Match{kind: byDestination, prefix: netip.PrefixFrom(a, a.BitLen()), six: a.Is6()}
}

// clientIn: the client's address and port are in a set. notedIn: they are not yet
// in the first one, and are put into both.
func clientIn(set string, six bool) Match { return Match{kind: byClient, name: set, six: six} }
func notedIn(first, second string, six bool) Match {
	return Match{kind: byNewClient, name: first, second: second, six: six}
}

func somebody() Match                     { return Match{kind: byAnySocket} }
func sourceIn(set string, six bool) Match { return Match{kind: bySourceSet, name: set, six: six} }

// Places in the headers of IPv4 and IPv6.
const (
	source4, source6           = 12, 8
	destination4, destination6 = 16, 24
)

func load(base expr.PayloadBase, offset, length uint32) *expr.Payload {
	return &expr.Payload{DestRegister: 1, Base: base, Offset: offset, Len: length}
}

func equal(b ...byte) *expr.Cmp { return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: b} }

func between(from, to []byte) []expr.Any {
	if string(from) == string(to) {
		return []expr.Any{equal(from...)}
	}
	return []expr.Any{&expr.Cmp{Op: expr.CmpOpGte, Register: 1, Data: from}, &expr.Cmp{Op: expr.CmpOpLte, Register: 1, Data: to}}
}

// familyOf says that a packet is of one family, before its header is looked at.
func familyOf(six bool) []expr.Any {
	f := byte(unix.NFPROTO_IPV4)
	if six {
		f = unix.NFPROTO_IPV6
	}
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, equal(f)}
}

func ifname(n string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, n)
	return b
}

// address matches the address at one of two offsets, in a packet whose family
// is known to be that of p.
func address(p netip.Prefix, at4, at6 uint32) []expr.Any {
	at, raw := at4, p.Addr().AsSlice()
	if p.Addr().Is6() {
		at = at6
	}
	if p.Bits() == 0 {
		return nil
	}
	out := []expr.Any{load(expr.PayloadBaseNetworkHeader, at, uint32(len(raw)))}
	if !p.IsSingleIP() {
		mask := make([]byte, len(raw))
		for i := range p.Bits() {
			mask[i/8] |= 0x80 >> (i % 8)
		}
		out = append(out, &expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: uint32(len(raw)), Mask: mask, Xor: make([]byte, len(raw))})
	}
	return append(out, equal(raw...))
}

// client loads the client's address and port as one key.
func client(six bool) []expr.Any {
	at, length, next := uint32(source4), uint32(4), uint32(unix.NFT_REG32_01)
	if six {
		at, length, next = source6, 16, unix.NFT_REG_2
	}
	return append(familyOf(six), load(expr.PayloadBaseNetworkHeader, at, length),
		&expr.Payload{DestRegister: next, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 2})
}

// exprs is the match in the kernel's terms.
func (m Match) exprs() []expr.Any {
	be := binaryutil.BigEndian.PutUint16
	switch m.kind {
	case byFamily:
		return familyOf(m.six)
	case byProtocol:
		return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, equal(byte(m.from))}
	case byPort:
		return append([]expr.Any{load(expr.PayloadBaseTransportHeader, 2, 2)}, between(be(m.from), be(m.to))...)
	case bySourcePort:
		return append([]expr.Any{load(expr.PayloadBaseTransportHeader, 0, 2)}, between(be(m.from), be(m.to))...)
	case byType:
		return append([]expr.Any{load(expr.PayloadBaseTransportHeader, 0, 1)}, between([]byte{byte(m.from)}, []byte{byte(m.to)})...)
	case byInterface:
		return []expr.Any{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1}, equal(ifname(m.name)...)}
	case byInterfaceSet:
		return []expr.Any{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1}, &expr.Lookup{SourceRegister: 1, SetName: m.name}}
	case bySource:
		return append(familyOf(m.six), address(m.prefix, source4, source6)...)
	case byDestination:
		return append(familyOf(m.six), address(m.prefix, destination4, destination6)...)
	case bySourceSet:
		at, length := uint32(source4), uint32(4)
		if m.six {
			at, length = source6, 16
		}
		return append(familyOf(m.six), load(expr.PayloadBaseNetworkHeader, at, length), &expr.Lookup{SourceRegister: 1, SetName: m.name})
	case byOpening:
		const syn, ack = 0x02, 0x10
		return []expr.Any{
			load(expr.PayloadBaseTransportHeader, 13, 1),
			&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{syn | ack}, Xor: []byte{0}},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte{syn}},
		}
	case byFragment:
		return append(familyOf(true),
			&expr.Exthdr{DestRegister: 1, Type: unix.IPPROTO_FRAGMENT, Offset: 2, Len: 2, Op: expr.ExthdrOpIpv6},
			&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 2, Mask: []byte{0xff, 0xf8}, Xor: []byte{0, 0}},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte{0, 0}})
	case byClient:
		return append(client(m.six), &expr.Lookup{SourceRegister: 1, SetName: m.name})
	case byNewClient:
		return append(client(m.six), &expr.Lookup{SourceRegister: 1, SetName: m.name, Invert: true},
			&expr.Dynset{SrcRegKey: 1, SetName: m.name}, &expr.Dynset{SrcRegKey: 1, SetName: m.second})
	case bySocket:
		// A socket that listens is bound to no address of its own, or has rules
		// of its own further up.
		return []expr.Any{&expr.Socket{Key: expr.SocketKeyWildcard, Register: 1}, equal(0)}
	}
	// Without a socket the rule ends here. Not "wildcard": that is asked of whole
	// sockets only, and this may be one of a handshake.
	return []expr.Any{&expr.Socket{Key: expr.SocketKeyTransparent, Register: 1}}
}

// exprs is the rule in the kernel's terms.
func (e Entry) exprs(n Count) []expr.Any {
	var out []expr.Any
	for _, m := range e.Match {
		out = append(out, m.exprs()...)
	}
	if e.Second > 0 {
		out = append(out, &expr.Limit{Type: expr.LimitTypePkts, Rate: uint64(e.Second), Unit: expr.LimitTimeSecond, Burst: uint32(e.Second)})
	}
	out = append(out, &expr.Counter{Packets: n.Packets, Bytes: n.Bytes})
	switch e.Does {
	case Accepts:
		return append(out, &expr.Verdict{Kind: expr.VerdictAccept})
	case Drops:
		return append(out, &expr.Verdict{Kind: expr.VerdictDrop})
	}
	return append(out, &expr.Log{Key: 1<<unix.NFTA_LOG_PREFIX | 1<<unix.NFTA_LOG_LEVEL, Level: expr.LogLevelNotice, Data: []byte("firewall: dropped ")})
}

// kernel is the set in the kernel's terms.
func (s Set) kernel(t *nftables.Table) (*nftables.Set, []nftables.SetElement) {
	n := &nftables.Set{Table: t, Name: s.Name, KeyType: nftables.TypeIFName, KeyByteOrder: binaryutil.NativeEndian} // the order is for who lists it
	var es []nftables.SetElement
	if s.Clients > 0 {
		n.KeyType, n.KeyByteOrder = nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService), nil
		if s.Six {
			n.KeyType = nftables.MustConcatSetType(nftables.TypeIP6Addr, nftables.TypeInetService)
		}
		n.Dynamic, n.HasTimeout, n.Timeout, n.Size = true, true, s.Clients, maxClients
	}
	for _, i := range s.Interfaces {
		es = append(es, nftables.SetElement{Key: ifname(i)})
	}
	for _, a := range s.Addrs {
		n.KeyType, n.KeyByteOrder = nftables.TypeIPAddr, nil
		if a.Is6() {
			n.KeyType = nftables.TypeIP6Addr
		}
		es = append(es, nftables.SetElement{Key: a.AsSlice()})
	}
	return n, es
}

// parseSet is the inverse of kernel.
func parseSet(n *nftables.Set, es []nftables.SetElement) (Set, bool) {
	s := Set{Name: n.Name}
	if n.HasTimeout {
		s.Clients, s.Six = n.Timeout, n.KeyType.Bytes > 8
		return s, !n.IsMap && !n.Anonymous // what rules put into it is no matter
	}
	for _, e := range es {
		switch a, is := netip.AddrFromSlice(e.Key); {
		case n.KeyType.GetNFTMagic() == nftables.TypeIFName.GetNFTMagic():
			s.Interfaces = append(s.Interfaces, unix.ByteSliceToString(e.Key))
		case is:
			s.Addrs = append(s.Addrs, a)
		default:
			return s, false
		}
	}
	return s, !n.Interval && !n.IsMap && !n.Anonymous
}
