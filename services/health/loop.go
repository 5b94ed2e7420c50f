package health

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ballast/configs/model"
	"ballast/services/health/datagram"
	"ballast/services/health/dialog"
	"ballast/services/health/raw"
	"ballast/services/ipc/status"
)

// edge is what the loop keeps for a check: its one timer and, while a probe
// runs, its socket.
type edge struct {
	slot   int       // in the heap of timers
	at     time.Time // next probe, or the deadline of the running one
	phase  phase
	fd     int // -1: none
	began  time.Time
	limit  time.Time // end of patience with the whole answer
	out    []byte    // rest of what we say
	talk   dialog.Dialog
	asked  datagram.Exchange
	own    *outcome // through_vip: the first half went well
	slow   bool     // the last probe took too long: see workers
	gone   bool     // removed by a reload while a worker was busy with it
	spared bool     // a deadline came late by our own fault

	flight *flight
	src    netip.Addr    // what its packets come from
	epoch  uint64        // when that was asked for, see raw.Sockets
	wait   time.Duration // for the next probe
}

type phase uint8

const (
	idle       phase = iota
	queued           // due, waiting for a free descriptor
	connecting       // SYN sent
	sending          // request not yet written in full
	reading          // waiting for the answer
	asking           // a datagram was sent by a socket of its own
	flying           // a packet of our own making was sent
	working          // with a worker: TLS, script
)

// maxOpen bounds the sockets that are open at one time. Probes beyond it wait
// for their turn; at 3 s for a silent server it is still 1,300 of them a second.
const maxOpen = 4096

// readsAtOnce is how many packets are read before other things get their turn.
const readsAtOnce = 512

// readSize is how much of an answer is read at one time.
const readSize = 64 << 10

// loop runs the probes of all checks in one goroutine over one epoll
// descriptor. TLS and scripts, which cannot be driven that way, are given to
// a bounded number of workers.
type loop struct {
	w     *world
	io    *waiter
	wk    int // eventfd: work in the inbox
	addrs int // netlink socket for ha_suspend, -1: nobody wants it

	timers  timers
	byFD    map[int32]*check
	waiting []*check // phase queued, oldest first
	open    int
	buf     []byte
	now     time.Time         // of arrive
	arrive  func(*raw.Packet) // arrived, made once

	mu    sync.Mutex
	inbox []func(now time.Time)
	ended bool

	sessions []status.BFDSession // as vrrp told last
	files    []status.FileResult // as notify told last
	flights  flights
	material *material // of the SSL block

	tls    *workers
	misc   *workers
	thinks *workers
	cores  tokens
	run    runScript

	changed bool // a verdict changed since the last publish
	touched bool // a probe was done since the last publish
}

func newLoop(w *world, run runScript) (*loop, error) {
	io, err := newWaiter()
	if err != nil {
		return nil, err
	}
	wk, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		io.close()
		return nil, fmt.Errorf("health: eventfd: %w", err)
	}
	if err := io.add(wk, unix.EPOLLIN); err != nil {
		io.close()
		unix.Close(wk)
		return nil, fmt.Errorf("health: epoll: %w", err)
	}
	l := &loop{
		w: w, io: io, wk: wk, addrs: -1, byFD: map[int32]*check{}, buf: make([]byte, readSize), run: run,
	}
	l.arrive = func(p *raw.Packet) { l.arrived(p, l.now) }
	l.tls, l.misc, l.thinks, l.cores = newWorkers(maxTLS), newWorkers(maxScripts), newWorkers(maxThinks), newTokens()
	return l, nil
}

// post hands work to the loop from another goroutine. It never blocks.
func (l *loop) post(fn func(now time.Time)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return
	}
	l.inbox = append(l.inbox, fn)
	if len(l.inbox) == 1 {
		one := [8]byte{1}
		unix.Write(l.wk, one[:]) // full means that it will wake up anyway
	}
}

// close ends every probe and worker and frees the descriptors.
func (l *loop) close() {
	l.mu.Lock()
	l.ended = true
	l.inbox = nil
	l.mu.Unlock()
	for _, c := range l.w.checks {
		l.drop(c)
	}
	l.tls.close()
	l.misc.close()
	l.thinks.close()
	if l.addrs >= 0 {
		unix.Close(l.addrs)
	}
	if l.flights.socks != nil {
		l.flights.socks.Close()
	}
	l.io.close()
	unix.Close(l.wk)
}

// turn waits for at most the given time for something to do, and does it.
func (l *loop) turn(most time.Duration) error {
	now := time.Now()
	until := now.Add(most)
	if c := l.timers.first(); c != nil && c.edge.at.Before(until) {
		until = c.edge.at
	}
	events, err := l.io.wait(now, until)
	if err != nil {
		return err
	}
	now = time.Now()
	for i := range events {
		fd := events[i].Fd
		if fd == int32(l.wk) {
			l.drainInbox(now)
			continue
		}
		if fd == int32(l.addrs) {
			if err := l.lookAddresses(now); err != nil {
				return err
			}
			continue
		}
		if f := l.flights.socks; f != nil && f.Owns(int(fd)) {
			l.now = now
			f.Read(int(fd), l.buf, readsAtOnce, l.arrive)
			continue
		}
		// The map, not the event, says whose it is: an earlier event of this
		// round may have closed the descriptor.
		if c := l.byFD[fd]; c != nil {
			l.ready(c, events[i].Events, now)
		}
	}
	for {
		c := l.timers.first()
		if c == nil || c.edge.at.After(now) && (c.edge.phase != idle || c.edge.at.After(now.Add(c.early()))) {
			break
		}
		l.timers.remove(c)
		l.due(c, now)
	}
	// Those that find no room again are put behind the ones that wait.
	for range len(l.waiting) {
		if l.open >= maxOpen && !l.flights.available() {
			break
		}
		c := l.waiting[0]
		l.waiting = l.waiting[1:]
		if c.edge.phase != queued || c.edge.gone {
			continue
		}
		c.edge.phase = idle
		if c.edge.own != nil {
			l.beginVIP(c, now)
		} else {
			l.begin(c, now)
		}
	}
	l.flights.flush()
	return nil
}

func (l *loop) drainInbox(now time.Time) {
	var b [8]byte
	unix.Read(l.wk, b[:])
	l.mu.Lock()
	work := l.inbox
	l.inbox = nil
	l.mu.Unlock()
	for _, fn := range work {
		fn(now)
	}
}

// apply takes a new configuration.
func (l *loop) apply(cfg *model.Config, list []*model.VirtualServer, now time.Time) []error {
	var errs []error
	if m, err := loadMaterial(&cfg.SSL); err != nil {
		errs = append(errs, err)
	} else {
		l.material = m
	}
	added, removed, errs2 := l.w.apply(&cfg.Global, list, now)
	errs = append(errs, errs2...)
	for _, c := range removed {
		l.drop(c)
	}
	if s := l.flights.socks; s != nil && l.w.vias == 0 {
		// Every packet of the box pays for these sockets.
		s.Unlisten(raw.Wire, false)
		s.Unlisten(raw.Wire, true)
	}
	for _, c := range added {
		if !c.probed() {
			if c.spec.Kind == model.BFDCheck && !c.m.known {
				l.timers.set(c, now.Add(bfdPatience))
			}
			continue
		}
		// Starts are spread, so that a thousand checks do not beat in step.
		var in time.Duration
		if c.spec.Warmup > 0 {
			in = rand.N(c.spec.Warmup)
		}
		l.timers.set(c, now.Add(in))
	}
	l.tellAll(now)
	l.changed = true
	if err := l.watchAddresses(now); err != nil {
		errs = append(errs, err)
	}
	return errs
}

// mostEarly bounds how far a probe is moved.
const mostEarly = 32 * time.Millisecond

// early is how much sooner than planned a probe may start, so that one waking
// starts several: waking costs as much as a probe. It is a small part of the
// wait, lest a probe that ends at once be begun again in the same turn.
func (c *check) early() time.Duration { return min(mostEarly, c.edge.wait/32) }

// drop forgets a check and whatever it has open.
func (l *loop) drop(c *check) {
	c.edge.gone = true
	l.timers.remove(c)
	l.closeSocket(c)
	l.land(c)
	c.edge.forget()
}

// stoodStill is how late the loop may come to a deadline. Beyond that this box
// stood still (a virtual machine that is moved does so for seconds), and was not
// there to hear an answer in time.
const stoodStill = 100 * time.Millisecond

// spare gives a server that has kept us waiting the time that we were away, once
// in a probe: our own lateness is not its silence.
func (l *loop) spare(c *check, now time.Time) bool {
	late := now.Sub(c.edge.at)
	if c.edge.spared || late <= stoodStill {
		return false
	}
	c.edge.spared = true
	c.edge.limit = c.edge.limit.Add(late)
	l.timers.set(c, now.Add(min(late, c.spec.ConnectTimeout)))
	return true
}

// due is called when the one timer of a check fires.
func (l *loop) due(c *check, now time.Time) {
	switch c.edge.phase {
	case asking, connecting, sending, reading:
		if l.spare(c, now) {
			return
		}
	}
	switch c.edge.phase {
	case idle:
		l.begin(c, now)
	case flying:
		l.waited(c, now)
	case asking:
		ok, reason := c.edge.asked.Silence(c.spec.ConnectTimeout)
		l.finish(c, outcome{ok: ok, reason: reason}, now)
	case connecting, sending, reading:
		l.finish(c, c.silence(now), now)
	}
}

// silence is the verdict on a server that kept us waiting.
func (c *check) silence(now time.Time) outcome {
	d, step := c.edge.talk, c.spec.ConnectTimeout
	if d == nil {
		return outcome{reason: dialog.Silence(step, 0)}
	}
	if !now.Before(c.edge.limit) {
		step = 0
	}
	ok, reason := d.Stalled(step, patience(c.spec))
	return outcome{ok: ok, reason: reason, answer: d.Evidence()}
}

// patient is when a probe has taken so long that the next one has to stand in
// the queue of the slow ones.
func (c *check) patient() time.Duration {
	if c.spec.Kind == model.MiscCheck {
		return c.scriptLimit()
	}
	return c.spec.ConnectTimeout
}

// patience is how long a whole answer may take. keepalived only limits the
// gaps between two reads, so that a server that sends one byte a second can
// hold a check for ever.
func patience(c *model.Check) time.Duration { return max(10*c.ConnectTimeout, 5*time.Second) }

// begin starts a probe.
func (l *loop) begin(c *check, now time.Time) {
	if c.spec.Kind == model.BFDCheck {
		l.bfdWaited(c, now)
		return
	}
	if c.suspended() {
		l.timers.set(c, now.Add(max(c.spec.DelayLoop, minDelay)))
		return
	}
	c.edge.began, c.edge.limit, c.edge.spared = now, now.Add(patience(c.spec)), false
	c.edge.forget()
	switch c.spec.Kind {
	case model.SSLGet:
		l.beginTLS(c)
		return
	case model.MiscCheck:
		l.beginScript(c)
		return
	case model.PingCheck:
		l.ping(c, now)
		return
	case model.TCPCheck:
		if c.spec.HalfOpen {
			l.halfOpen(c, now)
			return
		}
	}
	if l.open >= maxOpen {
		c.edge.phase = queued
		l.waiting = append(l.waiting, c)
		return
	}
	switch c.spec.Kind {
	case model.DNSCheck, model.UDPCheck:
		l.ask(c, now)
	default:
		l.connect(c, now)
	}
}

// forget drops what belongs to one probe only.
func (e *edge) forget() {
	if e.talk != nil {
		dialog.Release(e.talk)
	}
	e.talk, e.asked, e.out, e.own = nil, nil, nil, nil
}

// finish ends a probe and sets the timer of the next one.
func (l *loop) finish(c *check, o outcome, now time.Time) {
	// The timer of this probe becomes that of the next one, where it is.
	l.closeSocket(c)
	l.land(c)
	own := c.edge.own
	c.edge.phase = idle
	c.edge.forget()
	if c.edge.gone {
		l.timers.remove(c)
		return
	}
	switch {
	case own != nil:
		o = c.vipOutcome(*own, o)
	case o.ok && c.via != nil:
		first := o // not o itself, which then would be on the heap in every probe
		c.edge.own = &first
		l.timers.remove(c)
		l.beginVIP(c, now)
		return
	}
	o.took = now.Sub(c.edge.began)
	c.edge.slow = o.took >= c.patient()
	changed, next := l.w.result(c, o, now)
	l.touched = true
	l.changed = l.changed || changed
	from := now
	if c.spec.Kind == model.MiscCheck {
		// Scripts run at a fixed pace, counted from start to start.
		from = c.edge.began
	}
	c.edge.wait = next
	l.timers.set(c, from.Add(next))
}
