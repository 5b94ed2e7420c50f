package ipvs

import (
	"net/netip"
	"slices"

	"ballast/configs/model"
	"ballast/services/ipvs/ipvsnl"
)

// Table is what IPVS should hold: services and their destinations sorted by
// address and port. The order is part of it, because the tables of the mh and
// sh schedulers depend on the order of insertion, and two directors must agree.
type Table struct {
	Services []*Entry
	Daemons  []ipvsnl.Daemon // sorted by role
	// DaemonsKept leaves the sync daemons as they are: the role is not known yet.
	DaemonsKept bool
	// whole is the table that this one is a part of; nil: it is whole itself.
	whole    []*Entry
	Timeouts ipvsnl.Timeouts // 0: leave
}

// Entry is one service of a Table; it is never changed.
type Entry struct {
	ipvsnl.Service
	Dests []ipvsnl.Dest
	// Out are configured destinations that must be absent now: they are down,
	// or the sorry server is not needed. They are deleted at once, where one
	// that is not configured drains.
	Out []netip.AddrPort

	virtual *Virtual
	belief  *virtualBelief
}

// replaced is t with the services of some virtual servers made anew: gone are
// those that they had, fresh those that they have now.
func (t *Table) replaced(gone map[model.ServiceID]bool, fresh []*Entry) *Table {
	out := *t
	sortEntries(fresh)
	var cut []int
	for id := range gone {
		if i, ok := findEntry(t.Services, id); ok {
			cut = append(cut, i)
		}
	}
	out.Services = spliced(t.Services, cut, fresh, compareEntries)
	return &out
}

// spliced is a sorted list without those at the places cut, and with fresh,
// which is sorted too. It costs what is new, and a copy of the rest.
func spliced[T any](list []T, cut []int, fresh []T, compare func(a, b T) int) []T {
	slices.Sort(cut)
	out := make([]T, 0, len(list)-len(cut)+len(fresh))
	at := 0
	for len(cut)+len(fresh) > 0 {
		to := len(list)
		if len(cut) > 0 {
			to = cut[0]
		}
		if len(fresh) > 0 {
			if i, _ := slices.BinarySearchFunc(list[at:], fresh[0], compare); at+i <= to {
				out = append(append(out, list[at:at+i]...), fresh[0])
				at, fresh = at+i, fresh[1:]
				continue
			}
		}
		out = append(out, list[at:to]...)
		at, cut = to+1, cut[1:]
	}
	return append(out, list[at:]...)
}

func (e *Entry) equal(f *Entry) bool {
	return e.Service == f.Service && slices.Equal(e.Dests, f.Dests) && slices.Equal(e.Out, f.Out)
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
	for _, v := range p.Virtual {
		n += len(v.Services)
	}
	t.Services = make([]*Entry, 0, n)
	for i, v := range p.Virtual {
		t.Services = v.entries(t.Services, b.virtual[i])
	}
	sortEntries(t.Services)
	t.daemons(p.Daemon, roles)
	return t
}

// entries appends what the services of v should be.
func (v *Virtual) entries(to []*Entry, b *virtualBelief) []*Entry {
	dests, out := v.dests(b)
	lend := v.lends(b)
	all := make([]Entry, len(v.Services))
	for i, s := range v.Services {
		if lend && (s.Scheduler == "sh" || s.Scheduler == "mh") {
			s.Flags |= ipvsnl.FlagSched1
		}
		all[i] = Entry{Service: s, Dests: dests, Out: out, virtual: v, belief: b}
		to = append(to, &all[i])
	}
	return to
}

// lends reports whether an order keeps a real server at weight 0. sh and mh
// would go on sending it its clients, and refuse them, without their fallback
// flag.
func (v *Virtual) lends(b *virtualBelief) bool {
	for j := range v.Real {
		if o := b.real[j].order; o == orderDrain || o == orderWeight && b.real[j].other == 0 && v.Real[j].Dest.Weight != 0 {
			return true
		}
	}
	return false
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
		switch o := b.real[j].order; {
		case o == orderDisable:
			out = append(out, key(d))
			continue
		case o == orderDrain && alive && v.drainable():
			// Also when the sorry server is in: what was promised to the
			// connections holds.
			d.Weight = 0
		case alive && !sorryIn && o != orderDrain:
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
	byKey := func(a, b ipvsnl.Dest) int {
		if c := ipvsnl.CompareDest(a, b); c != 0 {
			return c
		}
		return int(min(b.Weight, 1) - min(a.Weight, 1))
	}
	if !slices.IsSortedFunc(in, byKey) {
		slices.SortStableFunc(in, byKey)
	}
	in = slices.CompactFunc(in, func(a, b ipvsnl.Dest) bool { return key(a) == key(b) })
	if len(out) == 0 {
		return in, nil
	}
	out = slices.DeleteFunc(out, func(k netip.AddrPort) bool {
		_, found := slices.BinarySearchFunc(in, k, func(d ipvsnl.Dest, k netip.AddrPort) int { return compareKey(key(d), k) })
		return found
	})
	slices.SortFunc(out, compareKey)
	return in, slices.Compact(out)
}

// drainable reports whether a real server can stay at weight 0: dh would keep
// sending it its clients, and refuse them.
func (v *Virtual) drainable() bool { return v.Services[0].Scheduler != "dh" }

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
