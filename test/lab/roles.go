package lab

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"ballast/test/lab/ether"
	"ballast/test/lab/plan"
)

// Roles knows who is master from the wire: whose advertisements a segment saw
// last. It needs nothing from the directors, so it is right about one that
// hangs, and it costs them nothing.
type Roles struct {
	mu      sync.Mutex
	routers map[Router]*role
	events  []RoleChange
	changed chan struct{} // closed at the next change
}

// Router is one virtual router as seen on a segment.
type Router struct {
	Segment int
	VRID    uint8
	IPv6    bool
}

func (r Router) String() string {
	s := fmt.Sprintf("vrid %d", r.VRID)
	if r.IPv6 {
		s += " (IPv6)"
	}
	return s
}

type role struct {
	master int // director, -1: it has resigned
	last   time.Time
	seen   [2]time.Time // last advertisement of each
}

// RoleChange is one change of a virtual router's master.
type RoleChange struct {
	At       time.Time
	Router   Router
	From, To int           // directors; -1 is nobody
	Silence  time.Duration // between the last advertisement before and the first after
}

func (c RoleChange) String() string {
	name := func(i int) string {
		if i < 0 {
			return "nobody"
		}
		return plan.Names[i]
	}
	if c.To < 0 {
		return fmt.Sprintf("%s: %s resigned", c.Router, name(c.From))
	}
	return fmt.Sprintf("%s: %s advertises, %v after %s", c.Router, name(c.To), c.Silence.Round(time.Millisecond), name(c.From))
}

func newRoles(switches []*ether.Switch) *Roles {
	r := &Roles{routers: map[Router]*role{}, changed: make(chan struct{})}
	for i, s := range switches {
		s.Tap(func(at time.Time, from *ether.Port, frame []byte) {
			a, ok := ether.ParseAdvert(frame)
			if !ok {
				return
			}
			if d := slices.Index(plan.Names[:], from.Name); d >= 0 {
				r.advert(at, Router{i, a.VRID, a.From.Is6()}, d, a.Priority)
			}
		})
	}
	return r
}

// keepEvents bounds what Events returns.
const keepEvents = 100

func (r *Roles) advert(at time.Time, k Router, d int, priority uint8) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.routers[k]
	if now == nil {
		now = &role{master: -1}
		r.routers[k] = now
	}
	to := d
	if priority == 0 {
		if now.master != d {
			return // it was not master anyway
		}
		to = -1
	}
	now.seen[d] = at
	if to != now.master {
		c := RoleChange{At: at, Router: k, From: now.master, To: to}
		if !now.last.IsZero() {
			c.Silence = at.Sub(now.last)
		}
		r.events = append(r.events, c)
		if n := len(r.events) - keepEvents; n > 0 {
			r.events = slices.Delete(r.events, 0, n)
		}
		now.master = to
		close(r.changed)
		r.changed = make(chan struct{})
	}
	now.last = at
}

// forget drops what was learned: another configuration comes.
func (r *Roles) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.routers = map[Router]*role{}
}

// Master is the director whose advertisement for a VRID came last on any
// segment; -1 when none has been seen or it has resigned. after bounds how old
// that may be, 0 does not.
func (r *Roles) Master(vrid uint8, after time.Duration) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	best, at := -1, time.Time{}
	for k, v := range r.routers {
		if k.VRID == vrid && v.last.After(at) && (after == 0 || time.Since(v.last) < after) {
			best, at = v.master, v.last
		}
	}
	return best
}

// Masters is the newest master of each virtual router.
func (r *Roles) Masters() map[Router]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[Router]int{}
	for k, v := range r.routers {
		out[k] = v.master
	}
	return out
}

// Events returns the newest changes, oldest first.
func (r *Roles) Events() []RoleChange {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}

// WaitMaster waits until director d advertises for a VRID.
func (r *Roles) WaitMaster(ctx context.Context, vrid uint8, d int) error {
	for {
		r.mu.Lock()
		changed := r.changed
		r.mu.Unlock()
		if r.Master(vrid, 0) == d {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("lab: %s did not become master of vrid %d: %w; masters: %s", plan.Names[d], vrid, ctx.Err(), r)
		}
	}
}

func (r *Roles) String() string {
	m := r.Masters()
	var out []string
	keys := slices.SortedFunc(maps.Keys(m), func(a, b Router) int {
		return strings.Compare(fmt.Sprint(a.Segment, a), fmt.Sprint(b.Segment, b))
	})
	for _, k := range keys {
		who := "nobody"
		if m[k] >= 0 {
			who = plan.Names[m[k]]
		}
		out = append(out, k.String()+" "+who)
	}
	return strings.Join(out, ", ")
}
