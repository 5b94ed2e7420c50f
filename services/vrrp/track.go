package vrrp

import (
	"fmt"
	"slices"
	"strings"

	"ballast/configs/model"
	"ballast/services/ipc/status"
	"ballast/services/vrrp/core"
)

// evaluate works out what holds the router in fault and its effective
// priority, and tells the machine what changed.
func (r *router) evaluate() {
	src, before := r.src, r.trackers
	faults, effective := r.examine()
	if !slices.Equal(faults, r.faults) {
		r.faults = faults
		r.s.dirty = true
		if r.st.Phase == core.Fault && len(faults) > 0 {
			r.reason = faults[0]
		}
	}
	if r.st.Phase == core.Init {
		return // not started yet
	}
	if src != r.src && r.src.IsValid() {
		r.reconfigure(false)
	}
	r.step(core.Event{Kind: core.SetFault, Faulty: len(faults) > 0})
	if effective != r.st.Effective {
		r.s.log.info("%s: effective priority %d -> %d: %s", r.cfg.Name, r.st.Effective, effective, moved(before, r.trackers))
		r.s.dirty = true
		r.step(core.Event{Kind: core.Effective, Priority: effective})
	}
}

// moved says which trackers made a priority change; without any it was the
// configuration.
func moved(before, now []status.Tracker) string {
	var why []string
	for _, t := range now {
		i := slices.IndexFunc(before, func(b status.Tracker) bool { return b.Kind == t.Kind && b.Name == t.Name })
		if t.Weight == 0 || i >= 0 && before[i].Up == t.Up && before[i].Weight == t.Weight {
			continue
		}
		state := map[bool]string{true: "up", false: "down"}[t.Up]
		if t.Kind == "script" {
			state = map[bool]string{true: "succeeds", false: "fails"}[t.Up]
		}
		text := fmt.Sprintf("%s %s %s (weight %d)", t.Kind, t.Name, state, t.Weight)
		if t.Detail != "" && !t.Up {
			text += ", " + t.Detail
		}
		why = append(why, text)
	}
	if len(why) == 0 {
		return "configuration"
	}
	return strings.Join(why, "; ")
}

// reconfigure tells the machine its configuration anew. It gets a copy: the
// old one belongs to its old state.
func (r *router) reconfigure(addrs bool) {
	c := coreConfig(&r.cfg, r.src, r.group != nil)
	r.core = c
	r.step(core.Event{Kind: core.Configure, Cfg: &c, Addrs: addrs})
}

// examine returns the faults and the effective priority (all of tracking's
// arithmetic is keepalived's), and refreshes the trackers shown.
func (r *router) examine() (faults []string, effective uint8) {
	if missing := r.bind(); missing != "" {
		faults = append(faults, missing)
	}
	if l := r.link; l != nil && !r.cfg.DontTrackPrimary {
		if up, why := r.s.linkUp(r.cfg.Interface); !up {
			faults = append(faults, why)
		}
	}
	r.trackers = r.trackers[:0:0]
	sum := 0
	links, scripts := r.cfg.TrackInterfaces, r.cfg.TrackScripts
	if r.group != nil { // its members have weights of their own only where sync_group_tracking_weight lets them
		links = slices.Concat(links, r.group.cfg.TrackInterfaces)
		scripts = slices.Concat(scripts, r.group.cfg.TrackScripts)
	}
	for _, t := range links {
		up, why := r.s.linkUp(t.Interface)
		d, fault := weigh(up, t.Weight, t.Reverse)
		sum += d
		if fault {
			faults = append(faults, "tracked "+orElse(why, "interface "+t.Interface+" is up"))
		}
		r.trackers = append(r.trackers, status.Tracker{Kind: "interface", Name: t.Interface, Up: up, Weight: t.Weight, Detail: why})
	}
	for _, t := range scripts {
		res, have := r.s.scripts[t.Script]
		switch {
		case res.Missing:
			r.trackers = append(r.trackers, status.Tracker{Kind: "script", Name: t.Script, Weight: t.Weight, Detail: orElse(res.Detail, "cannot run, not tracked")})
			continue
		case !have || !res.Known:
			if t.Weight == 0 && !r.trust {
				faults = append(faults, fmt.Sprintf("script %s has no result yet", t.Script))
			}
			r.trackers = append(r.trackers, status.Tracker{Kind: "script", Name: t.Script, Weight: t.Weight, Detail: "no result yet"})
			continue
		}
		d, fault := weigh(res.OK, t.Weight, t.Reverse)
		sum += d
		if fault {
			faults = append(faults, fmt.Sprintf("script %s: %s", t.Script, orElse(res.Detail, map[bool]string{true: "succeeds (reverse)", false: "fails"}[res.OK])))
		}
		r.trackers = append(r.trackers, status.Tracker{Kind: "script", Name: t.Script, Up: res.OK, Weight: t.Weight, Detail: res.Detail})
	}
	if r.group != nil {
		if other := r.group.faultBeside(r); other != "" {
			faults = append(faults, other)
		}
	}
	return faults, clampPriority(r.cfg.Priority, sum)
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// weigh is what one tracker does: a weight > 0 counts while it is up, one < 0
// while it is down, and reverse turns the sign. A weight of 0 means fault while
// it is down; with reverse, while it is up.
func weigh(up bool, weight int, reverse bool) (delta int, fault bool) {
	if weight == 0 {
		return 0, up == reverse
	}
	if up == (weight > 0) {
		delta = weight
	}
	if reverse {
		delta = -delta
	}
	return delta, false
}

// clampPriority adds to a base priority. The address owner keeps its 255;
// everybody else stays off 0 and 255, which mean something else.
func clampPriority(base uint8, sum int) uint8 {
	if base == 255 {
		return 255
	}
	return uint8(min(max(int(base)+sum, 1), 254))
}

// linkUp tells whether an interface works, and if not, why.
func (s *service) linkUp(name string) (bool, string) {
	l := s.links[name]
	switch {
	case l == nil:
		return false, fmt.Sprintf("interface %s is not there", name)
	case !l.Up:
		return false, fmt.Sprintf("interface %s is down", name)
	case !l.Run:
		return false, fmt.Sprintf("interface %s has no carrier", name)
	}
	return true, ""
}

// setScripts takes over results from notify. A result that was known stays
// until there is a new one: a notify that starts again knows nothing at first.
func (s *service) setScripts(list []status.ScriptResult) {
	next := make(map[string]status.ScriptResult, len(list))
	for _, n := range list {
		old, have := s.scripts[n.Name]
		if have && old.Known && !n.Known && !n.Missing {
			n = old
		}
		next[n.Name] = n
	}
	for name, old := range s.scripts {
		if _, have := next[name]; !have && old.Known && s.tracked(name) {
			next[name] = old
		}
	}
	if scriptsEqual(s.scripts, next) {
		s.scripts = next
		return
	}
	s.scripts = next
	s.dirty = true
	for _, r := range s.routers {
		r.evaluate()
	}
}

func (s *service) tracked(name string) bool {
	uses := func(list []model.TrackScript) bool {
		return slices.ContainsFunc(list, func(t model.TrackScript) bool { return t.Script == name })
	}
	for _, r := range s.routers {
		if uses(r.cfg.TrackScripts) || r.group != nil && uses(r.group.cfg.TrackScripts) {
			return true
		}
	}
	return false
}

func scriptsEqual(a, b map[string]status.ScriptResult) bool {
	if len(a) != len(b) {
		return false
	}
	for name, x := range a {
		y, ok := b[name]
		if !ok || x.Known != y.Known || x.OK != y.OK || x.Missing != y.Missing || x.Detail != y.Detail {
			return false
		}
	}
	return true
}
