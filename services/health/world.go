package health

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc/status"
)

// Transition kinds and states that health publishes.
const (
	kindVirtual = "virtual server"
	kindReal    = "real server"

	stateInit = "INIT" // before the first verdict of an object
	stateUp   = "UP"
	stateDown = "DOWN"
)

// notImplemented is the Detail of a check kind that this release treats as up.
const notImplemented = "not implemented in this release"

// Times of a box that has just booted: how long its own network may take, and
// how often a check asks until it is there.
const (
	bootPatience = time.Minute
	bootRetry    = time.Second
)

// world is every virtual server, its real servers, and the checks that decide
// about them. It is pure: time is an argument, probes are done by the edge.
type world struct {
	servers []*virtualServer
	checks  map[key]*check // each run once however many use it
	ring    []status.Transition
	seq     uint64
	probes  uint64
	told    func(status.Transition) // called for each transition, nil: nobody
	before  *remembered             // what the run before knew, until the first apply
	booting time.Time               // until then the network may still be on its way
}

// check is one probe that runs, for all real servers that want the same one.
type check struct {
	spec  *model.Check // in the configuration of the last apply
	ident key          // what must be equal for its state to survive a reload
	rules []urlRule
	m     machine
	users []*realServer

	weight int // last weight of a dynamic MISC_CHECK, -1: none
	last   time.Time
	took   time.Duration
	detail string

	edge edge // owned by the loop
}

// implemented reports whether this release probes at all for this check.
func (c *check) implemented() bool {
	switch c.spec.Kind {
	case model.TCPCheck, model.HTTPGet, model.SSLGet, model.MiscCheck:
		return true
	}
	return false
}

type virtualServer struct {
	conf  *model.VirtualServer
	q     quorum
	known bool // the first evaluation is done
	real  []*realServer

	suspended bool // ha_suspend, and no address of it is on this box
}

type realServer struct {
	vs     *virtualServer
	conf   *model.RealServer
	checks []*check
	hold   []bool // by check: down until it has a verdict (alpha)
	alive  bool
	known  bool // a transition, or a first verdict, was told
	weight int  // -1: as configured
	since  time.Time
}

func newWorld() *world { return &world{checks: map[key]*check{}} }

// name as keepalived prints it, and the name of its place in a pool.
func (r *realServer) name() string {
	proto := model.TCP
	if len(r.vs.conf.Services) > 0 {
		proto = r.vs.conf.Services[0].Protocol
	}
	return realName(r.conf.Addr, proto, r.conf.ConfPort)
}

func realName(a netip.Addr, p model.Protocol, port uint16) string {
	return model.ServiceID{Addr: a, Port: port, Protocol: p}.String()
}

func (r *realServer) object() string { return r.name() + " of " + r.vs.conf.Name }

// liveWeight is what the real server adds to the quorum.
func (r *realServer) liveWeight() int {
	if !r.alive {
		return 0
	}
	if r.weight >= 0 {
		return r.weight
	}
	return r.conf.Weight
}

// verdict says whether every check lets the real server live, and the reason
// of the first one that does not.
func (r *realServer) verdict() (alive bool, reason string) {
	for i, c := range r.checks {
		if !c.implemented() {
			continue
		}
		if !c.m.up {
			return false, c.why()
		}
		if r.hold[i] && !c.m.known {
			return false, string(c.spec.Kind) + ": waiting for the first success (alpha)"
		}
	}
	return true, ""
}

func (c *check) why() string {
	return string(c.spec.Kind) + ": " + c.detail
}

// key stands for a check's definition. A hash, and not the text, because it is
// kept twice for each of maybe 20,000 checks.
type key [16]byte

func keyOfText(c *model.Check) key {
	b, err := json.Marshal(c)
	if err != nil { // plain values always marshal
		b = fmt.Appendf(nil, "%+v", c)
	}
	sum := sha256.Sum256(b)
	return key(sum[:16])
}

// keyOf is equal for checks that can be one probe. alpha is not part of it: it
// only decides what a server is before the first verdict.
func keyOf(c *model.Check) key {
	k := *c
	k.Alpha = false
	return keyOfText(&k)
}

// identOf is equal for checks that ask the same question, whatever their
// timing: their state survives a reload, as in keepalived.
func identOf(c *model.Check) key {
	k := *c
	k.Alpha = false
	k.Retry, k.DelayBeforeRetry, k.DelayLoop, k.Warmup, k.FastRecovery = 0, 0, 0, 0, false
	return keyOfText(&k)
}

func newCheck(spec *model.Check) (*check, error) {
	c := &check{spec: spec, ident: identOf(spec), weight: -1}
	c.edge.fd = -1
	c.edge.slot = -1
	web := spec.Kind == model.HTTPGet || spec.Kind == model.SSLGet
	c.m = newMachine(web, len(spec.URLs), spec.Retry, spec.DelayLoop, spec.DelayBeforeRetry, spec.FastRecovery)
	if !c.implemented() {
		c.detail = notImplemented
	}
	if !web {
		return c, nil
	}
	if len(spec.URLs) == 0 {
		return nil, fmt.Errorf("%s %s: no url block: add url { path /… }", spec.Kind, target(spec))
	}
	for i := range spec.URLs {
		r, err := newURLRule(&spec.URLs[i])
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", spec.Kind, target(spec), err)
		}
		c.rules = append(c.rules, r)
	}
	return c, nil
}

func target(c *model.Check) string {
	if c.Kind == model.MiscCheck {
		if c.Command.Shell != "" {
			return c.Command.Shell
		}
		if len(c.Command.Argv) > 0 {
			return c.Command.Argv[0]
		}
		return ""
	}
	return netip.AddrPortFrom(c.Addr, c.Port).String()
}

// validate reports every fault that would keep a configuration from being
// checked as it is written.
func validate(cfg *model.Config) []error {
	var errs []error
	seen := map[key]bool{}
	for i := range cfg.VirtualServers {
		vs := &cfg.VirtualServers[i]
		for j := range vs.Real {
			for k := range vs.Real[j].Checks {
				spec := &vs.Real[j].Checks[k]
				if id := keyOf(spec); !seen[id] {
					seen[id] = true
					if _, err := newCheck(spec); err != nil {
						errs = append(errs, fmt.Errorf("virtual server %s: %w", vs.Name, err))
					}
				}
			}
		}
	}
	return errs
}

// realKey finds a real server again after a reload.
type realKey struct {
	vs   string
	addr netip.Addr
	port uint16
}

// apply takes a configuration. Checks that stay keep their state and their
// timers; it returns those that are new and those that are gone. A check that
// cannot be built (prepare refuses it) counts as up.
func (w *world) apply(cfg *model.Config, now time.Time) (added, removed []*check, errs []error) {
	oldReal := map[realKey]*realServer{}
	oldVS := map[string]*virtualServer{}
	oldIdent := map[key]*check{}
	for _, vs := range w.servers {
		oldVS[vs.conf.Name] = vs
		for _, r := range vs.real {
			oldReal[realKey{vs.conf.Name, r.conf.Addr, r.conf.ConfPort}] = r
		}
	}
	for _, c := range w.checks {
		oldIdent[c.ident] = c
	}
	old := w.checks
	w.checks, w.servers = map[key]*check{}, nil
	for i := range cfg.VirtualServers {
		vs := &virtualServer{conf: &cfg.VirtualServers[i]}
		total := 0
		for j := range vs.conf.Real {
			conf := &vs.conf.Real[j]
			r := &realServer{vs: vs, conf: conf, weight: -1, since: now}
			was := oldReal[realKey{vs.conf.Name, conf.Addr, conf.ConfPort}]
			for k := range conf.Checks {
				spec := &conf.Checks[k]
				id := keyOf(spec)
				c := w.checks[id]
				if c == nil {
					var err error
					if c, err = adopt(id, spec, old, oldIdent); err != nil {
						errs = append(errs, fmt.Errorf("virtual server %s: %w", vs.conf.Name, err))
						continue
					}
					if old[id] != c {
						w.before.recall(c)
						added = append(added, c)
					}
					c.spec, c.users = spec, nil
					w.checks[id] = c
				}
				r.checks = append(r.checks, c)
				// A server that lives already is not taken out because it got
				// one more alpha check.
				r.hold = append(r.hold, spec.Alpha && (was == nil || !was.alive))
				c.users = append(c.users, r)
			}
			if was != nil {
				r.alive, r.known, r.since = was.alive, was.known, was.since
			} else {
				r.alive, _ = r.verdict()
				r.known = w.before != nil // told in the run before
			}
			for _, c := range r.checks {
				if c.spec.Dynamic && c.weight >= 0 {
					r.weight = c.weight
				}
			}
			total += conf.Weight
			vs.real = append(vs.real, r)
		}
		vs.q = newQuorum(vs.conf.Quorum, vs.conf.Hysteresis, total)
		if was := oldVS[vs.conf.Name]; was != nil {
			vs.q.up, vs.known = was.q.up, was.known
		} else if w.before != nil {
			vs.q.up, vs.known = w.before.Quorums[vs.conf.Name]
		}
		w.servers = append(w.servers, vs)
	}
	for id, c := range old {
		if w.checks[id] != c {
			removed = append(removed, c)
		}
	}
	if w.before != nil {
		w.seq = max(w.seq, w.before.Seq)
		w.before = nil
	}
	// Checks may have come or gone: look at everybody once.
	for _, vs := range w.servers {
		for _, r := range vs.real {
			w.judge(r, "", now)
		}
		w.judgeVirtual(vs, "", now)
	}
	return added, removed, errs
}

// adopt finds the check that a definition had before, or makes a new one with
// what is known about the same question.
func adopt(id key, spec *model.Check, old, oldIdent map[key]*check) (*check, error) {
	if c := old[id]; c != nil {
		return c, nil
	}
	c, err := newCheck(spec)
	if err != nil {
		return nil, err
	}
	if o := oldIdent[c.ident]; o != nil {
		c.m.inherit(o.m)
		c.weight, c.last, c.took, c.detail = o.weight, o.last, o.took, o.detail
	}
	return c, nil
}

// outcome is what a probe found.
type outcome struct {
	ok     bool
	local  bool   // it could not be done for a reason of our own: no verdict
	away   bool   // this box has no network that leads there
	weight int    // of a dynamic MISC_CHECK, -1: none
	reason string // "connection refused", "status 200"
	took   time.Duration
}

// result takes the outcome of a probe and returns when to do the next one.
// The change it made, if any, is in the ring of transitions.
func (w *world) result(c *check, o outcome, now time.Time) (changed bool, next time.Duration) {
	w.probes++
	c.last, c.took, c.detail = now, o.took, o.reason
	if o.local {
		return false, max(c.spec.DelayLoop, minDelay)
	}
	if o.away && !c.m.known && now.Before(w.booting) {
		// Our cable or address comes later than this process: that must not cost
		// every real server a whole delay_loop.
		c.detail += ", and this box has just started: asking again soon"
		return false, min(max(c.spec.DelayLoop, minDelay), bootRetry)
	}
	if c.spec.Dynamic && o.ok {
		changed = c.weight != o.weight
		c.weight = o.weight
	}
	news, next := c.m.step(o.ok)
	if !news && !changed {
		return false, next
	}
	for _, r := range c.users {
		if c.spec.Dynamic && o.ok {
			r.weight = o.weight
		}
		w.judge(r, c.why(), now)
		w.judgeVirtual(r.vs, r.name()+": "+c.why(), now)
	}
	return true, next
}

// judge compares what a real server is with what its checks say.
func (w *world) judge(r *realServer, reason string, now time.Time) {
	alive, why := r.verdict()
	first := false
	if !r.known {
		// The first verdict on an alpha server is told even when it is the
		// "down" that it began with.
		for i, c := range r.checks {
			if r.hold[i] && c.m.known && (alive || !c.m.up) {
				first = true
			}
		}
	}
	if alive == r.alive && !first {
		return
	}
	from := stateName(r.alive)
	if first {
		from = stateInit
	}
	r.alive, r.known, r.since = alive, true, now
	if !alive {
		reason = why
	}
	if reason == "" {
		reason = "no check says otherwise any more"
	}
	w.tell(r.object(), kindReal, from, stateName(alive), reason, now)
}

func (w *world) judgeVirtual(vs *virtualServer, reason string, now time.Time) {
	weight := vs.weight()
	changed := vs.q.update(weight)
	if !changed && vs.known {
		return
	}
	from := stateName(!vs.q.up)
	if !vs.known {
		from = stateInit
	}
	vs.known = true
	text := fmt.Sprintf("live weight %d, quorum %d", weight, vs.q.need)
	if vs.q.hysteresis > 0 {
		text += fmt.Sprintf(", hysteresis %d", vs.q.hysteresis)
	}
	if reason != "" {
		text += " (" + reason + ")"
	}
	w.tell(vs.conf.Name, kindVirtual, from, stateName(vs.q.up), text, now)
}

func (vs *virtualServer) weight() int {
	n := 0
	for _, r := range vs.real {
		n += r.liveWeight()
	}
	return n
}

func stateName(up bool) string {
	if up {
		return stateUp
	}
	return stateDown
}

func (w *world) tell(object, kind, from, to, reason string, now time.Time) {
	w.seq++
	t := status.Transition{Seq: w.seq, Time: now, Object: object, Kind: kind, From: from, To: to, Reason: reason}
	w.ring = append(w.ring, t)
	if w.told != nil {
		w.told(t)
	}
	if len(w.ring) >= 2*status.RingSize {
		// A fresh array: what was published must not change under its reader.
		w.ring = append(make([]status.Transition, 0, 2*status.RingSize), w.ring[len(w.ring)-status.RingSize:]...)
	}
}

// state is the whole state, in the order of the configuration.
func (w *world) state(applied status.Applied) status.Health {
	h := status.Health{
		Applied: applied,
		Servers: make([]status.VirtualServerHealth, 0, len(w.servers)),
		Probes:  w.probes,
		// Only ever appended to behind this length.
		Transitions: w.ring[max(0, len(w.ring)-status.RingSize):len(w.ring):len(w.ring)],
	}
	for _, vs := range w.servers {
		v := status.VirtualServerHealth{
			Name: vs.conf.Name, QuorumUp: vs.q.up, Weight: vs.weight(), Quorum: vs.q.need,
			Real: make([]status.RealServerHealth, 0, len(vs.real)),
		}
		for _, r := range vs.real {
			rs := status.RealServerHealth{
				Addr: r.conf.Addr, Port: r.conf.ConfPort, Alive: r.alive, Weight: r.weight, Since: r.since,
			}
			if len(r.checks) > 0 {
				rs.Checks = make([]status.CheckHealth, 0, len(r.checks))
			}
			for i, c := range r.checks {
				rs.Checks = append(rs.Checks, status.CheckHealth{
					Kind: string(c.spec.Kind), Target: target(c.spec),
					Up:    c.m.up && (c.m.known || !r.hold[i]) || !c.implemented(),
					Known: c.m.known, Last: c.last, Took: c.took, Retries: c.m.left(), Detail: c.detail,
				})
			}
			v.Real = append(v.Real, rs)
		}
		h.Servers = append(h.Servers, v)
	}
	return h
}
