package raw

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var (
	ap      = netip.MustParseAddrPort
	addr    = netip.MustParseAddr
	sameAP  = cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })
	v4a     = ap("192.0.2.1:61000")
	v4b     = ap("192.0.2.2:80")
	v6a     = ap("[fd00::1]:61000")
	v6b     = ap("[fd00::2]:80")
	cookies = []byte("cookie")
)

// good says whether the checksums of a packet are.
func good(t *testing.T, b []byte) {
	t.Helper()
	src, dst, proto, rest, ok := header(b)
	if !ok {
		t.Fatalf("no header in %x", b)
	}
	if src.Is4() && fold(sum(0, b[:ipv4Head])) != 0 {
		t.Errorf("header checksum of %x", b)
	}
	switch {
	case proto == ICMP && fold(sum(0, rest)) != 0,
		(proto == TCP || proto == UDP || proto == ICMPv6) && checksum(src, dst, proto, rest) != 0:
		t.Errorf("checksum of %x", b)
	}
}

func TestPackets(t *testing.T) {
	for _, c := range []struct {
		name string
		b    []byte
		want Packet
	}{
		{"syn", AppendTCP(nil, v4a, v4b, 7, 0, SYN), Packet{Proto: TCP, Src: v4a, Dst: v4b, Seq: 7, Flags: SYN}},
		{"rst", AppendTCP(nil, v4a, v4b, 8, 0, RST), Packet{Proto: TCP, Src: v4a, Dst: v4b, Seq: 8, Flags: RST}},
		{"syn6", AppendTCP(nil, v6a, v6b, 7, 9, SYN|ACK), Packet{Proto: TCP, Src: v6a, Dst: v6b, Seq: 7, Ack: 9, Flags: SYN | ACK}},
		{"udp", AppendUDP(nil, v4a, v4b, cookies), Packet{Proto: UDP, Src: v4a, Dst: v4b, Payload: cookies}},
		{"udp of odd length", AppendUDP(nil, v6a, v6b, cookies[:5]), Packet{Proto: UDP, Src: v6a, Dst: v6b, Payload: cookies[:5]}},
	} {
		good(t, c.b)
		p, ok := Parse(c.b)
		if d := cmp.Diff(c.want, p, sameAP); d != "" || !ok {
			t.Errorf("%s: %t %s", c.name, ok, d)
		}
	}
	// As tcpdump and the kernel have it: a SYN from 192.0.2.1:61000.
	if d := cmp.Diff("4500002c000040004006b6c8"+"c0000201c0000202ee480050000000070000000060"+"02faf0", hex.EncodeToString(AppendTCP(nil, v4a, v4b, 7, 0, SYN))[:72]); d != "" {
		t.Error(d)
	}
}

func TestEchoAndErrors(t *testing.T) {
	for _, c := range []struct{ src, dst netip.Addr }{{v4a.Addr(), v4b.Addr()}, {v6a.Addr(), v6b.Addr()}} {
		echo := AppendEcho(nil, c.src, c.dst, 5, 6, cookies)
		good(t, echo)
		if _, ok := Parse(echo); ok {
			t.Error("a request is taken for a reply")
		}
		_, _, proto, rest, _ := header(echo)
		reply := bytes.Clone(rest)
		reply[0] = icmpEchoReply
		code := byte(3)
		if proto == ICMPv6 {
			reply[0], code = icmp6EchoReply, 4
		}
		p, ok := ParseTransport(proto, c.dst, c.src, reply)
		if !ok || !p.Echo || p.ID != 5 || p.Num != 6 || !bytes.Equal(p.Payload, cookies) {
			t.Errorf("%t %+v", ok, p)
		}
		lost := []byte{icmpUnreachable, code, 0, 0, 0, 0, 0, 0}
		if proto == ICMPv6 {
			lost[0] = icmp6Unreachable
		}
		p, ok = ParseTransport(proto, c.dst, c.src, append(lost, echo...))
		if !ok || !p.Unreachable || p.About.Num != 6 || p.Why() != "connection refused" {
			t.Errorf("%t %+v %s", ok, p, p.Why())
		}
		syn := AppendTCP(nil, netip.AddrPortFrom(c.src, 61000), netip.AddrPortFrom(c.dst, 80), 77, 0, SYN)
		head := len(syn) - tcpHead - 4
		p, ok = ParseTransport(proto, c.dst, c.src, append(lost, syn[:head+8]...))
		if !ok || p.About.Seq != 77 || p.About.Dst.Port() != 80 || p.About.Src.Port() != 61000 {
			t.Errorf("%t %+v", ok, p.About)
		}
		if _, ok := ParseTransport(proto, c.dst, c.src, append(lost, syn[:head+7]...)); ok {
			t.Error("seven bytes of a quoted packet are too few")
		}
	}
}

func TestWrap(t *testing.T) {
	inner := AppendTCP(nil, v4a, ap("198.51.100.1:80"), 7, 0, SYN)
	inner6 := AppendTCP(nil, v6a, v6b, 7, 0, SYN)
	src, dst := addr("192.0.2.1"), addr("192.0.2.9")
	for _, c := range []struct {
		name  string
		inner []byte
		t     Tunnel
		proto byte
		head  string
	}{
		{"ipip", inner, Tunnel{}, IPIP, ""},
		{"ip6 in ip", inner6, Tunnel{Type: "ipip"}, IPv6, ""},
		{"gre", inner, Tunnel{Type: "gre"}, GRE, "00000800"},
		{"gre of ip6", inner6, Tunnel{Type: "gre"}, GRE, "000086dd"},
		{"gue", inner, Tunnel{Type: "gue", Port: 6080}, UDP, "ee4817c0003800000004" + "0000"},
	} {
		b, err := Wrap(c.inner, src, dst, c.t, 61000)
		if err != nil {
			t.Fatal(err)
		}
		_, to, proto, rest, ok := header(b)
		head, _ := hex.DecodeString(c.head)
		if !ok || to != dst || proto != c.proto || !bytes.Equal(rest, append(head, c.inner...)) {
			t.Errorf("%s: %x", c.name, b)
		}
	}
	b, _ := Wrap(inner, src, dst, Tunnel{Type: "gre", Csum: true}, 0)
	if fold(sum(0, b[ipv4Head:])) != 0 {
		t.Error("checksum of gre")
	}
	b, _ = Wrap(inner, src, dst, Tunnel{Type: "gue", Port: 6080, Csum: true}, 61000)
	good(t, b)
	if _, err := Wrap(inner, src, dst, Tunnel{Type: "vxlan"}, 0); err == nil {
		t.Error("an unknown tunnel")
	}
}

// FuzzParse: nothing that comes from the wire makes the reader fall or look
// beyond the packet.
func FuzzParse(f *testing.F) {
	f.Add(AppendTCP(nil, v4a, v4b, 7, 0, SYN))
	f.Add(AppendUDP(nil, v6a, v6b, cookies))
	f.Add(AppendEcho(nil, v4a.Addr(), v4b.Addr(), 1, 2, cookies))
	f.Add(append(appendIP(nil, v4a.Addr(), v4b.Addr(), ICMP, 40), append([]byte{3, 1, 0, 0, 0, 0, 0, 0}, AppendTCP(nil, v4b, v4a, 1, 2, SYN)...)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, ok := Parse(b)
		if !ok {
			return
		}
		if len(p.Payload) > len(b) || p.Why() == "" {
			t.Errorf("%+v", p)
		}
		if p.Unreachable && p.About.Proto == 0 {
			t.Errorf("an error about nothing: %+v", p)
		}
	})
}
