// Package core decides. It is the state machine of one virtual router (RFC 9568
// section 6.4, with the differences that keepalived has and its users rely on)
// as one pure function:
//
//	Step(state, event) (state, effects, reason)
//
// There is no clock, socket or logger here. Time enters in events, on a
// monotonic scale of the caller's; timers leave as effects and come back as
// events. That is what lets a test run years of partitions, drifts and crashes
// in seconds.
package core

import (
	"fmt"
	"net/netip"
	"time"
)

// Phase is the state of a virtual router.
type Phase uint8

// Phases. Fault is keepalived's: the router may not take part.
const (
	Init Phase = iota
	Backup
	Master
	Fault
)

func (p Phase) String() string { return [...]string{"INIT", "BACKUP", "MASTER", "FAULT"}[p] }

// Config is what the machine needs to know of an instance. It is immutable: a
// change is a new Config in a Configure event.
type Config struct {
	Version      int           // 2 or 3
	Addr         netip.Addr    // own source address, which breaks ties
	Priority     uint8         // base; 255: address owner
	AdvertInt    time.Duration // > 0
	DownAdverts  int           // down_timer_adverts, >= 1
	NoPreempt    bool
	PreemptDelay time.Duration
	// Learn is how long it listens, after a start or a fault, before it preempts a
	// master that serves: until the kernel has been told of the connections. 0: none
	// are synchronised.
	Learn   time.Duration
	Unicast bool
	Grouped bool // member of a sync group: mastership is asked for, not taken

	GARPDelay           time.Duration // to the second burst; 0: none
	GARPRepeat          int
	GARPRefresh         time.Duration // 0: off
	GARPRefreshRepeat   int
	GARPLowerPrioDelay  time.Duration
	GARPLowerPrioRepeat int

	LowerPrioNoAdvert    bool
	HigherPrioSendAdvert bool
}

// Timer names one of a router's timers.
type Timer uint8

// Timers. Each runs at most once at a time.
const (
	TimerDown      Timer = iota // the master is dead
	TimerAdvert                 // next advertisement
	TimerGARP                   // second burst
	TimerRefresh                // garp_master_refresh
	TimerLowerPrio              // garp_lower_prio_delay
	Timers         = iota
)

// State is all that the machine remembers. Compare it with ==.
type State struct {
	Cfg       *Config
	Phase     Phase
	Effective uint8 // priority after trackers
	Held      bool  // resigned by the operator: backup, whatever happens
	Want      bool  // grouped, and its own timer says master

	MasterAdvert   time.Duration // interval of the master that we listen to
	MasterAddr     netip.Addr    // last router heard as master; ourselves as master
	MasterPriority uint8
	LastAdvert     time.Duration // when the last accepted advertisement came
	Heard          bool          // LastAdvert is valid
	PreemptAt      time.Duration // end of preempt_delay
	Preempting     bool          // PreemptAt is valid
	LearnUntil     time.Duration // end of Learn
	Since          time.Duration // of the phase
	Lenient        bool          // the last down timer was late and got one interval more

	Ties uint8 // how often its group gave up mastership

	// The address owner heard another one that is bound to yield.
	Stepped    bool          // it did not, so this one counts as 254 until it is silent
	RogueLast  time.Duration // when it was heard last
	RogueUntil time.Duration // when patience with it ends; 0: there is none

	DownAt       time.Duration // when the down timer ends
	Heeded       netip.Addr    // whose advertisement set it; invalid: nobody's
	HeededWeight uint8         // that one's priority

	TruceWith  netip.Addr    // the other side of a change of places
	TruceUntil time.Duration // 0: no truce
	Quiet      bool          // the other side advertises, this one does not
}

// Kind of an event.
type Kind uint8

// Events.
const (
	Start       Kind = iota // Adopt: this router was master before its process died
	Advert                  // a checked advertisement of another router
	Expired                 // timer Timer, due at Due
	SetFault                // Faulty: something holds the router in FAULT
	Effective               // new effective Priority
	Configure               // new Config; Addrs: the list of virtual addresses changed
	Hold                    // Held: give up mastership and stay backup, or take part again
	GroupMaster             // the sync group goes master
	GroupBackup             // the sync group goes backup
	Stop                    // the router ends
	TakeOver                // the master From is dead, gone or asks for it: Why, After, Until (0: no truce)
	Truce                   // master: no contest with From until Until (0: it is over); Quiet: it advertises
)

// Event is what happened. At is now; the other fields belong to kinds.
type Event struct {
	Kind Kind
	At   time.Duration

	From      netip.Addr    // Advert: source
	Priority  uint8         // Advert, Effective, Start
	AdvertInt time.Duration // Advert: the sender's interval
	RxAt      time.Duration // Advert: when the kernel received it, <= At

	Timer Timer
	Due   time.Duration

	Faulty bool
	Held   bool
	Adopt  bool
	Addrs  bool
	Delay  time.Duration // Start: vrrp_startup_delay
	Cfg    *Config       // Start, Configure

	Until time.Duration // TakeOver, Truce
	Quiet bool          // Truce
	Why   Code          // TakeOver: PeerDead, PeerLeft or PeerAsked
	After time.Duration // TakeOver, PeerDead: how long the peer was silent
}

// Do names an effect.
type Do uint8

// Effects, to be done in the order in which they come.
const (
	SendAdvert Do = iota // with Priority
	SetTimer             // Timer at At
	StopTimer            // Timer
	AddVIPs              // add addresses and routes that are missing
	RemoveVIPs
	Announce         // N rounds of gratuitous ARP or neighbour advertisements for all VIPs
	AnnounceSelf     // one for the own source address
	SawLowerPriority // tell notify: MASTER_RX_LOWER_PRI
	AskGroup         // ask the sync group whether it may go master
)

// Effect is one thing to do.
type Effect struct {
	Do       Do
	Timer    Timer
	At       time.Duration
	N        int
	Priority uint8
}

// Code says why a state changed, or what is worth a line in the log.
type Code uint8

// Reasons.
const (
	Nothing Code = iota
	Started
	OwnerStarted
	Adopted
	NoAdvert
	NoAdvertEver
	MasterResigned
	HigherPriority
	HigherAddress
	LowerPriority
	SameAddress
	SecondOwner
	OwnerYields
	FaultEntered
	FaultLeft
	OperatorHold
	OperatorResume
	GroupWentMaster
	GroupWentBackup
	OwnTimerLate
	LateListens
	PreemptWait
	PreemptLearn
	PreemptStop
	Stopped
	PeerDead
	PeerLeft
	PeerAsked
)

// Reason is the why of a step. Nothing is the zero value. It is formatted only
// by String, so that a step allocates nothing.
type Reason struct {
	Code     Code
	From     netip.Addr
	Priority uint8
	Ours     uint8
	After    time.Duration
}

func (r Reason) String() string {
	switch r.Code {
	case Started:
		return fmt.Sprintf("started, listening for %s", round(r.After))
	case OwnerStarted:
		return "started as address owner (priority 255)"
	case Adopted:
		return "was master before its process restarted, virtual addresses still in place"
	case NoAdvert:
		return fmt.Sprintf("no advertisement from %s for %s", r.From, round(r.After))
	case NoAdvertEver:
		return fmt.Sprintf("no advertisement from any router for %s", round(r.After))
	case MasterResigned:
		return fmt.Sprintf("%s resigned (priority 0)", r.From)
	case HigherPriority:
		return fmt.Sprintf("advertisement from %s with higher priority %d, ours %d", r.From, r.Priority, r.Ours)
	case HigherAddress:
		return fmt.Sprintf("advertisement from %s with our priority %d and the higher address", r.From, r.Priority)
	case LowerPriority:
		return fmt.Sprintf("advertisement from %s with lower priority %d, ours %d", r.From, r.Priority, r.Ours)
	case SameAddress:
		return fmt.Sprintf("advertisement from another router with our own address %s and priority %d", r.From, r.Priority)
	case SecondOwner:
		return fmt.Sprintf("advertisement from %s, which says that it owns the addresses too (priority 255)", r.From)
	case OwnerYields:
		return fmt.Sprintf("%s says that it owns the addresses too (priority 255) and does not yield, counting as 254 until it is silent", r.From)
	case FaultEntered:
		return "fault"
	case FaultLeft:
		return "nothing holds it in fault any more"
	case OperatorHold:
		return "resigned by the operator"
	case OperatorResume:
		return "resumed by the operator"
	case GroupWentMaster:
		return "its sync group went master"
	case GroupWentBackup:
		return "its sync group went backup"
	case OwnTimerLate:
		return fmt.Sprintf("own timer %s late, a backup may have taken over; listening", round(r.After))
	case LateListens:
		return fmt.Sprintf("own timer %s late, listening one interval more before taking over", round(r.After))
	case PreemptWait:
		return fmt.Sprintf("%s has lower priority %d, ours %d; preempting after %s", r.From, r.Priority, r.Ours, round(r.After))
	case PreemptLearn:
		return fmt.Sprintf("%s has lower priority %d, ours %d; preempting after %s, when connections are synchronised", r.From, r.Priority, r.Ours, round(r.After))
	case PreemptStop:
		return fmt.Sprintf("%s has priority %d, ours %d; not preempting", r.From, r.Priority, r.Ours)
	case Stopped:
		return "stopped"
	case PeerDead:
		return fmt.Sprintf("heartbeat of master %s lost for %s, and nothing answers at its address", r.From, round(r.After))
	case PeerLeft:
		return fmt.Sprintf("master %s said by heartbeat that it no longer is one", r.From)
	case PeerAsked:
		return fmt.Sprintf("master %s asked to be relieved", r.From)
	}
	return ""
}

func round(d time.Duration) time.Duration {
	switch {
	case d >= time.Second:
		return d.Round(10 * time.Millisecond)
	case d >= 10*time.Millisecond:
		return d.Round(time.Millisecond)
	}
	return d.Round(time.Microsecond)
}

// Skew is Skew_Time (RFC 9568 section 6.1; version 2: RFC 3768 section 6.1) in
// full precision. Only priority 255 comes near zero, and even that keeps 1/256.
func Skew(version int, priority uint8, masterAdvert time.Duration) time.Duration {
	if version == 2 {
		masterAdvert = time.Second
	}
	return time.Duration(256-int(priority)) * masterAdvert / 256
}

// Patience is until when a backup lets a master of a lower priority go on; 0: there
// is no such master. learns: because it does not know the connections yet.
func (s State) Patience() (until time.Duration, learns bool) {
	if s.Phase != Backup || !s.Preempting {
		return 0, false
	}
	if s.Cfg.PreemptDelay > 0 {
		until = s.PreemptAt
	}
	if s.Cfg.Learn > 0 && s.LearnUntil > until && s.Cfg.Priority != 255 { // the owner waits for nobody
		return s.LearnUntil, true
	}
	return until, false
}

// MasterDown is the current master-down interval.
func (s State) MasterDown() time.Duration {
	return time.Duration(s.Cfg.DownAdverts)*s.MasterAdvert + s.skew()
}

func (s State) skew() time.Duration {
	return Skew(s.Cfg.Version, s.Effective, s.MasterAdvert)
}
