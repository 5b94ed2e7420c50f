package firewall

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"ballast/configs/model"
	"ballast/services/ipc/status"
)

// Table is the edge to nftables of the calling thread's network namespace.
type Table struct{ c *nftables.Conn }

// Open makes a Table. Sockets live only as long as one call, so there is
// nothing to close.
func Open() (*Table, error) {
	c, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("firewall: open nftables: %w", err)
	}
	return &Table{c}, nil
}

// Count is how often a rule of a chain matched.
type Count struct{ Packets, Bytes uint64 }

// Held is the table as the kernel has it. Foreign is set when it holds anything
// that Apply did not write, which the next Apply replaces.
type Held struct {
	Ruleset
	Counts  map[string]map[Rule]Count // by chain
	Foreign string

	entryCounts []Count // of the filter's entries
}

// Marks sums the counters of each mark rule over the chains.
func (h Held) Marks() []status.MarkCount {
	var out []status.MarkCount
	at := map[Rule]int{}
	for _, c := range h.Chains {
		for _, r := range c.Rules {
			if r.Do != Mark {
				continue
			}
			n := h.Counts[c.Name][r]
			i, ok := at[r]
			if !ok {
				i = len(out)
				at[r] = i
				out = append(out, status.MarkCount{Mark: r.Mark, Rule: r.String()})
			}
			out[i].Packets += n.Packets
			out[i].Bytes += n.Bytes
		}
	}
	return out
}

var ours = &nftables.Table{Name: TableName, Family: nftables.TableFamilyINet}

// Dump reads the table. A table that is not there is an empty ruleset. Of the
// filter's rules it tells names and counters only.
func (t *Table) Dump() (Held, error) { return t.dump(Ruleset{}) }

// dump is Dump, in which rules of the filter that are as want has them are
// equal to those.
func (t *Table) dump(want Ruleset) (Held, error) {
	h := Held{Counts: map[string]map[Rule]Count{}}
	tables, err := t.c.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return h, fmt.Errorf("firewall: list tables: %w", err)
	}
	found := false
	for _, table := range tables {
		found = found || table.Name == TableName
	}
	if !found {
		return h, nil
	}
	chains, err := t.c.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return h, fmt.Errorf("firewall: list chains: %w", err)
	}
	for _, nc := range chains {
		if nc.Table.Name != TableName {
			continue
		}
		c, why := chainOf(nc)
		if why != "" {
			h.Foreign = why
			continue
		}
		rules, err := t.c.GetRules(ours, nc)
		if err != nil {
			return h, fmt.Errorf("firewall: list chain %s: %w", nc.Name, err)
		}
		if c.Name == filterChain {
			c.Entries, h.entryCounts = entriesOf(rules, want)
			h.Chains = append(h.Chains, c)
			continue
		}
		counts := map[Rule]Count{}
		for i, nr := range rules {
			r, n, ok := parseRule(nr.Exprs)
			if !ok {
				h.Foreign = fmt.Sprintf("rule %d of chain %s", i+1, nc.Name)
				continue
			}
			c.Rules = append(c.Rules, r)
			counts[r] = n
		}
		h.Counts[c.Name] = counts
		h.Chains = append(h.Chains, c)
	}
	if len(h.Chains) == 0 && h.Foreign == "" {
		h.Foreign = "an empty table"
	}
	return h, t.dumpSets(&h, want)
}

// dumpSets reads the sets, those first that want has, in its order.
func (t *Table) dumpSets(h *Held, want Ruleset) error {
	sets, err := t.c.GetSets(ours)
	if err != nil {
		return fmt.Errorf("firewall: list sets: %w", err)
	}
	place := func(name string) int {
		i := slices.IndexFunc(want.Sets, func(s Set) bool { return s.Name == name })
		if i < 0 {
			i = len(want.Sets)
		}
		return i
	}
	for _, n := range sets {
		es, err := t.c.GetSetElements(n)
		if err != nil {
			return fmt.Errorf("firewall: list set %s: %w", n.Name, err)
		}
		s, ok := parseSet(n, es)
		if !ok {
			h.Foreign = "set " + n.Name
			continue
		}
		slices.SortFunc(s.Addrs, netip.Addr.Compare)
		slices.Sort(s.Interfaces)
		h.Sets = append(h.Sets, s)
	}
	slices.SortStableFunc(h.Sets, func(a, b Set) int { return cmp.Compare(place(a.Name), place(b.Name)) })
	return nil
}

// entriesOf names the rules of the filter's chain. One that want has is told by
// its name, and is equal to it when the kernel has it as it should be.
func entriesOf(rules []*nftables.Rule, want Ruleset) (out []Entry, counts []Count) {
	wanted := map[string]Entry{}
	for _, c := range want.Chains {
		for _, e := range c.Entries {
			wanted[e.Name] = e
		}
	}
	for _, r := range rules {
		var n Count
		does := Logs
		for _, e := range r.Exprs {
			switch e := e.(type) {
			case *expr.Counter:
				n = Count{e.Packets, e.Bytes}
			case *expr.Verdict:
				does = Drops
				if e.Kind == expr.VerdictAccept {
					does = Accepts
				}
			}
		}
		name, _ := userdata.GetString(r.UserData, userdata.TypeComment)
		e, ok := wanted[name]
		if !ok || !sameExprs(r.Exprs, e.exprs(n)) {
			e = Entry{Name: name, Does: does}
		}
		out, counts = append(out, e), append(counts, n)
	}
	return out, counts
}

// entryCount is what the rule of a name has counted.
func (h Held) entryCount(name string) Count {
	for _, c := range h.Chains {
		for i, e := range c.Entries {
			if e.Name == name {
				return h.entryCounts[i]
			}
		}
	}
	return Count{}
}

var hooks = map[Hook]*nftables.ChainHook{
	Prerouting: nftables.ChainHookPrerouting, Input: nftables.ChainHookInput,
	Forward: nftables.ChainHookForward, Output: nftables.ChainHookOutput,
}

func chainOf(nc *nftables.Chain) (Chain, string) {
	c := Chain{Name: nc.Name}
	if nc.Hooknum == nil || nc.Priority == nil || nc.Type != nftables.ChainTypeFilter {
		return c, "chain " + nc.Name
	}
	for name, h := range hooks {
		if *h == *nc.Hooknum {
			c.Hook = name
		}
	}
	c.Priority = int(*nc.Priority)
	c.Drop = nc.Policy != nil && *nc.Policy == nftables.ChainPolicyDrop
	if c.Hook == "" {
		return c, "chain " + nc.Name
	}
	return c, ""
}

// Apply makes the kernel's table equal to want, in one transaction: packets see
// the old rules or the new ones, never none. Counters of rules that stay go on
// counting. It writes nothing when nothing differs, and tells what it did and
// what the kernel holds then.
func (t *Table) Apply(want Ruleset) (have Held, ops []string, err error) {
	have, err = t.dump(want)
	if err != nil {
		if len(want.Chains) == 0 {
			return Held{}, nil, nil // no nf_tables in this kernel, and none needed
		}
		return have, nil, err
	}
	ops = Diff(have, want)
	if len(ops) == 0 {
		return have, nil, nil
	}
	t.c.AddTable(ours) // so that the delete cannot fail; part of the same transaction
	t.c.DelTable(ours)
	if len(want.Chains) > 0 {
		table := t.c.AddTable(&nftables.Table{Name: TableName, Family: nftables.TableFamilyINet})
		ids := map[string]uint32{}
		for _, s := range want.Sets {
			ns, es := s.kernel(table)
			if err := t.c.AddSet(ns, es); err != nil {
				return have, nil, fmt.Errorf("firewall: set %s: %w", s.Name, err)
			}
			ids[s.Name] = ns.ID
		}
		for _, c := range want.Chains {
			policy := nftables.ChainPolicyAccept
			if c.Drop {
				policy = nftables.ChainPolicyDrop
			}
			nc := t.c.AddChain(&nftables.Chain{Name: c.Name, Table: table, Type: nftables.ChainTypeFilter, Hooknum: hooks[c.Hook],
				Priority: nftables.ChainPriorityRef(nftables.ChainPriority(c.Priority)), Policy: &policy})
			for _, r := range c.Rules {
				t.c.AddRule(&nftables.Rule{Table: table, Chain: nc, Exprs: exprs(r, have.Counts[c.Name][r]),
					UserData: userdata.AppendString(nil, userdata.TypeComment, r.comment())})
			}
			for _, e := range c.Entries {
				es := e.exprs(have.entryCount(e.Name))
				for _, x := range es {
					switch x := x.(type) { // made in the same transaction
					case *expr.Lookup:
						x.SetID = ids[x.SetName]
					case *expr.Dynset:
						x.SetID = ids[x.SetName]
					}
				}
				t.c.AddRule(&nftables.Rule{Table: table, Chain: nc, Exprs: es, UserData: userdata.AppendString(nil, userdata.TypeComment, e.Name)})
			}
		}
	}
	if err := t.c.Flush(); err != nil {
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.EOPNOTSUPP) {
			return have, nil, fmt.Errorf("firewall: write table %s: %w (is the module nf_tables loaded?)", TableName, err)
		}
		return have, nil, fmt.Errorf("firewall: write table %s: %w", TableName, err)
	}
	have, err = t.dump(want)
	return have, ops, err
}

// Diff lists what a replace would change, for the log; empty means equal. It is
// pure.
func Diff(have Held, want Ruleset) (ops []string) {
	if have.Foreign != "" {
		ops = append(ops, "replace table "+TableName+": not ours: "+have.Foreign)
	}
	names := map[string]bool{}
	for _, w := range want.Chains {
		names[w.Name] = true
		var h *Chain
		for i := range have.Chains {
			if have.Chains[i].Name == w.Name {
				h = &have.Chains[i]
			}
		}
		switch {
		case h == nil:
			ops = append(ops, fmt.Sprintf("add chain %s with %d rules", w.Name, len(w.Rules)+len(w.Entries)))
		case h.Hook != w.Hook || h.Priority != w.Priority || h.Drop != w.Drop:
			ops = append(ops, "change chain "+w.Name)
		case !reflect.DeepEqual(h.Rules, w.Rules):
			ops = append(ops, ruleDiff(w.Name, h.Rules, w.Rules, Rule.comment)...)
		case !reflect.DeepEqual(h.Entries, w.Entries):
			ops = append(ops, entryDiff(w.Name, h.Entries, w.Entries)...)
		}
	}
	for _, h := range have.Chains {
		if !names[h.Name] {
			ops = append(ops, "delete chain "+h.Name)
		}
	}
	return append(ops, setDiff(have.Sets, want.Sets)...)
}

func setDiff(have, want []Set) (ops []string) {
	for _, w := range want {
		i := slices.IndexFunc(have, func(h Set) bool { return h.Name == w.Name })
		if i < 0 || !slices.Equal(have[i].Addrs, w.Addrs) || !slices.Equal(have[i].Interfaces, w.Interfaces) || have[i].Clients != w.Clients || have[i].Six != w.Six {
			ops = append(ops, "set "+w.String())
		}
	}
	for _, h := range have {
		if !slices.ContainsFunc(want, func(w Set) bool { return h.Name == w.Name }) {
			ops = append(ops, "delete set "+h.Name)
		}
	}
	return ops
}

// entryDiff compares rules of the filter, which is Entries with their matches.
func entryDiff(chain string, have, want []Entry) []string {
	type text struct{ does, name, match string }
	texts := func(es []Entry) (out []text) {
		for _, e := range es {
			out = append(out, text{string(e.Does), e.Name, fmt.Sprint(e.Match, e.Second)})
		}
		return out
	}
	return ruleDiff(chain, texts(have), texts(want), func(x text) string { return x.does + " " + x.name })
}

func ruleDiff[T comparable](chain string, have, want []T, name func(T) string) (ops []string) {
	for _, w := range want {
		if !slices.Contains(have, w) {
			ops = append(ops, fmt.Sprintf("%s: add %s", chain, name(w)))
		}
	}
	for _, h := range have {
		if !slices.Contains(want, h) {
			ops = append(ops, fmt.Sprintf("%s: delete %s", chain, name(h)))
		}
	}
	if len(ops) == 0 {
		ops = []string{chain + ": put the rules in order"}
	}
	return ops
}

// exprs is a rule in the kernel's terms:
//
//	meta nfproto ipv4 meta l4proto tcp ip daddr A th dport B-C counter meta mark set N accept
//
// accept ends only this chain: the first match counts.
func exprs(r Rule, n Count) []expr.Any {
	if r.Do != Mark {
		return acceptExprs(r, n)
	}
	out := slices.Concat(familyOf(r.Dst.Addr().Is6()), proto(uint8(r.Protocol)).exprs(), address(r.Dst, destination4, destination6))
	if r.Ports != anyPort {
		out = append(out, port(r.Ports.From, r.Ports.To).exprs()...)
	}
	return append(out,
		&expr.Counter{Packets: n.Packets, Bytes: n.Bytes},
		&expr.Immediate{Register: 1, Data: binaryutil.NativeEndian.PutUint32(r.Mark)},
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1, SourceRegister: true},
		&expr.Verdict{Kind: expr.VerdictAccept},
	)
}

// parseRule is the inverse of exprs. A rule that does not come from it, or that
// somebody changed, is not ok.
func parseRule(es []expr.Any) (r Rule, n Count, ok bool) {
	if r, n, ok := parseAccept(es); ok {
		return r, n, true
	}
	r.Ports = anyPort
	var family byte
	var addr []byte
	bits := -1
	what := "" // what register 1 holds
	for _, e := range es {
		switch e := e.(type) {
		case *expr.Meta:
			if !e.SourceRegister {
				what = map[expr.MetaKey]string{expr.MetaKeyNFPROTO: "family", expr.MetaKeyL4PROTO: "protocol"}[e.Key]
			}
		case *expr.Payload:
			switch {
			case e.Base == expr.PayloadBaseNetworkHeader:
				what = "daddr"
			case e.Base == expr.PayloadBaseTransportHeader:
				what = "dport"
			}
		case *expr.Bitwise:
			bits = 0
			for _, b := range e.Mask {
				for ; b&0x80 != 0; b <<= 1 {
					bits++
				}
			}
		case *expr.Cmp:
			switch {
			case what == "family" && len(e.Data) == 1:
				family = e.Data[0]
			case what == "protocol" && len(e.Data) == 1:
				r.Protocol = model.Protocol(e.Data[0])
			case what == "daddr":
				addr = e.Data
			case what == "dport" && len(e.Data) == 2:
				p := binary.BigEndian.Uint16(e.Data)
				if e.Op != expr.CmpOpLte {
					r.Ports.From = p
				}
				if e.Op != expr.CmpOpGte {
					r.Ports.To = p
				}
			}
		case *expr.Counter:
			n = Count{e.Packets, e.Bytes}
		case *expr.Immediate:
			if len(e.Data) == 4 {
				r.Mark = binary.NativeEndian.Uint32(e.Data)
			}
		case *expr.Verdict:
		default:
			return r, n, false
		}
	}
	ip := netip.IPv4Unspecified()
	if family == unix.NFPROTO_IPV6 {
		ip = netip.IPv6Unspecified()
	}
	if addr == nil {
		bits = 0
	} else if a, valid := netip.AddrFromSlice(addr); valid && a.Is4() == (family == unix.NFPROTO_IPV4) {
		ip = a
		if bits < 0 {
			bits = a.BitLen()
		}
	} else {
		return r, n, false
	}
	if bits > ip.BitLen() {
		return r, n, false
	}
	r.Dst = netip.PrefixFrom(ip, bits)
	// Whatever the reading above took lightly shows when the rule is built again.
	return r, n, sameExprs(es, exprs(r, n))
}

func sameExprs(a, b []expr.Any) bool {
	// The library leaves socket expressions out when it reads rules.
	asks := func(e expr.Any) bool { _, is := e.(*expr.Socket); return is }
	a, b = slices.DeleteFunc(slices.Clone(a), asks), slices.DeleteFunc(slices.Clone(b), asks)
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if x, is := a[i].(*expr.Lookup); is {
			if y, is := b[i].(*expr.Lookup); is && x.SetName == y.SetName && x.SourceRegister == y.SourceRegister && x.Invert == y.Invert && !x.IsDestRegSet {
				continue // the number that the set had in its transaction is no matter
			}
			return false
		}
		if x, is := a[i].(*expr.Dynset); is {
			if y, is := b[i].(*expr.Dynset); is && x.SetName == y.SetName && x.SrcRegKey == y.SrcRegKey && x.Operation == y.Operation {
				continue
			}
			return false
		}
		if reflect.TypeOf(a[i]) != reflect.TypeOf(b[i]) || !strings.EqualFold(fmt.Sprintf("%+v", a[i]), fmt.Sprintf("%+v", b[i])) {
			return false
		}
	}
	return true
}
