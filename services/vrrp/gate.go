package vrrp

import (
	"context"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
	"ballast/services/vrrp/core"
)

// A box that boots is ready to hold addresses seconds before its IPVS table is.
// Who took over then would draw requests that it cannot forward yet, from a
// peer that can. So a fresh process takes part in the election as a listener
// until ipvs has applied the configuration, or patience ends: a director
// without virtual servers waits for nothing, and one that was master before
// its process died goes on at once. It waits in the same way for the end of
// startup_script, before which keepalived does not start VRRP at all.
const (
	gatePatience = 10 * time.Second
	// scriptDefault is startup_script_timeout of a configuration without it.
	scriptDefault = 10 * time.Second
	// scriptMargin is for notify: it has to start, and to tell.
	scriptMargin = 5 * time.Second
	gateStep     = 20 * time.Millisecond // how long a due take-over is put off at a time
	// learnTime is core.Config.Learn where connections are synchronised. The master
	// tells of each again with a packet 10 s after the last time
	// (sync_refresh_period, which net sets), its kernel collects for up to 3 s, our
	// own daemon starts 1 or 2 s after this process, and clients pause between
	// packets.
	learnTime = 18 * time.Second
)

// gate is closed until ipvs is ready and startup_script is over.
type gate struct {
	end    time.Duration // when patience with ipvs ends, on the loop's clock; 0: open
	script time.Duration // the same with startup_script
	gen    uint64        // configuration that ipvs has to apply
	first  uint64        // configuration whose startup_script is awaited
	told   bool          // a take-over was put off, and the log says so
	has    uint64        // what ipvs has applied
}

func (g *gate) open() bool { return g.end == 0 && g.script == 0 }

// closeGate is called with the first configuration of a process.
func (s *service) closeGate(gen uint64, servers int, c *model.Global) {
	if servers > 0 && s.gate.has < gen {
		s.gate.end, s.gate.gen = s.now+gatePatience, gen
	}
	if !c.StartupScript.IsZero() {
		limit := c.StartupScriptTimeout
		if limit <= 0 {
			limit = scriptDefault
		}
		s.gate.script, s.gate.first = s.now+limit+scriptMargin, gen
		if s.notified != nil {
			s.scriptOver(s.notified)
		}
	}
}

// scriptOver hears from notify how startup_script is. One that has applied the
// configuration and says nothing of it ran it before, at the start of the box.
func (s *service) scriptOver(n *status.Notify) {
	if s.gate.script == 0 || n.Startup == "running" || n.Startup == "" && n.Config < s.gate.first {
		return
	}
	s.gate.script = 0
	s.opened("startup_script is over")
}

// opened tells that the wait is over, if anybody was told that there is one.
func (s *service) opened(why string) {
	if s.gate.told && s.gate.open() {
		s.log.info("%s: taking part in full", why)
	}
}

// ipvsApplied hears how far ipvs is.
func (s *service) ipvsApplied(gen uint64) {
	s.gate.has = gen
	if s.gate.end == 0 || gen < s.gate.gen {
		return
	}
	s.gate.end = 0
	s.opened("the IPVS table is programmed")
}

// postpone keeps the down timers of backups from running out while the gate is
// closed. An advertisement that comes meanwhile arms them as ever.
func (s *service) postpone() {
	g := &s.gate
	if g.open() {
		return
	}
	if g.end != 0 && s.now >= g.end {
		if g.told {
			s.log.warn("ipvs has not applied the configuration within %v: taking over without its table; see \"show log ipvs\"", gatePatience)
		}
		g.end = 0
	}
	if g.script != 0 && s.now >= g.script {
		s.log.warn("startup_script has not ended in its time: taking part without it; see \"show log notify\"")
		g.script = 0
	}
	if g.open() {
		return
	}
	what, until := "the IPVS table is programmed", g.end
	if g.script != 0 {
		what, until = "startup_script has ended", g.script
	}
	for _, r := range s.routers {
		due := r.timers[core.TimerDown]
		if r.st.Phase != core.Backup || due == 0 || due > s.now {
			continue
		}
		r.timers[core.TimerDown] = s.now + gateStep
		if !g.told {
			g.told = true
			s.log.info("%s: no master is heard; not taking over before %s, at most %v more", r.cfg.Name, what, (until - s.now).Round(10*time.Millisecond))
		}
	}
}

// watchIPVS follows how far ipvs is, until ctx ends.
func (s *service) watchIPVS(ctx context.Context, c *ipc.Client) {
	ipc.WatchBrief(ctx, c, func(_ uint64, a status.Applied) {
		s.do(ctx, func() { s.ipvsApplied(a.Config) })
	})
}
