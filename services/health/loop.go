package health

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ballast/configs/model"
)

// edge is what the loop keeps for a check: its one timer and, while a probe
// runs, its socket.
type edge struct {
	slot  int       // in the heap of timers
	at    time.Time // next probe, or the deadline of the running one
	phase phase
	fd    int // -1: none
	began time.Time
	limit time.Time // end of patience with the whole answer
	out   []byte    // rest of the request
	ans   *answer
	gone  bool // removed by a reload while a worker was busy with it
}

type phase uint8

const (
	idle       phase = iota
	queued           // due, waiting for a free descriptor
	connecting       // SYN sent
	sending          // request not yet written in full
	reading          // waiting for the answer
	working          // with a worker: TLS, script
)

// maxOpen bounds the sockets that are open at one time. Probes beyond it wait
// for their turn; at 3 s for a silent server it is still 1,300 of them a second.
const maxOpen = 4096

// readSize is how much of an answer is read at one time.
const readSize = 64 << 10

// loop runs the probes of all checks in one goroutine over one epoll
// descriptor. TLS and scripts, which cannot be driven that way, are given to
// a bounded number of workers.
type loop struct {
	w     *world
	ep    int
	wk    int // eventfd: work in the inbox
	addrs int // netlink socket for ha_suspend, -1: nobody wants it

	timers  timers
	byFD    map[int32]*check
	waiting []*check // phase queued, oldest first
	open    int
	buf     []byte
	events  []unix.EpollEvent

	mu    sync.Mutex
	inbox []func(now time.Time)
	ended bool

	tls  *workers
	misc *workers
	run  runScript

	changed bool // a verdict changed since the last publish
	touched bool // a probe was done since the last publish
}

func newLoop(w *world, run runScript) (*loop, error) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("health: epoll: %w", err)
	}
	wk, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(ep)
		return nil, fmt.Errorf("health: eventfd: %w", err)
	}
	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(wk)}
	if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, wk, &ev); err != nil {
		unix.Close(ep)
		unix.Close(wk)
		return nil, fmt.Errorf("health: epoll: %w", err)
	}
	l := &loop{
		w: w, ep: ep, wk: wk, addrs: -1, byFD: map[int32]*check{}, buf: make([]byte, readSize),
		events: make([]unix.EpollEvent, 256), run: run,
	}
	l.tls, l.misc = newWorkers(maxTLS), newWorkers(maxScripts)
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
	if l.addrs >= 0 {
		unix.Close(l.addrs)
	}
	unix.Close(l.ep)
	unix.Close(l.wk)
}

// turn waits for at most the given time for something to do, and does it.
func (l *loop) turn(most time.Duration) error {
	now := time.Now()
	wait := most
	if c := l.timers.first(); c != nil {
		wait = min(wait, c.edge.at.Sub(now))
	}
	// Round up: waking before the deadline would spin.
	ms := int((max(wait, 0) + time.Millisecond - 1) / time.Millisecond)
	n, err := unix.EpollWait(l.ep, l.events, ms)
	if err != nil && err != unix.EINTR {
		return fmt.Errorf("health: epoll: %w", err)
	}
	now = time.Now()
	for i := range max(n, 0) {
		if l.events[i].Fd == int32(l.wk) {
			l.drainInbox(now)
			continue
		}
		if l.events[i].Fd == int32(l.addrs) {
			if err := l.lookAddresses(now); err != nil {
				return err
			}
			continue
		}
		// The map, not the event, says whose it is: an earlier event of this
		// round may have closed the descriptor.
		if c := l.byFD[l.events[i].Fd]; c != nil {
			l.ready(c, now)
		}
	}
	for {
		c := l.timers.first()
		if c == nil || c.edge.at.After(now) {
			break
		}
		l.timers.remove(c)
		l.due(c, now)
	}
	for len(l.waiting) > 0 && l.open < maxOpen {
		c := l.waiting[0]
		l.waiting = l.waiting[1:]
		if c.edge.phase == queued && !c.edge.gone {
			c.edge.phase = idle
			l.begin(c, now)
		}
	}
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
func (l *loop) apply(cfg *model.Config, now time.Time) []error {
	added, removed, errs := l.w.apply(cfg, now)
	for _, c := range removed {
		l.drop(c)
	}
	for _, c := range added {
		if !c.implemented() {
			continue
		}
		// Starts are spread, so that a thousand checks do not beat in step.
		var in time.Duration
		if c.spec.Warmup > 0 {
			in = rand.N(c.spec.Warmup)
		}
		l.timers.set(c, now.Add(in))
	}
	l.changed = true
	if err := l.watchAddresses(now); err != nil {
		errs = append(errs, err)
	}
	return errs
}

// drop forgets a check and whatever it has open.
func (l *loop) drop(c *check) {
	c.edge.gone = true
	l.timers.remove(c)
	l.closeSocket(c)
}

// due is called when the one timer of a check fires.
func (l *loop) due(c *check, now time.Time) {
	switch c.edge.phase {
	case idle:
		l.begin(c, now)
	case connecting, sending, reading:
		l.finish(c, outcome{reason: l.silence(c, now)}, now)
	}
}

// silence says how a server kept us waiting.
func (l *loop) silence(c *check, now time.Time) string {
	a := c.edge.ans
	switch {
	case a == nil || a.got == 0 && len(a.head) == 0 && !a.inBody:
		return "no answer within " + c.spec.ConnectTimeout.String()
	case !a.inBody:
		return fmt.Sprintf("HTTP header not complete within %s, %d bytes of it", c.spec.ConnectTimeout, len(a.head))
	case !now.Before(c.edge.limit):
		return fmt.Sprintf("answer not complete after %s, %d bytes of body", patience(c.spec), a.got)
	default:
		return fmt.Sprintf("answer stopped for %s after %d bytes of body", c.spec.ConnectTimeout, a.got)
	}
}

// patience is how long a whole answer may take. keepalived only limits the
// gaps between two reads, so that a server that sends one byte a second can
// hold a check for ever.
func patience(c *model.Check) time.Duration { return max(10*c.ConnectTimeout, 5*time.Second) }

// begin starts a probe.
func (l *loop) begin(c *check, now time.Time) {
	if c.suspended() {
		l.timers.set(c, now.Add(max(c.spec.DelayLoop, minDelay)))
		return
	}
	c.edge.began, c.edge.limit = now, now.Add(patience(c.spec))
	c.edge.ans, c.edge.out = nil, nil
	switch c.spec.Kind {
	case model.SSLGet:
		l.beginTLS(c)
	case model.MiscCheck:
		l.beginScript(c)
	default:
		if l.open >= maxOpen {
			c.edge.phase = queued
			l.waiting = append(l.waiting, c)
			return
		}
		l.connect(c, now)
	}
}

// finish ends a probe and sets the timer of the next one.
func (l *loop) finish(c *check, o outcome, now time.Time) {
	l.closeSocket(c)
	c.edge.phase, c.edge.ans, c.edge.out = idle, nil, nil
	if c.edge.gone {
		return
	}
	o.took = now.Sub(c.edge.began)
	changed, next := l.w.result(c, o, now)
	l.touched = true
	l.changed = l.changed || changed
	from := now
	if c.spec.Kind == model.MiscCheck {
		// Scripts run at a fixed pace, counted from start to start.
		from = c.edge.began
	}
	l.timers.set(c, from.Add(next))
}
