package filter

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// qualifier is what stands before a value: protocol, direction, kind.
type qualifier struct {
	proto, dir, kind string
}

type parser struct {
	toks  []token
	pos   int
	end   int       // of the text
	last  qualifier // for a value that stands alone: "port 80 or 443"
	depth int
}

// parse reads an expression; nil: it is empty.
func parse(s string) (node, error) {
	if len(s) > longest {
		return nil, fmt.Errorf("filter: it is longer than %d bytes", longest)
	}
	toks, err := tokens(s)
	if err != nil || len(toks) == 0 {
		return nil, err
	}
	p := &parser{toks: toks, end: len(s)}
	e, err := p.expr()
	if err != nil {
		return nil, err
	}
	if p.pos < len(p.toks) {
		return nil, p.wrong("\"and\", \"or\" or the end")
	}
	return e, nil
}

func (p *parser) peek() string { return p.ahead(0) }

func (p *parser) ahead(n int) string {
	if p.pos+n < len(p.toks) {
		return p.toks[p.pos+n].text
	}
	return ""
}

func (p *parser) take(texts ...string) bool {
	if p.pos < len(p.toks) && slices.Contains(texts, p.peek()) {
		p.pos++
		return true
	}
	return false
}

// wrong is the error of what stands at this place.
func (p *parser) wrong(want string) error {
	if p.pos >= len(p.toks) {
		return fmt.Errorf("filter: it ends where %s is wanted", want)
	}
	return fmt.Errorf("filter: %q at %d: want %s", p.peek(), p.toks[p.pos].at+1, want)
}

// expr is terms with "and" and "or" between them, which bind alike, from the
// left (pcap-filter(7)).
func (p *parser) expr() (node, error) {
	if p.depth++; p.depth > 50 {
		return nil, fmt.Errorf("filter: parentheses are too deep")
	}
	defer func() { p.depth-- }()
	left, err := p.term()
	if err != nil {
		return nil, err
	}
	for {
		and := p.take("and", "&&")
		if !and && !p.take("or", "||") {
			return left, nil
		}
		right, err := p.term()
		if err != nil {
			return nil, err
		}
		left = &logic{and: and, a: left, b: right}
	}
}

func (p *parser) term() (node, error) {
	not := false
	for p.take("not", "!") {
		not = !not
	}
	e, err := p.plain()
	if err == nil && not {
		e = negate(e)
	}
	return e, err
}

var (
	protos = []string{"ether", "ip", "ip6", "arp", "rarp", "tcp", "udp", "sctp", "icmp", "icmp6", "igmp", "pim", "vrrp", "ah", "esp", "gre"}
	kinds  = []string{"host", "net", "port", "portrange", "proto"}
	dirs   = []string{"src", "dst"}
)

const wanted = "a filter such as \"tcp port 80\", \"host 192.0.2.1\", \"vrrp\" or \"not arp\""

// plain is one test, or an expression in parentheses.
func (p *parser) plain() (node, error) {
	if p.pos >= len(p.toks) {
		return nil, p.wrong(wanted)
	}
	switch t := p.peek(); {
	case t == "len", slices.Contains(protos, t) && p.ahead(1) == "[":
		return p.relation()
	case t == "(":
		p.pos++
		e, err := p.expr()
		if err != nil {
			return nil, err
		}
		if !p.take(")") {
			return nil, p.wrong("\")\"")
		}
		return e, nil
	case t == "less" || t == "greater":
		p.pos++
		n, err := p.number()
		if err != nil {
			return nil, err
		}
		op := "<="
		if t == "greater" {
			op = ">="
		}
		return &compare{value: length{}, op: op, n: n}, nil
	case t == "inbound" || t == "outbound":
		p.pos++
		return &direction{out: t == "outbound"}, nil
	case t == "vlan":
		p.pos++
		id, err := p.number()
		if err != nil {
			return &vlan{any: true}, nil
		}
		if id > 4095 {
			return nil, fmt.Errorf("filter: vlan %d: want 0 to 4095", id)
		}
		return &vlan{id: id}, nil
	case t == "broadcast" || t == "multicast":
		p.pos++
		return cast("ether", t), nil
	case !p.toks[p.pos].word:
		return nil, p.wrong(wanted)
	}
	return p.primitive()
}

// primitive is [PROTOCOL] [DIRECTION] [KIND] VALUE, or a protocol alone.
func (p *parser) primitive() (node, error) {
	var q qualifier
	start := p.pos
	if t := p.peek(); slices.Contains(protos, t) {
		q.proto = t
		p.pos++
		if next := p.peek(); next == "broadcast" || next == "multicast" {
			if q.proto != "ether" && q.proto != "ip6" && (q.proto != "ip" || next == "broadcast") || q.proto == "ip6" && next == "broadcast" {
				return nil, p.wrong("\"ether broadcast\", \"ether multicast\", \"ip multicast\" or \"ip6 multicast\"")
			}
			p.pos++
			return cast(q.proto, next), nil
		}
	}
	if slices.Contains(dirs, p.peek()) {
		q.dir = p.peek()
		p.pos++
		if op, to := p.ahead(0), p.ahead(1); (op == "or" || op == "and") && (to == "dst" || to == "src") && to != q.dir {
			q.dir = "src " + op + " dst"
			p.pos += 2
		}
	}
	if slices.Contains(kinds, p.peek()) {
		q.kind = p.peek()
		p.pos++
	}
	switch {
	case p.pos == start: // a value alone
		if q = p.last; q == (qualifier{}) {
			q.kind = "host"
			if _, err := netip.ParseAddr(p.peek()); err != nil && !strings.Contains(p.peek(), "/") {
				return nil, p.wrong(wanted)
			}
		}
	case q.dir == "" && q.kind == "" && !p.value():
		return protocol(q.proto)
	}
	p.last = q
	if p.take("(") {
		e, err := p.values(q)
		if err == nil && !p.take(")") {
			err = p.wrong("\")\"")
		}
		return e, err
	}
	if p.pos >= len(p.toks) || !p.toks[p.pos].word {
		return nil, p.wrong("the value of \"" + strings.Join(strings.Fields(q.proto+" "+q.dir+" "+q.kind), " ") + "\"")
	}
	return p.qualified(q)
}

// value reports whether a value of a host comes next, behind a protocol.
func (p *parser) value() bool {
	t := p.peek()
	if _, err := netip.ParseAddr(t); err == nil {
		return true
	}
	if _, err := net.ParseMAC(t); err == nil {
		return true
	}
	return strings.Contains(t, "/")
}

// values are several of them in parentheses.
func (p *parser) values(q qualifier) (left node, err error) {
	for and := false; ; {
		not := p.take("not", "!")
		if p.pos >= len(p.toks) || !p.toks[p.pos].word {
			return nil, p.wrong("a value")
		}
		e, err := p.qualified(q)
		if err != nil {
			return nil, err
		}
		if not {
			e = negate(e)
		}
		if left == nil {
			left = e
		} else {
			left = &logic{and: and, a: left, b: e}
		}
		and = p.take("and", "&&")
		if !and && !p.take("or", "||") {
			return left, nil
		}
	}
}

// qualified is the test for one value.
func (p *parser) qualified(q qualifier) (node, error) {
	t := p.peek()
	at := p.toks[p.pos].at + 1
	p.pos++
	fail := func(format string, a ...any) (node, error) {
		return nil, fmt.Errorf("filter: %q at %d: %s", t, at, fmt.Sprintf(format, a...))
	}
	if q.dir == "" {
		q.dir = "src or dst"
	}
	if q.proto == "ether" && (q.kind == "" || q.kind == "host") {
		mac, err := net.ParseMAC(t)
		if err != nil || len(mac) != 6 {
			return fail("want a MAC address such as 02:00:5e:10:00:01")
		}
		return sides(q.dir, func(src bool) node { return etherHost([6]byte(mac), src) }), nil
	}
	switch q.kind {
	case "host", "net", "":
		if q.kind == "net" && p.take("mask") {
			m, err := netip.ParseAddr(p.peek())
			a, err2 := netip.ParseAddr(t)
			if err != nil || err2 != nil || !m.Is4() || !a.Is4() {
				return fail("want ADDRESS mask NETMASK of IPv4")
			}
			p.pos++
			b := m.As4()
			ones, bits := net.IPMask(b[:]).Size()
			if bits == 0 {
				return fail("%s is no netmask", m)
			}
			t = netip.PrefixFrom(a, ones).String()
		}
		pre, err := prefix(t, q.kind == "net")
		switch {
		case err != nil:
			return fail("%v", err)
		case q.kind == "host" && !pre.IsSingleIP():
			return fail("this is a net: write net %s", t)
		case pre.Masked() != pre:
			return fail("bits behind the prefix are set; write %s", pre.Masked())
		}
		return hostNet(q, pre, fail)
	case "port", "portrange":
		lo, hi, err := ports(t, q.kind == "portrange")
		if err != nil {
			return fail("%v", err)
		}
		switch q.proto {
		case "", "tcp", "udp", "sctp", "ip", "ip6":
		default:
			return fail("%s has no ports", q.proto)
		}
		return portNode(q, lo, hi), nil
	case "proto":
		return protoNode(q, t, fail)
	}
	return fail("want %s", wanted)
}

// prefix reads an address or a net; short is "10.1" for 10.1.0.0/16.
func prefix(s string, short bool) (netip.Prefix, error) {
	if strings.Contains(s, "/") {
		addr, bits, _ := strings.Cut(s, "/")
		if n := strings.Count(addr, "."); short && n < 3 && !strings.Contains(addr, ":") {
			s = addr + strings.Repeat(".0", 3-n) + "/" + bits
		}
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return p, fmt.Errorf("want a net such as 192.0.2.0/24")
		}
		return p, nil
	}
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	if n := strings.Count(s, "."); short && n < 3 {
		if a, err := netip.ParseAddr(s + strings.Repeat(".0", 3-n)); err == nil {
			return netip.PrefixFrom(a, 8*(n+1)), nil
		}
	}
	return netip.Prefix{}, fmt.Errorf("want an IP address: names are not looked up")
}

// portNames are those that people write.
var portNames = map[string]uint32{"ftp": 21, "ssh": 22, "telnet": 23, "smtp": 25, "domain": 53, "bootps": 67, "bootpc": 68, "tftp": 69, "http": 80, "ntp": 123,
	"snmp": 161, "snmptrap": 162, "https": 443, "syslog": 514, "bfd-control": 3784, "bfd-multi-ctl": 4784, "ipvs-sync": 8848}

func ports(s string, isRange bool) (lo, hi uint32, err error) {
	a, b, two := strings.Cut(s, "-")
	if n, ok := portNames[s]; ok && !isRange {
		return n, n, nil
	}
	if !two || !isRange {
		a, b = s, s
	}
	x, err1 := strconv.ParseUint(a, 10, 16)
	y, err2 := strconv.ParseUint(b, 10, 16)
	switch {
	case err1 == nil && err2 == nil:
		return uint32(min(x, y)), uint32(max(x, y)), nil
	case isRange:
		return 0, 0, fmt.Errorf("want two ports, such as 8000-8080")
	}
	return 0, 0, fmt.Errorf("want a port, 0 to 65535")
}

func (p *parser) number() (uint32, error) {
	if p.pos >= len(p.toks) {
		return 0, p.wrong("a number")
	}
	n, err := strconv.ParseUint(p.peek(), 0, 32)
	if err != nil {
		return 0, p.wrong("a number")
	}
	p.pos++
	return uint32(n), nil
}
