package vrrp

import (
	"slices"
	"time"
)

// queue finds the routers that have something to do, without a look at all of
// them: a heap of routers by when that is. A time in it may be too early, never
// too late. An advertisement puts a backup's timer off hundreds of times before
// it is ever due, and costs nothing here.
type queue struct {
	list []*router
	due  []*router // of this turn
}

// sooner makes sure that a router is looked at by then; 0: nothing new.
func (q *queue) sooner(r *router, at time.Duration) {
	switch {
	case at == 0:
	case r.slot == 0:
		q.list = append(q.list, r)
		r.slot, r.due = len(q.list), at
		q.up(r.slot)
	case at < r.due:
		r.due = at
		q.up(r.slot)
	}
}

// next is when the first one is due; 0: none ever is.
func (q *queue) next() time.Duration {
	for len(q.list) > 0 {
		r := q.list[0]
		at := r.nextDue()
		switch {
		case at == 0:
			q.drop()
		case at > r.due:
			r.due = at
			q.down(1)
		default:
			return at
		}
	}
	return 0
}

// take lists the routers that may be due, in the order of the configuration.
func (q *queue) take(now time.Duration) []*router {
	q.due = q.due[:0]
	q.collect(1, now)
	if len(q.due) > 1 {
		slices.SortFunc(q.due, func(a, b *router) int { return a.number - b.number })
	}
	return q.due
}

func (q *queue) collect(i int, now time.Duration) {
	if i > len(q.list) || q.list[i-1].due > now {
		return
	}
	q.due = append(q.due, q.list[i-1])
	q.collect(2*i, now)
	q.collect(2*i+1, now)
}

// drop takes the first one out.
func (q *queue) drop() {
	n := len(q.list)
	q.swap(1, n)
	q.list[n-1].slot = 0
	q.list[n-1] = nil
	q.list = q.list[:n-1]
	q.down(1)
}

func (q *queue) swap(i, j int) {
	a, b := q.list[i-1], q.list[j-1]
	q.list[i-1], q.list[j-1] = b, a
	b.slot, a.slot = i, j
}

func (q *queue) up(i int) {
	for i > 1 && q.list[i-1].due < q.list[i/2-1].due {
		q.swap(i, i/2)
		i /= 2
	}
}

func (q *queue) down(i int) {
	for {
		c := 2 * i
		if c > len(q.list) {
			return
		}
		if c < len(q.list) && q.list[c].due < q.list[c-1].due {
			c++
		}
		if q.list[i-1].due <= q.list[c-1].due {
			return
		}
		q.swap(i, c)
		i = c
	}
}

// nextDue is when the router's first timer is; 0: none runs.
func (r *router) nextDue() (at time.Duration) {
	for _, t := range r.timers {
		if t != 0 && (at == 0 || t < at) {
			at = t
		}
	}
	if due := r.extraDue(); due != 0 && (at == 0 || due < at) {
		at = due
	}
	return at
}

// arm makes sure that the router's timers are not overlooked.
func (r *router) arm() { r.s.queue.sooner(r, r.nextDue()) }
