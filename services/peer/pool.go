package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"ballast/services/ipc/status"

	"golang.org/x/sys/unix"
)

// pool are the connections of this box to the other one. Each carries one
// message at a time, so that a short question does not wait behind a commit.
type pool struct {
	cert tls.Certificate

	mu     sync.Mutex
	target status.PeerTarget // of those that are open
	free   []*tls.Conn
}

// ask sends a message and waits for its answer.
func (p *pool) ask(ctx context.Context, t status.PeerTarget, message []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, answering)
	defer cancel()
	if c := p.take(t); c != nil {
		out, sent, err := exchange(ctx, c, message)
		if err == nil || errors.Is(err, errAbsent) {
			p.give(t, c)
			return out, err
		}
		c.Close()
		if sent || ctx.Err() != nil {
			return nil, err // the other box may have got it
		}
	}
	c, err := p.dial(ctx, t)
	if err != nil {
		return nil, err
	}
	out, _, err := exchange(ctx, c, message)
	if err != nil && !errors.Is(err, errAbsent) {
		c.Close()
		return nil, err
	}
	p.give(t, c)
	return out, err
}

func (p *pool) take(t status.PeerTarget) *tls.Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t != p.target {
		p.closeLocked()
		p.target = t
	}
	for len(p.free) > 0 {
		c := p.free[len(p.free)-1]
		p.free = p.free[:len(p.free)-1]
		if alive(c) {
			return c
		}
		c.Close()
	}
	return nil
}

// alive tells whether the other box has not closed a connection on which nobody
// speaks: its restart must not cost a commit. It looks once and does not wait: a
// read with a deadline that is over before it begins, on a box that is busy, tells
// of no end.
func alive(c *tls.Conn) bool {
	sc, ok := c.NetConn().(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	var b [1]byte
	looked := errors.New("not looked")
	err = raw.Control(func(fd uintptr) {
		_, _, looked = unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	})
	return err == nil && errors.Is(looked, unix.EAGAIN) // nothing came, not even an end
}

func (p *pool) give(t status.PeerTarget, c *tls.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t != p.target || len(p.free) >= spare {
		c.Close()
		return
	}
	p.free = append(p.free, c)
}

func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closeLocked()
}

func (p *pool) closeLocked() {
	for _, c := range p.free {
		c.Close()
	}
	p.free = nil
}

func (p *pool) dial(ctx context.Context, t status.PeerTarget) (*tls.Conn, error) {
	want, err := parsePublic(t.Key)
	if err != nil {
		return nil, fmt.Errorf("the key of the peer: %w", err)
	}
	d := net.Dialer{Timeout: dial, KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 3}}
	if t.From.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(t.From, 0))
	}
	raw, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(t.Addr, t.Port).String())
	if err != nil {
		return nil, err
	}
	c := tls.Client(raw, pinned(p.cert, want))
	raw.SetDeadline(time.Now().Add(shake))
	if err := c.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, err
	}
	raw.SetDeadline(time.Time{})
	return c, nil
}

// exchange sends a message and reads the answer; sent: the other box may have it.
func exchange(ctx context.Context, c *tls.Conn, message []byte) (out []byte, sent bool, err error) {
	stop := context.AfterFunc(ctx, func() { c.NetConn().Close() })
	defer stop()
	c.SetDeadline(time.Now().Add(sending))
	if err := writeFrame(c, message); err != nil {
		return nil, false, err
	}
	c.SetDeadline(time.Now().Add(answering))
	if out, err = readFrame(c); err != nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	return out, true, err
}
