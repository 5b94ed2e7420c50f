package heartbeat

import (
	"net/netip"
	"time"
)

// What a change of places takes.
const (
	// Patience is how long a master waits for the peer's answer before it goes
	// the way of the protocol: priority 0, and the addresses are gone.
	Patience = 100 * time.Millisecond
	// Labour is how long it waits for a peer that said that it is master now:
	// a thousand addresses are not set and announced in a moment.
	Labour = time.Second
	// Overlap is how long both hold the addresses: neighbours learn the new way
	// while packets on the old one are still forwarded.
	Overlap = 50 * time.Millisecond
	// Truce outlasts both: so long a new master does not yield to the old one.
	Truce = Labour + Overlap + 100*time.Millisecond
	// Ahead is how long before the peer counts as lost its master address is
	// asked whether its kernel lives, and how long the answer may take.
	Ahead = 12 * time.Millisecond

	probeEvery = 4 * time.Millisecond
	probes     = 3
	// During the overlap somebody may have asked for an address and got the old
	// master's answer: these announcements, and one when it has let go, undo it.
	reannounce = 20 * time.Millisecond
	settled    = 500 * time.Millisecond
)

// View is an own virtual router as the machine and its surroundings are now.
type View struct {
	Key     Key
	Phase   Phase
	Source  netip.Addr
	Master  netip.Addr // whose advertisements were heard last
	Ready   bool       // backup, and may take over: not held, nobody better is known, the director can forward
	Wants   bool       // has asked its group already
	Group   int        // 0: none; routers of one group let go together
	Answers bool       // master, and all addresses are announced
}

// Why of a TakeOver.
type Why uint8

// Reasons to take over.
const (
	PeerDead Why = iota
	PeerLeft
	PeerAsked
)

// Do names an action.
type Do uint8

// Actions.
const (
	TakeOver Do = iota // go master in the place of From: Why, After; Until is set where a truce is to hold
	LetGo              // the peer serves, or is not going to: leave as it was meant
	Stay               // the peer that was to relieve us is gone: stay master
	Announce           // announce all addresses once more
	Contest            // both are master: advertise, so that one yields now
	Probe              // ask whether From's kernel answers
)

// Action is one thing to do for the router at an index of the views.
type Action struct {
	Router int
	Do     Do
	Why    Why
	From   netip.Addr
	After  time.Duration
	Until  time.Duration
}

// affair is what is under way for one router.
type affair struct {
	key       Key
	asked     time.Duration // since when it wants to be relieved; 0: not
	yields    bool          // asked, because a better one advertises: it is to have the place
	working   bool          // the peer is master, but does not answer yet
	letGo     time.Duration // when it does; 0: not answered yet
	took      time.Duration // when it relieved the peer; 0: over
	nextWord  time.Duration // next announcement of that
	contested time.Duration
	probed    time.Duration // first probe; 0: none
	probes    int
	nextProbe time.Duration
	alive     bool // its kernel answered, or could not be asked
	decided   bool // since the peer was lost
}

// Agent decides what follows from the peer's word or silence. It works on
// levels, not on events: a datagram that is lost only makes it later.
type Agent struct {
	list []affair
}

// Reset fits the agent to the routers; what is under way for those that stay
// goes on.
func (a *Agent) Reset(views []View) {
	next := make([]affair, len(views))
	for i := range views {
		next[i].key = views[i].Key
		for j := range a.list {
			if a.list[j].key == views[i].Key {
				next[i] = a.list[j]
			}
		}
	}
	a.list = next
}

// Ask begins a hand-over: the record of the router asks for it from now on.
func (a *Agent) Ask(i int, now time.Duration) { a.begin(i, now, false) }

// Yield begins a hand-over to a peer that advertises a higher priority.
func (a *Agent) Yield(i int, now time.Duration) { a.begin(i, now, true) }

func (a *Agent) begin(i int, now time.Duration, yields bool) {
	if i < len(a.list) && a.list[i].asked == 0 {
		f := &a.list[i]
		f.asked, f.letGo, f.yields, f.working = now, 0, yields, false
	}
}

// Leaving tells whether a hand-over of the router is under way.
func (a *Agent) Leaving(i int) bool { return i < len(a.list) && a.list[i].asked != 0 }

// Asks tells whether the router's record asks to be relieved.
func (a *Agent) Asks(i int) bool { return a.Leaving(i) && !a.list[i].yields }

// Idle tells whether no router is being handed over.
func (a *Agent) Idle() bool {
	for i := range a.list {
		if a.list[i].asked != 0 {
			return false
		}
	}
	return true
}

// Alive takes the answer of the master's kernel, or that it cannot be asked.
// What comes unasked proves nothing about a later death.
func (a *Agent) Alive(i int) {
	if i < len(a.list) && a.list[i].probed != 0 {
		a.list[i].alive = true
	}
}

// Decide looks at everything and appends what is to be done. All datagrams and
// answers that the kernel holds must have been taken before.
func (a *Agent) Decide(now time.Duration, views []View, p *Peer, out []Action) []Action {
	for i := range views {
		v, f, rec := &views[i], &a.list[i], p.Find(views[i].Key)
		if v.Phase != Master {
			f.asked, f.letGo, f.took = 0, 0, 0
		}
		if v.Phase != Backup {
			f.forget()
		}
		if p.Up {
			f.probedAnew(now, p)
			f.decided = false
		}
		switch {
		case rec == nil:
			switch { // the peer has no such router (any more)
			case f.asked == 0:
			case f.yields: // its process started anew: nobody there has the addresses
				f.asked, f.letGo = 0, 0
				out = append(out, Action{Router: i, Do: Stay})
			default:
				f.asked, f.letGo = 0, 0
				out = append(out, Action{Router: i, Do: LetGo})
			}
		case v.Phase == Backup:
			out = f.backup(i, now, v, rec, p, out)
		case v.Phase == Master:
			out = a.master(i, now, views, rec, p, out)
		}
	}
	return out
}

// probedAnew forgets probes of a suspicion that proved wrong.
func (f *affair) probedAnew(now time.Duration, p *Peer) {
	if f.probed != 0 && !p.Suspect(now, Ahead) {
		f.forget()
	}
}

func (f *affair) forget() { f.probed, f.probes, f.nextProbe, f.alive = 0, 0, 0, false }

func (f *affair) backup(i int, now time.Duration, v *View, rec *Record, p *Peer, out []Action) []Action {
	if !v.Ready || v.Wants || !rec.Source.IsValid() || v.Master != rec.Source {
		f.forget()
		return out
	}
	act := Action{Router: i, Do: TakeOver, From: rec.Source}
	if f.alive && p.Lost && f.probed < p.Since {
		f.forget() // the answer is older than the silence that is judged: it may have died since
	}
	switch {
	case p.Up && rec.Phase == Master && rec.Asks:
		f.took, f.nextWord = now, now+reannounce
		act.Why, act.Until = PeerAsked, now+Truce
		return append(out, act)
	case p.Up && rec.Phase != Master && rec.Vacant:
		act.Why = PeerLeft
		return append(out, act)
	case rec.Phase != Master || f.decided || !p.Up && !p.Lost:
		return out
	case !p.Suspect(now, Ahead) && !p.Lost:
		return out
	case f.alive:
		f.decided = p.Lost
		return out
	case f.probes < probes && now >= f.nextProbe:
		if f.probed == 0 {
			f.probed = now
		}
		f.probes++
		f.nextProbe = now + probeEvery
		return append(out, Action{Router: i, Do: Probe, From: rec.Source})
	case p.Lost && f.probes == probes && now >= max(f.probed+Ahead, f.nextProbe):
		f.decided = true
		act.Why, act.After = PeerDead, now-p.Last
		return append(out, act)
	case f.probes == probes && now >= f.nextProbe:
		f.nextProbe = 0 // the peer's own deadline is what comes next
	}
	return out
}

func (a *Agent) master(i int, now time.Duration, views []View, rec *Record, p *Peer, out []Action) []Action {
	f := &a.list[i]
	if f.asked != 0 {
		f.working = rec.Phase == Master
		for j := range views { // a peer that works on one member of a group comes to the others
			if views[i].Group != 0 && views[j].Group == views[i].Group && a.list[j].asked != 0 {
				other := p.Find(views[j].Key)
				f.working = f.working || other != nil && other.Phase == Master
			}
		}
		gone := !p.Up && now >= p.Since+Patience // it may be busy, or its datagrams late
		switch {
		case gone && f.yields:
			f.asked, f.letGo = 0, 0
			return append(out, Action{Router: i, Do: Stay})
		case gone:
			f.asked, f.letGo = 0, 0
			return append(out, Action{Router: i, Do: LetGo})
		case f.letGo == 0 && p.Up && rec.Phase == Master && rec.Answers:
			f.letGo = now + Overlap
		}
		if a.due(i, now, views) {
			f.asked, f.letGo = 0, 0
			return append(out, Action{Router: i, Do: LetGo})
		}
		return out
	}
	if f.took != 0 {
		switch {
		case rec.Phase != Master && p.Up, now >= f.took+settled:
			f.took = 0
			return append(out, Action{Router: i, Do: Announce})
		case now >= f.nextWord:
			if f.nextWord = now + reannounce; f.nextWord > f.took+Overlap+reannounce {
				f.nextWord = f.took + settled
			}
			return append(out, Action{Router: i, Do: Announce})
		}
		return out
	}
	if p.Up && rec.Phase == Master && !rec.Asks && f.contested != p.Since {
		f.contested = p.Since
		return append(out, Action{Router: i, Do: Contest})
	}
	return out
}

func (f *affair) patience() time.Duration {
	if f.working {
		return Labour
	}
	return Patience
}

// due tells whether a router may let go: its time has come, and that of all
// members of its group that are to go with it.
func (a *Agent) due(i int, now time.Duration, views []View) bool {
	ripe := func(f *affair) bool {
		return f.letGo != 0 && now >= f.letGo || f.letGo == 0 && now >= f.asked+f.patience()
	}
	if !ripe(&a.list[i]) {
		return false
	}
	for j := range a.list {
		if f := &a.list[j]; views[i].Group != 0 && views[j].Group == views[i].Group && f.asked != 0 && !ripe(f) {
			return false
		}
	}
	return true
}

// Deadline is when Decide has to be called next, on top of the peer's; 0:
// nothing is under way.
func (a *Agent) Deadline() (at time.Duration) {
	next := func(t time.Duration) {
		if t != 0 && (at == 0 || t < at) {
			at = t
		}
	}
	for i := range a.list {
		f := &a.list[i]
		switch {
		case f.letGo != 0:
			next(f.letGo)
		case f.asked != 0:
			next(f.asked + f.patience())
		}
		if f.took != 0 {
			next(f.nextWord)
		}
		if f.probed != 0 && !f.decided && !f.alive {
			next(f.nextProbe)
		}
	}
	return at
}
