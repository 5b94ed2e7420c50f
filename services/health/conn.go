package health

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"ballast/configs/model"
	"ballast/services/health/dialog"
)

// openSocket makes the socket of a probe with the options of the check.
// SO_MARK and, on older kernels, SO_BINDTODEVICE need CAP_NET_RAW.
func openSocket(c *model.Check, kind int) (int, error) {
	family := unix.AF_INET
	if c.Addr.Is6() && !c.Addr.Is4In6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	if err := setOptions(fd, c); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func setOptions(fd int, c *model.Check) error {
	if c.Mark != 0 {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(c.Mark)); err != nil {
			return fmt.Errorf("fwmark %d: %w", c.Mark, err)
		}
	}
	if c.BindInterface != "" {
		if err := unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, c.BindInterface); err != nil {
			return fmt.Errorf("bind_if %s: %w", c.BindInterface, err)
		}
	}
	if !c.BindAddr.IsValid() && c.BindPort == 0 {
		return nil
	}
	a := c.BindAddr
	switch {
	case a.IsValid():
	case c.Addr.Is4() || c.Addr.Is4In6():
		a = netip.IPv4Unspecified()
	default:
		a = netip.IPv6Unspecified()
	}
	if c.BindPort != 0 {
		// The port of the probe before may still be in TIME_WAIT.
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	} else {
		// Pick the source port at connect, when the whole 4-tuple counts.
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	}
	var from rawAddr
	if err := from.set(netip.AddrPortFrom(a, c.BindPort)); err != nil {
		return err
	}
	if err := errno(unix.RawSyscall(unix.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(&from.in6)), from.n)); err != nil {
		return fmt.Errorf("bindto %s: %w", netip.AddrPortFrom(a, c.BindPort), err)
	}
	return nil
}

// openProbe opens the connected socket of a probe and makes the loop know it.
// It returns false when the probe has ended with that.
func (l *loop) openProbe(c *check, kind int, now time.Time) (connected, ok bool) {
	var to rawAddr
	if err := to.set(netip.AddrPortFrom(c.spec.Addr, c.spec.Port)); err != nil {
		l.finish(c, outcome{local: true, reason: err.Error()}, now)
		return false, false
	}
	fd, err := openSocket(c.spec, kind)
	if err != nil {
		// Our own trouble says nothing about the server.
		l.finish(c, outcome{local: true, reason: err.Error()}, now)
		return false, false
	}
	c.edge.fd, c.edge.phase = fd, connecting
	l.open++
	l.byFD[int32(fd)] = c
	err = sysConnect(fd, &to)
	if err != nil && err != unix.EINPROGRESS {
		l.finish(c, outcome{local: isLocal(err), away: isAway(err), reason: explain(err)}, now)
		return false, false
	}
	return err == nil, true
}

// connect starts a probe over TCP.
func (l *loop) connect(c *check, now time.Time) {
	connected, ok := l.openProbe(c, unix.SOCK_STREAM, now)
	switch {
	case !ok:
	case connected:
		l.ready(c, 0, now)
	case l.poll(c, unix.EPOLL_CTL_ADD, unix.EPOLLOUT, now):
		l.deadline(c, now)
	}
}

// poll says what the loop waits for. It returns false when the probe has ended
// with that.
func (l *loop) poll(c *check, op int, events uint32, now time.Time) bool {
	err := l.io.ctl(op, c.edge.fd, events)
	if err == unix.ENOENT { // connected at once, so not yet known to epoll
		err = l.io.add(c.edge.fd, events)
	}
	if err != nil {
		l.finish(c, outcome{local: true, reason: "epoll: " + err.Error()}, now)
	}
	return err == nil
}

// deadline gives the server another ConnectTimeout for the next step, but
// never more than what is left of the patience with the whole answer.
func (l *loop) deadline(c *check, now time.Time) {
	at := now.Add(c.spec.ConnectTimeout)
	if at.After(c.edge.limit) {
		at = c.edge.limit
	}
	l.timers.set(c, at)
}

func (l *loop) closeSocket(c *check) {
	if c.edge.fd < 0 {
		return
	}
	delete(l.byFD, int32(c.edge.fd))
	sysClose(c.edge.fd) // leaves epoll with it
	c.edge.fd = -1
	l.open--
}

// ready is called when the socket of a check can go on.
func (l *loop) ready(c *check, events uint32, now time.Time) {
	switch c.edge.phase {
	case connecting:
		if events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 {
			e, err := unix.GetsockoptInt(c.edge.fd, unix.SOL_SOCKET, unix.SO_ERROR)
			if err == nil && e != 0 {
				err = syscall.Errno(e)
			}
			if err != nil {
				l.finish(c, outcome{reason: explain(err)}, now)
				return
			}
		}
		if c.spec.Kind == model.TCPCheck {
			l.finish(c, outcome{ok: true, reason: "connected"}, now)
			return
		}
		c.edge.talk = c.dialog(false)
		l.say(c, c.edge.talk.Open(), now)
	case sending:
		l.say(c, nil, now)
	case reading:
		l.receive(c, now)
	case asking:
		l.replied(c, now)
	}
}

// dialog is the conversation that a check has over a stream.
func (c *check) dialog(secure bool) dialog.Dialog {
	if c.spec.Kind == model.SMTPCheck {
		return dialog.SMTP(c.spec.HELO)
	}
	u, rule := &c.spec.URLs[c.m.url], &c.rules[c.m.url]
	if c.spec.HTTP2 {
		return dialog.HTTP2(c.spec, u, rule, secure)
	}
	return dialog.HTTP1(dialog.Request(c.spec, u), rule)
}

// say sends what is still to be sent, and then waits for the server.
func (l *loop) say(c *check, more []byte, now time.Time) {
	c.edge.out = append(c.edge.out, more...)
	if len(c.edge.out) > 0 {
		n, err := sysSend(c.edge.fd, c.edge.out)
		if err != nil && err != unix.EAGAIN && err != unix.EINTR {
			l.finish(c, outcome{reason: "request: " + explain(err)}, now)
			return
		}
		c.edge.out = c.edge.out[max(n, 0):]
	}
	was := c.edge.phase
	want := uint32(unix.EPOLLOUT)
	c.edge.phase = sending
	if len(c.edge.out) == 0 {
		c.edge.out = nil
		c.edge.phase, want = reading, unix.EPOLLIN
	}
	if was != c.edge.phase && !l.poll(c, unix.EPOLL_CTL_MOD, want, now) {
		return
	}
	l.deadline(c, now)
}

// receive reads at most a few buffers, so that one fast server cannot keep the
// loop from all the others.
func (l *loop) receive(c *check, now time.Time) {
	for range 4 {
		n, err := sysRead(c.edge.fd, l.buf)
		talk := c.edge.talk
		switch {
		case err == unix.EAGAIN || err == unix.EINTR:
			return // the deadline of the read before goes on
		case err != nil:
			l.finish(c, broken(talk, explain(err)), now)
			return
		case n == 0:
			l.conclude(c, now)
			return
		}
		more, done := talk.Hear(l.buf[:n])
		if done {
			l.conclude(c, now)
			return
		}
		if len(more) > 0 {
			if l.say(c, more, now); c.edge.phase != reading {
				return
			}
		}
		l.deadline(c, now)
		if n < len(l.buf) {
			return
		}
	}
}

// conclude ends a probe whose answer is here. A regex over much text would keep
// all other checks waiting, so it has a goroutine, and they have one for all.
func (l *loop) conclude(c *check, now time.Time) {
	talk := c.edge.talk
	if !dialog.Heavy(talk) {
		l.finish(c, verdict(talk), now)
		return
	}
	l.closeSocket(c)
	l.timers.remove(c)
	c.edge.phase, c.edge.talk = working, nil
	l.thinks.do(false, func(context.Context) {
		wakeMonitor()
		o := verdict(talk)
		dialog.Release(talk)
		l.post(func(now time.Time) { l.finish(c, o, now) })
	})
}

func verdict(d dialog.Dialog) outcome {
	ok, reason := d.End()
	return outcome{ok: ok, local: dialog.Starved(d), reason: reason, answer: d.Evidence()}
}

// broken is the outcome of a stream that ended by an error. A dialog that had
// its verdict before keeps it.
func broken(d dialog.Dialog, err string) outcome {
	if dialog.Known(d) {
		if o := verdict(d); o.ok {
			return o
		}
	}
	return outcome{reason: d.Broken(err), answer: d.Evidence()}
}

// isLocal tells errors of our own socket from those that say something about
// the way to the server.
func isLocal(err error) bool {
	return errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EADDRINUSE) || errors.Is(err, unix.EAGAIN) ||
		errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOBUFS) ||
		errors.Is(err, unix.ENOMEM) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EAFNOSUPPORT)
}

// isAway tells that no route of this box leads to the server.
func isAway(err error) bool {
	return errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.ENETDOWN)
}

// uptime is how long the box has been running.
func uptime() time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &t) != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// explain says in an operator's words what the kernel said.
func explain(err error) string {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return strings.TrimPrefix(err.Error(), "read: ")
	}
	switch errno {
	case unix.ETIMEDOUT:
		return "no answer (the kernel gave up)"
	case unix.EPERM, unix.EACCES:
		return "blocked by a local rule: " + errno.Error()
	}
	return errno.Error()
}
