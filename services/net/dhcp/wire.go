package dhcp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Wire is the Exchange over a real interface.
type Wire struct {
	Interface string
	HostName  string // option 12; empty: not sent
}

// Ports of DHCPv4.
const (
	serverPort = 67
	clientPort = 68
)

// replies lets only UDP to port 68 through: a director's interface carries a
// million packets a second that are none of the client's business. Offsets count
// from the IP header (a SOCK_DGRAM packet socket).
var replies = []bpf.Instruction{
	bpf.LoadAbsolute{Off: 9, Size: 1}, // protocol
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_UDP, SkipTrue: 6},
	bpf.LoadAbsolute{Off: 6, Size: 2}, // flags and fragment offset
	bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 0x1fff, SkipTrue: 4},
	bpf.LoadMemShift{Off: 0}, // X = header length
	bpf.LoadIndirect{Off: 2, Size: 2},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: clientPort, SkipTrue: 1},
	bpf.RetConstant{Val: 65535},
	bpf.RetConstant{Val: 0},
}

func (w Wire) client(opts ...nclient4.ClientOpt) (*nclient4.Client, *net.Interface, error) {
	ifc, err := net.InterfaceByName(w.Interface)
	if err != nil {
		return nil, nil, fmt.Errorf("dhcp: %w", err)
	}
	filter, err := bpf.Assemble(replies)
	if err != nil {
		return nil, nil, fmt.Errorf("dhcp %s: filter: %w", w.Interface, err)
	}
	raw, err := packet.Listen(ifc, packet.Datagram, unix.ETH_P_IP, &packet.Config{Filter: filter})
	if err != nil {
		return nil, nil, fmt.Errorf("dhcp %s: %w", w.Interface, err)
	}
	conn := nclient4.NewBroadcastUDPConn(raw, &net.UDPAddr{Port: clientPort})
	c, err := nclient4.NewWithConn(conn, ifc.HardwareAddr, append(opts, nclient4.WithRetry(1))...)
	if err != nil {
		raw.Close()
		return nil, nil, fmt.Errorf("dhcp %s: %w", w.Interface, err)
	}
	return c, ifc, nil
}

// unicast is a client whose packets the kernel routes, from the leased address
// to the server. It uses a raw socket, because port 68 takes a capability that
// net does not have.
func (w Wire) unicast(l Lease, timeout time.Duration) (*nclient4.Client, *net.Interface, error) {
	ifc, err := net.InterfaceByName(w.Interface)
	if err != nil {
		return nil, nil, fmt.Errorf("dhcp: %w", err)
	}
	filter, err := bpf.Assemble(replies)
	if err != nil {
		return nil, nil, fmt.Errorf("dhcp %s: filter: %w", w.Interface, err)
	}
	prog := make([]unix.SockFilter, len(filter))
	for i, f := range filter {
		prog[i] = unix.SockFilter{Code: f.Op, Jt: f.Jt, Jf: f.Jf, K: f.K}
	}
	lc := net.ListenConfig{Control: func(_, _ string, rc syscall.RawConn) error {
		var serr error
		if err := rc.Control(func(fd uintptr) {
			serr = errors.Join(
				unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}),
				unix.SetsockoptString(int(fd), unix.SOL_SOCKET, unix.SO_BINDTODEVICE, w.Interface))
		}); err != nil {
			return err
		}
		return serr
	}}
	raw, err := lc.ListenPacket(context.Background(), "ip4:udp", l.Addr.Addr().String())
	if err != nil {
		return nil, nil, fmt.Errorf("dhcp %s: %w", w.Interface, err)
	}
	c, err := nclient4.NewWithConn(udpConn{raw}, ifc.HardwareAddr, nclient4.WithRetry(1), nclient4.WithTimeout(timeout),
		nclient4.WithServerAddr(&net.UDPAddr{IP: l.Server.AsSlice(), Port: serverPort}))
	if err != nil {
		raw.Close()
		return nil, nil, fmt.Errorf("dhcp %s: %w", w.Interface, err)
	}
	return c, ifc, nil
}

// udpConn puts UDP's header (RFC 768) on and takes it off a raw IP socket.
type udpConn struct{ net.PacketConn }

const udpHeader = 8

// WriteTo implements net.PacketConn. The checksum is left out, as IPv4 allows.
func (c udpConn) WriteTo(b []byte, addr net.Addr) (int, error) {
	to, ok := addr.(*net.UDPAddr)
	if !ok {
		return 0, fmt.Errorf("dhcp: %T is no UDP address", addr)
	}
	p := make([]byte, udpHeader, udpHeader+len(b))
	binary.BigEndian.PutUint16(p, clientPort)
	binary.BigEndian.PutUint16(p[2:], uint16(to.Port))
	binary.BigEndian.PutUint16(p[4:], uint16(udpHeader+len(b)))
	n, err := c.PacketConn.WriteTo(append(p, b...), &net.IPAddr{IP: to.IP})
	return max(n-udpHeader, 0), err
}

// ReadFrom implements net.PacketConn. The filter lets only packets to the
// client's port through.
func (c udpConn) ReadFrom(b []byte) (int, net.Addr, error) {
	p := make([]byte, udpHeader+len(b))
	for {
		n, from, err := c.PacketConn.ReadFrom(p)
		if err != nil {
			return 0, nil, err
		}
		ip, ok := from.(*net.IPAddr)
		if n < udpHeader || !ok || binary.BigEndian.Uint16(p[2:]) != clientPort {
			continue
		}
		return copy(b, p[udpHeader:n]), &net.UDPAddr{IP: ip.IP, Port: int(binary.BigEndian.Uint16(p))}, nil
	}
}

func (w Wire) options() []dhcpv4.Modifier {
	mods := []dhcpv4.Modifier{
		dhcpv4.WithRequestedOptions(dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionDomainNameServer,
			dhcpv4.OptionClasslessStaticRoute, dhcpv4.OptionIPAddressLeaseTime),
		dhcpv4.WithOption(dhcpv4.OptMaxMessageSize(nclient4.MaxMessageSize)),
	}
	if w.HostName != "" {
		mods = append(mods, dhcpv4.WithOption(dhcpv4.OptHostName(w.HostName)))
	}
	return mods
}

// Discover implements Exchange.
func (w Wire) Discover(ctx context.Context, timeout time.Duration) (Lease, error) {
	c, _, err := w.client(nclient4.WithTimeout(timeout))
	if err != nil {
		return Lease{}, err
	}
	defer c.Close()
	start := time.Now()
	l, err := c.Request(ctx, w.options()...)
	if err != nil {
		return Lease{}, answer(err)
	}
	return leaseOf(l.ACK, start)
}

// Request implements Exchange.
func (w Wire) Request(ctx context.Context, how How, l Lease, timeout time.Duration) (Lease, error) {
	var c *nclient4.Client
	var ifc *net.Interface
	var err error
	if how == Renew {
		c, ifc, err = w.unicast(l, timeout)
	} else {
		c, ifc, err = w.client(nclient4.WithTimeout(timeout))
	}
	if err != nil {
		return Lease{}, err
	}
	defer c.Close()
	ip := net.IP(l.Addr.Addr().AsSlice())
	mods := append(w.options(), dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), dhcpv4.WithHwAddr(ifc.HardwareAddr))
	if how == Reboot { // RFC 2131 4.3.2: the address as an option; ciaddr, server identifier empty
		mods = append(mods, dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(ip)))
	} else {
		mods = append(mods, dhcpv4.WithClientIP(ip))
	}
	req, err := dhcpv4.New(mods...)
	if err != nil {
		return Lease{}, fmt.Errorf("dhcp %s: %w", w.Interface, err)
	}
	start := time.Now()
	ack, err := c.SendAndRead(ctx, c.RemoteAddr(), req, nclient4.IsMessageType(dhcpv4.MessageTypeAck, dhcpv4.MessageTypeNak))
	if err != nil {
		return Lease{}, answer(err)
	}
	if ack.MessageType() == dhcpv4.MessageTypeNak {
		return Lease{}, ErrNAK
	}
	n, err := leaseOf(ack, start)
	if err == nil && n.Addr.Addr() != l.Addr.Addr() {
		return Lease{}, fmt.Errorf("the server answers a request for %s with %s", l.Addr.Addr(), n.Addr.Addr())
	}
	return n, err
}

// answer turns the library's errors into ours.
func answer(err error) error {
	var nak *nclient4.ErrNak
	switch {
	case errors.As(err, &nak):
		return ErrNAK
	case errors.Is(err, nclient4.ErrNoResponse):
		return errNoAnswer
	}
	return err
}
