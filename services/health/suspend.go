package health

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// ha_suspend: a virtual server with it is probed only by the director that
// holds one of its addresses. Verdicts stay as they are meanwhile.

// suspend takes the addresses of this box and returns the checks that probe
// again from now on.
func (w *world) suspend(local func(netip.Addr) bool) (resumed []*check) {
	was := map[*check]bool{}
	for _, c := range w.checks {
		was[c] = c.suspended()
	}
	for _, vs := range w.servers {
		vs.suspended = false
		if !vs.conf.HASuspend {
			continue
		}
		addressed := false
		for _, id := range vs.conf.Services {
			if id.Addr.IsValid() {
				addressed = true
				if local(id.Addr) {
					addressed = false
					break
				}
			}
		}
		vs.suspended = addressed // a firewall mark has no address to wait for
	}
	for _, c := range w.checks {
		if was[c] && !c.suspended() {
			resumed = append(resumed, c)
		}
	}
	return resumed
}

// suspended: nobody wants to know at present.
func (c *check) suspended() bool {
	for _, r := range c.users {
		if !r.vs.suspended {
			return false
		}
	}
	return len(c.users) > 0
}

func (w *world) wantsAddresses() bool {
	for _, vs := range w.servers {
		if vs.conf.HASuspend {
			return true
		}
	}
	return false
}

// openAddresses opens a netlink socket that becomes readable when an address
// of this box comes or goes (rtnetlink(7)). It needs no privilege.
func openAddresses() (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return -1, fmt.Errorf("health: netlink: %w", err)
	}
	sa := &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR}
	if err := unix.Bind(fd, sa); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("health: netlink: %w", err)
	}
	return fd, nil
}

// watchAddresses opens or closes the watch as the configuration needs it, and
// looks once.
func (l *loop) watchAddresses(now time.Time) error {
	if !l.w.wantsAddresses() {
		if l.addrs >= 0 {
			unix.Close(l.addrs)
			l.addrs = -1
		}
		return nil
	}
	if l.addrs < 0 {
		fd, err := openAddresses()
		if err != nil {
			return err
		}
		if err := l.io.add(fd, unix.EPOLLIN); err != nil {
			unix.Close(fd)
			return fmt.Errorf("health: epoll: %w", err)
		}
		l.addrs = fd
	}
	return l.lookAddresses(now)
}

// lookAddresses empties the socket (what it says does not matter, and a lost
// event does not either) and reads the addresses.
func (l *loop) lookAddresses(now time.Time) error {
	for {
		if _, err := unix.Read(l.addrs, l.buf); err != nil && err != unix.EINTR && err != unix.ENOBUFS {
			break
		}
	}
	list, err := net.InterfaceAddrs()
	if err != nil {
		return fmt.Errorf("health: addresses: %w", err)
	}
	have := map[netip.Addr]bool{}
	for _, a := range list {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			have[p.Addr().Unmap()] = true
		}
	}
	for _, c := range l.w.suspend(func(a netip.Addr) bool { return have[a.Unmap()] }) {
		if c.edge.phase == idle && c.probed() {
			// A director that has just taken over wants to know soon.
			l.timers.set(c, now.Add(rand.N(min(max(c.spec.DelayLoop, minDelay), time.Second))))
		}
	}
	return nil
}
