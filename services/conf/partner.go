package conf

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"ballast/configs/model"
	"ballast/configs/store"
	"ballast/services/conf/pair"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

// partner is what this box knows of the other one, and its side of a commit that
// the other one coordinates.
type partner struct {
	mu     sync.Mutex // guards these; never held while the other box is asked something
	part   pair.Participant
	staged *staged   // what part is about, since this start
	heard  time.Time // the coordinator, last

	look   sync.Mutex      // guards these, for a moment only
	phase  pair.Phase      // of part, as it is on the disk
	doubt  uint64          // generation of part
	wanted map[string]bool // sums of files that were asked for
	open   pair.Txn        // own commit under way
	opened chan struct{}   // closed when open is set; nil: nobody waits for that
	seen   pair.State
	seenAt time.Time // zero: never
	since  time.Time // that lost is what it is
	lost   string    // why the other box does not answer; empty: it does

	contents contents
}

const pairNote = "pair"

// recall takes over what was in doubt when the box stopped.
func (c *conf) recall() {
	b, err := c.store.Note(pairNote)
	var r pair.Record
	if err == nil && b != nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil {
		c.env.Log.Error("configuration store: what was in doubt with the peer is lost: " + err.Error())
		return
	}
	c.pair.part = pair.Booted(r)
	c.pair.phase, c.pair.doubt = c.pair.part.Phase, c.pair.part.Generation
}

// doubtful reports whether a stored generation waits for the other box's word
// and does not run.
func (c *conf) doubtful(n uint64) bool {
	c.pair.look.Lock()
	defer c.pair.look.Unlock()
	return n == c.pair.doubt && c.pair.phase == pair.Late
}

// remember puts the record on the disk. Called with pair.mu held.
func (c *conf) remember() error {
	c.pair.look.Lock()
	c.pair.phase, c.pair.doubt = c.pair.part.Phase, c.pair.part.Generation
	c.pair.look.Unlock()
	b, err := json.Marshal(c.pair.part.Record)
	if err != nil {
		return err
	}
	return c.store.SetNote(pairNote, b)
}

// serve answers a message of the other box. run is the service's own life: what
// is begun here does not end with a connection.
func (c *conf) serve(run context.Context, m pair.Message) pair.Answer {
	p := c.current().state.Config.Pair
	if p == nil {
		return pair.Answer{Refused: "no peer is configured here any longer"}
	}
	var a pair.Answer
	var err error
	switch m.Kind {
	case pair.Hello:
	case pair.Blob:
		err = c.takeBlob(m)
	case pair.Prepare:
		a, err = c.prepareFor(run, m)
	case pair.Apply:
		err = c.applyFor(run, m)
	case pair.Word:
		err = c.hear(run, m.Txn, m.Verdict, m.Confirm > 0)
	case pair.Confirm:
		err = c.confirmFor(run, m)
	case pair.AskWord:
		a.Verdict = c.judge(m.Txn)
	case pair.Fetch:
		now := c.current()
		a.Payload, a.Files, a.Own = []byte(now.state.Text), now.files, own(now.state.Config)
	case pair.Content:
		now := c.current()
		i := slices.IndexFunc(now.files, func(f store.FileRef) bool { return f.Sum == m.Sum })
		if i < 0 {
			err = errors.New("the file does not run here any longer")
			break
		}
		a.Payload, err = c.store.Content(now.files[i])
	default:
		err = fmt.Errorf("%s is not known here", m.Kind)
	}
	if err != nil {
		a.Refused = err.Error()
	}
	a.State = c.ownState()
	return a
}

// judge tells what became of a commit that this box coordinated.
func (c *conf) judge(t pair.Txn) pair.Verdict {
	c.pair.look.Lock()
	open := c.pair.open
	c.pair.look.Unlock()
	running, at := pair.Txn(""), c.store.Running()
	known := map[pair.Txn]bool{}
	for _, m := range c.store.List() {
		switch {
		case m.Generation == at:
			running = pair.Txn(m.Txn)
		case m.Generation < at:
			known[pair.Txn(m.Txn)] = true
		}
	}
	return pair.Judge(t, open, running, func(t pair.Txn) bool { return known[t] })
}

// takeBlob stores a script file that was asked for.
func (c *conf) takeBlob(m pair.Message) error {
	c.pair.look.Lock()
	wanted := c.pair.wanted[m.Sum]
	c.pair.look.Unlock()
	if !wanted {
		return errors.New("nobody asked for this file")
	}
	ref, err := c.store.AddBlob("file of the peer", 0o755, m.Payload)
	if err == nil && ref.Sum != m.Sum {
		err = errors.New("the file is not what it is said to be")
	}
	return err
}

// missing lists the files whose contents are not here.
func (c *conf) missing(files []store.FileRef) (sums []string) {
	for _, f := range files {
		if _, err := c.store.Content(f); err != nil && !slices.Contains(sums, f.Sum) {
			sums = append(sums, f.Sum)
		}
	}
	return sums
}

// own are the addresses that no other box may have.
func own(c model.Config) (list []netip.Addr) {
	for _, i := range c.Interfaces {
		for _, a := range i.Addresses {
			if !a.Addr().IsLinkLocalUnicast() {
				list = append(list, a.Addr())
			}
		}
	}
	return list
}

// fits says why a configuration of another box cannot be this one's too: what
// tells them apart must stand behind "@" and the name of the box.
func (c *conf) fits(cfg model.Config, box string, theirs []netip.Addr) error {
	host := cfg.System.HostName
	if host == "" {
		host = c.Host()
	}
	at := "@" + shortName(host) + " "
	if shortName(host) == shortName(box) {
		return fmt.Errorf("both boxes would be called %s: write %shost_name %s and one such line for the other box", box, at, host)
	}
	for _, a := range own(cfg) {
		if slices.Contains(theirs, a) {
			return fmt.Errorf("both boxes would have the address %s: put %s or @%s before each line that is for one box only", a, at, shortName(box))
		}
	}
	if cfg.Pair == nil {
		return fmt.Errorf("it has no peer block for this box (%s): write %speer ADDRESS { key … }; to part the boxes, commit local on each", host, at)
	}
	return nil
}

// bare is a refusal without what only a user at this box wants to read.
func bare(err error) error {
	text := err.Error()
	for _, p := range []string{"not committed, nothing changed:\n  ", "not committed: "} {
		text = strings.TrimPrefix(text, p)
	}
	return errors.New(text)
}

// prepareFor makes everything ready for a commit that the other box coordinates:
// checked, agreed by every service and stored. Until that box says more, nothing
// else changes here.
func (c *conf) prepareFor(ctx context.Context, m pair.Message) (a pair.Answer, err error) {
	p := &c.pair
	for _, f := range m.Files { // the other box may have been taken over: it writes nowhere else
		if err := validPath(f.Path); err != nil {
			return a, fmt.Errorf("file: %w", err)
		}
	}
	if sums := c.missing(m.Files); len(sums) > 0 {
		p.look.Lock()
		defer p.look.Unlock()
		p.wanted = map[string]bool{}
		for _, s := range sums {
			p.wanted[s] = true
		}
		return pair.Answer{Missing: sums}, nil
	}
	if err := c.turnFor(ctx, m.Box); err != nil {
		return a, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err = c.stageFor(ctx, m); err != nil {
		<-c.turn
		return a, bare(err)
	}
	for name, w := range p.staged.warnings {
		a.Warning = append(a.Warning, name+": "+w)
	}
	slices.Sort(a.Warning)
	return a, nil
}

// turnFor waits until it is the other box's turn. Of two boxes that commit at once
// the first by name goes on, also when it begins while the other one waits here:
// else each would wait for the other.
func (c *conf) turnFor(ctx context.Context, box string) error {
	p := &c.pair
	patience := time.NewTimer(c.Pair.Turn)
	defer patience.Stop()
	for {
		p.look.Lock()
		if p.open != "" && shortName(c.Host()) < shortName(box) {
			p.look.Unlock()
			return errors.New("somebody commits here at this moment; try again")
		}
		if p.opened == nil {
			p.opened = make(chan struct{})
		}
		opened := p.opened
		p.look.Unlock()
		select {
		case c.turn <- struct{}{}:
			return nil
		case <-opened:
		case <-patience.C:
			return errors.New("another commit is under way here; try again")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (c *conf) stageFor(ctx context.Context, m pair.Message) error {
	p := &c.pair
	if err := p.part.MayPrepare(m.Txn); err != nil {
		return err
	}
	now := c.current()
	before := p.contents.of(now)
	if before != m.Sees {
		return fmt.Errorf("generation %d (%s by %s) runs here, of which %s does not know yet: see \"show drift\"; a second commit replaces it",
			now.state.Generation, now.state.Source, author(now.state.Author), m.Box)
	}
	k := checked{text: string(m.Payload), files: m.Files}
	k.config, k.problems = c.load("candidate", k.text, k.files, c.facts(ctx, k.files))
	if errorsIn(k.problems) == 0 {
		if err := c.fits(k.config, m.Box, m.Own); err != nil {
			return err
		}
	}
	s, err := c.stage(ctx, k, store.Meta{Source: m.Source, Author: m.Author, Comment: m.Comment, Txn: string(m.Txn)}, how{force: m.Force, confirm: m.Confirm})
	if err != nil {
		return err
	}
	p.part.Prepared(pair.Record{Txn: m.Txn, Generation: s.n, Before: before, Confirm: m.Confirm})
	if err := c.remember(); err != nil {
		p.part.Over()
		c.drop(s.n)
		return err
	}
	p.staged, p.heard = s, time.Now()
	c.Step("prepared")
	return nil
}

// applyFor applies what was prepared. What fails is put back at once.
func (c *conf) applyFor(ctx context.Context, m pair.Message) error {
	p := &c.pair
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.part.MayApply(m.Txn); err != nil {
		return err
	}
	if p.staged == nil {
		return errStops
	}
	failed := c.apply(ctx, p.staged)
	c.Step("applying")
	if ctx.Err() != nil {
		return errStops
	}
	p.heard = time.Now()
	if len(failed) > 0 {
		c.undo(ctx, p.staged, failed)
		c.over()
		return errors.New(strings.Join(failed, "\n  "))
	}
	p.part.Applied()
	if err := c.remember(); err != nil {
		c.undo(ctx, p.staged, []string{err.Error()})
		c.over()
		return err
	}
	c.Step("applied")
	return nil
}

// confirmFor confirms what the other box confirms.
func (c *conf) confirmFor(ctx context.Context, m pair.Message) error {
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-time.After(c.Pair.Turn):
		return errors.New("a commit is under way here; try again")
	case <-ctx.Done():
		return ctx.Err()
	}
	if !c.runs(m.Txn) {
		return errors.New("it does not run here")
	}
	if c.window() == nil {
		return nil // it was confirmed before, and the answer got lost
	}
	_, err := c.confirmHere(status.Confirmation{Author: m.Author})
	return err
}

// PairTimes pace what is said between the boxes. The zero value is what runs on
// a director.
type PairTimes struct {
	Hello time.Duration // between looks at each other; 5 s
	Tick  time.Duration // between looks at a commit in doubt; 1 s
	Ask   time.Duration // of silence before the coordinator is asked; pair.AskAfter
	Bound time.Duration // of silence before a participant goes back; pair.Bound
	Turn  time.Duration // a participant waits for a commit of its own to end; 10 s
	// Recover is between attempts to fetch a configuration that was lost; 5 s.
	Recover time.Duration
}

func (t PairTimes) withDefaults() PairTimes {
	for _, d := range []struct {
		v   *time.Duration
		def time.Duration
	}{{&t.Hello, 5 * time.Second}, {&t.Tick, time.Second}, {&t.Ask, pair.AskAfter}, {&t.Bound, pair.Bound}, {&t.Turn, 10 * time.Second}, {&t.Recover, 5 * time.Second}} {
		if *d.v == 0 {
			*d.v = d.def
		}
	}
	return t
}

func (c *conf) pairVerbs(run context.Context) {
	c.server.Handle("pair", func(_ context.Context, _ ipc.Peer, body json.RawMessage) (any, error) {
		var a pair.Answer
		m, err := pair.DecodeMessage(body)
		if err != nil {
			a.Refused = err.Error()
		} else {
			a = c.serve(run, m)
		}
		out, err := a.Encode()
		return status.PeerMessage{Body: out}, err
	}, ipc.UIDPeer)
	c.server.Handle("peer-state", func(context.Context, ipc.Peer, json.RawMessage) (any, error) { return c.pairState(), nil }, ipc.GroupView, ipc.UIDFirmware)
	handleFor(c, ipc.GroupView, "peer-drift", func(ctx context.Context, _ struct{}) (any, error) { return c.drift(ctx) })
	handle(c, "peer-push", changing(c, run, c.push))
	handle(c, "peer-pull", changing(c, run, c.pull))
}
