package bind

import (
	"encoding/hex"
	"net/netip"
	"slices"
	"strings"
	"time"

	"ballast/configs/model"
	"ballast/configs/schema"
	"ballast/configs/syntax"
)

// secret reads a key: hex:DIGITS, or the word as it stands. No message shows it.
func (b *binder) secret(n *syntax.Node, arg int, what string, least, most int) []byte {
	text := n.Arg(arg)
	key := []byte(text)
	if digits, is := strings.CutPrefix(text, "hex:"); is {
		var err error
		if key, err = hex.DecodeString(digits); err != nil {
			b.fail(n.ArgPos(arg), "write an even number of digits 0-9 and a-f behind hex:", "%s: what follows hex: is not hexadecimal", what)
			return nil
		}
	}
	if len(key) < least || len(key) > most {
		b.fail(n.ArgPos(arg), "make one with: openssl rand -hex "+itoa(max(32, least))+", and write hex: before it",
			"%s: the key has %d bytes; %d…%d are needed", what, len(key), least, most)
		return nil
	}
	return key
}

// heartbeat binds the appliance's heartbeat block.
func (b *binder) heartbeat(n *syntax.Node) {
	h := &model.Heartbeat{Interval: 10 * time.Millisecond, Multiplier: 3, Port: 1912}
	if b.cfg.Heartbeat != nil {
		b.fail(n.Pos, "write one block", "there are two heartbeat blocks")
		return
	}
	b.places["heartbeat"] = n.Pos
	b.each("heartbeat", n.Children, func(k *schema.Keyword, l *syntax.Node) {
		switch k.Name {
		case "peer":
			if p, ok := b.heartbeatPath(l); ok {
				if slices.Contains(h.Paths, p) {
					b.warn(l.Pos, "delete one of them", "heartbeat: peer %s is listed twice", p.Peer)
					return
				}
				b.places["heartbeat/"+p.Peer.String()] = l.Pos
				h.Paths = append(h.Paths, p)
			}
		case "key":
			h.Key = b.secret(l, 0, "heartbeat", 16, 64)
		case "interval":
			h.Interval = time.Duration(number(l)) * time.Millisecond
		case "multiplier":
			h.Multiplier = number(l)
		case "port":
			h.Port = uint16(number(l))
		}
	}, nil)
	switch {
	case len(h.Paths) == 0 && !has(n, "peer"):
		b.fail(n.Pos, "add peer ADDRESS [from ADDRESS] [dev IF]", "the heartbeat has no peer")
	case !has(n, "key"):
		b.fail(n.Pos, "add key hex:… (openssl rand -hex 32), the same on both boxes", "the heartbeat has no key")
	}
	b.cfg.Heartbeat = h
}

// heartbeatPath reads peer IP [from IP] [dev IF].
func (b *binder) heartbeatPath(l *syntax.Node) (p model.HeartbeatPath, ok bool) {
	const form = "write peer ADDRESS [from ADDRESS] [dev IF]"
	p.Peer, _ = schema.Addr(l.Arg(0))
	if p.Peer.IsMulticast() || p.Peer.IsUnspecified() {
		b.fail(l.ArgPos(0), "name the other box", "heartbeat: %s is no address of a box", p.Peer)
		return p, false
	}
	args := l.Args()
	for i := 1; i < len(args); i++ {
		value := l.Arg(i + 1)
		switch args[i].Text {
		case "from":
			a, err := schema.Addr(value)
			if err != nil || a.Is6() != p.Peer.Is6() {
				b.fail(l.ArgPos(i+1), form, "heartbeat: from %s is no address of the peer's family", quote(value))
				return p, false
			}
			p.From = a
		case "dev":
			if !b.ifname(l, i+1, value) {
				return p, false
			}
			p.Interface = value
		default:
			b.fail(l.ArgPos(i), form, "heartbeat: unknown word %s", quote(args[i].Text))
			return p, false
		}
		i++
	}
	if p.Peer.IsLinkLocalUnicast() && p.Peer.Is6() && p.Interface == "" {
		b.fail(l.ArgPos(0), "add dev IF", "heartbeat: the link-local peer %s needs an interface", p.Peer)
		return p, false
	}
	return p, true
}

// snmp binds the appliance's snmp block.
func (b *binder) snmp(n *syntax.Node) {
	s := &b.cfg.Global.SNMP
	b.places["snmp"] = n.Pos
	at := func(l *syntax.Node, port uint16) (netip.AddrPort, bool) {
		a, err := netip.ParseAddr(l.Arg(0))
		if err != nil {
			b.fail(l.ArgPos(0), "write "+l.Name()+" ADDRESS [PORT]", "snmp: %s: %s is no IP address", l.Name(), quote(l.Arg(0)))
			return netip.AddrPort{}, false
		}
		if l.Arg(1) != "" {
			port = uint16(numberAt(l, 1))
		}
		return netip.AddrPortFrom(a, port), true
	}
	b.each("snmp", n.Children, func(k *schema.Keyword, l *syntax.Node) {
		switch k.Name {
		case "listen":
			if a, ok := at(l, 161); ok && !slices.Contains(s.Listen, a) {
				s.Listen = append(s.Listen, a)
			}
		case "community":
			s.Community = l.Arg(0)
		case "trap_sink":
			if a, ok := at(l, 162); ok && !slices.Contains(s.TrapSinks, a) {
				s.TrapSinks = append(s.TrapSinks, a)
			}
		case "client":
			for i, w := range l.Args() {
				p, ok := prefix(w.Text)
				if !ok {
					b.fail(l.ArgPos(i), "write client ADDRESS[/LENGTH] …", "snmp: client %s is no address and no network", quote(w.Text))
					continue
				}
				s.Clients = append(s.Clients, p.Masked())
			}
		}
	}, nil)
	// A line with a fault counts as well: all faults are told at once. A
	// community line without a word has been told of.
	wants := func(l *syntax.Node) bool { return l.Name() == "listen" || l.Name() == "trap_sink" }
	bare := func(l *syntax.Node) bool { return l.Name() == "community" && len(l.Args()) == 0 }
	if s.Community == "" && slices.ContainsFunc(n.Children, wants) && !slices.ContainsFunc(n.Children, bare) {
		b.fail(n.Pos, "add community WORD", "the snmp block has no community")
	}
}

// numberAt reads a further argument that check has judged already.
func numberAt(n *syntax.Node, i int) int {
	v, _ := schema.Arg{Min: -1 << 31, Max: 1 << 62}.Int(n.Arg(i))
	return int(v)
}
