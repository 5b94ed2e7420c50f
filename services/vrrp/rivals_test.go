package vrrp

import (
	"net/netip"
	"testing"
	"time"

	"ballast/configs/model"
	"ballast/services/vrrp/heartbeat"
)

// Which third routers keep us from the place of a dead peer, and for how long.
func TestRivals(t *testing.T) {
	third := netip.MustParseAddr("192.0.2.9")
	const every = time.Second
	for name, c := range map[string]struct {
		priority uint8         // of the third one; the peer has 150, we 100
		silent   time.Duration // since its last advertisement
		left     bool          // that was one of priority 0
		want     bool
	}{
		"worse than we":                                {90, 0, false, false},
		"between, just heard":                          {120, 0, false, true},
		"between, a backup since":                      {120, 9 * time.Minute, false, true},
		"between, forgotten":                           {120, 11 * time.Minute, false, false},
		"better than the peer":                         {200, 5 * every, false, true},
		"better than the peer, but does not come back": {200, 11 * every, false, false},
		"between, said that it left":                   {120, 0, true, false},
	} {
		peer := heartbeat.NewPeer(1, 10*time.Millisecond, 3, 0, func() uint64 { return 7 })
		r := &router{s: &service{now: time.Hour}, src: netip.MustParseAddr("192.0.2.2")}
		r.cfg = model.Instance{VRID: 1}
		r.st.Effective = 100
		r.s.mate = &mate{s: r.s, peer: peer}
		m := heartbeat.Message{Interval: 10 * time.Millisecond, Epoch: 99, Seq: 1, Table: 1, Records: []heartbeat.Record{{
			Key: r.key, Phase: heartbeat.Master, Priority: 150, Source: netip.MustParseAddr("192.0.2.1"),
		}}}
		var ours heartbeat.Message
		peer.Stamp(&ours, 1)
		m.Echo = ours.Challenge
		if v := peer.Heard(0, r.s.now, &m); v != heartbeat.Accepted {
			t.Fatalf("verdict %d", v)
		}
		r.noteRival(third, c.priority, every)
		if c.left {
			r.noteRival(third, 0, every)
		}
		r.s.now += c.silent
		if got := r.outranked(); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
