package health

import "time"

// timers is a binary heap of checks by their deadline, so that one wait serves
// all of them. A check is in it at most once; edge.slot is its place, -1: out.
type timers []*check

func (t *timers) set(c *check, at time.Time) {
	c.edge.at = at
	if c.edge.slot < 0 {
		c.edge.slot = len(*t)
		*t = append(*t, c)
	}
	t.fix(c.edge.slot)
}

func (t *timers) remove(c *check) {
	i := c.edge.slot
	if i < 0 {
		return
	}
	last := len(*t) - 1
	t.swap(i, last)
	(*t)[last] = nil
	*t = (*t)[:last]
	c.edge.slot = -1
	if i < last {
		t.fix(i)
	}
}

func (t timers) first() *check {
	if len(t) == 0 {
		return nil
	}
	return t[0]
}

func (t timers) less(i, j int) bool { return t[i].edge.at.Before(t[j].edge.at) }

func (t timers) swap(i, j int) {
	t[i], t[j] = t[j], t[i]
	t[i].edge.slot, t[j].edge.slot = i, j
}

func (t timers) fix(i int) {
	for i > 0 && t.less(i, (i-1)/2) {
		t.swap(i, (i-1)/2)
		i = (i - 1) / 2
	}
	for {
		child := 2*i + 1
		if child >= len(t) {
			return
		}
		if child+1 < len(t) && t.less(child+1, child) {
			child++
		}
		if !t.less(child, i) {
			return
		}
		t.swap(i, child)
		i = child
	}
}
