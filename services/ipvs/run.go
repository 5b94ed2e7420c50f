package ipvs

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"ballast/services/ipc"
	"ballast/services/ipc/follow"
	"ballast/services/ipc/status"
	"ballast/services/ipvs/ipvsnl"
)

// Periods of the main loop.
const (
	tickPeriod = time.Second
	// A full pass reads the whole table; it also brings the statistics.
	fullPeriod = 2 * time.Second
	// Large tables are read less often, so that reading takes at most 1/20 of
	// a processor and never waits longer than maxPeriod.
	largeTable    = 1000
	largePeriod   = 10 * time.Second
	maxPeriod     = 30 * time.Second
	periodPerCost = 20
)

// Run programs IPVS until ctx ends. It leaves the kernel as it is then, so
// that the next run, or nobody, carries on with it.
func Run(ctx context.Context, env *ipc.Env) error {
	// The table of a pass is garbage at the next one, and passes are seconds
	// apart: collecting sooner costs nothing and halves the heap.
	debug.SetGCPercent(40)
	return run(ctx, env, &netlinkKernel{}, ipvsnl.ConnTab)
}

func run(ctx context.Context, env *ipc.Env, kernel Kernel, connTab string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer kernel.Close()

	srv := ipc.NewServer("ipvs")
	conf := follow.New(env.Dir.Client("conf"), follow.Whole)
	srv.Handle("prepare", conf.Prepare(prepare), ipc.UIDConf)
	srv.Handle("connections", func(ctx context.Context, _ ipc.Peer, body json.RawMessage) (any, error) {
		return connections(ctx, connTab, body)
	}, ipc.UIDConsole)

	r := newReconciler(kernel, env.Log, time.Now)
	r.tick = env.Progress
	srv.Publish(r.snapshot())

	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	serve := make(chan error, 1)
	wg.Go(func() { serve <- srv.Serve(ctx, env.Listener) })

	in := newInbox()
	wg.Go(func() {
		conf.Run(ctx, func(u follow.Update) { in.put(func(m *mail) { m.conf = &u.Conf }) })
	})
	wg.Go(func() {
		ipc.Watch(ctx, env.Dir.Client("health"), func(_ uint64, h Health) { in.put(func(m *mail) { m.health = &h }) })
	})
	wg.Go(func() {
		ipc.Watch(ctx, env.Dir.Client("vrrp"), func(_ uint64, v instances) { in.put(func(m *mail) { m.vrrp = &v }) })
	})

	l := loop{r: r, srv: srv, env: env, log: env.Log}
	tick := time.NewTicker(tickPeriod)
	defer tick.Stop()
	l.full()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-serve:
			return err
		case <-in.ready:
			l.mail(in.take())
		case <-tick.C:
			if !time.Now().Before(l.next) || (!r.settled && r.plan != nil) {
				l.full()
			}
		}
		env.Progress()
	}
}

// loop is the main loop's memory.
type loop struct {
	r    *reconciler
	srv  *ipc.Server
	env  *ipc.Env
	log  *slog.Logger
	next time.Time // of the next full pass
}

// full runs a pass over everything and plans the next one by what it cost.
func (l *loop) full() {
	start := time.Now()
	ok := l.r.pass(nil)
	took := time.Since(start)
	if l.r.ops > 0 && took > fullPeriod/2 {
		// A pass that programmed much says nothing about what reading costs.
		took = fullPeriod / 2
	}
	wait := max(fullPeriod, periodPerCost*took)
	if ok && len(l.r.have.Services) > largeTable {
		wait = max(wait, largePeriod)
	}
	l.next = time.Now().Add(min(wait, maxPeriod))
	if ok {
		l.env.Ready()
	}
	l.publish()
}

// mail takes in what the other services say.
func (l *loop) mail(m mail) {
	act := false
	if m.conf != nil && (m.conf.Generation != l.r.config || l.r.plan == nil) && m.conf.Generation != 0 {
		l.r.configure(m.conf.Generation, &m.conf.Config)
		act = true
	}
	if m.vrrp != nil && l.r.learn(m.vrrp) {
		act = true
	}
	if m.health != nil && l.r.hear(m.health) {
		act = true
	}
	if act {
		l.r.event()
		l.publish()
	}
	if m.conf != nil {
		// The text and tree of a large configuration are many times what is
		// kept of it, and the next one may be weeks away.
		m.conf = nil
		debug.FreeOSMemory()
	}
}

func (l *loop) publish() { l.srv.Publish(l.r.snapshot()) }

// mail is the newest word of each service watched; nil: no news.
type mail struct {
	conf   *status.Conf
	health *Health
	vrrp   *instances
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

// prepare refuses a configuration that IPVS cannot hold.
func prepare(_ context.Context, u follow.Update) error {
	_, err := Compile(&u.Conf.Config)
	return err
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
