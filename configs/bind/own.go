package bind

import (
	"encoding/base64"
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"time"

	"ballast/configs/internal/lazy"
	"ballast/configs/model"
	"ballast/configs/schema"
	"ballast/configs/syntax"
)

var (
	hostName  = lazy.Regexp(`^[A-Za-z0-9]([A-Za-z0-9.-]{0,62}[A-Za-z0-9])?$`)
	loginName = lazy.Regexp(`^[a-z_][a-z0-9_-]{0,31}$`)
	pciName   = lazy.Regexp(`^([0-9a-f]{4}:)?[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$`)
)

// HostName reports whether s can be the name of a box.
func HostName(s string) bool { return hostName().MatchString(s) }

// LoginName reports whether s can be the name of a user.
func LoginName(s string) bool { return loginName().MatchString(s) }

// system binds the system block. Several blocks add up.
func (b *binder) system(n *syntax.Node) {
	s := &b.cfg.System
	b.each("system", n.Children, func(k *schema.Keyword, l *syntax.Node) {
		switch k.Name {
		case "host_name":
			if !HostName(l.Arg(0)) {
				b.fail(l.ArgPos(0), "letters, digits, - and . are allowed", "%s is no host name", quote(l.Arg(0)))
				return
			}
			s.HostName = l.Arg(0)
		case "login":
			b.login(l)
		case "idle_timeout":
			s.IdleTimeout = time.Duration(number(l)) * time.Second
		case "dns":
			for i, w := range l.Args() {
				a, err := netip.ParseAddr(w.Text)
				if err != nil {
					b.fail(l.ArgPos(i), "write addresses", "dns: %s is no IP address", quote(w.Text))
					continue
				}
				s.DNS = append(s.DNS, a)
			}
		case "ntp":
			for _, w := range l.Args() {
				s.NTP = append(s.NTP, w.Text)
			}
		case "syslog":
			for i, w := range l.Args() {
				if hp, ok := hostPort(w.Text, "514"); ok {
					s.Syslog = append(s.Syslog, hp)
				} else {
					b.fail(l.ArgPos(i), "write HOST or HOST:PORT", "syslog: %s is no host with a port", quote(w.Text))
				}
			}
		}
	}, nil)
}

// hostPort adds a default port.
func hostPort(s, port string) (string, bool) {
	if a, err := netip.ParseAddr(s); err == nil {
		return net.JoinHostPort(a.String(), port), true
	}
	host, p, err := net.SplitHostPort(s)
	if err != nil {
		host, p = s, port
	}
	if _, err := (schema.Arg{Min: 1, Max: 65535}).Int(p); err != nil || host == "" || strings.ContainsAny(host, "/ ") {
		return "", false
	}
	return net.JoinHostPort(host, p), true
}

func (b *binder) login(n *syntax.Node) {
	u := model.Login{Name: n.Arg(0)}
	_, twice := b.places["login/"+u.Name]
	b.places["login/"+u.Name] = n.Pos
	if !LoginName(u.Name) {
		b.fail(n.ArgPos(0), "lower-case letters, digits, - and _; a letter first", "%s is no user name", quote(u.Name))
		return
	}
	if twice {
		b.fail(n.Pos, "write its keys into one block", "login %s is defined twice", u.Name)
		return
	}
	b.each("login", n.Children, func(k *schema.Keyword, l *syntax.Node) {
		if k.Name == "role" {
			u.Role = l.Arg(0)
			return
		}
		var words []string
		for _, w := range l.Args() {
			words = append(words, strings.Fields(w.Text)...)
		}
		key := strings.Join(words, " ")
		if why := publicKey(words); why != "" {
			b.fail(l.ArgPos(0), `write key "ssh-ed25519 AAAA… NAME", one line of the .pub file`, "login %s: %s", u.Name, why)
			return
		}
		u.Keys = append(u.Keys, key)
	}, nil)
	if u.Role == "" {
		u.Role = "view"
		b.warn(n.Pos, "write role admin, operate or view", "login %s has no role; it may look only", u.Name)
	}
	b.cfg.System.Logins = append(b.cfg.System.Logins, u)
}

// PublicKey says what is wrong with a line of a .pub file; empty: nothing.
func PublicKey(line string) string {
	words := strings.Fields(line)
	if why := publicKey(words); why != "" {
		return why
	}
	blob, _ := base64.StdEncoding.DecodeString(words[1])
	fields := 0
	for ; len(blob) >= 4; fields++ { // each is its length and as many bytes
		n := uint64(binary.BigEndian.Uint32(blob)) + 4
		if n > uint64(len(blob)) {
			break
		}
		blob = blob[n:]
	}
	if len(blob) > 0 || fields < 2 {
		return "the body of the key is cut"
	}
	if strings.ContainsAny(line, "\"\\{}#!$~") { // of the comment: it could not stand in a configuration
		return "the name behind the key has characters that a configuration takes for its own: leave the name out"
	}
	return ""
}

// publicKey says what is wrong with an authorized_keys line; empty: nothing.
func publicKey(words []string) string {
	if len(words) > 0 && strings.HasPrefix(words[0], "-----BEGIN") {
		return "this is a private key or a file of another form"
	}
	if len(words) < 2 {
		return "a key has a type and a body"
	}
	blob, err := base64.StdEncoding.DecodeString(words[1])
	if err != nil {
		return "the body of the key is cut or not base64"
	}
	// RFC 4253 section 6.6: the blob starts with the type as a string.
	if len(blob) < 4 {
		return "the body of the key is too short"
	}
	n := binary.BigEndian.Uint32(blob)
	if uint64(n)+4 > uint64(len(blob)) || string(blob[4:4+n]) != words[0] {
		return "the body of the key is not of type " + quote(words[0])
	}
	return ""
}

func (b *binder) iface(n *syntax.Node) {
	i := model.Interface{Name: n.Arg(0)}
	if !b.ifname(n, 0, i.Name) {
		return
	}
	if _, twice := b.places["interface/"+i.Name]; twice {
		b.fail(n.Pos, "write one block", "interface %s has two blocks", i.Name)
		return
	}
	b.places["interface/"+i.Name] = n.Pos
	b.each("interface", n.Children, func(k *schema.Keyword, l *syntax.Node) {
		switch k.Name {
		case "mac":
			hw, err := net.ParseMAC(l.Arg(0))
			if err != nil || len(hw) != 6 {
				b.fail(l.ArgPos(0), "write six bytes, as 52:54:00:12:34:56", "%s is no MAC address", quote(l.Arg(0)))
				return
			}
			i.Match.MAC = hw.String()
			b.places["interface/"+i.Name+"/match"] = l.Pos
		case "pci":
			a := strings.ToLower(l.Arg(0))
			if !pciName().MatchString(a) {
				b.fail(l.ArgPos(0), "write it as 0000:00:02.0", "%s is no PCI address", quote(l.Arg(0)))
				return
			}
			if strings.Count(a, ":") == 1 {
				a = "0000:" + a
			}
			i.Match.PCI = a
			b.places["interface/"+i.Name+"/match"] = l.Pos
		case "address":
			for j, w := range l.Args() {
				p, err := netip.ParsePrefix(w.Text)
				if err != nil {
					b.fail(l.ArgPos(j), "write IP/LENGTH, as 192.0.2.11/24", "address: %s is no address with its length", quote(w.Text))
					continue
				}
				i.Addresses = append(i.Addresses, p)
			}
		case "dhcp":
			i.DHCP = true
		case "dhcp6":
			i.DHCP6 = true
		case "mtu":
			i.MTU = number(l)
		case "disable":
			i.Disabled = true
		case "ra":
			if truth(l) {
				i.Accept = model.RAOn
			}
		}
	}, nil)
	b.cfg.Interfaces = append(b.cfg.Interfaces, i)
}

func (b *binder) bond(n *syntax.Node) {
	v := model.Bond{Name: n.Arg(0), Mode: "active-backup", MIIMon: 100 * time.Millisecond}
	if !b.ifname(n, 0, v.Name) {
		return
	}
	b.places["bond/"+v.Name] = n.Pos
	b.each("bond", n.Children, func(k *schema.Keyword, l *syntax.Node) {
		switch k.Name {
		case "mode":
			v.Mode = l.Arg(0)
		case "member":
			for j, w := range l.Args() {
				if b.ifname(l, j, w.Text) {
					v.Members = append(v.Members, w.Text)
				}
			}
		case "miimon":
			v.MIIMon = time.Duration(number(l)) * time.Millisecond
		case "primary":
			v.Primary = l.Arg(0)
		case "xmit_hash_policy":
			v.HashPolicy = l.Arg(0)
		case "lacp_rate":
			v.LACPRate = l.Arg(0)
		}
	}, nil)
	if len(v.Members) == 0 {
		b.fail(n.Pos, "add member IF …", "bond %s has no members", v.Name)
		return
	}
	b.cfg.Bonds = append(b.cfg.Bonds, v)
}

func (b *binder) vlan(n *syntax.Node) {
	v := model.VLAN{Name: n.Arg(0)}
	if !b.ifname(n, 0, v.Name) {
		return
	}
	b.places["vlan/"+v.Name] = n.Pos
	b.each("vlan", n.Children, func(k *schema.Keyword, l *syntax.Node) {
		if k.Name == "link" {
			v.Link = l.Arg(0)
		} else {
			v.ID = number(l)
		}
	}, nil)
	if v.Link == "" || v.ID == 0 {
		if !has(n, "link") || !has(n, "id") {
			b.fail(n.Pos, "write link IF and id N", "vlan %s needs link and id", v.Name)
		}
		return
	}
	b.cfg.VLANs = append(b.cfg.VLANs, v)
}

func (b *binder) mark(n *syntax.Node) {
	m := model.Mark{Mark: uint32(number(n))}
	key := "mark/" + n.Arg(0)
	if _, twice := b.places[key]; twice {
		b.fail(n.Pos, "write its lines into one block", "mark %d has two blocks", m.Mark)
		return
	}
	b.places[key] = n.Pos
	b.each("mark", n.Children, func(k *schema.Keyword, l *syntax.Node) {
		r := model.MarkRule{Protocol: map[string]model.Protocol{"tcp": model.TCP, "udp": model.UDP, "sctp": model.SCTP}[k.Name]}
		p, ok := prefix(l.Arg(0))
		if !ok {
			b.fail(l.ArgPos(0), "write "+k.Name+" ADDRESS PORT …", "%s: %s is no IP address", k.Name, quote(l.Arg(0)))
			return
		}
		r.Dst = p.Masked()
		for i, w := range l.Args()[1:] {
			ports, ok := portRange(w.Text)
			if !ok {
				b.fail(l.ArgPos(i+1), "write PORT or FIRST-LAST, 1…65535", "%s: %s is no port and no range of ports", k.Name, quote(w.Text))
				return
			}
			r.Ports = append(r.Ports, ports)
		}
		m.Rules = append(m.Rules, r)
	}, nil)
	if len(m.Rules) == 0 {
		b.warn(n.Pos, "add tcp ADDRESS PORT …", "mark %d marks nothing", m.Mark)
		return
	}
	b.cfg.Marks = append(b.cfg.Marks, m)
}
