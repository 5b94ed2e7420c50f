package firmware

import (
	"context"
	"errors"
	"io"
	"time"

	"ballast/image/layout"
	"ballast/services/firmware/both"
	"ballast/services/firmware/pairing"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

// pairBox is what package both wants of this box.
type pairBox struct{ s *service }

// newBoth is this box's part in upgrades of its pair.
func (s *service) newBoth(env *ipc.Env) *both.Both {
	b := both.New(both.Options{Dir: env.Dir, Data: env.Data, Log: env.Log, Box: pairBox{s}, Hold: s.hold, Every: time.Second, BootID: s.boot})
	s.server.Handle("pair", b.Pair, ipc.UIDPeer)
	s.server.HandleStream("upgrade-pair", b.Upgrade, ipc.GroupAdmin)
	s.server.Handle("upgrade-pair-ask", b.Ask, ipc.GroupAdmin)
	return b
}

// Fill implements both.Box.
func (p pairBox) Fill(r *pairing.Report) {
	s := p.s
	trial := s.trialOn()
	s.mu.Lock()
	defer s.mu.Unlock()
	r.Running, r.Slot, r.Cannot, r.Trial = s.running, s.slot, s.cannot, trial && !s.over
	r.Going = r.Going || s.going
	if s.trial != nil {
		r.Missing = join(s.trial.Missing)
	}
	if other, ok := s.slots[s.slot.Other()]; ok && other.Error == "" {
		r.Loaded = layout.Identity(other.Identity)
	}
	if last := s.last(); last != nil && (last.Verdict == status.VerdictRejected || last.Verdict == status.VerdictFailed) {
		r.Verdict = verdictLine(*last)
	}
}

// Open implements both.Box.
func (p pairBox) Open(ctx context.Context, arg status.FirmwareUpgrade, sent io.Reader, take func(r io.Reader) error) error {
	return p.s.open(ctx, arg.Source, sent, quiet, take)
}

func quiet(string, ...any) error { return nil }

// Write implements both.Box.
func (p pairBox) Write(ctx context.Context, r io.Reader, arg status.FirmwareUpgrade, progress func(status.FirmwareProgress)) (layout.Identity, error) {
	s := p.s
	if !s.busy.TryLock() {
		return layout.Identity{}, errBusy
	}
	defer s.busy.Unlock()
	release := s.hold()
	defer release()
	if err := s.able(ctx); err != nil {
		return layout.Identity{}, err
	}
	if s.trialOn() {
		return layout.Identity{}, s.errTrial()
	}
	return s.load(ctx, r, arg, quiet, func(p status.FirmwareProgress) error {
		progress(p)
		return nil
	})
}

// Try implements both.Box.
func (p pairBox) Try(ctx context.Context, by string) error {
	s := p.s
	if !s.busy.TryLock() {
		return errBusy
	}
	defer s.busy.Unlock()
	s.mu.Lock()
	going, next := s.going, s.slots[s.slot.Other()]
	s.mu.Unlock()
	switch {
	case going:
		return nil
	case s.trialOn():
		return s.errTrial()
	case next.Error != "" || next.Identity.Version == "":
		return s.errEmpty(next)
	}
	if err := s.try(ctx, status.FirmwareEvent{Kind: "upgrade", By: by, Source: "pair", To: next.Identity}); err != nil {
		return err
	}
	s.reboot()
	return nil
}

// Changed implements both.Box.
func (p pairBox) Changed() { p.s.publish() }

// errPair is told to who wants to change the firmware of one box meanwhile.
var errPair = errors.New("the pair is being upgraded: \"show firmware\" shows how far it is, \"upgrade pair abort\" ends it")

// pairGoes reports whether an upgrade of the pair goes on.
func (s *service) pairGoes() bool {
	if s.both == nil {
		return false
	}
	st := s.both.State()
	return st != nil && st.Goes
}
