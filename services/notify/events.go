package notify

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"ballast/configs/model"
	"ballast/services/ipc/status"
)

// What a transition sets off: scripts, a mail, a line in the pipes. Pure.
type actions struct {
	jobs []job
	mail *mail
	line string // with its newline; empty: none
	lvs  bool   // the line is of a virtual or real server
}

// Kinds of transitions as their services name them.
const (
	kindInstance = "instance"
	kindGroup    = "group"
	kindVirtual  = "virtual server"
	kindReal     = "real server"
	stateInit    = "INIT"
	fromStart    = "START" // made here: what a real server was taken for at the start
	stateUp      = "UP"
	stateDown    = "DOWN"
)

// What may stand in Transition.To beside the states of status.
const (
	toDeleted    = "DELETED"
	toRxLowerPri = "MASTER_RX_LOWER_PRI"
)

// forVRRP is what keepalived does at a transition of an instance or a group:
// the script of the state first, then "notify" with four more arguments.
func forVRRP(cfg *objects, t status.Transition) actions {
	var n *model.Notify
	var alert bool
	prio, kind := t.Priority, "INSTANCE"
	switch t.Kind {
	case status.KindPriority: // vrrp has looked whether that is asked for
		return actions{line: vrrpLine(kind, t.Object, t.To, prio)}
	case kindGroup:
		for i := range cfg.SyncGroups {
			if g := &cfg.SyncGroups[i]; g.Name == t.Object {
				n, alert = &g.Notify, g.SMTPAlert
			}
		}
		prio, kind = 0, "GROUP"
	default:
		for i := range cfg.Instances {
			if v := &cfg.Instances[i]; v.Name == t.Object {
				n, alert = &v.Notify, v.SMTPAlert
			}
		}
	}
	if n == nil {
		return actions{}
	}
	var a actions
	object := t.Kind + " " + t.Object
	add := func(what string, c model.Command, extra ...string) {
		if !c.IsZero() {
			a.jobs = append(a.jobs, job{object: object, what: what, cmd: c, extra: extra})
		}
	}
	state := t.To
	switch t.To {
	case status.VRRPMaster:
		add("notify_master", n.Master)
	case status.VRRPBackup:
		add("notify_backup", n.Backup)
	case status.VRRPFault:
		add("notify_fault", n.Fault)
	case status.VRRPStop:
		add("notify_stop", n.Stop)
	case toDeleted:
		// Without a notify_deleted line keepalived tells FAULT, and runs no
		// notify_fault.
		if n.TellDeleted || !n.Deleted.IsZero() {
			add("notify_deleted", n.Deleted)
		} else {
			state = status.VRRPFault
		}
	case toRxLowerPri:
		add("notify_master_rx_lower_pri", n.MasterRxLowerPri)
	default:
		return actions{} // INIT: nobody is told
	}
	if t.To != toRxLowerPri { // an event, not a state
		add("notify", n.Any, kind, t.Object, state, strconv.Itoa(prio))
	}
	a.line = vrrpLine(kind, t.Object, state, prio)
	if alert {
		a.mail = vrrpMail(&cfg.Global, t)
	}
	return a
}

func vrrpLine(kind, name, state string, prio int) string {
	return fmt.Sprintf("%s \"%s\" %s %d\n", kind, oneLine(name, lineMax/2), state, prio)
}

// vrrpMail has keepalived's subject; the body is its sentence and our reason.
func vrrpMail(g *model.Global, t status.Transition) *mail {
	if t.To == status.VRRPFault && g.NoEmailFaults {
		return nil
	}
	what, body := "VRRP Instance", "=> VRRP Instance is no longer owning VRRP VIPs <="
	switch {
	case t.Kind == kindGroup && t.To == status.VRRPStop:
		what, body = "VRRP Group", "=> All VRRP group instances are now stopping <="
	case t.Kind == kindGroup:
		what, body = "VRRP Group", "=> All VRRP group instances are now in "+t.To+" state <="
	case t.To == status.VRRPMaster:
		body = "=> VRRP Instance is now owning VRRP VIPs <="
	case t.To == status.VRRPStop:
		body = "=> VRRP Instance stopping <="
	}
	var subject string
	switch t.To {
	case status.VRRPMaster, status.VRRPBackup, status.VRRPFault:
		subject = "Entering " + t.To + " state"
	case status.VRRPStop:
		subject = "Stopping"
	default:
		return nil
	}
	if t.Reason != "" {
		body += "\r\n" + t.Reason
	}
	return &mail{subject: prefix(g) + what + " " + t.Object + " - " + subject, body: body, at: t.Time}
}

func prefix(g *model.Global) string {
	return "[" + routerID(g) + "] "
}

// objects are what transitions tell of: a configuration, with its virtual
// servers as package follow lists them.
type objects struct {
	*model.Config
	list  []*model.VirtualServer
	names map[string]*model.VirtualServer // nil: not made yet
}

// virtual is a virtual server by its name; nil: there is none.
func (o *objects) virtual(name string) *model.VirtualServer {
	if o.names == nil {
		o.names = make(map[string]*model.VirtualServer, len(o.list))
		for _, vs := range o.list {
			o.names[vs.Name] = vs
		}
	}
	return o.names[name]
}

// forHealth is what keepalived does when a real server or a quorum changes.
func forHealth(cfg *objects, t status.Transition) actions {
	a := actions{lvs: true}
	object := t.Kind + " " + t.Object
	script := func(what string, c model.Command) {
		if !c.IsZero() {
			a.jobs = append(a.jobs, job{object: object, what: what, cmd: c, lvs: true})
		}
	}
	up := t.To == stateUp
	switch t.Kind {
	case kindVirtual:
		if vs := cfg.virtual(t.Object); vs != nil {
			if t.From == stateInit && !up && vs.Sorry == nil {
				return a // keepalived begins without a word then
			}
			if up {
				script("quorum_up", vs.QuorumUp)
			} else {
				script("quorum_down", vs.QuorumDown)
			}
			a.line = lvsLine("VS", vs.Name, t.To)
			if vs.SMTPAlert {
				a.mail = &mail{
					subject: prefix(&cfg.Global) + "Virtualserver " + vs.Name + " - " + t.To,
					body:    "=> " + t.Reason + " <=", at: t.Time,
				}
			}
			return a
		}
	case kindReal:
		for at := range t.Object { // of which of them, " of " tells, but a name may hold that too
			name, ok := strings.CutPrefix(t.Object[at:], " of ")
			if !ok {
				continue
			}
			vs := cfg.virtual(name)
			if vs == nil {
				continue
			}
			for j := range vs.Real {
				rs := &vs.Real[j]
				name := realName(vs, rs.Addr, rs.ConfPort)
				if name+" of "+vs.Name != t.Object {
					continue
				}
				if up {
					script("notify_up", rs.NotifyUp)
				} else {
					script("notify_down", rs.NotifyDown)
				}
				a.line = lvsLine("RS", name+" "+vs.Name, t.To)
				// keepalived mails what a check found, not what it took for granted.
				if rs.SMTPAlert && !(t.From == fromStart && up) {
					a.mail = &mail{
						subject: prefix(&cfg.Global) + "Realserver " + name + " of virtual server " + vs.Name + " - " + t.To,
						body:    "=> " + t.Reason + " <=", at: t.Time,
					}
				}
				return a
			}
		}
	}
	return a
}

// lvsLine is a line as current releases of keepalived write it; those of 2.2
// put a NUL byte behind the newline.
func lvsLine(kind, name, state string) string {
	return kind + " " + oneLine(name, lineMax/2) + " " + state + "\n"
}

// realName is how health names a real server.
func realName(vs *model.VirtualServer, a netip.Addr, port uint16) string {
	proto := model.TCP
	if len(vs.Services) > 0 {
		proto = vs.Services[0].Protocol
	}
	return model.ServiceID{Addr: a, Port: port, Protocol: proto}.String()
}

// currentVRRP makes transitions out of the states that vrrp is in, for a start
// that has seen none: keepalived runs the scripts of the first state too.
func currentVRRP(v *status.VRRP) []status.Transition {
	var out []status.Transition
	for _, g := range v.Groups {
		out = append(out, status.Transition{Kind: kindGroup, Object: g.Name, From: status.VRRPInit, To: g.State, Time: g.Since, Reason: "state at start"})
	}
	for _, i := range v.Instances {
		out = append(out, status.Transition{
			Kind: kindInstance, Object: i.Name, From: status.VRRPInit, To: i.State, Time: i.Since, Reason: i.Reason, Priority: i.Effective,
		})
	}
	return out
}

// stateLines are the lines of fifo_write_vrrp_states_on_reload.
func stateLines(v *status.VRRP) []string {
	var out []string
	told := func(state string) bool { return state != status.VRRPInit && state != "" }
	for _, i := range v.Instances {
		if told(i.State) {
			out = append(out, vrrpLine("INSTANCE", i.Name, i.State, i.Effective))
		}
	}
	for _, g := range v.Groups {
		if told(g.State) {
			out = append(out, vrrpLine("GROUP", g.Name, g.State, 0))
		}
	}
	return out
}

// currentHealth is the same for health: the quorum of every virtual server,
// the real servers that are down, and with rs_init_notifies those that are up.
func currentHealth(cfg *objects, h *status.Health) []status.Transition {
	var out []status.Transition
	for _, vs := range h.Servers {
		if conf := cfg.virtual(vs.Name); conf != nil {
			for _, rs := range vs.Real {
				if rs.Alive && !cfg.Global.RSInitNotifies {
					continue
				}
				out = append(out, status.Transition{
					Kind: kindReal, Object: realName(conf, rs.Addr, rs.Port) + " of " + vs.Name,
					From: fromStart, To: upDown(rs.Alive), Time: rs.Since, Reason: "state at start",
				})
			}
		}
		out = append(out, status.Transition{Kind: kindVirtual, Object: vs.Name, From: stateInit, To: upDown(vs.QuorumUp), Reason: "state at start"})
	}
	return out
}

func upDown(up bool) string {
	if up {
		return stateUp
	}
	return stateDown
}

// newReal are the real servers that a commit brought and that health takes for
// up: with rs_init_notifies they are told too.
func newReal(before, cfg *objects, h *status.Health, told []status.Transition) []status.Transition {
	if !cfg.Global.RSInitNotifies {
		return nil
	}
	known := map[string]bool{}
	for _, vs := range before.list {
		for j := range vs.Real {
			known[realName(vs, vs.Real[j].Addr, vs.Real[j].ConfPort)+" of "+vs.Name] = true
		}
	}
	for _, t := range told {
		known[t.Object] = true
	}
	var out []status.Transition
	for _, t := range currentHealth(cfg, h) {
		if t.Kind == kindReal && t.To == stateUp && !known[t.Object] {
			out = append(out, t)
		}
	}
	return out
}

// omegaEnd is what keepalived does at its stop for virtual servers with omega:
// notify_down of each real server that is up, then quorum_down.
func omegaEnd(cfg *objects, alive map[string]bool) []status.Transition {
	var out []status.Transition
	for _, vs := range cfg.list {
		if !vs.Omega {
			continue
		}
		for j := range vs.Real {
			name := realName(vs, vs.Real[j].Addr, vs.Real[j].ConfPort) + " of " + vs.Name
			if alive[name] {
				out = append(out, status.Transition{Kind: kindReal, Object: name, From: stateUp, To: stateDown, Reason: "Shutting down"})
			}
		}
		out = append(out, status.Transition{Kind: kindVirtual, Object: vs.Name, From: stateUp, To: stateDown, Reason: "Shutting down"})
	}
	return out
}

// mark remembers the last transition of a ring that was acted on.
type mark struct {
	Seq  uint64 `json:"seq"`
	Time int64  `json:"time"` // Unix, in nanoseconds; tells a restarted ring from an old one
}

func markOf(t status.Transition) mark { return mark{t.Seq, t.Time.UnixNano()} }

// news are the transitions of a ring after a mark, and how many are missing
// between the mark and the first of them. A ring whose numbers begin anew (its
// service was restarted) is news as a whole: had any of it been acted on, the
// mark would be in it. The clock does not count; it may be set back.
func news(ring []status.Transition, last mark) (list []status.Transition, missed uint64) {
	if len(ring) == 0 {
		return nil, 0
	}
	same := ring[len(ring)-1].Seq >= last.Seq
	for _, t := range ring {
		if t.Seq == last.Seq && t.Time.UnixNano() != last.Time {
			same = false
		}
	}
	if !same {
		return ring, ring[0].Seq - min(1, ring[0].Seq)
	}
	for i, t := range ring {
		if t.Seq > last.Seq {
			return ring[i:], t.Seq - last.Seq - 1
		}
	}
	return nil, 0
}

// joined is a ring with the transitions that came after it. One that begins
// anew takes its place: its service was restarted, or could be read again only
// now.
func joined(ring, more []status.Transition) []status.Transition {
	switch {
	case len(more) == 0:
		return ring
	case len(ring) == 0 || more[0].Seq <= ring[len(ring)-1].Seq:
		return more
	}
	ring = append(slices.Clip(ring), more...)
	return ring[max(0, len(ring)-status.RingSize):]
}
