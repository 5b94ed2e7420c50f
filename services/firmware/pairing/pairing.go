// Package pairing brings both boxes of a pair to another firmware, one after the
// other, while clients notice nothing. It is the pure part: no clock, no socket,
// no disk. Machine.Step takes what is known of both boxes now and says what to do.
//
// The box that has less to do reboots first; the other one drives. Nothing of it
// is a matter of time alone: each step waits until what it needs is seen on both
// boxes, and when that does not come in time, or something is not as it must be,
// nothing more reboots, both boxes are made to take part in VRRP again, and the
// record says where it stopped and why. It is kept on both boxes, so that a reboot
// of either one, which is part of the plan, continues it.
package pairing

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"ballast/image/layout"
)

// Phase is how far an upgrade of a pair is.
type Phase string

// Phases, in their order. The first box is the one that reboots first.
const (
	Yield  Phase = "yield"        // the first gives up what it is master of
	First  Phase = "first trial"  // it boots the new firmware, and proves it
	Ready  Phase = "first ready"  // it is backup again, with all that it needs to take over
	Switch Phase = "switchover"   // the second resigns, the first is master and forwards
	Second Phase = "second trial" // the second boots the new firmware, and proves it
	Settle Phase = "settle"       // both run it, and everybody is in his place
	Done   Phase = "done"
)

// By is the name by which a box is made to resign.
const By = "upgrade pair"

// How long a phase may take, before it is a doubt.
const (
	roleBound   = 60 * time.Second // VRRP does what it was asked for
	orderBound  = 90 * time.Second // from the order to reboot until the box is away
	readyBound  = 5 * time.Minute
	settleBound = 5 * time.Minute
	// A trial may begin a second time when the power fails in the first, and
	// ends in the old firmware at last: three boots.
	trialBound = layout.TrialAttempts*layout.TrialLimit + 4*time.Minute
)

// How long a box may be silent. While one has resigned the other is all that
// forwards.
const (
	silence   = 15 * time.Second
	noSilence = 5 * time.Second
)

// How long it must have been so before it counts.
const (
	steadyRoles = 1 * time.Second
	steadyReady = 5 * time.Second
	// The kernel tells the other one of each connection at its next packet, at
	// most this long after it was told last (sync_refresh_period), and a second or
	// two later it is sent. What is silent longer cannot be told.
	syncTime  = 13 * time.Second
	syncBound = 45 * time.Second
	// Packets of clients that were many before the switchover come to the other
	// box after it.
	trafficBound = 20 * time.Second
	trafficMany  = 20
)

// Instance is one virtual router as a box sees it.
type Instance struct {
	Name  string `json:"name"`
	State string `json:"state"` // as status.VRRPInstance.State
	Fault string `json:"fault,omitempty"`
	// Learns: it will take over when it has been told of the connections that the
	// other box serves.
	Learns bool `json:"learns,omitempty"`
}

// States of an Instance that mean something here.
const (
	master = "MASTER"
	backup = "BACKUP"
)

// Report is what a box says of itself.
type Report struct {
	Speaks    int             `json:"speaks"` // newest form of messages
	Box       string          `json:"box"`
	Boot      string          `json:"boot"` // another one after each start of the kernel
	Running   layout.Identity `json:"running"`
	Slot      layout.Slot     `json:"slot,omitempty"`
	Trial     bool            `json:"trial,omitempty"`   // it runs on trial
	Missing   string          `json:"missing,omitempty"` // what the trial still waits for
	Loaded    layout.Identity `json:"loaded,omitzero"`   // what the idle slot holds, if it is whole
	Verdict   string          `json:"verdict,omitempty"` // of the last trial, when that failed
	Going     bool            `json:"going,omitempty"`   // on its way down
	Cannot    string          `json:"cannot,omitempty"`  // why it cannot be upgraded now
	Unsound   []string        `json:"unsound,omitempty"` // what of its services does not do its job
	Content   string          `json:"content,omitempty"` // hash of the configuration that runs
	Pending   bool            `json:"pending,omitempty"` // which waits to be confirmed
	Resigned  string          `json:"resigned,omitempty"`
	Instances []Instance      `json:"instances,omitempty"`
	Live      int             `json:"live"`                // real servers that get connections
	Conns     uint64          `json:"conns"`               // active connections in the kernel's table
	Packets   uint64          `json:"packets"`             // of clients, since its start
	Sync      bool            `json:"sync,omitempty"`      // a daemon for the synchronisation of connections runs
	Heartbeat bool            `json:"heartbeat,omitempty"` // it hears the private heartbeat of the other box
	Last      time.Time       `json:"last,omitzero"`       // when the last upgrade of a pair that it knows began
	// Ticket belongs into an order that this report is the reason for.
	Ticket string `json:"ticket,omitempty"`
}

// runs reports whether a box has proved a firmware.
func (r *Report) runs(to layout.Identity) bool { return r.Running == to && !r.Trial }

// masters are the names of what it is master of.
func (r *Report) masters() (list []string) {
	for _, i := range r.Instances {
		if i.State == master {
			list = append(list, i.Name)
		}
	}
	return list
}

func (r *Report) instance(name string) (Instance, bool) {
	i := slices.IndexFunc(r.Instances, func(i Instance) bool { return i.Name == name })
	if i < 0 {
		return Instance{Name: name, State: "missing"}, false
	}
	return r.Instances[i], true
}

// Record is an upgrade of a pair, as both boxes keep it. The second box writes it.
type Record struct {
	ID      string             `json:"id"`
	Seq     uint64             `json:"seq"` // grows with each change
	By      string             `json:"by"`
	Began   time.Time          `json:"began"`
	To      layout.Identity    `json:"to"`
	Boxes   [2]string          `json:"boxes"` // in the order in which they reboot
	From    [2]layout.Identity `json:"from"`
	Boots   [2]string          `json:"boots"` // that are expected of both
	Live    [2]int             `json:"live"`  // real servers before
	Names   []string           `json:"names"` // of the virtual routers
	Phase   Phase              `json:"phase"`
	Times   map[Phase]int64    `json:"times,omitempty"` // Unix seconds of the begin of each phase
	Ended   int64              `json:"ended,omitempty"` // and of the end, however it came
	Stopped string             `json:"stopped,omitempty"`
	Aborted bool               `json:"aborted,omitempty"`
}

// Goes reports whether the upgrade goes on.
func (r *Record) Goes() bool { return r.ID != "" && r.Phase != Done && r.Stopped == "" }

// Order is something to do.
type Order string

// Orders.
const (
	ResignOther Order = "make the other box resign"
	ResumeOther Order = "let the other box take part again"
	TrialOther  Order = "reboot the other box into its trial"
	ResignOwn   Order = "resign"
	ResumeOwn   Order = "take part again"
	TrialOwn    Order = "reboot into the trial"
)

// Look is what is known at one moment.
type Look struct {
	Now     time.Time     // for the record, never to measure by
	Elapsed time.Duration // since the last one
	Own     *Report
	Other   *Report // of this moment; nil: it does not answer
	Lost    string  // why not
	// Refused are orders of the last step that were not obeyed, with why. One that
	// nobody answered is none: what became of it will be seen.
	Refused map[Order]string
}

// Machine is the upgrade on the second box.
type Machine struct {
	Record

	Waiting string // for what, in words; of now

	waited  time.Duration // in this phase
	lost    time.Duration // the other one has been silent
	blind   time.Duration // the own services have been silent
	steady  time.Duration // all has been as it must be
	packets []uint64      // of the own box, the last five looks
	other   uint64        // packets of the other one before the switchover
	many    bool          // clients were busy before the switchover
}

// enter begins a phase.
func (m *Machine) enter(p Phase, l Look) {
	m.Phase = p
	m.Seq++
	times := map[Phase]int64{p: l.Now.Unix()}
	for k, v := range m.Times {
		if k != p {
			times[k] = v
		}
	}
	m.Times = times
	m.waited, m.lost, m.steady, m.Waiting = 0, 0, 0, ""
}

// stop ends it at a doubt.
func (m *Machine) stop(format string, args ...any) {
	m.Stopped = fmt.Sprintf(format, args...)
	m.Seq++
	m.Waiting = ""
}

// Step takes what is known and says what to do. What has changed in the record
// must be kept before anything of it is done.
func (m *Machine) Step(l Look) []Order {
	m.waited += l.Elapsed
	if m.lost += l.Elapsed; l.Other != nil {
		m.lost = 0
	}
	if m.blind += l.Elapsed; l.Own != nil {
		m.blind = 0
	}
	defer func() {
		if !m.Goes() && m.Ended == 0 {
			m.Ended = l.Now.Unix()
		}
	}()
	if m.Goes() && l.Own != nil && !m.doubted(l) {
		if orders := m.phase(l); m.Goes() {
			return orders
		}
	} else if m.Goes() && m.blind > silence {
		m.stop("%s: its own services do not answer", m.Boxes[1])
	}
	if m.Stopped != "" {
		return m.cleanUp(l)
	}
	return nil
}

// Clean reports whether nothing is left to do after the end.
func (m *Machine) Clean(l Look) bool {
	return !m.Goes() && l.Own != nil && l.Own.Resigned != By && (l.Other == nil || l.Other.Resigned != By)
}

// cleanUp has both boxes take part in VRRP again.
func (m *Machine) cleanUp(l Look) (orders []Order) {
	if l.Own != nil && l.Own.Resigned == By && !l.Own.Going {
		orders = append(orders, ResumeOwn)
	}
	if l.Other != nil && l.Other.Resigned == By && !l.Other.Going {
		orders = append(orders, ResumeOther)
	}
	return orders
}

// doubted looks for what may be in no phase, or in none but one.
func (m *Machine) doubted(l Look) bool {
	first, second := m.Boxes[0], m.Boxes[1]
	limit := silence
	switch m.Phase {
	case First, Second: // one of them is away
		limit = trialBound
	case Switch:
		limit = noSilence
	case Settle:
		limit = settleBound
	}
	for _, o := range []Order{ResignOther, TrialOther, ResignOwn, TrialOwn} {
		if why := l.Refused[o]; why != "" {
			m.stop("%s: %s: %s", m.name(o), o, why)
			return true
		}
	}
	switch {
	case m.lost > limit:
		m.stop("%s does not answer: %s", first, l.Lost)
	case l.Other != nil && l.Other.Speaks < 1:
		m.stop("%s no longer speaks of upgrades of a pair", first)
	case l.Other != nil && l.Other.Boot != m.Boots[0] && m.Phase != First:
		m.stop("%s has rebooted, which was not its turn", first)
	case l.Own.Boot != m.Boots[1] && m.Phase != Second:
		m.stop("%s has rebooted, which was not its turn", second)
	case l.Own.Cannot != "" && m.Phase != Second:
		m.stop("%s: %s", second, l.Own.Cannot)
	case l.Other != nil && l.Other.Cannot != "" && m.Phase != First && m.Phase != Second:
		m.stop("%s: %s", first, l.Other.Cannot)
	}
	return m.Stopped != ""
}

// name is the box that an order is for.
func (m *Machine) name(o Order) string {
	if o == ResignOther || o == ResumeOther || o == TrialOther {
		return m.Boxes[0]
	}
	return m.Boxes[1]
}

// wait says what is missing, and stops when that takes too long. It reports
// whether all has been there for long enough.
func (m *Machine) wait(l Look, missing string, steady, bound time.Duration) bool {
	if missing != "" {
		m.steady, m.Waiting = 0, missing
		if m.waited > bound {
			m.stop("after %v: %s", bound, missing)
		}
		return false
	}
	if m.steady == 0 {
		m.steady = 1 // the time before this look does not count
	} else {
		m.steady += l.Elapsed
	}
	if m.steady < steady {
		m.Waiting = "it has to stay so for a moment"
		return false
	}
	return true
}

// phase does what the phase wants.
func (m *Machine) phase(l Look) []Order {
	own, other := l.Own, l.Other
	first, second := m.Boxes[0], m.Boxes[1]
	switch m.Phase {
	case Yield:
		if other == nil {
			m.Waiting = first + " does not answer"
			return nil
		}
		if other.runs(m.To) { // it was upgraded by itself before
			m.enter(Ready, l)
			return nil
		}
		if m.wait(l, m.onlyMaster(second, own, first, other), steadyRoles, roleBound) {
			m.enter(First, l)
			return []Order{TrialOther}
		}
		if len(other.masters()) > 0 && other.Resigned == "" {
			return []Order{ResignOther}
		}

	case First:
		return m.firstTrial(l)

	case Ready:
		if !m.wait(l, m.missing(l), steadyReady, readyBound) {
			return nil
		}
		if own.runs(m.To) { // it was upgraded by itself before
			m.enter(Settle, l)
			return nil
		}
		m.many, m.other = m.busy(own.Packets), other.Packets
		m.enter(Switch, l)
		return []Order{ResignOwn}

	case Switch:
		if other == nil {
			m.Waiting = first + " does not answer"
			return nil
		}
		if fault := m.faults(first, other); fault != "" {
			m.stop("%s", fault)
			return nil
		}
		if m.wait(l, m.onlyMaster(first, other, second, own), steadyRoles, roleBound) {
			if m.many && other.Packets <= m.other {
				if m.Waiting = "no packet of a client has come to " + first + " yet"; m.waited > trafficBound {
					m.stop("%s is master of everything, and no packet of a client has come to it in %v", first, trafficBound)
				}
				return nil
			}
			m.enter(Second, l)
			return []Order{TrialOwn}
		}
		if own.Resigned == "" {
			return []Order{ResignOwn}
		}

	case Second:
		return m.secondTrial(l)

	case Settle:
		if m.wait(l, m.settled(l), steadyReady, settleBound) {
			m.enter(Done, l)
		}
	}
	return nil
}

// firstTrial waits for the first box to be back on the new firmware.
func (m *Machine) firstTrial(l Look) []Order {
	own, other := l.Own, l.Other
	first, second := m.Boxes[0], m.Boxes[1]
	switch {
	case other == nil:
		m.Waiting = first + " is away"
	case other.Boot == m.Boots[0] && other.Going:
		m.Waiting = first + " goes down"
	case other.Boot == m.Boots[0]:
		if m.wait(l, m.onlyMaster(second, own, first, other), 0, roleBound) {
			if m.Waiting = first + " reboots"; m.waited > orderBound {
				m.stop("%s has not rebooted though it was told to", first)
				return nil
			}
			return []Order{TrialOther}
		}
	case other.Running != m.To:
		m.stop("%s is back with %s: %s", first, other.Running.Version, verdict(other))
	case other.Trial:
		m.Waiting = first + " runs " + m.To.Version + " on trial" + because(other.Missing)
		if m.waited > trialBound {
			m.stop("%s has not proved %s within %v%s", first, m.To.Version, trialBound, because(other.Missing))
		}
	default:
		m.Boots[0] = other.Boot
		m.enter(Ready, l)
	}
	return nil
}

// secondTrial reboots this box, and waits until it has proved the new firmware.
func (m *Machine) secondTrial(l Look) []Order {
	own, other := l.Own, l.Other
	first, second := m.Boxes[0], m.Boxes[1]
	switch {
	case own.Boot == m.Boots[1] && own.Going:
		m.Waiting = second + " goes down"
	case own.Boot == m.Boots[1]:
		// The process was started anew between the record and the reboot, or the
		// reboot takes its time: what held then must hold now.
		switch {
		case other == nil:
			if m.Waiting = first + " does not answer"; m.lost > noSilence {
				m.stop("%s does not answer: %s", first, l.Lost)
			}
		case m.onlyMaster(first, other, second, own) != "":
			m.stop("%s", m.onlyMaster(first, other, second, own))
		case m.waited > orderBound:
			m.stop("%s does not reboot", second)
		default:
			return []Order{TrialOwn}
		}
	case own.Running != m.To:
		m.stop("%s is back with %s: %s", second, own.Running.Version, verdict(own))
	case own.Trial:
		m.Waiting = second + " runs " + m.To.Version + " on trial" + because(own.Missing)
	default:
		m.Boots[1] = own.Boot
		m.enter(Settle, l)
	}
	return nil
}

func because(s string) string {
	if s == "" {
		return ""
	}
	return ": " + s
}

func verdict(r *Report) string {
	if r.Verdict == "" {
		return "it says not why"
	}
	return r.Verdict
}

// onlyMaster says why one box is not the master of everything, and the other one
// of nothing; "": it is.
func (m *Machine) onlyMaster(name string, r *Report, otherName string, other *Report) string {
	for _, i := range m.Names {
		if have, _ := r.instance(i); have.State != master {
			return fmt.Sprintf("%s is %s of %s and not master%s", name, have.State, i, because(have.Fault))
		}
	}
	if list := other.masters(); len(list) > 0 {
		return fmt.Sprintf("%s is still master of %s", otherName, strings.Join(list, ", "))
	}
	return m.unsound(name, r)
}

func (m *Machine) unsound(name string, r *Report) string {
	if len(r.Unsound) > 0 {
		return name + ": " + r.Unsound[0]
	}
	return ""
}

// faults says what is in FAULT on a box.
func (m *Machine) faults(name string, r *Report) string {
	for _, i := range m.Names {
		if have, _ := r.instance(i); have.State != master && have.State != backup {
			return fmt.Sprintf("%s is %s on %s%s", i, have.State, name, because(have.Fault))
		}
	}
	return ""
}

// together says what is wrong between two boxes that both take part.
func (m *Machine) together(l Look) string {
	own, other := l.Own, l.Other
	first, second := m.Boxes[0], m.Boxes[1]
	if other == nil {
		return first + " does not answer"
	}
	for _, s := range []string{m.unsound(first, other), m.unsound(second, own), m.faults(first, other), m.faults(second, own)} {
		if s != "" {
			return s
		}
	}
	for _, i := range m.Names {
		a, _ := other.instance(i)
		b, _ := own.instance(i)
		switch {
		case a.State == master && b.State == master:
			return "both boxes are master of " + i
		case a.State != master && b.State != master:
			return "no box is master of " + i
		}
	}
	switch {
	case own.Content != other.Content:
		return "the boxes run different configurations"
	case own.Pending || other.Pending:
		return "the configuration waits to be confirmed"
	case own.Resigned != "":
		return fmt.Sprintf("%s made %s resign", own.Resigned, second)
	case other.Resigned != "":
		return fmt.Sprintf("%s made %s resign", other.Resigned, first)
	}
	return ""
}

// missing says what the first box lacks to take over; "": nothing.
func (m *Machine) missing(l Look) string {
	m.packets = append(m.packets[max(0, len(m.packets)-4):], l.Own.Packets)
	if s := m.together(l); s != "" {
		return s
	}
	own, other := l.Own, l.Other
	first := m.Boxes[0]
	if s := m.fewer(0, other, own); s != "" {
		return s
	}
	switch {
	case own.Sync && !other.Sync:
		return first + " has no daemon that listens for connections"
	case own.Sync && m.waited < syncTime:
		return first + " is told of connections"
	case own.Sync && other.Conns*10 < own.Conns*9 && m.waited < syncBound:
		return fmt.Sprintf("%s knows %d connections of %d", first, other.Conns, own.Conns)
	}
	return ""
}

// fewer says that a box has fewer live real servers than before; some may have
// died meanwhile, so what the other box has is enough.
func (m *Machine) fewer(i int, r, other *Report) string {
	if want := min(other.Live, m.Live[i]); r.Live < want {
		return fmt.Sprintf("%s has %d real servers in its table, of %d", m.Boxes[i], r.Live, want)
	}
	return ""
}

// busy reports whether clients sent much in the last looks.
func (m *Machine) busy(packets uint64) bool {
	return len(m.packets) > 1 && packets >= m.packets[0]+trafficMany
}

// settled says what is missing at the end.
func (m *Machine) settled(l Look) string {
	if s := m.together(l); s != "" {
		return s
	}
	both := [2]*Report{l.Other, l.Own}
	for i, r := range both {
		if !r.runs(m.To) {
			return fmt.Sprintf("%s does not run %s", m.Boxes[i], m.To.Version)
		}
		if s := m.fewer(i, r, both[1-i]); s != "" {
			return s
		}
		for _, v := range r.Instances {
			if v.Learns {
				return fmt.Sprintf("%s is told of connections, then it is master of %s", m.Boxes[i], v.Name)
			}
		}
	}
	return ""
}
