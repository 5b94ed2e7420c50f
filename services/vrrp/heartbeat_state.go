package vrrp

import (
	"time"

	"ballast/services/ipc/status"
)

// tell logs what came up and went down.
func (m *mate) tell() {
	s := m.s
	for i := range m.paths {
		p := &m.paths[i]
		if up := m.peer.Paths[i].Up; up != p.up {
			p.up, s.dirty = up, true
		}
		if _, missed, tell := p.told.change(upWord(p.up), s.now); tell {
			s.log.info("heartbeat: path to %s %s%s", p.Peer, upWord(p.up), leftOut(missed))
		}
	}
	if m.up != m.peer.Up {
		m.up, s.dirty = m.peer.Up, true
	}
	from, missed, tell := m.told.change(upWord(m.up), s.now)
	if !tell {
		return
	}
	reason := "heard again"
	if !m.up {
		reason = "silent on all paths for " + (s.now - m.peer.Last).Round(100*time.Microsecond).String()
	}
	reason += leftOut(missed)
	s.transition(status.Transition{Time: s.loop.Time(s.now), Object: "heartbeat", Kind: "heartbeat", From: from, To: upWord(m.up), Reason: reason})
	s.log.info("heartbeat: %s -> %s: %s", from, upWord(m.up), reason)
}

func upWord(up bool) string {
	if up {
		return "up"
	}
	return "down"
}

// status is what the state shows.
func (m *mate) status() *status.Heartbeat {
	v := &status.Heartbeat{Up: m.peer.Up, Since: m.s.loop.Time(m.peer.Since), Detect: m.peer.Detect()}
	for i := range m.paths {
		p, w := &m.paths[i], &m.peer.Paths[i]
		n := status.HeartbeatPath{Peer: p.Peer, Interface: p.Interface, Up: w.Up, Sent: p.sent, Received: p.received, Rejected: p.rejected}
		if w.Last != 0 {
			n.Since, n.Last = m.s.loop.Time(w.Since), m.s.loop.Time(w.Last)
		}
		if v.Peer == "" || w.Up && !v.Paths[0].Up {
			v.Peer = p.Peer.String()
		}
		v.Paths = append(v.Paths, n)
	}
	for _, r := range m.s.routers {
		if rec := m.peer.Find(r.key); rec != nil {
			v.Routers = append(v.Routers, status.HeartbeatRouter{Instance: r.cfg.Name, State: rec.Phase.String(), Priority: int(rec.Priority)})
		}
	}
	return v
}
