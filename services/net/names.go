package net

import (
	"fmt"
	"slices"
	"strings"
)

// pick returns the NIC that a match means, or nil. Bonds, VLANs and bridges
// carry the address of a member, so only links that are no such thing count. The
// permanent address goes before the current one, which changes in a bond.
func pick(links []Link, n Naming) *Link {
	var best *Link
	for i := range links {
		l := &links[i]
		switch l.Kind {
		case "bond", "vlan", "bridge", "loopback", "macvlan":
			continue
		}
		switch {
		case n.Match.MAC != "":
			if l.PermMAC != n.Match.MAC && (l.PermMAC != "" || l.MAC != n.Match.MAC) {
				continue
			}
		case n.Match.PCI != "":
			// A card with two ports on one function (mlx4) has the same path twice.
			if l.PCI != n.Match.PCI {
				continue
			}
		default:
			continue
		}
		if best == nil || l.Name == n.Name || best.Name != n.Name && l.Index < best.Index {
			best = l
		}
	}
	return best
}

// maxName is the longest interface name (IFNAMSIZ less the final zero).
const maxName = 15

// Renames plans how NICs get their configured names: pure, in an order in which
// each step is possible. A NIC that sits on a wanted name goes to a passing name
// first; at the end it takes the name that was left free, so that two NICs
// swap. A crash between two steps is harmless: NICs are found by address or
// path again, never by the passing name.
func Renames(links []Link, names []Naming) []Rename {
	want := map[int]string{} // by index
	claimed := map[string]bool{}
	for _, n := range names {
		l := pick(links, n)
		if l == nil || claimed[n.Name] || want[l.Index] != "" {
			continue
		}
		want[l.Index], claimed[n.Name] = n.Name, true
	}
	holder := map[string]Link{}
	for _, l := range links {
		holder[l.Name] = l
		for _, a := range l.AltNames {
			if _, taken := holder[a]; !taken {
				holder[a] = l
			}
		}
	}
	var moves []Link // NICs not yet named as wanted, by index
	var freed []string
	for _, l := range links {
		if n := want[l.Index]; n != "" && l.Name != n && !slices.Contains(l.AltNames, n) {
			moves = append(moves, l)
			if !claimed[l.Name] {
				freed = append(freed, l.Name)
			}
		}
	}
	slices.SortFunc(moves, func(a, b Link) int { return a.Index - b.Index })
	slices.Sort(freed)

	taken := map[string]bool{}
	unused := func(stem string, index int) string {
		name := fmt.Sprintf("%s%d", stem, index)
		for holder[name].Index != 0 || claimed[name] || taken[name] {
			name += "x"
		}
		taken[name] = true
		return name
	}

	var out []Rename
	var evicted []Link
	at := map[int]string{} // current name of those that were moved aside
	aside := func(l Link) {
		if _, done := at[l.Index]; done || l.Name == "lo" {
			return
		}
		tmp := unused("mv", l.Index)
		at[l.Index] = tmp
		out = append(out, Rename{Index: l.Index, From: l.Name, To: tmp})
	}
	for _, m := range moves {
		h, taken := holder[want[m.Index]]
		if !taken || h.Index == m.Index {
			continue
		}
		aside(h)
		if want[h.Index] == "" {
			evicted = append(evicted, h)
		}
	}
	for _, m := range moves {
		from := m.Name
		if t, ok := at[m.Index]; ok {
			from = t
		}
		out = append(out, Rename{Index: m.Index, From: from, To: want[m.Index]})
	}
	for _, e := range evicted {
		to := ""
		if i := slices.IndexFunc(freed, func(n string) bool { return !strings.HasPrefix(n, "mv") }); i >= 0 {
			to = freed[i]
			freed = slices.Delete(freed, i, i+1)
		} else {
			to = unused("nic", e.Index)
		}
		out = append(out, Rename{Index: e.Index, From: at[e.Index], To: to})
	}
	return out
}

// kernelName is what the kernel calls an interface that somebody may call by an
// alternative name.
func (f Facts) kernelName(name string) string {
	for _, l := range f.Links {
		if slices.Contains(l.AltNames, name) {
			return l.Name
		}
	}
	return name
}
