package pair

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestCoordinator: whatever a step ends in, what follows it.
func TestCoordinator(t *testing.T) {
	whole := []Step{PrepareHere, PreparePeer, ApplyPeer, ApplyHere, Decide, TellCommit}
	for _, o := range []Outcome{Refused, Lost} {
		for i, bad := range append(whole, End) {
			var want []Step
			switch bad {
			case PrepareHere:
			case PreparePeer, ApplyPeer:
				want = []Step{DropHere, TellAbort}
			case ApplyHere, Decide:
				want = []Step{UndoHere, TellAbort}
			}
			if bad == End {
				want = whole
			} else {
				want = append(append([]Step{}, whole[:i+1]...), want...)
			}
			var c Coordinator
			var got []Step
			for c.Step() != End {
				s := c.Step()
				got = append(got, s)
				if s == bad || s == TellAbort || s == UndoHere {
					c.Next(o)
				} else {
					c.Next(OK)
				}
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("%v ends in %d: %s", bad, o, d)
			}
			if decided := bad == End || bad == TellCommit; c.Decided() != decided || c.Behind() != (bad == TellCommit) {
				t.Errorf("%v ends in %d: decided %v, behind %v", bad, o, c.Decided(), c.Behind())
			}
		}
	}
}

// TestParticipant: what each word of the coordinator leads to in each phase.
func TestParticipant(t *testing.T) {
	name := NewTxn()
	for _, tc := range []struct {
		phase Phase
		runs  string // content
		v     Verdict
		want  Act
	}{
		{Idle, "new", Committed, Nothing},
		{Prepared, "old", Committed, Redo}, {Prepared, "old", Aborted, Drop}, {Prepared, "old", Undecided, Nothing}, {Prepared, "old", Superseded, Drop},
		{Applied, "new", Committed, Finish}, {Applied, "new", Aborted, Undo}, {Applied, "new", Undecided, Nothing}, {Applied, "new", Superseded, Undo},
		{Late, "old", Committed, Redo}, {Late, "old", Aborted, Forget}, {Late, "old", Undecided, Nothing}, {Late, "old", Superseded, Forget},
		{Late, "its own", Committed, Forget}, // it was changed meanwhile
	} {
		p := Participant{Record{Txn: name, Phase: tc.phase, Before: "old"}}
		if got := p.Hears(name, tc.v, tc.runs); got != tc.want {
			t.Errorf("%v hears %v: %v, want %v", tc.phase, tc.v, got, tc.want)
		}
		if got := p.Hears(NewTxn(), tc.v, tc.runs); got != Nothing {
			t.Errorf("%v hears of another commit: %v", tc.phase, got)
		}
		wantHeld := tc.phase == Prepared || tc.phase == Applied
		if p.Held() != wantHeld || (p.MayPrepare(NewTxn()) == nil) != (tc.phase == Idle) || (p.MayApply(name) == nil) != (tc.phase == Prepared) {
			t.Errorf("%v: held %v, may prepare %v, may apply %v", tc.phase, p.Held(), p.MayPrepare(NewTxn()), p.MayApply(name))
		}
		if b := Booted(p.Record); wantHeld && b.Phase != Late || !wantHeld && b.Phase != tc.phase {
			t.Errorf("%v boots as %v", tc.phase, b.Phase)
		}
		for silence, want := range map[time.Duration]Act{0: Nothing, AskAfter: Ask, Bound: GiveUp} {
			switch tc.phase {
			case Idle:
				want = Nothing
			case Late:
				want = Ask
			}
			if got := p.Tick(silence); got != want {
				t.Errorf("%v after %v of silence: %v, want %v", tc.phase, silence, got, want)
			}
		}
	}
}

func TestJudge(t *testing.T) {
	known := func(t Txn) bool { return t == "old" }
	for asked, want := range map[Txn]Verdict{"": Aborted, "open": Undecided, "now": Committed, "old": Superseded, "never": Aborted} {
		if got := Judge(asked, "open", "now", known); got != want {
			t.Errorf("%q: %v, want %v", asked, got, want)
		}
	}
	// What is said in a log has a name.
	for _, s := range []fmt.Stringer{End, TellAbort, Late, Superseded, GiveUp} {
		if s.String() == "" {
			t.Errorf("%#v has no name", s)
		}
	}
}
