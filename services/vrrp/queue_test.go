package vrrp

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"ballast/services/vrrp/core"
)

// routersOf makes n routers of one queue.
func routersOf(n int) (*service, []*router) {
	s := &service{}
	for i := range n {
		s.routers = append(s.routers, &router{s: s, number: i})
	}
	return s, s.routers
}

// The queue says what a walk over all timers would.
func TestQueue(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		s, list := routersOf(1 + rng.IntN(40))
		now := time.Duration(1)
		for range 400 {
			for range rng.IntN(6) {
				r, timer := list[rng.IntN(len(list))], rng.IntN(core.Timers)
				switch rng.IntN(8) {
				case 0:
					r.timers[timer] = 0
				case 1: // garp_extra_if is a timer too
					r.cfg.GARPExtra = time.Duration(rng.IntN(20))
					r.st.Phase, r.st.Since = core.Master, now
					s.queue.sooner(r, r.extraDue())
				default:
					r.timers[timer] = now + time.Duration(rng.IntN(50))
					s.queue.sooner(r, r.timers[timer])
				}
			}
			var first time.Duration
			var due []*router
			for _, r := range list {
				at := r.nextDue()
				if at != 0 && (first == 0 || at < first) {
					first = at
				}
				if at != 0 && at <= now {
					due = append(due, r)
				}
			}
			if got := s.queue.next(); got != first {
				t.Fatalf("next is %d, want %d", got, first)
			}
			got := slices.DeleteFunc(slices.Clone(s.queue.take(now)), func(r *router) bool { return r.nextDue() == 0 || r.nextDue() > now })
			if !slices.Equal(got, due) {
				t.Fatalf("%d routers are due, want %d", len(got), len(due))
			}
			for _, r := range due {
				for i := range r.timers {
					if r.timers[i] <= now {
						r.timers[i] = 0
					}
				}
				r.extraAt = now
				if r.cfg.GARPExtra == 0 {
					r.st.Phase = core.Backup
				}
			}
			now += time.Duration(rng.IntN(10))
		}
	}
}

// BenchmarkTurn is what a turn costs in which one of many backups hears its
// master: hardly more with a thousand than with ten.
func BenchmarkTurn(b *testing.B) {
	for _, n := range []int{10, 250, 1000, 4000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s, list := routersOf(n)
			const every = time.Second
			for i, r := range list {
				r.st.Cfg = &core.Config{Version: 3}
				r.timers[core.TimerDown] = time.Duration(i) * every / time.Duration(n)
				r.arm()
			}
			i := 0
			for b.Loop() {
				r := list[i%n]
				s.now += every / time.Duration(n)
				s.lateness(s.queue.take(s.now))
				r.timers[core.TimerDown] = s.now + 3*every
				s.queue.sooner(r, s.now+3*every)
				s.settleGroups()
				s.pump(nil)
				s.deadline()
				i++
			}
		})
	}
}
