package health

import (
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"ballast/configs/model"
	"ballast/configs/printable"
	"ballast/services/ipc/status"
)

// Transition kinds and states that health publishes.
const (
	kindVirtual = "virtual server"
	kindReal    = "real server"

	stateInit = "INIT" // before the first verdict of an object
	stateUp   = "UP"
	stateDown = "DOWN"
)

// Times of a box that has just booted: how long its own network may take, and
// how often a check asks until it is there.
const (
	bootPatience = time.Minute
	bootRetry    = time.Second
)

// world is every virtual server, its real servers, and the checks that decide
// about them. It is pure: time is an argument, probes are done by the edge.
type world struct {
	servers []*virtualServer
	checks  map[key]*check // each run once however many use it
	round   uint64         // of apply
	bfds    []*check       // checks that other services tell
	files   []*check
	vias    int // checks with through_vip
	ring    []status.Transition
	seq     uint64
	probes  uint64
	told    func(status.Transition) // called for each transition, nil: nobody
	failed  func(text string)       // called for failures that change nothing (log_all_failures), nil: nobody
	before  *remembered             // what the run before knew, until the first apply
	booting time.Time               // until then the network may still be on its way
	global  model.Global
	orders  map[realKey]*status.Order // what operators told about real servers
	ordered []status.Order            // the same, as they came
	places  map[string]int            // of virtual servers in the list, by name; nil: not made yet
	applied bool                      // a configuration was taken
	news    bool                      // something to remember over a crash is new
	many    *many                     // set while transitions may come by the thousand
	summed  func(text string)         // called for those of them that told was not called for, nil: nobody

	shown []status.VirtualServerHealth // as published last, parallel to servers; nil: nothing to go by
}

// mostTold is how many transitions of one apply are told one by one.
const mostTold = 20

// many counts those beyond: the first configuration of a large box brings as
// many as it has virtual servers.
type many struct {
	told  int
	kinds []manyOf
}

type manyOf struct {
	kind, from, to string
	n              int
}

// more reports whether one more transition is too many to be told.
func (m *many) more(kind, from, to string) bool {
	if m == nil {
		return false
	}
	if m.told++; m.told <= mostTold {
		return false
	}
	for i := range m.kinds {
		if k := &m.kinds[i]; k.kind == kind && k.from == from && k.to == to {
			k.n++
			return true
		}
	}
	m.kinds = append(m.kinds, manyOf{kind, from, to, 1})
	return true
}

func (m *many) end(told func(string)) {
	if told == nil {
		return
	}
	for _, k := range m.kinds {
		told(fmt.Sprintf("and %d more of kind %s: %s -> %s", k.n, k.kind, k.from, k.to))
	}
}

type virtualServer struct {
	conf  *model.VirtualServer
	q     quorum
	known bool // the first evaluation is done
	real  []*realServer

	suspended bool // ha_suspend, and no address of it is on this box
	stale     bool // it is not as world.shown has it
	whole     bool // all its checks could be built
}

type realServer struct {
	vs     *virtualServer
	conf   *model.RealServer
	checks []*check
	hold   []bool // by check: down until it has a verdict (alpha)
	alive  bool
	known  bool          // a transition, or a first verdict, was told
	order  *status.Order // of an operator, nil: none
	since  time.Time
}

func newWorld() *world { return &world{checks: map[key]*check{}} }

// name as keepalived prints it, and the name of its place in a pool.
func (r *realServer) name() string {
	proto := model.TCP
	if len(r.vs.conf.Services) > 0 {
		proto = r.vs.conf.Services[0].Protocol
	}
	return realName(r.conf.Addr, proto, r.conf.ConfPort)
}

func realName(a netip.Addr, p model.Protocol, port uint16) string {
	return model.ServiceID{Addr: a, Port: port, Protocol: p}.String()
}

func (r *realServer) object() string { return r.name() + " of " + r.vs.conf.Name }

// verdict says whether every check lets the real server live, and the reason
// of the first one that does not.
func (r *realServer) verdict() (alive bool, reason string) {
	for i, c := range r.checks {
		if !c.m.up {
			return false, c.why()
		}
		if r.hold[i] && !c.m.known {
			return false, string(c.spec.Kind) + ": waiting for the first success (alpha)"
		}
	}
	return true, ""
}

// result takes the outcome of a probe and returns when to do the next one.
// The change it made, if any, is in the ring of transitions.
func (w *world) result(c *check, o outcome, now time.Time) (changed bool, next time.Duration) {
	w.probes++
	c.stale()
	c.last, c.took, c.detail = now, o.took, o.reason
	if o.local {
		return false, max(c.spec.DelayLoop, minDelay)
	}
	if o.away && !c.m.known && now.Before(w.booting) {
		// Our cable or address comes later than this process: that must not cost
		// every real server a whole delay_loop.
		c.detail += ", and this box has just started: asking again soon"
		return false, min(max(c.spec.DelayLoop, minDelay), bootRetry)
	}
	switch {
	case c.spec.Kind == model.FileCheck:
		changed = c.added && c.adds != o.adds || !c.added && o.adds != 0
		c.adds, c.added = o.adds, true
	case c.spec.Dynamic && o.ok:
		changed = c.weight != o.weight
		c.weight = o.weight
	}
	if !o.ok {
		c.fault = &fault{now, o.reason, printable.Line(string(o.answer[:min(len(o.answer), evidenceSize)]))}
	}
	left := c.m.left()
	news, next := c.m.step(o.ok)
	if !o.ok && !news && len(c.users) > 0 && (c.spec.LogAllFailures || w.global.CheckerLogAllFailures) && w.failed != nil {
		text := c.users[0].object() + ": failed: " + c.why()
		if c.m.up {
			text += fmt.Sprintf(" (try %d of %d follows)", c.m.retry-left+1, c.m.retry)
		}
		w.failed(text)
	}
	if !news && !changed {
		return false, next
	}
	for _, r := range c.users {
		w.judge(r, c.why(), now)
		w.judgeVirtual(r.vs, r.name()+": "+c.why(), now)
	}
	return true, next
}

// judge compares what a real server is with what its checks say.
func (w *world) judge(r *realServer, reason string, now time.Time) {
	alive, why := r.verdict()
	first := false
	if !r.known {
		// The first verdict on an alpha server is told even when it is the
		// "down" that it began with.
		for i, c := range r.checks {
			if r.hold[i] && c.m.known && (alive || !c.m.up) {
				first = true
			}
		}
	}
	if alive == r.alive && !first {
		return
	}
	from := stateName(r.alive)
	if first {
		from = stateInit
	}
	r.alive, r.known, r.since = alive, true, now
	r.vs.stale, w.news = true, true
	if !alive {
		reason = why
	}
	if reason == "" {
		reason = "no check says otherwise any more"
	}
	w.tell(r.object(), kindReal, from, stateName(alive), reason, now)
}

func (w *world) judgeVirtual(vs *virtualServer, reason string, now time.Time) {
	weight := vs.weight()
	changed := vs.q.update(weight)
	if !changed && vs.known {
		return
	}
	from := stateName(!vs.q.up)
	if !vs.known {
		from = stateInit
	}
	vs.known, vs.stale, w.news = true, true, true
	var buf [64]byte // not Sprintf: there may be ten thousand of them at once
	text := strconv.AppendInt(append(buf[:0], "live weight "...), int64(weight), 10)
	text = strconv.AppendInt(append(text, ", quorum "...), int64(vs.q.need), 10)
	if vs.q.hysteresis > 0 {
		text = strconv.AppendInt(append(text, ", hysteresis "...), int64(vs.q.hysteresis), 10)
	}
	if reason != "" {
		text = append(append(append(text, " ("...), reason...), ')')
	}
	w.tell(vs.conf.Name, kindVirtual, from, stateName(vs.q.up), string(text), now)
}

func (vs *virtualServer) weight() int {
	n := 0
	for _, r := range vs.real {
		n += r.liveWeight()
	}
	return n
}

func stateName(up bool) string {
	if up {
		return stateUp
	}
	return stateDown
}

func (w *world) tell(object, kind, from, to, reason string, now time.Time) {
	w.seq++
	t := status.Transition{Seq: w.seq, Time: now, Object: object, Kind: kind, From: from, To: to, Reason: reason}
	w.ring = append(w.ring, t)
	if w.told != nil && !w.many.more(kind, from, to) {
		w.told(t)
	}
	if len(w.ring) >= 2*status.RingSize {
		// A fresh array: what was published must not change under its reader.
		w.ring = append(make([]status.Transition, 0, 2*status.RingSize), w.ring[len(w.ring)-status.RingSize:]...)
	}
}

// state is the whole state, in the order of the configuration.
func (w *world) state(applied status.Applied) status.Health {
	h := status.Health{
		Applied: applied,
		Probes:  w.probes,
		// Only ever appended to behind this length.
		Transitions: w.ring[max(0, len(w.ring)-status.RingSize):len(w.ring):len(w.ring)],
	}
	if w.shown == nil {
		w.shown = w.show(w.servers)
		h.Servers = w.shown
		return h
	}
	// Of a large table mostly one has changed; the list before belongs to its readers.
	var stale []*virtualServer
	for _, vs := range w.servers {
		if vs.stale {
			stale = append(stale, vs)
		}
	}
	if len(stale) > 0 {
		next := make([]status.VirtualServerHealth, len(w.servers))
		fresh := w.show(stale)
		copy(next, w.shown)
		k := 0
		for i, vs := range w.servers {
			if k < len(stale) && vs == stale[k] {
				next[i] = fresh[k]
				k++
			}
		}
		w.shown = next
	}
	h.Servers = w.shown
	return h
}

// show is what is published of virtual servers.
func (w *world) show(list []*virtualServer) []status.VirtualServerHealth {
	out := make([]status.VirtualServerHealth, 0, len(list))
	// One piece of memory for all.
	reals, checks := 0, 0
	for _, vs := range list {
		reals += len(vs.real)
		for _, r := range vs.real {
			checks += len(r.checks)
		}
	}
	allReals, allChecks := make([]status.RealServerHealth, 0, reals), make([]status.CheckHealth, 0, checks)
	for _, vs := range list {
		vs.stale = false
		v := status.VirtualServerHealth{Name: vs.conf.Name, QuorumUp: vs.q.up, Weight: vs.weight(), Quorum: vs.q.need}
		start := len(allReals)
		for _, r := range vs.real {
			rs := status.RealServerHealth{
				Addr: r.conf.Addr, Port: r.conf.ConfPort, Alive: r.alive, Disabled: r.disabled(), Weight: r.dynamic(), Since: r.since,
			}
			from := len(allChecks)
			for i, c := range r.checks {
				allChecks = append(allChecks, c.health(r.hold[i]))
			}
			if n := len(allChecks); n > from {
				rs.Checks = allChecks[from:n:n]
			}
			allReals = append(allReals, rs)
		}
		v.Real = allReals[start:len(allReals):len(allReals)]
		out = append(out, v)
	}
	return out
}
