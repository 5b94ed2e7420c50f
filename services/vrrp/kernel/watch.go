package kernel

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Watch hears that links, addresses or routes changed. What it hears is not
// looked at: a dump decides.
type Watch struct {
	fd  int
	buf [8192]byte
}

// OpenWatch opens the socket.
func OpenWatch() (*Watch, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("watch rtnetlink: %w", err)
	}
	groups := uint32(unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("watch rtnetlink: %w", err)
	}
	return &Watch{fd: fd}, nil
}

// FD is the descriptor, for Loop.
func (w *Watch) FD() int { return w.fd }

// Drain empties the socket and reports whether there was anything, also when
// it overflowed (ENOBUFS): then something was lost, so something changed.
func (w *Watch) Drain() (changed bool) {
	for range 10000 {
		_, err := unix.Read(w.fd, w.buf[:])
		switch err {
		case nil, unix.ENOBUFS:
			changed = true
		case unix.EINTR:
		default:
			return changed
		}
	}
	return changed
}

// Close closes the socket.
func (w *Watch) Close() error { return unix.Close(w.fd) }
