package health

import (
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
	w.orders = map[realKey]*status.Order{}
	for i, o := range list {
		w.orders[realKey{o.VirtualServer, o.Addr, o.Port}] = &list[i]
	}
	for _, vs := range w.servers {
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
			r.order, changed = o, true
			w.judgeVirtual(vs, why, now)
		}
	}
	return changed
}
