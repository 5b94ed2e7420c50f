package health

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls that every probe makes, raw as waiter says: none of them waits,
// because the sockets do not block.

// rawAddr is a socket address as the kernel has it.
type rawAddr struct {
	in6 unix.RawSockaddrInet6 // large enough for IPv4 too
	n   uintptr
}

func (r *rawAddr) set(ap netip.AddrPort) error {
	var port uint16
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&port))[:], ap.Port())
	a := ap.Addr().Unmap()
	switch {
	case a.Is4():
		r.n = unix.SizeofSockaddrInet4
		*(*unix.RawSockaddrInet4)(unsafe.Pointer(&r.in6)) = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: port, Addr: a.As4()}
	case a.Is6():
		r.n = unix.SizeofSockaddrInet6
		r.in6 = unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: port, Addr: a.As16()}
		if z := a.Zone(); z != "" {
			ifi, err := net.InterfaceByName(z)
			if err != nil {
				return fmt.Errorf("address %s: interface %s: %w", a, z, err)
			}
			r.in6.Scope_id = uint32(ifi.Index)
		}
	default:
		return errors.New("no address")
	}
	return nil
}

// sysConnect begins a connection.
func sysConnect(fd int, to *rawAddr) error {
	return errno(unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&to.in6)), to.n))
}

func sysClose(fd int) { unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) }

func sysRead(fd int, b []byte) (int, error) {
	n, _, e := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}

// sysSend sends on a connected socket.
func sysSend(fd int, b []byte) (int, error) {
	n, _, e := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT, 0, 0)
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}

func errno(_, _ uintptr, e unix.Errno) error {
	if e != 0 {
		return e
	}
	return nil
}
