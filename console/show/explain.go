package show

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"ballast/configs/printable"
	"ballast/services/ipc/status"
)

// facts lays labelled sentences out, each folded under itself.
type facts struct{ b *strings.Builder }

func (f facts) say(label, format string, args ...any) {
	wrapped(f.b, fmt.Sprintf("  %-10s ", label), strings.Fields(fmt.Sprintf(format, args...)))
}

// ExplainVRRP tells why a virtual router is in its state, and on what evidence.
// ok is false when there is none of that name.
func ExplainVRRP(st status.VRRP, name string, journal []status.Entry, now time.Time) (text string, ok bool) {
	i := slices.IndexFunc(st.Instances, func(v status.VRRPInstance) bool { return v.Name == name })
	if i < 0 {
		return "", false
	}
	v := st.Instances[i]
	var b strings.Builder
	f := facts{&b}
	fmt.Fprintf(&b, "%s is %s for %s (since %s)\n", printable.Line(v.Name), v.State, Age(v.Since, now), v.Since.UTC().Format("2006-01-02 15:04:05.000 UTC"))
	f.say("Because", "%s", printable.Line(v.Reason))
	for _, fault := range v.Faults {
		f.say("Held by", "%s", printable.Line(fault))
	}
	if st.Resigned && v.State != status.VRRPMaster {
		by := ""
		if st.ResignedBy != "" {
			by = " by " + printable.Line(st.ResignedBy)
		}
		f.say("Held by", "resigned%s, until \"resume\"", by)
	}
	for _, g := range st.Groups {
		if slices.Contains(g.Instances, v.Name) {
			f.say("Group", "moves with %s as sync group %s, which is %s for %s", printable.Line(strings.Join(others(g.Instances, v.Name), ", ")), printable.Line(g.Name), g.State, Age(g.Since, now))
		}
	}
	evidence(f, v, now)
	f.say("Priority", "%s", sum(v))
	f.say("Next", "%s", next(v, now))
	if h := st.Heartbeat; h != nil {
		for _, r := range h.Routers {
			if h.Up && r.Instance == v.Name {
				f.say("Peer", "says over the heartbeat: %s, priority %d", printable.Line(r.State), r.Priority)
			}
		}
		if !h.Up {
			f.say("Peer", "not heard by heartbeat for %s: VRRP's own timers count", Age(h.Since, now))
		}
	}
	lately(&b, journal, now)
	return b.String(), true
}

func others(list []string, name string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(n string) bool { return n == name })
}

// evidence is what was heard.
func evidence(f facts, v status.VRRPInstance, now time.Time) {
	e := v.Evidence
	switch {
	case e.From.IsValid():
		f.say("Heard", "last advertisement %s ago from %s, priority %d, every %v", Age(e.At, now), e.From, e.Priority, e.Interval)
	case !v.LastAdvert.IsZero():
		f.say("Heard", "last advertisement %s ago", Age(v.LastAdvert, now))
	default:
		f.say("Heard", "no advertisement of another router since the start")
	}
	if e.Rejected != "" {
		f.say("Rejected", "%s ago from %s: %s", Age(e.RejectedAt, now), e.RejectedFrom, printable.Line(e.Rejected))
	}
	if v.State == status.VRRPMaster && e.Takeover != "" {
		text := printable.Line(e.Takeover)
		if e.FirstGARP > 0 {
			text += fmt.Sprintf("; first gratuitous ARP %v after the decision", e.FirstGARP.Round(time.Microsecond))
		}
		f.say("Took over", "%s", text)
	}
}

// sum is the arithmetic of the priority.
func sum(v status.VRRPInstance) string {
	text := fmt.Sprintf("%d configured", v.Priority)
	for _, t := range v.Trackers {
		word := "up"
		if !t.Up {
			word = "DOWN"
		}
		what := t.Kind + " " + printable.Line(t.Name) + " " + word
		if t.Detail != "" {
			what += " (" + printable.Line(t.Detail) + ")"
		}
		if t.Weight != 0 {
			text += fmt.Sprintf(", %s (weight %d)", what, t.Weight)
		} else {
			text += ", " + what
		}
	}
	return text + fmt.Sprintf(": effective %d", v.Effective)
}

// next is what would change the state.
func next(v status.VRRPInstance, now time.Time) string {
	switch v.State {
	case status.VRRPMaster:
		if v.Effective == 255 {
			return "stays master as long as its interface works: it owns the addresses"
		}
		return fmt.Sprintf("gives way to an advertisement with a priority above %d, or of the same priority from a higher address", v.Effective)
	case status.VRRPBackup:
		if e := v.Evidence; e.PreemptAt.After(now) {
			why := e.PreemptFor
			if why == status.PreemptForSync {
				why += ": until then it is told of the connections"
			}
			return fmt.Sprintf("takes over from %s, which has a lower priority, in %v (%s); at once when nobody is heard for %v", v.MasterAddr, e.PreemptAt.Sub(now).Round(time.Second), why, v.MasterDown.Round(time.Millisecond))
		}
		if v.MasterPriority > 0 && v.MasterAddr.IsValid() {
			return fmt.Sprintf("goes master when %s is not heard for %v", v.MasterAddr, v.MasterDown.Round(time.Millisecond))
		}
		return fmt.Sprintf("goes master when nobody is heard for %v", v.MasterDown.Round(time.Millisecond))
	case status.VRRPFault:
		return "takes part again when nothing holds it any more"
	}
	return "waits for its interface and its trackers"
}

// ExplainServer tells of a real server, in every virtual server that has it,
// whether it gets connections and why. port 0 means any; journal may hold
// transitions of other objects as well. ok is false when no virtual server has
// it.
func ExplainServer(st status.IPVS, h status.Health, addr netip.Addr, port uint16, journal []status.Entry, now time.Time) (text string, ok bool) {
	var b strings.Builder
	for _, v := range h.Servers {
		for _, r := range v.Real {
			if r.Addr != addr || port != 0 && r.Port != port {
				continue
			}
			if ok {
				b.WriteString("\n")
			}
			ok = true
			explainReal(&b, st, v, r, now)
			lately(&b, slices.DeleteFunc(slices.Clone(journal), func(e status.Entry) bool { return !about(e.Object, v.Name, r) }), now)
		}
	}
	return b.String(), ok
}

// about reports whether a transition's object is this real server:
// "[10.0.0.5]:tcp:80 of [10.0.0.2]:tcp:80".
func about(object, virtual string, r status.RealServerHealth) bool {
	return strings.HasPrefix(object, "["+r.Addr.String()+"]:") && strings.HasSuffix(object, fmt.Sprintf(":%d of %s", r.Port, virtual))
}

func explainReal(b *strings.Builder, st status.IPVS, v status.VirtualServerHealth, r status.RealServerHealth, now time.Time) {
	f := facts{b}
	var dests []status.Dest
	for _, s := range st.Services {
		if s.VirtualServer != v.Name {
			continue
		}
		for _, d := range s.Dests {
			if found, ok := realServer(s, d, status.Health{Servers: []status.VirtualServerHealth{v}}); ok && found.Addr == r.Addr && found.Port == r.Port && !d.Sorry {
				dests = append(dests, d)
			}
		}
	}
	var order *status.Order
	for i, o := range st.Orders {
		if o.VirtualServer == v.Name && o.Addr == r.Addr && o.Port == r.Port {
			order = &st.Orders[i]
		}
	}
	fmt.Fprintf(b, "%s of %s\n", addrPort(r.Addr, r.Port), printable.Line(v.Name))
	f.say("Traffic", "%s", gets(dests))
	if order != nil {
		text := order.Action
		if order.Action == status.OrderWeight {
			text += fmt.Sprintf(" %d", order.Weight)
		}
		f.say("Ordered", "%s by %s %s ago; \"enable\" takes it back", text, orNobody(order.By), Age(order.Since, now))
	}
	switch {
	case !r.Alive:
		f.say("Health", "DOWN for %s", Age(r.Since, now))
	case len(r.Checks) == 0:
		f.say("Health", "no check is configured: it counts as alive")
	default:
		f.say("Health", "up for %s", Age(r.Since, now))
	}
	if r.Weight >= 0 {
		f.say("Weight", "%d, from its check", r.Weight)
	}
	for _, c := range r.Checks {
		f.say("Check", "%s, probed %s", checkText(c, addrPort(r.Addr, r.Port)), probed(c, now))
		if c.Up && !c.Failed.IsZero() {
			f.say("", "failed last %s ago: %s", Age(c.Failed, now), printable.Line(c.FailedDetail))
		}
		if c.Answer != "" {
			f.say("", "it answered: %s", printable.Line(c.Answer))
		}
		if c.Shared > 1 {
			f.say("", "one probe serves %d checks of the configuration", c.Shared)
		}
	}
	for _, d := range dests {
		fwd := d.Forward
		if d.Tunnel != "" {
			fwd += " " + d.Tunnel
		}
		f.say("Kernel", "%s, weight %d, %d active and %d inactive connections", printable.Line(fwd), d.Weight, d.Active, d.Inactive)
	}
	if !v.QuorumUp {
		f.say("Quorum", "lost: weight %d of %d; the sorry server, where there is one, answers", v.Weight, v.Quorum)
	}
}

// gets says in words what the kernel does with a real server.
func gets(dests []status.Dest) string {
	for _, d := range dests {
		switch {
		case d.Weight > 0:
			return "gets new connections"
		case d.Draining || d.Order == status.OrderDrain:
			return "drains: gets no new connections, the old ones go on"
		}
	}
	if len(dests) > 0 {
		return "gets no new connections: its weight is 0"
	}
	return "gets no connections: it is not in the kernel's table"
}

func orNobody(s string) string {
	if s == "" {
		return "somebody"
	}
	return printable.Line(s)
}

func probed(c status.CheckHealth, now time.Time) string {
	if c.Last.IsZero() {
		return "never"
	}
	return Age(c.Last, now) + " ago"
}

// Orders renders what the operator told about real servers. Those that sleep
// are about real servers that are not in the configuration now.
func Orders(list, asleep []status.Order, now time.Time) string {
	var b strings.Builder
	if len(list) == 0 {
		b.WriteString("no orders: every real server is as configured\n")
	} else {
		orders(&b, list, now)
	}
	if len(asleep) > 0 {
		b.WriteString("\nasleep, not in the configuration now (\"enable SERVER\" takes one back):\n")
		orders(&b, asleep, now)
	}
	return b.String()
}

func orders(b *strings.Builder, list []status.Order, now time.Time) {
	rows := [][]string{{"Real server", "Order", "Since", "By", "Virtual server"}}
	for _, o := range list {
		what := o.Action
		if o.Action == status.OrderWeight {
			what += fmt.Sprintf(" %d", o.Weight)
		}
		rows = append(rows, []string{addrPort(o.Addr, o.Port), what, Age(o.Since, now), orNobody(o.By), printable.Line(o.VirtualServer)})
	}
	table(b, "", rows)
}

// Ordered renders what became of an order: the destinations that it touched.
func Ordered(action string, dests []status.Dest) string {
	var b strings.Builder
	for _, d := range dests {
		fmt.Fprintf(&b, "%s: weight %d, %d active and %d inactive connections\n", addrPort(d.Addr, d.Port), d.Weight, d.Active, d.Inactive)
	}
	if len(dests) == 0 {
		b.WriteString(action + ": done; it is not in the kernel's table\n")
	}
	return b.String()
}
