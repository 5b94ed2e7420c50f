// Package notify runs what users wrote: vrrp_script checks, notify_* scripts,
// quorum and real server scripts, MISC_CHECK programs for health; and it sends
// mail. Other services say what happened, notify tells the world.
//
// Scripts run as the user keepalived_script, in a process group of their own,
// with no capabilities and a clean environment; a shell line or a "#!/bin/sh"
// file runs in the interpreter of init/applet. A script reaches the director
// only through a socket that knows the three verbs of script.go.
//
// The process needs CAP_SETUID, CAP_SETGID and CAP_KILL to run scripts as
// another user; without them they run as itself.
package notify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc"
	"ballast/services/ipc/follow"
	"ballast/services/ipc/status"
)

// drainTime is what notify_stop and the last mail get when the service ends.
const drainTime = 2 * time.Second

// publishGap bounds how often results that changed nothing are published.
const publishGap = 200 * time.Millisecond

// service is the whole of notify.
type service struct {
	env     *ipc.Env
	srv     *ipc.Server
	run     *runner
	scripts *scripts
	queues  *queues
	post    *postman
	memory  *memory
	socket  ipc.Dir

	touched chan struct{} // something to publish now and then
	changed chan struct{} // something to publish at once

	mu      sync.Mutex
	runs    uint64
	applied status.Applied
	running map[string]bool // names of verb "run"

	// Only the main goroutine.
	conf     *status.Conf
	previous *model.Config
	vrrp     *status.VRRP
	health   *status.HealthNews
}

// Options are where things lie. The zero value is a director's.
type Options struct {
	Shell  string  // interpreter of shell lines; empty: /bin/sh
	Path   string  // PATH of scripts
	Socket ipc.Dir // where scripts find the director; empty: "@ballast"
}

// Run does the service until ctx ends.
func Run(ctx context.Context, env *ipc.Env) error { return RunWith(ctx, env, Options{}) }

// RunWith is Run for tests, which are no director.
func RunWith(ctx context.Context, env *ipc.Env, o Options) error {
	return newService(env, o).serve(ctx)
}

func newService(env *ipc.Env, o Options) *service {
	if o.Socket == "" {
		o.Socket = scriptDir
	}
	s := &service{
		env: env, srv: ipc.NewServer("notify"), run: newRunner(o), socket: o.Socket,
		touched: make(chan struct{}, 1), changed: make(chan struct{}, 1), running: map[string]bool{}, memory: openMemory(env),
	}
	did := func(news bool) {
		s.mu.Lock()
		s.runs++
		s.mu.Unlock()
		if news {
			poke(s.changed)
		} else {
			poke(s.touched)
		}
	}
	s.scripts = &scripts{run: s.run, log: env.Log, did: did, before: s.memory.scripts}
	s.queues = newQueues(s.run, env.Log, func() { did(false) })
	s.post = newPostman(env.Log, func() { poke(s.touched) })
	return s
}

func poke(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

func (s *service) serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	conf := follow.New(s.env.Dir.Client("conf"), follow.Bare)
	// A script that is not on the box is no reason to refuse: conf warns of it,
	// since it may be loaded later.
	s.srv.Handle("prepare", conf.Prepare(func(context.Context, follow.Update) error { return nil }), ipc.UIDConf)
	s.srv.Handle("run", s.verbRun, ipc.UIDHealth)
	s.srv.Handle("mail", s.verbMail, ipc.UIDConsole)

	var wg sync.WaitGroup
	failed := make(chan error, 2)
	wg.Go(func() {
		if err := s.srv.Serve(ctx, s.env.Listener); err != nil {
			failed <- err
		}
	})
	wg.Go(func() {
		if err := s.serveScripts(ctx); err != nil {
			failed <- err
		}
	})
	mailCtx, endMail := context.WithCancel(context.Background())
	mailDone := make(chan struct{})
	go func() { defer close(mailDone); s.post.work(mailCtx) }()

	confs, vrrps, healths := make(chan status.Conf), make(chan status.VRRP), make(chan status.HealthNews)
	wg.Go(func() {
		conf.Run(ctx, func(u follow.Update) {
			select {
			case confs <- u.Conf:
			case <-ctx.Done():
			}
		})
	})
	wg.Go(func() { watch(ctx, s.env.Dir.Client("vrrp"), vrrps) })
	wg.Go(func() {
		ipc.WatchSummary(ctx, s.env.Dir.Client("health"), func(_ uint64, h status.HealthNews) {
			select {
			case healths <- h:
			case <-ctx.Done():
			}
		})
	})
	s.publish()

	var err error
	beat := time.NewTicker(time.Second)
	defer beat.Stop()
	var later <-chan time.Time
	for ctx.Err() == nil && err == nil {
		select {
		case <-ctx.Done():
		case err = <-failed:
		case c := <-confs:
			s.applyConf(ctx, c)
			s.publish()
			s.env.Ready()
		case v := <-vrrps:
			s.vrrp = &v
			s.act(ctx)
		case h := <-healths:
			s.health = &h
			s.act(ctx)
		case <-s.changed:
			s.publish()
			s.memory.setScripts(s.scripts.verdicts())
		case <-s.touched:
			if later == nil {
				later = time.After(publishGap)
			}
		case <-later:
			s.publish()
			later = nil
		case <-beat.C:
			s.env.Progress()
		}
	}
	cancel()
	s.scripts.wg.Wait()
	s.queues.drain(drainTime)
	endMail()
	<-mailDone
	wg.Wait()
	return err
}

func watch[T any](ctx context.Context, c *ipc.Client, to chan<- T) {
	ipc.Watch(ctx, c, func(_ uint64, v T) {
		select {
		case to <- v:
		case <-ctx.Done():
		}
	})
}

// applyConf takes a configuration.
func (s *service) applyConf(ctx context.Context, c status.Conf) {
	if s.conf != nil {
		s.previous = &s.conf.Config
	}
	s.conf = &c
	s.post.configure(c.Config.Global)
	s.scripts.apply(ctx, &c.Config)
	s.mu.Lock()
	s.applied = status.Applied{Config: c.Generation}
	s.mu.Unlock()
	s.act(ctx)
}

// verdicts reads the whole state of health, which is needed only at the start.
func (s *service) verdicts(ctx context.Context) (*status.Health, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var h status.Health
	if _, err := s.env.Dir.Client("health").State(ctx, &h); err != nil {
		return nil, err
	}
	return &h, nil
}

// act does what the newest states of vrrp and health ask for.
func (s *service) act(ctx context.Context) {
	if s.conf == nil {
		return
	}
	// A service that has a newer configuration than we have talks about objects
	// that we do not know yet; ours comes in a moment.
	if v := s.vrrp; v != nil && v.Config <= s.conf.Generation && v.Config > 0 {
		fresh := s.memory.vrrp == nil
		var list []status.Transition
		if fresh {
			list = currentVRRP(v)
		} else {
			list = news(v.Transitions, *s.memory.vrrp)
		}
		for _, t := range list {
			s.do(forVRRP, t)
		}
		s.memory.setVRRP(v.Transitions, fresh)
	}
	if h := s.health; h != nil && h.Config <= s.conf.Generation && h.Config > 0 {
		fresh := s.memory.health == nil
		var list []status.Transition
		if fresh {
			whole, err := s.verdicts(ctx)
			if err != nil {
				return // its next news is the next try
			}
			list = currentHealth(&s.conf.Config, whole)
			s.health = &status.HealthNews{Applied: whole.Applied, Transitions: whole.Transitions}
			h = s.health
		} else {
			list = news(h.Transitions, *s.memory.health)
		}
		for _, t := range list {
			s.do(forHealth, t)
		}
		s.memory.setHealth(h.Transitions, fresh)
	}
}

// do sets off what a transition asks for. An object that the configuration
// has just lost is looked for in the one before.
func (s *service) do(find func(*model.Config, status.Transition) actions, t status.Transition) {
	a := find(&s.conf.Config, t)
	if len(a.jobs) == 0 && a.mail == nil && s.previous != nil {
		a = find(s.previous, t)
	}
	for _, j := range a.jobs {
		s.queues.add(j)
	}
	if a.mail != nil {
		s.post.add(*a.mail) // not set up: as in keepalived, nobody asked for mail then
	}
}

func (s *service) publish() {
	sent, failed, last := s.post.counts()
	n := status.Notify{Scripts: s.scripts.results(), MailSent: sent, MailFailed: failed, LastMailError: last}
	s.mu.Lock()
	n.Applied, n.Runs = s.applied, s.runs
	s.mu.Unlock()
	s.srv.Publish(n)
}

// verbRun runs a program once, for health.
func (s *service) verbRun(ctx context.Context, _ ipc.Peer, body json.RawMessage) (any, error) {
	var r status.Run
	if err := json.Unmarshal(body, &r); err != nil {
		return nil, err
	}
	if r.Timeout <= 0 || r.Command.IsZero() {
		return nil, errors.New("run: want a command and a timeout above 0")
	}
	s.mu.Lock()
	busy := s.running[r.Name]
	s.running[r.Name] = true
	s.mu.Unlock()
	if busy {
		return nil, fmt.Errorf("run %s: the run before has not ended", r.Name)
	}
	defer func() {
		s.mu.Lock()
		delete(s.running, r.Name)
		s.runs++
		s.mu.Unlock()
	}()
	res := s.run.run(ctx, r.Command, nil, r.Timeout)
	detail := res.detail
	if out := lastLine(res.output); out != "" {
		detail += ": " + out
	}
	return status.RunResult{Exit: res.exit, Output: res.output, Detail: detail, Took: res.took}, nil
}

// verbMail sends a message through the configured smtp_server.
func (s *service) verbMail(_ context.Context, _ ipc.Peer, body json.RawMessage) (any, error) {
	var m status.Mail
	if err := json.Unmarshal(body, &m); err != nil {
		return nil, err
	}
	return nil, s.post.add(mail{to: m.To, subject: m.Subject, body: m.Body})
}
