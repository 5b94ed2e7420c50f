package pairing

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"ballast/image/layout"
)

// Request is what a user asks for.
type Request struct {
	ID   string
	By   string
	Now  time.Time
	Here Report // of the box where it was asked for
	Peer Report // of the other one
}

// Plan says in which order both boxes are to be rebooted, or why nothing may
// begin: all reasons at once. second is whether the box where it was asked for is
// the one that reboots last, and drives: the one that is master of more.
func Plan(q Request) (r Record, second bool, err error) {
	here, peer := &q.Here, &q.Peer
	var no []string
	refuse := func(format string, args ...any) { no = append(no, fmt.Sprintf(format, args...)) }
	for _, b := range []*Report{here, peer} {
		switch {
		case b.Speaks < 1:
			refuse("%s: its firmware knows nothing of upgrades of a pair: upgrade it by itself", b.Box)
			continue
		case b.Cannot != "":
			refuse("%s: %s", b.Box, b.Cannot)
		case b.Slot == layout.None:
			refuse("%s: it did not boot from a slot of its disk: \"install DISK\" there puts it on one", b.Box)
		case b.Trial:
			refuse("%s: it runs %s on trial%s: wait until that is over, see \"show firmware\"", b.Box, b.Running.Version, because(b.Missing))
		case b.Going:
			refuse("%s: it is on its way down: try again when it is back", b.Box)
		}
		if b.Pending {
			refuse("%s: its configuration waits to be confirmed: \"confirm\" or \"rollback\" first", b.Box)
		}
		if b.Resigned != "" {
			refuse("%s: %s made it resign, it would not take over: \"resume\" there first", b.Box, b.Resigned)
		}
		for _, u := range b.Unsound {
			refuse("%s: %s", b.Box, u)
		}
	}
	if here.Box == peer.Box {
		refuse("both boxes are called %s: give each its own host_name", here.Box)
	}
	if here.Running.Board != peer.Running.Board {
		refuse("%s is a %s, %s a %s: no bundle is for both, upgrade each by itself", here.Box, here.Running.Board, peer.Box, peer.Running.Board)
	}
	if here.Content != peer.Content {
		refuse("the boxes run different configurations: see \"show drift\"")
	}
	var names []string
	for _, i := range here.Instances {
		names = append(names, i.Name)
		other, ok := peer.instance(i.Name)
		switch {
		case !ok:
			refuse("%s is on %s only, it has no other box to go to: configure it on both, or upgrade each box by itself", i.Name, here.Box)
		case i.State == master && other.State == backup || i.State == backup && other.State == master:
		default:
			refuse("%s is %s on %s%s and %s on %s%s: one must be master and the other one backup: see \"explain vrrp\" on both", i.Name, i.State, here.Box, because(i.Fault), other.State, peer.Box, because(other.Fault))
		}
	}
	for _, i := range peer.Instances {
		if _, ok := here.instance(i.Name); !ok {
			refuse("%s is on %s only, it has no other box to go to: configure it on both, or upgrade each box by itself", i.Name, peer.Box)
		}
	}
	if len(no) > 0 {
		return r, false, errors.New("the pair is not upgraded, nothing has changed:\n  " + strings.Join(no, "\n  "))
	}
	boxes := [2]*Report{peer, here}
	if second = len(here.masters()) >= len(peer.masters()); !second {
		boxes = [2]*Report{here, peer}
	}
	// The order of upgrades must not hang on two clocks that agree.
	for _, last := range []time.Time{here.Last, peer.Last} {
		if !q.Now.After(last) {
			q.Now = last.Add(time.Second)
		}
	}
	r = Record{ID: q.ID, Seq: 1, By: q.By, Began: q.Now, Phase: Yield, Names: names, Times: map[Phase]int64{Yield: q.Now.Unix()}}
	for i, b := range boxes {
		r.Boxes[i], r.From[i], r.Boots[i], r.Live[i] = b.Box, b.Running, b.Boot, b.Live
	}
	return r, second, nil
}

// Continue goes on after a stop, from what both boxes are now. It changes nothing
// when it refuses.
func (m *Machine) Continue(l Look, by string) error {
	own, other := l.Own, l.Other
	first, second := m.Boxes[0], m.Boxes[1]
	switch {
	case m.ID == "" || m.Phase == Done:
		return errors.New("no upgrade of the pair has stopped: \"upgrade pair\" begins one")
	case m.Stopped == "":
		return errors.New("the upgrade of the pair goes on: see \"show firmware\"")
	case m.Aborted:
		return errors.New("the upgrade of the pair was aborted: begin a new one")
	case own == nil:
		return fmt.Errorf("the services of %s do not answer: see \"show processes\" there", second)
	case other == nil:
		return fmt.Errorf("%s does not answer: %s", first, l.Lost)
	case other.Speaks < 1:
		return fmt.Errorf("the firmware of %s knows nothing of upgrades of a pair: upgrade it by itself", first)
	}
	for i, r := range [2]*Report{other, own} {
		switch {
		case r.Cannot != "":
			return fmt.Errorf("%s: %s", m.Boxes[i], r.Cannot)
		case r.Trial:
			return fmt.Errorf("%s runs %s on trial%s: wait until that is over, see \"show firmware\"", m.Boxes[i], r.Running.Version, because(r.Missing))
		case r.Going:
			return fmt.Errorf("%s is on its way down: try again when it is back", m.Boxes[i])
		case r.Running != m.To && r.Loaded != m.To:
			return fmt.Errorf("the slots of %s do not hold %s any longer: begin a new upgrade", m.Boxes[i], m.To.Version)
		}
	}
	m.Stopped, m.By = "", by
	m.Boots = [2]string{other.Boot, own.Boot}
	m.packets, m.Times, m.Ended = nil, nil, 0
	switch {
	case !other.runs(m.To):
		m.enter(Yield, l)
	case !own.runs(m.To):
		m.enter(Ready, l)
	default:
		m.enter(Settle, l)
	}
	return nil
}

// Abort ends it: nothing more reboots. A trial that runs ends by itself.
func (m *Machine) Abort(by string) error {
	switch {
	case m.ID == "" || m.Phase == Done || m.Aborted:
		return errors.New("no upgrade of the pair is under way")
	case m.Stopped == "":
		m.stop("aborted by %s", by)
	default:
		m.stop("aborted by %s; it had stopped: %s", by, m.Stopped)
	}
	m.Aborted = true
	return nil
}

// Sequel is what the user may do about an upgrade that has stopped.
func (r *Record) Sequel() string {
	switch {
	case r.Stopped == "":
		return ""
	case r.Aborted:
		return "both boxes run what they ran when it was aborted; \"rollback firmware\" on a box takes it back to its old firmware"
	}
	return "nothing more reboots: \"upgrade pair continue\" goes on from here, \"upgrade pair abort\" ends it"
}

// Doing says in words what the phase is about.
func (r *Record) Doing() string {
	first, second := r.Boxes[0], r.Boxes[1]
	switch r.Phase {
	case Yield:
		return first + " gives up what it is master of"
	case First:
		return first + " boots the new firmware"
	case Ready:
		return first + " gets ready to take over"
	case Switch:
		return first + " takes over"
	case Second:
		return second + " boots the new firmware"
	case Settle:
		return "both boxes find their places"
	}
	return string(r.Phase)
}
