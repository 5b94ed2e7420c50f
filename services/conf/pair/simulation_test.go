package pair

import (
	"fmt"
	"math/rand"
	"testing"
	"time"
)

// The simulation runs two boxes with everything that can go wrong between them:
// messages and answers that are lost, a crash between any two steps, a
// partition, commits on both at once, refusals of either side. The boxes drive
// Coordinator and Participant as conf does; a disk is what survives a crash.

// disk is what a crash leaves.
type disk struct {
	running string // content
	txn     Txn    // by which it came
	past    map[Txn]bool
	stored  map[Txn]string // generations that do not run
	record  Record
}

type box struct {
	name string
	disk disk
	up   bool

	runs  string // content that the services have
	part  Participant
	quiet time.Duration

	turn    string // who holds it: "", "own", "peer"
	co      *Coordinator
	txn     Txn
	content string
	before  string // what ran when the commit began
	sees    string
	wait    *request // the answer that the coordinator waits for
}

type request struct {
	kind    Kind
	txn     Txn
	verdict Verdict
	sees    string
	content string
	from    *box

	answered bool
	answer   Outcome
	word     Verdict
}

type decision struct {
	txn     Txn
	content string
	after   string // what ran on the coordinator
	sees    string // what ran on the participant, as both agreed
}

type world struct {
	t     *testing.T
	r     *rand.Rand
	seed  int64
	boxes [2]*box
	cut   bool
	calm  bool       // nothing goes wrong any longer
	asks  []*request // in flight

	decided []decision
	acked   map[Txn]string
	n       int
	trace   []string
}

func (w *world) say(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf(format, args...))
}

func (w *world) chance(percent int) bool { return !w.calm && w.r.Intn(100) < percent }

func (w *world) other(b *box) *box {
	if w.boxes[0] == b {
		return w.boxes[1]
	}
	return w.boxes[0]
}

func newWorld(t *testing.T, seed int64) *world {
	w := &world{t: t, r: rand.New(rand.NewSource(seed)), seed: seed, acked: map[Txn]string{}}
	for i := range w.boxes {
		w.boxes[i] = &box{name: fmt.Sprintf("lb%d", i+1), up: true, runs: "first",
			disk: disk{running: "first", past: map[Txn]bool{}, stored: map[Txn]string{}}}
	}
	return w
}

func (w *world) name() Txn {
	w.n++
	return Txn(fmt.Sprintf("%032x", w.n))
}

// crash stops a box at once, and boots it.
func (w *world) crash(b *box) {
	w.say("%s crashes in %v, %v", b.name, b.part.Phase, b.step())
	d := b.disk
	*b = box{name: b.name, disk: d, up: true, runs: d.running, part: Booted(d.record)}
	for t := range d.stored { // what is not in doubt is swept
		if t != d.record.Txn {
			delete(b.disk.stored, t)
		}
	}
	b.disk.record = b.part.Record
	keep := w.asks[:0]
	for _, r := range w.asks {
		if r.from != b {
			keep = append(keep, r)
		}
	}
	w.asks = keep
}

func (b *box) step() any {
	if b.co == nil {
		return "no commit"
	}
	return b.co.Step()
}

// commit begins one.
func (w *world) commit(b *box, local bool) {
	if b.turn != "" || (!local && b.part.Phase != Idle) {
		return
	}
	b.turn, b.txn = "own", w.name()
	b.content, b.before = fmt.Sprintf("%s-%d", b.name, w.n), b.runs
	if local {
		b.sees = b.runs
		b.disk.stored[b.txn] = b.content
		w.decide(b)
		delete(b.disk.stored, b.part.Txn)
		b.part.Over()
		b.disk.record = Record{}
		b.runs, b.turn = b.content, ""
		w.say("%s commits %s locally", b.name, b.content)
		return
	}
	// What the last hello said: now and then it is old.
	b.sees = w.other(b).runs
	if w.chance(10) {
		b.sees = "first"
	}
	b.co = &Coordinator{}
	w.say("%s begins %s", b.name, b.content)
}

func (w *world) decide(b *box) {
	b.disk.past[b.disk.txn] = true
	w.decided = append(w.decided, decision{b.txn, b.content, b.disk.running, b.sees})
	b.disk.running, b.disk.txn = b.content, b.txn
	delete(b.disk.stored, b.txn)
}

// advance does one step of the commit on b.
func (w *world) advance(b *box) {
	if b.co == nil {
		return
	}
	if b.wait != nil {
		switch {
		case b.wait.answered:
			o := b.wait.answer
			b.wait = nil
			b.co.Next(o)
		case w.r.Intn(20) == 0 || w.cut || w.calm && !w.flying(b.wait):
			b.wait = nil
			b.co.Next(Lost)
		}
		return
	}
	send := func(k Kind, v Verdict) {
		b.wait = &request{kind: k, txn: b.txn, verdict: v, sees: b.sees, content: b.content, from: b}
		w.asks = append(w.asks, b.wait)
	}
	o := OK
	if w.chance(8) {
		o = Refused
	}
	switch b.co.Step() {
	case PrepareHere:
		if o == OK {
			b.disk.stored[b.txn] = b.content
		}
	case PreparePeer:
		send(Prepare, 0)
		return
	case ApplyPeer:
		send(Apply, 0)
		return
	case ApplyHere:
		b.runs = b.content // it may run and still fail
	case Decide:
		if o == OK {
			w.decide(b)
		}
	case TellCommit:
		send(Word, Committed)
		return
	case DropHere:
		o = OK
		delete(b.disk.stored, b.txn)
	case UndoHere:
		o = OK
		b.runs = b.before
		delete(b.disk.stored, b.txn)
	case TellAbort:
		send(Word, Aborted)
		return
	case End:
		if b.co.Decided() {
			w.acked[b.txn] = b.content
		}
		w.say("%s ends %s, decided %v", b.name, b.content, b.co.Decided())
		b.co, b.turn, b.txn = nil, "", ""
		return
	}
	b.co.Next(o)
}

func (w *world) flying(r *request) bool {
	for _, a := range w.asks {
		if a == r {
			return true
		}
	}
	return r.answered
}

// serve has the other box do what a message asks.
func (w *world) serve(r *request) {
	b := w.other(r.from)
	r.answer = Refused
	switch r.kind {
	case Prepare:
		if b.turn == "" && b.part.MayPrepare(r.txn) == nil && r.sees == b.runs && !w.chance(8) {
			b.turn, b.quiet = "peer", 0
			b.disk.stored[r.txn] = r.content
			b.part.Prepared(Record{Txn: r.txn, Before: b.runs})
			b.disk.record = b.part.Record
			r.answer = OK
		}
	case Apply:
		if b.part.MayApply(r.txn) == nil {
			b.quiet = 0
			if w.chance(8) { // it fails, and goes back by itself
				w.drop(b)
				break
			}
			b.part.Applied()
			b.disk.record = b.part.Record
			b.runs = b.disk.stored[r.txn]
			r.answer = OK
		}
	case Word:
		r.answer = OK
		if b.part.Txn != r.txn && r.verdict == Committed && b.disk.txn != r.txn {
			r.answer = Refused
		}
		w.do(b, b.part.Hears(r.txn, r.verdict, b.runs))
	case AskWord:
		open := Txn("")
		if b.co != nil && !b.co.Decided() {
			open = b.txn
		}
		r.word = Judge(r.txn, open, b.disk.txn, func(t Txn) bool { return b.disk.past[t] })
		r.answer = OK
	}
	r.answered = true
}

func (w *world) drop(b *box) {
	delete(b.disk.stored, b.part.Txn)
	b.runs = b.disk.running
	b.part.Over()
	b.disk.record = Record{}
	if b.turn == "peer" {
		b.turn = ""
	}
}

func (w *world) do(b *box, a Act) {
	if a != Nothing && a != Ask {
		w.say("%s: %v %s", b.name, a, b.disk.stored[b.part.Txn])
	}
	switch a {
	case Finish, Redo:
		if b.turn == "own" {
			return // later: it asks again
		}
		b.disk.past[b.disk.txn] = true
		b.disk.running, b.disk.txn = b.disk.stored[b.part.Txn], b.part.Txn
		w.drop(b)
	case Drop, Undo, Forget:
		w.drop(b)
	case GiveUp:
		b.runs = b.disk.running
		b.turn = ""
		b.part.WentBack()
		b.disk.record = b.part.Record
	case Ask:
		w.asks = append(w.asks, &request{kind: AskWord, txn: b.part.Txn, from: b})
	}
}

// tick lets time pass for a participant.
func (w *world) tick(b *box) {
	b.quiet += time.Second
	if b.part.Phase != Idle {
		w.do(b, b.part.Tick(b.quiet))
	}
}

// deliver takes one message to its end.
func (w *world) deliver() {
	if len(w.asks) == 0 {
		return
	}
	i := w.r.Intn(len(w.asks))
	r := w.asks[i]
	w.asks = append(w.asks[:i], w.asks[i+1:]...)
	if w.cut || w.chance(10) {
		return // lost
	}
	w.serve(r)
	if w.chance(10) {
		r.answered = false // the answer is lost
	}
	if r.kind == AskWord && r.answered {
		from := r.from
		from.quiet = 0
		w.do(from, from.part.Hears(r.txn, r.word, from.runs))
	}
}

func (w *world) run(locals bool) {
	for range 400 {
		b := w.boxes[w.r.Intn(2)]
		switch n := w.r.Intn(100); {
		case n < 4:
			w.commit(b, locals && w.r.Intn(3) == 0)
		case n < 6:
			w.crash(b)
		case n < 8:
			w.cut = !w.cut
			w.say("link cut %v", w.cut)
		case n < 20:
			for range w.r.Intn(30) {
				w.tick(b)
			}
		case n < 60:
			w.advance(b)
		default:
			w.deliver()
		}
	}
	w.calm, w.cut = true, false
	for range 400 {
		for _, b := range w.boxes {
			w.advance(b)
			w.tick(b)
		}
		for len(w.asks) > 0 {
			w.deliver()
		}
	}
}

func (w *world) check(locals bool) {
	fail := func(format string, args ...any) {
		w.t.Helper()
		for _, l := range w.trace {
			w.t.Log(l)
		}
		w.t.Fatalf("seed %d: %s", w.seed, fmt.Sprintf(format, args...))
	}
	for _, b := range w.boxes {
		switch {
		case b.co != nil || b.turn != "" || b.part.Phase != Idle || len(b.disk.stored) != 0:
			fail("%s has not settled: turn %q, %v, %v", b.name, b.turn, b.part.Phase, b.disk.stored)
		case b.runs != b.disk.running:
			fail("%s runs %s and would boot %s", b.name, b.runs, b.disk.running)
		}
	}
	one, two := w.boxes[0].runs, w.boxes[1].runs
	if !locals && one != two {
		fail("they run %s and %s, and nobody committed locally", one, two)
	}
	// What was acknowledged is what runs, or was committed over.
	after := map[string]Txn{"first": ""}
	over := map[string]int{}
	for _, d := range w.decided {
		after[d.content] = d.txn
		over[d.after]++
		if d.sees != d.after {
			over[d.sees]++ // they differed, and whoever committed was told so
		}
	}
	for t, content := range w.acked {
		if over[content] == 0 && one != content && two != content {
			fail("%s (%s) was acknowledged and is lost", content, t)
		}
	}
	for content, n := range over {
		if n > 1 && !locals {
			fail("%d commits replace %s: one of them is lost", n, content)
		}
	}
	for _, c := range []string{one, two} {
		if _, ok := after[c]; !ok {
			fail("%s runs and nobody decided that", c)
		}
	}
}

func TestSimulation(t *testing.T) {
	commits, seeds := 0, int64(4000)
	if testing.Short() {
		seeds = 500
	}
	for seed := range seeds {
		for _, locals := range []bool{false, true} {
			w := newWorld(t, seed)
			w.run(locals)
			w.check(locals)
			commits += len(w.acked)
		}
	}
	if int64(commits) < seeds/2 {
		t.Errorf("only %d commits succeeded: the simulation shows little", commits)
	}
}
