package health

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ballast/configs/model"
	"ballast/services/health/datagram"
	"ballast/services/health/raw"
)

// TestThroughVIPOtherLink: bind_if leads the probe of the server's own address
// over another link than the one that IPVS takes, on which the kernel does not
// know the server yet: it is made to ask for it. When nobody answers there, the
// clients of IPVS would have none either.
func TestThroughVIPOtherLink(t *testing.T) {
	p := newPair(t, false)
	p.listen(t, ":80")
	p.serverHolds(t, "10.66.0.10/32")
	must(t, "ip", "link", "add", "eth1", "type", "veth", "peer", "name", "moved")
	must(t, "ip", "link", "set", "moved", "netns", p.name)
	p.ip(t, "link", "set", "moved", "name", "eth1", "up")
	p.ip(t, "addr", "add", "10.67.0.2/24", "dev", "eth1")
	// The server answers for its address on the new link too.
	p.sysctl(t, "ipv4/conf/all/arp_ignore", "0")
	must(t, "ip", "addr", "add", "10.67.0.1/24", "dev", "eth1")
	must(t, "ip", "link", "set", "eth1", "up")
	must(t, "ip", "route", "add", "10.66.0.0/24", "dev", "eth1", "metric", "1000")

	tcp := testCheck(model.TCPCheck, netip.MustParseAddrPort("10.66.0.2:80"))
	tcp.BindInterface = "eth1"
	cfg := vipConfig(model.ServiceID{Addr: netip.MustParseAddr("10.66.0.10"), Port: 80, Protocol: model.TCP}, model.DR, model.Tunnel{}, "10.66.0.2", tcp)
	must(t, "ip", "neigh", "flush", "all")
	wantVerdict(t, "not yet known", probeVIP(t, cfg), true, "connected, SYN answered")

	p.ip(t, "link", "set", "eth0", "arp", "off")
	must(t, "ip", "neigh", "flush", "all")
	cfg.VirtualServers[0].Real[0].Checks[0].ConnectTimeout = brief(tcp).ConnectTimeout
	wantVerdict(t, "no answer on the link", probeVIP(t, cfg), false, "well at its own address (connected), but as [10.66.0.10]:tcp:80: neighbour 10.66.0.2: link-layer address not known")
}

// TestAnswerBeforeError: the kernel tells an ICMP error about a socket before
// the datagrams that wait in it. A reply that came is a reply.
func TestAnswerBeforeError(t *testing.T) {
	server, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	to := server.LocalAddr().(*net.UDPAddr).AddrPort()
	icmp, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(icmp)
	for _, replies := range []bool{true, false} {
		spec := testCheck(model.UDPCheck, to)
		spec.Payload, spec.RequireReply, spec.MaxReply = []byte("hello"), true, 100
		w := newWorld()
		l, err := newLoop(w, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer l.close()
		applyIn(l, configOf(spec), time.Now())
		c := w.checks[keyOf(&spec)]
		l.timers.remove(c)
		l.begin(c, time.Now())
		b := make([]byte, 64)
		server.SetReadDeadline(time.Now().Add(time.Minute))
		_, from, err := server.ReadFromUDPAddrPort(b)
		if err != nil {
			t.Fatal(err)
		}
		if replies {
			server.WriteToUDPAddrPort([]byte("well"), from)
		}
		lost := unreachable(from, to, []byte("hello"))[20:]
		if err := unix.Sendto(icmp, lost, 0, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(time.Minute); w.probes == 0 && time.Now().Before(end); {
			if err := l.turn(time.Second); err != nil {
				t.Fatal(err)
			}
		}
		if replies {
			wantVerdict(t, "reply, then an error", c, true, "reply of 4 bytes")
		} else {
			wantVerdict(t, "an error alone", c, false, "connection refused")
		}
	}
}

// TestStrayError: an ICMP error about another datagram between the same ports
// is not about this one.
func TestStrayError(t *testing.T) {
	l, err := newLoop(newWorld(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	spec := testCheck(model.UDPCheck, netip.MustParseAddrPort("192.0.2.2:53"))
	applyIn(l, configOf(spec), time.Now())
	c := l.w.checks[keyOf(&spec)]
	if err := l.openFlights(raw.Wire, false); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	c.edge.asked = datagram.UDP(&spec)
	f := &flight{proto: raw.UDP, remote: netip.AddrPortFrom(spec.Addr, spec.Port), src: netip.MustParseAddr("192.0.2.1"), wire: true}
	l.launch(c, f, c.edge.asked.Payload(), now)
	from := netip.AddrPortFrom(f.src, f.port)
	other, ok := raw.Parse(unreachable(from, f.remote, []byte("another datagram of the same ports")))
	mine, ok2 := raw.Parse(unreachable(from, f.remote, c.edge.asked.Payload()))
	if !ok || !ok2 {
		t.Fatal("not parsed")
	}
	if l.arrived(&other, now); c.edge.phase != flying {
		t.Fatalf("a stray error has ended the probe: %q", c.detail)
	}
	if l.arrived(&mine, now); c.edge.phase != idle || c.m.up {
		t.Fatalf("phase %d, up %t, %q", c.edge.phase, c.m.up, c.detail)
	}
}

// unreachable is dst's ICMP error, port unreachable, about a datagram.
func unreachable(src, dst netip.AddrPort, payload []byte) []byte {
	about := raw.AppendUDP(nil, src, dst, payload)[:28] // as much as it must quote
	b := raw.AppendEcho(nil, dst.Addr(), src.Addr(), 0, 0, about)
	// Another type and code, and the checksum moved by that much (RFC 1624).
	sum := uint32(^binary.BigEndian.Uint16(b[22:])) + uint32(^binary.BigEndian.Uint16(b[20:])) + 0x0303
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	b[20], b[21] = 3, 3
	binary.BigEndian.PutUint16(b[22:], ^uint16(sum))
	return b
}
