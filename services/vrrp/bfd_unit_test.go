package vrrp

import (
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ballast/configs/model"
	"ballast/services/vrrp/bfd"
	"ballast/services/vrrp/kernel"
)

// TestBFDOptions: which packets count as near, which port is spoken to, and who
// is told.
func TestBFDOptions(t *testing.T) {
	four, six := netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("fe80::2")
	for _, c := range []struct {
		name string
		cfg  model.BFD
		ttl  int
		near bool
		port uint16
	}{
		{"same link", model.BFD{Neighbor: four}, 255, true, 3784},
		{"one router away", model.BFD{Neighbor: four}, 254, false, 3784},
		{"one is allowed", model.BFD{Neighbor: four, MaxHops: 1}, 254, true, 3784},
		{"two are not", model.BFD{Neighbor: four, MaxHops: 1}, 253, false, 3784},
		{"not checked", model.BFD{Neighbor: four, MaxHops: -1, Multihop: true}, 3, true, 4784},
		{"255 is not checked", model.BFD{Neighbor: four, MaxHops: 255, Multihop: true}, 3, true, 4784},
		{"own TTL", model.BFD{Neighbor: four, TTL: 64}, 64, true, 3784},
		{"hop limit of keepalived", model.BFD{Neighbor: six}, 64, true, 3784},
		{"hop limit lost", model.BFD{Neighbor: six}, 63, false, 3784},
	} {
		n := bfdSession{cfg: c.cfg}
		if got := n.near(c.ttl); got != c.near || n.port() != c.port {
			t.Errorf("%s: near %v, port %d", c.name, got, n.port())
		}
	}
	d := bfdRoom{sessions: []*bfdSession{
		{cfg: model.BFD{Name: "v", VRRP: true}, known: true, st: bfd.Session{State: bfd.Up}},
		{cfg: model.BFD{Name: "c", Checker: true}, known: true, st: bfd.Session{State: bfd.Up}},
		{cfg: model.BFD{Name: "new", VRRP: true}, st: bfd.Session{State: bfd.Down}},
	}}
	for name, want := range map[string][2]bool{"v": {true, true}, "c": {}, "new": {}, "other": {}} {
		if up, known := d.up(name); up != want[0] || known != want[1] {
			t.Errorf("%s: up %v, known %v", name, up, known)
		}
	}
}

func datagram(from string) *kernel.Datagram {
	return &kernel.Datagram{Src: netip.MustParseAddrPort(from)}
}

// TestHeartbeatPort: what comes from another port, address or interface is not
// the peer's.
func TestHeartbeatPort(t *testing.T) {
	s, err := newService(newLogger(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	s.setHeartbeat(&model.Heartbeat{Key: []byte("0123456789abcdef"), Port: 1999, Interval: 20 * time.Millisecond, Multiplier: 4, Paths: []model.HeartbeatPath{{Peer: netip.MustParseAddr("127.0.0.1")}}})
	m := s.mate
	for from, want := range map[string]int{"127.0.0.1:1999": 0, "127.0.0.1:1912": -1, "127.0.0.2:1999": -1} {
		if got := m.pathOf(datagram(from)); got != want {
			t.Errorf("from %s: path %d, want %d", from, got, want)
		}
	}
	if d := m.peer.Detect(); d != 80*time.Millisecond {
		t.Errorf("detection time %v", d)
	}
	// Our own datagram comes back by the loopback: it went to that port.
	m.say()
	for _, u := range m.socks { // the kernel may deliver it a moment later
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(u.FD()), Events: unix.POLLIN}}, 30_000)
		for err == unix.EINTR {
			n, err = unix.Poll([]unix.PollFd{{Fd: int32(u.FD()), Events: unix.POLLIN}}, 30_000)
		}
		if n != 1 {
			t.Fatalf("it does not come back: %v", err)
		}
	}
	m.drain()
	if m.paths[0].sent != 1 || m.paths[0].rejected != 1 || m.peer.Up {
		t.Errorf("path %+v, up %v", m.paths[0], m.peer.Up)
	}
	before := s.mate
	raw := m.raw
	s.setHeartbeat(&raw)
	if s.mate != before {
		t.Error("the same configuration started it anew")
	}
	s.setHeartbeat(nil)
	if s.mate != nil || len(s.readers) != 0 {
		t.Error("it goes on without configuration")
	}
}
