package health

// quorum decides whether a virtual server has enough live weight.
type quorum struct {
	need       int // live weight wanted, at least 1
	hysteresis int // 0..need-1
	up         bool
}

// newQuorum bounds what is configured by what the pool can ever reach: a
// quorum above the total weight becomes the total weight, and hysteresis stays
// below the quorum. A pool whose weights are all zero keeps a quorum of 1,
// which it never reaches: keepalived computes 0-1 there, unsigned, and ends
// with a hysteresis of 4294967295.
func newQuorum(need, hysteresis, total int) quorum {
	need = max(1, min(need, total))
	return quorum{need: need, hysteresis: max(0, min(hysteresis, need-1))}
}

// update takes the live weight and reports whether the quorum was gained or
// lost. It is gained at need+hysteresis and lost below need-hysteresis.
func (q *quorum) update(weight int) bool {
	was := q.up
	if q.up {
		q.up = weight > 0 && weight >= q.need-q.hysteresis
	} else {
		q.up = weight >= q.need+q.hysteresis
	}
	return q.up != was
}
