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
