package health

import (
	"fmt"
	"net/netip"
	"time"

	"ballast/configs/model"
)

// validate reports every fault that would keep a configuration from being
// checked as it is written. Of a large one that differs little from the one
// before only what differs is looked at; nil: everything.
func validate(list []*model.VirtualServer, differs func(name string) bool) []error {
	var errs []error
	seen := map[key]bool{}
	for _, vs := range list {
		if differs != nil && !differs(vs.Name) {
			continue
		}
		for j := range vs.Real {
			for k := range vs.Real[j].Checks {
				spec := &vs.Real[j].Checks[k]
				if id := keyOf(spec).in(vs, &vs.Real[j], spec); !seen[id] {
					seen[id] = true
					if _, err := newCheck(spec, vs, &vs.Real[j]); err != nil {
						errs = append(errs, fmt.Errorf("virtual server %s: %w", vs.Name, err))
					}
				}
			}
		}
	}
	return errs
}

// apply takes a configuration. Checks that stay keep their state and their
// timers; it returns those that are new and those that are gone. A check that
// cannot be built (prepare refuses it) counts as up.
//
// Virtual servers that are the very same value as before are not built again:
// of 10,000 mostly one has changed.
func (w *world) apply(g *model.Global, list []*model.VirtualServer, now time.Time) (added, removed []*check, errs []error) {
	b := builder{w: w, now: now, old: w.servers}
	w.global = *g
	w.round++
	w.servers = make([]*virtualServer, 0, len(list))
	var built []*virtualServer
	for i, conf := range list {
		was := b.find(conf, i)
		if was != nil && was.same(conf) {
			was.conf = conf
			b.keep(was)
			w.servers = append(w.servers, was)
			continue
		}
		vs := b.build(conf, was)
		w.servers, built = append(w.servers, vs), append(built, vs)
	}
	if len(w.servers) != len(b.old) || b.moved {
		w.places, w.shown = nil, nil
	}
	if b.used != len(w.checks) {
		for id, c := range w.checks {
			if c.round != w.round {
				delete(w.checks, id)
				removed = append(removed, c)
			}
		}
	}
	w.bfds, w.files, w.vias = b.bfds, b.files, b.vias
	first := !w.applied && w.before == nil
	w.applied = true
	if w.before != nil {
		w.seq = max(w.seq, w.before.Seq)
		w.before = nil
	}
	for _, c := range w.checks {
		if len(c.users) != c.shared { // which is shown
			c.stale()
		}
	}
	// Those that were built are looked at once: checks may have come or gone.
	w.many = &many{}
	for _, vs := range built {
		for _, r := range vs.real {
			if first && g.RSInitNotifies && r.alive && !r.known {
				r.known = true
				w.tell(r.object(), kindReal, stateInit, stateUp, "starts up, not yet probed (rs_init_notifies)", now)
			}
			w.judge(r, "", now)
		}
		w.judgeVirtual(vs, "", now)
	}
	w.many.end(w.summed)
	w.many = nil
	if len(built) > 0 || len(w.servers) != len(b.old) {
		w.news = true
	}
	return b.added, removed, b.errs
}

// builder is one apply.
type builder struct {
	w     *world
	now   time.Time
	old   []*virtualServer
	index map[string]*virtualServer // of old, once a place in the list does not help
	ident map[key]*check            // of the checks before, once one is new
	moved bool                      // one is at another place than before
	used  int                       // checks that somebody wants
	bfds  []*check                  // of them, those that other services tell
	files []*check
	vias  int // of them, those with through_vip
	added []*check
	errs  []error
}

// find is a virtual server before: mostly it stood at the same place.
func (b *builder) find(conf *model.VirtualServer, i int) *virtualServer {
	if i < len(b.old) && (b.old[i].conf == conf || b.old[i].conf.Name == conf.Name) {
		return b.old[i]
	}
	b.moved = true
	if len(b.old) == 0 {
		return nil
	}
	if b.index == nil {
		b.index = make(map[string]*virtualServer, len(b.old))
		for _, vs := range b.old {
			b.index[vs.conf.Name] = vs
		}
	}
	return b.index[conf.Name]
}

// same says whether conf is what it was: who follows the configuration gets the
// very same list of real servers when nothing in the virtual server differs.
func (vs *virtualServer) same(conf *model.VirtualServer) bool {
	if conf == vs.conf {
		return vs.whole
	}
	if len(conf.Real) == 0 || len(conf.Real) != len(vs.conf.Real) || &conf.Real[0] != &vs.conf.Real[0] {
		return false
	}
	if was := vs.conf; was.Quorum != conf.Quorum || was.Hysteresis != conf.Hysteresis || was.HASuspend != conf.HASuspend || len(was.Services) != len(conf.Services) {
		return false
	}
	return vs.whole
}

// use enters a real server with a check, in the order of the configuration.
func (b *builder) use(c *check, r *realServer, spec *model.Check) {
	if c.round != b.w.round {
		c.round, c.spec, c.shared, c.users = b.w.round, spec, len(c.users), c.users[:0]
		b.used++
		if c.via != nil {
			b.vias++
		}
		switch spec.Kind {
		case model.BFDCheck:
			b.bfds = append(b.bfds, c)
		case model.FileCheck:
			b.files = append(b.files, c)
		}
	}
	c.users = append(c.users, r)
}

func (b *builder) keep(vs *virtualServer) {
	for _, r := range vs.real {
		for k, c := range r.checks {
			b.use(c, r, &r.conf.Checks[k])
		}
	}
}

// build makes a virtual server anew, with what is known from before.
func (b *builder) build(conf *model.VirtualServer, was *virtualServer) *virtualServer {
	w := b.w
	var before map[realKey]*realServer
	if was != nil {
		before = make(map[realKey]*realServer, len(was.real))
		for _, r := range was.real {
			before[realKey{conf.Name, r.conf.Addr, r.conf.ConfPort}] = r
		}
	}
	vs := &virtualServer{conf: conf, stale: true, whole: true, real: make([]*realServer, 0, len(conf.Real))}
	total := 0
	all := make([]realServer, len(conf.Real))
	for j := range conf.Real {
		rs := &conf.Real[j]
		r := &all[j]
		*r = realServer{vs: vs, conf: rs, since: b.now}
		var was *realServer
		if len(before)+len(w.orders) > 0 {
			at := realKey{conf.Name, rs.Addr, rs.ConfPort}
			r.order, was = w.orders[at], before[at]
		}
		for k := range rs.Checks {
			spec := &rs.Checks[k]
			c, err := b.check(spec, conf, rs)
			if err != nil {
				b.errs = append(b.errs, fmt.Errorf("virtual server %s: %w", conf.Name, err))
				vs.whole = false
				continue
			}
			b.use(c, r, spec)
			r.checks = append(r.checks, c)
			// A server that lives already is not taken out because it got one
			// more alpha check.
			r.hold = append(r.hold, spec.Alpha && (was == nil || !was.alive))
		}
		if was != nil {
			r.alive, r.known, r.since = was.alive, was.known, was.since
		} else {
			r.alive, _ = r.verdict()
			r.known = w.before != nil // told in the run before
		}
		total += rs.Weight
		vs.real = append(vs.real, r)
	}
	vs.q = newQuorum(conf.Quorum, conf.Hysteresis, total)
	if was != nil {
		vs.q.up, vs.known = was.q.up, was.known
		vs.suspended = was.suspended
	} else if w.before != nil {
		vs.q.up, vs.known = w.before.quorums[conf.Name]
	}
	return vs
}

// check finds the check that a definition had before, or makes a new one with
// what is known about the same question.
func (b *builder) check(spec *model.Check, vs *model.VirtualServer, rs *model.RealServer) (*check, error) {
	w := b.w
	id := keyOf(spec).in(vs, rs, spec)
	if c := w.checks[id]; c != nil {
		return c, nil
	}
	c, err := newCheck(spec, vs, rs)
	if err != nil {
		return nil, err
	}
	if b.ident == nil {
		b.ident = make(map[key]*check, len(w.checks))
		for _, o := range w.checks {
			b.ident[o.ident] = o
		}
	}
	if o := b.ident[c.ident]; o != nil {
		c.m.inherit(o.m)
		c.weight, c.adds, c.added = o.weight, o.adds, o.added
		c.last, c.took, c.detail, c.fault = o.last, o.took, o.detail, o.fault
	}
	w.before.recall(c)
	w.checks[id] = c
	b.added = append(b.added, c)
	return c, nil
}

// realKey finds a real server again after a reload.
type realKey struct {
	vs   string
	addr netip.Addr
	port uint16
}
