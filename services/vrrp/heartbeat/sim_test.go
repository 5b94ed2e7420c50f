package heartbeat

import (
	"flag"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"ballast/services/vrrp/core"
	"ballast/test/simulation"
)

var (
	seeds = flag.Int("heartbeat.seeds", 2000, "seeded schedules that the simulation runs")
	first = flag.Uint64("heartbeat.first", 0, "first seed, to run a failed one again with -heartbeat.seeds 1")
)

// world is two boxes with a heartbeat, and perhaps a third router without one,
// in virtual time. The first path lies on the LAN of VRRP, the second beside it.
type world struct {
	*simulation.World
	boxes []*box
	slow  time.Duration // latest wake-up of a loop
	lan   simulation.Wire
	side  simulation.Wire
	moved time.Duration // when the LAN or somebody's kernel last changed
}

var theKey = NewKey(51, false, nil)

func (w *world) connected(a, b *box) bool {
	return w.lan.Joined(a.id, b.id) && !a.down && !b.down
}

func (w *world) chaos() {
	b := w.boxes[w.Rand.IntN(len(w.boxes))]
	running := b.alive && !b.paused
	switch w.Rand.IntN(14) {
	case 0:
		if b.alive {
			w.Note("box %d loses power", b.id)
			b.die()
		}
	case 1, 2:
		if !b.alive {
			if !b.power {
				w.moved = w.Now
			}
			b.boot(false)
		}
	case 3:
		if running {
			was := b.st.Phase == core.Master
			w.Note("box %d: kill -9", b.id)
			b.alive, b.inbox = false, nil
			b.life++
			life := b.life
			w.After(w.UpTo(500*ms), func() {
				if b.life == life && b.power {
					b.boot(was)
				}
			})
		}
	case 4:
		if running && b.leaving == "" {
			w.Note("box %d is to stop", b.id)
			if b.peer == nil {
				b.step(core.Event{Kind: core.Stop})
				b.alive = false
				b.life++
			} else {
				b.handOver("stop")
				if b.alive {
					b.wakeIn(0)
				}
			}
		}
	case 5, 6:
		if running {
			b.paused, b.frozen = true, w.Rand.IntN(2) == 0
			if b.frozen {
				w.moved = w.Now
			}
			w.Note("box %d pauses, frozen %v", b.id, b.frozen)
			life := b.life
			w.After(w.UpTo([]time.Duration{20 * ms, 60 * ms, 5 * time.Second}[w.Rand.IntN(3)]), func() {
				if b.life == life {
					b.resume()
				}
			})
		}
	case 7:
		w.moved = w.Now
		w.Part(w.lan)
		w.Note("LAN %v", w.lan)
	case 8:
		w.Part(w.side)
		w.Note("second path %v", w.side)
	case 9:
		w.moved = w.Now
		clear(w.lan)
		clear(w.side)
		w.Note("all wires are whole")
	case 10:
		w.Note("box %d: link up %v", b.id, b.down)
		b.link(b.down)
	case 11:
		if running && b.peer != nil && b.leaving != "stop" {
			b.held = !b.held
			w.Note("box %d: held %v", b.id, b.held)
			if b.held && b.leaving == "" {
				b.handOver("hold")
			} else if b.leaving != "hold" {
				b.step(core.Event{Kind: core.Hold, Held: b.held})
			}
			b.wakeIn(0)
		}
	case 12:
		if running {
			p := uint8(1 + w.Rand.IntN(254))
			w.Note("box %d: priority %d", b.id, p)
			b.step(core.Event{Kind: core.Effective, Priority: p})
			b.wakeIn(0)
		}
	case 13:
		w.Loss = []float64{0, 0.05, 0.5}[w.Rand.IntN(3)]
	}
}

func (w *world) masters() (list []*box) {
	for _, b := range w.boxes {
		if b.alive && b.st.Phase == core.Master {
			list = append(list, b)
		}
	}
	return list
}

// covered tells whether somebody holds the addresses.
func (w *world) covered() bool {
	for _, b := range w.boxes {
		if b.vips && b.power {
			return true
		}
	}
	return false
}

// calm ends every trouble and asserts what is promised in peace.
func (w *world) calm() {
	w.Note("calm")
	clear(w.lan)
	clear(w.side)
	w.Loss, w.Delay, w.slow, w.moved = 0, ms/2, ms/2, w.Now
	for _, b := range w.boxes {
		b.resume()
	}
	w.Run(400 * ms) // hand-overs that are under way end
	for _, b := range w.boxes {
		if b.down {
			b.link(true)
		}
		if !b.alive {
			b.boot(b.power && b.vips)
		}
		if b.held {
			b.held = false
			if b.leaving == "" {
				b.step(core.Event{Kind: core.Hold, Held: false})
			}
		}
		b.wakeIn(0)
	}
	w.Run(8 * time.Second)
	got := w.masters()
	if len(got) != 1 {
		w.Violated("%d masters in a calm network", len(got))
	}
	for _, b := range w.boxes {
		if b.st.Phase == core.Fault || b.st.Phase == core.Init {
			w.Violated("box %d is %v in a calm network", b.id, b.st.Phase)
		}
		if !w.boxes[0].cfg.NoPreempt && b.st.Effective > got[0].st.Effective {
			w.Violated("box %d (%d) is master, box %d has priority %d", got[0].id, got[0].st.Effective, b.id, b.st.Effective)
		}
		if b.peer != nil && !b.peer.Up {
			w.Violated("box %d does not hear the heartbeat", b.id)
		}
	}
	if m := got[0]; m.peer != nil {
		w.promise(m, m.other())
	}
}

// promise does to a master in peace what the heartbeat is for.
func (w *world) promise(m, next *box) {
	candidate := next.view()[0].Ready
	switch w.Rand.IntN(4) {
	case 0:
		w.Note("box %d loses power", m.id)
		m.die()
		w.Run(50 * ms)
		if candidate && next.st.Phase != core.Master {
			w.Violated("box %d is %v 50 ms after the master's death", next.id, next.st.Phase)
		}
		if !candidate && next.st.Phase == core.Master {
			w.Violated("box %d went before its turn", next.id)
		}
	case 1:
		w.Note("box %d loses its link", m.id)
		m.link(false)
		w.Run(3 * ms)
		if candidate && next.st.Phase != core.Master {
			w.Violated("box %d is %v 3 ms after the master lost its link", next.id, next.st.Phase)
		}
	case 2:
		if !candidate {
			return
		}
		w.Note("box %d is resigned", m.id)
		m.held = true
		m.handOver("hold")
		m.wakeIn(0)
		for end := w.Now + Patience + Overlap + 50*ms; w.Now < end; {
			w.Run(ms / 4)
			if !w.covered() {
				w.Violated("nobody holds the addresses")
			}
		}
		if m.st.Phase != core.Backup || len(w.boxes) == 2 && next.st.Phase != core.Master {
			w.Violated("after the hand-over box %d is %v, box %d %v", m.id, m.st.Phase, next.id, next.st.Phase)
		}
		if len(w.boxes) > 2 || next.cfg.NoPreempt {
			return
		}
		w.Note("box %d is resumed", m.id)
		m.held = false
		m.step(core.Event{Kind: core.Hold})
		m.wakeIn(0)
		for end := w.Now + 6*time.Second; w.Now < end; {
			w.Run(ms / 2)
			if !w.covered() {
				w.Violated("nobody holds the addresses")
			}
		}
		if next.st.Phase != core.Backup && m.st.Effective > next.st.Effective {
			w.Violated("box %d did not yield", next.id)
		}
	case 3:
		w.Note("peace for three seconds")
		seen := len(w.Trace())
		w.slow = 8 * ms // a loaded machine
		w.Run(3 * time.Second)
		if len(w.Trace()) != seen {
			w.Violated("something happened in peace")
		}
	}
}

func simulate(t *testing.T, seed uint64) *world {
	w := &world{World: simulation.New(t, seed, 12, "go test ./services/vrrp/heartbeat -run Simulation -heartbeat.first %d -heartbeat.seeds 1"),
		slow: ms / 2, lan: make(simulation.Wire, 3), side: make(simulation.Wire, 3)}
	w.Delay = ms / 2
	rng := w.Rand
	noPreempt := rng.IntN(4) == 0
	for i := range 2 + rng.IntN(2) {
		b := &box{w: w, id: i, clock: w.Clock(time.Hour)}
		b.cfg = core.Config{
			Version: 3, Addr: netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), Priority: uint8(1 + rng.IntN(254)),
			AdvertInt: time.Second, DownAdverts: 3, NoPreempt: noPreempt, GARPRepeat: 5,
		}
		w.boxes = append(w.boxes, b)
	}
	for _, b := range w.boxes {
		w.After(w.UpTo(time.Second), func() { b.boot(false) })
	}
	w.Run(6 * time.Second)
	for range 2 {
		w.Delay, w.slow = w.UpTo(5*ms), w.UpTo(15*ms)
		for range 4 + rng.IntN(16) {
			w.Run(w.UpTo([]time.Duration{20 * ms, 100 * ms, 2 * time.Second}[rng.IntN(3)]))
			w.chaos()
		}
		w.calm()
	}
	return w
}

// TestSimulation runs seeded schedules of lost and doubled datagrams,
// partitions of either path, power cuts, restarts, stopped processes, stopped
// machines, late loops, lost links, resignations and changing priorities.
// Never is a peer called dead whose kernel answers; in peace there is one
// master, its death or lost link is made good in time, and a planned change of
// places leaves no moment without a holder.
func TestSimulation(t *testing.T) {
	n := *seeds
	if testing.Short() {
		n = min(n, 100)
	}
	for half := range uint64(2) {
		t.Run(fmt.Sprint(half), func(t *testing.T) {
			t.Parallel()
			for i := half; i < uint64(n); i += 2 {
				simulate(t, *first+i)
			}
		})
	}
}

func TestSimulationIsDeterministic(t *testing.T) {
	a, b := simulate(t, 7), simulate(t, 7)
	if strings.Join(a.Trace(), "\n") != strings.Join(b.Trace(), "\n") {
		t.Error("two runs of one seed differ")
	}
}
