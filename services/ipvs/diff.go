package ipvs

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"ballast/configs/model"
	"ballast/services/ipvs/ipvsnl"
)

// State is what the kernel holds, as far as it was read. It is never changed,
// nor is anything that it refers to.
type State struct {
	Services []*ServiceState // sorted by ID
	Daemons  []ipvsnl.Daemon
	Timeouts ipvsnl.Timeouts
}

// ServiceState is one service with its destinations, sorted by address and port.
type ServiceState struct {
	ipvsnl.ServiceState
	Dests []ipvsnl.DestState
}

// find returns the service id, nil if there is none.
func (s *State) find(id model.ServiceID) *ServiceState {
	i, ok := s.place(id)
	if !ok {
		return nil
	}
	return s.Services[i]
}

// place is where the service id stands, or would.
func (s *State) place(id model.ServiceID) (int, bool) {
	return slices.BinarySearchFunc(s.Services, id, func(s *ServiceState, id model.ServiceID) int { return ipvsnl.CompareID(s.ID, id) })
}

// find returns the destination k, nil if there is none.
func (s *ServiceState) find(k netip.AddrPort) *ipvsnl.DestState {
	i, ok := slices.BinarySearchFunc(s.Dests, k, func(d ipvsnl.DestState, k netip.AddrPort) int { return compareKey(key(d.Dest), k) })
	if !ok {
		return nil
	}
	return &s.Dests[i]
}

// Op is one operation on the kernel: a request, and for an edit what was
// there before.
type Op struct {
	ipvsnl.Request
	Was   *ipvsnl.Request // of an edit, otherwise nil
	Drain bool            // ends or begins a drain
}

// was is what an edit found; zero where there is nothing to tell.
func (o *Op) was() ipvsnl.Request {
	if o.Was == nil {
		return ipvsnl.Request{}
	}
	return *o.Was
}

// object names what an operation is about, for errors and back-off.
func (o *Op) object() string {
	switch o.Verb {
	case ipvsnl.AddService, ipvsnl.EditService, ipvsnl.DelService:
		return o.Service.ID.String()
	case ipvsnl.AddDest, ipvsnl.EditDest, ipvsnl.DelDest:
		return destName(o.Service.ID, o.Dest) + " of " + o.Service.ID.String()
	case ipvsnl.StartDaemon, ipvsnl.StopDaemon:
		return o.Daemon.Role.String() + " sync daemon"
	}
	return "timeouts"
}

// destName prints as keepalived does: "[10.0.0.5]:tcp:80", for a mark service
// "[10.0.0.5]:80".
func destName(id model.ServiceID, d ipvsnl.Dest) string {
	s := "[" + d.Addr.String() + "]:"
	if id.Mark == 0 {
		s += id.Protocol.String() + ":"
	}
	return s + strconv.Itoa(int(d.Port))
}

// String prints the operation, one line without secrets:
//
//	add service [10.0.0.2]:tcp:80 wrr persistent 60
//	edit destination [10.0.0.5]:tcp:80 of [10.0.0.2]:tcp:80: weight 1 -> 0
func (o *Op) String() string {
	var what string
	switch o.Verb {
	case ipvsnl.AddService:
		return "add service " + o.object() + " " + serviceText(o.Service)
	case ipvsnl.EditService:
		return "edit service " + o.object() + ": " + serviceText(o.was().Service) + " -> " + serviceText(o.Service)
	case ipvsnl.DelService:
		what = "delete service " + o.object()
	case ipvsnl.AddDest:
		return "add destination " + o.object() + " " + destText(o.Dest)
	case ipvsnl.EditDest:
		was, is := o.was().Dest, o.Dest
		what = "edit destination " + o.object() + ": "
		if was.Weight, is.Weight = 0, 0; was == is {
			what += fmt.Sprintf("weight %d -> %d", o.was().Dest.Weight, o.Dest.Weight)
		} else {
			what += destText(o.was().Dest) + " -> " + destText(o.Dest)
		}
	case ipvsnl.DelDest:
		what = "delete destination " + o.object()
	case ipvsnl.StartDaemon:
		return fmt.Sprintf("start %s on %s id %d", o.object(), o.Daemon.Interface, o.Daemon.ID)
	case ipvsnl.StopDaemon:
		return fmt.Sprintf("stop %s on %s id %d", o.object(), o.Daemon.Interface, o.Daemon.ID)
	case ipvsnl.SetTimeouts:
		return fmt.Sprintf("set timeouts tcp %d tcpfin %d udp %d", o.Timeouts.TCP, o.Timeouts.TCPFin, o.Timeouts.UDP)
	}
	if o.Drain {
		what += " (drain)"
	}
	return what
}

func serviceText(s ipvsnl.Service) string {
	out := []string{s.Scheduler}
	if f := schedFlags(s); len(f) > 0 {
		out = append(out, "("+strings.Join(f, ",")+")")
	}
	if s.Flags&ipvsnl.FlagOnePacket != 0 {
		out = append(out, "ops")
	}
	if s.Flags&ipvsnl.FlagPersistent != 0 {
		out = append(out, fmt.Sprintf("persistent %d /%d", s.Timeout, granularity(s)))
	}
	if s.PE != "" {
		out = append(out, "pe "+s.PE)
	}
	return strings.Join(out, " ")
}

// schedFlags names the scheduler flags as keepalived does.
func schedFlags(s ipvsnl.Service) []string {
	var out []string
	for i, f := range []uint32{ipvsnl.FlagSched1, ipvsnl.FlagSched2, ipvsnl.FlagSched3} {
		if s.Flags&f == 0 {
			continue
		}
		name := "flag-" + strconv.Itoa(i+1)
		if (s.Scheduler == "sh" || s.Scheduler == "mh") && i < 2 {
			name = s.Scheduler + [...]string{"-fallback", "-port"}[i]
		}
		out = append(out, name)
	}
	return out
}

func granularity(s ipvsnl.Service) int {
	if ipvsnl.Family(s.ID) {
		return int(s.Netmask)
	}
	return prefix4(s.Netmask)
}

func forwardText(f uint8) string {
	switch f {
	case ipvsnl.ForwardNAT:
		return "NAT"
	case ipvsnl.ForwardLocal:
		return "LOCAL"
	case ipvsnl.ForwardTUN:
		return "TUN"
	case ipvsnl.ForwardDR:
		return "DR"
	case ipvsnl.ForwardBypass:
		return "BYPASS"
	}
	return "forward " + strconv.Itoa(int(f))
}

func destText(d ipvsnl.Dest) string {
	s := forwardText(d.Forward)
	switch {
	case d.TunnelType == ipvsnl.TunnelGUE:
		s += " gue port " + strconv.Itoa(int(d.TunnelPort))
	case d.TunnelType == ipvsnl.TunnelGRE:
		s += " gre"
	}
	switch d.TunnelFlags {
	case ipvsnl.TunnelCsum:
		s += " csum"
	case ipvsnl.TunnelRemCsum:
		s += " remcsum"
	}
	s += " weight " + strconv.Itoa(int(d.Weight))
	if d.UThreshold != 0 || d.LThreshold != 0 {
		s += fmt.Sprintf(" thresholds %d %d", d.UThreshold, d.LThreshold)
	}
	return s
}

// Overdue tells whether the drain of a destination has lasted too long.
type Overdue func(id model.ServiceID, k netip.AddrPort) bool

// Diff gives the operations that lead from have to want. Additions come before
// edits and edits before deletions, within a service destinations come in
// canonical order, and nothing that an edit can change is deleted and added.
//
// What is not in want drains: a destination gets weight 0 and goes when its
// connections are gone or overdue says so, a service goes with its last
// destination. Where weight 0 would turn clients away, because the scheduler
// keeps sending them to the destination that drains, the fallback flag of sh
// and mh is lent to the service for the time of the drain; dh has none, so
// there a destination goes at once.
func Diff(have *State, want *Table, overdue Overdue) []Op {
	var edits, dels []Op
	whole := want.whole
	if whole == nil {
		whole = want.Services
	}
	n := 8 // timeouts and daemons
	for i := range want.Services {
		if have.find(want.Services[i].ID) == nil {
			n += 2 + len(want.Services[i].Dests)
		}
	}
	adds := make([]Op, 0, n)
	req := func(v ipvsnl.Verb, s ipvsnl.Service, d ipvsnl.Dest) Op {
		return Op{Request: ipvsnl.Request{Verb: v, Service: s, Dest: d}}
	}
	if t := timeouts(have.Timeouts, want.Timeouts); t != have.Timeouts {
		adds = append(adds, Op{Request: ipvsnl.Request{Verb: ipvsnl.SetTimeouts, Timeouts: t}})
	}
	start, restart, stop := daemonOps(have.Daemons, want)
	adds = append(append(adds, restart...), start...)

	for i := range want.Services {
		w := want.Services[i]
		h := have.find(w.ID)
		if h == nil {
			adds = addService(adds, w)
			continue
		}
		svc := w.Service
		var leave []Op
		for j := range h.Dests {
			d := &h.Dests[j]
			k := key(d.Dest)
			if _, ok := findDest(w.Dests, k); ok {
				continue
			}
			_, out := slices.BinarySearchFunc(w.Out, k, compareKey)
			switch {
			case out:
				leave = append(leave, req(ipvsnl.DelDest, w.Service, d.Dest))
			case svc.Scheduler == "dh":
				leave = append(leave, req(ipvsnl.DelDest, w.Service, d.Dest))
			default:
				if svc.Scheduler == "sh" || svc.Scheduler == "mh" {
					svc.Flags |= ipvsnl.FlagSched1
				}
				leave = append(leave, drain(w.Service, d, overdue)...)
			}
		}
		if svc != h.Service {
			op := req(ipvsnl.EditService, svc, ipvsnl.Dest{})
			op.Was = &ipvsnl.Request{Verb: ipvsnl.EditService, Service: h.Service}
			// Lending the fallback flag and taking it back belong to a drain.
			a, b := h.Service, w.Service
			a.Flags, b.Flags = a.Flags|ipvsnl.FlagSched1, b.Flags|ipvsnl.FlagSched1
			op.Drain = a == b && (w.Scheduler == "sh" || w.Scheduler == "mh")
			edits = append(edits, op)
		}
		for _, d := range w.Dests {
			switch hd := h.find(key(d)); {
			case hd == nil:
				adds = append(adds, req(ipvsnl.AddDest, w.Service, d))
			case hd.Dest != d:
				op := req(ipvsnl.EditDest, w.Service, d)
				op.Was = &ipvsnl.Request{Verb: ipvsnl.EditDest, Dest: hd.Dest}
				edits = append(edits, op)
			}
		}
		for _, op := range leave {
			if op.Verb == ipvsnl.EditDest {
				edits = append(edits, op)
			} else {
				dels = append(dels, op)
			}
		}
	}

	for i := range have.Services {
		h := have.Services[i]
		if _, ok := findEntry(want.Services, h.ID); ok {
			continue
		}
		if gone(h, overdue) || shadows(h.ID, whole) {
			op := req(ipvsnl.DelService, h.Service, ipvsnl.Dest{})
			op.Drain = len(h.Dests) > 0
			dels = append(dels, op)
			continue
		}
		for j := range h.Dests {
			if d := &h.Dests[j]; d.Weight != 0 {
				edits = append(edits, drain(h.Service, d, nil)...)
			}
		}
	}
	dels = append(dels, stop...)
	// What gives weight comes before what takes it, so that a service always
	// has somebody to serve.
	slices.SortStableFunc(edits, func(a, b Op) int { return quenches(&a) - quenches(&b) })
	return append(append(adds, edits...), dels...)
}

// addService appends what makes a new service. mh makes its table anew at each
// destination that comes (4,093 places, 15 times the cost of the operation);
// without a scheduler there is none until all are in.
func addService(ops []Op, w *Entry) []Op {
	s := w.Service
	late := s.Scheduler == "mh" && len(w.Dests) > 1
	if late {
		s.Scheduler = noScheduler
	}
	ops = append(ops, Op{Request: ipvsnl.Request{Verb: ipvsnl.AddService, Service: s}})
	for _, d := range w.Dests {
		ops = append(ops, Op{Request: ipvsnl.Request{Verb: ipvsnl.AddDest, Service: s, Dest: d}})
	}
	if late {
		ops = append(ops, Op{
			Request: ipvsnl.Request{Verb: ipvsnl.EditService, Service: w.Service},
			Was:     &ipvsnl.Request{Verb: ipvsnl.EditService, Service: s},
		})
	}
	return ops
}

// noScheduler is the kernel's word for none.
const noScheduler = "none"

// quenches is 1 for an edit that takes a destination's weight away.
func quenches(o *Op) int {
	if o.Verb == ipvsnl.EditDest && o.Dest.Weight == 0 {
		return 1
	}
	return 0
}

func findDest(ds []ipvsnl.Dest, k netip.AddrPort) (int, bool) {
	return slices.BinarySearchFunc(ds, k, func(d ipvsnl.Dest, k netip.AddrPort) int { return compareKey(key(d), k) })
}

func findEntry(es []*Entry, id model.ServiceID) (int, bool) {
	return slices.BinarySearchFunc(es, id, func(e *Entry, id model.ServiceID) int { return ipvsnl.CompareID(e.ID, id) })
}

// drain takes a destination out in two steps: weight 0 first, and only a later
// look at its connections may delete it, because one may begin in between.
func drain(s ipvsnl.Service, d *ipvsnl.DestState, overdue Overdue) []Op {
	op := Op{Drain: true, Request: ipvsnl.Request{Service: s, Dest: d.Dest}}
	switch {
	case d.Weight != 0:
		op.Verb, op.Dest.Weight = ipvsnl.EditDest, 0
		op.Was = &ipvsnl.Request{Verb: ipvsnl.EditDest, Dest: d.Dest}
	case d.Active+d.Inactive == 0, overdue(s.ID, key(d.Dest)):
		op.Verb = ipvsnl.DelDest
	default:
		return nil
	}
	return []Op{op}
}

// gone reports whether a service that is not wanted has drained.
func gone(h *ServiceState, overdue Overdue) bool {
	for j := range h.Dests {
		d := &h.Dests[j]
		if d.Weight != 0 || (d.Active+d.Inactive != 0 && !overdue(h.ID, key(d.Dest))) {
			return false
		}
	}
	return true
}

// shadows reports whether a service that is not wanted takes the packets of
// one that is: a port of an address comes before "all ports" of it.
func shadows(id model.ServiceID, want []*Entry) bool {
	if id.Mark != 0 || id.Port == 0 {
		return false
	}
	id.Port = 0
	_, ok := findEntry(want, id)
	return ok
}

// timeouts gives the kernel's timeouts with those of want that are set.
func timeouts(have, want ipvsnl.Timeouts) ipvsnl.Timeouts {
	for _, t := range []struct{ have, want *uint32 }{
		{&have.TCP, &want.TCP}, {&have.TCPFin, &want.TCPFin}, {&have.UDP, &want.UDP},
	} {
		if *t.want != 0 {
			*t.have = *t.want
		}
	}
	return have
}

// daemonOps compares the sync daemons. One that has the right role and a wrong
// parameter is stopped and started, the kernel has no edit; a change of role
// starts the new daemon before it stops the old one.
func daemonOps(have []ipvsnl.Daemon, want *Table) (start, restart, stop []Op) {
	if want.DaemonsKept {
		return nil, nil, nil
	}
	op := func(v ipvsnl.Verb, d ipvsnl.Daemon) Op {
		return Op{Request: ipvsnl.Request{Verb: v, Daemon: d}}
	}
	for _, role := range []ipvsnl.Role{ipvsnl.Master, ipvsnl.Backup} {
		is := func(d ipvsnl.Daemon) bool { return d.Role == role }
		h, w := slices.IndexFunc(have, is), slices.IndexFunc(want.Daemons, is)
		switch {
		case h < 0 && w >= 0:
			start = append(start, op(ipvsnl.StartDaemon, want.Daemons[w]))
		case h >= 0 && w < 0:
			stop = append(stop, op(ipvsnl.StopDaemon, have[h]))
		case h >= 0 && w >= 0 && !sameDaemon(have[h], want.Daemons[w]):
			restart = append(restart, op(ipvsnl.StopDaemon, have[h]), op(ipvsnl.StartDaemon, want.Daemons[w]))
		}
	}
	return start, restart, stop
}

// sameDaemon compares what the kernel made of a daemon with what is wanted:
// it fills in defaults and moves maxlen into its limits.
func sameDaemon(h, w ipvsnl.Daemon) bool {
	header := uint16(28) // IPv4 and UDP
	if w.Group.Is6() {
		header = 48
	}
	if w.Role == ipvsnl.Backup && w.MaxLen != 0 {
		w.MaxLen = max(w.MaxLen, 1024)
	}
	w.MaxLen = min(w.MaxLen, 65535-header)
	if w.MaxLen == 0 {
		w.MaxLen = h.MaxLen
	}
	if w.Port == 0 {
		w.Port = 8848
	}
	if w.TTL == 0 {
		w.TTL = 1
	}
	if !w.Group.IsValid() {
		w.Group = netip.AddrFrom4([4]byte{224, 0, 0, 81})
	}
	return h == w
}
