// Package firewall owns the nftables table "ballast": the marks that IPVS
// services of a firewall mark select by, and what may reach the box. It runs
// inside the net process, which is the only writer of nftables; it is a library
// of that service, not a service of its own.
//
// A ruleset is a plain value: Desired makes one of a configuration, Table.Dump
// reads the kernel's, and Table.Apply replaces the table in one transaction, but
// only if the two differ.
package firewall

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"ballast/configs/model"
)

// TableName is our table, of family inet. Other tables are never touched.
const TableName = "ballast"

// Hook is where a chain sees packets.
type Hook string

// Hooks.
const (
	Prerouting Hook = "prerouting" // from the network, before routing
	Input      Hook = "input"
	Forward    Hook = "forward"
	Output     Hook = "output" // from the director itself
)

// PriorityMangle is that of the chains of marks (linux/netfilter_ipv4.h). IPVS
// looks at packets in input and output at -99 and later: marks must be set before.
const PriorityMangle = -150

// Ruleset is the content of the table. No chains: no table.
type Ruleset struct {
	Chains []Chain
	Sets   []Set
}

// Chain is one base chain of type filter.
type Chain struct {
	Name     string
	Hook     Hook
	Priority int
	Drop     bool // policy; otherwise accept
	Rules    []Rule
	Entries  []Entry // of the filter, in place of Rules
}

// Rule matches packets by destination and marks or drops them. The first rule
// that matches counts.
type Rule struct {
	Do       Do
	Protocol model.Protocol
	Dst      netip.Prefix    // zero length: any of its family
	Ports    model.PortRange // of the destination; 0-65535: any
	Mark     uint32
}

var anyPort = model.PortRange{From: 0, To: 65535}

// String is the rule's identity for the operator: "tcp 192.168.100.111 8000-10000".
func (r Rule) String() string {
	dst := r.Dst.String()
	if r.Dst.IsSingleIP() {
		dst = r.Dst.Addr().String()
	}
	switch {
	case r.Ports == anyPort:
		return fmt.Sprintf("%s %s", r.Protocol, dst)
	case r.Ports.From == r.Ports.To:
		return fmt.Sprintf("%s %s %d", r.Protocol, dst, r.Ports.From)
	}
	return fmt.Sprintf("%s %s %d-%d", r.Protocol, dst, r.Ports.From, r.Ports.To)
}

// comment is what the kernel keeps with the rule, for whoever lists it.
func (r Rule) comment() string {
	switch r.Do {
	case Drop:
		return "no_accept " + r.Dst.Addr().String()
	case Neighbours:
		return "neighbour discovery"
	}
	return fmt.Sprintf("mark %d: %s", r.Mark, r)
}

// Desired turns the mark blocks into a ruleset. Marks keep the order of the
// file, since the first match counts; ports within one line are sorted and
// joined, since their order means nothing. It is pure.
func Desired(marks []model.Mark) Ruleset {
	var rules []Rule
	for _, m := range marks {
		for _, r := range m.Rules {
			for _, p := range joinPorts(r.Ports) {
				rule := Rule{Protocol: r.Protocol, Dst: r.Dst.Masked(), Ports: p, Mark: m.Mark}
				if !slices.Contains(rules, rule) {
					rules = append(rules, rule)
				}
			}
		}
	}
	if len(rules) == 0 {
		return Ruleset{}
	}
	// Output too: the director's own clients and a local FTP check go through IPVS
	// as well.
	return Ruleset{Chains: []Chain{
		{Name: "mark_output", Hook: Output, Priority: PriorityMangle, Rules: rules},
		{Name: "mark_prerouting", Hook: Prerouting, Priority: PriorityMangle, Rules: rules},
	}}
}

// joinPorts sorts ranges and joins those that touch; none means any port.
func joinPorts(in []model.PortRange) []model.PortRange {
	if len(in) == 0 {
		return []model.PortRange{anyPort}
	}
	s := slices.Clone(in)
	slices.SortFunc(s, func(a, b model.PortRange) int {
		return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To))
	})
	out := s[:1]
	for _, r := range s[1:] {
		last := &out[len(out)-1]
		if int(r.From) <= int(last.To)+1 {
			last.To = max(last.To, r.To)
		} else {
			out = append(out, r)
		}
	}
	return out
}

// maxRules bounds one ruleset: each packet that comes in walks through them.
const maxRules = 1024

// Check says whether the kernel could take the marks. It reports every fault.
func Check(marks []model.Mark) error {
	var faults []string
	n := 0
	for _, m := range marks {
		if m.Mark == 0 {
			faults = append(faults, "mark 0: 0 means no mark; use 1 to 4294967295")
		}
		for _, r := range m.Rules {
			n += max(len(r.Ports), 1)
			if r.Protocol != model.TCP && r.Protocol != model.UDP && r.Protocol != model.SCTP {
				faults = append(faults, fmt.Sprintf("mark %d: protocol %d has no ports; use tcp, udp or sctp", m.Mark, r.Protocol))
			}
			if !r.Dst.IsValid() {
				faults = append(faults, fmt.Sprintf("mark %d: a rule has no destination address", m.Mark))
			}
			for _, p := range r.Ports {
				if p.From > p.To {
					faults = append(faults, fmt.Sprintf("mark %d: ports %d-%d run backwards; write %d-%d", m.Mark, p.From, p.To, p.To, p.From))
				}
			}
		}
	}
	if n > maxRules {
		faults = append(faults, fmt.Sprintf("%d mark rules; at most %d, or give one rule a port range", n, maxRules))
	}
	if len(faults) > 0 {
		return fmt.Errorf("firewall: %s", strings.Join(faults, "; "))
	}
	return nil
}
