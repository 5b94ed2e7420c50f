package both

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"ballast/image/bundle"
	"ballast/image/layout"
	"ballast/services/firmware/pairing"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

// Upgrade is the verb that takes a bundle for both boxes and begins. What it answers is a row
// of status.FirmwarePairProgress, one a line, until the upgrade is over or this box
// reboots.
func (b *Both) Upgrade(ctx context.Context, _ ipc.Peer, s *ipc.Stream) error {
	var arg status.FirmwareUpgrade
	if err := json.Unmarshal(s.Argument, &arg); err != nil {
		return fmt.Errorf("firmware: upgrade-pair: %w", err)
	}
	out := &rows{to: s}
	id, err := b.begin(ctx, arg, s.In, out)
	if err != nil {
		return err
	}
	return b.follow(ctx, id, out)
}

// rows are what a user gets to see.
type rows struct {
	mu sync.Mutex
	to io.Writer
}

func (r *rows) put(p status.FirmwarePairProgress) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if raw, err := json.Marshal(p); err == nil {
		r.to.Write(append(raw, '\n')) // a user who went away stops nothing
	}
}

func (r *rows) say(format string, args ...any) {
	r.put(status.FirmwarePairProgress{Text: fmt.Sprintf(format, args...)})
}

// begin plans, writes both idle slots and has the second box drive.
func (b *Both) begin(ctx context.Context, arg status.FirmwareUpgrade, in io.Reader, out *rows) (id string, err error) {
	own, err := b.report(ctx)
	if err != nil {
		return "", err
	}
	b.mu.Lock()
	switch {
	case b.node.Goes():
		err = errors.New("an upgrade of the pair is under way: see \"show firmware\"")
	case b.loading || b.transfer != nil && !b.transfer.over():
		err = errors.New("somebody sends a firmware to this pair at the moment: try again when that is over")
	default:
		b.loading = true
	}
	b.mu.Unlock()
	if err != nil {
		return "", err
	}
	defer func() {
		b.mu.Lock()
		b.loading = false
		b.mu.Unlock()
	}()
	peer, err := b.look(ctx, nil, "")
	if err != nil {
		return "", fmt.Errorf("the pair is not upgraded, nothing has changed: the other box does not answer: %w: see \"show peer\"", err)
	}
	id = rand.Text()
	request := pairing.Request{ID: id, By: arg.By, Now: time.Now(), Here: *own, Peer: *peer}
	rec, _, err := pairing.Plan(request)
	if err != nil {
		return "", err
	}
	out.say("%s reboots first, then %s; both slots are written now", rec.Boxes[0], rec.Boxes[1])
	if len(rec.Names) > 0 && !(own.Heartbeat && peer.Heartbeat) {
		out.say("note: the boxes hear no heartbeat of each other: at the switchover nobody is master for VRRP's skew time, a part of a second")
	}
	err = b.o.Box.Open(ctx, arg, in, func(r io.Reader) error {
		rec.To, err = b.write(ctx, id, arg, r, own, peer, out)
		return err
	})
	if err != nil {
		return "", err
	}
	out.say("both boxes hold %s, checked", rec.To.Version)
	// What has changed meanwhile is a reason not to begin.
	if own, err = b.report(ctx); err == nil {
		peer, err = b.look(ctx, nil, "")
	}
	if err != nil {
		return "", fmt.Errorf("nothing reboots: %w", err)
	}
	request.Now, request.Here, request.Peer = time.Now(), *own, *peer
	to := rec.To
	rec, second, err := pairing.Plan(request)
	if err != nil {
		return "", err
	}
	rec.To = to
	if second {
		return id, b.drive(&rec, own)
	}
	a, err := b.tell(ctx, pairing.Message{Kind: pairing.KindDrive, Record: &rec}, orderBound)
	switch {
	case err != nil:
		return "", fmt.Errorf("%s was told to drive the upgrade and has not answered: see \"show firmware\" there: %w", rec.Boxes[1], err)
	case a.Refused != "":
		return "", fmt.Errorf("nothing reboots: %s: %s", rec.Boxes[1], a.Refused)
	}
	return id, nil
}

// write sends the bundle into the idle slots of both boxes at once, but of one
// that runs it already.
func (b *Both) write(ctx context.Context, id string, arg status.FirmwareUpgrade, in io.Reader, own, peer *pairing.Report, out *rows) (to layout.Identity, err error) {
	var head bytes.Buffer
	m, _, err := bundle.Peek(io.TeeReader(in, &head))
	if err != nil {
		return to, err
	}
	in = io.MultiReader(&head, in)
	here, there := own.Running != m.Identity, peer.Running != m.Identity
	if !here && !there {
		return to, fmt.Errorf("both boxes run %s already", m.Version)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var remote *sender
	if there {
		if remote, err = b.send(ctx, id, arg, out, peer.Box); err != nil {
			return to, err
		}
		in = io.TeeReader(in, remote)
	}
	var local layout.Identity
	if here {
		arg.NoReboot = true
		local, err = b.o.Box.Write(ctx, in, arg, func(p status.FirmwareProgress) {
			out.put(status.FirmwarePairProgress{Box: own.Box, Step: p.Step, Done: p.Done, Total: p.Total})
		})
	} else {
		// It is checked by the other box, which alone does something with it.
		_, err = io.CopyN(io.Discard, in, int64(head.Len())+m.Size())
		if errors.Is(err, io.EOF) {
			err = errors.New("the transfer broke off")
		}
		local = m.Identity
	}
	if remote == nil {
		return local, err
	}
	if err != nil {
		if why := remote.drop(ctx); why != nil {
			err = why // what it refused ended it here too
		}
		return to, fmt.Errorf("nothing reboots: %w", err)
	}
	got, err := remote.end(ctx)
	switch {
	case err != nil:
		return to, fmt.Errorf("nothing reboots: %w", err)
	case got != local:
		return to, fmt.Errorf("nothing reboots: %s holds %s and %s %s", own.Box, local.Version, peer.Box, got.Version)
	}
	return got, nil
}

// sender brings a bundle to the other box while it is written here.
type sender struct {
	b      *Both
	id     string
	box    string
	out    *rows
	pieces chan []byte
	done   chan struct{} // closed when no piece is sent any more
	err    error         // why not, before done is closed
	piece  []byte
	closed bool
}

func (b *Both) send(ctx context.Context, id string, arg status.FirmwareUpgrade, out *rows, box string) (*sender, error) {
	a, err := b.tell(ctx, pairing.Message{Kind: pairing.KindLoad, Load: id, Older: arg.Older, By: arg.By}, orderBound)
	if err == nil && a.Refused != "" {
		err = errors.New(a.Refused)
	}
	if err != nil {
		return nil, fmt.Errorf("nothing reboots: %s: %w", box, err)
	}
	s := &sender{b: b, id: id, box: box, out: out, pieces: make(chan []byte, 2), done: make(chan struct{})}
	go func() {
		defer close(s.done)
		offset := int64(0)
		for p := range s.pieces {
			if s.err != nil {
				continue
			}
			s.err = s.tell(ctx, pairing.Message{Kind: pairing.KindPiece, Load: id, Offset: offset, Payload: p}, pieceBound)
			offset += int64(len(p))
		}
	}()
	return s, nil
}

// tell sends one message of the transfer.
func (s *sender) tell(ctx context.Context, m pairing.Message, bound time.Duration) error {
	a, err := s.b.tell(ctx, m, bound)
	if err == nil && a.Refused != "" {
		err = errors.New(a.Refused)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", s.box, err)
	}
	s.progress(a)
	return nil
}

// progress tells how far the other box is.
func (s *sender) progress(a pairing.Answer) {
	if a.Total > 0 {
		s.out.put(status.FirmwarePairProgress{Box: s.box, Step: a.Step, Done: a.Done, Total: a.Total})
	}
}

// Write implements io.Writer. It never fails: what the other box refuses is told
// at the end, so that the slot here is whole all the same.
func (s *sender) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		k := min(len(p), pairing.MaxPiece-len(s.piece))
		s.piece = append(s.piece, p[:k]...)
		p = p[k:]
		if len(s.piece) == pairing.MaxPiece {
			s.pieces <- s.piece
			s.piece = nil
		}
	}
	return n, nil
}

// flush sends what is left and waits until it has arrived.
func (s *sender) flush() error {
	if !s.closed {
		s.closed = true
		if len(s.piece) > 0 {
			s.pieces <- s.piece
		}
		close(s.pieces)
	}
	<-s.done
	return s.err
}

// end waits until the other box has written and checked everything.
func (s *sender) end(ctx context.Context) (layout.Identity, error) {
	if err := s.flush(); err != nil {
		return layout.Identity{}, err
	}
	a, err := s.b.tell(ctx, pairing.Message{Kind: pairing.KindEnd, Load: s.id}, endBound)
	switch {
	case err == nil && a.Refused != "":
		err = errors.New(a.Refused)
	case err == nil && a.Loaded == nil:
		err = errors.New("it does not say what it holds now")
	}
	if err != nil {
		return layout.Identity{}, fmt.Errorf("%s: %w", s.box, err)
	}
	s.progress(a)
	return *a.Loaded, nil
}

// drop gives up. What the other box refused before is returned.
func (s *sender) drop(ctx context.Context) error {
	err := s.flush()
	s.b.tell(context.WithoutCancel(ctx), pairing.Message{Kind: pairing.KindDrop, Load: s.id}, lookBound)
	return err
}

// over reports whether a transfer is written, or given up.
func (t *transfer) over() bool {
	select {
	case <-t.end:
		return true
	default:
		return false
	}
}

// follow tells a user how it goes on, until it is over or this box goes down.
func (b *Both) follow(ctx context.Context, id string, out *rows) error {
	last, began := "", time.Now()
	tick := time.NewTicker(b.o.Every / 5) // the session has a moment only to say that the box goes down
	defer tick.Stop()
	for {
		st := b.State()
		switch {
		case st == nil || st.ID != id:
			// The box that drives has not spoken yet.
			if time.Since(began) > orderBound {
				return errors.New("the other box was told to drive the upgrade, and has not been heard since: see \"show firmware\" there")
			}
		case st.Done:
			out.say("done: both boxes run %s", st.To.Version)
			return nil
		case st.Stopped != "":
			return fmt.Errorf("stopped while %s: %s; %s", st.Doing, st.Stopped, st.Sequel)
		default:
			text := st.Doing
			switch {
			case st.Silent != "":
				text += ": " + st.Silent
			case st.Waiting != "":
				text += ": " + st.Waiting
			}
			if text != last {
				last = text
				out.say("%s", text)
			}
		}
		var own pairing.Report
		if b.o.Box.Fill(&own); own.Going {
			out.say("this box reboots now, which ends this session; the upgrade goes on by itself: see \"show firmware\" on either box")
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
