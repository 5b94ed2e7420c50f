package notify

import (
	"net/netip"
	"strconv"
	"strings"

	"ballast/configs/model"
	"ballast/services/ipc/status"
)

// What a transition sets off: scripts, and a mail. Pure.
type actions struct {
	jobs []job
	mail *mail
}

// Kinds of transitions as their services name them.
const (
	kindInstance = "instance"
	kindGroup    = "group"
	kindVirtual  = "virtual server"
	kindReal     = "real server"
	stateInit    = "INIT"
	stateUp      = "UP"
)

// forVRRP is what keepalived does at a transition of an instance or a group:
// the script of the state first, then "notify" with four more arguments.
func forVRRP(cfg *model.Config, t status.Transition) actions {
	var n *model.Notify
	var alert bool
	prio, kind := t.Priority, "INSTANCE"
	switch t.Kind {
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
	switch t.To {
	case status.VRRPMaster:
		add("notify_master", n.Master)
	case status.VRRPBackup:
		add("notify_backup", n.Backup)
	case status.VRRPFault:
		add("notify_fault", n.Fault)
	case status.VRRPStop:
		add("notify_stop", n.Stop)
	case "DELETED":
		add("notify_deleted", n.Deleted)
	case "MASTER_RX_LOWER_PRI":
		add("notify_master_rx_lower_pri", n.MasterRxLowerPri)
	default:
		return actions{} // INIT: nobody is told
	}
	if t.To != "MASTER_RX_LOWER_PRI" {
		add("notify", n.Any, kind, t.Object, t.To, strconv.Itoa(prio))
	}
	if alert {
		a.mail = vrrpMail(&cfg.Global, t)
	}
	return a
}

// vrrpMail has keepalived's subject; the body is its sentence and our reason.
func vrrpMail(g *model.Global, t status.Transition) *mail {
	if t.To == status.VRRPFault && g.NoEmailFaults {
		return nil
	}
	what, body := "VRRP Instance", "=> VRRP Instance is no longer owning VRRP VIPs <="
	if t.Kind == kindGroup {
		what, body = "VRRP Group", "=> All VRRP group instances are now in "+t.To+" state <="
	} else if t.To == status.VRRPMaster {
		body = "=> VRRP Instance is now owning VRRP VIPs <="
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
	return &mail{subject: prefix(g) + what + " " + t.Object + " - " + subject, body: body + "\r\n" + t.Reason, at: t.Time}
}

func prefix(g *model.Global) string {
	return "[" + routerID(g) + "] "
}

// forHealth is what keepalived does when a real server or a quorum changes.
func forHealth(cfg *model.Config, t status.Transition) actions {
	var a actions
	object := t.Kind + " " + t.Object
	script := func(what string, c model.Command) {
		if !c.IsZero() {
			a.jobs = append(a.jobs, job{object: object, what: what, cmd: c})
		}
	}
	up := t.To == stateUp
	for i := range cfg.VirtualServers {
		vs := &cfg.VirtualServers[i]
		switch t.Kind {
		case kindVirtual:
			if vs.Name != t.Object {
				continue
			}
			if t.From == stateInit && !up && vs.Sorry == nil {
				return a // keepalived begins without a word then
			}
			if up {
				script("quorum_up", vs.QuorumUp)
			} else {
				script("quorum_down", vs.QuorumDown)
			}
			if vs.SMTPAlert {
				a.mail = &mail{
					subject: prefix(&cfg.Global) + "Virtualserver " + vs.Name + " - " + t.To,
					body:    "=> " + t.Reason + " <=", at: t.Time,
				}
			}
			return a
		case kindReal:
			if !strings.HasSuffix(t.Object, " of "+vs.Name) {
				continue // names of real servers are made only where they may fit
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
				if rs.SMTPAlert {
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

// currentHealth is the same for health: the quorum of every virtual server,
// and the real servers that are down.
func currentHealth(cfg *model.Config, h *status.Health) []status.Transition {
	var out []status.Transition
	configured := make(map[string]*model.VirtualServer, len(cfg.VirtualServers))
	for i := range cfg.VirtualServers {
		configured[cfg.VirtualServers[i].Name] = &cfg.VirtualServers[i]
	}
	for _, vs := range h.Servers {
		state := "DOWN"
		if vs.QuorumUp {
			state = stateUp
		}
		out = append(out, status.Transition{Kind: kindVirtual, Object: vs.Name, From: stateInit, To: state, Reason: "state at start"})
		conf := configured[vs.Name]
		if conf == nil {
			continue
		}
		for _, rs := range vs.Real {
			if !rs.Alive {
				out = append(out, status.Transition{
					Kind: kindReal, Object: realName(conf, rs.Addr, rs.Port) + " of " + vs.Name,
					From: stateInit, To: "DOWN", Time: rs.Since, Reason: "state at start",
				})
			}
		}
	}
	return out
}

// mark remembers the last transition of a ring that was acted on.
type mark struct {
	Seq  uint64 `json:"seq"`
	Time int64  `json:"time"` // Unix, in nanoseconds; tells a restarted ring from an old one
}

func markOf(t status.Transition) mark { return mark{t.Seq, t.Time.UnixNano()} }

// news are the transitions of a ring after a mark. A ring whose numbers begin
// anew (its service was restarted) is news as a whole: had any of it been acted
// on, the mark would be in it. The clock does not count; it may be set back.
func news(ring []status.Transition, last mark) []status.Transition {
	if len(ring) == 0 {
		return nil
	}
	same := ring[len(ring)-1].Seq >= last.Seq
	for _, t := range ring {
		if t.Seq == last.Seq && t.Time.UnixNano() != last.Time {
			same = false
		}
	}
	if !same {
		return ring
	}
	for i, t := range ring {
		if t.Seq > last.Seq {
			return ring[i:]
		}
	}
	return nil
}
