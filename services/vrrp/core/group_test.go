package core

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"ballast/test/simulation"
)

// lans is several networks, with boxes that have one router of a sync group on
// each of them. What happens to a box happens to all of its routers; a
// partition, a lost frame or a link down happens on one network.
type lans struct {
	*simulation.World
	boxes []*box
	nets  []simulation.Wire
	adv   time.Duration
}

// box is a director: a sync group and the shell that a simulation needs.
type box struct {
	w       *lans
	id      int
	alive   bool
	group   Group
	state   Phase
	members []*member
	told    map[string]Phase // what notify was told last
	faulty  int              // member whose own link is down; -1: none
	base    uint8
	changes int
}

type member struct {
	b      *box
	net    int
	cfg    Config
	st     State
	timers [Timers]time.Duration
	vips   bool
}

// Members.

func (b *box) Len() int           { return len(b.members) }
func (b *box) State(i int) *State { return &b.members[i].st }
func (b *box) Step(i int, k Kind, because int) {
	b.members[i].step(Event{Kind: k})
}
func (b *box) Reconsider(i int) {
	b.members[i].step(Event{Kind: SetFault, Faulty: b.faulty >= 0})
}

// turn is one turn of the loop: something happens, then the group settles and
// everybody sees the same.
func (b *box) turn(fn func()) {
	if !b.alive {
		return
	}
	fn()
	b.group.Settle(b)
	masters := 0
	for _, m := range b.members {
		if m.st.Phase == Master {
			masters++
		}
		if m.vips != (m.st.Phase == Master) {
			b.w.Violated("box %d, network %d: %v, holds VIPs: %v", b.id, m.net, m.st.Phase, m.vips)
		}
		if (m.st.Phase == Fault) != (b.faulty >= 0) {
			b.w.Violated("box %d, network %d: %v while a link is down: %v", b.id, m.net, m.st.Phase, b.faulty >= 0)
		}
	}
	if masters != 0 && masters != len(b.members) {
		b.w.Violated("box %d is master on %d of %d networks", b.id, masters, len(b.members))
	}
	if p := b.group.Phase(b); p != b.state {
		b.state = p
		b.changes++
		b.tell("group", p)
		b.w.Note("box %d: group %v", b.id, p)
	}
}

func (m *member) step(ev Event) {
	b, w := m.b, m.b.w
	ev.At = w.Now
	before := m.st.Phase
	st, out, why := Step(m.st, ev, nil)
	m.st = st
	if before != st.Phase {
		b.tell(m.name(), st.Phase)
		w.Note("box %d, network %d (%d): %v -> %v: %v", b.id, m.net, st.Effective, before, st.Phase, why)
		b.group.Changed(m.net, st.Phase, why.Code)
	}
	for _, e := range out {
		switch e.Do {
		case SendAdvert:
			m.send(e.Priority)
		case SetTimer:
			m.timers[e.Timer] = e.At
			w.After(e.At-w.Now, func() { b.turn(b.tick) })
		case StopTimer:
			m.timers[e.Timer] = 0
		case AddVIPs:
			m.vips = true
		case RemoveVIPs:
			m.vips = false
		case AskGroup:
			b.group.Asked()
		}
	}
}

func (b *box) tick() {
	for _, m := range b.members {
		for t := range m.timers {
			if due := m.timers[t]; due != 0 && due <= b.w.Now {
				m.timers[t] = 0
				m.step(Event{Kind: Expired, Timer: Timer(t), Due: due})
			}
		}
	}
}

func (m *member) send(priority uint8) {
	w := m.b.w
	for _, to := range w.boxes {
		if to == m.b || !w.nets[m.net].Joined(to.id, m.b.id) || w.Lost() {
			continue
		}
		ev := Event{Kind: Advert, From: m.cfg.Addr, Priority: priority, AdvertInt: m.cfg.AdvertInt}
		w.After(w.UpTo(w.Delay), func() {
			if to.faulty == m.net {
				return
			}
			to.turn(func() {
				ev.RxAt = w.Now
				to.members[m.net].step(ev)
			})
		})
	}
}

func (b *box) boot() {
	b.alive, b.group, b.faulty, b.state, b.told = true, Group{}, -1, Init, map[string]Phase{}
	b.w.Note("box %d starts", b.id)
	for _, m := range b.members {
		m.st, m.timers, m.vips = State{}, [Timers]time.Duration{}, false
	}
	b.turn(func() {
		for _, m := range b.members {
			m.step(Event{Kind: Start, Cfg: &m.cfg, Priority: b.base})
		}
	})
}

// link takes the link of a network down (-1: all are up).
func (b *box) link(net int) {
	was := b.faulty
	b.faulty = net
	i := max(net, was) // the member that sees it
	b.turn(func() { b.members[i].step(Event{Kind: SetFault, Faulty: net >= 0}) })
}

func (w *lans) chaos() {
	b := w.boxes[w.Rand.IntN(len(w.boxes))]
	net := w.Rand.IntN(len(w.nets))
	switch w.Rand.IntN(9) {
	case 0:
		if b.alive {
			w.Note("box %d crashes", b.id)
			b.alive = false
			for _, m := range b.members {
				m.vips = false
			}
		}
	case 1:
		if !b.alive {
			b.boot()
		}
	case 2:
		if b.alive {
			w.Note("box %d stops", b.id)
			for _, m := range b.members {
				m.step(Event{Kind: Stop})
			}
			b.alive = false
		}
	case 3, 4:
		w.Part(w.nets[net])
		w.Note("partition of network %d: %v", net, w.nets[net])
	case 5:
		clear(w.nets[net])
		w.Note("network %d heals", net)
	case 6:
		w.Loss = []float64{0, 0, 0.1, 0.3, 0.6}[w.Rand.IntN(5)]
		w.Note("loss %v", w.Loss)
	case 7:
		if b.alive {
			if b.faulty < 0 {
				w.Note("box %d: link of network %d is down", b.id, net)
				b.link(net)
			} else {
				w.Note("box %d: links are up", b.id)
				b.link(-1)
			}
		}
	case 8: // a tracker of the group moves all members at once
		if b.alive {
			p := uint8(max(1, int(b.base)-w.Rand.IntN(150)))
			w.Note("box %d: priority %d", b.id, p)
			b.turn(func() {
				for _, m := range b.members {
					m.step(Event{Kind: Effective, Priority: p})
				}
			})
		}
	}
}

func (w *lans) masters() (list []*box) {
	for _, b := range w.boxes {
		if b.alive && b.state == Master {
			list = append(list, b)
		}
	}
	return list
}

func (w *lans) calm() {
	for _, n := range w.nets {
		clear(n)
	}
	w.Loss, w.Delay = 0, w.adv/2000
	w.Note("calm")
	var candidates []*box
	for _, b := range w.boxes {
		if b.alive && b.faulty < 0 {
			candidates = append(candidates, b)
		}
	}
	// Boxes whose addresses rank differently on two networks may need more than
	// one attempt.
	w.Run(16 * w.adv)
	got := w.masters()
	if want := min(1, len(candidates)); len(got) != want {
		w.Violated("%d groups are master, want %d, of %d candidates", len(got), want, len(candidates))
	}
	if len(got) == 1 && !got[0].members[0].cfg.NoPreempt {
		for _, b := range candidates {
			if b.members[0].st.Effective > got[0].members[0].st.Effective {
				w.Violated("box %d (%d) is master, box %d has priority %d", got[0].id, got[0].members[0].st.Effective, b.id, b.members[0].st.Effective)
			}
		}
	}
	before := 0
	for _, b := range w.boxes {
		before += b.changes
	}
	w.Run(30 * w.adv)
	for _, b := range w.boxes {
		before -= b.changes
	}
	if before != 0 {
		w.Violated("%d changes of state in calm networks", -before)
	}
}

// tell is what notify hears: nothing twice, and of a group that is master or in
// fault only when all its members are.
func (b *box) tell(object string, p Phase) {
	if b.told[object] == p {
		b.w.Violated("box %d: %s %v is told twice", b.id, object, p)
	}
	b.told[object] = p
	if object != "group" || p == Backup {
		return
	}
	for _, m := range b.members {
		if b.told[m.name()] != p {
			b.w.Violated("box %d: the group is %v before network %d", b.id, p, m.net)
		}
	}
}

func (m *member) name() string { return fmt.Sprint("network ", m.net) }

func simulateGroups(t *testing.T, seed uint64, version int) *lans {
	w := &lans{World: simulation.New(t, seed, uint64(version)<<8, "go test ./services/vrrp/core -run SyncGroups -vrrp.first %d -vrrp.seeds 1"), adv: time.Second}
	rng := w.Rand
	w.nets = make([]simulation.Wire, 2+rng.IntN(3))
	if version == 3 {
		w.adv = []time.Duration{10, 100, 1000}[rng.IntN(3)] * time.Millisecond
	}
	count := 2 + rng.IntN(2)
	noPreempt := rng.IntN(3) == 0
	for i := range count {
		b := &box{w: w, id: i, base: uint8(1 + rng.IntN(254)), faulty: -1}
		if rng.IntN(3) == 0 {
			b.base = 100 // ties
		}
		for n := range w.nets {
			host := byte(i + 1)
			if n%2 == 1 {
				host = byte(count - i) // a tie goes to another box on each second network
			}
			b.members = append(b.members, &member{b: b, net: n, cfg: Config{
				Version: version, Addr: netip.AddrFrom4([4]byte{10, byte(n), 0, host}), Priority: b.base,
				AdvertInt: w.adv, DownAdverts: 3, NoPreempt: noPreempt, Grouped: true, GARPRepeat: 5,
			}})
		}
		w.boxes = append(w.boxes, b)
	}
	for i := range w.nets {
		w.nets[i] = make(simulation.Wire, count)
	}
	w.Delay = w.adv / 2000
	for _, b := range w.boxes {
		w.After(time.Duration(rng.Int64N(int64(5*w.adv))), b.boot)
	}
	w.Run(8 * w.adv)
	for range 3 {
		w.Delay = time.Duration(rng.Int64N(int64(w.adv / 2)))
		for range 4 + rng.IntN(16) {
			w.Run(time.Duration(rng.Int64N(int64(4 * w.adv))))
			w.chaos()
		}
		w.calm()
	}
	return w
}

// TestSimulationOfSyncGroups runs seeded schedules over 2 or 3 boxes with a
// sync group over 2 to 4 networks: partitions, loss and links down on one of
// the networks, crashes, stops and trackers of the group. At every turn all
// members of a box share one state, and the addresses go with it; after each
// spell of trouble one group is master everywhere, and for good.
func TestSimulationOfSyncGroups(t *testing.T) {
	for _, version := range []int{2, 3} {
		t.Run(fmt.Sprintf("v%d", version), func(t *testing.T) {
			t.Parallel()
			for i := range uint64(*seeds / 2) {
				simulateGroups(t, *first+i, version)
			}
		})
	}
}
