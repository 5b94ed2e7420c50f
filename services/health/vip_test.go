package health

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ballast/configs/model"
	"ballast/services/health/raw"
)

// vipConfig is a virtual server with one real server that is probed through the
// virtual address.
func vipConfig(id model.ServiceID, f model.Forward, tun model.Tunnel, real string, c model.Check) *model.Config {
	c.ThroughVIP = true
	return &model.Config{VirtualServers: []model.VirtualServer{{
		Name: id.String(), Quorum: 1, Services: []model.ServiceID{id}, Forward: f,
		Real: []model.RealServer{{
			Addr: netip.MustParseAddr(real), Port: id.Port, ConfPort: id.Port, Weight: 1, Forward: f, Tunnel: tun, Checks: []model.Check{c},
		}},
	}}}
}

// probeVIP runs the one check of a configuration once.
func probeVIP(t testing.TB, cfg *model.Config) *check {
	t.Helper()
	w := newWorld()
	l, err := newLoop(w, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	if errs := applyIn(l, cfg, time.Now()); errs != nil {
		t.Fatal(errs)
	}
	for end := time.Now().Add(time.Minute); w.probes == 0; {
		if err := l.turn(time.Second); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(end) {
			t.Fatal("the probe did not end")
		}
	}
	for _, c := range w.checks {
		return c
	}
	return nil
}

func (p *pair) sysctl(t testing.TB, name, value string) {
	t.Helper()
	p.inServer(t, func() error { return os.WriteFile("/proc/sys/net/"+name, []byte(value), 0) })
}

// serverHolds puts the virtual address on the server's loopback, as a real
// server of DR has it: it answers for it and never speaks ARP about it.
func (p *pair) serverHolds(t testing.TB, vips ...string) {
	p.sysctl(t, "ipv4/conf/all/arp_ignore", "1")
	p.sysctl(t, "ipv4/conf/all/arp_announce", "2")
	for _, v := range vips {
		p.ip(t, "addr", "add", v, "dev", "lo")
	}
}

const viaWhy = "does it hold the virtual address?"

// TestThroughVIP: a real server that does not hold the virtual address is well
// by every other check, and found out by this one; also while the address is on
// this very director.
func TestThroughVIP(t *testing.T) {
	p := newPair(t, true)
	p.listen(t, ":80")
	tcp := testCheck(model.TCPCheck, netip.MustParseAddrPort("10.66.0.2:80"))
	tcp6 := testCheck(model.TCPCheck, netip.MustParseAddrPort("[fd66::2]:80"))
	vip := model.ServiceID{Addr: netip.MustParseAddr("10.66.0.10"), Port: 80, Protocol: model.TCP}
	vip6 := model.ServiceID{Addr: netip.MustParseAddr("fd66::10"), Port: 80, Protocol: model.TCP}
	half := tcp
	half.HalfOpen = true
	ping := testCheck(model.PingCheck, netip.MustParseAddrPort("10.66.0.2:0"))
	web := testCheck(model.HTTPGet, netip.MustParseAddrPort("10.66.0.2:8080"))
	l := p.listen(t, ":8080")
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			readRequest(c)
			c.Write([]byte("HTTP/1.0 200 OK\r\n\r\n"))
			c.Close()
		}
	}()
	type ask struct {
		name  string
		id    model.ServiceID
		check model.Check
		real  string
		own   string
	}
	asks := []ask{
		{"tcp", vip, tcp, "10.66.0.2", "connected"},
		{"half-open", vip, half, "10.66.0.2", "SYN answered"},
		{"http", vip, web, "10.66.0.2", "status 200"},
		{"ping", vip, ping, "10.66.0.2", "echo reply"},
		{"tcp6", vip6, tcp6, "fd66::2", "connected"},
	}
	try := func(when string, ok bool) {
		t.Helper()
		for _, a := range asks {
			// No t.Run: that is another thread, in another namespace.
			name := when + "/" + a.name
			if !ok {
				a.check = brief(a.check)
			}
			g := probeVIP(t, vipConfig(a.id, model.DR, model.Tunnel{}, a.real, a.check))
			if ok {
				wantVerdict(t, name, g, true, a.own+", ")
			} else {
				wantVerdict(t, name, g, false, "well at its own address ("+a.own+"), but as "+a.id.String())
			}
			if !ok && !strings.HasSuffix(g.detail, viaWhy) {
				t.Errorf("%s: %q", name, g.detail)
			}
		}
	}
	wantVerdict(t, "normal check without the address", probeAll(t, nil, tcp)[0], true, "connected")
	try("missing", false)
	p.serverHolds(t, "10.66.0.10/32", "fd66::10/128")
	try("held", true)
	// The director is master: the address is its own, and the server's answers
	// come from it.
	must(t, "ip", "addr", "add", "10.66.0.10/32", "dev", "eth0")
	// Deprecated, as vrrp adds one, so that nothing speaks from it by itself.
	must(t, "ip", "addr", "add", "fd66::10/128", "dev", "eth0", "nodad", "preferred_lft", "0")
	try("held, and we are master", true)
	for _, v := range []string{"10.66.0.10/32", "fd66::10/128"} {
		p.ip(t, "addr", "del", v, "dev", "lo")
	}
	try("missing, and we are master", false)
	wantVerdict(t, "normal check without the address", probeAll(t, nil, tcp)[0], true, "connected")
}

// TestWireOnlyWhileWanted: the packet socket, which every packet of the box
// passes, goes with the last check that needs it.
func TestWireOnlyWhileWanted(t *testing.T) {
	p := newPair(t, false)
	p.listen(t, ":80")
	p.serverHolds(t, "10.66.0.10/32")
	tcp := testCheck(model.TCPCheck, netip.MustParseAddrPort("10.66.0.2:80"))
	cfg := vipConfig(model.ServiceID{Addr: netip.MustParseAddr("10.66.0.10"), Port: 80, Protocol: model.TCP}, model.DR, model.Tunnel{}, "10.66.0.2", tcp)
	w := newWorld()
	l, err := newLoop(w, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	for _, want := range []bool{true, false, true} {
		probes := w.probes
		if want {
			applyIn(l, cfg, time.Now())
		} else {
			applyIn(l, configOf(tcp), time.Now())
		}
		for end := time.Now().Add(time.Minute); w.probes == probes && time.Now().Before(end); {
			l.turn(time.Second)
		}
		if got := l.flights.socks.Listens(raw.Wire, false); got != want {
			t.Errorf("the packet socket is open: %t, want %t", got, want)
		}
	}
}

// TestThroughVIPDatagram: the same with a virtual server of UDP.
func TestThroughVIPDatagram(t *testing.T) {
	p := newPair(t, false)
	serve := func() {
		p.inServer(t, func() error {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
			if err := unix.Bind(fd, &unix.SockaddrInet4{Port: 53}); err != nil {
				return err
			}
			t.Cleanup(func() { unix.Shutdown(fd, unix.SHUT_RDWR); unix.Close(fd) })
			go func() {
				b, oob := make([]byte, 512), make([]byte, 128)
				for {
					n, on, _, from, err := unix.Recvmsg(fd, b, oob, 0)
					if err != nil || n < 4 {
						return
					}
					b[2] |= 0x80
					// Answers from the address that was asked.
					unix.Sendmsg(fd, b[:n], oob[:on], from, 0)
				}
			}()
			return nil
		})
	}
	dns := testCheck(model.DNSCheck, netip.MustParseAddrPort("10.66.0.2:53"))
	cfg := vipConfig(model.ServiceID{Addr: netip.MustParseAddr("10.66.0.10"), Port: 53, Protocol: model.UDP}, model.DR, model.Tunnel{}, "10.66.0.2", dns)
	wantVerdict(t, "dead", probeVIP(t, cfg), false, "connection refused")
	serve()
	short := vipConfig(model.ServiceID{Addr: netip.MustParseAddr("10.66.0.10"), Port: 53, Protocol: model.UDP}, model.DR, model.Tunnel{}, "10.66.0.2", brief(dns))
	wantVerdict(t, "missing", probeVIP(t, short), false, "well at its own address (answer NOERROR), but as [10.66.0.10]:udp:53: no answer within 1.5s")
	p.serverHolds(t, "10.66.0.10/32")
	must(t, "ip", "addr", "add", "10.66.0.10/32", "dev", "eth0")
	wantVerdict(t, "held", probeVIP(t, cfg), true, "answer NOERROR, answer NOERROR for")
}

// TestThroughVIPTunnel: the packet that reaches a real server of TUN is ours,
// wrapped as IPVS wraps it; the answer comes straight from the virtual address.
// There is no tunnel device on this machine, so the test unwraps by hand.
func TestThroughVIPTunnel(t *testing.T) {
	p := newPair(t, false)
	p.listen(t, ":80")
	vip := netip.MustParseAddr("10.66.0.10")
	for _, c := range []struct {
		tun   model.Tunnel
		proto int
		head  []byte
	}{
		{model.Tunnel{Type: "ipip"}, raw.IPIP, nil},
		{model.Tunnel{Type: "gre"}, raw.GRE, []byte{0, 0, 8, 0}},
		{model.Tunnel{Type: "gue", Port: 6080, Csum: "csum"}, raw.UDP, []byte{0, raw.IPIP, 0, 0}},
	} {
		func() {
			tcp := testCheck(model.TCPCheck, netip.MustParseAddrPort("10.66.0.2:80"))
			cfg := vipConfig(model.ServiceID{Addr: vip, Port: 80, Protocol: model.TCP}, model.TUN, c.tun, "10.66.0.2", tcp)
			short := vipConfig(model.ServiceID{Addr: vip, Port: 80, Protocol: model.TCP}, model.TUN, c.tun, "10.66.0.2", brief(tcp))
			wantVerdict(t, "nobody unwraps", probeVIP(t, short), false, "well at its own address")
			p.inServer(t, func() error {
				in, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, c.proto)
				if err != nil {
					return err
				}
				out, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
				if err != nil {
					return err
				}
				tv := unix.NsecToTimeval(int64(time.Minute))
				if err := unix.SetsockoptTimeval(in, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
					return err
				}
				go func() {
					defer unix.Close(in)
					defer unix.Close(out)
					b := make([]byte, 512)
					for {
						n, err := unix.Read(in, b)
						if err != nil {
							return
						}
						inner := b[20:n]
						if c.proto == raw.UDP {
							inner = inner[8:]
						}
						if !bytes.HasPrefix(inner, c.head) {
							continue
						}
						q, ok := raw.Parse(inner[len(c.head):])
						if !ok || q.Dst != netip.AddrPortFrom(vip, 80) || q.Flags != raw.SYN {
							continue
						}
						a := raw.AppendTCP(nil, q.Dst, q.Src, 1000, q.Seq+1, raw.SYN|raw.ACK)
						unix.Sendto(out, a, 0, &unix.SockaddrInet4{Addr: q.Src.Addr().As4()})
						return
					}
				}()
				return nil
			})
			wantVerdict(t, c.tun.Type, probeVIP(t, cfg), true, "connected, SYN answered for [10.66.0.10]:tcp:80")
		}()
	}
}

// TestThroughVIPTurns: the addresses of a group are asked in turn, and the one
// that fails until it is well.
func TestThroughVIPTurns(t *testing.T) {
	c := &check{via: &throughVIP{}}
	for i := range 3 {
		c.via.services = append(c.via.services, model.ServiceID{Addr: netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), Port: 80, Protocol: model.TCP})
	}
	var got []string
	for _, ok := range []bool{true, false, false, true, true, true} {
		o := c.vipOutcome(outcome{ok: true, reason: "connected", weight: 7}, outcome{ok: ok, reason: "x"})
		got = append(got, fmt.Sprintf("%t %d", o.ok, c.via.at))
		if ok && o.weight != 7 {
			t.Error("the weight of a script is lost")
		}
	}
	if s := strings.Join(got, ", "); s != "true 1, false 1, false 1, true 2, true 0, true 1" {
		t.Error(s)
	}
}

func TestThroughVIPRefused(t *testing.T) {
	tcp := testCheck(model.TCPCheck, netip.MustParseAddrPort("10.66.0.2:80"))
	a := netip.MustParseAddr("10.66.0.10")
	for _, c := range []struct {
		id   model.ServiceID
		f    model.Forward
		tun  string
		want string
	}{
		{model.ServiceID{Addr: a, Port: 80, Protocol: model.TCP}, model.NAT, "", "with NAT the real server never sees"},
		{model.ServiceID{Mark: 7}, model.DR, "", "FWM 7 has no address"},
		{model.ServiceID{Addr: a, Port: 80, Protocol: model.SCTP}, model.DR, "", "sctp cannot be probed"},
		{model.ServiceID{Addr: netip.MustParseAddr("fd00::1"), Port: 80, Protocol: model.TCP}, model.TUN, "", "of different families"},
		{model.ServiceID{Addr: a, Port: 80, Protocol: model.TCP}, model.TUN, "vxlan", "tunnel type vxlan"},
	} {
		errs := validate(listOf(vipConfig(c.id, c.f, model.Tunnel{Type: c.tun}, "10.66.0.2", tcp)), nil)
		if len(errs) != 1 || !strings.Contains(errs[0].Error(), c.want) {
			t.Errorf("%v: %v, want %s", c.id, errs, c.want)
		}
	}
}
