package ipvs

import (
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc/status"
	"ballast/services/ipvs/ipvsnl"
)

// Times of the reconciler.
const (
	// DrainBound ends a drain whose connections do not end.
	DrainBound = 10 * time.Minute
	// HealthWait bounds how long a fresh process leaves existing services
	// alone while it waits for the word of health.
	HealthWait = 5 * time.Second

	// HoldBound is how long a mere assumption of health, after it started
	// anew, is held back where it contradicts what was known. It is longer than
	// the default delay_loop, within which every check has run once.
	HoldBound = 2 * time.Minute
)

const (
	// maxLooks is up to how many services are read one by one before they are
	// changed; more of them make a dump of everything.
	maxLooks = 500
	// maxPrinted is how many operations of a pass are logged and kept as text.
	maxPrinted = 20
	maxLastOps = 200
)

// reconciler leads the kernel to what configuration, health, roles and orders
// want. It holds no timer: its caller says when, and what time it is.
//
// It keeps what it last read of the kernel and what it did to it since (have),
// and what should be (want). An event changes want, a service at a time, and
// acts on those services alone. What the kernel really holds is read at the
// start, after a fault, before a drained destination is deleted, and by the
// sweep.
type reconciler struct {
	kernel Kernel
	log    *slog.Logger
	tick   func() // tells init that work goes on
	now    func() time.Time

	started time.Time
	plan    *Plan  // nil: no configuration yet
	config  uint64 // generation of plan
	health  *Health
	beliefs *Beliefs
	orders  *Orders
	// ordersErr is why they are not kept over a restart.
	ordersErr error
	enabled   netip.AddrPort // real server whose order was just taken back
	roles     Roles
	// rolesConfig is the generation of the configuration that the roles are of.
	rolesConfig uint64
	held        time.Time // since when a verdict is held back; zero: none is
	parting     time.Time // since when the master daemon has no role any more; zero: it has
	adopted     bool      // the first dump was taken in
	settled     bool      // existing services may be changed

	have    *State // nil: never read
	want    *Table // nil until adopted
	lost    bool   // have is not to be trusted
	applied uint64 // generation that want was brought to the kernel for
	kernErr error
	base    ipvsnl.Timeouts // as found at start
	drains  map[drainKey]time.Time
	failed  map[string]*failure

	// What the next event has to see to: services whose want changed, services
	// that have to be read because the kernel may hold something else, and the
	// same of daemons and timeouts. all is every service.
	dirty, doubt         map[model.ServiceID]bool
	dirtyRest, doubtRest bool
	all                  bool

	passes, ops, repairs uint64
	lastPass, lastRepair time.Time
	lastOps, repaired    []string
	waitTold             bool
	ring                 []status.Transition
	seq                  uint64
}

type drainKey struct {
	id   model.ServiceID
	dest netip.AddrPort
}

func newReconciler(k Kernel, log *slog.Logger, now func() time.Time) *reconciler {
	return &reconciler{
		kernel: k, log: log, tick: func() {}, now: now, started: now(), orders: &Orders{}, all: true,
		drains: map[drainKey]time.Time{}, failed: map[string]*failure{},
		dirty: map[model.ServiceID]bool{}, doubt: map[model.ServiceID]bool{},
	}
}

// configure takes in a configuration.
func (r *reconciler) configure(gen uint64, c *model.Config) {
	r.follow(gen, compile(nil, c, listed(c)))
}

// follow takes in the plan of a configuration.
func (r *reconciler) follow(gen uint64, p *Plan) {
	was, known := r.plan, r.beliefs
	if was == nil {
		r.beliefs = NoBeliefs(p)
	} else {
		r.beliefs = known.Carry(was, p)
	}
	r.plan, r.config = p, gen
	clear(r.failed) // what was refused may be right now
	r.place()
	r.restate(was, known, nil)
	r.listen(differs(was, p))
}

// differs is the places of those virtual servers that are not the very same in
// was; nil: there was nothing.
func differs(was, p *Plan) []int {
	if was == nil {
		return nil
	}
	out := []int{}
	for i, v := range p.Virtual {
		if i < len(was.Virtual) && was.Virtual[i] == v {
			continue
		}
		if j := was.place(i, v.Name); j < 0 || was.Virtual[j] != v {
			out = append(out, i)
		}
	}
	return out
}

// hear takes in the word of health and reports whether it changes anything.
func (r *reconciler) hear(h *Health) bool { return r.hearOf(h, nil) }

// hearOf is hear where only what is said of the virtual servers names is new;
// nil: of all.
func (r *reconciler) hearOf(h *Health, names map[string]bool) bool {
	r.health = h
	if r.plan == nil || !r.adopted {
		return false
	}
	var only []int
	if names != nil {
		only = make([]int, 0, len(names))
		for n := range names {
			if i, ok := r.plan.names[n]; ok {
				only = append(only, i)
			}
		}
	}
	before := r.beliefs
	r.listen(only)
	return !r.settled || !slices.EqualFunc(before.virtual, r.beliefs.virtual, (*virtualBelief).equal)
}

// listen forms the beliefs from the last word of health; only is the places of
// the virtual servers for which that can make a difference, nil: all.
func (r *reconciler) listen(only []int) {
	if r.health == nil || r.plan == nil || !r.adopted {
		return
	}
	if !r.held.IsZero() {
		only = nil // what is held back may be of any
	}
	if only != nil && len(only) == 0 {
		return
	}
	now := r.now()
	before := r.beliefs
	b, held := before.Hear(r.plan, r.health, only, !r.held.IsZero() && now.Sub(r.held) >= HoldBound)
	r.beliefs = b
	switch {
	case !held:
		r.held = time.Time{}
	case r.held.IsZero():
		r.held = now
	}
	r.restate(r.plan, before, only)
}

// restate brings want up to the plan and the beliefs of now; was and known are
// those that it was made of. Services for which that makes a difference become
// dirty. only is the places of the virtual servers that are looked at, where
// the plan is the same; nil: all.
func (r *reconciler) restate(was *Plan, known *Beliefs, only []int) {
	if r.want == nil {
		return
	}
	gone := map[model.ServiceID]bool{}
	var fresh []*Entry
	look := func(i int) {
		v, j := r.plan.Virtual[i], i
		if i >= len(was.Virtual) || was.Virtual[i] != v {
			j = was.place(i, v.Name)
		}
		if j >= 0 && was.Virtual[j] == v && (known.virtual[j] == r.beliefs.virtual[i] || known.virtual[j].equal(r.beliefs.virtual[i])) {
			return
		}
		fresh = v.entries(fresh, r.beliefs.virtual[i])
	}
	if only == nil {
		for i := range r.plan.Virtual {
			look(i)
		}
	}
	for _, i := range only {
		look(i)
	}
	for _, e := range fresh {
		gone[e.ID] = true
		if i, ok := findEntry(r.want.Services, e.ID); !ok || !r.want.Services[i].equal(e) {
			r.dirty[e.ID] = true
		}
	}
	for i, v := range was.Virtual {
		if was == r.plan {
			break
		}
		if i < len(r.plan.Virtual) && r.plan.Virtual[i] == v {
			continue
		}
		if j := r.plan.place(i, v.Name); j >= 0 && r.plan.Virtual[j] == v {
			continue
		}
		for k := range v.Services {
			if id := v.Services[k].ID; !gone[id] && r.plan.owners[id] == "" {
				gone[id], r.dirty[id] = true, true
			}
		}
	}
	if len(gone) > 0 {
		r.want = r.want.replaced(gone, fresh)
	}
}

// place finds a virtual server, which is expected at i; -1: there is none.
func (p *Plan) place(i int, name string) int {
	if i < len(p.Virtual) && p.Virtual[i].Name == name {
		return i
	}
	if j, ok := p.names[name]; ok {
		return j
	}
	return -1
}

// settle ends the time in which existing services are left alone.
func (r *reconciler) settle(now time.Time) {
	if r.settled {
		return
	}
	spoke := r.health != nil && r.health.Config != 0 && r.health.Config >= r.config
	if spoke || len(r.have.Services) == 0 || now.Sub(r.started) >= HealthWait {
		r.settled = true
		if !spoke && len(r.have.Services) > 0 {
			r.log.Warn(fmt.Sprintf("health has not spoken for %s: real servers stay as the kernel has them", HealthWait))
		}
	}
}

// retable brings the part of want that is no service up to now.
func (r *reconciler) retable(now time.Time) {
	roles := r.role()
	if !roles.Known && now.Sub(r.started) >= HealthWait && len(r.have.Daemons) == 0 {
		roles.Known = true // vrrp does not speak and nothing runs: backup harms nobody
	}
	t := &Table{Timeouts: r.plan.Timeouts}
	t.daemons(r.plan.Daemon, roles)
	r.part(t, now)
	for _, x := range []struct{ to, from *uint32 }{
		{&t.Timeouts.TCP, &r.base.TCP}, {&t.Timeouts.TCPFin, &r.base.TCPFin}, {&t.Timeouts.UDP, &r.base.UDP},
	} {
		if *x.to == 0 {
			*x.to = *x.from // removed from the configuration: back to what was found
		}
	}
	w := r.want
	if w != nil && t.DaemonsKept == w.DaemonsKept && t.Timeouts == w.Timeouts && slices.Equal(t.Daemons, w.Daemons) {
		return
	}
	r.dirtyRest = true
	if w != nil {
		t.Services = w.Services
		r.want = t
		return
	}
	whole := Desired(r.plan, r.beliefs, roles)
	whole.Daemons, whole.DaemonsKept, whole.Timeouts = t.Daemons, t.DaemonsKept, t.Timeouts
	r.want = whole
}

// partTime is how long the master daemon outlives the role: the kernel keeps what
// it is about to tell for two seconds (IPVS_SYNC_FLUSH_TIME), and forgets that when
// the daemon is stopped. Until then the box that took over resets, or makes wait,
// connections that it does not know.
const partTime = 3 * time.Second

// part keeps the master daemon of a box that became backup for a while.
func (r *reconciler) part(t *Table, now time.Time) {
	master := func(d ipvsnl.Daemon) bool { return d.Role == ipvsnl.Master }
	if t.DaemonsKept {
		return
	}
	if r.want == nil || len(t.Daemons) == 0 || slices.ContainsFunc(t.Daemons, master) || !slices.ContainsFunc(r.want.Daemons, master) {
		r.parting = time.Time{}
		return
	}
	if r.parting.IsZero() {
		r.parting = now
	}
	if now.Sub(r.parting) < partTime {
		d := t.Daemons[0]
		d.Role = ipvsnl.Master
		t.Daemons = append([]ipvsnl.Daemon{d}, t.Daemons...)
	}
}

// event acts on what changed since the last time, and does nothing if nothing
// did.
func (r *reconciler) event() {
	if r.plan == nil || r.have == nil || !r.adopted || !r.settled || r.lost || r.all {
		r.pass()
		return
	}
	now := r.now()
	if !r.held.IsZero() && now.Sub(r.held) >= HoldBound {
		r.listen(nil)
	}
	r.retable(now)
	if len(r.dirty)+len(r.doubt) == 0 && !r.dirtyRest && !r.doubtRest {
		r.applied = r.config
		return
	}
	if len(r.have.Services) == 0 && len(r.doubt) == 0 && len(r.dirty) > maxLooks {
		// The first configuration of a large box: all of it is new, and there is
		// nothing that would have to be looked at.
		if r.readRest() {
			r.work(nil, true)
		}
		return
	}
	ids := slices.AppendSeq(make([]model.ServiceID, 0, len(r.dirty)+len(r.doubt)), maps.Keys(r.dirty))
	for id := range r.doubt {
		if !r.dirty[id] {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, ipvsnl.CompareID)
	r.act(ids)
}

// act leads the services ids to what is wanted, and daemons and timeouts if
// they changed.
func (r *reconciler) act(ids []model.ServiceID) {
	var look []model.ServiceID
	for _, id := range ids {
		if r.doubt[id] || r.leaving(id) {
			look = append(look, id)
		}
	}
	if len(look) > maxLooks && 2*len(look) > len(r.have.Services) {
		r.pass()
		return
	}
	if !r.read(look) {
		return
	}
	rest := r.dirtyRest || r.doubtRest
	if rest && !r.readRest() {
		return
	}
	r.work(ids, rest)
}

// leaving reports whether a service has a destination, or is one, that will be
// deleted when its connections are gone: they have to be counted then.
func (r *reconciler) leaving(id model.ServiceID) bool {
	h := r.have.find(id)
	if h == nil {
		return false
	}
	i, wanted := findEntry(r.want.Services, id)
	if !wanted && len(h.Dests) == 0 {
		return true
	}
	for j := range h.Dests {
		d := &h.Dests[j]
		if d.Weight != 0 {
			continue
		}
		if !wanted {
			return true
		}
		if _, in := findDest(r.want.Services[i].Dests, key(d.Dest)); !in {
			return true
		}
	}
	return false
}

// read brings have up to date for some services.
func (r *reconciler) read(ids []model.ServiceID) bool {
	if len(ids) == 0 {
		return true
	}
	part, err := r.kernel.Dump(ids, r.tick)
	if err != nil {
		r.fault(err)
		return false
	}
	r.have = r.have.merge(ids, part)
	return true
}

// readRest brings have up to date for daemons and timeouts.
func (r *reconciler) readRest() bool {
	d, t, err := r.kernel.Rest()
	if err != nil {
		r.fault(err)
		return false
	}
	have := *r.have
	have.Daemons, have.Timeouts = d, t
	r.have = &have
	return true
}

// fault remembers that the kernel does not answer.
func (r *reconciler) fault(err error) {
	if r.kernErr == nil || r.kernErr.Error() != err.Error() {
		r.log.Error(err.Error())
	}
	r.kernErr, r.lost = err, true
}

// pass reads everything and leads it to what is wanted. It reports whether the
// kernel could be read.
func (r *reconciler) pass() bool {
	dump, err := r.kernel.Dump(nil, r.tick)
	now := r.now()
	if err != nil {
		r.fault(err)
		return false
	}
	r.kernErr, r.lost = nil, false
	r.lastPass = now
	if r.have == nil {
		r.base = dump.Timeouts
	}
	r.have = dump
	if r.plan == nil {
		return true
	}
	r.passes++
	if !r.adopted {
		r.adopted = true
		r.beliefs = r.beliefs.Adopt(r.plan, r.have)
		r.listen(nil)
	} else if !r.held.IsZero() && now.Sub(r.held) >= HoldBound {
		r.listen(nil)
	}
	r.settle(now)
	r.retable(now)
	r.work(nil, true)
	return true
}

// work brings what is wanted to the kernel for the services ids, or for
// everything if ids is nil; rest is daemons and timeouts. have is up to date as
// far as that matters.
func (r *reconciler) work(ids []model.ServiceID, rest bool) {
	now := r.now()
	have, want := r.have, r.want
	if ids != nil {
		have, want = have.part(ids), want.part(ids)
		if !rest {
			want.Daemons, want.DaemonsKept, want.Timeouts = nil, true, have.Timeouts
		}
	}
	ops := r.plannedOps(have, want, ids, now)
	repairs := r.findRepairs(ops)
	// What fails from here on is in doubt again.
	if ids == nil {
		r.all = !r.settled
		r.dirty, r.doubt = map[model.ServiceID]bool{}, map[model.ServiceID]bool{}
	} else {
		for _, id := range ids {
			delete(r.dirty, id)
			delete(r.doubt, id)
		}
		if len(ids) > maxLooks { // a map keeps the room of all that it ever held, and is slow to go over
			r.dirty, r.doubt = trimmed(r.dirty), trimmed(r.doubt)
		}
	}
	if rest {
		r.dirtyRest, r.doubtRest = false, false
	}
	if len(ops) > 0 {
		r.apply(ops, repairs)
	}
	r.applied = r.config
}

// trimmed is a copy of a set with no more room than it needs.
func trimmed(m map[model.ServiceID]bool) map[model.ServiceID]bool {
	out := make(map[model.ServiceID]bool, len(m))
	maps.Copy(out, m)
	return out
}

// part is the table of the services ids, which are sorted.
func (t *Table) part(ids []model.ServiceID) *Table {
	out := *t
	out.whole, out.Services = t.Services, nil
	for _, id := range ids {
		if i, ok := findEntry(t.Services, id); ok {
			out.Services = append(out.Services, t.Services[i])
		}
	}
	return &out
}

// part is the state of the services ids, which are sorted.
func (s *State) part(ids []model.ServiceID) *State {
	out := *s
	out.Services = nil
	for _, id := range ids {
		if h := s.find(id); h != nil {
			out.Services = append(out.Services, h)
		}
	}
	return &out
}

// plannedOps is Diff without what has to wait: existing services before health
// has spoken, and what the kernel refused a moment ago.
func (r *reconciler) plannedOps(have *State, want *Table, ids []model.ServiceID, now time.Time) []Op {
	touched := map[drainKey]bool{}
	ops := Diff(have, want, func(id model.ServiceID, k netip.AddrPort) bool {
		d := drainKey{id, k}
		touched[d] = true
		since, ok := r.drains[d]
		if !ok {
			r.drains[d] = now
			return false
		}
		return now.Sub(since) >= DrainBound
	})
	looked := func(id model.ServiceID) bool {
		if ids == nil {
			return true
		}
		_, ok := slices.BinarySearchFunc(ids, id, ipvsnl.CompareID)
		return ok
	}
	maps.DeleteFunc(r.drains, func(k drainKey, _ time.Time) bool { return !touched[k] && looked(k.id) })
	if len(r.failed) > 0 { // what is not wanted any more is no failure
		due := map[string]bool{}
		for i := range ops {
			due[ops[i].object()] = true
		}
		maps.DeleteFunc(r.failed, func(k string, f *failure) bool {
			return !due[k] && (f.rest && !want.DaemonsKept || !f.rest && looked(f.id))
		})
	}
	return slices.DeleteFunc(ops, func(o Op) bool {
		isService := o.Verb <= ipvsnl.DelDest
		if !r.settled && isService && have.find(o.Service.ID) != nil {
			return true
		}
		if len(r.failed) == 0 {
			return false
		}
		if f := r.failed[o.object()]; f != nil && now.Before(f.next) {
			return true
		}
		if isService && o.Verb != ipvsnl.AddService && have.find(o.Service.ID) == nil {
			// A destination waits for its service.
			f := r.failed[o.Service.ID.String()]
			return f != nil && now.Before(f.next)
		}
		return false
	})
}

// findRepairs marks the operations for which nothing that is wanted has
// changed: somebody else has been at it.
func (r *reconciler) findRepairs(ops []Op) []bool {
	if len(ops) == 0 || r.all {
		return nil
	}
	var out []bool
	for i := range ops {
		o := &ops[i]
		if o.Verb > ipvsnl.DelDest {
			if r.dirtyRest || r.failed[o.object()] != nil {
				continue
			}
		} else if r.dirty[o.Service.ID] || o.Drain && o.Verb != ipvsnl.EditDest || len(r.failed) > 0 &&
			(r.failed[o.object()] != nil || r.failed[o.Service.ID.String()] != nil) {
			continue // wanted, the end of a drain or the fallback lent for one, or tried again
		}
		if out == nil {
			out = make([]bool, len(ops))
		}
		out[i] = true
	}
	return out
}
