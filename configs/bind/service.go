package bind

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"ballast/configs/model"
	"ballast/configs/syntax"
)

// finishServer resolves the defaults of a virtual server and its real servers.
func (b *binder) finishServer(n *syntax.Node, v *virtual) {
	b.services(n, v)
	if len(v.real) == 0 {
		b.warn(n.Pos, "add real_server ADDRESS PORT { … }", "virtual server %s has no real servers and is ignored, as keepalived does", v.Name)
		return
	}
	b.stands(v, nil, "", n.Pos)
	for _, l := range n.Children {
		if l.Name() == "quorum_up" || l.Name() == "quorum_down" || l.Name() == "sorry_server" {
			b.stands(v, nil, l.Name(), l.Pos)
		}
	}
	if v.Scheduler == "" {
		v.Scheduler = "wlc"
		if !has(n, "lb_algo", "lvs_sched") {
			b.warn(n.Pos, "write lb_algo wlc", "virtual server %s names no scheduler; wlc is used", v.Name)
		}
	}
	if !v.forwardSet && !has(n, "lb_kind", "lvs_method") {
		b.warn(n.Pos, "write lb_kind NAT", "virtual server %s names no forwarding method; NAT is used", v.Name)
	}
	b.flags(v)
	v.Alpha = v.alpha == model.On
	v.SMTPAlert = pick(false, v.mail, b.cfg.Global.SMTPAlertChecker, b.cfg.Global.SMTPAlert)

	v.Real = make([]model.RealServer, 0, len(v.real))
	for _, l := range v.real {
		b.realServer(v, l)
	}
	if len(v.Real) == 0 {
		return // each of them has its error
	}
	if v.Services[0].Mark != 0 && !v.familySet && v.group == nil && v.Forward != model.TUN {
		v.Services[0].IPv6 = v.Real[0].Addr.Is6()
	}
	if !v.granularitySet || v.Granularity > 32 && !v.v6() {
		if v.granularitySet {
			b.fail(lineOf(n, "persistence_granularity"), "write a netmask", "virtual server %s: persistence_granularity %d is too long for IPv4", v.Name, v.Granularity)
		}
		v.Granularity = 32
		if v.v6() {
			v.Granularity = 128
		}
	} else if v.Persistence == 0 && !has(n, "persistence_timeout") {
		b.note(lineOf(n, "persistence_granularity"), "add persistence_timeout 360, or delete the line", "virtual server %s: persistence_granularity alone turns persistence on, for 360 s, as in keepalived", v.Name)
		v.Persistence = 360 * time.Second
	}
	b.sorry(v)
	b.quorum(n, v)
	b.cfg.VirtualServers = append(b.cfg.VirtualServers, v.VirtualServer)
}

func has(n *syntax.Node, names ...string) bool {
	return slices.ContainsFunc(n.Children, func(l *syntax.Node) bool { return slices.Contains(names, l.Name()) })
}

func (v *virtual) v6() bool {
	id := v.Services[0]
	return id.IPv6 || id.Addr.Is6()
}

// lineOf is the place of a line of a block, or of the block.
func lineOf(n *syntax.Node, name string) model.Pos {
	for _, l := range n.Children {
		if l.Name() == name {
			return l.Pos
		}
	}
	return n.Pos
}

// services names the virtual server and lists its services.
func (b *binder) services(n *syntax.Node, v *virtual) {
	marksOnly := v.id.Mark != 0
	if v.group != nil {
		marksOnly = !slices.ContainsFunc(v.group.services, func(s model.ServiceID) bool { return s.Mark == 0 })
	}
	if marksOnly && v.id.Protocol != 0 {
		b.note(lineOf(n, "protocol"), "delete protocol", "a firewall mark has no protocol; the line protocol does nothing")
		v.id.Protocol = 0
	}
	if !marksOnly && v.id.Protocol == 0 {
		if !has(n, "protocol") {
			b.warn(n.Pos, "write protocol TCP if that is meant", "the virtual server names no protocol; UDP is used, as keepalived does")
		}
		v.id.Protocol = model.UDP
	}
	if v.OnePacket && !marksOnly && v.id.Protocol != model.UDP {
		b.warn(lineOf(n, "ops"), "delete ops", "ops is for UDP only and is ignored")
		v.OnePacket = false
	}
	zeroPort := v.group == nil && v.id.Mark == 0 && v.id.Port == 0
	if v.group == nil {
		v.Services = []model.ServiceID{v.id}
		v.Name = v.id.String()
	} else {
		v.Name = "[" + v.groupName + "]:0"
		if v.group.used {
			v.Name = "[" + v.groupName + "]:" + v.id.Protocol.String() + ":0"
		}
		v.group.used = true
		for _, s := range v.group.services {
			if s.Mark == 0 {
				s.Protocol = v.id.Protocol
				zeroPort = zeroPort || s.Port == 0
			}
			v.Services = append(v.Services, s)
		}
	}
	if zeroPort && v.Persistence == 0 {
		b.warn(n.Pos, "add persistence_timeout, or a port", "virtual server %s is for every port, which needs persistence; persistence_timeout 360 is used", v.Name)
		v.Persistence = 360 * time.Second
	}
}

// flags keeps the scheduler flags that go with the scheduler.
func (b *binder) flags(v *virtual) {
	for _, l := range v.flags {
		name := l.Name()
		sched, _, ok := strings.Cut(name, "-")
		if ok && sched != "flag" && sched != v.Scheduler {
			b.warn(l.Pos, "delete it, or write lb_algo "+sched, "%s goes with lb_algo %s and is ignored", name, sched)
			continue
		}
		if !slices.Contains(v.SchedFlags, name) {
			v.SchedFlags = append(v.SchedFlags, name)
		}
	}
}

// ownPort is the port that a real server gets under DR and TUN, which cannot
// rewrite one: that of the service, 0 under a firewall mark. free is true when
// the services differ, and the port stays as written.
func (v *virtual) ownPort() (port uint16, free bool) {
	if v.group == nil {
		return v.id.Port, false
	}
	for i, s := range v.Services {
		if i > 0 && s.Port != v.Services[0].Port {
			return 0, true
		}
	}
	return v.Services[0].Port, false
}

// place decides the ports of a real or sorry server.
func (b *binder) place(v *virtual, r *model.RealServer, at model.Pos, what string) {
	service, free := v.ownPort()
	r.ConfPort = r.Port
	if r.Port == 0 {
		r.Port, r.ConfPort = service, service
	}
	if r.Forward == model.NAT || free || r.Port == service {
		return
	}
	if v.Services[0].Mark != 0 {
		r.Port = 0 // a mark has no port; what is written is still the port of the checks
		return
	}
	if service == 0 {
		return
	}
	b.warn(at, "write "+itoa(int(service))+", or use lb_kind NAT", "%s delivers to the port that the client asked for: %s %s gets the requests on port %d, not on %d",
		r.Forward, what, r.Addr, service, r.ConfPort)
	r.Port = service
}

// sorry binds the sorry server.
func (b *binder) sorry(v *virtual) {
	l := v.sorryAt
	if l == nil {
		return
	}
	a, err := netip.ParseAddr(l.Arg(0))
	if err != nil {
		b.fail(l.ArgPos(0), "", "sorry_server: %s is no IP address", quote(l.Arg(0)))
		return
	}
	port, ok := b.port(l, 1)
	if !ok {
		return
	}
	s := &model.RealServer{Addr: a, Port: port, Weight: 1, Forward: v.Forward, Tunnel: v.Tunnel}
	if v.sorryForward != nil {
		s.Forward, s.Tunnel = v.sorryForward.method, v.sorryForward.tunnel
	}
	if a.Is6() != v.v6() && s.Forward != model.TUN {
		b.fail(l.ArgPos(0), "", "sorry_server %s is not of the family of virtual server %s", a, v.Name)
		return
	}
	b.place(v, s, l.ArgPos(0), "sorry server")
	for _, r := range v.Real {
		if r.Addr == s.Addr && r.Port == s.Port {
			s.InhibitOnFailure = r.InhibitOnFailure
		}
	}
	v.Sorry = s
}

// quorum lowers quorum and hysteresis to what the real servers can reach.
func (b *binder) quorum(n *syntax.Node, v *virtual) {
	at := lineOf(n, "quorum")
	total := 0
	for _, r := range v.Real {
		total += r.Weight
	}
	if v.Quorum > total {
		if total == 0 {
			b.warn(at, "give one of them a weight", "virtual server %s: all real servers have weight 0, so none gets a connection", v.Name)
			v.Quorum = 1
		} else {
			b.warn(at, "write quorum "+itoa(total)+" or less", "virtual server %s: quorum %d is more than all real servers weigh; %d is used", v.Name, v.Quorum, total)
			v.Quorum = total
		}
	}
	if v.Hysteresis >= v.Quorum {
		b.warn(lineOf(n, "hysteresis"), "write hysteresis below quorum", "virtual server %s: hysteresis %d must be below quorum %d; %d is used", v.Name, v.Hysteresis, v.Quorum, v.Quorum-1)
		v.Hysteresis = v.Quorum - 1
	}
}
