package health

import (
	"time"

	"golang.org/x/sys/unix"

	"ballast/configs/model"
	"ballast/services/health/datagram"
)

// exchange is what a check asks in one datagram.
func (c *check) exchange() (datagram.Exchange, error) {
	if c.spec.Kind == model.DNSCheck {
		return datagram.DNS(c.spec)
	}
	return datagram.UDP(c.spec), nil
}

// ask starts a DNS_CHECK or UDP_CHECK. The socket is connected, so that the
// kernel lets only the server's datagrams in and tells us its ICMP errors.
func (l *loop) ask(c *check, now time.Time) {
	x, err := c.exchange()
	if err != nil {
		l.finish(c, outcome{local: true, reason: err.Error()}, now)
		return
	}
	if _, ok := l.openProbe(c, unix.SOCK_DGRAM, now); !ok {
		return
	}
	c.edge.phase, c.edge.asked = asking, x
	if _, err := sysSend(c.edge.fd, x.Payload()); err != nil {
		l.finish(c, outcome{local: isLocal(err), away: isAway(err), reason: explain(err)}, now)
		return
	}
	if l.poll(c, unix.EPOLL_CTL_ADD, unix.EPOLLIN, now) {
		l.deadline(c, now)
	}
}

// replied reads datagrams, at most a few: a flood of wrong ones does not move
// the deadline either.
func (l *loop) replied(c *check, now time.Time) {
	room := min(datagram.ReplyRoom(c.spec), len(l.buf))
	var refused error
	for range 16 {
		n, err := sysRead(c.edge.fd, l.buf[:room])
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN && refused == nil:
			return
		case err == unix.EAGAIN:
			l.finish(c, outcome{reason: explain(refused)}, now)
			return
		case err != nil:
			// The kernel tells an ICMP error before the datagrams that came sooner: an
			// answer counts, whatever else came after it.
			refused = err
			continue
		}
		if l.judged(c, l.buf[:n], now) {
			return
		}
	}
	if refused != nil {
		l.finish(c, outcome{reason: explain(refused)}, now)
	}
}

// judged finishes the probe when a datagram is its answer.
func (l *loop) judged(c *check, b []byte, now time.Time) bool {
	v, reason := c.edge.asked.Judge(b)
	if v == datagram.Ignore {
		return false
	}
	o := outcome{ok: v == datagram.Pass, reason: reason}
	if !o.ok {
		o.answer = append(o.answer, b[:min(len(b), evidenceSize)]...)
	}
	l.finish(c, o, now)
	return true
}
