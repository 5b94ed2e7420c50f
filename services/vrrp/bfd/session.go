package bfd

import "time"

// Config is one session.
type Config struct {
	MinTx, MinRx time.Duration // as desired and required; > 0
	IdleTx       time.Duration // between packets while not up
	Multiplier   int           // 1..255
	Passive      bool          // silent until the neighbour is heard
	Local        uint32        // our discriminator, not 0
}

// Session is the state of one session (RFC 5880 section 6.8.1). Times are on
// the caller's monotonic scale.
type Session struct {
	Cfg    Config
	State  State
	Diag   Diag
	Remote State
	Since  time.Duration

	remote       uint32 // discriminator
	remoteMinRx  time.Duration
	remoteMinTx  time.Duration
	remoteMult   int
	remoteDemand bool
	heard        bool
	poll         bool          // a poll sequence is under way
	activeTx     time.Duration // the interval before a longer one that is not yet confirmed
	activeRx     time.Duration
	tx           time.Duration // next packet; 0: none
	lastRx       time.Duration
	detectAt     time.Duration // 0: not running
	lenient      bool
}

// Kind of an event.
type Kind uint8

// Events.
const (
	Start   Kind = iota
	Control      // Packet came, received by the kernel at RxAt
	Timer        // Deadline is over
	Admin        // the session ends
)

// Event is what happened. At is now.
type Event struct {
	Kind   Kind
	At     time.Duration
	RxAt   time.Duration
	Packet Packet
	Jitter float64 // 0..1, drawn by the caller for the packet that may follow
}

// Send is a packet to be sent; the caller sends it at once.
type Send struct {
	Do     bool
	Packet Packet
}

// Step does one event. It tells of a change of state by the new one's State.
func Step(s Session, ev Event) (Session, Send) {
	before := s.State
	var out Send
	switch ev.Kind {
	case Start:
		s = Session{Cfg: s.Cfg, State: Down, Since: ev.At, Remote: Down, remoteMinRx: time.Microsecond}
		s.activeTx, s.activeRx = s.desiredTx(), s.Cfg.MinRx
		if !s.Cfg.Passive {
			s.tx = ev.At + s.spread(ev.Jitter)
		}
	case Control:
		out = s.control(ev)
	case Timer:
		out = s.timer(ev)
	case Admin:
		s.State, s.Diag = AdminDown, AdminDiag
		out = s.packet(false)
		s.tx, s.detectAt = 0, 0
	}
	if s.State != before {
		s.Since = ev.At
	}
	return s, out
}

// desiredTx is the interval that we ask for: slow while there is no session
// (RFC 5880 section 6.8.3).
func (s *Session) desiredTx() time.Duration {
	if s.State == Up {
		return s.Cfg.MinTx
	}
	return max(s.Cfg.IdleTx, time.Second)
}

// Interval is the time between our packets, before jitter.
func (s *Session) Interval() time.Duration { return max(s.activeTx, s.remoteMinRx) }

// Detect is the detection time (RFC 5880 section 6.8.4).
func (s *Session) Detect() time.Duration {
	return time.Duration(s.remoteMult) * max(s.activeRx, s.remoteMinTx)
}

// spread is an interval less 0 to 25 %, at most 10 % less of it left with a
// multiplier of 1 (RFC 5880 section 6.8.7).
func (s *Session) spread(jitter float64) time.Duration {
	low, high := 0.75, 1.0
	if s.Cfg.Multiplier == 1 {
		high = 0.9
	}
	return time.Duration(float64(s.Interval()) * (high - jitter*(high-low)))
}

// Deadline is when Timer is due; 0: never.
func (s *Session) Deadline() time.Duration {
	switch {
	case s.tx == 0:
		return s.detectAt
	case s.detectAt == 0:
		return s.tx
	}
	return min(s.tx, s.detectAt)
}

// DetectAt is when the neighbour is called dead; 0: it is not waited for.
func (s *Session) DetectAt() time.Duration { return s.detectAt }

func (s *Session) packet(final bool) Send {
	return Send{true, Packet{
		Diag: s.Diag, State: s.State, Poll: s.poll && !final, Final: final, Multiplier: uint8(s.Cfg.Multiplier),
		Mine: s.Cfg.Local, Yours: s.remote, MinTx: s.desiredTx(), MinRx: s.Cfg.MinRx,
	}}
}

// enter changes the state. New intervals are agreed on by a poll sequence; a
// longer one counts only when the neighbour has confirmed it (section 6.8.3).
func (s *Session) enter(to State, d Diag) {
	if s.State == to {
		return
	}
	s.State, s.Diag = to, d
	want := s.desiredTx()
	if want != s.activeTx {
		s.poll = true
		if want < s.activeTx || to != Up {
			s.activeTx = want
		}
	}
	if to == Down {
		s.poll = false
	}
}

// control is RFC 5880 section 6.8.6, from where the session is found.
func (s *Session) control(ev Event) (out Send) {
	p := &ev.Packet
	if s.State == AdminDown {
		return out
	}
	s.remote, s.Remote, s.remoteDemand = p.Mine, p.State, p.Demand
	s.remoteMinRx, s.remoteMinTx, s.remoteMult = p.MinRx, p.MinTx, int(p.Multiplier)
	if p.Final && s.poll {
		s.poll = false
		s.activeTx = s.desiredTx()
	}
	s.heard, s.lenient, s.lastRx = true, false, min(ev.RxAt, ev.At)
	before := s.State
	switch {
	case p.State == AdminDown:
		if s.State != Down {
			s.enter(Down, NeighborSaidDown)
		}
	case s.State == Down && p.State == Down:
		s.enter(Init, NoDiag)
	case s.State == Down && p.State == Init, s.State == Init && p.State >= Init:
		s.enter(Up, NoDiag)
	case s.State == Up && p.State == Down:
		s.enter(Down, NeighborSaidDown)
	}
	if s.remoteMult > 0 && s.Detect() > 0 {
		s.detectAt = s.lastRx + s.Detect()
	}
	switch {
	case p.Poll:
		out = s.packet(true)
	case s.State != before:
		out = s.packet(false) // the neighbour need not wait for our slow interval
	}
	next := ev.At + s.spread(ev.Jitter)
	switch {
	case s.remoteMinRx == 0 && s.State == Up: // it wants none (section 6.8.7)
		s.tx = 0
	case s.tx == 0, out.Do && !p.Poll, s.tx > next:
		s.tx = next
	}
	return out
}

// timer is the end of the detection time, or the next packet. Our own lateness
// is not the neighbour's death: one that slept over the end listens for half a
// detection time more, once.
func (s *Session) timer(ev Event) (out Send) {
	if s.detectAt != 0 && ev.At >= s.detectAt {
		switch late := ev.At - s.detectAt; {
		case late > s.Detect()/2 && !s.lenient:
			s.lenient = true
			s.detectAt = ev.At + s.Detect()/2
		default:
			s.detectAt, s.remote, s.Remote, s.heard = 0, 0, Down, false
			s.remoteMinRx = time.Microsecond
			if s.State != Down {
				s.enter(Down, TimeExpired)
				out = s.packet(false)
				s.tx = ev.At + s.spread(ev.Jitter)
			}
			if s.Cfg.Passive {
				s.tx = 0
			}
		}
	}
	if s.tx != 0 && ev.At >= s.tx {
		out = s.packet(false)
		s.tx = ev.At + s.spread(ev.Jitter)
	}
	return out
}
