package ipvs

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"ballast/configs/model"
	"ballast/services/ipvs/ipvsnl"
)

const (
	backoffMin = time.Second
	backoffMax = time.Minute
	// backoffWait is for what waits for an address or an interface: an event
	// tells of those, but not of all that the kernel may be missing.
	backoffWait = 4 * time.Second
	// waitQuiet is how long that is nothing to complain of.
	waitQuiet = 15 * time.Second
)

// failure is an object that the kernel refused, tried again after a while.
type failure struct {
	id    model.ServiceID
	rest  bool // a daemon or the timeouts
	err   error
	since time.Time
	next  time.Time
	delay time.Duration
	waits bool // for an address or an interface, it seems
	told  string
}

// apply sends the operations and looks at what came of them; repairs marks
// those that undo somebody else's change, nil: none.
func (r *reconciler) apply(ops []Op, repairs []bool) {
	errs := r.send(ops)
	now := r.now()
	refused := map[model.ServiceID]bool{} // services that could not be added
	done := ops[:0]                       // in place: a large table is large twice
	var undone []bool
	var look []model.ServiceID // services that are not as they should be now
	var complaints []error
	rest := false
	for i := range ops {
		o, oerr := &ops[i], errs[i]
		if o.Verb > ipvsnl.DelDest {
			rest = true
		} else if oerr != nil {
			look = append(look, o.Service.ID)
		}
		switch {
		case oerr == nil:
			if len(r.failed) > 0 {
				delete(r.failed, o.object())
			}
			r.ops++
			if repairs != nil {
				undone = append(undone, repairs[i])
			}
			if o.Drain && o.Verb == ipvsnl.EditDest {
				r.drains[drainKey{o.Service.ID, key(o.Dest)}] = now
			}
			done = append(done, *o)
		case errors.Is(oerr, ipvsnl.ErrUnknown):
			// The next pass sees in the kernel what became of it.
			if o.Verb <= ipvsnl.DelDest {
				r.dirty[o.Service.ID] = true
			} else {
				r.dirtyRest = true
			}
		case o.Verb != ipvsnl.AddService && o.Verb <= ipvsnl.DelDest && refused[o.Service.ID]:
			// Its service is missing: one error says so.
		case raced(o.Verb, oerr):
			r.log.Info(fmt.Sprintf("%s: somebody else was faster: %v", o.String(), oerr))
			r.dirty[o.Service.ID] = true
		default:
			if o.Verb == ipvsnl.AddService {
				refused[o.Service.ID] = true
			}
			if err := r.fail(o, oerr, now); err != nil {
				complaints = append(complaints, err)
			}
		}
	}
	r.have = r.have.after(done)
	r.complain(complaints)
	r.report(done, undone, now)
	if r.lost {
		return
	}
	if len(look) > maxLooks {
		r.lost = true // a dump of everything is cheaper
	} else if len(look) > 0 {
		slices.SortFunc(look, ipvsnl.CompareID)
		r.read(slices.Compact(look))
	}
	if rest {
		r.readRest() // the kernel fills in what was left open
	}
}

// after is the state that operations lead to.
func (s *State) after(done []Op) *State {
	if len(done) == 0 {
		return s
	}
	out := *s
	var at *ServiceState // of the last operation
	var touched []*ServiceState
	var mine map[model.ServiceID]*ServiceState // of touched, once they come in no order any more
	gone := map[model.ServiceID]bool{}
	for i := range done {
		o := &done[i]
		if o.Verb > ipvsnl.DelDest {
			continue // read back
		}
		id := o.Service.ID
		if at == nil || at.ID != id {
			if mine == nil && at != nil && ipvsnl.CompareID(at.ID, id) > 0 {
				mine = make(map[model.ServiceID]*ServiceState, len(touched))
				for _, h := range touched {
					mine[h.ID] = h
				}
			}
			if at = mine[id]; at == nil {
				at = &ServiceState{}
				if h := s.find(id); h != nil {
					at.ServiceState, at.Dests = h.ServiceState, slices.Clone(h.Dests)
				} else {
					at.Dests = make([]ipvsnl.DestState, 0, additions(done[i:]))
				}
				at.ID = id
				touched = append(touched, at)
				if mine != nil {
					mine[id] = at
				}
			}
		}
		j, found := slices.BinarySearchFunc(at.Dests, o.Dest, func(d ipvsnl.DestState, k ipvsnl.Dest) int { return ipvsnl.CompareDest(d.Dest, k) })
		switch o.Verb {
		case ipvsnl.AddService, ipvsnl.EditService:
			at.Service = o.Service
		case ipvsnl.DelService:
			gone[id] = true
		case ipvsnl.AddDest:
			if !found {
				at.Dests = slices.Insert(at.Dests, j, ipvsnl.DestState{Dest: o.Dest})
			}
		case ipvsnl.EditDest:
			if found {
				at.Dests[j].Dest = o.Dest
			}
		case ipvsnl.DelDest:
			if found {
				at.Dests = slices.Delete(at.Dests, j, j+1)
			}
		}
	}
	fresh := make([]*ServiceState, 0, len(touched))
	var cut []int
	for _, h := range touched {
		if len(gone) == 0 || !gone[h.ID] {
			fresh = append(fresh, h)
		}
		if i, ok := s.place(h.ID); ok {
			cut = append(cut, i)
		}
	}
	sortServices(fresh)
	out.Services = spliced(s.Services, cut, fresh, compareServices)
	return &out
}

// additions counts the destinations that the first operations add to the
// service of the first.
func additions(ops []Op) (n int) {
	for i := range ops {
		if o := &ops[i]; o.Service.ID != ops[0].Service.ID || o.Verb > ipvsnl.DelDest {
			break
		} else if o.Verb == ipvsnl.AddDest {
			n++
		}
	}
	return n
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
			r.fault(err) // everything is read again: what became of the rest?
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

// fail remembers that an object was refused, and returns what is to be said
// about it, if anything is.
func (r *reconciler) fail(o *Op, err error, now time.Time) error {
	f := r.failed[o.object()]
	if f == nil {
		f = &failure{delay: backoffMin / 2, id: o.Service.ID, rest: o.Verb > ipvsnl.DelDest, since: now}
		r.failed[o.object()] = f
	}
	f.err, f.waits = explain(o, err), waits(o, err)
	most := backoffMax
	if f.waits {
		most = backoffWait
	}
	f.delay = min(2*f.delay, most)
	f.next = now.Add(f.delay)
	if f.waits && now.Sub(f.since) < waitQuiet {
		if !r.waitTold {
			r.waitTold = true
			r.log.Info("waiting for addresses and interfaces: " + f.err.Error())
		}
		return nil
	}
	if f.told == f.err.Error() {
		return nil
	}
	f.told = f.err.Error()
	return f.err
}

// complain logs what the kernel refused.
func (r *reconciler) complain(errs []error) {
	for _, err := range errs[:min(len(errs), maxPrinted)] {
		r.log.Error(err.Error())
	}
	if n := len(errs) - maxPrinted; n > 0 {
		r.log.Error(fmt.Sprintf("the kernel refused %d more operations of the same pass", n))
	}
}

// due puts what was refused a while ago before the next event. stirred says
// that addresses or interfaces changed, for which some of it waits.
func (r *reconciler) due(stirred bool) {
	now := r.now()
	waiting := false
	for _, f := range r.failed {
		waiting = waiting || f.waits
		if stirred && f.waits {
			f.next, f.delay = now, backoffMin/2
		}
		if now.Before(f.next) {
			continue
		}
		if f.rest {
			r.doubtRest = true
		} else {
			r.doubt[f.id] = true
		}
	}
	if !waiting {
		r.waitTold = false
	}
}

// waits reports whether a refusal may come of an address or interface that is
// not there yet. The kernel takes a destination for no unicast address as long
// as it has no route table of local addresses.
func waits(o *Op, err error) bool {
	switch o.Verb {
	case ipvsnl.AddDest, ipvsnl.EditDest:
		return errors.Is(err, unix.EINVAL) && ipvsnl.Family(o.Service.ID) == o.Dest.Addr.Is6()
	case ipvsnl.StartDaemon:
		return errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EINVAL)
	}
	return false
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
