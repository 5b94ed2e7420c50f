package ipvs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"runtime/debug"
	"sync"
	"time"
	"unsafe"

	"ballast/configs/model"
	"ballast/services/ipc"
	"ballast/services/ipc/follow"
	"ballast/services/ipc/status"
	"ballast/services/ipc/support"
	"ballast/services/ipc/verdicts"
	"ballast/services/ipvs/ipvsnl"
)

// tickPeriod is how often the main loop looks at the time, at least.
const tickPeriod = time.Second

// Run programs IPVS until ctx ends. It leaves the kernel as it is then, so
// that the next run, or nobody, carries on with it.
func Run(ctx context.Context, env *ipc.Env) error {
	return run(ctx, env, &netlinkKernel{}, &netlinkKernel{}, ipvsnl.ConnTab, watchLinks)
}

// run works on kernel, and reads what it sweeps over reader, which may be used
// at the same time. stirs calls its argument whenever addresses or interfaces
// change.
func run(ctx context.Context, env *ipc.Env, kernel, reader Kernel, connTab string, stirs func(context.Context, func())) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer kernel.Close()

	l := &loop{srv: ipc.NewServer("ipvs"), env: env, log: env.Log, asks: make(chan func()), sweep: newSweeper()}
	l.r = newReconciler(kernel, env.Log, time.Now)
	l.r.tick = env.Progress
	orders, err := LoadOrders(env.Data)
	if err != nil {
		env.Log.Error(err.Error())
	}
	l.r.orders = orders

	conf := follow.New(env.Dir.Client("conf"), follow.Whole).Lean()
	plans := &plans{}
	in := newInbox()
	l.srv.Handle("prepare", conf.Prepare(func(ctx context.Context, u follow.Update) error {
		in.put(func(m *mail) { m.asked = len(u.List) })
		return plans.prepare(ctx, u)
	}), ipc.UIDConf)
	l.srv.Handle("connections", func(ctx context.Context, _ ipc.Peer, body json.RawMessage) (any, error) {
		return connections(ctx, connTab, body)
	}, ipc.GroupView)
	l.srv.Handle("order", l.order, ipc.GroupOperate)
	l.srv.Handle("service", l.service, ipc.GroupView)
	l.srv.Handle("page", l.page, ipc.GroupView, ipc.UIDFirmware)
	l.srv.Handle("orders", l.orders, ipc.GroupView)
	l.srv.HandleStream("support", support.Tell(supportTables), ipc.GroupAdmin)
	l.publish()

	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(l.sweep.ask)
	defer cancel()
	serve := make(chan error, 1)
	wg.Go(func() { serve <- l.srv.Serve(ctx, env.Listener) })
	wg.Go(func() { l.sweep.read(reader) })

	wg.Go(func() {
		conf.Run(ctx, func(u follow.Update) {
			p := plans.next(&u)
			in.put(func(m *mail) { m.plan, m.config = p, u.Conf.Generation })
		})
	})
	wg.Go(func() {
		var h *Health
		verdicts.Follow(ctx, env.Dir.Client("health"), func(u verdicts.Update) {
			h = h.after(&u)
			in.put(func(m *mail) { m.hear(h, &u) })
		})
	})
	wg.Go(func() {
		ipc.Watch(ctx, env.Dir.Client("vrrp"), func(_ uint64, v instances) { in.put(func(m *mail) { m.vrrp = &v }) })
	})
	wg.Go(func() { stirs(ctx, func() { in.put(func(m *mail) { m.stirred = true }) }) })

	tick := time.NewTicker(tickPeriod)
	defer tick.Stop()
	pace := time.NewTimer(0)
	defer pace.Stop()
	l.full()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-serve:
			return err
		case <-in.ready:
			l.mail(in.take())
		case f := <-l.asks:
			f()
		case f := <-l.sweep.answer:
			f()
			l.r.event()
			if len(l.sweep.ids) == 0 {
				l.publish() // a sweep is over
			}
		case <-tick.C:
			l.tick()
		case <-pace.C:
		}
		l.sweep.turn(l.r, time.Now())
		if len(l.sweep.ids) > 0 && !l.sweep.busy {
			pace.Reset(max(0, time.Until(l.sweep.due())))
		}
		env.Progress()
	}
}

// loop is the main loop's memory.
type loop struct {
	r     *reconciler
	srv   *ipc.Server
	env   *ipc.Env
	log   *slog.Logger
	asks  chan func() // verbs, to be answered between two events
	sweep *sweeper
	next  time.Time // of the next full pass, while those are needed
	// untidy is when memory is to be tidied up; zero: it is tidy.
	untidy time.Time
}

// full runs a pass over everything: at the start, and after a fault.
func (l *loop) full() {
	if l.r.pass() {
		l.env.Ready()
	}
	l.next = time.Now().Add(sweepPeriod)
	l.publish()
}

// tick does what it is time for.
func (l *loop) tick() {
	r := l.r
	switch {
	case r.lost || r.have == nil:
		if !time.Now().Before(l.next) {
			l.full()
		}
	case !r.settled && r.plan != nil:
		l.full()
	default:
		r.due(false)
		ops, applied := r.ops, r.applied
		r.event()
		if r.ops != ops || r.applied != applied {
			l.publish()
		}
	}
	l.save()
	if !l.untidy.IsZero() && time.Now().After(l.untidy) {
		l.untidy = time.Time{}
		debug.FreeOSMemory()
	}
}

// mail takes in what the other services say.
func (l *loop) mail(m mail) {
	if m.plan != nil {
		m.asked = max(m.asked, len(m.plan.Virtual))
	}
	l.sweep.hold(time.Now(), m.asked)
	act := m.stirred && len(l.r.failed) > 0
	if act {
		l.r.due(true)
	}
	if m.plan != nil && (m.config != l.r.config || l.r.plan == nil) {
		l.r.follow(m.config, m.plan)
		act = true
	}
	if m.vrrp != nil && l.r.learn(m.vrrp) {
		act = true
	}
	if m.health != nil && l.r.hearOf(m.health, m.news) {
		act = true
	}
	if !act {
		return
	}
	ops := l.r.ops
	l.r.event()
	l.publish()
	l.save()
	l.sweep.hold(time.Now(), m.asked) // the programming itself may have taken long
	if l.r.ops-ops > manyOps {
		l.untidy = time.Now().Add(tidyAfter)
	}
}

// After manyOps operations in a row memory is tidied up: what a large
// configuration was brought in is many times what is kept of it, and the next
// one may be weeks away. But that reads all that is kept, and waits until those
// who wait for us are served.
const (
	manyOps   = 1000
	tidyAfter = 3 * time.Second
)

func (l *loop) publish() { l.srv.Publish(l.r.snapshot()) }

// save keeps the orders over a restart.
func (l *loop) save() {
	if !l.r.orders.changed {
		return
	}
	err := l.r.orders.save(l.env.Data)
	if err != nil && (l.r.ordersErr == nil || l.r.ordersErr.Error() != err.Error()) {
		l.log.Error(err.Error())
	}
	if l.r.ordersErr = err; l.env.Data == "" {
		l.r.orders.changed = false // nowhere to keep them: this box forgets everything at a reboot
	}
	l.publish()
}

// ask runs f in the main loop and waits for it.
func (l *loop) ask(ctx context.Context, f func()) error {
	done := make(chan struct{})
	select {
	case l.asks <- func() { defer close(done); f() }:
		<-done
		return nil
	case <-ctx.Done():
		return fmt.Errorf("ipvs: too busy to answer: %w", ctx.Err())
	}
}

// order is the verb.
func (l *loop) order(ctx context.Context, _ ipc.Peer, body json.RawMessage) (any, error) {
	var q status.ServerOrder
	if err := json.Unmarshal(body, &q); err != nil {
		return nil, fmt.Errorf("ipvs: order: argument: %w", err)
	}
	var out []status.Dest
	var oerr error
	err := l.ask(ctx, func() {
		out, oerr = l.r.order(q)
		if l.r.orders.changed {
			l.save()
		} else {
			l.publish()
		}
	})
	return out, errors.Join(err, oerr)
}

// service is the verb: the services of one virtual server.
func (l *loop) service(ctx context.Context, _ ipc.Peer, body json.RawMessage) (any, error) {
	var name string
	if err := json.Unmarshal(body, &name); err != nil {
		return nil, fmt.Errorf("ipvs: service: the argument is the name of a virtual server: %w", err)
	}
	var out []status.Service
	var serr error
	err := l.ask(ctx, func() { out, serr = l.r.virtual(name) })
	return out, errors.Join(err, serr)
}

// plans compiles configurations, off the main loop.
type plans struct {
	mu   sync.Mutex
	last *Plan // of the last configuration that conf announced

	// What was asked about last: mostly it is announced next.
	asked     *Plan
	askedBase *Plan
	askedList **model.VirtualServer // where its list is in memory
}

// next is the plan of a configuration that was announced.
func (p *plans) next(u *follow.Update) *Plan {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = p.of(u)
	p.asked, p.askedBase, p.askedList = nil, nil, nil
	return p.last
}

func (p *plans) of(u *follow.Update) *Plan {
	list := unsafe.SliceData(u.List)
	if p.asked != nil && p.askedBase == p.last && p.askedList == list && len(u.List) > 0 {
		return p.asked
	}
	base := p.last
	if u.All {
		base = nil
	}
	p.asked, p.askedBase, p.askedList = base.Next(&u.Conf.Config, u.List), p.last, list
	return p.asked
}

// prepare refuses a configuration that IPVS cannot hold.
func (p *plans) prepare(_ context.Context, u follow.Update) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.of(&u).err
}

// mail is the newest word of each service watched; nil: no news.
type mail struct {
	plan   *Plan
	config uint64 // generation of plan
	health *Health
	vrrp   *instances
	// news names the virtual servers that health says something new of; nil
	// with health set: all.
	news    map[string]bool
	stirred bool // addresses or interfaces changed
	asked   int  // virtual servers of a configuration that conf asks about, or announced
}

// hear adds an update, after which h is known.
func (m *mail) hear(h *Health, u *verdicts.Update) {
	switch {
	case u.All:
		m.news = nil
	case m.health == nil:
		m.news = map[string]bool{}
	}
	if m.news != nil {
		for i := range u.Servers {
			m.news[u.Servers[i].Name] = true
		}
	}
	m.health = h
}

// inbox holds the newest mail until the main loop takes it.
type inbox struct {
	mu    sync.Mutex
	mail  mail
	ready chan struct{}
}

func newInbox() *inbox { return &inbox{ready: make(chan struct{}, 1)} }

func (i *inbox) put(f func(*mail)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	f(&i.mail)
	select {
	case i.ready <- struct{}{}:
	default:
	}
}

func (i *inbox) take() mail {
	i.mu.Lock()
	defer i.mu.Unlock()
	m := i.mail
	i.mail = mail{}
	return m
}

// Bounds of the verb "connections".
const (
	connsDefault = 1000
	connsMax     = 20000
)

// matches reports whether a connection is asked for.
func matches(q *status.ConnQuery, c *ipvsnl.Connection) bool {
	one := func(want, is netip.AddrPort) bool {
		return !want.Addr().IsValid() || want.Addr() == is.Addr() && (want.Port() == 0 || want.Port() == is.Port())
	}
	return (!q.Client.IsValid() || q.Client == c.Client.Addr()) && one(q.Virtual, c.Virtual) && one(q.Dest, c.Dest)
}

func connections(ctx context.Context, path string, body json.RawMessage) (any, error) {
	var q status.ConnQuery
	if len(body) > 0 {
		if err := json.Unmarshal(body, &q); err != nil {
			return nil, fmt.Errorf("ipvs: connections: argument: %w", err)
		}
	}
	if q.Limit <= 0 {
		q.Limit = connsDefault
	}
	q.Limit = min(q.Limit, connsMax)
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("ipvs: connections: %w", err)
	}
	defer f.Close()
	out := []status.Conn{}
	err = ipvsnl.ReadConnections(f, func(c ipvsnl.Connection) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if matches(&q, &c) {
			out = append(out, status.Conn(c))
		}
		if len(out) >= q.Limit {
			return ipvsnl.ErrStop
		}
		return nil
	})
	return out, err
}
