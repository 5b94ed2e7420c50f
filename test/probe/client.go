// Package probe asks a virtual address from the side of its clients: by UDP a
// thousand times a second, for the length of an outage, and by ARP, for who has
// it. Boxes and clients are network namespaces of one machine.
package probe

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netns"
)

// EchoPort is where Echo answers and a Client asks (RFC 862).
const EchoPort = 7

// Inside runs fn on a thread in a network namespace, for the sockets it makes.
func Inside(space string, fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		h, err := netns.GetFromName(space)
		if err == nil {
			err = netns.Set(h)
			h.Close()
		}
		if err == nil {
			err = fn()
		}
		done <- err
	}()
	return <-done
}

// socket is a UDP socket in a namespace.
func socket(space string, port int) (conn *net.UDPConn, err error) {
	err = Inside(space, func() (err error) {
		conn, err = net.ListenUDP("udp4", &net.UDPAddr{Port: port})
		return err
	})
	return conn, err
}

// Echo answers every datagram to EchoPort in a namespace, on all its addresses,
// until stop.
func Echo(space string) (stop func(), err error) {
	c, err := socket(space, EchoPort)
	if err != nil {
		return nil, fmt.Errorf("probe: echo in %s: %w", space, err)
	}
	go func() {
		b := make([]byte, 64)
		for {
			k, from, err := c.ReadFromUDPAddrPort(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				c.WriteToUDPAddrPort(b[:k], from)
			}
		}
	}()
	return func() { c.Close() }, nil
}

// Client asks a virtual address a thousand times a second.
type Client struct {
	mu   sync.Mutex
	sent []time.Time
	got  []bool
}

// late is how long an answer may take: what was sent since then is not judged.
const late = 50 * time.Millisecond

// patience is how long a virtual address may be away.
const patience = 30 * time.Second

// Ask starts a client in a namespace, until stop.
func Ask(space string, vip netip.Addr) (c *Client, stop func(), err error) {
	conn, err := socket(space, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("probe: client in %s: %w", space, err)
	}
	c = &Client{}
	ended := make(chan struct{})
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
		to := netip.AddrPortFrom(vip, EchoPort)
		t := time.NewTicker(time.Millisecond)
		defer t.Stop()
		for {
			select {
			case <-t.C:
			case <-ended:
				return
			}
			c.mu.Lock()
			i := len(c.sent)
			c.sent, c.got = append(c.sent, time.Now()), append(c.got, false)
			c.mu.Unlock()
			conn.WriteToUDPAddrPort(binary.BigEndian.AppendUint64(nil, uint64(i)), to)
		}
	}()
	return c, func() { close(ended); conn.Close() }, nil
}

// Answered waits until all requests of the last while were answered, and
// forgets what was before it.
func (c *Client) Answered(ctx context.Context, while time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	start := time.Now()
	t := time.NewTicker(10 * time.Millisecond)
	defer t.Stop()
	for !c.whole(start, while) {
		select {
		case <-t.C:
		case <-ctx.Done():
			return fmt.Errorf("probe: the virtual address does not answer: %w", ctx.Err())
		}
	}
	return nil
}

// whole tells whether all requests of the last while were answered, which must
// not have begun before start.
func (c *Client) whole(start time.Time, while time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	end := time.Now().Add(-late)
	from := end.Add(-while)
	if from.Before(start) {
		return false
	}
	n := 0
	for i := len(c.sent) - 1; i >= 0 && !c.sent[i].Before(from); i-- {
		if c.sent[i].After(end) {
			continue
		}
		if !c.got[i] {
			return false
		}
		n++
	}
	return n > 0
}

// Outage is the longest time between the sending of two answered requests since
// a moment, which should lie a little before what is measured.
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

// Lost is how many requests since a moment were never answered.
func (c *Client) Lost(since time.Time) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	first, _ := slices.BinarySearchFunc(c.sent, since, time.Time.Compare)
	for i := first; i < len(c.sent) && time.Since(c.sent[i]) > late; i++ {
		if !c.got[i] {
			n++
		}
	}
	return n
}
