package bind

import (
	"slices"
	"strings"

	"ballast/configs/model"
	"ballast/configs/schema"
	"ballast/configs/syntax"
)

const (
	sshForm   = "write ssh from ADDRESS[/LENGTH] … on INTERFACE …"
	allowForm = "write allow tcp PORT … from ADDRESS[/LENGTH] … on INTERFACE …"
)

// firewall binds the appliance's firewall block.
func (b *binder) firewall(n *syntax.Node) {
	f := &b.cfg.Firewall
	b.places["firewall"] = n.Pos
	b.each("firewall", n.Children, func(k *schema.Keyword, l *syntax.Node) {
		switch k.Name {
		case "default":
			f.Accept = l.Arg(0) == "accept"
		case "log":
			f.Log = truth(l)
		case "ssh":
			if w, ok := b.whence(l, 0, sshForm); ok {
				if len(w.Sources)+len(w.Interfaces) == 0 {
					b.fail(l.Pos, sshForm, "firewall: ssh: from whom?")
					return
				}
				f.SSH = append(f.SSH, w)
			}
		case "allow":
			if a, ok := b.allow(l); ok {
				if slices.ContainsFunc(f.Allow, func(o model.FirewallAllow) bool { return sameAllow(o, a) }) {
					b.warn(l.Pos, "delete one of them", "firewall: the line allow stands there twice")
					return
				}
				f.Allow = append(f.Allow, a)
			}
		}
	}, nil)
	if f.Log && f.Accept && has(n, "log") {
		b.note(lineOf(n, "log"), "write default drop, or delete log", "firewall: nothing is dropped by default, so there is nothing to log")
	}
}

func sameAllow(a, b model.FirewallAllow) bool {
	return a.Protocol == b.Protocol && slices.Equal(a.Ports, b.Ports) && slices.Equal(a.From.Sources, b.From.Sources) && slices.Equal(a.From.Interfaces, b.From.Interfaces)
}

// allow reads allow PROTOCOL [PORT …] [from … ] [on …].
func (b *binder) allow(l *syntax.Node) (a model.FirewallAllow, ok bool) {
	word := l.Arg(0)
	p, named := model.FirewallProtocols[word]
	if !named {
		v, err := (schema.Arg{Min: 1, Max: 255}).Int(word)
		if err != nil {
			b.fail(l.ArgPos(0), allowForm, "firewall: allow: %s is no protocol", quote(word))
			return a, false
		}
		p = uint8(v)
	}
	a.Protocol = p
	i := 1
	for ; i < len(l.Args()) && l.Arg(i) != "from" && l.Arg(i) != "on"; i++ {
		if p != uint8(model.TCP) && p != uint8(model.UDP) && p != uint8(model.SCTP) {
			b.fail(l.ArgPos(i), "delete it, or write tcp, udp or sctp", "firewall: allow %s: this protocol has no ports", word)
			return a, false
		}
		r, ok := portRange(l.Arg(i))
		if !ok {
			b.fail(l.ArgPos(i), "write PORT or FIRST-LAST, 1…65535", "firewall: allow: %s is no port and no range of ports", quote(l.Arg(i)))
			return a, false
		}
		a.Ports = append(a.Ports, r)
	}
	a.From, ok = b.whence(l, i, allowForm)
	return a, ok
}

// portRange reads PORT or FIRST-LAST.
func portRange(s string) (model.PortRange, bool) {
	lo, hi, is := strings.Cut(s, "-")
	if !is {
		hi = lo
	}
	port := schema.Arg{Min: 1, Max: 65535}
	from, err1 := port.Int(lo)
	to, err2 := port.Int(hi)
	if err1 != nil || err2 != nil || to < from {
		return model.PortRange{}, false
	}
	return model.PortRange{From: uint16(from), To: uint16(to)}, true
}

// whence reads [from IP[/LEN] …] [on IF …] from argument i on.
func (b *binder) whence(l *syntax.Node, i int, form string) (w model.Whence, ok bool) {
	what, behind := "", 1
	empty := func(at model.Pos) bool {
		if behind == 0 {
			b.fail(at, form, "firewall: %s: nothing stands behind %s", l.Name(), what)
		}
		return behind == 0
	}
	for ok = true; i < len(l.Args()); i++ {
		word := l.Arg(i)
		switch behind++; {
		case word == "from" || word == "on":
			if behind--; empty(l.ArgPos(i)) {
				return w, false
			}
			what, behind = word, 0
		case what == "from":
			p, is := prefix(word)
			if !is {
				b.fail(l.ArgPos(i), form, "firewall: %s: from %s is no address and no network", l.Name(), quote(word))
				ok = false
			} else if p = p.Masked(); !slices.Contains(w.Sources, p) {
				w.Sources = append(w.Sources, p)
			}
		case what == "on":
			if !b.ifname(l, i, word) {
				ok = false
			} else if !slices.Contains(w.Interfaces, word) {
				w.Interfaces = append(w.Interfaces, word)
			}
		default:
			b.fail(l.ArgPos(i), form, "firewall: %s: unknown word %s", l.Name(), quote(word))
			return w, false
		}
	}
	return w, !empty(l.Pos) && ok
}
