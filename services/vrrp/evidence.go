package vrrp

import (
	"net/netip"
	"time"

	"ballast/services/ipc/status"
	"ballast/services/vrrp/core"
	"ballast/services/vrrp/packet"
)

// evidence is what explains the state of a router afterwards. Moments are on
// the loop's clock.
type evidence struct {
	from     netip.Addr // last accepted advertisement
	priority uint8
	interval time.Duration
	at       time.Duration

	rejected     string // why the last one that did not count did not
	rejectedFrom netip.Addr
	rejectedAt   time.Duration
	rejectedTold time.Duration // when the state was last published for it

	takeover  string
	decided   time.Duration // when it became master
	firstGARP time.Duration // 0: none was sent since
}

// heard remembers an accepted advertisement.
func (r *router) heard(from netip.Addr, a *packet.Advert, at time.Duration) {
	e := &r.evidence
	e.from, e.priority, e.interval, e.at = from, a.Priority, a.AdvertInt, at
}

// reject remembers one that does not count. Anybody can send such packets at
// any rate, so they are not told more often than once a second.
func (r *router) reject(from netip.Addr, why string, at time.Duration) {
	e := &r.evidence
	news := e.rejected != why || e.rejectedFrom != from
	e.rejected, e.rejectedFrom, e.rejectedAt = why, from, at
	if news && (e.rejectedTold == 0 || r.s.now-e.rejectedTold >= time.Second) {
		e.rejectedTold, r.s.dirty = r.s.now, true
	}
}

// tookOver remembers why a router became master.
func (r *router) tookOver(why core.Reason) {
	e := &r.evidence
	e.takeover, e.decided, e.firstGARP = takeover(why.Code), r.s.now, 0
	if r.group == nil {
		return
	}
	if why.Code == core.GroupWentMaster {
		e.takeover = r.group.takeover
	} else {
		r.group.takeover = e.takeover
	}
}

// announced hears that a gratuitous ARP or neighbour advertisement went out.
func (r *router) announced() {
	if e := &r.evidence; e.firstGARP == 0 && r.st.Phase == core.Master {
		e.firstGARP, r.s.dirty = r.s.loop.Now()-e.decided, true
	}
}

// takeover is what made a router master, in the words of status.Evidence.
func takeover(c core.Code) string {
	switch c {
	case core.MasterResigned:
		return "priority 0"
	case core.LowerPriority:
		return "preempt"
	case core.OwnerStarted:
		return "owner"
	case core.PeerDead:
		return "heartbeat lost"
	case core.PeerLeft:
		return "peer gave up, by heartbeat"
	case core.PeerAsked:
		return "handover"
	case core.Adopted:
		return "was master before its process restarted"
	}
	return "master down timer"
}

func (r *router) explain() status.Evidence {
	e := &r.evidence
	v := status.Evidence{
		From: e.from, Priority: int(e.priority), Interval: e.interval,
		Rejected: e.rejected, RejectedFrom: e.rejectedFrom, Takeover: e.takeover, FirstGARP: e.firstGARP,
	}
	if e.from.IsValid() {
		v.At = r.s.loop.Time(e.at)
	}
	if at, learns := r.st.Patience(); at > r.s.now && !r.st.Held {
		v.PreemptAt, v.PreemptFor = r.s.loop.Time(at), status.PreemptForDelay
		if learns {
			v.PreemptFor = status.PreemptForSync
		}
	}
	if e.rejected != "" {
		v.RejectedAt = r.s.loop.Time(e.rejectedAt)
	}
	return v
}
