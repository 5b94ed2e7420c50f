package ipvs

import (
	"net/netip"
	"slices"

	"ballast/services/ipc/status"
	"ballast/services/ipc/verdicts"
	"ballast/services/ipvs/ipvsnl"
)

// Beliefs are what is held to be true about the real servers of one Plan: the
// last word of health, else what the kernel showed when this process found it,
// else nothing, and then keepalived's rule for a new real server counts: it is
// in, unless alpha. To them come the orders of the operator. Beliefs are never
// changed; the next ones share with them what is the same.
type Beliefs struct {
	virtual []*virtualBelief // parallel to Plan.Virtual
}

type virtualBelief struct {
	quorum truth
	real   []realBelief // parallel to Virtual.Real
}

type realBelief struct {
	alive  truth
	order  order
	weight int32 // configured one if negative
	other  int32 // weight of an orderWeight
}

type truth uint8

const (
	unknown truth = iota
	no
	yes
)

func truthOf(b bool) truth {
	if b {
		return yes
	}
	return no
}

// of applies the belief to r.
func (b realBelief) of(r *Real) (alive bool, weight int32) {
	weight = r.Dest.Weight
	switch {
	case b.alive != unknown && b.weight >= 0:
		weight = b.weight // a check sets it
	case b.order == orderWeight:
		weight = b.other
	}
	switch {
	case !r.Checked:
		return true, weight // never asked, always alive
	case b.alive == unknown:
		return !r.Alpha, weight
	}
	return b.alive == yes, weight
}

// quorumUp is health's word, else the sum of the weights against the quorum.
func (b *virtualBelief) quorumUp(v *Virtual) bool {
	if b.quorum != unknown {
		return b.quorum == yes
	}
	var sum int64
	for j := range v.Real {
		if b.real[j].order == orderDrain || b.real[j].order == orderDisable {
			continue
		}
		if alive, w := b.real[j].of(&v.Real[j]); alive {
			sum += int64(w)
		}
	}
	return sum > 0 && sum >= v.Quorum
}

func (b *virtualBelief) equal(c *virtualBelief) bool {
	return b == c || b.quorum == c.quorum && slices.Equal(b.real, c.real)
}

func (b *virtualBelief) clone() *virtualBelief {
	return &virtualBelief{b.quorum, slices.Clone(b.real)}
}

// NoBeliefs knows nothing about p.
func NoBeliefs(p *Plan) *Beliefs {
	b := &Beliefs{virtual: make([]*virtualBelief, len(p.Virtual))}
	n := 0
	for _, v := range p.Virtual {
		n += len(v.Real)
	}
	all, real := make([]virtualBelief, len(p.Virtual)), make([]realBelief, n)
	for i, v := range p.Virtual {
		all[i].real, real = real[:len(v.Real):len(v.Real)], real[len(v.Real):]
		for j := range all[i].real {
			all[i].real[j] = v.Real[j].unheard()
		}
		b.virtual[i] = &all[i]
	}
	return b
}

// Carry takes what b (made for from) knows over to a new plan, by the names of
// virtual servers and the addresses of real servers: a real server that was
// down stays down through a commit.
func (b *Beliefs) Carry(from, to *Plan) *Beliefs {
	out := &Beliefs{virtual: make([]*virtualBelief, len(to.Virtual))}
	for i, v := range to.Virtual {
		if i < len(from.Virtual) && from.Virtual[i] == v { // nearly all of them
			out.virtual[i] = b.virtual[i]
			continue
		}
		j := i
		if j >= len(from.Virtual) || from.Virtual[j].Name != v.Name {
			var ok bool
			if j, ok = from.names[v.Name]; !ok {
				j = -1
			}
		}
		switch {
		case j < 0:
			out.virtual[i] = unknownServer(v)
		case from.Virtual[j] == v:
			out.virtual[i] = b.virtual[j]
		default:
			out.virtual[i] = b.virtual[j].carry(from.Virtual[j], v)
		}
	}
	return out
}

func unknownServer(v *Virtual) *virtualBelief {
	b := &virtualBelief{real: make([]realBelief, len(v.Real))}
	for j := range b.real {
		b.real[j] = v.Real[j].unheard()
	}
	return b
}

// unheard is the belief about a real server that nobody has spoken of. What
// health will say of one without checks is known.
func (r *Real) unheard() realBelief {
	b := realBelief{weight: -1}
	if !r.Checked {
		b.alive = yes
	}
	return b
}

func (b *virtualBelief) carry(from, to *Virtual) *virtualBelief {
	out := unknownServer(to)
	out.quorum = b.quorum
	find := index(len(from.Real), func(k int) netip.AddrPort { return from.Real[k].confKey() })
	for k := range to.Real {
		if m := find(k, to.Real[k].confKey()); m >= 0 {
			out.real[k] = b.real[m]
		} else if out.quorum == no {
			// A new real server may restore a quorum that health has not
			// counted yet.
			out.quorum = unknown
		}
	}
	return out
}

func (r *Real) confKey() netip.AddrPort { return netip.AddrPortFrom(r.Dest.Addr, r.ConfPort) }

// index returns a search for keys among n elements that expects element i at
// place i and falls back to a map, so that equal lists cost nothing.
func index(n int, at func(int) netip.AddrPort) func(hint int, k netip.AddrPort) int {
	var m map[netip.AddrPort]int
	return func(hint int, k netip.AddrPort) int {
		if hint < n && at(hint) == k {
			return hint
		}
		if m == nil {
			m = make(map[netip.AddrPort]int, n)
			for i := range n {
				m[at(i)] = i
			}
		}
		if i, ok := m[k]; ok {
			return i
		}
		return -1
	}
}

// Adopt learns from the kernel, for real servers that nothing is known about
// yet: a configured real server is up if the kernel has it and down if the
// kernel has its service without it. A service that the kernel lacks teaches
// nothing.
func (b *Beliefs) Adopt(p *Plan, have *State) *Beliefs {
	out := &Beliefs{virtual: slices.Clone(b.virtual)}
	for i, v := range p.Virtual {
		var svc *ServiceState
		for j := range v.Services {
			if svc = have.find(v.Services[j].ID); svc != nil {
				break
			}
		}
		if svc == nil {
			continue
		}
		vb := out.virtual[i].clone()
		for j := range v.Real {
			rb := &vb.real[j]
			if r := &v.Real[j]; r.Checked && rb.alive == unknown {
				rb.adopt(r, svc.find(key(r.Dest)))
			}
		}
		if v.Sorry != nil && vb.quorum == unknown {
			d := svc.find(key(v.Sorry.Dest))
			vb.quorum = truthOf(d == nil || d.Weight == 0)
		}
		out.virtual[i] = vb
	}
	return out
}

// adopt takes over what the kernel shows of r; nil: it lacks it.
func (b *realBelief) adopt(r *Real, d *ipvsnl.DestState) {
	switch {
	case b.order == orderDisable:
		// It is out whatever health thinks of it.
	case b.order == orderDrain && d != nil, b.order == orderWeight && d != nil && d.Weight == b.other:
		b.alive = yes
	case d == nil, d.Weight == 0 && r.Inhibit && r.Dest.Weight > 0:
		b.alive = no
	case r.Dynamic:
		b.alive, b.weight = yes, d.Weight
	default:
		b.alive = yes
	}
}

// Health is the last word of health on all virtual servers. It is never changed
// once it is made: the next one shares with it what is the same.
type Health struct {
	Config  uint64 // generation that health has applied
	Servers []VirtualHealth

	index map[string]int // places in Servers; nil: not made yet
}

// VirtualHealth is the verdict on a virtual server.
type VirtualHealth = verdicts.Server

// RealHealth is the verdict on a real server.
type RealHealth = verdicts.Real

// place finds a virtual server, which is expected at i; -1: there is none.
func (h *Health) place(i int, name string) int {
	if i < len(h.Servers) && h.Servers[i].Name == name {
		return i
	}
	if h.index == nil {
		h.enter()
	}
	if k, ok := h.index[name]; ok {
		return k
	}
	return -1
}

func (h *Health) enter() {
	h.index = make(map[string]int, len(h.Servers))
	for k := range h.Servers {
		h.index[h.Servers[k].Name] = k
	}
}

// after is what is known after u; h may be nil. It has its index, so that
// nobody writes into it later.
func (h *Health) after(u *verdicts.Update) *Health {
	out := &Health{Config: u.Config, Servers: u.Servers}
	if u.All || h == nil {
		out.enter()
		return out
	}
	out.Servers, out.index = h.Servers, h.index
	if len(u.Servers) > 0 {
		out.Servers = slices.Clone(h.Servers)
	}
	for _, v := range u.Servers {
		if k, ok := h.index[v.Name]; ok {
			out.Servers[k] = v
		} else {
			out.Servers = append(out.Servers, v)
		}
	}
	if len(out.Servers) > len(h.Servers) {
		out.enter()
	}
	return out
}

// Hear takes in the word of health on those virtual servers of p that only
// names, by place; nil: on all. A verdict that does not rest on a probe and
// contradicts what is believed is held back, unless trust is set; held tells
// whether there was one.
func (b *Beliefs) Hear(p *Plan, h *Health, only []int, trust bool) (_ *Beliefs, held bool) {
	out := &Beliefs{virtual: slices.Clone(b.virtual)}
	hear := func(at int) {
		k := h.place(at, p.Virtual[at].Name)
		if k < 0 {
			return
		}
		vb, back := b.virtual[at].hear(p.Virtual[at], &h.Servers[k], trust)
		out.virtual[at], held = vb, held || back
	}
	if only == nil {
		for at := range p.Virtual {
			hear(at)
		}
	}
	for _, at := range only {
		hear(at)
	}
	return out, held
}

func (b *virtualBelief) hear(v *Virtual, hv *VirtualHealth, trust bool) (_ *virtualBelief, held bool) {
	out := b
	change := func() *virtualBelief {
		if out == b {
			out = b.clone()
		}
		return out
	}
	find := index(len(hv.Real), func(k int) netip.AddrPort {
		return netip.AddrPortFrom(hv.Real[k].Addr.Unmap(), hv.Real[k].Port)
	})
	agreed := true
	for k := range v.Real {
		m := find(k, v.Real[k].confKey())
		if m < 0 {
			agreed = false // a real server that health has not met yet
			continue
		}
		rh, rb := &hv.Real[m], b.real[k]
		said := rb
		said.alive, said.weight = truthOf(rh.Alive), int32(max(-1, min(rh.Weight, 1<<31-1)))
		if !trust && rb.alive != unknown && !rh.Settled {
			if rb.alive != said.alive {
				agreed, held = false, true
			}
			continue
		}
		if said != rb {
			change().real[k] = said
		}
	}
	quorum := unknown             // counted from the real servers by quorumUp
	if agreed && v.Sorry != nil { // nobody else asks
		quorum = truthOf(hv.QuorumUp)
	}
	if quorum != b.quorum {
		change().quorum = quorum
	}
	return out, held
}

// instances lists the roles of VRRP instances.
type instances struct {
	Config    uint64 `json:"config"` // generation applied; 0: vrrp has none yet
	Instances []struct {
		Name  string `json:"name"`
		State string `json:"state"`
	} `json:"instances"`
}

// learn takes in a state of vrrp and reports whether it says anything. A vrrp
// that has just started and has no configuration yet does not: its instances,
// and the addresses that they hold, are as the process before it left them.
func (r *reconciler) learn(v *instances) bool {
	if v.Config == 0 {
		return false
	}
	r.roles, r.rolesConfig = Roles{Known: true, Master: map[string]bool{}}, v.Config
	for _, i := range v.Instances {
		r.roles.Master[i.Name] = i.State == status.VRRPMaster
	}
	return true
}

// role is what is known about the roles now. An instance that vrrp does not
// have may come with the configuration that it has not taken over yet.
func (r *reconciler) role() Roles {
	roles := r.roles
	if d := r.plan.Daemon; d != nil && roles.Known && r.rolesConfig < r.config {
		if _, listed := roles.Master[d.Instance]; !listed {
			roles.Known = false
		}
	}
	return roles
}
