package netboot

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/sys/unix"

	"ballast/configs/printable"
	"ballast/services/ipc/status"
	"ballast/services/netboot/tftp"
)

// HTTPPort is where boxes fetch by HTTP: TCP, on the own address of the
// interface.
const HTTPPort = 1914

const tftpPort = 69

// segment is one interface on which boxes are served: all its sockets. Each is
// bound to the interface, so that nobody elsewhere reaches them.
type segment struct {
	s       *service
	name    string
	network netip.Prefix // own address
	stop    context.CancelFunc
	ctx     context.Context
	tasks   sync.WaitGroup
	lookups chan struct{} // who asks the kernel for a neighbour at this moment

	// What follows is guarded by the service's mu.
	other   netip.Addr // a DHCP server that gives addresses here
	probed  time.Time  // when it was looked for one, or one was heard of
	probing bool
	fault   error // a socket that failed
}

// bound makes sockets of an interface. Only one's own interface may be named
// without a capability, and that is what this is for (SO_BINDTODEVICE, Linux 5.7).
func bound(dev string) *net.ListenConfig {
	return &net.ListenConfig{Control: control(dev)}
}

func control(dev string) func(string, string, syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		var err error
		if cerr := c.Control(func(fd uintptr) {
			err = errors.Join(unix.SetsockoptString(int(fd), unix.SOL_SOCKET, unix.SO_BINDTODEVICE, dev),
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1))
		}); cerr != nil {
			return cerr
		}
		return err
	}
}

// open begins to serve on an interface.
func (s *service) open(name string, network netip.Prefix) (*segment, error) {
	ctx, cancel := context.WithCancel(context.Background())
	g := &segment{s: s, name: name, network: network, ctx: ctx, stop: cancel, lookups: make(chan struct{}, maxLookups)}
	fail := func(what string, err error) (*segment, error) {
		g.close()
		return nil, fmt.Errorf("%s on %s: %w", what, name, err)
	}
	lc := bound(name)
	own := network.Addr()
	var udp []*net.UDPConn
	for _, at := range []netip.AddrPort{
		netip.AddrPortFrom(netip.IPv4Unspecified(), dhcpv4.ServerPort), netip.AddrPortFrom(own, proxyPort), netip.AddrPortFrom(own, tftpPort),
	} {
		c, err := lc.ListenPacket(ctx, "udp4", at.String())
		if err != nil {
			for _, c := range udp {
				c.Close()
			}
			return fail(fmt.Sprintf("UDP port %d", at.Port()), err)
		}
		udp = append(udp, c.(*net.UDPConn))
	}
	l, err := lc.Listen(ctx, "tcp4", netip.AddrPortFrom(own, HTTPPort).String())
	if err != nil {
		for _, c := range udp {
			c.Close()
		}
		return fail(fmt.Sprintf("TCP port %d", HTTPPort), err)
	}
	run := func(f func() error) {
		g.tasks.Go(func() {
			if err := f(); err != nil && ctx.Err() == nil {
				s.env.Log.Error(fmt.Sprintf("%s: %v", name, err))
				s.mu.Lock()
				g.fault = err
				s.mu.Unlock()
				s.poke()
			}
		})
	}
	run(func() error { return g.dhcp(udp[0], dhcpv4.ServerPort) })
	run(func() error { return g.dhcp(udp[1], proxyPort) })
	run(func() error { return g.tftp().Serve(ctx, udp[2]) })
	run(func() error { return g.http(l) })
	s.env.Log.Info(fmt.Sprintf("serving on %s, %s", name, own))
	return g, nil
}

func (g *segment) close() {
	g.stop()
	g.tasks.Wait()
}

// broken reports whether a socket failed. Called with mu held.
func (g *segment) broken() bool { return g.fault != nil }

// box finds who is served here by its MAC. Called with mu held.
func (g *segment) box(mac string) *box {
	b := g.s.boxes[mac]
	if b == nil || b.ifname != g.name || !b.network.IsValid() {
		return nil
	}
	return b
}

// dhcp answers on one port until the segment is closed.
func (g *segment) dhcp(conn *net.UDPConn, port int) error {
	stop := context.AfterFunc(g.ctx, func() { conn.Close() })
	defer stop()
	defer conn.Close()
	buf := make([]byte, 4096)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if g.ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("DHCP: %w", err)
		}
		m, err := dhcpv4.FromBytes(buf[:n])
		if err != nil || len(m.ClientHWAddr) != 6 {
			continue
		}
		g.request(conn, m, netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), port)
	}
}

// request handles one request.
func (g *segment) request(conn *net.UDPConn, m *dhcpv4.DHCPv4, from netip.AddrPort, port int) {
	s := g.s
	s.mu.Lock()
	defer s.mu.Unlock()
	b := g.box(m.ClientHWAddr.String())
	if b == nil {
		return
	}
	if o := otherServer(m, g.network.Addr()); o.IsValid() {
		if g.other != o {
			g.other, g.probed = o, time.Now()
			s.env.Log.Info(fmt.Sprintf("%s: %s is a DHCP server too", g.name, o))
		}
	}
	if k, _ := kindOf(m); k == other {
		return // its operating system: not our matter
	}
	if port == dhcpv4.ServerPort && m.MessageType() == dhcpv4.MessageTypeDiscover && b.unsure(g, time.Now()) {
		g.look(conn, m, from) // the answer comes when that is known
		return
	}
	g.reply(conn, m, from, port, b)
}

// reply sends the answer to a request. Called with mu held.
func (g *segment) reply(conn *net.UDPConn, m *dhcpv4.DHCPv4, from netip.AddrPort, port int, b *box) {
	proxy, _ := b.proxied(g)
	r, note := answer(m, port, place{Server: g.network, Addr: b.addr, Proxy: proxy, Base: g.base(b)})
	if note != "" && b.event("%s", note) {
		g.s.env.Log.Info(fmt.Sprintf("%s (%s): %s", b.Name, b.MAC, note))
		defer g.s.changed()
	}
	if r == nil {
		return
	}
	to := destination(m, from, port)
	if _, err := conn.WriteToUDPAddrPort(r.ToBytes(), to); err != nil {
		b.event("an answer could not be sent: %v", err)
	}
}

// base is the URL of a box's folder for the boot that is under way.
func (g *segment) base(b *box) string {
	return fmt.Sprintf("http://%s/%s/", netip.AddrPortFrom(g.network.Addr(), HTTPPort), b.boot())
}

// changed has the state published without waiting; called with mu held.
func (s *service) changed() { go s.publish() }

// maxLookups is how many addresses may be unknown to the kernel at a time, of the
// sixteen transfers that there may be.
const maxLookups = 8

// who tells which box an address is, by what the kernel knows of its
// neighbours: that is what a request by TFTP or HTTP is judged by.
func (g *segment) who(a netip.Addr) *box {
	a = a.Unmap()
	look := func() (b *box, known bool) {
		table, err := os.ReadFile(g.s.places.arp)
		if err != nil {
			return nil, false
		}
		mac := neighbour(table, g.name, a)
		if mac == "" {
			return nil, false
		}
		g.s.mu.Lock()
		defer g.s.mu.Unlock()
		return g.box(mac), true
	}
	if b, known := look(); known || !g.network.Contains(a) {
		return b
	}
	// Strangers with addresses that nobody has leave room for boxes.
	select {
	case g.lookups <- struct{}{}:
		defer func() { <-g.lookups }()
	default:
		return nil
	}
	// A first packet by UDP makes the kernel know nothing yet: something that goes
	// the other way does, to the discard port.
	d := net.Dialer{Control: control(g.name)}
	c, err := d.DialContext(g.ctx, "udp4", netip.AddrPortFrom(a, 9).String())
	if err != nil {
		return nil
	}
	defer c.Close()
	c.Write(nil)
	// The kernel asks three times, a second apart; a boot ROM takes a refusal for the
	// last word.
	for range 70 {
		select {
		case <-g.ctx.Done():
			return nil
		case <-time.After(50 * time.Millisecond):
		}
		if b, known := look(); known {
			return b
		}
	}
	return nil
}

// tftp is the server of this segment.
func (g *segment) tftp() *tftp.Server {
	return &tftp.Server{
		Open: func(from netip.AddrPort, name string) (tftp.File, error) {
			b := g.who(from.Addr())
			if b == nil {
				return nil, os.ErrPermission
			}
			return g.s.file(b, g, name)
		},
		Dial: func(to netip.AddrPort) (net.Conn, error) {
			d := net.Dialer{Control: control(g.name), LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(g.network.Addr(), 0))}
			return d.DialContext(g.ctx, "udp4", to.String())
		},
		Progress: func(from netip.AddrPort, name string, sent, size int64, done bool, err error) {
			var ended *tftp.Ended
			if errors.As(err, &ended) && sent == 0 {
				return // it asked for the size only
			}
			if errors.Is(err, os.ErrPermission) {
				return // a stranger
			}
			if b := g.who(from.Addr()); b != nil {
				g.s.progress(b, status.NetbootTransfer{File: printable.Line(name), By: "TFTP", Sent: sent, Size: size}, done, err)
			}
		},
	}
}

// progress notes how a transfer goes.
func (s *service) progress(b *box, t status.NetbootTransfer, done bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !done:
		b.transfer = &t
	case err != nil:
		b.transfer = nil
		if b.event("%s by %s: %d of %d bytes: %v", t.File, t.By, t.Sent, t.Size, err) {
			s.env.Log.Warn(fmt.Sprintf("%s (%s): %s by %s: %v", b.Name, b.MAC, t.File, t.By, err))
		}
	default:
		b.transfer = nil
		if b.event("%s by %s: %s", t.File, t.By, megabytes(t.Size)) {
			s.env.Log.Info(fmt.Sprintf("%s (%s): got %s by %s, %s", b.Name, b.MAC, t.File, t.By, megabytes(t.Size)))
		}
	}
	s.changed()
}

func megabytes(n int64) string {
	if n < 100_000 {
		return fmt.Sprintf("%d bytes", n)
	}
	return fmt.Sprintf("%.1f MB", float64(n)/1e6)
}
