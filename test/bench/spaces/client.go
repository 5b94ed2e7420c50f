package spaces

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Client asks a virtual address a thousand times a second.
type Client struct {
	mu   sync.Mutex
	sent []time.Time
	got  []bool
}

// late is how long an answer may take: what was sent since then is not judged.
const late = 50 * time.Millisecond

// Client starts one on host c; it ends with the network.
func (n *Net) Client(vip netip.Addr) (*Client, error) {
	var conn *net.UDPConn
	if err := n.inside("c", func() (err error) {
		conn, err = net.ListenUDP("udp4", nil)
		return err
	}); err != nil {
		return nil, fmt.Errorf("spaces: client: %w", err)
	}
	c := &Client{}
	stop := make(chan struct{})
	n.defers(func() { close(stop); conn.Close() })
	go func() {
		b := make([]byte, 64)
		for {
			k, err := conn.Read(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil || k != 8 {
				continue
			}
			c.mu.Lock()
			if i := binary.BigEndian.Uint64(b); i < uint64(len(c.got)) {
				c.got[i] = true
			}
			c.mu.Unlock()
		}
	}()
	go func() {
		to := netip.AddrPortFrom(vip, 7)
		t := time.NewTicker(time.Millisecond)
		defer t.Stop()
		for {
			select {
			case <-t.C:
			case <-stop:
				return
			}
			c.mu.Lock()
			i := len(c.sent)
			c.sent, c.got = append(c.sent, time.Now()), append(c.got, false)
			c.mu.Unlock()
			conn.WriteToUDPAddrPort(binary.BigEndian.AppendUint64(nil, uint64(i)), to)
		}
	}()
	return c, nil
}

// Answered waits until all requests of the last while were answered, and
// forgets what was before it.
func (c *Client) Answered(ctx context.Context, while time.Duration) error {
	start := time.Now()
	return until(ctx, 30*time.Second, "the virtual address answers", func() (bool, error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		end := time.Now().Add(-late)
		from := end.Add(-while)
		if from.Before(start) {
			return false, nil
		}
		n := 0
		for i := len(c.sent) - 1; i >= 0 && !c.sent[i].Before(from); i-- {
			if c.sent[i].After(end) {
				continue
			}
			if !c.got[i] {
				return false, nil
			}
			n++
		}
		return n > 0, nil
	})
}

// Outage is the longest time between the sending of two answered requests since
// a moment, as every outage of the bench.
func (c *Client) Outage(since time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return longest(c.sent, c.got, since)
}

func longest(sent []time.Time, got []bool, since time.Time) (worst time.Duration) {
	first, _ := slices.BinarySearchFunc(sent, since, time.Time.Compare)
	var last time.Time
	for i := first; i < len(sent); i++ {
		if !got[i] {
			continue
		}
		if !last.IsZero() {
			worst = max(worst, sent[i].Sub(last))
		}
		last = sent[i]
	}
	return worst
}

// ARP asks from host c who has an address.
type ARP struct {
	fd  int
	to  unix.SockaddrLinklayer
	mac net.HardwareAddr
}

// ARP makes the socket; it ends with the network.
func (n *Net) ARP() (*ARP, error) {
	p := &ARP{}
	err := n.inside("c", func() error {
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
		return nil, fmt.Errorf("spaces: ARP: %w", err)
	}
	n.defers(func() { unix.Close(p.fd) })
	return p, nil
}

// Moved waits until an address answers from a box, every 2 ms anew.
func (p *ARP) Moved(ctx context.Context, addr netip.Addr, box int) error {
	want := mac(box, 0)
	for ctx.Err() == nil {
		unix.Sendto(p.fd, question(p.mac, addr), 0, &p.to)
		buf := make([]byte, 128)
		for {
			k, _, err := unix.Recvfrom(p.fd, buf, 0)
			if err != nil {
				break
			}
			if from, ok := answer(buf[:k], addr); ok && from.String() == want {
				return nil
			}
		}
	}
	return fmt.Errorf("spaces: %s does not answer from %s: %w", addr, want, ctx.Err())
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
