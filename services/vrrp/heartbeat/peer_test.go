package heartbeat

import (
	"testing"
	"time"
)

const ms = time.Millisecond

// draws makes numbers that are never the same.
func draws(seed uint64) func() uint64 {
	return func() uint64 { seed += 0x9e3779b97f4a7c15; return seed }
}

func pair(now time.Duration) (a, b *Peer) {
	return NewPeer(2, 10*ms, 3, now, draws(100)), NewPeer(2, 10*ms, 3, now, draws(200))
}

// speaker stamps messages of one box.
type speaker struct {
	p   *Peer
	seq uint64
}

func (s *speaker) say() *Message {
	s.seq++
	m := &Message{}
	s.p.Stamp(m, s.seq)
	return m
}

// TestPeerIsBelievedAfterItAnswered follows two boxes from their start, and
// then the tricks of somebody who records what they send.
func TestPeerIsBelievedAfterItAnswered(t *testing.T) {
	now := time.Hour
	ap, bp := pair(now)
	a, b := &speaker{p: ap}, &speaker{p: bp}
	var old []*Message
	exchange := func(from *speaker, to *Peer) Verdict {
		now += 5 * ms
		m := from.say()
		if from == a {
			old = append(old, m)
		}
		return to.Heard(0, now, m)
	}
	if v := exchange(a, bp); v != Unproven || bp.Up {
		t.Fatalf("first datagram: verdict %d, up %v", v, bp.Up)
	}
	if v := exchange(b, ap); v != Accepted || !ap.Up {
		t.Fatalf("b answered the challenge: verdict %d, up %v", v, ap.Up)
	}
	if v := exchange(a, bp); v != Accepted || !bp.Up {
		t.Fatalf("a answered the challenge: verdict %d, up %v", v, bp.Up)
	}
	for _, m := range old {
		if v := bp.Heard(0, now, m); v == Accepted {
			t.Errorf("replayed on its path and accepted: %+v", m)
		}
	}
	if v := bp.Heard(0, now, b.say()); v != Own {
		t.Errorf("our own one, sent back: verdict %d", v)
	}
	exchange(b, ap)
	exchange(a, bp)

	// a restarts: its new process is believed as soon as it answered.
	ap = NewPeer(2, 10*ms, 3, now, draws(77))
	a = &speaker{p: ap}
	recorded := old
	now += 40 * ms
	if !bp.Expire(now, 0) || bp.Up || !bp.Lost {
		t.Fatal("a was silent and is not lost")
	}
	if bp.Expire(now+time.Second, 0) {
		t.Error("lost a second time")
	}
	for _, m := range recorded {
		if v := bp.Heard(0, now, m); v == Accepted || bp.Up {
			t.Fatalf("what a dead process said brought it back: %+v", m)
		}
	}
	exchange(a, bp)
	exchange(b, ap)
	if v := exchange(a, bp); v != Accepted || !bp.Up || bp.Lost {
		t.Fatalf("after its restart: verdict %d, up %v", v, bp.Up)
	}
	for _, m := range recorded {
		if v := bp.Heard(0, now, m); v == Accepted {
			t.Errorf("what the process before said was accepted: %+v", m)
		}
	}
}

func TestPathsGoDownEachForItself(t *testing.T) {
	now := time.Hour
	ap, bp := pair(now)
	a, b := &speaker{p: ap}, &speaker{p: bp}
	bp.Heard(0, now, a.say())
	ap.Heard(0, now, b.say())
	beat := func(paths ...int) {
		now += 10 * ms
		m := a.say()
		for _, i := range paths {
			bp.Heard(i, now, m)
		}
	}
	if bp.Expire(now+time.Hour, 0) {
		t.Error("a peer that was never up is lost")
	}
	beat(0)
	if d := bp.Deadline(0); d != now+30*ms {
		t.Errorf("deadline in %v", d-now)
	}
	if d := bp.Deadline(Ahead); d != now+18*ms {
		t.Errorf("suspicion in %v", d-now)
	}
	beat(0, 1)
	for range 5 {
		beat(1)
		if bp.Expire(now, 0) {
			t.Fatal("lost with one path up")
		}
	}
	if bp.Paths[0].Up || !bp.Paths[1].Up {
		t.Errorf("paths %+v", bp.Paths)
	}
	// Our own lateness is not its death, once. What was heard last stays true.
	last := now
	now += 50 * ms
	if bp.Expire(now, 20*ms) || !bp.Up {
		t.Error("called dead by one that slept")
	}
	now += 29 * ms
	if bp.Expire(now, 0) {
		t.Error("the detection time is not over")
	}
	now += ms
	if !bp.Expire(now, 0) {
		t.Error("it must be over now")
	}
	if bp.Last != last || bp.Paths[1].Last != last {
		t.Errorf("heard last %v ago, on the path %v ago, want 80ms", now-bp.Last, now-bp.Paths[1].Last)
	}
}
