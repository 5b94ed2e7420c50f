package kernel

import (
	"fmt"
	"net"

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
