package pairing

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// Node is the part of one box in upgrades of its pair: it drives when it is the
// second box of the one that is kept, and does what it is told when it is the
// first. It is not for use by two goroutines.
type Node struct {
	Machine        // of the record; it steps on the second box only
	box     string // name of this one

	silent time.Duration // since the second box was heard
	heard  bool

	ticket string        // of the last report to the second box
	age    time.Duration // of it
}

// ErrLate is of an order that was too long on its way, or that was given before
// something that is known by now: what it was right for may be over.
var ErrLate = errors.New("the order comes too late")

// tickets last this long.
const ticketLife = 5 * time.Second

// Issue puts a ticket into a report for the second box: an order counts only with
// the last one, and not for long. Clocks of boxes need not agree, and what was
// stuck in a socket does no harm when it arrives.
func (n *Node) Issue(r *Report, ticket string) {
	n.ticket, n.age = ticket, 0
	r.Ticket = ticket
}

// NewNode takes over what this box, called box, has kept. A Record of nothing is
// one.
func NewNode(box string, r Record) *Node { return &Node{Machine: Machine{Record: r}, box: box} }

// Called takes over the name of this box, which a commit may change, and which is
// another one until the first configuration of a boot runs.
func (n *Node) Called(box string) { n.box = box }

// Drives reports whether this box is the second one of the upgrade that it knows.
func (n *Node) Drives() bool { return n.ID != "" && n.Boxes[1] == n.box }

// Busy reports whether there is something to do or to watch.
func (n *Node) Busy(own *Report) bool {
	return n.Goes() || own != nil && own.Resigned == By
}

// Silence is what there is to tell when the second box should be heard and is not.
func (n *Node) Silence() string {
	limit := silence + 5*time.Second
	switch {
	case n.Drives() || !n.Goes() || !n.heard && n.silent < silence:
		return ""
	case n.Phase == Second:
		limit = trialBound + settleBound
	}
	if n.silent < limit {
		return ""
	}
	return fmt.Sprintf("%s, which drives it, has not been heard for %v: it stands still; \"show firmware\" there says where", n.Boxes[1], n.silent.Round(time.Second))
}

// Tick is the passing of time. What has changed in the record (its Seq) must be
// kept before anything of what is to be done is done.
func (n *Node) Tick(l Look) []Order {
	if n.Drives() {
		return n.Step(l)
	}
	n.silent += l.Elapsed
	n.age += l.Elapsed
	// The second box made this one resign and went away itself: now this one is
	// all there is.
	if l.Own != nil && l.Own.Resigned == By && !l.Own.Going && (n.silent > noSilence || !n.Goes()) {
		return []Order{ResumeOwn}
	}
	return nil
}

// Hear takes the record of the second box, on the first one.
func (n *Node) Hear(r *Record, own *Report) error {
	switch {
	case r == nil || r.ID == "":
		return errors.New("the message tells of no upgrade")
	case r.Boxes[0] != n.box:
		return fmt.Errorf("the upgrade is of %s and %s, this is %s", r.Boxes[0], r.Boxes[1], n.box)
	case n.Drives() && n.Goes() && n.ID != r.ID:
		return errors.New("this box drives another upgrade of the pair")
	case n.ID == r.ID && n.Aborted && !r.Aborted:
		return errors.New(n.Stopped)
	case n.ID == r.ID && r.Seq < n.Seq:
		return errors.New("the message is older than one that came before")
	case n.ID != r.ID && n.ID != "" && r.Began.Before(n.Began):
		return errors.New("the message is of an upgrade before the last one")
	}
	if n.ID != r.ID || r.Seq > n.Seq {
		n.Record = *r
	}
	n.silent, n.heard = 0, true
	return nil
}

// Told says whether the first box may do what the second one tells it to do, and
// what that is. ErrLate is no refusal: a newer order may come.
func (n *Node) Told(o Order, ticket string, own *Report) (Order, error) {
	switch {
	case own == nil:
		return "", errors.New("its own services do not answer")
	case o != ResumeOther && (ticket == "" || ticket != n.ticket || n.age > ticketLife):
		return "", ErrLate
	}
	switch o {
	case ResumeOther:
		if own.Resigned == By && !own.Going {
			return ResumeOwn, nil
		}
		return "", nil
	case ResignOther:
		if !n.Goes() || n.Phase != Yield {
			return "", fmt.Errorf("it is not the time for that: %s", n.Phase)
		}
		if own.Resigned == "" {
			return ResignOwn, nil
		}
		return "", nil
	case TrialOther:
		switch list := own.masters(); {
		case !n.Goes() || n.Phase != First:
			return "", fmt.Errorf("it is not the time for that: %s", n.Phase)
		case own.Boot != n.Boots[0]:
			return "", nil // it has: the word is older than the reboot
		case own.Going:
			return "", nil
		case own.Cannot != "":
			return "", errors.New(own.Cannot)
		case len(list) > 0:
			return "", fmt.Errorf("it is master of %s", list[0])
		case own.Pending:
			return "", errors.New("its configuration waits to be confirmed")
		case own.Loaded != n.To:
			return "", fmt.Errorf("its idle slot does not hold %s", n.To.Version)
		}
		return TrialOwn, nil
	}
	return "", fmt.Errorf("%q is not known here", o)
}

// Drive makes this box the one that drives an upgrade which was begun on the
// other one, or here.
func (n *Node) Drive(r *Record, own *Report) error {
	switch {
	case r == nil || r.ID == "" || r.Phase != Yield || r.Stopped != "" || r.Boxes[0] == r.Boxes[1]:
		return errors.New("the message tells of no upgrade that begins")
	case r.Boxes[1] != n.box:
		return fmt.Errorf("%s is to drive, this is %s", r.Boxes[1], n.box)
	case n.Goes() && n.ID != r.ID:
		return errors.New("another upgrade of the pair is under way: see \"show firmware\"")
	case own == nil:
		return errors.New("its own services do not answer")
	case own.Boot != r.Boots[1]:
		return errors.New("it has rebooted meanwhile")
	case own.Loaded != r.To && own.Running != r.To:
		return fmt.Errorf("its idle slot does not hold %s", r.To.Version)
	case n.ID == r.ID:
		return nil // the answer got lost
	}
	n.Machine = Machine{Record: *r}
	n.Names = slices.Clone(r.Names)
	n.silent, n.heard = 0, false
	return nil
}
