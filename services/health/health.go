// Package health probes the real servers and says which of them are alive and
// which virtual servers have their quorum. It never says what to do about it:
// ipvs acts on the verdicts, notify tells people.
//
// TCP_CHECK, HTTP_GET, SSL_GET and MISC_CHECK keep keepalived's state machine
// (machine.go, quorum.go, world.go: pure). The probes themselves (loop.go,
// conn.go) are non-blocking sockets in one epoll loop, not a goroutine each;
// checks that many services share run once. TLS and scripts go to a bounded
// number of workers (workers.go).
//
// What real servers send is hostile until proven otherwise: time and bytes of
// every answer are bounded. The process needs CAP_NET_RAW (fwmark, bind_if)
// and nothing else.
package health

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"ballast/services/ipc"
	"ballast/services/ipc/follow"
	"ballast/services/ipc/status"
	"ballast/services/ipc/verdicts"
)

// Pace of publishing: a changed verdict is out at once, but a storm of them
// comes in batches; probes that changed nothing show up now and then.
const (
	stormGap  = 20 * time.Millisecond
	quietGap  = time.Second
	perCheck  = time.Millisecond // added to quietGap for each check: big states are dear
	turnLimit = time.Second      // longest sleep, for env.Progress

	// progressGap bounds how often init is told that the loop turns: telling is a
	// write that wakes another process, and a turn may be a single probe.
	progressGap = 500 * time.Millisecond
)

// Run does the service until ctx ends.
func Run(ctx context.Context, env *ipc.Env) error {
	notify := env.Dir.Client("notify")
	return runWith(ctx, env, func(ctx context.Context, r status.Run) (status.RunResult, error) {
		var res status.RunResult
		err := notify.Call(ctx, "run", r, &res)
		return res, err
	})
}

func runWith(ctx context.Context, env *ipc.Env, run runScript) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w := newWorld()
	w.booting = time.Now().Add(bootPatience - uptime())
	l, err := newLoop(w, run)
	if err != nil {
		return err
	}
	defer l.close()
	srv := ipc.NewServer("health")
	conf := follow.New(env.Dir.Client("conf"), follow.Whole).Lean()
	srv.Handle("prepare", conf.Prepare(prepare), ipc.UIDConf)
	srv.Handle("server", l.server, ipc.GroupView)
	served := make(chan error, 1)
	go func() {
		err := srv.Serve(ctx, env.Listener)
		served <- err
		cancel()
		l.post(func(time.Time) {})
	}()

	p := &publisher{srv: srv, book: verdicts.NewBook()}
	w.told = logTransition(env.Log)
	w.failed = func(text string) { env.Log.Warn(text) }
	w.summed = func(text string) { env.Log.Info(text) }
	mem := openMemory(env.Data, env.Log)
	w.before = mem.load()
	p.publish(w, time.Now())
	others := newWatches(env.Dir, l)
	defer others.close()
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		conf.Run(ctx, func(u follow.Update) {
			c := u.Conf
			l.post(func(now time.Time) {
				errs := l.apply(&c.Config, u.List, now)
				others.adjust(ctx)
				p.applied = status.Applied{Config: c.Generation}
				if err := errors.Join(errs...); err != nil {
					p.applied.Error = err.Error()
					env.Log.Error(err.Error())
				}
				p.publish(w, now)
				l.changed, l.touched = false, false // all that is told by now
				env.Ready()
			})
		})
	}()
	wake := context.AfterFunc(ctx, func() { l.post(func(time.Time) {}) })
	defer wake()

	var progress time.Time
	for ctx.Err() == nil {
		if err := l.turn(min(turnLimit, p.wait(l, time.Now()))); err != nil {
			return err
		}
		now := time.Now()
		if p.wait(l, now) <= 0 {
			p.publish(w, now)
			w.news = w.news || l.changed
			l.changed, l.touched = false, false
		}
		mem.keep(w, now)
		if now.Sub(progress) >= progressGap {
			progress = now
			env.Progress()
		}
	}
	if w.news {
		mem.save(w, time.Now())
	}
	<-watched
	return <-served
}

// prepare refuses a configuration whose checks cannot be run as written.
func prepare(_ context.Context, u follow.Update) error {
	var differs func(string) bool
	if !u.All {
		names := make(map[string]bool, len(u.Changed))
		for _, n := range u.Changed {
			names[n] = true
		}
		differs = func(name string) bool { return names[name] }
	}
	errs := validate(u.List, differs)
	if _, err := loadMaterial(&u.Conf.Config.SSL); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// logTransition writes one line at the moment a transition happens.
func logTransition(log *slog.Logger) func(status.Transition) {
	return func(t status.Transition) {
		level := slog.LevelInfo
		if t.To == stateDown {
			level = slog.LevelWarn
		}
		log.Log(context.Background(), level, t.Object+": "+t.From+" -> "+t.To+": "+t.Reason)
	}
}

// publisher tells the world's state.
type publisher struct {
	srv     *ipc.Server
	book    *verdicts.Book
	applied status.Applied
	last    time.Time
}

// wait is how long until something should be published; turnLimit when there
// is nothing.
func (p *publisher) wait(l *loop, now time.Time) time.Duration {
	switch {
	case l.changed:
		return p.last.Add(stormGap).Sub(now)
	case l.touched:
		gap := quietGap + time.Duration(len(l.w.checks))*perCheck
		return p.last.Add(gap).Sub(now)
	}
	return turnLimit
}

func (p *publisher) publish(w *world, now time.Time) {
	h := w.state(p.applied)
	p.srv.Publish(p.book.Enter(&h))
	p.last = now
}
