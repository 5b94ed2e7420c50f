package kernel

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// Watch hears that links, addresses, routes or rules changed. A dump decides what.
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
	groups := uint32(unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR |
		unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_ROUTE | unix.RTMGRP_IPV4_RULE | rtmgrpIPv6Rule)
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
		n, err := unix.Read(w.fd, w.buf[:])
		switch err {
		case nil:
			changed = changed || telling(w.buf[:n])
		case unix.ENOBUFS:
			changed = true
		case unix.EINTR:
		default:
			return changed
		}
	}
	return changed
}

// rtmgrpIPv6Rule is the group of RTNLGRP_IPV6_RULE, which has no name of the
// old kind.
const rtmgrpIPv6Rule = 1 << (unix.RTNLGRP_IPV6_RULE - 1)

// telling tells whether an event is worth a dump. The kernel makes a route of
// its own for each address, and tells of the address as well.
func telling(b []byte) bool {
	const proto = unix.SizeofNlMsghdr + 5 // rtm_protocol
	if len(b) <= proto {
		return true
	}
	switch binary.NativeEndian.Uint16(b[4:]) {
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		return b[proto] != unix.RTPROT_KERNEL && b[proto] != unix.RTPROT_UNSPEC
	}
	return true
}

// Close closes the socket.
func (w *Watch) Close() error { return unix.Close(w.fd) }
