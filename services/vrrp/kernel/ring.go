package kernel

import (
	"encoding/binary"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"ballast/services/vrrp/packet"
)

// ringSize is how many packets one call of the kernel takes. Hundreds of
// virtual routers advertise in bursts, since they started together.
const ringSize = 32

// Ring is where packets are received: the sockets of a loop share one, which
// they fill many packets at a time. A socket must be read until Receive says
// that there is no more before another one is; what is left over is lost.
type Ring struct {
	msgs [ringSize]mmsghdr
	iov  [ringSize]unix.Iovec
	from [ringSize]unix.RawSockaddrInet6
	oob  [ringSize][128]byte
	buf  [ringSize][2048]byte

	of      *Socket // whose packets these are
	n, next int
	used    int   // places that the last call of the kernel filled
	last    bool  // the kernel had no more than these
	now     int64 // wall clock when they were taken
}

// NewRing makes an empty one.
func NewRing() *Ring {
	g := &Ring{}
	for i := range g.msgs {
		g.iov[i].Base = &g.buf[i][0]
		g.iov[i].SetLen(len(g.buf[i]))
		h := &g.msgs[i].hdr
		h.Name, h.Iov, h.Control = (*byte)(unsafe.Pointer(&g.from[i])), &g.iov[i], &g.oob[i][0]
		h.SetIovlen(1)
		g.clean(i)
	}
	return g
}

// Left tells how many packets were taken from the kernel and not yet returned.
func (g *Ring) Left() int { return g.n - g.next }

// Anew makes the next Receive ask the kernel, whatever it said before.
func (g *Ring) Anew() { g.n, g.next, g.last = 0, 0, false }

// fill takes what the kernel holds for a socket, as far as there is room.
func (g *Ring) fill(s *Socket) {
	for i := range g.used { // the others are as they were
		g.clean(i)
	}
	g.of, g.n, g.next, g.last = s, 0, 0, true
	// Without a word to the Go runtime, which would otherwise wake its monitor:
	// the call never waits.
	n, _, e := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&g.msgs)), ringSize, unix.MSG_DONTWAIT, 0, 0)
	if e != 0 && e != unix.EAGAIN {
		// An error that waited on the socket (ICMP, the interface gone down) is
		// taken off it by this; there may be packets behind it.
		n, _, e = unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&g.msgs)), ringSize, unix.MSG_DONTWAIT, 0, 0)
	}
	if e != 0 {
		g.used = 0
		return
	}
	g.n, g.last, g.now = int(n), n < ringSize, time.Now().UnixNano()
	g.used = g.n
}

// clean makes a place ready for the next packet.
func (g *Ring) clean(i int) {
	h := &g.msgs[i].hdr
	h.Namelen, h.Flags = unix.SizeofSockaddrInet6, 0
	h.SetControllen(len(g.oob[i]))
}

// Receive takes the next packet without waiting. ok is false when there is none.
func (s *Socket) Receive(g *Ring) (r Received, ok bool) {
	if g.of != s {
		g.next, g.last = g.n, false
	}
	if g.next == g.n {
		if g.last {
			g.last = false // the next call asks the kernel again
			return r, false
		}
		if g.fill(s); g.n == 0 {
			g.last = false
			return r, false
		}
	}
	i := g.next
	g.next++
	m, from := &g.msgs[i], &g.from[i]
	b := g.buf[i][:min(int(m.n), len(g.buf[i]))]
	r.TTL = -1
	control(&r, g.oob[i][:min(int(m.hdr.Controllen), len(g.oob[i]))], g.now)
	if s.tap {
		if !s.intact(&r, (*unix.RawSockaddrLinklayer)(unsafe.Pointer(from)), b) {
			return r, true // nothing to read in this one; there may be more
		}
		if s.ipv6 {
			readIPv6(&r, b)
			return r, true
		}
	}
	if s.ipv6 {
		r.Src, r.Payload = netip.AddrFrom16(from.Addr), b
		return r, true
	}
	ip, err := packet.DecodeIPv4(b)
	r.Src, r.Dst, r.TTL, r.Payload, r.IPv4Err = ip.Src, ip.Dst, int(ip.TTL), ip.Payload, err
	if s.ah && err == nil {
		r.Packet, r.Payload = b[:min(len(b), packet.IPv4HeaderLen+len(ip.Payload))], ip.Payload[packet.AHLen:]
	}
	return r, true
}

// control reads the ancillary data without allocating.
func control(r *Received, b []byte, now int64) {
	for b != nil {
		var level, typ uint32
		var d []byte
		if level, typ, d, b = controlMessage(b); d == nil {
			return
		}
		switch {
		case level == unix.SOL_SOCKET && typ == unix.SO_TIMESTAMPNS && len(d) >= 16:
			r.Age = ageAt(stamp(d), now)
		case level == unix.IPPROTO_IP && typ == unix.IP_PKTINFO && len(d) >= 12:
			r.Index = int(int32(binary.NativeEndian.Uint32(d)))
		case level == unix.IPPROTO_IPV6 && typ == unix.IPV6_PKTINFO && len(d) >= 20:
			r.Dst = netip.AddrFrom16([16]byte(d[:16]))
			r.Index = int(int32(binary.NativeEndian.Uint32(d[16:])))
		case level == unix.IPPROTO_IPV6 && typ == unix.IPV6_HOPLIMIT && len(d) >= 4:
			r.TTL = int(int32(binary.NativeEndian.Uint32(d)))
		}
	}
}
