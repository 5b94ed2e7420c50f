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

// report logs and remembers what was done.
func (r *reconciler) report(done []Op, repairs map[string]bool, now time.Time) {
	if len(done) == 0 {
		return
	}
	r.lastOps = nil
	for i := range done[:min(len(done), maxLastOps)] {
		r.lastOps = append(r.lastOps, done[i].String())
	}
	if n := len(done) - maxLastOps; n > 0 {
		r.lastOps = append(r.lastOps, fmt.Sprintf("and %d more", n))
	}
	if len(done) > maxPrinted {
		text := summary(done)
		reason := r.reason(&done[0], repairs)
		r.log.Info(text + ": " + reason)
		r.transition(status.Transition{Object: "IPVS", Kind: "table", To: text, Reason: reason}, now)
		return
	}
	for i := range done {
		o := &done[i]
		reason := r.reason(o, repairs)
		r.log.Info(o.String() + ": " + reason)
		t := status.Transition{Object: o.object(), Reason: reason}
		t.Kind, t.From, t.To = o.transition()
		r.transition(t, now)
	}
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
func (r *reconciler) reason(o *Op, repairs map[string]bool) string {
	switch {
	case repairs[o.String()]:
		return "somebody else had changed it"
	case o.Drain && (o.Verb == ipvsnl.DelDest || o.Verb == ipvsnl.DelService):
		return "drained"
	case o.Drain:
		return "drain: no longer configured"
	case r.applied != r.config:
		return fmt.Sprintf("configuration %d", r.config)
	case o.Verb == ipvsnl.StartDaemon, o.Verb == ipvsnl.StopDaemon:
		return "role of " + r.plan.Daemon.name()
	}
	v := r.owners[o.Service.ID]
	if v == nil {
		return "not configured"
	}
	if v.Sorry != nil && key(v.Sorry.Dest) == key(o.Dest) {
		if o.Verb == ipvsnl.DelDest || o.Dest.Weight == 0 {
			return "quorum restored: sorry server out"
		}
		return "quorum lost: sorry server in"
	}
	for i := range v.Real {
		if key(v.Real[i].Dest) != key(o.Dest) {
			continue
		}
		j := slices.IndexFunc(r.plan.Virtual, func(x Virtual) bool { return x.Name == v.Name })
		if alive, _ := r.beliefs.virtual[j].real[i].of(&v.Real[i]); alive && (o.Verb == ipvsnl.DelDest || o.Dest.Weight == 0 && v.Real[i].Inhibit) {
			return "quorum lost: sorry server takes over"
		} else if alive {
			return "health: up"
		}
		return "health: down"
	}
	return "health"
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
	if r.planErr != nil {
		out = append(out, strings.Split(r.planErr.Error(), "\n")...)
	}
	if r.kernErr != nil {
		out = append(out, r.kernErr.Error())
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
