// Package notify runs what users wrote: vrrp_script checks, notify_* scripts,
// quorum and real server scripts, MISC_CHECK programs for health; and it sends
// mail, and the box's log to syslog servers. Other services say what happened, notify tells the world.
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
	"fmt"
	"slices"
	"strconv"
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
	fifos   *fifos
	files   *trackFiles
	procs   *processes
	journal *journal
	audit   *journal // what users did
	memory  *memory
	syslog  *forwarder
	socket  ipc.Dir

	touched chan struct{} // something to publish now and then
	changed chan struct{} // something to publish at once
	hold    chan struct{} // closed when startup_script is over

	mu      sync.Mutex
	runs    uint64
	missed  uint64
	applied status.Applied
	startup string
	running map[string]bool // names of verb "run"
	seq     uint64
	ring    []status.Transition // our own

	// Only the main goroutine.
	conf     *status.Conf // without virtual servers
	objects  *objects     // of conf
	previous *objects     // of the one before
	vrrp     *status.VRRP
	health   *status.HealthNews
	begun    bool              // start was called
	linesDue uint64            // generation whose states are to be written to the pipes; 0: none
	newReal  *objects          // those of the configuration before, when new real servers are to be told
	alive    map[string]bool   // real servers of virtual servers with omega that are up; nil: not read yet
	lastMail map[string]string // last state of an instance or group that was mailed
	starting sync.WaitGroup
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
		touched: make(chan struct{}, 1), changed: make(chan struct{}, 1), hold: make(chan struct{}),
		running: map[string]bool{}, lastMail: map[string]string{}, memory: openMemory(env),
	}
	if f := env.Files["scripts"]; f != nil { // the cgroup that init made for them
		s.run.cgroup = f
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
	now := func() { poke(s.changed) }
	s.scripts = &scripts{run: s.run, log: env.Log, did: did, before: s.memory.scripts, hold: s.hold}
	s.scripts.tell = func(name, from, to, why string) { s.tell("script", name, from, to, why) }
	s.queues = newQueues(s.run, env.Log, func() { did(false) })
	s.queues.hold = s.hold
	s.post = newPostman(env.Log, func() { poke(s.touched) })
	s.post.tell = func(from, to, why string) { s.tell("mail", "mail", from, to, why) }
	user := &scriptUser{cred: s.run.cred}
	s.fifos = &fifos{run: s.run, user: user, log: env.Log, did: func() { poke(s.touched) }}
	s.fifos.tell = func(name, why string) { s.tell("reader", name, "running", "ended", why) }
	s.files = &trackFiles{user: user, log: env.Log, did: now, now: time.Now}
	s.files.tell = func(name string, from, to int) {
		s.tell("file", name, strconv.Itoa(from), strconv.Itoa(to), "the file was written")
	}
	s.procs = &processes{proc: "/proc", log: env.Log, did: now, now: time.Now}
	s.procs.tell = func(name string, known, was, ok bool, why string) {
		s.tell("process", name, verdictName(known, was), verdictName(true, ok), why)
	}
	s.journal = openJournal(env.Data, s.memory.boot, env.Log)
	s.syslog = newForwarder(env, s.memory.boot)
	s.audit = openJournalIn(env.Data, "audit", s.memory.boot, env.Log)
	return s
}

// tell puts a transition of our own into the ring. The journal takes it with
// the next state that is published.
func (s *service) tell(kind, object, from, to, reason string) {
	s.mu.Lock()
	s.seq++
	t := status.Transition{Seq: s.seq, Time: time.Now(), Kind: kind, Object: object, From: from, To: to, Reason: reason}
	if len(s.ring) >= 2*status.RingSize { // a fresh array: what was published must not change under its reader
		s.ring = append(make([]status.Transition, 0, 2*status.RingSize), s.ring[len(s.ring)-status.RingSize:]...)
	}
	s.ring = append(s.ring, t)
	s.mu.Unlock()
	poke(s.changed)
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
	conf := follow.New(s.env.Dir.Client("conf"), follow.Bare).Lean()
	// A script that is not on the box is no reason to refuse: conf warns of it,
	// since it may be loaded later.
	s.srv.Handle("prepare", conf.Prepare(func(context.Context, follow.Update) error { return nil }), ipc.UIDConf)
	s.srv.Handle("run", s.verbRun, ipc.UIDHealth)
	s.srv.Handle("mail", s.verbMail, ipc.GroupOperate)
	s.srv.Handle("track-file", s.verbTrackFile, ipc.GroupOperate)
	s.srv.Handle("journal", s.verbJournal, ipc.GroupView)
	s.srv.Handle("note", s.verbNote, ipc.UIDFirmware)
	s.srv.Handle("audit", s.verbAudit, ipc.GroupView, ipc.UIDFirmware) // of what users of every role do, and what came of it
	s.srv.Handle("audit-log", s.verbAuditLog, ipc.GroupView)

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

	// The journal ends last: it takes what the others tell at their end.
	journalCtx, endJournal := context.WithCancel(context.Background())
	journalDone := make(chan struct{})
	go func() {
		defer close(journalDone)
		var both sync.WaitGroup
		both.Go(func() { s.journal.work(journalCtx) })
		both.Go(func() { s.audit.work(journalCtx) })
		both.Wait()
	}()

	// So does what forwards the log.
	syslogCtx, endSyslog := context.WithCancel(context.Background())
	syslogDone := make(chan struct{})
	go func() { defer close(syslogDone); s.syslog.work(syslogCtx) }()

	confs, vrrps, healths := make(chan follow.Update), make(chan status.VRRP), make(chan status.HealthNews)
	tables, nets := make(chan ringOf), make(chan ringOf)
	client := s.env.Dir.Client
	wg.Go(func() { conf.Run(ctx, func(u follow.Update) { forward(ctx, confs)(0, u) }) })
	wg.Go(func() { ipc.Watch(ctx, client("vrrp"), forward(ctx, vrrps)) })
	wg.Go(func() {
		ipc.WatchTail(ctx, client("health"), func(a, b status.HealthNews) status.HealthNews {
			b.Transitions = joined(a.Transitions, b.Transitions)
			return b
		}, forward(ctx, healths))
	})
	wg.Go(func() {
		ipc.WatchTail(ctx, client("ipvs"), func(a, b ringOf) ringOf { return ringOf{joined(a.Transitions, b.Transitions)} }, forward(ctx, tables))
	})
	wg.Go(func() { ipc.Watch(ctx, client("net"), forward(ctx, nets)) })
	s.publish()

	var err error
	beat := time.NewTicker(time.Second)
	defer beat.Stop()
	var later <-chan time.Time
	for ctx.Err() == nil && err == nil {
		select {
		case <-ctx.Done():
		case err = <-failed:
		case u := <-confs:
			s.applyConf(ctx, u.Conf, u.List)
			s.publish()
			s.env.Ready()
		case v := <-vrrps:
			s.vrrp = &v
			s.journal.take("vrrp", v.Transitions)
			s.act(ctx)
		case h := <-healths:
			if s.health != nil {
				h.Transitions = joined(s.health.Transitions, h.Transitions) // some of those before may wait for our configuration
			}
			s.health = &h
			s.journal.take("health", h.Transitions)
			s.act(ctx)
		case t := <-tables:
			s.journal.take("ipvs", t.Transitions)
		case n := <-nets:
			s.journal.take("net", n.Transitions)
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
	stopping := s.boxStops()
	cancel()
	s.starting.Wait()
	s.scripts.wg.Wait()
	if stopping {
		s.omega()
	}
	s.queues.drain(drainTime)
	if stopping {
		s.shutdown()
	}
	s.fifos.stop(fifoGrace)
	s.files.stop()
	s.procs.stop()
	s.publish()
	s.post.drain(drainTime)
	endMail()
	<-mailDone
	endJournal()
	<-journalDone
	endSyslog()
	<-syslogDone
	wg.Wait()
	return err
}

// ringOf is all that the journal wants of a state.
type ringOf struct {
	Transitions []status.Transition `json:"transitions"`
}

// forward hands a watched state to a channel, for as long as ctx lasts.
func forward[T any](ctx context.Context, to chan<- T) func(uint64, T) {
	return func(_ uint64, v T) {
		select {
		case to <- v:
		case <-ctx.Done():
		}
	}
}

// applyConf takes a configuration.
func (s *service) applyConf(ctx context.Context, c status.Conf, list []*model.VirtualServer) {
	again := s.conf != nil && s.conf.Generation == c.Generation
	if s.conf != nil && !again {
		s.previous = s.objects
		if c.Config.Global.FIFOStatesOnReload {
			s.linesDue = c.Generation
		}
		if c.Config.Global.RSInitNotifies {
			s.newReal = s.previous
		}
	}
	s.conf, s.alive = &c, nil
	s.objects = &objects{Config: &c.Config, list: list}
	g := &c.Config.Global
	first := !s.memory.started
	if s.memory.config != c.Generation {
		reason := c.Source
		if c.Author != "" {
			reason += " by " + c.Author
		}
		s.tell("configuration", "configuration", strconv.FormatUint(s.memory.config, 10), strconv.FormatUint(c.Generation, 10), reason)
	}
	s.memory.setConfig(c.Generation)
	s.post.configure(*g, c.Config.SSL.CA)
	s.syslog.configure(c.Config.System.Syslog)
	s.fifos.apply(ctx, g)
	s.files.apply(ctx, c.Config.TrackFiles, first)
	s.procs.apply(ctx, c.Config.TrackProcesses)
	s.start(ctx, g, first)
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
			list = s.news("vrrp", v.Transitions, *s.memory.vrrp)
		}
		for _, t := range list {
			s.do(forVRRP, t)
		}
		if s.linesDue > 0 && v.Config >= s.linesDue {
			s.linesDue = 0
			for _, l := range stateLines(v) {
				s.fifos.add(l, false)
			}
		}
		s.memory.setVRRP(v.Transitions, fresh)
	}
	if h := s.health; h != nil && h.Config <= s.conf.Generation && h.Config > 0 {
		fresh := s.memory.health == nil
		var list []status.Transition
		if !fresh {
			list = s.news("health", h.Transitions, *s.memory.health)
		}
		if fresh || s.alive == nil && hasOmega(s.objects) || s.newReal != nil && h.Config == s.conf.Generation {
			whole, err := s.verdicts(ctx)
			if err != nil {
				return // its next news is the next try
			}
			if fresh {
				list = currentHealth(s.objects, whole)
				s.health = &status.HealthNews{Applied: whole.Applied, Transitions: whole.Transitions}
				h = s.health
			} else if s.newReal != nil && h.Config == s.conf.Generation {
				list = append(newReal(s.newReal, s.objects, whole, list), list...)
				s.newReal = nil
			}
			s.alive = aliveOf(s.objects, whole)
		}
		for _, t := range list {
			if _, counts := s.alive[t.Object]; counts {
				s.alive[t.Object] = t.To == stateUp
			}
			s.do(forHealth, t)
		}
		s.memory.setHealth(h.Transitions, fresh)
	}
}

// news is news, and tells of what was lost.
func (s *service) news(service string, ring []status.Transition, last mark) []status.Transition {
	list, missed := news(ring, last)
	if missed > 0 && last != (mark{}) {
		s.mu.Lock()
		s.missed += missed
		s.mu.Unlock()
		s.env.Log.Warn(fmt.Sprintf("%s: %d transitions came faster than they could be read: no script, mail or line tells of them", service, missed))
	}
	return list
}

// do sets off what a transition asks for. An object that the configuration
// has just lost is looked for in the one before.
func (s *service) do(find func(*objects, status.Transition) actions, t status.Transition) {
	a := find(s.objects, t)
	if len(a.jobs) == 0 && a.mail == nil && a.line == "" && s.previous != nil {
		if t.To == status.VRRPStop && lost(&s.conf.Config, t) {
			t.To = toDeleted // it stopped because a commit took it away
		}
		a = find(s.previous, t)
	}
	for _, j := range a.jobs {
		s.queues.add(j)
	}
	if a.line != "" {
		s.fifos.add(a.line, a.lvs)
	}
	if a.mail == nil {
		return
	}
	if t.Kind == kindInstance || t.Kind == kindGroup {
		// With no_email_faults a fault that passes leaves the state that was
		// mailed last.
		key := t.Kind + " " + t.Object
		if s.lastMail[key] == t.To {
			return
		}
		s.lastMail[key] = t.To
	}
	s.post.add(*a.mail) // not set up: as in keepalived, nobody asked for mail then
}

// lost reports whether the configuration has no such instance or group.
func lost(cfg *model.Config, t status.Transition) bool {
	if t.Kind == kindGroup {
		return !slices.ContainsFunc(cfg.SyncGroups, func(g model.SyncGroup) bool { return g.Name == t.Object })
	}
	return t.Kind == kindInstance && !slices.ContainsFunc(cfg.Instances, func(i model.Instance) bool { return i.Name == t.Object })
}

func (s *service) publish() {
	sent, failed, last := s.post.counts()
	n := status.Notify{Scripts: s.scripts.results(), MailSent: sent, MailFailed: failed, LastMailError: last}
	s.mu.Lock()
	n.Applied, n.Runs, n.Missed, n.Startup = s.applied, s.runs, s.missed, s.startup
	n.Transitions = s.ring[max(0, len(s.ring)-status.RingSize):len(s.ring):len(s.ring)]
	s.mu.Unlock()
	n.Dropped = s.queues.lost()
	n.Files, n.Processes, n.FIFOs = s.files.results(), s.procs.results(), s.fifos.states()
	s.journal.take("notify", n.Transitions)
	s.srv.Publish(n)
}
