package health

import (
	"slices"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc/status"
)

// disabled: an operator has taken it out.
func (r *realServer) disabled() bool {
	return r.order != nil && (r.order.Action == status.OrderDrain || r.order.Action == status.OrderDisable)
}

// dynamic is the weight that its checks give a real server, -1: as configured.
// A dynamic MISC_CHECK replaces the configured one, a FILE_CHECK adds to it; of
// several, each moves it by as much as it would alone.
func (r *realServer) dynamic() int {
	weight, any := r.conf.Weight, false
	for _, c := range r.checks {
		switch {
		case c.spec.Kind == model.FileCheck && c.added:
			weight, any = weight+c.adds, true
		case c.spec.Dynamic && c.weight >= 0:
			weight, any = weight+c.weight-r.conf.Weight, true
		}
	}
	if !any {
		return -1
	}
	return min(max(weight, 0), maxWeight)
}

// maxWeight is the greatest weight that IPVS takes.
const maxWeight = 1<<31 - 1

// liveWeight is what the real server adds to the quorum.
func (r *realServer) liveWeight() int {
	if !r.alive || r.disabled() {
		return 0
	}
	if w := r.dynamic(); w >= 0 {
		return w // what a check measures counts more than an order, as in ipvs
	}
	if r.order != nil && r.order.Action == status.OrderWeight {
		return r.order.Weight
	}
	return r.conf.Weight
}

// order takes what operators told, and returns whether anything changed.
func (w *world) order(list []status.Order, now time.Time) (changed bool) {
	if slices.Equal(list, w.ordered) {
		return false
	}
	names := map[string]bool{} // of virtual servers that one of them is about
	for i := range w.ordered {
		names[w.ordered[i].VirtualServer] = true
	}
	w.ordered, w.orders = list, make(map[realKey]*status.Order, len(list))
	for i, o := range list {
		w.orders[realKey{o.VirtualServer, o.Addr, o.Port}] = &list[i]
		names[o.VirtualServer] = true
	}
	for _, vs := range w.named(names) {
		for _, r := range vs.real {
			o := w.orders[realKey{vs.conf.Name, r.conf.Addr, r.conf.ConfPort}]
			if o == r.order || o != nil && r.order != nil && *o == *r.order {
				continue
			}
			why := r.name() + ": order taken back"
			if o != nil {
				why = r.name() + ": " + o.Action
				if o.By != "" {
					why += " by " + o.By
				}
			}
			r.order, changed, vs.stale = o, true, true
			w.judgeVirtual(vs, why, now)
		}
	}
	return changed
}

// named are the virtual servers of these names, in the order of the
// configuration.
func (w *world) named(names map[string]bool) []*virtualServer {
	if w.places == nil {
		w.places = make(map[string]int, len(w.servers))
		for i, vs := range w.servers {
			w.places[vs.conf.Name] = i
		}
	}
	at := make([]int, 0, len(names))
	for n := range names {
		if i, ok := w.places[n]; ok {
			at = append(at, i)
		}
	}
	slices.Sort(at)
	out := make([]*virtualServer, len(at))
	for k, i := range at {
		out[k] = w.servers[i]
	}
	return out
}
