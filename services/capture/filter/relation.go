package filter

import (
	"fmt"
	"slices"
)

// names are the numbers that have one.
var names = map[string]uint32{
	"tcpflags": 13, "icmptype": 0, "icmpcode": 1, "icmp6type": 0, "icmp6code": 1,
	"tcp-fin": 1, "tcp-syn": 2, "tcp-rst": 4, "tcp-push": 8, "tcp-ack": 16, "tcp-urg": 32, "tcp-ece": 64, "tcp-cwr": 128,
	"icmp-echoreply": 0, "icmp-unreach": 3, "icmp-sourcequench": 4, "icmp-redirect": 5, "icmp-echo": 8, "icmp-routeradvert": 9, "icmp-routersolicit": 10,
	"icmp-timxceed": 11, "icmp-paramprob": 12, "icmp-tstamp": 13, "icmp-tstampreply": 14,
	"icmp6-destinationunreach": 1, "icmp6-packettoobig": 2, "icmp6-timeexceeded": 3, "icmp6-parameterproblem": 4, "icmp6-echo": 128, "icmp6-echoreply": 129,
	"icmp6-routersolicit": 133, "icmp6-routeradvert": 134, "icmp6-neighborsolicit": 135, "icmp6-neighboradvert": 136, "icmp6-redirect": 137,
}

var relops = []string{"=", "==", "!=", "<", ">", "<=", ">="}

// relation is VALUE [OPERATOR NUMBER]… RELATION NUMBER, where VALUE is the
// length or bytes of a header.
func (p *parser) relation() (node, error) {
	var v value = length{}
	if p.peek() != "len" {
		proto := p.peek()
		p.pos += 2
		off, err := p.constant()
		if err != nil {
			return nil, err
		}
		size := uint32(1)
		if p.take(":") {
			if size, err = p.number(); err != nil {
				return nil, err
			}
		}
		if !p.take("]") {
			return nil, p.wrong("\"]\"")
		}
		if size != 1 && size != 2 && size != 4 {
			return nil, fmt.Errorf("filter: %s[%d:%d]: want 1, 2 or 4 bytes", proto, off, size)
		}
		if off > Snap {
			return nil, fmt.Errorf("filter: %s[%d]: no packet is that long", proto, off)
		}
		if v, err = header(proto, off, int(size)); err != nil {
			return nil, err
		}
	} else {
		p.pos++
	}
	c := &compare{value: v}
	for p.pos < len(p.toks) && slices.Contains([]string{"&", "|", "+", "-", "*", "<<", ">>"}, p.peek()) {
		op := p.peek()
		p.pos++
		n, err := p.operand()
		if err != nil {
			return nil, err
		}
		if (op == "<<" || op == ">>") && n > 31 {
			return nil, fmt.Errorf("filter: %s %d: a number has 32 bits", op, n)
		}
		c.ops = append(c.ops, operation{op, n})
	}
	if !slices.Contains(relops, p.peek()) {
		return nil, p.wrong("=, !=, <, >, <= or >=")
	}
	c.op = p.peek()
	p.pos++
	var err error
	c.n, err = p.constant()
	return c, err
}

// constant is numbers with signs between them.
func (p *parser) constant() (uint32, error) {
	n, err := p.operand()
	for err == nil {
		var m uint32
		switch {
		case p.take("|"):
			m, err = p.operand()
			n |= m
		case p.take("&"):
			m, err = p.operand()
			n &= m
		case p.take("+"):
			m, err = p.operand()
			n += m
		default:
			return n, nil
		}
	}
	return 0, err
}

func (p *parser) operand() (uint32, error) {
	if p.take("(") {
		if p.depth++; p.depth > 50 {
			return 0, fmt.Errorf("filter: parentheses are too deep")
		}
		defer func() { p.depth-- }()
		n, err := p.constant()
		if err == nil && !p.take(")") {
			err = p.wrong("\")\"")
		}
		return n, err
	}
	if n, ok := names[p.peek()]; ok {
		p.pos++
		return n, nil
	}
	return p.number()
}
