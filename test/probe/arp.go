package probe

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// ARP asks from a namespace's eth0 who has an address.
type ARP struct {
	fd  int
	to  unix.SockaddrLinklayer
	mac net.HardwareAddr
}

// NewARP makes the socket, until Close.
func NewARP(space string) (*ARP, error) {
	p := &ARP{fd: -1}
	err := Inside(space, func() error {
		ifi, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		const arp = unix.ETH_P_ARP&0xff<<8 | unix.ETH_P_ARP>>8
		if p.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, arp); err != nil {
			return err
		}
		p.mac = ifi.HardwareAddr
		p.to = unix.SockaddrLinklayer{Ifindex: ifi.Index, Protocol: arp, Halen: 6}
		tv := unix.NsecToTimeval(int64(2 * time.Millisecond))
		return errors.Join(unix.Bind(p.fd, &p.to), unix.SetsockoptTimeval(p.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv))
	})
	if err != nil {
		p.Close()
		return nil, fmt.Errorf("probe: ARP in %s: %w", space, err)
	}
	return p, nil
}

// Close ends it.
func (p *ARP) Close() {
	if p.fd >= 0 {
		unix.Close(p.fd)
	}
	p.fd = -1
}

// Await asks every 2 ms until an address answers from a MAC address; with an
// empty one from any, which it returns.
func (p *ARP) Await(ctx context.Context, addr netip.Addr, want string) (string, error) {
	buf := make([]byte, 128)
	for ctx.Err() == nil {
		unix.Sendto(p.fd, question(p.mac, addr), 0, &p.to)
		for {
			k, _, err := unix.Recvfrom(p.fd, buf, 0)
			if err != nil {
				break
			}
			if from, ok := answer(buf[:k], addr); ok && (want == "" || from.String() == want) {
				return from.String(), nil
			}
		}
	}
	return "", fmt.Errorf("probe: %s does not answer from %s: %w", addr, cmp.Or(want, "anywhere"), ctx.Err())
}

// question is an ARP request for an address (RFC 826), from nobody's address.
func question(from net.HardwareAddr, addr netip.Addr) []byte {
	b := make([]byte, 42)
	copy(b, "\xff\xff\xff\xff\xff\xff")
	copy(b[6:], from)
	binary.BigEndian.PutUint16(b[12:], unix.ETH_P_ARP)
	copy(b[14:], "\x00\x01\x08\x00\x06\x04\x00\x01")
	copy(b[22:], from)
	a := addr.As4()
	copy(b[38:], a[:])
	return b
}

// answer reads who answers for an address.
func answer(b []byte, addr netip.Addr) (net.HardwareAddr, bool) {
	a := addr.As4()
	if len(b) < 42 || b[20] != 0 || b[21] != 2 || string(b[28:32]) != string(a[:]) {
		return nil, false
	}
	return net.HardwareAddr(slices.Clone(b[22:28])), true
}
