package pacer

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

var (
	seeds = flag.Int("pacer.seeds", 200, "schedules of the simulation")
	first = flag.Uint64("pacer.first", 1, "first of them")
)

const ms = int64(time.Millisecond)

// What a slot is worth at a moment, step by step.
func TestLook(t *testing.T) {
	type step struct {
		now, turn int64 // ms
		v         view
		want      verdict
	}
	every := 10 * ms
	armed := func(sent int64) view { return view{1, sent * ms, every} }
	for _, c := range []struct {
		name  string
		steps []step
	}{
		{"nothing armed", []step{{100, 100, view{}, verdict{}}}},
		{"an interval of nothing", []step{{100, 100, view{1, 100 * ms, 0}, verdict{}}}},
		{"vrrp is in time", []step{
			{100, 100, armed(100), verdict{next: 115 * ms}},
			{115, 110, armed(110), verdict{next: 125 * ms}},
		}},
		{"vrrp stalls and comes back", []step{
			{100, 100, armed(100), verdict{next: 115 * ms}},
			{115, 100, armed(100), verdict{send: true, late: 5 * ms, next: 125 * ms}},
			{120, 100, armed(100), verdict{next: 125 * ms}},
			{125, 100, armed(100), verdict{send: true, late: 15 * ms, next: 135 * ms}},
			{135, 130, armed(130), verdict{next: 145 * ms}},
		}},
		{"cleared meanwhile", []step{
			{100, 100, armed(100), verdict{next: 115 * ms}},
			{115, 114, view{}, verdict{}},
		}},
		{"the lease ends", []step{
			{100, 100, armed(100), verdict{next: 115 * ms}},
			{2100, 100, armed(100), verdict{}},
			{2200, 2200, armed(100), verdict{}}, // it is back, and has decided nothing about this one
			{2210, 2210, armed(2205), verdict{next: 2220 * ms}},
		}},
		{"the pacer itself was late", []step{
			{100, 100, armed(100), verdict{next: 115 * ms}},
			{190, 100, armed(100), verdict{send: true, late: 80 * ms, next: 200 * ms}},
		}},
		{"armed anew", []step{
			{100, 100, armed(100), verdict{next: 115 * ms}},
			{112, 112, view{2, 112 * ms, 100 * ms}, verdict{next: 262 * ms}},
		}},
		{"intervals of a mad one", []step{
			{100, 100, view{1, 100 * ms, 1}, verdict{next: 104 * ms}},
			{104, 100, view{1, 100 * ms, 1}, verdict{send: true, late: 3 * ms, next: 105 * ms}},
			{200, 200, view{1, 200 * ms, 1<<63 - 1}, verdict{next: 200*ms + int64(Due(time.Hour))}},
		}},
		{"a turn to come", []step{
			{100, 1 << 40, armed(100), verdict{next: 115 * ms}},
			{115, 1 << 40, armed(100), verdict{send: true, late: 5 * ms, next: 125 * ms}},
		}},
		{"a time to come", []step{{100, 100, armed(1 << 40), verdict{next: 115 * ms}}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var w watch
			for i, s := range c.steps {
				if got := w.look(s.now*ms, s.turn*ms, s.v); got != s.want {
					t.Errorf("step %d: %+v, want %+v", i, got, s.want)
				}
			}
		})
	}
}

func TestDue(t *testing.T) {
	for _, c := range []struct{ interval, want time.Duration }{
		{10 * time.Millisecond, 15 * time.Millisecond},
		{4 * time.Millisecond, 7 * time.Millisecond},
		{200 * time.Millisecond, 300 * time.Millisecond},
		{time.Second, 1500 * time.Millisecond},
		{40 * time.Second, 40500 * time.Millisecond},
	} {
		if got := Due(c.interval); got != c.want {
			t.Errorf("%v: %v, want %v", c.interval, got, c.want)
		}
	}
}

// TestSimulation runs a pacer beside a vrrp that stalls at random, dies, comes
// back, leaves the role and takes it again, under a clock of its own. While the
// role is held and the lease lasts no gap is longer than two intervals (and what
// the pacer itself was late); after a slot is cleared, or the lease is over,
// nothing is sent.
func TestSimulation(t *testing.T) {
	stood := 0
	for seed := *first; seed < *first+uint64(*seeds); seed++ {
		n, err := simulate(seed)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		stood += n
	}
	if stood < *seeds {
		t.Errorf("%d stand-in advertisements in %d runs: what was tested?", stood, *seeds)
	}
}

func simulate(seed uint64) (stood int, err error) {
	rnd := rand.New(rand.NewPCG(seed, 0))
	interval := []int64{10, 20, 100, 1000}[rnd.IntN(4)] * ms
	var w watch
	var v view
	now := int64(1000 * ms)
	turn := now
	armings, told := uint32(0), uint32(0)
	wire := now     // the last advertisement of anybody
	vrrp := now     // when vrrp runs next
	advert := now   // when it advertises next
	pacer := now    // when the pacer runs next
	slack := ms     // how late the pacer may be
	dead := false   // killed: what it left stays
	master := false // as vrrp sees it
	fresh := false  // it has decided since it stalled
	for end := now + 60_000*ms; now < end; {
		now = min(vrrp, pacer)
		if gap := min(now, turn+int64(lease)) - wire; v.armed != 0 && fresh && gap > 2*interval+slack {
			return stood, fmt.Errorf("at %v: nothing sent for %v, interval %v", time.Duration(now), time.Duration(gap), time.Duration(interval))
		}
		if now == vrrp {
			if dead { // started again; it adopts its role
				dead, advert = false, now
			}
			switch {
			case !master && rnd.IntN(20) == 0: // takes the role
				master, advert = true, now
			case master && rnd.IntN(200) == 0: // leaves it: cleared first
				master, v, fresh = false, view{}, false
			}
			if master && now >= advert {
				if v.armed == 0 {
					armings++
					v = view{armed: armings, interval: interval}
				}
				v.sent, wire, fresh = now, now, true
				advert = now + interval
			}
			if master && advert == now+interval && (v.armed != told || w.asleep) {
				told, pacer = v.armed, now
			}
			turn = now
			vrrp = now + rnd.Int64N(interval)
			if master {
				vrrp = min(vrrp, max(advert, now+1))
			}
			switch rnd.IntN(50) {
			case 0: // a stall
				vrrp = now + rnd.Int64N(3000)*ms
			case 1: // kill -9
				dead, vrrp = true, now+rnd.Int64N(4000)*ms
			}
		}
		if now >= pacer {
			d := w.look(now, turn, v)
			if d.send {
				switch {
				case v.armed == 0:
					return stood, fmt.Errorf("at %v: sent although cleared", time.Duration(now))
				case now-turn >= int64(lease):
					return stood, fmt.Errorf("at %v: sent, the lease is over since %v", time.Duration(now), time.Duration(now-turn)-lease)
				case !fresh:
					return stood, fmt.Errorf("at %v: sent for one that has not decided", time.Duration(now))
				}
				stood++
				wire = now
			}
			if v.armed != 0 && now-turn >= int64(lease) {
				fresh = false
			}
			pacer = now + 2000*ms
			if d.next != 0 {
				pacer = min(pacer, d.next+rnd.Int64N(slack))
			}
		}
	}
	return stood, nil
}
