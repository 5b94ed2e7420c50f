package kernel

import (
	"net/netip"
	"testing"
	"time"

	"ballast/services/vrrp/packet"
)

// More packets than the ring has places come in their order, each with its own
// time of receipt, and the end is told once.
func TestRing(t *testing.T) {
	inNamespace(t)
	s, err := OpenUnicast(false, false)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	src, dst := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2")
	send := func(n int) {
		for i := range n {
			a := packet.Advert{Version: 3, VRID: uint8(i + 1), Priority: 100, AdvertInt: time.Second}
			b := packet.AppendIPv4(nil, packet.Protocol, 7, 255, src, dst, a.Len())
			if err := s.Send(a.Append(b, src, dst, false), src, dst, 255); err != nil {
				t.Fatal(err)
			}
		}
	}
	l, err := NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.Add(s.FD()); err != nil {
		t.Fatal(err)
	}
	g := NewRing()
	for _, n := range []int{0, 1, ringSize - 1, ringSize, 2*ringSize + 3, 1} {
		send(n)
		g.Anew()
		for i := range n {
			p, ok := s.Receive(g)
			if !ok { // it comes a moment later than it was sent
				if _, err := wait(l, time.Minute); err != nil {
					t.Fatal(err)
				}
				p, ok = s.Receive(g)
			}
			if !ok || len(p.Payload) < 2 || p.Payload[1] != uint8(i+1) || p.Src != src || p.Dst != dst || p.Age < 0 || p.Age > time.Minute {
				t.Fatalf("packet %d of %d: %+v, %v", i, n, p, ok)
			}
		}
		if p, ok := s.Receive(g); ok || g.Left() != 0 {
			t.Fatalf("after %d packets there is one more: %+v, %d left", n, p, g.Left())
		}
	}
	// Another socket's packets are not handed out as one's own.
	other, err := OpenUnicast(false, false)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	send(3)
	if p, ok := s.Receive(g); !ok || p.Payload[1] != 1 {
		t.Fatalf("received %+v, %v", p, ok)
	}
	if p, ok := other.Receive(g); !ok || p.Payload[1] != 1 {
		t.Fatalf("the other socket received %+v, %v", p, ok)
	}
}
