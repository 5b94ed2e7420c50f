package netseed

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/sys/unix"

	"ballast/image/layout"
)

// Waiting for answers. The server that knows the box looks for other DHCP
// servers before it answers, which takes it a second and more.
const (
	offersWait = 4 * time.Second
	// together is how long after an address has been offered the word of the
	// server that knows the box may still come.
	together = 2 * time.Second
	ackWait  = 3 * time.Second
)

// leased is what DHCP brought.
type leased struct {
	addr   netip.Prefix
	router netip.Addr // invalid: none
	source string     // of the server that knows this box; empty: none
}

// lease gets an address. Its sockets are ordinary ones, so that it takes no
// capability to look at every packet: answers are asked to go to all. quick: any
// address will do.
func lease(ctx context.Context, dev string, mac net.HardwareAddr, quick bool) (leased, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var serr error
		if err := c.Control(func(fd uintptr) {
			serr = errors.Join(unix.SetsockoptString(int(fd), unix.SOL_SOCKET, unix.SO_BINDTODEVICE, dev),
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1))
		}); err != nil {
			return err
		}
		return serr
	}}
	c, err := lc.ListenPacket(ctx, "udp4", fmt.Sprintf("0.0.0.0:%d", dhcpv4.ClientPort))
	if err != nil {
		return leased{}, fmt.Errorf("DHCP: %w", err)
	}
	conn := c.(*net.UDPConn)
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()

	ask := []dhcpv4.Modifier{dhcpv4.WithBroadcast(true), dhcpv4.WithOption(dhcpv4.OptClassIdentifier(layout.VendorClass)),
		dhcpv4.WithRequestedOptions(dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionBootfileName, dhcpv4.OptionClassIdentifier)}
	discover, err := dhcpv4.NewDiscovery(mac, ask...)
	if err != nil {
		return leased{}, fmt.Errorf("DHCP: %w", err)
	}
	if err := send(conn, discover); err != nil {
		return leased{}, err
	}
	var best offer
	err = receive(conn, discover, offersWait, func(m *dhcpv4.DHCPv4) (time.Duration, bool) {
		o, ok := offerOf(m)
		if !ok {
			return 0, false
		}
		best.join(o)
		return together, best.whole || quick && best.message != nil
	})
	if err != nil {
		return leased{}, err
	}
	if best.message == nil {
		return leased{}, errors.New("no DHCP server offers an address")
	}
	request, err := dhcpv4.NewRequestFromOffer(best.message, append(ask, dhcpv4.WithHwAddr(mac))...)
	if err != nil {
		return leased{}, fmt.Errorf("DHCP: %w", err)
	}
	if err := send(conn, request); err != nil {
		return leased{}, err
	}
	var got *leased
	var refused error
	err = receive(conn, request, ackWait, func(m *dhcpv4.DHCPv4) (time.Duration, bool) {
		switch m.MessageType() {
		case dhcpv4.MessageTypeNak:
			refused = errors.New("the DHCP server refuses the address that it has offered")
			return 0, true
		case dhcpv4.MessageTypeAck:
			if l, ok := addressOf(m); ok {
				got = &l
				return 0, true
			}
		}
		return 0, false
	})
	if err = errors.Join(err, refused); err != nil {
		return leased{}, err
	}
	if got == nil {
		return leased{}, errors.New("the DHCP server offers an address and does not give it")
	}
	got.source = best.source
	return *got, nil
}

func send(conn *net.UDPConn, m *dhcpv4.DHCPv4) error {
	to := netip.AddrPortFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), dhcpv4.ServerPort)
	if _, err := conn.WriteToUDPAddrPort(m.ToBytes(), to); err != nil {
		return fmt.Errorf("DHCP: %w", err)
	}
	return nil
}

// receive hands the answers to a message to f, for at most wait, until f is
// done. What f returns as a time, if any, is the most from the first such
// answer on.
func receive(conn *net.UDPConn, to *dhcpv4.DHCPv4, wait time.Duration, f func(*dhcpv4.DHCPv4) (time.Duration, bool)) error {
	deadline := time.Now().Add(wait)
	shortened := false
	buf := make([]byte, 4096)
	for {
		conn.SetReadDeadline(deadline)
		n, err := conn.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("DHCP: %w", err)
		}
		m, err := dhcpv4.FromBytes(buf[:n])
		if err != nil || m.OpCode != dhcpv4.OpcodeBootReply || m.TransactionID != to.TransactionID || m.ClientHWAddr.String() != to.ClientHWAddr.String() {
			continue
		}
		least, done := f(m)
		if done {
			return nil
		}
		if end := time.Now().Add(least); least > 0 && !shortened && end.Before(deadline) {
			deadline, shortened = end, true
		}
	}
}

// offer is the best of what was offered.
type offer struct {
	message *dhcpv4.DHCPv4 // with an address; nil: none so far
	own     bool           // message is from the server that knows this box
	source  string         // what that server said
	whole   bool           // nothing better can come
}

// offerOf reads one answer.
func offerOf(m *dhcpv4.DHCPv4) (offer, bool) {
	if m.MessageType() != dhcpv4.MessageTypeOffer {
		return offer{}, false
	}
	o := offer{own: m.ClassIdentifier() == layout.VendorClass}
	if o.own {
		if o.source = m.BootFileNameOption(); len(o.source) > 200 {
			return offer{}, false
		}
	}
	if _, ok := addressOf(m); ok {
		o.message = m
	}
	o.whole = o.own && o.source != "" && o.message != nil
	return o, o.source != "" || o.message != nil
}

// join adds another answer.
func (o *offer) join(n offer) {
	if o.source == "" {
		o.source = n.source
	}
	if n.message != nil && (o.message == nil || n.own && !o.own) {
		o.message, o.own = n.message, n.own
	}
	o.whole = o.source != "" && o.message != nil
}

// addressOf is the address in an answer.
func addressOf(m *dhcpv4.DHCPv4) (leased, bool) {
	a, ok := netip.AddrFromSlice(m.YourIPAddr.To4())
	if !ok || !a.IsGlobalUnicast() {
		return leased{}, false
	}
	ones, bits := m.SubnetMask().Size()
	if bits != 32 || ones == 0 {
		ones = 24
	}
	if id, ok := netip.AddrFromSlice(m.ServerIdentifier().To4()); !ok || id.IsUnspecified() {
		return leased{}, false
	}
	l := leased{addr: netip.PrefixFrom(a, ones)}
	for _, r := range m.Router() {
		if via, ok := netip.AddrFromSlice(r.To4()); ok && via.IsGlobalUnicast() && l.addr.Contains(via) && via != a {
			l.router = via
			break
		}
	}
	return l, true
}
