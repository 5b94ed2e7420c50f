package health

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netns"

	"ballast/configs/model"
)

// pair is a director and a real server on one link, each in a namespace of its
// own: 10.66.0.1 and fd66::1, 10.66.0.2 and fd66::2.
type pair struct {
	director, server netns.NsHandle
	name             string // of the server's namespace
}

func must(t testing.TB, args ...string) {
	t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %s", strings.Join(args, " "), out)
	}
}

// newPair puts the test's own thread into the director. v6 waits until IPv6
// works, which follows a link that has come up within a second or so.
func newPair(t testing.TB, v6 bool) *pair {
	t.Helper()
	d, s := fmt.Sprintf("bh%dd", os.Getpid()), fmt.Sprintf("bh%ds", os.Getpid())
	for _, n := range []string{d, s} {
		must(t, "ip", "netns", "add", n)
		t.Cleanup(func() { exec.Command("ip", "netns", "del", n).Run() })
		must(t, "ip", "-n", n, "link", "set", "lo", "up")
	}
	must(t, "ip", "-n", d, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", s)
	for i, n := range []string{d, s} {
		must(t, "ip", "-n", n, "addr", "add", fmt.Sprintf("10.66.0.%d/24", i+1), "dev", "eth0")
		must(t, "ip", "-n", n, "addr", "add", fmt.Sprintf("fd66::%d/64", i+1), "dev", "eth0", "nodad")
		must(t, "ip", "-n", n, "link", "set", "eth0", "up")
	}
	p := &pair{name: s}
	for name, h := range map[string]*netns.NsHandle{d: &p.director, s: &p.server} {
		got, err := netns.GetFromName(name)
		if err != nil {
			t.Fatal(err)
		}
		*h = got
		t.Cleanup(func() { h.Close() })
	}
	runtime.LockOSThread()
	before, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := netns.Set(before); err != nil {
			t.Error(err)
			return // and never unlock: the thread dies with its namespace
		}
		before.Close()
		runtime.UnlockOSThread()
	})
	if err := netns.Set(p.director); err != nil {
		t.Fatal(err)
	}
	to := "10.66.0.2"
	if v6 {
		to = "fd66::2"
	}
	hello := testCheck(model.PingCheck, netip.AddrPortFrom(netip.MustParseAddr(to), 0))
	hello.ConnectTimeout = 200 * time.Millisecond // and again
	for end := time.Now().Add(time.Minute); !probeAll(t, nil, hello)[0].m.up; {
		if time.Now().After(end) {
			t.Fatal("nothing comes to " + to)
		}
	}
	return p
}

// inServer does something on a thread of the real server.
func (p *pair) inServer(t testing.TB, fn func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and dies with it
		if err := netns.Set(p.server); err != nil {
			done <- err
			return
		}
		done <- fn()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func (p *pair) ip(t testing.TB, args ...string) {
	t.Helper()
	p.inServer(t, func() error {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %v: %s", args, out)
		}
		return nil
	})
}

// listen opens a TCP port in the server that nobody accepts from.
func (p *pair) listen(t testing.TB, addr string) (l *net.TCPListener) {
	t.Helper()
	p.inServer(t, func() error {
		x, err := net.Listen("tcp", addr)
		if err != nil {
			return err
		}
		l = x.(*net.TCPListener)
		return nil
	})
	t.Cleanup(func() { l.Close() })
	return l
}

func accepted(l *net.TCPListener) bool {
	l.SetDeadline(time.Now().Add(50 * time.Millisecond))
	c, err := l.Accept()
	if err != nil {
		return false
	}
	c.Close()
	return true
}

func wantVerdict(t testing.TB, name string, g *check, ok bool, reason string) {
	t.Helper()
	if g.m.up != ok || !g.m.known || !strings.HasPrefix(g.detail, reason) {
		t.Errorf("%s: up %t known %t, %q; want up %t, %q", name, g.m.up, g.m.known, g.detail, ok, reason)
	}
}

// TestHalfOpen: a SYN that is answered is all it takes; the server's program
// never hears of it.
func TestHalfOpen(t *testing.T) {
	p := newPair(t, true)
	l4, l6 := p.listen(t, "10.66.0.2:80"), p.listen(t, "[fd66::2]:80")
	p.ip(t, "route", "add", "blackhole", "10.66.7.0/24")
	must(t, "ip", "route", "add", "10.66.7.0/24", "via", "10.66.0.2")
	must(t, "ip", "route", "add", "unreachable", "10.66.8.0/24")
	must(t, "ip", "addr", "add", "10.66.0.99/24", "dev", "eth0")
	half := func(ap string) model.Check {
		c := testCheck(model.TCPCheck, netip.MustParseAddrPort(ap))
		c.HalfOpen = true
		return c
	}
	slow := half("10.66.0.2:80")
	slow.Mark, slow.BindInterface, slow.BindAddr = 7, "eth0", netip.MustParseAddr("10.66.0.99")
	dead := brief(half("10.66.0.77:80")) // nobody answers ARP: the kernel tells us after 3 s, we give up earlier
	foreign := half("10.66.0.2:80")
	foreign.BindAddr = netip.MustParseAddr("192.0.2.77")
	nowhere := half("10.66.0.2:80")
	nowhere.BindInterface = "eth77"
	got := probeAll(t, nil, half("10.66.0.2:80"), half("10.66.0.2:81"), half("[fd66::2]:80"), half("[fd66::2]:81"),
		slow, dead, half("10.66.8.1:80"), half("192.0.2.1:80"), half("127.0.0.1:9"), foreign, nowhere)
	for i, want := range []struct {
		ok  bool
		why string
	}{
		{true, "SYN answered"}, {false, "connection refused"}, {true, "SYN answered"}, {false, "connection refused"},
		{true, "SYN answered"}, {false, "no answer within 1.5s"}, {false, "no route to host"}, {false, "network is unreachable"},
		{false, "connection refused"},
	} {
		wantVerdict(t, fmt.Sprint(i), got[i], want.ok, want.why)
	}
	if accepted(l4) || accepted(l6) {
		t.Error("a connection was made")
	}
	for i, want := range []string{"bindto 192.0.2.77: cannot assign requested address", "interface eth77: "} {
		if g := got[9+i]; g.m.known || !g.m.up || !strings.HasPrefix(g.detail, want) {
			t.Errorf("known %t up %t, %q; want no verdict for a reason of our own: %q", g.m.known, g.m.up, g.detail, want)
		}
	}
}

// TestHalfOpenInterface: an interface that goes is no verdict, and one of the
// same name that comes instead is used.
func TestHalfOpenInterface(t *testing.T) {
	p := newPair(t, false)
	p.listen(t, "0.0.0.0:80")
	c := testCheck(model.TCPCheck, netip.MustParseAddrPort("10.66.0.2:80"))
	c.HalfOpen, c.BindInterface, c.DelayLoop, c.ConnectTimeout = true, "eth0", 5*time.Millisecond, 5*time.Second
	w := newWorld()
	l, err := newLoop(w, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	applyIn(l, configOf(c), time.Now())
	g := w.checks[keyOf(&c)]
	until := func(what string) {
		t.Helper()
		for end := time.Now().Add(time.Minute); !strings.HasPrefix(g.detail, what); {
			if l.turn(time.Second); time.Now().After(end) {
				t.Fatalf("%q, want %q", g.detail, what)
			}
			if g.m.known && !g.m.up {
				t.Fatalf("down: %s", g.detail)
			}
		}
	}
	until("SYN answered")
	must(t, "ip", "link", "del", "eth0")
	until("interface eth0: ")
	d, s := fmt.Sprintf("bh%dd", os.Getpid()), fmt.Sprintf("bh%ds", os.Getpid())
	must(t, "ip", "-n", d, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", s)
	for i, n := range []string{s, d} {
		must(t, "ip", "-n", n, "addr", "add", fmt.Sprintf("10.66.0.%d/24", 2-i), "dev", "eth0")
		must(t, "ip", "-n", n, "link", "set", "eth0", "up")
	}
	until("SYN answered")
}

// TestHalfOpenAgain: a SYN that was lost is sent again, and a router's error is
// told as such.
func TestHalfOpenAgain(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second")
	}
	p := newPair(t, false)
	p.listen(t, "10.66.0.2:80")
	p.inServer(t, func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0) })
	p.ip(t, "route", "add", "unreachable", "10.66.7.0/24")
	must(t, "ip", "route", "add", "10.66.7.0/24", "via", "10.66.0.2")
	lost := testCheck(model.TCPCheck, netip.MustParseAddrPort("10.66.7.1:80"))
	lost.HalfOpen = true
	wantVerdict(t, "router", probeAll(t, nil, lost)[0], false, "no route to host, says 10.66.0.2")

	// The server is deaf until the first SYN has gone by.
	p.inServer(t, func() error {
		return exec.Command("nft", "table ip deaf { chain in { type filter hook input priority 0; tcp dport 80 drop; }; }").Run()
	})
	c := testCheck(model.TCPCheck, netip.MustParseAddrPort("10.66.0.2:80"))
	c.HalfOpen = true
	w := newWorld()
	l, err := newLoop(w, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	began := time.Now()
	applyIn(l, configOf(c), began)
	for _, x := range w.checks {
		for x.edge.flight == nil {
			l.turn(10 * time.Millisecond)
		}
		p.inServer(t, func() error { return exec.Command("nft", "delete table ip deaf").Run() })
		deaf := time.Since(began)
		for w.probes == 0 {
			l.turn(time.Second)
		}
		wantVerdict(t, "again", x, true, "SYN answered")
		// It is sent again after 1 s, 3 s, 7 s.
		if most := 2*deaf + 2*time.Second; x.took < 900*time.Millisecond || x.took > most {
			t.Errorf("took %s, want a second, %s at most", x.took, most)
		}
	}
}

func TestPing(t *testing.T) {
	newPair(t, true)
	ping := func(a string) model.Check {
		c := testCheck(model.PingCheck, netip.AddrPortFrom(netip.MustParseAddr(a), 0))
		return c
	}
	got := probeAll(t, nil, ping("10.66.0.2"), ping("fd66::2"), ping("127.0.0.1"), ping("::1"), brief(ping("10.66.0.77")), brief(ping("fd66::77")), ping("192.0.2.1"))
	for i, want := range []struct {
		ok  bool
		why string
	}{
		{true, "echo reply"}, {true, "echo reply"}, {true, "echo reply"}, {true, "echo reply"},
		{false, "no answer within 1.5s"}, {false, "no answer within 1.5s"}, {false, "network is unreachable"},
	} {
		wantVerdict(t, fmt.Sprint(i), got[i], want.ok, want.why)
	}
}

// datagrams answers each datagram with what fn says, nil for nothing.
func datagrams(t testing.TB, fn func([]byte) []byte) netip.AddrPort {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		b := make([]byte, 2048)
		for {
			n, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			if r := fn(b[:n]); r != nil {
				c.WriteToUDPAddrPort(r, from)
			}
		}
	}()
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

func TestDatagrams(t *testing.T) {
	dns := func(rcode byte) netip.AddrPort {
		return datagrams(t, func(q []byte) []byte {
			q[2] |= 0x80
			q[3] |= rcode
			return q
		})
	}
	udp := func(ap netip.AddrPort, reply string) model.Check {
		c := testCheck(model.UDPCheck, ap)
		c.MaxReply = 255
		if reply != "" {
			c.RequireReply, c.Reply = true, []byte(reply)
		}
		return c
	}
	named := testCheck(model.DNSCheck, dns(0))
	named.DNSType, named.DNSName = "A", "www.example.org"
	flood := datagrams(t, func(q []byte) []byte { return []byte("not the query at all") })
	got := probeAll(t, nil,
		named, testCheck(model.DNSCheck, dns(5)), testCheck(model.DNSCheck, closedUDP(t)),
		brief(testCheck(model.DNSCheck, datagrams(t, func([]byte) []byte { return nil }))), brief(testCheck(model.DNSCheck, flood)),
		brief(udp(datagrams(t, func([]byte) []byte { return nil }), "")), udp(closedUDP(t), ""),
		udp(datagrams(t, func([]byte) []byte { return []byte("pong") }), "po"),
		udp(datagrams(t, func([]byte) []byte { return []byte("\x01nope\n") }), "po"),
		brief(udp(datagrams(t, func([]byte) []byte { return nil }), "po")))
	for i, want := range []struct {
		ok          bool
		why, answer string
	}{
		{true, "answer NOERROR", ""}, {false, "answer REFUSED", ""}, {false, "connection refused", ""},
		{false, "no answer within 1.5s", ""}, {false, "no answer within 1.5s", ""},
		{true, "nothing refused within 1.5s", ""}, {false, "connection refused", ""},
		{true, "reply of 4 bytes", ""}, {false, "byte 0 of the reply is 0x01, want 0x70", "?nope "}, {false, "no reply within 1.5s", ""},
	} {
		wantVerdict(t, fmt.Sprint(i), got[i], want.ok, want.why)
		if !strings.HasPrefix(got[i].fault.answer, want.answer) || !want.ok && got[i].fault.detail != got[i].detail {
			t.Errorf("%d: evidence %+v", i, got[i].fault)
		}
	}
}

// closedUDP is a port that refuses: its socket takes datagrams of one peer only.
func closedUDP(t testing.TB) netip.AddrPort {
	c, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 9), Port: 9})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

func TestFlightPorts(t *testing.T) {
	w := newWorld()
	l, err := newLoop(w, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	if err := l.openFlights(0, false); err != nil {
		t.Fatal(err)
	}
	f := &l.flights
	n := len(f.free)
	var held []uint16
	for f.available() {
		held = append(held, f.take(&check{}))
	}
	if len(held) != n || f.at(held[0]) == nil {
		t.Fatalf("%d ports of %d", len(held), n)
	}
	for _, p := range held {
		f.release(p)
	}
	for range 5 * n {
		f.release(f.take(&check{}))
	}
	if a, b := f.take(&check{}), f.take(&check{}); a == b || cap(f.free) > 8*n {
		t.Errorf("ports %d %d, room for %d", a, b, cap(f.free))
	}
}
