package heartbeat

import (
	"time"

	"ballast/services/vrrp/core"
	"ballast/test/simulation"
)

// box is one director: its machine, its heartbeat, and what the loop does.
type box struct {
	w      *world
	id     int
	cfg    core.Config
	st     core.State
	timers [core.Timers]time.Duration
	clock  simulation.Clock
	power  bool // its kernel runs
	alive  bool // its process runs
	paused bool
	frozen bool // paused with its kernel
	faulty bool
	held   bool
	vips   bool
	vacant bool
	inbox  []func()
	life   int // of its process: what was meant for the one before is dropped

	peer     *Peer // nil: it has no heartbeat
	agent    Agent
	seq      uint64
	next     time.Duration
	wake     time.Duration // pending, global; 0: none
	announce time.Duration // local, when all addresses are announced
	leaving  string
	pending  core.Event
	said     Record
	rival    rivalSeen
	down     bool // its LAN link
}

type rivalSeen struct {
	priority uint8
	at       time.Duration
}

func (b *box) local() time.Duration { return b.clock.Now() }

func (b *box) other() *box { return b.w.boxes[1-b.id] }

func (b *box) step(ev core.Event) {
	ev.At = b.local()
	before := b.st.Phase
	st, out, why := core.Step(b.st, ev, nil)
	b.st = st
	if before != st.Phase {
		b.w.Note("box %d (%d): %v -> %v: %v", b.id, st.Effective, before, st.Phase, why)
	}
	if before == core.Master && st.Phase == core.Fault && b.peer != nil && b.down {
		b.vacant = true
		b.say()
	}
	for _, e := range out {
		switch e.Do {
		case core.SendAdvert:
			b.vacant = e.Priority == 0
			b.advertise(e.Priority)
		case core.SetTimer:
			b.timers[e.Timer] = e.At
		case core.StopTimer:
			b.timers[e.Timer] = 0
		case core.AddVIPs:
			b.vips = true
			b.announce = b.local() + b.w.UpTo(30*ms) // a thousand addresses take their time
		case core.RemoveVIPs:
			b.vips = false
		}
	}
	if b.vips != (st.Phase == core.Master) {
		b.w.Violated("box %d is %v and holds VIPs: %v", b.id, st.Phase, b.vips)
	}
}

func (b *box) advertise(priority uint8) {
	for _, to := range b.w.boxes {
		if to == b || !b.w.connected(b, to) || b.w.Lost() {
			continue
		}
		ev := core.Event{Kind: core.Advert, From: b.cfg.Addr, Priority: priority, AdvertInt: b.cfg.AdvertInt}
		b.w.After(b.w.UpTo(b.w.Delay), func() {
			ev.RxAt = to.local()
			to.deliver(func() { to.heard(ev) })
		})
	}
}

// deliver is the kernel: it keeps what comes until the process reads it.
func (b *box) deliver(fn func()) {
	if !b.power || b.frozen || !b.alive {
		return
	}
	b.inbox = append(b.inbox, fn)
	if !b.paused {
		b.wakeIn(b.w.UpTo(b.w.slow))
	}
}

func (b *box) heard(ev core.Event) {
	if b.st.Phase == core.Init || b.st.Phase == core.Fault {
		return
	}
	if b.peer != nil {
		if ev.From != b.other().cfg.Addr && ev.Priority != 0 {
			b.rival = rivalSeen{ev.Priority, b.local()}
		}
		if ev.Priority != 0 {
			b.vacant = false
		}
		if b.yield(ev) {
			return
		}
	}
	b.step(ev)
}

func (b *box) yield(ev core.Event) bool {
	rec := b.peer.Find(theKey)
	if b.st.Phase != core.Master || ev.Priority == 0 || !b.peer.Up || rec == nil || rec.Source != ev.From ||
		ev.Priority < b.st.Effective || ev.Priority == b.st.Effective && ev.From.Compare(b.cfg.Addr) < 0 || b.agent.Asks(0) {
		return false
	}
	if !b.agent.Leaving(0) {
		if b.local() < b.st.TruceUntil {
			return false
		}
		b.leaving = "yield"
		b.step(core.Event{Kind: core.Truce, From: ev.From, Until: b.local() + Truce, Quiet: true})
		b.agent.Yield(0, b.local())
	}
	b.pending = ev
	return true
}

// handOver asks the peer to relieve us, or does at once what it was for.
func (b *box) handOver(how string) {
	rec := b.peer.Find(theKey)
	if b.st.Phase == core.Master && b.peer.Up && rec != nil && rec.Phase == Backup {
		b.leaving = how
		b.step(core.Event{Kind: core.Truce, From: rec.Source, Until: b.local() + Truce})
		b.agent.Ask(0, b.local())
		return
	}
	b.leaving = how
	b.letGo()
}

func (b *box) letGo() {
	how := b.leaving
	b.leaving = ""
	b.step(core.Event{Kind: core.Truce})
	switch how {
	case "hold":
		b.step(core.Event{Kind: core.Hold, Held: b.held})
	case "stop":
		b.step(core.Event{Kind: core.Stop})
		b.say()
		b.alive = false
		b.life++
	case "yield":
		b.step(b.pending)
	}
}

func (b *box) view() []View {
	v := View{Key: theKey, Phase: Phase(b.st.Phase), Source: b.cfg.Addr}
	switch b.st.Phase {
	case core.Backup:
		v.Master = b.st.MasterAddr
		v.Ready = !b.st.Held && (b.rival.at == 0 || b.rival.priority < b.st.Effective)
	case core.Master:
		v.Answers = b.local() >= b.announce
	}
	return []View{v}
}

func (b *box) record() Record {
	v := b.view()[0]
	return Record{Key: theKey, Phase: v.Phase, Priority: b.st.Effective, Source: v.Source, Vacant: b.vacant, Answers: v.Answers, Asks: b.agent.Asks(0)}
}

func (b *box) say() {
	b.seq++
	b.said = b.record()
	for path := range 2 {
		m := &Message{Table: 1, Records: []Record{b.said}}
		b.peer.Stamp(m, b.seq)
		to := b.other()
		if path == 0 && !b.w.connected(b, to) || path == 1 && !b.w.side.Joined(b.id, to.id) || b.w.Lost() {
			continue
		}
		for range 1 + b.w.Rand.IntN(50)/49 { // now and then a wire doubles it
			b.w.After(b.w.UpTo(b.w.Delay), func() {
				at := to.local()
				life := to.life
				to.deliver(func() {
					if to.life == life {
						to.peer.Heard(path, at, m)
					}
				})
			})
		}
	}
}

func (b *box) wakeIn(d time.Duration) {
	at := b.w.Now + max(d, 0)
	if b.wake != 0 && b.wake <= at && b.wake >= b.w.Now {
		return
	}
	b.wake = at
	life := b.life
	b.w.After(d, func() {
		if b.wake == b.w.Now {
			b.wake = 0
		}
		if b.life == life {
			b.turn()
		}
	})
}

// turn is one of the loop.
func (b *box) turn() {
	if !b.alive || b.paused {
		return
	}
	in := b.inbox
	b.inbox = nil
	for _, fn := range in {
		fn()
	}
	for t := range b.timers {
		if due := b.timers[t]; due != 0 && due <= b.local() {
			b.timers[t] = 0
			b.step(core.Event{Kind: core.Expired, Timer: core.Timer(t), Due: due})
		}
	}
	next := b.local() + time.Second
	soon := func(at time.Duration) {
		if at != 0 {
			next = min(next, at)
		}
	}
	if b.peer != nil {
		b.beat()
		if !b.alive {
			return
		}
		soon(b.next)
		silent := b.peer.Deadline(Ahead)
		if silent <= b.local() {
			silent = b.peer.Deadline(0)
		}
		soon(silent)
		if at := b.agent.Deadline(); at != 0 {
			if at < b.local()-time.Second {
				b.w.Violated("box %d: a deadline of %v ago: %+v", b.id, b.local()-at, b.agent.list)
			}
			soon(max(at, b.local()+ms/5))
		}
		if b.local() < b.announce {
			soon(b.announce)
		}
	}
	for _, at := range b.timers {
		soon(at)
	}
	b.wakeIn(b.clock.Real(next-b.local()) + time.Microsecond + b.w.UpTo(b.w.slow))
}

func (b *box) beat() {
	now := b.local()
	late := time.Duration(0)
	if at := b.peer.Deadline(0); at != 0 && now > at {
		late = now - at
	}
	if b.peer.Expire(now, late) {
		b.w.Note("box %d lost the heartbeat", b.id)
	}
	for _, a := range b.agent.Decide(now, b.view(), b.peer, nil) {
		b.act(a)
		if !b.alive {
			return
		}
	}
	if b.record() != b.said {
		b.say()
	}
	if now >= b.next {
		b.say()
		if b.next += 10 * ms; b.next <= now {
			b.next = now + 10*ms
		}
	}
}

func (b *box) act(a Action) {
	w := b.w
	switch a.Do {
	case TakeOver:
		code := [...]core.Code{core.PeerDead, core.PeerLeft, core.PeerAsked}[a.Why]
		if a.Why == PeerDead && w.Now-w.moved > 100*ms && b.other().power && !b.other().frozen && w.connected(b, b.other()) {
			w.Violated("box %d calls the peer dead, whose kernel answers", b.id)
		}
		b.step(core.Event{Kind: core.TakeOver, From: a.From, Why: code, After: a.After, Until: a.Until})
	case LetGo:
		b.letGo()
	case Stay:
		b.step(core.Event{Kind: core.Truce})
		b.leaving = ""
	case Contest:
		b.advertise(b.st.Effective)
	case Probe:
		if o := b.other(); o.power && !o.frozen && w.connected(b, o) {
			w.After(w.UpTo(2*ms), func() { b.deliver(func() { b.agent.Alive(0) }) })
		}
	}
}

func (b *box) boot(adopt bool) {
	b.life++
	b.power, b.alive, b.paused, b.frozen, b.inbox, b.timers = true, true, false, false, nil, [core.Timers]time.Duration{}
	b.vips, b.vacant, b.leaving, b.rival, b.wake = adopt, false, "", rivalSeen{}, 0
	b.held = false
	b.w.Note("box %d starts (adopts: %v)", b.id, adopt)
	if b.id < 2 {
		seed := b.w.Rand.Uint64() | 1<<40
		b.peer, b.agent, b.seq, b.next = NewPeer(2, 10*ms, 3, b.local(), draws(seed)), Agent{}, 0, b.local()
		b.agent.Reset(b.view())
	}
	b.step(core.Event{Kind: core.Start, Cfg: &b.cfg, Priority: b.cfg.Priority, Faulty: b.down, Adopt: adopt})
	b.faulty = b.down
	b.turn()
}

func (b *box) resume() {
	if b.paused {
		b.w.Note("box %d goes on", b.id)
		if b.frozen {
			b.w.moved = b.w.Now
		}
		b.paused, b.frozen = false, false
		b.turn()
	}
}

// link is what netlink tells the loop.
func (b *box) link(up bool) {
	b.down = !up
	b.w.moved = b.w.Now
	if b.alive {
		b.inbox = append(b.inbox, func() {
			if b.faulty != b.down {
				b.faulty = b.down
				b.step(core.Event{Kind: core.SetFault, Faulty: b.faulty})
			}
		})
		b.wakeIn(b.w.UpTo(b.w.slow))
	}
}

func (b *box) die() {
	b.w.moved = b.w.Now
	b.power, b.alive, b.vips, b.paused, b.frozen = false, false, false, false, false
	b.life++
}
