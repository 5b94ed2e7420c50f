package raw

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/mdlayher/netlink"
)

// Ports is the range of source ports of our own packets, both ends included.
// The kernel gives none of them to a socket that asks for any port, so that
// nothing but a probe's answer comes to them. It answers a SYN-ACK to one of
// them with a RST by itself, which ends the half-open connection.
type Ports struct{ First, Last uint16 }

// leastPorts is how many there must be: each probe that is under way has one,
// and comes back to it as late as possible.
const leastPorts = 1024

// FreePorts finds ports that the kernel does not give away.
func FreePorts() (Ports, error) {
	const file = "/proc/sys/net/ipv4/ip_local_port_range"
	b, err := os.ReadFile(file)
	if err != nil {
		return Ports{}, err
	}
	f := strings.Fields(string(b))
	if len(f) != 2 {
		return Ports{}, fmt.Errorf("%s: %q is not two numbers", file, b)
	}
	low, err1 := strconv.Atoi(f[0])
	high, err2 := strconv.Atoi(f[1])
	if err := errors.Join(err1, err2); err != nil {
		return Ports{}, fmt.Errorf("%s: %w", file, err)
	}
	return freePorts(low, high)
}

func freePorts(low, high int) (Ports, error) {
	const most = 8192
	switch {
	case 65535-high >= leastPorts:
		return Ports{uint16(max(high+1, 65536-most)), 65535}, nil
	case low-1024 >= leastPorts:
		// Just below: services listen far below that.
		return Ports{uint16(max(1024, low-most)), uint16(low - 1)}, nil
	}
	return Ports{}, fmt.Errorf("net.ipv4.ip_local_port_range %d-%d leaves no %d ports for probes of our own: narrow it", low, high, leastPorts)
}

// Use is what a socket to listen on is for.
type Use uint8

// Uses.
const (
	HalfOpen Use = iota // answers to our SYN, by the kernel's IP layer
	Echo                // ICMP echo replies, and ICMP errors about any packet of ours
	Wire                // answers from a virtual address, before the IP layer sees them
)

type listenKey struct {
	use Use
	v6  bool
}

type sendKey struct {
	v6    bool
	mark  uint32
	iface string
}

// Sockets are the sockets of all probes of this kind. One goroutine owns them.
type Sockets struct {
	Ports Ports
	ID    uint16 // of our echo requests

	listen map[listenKey]int
	use    map[int]listenKey
	heard  [Wire + 1][2]bool // what Listen has done, by use and family
	send   map[sendKey]int
	last   sendKey // of send, and its descriptor; -1: none
	lastFD int
	wire   int // AF_PACKET socket to send with, -1: none yet

	routes map[routeKey]Route
	events int // netlink socket that says when routes are stale, -1: none yet
	nl     *netlink.Conn

	// Epoch is another one, never 0, after each change that may have moved a route.
	Epoch uint64

	out *outbox // nil: nothing was ever sent, or read
	in  *inbox
	pkt Packet // that fn of Read sees
	sa4 unix.SockaddrInet4
	sa6 unix.SockaddrInet6

	// Failed is told of the packets of Queue that could not be sent.
	Failed func(port uint16, err error)
}

// New opens nothing yet.
func New(p Ports) *Sockets {
	return &Sockets{
		Ports: p, ID: uint16(rand.Uint32()), listen: map[listenKey]int{}, use: map[int]listenKey{},
		send: map[sendKey]int{}, lastFD: -1, Epoch: 1, wire: -1, routes: map[routeKey]Route{}, events: -1,
	}
}

// Close closes everything.
func (s *Sockets) Close() {
	for fd := range s.use {
		unix.Close(fd)
	}
	for _, fd := range s.send {
		unix.Close(fd)
	}
	for _, fd := range []int{s.wire, s.events} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	if s.nl != nil {
		s.nl.Close()
	}
}

// Listen makes sure that answers of a kind are heard. It returns the
// descriptors that are new, for the caller to poll.
func (s *Sockets) Listen(u Use, v6 bool) (opened []int, err error) {
	family := 0
	if v6 {
		family = 1
	}
	if s.heard[u][family] {
		return nil, nil
	}
	need := []listenKey{{u, v6}}
	if u != Echo { // errors come by ICMP
		need = append(need, listenKey{Echo, v6})
	}
	for _, k := range need {
		if _, ok := s.listen[k]; ok {
			continue
		}
		fd, err := s.open(k)
		if err != nil {
			return opened, err
		}
		s.listen[k], s.use[fd] = fd, k
		opened = append(opened, fd)
	}
	if s.events < 0 {
		fd, err := openEvents()
		if err != nil {
			return opened, err
		}
		s.events = fd
		opened = append(opened, fd)
	}
	s.heard[u][family] = true
	return opened, nil
}

// Unlisten closes the socket of a use that nobody has any more: one on the wire
// costs every packet of the box a look.
func (s *Sockets) Unlisten(u Use, v6 bool) {
	k := listenKey{u, v6}
	if fd, ok := s.listen[k]; ok {
		s.heard = [Wire + 1][2]bool{}
		unix.Close(fd)
		delete(s.listen, k)
		delete(s.use, fd)
	}
}

// Listens says whether answers of a kind are heard.
func (s *Sockets) Listens(u Use, v6 bool) bool {
	_, ok := s.listen[listenKey{u, v6}]
	return ok
}

// Owns says whether a descriptor is one of Listen's.
func (s *Sockets) Owns(fd int) bool {
	_, ok := s.use[fd]
	return ok || fd == s.events && fd >= 0
}

const (
	etherIPv4 = 0x0800
	etherIPv6 = 0x86dd
)

func (s *Sockets) open(k listenKey) (int, error) {
	family, proto := unix.AF_INET, unix.IPPROTO_TCP
	if k.v6 {
		family = unix.AF_INET6
	}
	ether := uint16(etherIPv4)
	switch {
	case k.use == Echo && k.v6:
		proto = unix.IPPROTO_ICMPV6
	case k.use == Echo:
		proto = unix.IPPROTO_ICMP
	}
	var fd int
	var err error
	if k.use == Wire {
		if k.v6 {
			ether = etherIPv6
		}
		// Protocol 0: nothing arrives before the filter is there.
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	} else {
		fd, err = unix.Socket(family, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, proto)
	}
	if err != nil {
		return -1, fmt.Errorf("raw socket: %w", err)
	}
	if err := attach(fd, s.filter(k)); err != nil {
		unix.Close(fd)
		return -1, err
	}
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<20)
	if k.use == Wire {
		if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(ether)}); err != nil {
			unix.Close(fd)
			return -1, fmt.Errorf("packet socket: %w", err)
		}
		return fd, nil
	}
	// What came between socket and filter.
	var b [64]byte
	for {
		if _, err := unix.Read(fd, b[:]); err != nil && err != unix.EINTR {
			return fd, nil
		}
	}
}

func attach(fd int, prog []bpf.Instruction) error {
	raw, err := bpf.Assemble(prog)
	if err != nil {
		return fmt.Errorf("socket filter: %w", err)
	}
	f := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		f[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(f)), Filter: &f[0]}); err != nil {
		return fmt.Errorf("socket filter: %w", err)
	}
	return nil
}

// filter lets only answers to our own packets reach a socket. Raw IPv4 sockets
// and packet sockets see the IP header, raw IPv6 sockets do not.
func (s *Sockets) filter(k listenKey) []bpf.Instruction {
	all, none := bpf.RetConstant{Val: 0x40000}, bpf.RetConstant{Val: 0}
	// load reads from the transport part: at X of IPv4, behind a fixed header
	// or at once otherwise.
	load := func(off uint32, size int) bpf.Instruction {
		switch {
		case !k.v6:
			return bpf.LoadIndirect{Off: off, Size: size}
		case k.use == Wire:
			return bpf.LoadAbsolute{Off: ipv6Head + off, Size: size}
		}
		return bpf.LoadAbsolute{Off: off, Size: size}
	}
	var p []bpf.Instruction
	if !k.v6 {
		p = append(p,
			bpf.LoadAbsolute{Off: 6, Size: 2}, // not the first fragment
			bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 0x1fff, SkipFalse: 1},
			none,
			bpf.LoadMemShift{Off: 0})
	}
	ports := []bpf.Instruction{
		load(2, 2),
		bpf.JumpIf{Cond: bpf.JumpLessThan, Val: uint32(s.Ports.First), SkipTrue: 2},
		bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: uint32(s.Ports.Last), SkipTrue: 1},
		all,
		none,
	}
	reply, lost := uint32(icmpEchoReply), uint32(icmpUnreachable)
	if k.v6 {
		reply, lost = icmp6EchoReply, icmp6Unreachable
	}
	icmp := []bpf.Instruction{
		load(0, 1),
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: lost, SkipTrue: 3},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: reply, SkipFalse: 3},
		load(4, 2),
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(s.ID), SkipFalse: 1},
		all,
		none,
	}
	switch k.use {
	case HalfOpen:
		return append(p, ports...)
	case Echo:
		return append(p, icmp...)
	}
	next, proto := uint32(9), uint32(ICMP)
	if k.v6 {
		next, proto = 6, ICMPv6
	}
	p = append(p,
		bpf.LoadAbsolute{Off: next, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: TCP, SkipTrue: 3},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: UDP, SkipTrue: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: proto, SkipTrue: uint8(1 + len(ports))},
		none)
	return append(append(p, ports...), icmp...)
}

// Read calls fn for each packet that waits, at most so many: what else is due
// must not wait for a flood.
func (s *Sockets) Read(fd int, buf []byte, most int, fn func(*Packet)) {
	if fd == s.events {
		s.stale(buf)
		return
	}
	k, ok := s.use[fd]
	if !ok {
		return
	}
	if k.use != Wire {
		s.readBatch(fd, k, most, fn)
		return
	}
	for range most {
		n, err := unix.Read(fd, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return
		}
		var ok bool
		if s.pkt, ok = Parse(buf[:n]); ok {
			fn(&s.pkt)
		}
	}
}

// Send hands a whole packet to the kernel's IP layer.
func (s *Sockets) Send(b []byte, dst netip.Addr, mark uint32, iface string) error {
	fd, err := s.sender(sendKey{dst.Is6(), mark, iface})
	if err != nil {
		return err
	}
	if dst.Is4() {
		s.sa4.Addr = dst.As4()
		return unix.Sendto(fd, b, 0, &s.sa4)
	}
	s.sa6.Addr = dst.As16()
	if s.sa6.ZoneId, err = zoneIndex(dst); err != nil {
		return err
	}
	return unix.Sendto(fd, b, 0, &s.sa6)
}

// sender is the socket to send with, opened when it is needed first.
func (s *Sockets) sender(k sendKey) (int, error) {
	if s.lastFD >= 0 && s.last == k {
		return s.lastFD, nil
	}
	fd, ok := s.send[k]
	if !ok {
		var err error
		if fd, err = openSend(k); err != nil {
			return -1, err
		}
		s.send[k] = fd
	}
	s.last, s.lastFD = k, fd
	return fd, nil
}

// openSend opens a socket that takes whole packets (raw(7): IPPROTO_RAW
// implies IP_HDRINCL) and receives nothing.
func openSend(k sendKey) (int, error) {
	family := unix.AF_INET
	if k.v6 {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return -1, fmt.Errorf("raw socket: %w", err)
	}
	if k.mark != 0 {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(k.mark)); err != nil {
			unix.Close(fd)
			return -1, fmt.Errorf("fwmark %d: %w", k.mark, err)
		}
	}
	if k.iface != "" {
		if err := unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, k.iface); err != nil {
			unix.Close(fd)
			return -1, fmt.Errorf("bind_if %s: %w", k.iface, err)
		}
	}
	return fd, nil
}

// SendWire puts a whole packet on a link, to the link-layer address given,
// whatever its IP address says: the kernel would route one to a virtual address
// of this very box to itself.
func (s *Sockets) SendWire(b []byte, index int, mac []byte) error {
	if s.wire < 0 {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("packet socket: %w", err)
		}
		s.wire = fd
	}
	sa := unix.SockaddrLinklayer{Protocol: htons(etherIPv4), Ifindex: index, Halen: uint8(len(mac))}
	if b[0]>>4 == 6 {
		sa.Protocol = htons(etherIPv6)
	}
	copy(sa.Addr[:], mac)
	return unix.Sendto(s.wire, b, 0, &sa)
}
