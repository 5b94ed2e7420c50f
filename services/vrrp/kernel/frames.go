package kernel

import (
	"fmt"
	"net"
	"unsafe"

	mdpacket "github.com/mdlayher/packet"
	"golang.org/x/sys/unix"
)

// Frames sends Ethernet frames on one interface. It receives none.
type Frames struct {
	conn *mdpacket.Conn
	fd   int
	to   unix.SockaddrLinklayer
}

// OpenFrames opens a packet socket on an interface.
func OpenFrames(index int, name string) (*Frames, error) {
	conn, err := mdpacket.Listen(&net.Interface{Index: index, Name: name}, mdpacket.Raw, 0, nil)
	if err != nil {
		return nil, fmt.Errorf("packet socket on %s: %w", name, err)
	}
	f := &Frames{conn: conn, to: unix.SockaddrLinklayer{Ifindex: index, Halen: 6}}
	raw, err := conn.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { f.fd = int(fd) })
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("packet socket on %s: %w", name, err)
	}
	return f, nil
}

// Send sends one frame, Ethernet header included. It goes past the connection's
// own Write, which would wait for room in the queue: the loop must not.
func (f *Frames) Send(b []byte) error {
	f.to.Protocol = uint16(b[13])<<8 | uint16(b[12]) // network order in host memory
	copy(f.to.Addr[:], b[:6])
	return unix.Sendto(f.fd, b, unix.MSG_DONTWAIT, &f.to)
}

// Close closes the socket.
func (f *Frames) Close() error { return f.conn.Close() }

// BatchSize is how many frames a Batch holds.
const BatchSize = 64

// maxFrame is the longest announcement: a neighbour advertisement.
const maxFrame = 96

// Batch is frames for one interface that one call of the kernel sends. Its
// zero value is ready to use, and it allocates nothing.
type Batch struct {
	Index int // of the interface
	n     int
	buf   [BatchSize][maxFrame]byte
	hdr   [BatchSize]mmsghdr
	iov   [BatchSize]unix.Iovec
	to    [BatchSize]unix.RawSockaddrLinklayer
}

// mmsghdr is struct mmsghdr of sendmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
	_   [4]byte
}

// Len is how many frames there are.
func (b *Batch) Len() int { return b.n }

// Full tells that there is no room for another frame.
func (b *Batch) Full() bool { return b.n == BatchSize }

// Next is the empty buffer of the next frame.
func (b *Batch) Next() []byte { return b.buf[b.n][:0] }

// Add takes the frame that was made in Next's buffer.
func (b *Batch) Add(frame []byte) {
	i := b.n
	b.n++
	b.iov[i].Base = &b.buf[i][0]
	b.iov[i].SetLen(len(frame))
	to := &b.to[i]
	*to = unix.RawSockaddrLinklayer{Family: unix.AF_PACKET, Ifindex: int32(b.Index), Halen: 6}
	to.Protocol = uint16(frame[13])<<8 | uint16(frame[12]) // network order in host memory
	copy(to.Addr[:], frame[:6])
	b.hdr[i] = mmsghdr{hdr: unix.Msghdr{Name: (*byte)(unsafe.Pointer(to)), Namelen: unix.SizeofSockaddrLinklayer, Iov: &b.iov[i]}}
	b.hdr[i].hdr.SetIovlen(1)
}

// Reset empties the batch.
func (b *Batch) Reset() { b.n = 0 }

// SendBatch sends all frames. When the interface's queue is full the rest is
// lost, and the error says so.
func (f *Frames) SendBatch(b *Batch) error {
	for at := 0; at < b.n; {
		n, _, e := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(f.fd), uintptr(unsafe.Pointer(&b.hdr[at])), uintptr(b.n-at), unix.MSG_DONTWAIT, 0, 0)
		if e == unix.EINTR {
			continue
		}
		if e != 0 {
			return e
		}
		at += int(n)
	}
	return nil
}
