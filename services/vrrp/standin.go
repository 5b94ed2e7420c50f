package vrrp

import (
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"ballast/services/ipc/status"
	"ballast/services/vrrp/core"
	"ballast/services/vrrp/pacer"
	"ballast/services/vrrp/packet"
)

// standIn is the pacer as this process sees it: who sends what is overdue here.
// Without it everything goes on as it would, with the stalls that there are.
type standIn struct {
	s     *service
	path  string // of its socket; empty: there is none
	c     *pacer.Client
	retry time.Duration // when to connect next, in a turn that comes anyway
	due   time.Duration // the same, worth a turn of its own; 0: not
	skew  int64         // CLOCK_MONOTONIC less the loop's scale
	told  bool          // the log knows that it is away
	force bool          // this connection's table is in force, or about to be
	spoke bool          // an earlier one of this process was: there is none of another

	msg           pacer.Message
	name, control []byte
	data          []byte
}

const (
	standInAgain = time.Second
	standInSoon  = 100 * time.Millisecond // init starts it again at once
	// commitPatience is how long a process that comes after another one waits
	// for the end of the stand-ins for that.
	commitPatience = 20 * time.Millisecond
)

// turn ends a turn of the loop: all that came in has been judged.
func (t *standIn) turn() {
	if t.path == "" {
		return
	}
	if t.c != nil && t.c.Broken() != nil {
		t.lost()
	}
	if t.c == nil && t.s.now >= t.retry {
		t.connect()
	}
	if t.c != nil {
		t.c.Turn(t.clock())
	}
}

// clock is CLOCK_MONOTONIC now.
func (t *standIn) clock() int64 { return int64(t.s.loop.Now()) + t.skew }

func (t *standIn) connect() {
	t.retry, t.due = t.s.now+standInAgain, 0
	var now unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) != nil {
		return
	}
	t.skew = now.Nano() - int64(t.s.loop.Now())
	c, err := pacer.Dial(t.path)
	if err == nil {
		if err = t.s.read(c.FD(), func() {
			if t.c == c && c.Heard() != nil {
				t.lost()
			}
		}); err != nil {
			c.Close()
		}
	}
	if err != nil {
		t.away(err)
		return
	}
	if t.c, t.force = c, false; t.told {
		t.s.log.info("the pacer is there")
	}
	t.told = false
	t.c.Turn(t.clock())
	if t.s.applied {
		t.commit()
	}
	t.s.dirty = true
}

func (t *standIn) away(err error) {
	if !t.told && t.s.applied {
		t.told = true
		t.s.log.warn("advertisements have no stand-in: %v", err)
	}
}

// lost gives a connection up that is of no use any more.
func (t *standIn) lost() {
	err := t.c.Broken()
	delete(t.s.readers, t.c.FD())
	t.s.loop.Remove(t.c.FD())
	t.c.Close()
	t.c = nil
	for _, r := range t.s.routers {
		r.stand = r.stand[:0]
	}
	t.retry = t.s.now + standInSoon
	t.due = t.retry
	t.s.dirty = true
	t.away(err)
}

func (t *standIn) close() {
	if t.c != nil {
		t.c.Close()
		t.c = nil
	}
}

// commit puts what this process has told the pacer in force, and ends what that
// would do for the process before.
func (t *standIn) commit() {
	if t.c == nil || t.force {
		return
	}
	wait := commitPatience
	if t.spoke {
		wait = 0
	}
	t.force, t.spoke = true, true
	t.c.Commit(wait)
}

// speaks tells whether a router is one that advertises.
func (r *router) speaks() bool {
	return r.st.Phase == core.Master && !(r.st.Quiet && r.s.now < r.st.TruceUntil)
}

// sent hears of each advertisement of ours: b is its IP packet, of IPv6 the
// payload only, and dst the router's n-th destination.
func (t *standIn) sent(r *router, n int, b []byte, dst netip.Addr, hops int) {
	// A number that must grow with each packet, known to one process only,
	// leaves no room for a second sender.
	if t.c == nil || !r.speaks() || r.mem.ah != nil || r.mem.hmac.signs() {
		t.clear(r)
		return
	}
	m := &t.msg
	m.Name, m.Control, m.Data = t.name[:0], t.control[:0], t.data[:0]
	k, l := r.outlet()
	if k != nil {
		m.FD = k.FD()
		m.Name, m.Control = k.Address(m.Name, dst), k.Ancillary(m.Control, r.src, dst, hops)
		m.Data = append(m.Data, b...)
	} else {
		f := t.s.frames[l.Index]
		if f == nil {
			return
		}
		m.FD, m.Name = f.FD(), f.Address(m.Name, r.frame)
		m.Data = append(m.Data, r.frame...)
	}
	if !r.cfg.IPv6 {
		packet.ClearID(m.Data[len(m.Data)-len(b):])
	}
	t.name, t.control, t.data = m.Name, m.Control, m.Data // as far as they have grown
	for len(r.stand) <= n {
		r.stand = append(r.stand, -1)
	}
	slot, err := t.c.Sent(r.stand[n], m, r.core.AdvertInt, t.clock())
	t.s.dirty = t.s.dirty || slot != r.stand[n]
	if r.stand[n] = slot; err != nil {
		t.s.log.limitedRouter(r, "no stand-in for the advertisement to %s: %v", dst, err)
	}
}

// covered is when an advertisement was due that is sent now, given that it was
// due at due and the pacer may have sent it and others since. A master that was
// late by itself only has missed nothing.
func (t *standIn) covered(r *router, due time.Duration) time.Duration {
	if t.c == nil || len(r.stand) == 0 {
		return due
	}
	last := t.s.now
	for _, slot := range r.stand { // who is told least counts
		last = min(last, time.Duration(t.c.Stood(slot)-t.skew))
	}
	return max(due, min(last+r.core.AdvertInt, t.s.now))
}

// renew tells the pacer what a router says since its configuration is another
// one. Until then the pacer has said what was right before.
func (t *standIn) renew(r *router, sent uint64) {
	if t.c != nil && r.speaks() && r.stats.AdvertSent == sent {
		r.advertise(r.st.Effective)
	}
}

// clear ends all stand-ins for a router. Nothing of it is sent after that.
func (t *standIn) clear(r *router) { t.trim(r, 0) }

// trim ends those beyond the first n.
func (t *standIn) trim(r *router, n int) {
	for len(r.stand) > n {
		last := len(r.stand) - 1
		if t.c != nil {
			t.c.Clear(r.stand[last])
			t.s.dirty = true
		}
		r.stand = r.stand[:last]
	}
}

// forget is for a socket that is about to be closed.
func (t *standIn) forget(fd int) {
	if t.c != nil {
		t.c.Forget(fd)
	}
}

func (t *standIn) status() (v status.StandIn) {
	if t.c == nil {
		return v
	}
	f := t.c.Figures()
	v = status.StandIn{Connected: true, RealTime: f.RealTime, Adverts: f.Adverts, Failed: f.Failed, Late: f.Late, OwnLate: f.OwnLate}
	for _, r := range t.s.routers {
		for _, slot := range r.stand {
			if slot >= 0 {
				v.Watched++
			}
		}
	}
	return v
}
