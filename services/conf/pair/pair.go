// Package pair is the protocol by which two boxes commit one configuration: on
// both or on none. It is the pure part: no clock, no socket, no disk. The box on
// which somebody commits is the coordinator, the other one the participant.
//
// The coordinator has its own services and the other box agree, has the other
// box apply, applies itself, and then decides by one write to its disk: that the
// new generation is the running one. Before that write nothing is committed,
// after it everything is. A participant that loses its coordinator asks; when
// it gets no answer for Bound it puts back what ran, and goes on asking.
package pair

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"time"
)

// Txn names one commit of a pair; empty: none.
type Txn string

// NewTxn makes a name that no other commit has.
func NewTxn() Txn {
	var b [16]byte
	rand.Read(b[:]) // never fails
	return Txn(hex.EncodeToString(b[:]))
}

// Valid reports whether t is a name as NewTxn makes it.
func (t Txn) Valid() bool {
	b, err := hex.DecodeString(string(t))
	return err == nil && len(b) == 16
}

// Outcome is how a step of the coordinator ended.
type Outcome uint8

// Outcomes.
const (
	OK Outcome = iota
	Refused
	Lost // no answer: it may have happened or not
)

// Step is what the coordinator is to do next.
type Step uint8

// Steps, in their order when nothing fails.
const (
	PrepareHere Step = iota // ask the own services, and store
	PreparePeer
	ApplyPeer
	ApplyHere
	Decide // make the stored generation the running one on the disk
	TellCommit
	End

	DropHere // forget what was stored; it did not run
	UndoHere // put back what ran before
	TellAbort
)

var stepNames = [...]string{"prepare here", "prepare the peer", "apply on the peer", "apply here", "decide", "tell the peer to keep it",
	"end", "drop here", "undo here", "tell the peer to go back"}

func (s Step) String() string { return stepNames[s] }

// Coordinator is one commit on the box where somebody asked for it. The zero
// value is at its begin.
type Coordinator struct {
	step    Step
	decided bool
	behind  bool
}

// Step is what to do now.
func (c *Coordinator) Step() Step { return c.step }

// Decided reports whether the commit has taken place.
func (c *Coordinator) Decided() bool { return c.decided }

// Behind reports that the commit has taken place, and the peer has not said that
// it knows.
func (c *Coordinator) Behind() bool { return c.behind }

// Next takes how the step ended.
func (c *Coordinator) Next(o Outcome) {
	switch c.step {
	case PrepareHere:
		c.step = either(o, PreparePeer, End)
	case PreparePeer:
		c.step = either(o, ApplyPeer, DropHere)
	case ApplyPeer:
		c.step = either(o, ApplyHere, DropHere)
	case ApplyHere:
		c.step = either(o, Decide, UndoHere)
	case Decide:
		c.decided = o == OK
		c.step = either(o, TellCommit, UndoHere)
	case TellCommit:
		c.behind = o != OK
		c.step = End
	case DropHere, UndoHere:
		c.step = TellAbort
	case TellAbort:
		c.step = End // a peer that did not hear it asks
	}
}

func either(o Outcome, good, bad Step) Step {
	if o == OK {
		return good
	}
	return bad
}

// Verdict is what a coordinator answers to a participant that asks.
type Verdict uint8

// Verdicts. Of a commit that nobody remembers nothing was decided: a decision is
// on the disk before anybody hears of it.
const (
	Aborted Verdict = iota
	Undecided
	Committed
	Superseded // committed, and something else since
)

var verdictNames = [...]string{"aborted", "undecided", "committed", "superseded"}

func (v Verdict) String() string { return verdictNames[v] }

// Judge answers for commit t of a box on which commit open is under way, where
// the running generation came by commit running, and which remembers commits
// that it decided.
func Judge(t, open, running Txn, remembers func(Txn) bool) Verdict {
	switch {
	case t == "":
		return Aborted
	case t == open:
		return Undecided
	case t == running:
		return Committed
	case remembers(t):
		return Superseded
	}
	return Aborted
}

// Phase is how far a participant is.
type Phase uint8

// Phases.
const (
	Idle     Phase = iota
	Prepared       // agreed and stored; nothing has changed yet
	Applied        // runs, not yet for good
	Late           // what ran before runs again, and the coordinator may have decided otherwise
)

var phaseNames = [...]string{"idle", "prepared", "applied", "late"}

func (p Phase) String() string { return phaseNames[p] }

// Record is what a participant keeps on its disk.
type Record struct {
	Txn        Txn    `json:"txn,omitempty"`
	Phase      Phase  `json:"phase,omitempty"`
	Generation uint64 `json:"generation,omitempty"` // stored, in doubt
	Before     string `json:"before,omitempty"`     // content that ran before
	// Confirm is how long it waits to be confirmed once it runs; 0: it need not.
	Confirm time.Duration `json:"confirm,omitempty"`
}

// How long a participant waits.
const (
	AskAfter = 3 * time.Second  // of silence, then it asks
	Bound    = 60 * time.Second // of silence, then it goes back
)

// Act is what a participant is to do.
type Act uint8

// Acts.
const (
	Nothing Act = iota
	Finish      // it runs: for good now
	Drop        // forget what was stored
	Undo        // put back what ran before
	Redo        // apply what was stored, for good
	Forget      // the doubt is over, what runs stays
	Ask         // ask the coordinator
	GiveUp      // put back what ran before, and go on asking
)

var actNames = [...]string{"nothing", "finish", "drop", "undo", "redo", "forget", "ask", "give up"}

func (a Act) String() string { return actNames[a] }

// Participant is the other side.
type Participant struct{ Record }

// Booted takes over the record of the run before: what was not for good does
// not run after a start.
func Booted(r Record) Participant {
	if r.Phase == Prepared || r.Phase == Applied {
		r.Phase = Late
	}
	return Participant{r}
}

// Held reports whether a commit of the coordinator is under way here, so that
// nothing else may change.
func (p *Participant) Held() bool { return p.Phase == Prepared || p.Phase == Applied }

// MayPrepare says why a commit cannot begin here.
func (p *Participant) MayPrepare(t Txn) error {
	switch {
	case !t.Valid():
		return fmt.Errorf("a commit without a proper name")
	case p.Phase != Idle:
		return fmt.Errorf("it still waits for the outcome of an earlier commit; try again in some seconds")
	}
	return nil
}

// Prepared is called when everything agreed and is stored; the record must be
// on the disk before the coordinator hears of it.
func (p *Participant) Prepared(r Record) {
	p.Record = r
	p.Phase = Prepared
}

// MayApply says why a commit cannot be applied here.
func (p *Participant) MayApply(t Txn) error {
	if p.Phase != Prepared || p.Txn != t {
		return fmt.Errorf("it knows nothing of this commit any longer")
	}
	return nil
}

// Applied is called when it runs here.
func (p *Participant) Applied() { p.Phase = Applied }

// Hears takes the coordinator's word on t, asked for or not. runs is the content
// that runs here.
func (p *Participant) Hears(t Txn, v Verdict, runs string) Act {
	if p.Phase == Idle || p.Txn != t || v == Undecided {
		return Nothing
	}
	switch {
	case v == Committed && p.Phase == Applied:
		return Finish
	case v == Committed && p.Phase == Prepared:
		return Redo
	case v == Committed && runs == p.Before:
		return Redo // nobody has committed anything here since
	case p.Phase == Late:
		return Forget
	case p.Phase == Applied:
		return Undo
	}
	return Drop
}

// Tick says what is due when the coordinator has not been heard for silence.
func (p *Participant) Tick(silence time.Duration) Act {
	switch {
	case p.Phase == Idle:
		return Nothing
	case p.Phase == Late:
		return Ask
	case silence >= Bound:
		return GiveUp
	case silence >= AskAfter:
		return Ask
	}
	return Nothing
}

// WentBack is called when what ran before runs again without the coordinator's
// word.
func (p *Participant) WentBack() { p.Phase = Late }

// Over is called when the doubt is.
func (p *Participant) Over() { p.Record = Record{} }
