package vm

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Port is a TCP port of 127.0.0.1 for a machine's user network (hostfwd), from its
// first boot to its last: the kernel gives it to nobody else, with the machine's
// power on or off.
type Port struct {
	Number int
	fd     int
}

// NewPort finds a port that is free and keeps it until Close.
func NewPort() (*Port, error) {
	// A socket that is bound and does not listen. Who sets SO_REUSEADDR on his, as
	// QEMU does, may bind and listen beside it; a port that the kernel chooses, for who
	// binds to 0 or connects, is never one that is bound.
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("lab: port: %w", os.NewSyscallError("socket", err))
	}
	p := &Port{fd: fd}
	err = os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
	if err == nil {
		err = os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	}
	var sa unix.Sockaddr
	if err == nil {
		sa, err = unix.Getsockname(fd)
		err = os.NewSyscallError("getsockname", err)
	}
	if err != nil {
		p.Close()
		return nil, fmt.Errorf("lab: port: %w", err)
	}
	p.Number = sa.(*unix.SockaddrInet4).Port
	return p, nil
}

// Close gives the port back.
func (p *Port) Close() {
	if p != nil && p.fd >= 0 {
		unix.Close(p.fd)
		p.fd = -1
	}
}
