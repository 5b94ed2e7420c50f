package netboot

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// probeAge is for how long it counts what a look has found, or a request has
// told: a server that is gone gives no addresses, and a request can be forged. A
// test has it shorter.
var probeAge = 30 * time.Second

// probeWait is for an answer; a boot ROM waits for 4 s and more.
const probeWait = 1200 * time.Millisecond

// look finds out whether another DHCP server would give the box that asks an
// address, and then answers the box. Called with mu held.
func (g *segment) look(conn *net.UDPConn, m *dhcpv4.DHCPv4, from netip.AddrPort) {
	if g.probing {
		return // it asks again
	}
	g.probing = true
	g.tasks.Go(func() {
		found, err := g.probe(m.ClientHWAddr)
		s := g.s
		s.mu.Lock()
		defer s.mu.Unlock()
		g.probing, g.probed = false, time.Now()
		if err != nil {
			s.env.Log.Warn(fmt.Sprintf("%s: look for a DHCP server: %v", g.name, err))
		}
		if g.other != found {
			if found.IsValid() {
				s.env.Log.Info(fmt.Sprintf("%s: %s is a DHCP server: this box leaves addresses to it", g.name, found))
			}
			g.other = found
		}
		if b := g.box(m.ClientHWAddr.String()); b != nil && g.ctx.Err() == nil {
			g.reply(conn, m, from, dhcpv4.ServerPort, b)
		}
	})
}

// probe asks for an address as the box would, and tells who else offers one.
func (g *segment) probe(mac net.HardwareAddr) (netip.Addr, error) {
	c, err := bound(g.name).ListenPacket(g.ctx, "udp4", fmt.Sprintf("0.0.0.0:%d", dhcpv4.ClientPort))
	if err != nil {
		return netip.Addr{}, err
	}
	conn := c.(*net.UDPConn)
	defer conn.Close()
	stop := context.AfterFunc(g.ctx, func() { conn.Close() })
	defer stop()
	ask, err := dhcpv4.NewDiscovery(mac, dhcpv4.WithBroadcast(true))
	if err != nil {
		return netip.Addr{}, err
	}
	to := netip.AddrPortFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), dhcpv4.ServerPort)
	if _, err := conn.WriteToUDPAddrPort(ask.ToBytes(), to); err != nil {
		return netip.Addr{}, err
	}
	conn.SetReadDeadline(time.Now().Add(probeWait))
	buf := make([]byte, 4096)
	for {
		n, _, err := conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return netip.Addr{}, nil // nobody, in time
		}
		m, err := dhcpv4.FromBytes(buf[:n])
		if err != nil || m.TransactionID != ask.TransactionID || m.MessageType() != dhcpv4.MessageTypeOffer {
			continue
		}
		if a, ok := netip.AddrFromSlice(m.ServerIdentifier().To4()); ok && a != g.network.Addr() && !m.YourIPAddr.IsUnspecified() {
			return a, nil
		}
	}
}
