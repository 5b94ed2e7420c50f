package ipc

import "testing"

// shut is a state that only user 7 may see all of.
type shut struct {
	Word string
	less *shut
}

func (s *shut) For(peer Peer) any {
	if peer.UID == 7 {
		return s
	}
	return s.less
}

func (s *shut) Summary() any { return s.Word }

// TestReserved: what one caller got is not given to the next one.
func TestReserved(t *testing.T) {
	s := NewServer("x")
	s.Publish(&shut{Word: "all", less: &shut{Word: "less"}})
	for range 2 {
		for uid, want := range map[uint32]string{7: "all", 8: "less", AnyUID: "less"} {
			if raw, _, _, err := s.snapshot(Peer{UID: uid}); err != nil || string(raw) != `{"Word":"`+want+`"}` {
				t.Errorf("user %d: %s, %v", uid, raw, err)
			}
			if raw, _, _, err := s.summary(Peer{UID: uid}); err != nil || string(raw) != `"`+want+`"` {
				t.Errorf("user %d: summary %s, %v", uid, raw, err)
			}
		}
	}
}
