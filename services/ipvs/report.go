package ipvs

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"ballast/services/ipc/status"
	"ballast/services/ipvs/ipvsnl"
)

// report logs and remembers what was done; repairs marks what undid somebody
// else's change, nil: nothing.
func (r *reconciler) report(done []Op, repairs []bool, now time.Time) {
	if len(done) == 0 {
		return
	}
	r.lastOps = printed(done, nil)
	undone := 0
	for _, b := range repairs {
		if b {
			undone++
		}
	}
	if undone > 0 {
		r.repairs += uint64(undone)
		r.lastRepair, r.repaired = now, printed(done, repairs)
		text := strings.Join(r.repaired[:min(len(r.repaired), 5)], "; ")
		if n := undone - 5; n > 0 {
			text += fmt.Sprintf("; and %d more", n)
		}
		r.log.Warn("repaired, somebody else had changed it: " + text)
	}
	if len(done) > maxPrinted {
		text := summary(done)
		reason := r.reason(&done[0], undone > 0 && repairs[0])
		if undone < len(done) {
			r.log.Info(text + ": " + reason)
		}
		r.transition(status.Transition{Object: "IPVS", Kind: "table", To: text, Reason: reason}, now)
		return
	}
	for i := range done {
		o := &done[i]
		repair := undone > 0 && repairs[i]
		reason := r.reason(o, repair)
		if !repair {
			r.log.Info(o.String() + ": " + reason)
		}
		t := status.Transition{Object: o.object(), Reason: reason}
		t.Kind, t.From, t.To = o.transition()
		r.transition(t, now)
	}
}

// printed lists operations, those that are marked if only is not nil.
func printed(ops []Op, only []bool) (out []string) {
	more := 0
	for i := range ops {
		if only != nil && !only[i] {
			continue
		}
		if len(out) == maxLastOps {
			more++
			continue
		}
		out = append(out, ops[i].String())
	}
	if more > 0 {
		out = append(out, fmt.Sprintf("and %d more", more))
	}
	return out
}

func (r *reconciler) transition(t status.Transition, now time.Time) {
	r.seq++
	t.Seq, t.Time = r.seq, now
	from := max(0, len(r.ring)+1-status.RingSize)
	// A new slice: the old one may be on its way to a reader.
	r.ring = append(slices.Clone(r.ring[from:]), t)
}

// transition words an operation as a change of state.
func (o *Op) transition() (kind, from, to string) {
	const absent = "absent"
	switch o.Verb {
	case ipvsnl.AddService:
		return "service", absent, serviceText(o.Service)
	case ipvsnl.EditService:
		return "service", serviceText(o.was().Service), serviceText(o.Service)
	case ipvsnl.DelService:
		return "service", serviceText(o.Service), absent
	case ipvsnl.AddDest:
		return "destination", absent, destText(o.Dest)
	case ipvsnl.EditDest:
		return "destination", destText(o.was().Dest), destText(o.Dest)
	case ipvsnl.DelDest:
		return "destination", destText(o.Dest), absent
	case ipvsnl.StartDaemon:
		return "sync daemon", "stopped", "running"
	case ipvsnl.StopDaemon:
		return "sync daemon", "running", "stopped"
	}
	return "timeouts", "", fmt.Sprintf("tcp %d tcpfin %d udp %d", o.Timeouts.TCP, o.Timeouts.TCPFin, o.Timeouts.UDP)
}

// reason says why an operation was done.
func (r *reconciler) reason(o *Op, repair bool) string {
	var v *Virtual
	var b *virtualBelief
	if i, ok := findEntry(r.want.Services, o.Service.ID); ok && o.Verb <= ipvsnl.DelDest {
		v, b = r.want.Services[i].virtual, r.want.Services[i].belief
	}
	j := -1 // the real server that it is about
	if v != nil && o.Verb >= ipvsnl.AddDest {
		j = slices.IndexFunc(v.Real, func(x Real) bool { return key(x.Dest) == key(o.Dest) })
	}
	switch {
	case repair:
		return "somebody else had changed it"
	case j >= 0 && r.config == r.applied && r.orderText(v, j) != "":
		return r.orderText(v, j)
	case o.Drain && o.Verb == ipvsnl.EditService:
		return "fallback for clients of a server that drains, while it does"
	case o.Drain && (o.Verb == ipvsnl.DelDest || o.Verb == ipvsnl.DelService):
		return "drained"
	case o.Drain:
		return "drain: no longer configured"
	case r.applied != r.config:
		return fmt.Sprintf("configuration %d", r.config)
	case o.Verb == ipvsnl.StartDaemon, o.Verb == ipvsnl.StopDaemon:
		return "role of " + r.plan.Daemon.name()
	case v == nil:
		return "not configured"
	}
	if v.Sorry != nil && key(v.Sorry.Dest) == key(o.Dest) {
		if o.Verb == ipvsnl.DelDest || o.Dest.Weight == 0 {
			return "quorum restored: sorry server out"
		}
		return "quorum lost: sorry server in"
	}
	if j < 0 {
		return "health"
	}
	alive, _ := b.real[j].of(&v.Real[j])
	switch {
	case alive && (o.Verb == ipvsnl.DelDest || o.Dest.Weight == 0 && v.Real[j].Inhibit):
		return "quorum lost: sorry server takes over"
	case alive && o.Verb == ipvsnl.EditDest && o.was().Dest.Weight != 0:
		return "weight"
	case alive:
		return "health: up"
	}
	return "health: down"
}

// orderText names the order about a real server, and its absence if it was
// taken back a moment ago.
func (r *reconciler) orderText(v *Virtual, j int) string {
	k := r.orders.list[orderKey{v.Name, v.Real[j].confKey()}]
	switch {
	case k == nil && r.enabled == v.Real[j].confKey():
		return "enabled by the operator"
	case k == nil || !k.Left.IsZero():
		return ""
	case k.By == "":
		return "order: " + k.Action
	}
	return "order of " + k.By + ": " + k.Action
}

func (d *Daemon) name() string {
	if d == nil {
		return "no instance"
	}
	return d.Instance
}

// summary counts operations by verb.
func summary(ops []Op) string {
	n := map[ipvsnl.Verb]int{}
	for i := range ops {
		n[ops[i].Verb]++
	}
	var out []string
	for _, w := range []struct {
		v    ipvsnl.Verb
		text string
	}{
		{ipvsnl.AddService, "services added"}, {ipvsnl.AddDest, "destinations added"},
		{ipvsnl.EditService, "services edited"}, {ipvsnl.EditDest, "destinations edited"},
		{ipvsnl.DelDest, "destinations deleted"}, {ipvsnl.DelService, "services deleted"},
		{ipvsnl.StartDaemon, "sync daemons started"}, {ipvsnl.StopDaemon, "sync daemons stopped"},
		{ipvsnl.SetTimeouts, "timeouts set"},
	} {
		if n[w.v] > 0 {
			out = append(out, fmt.Sprintf("%d %s", n[w.v], w.text))
		}
	}
	return strings.Join(out, ", ")
}

// problem is what keeps the kernel from being as wanted; "" if nothing does.
func (r *reconciler) problem() string {
	var out []string
	if r.plan != nil && r.plan.err != nil {
		out = append(out, strings.Split(r.plan.err.Error(), "\n")...)
	}
	if r.kernErr != nil {
		out = append(out, r.kernErr.Error())
	}
	if r.ordersErr != nil {
		out = append(out, r.ordersErr.Error())
	}
	for _, k := range slices.Sorted(maps.Keys(r.failed)) {
		out = append(out, r.failed[k].err.Error())
	}
	const show = 5
	if n := len(out); n > show {
		out = append(out[:show:show], fmt.Sprintf("and %d more", n-show))
	}
	return strings.Join(out, "; ")
}
