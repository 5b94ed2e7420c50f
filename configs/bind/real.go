package bind

import (
	"net/netip"
	"slices"

	"ballast/configs/model"
	"ballast/configs/schema"
	"ballast/configs/syntax"
)

// realServer binds one real_server block.
func (b *binder) realServer(v *virtual, n *syntax.Node) {
	r := model.RealServer{Weight: v.weight, Forward: v.Forward, Tunnel: v.Tunnel, InhibitOnFailure: v.inhibit}
	a, err := netip.ParseAddr(n.Arg(0))
	good := err == nil && a.Zone() == ""
	if !good {
		b.fail(n.ArgPos(0), "write real_server ADDRESS PORT", "real_server: %s is no IP address", quote(n.Arg(0)))
	}
	r.Addr = a
	r.Port, _ = b.port(n, 1)
	own, mail, host := unset(), model.Unset, v.host
	var checks []*syntax.Node
	var planned []*syntax.Node // kinds that this release does not run
	b.each("real_server", n.Children, func(k *schema.Keyword, l *syntax.Node) {
		switch k.Name {
		case "alpha":
			// The row stands for six words, each with the arguments it has in virtual_server.
			if b.check(schema.Lookup("virtual_server", l.Name()), l) {
				own.take(l)
			}
		case "weight":
			r.Weight = number(l)
		case "lvs_method":
			if f, ok := b.forward(l, 0); ok {
				r.Forward, r.Tunnel = f.method, f.tunnel
			}
			if l.Name() == "lb_kind" {
				b.mapped(l, "read as lvs_method")
				b.note(l.Pos, "write lvs_method", "lb_kind in a real_server is read as lvs_method; keepalived ignores it")
			}
		case "inhibit_on_failure":
			r.InhibitOnFailure = truth(l)
		case "notify_up":
			r.NotifyUp = b.command(l, false)
		case "notify_down":
			r.NotifyDown = b.command(l, false)
		case "uthreshold":
			r.UThreshold = uint32(number(l))
		case "lthreshold":
			r.LThreshold = uint32(number(l))
		case "smtp_alert":
			mail = tristate(l)
		case "virtualhost":
			host = l.Arg(0)
		case "snmp_name":
			r.SNMPName = l.Arg(0)
		case "through_vip":
			own.through = tristate(l)
		default:
			if k.Opens != "" {
				checks = append(checks, l)
				if b.planned > 0 {
					planned = append(planned, l)
				}
			}
		}
	}, nil)
	if !good {
		return
	}
	r.SMTPAlert = pick(true, mail, b.cfg.Global.SMTPAlertChecker, b.cfg.Global.SMTPAlert)
	if id := v.Services[0]; id.Mark == 0 && a.Is6() != id.Addr.Is6() && r.Forward != model.TUN {
		b.fail(n.ArgPos(0), "only lb_kind TUN crosses families", "real server %s is not of the family of virtual server %s", a, v.Name)
		return
	}
	b.place(v, &r, n.ArgPos(1), "real server")
	if v.listed(&r) {
		b.warn(n.Pos, "delete one of them", "virtual server %s: real server %s port %d is listed twice; the second is ignored, as keepalived does", v.Name, r.Addr, r.Port)
		return
	}
	v.Real = append(v.Real, r)
	real := &v.Real[len(v.Real)-1]
	b.stands(v, real, "", n.Pos)
	for _, l := range n.Children {
		if l.Name() == "notify_up" || l.Name() == "notify_down" {
			b.stands(v, real, l.Name(), l.Pos)
		}
	}
	settings := own.under(v.inherited)
	for _, l := range checks {
		p := probe{binder: b, v: v, r: real, host: host}
		later := slices.Contains(planned, l)
		if later {
			b.planned++
		}
		real.Checks = append(real.Checks, p.bind(l, settings)...)
		if later {
			b.planned--
		}
	}
}

// few real servers are gone through, one after the other.
const few = 16

// listed says whether a real server is there already, and takes note of it.
func (v *virtual) listed(r *model.RealServer) bool {
	if len(v.Real) < few {
		return slices.ContainsFunc(v.Real, func(x model.RealServer) bool { return x.Addr == r.Addr && x.Port == r.Port })
	}
	if v.seen == nil {
		v.seen = make(map[netip.AddrPort]bool, len(v.real))
		for i := range v.Real {
			v.seen[netip.AddrPortFrom(v.Real[i].Addr, v.Real[i].Port)] = true
		}
	}
	id := netip.AddrPortFrom(r.Addr, r.Port)
	was := v.seen[id]
	v.seen[id] = true
	return was
}
