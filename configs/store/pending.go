package store

import (
	"fmt"
	"time"
)

// Pending says that the running generation runs until it is confirmed. It lies
// in the pointer to that generation, so that no power cut can part the two. The
// end of the time is told by two clocks: that of the kernel, which nobody sets,
// counts in the boot that it belongs to, and the wall clock after another one,
// as far as it can be believed.
type Pending struct {
	Generation uint64        `json:"generation"` // the running one
	Back       uint64        `json:"back"`       // the one that runs again otherwise
	Author     string        `json:"author,omitempty"`
	Window     time.Duration `json:"window"` // the time that there was at first
	Boot       string        `json:"boot"`   // boot that Ends belongs to
	Ends       time.Duration `json:"ends"`   // since that boot
	Until      time.Time     `json:"until"`  // the same by the wall clock
	Left       time.Duration `json:"left"`   // of the time when this was written
	Starts     int           `json:"starts"` // of the service since the commit
}

// Rest is how much of the time is left: boot and since are the boot of now and
// its age. After another boot the wall clock says it, which a box without a
// battery has wrong: it can only shorten what was left when the mark was
// written.
func (p Pending) Rest(boot string, since time.Duration, now time.Time) time.Duration {
	rest := p.Ends - since
	if p.Boot == "" || p.Boot != boot {
		rest = p.Until.Sub(now)
	}
	return max(0, min(rest, p.Left))
}

// Pending is the mark of the running generation, nil for none.
func (s *Store) Pending() *Pending {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ptr.Pending == nil {
		return nil
	}
	p := *s.ptr.Pending
	return &p
}

// SetUnconfirmed is SetRunning for a generation that has to be confirmed: both
// are on the disk when it returns, or neither is.
func (s *Store) SetUnconfirmed(p Pending) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.metas[p.Back]
	if s.back() == p.Back {
		ok = true // damaged or not, that is settled
	}
	if !ok || p.Back == p.Generation {
		return fmt.Errorf("generation %d to go back to: %w", p.Back, ErrNone)
	}
	return s.setRunning(p.Generation, &p)
}

// Confirm removes the mark.
func (s *Store) Confirm() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ptr.Pending == nil {
		return nil
	}
	p := s.ptr
	p.Pending = nil
	return s.writePointer(p)
}

// back is the generation that must not be pruned because what runs may have to
// go back to it; 0: none. Called with mu held.
func (s *Store) back() uint64 {
	if s.ptr.Pending == nil {
		return 0
	}
	return s.ptr.Pending.Back
}
