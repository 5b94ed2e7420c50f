package firmware

import (
	"fmt"
	"time"

	"ballast/image/bootenv"
	"ballast/image/layout"
	"ballast/services/ipc/status"
)

// facts are what tells of the last upgrade when the service starts.
type facts struct {
	slot    layout.Slot // that runs
	onTrial bool        // as the boot loader said
	env     bootenv.Env
	envErr  error
	boot    string
	now     time.Time
	running status.FirmwareIdentity
	last    *status.FirmwareEvent // the newest one that is recorded
	word    *Word                 // what init wrote when it ended a trial
}

// resolved is what becomes of them.
type resolved struct {
	trial bool                  // what runs has to prove itself
	event *status.FirmwareEvent // to be recorded
	fresh bool                  // it is a new one
	env   *bootenv.Env          // to be written
}

// outcome decides what has become of the last upgrade.
func outcome(f facts) (r resolved) {
	open := f.last != nil && f.last.Verdict == ""
	trying := f.envErr == nil && f.onTrial && f.env.Try == f.slot
	decide := func(verdict, reason string) {
		e := *f.last
		e.Verdict, e.Reason, e.Decided = verdict, reason, f.now
		r.event = &e
	}
	switch {
	case trying && open && string(f.slot) == f.last.Slot:
		r.trial = true
	case trying: // the record of it is lost with the data, or it is of a slot that somebody set by hand
		r.trial, r.fresh = true, true
		r.event = &status.FirmwareEvent{Time: f.now, Kind: "start", By: "nobody known", Slot: string(f.slot), To: f.running, Boot: f.boot}
	case open && f.last.Boot == f.boot:
		// The reboot is still to come.
	case open && string(f.slot) == f.last.Slot && (f.envErr != nil || f.env.Try != f.slot):
		if f.envErr == nil && f.env.Good == f.slot {
			decide(status.VerdictConfirmed, "the power went while that was written down")
		} else {
			decide(status.VerdictFailed, "the boot loader started it, but not on trial: its state was lost")
		}
	case open && string(f.slot) == f.last.Slot: // by the boot menu: nothing is decided by that
	case open:
		decide(why(f))
		if f.envErr == nil && f.env.Try != layout.None {
			e := f.env.Reject()
			r.env = &e
		}
	case f.envErr == nil && f.env.Try != layout.None && f.env.Try != f.slot:
		e := f.env.Reject() // of a trial that nobody here knows of
		r.env = &e
	}
	return r
}

// why says what became of a firmware on trial, seen from the other slot.
func why(f facts) (verdict, reason string) {
	switch {
	case f.word.about(*f.last):
		return status.VerdictRejected, f.word.Reason
	case f.last.Reason != "": // written by the trial itself before it gave up
		return status.VerdictRejected, f.last.Reason
	case f.envErr != nil:
		return status.VerdictFailed, fmt.Sprintf("the state of the boot loader is damaged (%v)", f.envErr)
	case f.env.Try == layout.None:
		return status.VerdictRejected, "it ended before it wrote down why"
	case f.env.Left == 0:
		return status.VerdictFailed, fmt.Sprintf("%d starts of it ended before it was confirmed: by a panic, a hang (the watchdog) or a power cut; \"show crash\" may tell", layout.TrialAttempts)
	case f.env.Left == layout.TrialAttempts:
		return status.VerdictFailed, "it was not started: its slot cannot be read, or another one was chosen in the boot menu"
	}
	return status.VerdictFailed, "a start of it ended before it was confirmed, and another slot was chosen or could be read alone"
}
