package vrrp

import (
	"context"
	"time"

	"ballast/services/ipc"
	"ballast/services/ipc/status"
	"ballast/services/vrrp/core"
)

// A box that boots is ready to hold addresses seconds before its IPVS table is.
// Who took over then would draw requests that it cannot forward yet, from a
// peer that can. So a fresh process takes part in the election as a listener
// until ipvs has applied the configuration, or patience ends: a director
// without virtual servers waits for nothing, and one that was master before
// its process died goes on at once.
const (
	gatePatience = 10 * time.Second
	gateStep     = 20 * time.Millisecond // how long a due take-over is put off at a time
)

// gate is closed until ipvs is ready.
type gate struct {
	end  time.Duration // when patience ends, on the loop's clock; 0: open
	gen  uint64        // configuration that ipvs has to apply
	told bool          // a take-over was put off, and the log says so
	has  uint64        // what ipvs has applied
}

// closeGate is called with the first configuration of a process.
func (s *service) closeGate(gen uint64, servers int) {
	if servers > 0 && s.gate.has < gen {
		s.gate.end, s.gate.gen = s.now+gatePatience, gen
	}
}

// ipvsApplied hears how far ipvs is.
func (s *service) ipvsApplied(gen uint64) {
	s.gate.has = gen
	if s.gate.end == 0 || gen < s.gate.gen {
		return
	}
	if s.gate.told {
		s.log.info("the IPVS table is programmed: taking part in full")
	}
	s.gate.end = 0
}

// postpone keeps the down timers of backups from running out while the gate is
// closed. An advertisement that comes meanwhile arms them as ever.
func (s *service) postpone() {
	if s.gate.end == 0 {
		return
	}
	if s.now >= s.gate.end {
		if s.gate.told {
			s.log.warn("ipvs has not applied the configuration within %v: taking over without its table; see \"show log ipvs\"", gatePatience)
		}
		s.gate.end = 0
		return
	}
	for _, r := range s.routers {
		due := r.timers[core.TimerDown]
		if r.st.Phase != core.Backup || due == 0 || due > s.now {
			continue
		}
		r.timers[core.TimerDown] = s.now + gateStep
		if !s.gate.told {
			s.gate.told = true
			s.log.info("%s: no master is heard; not taking over before the IPVS table is programmed, at most %v more", r.cfg.Name, (s.gate.end - s.now).Round(10*time.Millisecond))
		}
	}
}

// watchIPVS follows how far ipvs is, until ctx ends.
func (s *service) watchIPVS(ctx context.Context, c *ipc.Client) {
	ipc.WatchBrief(ctx, c, func(_ uint64, a status.Applied) {
		s.do(ctx, func() { s.ipvsApplied(a.Config) })
	})
}
