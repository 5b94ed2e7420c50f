package firewall

import (
	"net/netip"
	"slices"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"ballast/configs/model"
	"ballast/services/ipc/status"
)

// PriorityNoAccept is behind IPVS, which takes its packets out of input at
// NF_IP_PRI_NAT_SRC - 2 and - 1, 98 and 99 (linux/netfilter_ipv4.h): what is
// left for a virtual address there is meant for the box itself.
const PriorityNoAccept = 110

const noAcceptChain = "no_accept"

// Do is what a rule does with a packet.
type Do string

// What rules do.
const (
	Mark       Do = ""           // set the mark
	Drop       Do = "drop"       // to the destination, whatever it carries
	Neighbours Do = "neighbours" // IPv6 neighbour solicitations and advertisements pass
)

// NoAccept adds the chain of no_accept: the box does not answer on the virtual
// addresses of such instances, and goes on balancing them. The address owner
// (priority 255) accepts in any case (RFC 9568 section 6.1). ARP is no matter
// of this chain; neighbour discovery goes to the address itself when a
// neighbour checks its entry, so it passes. It is pure.
func NoAccept(rs Ruleset, instances []model.Instance) Ruleset {
	var rules []Rule
	six := false
	for i := range instances {
		c := &instances[i]
		if !c.NoAccept || c.Priority == 255 {
			continue
		}
		for _, v := range slices.Concat(c.VIPs, c.ExcludedVIPs) {
			a := v.Prefix.Addr()
			six = six || a.Is6()
			if r := (Rule{Do: Drop, Dst: netip.PrefixFrom(a, a.BitLen())}); !slices.Contains(rules, r) {
				rules = append(rules, r)
			}
		}
	}
	if len(rules) == 0 {
		return rs
	}
	if six {
		rules = slices.Insert(rules, 0, Rule{Do: Neighbours})
	}
	rs.Chains = append(slices.Clone(rs.Chains), Chain{Name: noAcceptChain, Hook: Input, Priority: PriorityNoAccept, Rules: rules})
	return rs
}

// NoAccepts are the addresses that the box itself does not answer on, with what
// was dropped for them.
func (h Held) NoAccepts() []status.NoAccept {
	var out []status.NoAccept
	for _, c := range h.Chains {
		for _, r := range c.Rules {
			if r.Do == Drop {
				n := h.Counts[c.Name][r]
				out = append(out, status.NoAccept{Addr: r.Dst.Addr(), Packets: n.Packets, Bytes: n.Bytes})
			}
		}
	}
	return out
}

// ICMPv6 types of RFC 4861.
const (
	neighbourSolicitation  = 135
	neighbourAdvertisement = 136
)

// acceptExprs are the rules of the no_accept chain in the kernel's terms:
//
//	meta nfproto ipv6 meta l4proto ipv6-icmp icmpv6 type 135-136 counter accept
//	meta nfproto ipv4 ip daddr A counter drop
func acceptExprs(r Rule, n Count) []expr.Any {
	ms, verdict := []Match{destination(r.Dst.Addr())}, expr.VerdictDrop
	if r.Do == Neighbours {
		ms, verdict = []Match{family(true), proto(unix.IPPROTO_ICMPV6), icmpType(neighbourSolicitation, neighbourAdvertisement)}, expr.VerdictAccept
	}
	var out []expr.Any
	for _, m := range ms {
		out = append(out, m.exprs()...)
	}
	return append(out, &expr.Counter{Packets: n.Packets, Bytes: n.Bytes}, &expr.Verdict{Kind: verdict})
}

// parseAccept is the inverse of acceptExprs.
func parseAccept(es []expr.Any) (r Rule, n Count, ok bool) {
	r.Do = Neighbours
	for _, e := range es {
		switch e := e.(type) {
		case *expr.Counter:
			n = Count{e.Packets, e.Bytes}
		case *expr.Cmp:
			if a, valid := netip.AddrFromSlice(e.Data); valid {
				r.Dst = netip.PrefixFrom(a, a.BitLen())
			}
		case *expr.Verdict:
			if e.Kind == expr.VerdictDrop {
				r.Do = Drop
			}
		}
	}
	if r.Do == Drop && !r.Dst.IsValid() {
		return r, n, false
	}
	if r.Do == Neighbours {
		r.Dst = netip.Prefix{}
	}
	return r, n, sameExprs(es, acceptExprs(r, n))
}
