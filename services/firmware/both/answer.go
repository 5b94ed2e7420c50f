package both

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"ballast/image/layout"
	"ballast/services/firmware/pairing"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

// Pair is the verb by which peer hands over what the other box says.
func (b *Both) Pair(ctx context.Context, _ ipc.Peer, body json.RawMessage) (any, error) {
	var a pairing.Answer
	m, err := pairing.DecodeMessage(body)
	if err == nil {
		a, err = b.answer(ctx, m)
	}
	switch {
	case errors.Is(err, pairing.ErrLate):
		a.Late = true
	case err != nil:
		a.Refused = err.Error()
	}
	out, err := a.Encode()
	return status.PeerMessage{Body: out}, err
}

func (b *Both) answer(ctx context.Context, m pairing.Message) (pairing.Answer, error) {
	switch m.Kind {
	case pairing.KindLook, pairing.KindOrder:
		return b.hear(ctx, m)
	case pairing.KindDrive:
		own, err := b.report(ctx)
		if err == nil {
			err = b.drive(m.Record, own)
		}
		return pairing.Answer{}, err
	case pairing.KindLoad:
		return pairing.Answer{}, b.load(ctx, m)
	case pairing.KindPiece, pairing.KindEnd, pairing.KindDrop:
		b.mu.Lock()
		t := b.transfer
		b.mu.Unlock()
		if t == nil || t.id != m.Load {
			return pairing.Answer{}, errors.New("this transfer is over")
		}
		return t.take(ctx, m)
	case pairing.KindAsk:
		return pairing.Answer{}, b.ask(ctx, m.Ask, m.By)
	}
	return pairing.Answer{}, fmt.Errorf("%q is not known to the firmware that runs here: upgrade this box by itself", string(m.Kind))
}

// hear takes what the box that drives says, and does what it orders.
func (b *Both) hear(ctx context.Context, m pairing.Message) (a pairing.Answer, err error) {
	own, err := b.report(ctx)
	if err != nil {
		return a, err
	}
	b.mu.Lock()
	n := b.node
	if m.Record != nil {
		id, seq, was, stopped := n.ID, n.Seq, n.Phase, n.Stopped
		if err := n.Hear(m.Record, own); err != nil {
			b.mu.Unlock()
			return a, err
		}
		if n.ID != id || n.Seq != seq {
			b.waiting = ""
			if err := b.keep(); err != nil {
				b.mu.Unlock()
				return a, err
			}
			if n.Phase != was || n.Stopped != stopped || n.ID != id {
				b.journal(n.Record)
			}
		}
		if m.Kind == pairing.KindLook {
			b.waiting = m.Waiting
			n.Issue(own, rand.Text())
		}
	}
	var do pairing.Order
	if m.Kind == pairing.KindOrder {
		do, err = n.Told(m.Order, m.Ticket, own)
	}
	by := n.By
	b.mu.Unlock()
	b.nudge()
	b.o.Box.Changed()
	a.Report = own
	if err != nil || do == "" {
		return a, err
	}
	// What was said is done, whatever becomes of the connection.
	if why := b.obey(context.WithoutCancel(ctx), do, pairing.Look{}, by); why != "" {
		return a, errors.New(why)
	}
	return a, nil
}

// drive makes this box the one that drives.
func (b *Both) drive(r *pairing.Record, own *pairing.Report) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	before := b.node.Machine
	if err := b.node.Drive(r, own); err != nil {
		return err
	}
	if err := b.keep(); err != nil {
		b.node.Machine = before
		return err
	}
	b.journal(b.node.Record)
	b.nudge()
	return nil
}

// Ask is the verb of a user who wants to continue or to abort.
func (b *Both) Ask(ctx context.Context, _ ipc.Peer, body json.RawMessage) (any, error) {
	var q status.FirmwarePairAsk
	if err := json.Unmarshal(body, &q); err != nil {
		return nil, fmt.Errorf("firmware: upgrade-pair-ask: %w", err)
	}
	if _, err := b.report(ctx); err != nil {
		return nil, err
	}
	b.mu.Lock()
	known, drives := b.node.ID != "", b.node.Drives()
	driver := b.node.Boxes[1]
	b.mu.Unlock()
	switch {
	case !known:
		return nil, errors.New("no upgrade of the pair is known here: \"upgrade pair\" begins one")
	case drives:
		return nil, b.ask(ctx, q.Ask, q.By)
	}
	a, err := b.tell(ctx, pairing.Message{Kind: pairing.KindAsk, Ask: q.Ask, By: q.By}, orderBound)
	switch {
	case err == nil && a.Refused != "":
		return nil, fmt.Errorf("%s: %s", driver, a.Refused)
	case err == nil:
		return nil, nil
	case q.Ask != status.PairAbort:
		return nil, fmt.Errorf("%s, which drives it, does not answer: %w", driver, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.node.Abort(q.By); err != nil {
		return nil, err
	}
	b.journal(b.node.Record)
	b.nudge()
	return nil, b.keep()
}

// ask is what a user wants of the box that drives.
func (b *Both) ask(ctx context.Context, what, by string) error {
	b.turn.Lock()
	defer b.turn.Unlock()
	own, err := b.report(ctx)
	if err != nil {
		return err
	}
	b.mu.Lock()
	n := b.node
	rec, drives := n.Record, n.Drives()
	b.mu.Unlock()
	if !drives {
		return errors.New("this box does not drive the upgrade of the pair")
	}
	l := pairing.Look{Now: time.Now(), Own: own}
	if what == status.PairContinue {
		if l.Other, err = b.look(ctx, &rec, ""); err != nil {
			l.Lost = err.Error()
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	before := n.Machine
	switch what {
	case status.PairContinue:
		err = n.Continue(l, by)
	case status.PairAbort:
		err = n.Abort(by)
	default:
		err = fmt.Errorf("%q is not known: continue or abort", what)
	}
	if err == nil {
		if err = b.keep(); err != nil {
			n.Machine = before
		}
	}
	if err == nil {
		b.journal(n.Record)
		b.nudge()
	}
	return err
}

// transfer is a bundle that comes from the other box.
type transfer struct {
	id     string
	pipe   *io.PipeWriter
	cancel context.CancelFunc
	end    chan struct{} // closed when it is written, or not
	idle   *time.Timer

	turn   chan struct{} // one piece at a time
	offset int64

	progress chan status.FirmwareProgress // the last one
	got      layout.Identity
	err      error
}

// load begins a transfer.
func (b *Both) load(ctx context.Context, m pairing.Message) error {
	own, err := b.report(ctx)
	switch {
	case err != nil:
		return err
	case m.Load == "":
		return errors.New("the transfer has no name")
	case own.Cannot != "":
		return errors.New(own.Cannot)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.node.Goes():
		return errors.New("an upgrade of the pair is under way: see \"show firmware\"")
	case b.loading:
		return errors.New("somebody sends a firmware to this box at the moment: try again when that is over")
	}
	if t := b.transfer; t != nil {
		if t.id == m.Load {
			return nil
		}
		t.drop(errors.New("another transfer began"))
	}
	r, w := io.Pipe()
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	t := &transfer{id: m.Load, pipe: w, cancel: cancel, end: make(chan struct{}), turn: make(chan struct{}, 1), progress: make(chan status.FirmwareProgress, 1)}
	t.idle = time.AfterFunc(2*pieceBound, func() { t.drop(errors.New("the other box sends no more")) })
	b.transfer = t
	release := b.o.Hold()
	go func() {
		defer release()
		defer close(t.end)
		arg := status.FirmwareUpgrade{Source: "peer", Older: m.Older, NoReboot: true, By: m.By}
		t.got, t.err = b.o.Box.Write(life, r, arg, t.note)
		r.CloseWithError(t.err)
		t.idle.Stop()
		cancel()
	}()
	return nil
}

func (t *transfer) note(p status.FirmwareProgress) {
	select {
	case <-t.progress:
	default:
	}
	select {
	case t.progress <- p:
	default:
	}
}

func (t *transfer) drop(why error) {
	t.pipe.CloseWithError(why)
	t.cancel()
}

// take does what a message wants of the transfer.
func (t *transfer) take(ctx context.Context, m pairing.Message) (a pairing.Answer, err error) {
	select {
	case t.turn <- struct{}{}:
		defer func() { <-t.turn }()
	case <-ctx.Done():
		return a, ctx.Err()
	}
	select {
	case p := <-t.progress:
		a.Step, a.Done, a.Total = p.Step, p.Done, p.Total
	default:
	}
	t.idle.Reset(2 * pieceBound)
	switch m.Kind {
	case pairing.KindDrop:
		t.drop(errors.New("the other box gave up"))
		return a, nil
	case pairing.KindEnd:
		t.pipe.Close()
		select {
		case <-t.end:
		case <-ctx.Done():
			return a, ctx.Err()
		}
		if t.err != nil {
			return a, t.err
		}
		select { // what came with the last bytes
		case p := <-t.progress:
			a.Step, a.Done, a.Total = p.Step, p.Done, p.Total
		default:
		}
		a.Loaded = &t.got
		return a, nil
	}
	if m.Offset+int64(len(m.Payload)) == t.offset {
		return a, nil // the answer got lost
	}
	if m.Offset != t.offset {
		return a, fmt.Errorf("a piece from byte %d where %d was due", m.Offset, t.offset)
	}
	stop := context.AfterFunc(ctx, func() { t.drop(errors.New("a piece broke off")) })
	defer stop()
	n, err := t.pipe.Write(m.Payload)
	t.offset += int64(n)
	if err != nil {
		<-t.end
		if t.err != nil {
			err = t.err
		}
	}
	return a, err
}
