package dhcp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/net/bpf"
)

func ack(mods ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	m, err := dhcpv4.New(append([]dhcpv4.Modifier{
		dhcpv4.WithMessageType(dhcpv4.MessageTypeAck), dhcpv4.WithYourIP(net.IPv4(10, 0, 0, 7)), dhcpv4.WithNetmask(net.CIDRMask(24, 32)),
		dhcpv4.WithServerIP(net.IPv4(10, 0, 0, 1)), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(10, 0, 0, 1))), dhcpv4.WithLeaseTime(3600),
	}, mods...)...)
	if err != nil {
		panic(err)
	}
	return m
}

func TestLeaseOfAck(t *testing.T) {
	start := time.Unix(1e9, 0)
	base := Lease{Addr: netip.MustParsePrefix("10.0.0.7/24"), Server: netip.MustParseAddr("10.0.0.1"), Start: start,
		T1: start.Add(30 * time.Minute), T2: start.Add(3150 * time.Second), Expires: start.Add(time.Hour)}
	with := func(fn func(*Lease)) Lease { l := base; fn(&l); return l }
	def := netip.MustParsePrefix("0.0.0.0/0")
	for _, tt := range []struct {
		name string
		ack  *dhcpv4.DHCPv4
		want Lease
		err  string
	}{
		{"plain", ack(), base, ""},
		{"router and dns", ack(dhcpv4.WithRouter(net.IPv4(10, 0, 0, 254), net.IPv4(10, 0, 0, 253)), dhcpv4.WithDNS(net.IPv4(9, 9, 9, 9), net.IPv4zero)),
			with(func(l *Lease) {
				l.Routes = []Route{{def, netip.MustParseAddr("10.0.0.254")}}
				l.DNS = []netip.Addr{netip.MustParseAddr("9.9.9.9")}
			}), ""},
		{"classless routes replace the router", ack(dhcpv4.WithRouter(net.IPv4(10, 0, 0, 254)), dhcpv4.WithOption(dhcpv4.OptClasslessStaticRoute(
			&dhcpv4.Route{Dest: &net.IPNet{IP: net.IPv4(172, 16, 9, 9).To4(), Mask: net.CIDRMask(12, 32)}, Router: net.IPv4(10, 0, 0, 2)},
			&dhcpv4.Route{Dest: &net.IPNet{IP: net.IPv4(192, 0, 2, 0).To4(), Mask: net.CIDRMask(24, 32)}, Router: net.IPv4zero}))),
			with(func(l *Lease) {
				l.Routes = []Route{{netip.MustParsePrefix("172.16.0.0/12"), netip.MustParseAddr("10.0.0.2")}, {netip.MustParsePrefix("192.0.2.0/24"), netip.Addr{}}}
			}), ""},
		{"own T1 and T2", ack(dhcpv4.WithOption(dhcpv4.OptRenewTimeValue(time.Minute)), dhcpv4.WithOption(dhcpv4.OptRebindingTimeValue(2*time.Minute))),
			with(func(l *Lease) { l.T1, l.T2 = start.Add(time.Minute), start.Add(2*time.Minute) }), ""},
		{"T1 after T2", ack(dhcpv4.WithOption(dhcpv4.OptRenewTimeValue(3500*time.Second)), dhcpv4.WithOption(dhcpv4.OptRebindingTimeValue(2*time.Minute))), base, ""},
		{"infinite", ack(dhcpv4.WithLeaseTime(0xffffffff)), with(func(l *Lease) {
			l.T1, l.T2, l.Expires = start.Add(maxLease/2), start.Add(maxLease*7/8), start.Add(maxLease)
		}), ""},
		{"no mask", ack(dhcpv4.WithNetmask(nil)), with(func(l *Lease) { l.Addr = netip.MustParsePrefix("10.0.0.7/32") }), ""},
		{"mask with a hole", ack(dhcpv4.WithNetmask(net.IPv4Mask(255, 0, 255, 0))), Lease{}, "subnet mask 255.0.255.0"},
		{"multicast", ack(dhcpv4.WithYourIP(net.IPv4(224, 0, 0, 1))), Lease{}, "no host's address"},
		{"no address", ack(dhcpv4.WithYourIP(net.IPv4zero)), Lease{}, "no host's address"},
		{"no lease time", ack(dhcpv4.WithLeaseTime(0)), Lease{}, "grants 0s; want at least 2s"},
		{"no server", ack(dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4zero))), Lease{}, "no server identifier"},
	} {
		got, err := leaseOf(tt.ack, start)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: error %v, want %q", tt.name, err, tt.err)
			}
			continue
		}
		if d := cmp.Diff(tt.want, got, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); d != "" || err != nil {
			t.Errorf("%s: %v (-want +got):\n%s", tt.name, err, d)
		}
	}
}

// Whatever a server on the wire sends, a lease that is accepted is usable.
func FuzzLease(f *testing.F) {
	f.Add(ack().ToBytes())
	f.Add(ack(dhcpv4.WithRouter(net.IPv4(10, 0, 0, 254)), dhcpv4.WithDNS(net.IPv4(9, 9, 9, 9))).ToBytes())
	f.Add(ack(dhcpv4.WithOption(dhcpv4.OptClasslessStaticRoute(&dhcpv4.Route{Dest: &net.IPNet{IP: net.IPv4(172, 16, 9, 9).To4(), Mask: net.CIDRMask(12, 32)}, Router: net.IPv4(10, 0, 0, 2)}))).ToBytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := dhcpv4.FromBytes(b)
		if err != nil {
			return
		}
		start := time.Unix(1e9, 0)
		l, err := leaseOf(m, start)
		if err != nil {
			return
		}
		if !l.Addr.IsValid() || !usable(l.Addr.Addr()) || !l.Server.IsValid() || !start.Before(l.T1) || !l.T1.Before(l.T2) || !l.T2.Before(l.Expires) ||
			len(l.Routes) > maxRoutes || len(l.DNS) > maxDNS {
			t.Errorf("accepted %+v", l)
		}
		for _, r := range l.Routes {
			if r.Dst != r.Dst.Masked() || !r.Dst.IsValid() {
				t.Errorf("accepted route %+v", r)
			}
		}
	})
}

// The filter lets DHCP replies through and nothing else.
func TestFilter(t *testing.T) {
	vm, err := bpf.NewVM(replies)
	if err != nil {
		t.Fatal(err)
	}
	udp := func(port byte, frag byte, options int) []byte {
		b := make([]byte, 20+options+8)
		b[0], b[7], b[9] = byte(0x45+options/4), frag, 17
		b[20+options+3] = port
		return b
	}
	tcp := udp(68, 0, 0)
	tcp[9] = 6
	for _, tt := range []struct {
		name string
		b    []byte
		want bool
	}{
		{"reply", udp(68, 0, 0), true}, {"with IP options", udp(68, 0, 12), true}, {"other port", udp(67, 0, 0), false},
		{"later fragment", udp(68, 9, 0), false}, {"tcp", tcp, false}, {"short", udp(68, 0, 0)[:21], false},
	} {
		n, err := vm.Run(tt.b)
		if err != nil || (n > 0) != tt.want {
			t.Errorf("%s: %d %v", tt.name, n, err)
		}
	}
}

// server is a scripted Exchange in virtual time.
type server struct {
	mu   sync.Mutex
	t0   time.Time
	log  []string
	mode string // "up", "silent", "nak", "only-rebind", "broken"
	life time.Duration
	host byte
}

func (s *server) say(format string, args ...any) {
	s.log = append(s.log, fmt.Sprintf("%ds ", int(time.Since(s.t0).Seconds()))+fmt.Sprintf(format, args...))
}

func (s *server) set(mode string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mode = mode
}

func (s *server) lease() Lease {
	now := time.Now()
	return Lease{Addr: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, s.host}), 24), Server: netip.MustParseAddr("10.0.0.1"), Start: now,
		T1: now.Add(s.life / 2), T2: now.Add(s.life * 7 / 8), Expires: now.Add(s.life)}
}

func (s *server) do(ctx context.Context, what string, timeout time.Duration) (Lease, error) {
	s.mu.Lock()
	mode := s.mode
	s.say("%s", what)
	l := s.lease()
	s.mu.Unlock()
	switch mode {
	case "broken":
		return Lease{}, errors.New("network is down")
	case "nak":
		if what != "discover" {
			return Lease{}, ErrNAK
		}
	case "only-rebind":
		if what == "renew" {
			mode = "silent"
		}
	}
	if mode == "silent" {
		select {
		case <-time.After(timeout):
			return Lease{}, errNoAnswer
		case <-ctx.Done():
			return Lease{}, ctx.Err()
		}
	}
	return l, nil
}

func (s *server) Discover(ctx context.Context, d time.Duration) (Lease, error) {
	return s.do(ctx, "discover", d)
}

func (s *server) Request(ctx context.Context, how How, _ Lease, d time.Duration) (Lease, error) {
	return s.do(ctx, how.String(), d)
}

// play runs a client in virtual time; step does things at whole seconds.
func play(t *testing.T, srv *server, adopted *Lease, seconds int, step map[int]func(*Client)) []string {
	t.Helper()
	var log []string
	synctest.Test(t, func(t *testing.T) {
		srv.t0 = time.Now()
		if adopted != nil {
			adopted.Expires = time.Now().Add(time.Minute)
		}
		c := New("eth0", srv, adopted, slog.New(slog.DiscardHandler), func(l *Lease) {
			srv.mu.Lock()
			defer srv.mu.Unlock()
			if l == nil {
				srv.say("lost")
			} else {
				srv.say("has %s", l.Addr)
			}
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { c.Run(ctx); close(done) }()
		for i := range seconds {
			if fn := step[i]; fn != nil {
				fn(c)
			}
			time.Sleep(time.Second)
		}
		cancel()
		<-done
		srv.mu.Lock()
		defer srv.mu.Unlock()
		log = srv.log
	})
	return log
}

func up(c *Client)   { c.SetCarrier(true) }
func down(c *Client) { c.SetCarrier(false) }

func TestClient(t *testing.T) {
	held := func() *Lease { return &Lease{Addr: netip.MustParsePrefix("10.0.0.7/24")} }
	s := func(mode string, life time.Duration) *server { return &server{mode: mode, life: life, host: 7} }
	for _, tt := range []struct {
		name    string
		srv     *server
		adopted *Lease
		seconds int
		step    func(*server) map[int]func(*Client)
		want    []string
	}{
		{"waits for carrier, then renews at T1", s("up", 20*time.Second), nil, 25, func(*server) map[int]func(*Client) { return map[int]func(*Client){3: up} },
			[]string{"3s discover", "3s has 10.0.0.7/24", "13s renew", "13s has 10.0.0.7/24", "23s renew", "23s has 10.0.0.7/24"}},
		{"rebinds at T2 when its server is silent", s("only-rebind", 40*time.Second), nil, 40, func(*server) map[int]func(*Client) { return map[int]func(*Client){0: up} },
			[]string{"0s discover", "0s has 10.0.0.7/24", "20s renew", "35s rebind", "35s has 10.0.0.7/24"}},
		{"gives up at expiry and starts over", s("up", 16*time.Second), nil, 19, func(srv *server) map[int]func(*Client) {
			return map[int]func(*Client){0: up, 1: func(*Client) { srv.set("silent") }, 17: func(*Client) { srv.set("up") }}
		}, []string{"0s discover", "0s has 10.0.0.7/24", "8s renew", "14s rebind", "16s lost", "16s discover"}},
		{"a NAK loses the address at once", s("up", 20*time.Second), nil, 15, func(srv *server) map[int]func(*Client) {
			return map[int]func(*Client){0: up, 5: func(*Client) { srv.set("nak") }}
		}, []string{"0s discover", "0s has 10.0.0.7/24", "10s renew", "10s lost", "10s discover", "10s has 10.0.0.7/24"}},
		{"a flap asks for the address again", s("up", time.Hour), nil, 20, func(*server) map[int]func(*Client) {
			return map[int]func(*Client){0: up, 5: down, 9: up}
		}, []string{"0s discover", "0s has 10.0.0.7/24", "9s confirm", "9s has 10.0.0.7/24"}},
		{"a flap into another network", s("up", time.Hour), nil, 20, func(srv *server) map[int]func(*Client) {
			return map[int]func(*Client){0: up, 5: down, 6: func(*Client) { srv.set("nak") }, 9: up}
		}, []string{"0s discover", "0s has 10.0.0.7/24", "9s confirm", "9s lost", "9s discover", "9s has 10.0.0.7/24"}},
		{"an adopted lease is confirmed", s("up", time.Hour), held(), 5, func(*server) map[int]func(*Client) { return map[int]func(*Client){0: up} },
			[]string{"0s confirm", "0s has 10.0.0.7/24"}},
		{"an adopted lease whose server is gone lasts until it expires", s("silent", time.Hour), held(), 61, func(*server) map[int]func(*Client) { return map[int]func(*Client){0: up} },
			nil},
		{"expires without carrier", s("up", 10*time.Second), nil, 15, func(*server) map[int]func(*Client) { return map[int]func(*Client){0: up, 2: down} },
			[]string{"0s discover", "0s has 10.0.0.7/24", "10s lost"}},
		{"renews when asked", s("up", time.Hour), nil, 10, func(*server) map[int]func(*Client) {
			return map[int]func(*Client){0: up, 4: (*Client).Renew}
		}, []string{"0s discover", "0s has 10.0.0.7/24", "4s renew", "4s has 10.0.0.7/24"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := play(t, tt.srv, tt.adopted, tt.seconds, tt.step(tt.srv))
			if tt.want == nil { // times are jittered: the words count
				if got[0] != "0s confirm" || got[len(got)-2] != "60s lost" || got[len(got)-1] != "60s discover" {
					t.Errorf("%q", got)
				}
				return
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

// Neither silence nor an interface that fails at once may make the client busy.
func TestBackOff(t *testing.T) {
	for _, mode := range []string{"silent", "broken"} {
		got := play(t, &server{mode: mode, life: time.Hour}, nil, 3600, map[int]func(*Client){0: up})
		// 4, 8, 16, 32, then 64 s: 3600 s hold about 60.
		if n := len(got); n < 50 || n > 65 {
			t.Errorf("%s: %d tries in an hour", mode, n)
		}
	}
}
