package firewall

import (
	"fmt"
	"strings"

	"github.com/google/nftables"
)

// Describe tells everything that nftables holds, ours and others', for who looks
// into a fault: tables, chains, rules with their counters, sets.
func Describe() (string, error) {
	c, err := nftables.New()
	if err != nil {
		return "", fmt.Errorf("firewall: open nftables: %w", err)
	}
	tables, err := c.ListTables()
	if err != nil {
		return "", fmt.Errorf("firewall: list tables: %w", err)
	}
	var b strings.Builder
	for _, t := range tables {
		fmt.Fprintf(&b, "table %s family %d flags %d\n", t.Name, t.Family, t.Flags)
		sets, err := c.GetSets(t)
		if err != nil {
			return b.String(), fmt.Errorf("firewall: sets of %s: %w", t.Name, err)
		}
		for _, s := range sets {
			fmt.Fprintf(&b, "  set %s key %s map %v interval %v\n", s.Name, s.KeyType.Name, s.IsMap, s.Interval)
			elements, err := c.GetSetElements(s)
			if err != nil {
				return b.String(), fmt.Errorf("firewall: set %s: %w", s.Name, err)
			}
			for _, e := range elements {
				fmt.Fprintf(&b, "    %x %x end %v\n", e.Key, e.Val, e.IntervalEnd)
			}
		}
		chains, err := c.ListChainsOfTableFamily(t.Family)
		if err != nil {
			return b.String(), fmt.Errorf("firewall: chains: %w", err)
		}
		for _, chain := range chains {
			if chain.Table.Name != t.Name {
				continue
			}
			fmt.Fprintf(&b, "  chain %s type %q", chain.Name, chain.Type)
			if chain.Hooknum != nil && chain.Priority != nil {
				fmt.Fprintf(&b, " hook %d priority %d", *chain.Hooknum, *chain.Priority)
			}
			if chain.Policy != nil {
				fmt.Fprintf(&b, " policy %d", *chain.Policy)
			}
			b.WriteString("\n")
			rules, err := c.GetRules(t, chain)
			if err != nil {
				return b.String(), fmt.Errorf("firewall: chain %s: %w", chain.Name, err)
			}
			for _, r := range rules {
				fmt.Fprintf(&b, "    rule %d", r.Handle)
				for _, e := range r.Exprs {
					name := strings.TrimPrefix(fmt.Sprintf("%T", e), "*expr.")
					fmt.Fprintf(&b, " %s%s", name, strings.TrimPrefix(fmt.Sprintf("%+v", e), "&"))
				}
				b.WriteString("\n")
			}
		}
	}
	return b.String(), nil
}
