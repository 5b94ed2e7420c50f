// Package ether is an Ethernet switch inside the lab process: it joins the NICs
// of QEMU machines without root, taps or bridges. Each port is a pair of UDP
// sockets on the loopback interface, one datagram a frame, which is what QEMU's
// "-netdev socket,udp=" speaks. Cables can be pulled, pairs of ports kept apart,
// frames lost and delayed, and everything written to a pcap file.
package ether

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// MAC is an Ethernet address.
type MAC [6]byte

func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// group tells multicast and broadcast addresses (IEEE 802.3, 3.2.3).
func (m MAC) group() bool { return m[0]&1 == 1 }

// maxFrame is the largest datagram that QEMU sends.
const maxFrame = 69632

// Switch joins its ports. Make it with New.
type Switch struct {
	Name string

	mu      sync.RWMutex
	ports   []*Port
	learned map[MAC]*Port
	apart   map[[2]*Port]bool
	taps    map[*tap]bool
	closed  bool
	wg      sync.WaitGroup
}

type tap struct {
	fn func(time.Time, *Port, []byte)
}

// Port is one socket of a switch.
type Port struct {
	Name string
	s    *Switch
	conn *net.UDPConn
	nic  netip.AddrPort // QEMU's end

	up     atomic.Bool
	impair atomic.Pointer[Impairment]
	out    chan delayed
	stop   chan struct{}

	Received, Sent, Dropped atomic.Uint64 // frames from and to the NIC, and lost by impairment
	Unheard                 atomic.Uint64 // frames from the NIC while the cable was out
}

// Impairment is what a cable does to frames in either direction.
type Impairment struct {
	Loss  float64       // probability 0..1 that a frame is lost
	Delay time.Duration // of each frame
}

type delayed struct {
	due   time.Time
	frame []byte
}

// New returns a switch without ports.
func New(name string) *Switch {
	return &Switch{Name: name, learned: map[MAC]*Port{}, apart: map[[2]*Port]bool{}, taps: map[*tap]bool{}}
}

// Port adds a port, plugged in.
func (s *Switch) Port(name string) (*Port, error) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, fmt.Errorf("ether: port %s: %w", name, err)
	}
	// A burst must not be lost on the way from a machine that is faster than us;
	// the kernel bounds the value itself.
	conn.SetReadBuffer(4 << 20)
	nic, err := freePort()
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("ether: port %s: %w", name, err)
	}
	p := &Port{Name: name, s: s, conn: conn, nic: nic, out: make(chan delayed, 8192), stop: make(chan struct{})}
	p.up.Store(true)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		conn.Close()
		return nil, errors.New("ether: the switch is closed")
	}
	s.ports = append(s.ports, p)
	s.wg.Go(p.receive)
	s.wg.Go(p.delay)
	return p, nil
}

// Netdev is the backend for QEMU's -netdev, without an id.
func (p *Port) Netdev() string {
	return fmt.Sprintf("socket,udp=%s,localaddr=%s", p.conn.LocalAddr(), p.nic)
}

// Close stops the switch and waits for its goroutines.
func (s *Switch) Close() {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.closed = true
	for _, p := range s.ports {
		close(p.stop)
		p.conn.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
}

// Plug pushes the cable in, or pulls it. The machine does not see its carrier
// change: QEMU does that (vm.SetLink).
func (p *Port) Plug(in bool) {
	p.up.Store(in)
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	for m, q := range p.s.learned {
		if q == p {
			delete(p.s.learned, m)
		}
	}
}

// Impair makes the cable bad from now on; the zero Impairment makes it good.
func (p *Port) Impair(i Impairment) { p.impair.Store(&i) }

// Apart keeps two ports from hearing one another, or lets them hear again.
func (s *Switch) Apart(a, b *Port, apart bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range [][2]*Port{{a, b}, {b, a}} {
		if apart {
			s.apart[k] = true
		} else {
			delete(s.apart, k)
		}
	}
}

// Tap calls fn with each frame that comes in at a port that is plugged in. fn
// must be quick and must not keep the frame. The returned function ends it.
func (s *Switch) Tap(fn func(at time.Time, from *Port, frame []byte)) (remove func()) {
	t := &tap{fn}
	s.mu.Lock()
	s.taps[t] = true
	s.mu.Unlock()
	return func() {
		s.mu.Lock()
		delete(s.taps, t)
		s.mu.Unlock()
	}
}

func (p *Port) receive() {
	b := make([]byte, maxFrame)
	for {
		n, from, err := p.conn.ReadFromUDPAddrPort(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || n < 14 || from != p.nic {
			continue
		}
		if !p.up.Load() {
			p.Unheard.Add(1)
			continue
		}
		p.Received.Add(1)
		p.s.forward(p, b[:n])
	}
}

// forward learns where a frame came from and sends it where it should go.
func (s *Switch) forward(from *Port, frame []byte) {
	dst, src := MAC(frame[0:6]), MAC(frame[6:12])
	s.mu.RLock()
	known := s.learned[src] == from
	s.mu.RUnlock()
	if !known && !src.group() {
		s.mu.Lock()
		s.learned[src] = from
		s.mu.Unlock()
	}
	now := time.Now()
	s.mu.RLock()
	defer s.mu.RUnlock()
	for t := range s.taps {
		t.fn(now, from, frame)
	}
	if to := s.learned[dst]; to != nil && !dst.group() {
		if to != from && !s.apart[[2]*Port{from, to}] {
			to.send(from, frame)
		}
		return
	}
	for _, to := range s.ports {
		if to != from && !s.apart[[2]*Port{from, to}] {
			to.send(from, frame)
		}
	}
}

// send puts a frame on the cable to the NIC.
func (p *Port) send(from *Port, frame []byte) {
	if !p.up.Load() {
		return
	}
	var wait time.Duration
	for _, q := range []*Port{from, p} {
		if i := q.impair.Load(); i != nil {
			if i.Loss > 0 && rand.Float64() < i.Loss {
				p.Dropped.Add(1)
				return
			}
			wait += i.Delay
		}
	}
	if wait == 0 && len(p.out) == 0 {
		p.write(frame)
		return
	}
	select {
	case p.out <- delayed{time.Now().Add(wait), append([]byte(nil), frame...)}:
	default: // the cable is full
		p.Dropped.Add(1)
	}
}

func (p *Port) write(frame []byte) {
	// A machine that is not there loses its frames, as with a real cable.
	if _, err := p.conn.WriteToUDPAddrPort(frame, p.nic); err == nil {
		p.Sent.Add(1)
	}
}

// delay sends the frames of out in their order, each when it is due.
func (p *Port) delay() {
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case d := <-p.out:
			t.Reset(time.Until(d.due))
			select {
			case <-t.C:
			case <-p.stop:
				return
			}
			p.write(d.frame)
		case <-p.stop:
			return
		}
	}
}
