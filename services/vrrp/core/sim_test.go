package core

import (
	"flag"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"ballast/test/simulation"
)

var (
	seeds = flag.Int("vrrp.seeds", 2000, "seeded schedules that the simulation runs, for each version")
	first = flag.Uint64("vrrp.first", 0, "first seed, to run a failed one again with -vrrp.seeds 1")
)

// world is a LAN of routers in virtual time.
type world struct {
	*simulation.World
	nodes []*node
	adv   time.Duration // shortest interval, the unit of everything

	resigned time.Duration // when the last priority 0 was sent
	lan      simulation.Wire

	strict bool // no pauses and one interval: the bound is the master-down interval itself
}

// node is one router: its machine and the shell that a simulation needs.
type node struct {
	w       *world
	id      int
	cfg     Config
	st      State
	timers  [Timers]time.Duration // local time; 0: off
	clock   simulation.Clock
	alive   bool
	paused  bool
	frozen  bool // paused with its kernel: what arrives is lost
	faulty  bool
	held    bool
	vips    bool
	inbox   []Event
	changes int    // of phase
	restart func() // pending after a kill -9
	lowest  uint8  // priority since it started
}

func (n *node) step(ev Event) {
	ev.At = n.clock.Now()
	before := n.st.Phase
	st, out, why := Step(n.st, ev, nil)
	n.st = st
	if before != st.Phase {
		n.changes++
		n.w.Note("router %d (%d): %v -> %v: %v", n.id, st.Effective, before, st.Phase, why)
	} else if why.Code == LateListens {
		n.w.Note("router %d (%d): %v", n.id, st.Effective, why)
	}
	for _, e := range out {
		switch e.Do {
		case SendAdvert:
			n.send(e.Priority)
		case SetTimer:
			n.timers[e.Timer] = e.At
			n.w.After(n.clock.Real(e.At-ev.At), n.tick)
		case StopTimer:
			n.timers[e.Timer] = 0
		case AddVIPs:
			n.vips = true
		case RemoveVIPs:
			n.vips = false
		}
	}
	if n.vips != (st.Phase == Master) {
		n.w.Violated("router %d is %v and holds VIPs: %v", n.id, st.Phase, n.vips)
	}
	if st.Phase != Backup && n.timers[TimerDown] != 0 || st.Phase != Master && n.timers[TimerAdvert] != 0 {
		n.w.Violated("router %d is %v with timers %v", n.id, st.Phase, n.timers)
	}
}

// tick fires what is due, as the shell does after it drained the socket.
func (n *node) tick() {
	if !n.alive || n.paused {
		return
	}
	for t := range n.timers {
		if due := n.timers[t]; due != 0 && due <= n.clock.Now()+time.Microsecond { // the clock's rate rounds
			n.timers[t] = 0
			n.step(Event{Kind: Expired, Timer: Timer(t), Due: due})
		}
	}
}

func (n *node) send(priority uint8) {
	w := n.w
	if priority == 0 {
		w.resigned = w.Now
	}
	for _, to := range w.nodes {
		if to == n || !w.lan.Joined(to.id, n.id) || w.Lost() {
			continue
		}
		ev := Event{Kind: Advert, From: n.cfg.Addr, Priority: priority, AdvertInt: n.cfg.AdvertInt}
		w.After(w.UpTo(w.Delay), func() { to.receive(ev) })
	}
}

func (n *node) receive(ev Event) {
	ev.RxAt = n.clock.Now()
	switch {
	case !n.alive || n.paused && n.frozen:
	case n.paused:
		n.inbox = append(n.inbox, ev)
	case ev.AdvertInt != n.cfg.AdvertInt && n.cfg.Version == 2:
	default:
		n.step(ev)
	}
}

func (n *node) boot(adopt bool) {
	n.alive, n.paused, n.inbox, n.timers, n.held = true, false, nil, [Timers]time.Duration{}, false
	n.vips, n.lowest = adopt, n.cfg.Priority
	n.w.Note("router %d starts (adopts: %v)", n.id, adopt)
	n.step(Event{Kind: Start, Cfg: &n.cfg, Priority: n.cfg.Priority, Faulty: n.faulty, Adopt: adopt})
}

func (n *node) resume() {
	if !n.paused {
		return
	}
	n.paused = false
	n.w.Note("router %d goes on", n.id)
	for _, ev := range n.inbox {
		n.step(ev)
	}
	n.inbox = nil
	n.tick()
}

// chaos does one thing that happens to routers.
func (w *world) chaos() {
	n := w.nodes[w.Rand.IntN(len(w.nodes))]
	switch w.Rand.IntN(12) {
	case 0:
		if n.alive && !n.paused {
			w.Note("router %d crashes with its machine", n.id)
			n.alive, n.vips = false, false
		}
	case 1:
		if !n.alive {
			n.boot(false)
		}
	case 2:
		if n.alive && !n.paused { // kill -9, back at once or a little later
			was := n.st.Phase == Master
			n.alive = false
			w.Note("router %d: kill -9", n.id)
			n.restart = func() {
				if !n.alive {
					n.boot(was)
				}
				n.restart = nil
			}
			w.After(time.Duration(w.Rand.Int64N(int64(3*w.adv))), func() {
				if n.restart != nil {
					n.restart()
				}
			})
		}
	case 3:
		if n.alive && !n.paused {
			w.Note("router %d stops", n.id)
			n.step(Event{Kind: Stop})
			n.alive = false
		}
	case 4, 5:
		if !w.strict && n.alive && !n.paused {
			n.paused, n.frozen = true, w.Rand.IntN(2) == 0
			w.Note("router %d pauses, frozen %v", n.id, n.frozen)
			w.After(time.Duration(w.Rand.Int64N(int64(8*w.adv))), n.resume)
		}
	case 6:
		w.Part(w.lan)
		w.Note("partition %v", w.lan)
	case 7:
		clear(w.lan)
		w.Note("heal")
	case 8:
		w.Loss = []float64{0, 0, 0.1, 0.3, 0.6}[w.Rand.IntN(5)]
		w.Note("loss %v", w.Loss)
	case 9:
		if n.alive && !n.paused {
			n.faulty = !n.faulty
			n.step(Event{Kind: SetFault, Faulty: n.faulty})
		}
	case 10:
		if n.alive && !n.paused && n.cfg.Priority != 255 {
			p := uint8(1 + w.Rand.IntN(254))
			w.Note("router %d: priority %d", n.id, p)
			n.lowest = min(n.lowest, p)
			n.step(Event{Kind: Effective, Priority: p})
		}
	case 11:
		if n.alive && !n.paused {
			n.held = !n.held
			w.Note("router %d: held %v", n.id, n.held)
			n.step(Event{Kind: Hold, Held: n.held})
		}
	}
}

func newWorld(t *testing.T, seed uint64, version int) *world {
	w := &world{World: simulation.New(t, seed, uint64(version), "go test ./services/vrrp/core -run Simulation -vrrp.first %d -vrrp.seeds 1")}
	rng := w.Rand
	w.strict = rng.IntN(2) == 0
	w.adv = time.Second
	if version == 3 {
		w.adv = []time.Duration{10, 30, 100, 1000, 5000}[rng.IntN(5)] * time.Millisecond
	}
	count := 2 + rng.IntN(4)
	w.lan = make(simulation.Wire, count)
	noPreempt := rng.IntN(3) == 0
	delay := time.Duration(0)
	if !noPreempt && rng.IntN(4) == 0 {
		delay = time.Duration(1+rng.IntN(20)) * w.adv
	}
	learn := time.Duration(rng.IntN(2)*rng.IntN(20)) * w.adv
	owner := rng.IntN(6) == 0
	for i := range count {
		n := &node{w: w, id: i, clock: w.Clock(0)}
		n.cfg = Config{
			Version: version, Addr: netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), Priority: uint8(1 + rng.IntN(254)),
			AdvertInt: w.adv, DownAdverts: 3, NoPreempt: noPreempt, PreemptDelay: delay, Learn: learn,
			GARPDelay: 5 * w.adv, GARPRepeat: 5, GARPRefresh: time.Duration(rng.IntN(2)) * 7 * w.adv, GARPRefreshRepeat: 1,
			GARPLowerPrioDelay: 5 * w.adv, GARPLowerPrioRepeat: 5,
			LowerPrioNoAdvert: rng.IntN(4) == 0, HigherPrioSendAdvert: rng.IntN(4) == 0,
		}
		if version == 3 && !w.strict && rng.IntN(4) == 0 {
			n.cfg.AdvertInt = w.adv * time.Duration(1+rng.IntN(4))
		}
		if rng.IntN(3) == 0 {
			n.cfg.Priority = 100 // ties
		}
		// Two owners are a mistake, and yet one of them must win.
		if owner && (i == 0 || i == 1 && seed%2 == 0) {
			n.cfg.Priority, n.cfg.NoPreempt, n.cfg.PreemptDelay = 255, false, 0
		}
		w.nodes = append(w.nodes, n)
	}
	return w
}

func (w *world) masters() (list []*node) {
	for _, n := range w.nodes {
		if n.alive && n.st.Phase == Master {
			list = append(list, n)
		}
	}
	return list
}

func (w *world) changes() (sum int) {
	for _, n := range w.nodes {
		sum += n.changes
	}
	return sum
}

// calm ends every trouble and asserts what VRRP promises.
func (w *world) calm() {
	clear(w.lan)
	calm, inFlight := w.Now, w.Delay // what was sent before still comes, and counts from then
	w.Loss, w.Delay = 0, w.adv/2000
	for _, n := range w.nodes {
		n.resume()
		if n.restart != nil {
			n.restart()
		}
	}
	w.Note("calm")
	var candidates []*node
	bound, slowest, preempt := time.Duration(0), w.adv, time.Duration(0)
	for _, n := range w.nodes {
		slowest = max(slowest, n.cfg.AdvertInt)
		if !n.alive || n.faulty || n.held {
			continue
		}
		candidates = append(candidates, n)
		// A timer that was armed at a lower priority keeps that one's skew.
		bound = max(bound, n.st.MasterDown()-n.st.skew()+Skew(n.cfg.Version, n.lowest, n.st.MasterAdvert))
		slowest = max(slowest, n.st.MasterAdvert)
		preempt = max(preempt, n.cfg.PreemptDelay, n.cfg.Learn)
	}
	// What was on its way in troubled times arrives first, and after one
	// interval everybody has heard the master, if there is one.
	w.Run(slowest + slowest/8)
	sole := w.masters()
	if w.resigned > calm-inFlight-slowest {
		sole = nil // a resignation is on its way still: its receivers take over, and may
	}
	w.Run(bound + inFlight - slowest)
	if !w.strict {
		// Routers that just came back from a pause may listen one interval
		// more, and a backup that hears a slower master takes over its interval.
		w.Run(4 * slowest)
	}
	got := w.masters()
	if want := min(1, len(candidates)); len(got) != want {
		w.Violated("%d masters, want %d, of %d candidates", len(got), want, len(candidates))
	}
	if preempt > 0 {
		w.Run(preempt + 6*slowest)
		got = w.masters()
	}
	if len(got) == 1 {
		w.checkWinner(got[0], sole, candidates)
	}
	before := w.changes()
	w.Run(40 * slowest)
	if n := w.changes() - before; n != 0 {
		w.Violated("%d changes of state in a calm network", n)
	}
}

func (w *world) checkWinner(got *node, sole, candidates []*node) {
	if !w.nodes[len(w.nodes)-1].cfg.NoPreempt {
		for _, n := range candidates {
			if n.st.Effective > got.st.Effective {
				w.Violated("router %d (%d) is master, router %d has priority %d", got.id, got.st.Effective, n.id, n.st.Effective)
			}
		}
		return
	}
	if len(sole) != 1 || sole[0] == got {
		return
	}
	if got.cfg.Priority != 255 { // the owner always preempts
		w.Violated("nopreempt: router %d was the only master, now router %d is", sole[0].id, got.id)
	}
}

func simulate(t *testing.T, seed uint64, version int) *world {
	w := newWorld(t, seed, version)
	w.Delay = w.adv / 2000
	for _, n := range w.nodes {
		w.After(time.Duration(w.Rand.Int64N(int64(5*w.adv))), func() { n.boot(false) })
	}
	w.Run(6 * w.adv)
	for range 3 {
		w.Delay = time.Duration(w.Rand.Int64N(int64(w.adv)))
		for range 4 + w.Rand.IntN(20) {
			w.Run(time.Duration(w.Rand.Int64N(int64(4 * w.adv))))
			w.chaos()
		}
		w.calm()
	}
	return w
}

// TestSimulation runs seeded schedules of loss, delay, partition, crash,
// restart, pause, fault, resignation and changing priority over 2 to 5 routers
// with drifting clocks. After each spell of trouble, in the connected network:
// exactly one master within the master-down interval and for good, the
// highest priority under preempt, the one that was master under nopreempt.
func TestSimulation(t *testing.T) {
	for _, version := range []int{2, 3} {
		t.Run(fmt.Sprintf("v%d", version), func(t *testing.T) {
			t.Parallel()
			for i := range uint64(*seeds) {
				simulate(t, *first+i, version)
			}
		})
	}
}

// A seed must mean the same run for ever, or a failure could not be repeated.
func TestSimulationIsDeterministic(t *testing.T) {
	a, b := simulate(t, 7, 3), simulate(t, 7, 3)
	if strings.Join(a.Trace(), "\n") != strings.Join(b.Trace(), "\n") {
		t.Error("two runs of one seed differ")
	}
}
