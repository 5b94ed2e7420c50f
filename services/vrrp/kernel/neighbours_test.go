package kernel

import (
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ballast/services/vrrp/packet"
)

// An advertisement that a router could have passed on says nothing of this link.
func TestAnswerNeedsHopLimit255(t *testing.T) {
	inNamespace(t)
	n, err := OpenNeighbours(1, "lo", true)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	l, err := NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.Add(n.FD()); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	to := unix.SockaddrInet6{Addr: netip.IPv6Loopback().As16()}
	for _, c := range []struct {
		hops int
		addr string
		want bool
	}{{254, "fd00::1", false}, {64, "fd00::2", false}, {255, "fd00::3", true}} {
		b := append([]byte{packet.NeighbourAdvertisement, 0, 0, 0, 0x60, 0, 0, 0}, netip.MustParseAddr(c.addr).AsSlice()...)
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, c.hops); err != nil {
			t.Fatal(err)
		}
		if err := unix.Sendto(fd, b, 0, &to); err != nil {
			t.Fatal(err)
		}
		if ready, err := wait(l, time.Minute); err != nil || len(ready) != 1 {
			t.Fatalf("hop limit %d: nothing came: %v", c.hops, err)
		}
		if got := n.Answer(); got.IsValid() != c.want || c.want && got.String() != c.addr {
			t.Errorf("hop limit %d: answer %s", c.hops, got)
		}
	}
}
