package vrrp

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc/status"
	"ballast/services/vrrp/core"
	"ballast/services/vrrp/kernel"
)

// service is the loop and all that it owns. Everything here belongs to the
// loop's thread, except what says otherwise.
type service struct {
	log   *logger
	loop  *kernel.Loop
	rtnl  *kernel.Rtnl
	watch *kernel.Watch

	cmds    chan func()        // from other goroutines, done by the loop
	turns   atomic.Uint64      // of the loop, for the watchdog
	publish func(*status.VRRP) // never blocks
	now     time.Duration      // of this turn
	started time.Duration      // of this process

	links   map[string]*kernel.Link // by name and by further names
	byIndex map[int]*kernel.Link
	addrs   []kernel.Addr
	stale   bool          // links or addresses changed since the last dump
	dumped  time.Duration // when that was begun
	cameUp  map[int]bool  // links that came up since the last greet, by index

	vlinks   []virtualLink     // that the configuration asks for
	vtrouble map[string]string // what is wrong with them, by name
	vseen    map[int]bool      // indexes of those that this process has set up

	sweep bool // routes and rules of nobody are looked for

	taken   *kernel.Ring // where packets are received
	socks   map[sockKey]*sock
	byFD    map[int]*sock
	frames  map[int]*kernel.Frames
	bursts  []*burst
	batch   kernel.Batch              // of announcements on their way to one interface
	routes6 struct{ known, yes bool } // whether that interface forwards IPv6

	garpGroups []model.GARPGroup
	pace       map[string]time.Duration // when the next announcement may go, by what is paced together

	readers map[int]func() // further descriptors: what takes what they hold
	stand   standIn        // the pacer, which sends where this process stalls
	mate    *mate          // the private heartbeat; nil: off
	detect  *bfdRoom       // nil: there never was a session

	gen     uint64 // of the configuration applied
	applied bool
	startup time.Duration // when vrrp_startup_delay and vrrp_delay_after_boot are over
	gate    gate          // closed: no router goes master yet
	learn   time.Duration // core.Config.Learn
	routers []*router     // in the order of the configuration
	queue   queue         // of those routers, by their timers
	packets int           // advertisements that this turn has read
	restive bool          // a member of a sync group changed since settleGroups
	groups  []*group
	held    map[string]string // instance ("": all): who resigned it

	maintenance bool // that resignation outlives a reboot

	// What is tracked besides links, by name. The first three come from notify,
	// bfd and lost from other parts of this process, on the loop: whoever
	// changes what they answer calls reevaluate.
	notified  *status.Notify // the last word of notify
	scripts   map[string]status.ScriptResult
	files     map[string]status.FileResult
	processes map[string]status.ProcessResult
	// bfd tells of a BFD session; known is false as long as it has been neither
	// up nor down since this process started. nil: there are none.
	bfd func(name string) (up, known bool)
	// lost is what of a track_group somebody took away and could not be
	// restored: its instances are in fault. Empty: nothing.
	lost map[string]string

	trackGroups  []model.TrackGroup
	delays       []model.LinkDelay // interface_up_down_delays
	lags         map[string]*lag   // links with a delay, by the name in the configuration
	unknownVRIDs bool              // log_unknown_vrids

	ring      []status.Transition
	seq       uint64
	late      lateness // of all timers
	realTime  bool     // the loop has real-time priority
	dirty     bool
	lastState time.Duration // when the state was last published
}

func newService(log *logger, publish func(*status.VRRP)) (*service, error) {
	s := &service{
		log: log, publish: publish, cmds: make(chan func(), 64), taken: kernel.NewRing(),
		socks: map[sockKey]*sock{}, byFD: map[int]*sock{}, frames: map[int]*kernel.Frames{},
		scripts: map[string]status.ScriptResult{}, held: map[string]string{}, lost: map[string]string{}, lags: map[string]*lag{},
		vtrouble: map[string]string{}, pace: map[string]time.Duration{}, vseen: map[int]bool{}, readers: map[int]func(){},
		stale: true, dirty: true, cameUp: map[int]bool{},
	}
	var err error
	if s.loop, err = kernel.NewLoop(); err != nil {
		return nil, err
	}
	if s.rtnl, err = kernel.DialRtnl(); err == nil {
		s.rtnl.Between = func() {
			if s.mate != nil {
				s.mate.pulse()
			}
		}
		s.watch, err = kernel.OpenWatch()
	}
	if err == nil {
		err = s.loop.Add(s.watch.FD())
	}
	if err != nil {
		s.close()
		return nil, err
	}
	s.now = s.loop.Now()
	s.started = s.now
	s.stand.s = s
	return s, nil
}

func (s *service) close() {
	s.stand.close()
	for _, k := range s.socks {
		k.Close()
	}
	for _, f := range s.frames {
		f.Close()
	}
	if s.mate != nil {
		s.mate.close()
	}
	if s.detect != nil {
		s.detect.close()
	}
	if s.watch != nil {
		s.watch.Close()
	}
	if s.rtnl != nil {
		s.rtnl.Close()
	}
	s.loop.Close()
}

// do hands a piece of work to the loop. It may be called from any goroutine.
func (s *service) do(ctx context.Context, fn func()) error {
	select {
	case s.cmds <- fn:
		s.loop.Wake()
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ask does fn on the loop and waits until it is done.
func (s *service) ask(ctx context.Context, fn func()) error {
	done := make(chan struct{})
	if err := s.do(ctx, func() { fn(); close(done) }); err != nil {
		return err
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

const (
	idleTurn     = time.Second     // the loop goes round at least this often
	statsRefresh = 5 * time.Second // how old published counters may be

	// Advertisements of virtual routers that started together come in bursts.
	// With real-time priority the loop would be awake for each packet, before
	// the sender has the next one ready; a turn that found several is followed
	// by a pause, in which the rest of them comes. What the kernel received has
	// its time of receipt, so nothing is judged otherwise for it.
	burstOf   = 2
	burstRest = time.Millisecond
)

// run is the loop, until ctx ends.
func (s *service) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, s.loop.Wake)
	defer stop()
	s.stand.turn()
	s.refresh()
	for ctx.Err() == nil {
		if err := s.turn(); err != nil {
			return err
		}
	}
	s.leave()
	s.stopAll()
	return nil
}

// turn waits for what comes next and does it.
func (s *service) turn() error {
	at := s.deadline()
	if s.packets >= burstOf {
		s.loop.Rest(burstRest, at)
	}
	s.packets = 0
	ready, err := s.loop.Wait(at)
	if err != nil {
		return err
	}
	s.now = s.loop.Now()
	s.turns.Add(1)
	s.postpone()
	due := s.queue.take(s.now)
	s.lateness(due)
	for _, fd := range ready {
		if fd == s.watch.FD() {
			s.stale = s.watch.Drain() || s.stale
		} else if k := s.byFD[fd]; k != nil {
			s.drain(k)
		} else if fn := s.readers[fd]; fn != nil {
			fn()
		}
	}
	s.commands()
	s.fire(due)
	if s.detect != nil {
		s.detect.turn()
	}
	if s.stale || s.lagOver() || s.pathsDue() {
		s.refresh()
	}
	if s.mate != nil {
		s.mate.turn()
	}
	s.settleGroups()
	s.pump(due)
	if s.mate != nil {
		s.mate.finish()
	}
	s.publishState()
	s.stand.turn()
	return nil
}

// read lets fn take what a descriptor holds, whenever there is something.
func (s *service) read(fd int, fn func()) error {
	if err := s.loop.Add(fd); err != nil {
		return err
	}
	s.readers[fd] = fn
	return nil
}

func (s *service) commands() {
	for range cap(s.cmds) {
		select {
		case fn := <-s.cmds:
			fn()
		default:
			return
		}
	}
}

// deadline is when the loop must run again.
func (s *service) deadline() time.Duration {
	at := s.now + idleTurn
	if due := s.queue.next(); due != 0 {
		at = min(at, due)
	}
	for _, b := range s.bursts {
		at = min(at, b.next)
	}
	for _, g := range s.lags {
		if g.due != 0 {
			at = min(at, g.due)
		}
	}
	if s.mate != nil {
		at = min(at, s.mate.due)
	}
	if s.detect != nil {
		at = min(at, s.detect.due)
	}
	if s.stand.due != 0 {
		at = min(at, s.stand.due)
	}
	return at
}

// lateness counts the timers of the election that this turn finds overdue,
// before the socket is read and may arm them anew.
func (s *service) lateness(due []*router) {
	for _, r := range due {
		for t, due := range r.timers {
			if due == 0 || due > s.now {
				continue
			}
			s.late.add(s.now - due)
			if t := core.Timer(t); t == core.TimerDown || t == core.TimerAdvert {
				r.lateness(s.now - due)
			}
		}
	}
}

// fire does the timers that are due. Before a master is called dead, what lies
// in the socket is read: our lateness is not its death.
func (s *service) fire(due []*router) {
	for _, r := range due {
		for t := range r.timers {
			due := r.timers[t]
			if due == 0 || due > s.now {
				continue
			}
			timer := core.Timer(t)
			if timer == core.TimerDown || timer == core.TimerAdvert {
				// A master looks once in a turn, be it master of hundreds.
				if r.sock != nil && (timer == core.TimerDown || r.sock.read != s.turns.Load()) {
					s.drain(r.sock)
				}
				if r.timers[t] != due {
					continue
				}
			}
			r.timers[t] = 0
			if timer == core.TimerAdvert {
				due = s.stand.covered(r, due)
			}
			r.step(core.Event{Kind: core.Expired, Timer: timer, Due: due})
		}
	}
}

// stopAll resigns everywhere, with all addresses removed.
func (s *service) stopAll() {
	s.now = s.loop.Now()
	for _, r := range s.routers {
		if r.st.Phase != core.Init { // handed over already
			r.step(core.Event{Kind: core.Stop})
		}
	}
	if s.mate != nil {
		s.mate.say()
	}
	s.vlinks = nil
	s.dropVirtualLinks()
	for _, g := range s.groups {
		g.stop()
	}
	s.dirty = true
	s.publishState()
}

// refresh dumps links and addresses, and lets every router see what it means
// for it.
func (s *service) refresh() {
	if !s.refreshTables() || !s.applied {
		return
	}
	s.makeVirtualLinks()
	s.dropVirtualLinks()
	for _, r := range s.routers {
		r.regained()
		r.evaluate()
	}
	s.dropSockets()
	s.reconcile()
	s.greet()
	if s.mate != nil {
		s.mate.retry = s.now
	}
}

// greet announces the addresses of masters on links that came up, or got
// another MAC address, while nobody tracked them: other switches, or the same
// ones with empty tables, look for them.
func (s *service) greet() {
	if len(s.cameUp) == 0 {
		return
	}
	for _, r := range s.routers {
		there := false
		if r.st.Phase == core.Master && !r.fresh() {
			r.allVIPs(func(v *model.Address) { there = there || s.cameUp[r.place(v)] })
		}
		if there {
			s.announce(r, max(r.cfg.GARPMasterRepeat, 1))
		}
	}
	clear(s.cameUp)
}

// refreshTables dumps links and addresses.
func (s *service) refreshTables() bool {
	s.stale = false
	s.dumped = s.loop.Now()
	links, err := s.rtnl.Links()
	addrs, err2 := s.rtnl.Addrs()
	if err := errors.Join(err, err2); err != nil {
		s.log.limited("dump", "%v", err)
		s.stale = true // at the next turn, a second away at most
		return false
	}
	was := s.byIndex
	s.links, s.byIndex, s.addrs = make(map[string]*kernel.Link, len(links)), make(map[int]*kernel.Link, len(links)), addrs
	for i := range links {
		l := &links[i]
		s.byIndex[l.Index] = l
		for _, alt := range l.Alt {
			s.links[alt] = l
		}
	}
	for i := range links {
		s.links[links[i].Name] = &links[i] // a name counts before a further name
	}
	for index, f := range s.frames {
		if s.byIndex[index] == nil {
			s.stand.forget(f.FD())
			f.Close()
			delete(s.frames, index)
		}
	}
	for index, l := range s.byIndex {
		old := was[index]
		if l.Up && l.Run && (old == nil || !old.Up || !old.Run || old.MAC != l.MAC) {
			s.cameUp[index] = true
		}
	}
	for _, k := range s.socks {
		l, old := s.byIndex[k.key.index], was[k.key.index]
		if l != nil && l.Up && l.Run && (old == nil || !old.Up || !old.Run) {
			k.rejoin(s)
		}
	}
	s.settleLinks()
	return true
}
