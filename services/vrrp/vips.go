package vrrp

import (
	"net/netip"
	"slices"

	"ballast/configs/model"
	"ballast/services/ipc/status"
	"ballast/services/vrrp/core"
	"ballast/services/vrrp/kernel"
)

// vipKey is what makes an address one in the kernel.
type vipKey struct {
	index int
	addr  netip.Addr
}

// allVIPs calls fn for the advertised and the excluded addresses.
func (r *router) allVIPs(fn func(v *model.Address)) {
	for i := range r.cfg.VIPs {
		fn(&r.cfg.VIPs[i])
	}
	for i := range r.cfg.ExcludedVIPs {
		fn(&r.cfg.ExcludedVIPs[i])
	}
}

// place is the interface of an address; 0: it is not there.
func (r *router) place(v *model.Address) int {
	if l := r.s.links[placeName(&r.cfg, v)]; l != nil {
		return l.Index
	}
	return 0
}

// heldAs is how the kernel shows an address: with one length, which is the
// peer's where there is one.
func heldAs(v *model.Address) netip.Prefix {
	if v.Peer.IsValid() {
		return netip.PrefixFrom(v.Prefix.Addr(), v.Peer.Bits())
	}
	return v.Prefix
}

// newAddr is the address as the kernel gets it. An IPv6 address without a
// preferred lifetime of its own is deprecated from the start, whatever its
// length: it serves who asks for it, but no connection of the box itself, a
// health check least of all, begins from an address that may move in the next
// moment. (The kernel makes an IPv4 one secondary, or puts it last.)
func (r *router) newAddr(v *model.Address, index int) kernel.NewAddr {
	n := kernel.NewAddr{
		Index: index, Prefix: v.Prefix, Peer: v.Peer, Broadcast: v.Broadcast, Label: v.Label,
		Scope: v.Scope, Proto: status.AddrProtoVIP, NoPrefixRoute: v.NoPrefixRoute,
		Home: v.Home, MngTmpAddr: v.MngTmpAddr, AutoJoin: v.AutoJoin, Preferred: v.Preferred,
	}
	v6 := v.Prefix.Addr().Is6()
	if v6 && n.Preferred == 0 {
		n.Preferred = -1
	}
	if placeName(&r.cfg, v) != orElse(v.Interface, r.cfg.Interface) {
		// The way to its subnet stays that of the interface below: with the
		// same metric it would be the younger one's after the next flap.
		if n.Metric = 1; v6 {
			n.Metric = 257 // IP6_RT_PRIO_ADDRCONF + 1
		}
	}
	return n
}

// firstPart is how many of many addresses come before the first gratuitous ARP.
const firstPart = 8

// addVIPs adds all addresses and routes; what is there already stays as it is.
// Where there are many, each part is announced as soon as it is there, and built
// only when its turn comes: the first announcement waits for nothing.
func (r *router) addVIPs() {
	list := make([]*model.Address, 0, len(r.cfg.VIPs)+len(r.cfg.ExcludedVIPs))
	r.allVIPs(func(v *model.Address) { list = append(list, v) })
	early := len(list) > perTurn && r.cfg.GARPMasterRepeat > 0 && r.st.Phase == core.Master && r.unpaced()
	part := firstPart
	trouble := ""
	for len(list) > 0 {
		n := min(len(list), part)
		if part = perTurn; !early {
			n = len(list)
		}
		ops, parts := make([]kernel.Op, 0, n), make([]announcement, 0, n)
		for _, v := range list[:n] {
			index := r.place(v)
			if index == 0 {
				trouble = v.Prefix.String() + ": interface " + orElse(placeName(&r.cfg, v), "of the instance") + " is not there"
				continue
			}
			ops = append(ops, kernel.SetAddr(r.newAddr(v, index)))
			parts = append(parts, announcement{index, v.Prefix.Addr()})
		}
		if err := r.s.rtnl.Batch(ops); err != nil {
			trouble = err.Error()
		}
		if early {
			r.s.sendAll(r, parts)
		}
		list = list[n:]
	}
	r.early = early
	if trouble != "" && trouble != r.trouble {
		r.s.log.warn("%s: %s", r.cfg.Name, trouble)
	}
	r.trouble = trouble
	r.addPaths()
	r.s.dirty = true
}

// removeVIPs removes routes, then addresses. What another instance of this box
// is master of stays.
func (r *router) removeVIPs() {
	ops := r.removePaths()
	wanted := r.s.wanted(r)
	r.allVIPs(func(v *model.Address) {
		if index := r.place(v); index != 0 && !wanted[vipKey{index, v.Prefix.Addr()}] {
			ops = append(ops, kernel.UnsetAddr(r.newAddr(v, index)))
		}
	})
	r.trouble = ""
	if err := r.s.rtnl.Batch(ops); err != nil {
		r.s.log.warn("%s: %v", r.cfg.Name, err)
	}
	r.s.dirty = true
}

// wanted are the addresses of all instances that are master, but for one.
func (s *service) wanted(but *router) map[vipKey]bool {
	out := map[vipKey]bool{}
	for _, r := range s.routers {
		if r == but || r.st.Phase != core.Master {
			continue
		}
		r.allVIPs(func(v *model.Address) { out[vipKey{r.place(v), v.Prefix.Addr()}] = true })
	}
	return out
}

// virtual tells whether an address is one of the virtual ones of any instance,
// whoever put it there.
func (s *service) virtual(a netip.Addr) bool {
	found := false
	for _, r := range s.routers {
		r.allVIPs(func(v *model.Address) { found = found || v.Prefix.Addr() == a })
	}
	return found
}

// reconcile makes the kernel's virtual addresses those of the masters: missing
// ones are added and announced, then those of nobody (left over by a crash or
// an older configuration) removed. Only addresses that carry our tag are ours
// to remove here.
func (s *service) reconcile() {
	have := make(map[vipKey]bool, len(s.addrs))
	for _, a := range s.addrs {
		have[vipKey{a.Index, a.Prefix.Addr()}] = true
	}
	for _, r := range s.routers {
		if r.st.Phase != core.Master {
			continue
		}
		missing := 0
		r.allVIPs(func(v *model.Address) {
			if index := r.place(v); index != 0 && !have[vipKey{index, v.Prefix.Addr()}] {
				missing++
			}
		})
		if missing > 0 && !r.fresh() {
			s.log.limitedRouter(r, "%d virtual addresses were gone from the kernel, set again", missing)
			r.addVIPs()
			s.announce(r, max(r.cfg.GARPMasterRepeat, 1))
		}
	}
	// With its length: a line that was /32 and is /24 now left the /32 behind.
	type held struct {
		index  int
		prefix netip.Prefix
	}
	wanted := map[held]bool{}
	for _, r := range s.routers {
		if r.st.Phase == core.Master {
			r.allVIPs(func(v *model.Address) { wanted[held{r.place(v), heldAs(v)}] = true })
		}
	}
	var ops []kernel.Op
	for _, a := range s.addrs {
		if a.Proto == status.AddrProtoVIP && !wanted[held{a.Index, a.Prefix}] {
			ops = append(ops, kernel.UnsetAddr(kernel.NewAddr{Index: a.Index, Prefix: a.Prefix, Peer: a.Peer}))
		}
	}
	s.reconcilePaths()
	if len(ops) == 0 {
		return
	}
	if err := s.rtnl.Batch(ops); err != nil {
		s.log.limited("leftover", "virtual addresses of no instance: %v", err)
	}
}

// fresh tells that the last dump is older than the router's mastership, so
// that what it lacks proves nothing.
func (r *router) fresh() bool { return r.st.Since >= r.s.dumped }

// holdsVIP tells whether the kernel holds one of the router's addresses with
// our tag: then this router was master when its process died.
func (r *router) holdsVIP() bool {
	var keys []vipKey
	r.allVIPs(func(v *model.Address) { keys = append(keys, vipKey{r.place(v), v.Prefix.Addr()}) })
	for _, a := range r.s.addrs {
		if a.Proto == status.AddrProtoVIP && slices.Contains(keys, vipKey{a.Index, a.Prefix.Addr()}) {
			return true
		}
	}
	return false
}
