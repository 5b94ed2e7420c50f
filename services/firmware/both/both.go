// Package both is the upgrade of a pair on a running box: it looks at the own
// services and at the other box, asks package pairing what to do, keeps the
// record, and does it. The service firmware, of which it is a part, writes slots
// and reboots; the service peer carries what the two boxes say to one another.
package both

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"ballast/image/layout"
	"ballast/services/firmware/pairing"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

// Box is what the service firmware does for it.
type Box interface {
	// Fill puts into a report what the service knows of slots, trials and reboots.
	Fill(r *pairing.Report)
	// Open finds the bundle that a user means: what he sends, or what is behind
	// arg.Source.
	Open(ctx context.Context, arg status.FirmwareUpgrade, sent io.Reader, take func(r io.Reader) error) error
	// Write checks a bundle and writes it into the idle slot. It reads the bundle
	// and not a byte more, and starts nothing.
	Write(ctx context.Context, r io.Reader, arg status.FirmwareUpgrade, progress func(status.FirmwareProgress)) (layout.Identity, error)
	// Try reboots the box into the firmware of its idle slot, on trial. It answers
	// before the reboot.
	Try(ctx context.Context, by string) error
	// Changed publishes the state of the service anew.
	Changed()
}

// Options are what New wants to know.
type Options struct {
	Dir    ipc.Dir
	Data   string // folder of the service; empty: nothing is kept
	Log    *slog.Logger
	Box    Box
	Hold   func() (release func()) // keeps the service up; nil: nothing does
	Every  time.Duration           // between looks; 500 ms
	BootID string                  // of this boot of the kernel
	// Services does without some of the box: for tests.
	Services Services
}

// Services are the own box's, but for firmware.
type Services interface {
	// Look puts what they say into a report.
	Look(ctx context.Context, r *pairing.Report) error
	// Resign has VRRP let go of everything, Resume has it take part again.
	Resign(ctx context.Context) error
	Resume(ctx context.Context) error
	// Note puts a transition into the journal of the box; it does not wait for that.
	Note(t status.Transition)
	// Send takes a message to the firmware of the other box.
	Send(ctx context.Context, message []byte) ([]byte, error)
}

// recordFile keeps the record over a reboot.
const recordFile = "pair.json"

// How long something may take.
const (
	lookBound  = 3 * time.Second // a look that took longer tells of another moment
	orderBound = 20 * time.Second
	pieceBound = 60 * time.Second
	endBound   = 150 * time.Second // the other box reads back what it wrote
	tellFor    = time.Hour         // the box that drives tries to say how it ended
)

// Both is one box's part. Make it with New.
type Both struct {
	o    Options
	wake chan struct{}

	mu       sync.Mutex
	node     *pairing.Node // nil: the name of this box is not known yet
	kept     pairing.Record
	waiting  string // on the first box: what the second one waits for
	quiet    bool   // the second box is silent
	transfer *transfer
	loading  bool   // a user sends a bundle for both
	told     uint64 // Seq of the record that the first box has heard
	over     bool   // the upgrade goes on no longer

	turn sync.Mutex // one tick, or one question of a user, at a time
}

// New takes over what was kept.
func New(o Options) *Both {
	if o.Every == 0 {
		o.Every = 500 * time.Millisecond
	}
	if o.Hold == nil {
		o.Hold = func() func() { return func() {} }
	}
	if o.Services == nil {
		o.Services = newServices(o.Dir)
	}
	b := &Both{o: o, wake: make(chan struct{}, 1)}
	if err := b.recall(); err != nil {
		o.Log.Error("the upgrade of the pair: what was kept of it is lost: " + err.Error())
	}
	return b
}

func (b *Both) recall() error {
	if b.o.Data == "" {
		return nil
	}
	raw, err := os.ReadFile(filepath.Join(b.o.Data, recordFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(raw, &b.kept)
	}
	return err
}

// keep writes the record. Called with mu held.
func (b *Both) keep() error {
	if b.o.Data == "" {
		return errors.New("this box has no data disk, and would forget the upgrade in its reboot: upgrade each box by itself")
	}
	raw, err := json.Marshal(b.node.Record)
	if err == nil {
		err = ipc.WriteDurable(filepath.Join(b.o.Data, recordFile), raw)
	}
	if err != nil {
		return fmt.Errorf("the upgrade of the pair cannot be kept: %w", err)
	}
	b.kept = b.node.Record
	return nil
}

// report looks at this box.
func (b *Both) report(ctx context.Context) (*pairing.Report, error) {
	ctx, cancel := context.WithTimeout(ctx, lookBound)
	defer cancel()
	r := &pairing.Report{Speaks: pairing.Speaks, Boot: b.o.BootID}
	if err := b.o.Services.Look(ctx, r); err != nil {
		return nil, err
	}
	b.o.Box.Fill(r)
	if b.o.Data == "" && r.Cannot == "" {
		r.Cannot = "it has no data disk, and would forget the upgrade of the pair in its reboot: upgrade each box by itself"
	}
	b.mu.Lock()
	if b.node == nil {
		b.node = pairing.NewNode(r.Box, b.kept)
	}
	b.node.Called(r.Box)
	r.Last = b.node.Began
	b.mu.Unlock()
	return r, nil
}

// tell says something to the other box.
func (b *Both) tell(ctx context.Context, m pairing.Message, bound time.Duration) (pairing.Answer, error) {
	raw, err := m.Encode()
	if err != nil {
		return pairing.Answer{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	out, err := b.o.Services.Send(ctx, raw)
	if err != nil {
		return pairing.Answer{}, err
	}
	return pairing.DecodeAnswer(out)
}

// look asks the other box how it is. with is the record of the box that drives.
func (b *Both) look(ctx context.Context, with *pairing.Record, waiting string) (*pairing.Report, error) {
	a, err := b.tell(ctx, pairing.Message{Kind: pairing.KindLook, Record: with, Waiting: waiting}, lookBound)
	switch {
	case err != nil:
		return nil, err
	case a.Refused != "":
		return nil, errors.New("refused: " + a.Refused)
	case a.Report == nil:
		return nil, errors.New("it says nothing of itself")
	}
	return a.Report, nil
}

// nudge has Run look now.
func (b *Both) nudge() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// Run does what there is to do until ctx ends.
func (b *Both) Run(ctx context.Context) {
	var release func()
	defer func() {
		if release != nil {
			release()
		}
	}()
	timer := time.NewTimer(0)
	defer timer.Stop()
	last := time.Now()
	var refused map[pairing.Order]string
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-b.wake:
		}
		now := time.Now()
		busy, next := b.tick(ctx, now.Sub(last), refused)
		last, refused = now, next
		switch {
		case busy && release == nil:
			release = b.o.Hold()
		case !busy && release != nil:
			release()
			release = nil
		}
		if busy {
			every := b.o.Every
			if b.isOver() {
				every *= 10
			}
			timer.Reset(every)
		}
	}
}

// isOver reports whether the upgrade goes on no longer.
func (b *Both) isOver() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.over
}

// tick is one look and what follows from it. busy: there is more to come.
func (b *Both) tick(ctx context.Context, elapsed time.Duration, refused map[pairing.Order]string) (busy bool, next map[pairing.Order]string) {
	b.turn.Lock()
	defer b.turn.Unlock()
	own, err := b.report(ctx)
	if err != nil {
		own = nil
	}
	b.mu.Lock()
	n := b.node
	if n == nil {
		busy = b.kept.Goes() // the own services start
		b.mu.Unlock()
		return busy, nil
	}
	drives, rec, waiting := n.Drives(), n.Record, n.Waiting
	b.mu.Unlock()

	l := pairing.Look{Now: time.Now(), Elapsed: elapsed, Own: own, Refused: refused}
	if drives {
		var err error
		if l.Other, err = b.look(ctx, &rec, waiting); err != nil {
			l.Lost = err.Error()
		}
	}
	b.mu.Lock()
	if l.Other != nil {
		b.told = rec.Seq
	}
	was, stopped, seq := n.Phase, n.Stopped, n.Seq
	orders := n.Tick(l)
	if n.Seq != seq {
		if err := b.keep(); err != nil {
			n.Stopped = err.Error()
			orders = nil
		}
	}
	quiet := n.Silence() != ""
	changed := n.Seq != seq || n.Waiting != waiting || quiet != b.quiet
	b.quiet = quiet
	rec = n.Record
	b.over = !n.Goes()
	// The other box has to hear how it ended, if it is there.
	fresh := l.Now.Sub(time.Unix(max(n.Ended, n.Began.Unix()), 0)) < tellFor
	busy = n.Busy(own) || drives && n.ID != "" && fresh && (b.told != n.Seq || !n.Clean(l))
	b.mu.Unlock()
	if rec.Phase != was || rec.Stopped != stopped {
		b.journal(rec)
	}
	if changed {
		b.o.Box.Changed()
	}
	for _, o := range orders {
		if why := b.obey(ctx, o, l, rec.By); why != "" {
			if next == nil {
				next = map[pairing.Order]string{}
			}
			next[o] = why
		}
	}
	return busy, next
}

// journal tells of a phase, or of the end.
func (b *Both) journal(r pairing.Record) {
	text := fmt.Sprintf("upgrade of the pair to %s: ", r.To.Version)
	t := status.Transition{Time: time.Now(), Object: "pair " + r.Boxes[0] + " " + r.Boxes[1], Kind: "upgrade", To: string(r.Phase), Reason: r.Doing()}
	switch {
	case r.Stopped != "":
		t.From, t.To, t.Reason = t.To, "stopped", "while "+r.Doing()+": "+r.Stopped
	case r.Phase == pairing.Done:
		t.Reason = "both boxes run " + r.To.Version
	}
	b.o.Services.Note(t)
	switch {
	case r.Stopped != "":
		b.o.Log.Error(text + fmt.Sprintf("stopped while %s: %s; nothing more reboots", r.Doing(), r.Stopped))
	case r.Phase == pairing.Done:
		b.o.Log.Info(text + "done, both boxes run it")
	default:
		b.o.Log.Info(text + r.Doing())
	}
}

// obey does an order, and says why it was refused.
func (b *Both) obey(ctx context.Context, o pairing.Order, l pairing.Look, by string) string {
	var err error
	switch o {
	case pairing.ResignOwn:
		err = b.o.Services.Resign(ctx)
	case pairing.ResumeOwn:
		err = b.o.Services.Resume(ctx)
	case pairing.TrialOwn:
		err = b.o.Box.Try(ctx, by)
	default:
		b.mu.Lock()
		rec := b.node.Record
		b.mu.Unlock()
		m := pairing.Message{Kind: pairing.KindOrder, Order: o, Record: &rec}
		if l.Other != nil {
			m.Ticket = l.Other.Ticket
		}
		a, err := b.tell(ctx, m, orderBound)
		if err != nil || a.Late {
			return "" // what became of it will be seen
		}
		return a.Refused
	}
	if err != nil {
		b.o.Log.Error(fmt.Sprintf("upgrade of the pair: %s: %v", o, err))
		return err.Error()
	}
	return ""
}

// State is what is known of the upgrade; nil: there never was one.
func (b *Both) State() *status.FirmwarePair {
	b.mu.Lock()
	defer b.mu.Unlock()
	r, waiting, drives, silent := b.kept, b.waiting, false, ""
	if n := b.node; n != nil {
		r, drives = n.Record, n.Drives()
		if drives {
			waiting = n.Waiting
		} else {
			silent = n.Silence()
		}
	}
	if r.ID == "" {
		return nil
	}
	st := &status.FirmwarePair{ID: r.ID, By: r.By, Began: r.Began, To: status.FirmwareIdentity(r.To), Boxes: r.Boxes, Drives: drives, Phase: string(r.Phase),
		Goes: r.Goes(), Done: r.Phase == pairing.Done, Stopped: r.Stopped, Sequel: r.Sequel(), Times: map[string]time.Time{}}
	st.Doing = r.Doing()
	if st.Goes {
		st.Waiting = waiting
	}
	if st.Silent = silent; silent != "" {
		st.Waiting = ""
	}
	for i, f := range r.From {
		st.From[i] = status.FirmwareIdentity(f)
	}
	for p, t := range r.Times {
		st.Times[string(p)] = time.Unix(t, 0)
	}
	return st
}

// Notice is what whoever comes to this box should know; empty: nothing.
func (b *Both) Notice() string {
	st := b.State()
	switch {
	case st == nil || st.Done:
		return ""
	case st.Stopped != "":
		return fmt.Sprintf("the upgrade of the pair to %s stopped while %s: %s; %s", st.To.Version, st.Doing, st.Stopped, st.Sequel)
	case st.Silent != "":
		return fmt.Sprintf("the upgrade of the pair to %s (%s): %s", st.To.Version, st.Doing, st.Silent)
	}
	return fmt.Sprintf("the pair is being upgraded to %s (%s): see \"show firmware\"", st.To.Version, st.Doing)
}
