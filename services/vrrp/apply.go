package vrrp

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc/status"
	"ballast/services/vrrp/core"
	"ballast/services/vrrp/kernel"
)

// apply makes a configuration the running one. Instances that it does not
// change keep their state; those that are gone resign; an instance that
// becomes another virtual router (other VRID, interface, family, version or
// transport) starts anew. servers is how many virtual servers there are, which
// c does not hold.
func (s *service) apply(gen uint64, c *model.Config, servers int) {
	s.now = s.loop.Now()
	s.refreshTables()
	s.gen, s.dirty = gen, true
	s.startup = s.startupEnd(c.Global.StartupDelay, c.Global.DelayAfterBoot)
	s.unknownVRIDs, s.trackGroups, s.delays = c.Global.LogUnknownVRIDs, c.TrackGroups, c.LinkDelays
	if s.learn = 0; c.Global.SyncDaemon != nil {
		s.learn = learnTime
	}
	s.settleLinks()
	if !s.applied {
		s.closeGate(gen, servers, &c.Global)
	}
	s.sweep = true
	s.garpGroups = c.GARPGroups
	s.vlinks = virtualLinks(c.Instances)
	s.makeVirtualLinks()
	s.setBFD(c.BFD)
	old := s.routers
	byName := make(map[string]*router, len(old))
	for _, r := range old {
		byName[r.cfg.Name] = r
	}
	var next, created []*router
	changed := map[*router]bool{} // its list of addresses
	altered := map[*router]bool{} // anything at all
	for i := range c.Instances {
		m := &c.Instances[i]
		r := byName[m.Name]
		if r != nil && sameRouter(&r.cfg, m) {
			delete(byName, m.Name)
			changed[r] = !slices.Equal(vipSet(&r.cfg), vipSet(m)) || !slices.EqualFunc(r.cfg.VirtualRoutes, m.VirtualRoutes, model.Route.Equal) ||
				!slices.Equal(r.cfg.VirtualRules, m.VirtualRules)
			if changed[r] {
				r.dropPaths(m)
				s.dropAltered(r, m)
			}
			altered[r] = !reflect.DeepEqual(r.cfg, *m)
			r.configure(m)
		} else {
			r = newRouter(s, m)
			created = append(created, r)
		}
		next = append(next, r)
	}
	// Those that end resign before others start; addresses that go from one
	// instance to another are not known yet, so they come last.
	for _, r := range old {
		if byName[r.cfg.Name] == r {
			r.step(core.Event{Kind: core.Stop})
			s.detach(r)
			s.log.info("%s: no longer configured", r.cfg.Name)
		}
	}
	s.routers = next
	for i, r := range next {
		r.number = i
		r.arm() // a timer may have come with its words
	}
	s.regroup(c.SyncGroups)
	if s.mate != nil {
		s.mate.reset()
	}
	for _, r := range next {
		if slices.Contains(created, r) {
			s.startRouter(r)
			continue
		}
		sent := r.stats.AdvertSent
		r.evaluate()
		r.reconfigure(changed[r])
		if altered[r] {
			s.stand.renew(r, sent)
		}
	}
	s.stand.commit() // those that were master before this process are again by now, or never
	s.applied = true
	s.setHeartbeat(c.Heartbeat)
	s.dropSockets()
	s.settleGroups()
	s.refresh() // removes what no instance wants any more
}

// startRouter starts a new router: as master if its process died as one, else
// as backup or in fault.
func (s *service) startRouter(r *router) {
	adopt := !s.applied && r.holdsVIP()
	r.trust = adopt
	faults, effective := r.examine()
	r.faults = faults
	c := r.coreConfig()
	r.core = c
	held := s.heldBy(r.cfg.Name) != ""
	if adopt && (held || len(faults) > 0) {
		s.stand.commit() // its addresses go now, and nothing may say otherwise
	}
	var delay time.Duration
	if !adopt && s.startup > s.now {
		delay, r.deafUntil = s.startup-s.now, s.startup
	}
	if !adopt && !s.gate.open() {
		delay = max(delay, gateStep) // the address owner would not wait for a timer
	}
	r.step(core.Event{
		Kind: core.Start, Cfg: &c, Priority: effective, Faulty: len(faults) > 0, Adopt: adopt,
		Held: held, Delay: delay,
	})
}

// sameRouter tells whether two configurations are of one virtual router.
func sameRouter(a, b *model.Instance) bool {
	return a.VRID == b.VRID && a.Interface == b.Interface && a.IPv6 == b.IPv6 && a.Version == b.Version &&
		a.Unicast == b.Unicast && a.McastGroup == b.McastGroup && sameVMAC(a.VMAC, b.VMAC)
}

// sameVMAC tells whether the addresses stay on the interface that they are on.
func sameVMAC(a, b *model.VMAC) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Name == b.Name && a.MAC == b.MAC && a.IPVLAN == b.IPVLAN && a.Mode == b.Mode
}

// vipSet is the list of addresses of an instance, for comparison.
func vipSet(c *model.Instance) []model.Address { return slices.Concat(c.VIPs, c.ExcludedVIPs) }

// dropPaths removes the routes and rules of a master that its new configuration
// lacks. (Addresses carry our tag and are found by reconcile.)
func (r *router) dropPaths(next *model.Instance) {
	if r.st.Phase != core.Master {
		return
	}
	gone := router{s: r.s, cfg: model.Instance{Name: r.cfg.Name}}
	for _, m := range r.cfg.VirtualRoutes {
		if !slices.ContainsFunc(next.VirtualRoutes, m.Equal) {
			gone.cfg.VirtualRoutes = append(gone.cfg.VirtualRoutes, m)
		}
	}
	for _, m := range r.cfg.VirtualRules {
		if !slices.Contains(next.VirtualRules, m) {
			gone.cfg.VirtualRules = append(gone.cfg.VirtualRules, m)
		}
	}
	if err := r.s.rtnl.Batch(gone.removePaths()); err != nil {
		r.s.log.warn("%s: %v", r.cfg.Name, err)
	}
}

// dropAltered removes the addresses of a master whose lines the new
// configuration words otherwise: the kernel changes none in place. Of an IPv4
// address with another length it holds both, so there the new one comes first,
// and reconcile finds the old one.
func (s *service) dropAltered(r *router, next *model.Instance) {
	if r.st.Phase != core.Master {
		return
	}
	lines := map[vipKey]*model.Address{}
	to := *r
	to.cfg = *next
	to.allVIPs(func(v *model.Address) { lines[vipKey{to.place(v), v.Prefix.Addr()}] = v })
	var ops []kernel.Op
	r.allVIPs(func(v *model.Address) {
		index := r.place(v)
		n := lines[vipKey{index, v.Prefix.Addr()}]
		if index == 0 || n == nil || v.Prefix.Addr().Is4() && heldAs(n) != heldAs(v) {
			return
		}
		was, is := r.newAddr(v, index), to.newAddr(n, index)
		if was != is {
			ops = append(ops, kernel.UnsetAddr(was))
		}
	})
	if err := s.rtnl.Batch(ops); err != nil {
		s.log.warn("%s: %v", r.cfg.Name, err)
	}
}

func (s *service) regroup(list []model.SyncGroup) {
	old := s.groups
	s.groups, s.restive = nil, true
	for _, r := range s.routers {
		r.group = nil
	}
	for _, c := range list {
		g := &group{s: s, cfg: c, number: len(s.groups) + 1, since: s.loop.Time(s.now)}
		for _, o := range old {
			if o.cfg.Name == c.Name {
				g.state, g.since, g.takeover = o.state, o.since, o.takeover
			}
		}
		for _, r := range s.routers {
			if slices.Contains(c.Instances, r.cfg.Name) {
				r.group = g
				g.members = append(g.members, r)
			}
		}
		s.groups = append(s.groups, g)
	}
}

// heldBy is who resigned an instance; empty: nobody.
func (s *service) heldBy(instance string) string {
	if by := s.held[""]; by != "" {
		return by
	}
	return s.held[instance]
}

// hold resigns an instance (empty: all), or with by empty lets it take part
// again. It reports whether there is such an instance.
func (s *service) hold(instance, by string) bool {
	s.now = s.loop.Now()
	known := instance == ""
	for _, r := range s.routers {
		known = known || r.cfg.Name == instance
	}
	if !known {
		return false
	}
	switch {
	case by != "":
		s.held[instance] = by
	case instance == "":
		clear(s.held)
	default:
		delete(s.held, instance)
	}
	for _, r := range s.routers {
		held := s.heldBy(r.cfg.Name) != ""
		if held && !r.st.Held && (r.leaving == leaveHeld || s.handOver(r, leaveHeld)) {
			continue // it leaves when the peer answers for the addresses
		}
		r.step(core.Event{Kind: core.Hold, Held: held})
	}
	s.dirty = true
	return true
}

// transition puts one into the ring.
func (s *service) transition(t status.Transition) {
	s.seq++
	t.Seq = s.seq
	if len(s.ring) >= status.RingSize {
		s.ring = append(s.ring[:0:0], s.ring[len(s.ring)-status.RingSize+1:]...)
	}
	s.ring = append(s.ring, t)
	s.dirty = true
}

// publishState hands the whole state over when it changed, or when its
// counters got old. It builds the state here, so that no other goroutine ever
// holds a lock that the loop needs.
func (s *service) publishState() {
	if !s.dirty && s.now-s.lastState < statsRefresh {
		return
	}
	s.dirty, s.lastState = false, s.now
	v := &status.VRRP{
		Applied:     status.Applied{Config: s.gen, Error: s.problem()},
		Transitions: slices.Clone(s.ring),
		Resigned:    len(s.held) > 0,
		Maintenance: s.maintenance,
		Instances:   make([]status.VRRPInstance, 0, len(s.routers)),
	}
	for _, by := range s.held {
		v.ResignedBy = by
	}
	if by := s.held[""]; by != "" {
		v.ResignedBy = by
	}
	if s.mate != nil {
		v.Heartbeat = s.mate.status()
	}
	if s.detect != nil {
		v.BFD = s.detect.status()
	}
	for _, r := range s.routers {
		v.Instances = append(v.Instances, r.status())
	}
	v.Timers = s.late.status(s.realTime)
	v.StandIn = s.stand.status()
	for _, g := range s.groups {
		v.Groups = append(v.Groups, status.VRRPGroup{Name: g.cfg.Name, State: g.state.String(), Since: g.since, Instances: g.cfg.Instances})
	}
	s.publish(v)
}

// problem is what of the configuration cannot be done now. It goes away when
// it can.
func (s *service) problem() string {
	var list []string
	for _, r := range s.routers {
		switch {
		case r.cfg.Interface != "" && r.link == nil:
			list = append(list, fmt.Sprintf("%s: interface %s is not there", r.cfg.Name, r.cfg.Interface))
		case r.trouble != "":
			list = append(list, r.cfg.Name+": "+r.trouble)
		}
		if r.paths.trouble != "" {
			list = append(list, r.cfg.Name+": "+r.paths.trouble)
		}
	}
	return strings.Join(list, "; ")
}

func (r *router) status() status.VRRPInstance {
	v := status.VRRPInstance{
		Name: r.cfg.Name, State: r.st.Phase.String(), Since: r.since, Reason: r.reason,
		Interface: r.cfg.Interface, VRID: r.cfg.VRID, Version: r.cfg.Version, IPv6: r.cfg.IPv6,
		Priority: int(r.cfg.Priority), Effective: int(r.st.Effective), AdvertInt: r.cfg.AdvertInt,
		MasterAddr: r.st.MasterAddr, MasterPriority: int(r.st.MasterPriority),
		VIPs:   make([]netip.Prefix, 0, len(r.cfg.VIPs)+len(r.cfg.ExcludedVIPs)),
		Faults: slices.Clone(r.faults), Trackers: slices.Clone(r.trackers), Stats: r.stats,
		Evidence: r.explain(),
	}
	if r.cfg.VMAC != nil {
		v.VMAC = r.cfg.VMAC.Name
	}
	if r.st.Cfg != nil {
		v.MasterDown = r.st.MasterDown()
	}
	if r.st.Phase == core.Master {
		v.MasterPriority = int(r.st.Effective)
		if r.trouble != "" {
			v.Faults = append(v.Faults, r.trouble)
		}
		if r.paths.trouble != "" {
			v.Faults = append(v.Faults, r.paths.trouble)
		}
	}
	if r.st.Heard {
		v.LastAdvert = r.s.loop.Time(r.st.LastAdvert)
	}
	r.allVIPs(func(a *model.Address) { v.VIPs = append(v.VIPs, a.Prefix) })
	return v
}
