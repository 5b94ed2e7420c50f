package conf

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"ballast/configs/store"
	"ballast/services/conf/pair"
)

// errStops answers a message that came after this service had let go of what it
// held for the other box.
var errStops = errors.New("it stops")

// over ends the doubt, and lets others change this box. Called with pair.mu held.
func (c *conf) over() {
	p := &c.pair
	held := p.part.Held() && p.staged != nil
	p.part.Over()
	p.staged = nil
	if err := c.remember(); err != nil {
		c.env.Log.Error("configuration store: " + err.Error())
	}
	if held {
		<-c.turn
	}
}

// hear acts on the coordinator's word. pending: what was committed has yet to be
// confirmed.
func (c *conf) hear(ctx context.Context, t pair.Txn, v pair.Verdict, pending bool) error {
	p := &c.pair
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.part.Txn != t {
		if v == pair.Committed && !c.runs(t) {
			return errors.New("it went back to what ran before")
		}
		return nil
	}
	p.heard = time.Now()
	return c.act(ctx, p.part.Hears(t, v, p.contents.of(c.current())), pending)
}

// runs reports whether the running generation came by a commit.
func (c *conf) runs(t pair.Txn) bool {
	at := c.store.Running()
	return slices.ContainsFunc(c.store.List(), func(m store.Meta) bool { return m.Generation == at && m.Txn == string(t) })
}

// act does what the participant is to do. Called with pair.mu held.
func (c *conf) act(ctx context.Context, a pair.Act, pending bool) error {
	p := &c.pair
	s := p.staged
	if s == nil && (a == pair.Finish || a == pair.Undo || a == pair.GiveUp) {
		return errStops // the next start asks
	}
	switch a {
	case pair.Finish:
		if err := c.settle(s); err != nil {
			return err // asked again in a moment
		}
		c.Step("kept")
		c.env.Log.Info(fmt.Sprintf("%s by %s: generation %d runs on both boxes", s.meta.Source, author(s.meta.Author), s.n))
		c.over()
	case pair.Redo:
		return c.redo(ctx, pending)
	case pair.Drop:
		c.drop(p.part.Generation)
		c.over()
	case pair.Undo:
		c.undo(ctx, s, []string{"the other box did not commit it"})
		c.over()
	case pair.Forget:
		c.drop(p.part.Generation)
		c.over()
	case pair.GiveUp:
		why := fmt.Sprintf("the other box has said nothing for %v", c.Pair.Bound)
		if p.part.Phase == pair.Applied {
			s.keep = true
			c.undo(ctx, s, []string{why})
		}
		c.env.Log.Error(fmt.Sprintf("generation %d is in doubt and does not run: %s; it runs when that box says that it was committed", p.part.Generation, why))
		p.part.WentBack()
		p.staged = nil
		if err := c.remember(); err != nil {
			c.env.Log.Error("configuration store: " + err.Error())
		}
		<-c.turn
	}
	return nil
}

// redo applies a commit that was decided while this box did not hear of it.
func (c *conf) redo(ctx context.Context, pending bool) error {
	p := &c.pair
	if p.staged != nil { // it is ready, and the turn held
		if failed := c.apply(ctx, p.staged); len(failed) > 0 {
			c.undo(ctx, p.staged, failed)
			c.over()
			return errors.New(strings.Join(failed, "\n  "))
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := c.settle(p.staged); err != nil {
			return err
		}
		c.over()
		return nil
	}
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	default:
		return errors.New("another commit is under way")
	}
	n := p.part.Generation
	var h how
	if pending {
		h.confirm = p.part.Confirm
	}
	g, err := c.store.Load(n)
	if err == nil {
		k := checked{text: g.Text, files: g.Files}
		k.config, k.problems = c.load(generationName(n), g.Text, g.Files, c.facts(ctx, g.Files))
		g.Comment = strings.TrimPrefix(g.Comment+"; decided while this box was away", "; ")
		_, err = c.change(ctx, k, store.Meta{Source: g.Source, Author: g.Author, Comment: g.Comment, Txn: g.Txn}, h)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		c.env.Log.Error(fmt.Sprintf("%s was committed by the other box and does not run here: %v; see \"show drift\"", generationName(n), err))
	}
	c.drop(n)
	c.over()
	return err
}

// parted is called when this box alone has changed its configuration: what was
// in doubt is of no use any more.
func (c *conf) parted() {
	p := &c.pair
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.part.Phase == pair.Late {
		n := p.part.Generation
		p.part.Over()
		c.drop(n)
		if err := c.remember(); err != nil {
			c.env.Log.Error("configuration store: " + err.Error())
		}
	}
}

// longest is how many times PairTimes.Bound a commit of the other box may take,
// far more than any needs: that box must not keep this one from being changed, or
// from going back to what was confirmed, by saying over and over that nothing is
// decided.
const longest = 5

// silence is how long the coordinator has not been heard, on the scale of
// package pair; of one that goes on for too long it is as if it said nothing.
// Called with pair.mu held.
func (c *conf) silence() time.Duration {
	quiet := time.Since(c.pair.heard)
	endless := c.pair.staged != nil && time.Since(c.pair.staged.start) > longest*c.Pair.Bound
	switch {
	case quiet >= c.Pair.Bound || endless:
		return pair.Bound
	case quiet >= c.Pair.Ask:
		return pair.AskAfter
	}
	return 0
}

// followPeer looks at the other box from time to time, and asks about what is in
// doubt.
func (c *conf) followPeer(ctx context.Context) {
	p := &c.pair
	tick := time.NewTicker(c.Pair.Tick)
	defer tick.Stop()
	var last time.Time
	for {
		select {
		case <-ctx.Done():
			p.mu.Lock()
			if p.part.Held() && p.staged != nil { // the record stays: the next start asks
				p.staged = nil
				<-c.turn
			}
			p.mu.Unlock()
			return
		case <-tick.C:
		}
		p.mu.Lock()
		act, t := p.part.Tick(c.silence()), p.part.Txn
		if act == pair.GiveUp && p.staged != nil {
			c.act(ctx, act, false)
		}
		p.mu.Unlock()
		if act == pair.Ask {
			if a, err := c.tell(ctx, pair.Message{Kind: pair.AskWord, Txn: t}, 5*time.Second); err == nil && a.Refused == "" {
				if err := c.hear(ctx, t, a.Verdict, a.State.Pending); err != nil && ctx.Err() == nil {
					c.env.Log.Warn("commit of the other box: " + firstLine(err.Error()))
				}
			}
		}
		if time.Since(last) >= c.Pair.Hello {
			last = time.Now()
			c.hello(ctx, false)
		}
	}
}
