package ipvs

import (
	"net/netip"
	"slices"
	"time"

	"ballast/configs/model"
	"ballast/services/ipvs/ipvsnl"
)

// The sweep reads the kernel's table again and again: first the list of
// services, then their destinations, a slice at a time, so that nothing waits
// for it. What it read may be older than what was done since; a service that
// is not as it should be is therefore only put in doubt, and read again by the
// pass that mends it. It brings the statistics, and the ends of drains.

// sliceSize is how many services' destinations are read at one time.
const sliceSize = 64

// sweepList takes in the list of services with daemons and timeouts, and
// returns the services to read.
func (r *reconciler) sweepList(list []ipvsnl.ServiceState, daemons []ipvsnl.Daemon, t ipvsnl.Timeouts) []model.ServiceID {
	if r.lost || !r.settled {
		return nil
	}
	slices.SortFunc(list, func(a, b ipvsnl.ServiceState) int { return ipvsnl.CompareID(a.ID, b.ID) })
	have := *r.have
	have.Services = slices.Clone(have.Services)
	ids := make([]model.ServiceID, 0, len(list))
	i := 0
	for _, h := range have.Services {
		for i < len(list) && ipvsnl.CompareID(list[i].ID, h.ID) < 0 {
			r.doubt[list[i].ID] = true // a stranger
			i++
		}
		if i == len(list) || list[i].ID != h.ID {
			r.doubt[h.ID] = true // deleted
			continue
		}
		if s := &list[i]; s.Service != h.Service {
			r.doubt[h.ID] = true
		} else {
			if s.Stats != h.Stats {
				j, _ := slices.BinarySearchFunc(have.Services, h, compareServices)
				have.Services[j] = &ServiceState{*s, h.Dests}
			}
			ids = append(ids, h.ID)
		}
		i++
	}
	for ; i < len(list); i++ {
		r.doubt[list[i].ID] = true
	}
	if t != have.Timeouts || !slices.Equal(daemons, have.Daemons) {
		r.doubtRest = true
	}
	r.have = &have
	return ids
}

// sweepDests takes in the destinations of services, which are sorted.
func (r *reconciler) sweepDests(ids []model.ServiceID, dests [][]ipvsnl.DestState) {
	if r.lost || !r.settled {
		return
	}
	now := r.now()
	part := &State{Daemons: r.have.Daemons, Timeouts: r.have.Timeouts}
	var fresh []*ServiceState
	for i, id := range ids {
		h := r.have.find(id)
		if h == nil || r.doubt[id] || r.dirty[id] {
			continue
		}
		if !slices.Equal(h.Dests, dests[i]) {
			h = &ServiceState{h.ServiceState, dests[i]}
			fresh = append(fresh, h)
		}
		part.Services = append(part.Services, h)
	}
	if len(fresh) > 0 {
		r.have = r.have.with(fresh)
	}
	want := r.want.part(ids)
	want.Daemons, want.DaemonsKept, want.Timeouts = nil, true, part.Timeouts
	for _, o := range Diff(part, want, func(id model.ServiceID, k netip.AddrPort) bool {
		since, ok := r.drains[drainKey{id, k}]
		return !ok || now.Sub(since) >= DrainBound // unknown: the pass begins to count
	}) {
		if len(r.failed) > 0 && (r.failed[o.object()] != nil || r.failed[o.Service.ID.String()] != nil) {
			continue // it has its own time
		}
		r.doubt[o.Service.ID] = true
	}
}

// with returns s with some services as they are in list.
func (s *State) with(list []*ServiceState) *State {
	out := *s
	out.Services = slices.Clone(s.Services)
	for _, h := range list {
		if i, ok := slices.BinarySearchFunc(out.Services, h, compareServices); ok {
			out.Services[i] = h
		}
	}
	return &out
}

// sweepEnd ends a sweep.
func (r *reconciler) sweepEnd() {
	r.passes++
	r.lastPass = r.now()
	r.forget()
}

// sweep is one whole sweep at once.
func (r *reconciler) sweep(k Kernel) error {
	list, err := k.Services()
	if err != nil {
		return err
	}
	daemons, t, err := k.Rest()
	if err != nil {
		return err
	}
	ids := r.sweepList(list, daemons, t)
	r.event()
	for part := range slices.Chunk(ids, sliceSize) {
		dests, err := k.Dests(part, r.tick)
		if err != nil {
			return err
		}
		r.sweepDests(part, dests)
		r.event()
	}
	r.sweepEnd()
	return nil
}

// Pace of the sweep.
const (
	// sweepPeriod is from one sweep to the next, and is longer for large
	// tables: reading takes at most 1/periodPerCost of a processor.
	sweepPeriod   = 2 * time.Second
	largeTable    = 1000
	largePeriod   = 10 * time.Second
	periodPerCost = 20
	// maxPeriod bounds it all the same.
	maxPeriod = 30 * time.Second
)

// sweeper runs the reading of a sweep beside the main loop, over a connection
// of its own, so that an order or a verdict waits for no reading.
type sweeper struct {
	ask    chan func(Kernel) // what to read
	answer chan func()       // what to do with it, in the main loop
	ids    []model.ServiceID // still to read
	busy   bool
	start  time.Time
	next   time.Time // when to go on
	quiet  time.Time // not before
}

// calm is how long a large table is not swept after a configuration came, or
// was asked about: the first reading of a sweep is the list of all services, a
// tenth of a second for ten thousand, and who commits waits for us.
const calm = 5 * time.Second

// hold puts a sweep off, but none longer than maxPeriod after the one before.
func (s *sweeper) hold(now time.Time, services int) {
	if services <= largeTable {
		return
	}
	if s.start.IsZero() {
		s.start = now
	}
	s.quiet = now.Add(calm)
	if last := s.start.Add(maxPeriod); s.quiet.After(last) {
		s.quiet = last
	}
}

// due is when to go on.
func (s *sweeper) due() time.Time {
	if s.quiet.After(s.next) {
		return s.quiet
	}
	return s.next
}

func newSweeper() *sweeper {
	return &sweeper{ask: make(chan func(Kernel), 1), answer: make(chan func(), 1)}
}

// read serves the questions until ask is closed.
func (s *sweeper) read(k Kernel) {
	defer k.Close()
	for f := range s.ask {
		f(k)
	}
}

// turn goes on with the sweep, or begins one, when it is time.
func (s *sweeper) turn(r *reconciler, now time.Time) {
	if s.busy || now.Before(s.due()) || r.lost || !r.settled || r.plan == nil {
		return
	}
	s.busy = true
	if len(s.ids) == 0 {
		s.start = now
		s.ask <- func(k Kernel) {
			began := time.Now()
			list, err := k.Services()
			var daemons []ipvsnl.Daemon
			var t ipvsnl.Timeouts
			if err == nil {
				daemons, t, err = k.Rest()
			}
			took := time.Since(began)
			s.answer <- func() {
				if err != nil {
					r.fault(err)
					s.done(time.Now(), sweepPeriod)
					return
				}
				s.ids = r.sweepList(list, daemons, t)
				s.step(r, took)
			}
		}
		return
	}
	part := s.ids[:min(len(s.ids), sliceSize)]
	s.ask <- func(k Kernel) {
		began := time.Now()
		dests, err := k.Dests(part, func() {})
		took := time.Since(began)
		s.answer <- func() {
			if err != nil {
				r.fault(err)
				s.done(time.Now(), sweepPeriod)
				return
			}
			s.ids = s.ids[len(part):]
			r.sweepDests(part, dests)
			s.step(r, took)
		}
	}
}

// step plans the next reading after one that took so long.
func (s *sweeper) step(r *reconciler, took time.Duration) {
	now := time.Now()
	if len(s.ids) > 0 {
		s.busy = false
		// As many slices as are left share the time that is left.
		left := max(0, s.start.Add(maxPeriod).Sub(now)) / time.Duration(1+len(s.ids)/sliceSize)
		s.next = now.Add(min(periodPerCost*took, left))
		return
	}
	r.sweepEnd()
	period := sweepPeriod
	if len(r.have.Services) > largeTable {
		period = largePeriod
	}
	s.done(s.start, max(period, now.Add(periodPerCost*took).Sub(s.start)))
}

func (s *sweeper) done(from time.Time, period time.Duration) {
	s.busy, s.ids = false, nil
	s.next = from.Add(period)
}
