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
	number  int // in the configuration, from 1
	members []*router
	state   core.Phase
	since   time.Time
	core    core.Group
	// takeover is what made a member ask, or go, in the words of status.Evidence.
	takeover string
}

// Len implements core.Members.
func (g *group) Len() int { return len(g.members) }

// State implements core.Members.
func (g *group) State(i int) *core.State { return &g.members[i].st }

// Step implements core.Members.
func (g *group) Step(i int, k core.Kind, because int) {
	m := g.members[i]
	if because >= 0 {
		m.cause = g.members[because].cfg.Name + ": " + g.members[because].reason
	}
	m.step(core.Event{Kind: k})
}

// Reconsider implements core.Members.
func (g *group) Reconsider(i int) { g.members[i].evaluate() }

// member hears that a member changed. It is acted on when the step is over.
func (g *group) member(r *router, why core.Reason) {
	g.core.Changed(slices.Index(g.members, r), r.st.Phase, why.Code)
	g.s.restive = true
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

// settleGroups lets groups act on what their members did.
func (s *service) settleGroups() {
	if !s.restive {
		return
	}
	s.restive = false
	for _, g := range s.groups {
		g.core.Settle(g)
		g.observe()
	}
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

// observe publishes the state of the group as a whole.
func (g *group) observe() {
	state := g.core.Phase(g)
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

// stop tells that the group ends with its members.
func (g *group) stop() {
	if g.state == core.Init {
		return
	}
	g.s.transition(status.Transition{
		Time: g.s.loop.Time(g.s.now), Object: g.cfg.Name, Kind: "group", From: g.state.String(), To: status.VRRPStop, Reason: "stopped",
	})
	g.state = core.Init
}
