package vrrp

import (
	"testing"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc/status"
	"ballast/services/vrrp/core"
)

// TestResignationOutlivesItsHandOver: a commit takes the heartbeat away while a
// master waits for the peer's answer. What the operator asked for holds.
func TestResignationOutlivesItsHandOver(t *testing.T) {
	for _, c := range []struct {
		name  string
		how   leaving
		phase core.Phase
		held  bool
	}{
		{"resigned", leaveHeld, core.Backup, true},
		{"yields", leaveYield, core.Master, false},
		{"beside another", leaveBeside, core.Master, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := newService(newLogger(), func(*status.VRRP) {})
			if err != nil {
				t.Fatal(err)
			}
			defer s.close()
			r := newRouter(s, &model.Instance{Name: "VI_1", VRID: 1, Version: 3, Priority: 100, AdvertInt: time.Second})
			s.routers = []*router{r}
			cfg := r.core
			r.step(core.Event{Kind: core.Start, Cfg: &cfg, Priority: 100, Adopt: true})
			if r.st.Phase != core.Master {
				t.Fatalf("phase %s", r.st.Phase)
			}
			s.mate = &mate{s: s}
			if c.held {
				s.held["VI_1"] = "test"
			}
			r.step(core.Event{Kind: core.Truce, Until: s.now + time.Hour})
			r.leaving = c.how
			s.setHeartbeat(nil)
			if r.st.Phase != c.phase || r.st.Held != c.held || r.leaving != stayHere || r.st.TruceUntil != 0 {
				t.Errorf("phase %s, held %v, leaving %d, truce until %s", r.st.Phase, r.st.Held, r.leaving, r.st.TruceUntil)
			}
		})
	}
}
