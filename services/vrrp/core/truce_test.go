package core

import (
	"net/netip"
	"testing"
	"time"
)

// TestTakeOverAndTruce: a backup takes over only the place of the master to
// which it listens, and two that change places do not contest it.
func TestTakeOverAndTruce(t *testing.T) {
	own, peer, third := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.3")
	cfg := Config{Version: 3, Addr: own, Priority: 100, AdvertInt: time.Second, DownAdverts: 3, GARPRepeat: 1, GARPLowerPrioRepeat: 1}
	now := time.Hour
	backup := func(c *Config) State {
		s, _, _ := Step(State{}, Event{Kind: Start, At: now, Cfg: c, Priority: c.Priority}, nil)
		s, _, _ = Step(s, Event{Kind: Advert, At: now, RxAt: now, From: peer, Priority: 150, AdvertInt: time.Second}, nil)
		return s
	}
	take := Event{Kind: TakeOver, At: now, From: peer, Why: PeerAsked, Until: now + time.Second}
	for name, ev := range map[string]Event{
		"of a router that is not master": {Kind: TakeOver, At: now, From: third, Why: PeerDead},
		"of ourselves":                   {Kind: TakeOver, At: now, From: own, Why: PeerDead},
	} {
		if s, out, _ := Step(backup(&cfg), ev, nil); s.Phase != Backup || len(out) != 0 {
			t.Errorf("%s: %v, %v", name, s.Phase, out)
		}
	}
	held, _, _ := Step(backup(&cfg), Event{Kind: Hold, At: now, Held: true}, nil)
	if s, _, _ := Step(held, take, nil); s.Phase != Backup {
		t.Error("a resigned router took over")
	}
	grouped := cfg
	grouped.Grouped = true
	if s, out, _ := Step(backup(&grouped), take, nil); s.Phase != Backup || !s.Want || len(out) != 1 || out[0].Do != AskGroup {
		t.Errorf("a member of a group went alone: %v, %v", s.Phase, out)
	}

	s, out, why := Step(backup(&cfg), take, nil)
	if s.Phase != Master || why.Code != PeerAsked || out[1].Do != SendAdvert {
		t.Fatalf("%v, %v, %v", s.Phase, why, out)
	}
	higher := Event{Kind: Advert, At: now + 500*time.Millisecond, From: peer, Priority: 150, AdvertInt: time.Second}
	if s, out, _ := Step(s, higher, nil); s.Phase != Master || len(out) != 0 {
		t.Errorf("it yielded to the one that it relieves: %v", out)
	}
	other := higher
	other.From = third
	if s, _, _ := Step(s, other, nil); s.Phase != Backup {
		t.Error("the truce holds against a third router")
	}
	higher.At = now + time.Second
	if s, _, _ := Step(s, higher, nil); s.Phase != Backup {
		t.Error("the truce never ends")
	}

	// The other side: silent, and without a new election.
	quiet, _, _ := Step(s, Event{Kind: Truce, At: now, From: peer, Until: now + 3*time.Second, Quiet: true}, nil)
	lower := Event{Kind: Advert, At: now + 100*time.Millisecond, From: peer, Priority: 50, AdvertInt: time.Second}
	if _, out, _ := Step(quiet, lower, nil); len(out) != 0 {
		t.Errorf("a lower priority of the partner: %v", out)
	}
	next := Event{Kind: Expired, Timer: TimerAdvert, At: now + time.Second, Due: now + time.Second}
	if _, out, _ := Step(quiet, next, nil); len(out) != 1 || out[0].Do != SetTimer {
		t.Errorf("its timer: %v", out)
	}
	over, _, _ := Step(quiet, Event{Kind: Truce, At: now}, nil)
	if _, out, _ := Step(over, next, nil); len(out) != 2 || out[0].Do != SendAdvert {
		t.Errorf("after the truce: %v", out)
	}
}
