package firmware

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"ballast/image/bootenv"
	"ballast/image/layout"
	"ballast/services/firmware/pairing"
	"ballast/services/ipc/status"
)

// A disk that does not take the state: nothing reboots, and nothing is decided.
func TestStateCannotBeWritten(t *testing.T) {
	bad := errors.New("input/output error")
	s, d, _ := newService(t)
	d.slots[layout.B] = newID
	s.begin(t.Context())
	d.deny = bad
	if _, err := s.verbRollback(t.Context(), ipcPeer, nil); !errors.Is(err, bad) || s.going {
		t.Errorf("rollback: %v, it reboots: %v", err, s.going)
	}
	if e := s.last(); e == nil || e.Verdict != status.VerdictFailed || e.Reason != bad.Error() {
		t.Errorf("history: %+v", e)
	}
	if _, err := s.load(t.Context(), bytes.NewReader(bundled(t, newID, maker)), upgradeWords(), quiet, nil); !errors.Is(err, bad) || d.slots[layout.B] != newID {
		t.Errorf("upgrade: %v, slot B holds %+v", err, d.slots[layout.B])
	}

	s, d, _ = onTrial(t)
	d.deny = bad
	if _, err := s.verbConfirm(t.Context(), ipcPeer, nil); !errors.Is(err, bad) {
		t.Errorf("confirm: %v", err)
	}
	d.deny = nil
	if _, err := s.verbConfirm(t.Context(), ipcPeer, nil); err != nil || d.env != (bootenv.Env{Good: layout.B}) {
		t.Errorf("confirm once more: %v, %+v", err, d.env)
	}
}

// Of two decisions over a trial the first one counts.
func TestDecidedOnce(t *testing.T) {
	s, d, b := onTrial(t)
	if err := s.confirm("it does its job"); err != nil {
		t.Fatal(err)
	}
	if err := s.reject("too late"); !errors.Is(err, errDecided) || d.env != (bootenv.Env{Good: layout.B}) || s.last().Verdict != status.VerdictConfirmed {
		t.Errorf("%v, %+v, %+v", err, d.env, s.last())
	}
	select {
	case <-b.rebooted:
		t.Error("it reboots")
	default:
	}
}

// Why a trial failed is on the disk before the boot loader is told: the power may
// go between.
func TestReasonIsKeptFirst(t *testing.T) {
	s, d, b := onTrial(t)
	reason := ""
	d.before = func() {
		if list, err := s.records.history(); err == nil {
			reason = list[0].Reason
		}
	}
	if err := s.reject("no VRRP"); err != nil || reason != "no VRRP" {
		t.Errorf("%v, kept: %q", err, reason)
	}
	<-b.rebooted
}

// Who goes away at the last moment has no upgrade.
func TestGivenUp(t *testing.T) {
	s, d, _ := newService(t)
	s.begin(t.Context())
	ctx, cancel := context.WithCancel(t.Context())
	_, err := s.load(ctx, bytes.NewReader(bundled(t, newID, maker)), upgradeWords(), quiet, func(p status.FirmwareProgress) error {
		if p.Step == "verify" {
			cancel()
		}
		return nil
	})
	if err == nil || !strings.Contains(err.Error(), "given up") || d.env != bootenv.Default {
		t.Errorf("%v, %+v", err, d.env)
	}
}

// The box reboots once; when it does not, it may be told again.
func TestReboot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, b := newService(t)
		s.begin(t.Context())
		b.stays = errors.New("init does not answer")
		s.reboot()
		synctest.Wait()
		if err := s.able(t.Context()); err != nil {
			t.Errorf("after a reboot that did not come: %v", err)
		}
		b.stays = nil
		s.reboot()
		s.reboot()
		synctest.Wait()
		<-b.rebooted
	})
}

// unsaid is a box whose conf does not answer.
type unsaid struct{ *fakeBox }

func (unsaid) conf(context.Context) (status.ConfNews, error) {
	return status.ConfNews{}, errors.New("conf does not answer")
}

// A commit that may wait holds an upgrade up as one that does.
func TestCommitNotKnown(t *testing.T) {
	s, d, b := newService(t)
	s.others = unsaid{b}
	s.begin(t.Context())
	before := d.done()
	_, err := upgrade(t, serve(t, s), upgradeWords(), bytes.NewReader(bundled(t, newID, maker)))
	if err == nil || !strings.Contains(err.Error(), "conf does not answer: try again, \"show processes\" tells how conf is") || len(d.done()) != len(before) {
		t.Errorf("%v, %q", err, d.done())
	}
}

// While a trial runs, or once the box is told to reboot, the other box of the
// pair cannot have it begin anew.
func TestPairBoxWaits(t *testing.T) {
	s, d, b := onTrial(t)
	box := pairBox{s}
	if _, err := box.Write(t.Context(), bytes.NewReader(bundled(t, newID, maker)), status.FirmwareUpgrade{}, func(status.FirmwareProgress) {}); err == nil || !strings.Contains(err.Error(), "is itself on trial") {
		t.Errorf("written in a trial: %v", err)
	}
	if err := s.confirm("by ann"); err != nil {
		t.Fatal(err)
	}
	before := d.done()
	s.reboot()
	<-b.rebooted
	if err := box.Try(t.Context(), "ann"); err != nil || len(d.done()) != len(before) {
		t.Errorf("told while it goes down: %v, %q", err, d.done())
	}

	// A trial that is over is none, though the boot loader does not know it yet.
	s, d, b = onTrial(t)
	d.deny = errors.New("input/output error")
	if err := s.reject("no VRRP"); err != nil {
		t.Fatal(err)
	}
	<-b.rebooted
	var r pairing.Report
	if (pairBox{s}).Fill(&r); r.Trial || !strings.Contains(r.Verdict, "no VRRP") {
		t.Errorf("after a trial that failed: %+v", r)
	}
}
