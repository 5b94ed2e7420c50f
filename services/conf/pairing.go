package conf

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
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

// How long the other box may take for its part of a commit: every service there
// has its own, shorter bounds.
const (
	prepareBound = 45 * time.Second
	applyBound   = 60 * time.Second
	askBound     = 10 * time.Second
)

// contents remembers the hash of the text that runs, which has megabytes.
type contents struct {
	mu         sync.Mutex
	generation uint64
	text       string
	sum        [sha256.Size]byte
}

// of is the hash of a text and its files: equal on both boxes when they run the
// same. Generations are numbered on each box for itself.
func (h *contents) of(r running) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.generation != r.state.Generation || len(h.text) != len(r.state.Text) || h.text != r.state.Text {
		h.generation, h.text, h.sum = r.state.Generation, r.state.Text, sha256.Sum256([]byte(r.state.Text))
	}
	all := sha256.New()
	all.Write(h.sum[:])
	for _, f := range r.files {
		fmt.Fprintf(all, "%s\x00%o\x00%s\n", f.Path, f.Mode, f.Sum)
	}
	return hex.EncodeToString(all.Sum(nil))
}

func (c *conf) ownState() pair.State {
	now := c.current()
	c.pair.look.Lock()
	phase := c.pair.phase
	c.pair.look.Unlock()
	return pair.State{Box: c.Host(), Generation: now.state.Generation, Content: c.pair.contents.of(now), Source: now.state.Source,
		Author: clip(now.state.Author), Time: now.state.Time, Phase: phase, Paired: now.state.Config.Pair != nil,
		Pending: now.state.Pending != nil, Release: pair.Release}
}

// clip keeps what a user chose within what the other box takes.
func clip(s string) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) > 400 {
		s = strings.ToValidUTF8(s[:400], "") + "…"
	}
	return s
}

// errLost is wrapped by the error of a message that was not answered.
var errLost = errors.New("does not answer")

// tell asks the other box something.
func (c *conf) tell(ctx context.Context, m pair.Message, bound time.Duration) (pair.Answer, error) {
	p := c.current().state.Config.Pair
	if p == nil {
		return pair.Answer{}, errors.New("no peer is configured")
	}
	return c.tellTo(ctx, target(p), m, bound)
}

func target(p *model.Pair) status.PeerTarget {
	return status.PeerTarget{Addr: p.Addr, Port: p.Port, From: p.From, Key: p.Key}
}

func (c *conf) tellTo(ctx context.Context, t status.PeerTarget, m pair.Message, bound time.Duration) (a pair.Answer, err error) {
	m.Box = c.Host()
	head, err := json.Marshal(t)
	if err != nil {
		return a, err
	}
	body, err := m.Encode()
	if err != nil {
		return a, err
	}
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	var out status.PeerMessage
	if err := c.client("peer").Call(ctx, "send", json.RawMessage(append(append(head, 0), body...)), &out); err != nil {
		var refused *ipc.Refused
		if !errors.As(err, &refused) {
			err = fmt.Errorf("the service peer of this box does not run (%w); see \"show log peer\"", rootCause(err))
		}
		return a, fmt.Errorf("%w: %w", errLost, err)
	}
	if a, err = pair.DecodeAnswer(out.Body); err != nil {
		return a, fmt.Errorf("%w: %w", errLost, err)
	}
	c.pair.look.Lock()
	if a.State.Content != "" && t == c.configured() {
		if c.pair.lost != "" || c.pair.seenAt.IsZero() {
			c.pair.since = time.Now()
		}
		c.pair.seen, c.pair.seenAt, c.pair.lost = a.State, time.Now(), ""
	}
	c.pair.look.Unlock()
	if a.Refused != "" {
		return a, errors.New(a.Refused)
	}
	return a, nil
}

func (c *conf) configured() status.PeerTarget {
	if p := c.current().state.Config.Pair; p != nil {
		return target(p)
	}
	return status.PeerTarget{}
}

// hello looks at the other box, and tells every session what is wrong. held: the
// caller has the turn.
func (c *conf) hello(ctx context.Context, held bool) {
	p := &c.pair
	configured := c.current().state.Config.Pair != nil
	var err error
	if configured {
		_, err = c.tell(ctx, pair.Message{Kind: pair.Hello}, askBound)
	}
	if ctx.Err() != nil {
		return
	}
	p.look.Lock()
	was := p.lost
	switch {
	case !configured:
		p.seen, p.seenAt, p.lost, p.since = pair.State{}, time.Time{}, "", time.Time{}
	case err != nil:
		if was == "" {
			p.since = time.Now()
		}
		p.lost = err.Error()
	}
	now := p.lost
	p.look.Unlock()
	if (was == "") != (now == "") {
		if now != "" {
			c.env.Log.Warn("the peer " + now)
		} else if configured {
			c.env.Log.Info("the peer answers again")
		}
	}
	c.tellSessions(held)
}

// pairState is what "show peer" shows.
func (c *conf) pairState() status.PairState {
	now := c.current()
	side := func(s pair.State) status.PairSide {
		return status.PairSide{Box: s.Box, Generation: s.Generation, Content: s.Content, Source: s.Source, Author: s.Author, Comment: s.Comment, Time: s.Time}
	}
	st := status.PairState{Own: side(c.ownState())}
	p := &c.pair
	p.look.Lock()
	defer p.look.Unlock()
	if p.phase != pair.Idle {
		st.Doubt = p.phase.String()
	}
	if now.state.Config.Pair == nil {
		return st
	}
	st.Configured, st.Addr = true, now.state.Config.Pair.Addr
	st.Reachable, st.Error, st.Since = p.lost == "" && !p.seenAt.IsZero(), p.lost, p.since
	st.Peer, st.Seen = side(p.seen), p.seenAt
	st.Drift = !p.seenAt.IsZero() && st.Own.Content != st.Peer.Content
	if r := p.seen.Release; r != 0 && r != pair.Release {
		st.Updating = fmt.Sprintf("%s speaks release %d of the pair's protocol and this box release %d: a commit is refused until both run the same firmware", peerName(st), r, pair.Release)
	}
	return st
}

// tellSessions publishes what is wrong with the pair, when that is news, and
// nothing is being committed: the services are asked about a draft then, which
// must stay the last in the book.
func (c *conf) tellSessions(held bool) {
	if !held {
		select {
		case c.turn <- struct{}{}:
			defer func() { <-c.turn }()
		default:
			return // the next hello does
		}
	}
	st := c.pairState()
	note := ""
	switch {
	case st.Doubt == pair.Late.String():
		note = fmt.Sprintf("a commit of %s is in doubt: it runs here as soon as that box answers and has kept it; see \"show peer\"", peerName(st))
	case st.Doubt != "":
		return // in the middle of a commit
	case c.recovering():
		note = fmt.Sprintf("the data disk was lost: the configuration comes from %s as soon as that box answers", peerName(st))
	case st.Drift:
		note = fmt.Sprintf("%s and %s run different configurations: see \"show drift\"", st.Own.Box, peerName(st))
	case st.Updating != "":
		note = st.Updating
	case st.Error != "":
		note = fmt.Sprintf("the peer %s does not answer: a commit is refused, \"commit local\" is for this box only; see \"show peer\"", peerName(st))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if note == c.note {
		return
	}
	c.note, c.now.state.Pair = note, note
	c.server.Publish(c.book.Publish(c.now.state, c.now.draft))
}

func peerName(st status.PairState) string {
	if st.Peer.Box != "" {
		return st.Peer.Box
	}
	return st.Addr.String()
}

// changeAll makes k the running configuration on both boxes of a pair, or on
// none; on this one when it stands alone, or when only it is meant.
func (c *conf) changeAll(ctx context.Context, k checked, m store.Meta, h how, local bool) (status.CommitResult, error) {
	if c.current().state.Config.Pair == nil || local {
		res, err := c.change(ctx, k, m, h)
		if err == nil {
			c.parted()
			c.tellSessions(true)
		}
		return res, err
	}
	res, err := c.changePair(ctx, k, m, h)
	who := m.Source + " by " + author(m.Author)
	if err != nil {
		c.env.Log.Warn(who + " refused: " + firstLine(err.Error()))
	} else {
		c.env.Log.Info(fmt.Sprintf("%s: generation %d runs on both boxes, applied in %v", who, res.Generation, res.Took.Round(time.Millisecond)))
	}
	c.hello(ctx, true)
	return res, err
}

// changePair is a commit of the pair, coordinated here.
func (c *conf) changePair(ctx context.Context, k checked, m store.Meta, h how) (res status.CommitResult, err error) {
	if n := errorsIn(k.problems); n > 0 {
		return res, fmt.Errorf("not committed: %d %s%s", n, plural(n, "error", "errors"), list(k.problems))
	}
	if k.config.Pair == nil {
		return res, errors.New("not committed: it takes the peer block away; to part the boxes, \"commit local\" on each")
	}
	p := &c.pair
	p.look.Lock()
	doubt := p.phase
	p.look.Unlock()
	if doubt != pair.Idle {
		return res, errors.New("not committed: an earlier commit of the other box is in doubt; it ends when that box answers, \"commit local\" goes on without it")
	}
	hello, err := c.tell(ctx, pair.Message{Kind: pair.Hello}, askBound)
	if err != nil {
		return res, c.alone(err)
	}
	box := hello.State.Box
	if hello.State.Phase != pair.Idle {
		return res, fmt.Errorf("not committed: %s does not know yet what came of an earlier commit; try again in some seconds", box)
	}
	m.Txn, m.Author, m.Comment = string(pair.NewTxn()), clip(m.Author), clip(m.Comment)
	p.look.Lock()
	p.open = pair.Txn(m.Txn)
	if p.opened != nil {
		close(p.opened)
		p.opened = nil
	}
	p.look.Unlock()
	defer func() {
		p.look.Lock()
		p.open = ""
		p.look.Unlock()
	}()
	run := pairCommit{c: c, ctx: ctx, k: k, meta: m, how: h, box: box, peer: hello.State, start: time.Now()}
	return run.to(&pair.Coordinator{})
}

// alone says what to do when the other box is not there.
func (c *conf) alone(err error) error {
	return fmt.Errorf("not committed, nothing changed: the peer %w\n  \"commit local\" commits on this box only; both differ then until one of them commits again", err)
}

// confirmPeer has the other box confirm what came to both by one commit.
func (c *conf) confirmPeer(ctx context.Context, by string) error {
	at := c.store.Running()
	for _, m := range c.store.List() {
		if m.Generation != at || m.Txn == "" || c.current().state.Config.Pair == nil {
			continue
		}
		if _, err := c.tell(ctx, pair.Message{Kind: pair.Confirm, Txn: pair.Txn(m.Txn), Author: clip(by)}, 3*askBound); err != nil {
			return fmt.Errorf("not confirmed, both boxes roll back when the time is over: the peer: %w", err)
		}
	}
	return nil
}

// pairCommit is one commit, seen from the box where it was asked for.
type pairCommit struct {
	c      *conf
	ctx    context.Context
	k      checked
	meta   store.Meta
	how    how
	box    string
	peer   pair.State // as it was before
	start  time.Time
	staged *staged
	why    error // of the step that failed
	warn   []string
}

// to does what co wants, to its end.
func (r *pairCommit) to(co *pair.Coordinator) (res status.CommitResult, err error) {
	for co.Step() != pair.End {
		at := co.Step()
		err := r.do(at)
		if r.ctx.Err() != nil && !co.Decided() {
			return res, fmt.Errorf("conf stops in the middle of a commit: what ran before runs on both boxes")
		}
		switch {
		case err == nil:
			co.Next(pair.OK)
		case errors.Is(err, errLost):
			co.Next(pair.Lost)
		default:
			co.Next(pair.Refused)
		}
		if err != nil && r.why == nil {
			r.why = err
		}
		r.c.Step(at.String())
	}
	if !co.Decided() {
		return res, r.why
	}
	res = r.staged.result()
	res.Took, res.Peer = time.Since(r.start), r.box
	if before := r.c.pair.contents.of(r.staged.before); r.peer.Content != before {
		r.warn = append(r.warn, fmt.Sprintf("its generation %d (%s by %s) differed and was replaced; its history has it", r.peer.Generation, r.peer.Source, author(r.peer.Author)))
	}
	if co.Behind() {
		res.Peer = ""
		r.warn = append(r.warn, fmt.Sprintf("has not said that it keeps the new configuration (%v); it asks as soon as it can: see \"show peer\"", r.why))
	}
	if len(r.warn) > 0 {
		res.Warnings[r.box] = strings.Join(r.warn, "; ")
	}
	return res, nil
}

func (r *pairCommit) do(step pair.Step) (err error) {
	c := r.c
	tell := func(m pair.Message, bound time.Duration) (pair.Answer, error) {
		m.Txn = pair.Txn(r.meta.Txn)
		return c.tell(r.ctx, m, bound)
	}
	switch step {
	case pair.PrepareHere:
		r.staged, err = c.stage(r.ctx, r.k, r.meta, r.how)
	case pair.PreparePeer:
		err = r.preparePeer(tell)
	case pair.ApplyPeer:
		if _, err = tell(pair.Message{Kind: pair.Apply}, applyBound); err != nil {
			err = fmt.Errorf("not committed, both boxes run what ran before:\n  %s: %w", r.box, err)
		}
	case pair.ApplyHere:
		if failed := c.apply(r.ctx, r.staged); len(failed) > 0 {
			r.why = r.undo(failed)
			err = r.why
		}
	case pair.Decide:
		if err = c.settle(r.staged); err != nil {
			r.why = r.undo([]string{err.Error()})
		}
	case pair.TellCommit:
		_, err = tell(pair.Message{Kind: pair.Word, Verdict: pair.Committed, Confirm: r.how.confirm}, askBound)
	case pair.DropHere:
		c.drop(r.staged.n)
	case pair.UndoHere: // done where it failed, for its reasons
	case pair.TellAbort:
		_, err = tell(pair.Message{Kind: pair.Word, Verdict: pair.Aborted}, applyBound)
	}
	return err
}

func (r *pairCommit) undo(failed []string) error {
	return fmt.Errorf("%s: %w\n%s goes back too", r.c.Host(), r.c.undo(r.ctx, r.staged, failed), r.box)
}

// preparePeer has the other box check and prepare, with the script files that it
// does not have.
func (r *pairCommit) preparePeer(tell func(pair.Message, time.Duration) (pair.Answer, error)) error {
	m := pair.Message{Kind: pair.Prepare, Sees: r.peer.Content, Author: r.meta.Author, Comment: r.meta.Comment, Source: r.meta.Source, Force: r.how.force, Confirm: r.how.confirm,
		Own: own(r.k.config), Files: r.k.files, Payload: []byte(r.k.text)}
	refused := func(err error) error {
		return fmt.Errorf("not committed, nothing changed:\n  %s: %w", r.box, err)
	}
	for try := 0; ; try++ {
		a, err := tell(m, prepareBound)
		if err != nil {
			return refused(err)
		}
		if len(a.Missing) == 0 {
			r.warn = a.Warning
			return nil
		}
		if try == 3 {
			return refused(errors.New("it does not keep the script files"))
		}
		for _, f := range r.k.files {
			if !slices.Contains(a.Missing, f.Sum) {
				continue
			}
			b, err := r.c.store.Content(f)
			if err == nil {
				_, err = tell(pair.Message{Kind: pair.Blob, Sum: f.Sum, Payload: b}, prepareBound)
			}
			if err != nil {
				return refused(err)
			}
		}
	}
}
