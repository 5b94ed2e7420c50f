package vrrp

import (
	"slices"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc/status"
	"ballast/services/vrrp/core"
)

// group is a vrrp_sync_group: its members are master together or not at all.
type group struct {
	s       *service
	cfg     model.SyncGroup
	members []*router
	state   core.Phase
	since   time.Time
	asked   bool // a member's own timer says master
	// takeover is what made a member ask, or go, in the words of status.Evidence.
	takeover string
	work     []work
}

// work is what a change of one member means for the others.
type work struct {
	from *router
	to   core.Phase
	why  core.Reason
}

// member hears that a member changed. It is acted on when the step is over.
func (g *group) member(r *router, why core.Reason) {
	g.work = append(g.work, work{r, r.st.Phase, why})
}

// faultBeside is what holds the router in fault because of another member.
func (g *group) faultBeside(r *router) string {
	for _, m := range g.members {
		if m != r && len(m.ownFaults()) > 0 {
			return "sync group " + g.cfg.Name + ": " + m.cfg.Name + " is in FAULT"
		}
	}
	return ""
}

// ownFaults are the faults without those that come from the group.
func (r *router) ownFaults() []string {
	if r.group == nil || len(r.faults) == 0 {
		return r.faults
	}
	const word = "sync group "
	if last := r.faults[len(r.faults)-1]; len(last) > len(word) && last[:len(word)] == word {
		return r.faults[:len(r.faults)-1]
	}
	return r.faults
}

// settleGroups lets groups act on what their members did. Each round can only
// bring members closer together; the bound is for what nobody thought of.
func (s *service) settleGroups() {
	for _, g := range s.groups {
		for range 4 * len(g.members) {
			if !g.settle() {
				break
			}
		}
		g.work = g.work[:0]
		g.observe()
	}
}

func (g *group) settle() (did bool) {
	work := slices.Clone(g.work)
	g.work = g.work[:0]
	for _, w := range work {
		for _, m := range g.members {
			switch {
			case m == w.from:
			case w.to == core.Master:
				m.cause = w.from.cfg.Name + ": " + w.from.reason
				m.step(core.Event{Kind: core.GroupMaster})
			case w.to == core.Fault || w.why.Code == core.FaultLeft:
				m.evaluate()
			case w.to == core.Backup && w.why.Code != core.GroupWentBackup && m.st.Phase == core.Master:
				m.cause = w.from.cfg.Name + ": " + w.from.reason
				m.step(core.Event{Kind: core.GroupBackup})
			}
		}
		did = true
	}
	if g.asked {
		g.asked = false
		if g.all(func(m *router) bool { return m.st.Want || m.st.Phase == core.Master }) {
			for _, m := range g.members {
				m.step(core.Event{Kind: core.GroupMaster})
			}
			did = true
		}
	}
	return did
}

// groupReason says why a member followed its group: what it saw itself, or
// what another member did.
func (r *router) groupReason(why core.Reason) string {
	switch {
	case why.Code == core.GroupWentMaster && r.wish != "":
		return r.wish + ", as for all of sync group " + r.group.cfg.Name
	case r.cause != "":
		return why.String() + ": " + r.cause
	}
	return why.String()
}

func (g *group) all(fn func(*router) bool) bool {
	for _, m := range g.members {
		if !fn(m) {
			return false
		}
	}
	return len(g.members) > 0
}

// observe publishes the state of the group as a whole.
func (g *group) observe() {
	state := core.Backup
	switch {
	case slices.ContainsFunc(g.members, func(m *router) bool { return m.st.Phase == core.Fault }):
		state = core.Fault
	case g.all(func(m *router) bool { return m.st.Phase == core.Master }):
		state = core.Master
	}
	if state == g.state {
		return
	}
	before := g.state
	g.state, g.since = state, g.s.loop.Time(g.s.now)
	reason := "all of its instances are " + state.String()
	for _, m := range g.members {
		if m.st.Phase == state {
			reason = m.cfg.Name + ": " + m.reason
			break
		}
	}
	g.s.transition(status.Transition{Time: g.since, Object: g.cfg.Name, Kind: "group", From: before.String(), To: state.String(), Reason: reason})
	g.s.log.info("sync group %s: %s -> %s: %s", g.cfg.Name, before, state, reason)
}
