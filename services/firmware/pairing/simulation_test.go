package pairing

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"ballast/image/layout"
)

var (
	schedules = flag.Int("schedules", 0, "how many schedules of each kind the simulation runs; 0: 400 with -short, else 4,000")
	oneSeed   = flag.Int64("seed", -1, "run the schedule of this seed only, and print what happens")
)

var (
	oldOne = layout.Identity{Version: "1", Build: 1, Board: "x"}
	newOne = layout.Identity{Version: "2", Build: 2, Board: "x"}
)

// simBox is a box of the simulation, as it really is.
type simBox struct {
	name     string
	up       bool // its kernel runs
	since    time.Duration
	boot     int
	running  layout.Identity
	good     layout.Identity // what the boot loader starts
	try      layout.Identity
	left     int
	trial    bool
	verdict  string
	ordered  bool // it is away because it was told to
	going    time.Duration
	goes     bool
	resigned string
	fault    bool
	proves   bool // the new firmware does its job on this box
	loaded   bool
	conns    uint64
	packets  uint64
	master   map[string]bool

	disk    Record // what it has kept
	node    *Node  // nil: the process is not there
	seen    time.Duration
	back    time.Duration // when the process comes back
	refused map[Order]string
	leaves  time.Duration   // when it resigned
	tried   map[uint64]bool // by the record's number: it rebooted into its trial
}

type delayed struct {
	at    time.Duration
	to    int
	order Order
	rec   Record
	pass  string
}

type world struct {
	t       *testing.T
	seed    uint64
	r       *rand.Rand
	now     time.Duration
	boxes   [2]*simBox
	link    bool // the wire between the boxes
	loss    float64
	nopre   bool
	lag     time.Duration // until somebody else is master where one has resigned
	names   []string
	prefers map[string]int
	late    []delayed
	broken  [2]time.Duration // when something last happened to a box that nobody ordered
	alone   [2]time.Duration // since when a box has resigned with nobody to serve
	faults  bool
	talk    bool
	drv     int
}

func (w *world) say(format string, args ...any) {
	if w.talk {
		w.t.Logf("%9.1fs  "+format, append([]any{w.now.Seconds()}, args...)...)
	}
}

func (w *world) fail(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("seed %d at %v: %s", w.seed, w.now, fmt.Sprintf(format, args...))
}

const (
	simBoot  = 20 * time.Second
	simProve = 15 * time.Second
)

func newWorld(t *testing.T, seed uint64, faults bool) *world {
	w := &world{t: t, seed: seed, r: rand.New(rand.NewPCG(seed, 7)), link: true, faults: faults, talk: *oneSeed == int64(seed), names: []string{"VI_1", "VI_2", "VI_3"}, prefers: map[string]int{}}
	w.nopre = w.r.IntN(3) == 0
	w.lag = time.Duration(w.r.IntN(6000)) * time.Millisecond
	if faults && w.r.IntN(10) == 0 {
		w.lag = 10 * time.Minute // it does not obey
	}
	for i := range w.boxes {
		b := &simBox{name: fmt.Sprintf("lb%d", i+1), up: true, boot: i * 1000, running: oldOne, good: oldOne, proves: true, loaded: true, master: map[string]bool{}, since: -time.Hour, conns: 50, tried: map[uint64]bool{}}
		if faults && w.r.IntN(5) == 0 {
			b.proves = false
		}
		b.node = NewNode(b.name, Record{})
		w.boxes[i] = b
	}
	both := w.r.IntN(2) == 0 // active/active
	for i, n := range w.names {
		if both {
			w.prefers[n] = i % 2
		}
	}
	w.elect()
	return w
}

// elect is VRRP.
func (w *world) elect() {
	for _, n := range w.names {
		can := func(i int) bool {
			b := w.boxes[i]
			keeps := b.master[n] && w.now-b.leaves < w.lag // make before break
			return b.up && !b.fault && (b.resigned == "" || keeps) && !(b.goes && w.now-b.going > time.Second) && w.now-b.since > 8*time.Second
		}
		have := -1
		for i, b := range w.boxes {
			if b.up && b.master[n] {
				have = i
			}
		}
		want := w.prefers[n]
		if !can(want) || w.nopre && have == 1-want && can(have) {
			want = 1 - want
		}
		if !can(want) {
			want = -1
			if have >= 0 && !w.boxes[have].fault && w.boxes[have].resigned == "" && w.boxes[have].up && !w.boxes[have].goes {
				want = have
			}
		}
		for i, b := range w.boxes {
			b.master[n] = i == want
		}
	}
}

func (w *world) report(i int) *Report {
	b := w.boxes[i]
	r := &Report{Speaks: 1, Box: b.name, Boot: fmt.Sprint(b.boot), Running: b.running, Slot: layout.A, Trial: b.trial, Verdict: b.verdict, Going: b.goes, Content: "c",
		Resigned: b.resigned, Live: 3, Conns: b.conns, Packets: b.packets, Sync: true}
	if b.loaded && b.running != newOne {
		r.Loaded = newOne
	}
	if w.now-b.since < 6*time.Second {
		r.Unsound = []string{"health is starting"}
		r.Live = 0
	}
	for _, n := range w.names {
		s := backup
		switch {
		case b.fault:
			s = "FAULT"
		case b.master[n]:
			s = master
		}
		r.Instances = append(r.Instances, Instance{Name: n, State: s})
	}
	return r
}

// serves reports whether a box does all the work, as it really is.
func (w *world) serves(i int) bool {
	b := w.boxes[i]
	for _, n := range w.names {
		if !b.master[n] {
			return false
		}
	}
	return b.up && !b.goes && !b.trial && !b.fault && b.resigned == ""
}

// reboot is a voluntary reboot into the trial.
func (w *world) reboot(i int) {
	b, other := w.boxes[i], w.boxes[1-i]
	if b.goes {
		return
	}
	w.say("%s is told to reboot into its trial", b.name)
	if other.ordered || other.trial || other.goes {
		w.fail("%s reboots while %s is away or on trial by order", b.name, other.name)
	}
	// What happened to the other box in the last seconds could not be known.
	if !w.serves(1-i) && w.now-w.broken[1-i] > ticketLife+2*time.Second {
		w.fail("%s reboots and %s does not serve: %+v", b.name, other.name, other)
	}
	if seq := max(w.boxes[0].disk.Seq, w.boxes[1].disk.Seq); b.tried[seq] {
		w.fail("%s is tried a second time though nobody said to continue", b.name)
	} else {
		b.tried[seq] = true
	}
	b.try, b.left = newOne, layout.TrialAttempts
	b.goes, b.going, b.ordered = true, w.now, true
}

// down takes the power away, or is the end of a reboot.
func (w *world) down(i int) {
	b := w.boxes[i]
	b.up, b.node, b.goes, b.resigned, b.since, b.conns = false, nil, false, "", w.now, 0
	for n := range b.master {
		b.master[n] = false
	}
}

func (w *world) start(i int) {
	b := w.boxes[i]
	b.up, b.since, b.boot, b.trial, b.fault = true, w.now, b.boot+1, false, false
	b.running = b.good
	if b.try != (layout.Identity{}) {
		if b.left > 0 {
			b.left--
			b.running, b.trial = b.try, true
		} else {
			b.try = layout.Identity{}
			b.verdict = "it was started twice and proved nothing"
		}
	}
	if !b.trial {
		b.ordered = false
	}
	w.say("%s starts %s, trial %v", b.name, b.running.Version, b.trial)
	w.process(i)
}

// process starts the service anew, with what the disk has.
func (w *world) process(i int) {
	b := w.boxes[i]
	b.node, b.refused = NewNode(b.name, b.disk), nil
	b.seen = w.now
}

// die ends the service.
func (w *world) die(i int) {
	b := w.boxes[i]
	w.say("the service of %s dies", b.name)
	b.node, b.back = nil, w.now+time.Duration(w.r.IntN(12000))*time.Millisecond
}

// life is what a box does by itself.
func (w *world) life(i int) {
	b := w.boxes[i]
	switch {
	case !b.up && w.now-b.since > simBoot:
		w.start(i)
	case b.up && b.node == nil && w.now > b.back:
		w.process(i)
	case b.up && b.goes && w.now-b.going > 3*time.Second:
		w.down(i)
	case b.up && b.trial && b.proves && w.now-b.since > simProve:
		b.good, b.try, b.trial, b.ordered = b.running, layout.Identity{}, false, false
		w.say("%s has proved %s", b.name, b.running.Version)
	case b.up && b.trial && !b.proves && w.now-b.since > layout.TrialLimit:
		b.try, b.verdict = layout.Identity{}, "no VRRP"
		w.say("%s rejects it", b.name)
		w.down(i)
	}
	if b.up {
		b.conns = min(50, b.conns+2)
		for _, m := range b.master {
			if m {
				b.packets += 40
			}
		}
	}
}

// obey does what a box is to do to itself.
func (w *world) obey(i int, o Order) {
	b := w.boxes[i]
	switch o {
	case ResignOwn:
		w.say("%s resigns", b.name)
		b.resigned, b.leaves = By, w.now
	case ResumeOwn:
		w.say("%s takes part again", b.name)
		b.resigned = ""
	case TrialOwn:
		w.reboot(i)
	}
}

// tell brings an order and the record to the other box; "" and false: nobody knows.
func (w *world) tell(to int, o Order, pass string, rec Record) (refused string, answered bool) {
	b := w.boxes[to]
	if !w.link || !b.up || b.node == nil || w.r.Float64() < w.loss/2 {
		return "", false
	}
	own := w.report(to)
	if err := b.node.Hear(&rec, own); err != nil {
		return err.Error(), true
	}
	b.disk = b.node.Record
	if o != "" {
		do, err := b.node.Told(o, pass, own)
		if errors.Is(err, ErrLate) {
			return "", false
		}
		if err != nil {
			return err.Error(), true
		}
		w.obey(to, do)
	}
	return "", w.r.Float64() >= w.loss/2
}

func (w *world) tick(i int) {
	b := w.boxes[i]
	if !b.up || b.node == nil {
		return
	}
	n := b.node
	l := Look{Now: time.Unix(1e9, 0).Add(w.now), Elapsed: w.now - b.seen, Own: w.report(i), Refused: b.refused, Lost: "no answer in time"}
	b.seen, b.refused = w.now, nil
	if n.Drives() {
		if _, ok := w.tell(1-i, "", "", n.Record); ok {
			l.Other = w.report(1 - i)
			w.boxes[1-i].node.Issue(l.Other, fmt.Sprint(w.r.Uint64()))
		}
	}
	was, stopped := n.Phase, n.Stopped
	orders := n.Tick(l)
	b.disk = n.Record
	if n.Phase != was || n.Stopped != stopped {
		w.say("%s: %s %s", b.name, n.Phase, n.Stopped)
	}
	pass := ""
	if l.Other != nil {
		pass = l.Other.Ticket
	}
	for _, o := range orders {
		switch o {
		case ResignOther, ResumeOther, TrialOther:
			if w.faults && w.r.IntN(4) == 0 { // on its way for long, in a socket
				w.late = append(w.late, delayed{w.now + time.Duration(w.r.IntN(60000))*time.Millisecond, 1 - i, o, n.Record, pass})
				continue
			}
			if why, ok := w.tell(1-i, o, pass, n.Record); ok && why != "" {
				b.refused = map[Order]string{o: why}
			}
		default:
			if w.faults && w.r.IntN(30) == 0 {
				w.die(i) // before it has done what it wrote down
				return
			}
			w.obey(i, o)
		}
	}
}

// harm does something to somebody.
func (w *world) harm() {
	i := w.r.IntN(2)
	b := w.boxes[i]
	switch w.r.IntN(7) {
	case 0:
		if b.up {
			w.say("power cut of %s", b.name)
			w.broken[i] = w.now
			w.down(i)
		}
	case 1, 2:
		w.link = !w.link
		w.say("the wire: %v", w.link)
	case 3:
		if b.up && !b.goes {
			b.fault, w.broken[i] = !b.fault, w.now
			w.say("%s in FAULT: %v", b.name, b.fault)
		}
	case 4:
		w.loss = w.r.Float64()
		w.say("loss of %.2f", w.loss)
	case 5:
		if b.up {
			w.die(i)
		}
	case 6:
		for k := range w.boxes {
			x := w.boxes[k]
			if x.up && x.node != nil && x.node.Drives() {
				var err error
				what := "continue"
				if w.r.IntN(4) == 0 {
					what = "abort"
					err = x.node.Abort("ann")
				} else if w.link {
					err = x.node.Continue(Look{Now: time.Unix(1e9, 0).Add(w.now), Own: w.report(k), Other: w.answer(1 - k)}, "ann")
				}
				x.disk = x.node.Record
				w.say("%s: %s: %v", x.name, what, err)
			}
		}
	}
}

func (w *world) answer(i int) *Report {
	if !w.link || !w.boxes[i].up || w.boxes[i].node == nil {
		return nil
	}
	return w.report(i)
}

// watch holds the world to what must always be true.
func (w *world) watch(step time.Duration) {
	away := 0
	for i, b := range w.boxes {
		if b.ordered {
			away++
		}
		// Who has resigned while there is nobody else takes part again soon.
		other := w.boxes[1-i]
		if b.up && !b.goes && b.resigned == By && b.node != nil && (!other.up || other.resigned == By) {
			if w.alone[i] += step; w.alone[i] > 12*time.Second {
				w.fail("%s has resigned and nobody else is there", b.name)
			}
		} else {
			w.alone[i] = 0
		}
	}
	if away == 2 {
		w.fail("both boxes are away or on trial by order")
	}
	if !w.faults {
		for _, n := range w.names {
			if !w.boxes[0].master[n] && !w.boxes[1].master[n] {
				w.fail("nobody is master of %s", n)
			}
		}
	}
}

// run is one schedule to its end.
func run(t *testing.T, seed uint64, faults bool) (end Record) {
	w := newWorld(t, seed, faults)
	here := w.r.IntN(2)
	rec, second, err := Plan(Request{ID: fmt.Sprint(seed), By: "ann", Now: time.Unix(1e9, 0), Here: *w.report(here), Peer: *w.report(1 - here)})
	if err != nil {
		w.fail("%v", err)
	}
	rec.To = newOne
	w.drv = here
	if !second {
		w.drv = 1 - here
	}
	d := w.boxes[w.drv]
	if err := d.node.Drive(&rec, w.report(w.drv)); err != nil {
		w.fail("%v", err)
	}
	d.disk = d.node.Record
	quiet := time.Duration(w.r.IntN(400)) * time.Second // when harm ends
	next, pace := time.Duration(w.r.IntN(120))*time.Second, 40.0
	if w.r.IntN(2) == 0 {
		next, pace = time.Duration(w.r.IntN(10))*time.Second, 4
		quiet = min(quiet, 2*time.Minute)
	}
	for w.now < 3*time.Hour {
		step := time.Duration(300+w.r.IntN(1200)) * time.Millisecond
		w.now += step
		if faults && w.now > next && w.now < quiet {
			w.harm()
			next = w.now + time.Duration(w.r.ExpFloat64()*pace*1000)*time.Millisecond
		}
		if faults && w.now >= quiet {
			w.link, w.loss = true, 0
		}
		w.elect()
		for i := range w.boxes {
			w.life(i)
		}
		w.elect()
		for k := 0; k < len(w.late); k++ {
			if x := w.late[k]; x.at <= w.now {
				w.say("late: %s", x.order)
				w.tell(x.to, x.order, x.pass, x.rec)
				w.late = slices.Delete(w.late, k, k+1)
				k--
			}
		}
		for i := range w.boxes {
			w.tick(i)
		}
		w.watch(step)
		if w.now > quiet && len(w.late) == 0 && w.over() {
			break
		}
	}
	end = w.boxes[w.drv].disk
	if end.Goes() {
		w.fail("it never ends: %+v", end)
	}
	if end.Phase != Done && end.Stopped == "" {
		w.fail("it ends nowhere: %+v", end)
	}
	for i, b := range w.boxes {
		if b.resigned != "" {
			w.fail("%s is left resigned: %+v", b.name, end)
		}
		if b.disk.Stopped != end.Stopped || b.disk.Phase != end.Phase {
			w.fail("%s does not know how it ended: %+v, the other one: %+v", b.name, b.disk, end)
		}
		if end.Phase == Done && (b.good != newOne || b.trial) {
			w.fail("done, and %s runs %+v", b.name, w.boxes[i])
		}
	}
	return end
}

// over reports whether nothing is under way and everybody is there.
func (w *world) over() bool {
	end := w.boxes[w.drv].disk
	for _, b := range w.boxes {
		if !b.up || b.node == nil || b.trial || b.goes || b.resigned != "" || b.node.Goes() || b.disk.Seq != end.Seq {
			return false
		}
	}
	return !end.Goes()
}

func count() uint64 {
	switch {
	case *schedules > 0:
		return uint64(*schedules)
	case testing.Short():
		return 400
	}
	return 4000
}

// TestSimulationGood: where nothing fails every pair is upgraded, whoever is
// master of what, and each virtual router has a master all the time.
func TestSimulationGood(t *testing.T) {
	for seed := range count() / 4 {
		if *oneSeed >= 0 && *oneSeed != int64(seed) {
			continue
		}
		if end := run(t, seed, false); end.Phase != Done {
			t.Fatalf("seed %d: %s: %s", seed, end.Phase, end.Stopped)
		}
	}
}

// TestSimulation: power cuts, partitions, losses, orders that arrive late,
// services that die, faults and firmwares that prove nothing, at random moments.
// Both boxes are never away or on trial by order, none reboots unless the other
// one serves, none stays resigned alone, and it ends in a way that has a name.
func TestSimulation(t *testing.T) {
	ends, done := map[string]int{}, 0
	for seed := range count() {
		if *oneSeed >= 0 && *oneSeed != int64(seed) {
			continue
		}
		end := run(t, seed, true)
		if end.Phase == Done {
			done++
			continue
		}
		words := strings.Fields(end.Stopped)
		ends[string(end.Phase)+": "+strings.Join(words[min(1, len(words)):min(5, len(words))], " ")]++
	}
	t.Logf("%d done", done)
	if *oneSeed < 0 && (done < 20 || len(ends) < 10) {
		t.Errorf("%d done, %d ways to stop: the schedules do not reach far enough", done, len(ends))
	}
	if testing.Verbose() {
		for k, n := range ends {
			t.Logf("%5d %s", n, k)
		}
	}
}
