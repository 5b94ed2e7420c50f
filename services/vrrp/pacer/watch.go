package pacer

import "time"

const (
	// lease is how long after vrrp's last turn the pacer still speaks for it: a
	// process that stalls or is started again is back by then, and one that is
	// not must leave its place to the other box.
	lease = 2 * time.Second
	// Half an interval is what vrrp may be late before the pacer sends in its
	// place: with the two and a half that are left until a backup acts, the
	// pacer has time to be late itself. Timers are not exact to less than the
	// one, and nobody needs more than the other.
	minSlack = 3 * time.Millisecond
	maxSlack = 500 * time.Millisecond
	// VRRP has 10 ms to 255 s.
	minInterval = time.Millisecond
	maxInterval = time.Hour
)

// Due is how long after an advertisement of vrrp's own the pacer sends the next
// one in its place.
func Due(interval time.Duration) time.Duration {
	return interval + min(max(interval/2, minSlack), maxSlack)
}

// view is what vrrp has written into a slot.
type view struct {
	armed    uint32 // 0: cleared
	sent     int64
	interval int64
}

// watch is what the pacer remembers of a slot. Times are nanoseconds on one
// monotonic clock.
type watch struct {
	view
	due    int64 // when the pacer sends
	asleep bool  // the lease ended: nothing is sent before vrrp sends itself
}

// verdict is what to do about a slot.
type verdict struct {
	send bool
	late int64 // with send: how long vrrp is overdue
	next int64 // when to look again; 0: when told to
}

// look decides about a slot. turn is when vrrp last ended a turn.
func (w *watch) look(now, turn int64, v view) verdict {
	if v.armed == 0 || v.interval <= 0 {
		*w = watch{}
		return verdict{}
	}
	// What makes no sense must not keep a processor busy, nor a lease for ever.
	v.sent, turn = min(v.sent, now), min(turn, now)
	v.interval = min(max(v.interval, int64(minInterval)), int64(maxInterval))
	if v != w.view {
		*w = watch{view: v, due: v.sent + int64(Due(time.Duration(v.interval)))}
	}
	switch {
	case w.asleep:
		return verdict{}
	case now < w.due:
		return verdict{next: w.due}
	case now-turn >= int64(lease):
		// vrrp may come back to a world in which another router is master.
		// Whether this one still is, it must have decided first.
		w.asleep = true
		return verdict{}
	}
	if w.due += v.interval; w.due <= now {
		w.due = now + v.interval
	}
	return verdict{send: true, late: now - v.sent - v.interval, next: w.due}
}
