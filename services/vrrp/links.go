package vrrp

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// lag is a link that interface_up_down_delays lets settle: its trackers hear
// of a change only when it has lasted.
type lag struct {
	up  bool          // as the trackers see it
	due time.Duration // when a change that lasts counts; 0: none is under way
}

// settleLinks compares the kernel's links with what trackers were told. A link
// that is not there at all is no matter of patience.
func (s *service) settleLinks() {
	seen := map[string]bool{}
	for _, d := range s.delays {
		l := s.links[d.Interface]
		if l == nil {
			continue
		}
		seen[d.Interface] = true
		up := l.Up && l.Run
		g := s.lags[d.Interface]
		if g == nil {
			s.lags[d.Interface] = &lag{up: up}
			continue
		}
		if up == g.up {
			g.due = 0
			continue
		}
		wait := d.Down
		if up {
			wait = d.Up
		}
		if g.due == 0 {
			g.due = s.now + wait
		}
		if g.due <= s.now {
			g.up, g.due = up, 0
		}
	}
	for name := range s.lags {
		if !seen[name] {
			delete(s.lags, name)
		}
	}
}

// lagOver tells whether a change has lasted long enough, so that refresh has
// to look at it.
func (s *service) lagOver() bool {
	for _, g := range s.lags {
		if g.due != 0 && g.due <= s.now {
			return true
		}
	}
	return false
}

// linkUp tells whether an interface works, and if not, why.
func (s *service) linkUp(name string) (bool, string) {
	l, g := s.links[name], s.lags[name]
	switch {
	case l == nil:
		return false, fmt.Sprintf("interface %s is not there", name)
	case g != nil && g.up:
		return true, ""
	case !l.Up:
		return false, fmt.Sprintf("interface %s is down", name)
	case !l.Run:
		return false, fmt.Sprintf("interface %s has no carrier", name)
	case g != nil:
		return false, fmt.Sprintf("interface %s is up, but not for as long as interface_up_down_delays wants", name)
	}
	return true, ""
}

// startupEnd is when this process may take part: vrrp_startup_delay counts
// from its start, vrrp_delay_after_boot from that of the machine, and the
// longer one wins.
func (s *service) startupEnd(startup, afterBoot time.Duration) time.Duration {
	end := s.started + startup
	var up unix.Timespec
	if afterBoot > 0 && unix.ClockGettime(unix.CLOCK_BOOTTIME, &up) == nil {
		end = max(end, s.now-time.Duration(up.Nano())+afterBoot)
	}
	return end
}
