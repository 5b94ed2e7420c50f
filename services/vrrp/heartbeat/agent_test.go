package heartbeat

import (
	"net/netip"
	"testing"
	"time"
)

// TestPeerForgetsTheRouterDuringAHandOver: its process starts anew, or gets
// another configuration. Who was to leave leaves by the protocol; who only made
// room for a better one stays.
func TestPeerForgetsTheRouterDuringAHandOver(t *testing.T) {
	now := time.Hour
	for name, c := range map[string]struct {
		begin func(*Agent)
		want  Do
	}{
		"asked":  {func(a *Agent) { a.Ask(0, now) }, LetGo},
		"yields": {func(a *Agent) { a.Yield(0, now) }, Stay},
	} {
		views := []View{{Key: Key{VRID: 1}, Phase: Master, Source: netip.MustParseAddr("192.0.2.1")}}
		peer, _ := pair(now)
		peer.Up, peer.Last = true, now
		peer.learn(&Record{Key: views[0].Key, Phase: Master}, 0)
		var a Agent
		a.Reset(views)
		c.begin(&a)
		if got := a.Decide(now+ms, views, peer, nil); len(got) != 0 {
			t.Errorf("%s: %+v while the peer works on it", name, got)
		}
		peer.forget()
		got := a.Decide(now+2*ms, views, peer, nil)
		if len(got) != 1 || got[0].Do != c.want || !a.Idle() {
			t.Errorf("%s: %+v, idle %v, want %d", name, got, a.Idle(), c.want)
		}
	}
}

// TestOldAnswer: a heartbeat was late, the master's kernel answered, and then it
// died. Its answer must not count for the silence that followed.
func TestOldAnswer(t *testing.T) {
	for _, dies := range []bool{true, false} {
		start := time.Hour
		source := netip.MustParseAddr("192.0.2.2")
		views := []View{{Key: Key{VRID: 1}, Phase: Backup, Master: source, Ready: true}}
		peer, _ := pair(start)
		peer.Up, peer.Last, peer.Since = true, start, start
		peer.Paths[0].Up, peer.Paths[0].Last = true, start
		peer.learn(&Record{Key: views[0].Key, Phase: Master, Source: source}, 0)
		var a Agent
		a.Reset(views)
		asked, taken := 0, time.Duration(0)
		for now := start + ms; now < start+200*ms; now += ms {
			peer.Expire(now, 0)
			for _, act := range a.Decide(now, views, peer, nil) {
				switch act.Do {
				case Probe:
					if asked++; peer.Up || !dies {
						a.Alive(0)
					}
				case TakeOver:
					if taken == 0 {
						taken = now - start
					}
				}
			}
		}
		switch {
		case dies && (taken == 0 || taken > 50*ms):
			t.Errorf("it dies after it has answered: taken over after %v, %d probes", taken, asked)
		case !dies && taken != 0:
			t.Errorf("its kernel answers: taken over after %v", taken)
		case !dies && asked > 4:
			t.Errorf("its kernel answers: asked %d times", asked)
		}
	}
}
