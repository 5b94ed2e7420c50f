package ipvs

import (
	"net/netip"
	"slices"

	"ballast/services/ipvs/ipvsnl"
)

// Table is what IPVS should hold: services and their destinations sorted by
// address and port. The order is part of it, because the tables of the mh and
// sh schedulers depend on the order of insertion, and two directors must agree.
type Table struct {
	Services []Entry
	Daemons  []ipvsnl.Daemon // sorted by role
	// DaemonsKept leaves the sync daemons as they are: the role is not known yet.
	DaemonsKept bool
	Timeouts    ipvsnl.Timeouts // 0: leave
}

// Entry is one service of a Table.
type Entry struct {
	ipvsnl.Service
	Dests []ipvsnl.Dest
	// Out are configured destinations that must be absent now: they are down,
	// or the sorry server is not needed. They are deleted at once, where one
	// that is not configured drains.
	Out []netip.AddrPort
}

// Roles are the states of the VRRP instances, as far as they matter here.
type Roles struct {
	Known  bool
	Master map[string]bool // by instance that vrrp has: whether it is master
}

// Desired says what IPVS should hold. It is pure; b must be made for p.
func Desired(p *Plan, b *Beliefs, roles Roles) *Table {
	t := &Table{Timeouts: p.Timeouts}
	n := 0
	for i := range p.Virtual {
		n += len(p.Virtual[i].Services)
	}
	t.Services = make([]Entry, 0, n)
	for i := range p.Virtual {
		v := &p.Virtual[i]
		dests, out := v.dests(&b.virtual[i])
		for _, s := range v.Services {
			t.Services = append(t.Services, Entry{Service: s, Dests: dests, Out: out})
		}
	}
	sortEntries(t.Services)
	t.daemons(p.Daemon, roles)
	return t
}

// dests says which destinations of v are in and which are out.
func (v *Virtual) dests(b *virtualBelief) (in []ipvsnl.Dest, out []netip.AddrPort) {
	sorryIn := v.Sorry != nil && !b.quorumUp(v)
	in = make([]ipvsnl.Dest, 0, len(v.Real)+1)
	if v.Sorry != nil {
		d := v.Sorry.Dest
		switch {
		case sorryIn:
			in = append(in, d)
		case v.SorryInhibit:
			d.Weight = 0
			in = append(in, d)
		default:
			out = append(out, key(d))
		}
	}
	for j := range v.Real {
		r := &v.Real[j]
		d := r.Dest
		alive, weight := b.real[j].of(r)
		d.Weight = weight
		switch {
		case alive && !sorryIn:
		case r.Inhibit:
			d.Weight = 0
		default:
			out = append(out, key(d))
			continue
		}
		in = append(in, d)
	}
	// A sorry server may be a real server too: the one that takes
	// connections counts.
	slices.SortStableFunc(in, func(a, b ipvsnl.Dest) int {
		if c := ipvsnl.CompareDest(a, b); c != 0 {
			return c
		}
		return int(min(b.Weight, 1) - min(a.Weight, 1))
	})
	in = slices.CompactFunc(in, func(a, b ipvsnl.Dest) bool { return key(a) == key(b) })
	out = slices.DeleteFunc(out, func(k netip.AddrPort) bool {
		_, found := slices.BinarySearchFunc(in, k, func(d ipvsnl.Dest, k netip.AddrPort) int { return compareKey(key(d), k) })
		return found
	})
	slices.SortFunc(out, compareKey)
	return in, slices.Compact(out)
}

func (t *Table) daemons(d *Daemon, roles Roles) {
	if d == nil {
		return
	}
	add := func(r ipvsnl.Role) {
		x := d.Daemon
		x.Role = r
		t.Daemons = append(t.Daemons, x)
	}
	switch {
	case d.Instance == "":
		add(ipvsnl.Master)
		add(ipvsnl.Backup)
	case !roles.Known:
		t.DaemonsKept = true
	case roles.Master[d.Instance]:
		add(ipvsnl.Master)
	default:
		add(ipvsnl.Backup)
	}
}
