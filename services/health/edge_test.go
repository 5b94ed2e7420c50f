package health

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ballast/configs/model"
	"ballast/services/ipc/status"
)

// server runs fn on each connection to a fresh loopback port.
func server(t testing.TB, fn func(net.Conn)) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				fn(c)
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// closedPort is a port that refuses: bound, so that nobody else gets it, and
// nobody listens.
func closedPort(t testing.TB) netip.AddrPort {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(sa.(*unix.SockaddrInet4).Port))
}

// silentPort takes no connection: its backlog is full.
func silentPort(t testing.TB) netip.AddrPort {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	sa, _ := unix.Getsockname(fd)
	ap := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(sa.(*unix.SockaddrInet4).Port))
	for range 2 { // the backlog holds one more than it says
		c, err := net.DialTimeout("tcp", ap.String(), 100*time.Millisecond)
		if err == nil {
			t.Cleanup(func() { c.Close() })
		}
	}
	return ap
}

func readRequest(c net.Conn) string {
	r := bufio.NewReader(c)
	var b strings.Builder
	for {
		line, err := r.ReadString('\n')
		b.WriteString(line)
		if err != nil || line == "\r\n" {
			return b.String()
		}
	}
}

// testCheck waits for a server for as long as a busy machine may take.
func testCheck(kind model.CheckKind, ap netip.AddrPort) model.Check {
	c := model.Check{
		Kind: kind, Addr: ap.Addr(), Port: ap.Port(), ConnectTimeout: 20 * time.Second,
		DelayLoop: time.Hour, DelayBeforeRetry: time.Hour, HTTPProtocol: "1.0",
	}
	if kind == model.HTTPGet || kind == model.SSLGet {
		c.URLs = []model.URL{{Path: "/"}}
	}
	return c
}

// brief is for a check whose server keeps it waiting: longer than the machine of
// this test stands still, and shorter than the 3 s after which the kernel tells
// that nobody answers ARP.
func brief(c model.Check) model.Check {
	c.ConnectTimeout = 1500 * time.Millisecond
	return c
}

func configOf(checks ...model.Check) *model.Config {
	vs := model.VirtualServer{
		Name: "[10.0.0.2]:tcp:80", Quorum: 1,
		Services: []model.ServiceID{{Addr: netip.MustParseAddr("10.0.0.2"), Port: 80, Protocol: model.TCP}},
	}
	for i, c := range checks {
		vs.Real = append(vs.Real, model.RealServer{
			Addr: netip.AddrFrom4([4]byte{10, 0, 1, byte(i + 1)}), Port: 80, ConfPort: 80, Weight: 1, Checks: []model.Check{c},
		})
	}
	return &model.Config{VirtualServers: []model.VirtualServer{vs}}
}

// probeAll runs each check once and returns what it found, by check.
func probeAll(t testing.TB, run runScript, checks ...model.Check) []*check {
	t.Helper()
	w := newWorld()
	l, err := newLoop(w, run)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	if errs := applyIn(l, configOf(checks...), time.Now()); errs != nil {
		t.Fatal(errs)
	}
	end := time.Now().Add(time.Minute)
	for w.probes < uint64(len(w.checks)) {
		if err := l.turn(time.Second); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(end) {
			t.Fatal("the probes did not end")
		}
	}
	var out []*check
	for i := range checks {
		out = append(out, w.checks[keyOf(&checks[i])])
	}
	return out
}

func serverTLS(t testing.TB, max uint16, fn func(net.Conn)) netip.AddrPort {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1)}, &x509.Certificate{}, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cfg := &tls.Config{
		MinVersion: tls.VersionTLS10, MaxVersion: max,
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
	}
	return server(t, func(c net.Conn) { fn(tls.Server(c, cfg)) })
}

func reset(c net.Conn) { c.(*net.TCPConn).SetLinger(0); c.Close() }

func say(s string) func(net.Conn) {
	return func(c net.Conn) { readRequest(c); c.Write([]byte(s)) }
}

// TestBadServers shows each way a real server can be bad, all at one time in
// one loop.
func TestBadServers(t *testing.T) {
	const ok = "HTTP/1.0 200 OK\r\nServer: x\r\n\r\nhello"
	hold := make(chan struct{})
	defer close(hold)
	drip := func(c net.Conn) {
		readRequest(c)
		c.Write([]byte("HTTP/1.0 200 OK\r\n\r\n"))
		for {
			if _, err := c.Write([]byte("x")); err != nil {
				return
			}
			select {
			case <-hold:
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
	cases := []struct {
		name  string
		check model.Check
		ok    bool
		want  string
		under time.Duration // how fast it must be told
	}{
		{"tcp connects", testCheck(model.TCPCheck, server(t, func(net.Conn) {})), true, "connected", 0},
		{"tcp refused", testCheck(model.TCPCheck, closedPort(t)), false, "connection refused", 10 * time.Second},
		{"tcp silent", brief(testCheck(model.TCPCheck, silentPort(t))), false, "no answer within 1.5s", 0},
		{"http good", testCheck(model.HTTPGet, server(t, say(ok))), true, "status 200", 0},
		{"http refused", testCheck(model.HTTPGet, closedPort(t)), false, "connection refused", 10 * time.Second},
		{"http silent", brief(testCheck(model.HTTPGet, server(t, func(c net.Conn) { <-hold }))), false, "no answer within 1.5s", 0},
		{"http 503 is told before the end of the body", testCheck(model.HTTPGet, server(t, func(c net.Conn) {
			say("HTTP/1.1 503 No\r\n\r\n")(c)
			<-hold
		})), false, "status 503, want 200-299", 10 * time.Second},
		{"http closed at once", testCheck(model.HTTPGet, server(t, func(c net.Conn) { readRequest(c) })), false, "connection closed without an answer", 0},
		{"http half a header", testCheck(model.HTTPGet, server(t, say("HTTP/1.0 200 OK\r\nServ"))), false,
			"connection closed inside the HTTP header, after 21 bytes", 0},
		{"http half a header, then silence", brief(testCheck(model.HTTPGet, server(t, func(c net.Conn) { say("HTTP/1.0 2")(c); <-hold }))), false,
			"HTTP header not complete within 1.5s, 10 bytes of it", 0},
		{"http body stops", brief(testCheck(model.HTTPGet, server(t, func(c net.Conn) { say(ok)(c); <-hold }))), false,
			"answer stopped for 1.5s after 5 bytes of body", 0},
		{"http slow drip", brief(testCheck(model.HTTPGet, server(t, drip))), false, "answer not complete after 15s", 0},
		{"http endless", testCheck(model.HTTPGet, server(t, func(c net.Conn) {
			readRequest(c)
			c.Write([]byte("HTTP/1.0 200 OK\r\n\r\n"))
			for b := make([]byte, 1<<20); ; {
				if _, err := c.Write(b); err != nil {
					return
				}
			}
		})), false, "answer longer than 64 MiB", 0},
		{"http reset inside the body", testCheck(model.HTTPGet, server(t, func(c net.Conn) {
			say(ok)(c)
			time.Sleep(20 * time.Millisecond) // let the body arrive before the reset drops it
			reset(c)
		})), false, "connection reset by peer after 5 bytes of body", 0},
		{"http reset at once", testCheck(model.HTTPGet, server(t, func(c net.Conn) { readRequest(c); reset(c) })), false, "connection reset by peer", 0},
		{"http garbage", testCheck(model.HTTPGet, server(t, say("\x16\x03\x01\x02\r\n\r\n"))), false, "no HTTP status in", 0},
		{"tls good", testCheck(model.SSLGet, serverTLS(t, tls.VersionTLS13, say(ok))), true, "status 200", 0},
		{"tls 1.0 without close_notify", testCheck(model.SSLGet, serverTLS(t, tls.VersionTLS10, say(ok))), true, "status 200", 0},
		{"tls 500", testCheck(model.SSLGet, serverTLS(t, tls.VersionTLS13, say("HTTP/1.0 500 X\r\n\r\n"))), false, "status 500, want 200-299", 0},
		{"tls refused", testCheck(model.SSLGet, closedPort(t)), false, "connection refused", 10 * time.Second},
		{"tls garbage", testCheck(model.SSLGet, server(t, func(c net.Conn) { c.Write([]byte("SSH-2.0-OpenSSH_9.2\r\n")); <-hold })), false, "TLS handshake: ", 0},
		{"tls to plain http", brief(testCheck(model.SSLGet, server(t, say("HTTP/1.0 400 Bad\r\n\r\n")))), false, "TLS handshake: ", 0},
		{"tls silent", brief(testCheck(model.SSLGet, server(t, func(c net.Conn) { <-hold }))), false, "TLS handshake: no answer within 1.5s", 0},
		{"tls closed in the handshake", testCheck(model.SSLGet, server(t, func(c net.Conn) {})), false, "TLS handshake: ", 0},
	}
	var checks []model.Check
	for _, c := range cases {
		checks = append(checks, c.check)
	}
	got := probeAll(t, nil, checks...)
	for i, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			g := got[i]
			if g.m.up != c.ok || !strings.HasPrefix(g.detail, c.want) {
				t.Errorf("up %t, %q; want up %t, %q", g.m.up, g.detail, c.ok, c.want)
			}
			if c.under > 0 && g.took > c.under {
				t.Errorf("took %s, must be told within %s", g.took, c.under)
			}
		})
	}
}

func TestRequestOnTheWire(t *testing.T) {
	got := make(chan string, 1)
	ap := server(t, func(c net.Conn) {
		got <- readRequest(c)
		c.Write([]byte("HTTP/1.0 200 OK\r\n\r\n"))
	})
	probeAll(t, nil, testCheck(model.HTTPGet, ap))
	want := fmt.Sprintf("GET / HTTP/1.0\r\nUser-Agent: KeepAliveClient\r\nHost: %s\r\n\r\n", ap)
	if s := <-got; s != want {
		t.Errorf("sent %q, want %q", s, want)
	}
}

func TestSNI(t *testing.T) {
	names := make(chan string, 1)
	ap := serverTLS(t, tls.VersionTLS13, func(c net.Conn) {
		say("HTTP/1.0 200 OK\r\n\r\n")(c)
		names <- c.(*tls.Conn).ConnectionState().ServerName
	})
	c := testCheck(model.SSLGet, ap)
	c.SNI, c.SNIName = true, "www.example.com"
	probeAll(t, nil, c)
	if n := <-names; n != c.SNIName {
		t.Errorf("server name %q, want %q", n, c.SNIName)
	}
}

func TestSocketOptions(t *testing.T) {
	from := make(chan netip.AddrPort, 4)
	ap := server(t, func(c net.Conn) { from <- c.RemoteAddr().(*net.TCPAddr).AddrPort() })
	free := closedPort(t).Port()
	c := testCheck(model.TCPCheck, ap)
	c.BindAddr, c.BindPort, c.Mark, c.BindInterface = netip.MustParseAddr("127.0.0.9"), free, 7, "lo"
	if g := probeAll(t, nil, c)[0]; !g.m.up {
		t.Fatal(g.detail)
	}
	if f := <-from; f != netip.AddrPortFrom(c.BindAddr, free) {
		t.Errorf("came from %s, want %s:%d", f, c.BindAddr, free)
	}
	// What we cannot bind is our fault, not the server's.
	c.BindAddr = netip.MustParseAddr("192.0.2.77")
	if g := probeAll(t, nil, c)[0]; !g.m.up || g.m.known || !strings.Contains(g.detail, "bindto 192.0.2.77") {
		t.Errorf("up %t known %t %q: a probe that cannot be sent is no verdict", g.m.up, g.m.known, g.detail)
	}
}

// TestNoRoute: that there is no way to a server says something about it, unlike
// a socket that we could not make.
func TestNoRoute(t *testing.T) {
	const lost = "198.51.100.77"
	if out, err := exec.Command("ip", "route", "replace", "unreachable", lost+"/32").CombinedOutput(); err != nil {
		t.Fatalf("ip route: %s", out)
	}
	defer exec.Command("ip", "route", "del", "unreachable", lost+"/32").Run()
	ap := netip.AddrPortFrom(netip.MustParseAddr(lost), 80)
	for _, kind := range []model.CheckKind{model.TCPCheck, model.HTTPGet, model.SSLGet} {
		g := probeAll(t, nil, testCheck(kind, ap))[0]
		if g.m.up || g.detail != "no route to host" {
			t.Errorf("%s: up %t, %q", kind, g.m.up, g.detail)
		}
	}
}

func TestScriptOutcomes(t *testing.T) {
	for _, c := range []struct {
		name    string
		dynamic bool
		exit    int
		err     error
		ok      bool
		local   bool
		weight  int
	}{
		{"0", false, 0, nil, true, false, -1},
		{"1", false, 1, nil, false, false, -1},
		{"2 is a failure without misc_dynamic", false, 2, nil, false, false, -1},
		{"dynamic 0 keeps the weight", true, 0, nil, true, false, -1},
		{"dynamic 1", true, 1, nil, false, false, -1},
		{"dynamic 2 is weight 0", true, 2, nil, true, false, 0},
		{"dynamic 255 is weight 253", true, 255, nil, true, false, 253},
		{"killed", true, -1, nil, false, false, -1},
		{"notify is away", true, 0, errors.New("notify does not answer"), false, true, -1},
	} {
		o := scriptOutcome(&model.Check{Dynamic: c.dynamic}, status.RunResult{Exit: c.exit}, c.err)
		if o.ok != c.ok || o.local != c.local || o.weight != c.weight {
			t.Errorf("%s: %+v", c.name, o)
		}
	}
}

func TestMiscCheck(t *testing.T) {
	var asked status.Run
	run := func(_ context.Context, r status.Run) (status.RunResult, error) {
		asked = r
		return status.RunResult{Exit: 12, Detail: "exit 12"}, nil
	}
	c := model.Check{
		Kind: model.MiscCheck, Command: model.Command{Argv: []string{"/usr/local/bin/load.sh"}}, MiscTimeout: 3 * time.Second,
		Dynamic: true, DelayLoop: time.Hour,
	}
	g := probeAll(t, run, c)[0]
	if !g.m.up || g.users[0].dynamic() != 10 || asked.Timeout != 3*time.Second || asked.Command.Argv[0] != "/usr/local/bin/load.sh" {
		t.Errorf("up %t weight %d, asked for %+v", g.m.up, g.users[0].dynamic(), asked)
	}
}

func openFDs(t testing.TB) int {
	e, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(e)
}

// TestNoLeaks ends a loop with probes of every kind in flight.
func TestNoLeaks(t *testing.T) {
	hold := make(chan struct{})
	quiet := server(t, func(c net.Conn) { <-hold })
	silent := silentPort(t)
	before, goroutines := openFDs(t), runtime.NumGoroutine()
	for range 3 {
		w := newWorld()
		l, err := newLoop(w, func(ctx context.Context, _ status.Run) (status.RunResult, error) {
			<-ctx.Done()
			return status.RunResult{}, ctx.Err()
		})
		if err != nil {
			t.Fatal(err)
		}
		applyIn(l, configOf(testCheck(model.TCPCheck, silent), testCheck(model.HTTPGet, quiet), testCheck(model.SSLGet, quiet),
			model.Check{Kind: model.MiscCheck, DelayLoop: time.Hour, MiscTimeout: time.Hour}), time.Now())
		for range 3 {
			l.turn(10 * time.Millisecond)
		}
		if l.open == 0 {
			t.Fatal("nothing in flight")
		}
		l.close()
		if l.open != 0 || len(l.byFD) != 0 || len(l.timers) != 0 {
			t.Errorf("left open %d, known %d, timers %d", l.open, len(l.byFD), len(l.timers))
		}
	}
	close(hold)
	end := time.Now().Add(time.Minute)
	for openFDs(t) > before || runtime.NumGoroutine() > goroutines {
		if time.Now().After(end) {
			t.Fatalf("descriptors %d, were %d; goroutines %d, were %d", openFDs(t), before, runtime.NumGoroutine(), goroutines)
		}
		runtime.Gosched()
	}
}

// TestSharedOnce: ten services with the same back ends cost one probe each.
func TestSharedOnce(t *testing.T) {
	hits := make(chan struct{}, 100)
	ap := server(t, func(c net.Conn) { hits <- struct{}{} })
	cfg := configOf(testCheck(model.TCPCheck, ap))
	for i := range 9 {
		vs := cfg.VirtualServers[0]
		vs.Name = fmt.Sprintf("[10.0.0.%d]:tcp:80", i+3)
		cfg.VirtualServers = append(cfg.VirtualServers, vs)
	}
	w := newWorld()
	l, err := newLoop(w, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	applyIn(l, cfg, time.Now())
	for w.probes == 0 {
		if err := l.turn(time.Second); err != nil {
			t.Fatal(err)
		}
	}
	if len(w.checks) != 1 || w.probes != 1 || len(w.state(status.Applied{}).Servers) != 10 {
		t.Errorf("%d checks, %d probes", len(w.checks), w.probes)
	}
	for _, vs := range w.servers {
		if c := vs.real[0].checks[0]; !c.m.known {
			t.Errorf("%s does not know", vs.conf.Name)
		}
	}
}
