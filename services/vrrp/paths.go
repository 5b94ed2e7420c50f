package vrrp

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ballast/configs/model"
	"ballast/services/ipc/iprule"
	"ballast/services/ipc/status"
	"ballast/services/vrrp/core"
	"ballast/services/vrrp/kernel"
)

// paths are the virtual routes and rules of one router, as far as they are
// more than configuration.
type paths struct {
	seen    map[string]bool // were in the kernel since it is master
	faults  []string        // of a repair whose outcome is not judged yet
	wait    time.Duration   // until when what does not stay set is left alone
	trouble string          // what could not be set
	lost    string          // what somebody took away and could not be restored: a fault
	probes  []probe         // of what was lost
}

// probe finds out whether something could be set again.
type probe struct{ set, unset kernel.Op }

// vpath is one virtual route or rule of a router.
type vpath struct {
	text       string
	set, unset kernel.Op
	route      *kernel.NewRoute // nil: a rule
	rule       model.Rule
	dev        string // interface that it needs; empty: none in particular
	track      bool
}

// Route types of model.Route.
var routeTypes = map[string]uint8{
	"": unix.RTN_UNICAST, "blackhole": unix.RTN_BLACKHOLE, "unreachable": unix.RTN_UNREACHABLE,
	"prohibit": unix.RTN_PROHIBIT, "throw": unix.RTN_THROW,
}

// routePrefs of model.Route.
var routePrefs = map[string]uint8{"low": kernel.PrefLow, "high": kernel.PrefHigh}

func orProto(p uint8) uint8 {
	if p == 0 {
		return status.RouteProtoVRRP
	}
	return p
}

// route puts indexes for names. missing is an interface that is not there:
// without it the kernel would take another way.
func (r *router) route(m *model.Route) (n kernel.NewRoute, missing string) {
	index := func(name string) int {
		if name == "" {
			return 0
		}
		if l := r.s.links[name]; l != nil {
			return l.Index
		}
		missing = name
		return 0
	}
	n = kernel.NewRoute{
		Type: routeTypes[m.Type], Dst: m.Dst, Via: m.Via, Index: index(m.Interface), Src: m.Src, Table: m.Table, Metric: m.Metric,
		MTU: m.MTU, Scope: m.Scope, OnLink: m.OnLink, TOS: m.TOS, Proto: orProto(m.Protocol), Append: m.Append,
		Realms: m.Realms, Pref: routePrefs[m.Pref], CC: m.Congestion, CCLock: m.CongestionLock,
	}
	for _, v := range m.Metrics {
		n.Metrics = append(n.Metrics, kernel.Metric(v))
	}
	for _, h := range m.NextHops {
		n.NextHops = append(n.NextHops, kernel.NextHop{Via: h.Via, Index: index(h.Interface), Weight: h.Weight, OnLink: h.OnLink})
	}
	return n, missing
}

// allPaths are the routes and then the rules of a router, and what of them
// cannot be set because an interface is not there.
func (r *router) allPaths() (list []vpath, missing []string) {
	for i := range r.cfg.VirtualRoutes {
		m := &r.cfg.VirtualRoutes[i]
		n, gone := r.route(m)
		if gone != "" {
			missing = append(missing, fmt.Sprintf("add route %s: interface %s is not there", m.Dst, gone))
			continue
		}
		list = append(list, vpath{text: "route " + m.Dst.String(), set: kernel.SetRoute(n), unset: kernel.UnsetRoute(n), route: &n, dev: m.Interface, track: !m.NoTrack})
	}
	for _, m := range r.cfg.VirtualRules {
		proto := orProto(m.Protocol)
		list = append(list, vpath{text: "rule " + iprule.Text(m), set: kernel.SetRule(m, proto), unset: kernel.UnsetRule(m, proto), rule: m, track: !m.NoTrack})
	}
	return list, missing
}

func (r *router) hasPaths() bool { return len(r.cfg.VirtualRoutes)+len(r.cfg.VirtualRules) > 0 }

// addPaths adds all routes and rules; what is there already stays as it is.
func (r *router) addPaths() {
	r.paths.seen = nil
	if !r.hasPaths() {
		r.pathTrouble(nil)
		return
	}
	list, faults := r.allPaths()
	var ops []kernel.Op
	for _, p := range list {
		ops = append(ops, p.set)
	}
	if err := r.s.rtnl.Batch(ops); err != nil {
		faults = append(faults, strings.Split(err.Error(), "\n")...)
	}
	r.pathTrouble(faults)
}

// pathTrouble tells what cannot be set, once.
func (r *router) pathTrouble(faults []string) {
	text := strings.Join(faults, "; ")
	if text == r.paths.trouble {
		return
	}
	r.paths.trouble, r.s.dirty = text, true
	if text != "" {
		r.s.log.warn("%s: %s", r.cfg.Name, text)
	} else {
		r.s.log.info("%s: all routes and rules are set", r.cfg.Name)
	}
}

// removePaths are the ops that remove routes and rules.
func (r *router) removePaths() (ops []kernel.Op) {
	list, _ := r.allPaths()
	for _, p := range slices.Backward(list) {
		ops = append(ops, p.unset)
	}
	r.paths.seen, r.paths.trouble, r.paths.wait = nil, "", 0
	return ops
}

// tables is what the kernel holds of routes and rules that may be ours.
type tables struct {
	routes []kernel.Route
	rules  map[uint8][]model.Rule // by protocol
}

// has tells whether a route or rule is there.
func (t *tables) has(p *vpath, proto uint8) bool {
	if p.route != nil {
		return slices.ContainsFunc(t.routes, func(h kernel.Route) bool { return h.Proto == p.route.Proto && h.Is(*p.route) })
	}
	return slices.Contains(t.rules[proto], iprule.Normal(p.rule))
}

// dumpPaths reads the routes and rules of the protocols in use.
func (s *service) dumpPaths() (*tables, error) {
	t := &tables{rules: map[uint8][]model.Rule{}}
	routes, rules := map[uint8]bool{status.RouteProtoVRRP: true}, map[uint8]bool{status.RouteProtoVRRP: true}
	for _, r := range s.routers {
		for _, m := range r.cfg.VirtualRoutes {
			routes[orProto(m.Protocol)] = true
		}
		for _, m := range r.cfg.VirtualRules {
			rules[orProto(m.Protocol)] = true
		}
	}
	var errs []error
	for proto := range routes {
		list, err := s.rtnl.Routes(proto)
		errs = append(errs, err)
		t.routes = append(t.routes, list...)
	}
	for proto := range rules {
		list, err := s.rtnl.Rules(proto)
		errs = append(errs, err)
		t.rules[proto] = list
	}
	return t, errors.Join(errs...)
}

// repairGap is how long what does not stay set is left alone.
const repairGap = time.Second

// reconcilePaths makes the kernel's virtual routes and rules those of the
// masters: what is missing is added, what carries our protocol and belongs to
// nobody (left over by a crash or an older configuration) is removed.
func (s *service) reconcilePaths() {
	used := s.sweep
	for _, r := range s.routers {
		used = used || r.hasPaths() && r.st.Phase == core.Master
	}
	if !used {
		return
	}
	have, err := s.dumpPaths()
	if err != nil {
		s.log.limited("paths", "%v", err)
		return
	}
	s.sweep = false
	var wanted []vpath
	repaired := false
	for _, r := range s.routers {
		if r.st.Phase == core.Master && r.hasPaths() {
			list, _ := r.allPaths()
			wanted = append(wanted, list...)
			repaired = r.repairPaths(have) || repaired
		}
	}
	if repaired {
		if have, err = s.dumpPaths(); err != nil {
			s.log.limited("paths", "%v", err)
			return
		}
		for _, r := range s.routers {
			if r.st.Phase == core.Master && r.hasPaths() {
				r.judgePaths(have)
			}
		}
	}
	s.dropPaths(have, wanted)
}

// repairPaths adds what is missing and tells whether anything was.
func (r *router) repairPaths(have *tables) bool {
	list, faults := r.allPaths()
	if r.paths.seen == nil {
		r.paths.seen = map[string]bool{}
	}
	var ops []kernel.Op
	for i := range list {
		p := &list[i]
		switch {
		case have.has(p, orProto(p.rule.Protocol)):
			r.paths.seen[p.text] = true
		default:
			for _, h := range have.routes { // another way to the same place is not ours any more
				if p.route != nil && !p.route.Append && h.Proto == p.route.Proto && sameSlot(h.NewRoute, *p.route) {
					ops = append(ops, kernel.UnsetRoute(h.NewRoute))
				}
			}
			ops = append(ops, p.set)
		}
	}
	if len(ops) == 0 {
		r.pathTrouble(faults)
		return false
	}
	if r.s.now < r.paths.wait {
		return false
	}
	if err := r.s.rtnl.Batch(ops); err != nil {
		faults = append(faults, strings.Split(err.Error(), "\n")...)
	}
	r.paths.faults = faults
	return true
}

// judgePaths looks at what a repair has brought. What was there, is not, and
// cannot be set again is a fault, unless its line says no_track.
func (r *router) judgePaths(have *tables) {
	if r.paths.seen == nil {
		return
	}
	faults := r.paths.faults
	r.paths.faults = nil
	list, _ := r.allPaths()
	var lost []string
	r.paths.probes, r.paths.wait = nil, 0
	for i := range list {
		p := &list[i]
		if have.has(p, orProto(p.rule.Protocol)) {
			if !r.paths.seen[p.text] {
				r.paths.seen[p.text] = true
			} else if len(faults) == 0 {
				r.s.log.limitedRouter(r, "%s: somebody else changed or removed it, set again", p.text)
			}
			continue
		}
		if !slices.ContainsFunc(faults, func(f string) bool { return strings.Contains(f, p.text) }) {
			r.paths.wait = r.s.now + repairGap
			faults = append(faults, "add "+p.text+": something else of the same destination and metric is there; give this one a metric of its own")
		}
		if up, _ := r.s.linkUp(p.dev); p.track && r.paths.seen[p.text] && (p.dev == "" || up) {
			lost = append(lost, p.text)
			r.paths.probes = append(r.paths.probes, probe{p.set, p.unset})
		}
	}
	r.pathTrouble(faults)
	if len(lost) > 0 {
		r.paths.lost = strings.Join(lost, ", ") + " was taken away and cannot be set again: " + strings.Join(faults, "; ")
		r.evaluate()
	}
}

// sameSlot tells whether the kernel takes two routes for one.
func sameSlot(a, b kernel.NewRoute) bool {
	x, y := a.ID(), b.ID()
	x.Ways, y.Ways, x.Type, y.Type = "", "", 0, 0
	return x == y
}

// dropPaths removes what carries our protocol and nobody wants.
func (s *service) dropPaths(have *tables, wanted []vpath) {
	var ops []kernel.Op
	for _, h := range have.routes {
		if h.Proto == status.RouteProtoVRRP && !slices.ContainsFunc(wanted, func(w vpath) bool {
			return w.route != nil && (h.Is(*w.route) || sameSlot(h.NewRoute, *w.route))
		}) {
			ops = append(ops, kernel.UnsetRoute(h.NewRoute))
		}
	}
	for _, h := range have.rules[status.RouteProtoVRRP] {
		if !slices.ContainsFunc(wanted, func(w vpath) bool { return w.route == nil && iprule.Normal(w.rule) == h }) {
			ops = append(ops, kernel.UnsetRule(h, status.RouteProtoVRRP))
		}
	}
	if err := s.rtnl.Batch(ops); err != nil {
		s.log.limited("leftover path", "virtual routes and rules of no instance: %v", err)
	}
}

// regained tries, of a router in fault, to set what was lost, and takes it
// away again: then the router may take part.
func (r *router) regained() {
	if r.paths.lost == "" || r.st.Phase == core.Master {
		return
	}
	for _, p := range r.paths.probes {
		if r.s.rtnl.Batch([]kernel.Op{p.set}) != nil {
			return
		}
		r.s.rtnl.Batch([]kernel.Op{p.unset})
	}
	r.paths.lost, r.paths.probes = "", nil
	r.s.log.info("%s: what was lost can be set again", r.cfg.Name)
}

// pathsDue tells whether a lost route is to be tried again.
func (s *service) pathsDue() bool {
	for _, r := range s.routers {
		if r.paths.lost != "" && s.now-s.dumped >= repairGap || r.paths.wait != 0 && s.now >= r.paths.wait && r.st.Phase == core.Master {
			return true
		}
	}
	return false
}

// placeFaults are what the interfaces of tracked addresses and routes hold
// against a router: one that is master of addresses that nobody can reach
// would keep the backup from taking over.
func (r *router) placeFaults() (faults []string) {
	told := map[string]bool{}
	look := func(name, what string) {
		if name == "" || name == r.cfg.Interface || told[name] {
			return
		}
		if up, why := r.s.linkUp(name); !up {
			told[name] = true
			faults = append(faults, what+": "+why)
		}
	}
	r.allVIPs(func(v *model.Address) {
		if !v.NoTrack {
			look(v.Interface, v.Prefix.Addr().String())
		}
	})
	for _, m := range r.cfg.VirtualRoutes {
		if !m.NoTrack {
			look(m.Interface, "route "+m.Dst.String())
		}
	}
	if r.paths.lost != "" {
		faults = append(faults, r.paths.lost)
	}
	return faults
}
