package ipvs

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

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

	backoffMin = time.Second
	backoffMax = time.Minute
	// backoffDaemon is for sync daemons: their interface may come late, and no
	// event tells of it here.
	backoffDaemon = 4 * time.Second
)

const (
	// maxPartial is up to how many changed services are read one by one; more
	// of them make a dump of everything.
	maxPartial = 64
	// maxPrinted is how many operations of a pass are logged and kept as text.
	maxPrinted = 20
	maxLastOps = 200
)

// reconciler leads the kernel to what configuration, health and roles want.
// It holds no timer: its caller says when, and what time it is.
type reconciler struct {
	kernel Kernel
	log    *slog.Logger
	tick   func() // tells init that work goes on
	now    func() time.Time

	started time.Time
	plan    *Plan // nil: no configuration yet
	owners  map[model.ServiceID]*Virtual
	planErr error
	config  uint64 // generation of plan
	health  *Health
	beliefs *Beliefs
	roles   Roles
	// rolesConfig is the generation of the configuration that the roles are of.
	rolesConfig uint64
	held        time.Time // since when a verdict is held back; zero: none is
	adopted     bool      // the first dump was taken in
	settled     bool      // existing services may be changed

	have    *State
	want    *Table // of the last pass
	applied uint64 // generation that the last pass was for
	kernErr error
	base    ipvsnl.Timeouts // as found at start
	drains  map[drainKey]time.Time
	failed  map[string]*failure

	passes, ops, repairs uint64
	lastPass             time.Time
	lastOps              []string
	ring                 []status.Transition
	seq                  uint64
}

type drainKey struct {
	id   model.ServiceID
	dest netip.AddrPort
}

// failure is an object that the kernel refused, tried again after a while.
type failure struct {
	op    string
	err   error
	next  time.Time
	delay time.Duration
}

func newReconciler(k Kernel, log *slog.Logger, now func() time.Time) *reconciler {
	return &reconciler{
		kernel: k, log: log, tick: func() {}, now: now, started: now(),
		drains: map[drainKey]time.Time{}, failed: map[string]*failure{},
	}
}

// configure takes in a configuration.
func (r *reconciler) configure(gen uint64, c *model.Config) {
	p, err := Compile(c)
	if r.plan == nil {
		r.beliefs = NoBeliefs(p)
	} else {
		r.beliefs = r.beliefs.Carry(r.plan, p)
	}
	r.plan, r.owners, r.planErr, r.config = p, p.owners(), err, gen
	clear(r.failed) // what was refused may be right now
	r.listen()
}

// hear takes in a state of health and reports whether it changes anything.
func (r *reconciler) hear(h *Health) bool {
	r.health = h
	if r.plan == nil || !r.adopted {
		return false
	}
	before := r.beliefs
	r.listen()
	return !r.settled || !slices.EqualFunc(before.virtual, r.beliefs.virtual, func(x, y virtualBelief) bool {
		return x.quorum == y.quorum && slices.Equal(x.real, y.real)
	})
}

// listen forms the beliefs from the last word of health.
func (r *reconciler) listen() {
	if r.health == nil || r.plan == nil || !r.adopted {
		return
	}
	now := r.now()
	b, held := r.beliefs.Hear(r.plan, r.health, !r.held.IsZero() && now.Sub(r.held) >= HoldBound)
	r.beliefs = b
	switch {
	case !held:
		r.held = time.Time{}
	case r.held.IsZero():
		r.held = now
	}
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

// desired is the table for now.
func (r *reconciler) desired(now time.Time) *Table {
	roles := r.role()
	if !roles.Known && now.Sub(r.started) >= HealthWait && len(r.have.Daemons) == 0 {
		roles.Known = true // vrrp does not speak and nothing runs: backup harms nobody
	}
	t := Desired(r.plan, r.beliefs, roles)
	for _, x := range []struct{ to, from *uint32 }{
		{&t.Timeouts.TCP, &r.base.TCP}, {&t.Timeouts.TCPFin, &r.base.TCPFin}, {&t.Timeouts.UDP, &r.base.UDP},
	} {
		if *x.to == 0 {
			*x.to = *x.from // removed from the configuration: back to what was found
		}
	}
	return t
}

// event runs a pass over what changed since the last one, and nothing if
// nothing did.
func (r *reconciler) event() {
	if r.plan == nil || r.have == nil || !r.adopted || r.want == nil || r.applied != r.config || !r.settled {
		r.pass(nil)
		return
	}
	want := r.desired(r.now())
	changed, rest := changedServices(r.want, want)
	if rest || len(changed) > maxPartial {
		r.pass(nil)
	} else if len(changed) > 0 {
		r.pass(changed)
	}
}

// changedServices lists the services that differ between two tables of one
// configuration; rest tells that something else does.
func changedServices(a, b *Table) (ids []model.ServiceID, rest bool) {
	if len(a.Services) != len(b.Services) || !slices.Equal(a.Daemons, b.Daemons) || a.DaemonsKept != b.DaemonsKept || a.Timeouts != b.Timeouts {
		return nil, true
	}
	for i := range a.Services {
		x, y := &a.Services[i], &b.Services[i]
		if x.Service != y.Service || !slices.Equal(x.Dests, y.Dests) || !slices.Equal(x.Out, y.Out) {
			ids = append(ids, y.ID)
		}
	}
	return ids, false
}

// pass leads the services ids, or everything if ids is nil, to what is wanted.
// It reports whether the kernel could be read.
func (r *reconciler) pass(ids []model.ServiceID) bool {
	dump, err := r.kernel.Dump(ids, r.tick)
	now := r.now()
	if err != nil {
		if r.kernErr == nil || r.kernErr.Error() != err.Error() {
			r.log.Error(err.Error())
		}
		r.kernErr = err
		return false
	}
	r.kernErr = nil
	r.lastPass = now
	if ids == nil {
		if r.have == nil {
			r.base = dump.Timeouts
		}
		r.have = dump
	} else {
		r.have = r.have.merge(ids, dump)
	}
	if r.plan == nil {
		return true
	}
	r.passes++
	if !r.adopted {
		r.adopted = true
		r.beliefs = r.beliefs.Adopt(r.plan, r.have)
		r.listen()
	} else if !r.held.IsZero() && now.Sub(r.held) >= HoldBound {
		r.listen()
	}
	r.settle(now)
	want := r.desired(now)
	ops := r.plannedOps(dump, scope(want, ids, dump), ids == nil, now)
	repairs := r.findRepairs(dump, ids, ops)
	if len(ops) > 0 {
		r.apply(ops, repairs)
	}
	r.want, r.applied = want, r.config
	return true
}

// scope cuts a table down to the services ids; what it says about the rest is
// what the dump says.
func scope(t *Table, ids []model.ServiceID, dump *State) *Table {
	if ids == nil {
		return t
	}
	out := &Table{DaemonsKept: true, Timeouts: dump.Timeouts}
	for _, id := range ids {
		if i, ok := findEntry(t.Services, id); ok {
			out.Services = append(out.Services, t.Services[i])
		}
	}
	sortEntries(out.Services)
	return out
}

// plannedOps is Diff without what has to wait: existing services before health
// has spoken, and what the kernel refused a moment ago.
func (r *reconciler) plannedOps(have *State, want *Table, full bool, now time.Time) []Op {
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
	if full {
		maps.DeleteFunc(r.drains, func(k drainKey, _ time.Time) bool { return !touched[k] })
		if len(r.failed) > 0 { // what is not wanted any more is no failure
			due := map[string]bool{}
			for i := range ops {
				due[ops[i].object()] = true
			}
			maps.DeleteFunc(r.failed, func(k string, _ *failure) bool { return !due[k] })
		}
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
		if isService && o.Verb >= ipvsnl.AddDest && have.find(o.Service.ID) == nil {
			// A destination waits for its service.
			f := r.failed[o.Service.ID.String()]
			return f != nil && now.Before(f.next)
		}
		return false
	})
}

// findRepairs marks the operations that the last pass would have done too, had
// the kernel looked then as it does now: somebody else has been at it.
func (r *reconciler) findRepairs(have *State, ids []model.ServiceID, ops []Op) map[string]bool {
	if len(ops) == 0 || r.want == nil {
		return nil
	}
	before := map[string]bool{}
	for _, o := range Diff(have, scope(r.want, ids, have), func(model.ServiceID, netip.AddrPort) bool { return false }) {
		before[o.String()] = true
	}
	out := map[string]bool{}
	for i := range ops {
		o := &ops[i]
		text := o.String()
		if !before[text] || r.failed[o.object()] != nil {
			continue
		}
		if o.Verb <= ipvsnl.DelDest && o.Verb >= ipvsnl.AddDest && r.failed[o.Service.ID.String()] != nil {
			continue
		}
		if o.Drain && o.Verb != ipvsnl.EditDest {
			continue // the end of a drain, or the fallback lent for one
		}
		out[text] = true
	}
	return out
}

// apply sends the operations and looks at what came of them.
func (r *reconciler) apply(ops []Op, repairs map[string]bool) {
	errs := r.send(ops)
	now := r.now()
	ids := touched(ops)
	refused := map[model.ServiceID]bool{} // services that could not be added
	done := ops[:0]                       // in place: a large table is large twice
	for i := range ops {
		o, oerr := &ops[i], errs[i]
		switch {
		case oerr == nil:
			if len(r.failed) > 0 {
				delete(r.failed, o.object())
			}
			r.ops++
			if len(repairs) > 0 && repairs[o.String()] {
				r.repairs++
			}
			if o.Drain && o.Verb == ipvsnl.EditDest {
				r.drains[drainKey{o.Service.ID, key(o.Dest)}] = now
			}
			done = append(done, *o)
		case errors.Is(oerr, ipvsnl.ErrUnknown):
			// The next pass sees in the kernel what became of it.
		case o.Verb >= ipvsnl.AddDest && o.Verb <= ipvsnl.DelDest && refused[o.Service.ID]:
			// Its service is missing: one error says so.
		case raced(o.Verb, oerr):
			r.log.Info(fmt.Sprintf("%s: somebody else was faster: %v", o.String(), oerr))
		default:
			if o.Verb == ipvsnl.AddService {
				refused[o.Service.ID] = true
			}
			r.fail(o, explain(o, oerr), now)
		}
	}
	r.report(done, repairs, now)
	r.refresh(ids)
}

// sendSize is how many operations are handed to the kernel's edge at one time.
const sendSize = 1000

// send gives the outcome of each operation.
func (r *reconciler) send(ops []Op) []error {
	errs := make([]error, len(ops))
	reqs := make([]ipvsnl.Request, 0, min(len(ops), sendSize))
	for from := 0; from < len(ops); from += sendSize {
		part := ops[from:min(from+sendSize, len(ops))]
		reqs = reqs[:0]
		for i := range part {
			reqs = append(reqs, part[i].Request)
		}
		got, err := r.kernel.Do(reqs, r.tick)
		n := copy(errs[from:], got)
		if err != nil {
			r.kernErr = err
			r.log.Error(err.Error())
			for i := from + n; i < len(errs); i++ {
				errs[i] = ipvsnl.ErrUnknown
			}
			break
		}
	}
	return errs
}

// raced reports whether the kernel is already as the operation wants it.
func raced(v ipvsnl.Verb, err error) bool {
	switch v {
	case ipvsnl.AddService, ipvsnl.AddDest:
		return errors.Is(err, unix.EEXIST)
	case ipvsnl.DelService, ipvsnl.DelDest:
		return isMissing(err)
	}
	return false
}

func isMissing(err error) bool { return errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOENT) }

func (r *reconciler) fail(o *Op, err error, now time.Time) {
	f := r.failed[o.object()]
	if f == nil {
		f = &failure{delay: backoffMin / 2}
		r.failed[o.object()] = f
	}
	if f.err == nil || f.err.Error() != err.Error() {
		r.log.Error(err.Error())
	}
	f.op, f.err = o.String(), err
	most := backoffMax
	if o.Verb == ipvsnl.StartDaemon {
		most = backoffDaemon
	}
	f.delay = min(2*f.delay, most)
	f.next = now.Add(f.delay)
}

// explain says what a refusal of the kernel means and how to mend it.
func explain(o *Op, err error) error {
	hint := ""
	switch {
	case isMissing(err) && (o.Verb == ipvsnl.AddService || o.Verb == ipvsnl.EditService):
		hint = fmt.Sprintf("the kernel has no scheduler %q: load module ip_vs_%s, or choose another lb_algo", o.Service.Scheduler, o.Service.Scheduler)
		if o.Service.PE != "" {
			hint += fmt.Sprintf("; or no persistence engine %q: load module ip_vs_pe_%s", o.Service.PE, o.Service.PE)
		}
	case errors.Is(err, unix.EINVAL) && o.Verb >= ipvsnl.AddDest && o.Verb <= ipvsnl.DelDest && ipvsnl.Family(o.Service.ID) != o.Dest.Addr.Is6():
		hint = "a real server of the other address family works only with lb_kind TUN and without lvs_sync_daemon"
	case errors.Is(err, unix.EINVAL) && o.Verb == ipvsnl.StartDaemon:
		hint = "the kernel does not synchronise services that have real servers of the other address family"
	case errors.Is(err, unix.ENODEV) && o.Verb == ipvsnl.StartDaemon:
		hint = fmt.Sprintf("there is no interface %s (yet)", o.Daemon.Interface)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		hint = "this process lacks CAP_NET_ADMIN"
	}
	if hint != "" {
		return fmt.Errorf("%s: %w (%s)", o.String(), err, hint)
	}
	return fmt.Errorf("%s: %w", o.String(), err)
}

// touched lists the services that operations are about; nil: everything.
func touched(ops []Op) (ids []model.ServiceID) {
	last := model.ServiceID{}
	for i := range ops {
		if ops[i].Verb > ipvsnl.DelDest {
			return nil
		}
		if id := ops[i].Service.ID; id != last {
			ids, last = append(ids, id), id
		}
	}
	slices.SortFunc(ids, ipvsnl.CompareID)
	if ids = slices.Compact(ids); len(ids) > maxPartial {
		return nil
	}
	return ids
}

// refresh reads back the services that operations touched.
func (r *reconciler) refresh(ids []model.ServiceID) {
	dump, err := r.kernel.Dump(ids, r.tick)
	switch {
	case err != nil:
		r.kernErr = err
	case ids == nil:
		r.have = dump
	default:
		r.have = r.have.merge(ids, dump)
	}
}
