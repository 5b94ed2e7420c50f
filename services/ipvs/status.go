package ipvs

import (
	"slices"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc/status"
	"ballast/services/ipvs/ipvsnl"
)

// snapshot is the published state. The large status.IPVS is made of it only
// when somebody reads it.
type snapshot struct {
	have   *State
	want   *Table
	owners map[model.ServiceID]*Virtual
	head   status.IPVS // without Services and Daemons
}

// snapshot freezes the state as it is. Everything it refers to is replaced,
// never changed, by the passes that follow.
func (r *reconciler) snapshot() *snapshot {
	config := r.applied
	if r.kernErr != nil {
		config = r.config // a commit need not wait for a kernel without IPVS: Error tells
	}
	return &snapshot{have: r.have, want: r.want, owners: r.owners, head: status.IPVS{
		Applied: status.Applied{Config: config, Error: r.problem()},
		Passes:  r.passes, Ops: r.ops, Repairs: r.repairs,
		LastPass: r.lastPass, LastOps: r.lastOps, Transitions: r.ring,
	}}
}

// State renders the state for ipc.
func (s *snapshot) State() any { return s.status() }

// Summary is what conf waits for.
func (s *snapshot) Summary() any { return s.head.Applied }

func (s *snapshot) status() *status.IPVS {
	out := s.head
	out.Services = []status.Service{}
	if s.have == nil {
		return &out
	}
	for _, d := range s.have.Daemons {
		out.Daemons = append(out.Daemons, status.Daemon{Role: d.Role.String(), Interface: d.Interface, ID: uint8(d.ID)})
	}
	out.Services = make([]status.Service, 0, len(s.have.Services))
	for i := range s.have.Services {
		out.Services = append(out.Services, s.service(&s.have.Services[i]))
	}
	return &out
}

func (s *snapshot) service(h *ServiceState) status.Service {
	v := s.owners[h.ID]
	out := status.Service{
		ID: h.ID, Scheduler: h.Scheduler, Flags: schedFlags(h.Service),
		OnePacket: h.Flags&ipvsnl.FlagOnePacket != 0,
		Stats:     status.Stats(h.Stats),
		Dests:     make([]status.Dest, 0, len(h.Dests)),
	}
	if v != nil {
		out.VirtualServer = v.Name
	}
	if h.Flags&ipvsnl.FlagPersistent != 0 {
		out.Persistence = time.Duration(h.Timeout) * time.Second
		out.Granularity = granularity(h.Service)
	}
	var want *Entry
	if s.want != nil {
		if i, ok := findEntry(s.want.Services, h.ID); ok {
			want = &s.want.Services[i]
		}
	}
	for j := range h.Dests {
		d := &h.Dests[j]
		k := key(d.Dest)
		x := status.Dest{
			Addr: d.Addr, Port: d.Port, Forward: forwardText(d.Forward), Weight: int(d.Weight),
			UThreshold: d.UThreshold, LThreshold: d.LThreshold,
			Active: d.Active, Inactive: d.Inactive, Persistent: d.Persistent,
			Stats: status.Stats(d.Stats),
			Sorry: v != nil && v.Sorry != nil && key(v.Sorry.Dest) == k,
		}
		if d.Weight == 0 && s.want != nil {
			x.Draining = want == nil
			if want != nil {
				_, in := findDest(want.Dests, k)
				_, out := slices.BinarySearchFunc(want.Out, k, compareKey)
				x.Draining = !in && !out
			}
		}
		out.Dests = append(out.Dests, x)
	}
	return out
}
