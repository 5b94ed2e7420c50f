package vrrp

import (
	"net/netip"
	"time"

	"ballast/services/vrrp/core"
	"ballast/services/vrrp/heartbeat"
)

// A hand-over is make-before-break: the peer is master, announces the addresses
// and says so by heartbeat before this box lets go of them. Without a peer that
// can, it is the protocol's: priority 0, and the addresses are gone.

// leaving is why a router hands over, and so how it leaves in the end.
type leaving uint8

const (
	stayHere    leaving = iota
	leaveHeld           // the operator resigned it
	leaveStop           // the process ends
	leaveYield          // a better one advertises
	leaveBeside         // another member of its sync group leaves
)

// rival is a router that is neither we nor the peer.
type rival struct {
	addr     netip.Addr
	priority uint8
	at       time.Duration
	interval time.Duration // of its advertisements
}

// remembered is how long a third router that was master counts as a candidate.
// Backups are silent: what is known of them is what they were.
const remembered = 10 * time.Minute

// patienceOf is how many of its own intervals a third router that is better
// than the master may be silent: one that lives and wants the place has it
// after four of them. One that is gone, or does not want it, must not keep us
// from it for the rest of those ten minutes.
const patienceOf = 10

// noteRival keeps the third routers that advertised.
func (r *router) noteRival(from netip.Addr, priority uint8, interval time.Duration) {
	if m := r.s.mate; m == nil {
		return
	} else if rec := m.peer.Find(r.key); rec != nil && rec.Source == from {
		return
	}
	slot := 0
	for i := range r.rivals {
		if r.rivals[i].addr == from {
			slot = i
			if priority == 0 { // it takes no part any more
				r.rivals[i] = rival{}
			}
			break
		}
		if r.rivals[i].at < r.rivals[slot].at {
			slot = i
		}
	}
	if priority != 0 {
		r.rivals[slot] = rival{from, priority, r.s.now, interval}
	}
}

// outranked tells whether a third router is known that would win the election
// against us: then its timer and ours decide, as ever.
func (r *router) outranked() bool {
	for i := range r.rivals {
		v := &r.rivals[i]
		if !v.addr.IsValid() || r.s.now-v.at > remembered {
			continue
		}
		if rec := r.s.mate.peer.Find(r.key); rec != nil {
			if rec.Source == v.addr {
				continue // heard before the first heartbeat
			}
			better := v.priority > rec.Priority || v.priority == rec.Priority && v.addr.Compare(rec.Source) > 0
			if better && rec.Phase == heartbeat.Master && r.s.now-v.at > patienceOf*v.interval {
				continue
			}
		}
		if v.priority > r.st.Effective || v.priority == r.st.Effective && v.addr.Compare(r.src) > 0 {
			return true
		}
	}
	return false
}

// relievable tells whether the peer could take a router over.
func (s *service) relievable(r *router) bool {
	if s.mate == nil || !s.mate.peer.Up || r.st.Phase != core.Master {
		return false
	}
	rec := s.mate.peer.Find(r.key)
	return rec != nil && rec.Phase == heartbeat.Backup
}

// handOver begins one for a master and all of its group. It reports whether
// the peer could be asked; the router leaves when that answers, or patience
// ends.
func (s *service) handOver(r *router, how leaving) bool {
	members := []*router{r}
	if r.group != nil {
		members = r.group.members
	}
	for _, n := range members {
		if !s.relievable(n) {
			return false
		}
	}
	for i, n := range s.routers {
		for _, want := range members {
			if n != want || s.mate.agent.Leaving(i) && n != r {
				continue
			}
			if n.leaving = leaveBeside; n == r {
				n.leaving = how
			}
			rec := s.mate.peer.Find(n.key)
			n.step(core.Event{Kind: core.Truce, From: rec.Source, Until: s.now + heartbeat.Truce})
			s.mate.agent.Ask(i, s.now)
		}
	}
	return true
}

// yield puts off what an advertisement of the peer with a better priority asks
// for, until the peer answers for the addresses. The peer advertises meanwhile,
// we do not.
func (r *router) yield(ev core.Event) bool {
	m := r.s.mate
	if m == nil || r.st.Phase != core.Master || ev.Priority == 0 || !m.peer.Up {
		return false
	}
	rec := m.peer.Find(r.key)
	if rec == nil || rec.Source != ev.From {
		return false
	}
	better := ev.Priority > r.st.Effective || ev.Priority == r.st.Effective && ev.From.Compare(r.core.Addr) > 0
	if !better {
		return false
	}
	for i, n := range r.s.routers {
		if n != r {
			continue
		}
		if m.agent.Asks(i) {
			return false // it relieves us already: the truce says what counts
		}
		if !m.agent.Leaving(i) {
			if r.s.now < r.st.TruceUntil {
				return false // the last words of the one that we relieved
			}
			r.leaving = leaveYield
			r.step(core.Event{Kind: core.Truce, From: ev.From, Until: r.s.now + heartbeat.Truce, Quiet: true})
			m.agent.Yield(i, r.s.now)
		}
		r.pending = ev
	}
	return true
}

// letGo ends a hand-over: the router leaves in the way that it was meant to.
func (r *router) letGo() {
	how := r.leaving
	r.leaving = stayHere
	r.step(core.Event{Kind: core.Truce})
	switch how {
	case leaveHeld:
		r.step(core.Event{Kind: core.Hold, Held: r.s.heldBy(r.cfg.Name) != ""})
	case leaveStop:
		r.step(core.Event{Kind: core.Stop})
	case leaveYield:
		r.step(r.pending)
	}
}

// abandon ends a hand-over that goes on no more. What the operator wants of the
// router holds all the same.
func (r *router) abandon() {
	switch r.leaving {
	case stayHere:
	case leaveYield, leaveBeside:
		r.leaving = stayHere
		r.step(core.Event{Kind: core.Truce})
	default:
		r.letGo()
	}
}

// leave asks the peer to relieve us everywhere and waits until it did, or for
// as long as that may take.
func (s *service) leave() {
	if s.mate == nil {
		return
	}
	s.now = s.loop.Now()
	s.mate.drain()
	for _, r := range s.routers {
		if r.leaving == stayHere || r.leaving == leaveBeside {
			if s.handOver(r, leaveStop) {
				r.leaving = leaveStop
			}
		} else {
			r.leaving = leaveStop
		}
	}
	end := s.now + heartbeat.Truce
	for s.mate != nil && !s.mate.agent.Idle() && s.now < end {
		if s.turn() != nil {
			return
		}
	}
}
