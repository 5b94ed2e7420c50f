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
	if effective != r.st.Effective && !(r.st.Stepped && effective == 255) {
		r.s.log.info("%s: effective priority %d -> %d: %s", r.cfg.Name, r.st.Effective, effective, moved(before, r.trackers))
		r.s.dirty = true
		r.step(core.Event{Kind: core.Effective, Priority: effective})
		r.priorityChanged()
	}
}

// priorityChanged is the event MASTER_PRIORITY or BACKUP_PRIORITY, for those
// who want it. It is of a kind of its own: it changes no state.
func (r *router) priorityChanged() {
	if !r.cfg.NotifyPriorityChanges && (r.group == nil || !r.group.cfg.NotifyPriorityChanges) {
		return
	}
	to := status.BackupPriority
	switch r.st.Phase {
	case core.Master:
		to = status.MasterPriority
	case core.Backup:
	default:
		return
	}
	r.s.transition(status.Transition{
		Time: r.s.loop.Time(r.s.now), Object: r.cfg.Name, Kind: status.KindPriority,
		From: r.st.Phase.String(), To: to, Reason: fmt.Sprintf("effective priority %d", r.st.Effective), Priority: int(r.st.Effective),
	})
}

// moved says which trackers made a priority change; without any it was the
// configuration.
func moved(before, now []status.Tracker) string {
	var why []string
	for _, t := range now {
		i := slices.IndexFunc(before, func(b status.Tracker) bool { return b.Kind == t.Kind && b.Name == t.Name })
		file := t.Kind == "file"
		if t.Weight == 0 || i >= 0 && before[i].Up == t.Up && before[i].Weight == t.Weight && (!file || before[i].Detail == t.Detail) {
			continue
		}
		state := map[bool]string{true: "up", false: "down"}[t.Up]
		switch t.Kind {
		case "script":
			state = map[bool]string{true: "succeeds", false: "fails"}[t.Up]
		case "file":
			state = t.Detail
		}
		text := fmt.Sprintf("%s %s %s (weight %d)", word(t.Kind), t.Name, state, t.Weight)
		if t.Detail != "" && !t.Up && !file {
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
	c := r.coreConfig()
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
	faults = append(faults, r.placeFaults()...)
	if r.cfg.UnicastFaultNoPeer && len(r.cfg.Peers) == 0 {
		faults = append(faults, "no unicast_peer is configured (unicast_fault_no_peer)")
	}
	t := tally{r: r}
	links, scripts, files, processes, bfd := r.cfg.TrackInterfaces, r.cfg.TrackScripts, r.cfg.TrackFiles, r.cfg.TrackProcesses, r.cfg.TrackBFD
	if r.group != nil { // its members have weights of their own only where sync_group_tracking_weight lets them
		g := &r.group.cfg
		links, scripts = slices.Concat(links, g.TrackInterfaces), slices.Concat(scripts, g.TrackScripts)
		files, processes, bfd = slices.Concat(files, g.TrackFiles), slices.Concat(processes, g.TrackProcesses), slices.Concat(bfd, g.TrackBFD)
	}
	for _, n := range links {
		up, why := r.s.linkUp(n.Interface)
		t.add(status.Tracker{Kind: "interface", Name: n.Interface, Up: up, Weight: n.Weight, Detail: why}, n.Reverse)
	}
	for _, n := range scripts {
		t.script(n)
	}
	for _, n := range files {
		t.file(n)
	}
	for _, n := range processes {
		p, known := r.s.processes[n.Name]
		t.known(status.Tracker{Kind: "process", Name: n.Name, Up: p.OK, Weight: n.Weight, Detail: fmt.Sprintf("%d running", p.Count)}, n.Reverse, known)
	}
	for _, n := range bfd {
		up, known := false, false
		if r.s.bfd != nil {
			up, known = r.s.bfd(n.Name)
		}
		t.known(status.Tracker{Kind: "bfd", Name: n.Name, Up: up, Weight: n.Weight}, n.Reverse, known)
	}
	r.trackers = t.list
	faults = append(faults, t.faults...)
	for _, g := range r.s.trackGroups {
		if what := r.s.lost[g.Name]; what != "" && slices.Contains(g.Instances, r.cfg.Name) {
			faults = append(faults, "track_group "+g.Name+": "+what)
		}
	}
	if r.group != nil {
		if other := r.group.faultBeside(r); other != "" {
			faults = append(faults, other)
		}
	}
	return faults, clampPriority(r.cfg.Priority, t.sum)
}

// tally adds up what the trackers of one router say.
type tally struct {
	r      *router
	sum    int
	faults []string
	list   []status.Tracker
}

func (t *tally) add(n status.Tracker, reverse bool) {
	d, fault := weigh(n.Up, n.Weight, reverse)
	t.sum += d
	if fault {
		t.faults = append(t.faults, blame(n))
	}
	t.list = append(t.list, n)
}

// known adds a tracker that may have no result yet. Then its weight does not
// count, and without a weight it holds the router; but for one that was master
// when its process died, which goes on until it hears better.
func (t *tally) known(n status.Tracker, reverse, known bool) {
	if known {
		t.add(n, reverse)
		return
	}
	if n.Weight == 0 && !t.r.trust {
		t.faults = append(t.faults, word(n.Kind)+" "+n.Name+" has no result yet")
	}
	n.Up, n.Detail = false, "no result yet"
	t.list = append(t.list, n)
}

func (t *tally) script(c model.TrackScript) {
	res, have := t.r.s.scripts[c.Script]
	n := status.Tracker{Kind: "script", Name: c.Script, Up: res.OK, Weight: c.Weight, Detail: res.Detail}
	if res.Missing {
		n.Up, n.Detail = false, orElse(res.Detail, "cannot run, not tracked")
		t.list = append(t.list, n)
		return
	}
	t.known(n, c.Reverse, have && res.Known)
}

// file adds the number in a file times the weight. -254 and less is a fault;
// without a weight any number but 0 is, with reverse 0 itself.
func (t *tally) file(c model.Track) {
	res, known := t.r.s.files[c.Name]
	n := status.Tracker{Kind: "file", Name: c.Name, Up: true, Weight: c.Weight, Detail: fmt.Sprintf("holds %d", res.Value)}
	if res.Detail != "" {
		n.Detail += ", " + res.Detail
	}
	if !known {
		t.known(n, c.Reverse, false)
		return
	}
	d, fault := weighFile(res.Value, c.Weight, c.Reverse)
	t.sum += d
	if fault {
		n.Up = false
		t.faults = append(t.faults, blame(n))
	}
	t.list = append(t.list, n)
}

// blame says what an unweighted tracker holds against a router.
func blame(n status.Tracker) string {
	switch n.Kind {
	case "interface":
		return "tracked " + orElse(n.Detail, "interface "+n.Name+" is up")
	case "file":
		return "track_file " + n.Name + " " + n.Detail
	case "script":
		return "script " + n.Name + ": " + orElse(n.Detail, map[bool]string{true: "succeeds (reverse)", false: "fails"}[n.Up])
	}
	text := word(n.Kind) + " " + n.Name + " is " + map[bool]string{true: "up (reverse)", false: "down"}[n.Up]
	if n.Detail != "" {
		text += ", " + n.Detail
	}
	return text
}

// word is a kind of tracker in a sentence.
func word(kind string) string {
	switch kind {
	case "bfd":
		return "BFD session"
	case "file":
		return "track_file"
	}
	return kind
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

// weighFile is weigh for the number in a file. What one file adds is kept in
// -254 to 253, as keepalived does, and -254 is its way to say fault.
func weighFile(value, weight int, reverse bool) (delta int, fault bool) {
	if weight == 0 {
		return 0, (value != 0) != reverse
	}
	if reverse {
		weight = -weight
	}
	// Both factors are bounded first, so that no file can make it overflow.
	value = min(max(value, -1<<20), 1<<20)
	delta = min(max(value*weight, -254), 253)
	if delta == -254 {
		return 0, true
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
