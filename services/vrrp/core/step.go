package core

import (
	"net/netip"
	"time"
)

// Step does one event. Effects are appended to out, which lets the caller keep
// one buffer for ever. It never fails: an event that means nothing in a phase
// changes nothing.
func Step(s State, ev Event, out []Effect) (State, []Effect, Reason) {
	m := machine{s, ev.At, out}
	var why Reason
	switch ev.Kind {
	case Start:
		why = m.start(ev)
	case Advert:
		switch s.Phase {
		case Backup:
			why = m.heardAsBackup(ev)
		case Master:
			why = m.heardAsMaster(ev)
		}
	case Expired:
		why = m.expired(ev)
	case SetFault:
		why = m.fault(ev.Faulty)
	case Effective:
		m.effective(ev.Priority)
	case Configure:
		why = m.configure(ev)
	case Hold:
		why = m.hold(ev.Held)
	case GroupMaster:
		if s.Phase == Backup && !s.Held {
			m.becomeMaster()
			why = Reason{Code: GroupWentMaster}
		}
	case GroupBackup:
		m.Want = false
		switch s.Phase {
		case Master:
			m.leaveMaster(false)
			m.enter(Backup)
			m.listen(m.now + m.MasterDown() + m.backoff())
			why = Reason{Code: GroupWentBackup}
		case Backup:
			m.listen(m.now + m.MasterDown())
		}
	case Stop:
		if s.Phase == Master {
			m.leaveMaster(true)
		}
		m.stopAll()
		m.enter(Init)
		why = Reason{Code: Stopped}
	case TakeOver:
		why = m.takeOver(ev)
	case Truce:
		if s.Phase == Master {
			m.truce(ev, ev.Quiet)
		}
	}
	return m.State, m.out, why
}

// machine is the state being stepped.
type machine struct {
	State
	now time.Duration
	out []Effect
}

func (m *machine) do(e Effect)                   { m.out = append(m.out, e) }
func (m *machine) set(t Timer, at time.Duration) { m.do(Effect{Do: SetTimer, Timer: t, At: at}) }
func (m *machine) clear(t Timer)                 { m.do(Effect{Do: StopTimer, Timer: t}) }
func (m *machine) advertise(priority uint8)      { m.do(Effect{Do: SendAdvert, Priority: priority}) }
func (m *machine) announce(rounds int)           { m.do(Effect{Do: Announce, N: rounds}) }
func (m *machine) enter(p Phase)                 { m.Phase, m.Since = p, m.now }
func (m *machine) reason(c Code, ev Event) Reason {
	return Reason{Code: c, From: ev.From, Priority: ev.Priority, Ours: m.Effective}
}

func (m *machine) stopAll() {
	for t := range Timer(Timers) {
		m.clear(t)
	}
}

// listen arms the down timer, unless the operator holds the router back.
func (m *machine) listen(until time.Duration) {
	m.Lenient, m.DownAt, m.Heeded = false, until, netip.Addr{}
	if m.Held {
		m.clear(TimerDown)
		return
	}
	m.set(TimerDown, until)
}

// start: "state MASTER" does not count, as with keepalived: only the address
// owner starts as master, and a process that died as one.
func (m *machine) start(ev Event) Reason {
	m.State = State{Cfg: ev.Cfg, Effective: ev.Priority, Held: ev.Held, MasterAdvert: ev.Cfg.AdvertInt, LearnUntil: m.now + ev.Cfg.Learn}
	switch {
	case ev.Faulty:
		m.enter(Fault)
		if ev.Adopt {
			m.do(Effect{Do: RemoveVIPs})
		}
		return Reason{Code: FaultEntered}
	case ev.Adopt && !ev.Held:
		m.becomeMaster()
		return Reason{Code: Adopted}
	case ev.Cfg.Priority == 255 && !ev.Held && !m.Cfg.Grouped && ev.Delay <= 0:
		m.becomeMaster()
		return Reason{Code: OwnerStarted}
	}
	if ev.Adopt {
		m.do(Effect{Do: RemoveVIPs})
	}
	m.enter(Backup)
	wait := ev.Delay + m.MasterDown()
	if ev.Cfg.Priority == 255 && !m.Cfg.Grouped {
		wait = max(ev.Delay, 0) // it has nobody to listen for
	}
	m.listen(m.now + wait)
	return Reason{Code: Started, After: wait}
}

// effective takes over a priority. A down timer that runs keeps what it has
// waited and gets the new skew.
func (m *machine) effective(p uint8) {
	before := m.MasterDown()
	m.Effective, m.Stepped = p, false
	if d := m.MasterDown() - before; d != 0 && m.Phase == Backup && !m.Held && !m.Want && m.DownAt > m.now {
		m.DownAt = max(m.DownAt+d, m.now)
		m.set(TimerDown, m.DownAt)
	}
}

// becomeMaster is RFC 9568 section 6.4.2 (345) in keepalived's order: the
// advertisement first, then the addresses, then the burst.
func (m *machine) becomeMaster() {
	m.enter(Master)
	if m.Stepped {
		m.Effective, m.Stepped = 255, false
	}
	m.Want, m.Preempting, m.Lenient = false, false, false
	m.MasterAdvert = m.Cfg.AdvertInt // RFC 9568 section 6.4.3: ours counts now
	m.MasterAddr, m.MasterPriority = m.Cfg.Addr, m.Effective
	m.clear(TimerDown)
	m.advertise(m.Effective)
	m.set(TimerAdvert, m.now+m.Cfg.AdvertInt)
	m.do(Effect{Do: AddVIPs})
	m.announce(m.Cfg.GARPRepeat)
	if m.Cfg.GARPDelay > 0 {
		m.set(TimerGARP, m.now+m.Cfg.GARPDelay)
	}
	if m.Cfg.GARPRefresh > 0 {
		m.set(TimerRefresh, m.now+m.Cfg.GARPRefresh)
	}
}

// leaveMaster stops what a master does. The caller enters the next phase.
func (m *machine) leaveMaster(resign bool) {
	if resign {
		m.advertise(0)
	}
	m.stopAll()
	m.do(Effect{Do: RemoveVIPs})
	m.Heeded = netip.Addr{}
	m.truce(Event{}, false)
	m.Want, m.Preempting, m.RogueUntil = false, false, 0
	m.MasterAdvert = m.Cfg.AdvertInt
}

// heardAsBackup is RFC 9568 section 6.4.2 (400) with nopreempt and preempt_delay.
// Who knows none of the connections that the master serves lets it go on until it
// does: it would end them.
func (m *machine) heardAsBackup(ev Event) Reason {
	// The time of the kernel counts: our lateness is not the master's death.
	rx := min(ev.RxAt, m.now)
	if ev.Priority == 0 {
		m.listen(rx + m.skew())
		m.MasterAddr, m.MasterPriority = ev.From, 0
		m.LastAdvert, m.Heard, m.Want = rx, true, false
		return Reason{}
	}
	var why Reason
	if m.Stepped && ev.Priority < 255 {
		m.Effective, m.Stepped = 255, false // the other one is no owner any more
	}
	lower := ev.Priority < m.Effective
	if lower && !m.Cfg.NoPreempt {
		first := !m.Preempting
		if first {
			m.Preempting, m.PreemptAt = true, m.now+m.Cfg.PreemptDelay
		}
		until, learns := m.Patience()
		if until <= m.now {
			// Discarded: the down timer that runs already makes us master.
			m.Preempting = !first
			m.MasterAddr, m.MasterPriority = ev.From, ev.Priority
			return Reason{}
		}
		if first {
			why = m.reason(PreemptWait, ev)
			if why.After = until - m.now; learns {
				why.Code = PreemptLearn
			}
		}
	} else if m.Preempting {
		m.Preempting = false
		why = m.reason(PreemptStop, ev)
	}
	if m.Cfg.Version == 3 {
		m.MasterAdvert = ev.AdvertInt
	}
	m.MasterAddr, m.MasterPriority = ev.From, ev.Priority
	m.LastAdvert, m.Heard, m.Want = rx, true, false
	m.heed(ev, rx+m.MasterDown())
	return why
}

// heed restarts the down timer for an accepted advertisement. Two masters at
// once happen for a moment; where their intervals differ (version 3), the one
// that is bound to yield must not shorten the time that the other one has.
// Otherwise a fast router would call the slow master dead again and again.
func (m *machine) heed(ev Event, until time.Duration) {
	if m.Heeded.IsValid() && ev.From != m.Heeded &&
		(ev.Priority < m.HeededWeight || ev.Priority == m.HeededWeight && ev.From.Compare(m.Heeded) < 0) {
		until = max(until, m.DownAt)
	}
	m.listen(until)
	m.Heeded, m.HeededWeight = ev.From, ev.Priority
}

// heardAsMaster is RFC 9568 section 6.4.3 (700).
func (m *machine) heardAsMaster(ev Event) Reason {
	if ev.Priority == 0 {
		m.advertise(m.Effective) // somebody resigned: let nobody else believe that the place is free
		return Reason{}
	}
	if m.atPeace() && ev.From == m.TruceWith {
		return Reason{}
	}
	order := ev.From.Compare(m.Cfg.Addr)
	same := ev.Priority == m.Effective
	switch {
	case same && order == 0:
		return m.reason(SameAddress, ev)
	case same && m.Effective == 255 && order < 0:
		return m.rogue(ev)
	case ev.Priority < m.Effective || same && order < 0:
		// RFC 3768 is silent here, RFC 9568 allows the answer: it ends the
		// reign of a second master a whole interval earlier.
		if !m.Cfg.LowerPrioNoAdvert {
			m.advertise(m.Effective)
		}
		if m.Cfg.GARPLowerPrioRepeat > 0 {
			m.announce(m.Cfg.GARPLowerPrioRepeat)
			if m.Cfg.GARPLowerPrioDelay > 0 {
				m.set(TimerLowerPrio, m.now+m.Cfg.GARPLowerPrioDelay)
			}
		}
		m.do(Effect{Do: SawLowerPriority})
		return m.reason(LowerPriority, ev)
	}
	if m.Cfg.HigherPrioSendAdvert {
		m.advertise(m.Effective)
	}
	why := m.reason(HigherPriority, ev)
	if same {
		why.Code = HigherAddress
	}
	m.yield(ev)
	return why
}

// rogue is another owner, whose lower address makes it the one to yield. It is
// answered; who still does not yield after two of our intervals and 1.2 of the
// longer one will not, and one master is better than two.
func (m *machine) rogue(ev Event) Reason {
	gap := max(m.Cfg.AdvertInt, ev.AdvertInt)
	if m.RogueUntil == 0 || m.now-m.RogueLast > 3*gap {
		m.RogueUntil = m.now + 2*m.Cfg.AdvertInt + gap*6/5
	}
	m.RogueLast = m.now
	if m.now < m.RogueUntil {
		m.advertise(m.Effective)
		return m.reason(SecondOwner, ev)
	}
	why := m.reason(OwnerYields, ev)
	m.yield(ev)
	m.Effective, m.Stepped = 254, true
	return why
}

// yield makes a master backup of the router that sent an advertisement.
func (m *machine) yield(ev Event) {
	m.leaveMaster(false)
	m.enter(Backup)
	if m.Cfg.Version == 3 {
		m.MasterAdvert = ev.AdvertInt
	}
	m.MasterAddr, m.MasterPriority = ev.From, ev.Priority
	m.LastAdvert, m.Heard = min(ev.RxAt, m.now), true
	m.heed(ev, m.LastAdvert+m.MasterDown()+m.backoff())
}

// backoff is what a member of a sync group that gives up mastership waits in
// addition, up to one interval, should no other master be heard. Boxes of equal
// priority whose addresses rank differently on two networks would all go master
// at once, find that each has lost on one of them, and all try again at once,
// for ever. Address and attempt make them try at different times.
func (m *machine) backoff() time.Duration {
	if !m.Cfg.Grouped {
		return 0
	}
	m.Ties++
	h := uint32(2166136261) // FNV-1a
	for _, b := range m.Cfg.Addr.As16() {
		h = (h ^ uint32(b)) * 16777619
	}
	h = (h ^ uint32(m.Ties)) * 16777619
	return m.Cfg.AdvertInt * time.Duration(h>>8%16) / 16
}

func (m *machine) expired(ev Event) Reason {
	late := m.now - ev.Due
	switch ev.Timer {
	case TimerDown:
		if m.Phase == Backup && !m.Held {
			return m.masterDown(late)
		}
	case TimerAdvert:
		if m.Phase == Master {
			return m.advertAgain(ev.Due, late)
		}
	case TimerGARP:
		if m.Phase == Master {
			m.announce(m.Cfg.GARPRepeat)
		}
	case TimerRefresh:
		if m.Phase == Master && m.Cfg.GARPRefresh > 0 {
			m.announce(m.Cfg.GARPRefreshRepeat)
			m.set(TimerRefresh, m.now+m.Cfg.GARPRefresh)
		}
	case TimerLowerPrio:
		if m.Phase == Master {
			m.announce(m.Cfg.GARPLowerPrioRepeat)
		}
	}
	return Reason{}
}

// masterDown: nobody advertised for the whole interval, or so it seems. A
// process that was stopped itself cannot tell; it listens once more. The skew
// keeps the order of priorities among several that were.
func (m *machine) masterDown(late time.Duration) Reason {
	if late > m.MasterDown()/2 && !m.Lenient {
		m.listen(m.now + m.MasterAdvert + m.skew())
		m.Lenient = true
		return Reason{Code: LateListens, After: late}
	}
	other := m.MasterAddr.IsValid() && m.MasterAddr != m.Cfg.Addr
	patience, _ := m.Patience()
	var why Reason
	switch {
	case other && m.MasterPriority == 0:
		why = Reason{Code: MasterResigned, From: m.MasterAddr}
	case other && m.MasterPriority < m.Effective && !m.Cfg.NoPreempt && patience <= m.now:
		why = Reason{Code: LowerPriority, From: m.MasterAddr, Priority: m.MasterPriority, Ours: m.Effective}
	case other && m.Heard:
		why = Reason{Code: NoAdvert, From: m.MasterAddr, After: m.now - m.LastAdvert}
	default:
		why = Reason{Code: NoAdvertEver, After: m.now - m.Since}
	}
	if m.Cfg.Grouped {
		m.Want = true
		m.set(TimerDown, m.now+m.MasterAdvert+Skew(m.Cfg.Version, 255, m.MasterAdvert))
		m.do(Effect{Do: AskGroup})
		return why
	}
	m.becomeMaster()
	return why
}

// advertAgain keeps the mean interval exact. A master whose own timer was so
// late that every backup must have given it up announces itself again, and the
// election decides; under nopreempt it must not come back, so it listens first.
func (m *machine) advertAgain(due, late time.Duration) Reason {
	if m.Cfg.NoPreempt && late+m.Cfg.AdvertInt > time.Duration(m.Cfg.DownAdverts)*m.Cfg.AdvertInt {
		m.leaveMaster(false)
		m.enter(Backup)
		m.Heard = false
		m.listen(m.now + m.MasterAdvert + m.skew())
		return Reason{Code: OwnTimerLate, After: late}
	}
	if !m.Quiet || !m.atPeace() {
		m.advertise(m.Effective)
	}
	next := due + m.Cfg.AdvertInt
	if next <= m.now {
		next = m.now + m.Cfg.AdvertInt
	}
	m.set(TimerAdvert, next)
	return Reason{}
}

func (m *machine) fault(faulty bool) Reason {
	switch {
	case faulty && m.Phase != Fault && m.Phase != Init:
		if m.Phase == Master {
			m.leaveMaster(true)
		}
		m.stopAll()
		m.Want, m.Preempting = false, false
		m.enter(Fault)
		return Reason{Code: FaultEntered}
	case !faulty && m.Phase == Fault:
		m.enter(Backup)
		m.MasterAdvert, m.LearnUntil = m.Cfg.AdvertInt, m.now+m.Cfg.Learn
		m.Heard = false
		wait := m.MasterDown()
		if m.Cfg.Priority == 255 {
			wait = m.MasterAdvert + m.skew()
		}
		m.listen(m.now + wait)
		if m.Cfg.Unicast {
			// The master may hold a dead neighbour entry of us.
			m.do(Effect{Do: AnnounceSelf})
		}
		return Reason{Code: FaultLeft}
	}
	return Reason{}
}

// configure keeps the phase. A master tells the new list at once.
func (m *machine) configure(ev Event) Reason {
	old := m.Cfg
	m.Cfg = ev.Cfg
	switch m.Phase {
	case Master:
		m.MasterAdvert = m.Cfg.AdvertInt
		m.MasterAddr, m.MasterPriority = m.Cfg.Addr, m.Effective
		if ev.Addrs {
			m.do(Effect{Do: AddVIPs})
		}
		if ev.Addrs || old.AdvertInt != m.Cfg.AdvertInt || old.Addr != m.Cfg.Addr {
			m.advertise(m.Effective)
			m.set(TimerAdvert, m.now+m.Cfg.AdvertInt)
		}
		if ev.Addrs {
			m.announce(m.Cfg.GARPRepeat)
		}
		switch {
		case m.Cfg.GARPRefresh == 0:
			m.clear(TimerRefresh)
		case old.GARPRefresh != m.Cfg.GARPRefresh:
			m.set(TimerRefresh, m.now+m.Cfg.GARPRefresh)
		}
	case Backup:
		if m.Cfg.Version == 2 || !m.Heard {
			m.MasterAdvert = m.Cfg.AdvertInt
		}
		if old.AdvertInt != m.Cfg.AdvertInt || old.DownAdverts != m.Cfg.DownAdverts {
			m.listen(m.now + m.MasterDown())
		}
	}
	return Reason{}
}

func (m *machine) hold(held bool) Reason {
	if held == m.Held {
		return Reason{}
	}
	m.Held = held
	code := OperatorHold
	if !held {
		code = OperatorResume
	}
	switch m.Phase {
	case Master:
		m.leaveMaster(true)
		m.enter(Backup)
	case Backup:
		m.listen(m.now + m.MasterDown())
	}
	return Reason{Code: code}
}
