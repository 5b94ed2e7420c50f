package net

import (
	"fmt"
	stdnet "net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/server4"
	"golang.org/x/sys/unix"

	"ballast/configs/model"
	"ballast/services/ipc/status"
)

// dhcpServer answers in a namespace of its own, at the other end of a veth.
type dhcpServer struct {
	mu   sync.Mutex
	mode string // "", "silent", "nak", "rebind only"
	host byte
	life time.Duration
	seen []string
	new  chan struct{}
	ns   *os.File
}

func (s *dhcpServer) set(mode string, host byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mode, s.host, s.seen = mode, host, nil
}

// await waits for a message since the last set.
func (s *dhcpServer) await(t *testing.T, what string) {
	t.Helper()
	late := time.After(40 * time.Second)
	for {
		s.mu.Lock()
		found, seen, next := slices.Contains(s.seen, what), strings.Join(s.seen, ", "), s.new
		s.mu.Unlock()
		if found {
			return
		}
		select {
		case <-next:
		case <-late:
			t.Fatalf("the DHCP server never saw %q, but %s", what, seen)
		}
	}
}

func (s *dhcpServer) handle(conn stdnet.PacketConn, peer stdnet.Addr, m *dhcpv4.DHCPv4) {
	s.mu.Lock()
	defer s.mu.Unlock()
	what := strings.ToLower(m.MessageType().String())
	unicast := !m.ClientIPAddr.IsUnspecified() && peer.(*stdnet.UDPAddr).IP.Equal(m.ClientIPAddr)
	if m.MessageType() == dhcpv4.MessageTypeRequest {
		switch {
		case unicast:
			what = "renew"
		case !m.ClientIPAddr.IsUnspecified():
			what = "rebind"
		case m.ServerIdentifier() == nil:
			what = "confirm"
		}
	}
	s.seen = append(s.seen, what)
	close(s.new)
	s.new = make(chan struct{})
	if s.mode == "silent" || s.mode == "rebind only" && what == "renew" {
		return
	}
	typ := dhcpv4.MessageTypeAck
	if m.MessageType() == dhcpv4.MessageTypeDiscover {
		typ = dhcpv4.MessageTypeOffer
	} else if s.mode == "nak" && what != "request" {
		typ = dhcpv4.MessageTypeNak
	}
	mods := []dhcpv4.Modifier{dhcpv4.WithMessageType(typ), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(stdnet.IPv4(10, 7, 0, 1)))}
	if typ != dhcpv4.MessageTypeNak {
		mods = append(mods, dhcpv4.WithYourIP(stdnet.IPv4(10, 7, 0, s.host)), dhcpv4.WithNetmask(stdnet.CIDRMask(24, 32)),
			dhcpv4.WithRouter(stdnet.IPv4(10, 7, 0, 1)), dhcpv4.WithDNS(stdnet.IPv4(10, 7, 0, 53)), dhcpv4.WithLeaseTime(uint32(s.life/time.Second)))
	}
	reply, err := dhcpv4.NewReplyFromRequest(m, mods...)
	if err != nil {
		return
	}
	if !unicast {
		peer = &stdnet.UDPAddr{IP: stdnet.IPv4bcast, Port: 68}
	}
	conn.WriteTo(reply.ToBytes(), peer)
}

// in runs a command in the server's namespace.
func (s *dhcpServer) in(t *testing.T, line string) {
	t.Helper()
	words := append([]string{"--net=/proc/self/fd/3"}, strings.Fields(line)...)
	cmd := exec.Command("nsenter", words...)
	cmd.ExtraFiles = []*os.File{s.ns}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v %s", line, err, out)
	}
}

// startDHCP makes eth0 here and srv there, where the server listens.
func startDHCP(t *testing.T, life time.Duration) *dhcpServer {
	t.Helper()
	s := &dhcpServer{host: 7, life: life, new: make(chan struct{})}
	ready := make(chan error, 1)
	var srv *server4.Server
	go func() { // on a thread that dies with the goroutine
		runtime.LockOSThread()
		ready <- func() error {
			home, err := os.Open("/proc/thread-self/ns/net")
			if err != nil {
				return err
			}
			defer home.Close()
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return err
			}
			if s.ns, err = os.Open("/proc/thread-self/ns/net"); err != nil {
				return err
			}
			if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
				return err
			}
			move := exec.Command("ip", "link", "add", "eth0", "address", "02:00:00:00:00:07", "type", "veth", "peer", "name", "srv", "netns", "/proc/self/fd/3")
			move.ExtraFiles = []*os.File{s.ns}
			if out, err := move.CombinedOutput(); err != nil {
				return fmt.Errorf("veth: %w %s", err, out)
			}
			if err := unix.Setns(int(s.ns.Fd()), unix.CLONE_NEWNET); err != nil {
				return err
			}
			for _, line := range []string{"link set srv up", "addr add 10.7.0.1/24 dev srv", "route add default dev srv"} {
				if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
					return fmt.Errorf("%s: %w %s", line, err, out)
				}
			}
			srv, err = server4.NewServer("srv", &stdnet.UDPAddr{IP: stdnet.IPv4zero, Port: 67}, s.handle)
			return err
		}()
	}()
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { srv.Serve(); close(done) }()
	t.Cleanup(func() { srv.Close(); <-done; s.ns.Close() })
	return s
}

func TestDHCP(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	srv := startDHCP(t, 4*time.Second)
	c := model.Config{
		System:     model.System{HostName: "director-a", DNS: []netip.Addr{ip("192.0.2.53")}},
		Interfaces: []model.Interface{{Name: "eth0", DHCP: true, Addresses: []netip.Prefix{prefix("192.0.2.1/24")}}},
	}
	b := newBox(t)
	b.commit(c)
	has := func(host string, life ...string) func(status.Net) bool {
		return func(n status.Net) bool {
			def := slices.ContainsFunc(n.Routes, func(r status.Route) bool {
				return r.Dst.Bits() == 0 && r.Via == ip("10.7.0.1") && r.Metric == 200 && r.Origin == "dhcp" && r.Interface == "eth0"
			})
			return slices.Contains(addrsOf(n, "eth0"), host+" dhcp") && def && slices.Contains(addrsOf(n, "eth0"), "192.0.2.1/24 static") && len(addrsOf(n, "eth0")) == 2
		}
	}
	lost := func(n status.Net) bool {
		return slices.Equal(addrsOf(n, "eth0"), []string{"192.0.2.1/24 static"}) && !slices.ContainsFunc(n.Routes, func(r status.Route) bool { return r.Dst.Bits() == 0 })
	}
	st := b.await("the first lease", has("10.7.0.7/24"))
	if d := cmp.Diff("[192.0.2.53 10.7.0.53]", fmt.Sprint(st.DNS)); d != "" {
		t.Errorf("DNS: %s", d)
	}
	text, err := os.ReadFile(filepath.Join(string(b.dir), "resolv.conf"))
	if d := cmp.Diff("# written by net\nnameserver 192.0.2.53\nnameserver 10.7.0.53\n", string(text)); d != "" || err != nil {
		t.Errorf("resolv.conf: %v: %s", err, d)
	}
	b.log.await(t, "dhcp eth0: 10.7.0.7/24 from 10.7.0.1 for 4s")

	srv.set("", 7)
	srv.await(t, "renew")
	b.log.await(t, "apply: lifetime address 10.7.0.7/24")
	b.await("the lease after a renewal", has("10.7.0.7/24"))

	srv.set("rebind only", 7)
	srv.await(t, "rebind")
	b.await("the lease after a rebind", has("10.7.0.7/24"))

	// A restart keeps the address, confirms it and changes nothing. Of a lease that was
	// renewed half is left at least: enough for a machine that stands still meanwhile.
	b.log.applied()
	srv.set("", 7)
	srv.await(t, "renew")
	b.log.await(t, "apply: lifetime address 10.7.0.7/24")
	b.stop()
	b.log.applied()
	b.start()
	srv.await(t, "confirm")
	b.await("the lease after a restart", has("10.7.0.7/24"))
	for _, op := range b.log.applied() {
		if !strings.HasPrefix(op, "lifetime address") {
			t.Errorf("the restarted service did %q", op)
		}
	}

	// The address moves: NAK, then another one.
	srv.set("nak", 8)
	b.await("another address after a NAK", has("10.7.0.8/24"))

	// The server is silent: the address expires, and is back when the server is.
	srv.set("silent", 8)
	b.await("no address after expiry", lost)
	srv.set("", 9)
	b.await("a lease again", has("10.7.0.9/24"))

	// The cable goes and comes back: the client asks at once for what it had.
	srv.mu.Lock()
	srv.life = time.Hour
	srv.mu.Unlock()
	b.log.await(t, "for 1h0m0s")
	srv.set("", 9)
	b.log.applied()
	srv.in(t, "ip link set srv down")
	b.log.await(t, "eth0: up -> down: no carrier")
	srv.in(t, "ip link set srv up")
	srv.await(t, "confirm")
	b.await("the lease after a flap", has("10.7.0.9/24"))

	// The operator asks.
	var names []string
	srv.set("", 9)
	srv.in(t, "ip route replace default dev srv") // went with the link
	if err := b.dir.Client("net").Call(t.Context(), "renew", Renew{"eth0"}, &names); err != nil || !slices.Equal(names, []string{"eth0"}) {
		t.Errorf("renew: %q %v", names, err)
	}
	srv.await(t, "renew")
	if err := b.dir.Client("net").Call(t.Context(), "renew", Renew{"eth7"}, &names); err == nil || !strings.Contains(err.Error(), "eth7: no DHCP client") {
		t.Errorf("renew eth7: %v", err)
	}

	// DHCP is taken out of the configuration.
	c.Interfaces[0].DHCP = false
	if st := b.commit(c); !lost(st) {
		t.Errorf("addresses after dhcp was taken out: %q, routes %+v", addrsOf(st, "eth0"), st.Routes)
	}
	b.idle(c)
}
