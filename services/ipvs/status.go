package ipvs

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc/status"
	"ballast/services/ipvs/ipvsnl"
)

// snapshot is the published state. The large status.IPVS is made of it only
// when somebody reads it.
type snapshot struct {
	have *State
	want *Table
	head status.IPVS // without Services and Daemons
}

// snapshot freezes the state as it is. Everything it refers to is replaced,
// never changed, by what follows.
func (r *reconciler) snapshot() *snapshot {
	config := r.applied
	if r.kernErr != nil {
		config = r.config // a commit need not wait for a kernel without IPVS: Error tells
	}
	return &snapshot{have: r.have, want: r.want, head: status.IPVS{
		Applied: status.Applied{Config: config, Error: r.problem()},
		Passes:  r.passes, Ops: r.ops, Repairs: r.repairs,
		LastPass: r.lastPass, LastOps: r.lastOps, LastRepair: r.lastRepair, Repaired: r.repaired,
		Orders: r.orders.status(false), Asleep: r.orders.status(true), Transitions: r.ring,
	}}
}

// daemons are those of connection synchronisation.
func (s *State) daemons() (out []status.Daemon) {
	for _, d := range s.Daemons {
		out = append(out, status.Daemon{Role: d.Role.String(), Interface: d.Interface, ID: uint8(d.ID)})
	}
	return out
}

// State renders the state for ipc.
func (s *snapshot) State() any { return s.status() }

// Summary is what conf waits for, and what health and notify follow.
func (s *snapshot) Summary() any { return s.head.Summary() }

// Brief is ipc.Briefer.
func (s *snapshot) Brief(after uint64) (any, uint64) { return s.head.Brief(after) }

func (s *snapshot) status() *status.IPVS {
	out := s.head
	out.Services = []status.Service{}
	if s.have == nil {
		return &out
	}
	out.Daemons = s.have.daemons()
	out.Services = make([]status.Service, 0, len(s.have.Services))
	for _, h := range s.have.Services {
		out.Services = append(out.Services, s.service(h))
	}
	return &out
}

// wanted is what a service should be; nil: it is not wanted.
func (s *snapshot) wanted(id model.ServiceID) *Entry {
	if s.want == nil {
		return nil
	}
	i, ok := findEntry(s.want.Services, id)
	if !ok {
		return nil
	}
	return s.want.Services[i]
}

func (s *snapshot) service(h *ServiceState) status.Service {
	out := status.Service{
		ID: h.ID, Scheduler: h.Scheduler, Flags: schedFlags(h.Service),
		OnePacket: h.Flags&ipvsnl.FlagOnePacket != 0,
		Stats:     status.Stats(h.Stats),
		Dests:     make([]status.Dest, 0, len(h.Dests)),
	}
	want := s.wanted(h.ID)
	if want != nil {
		out.VirtualServer = want.virtual.Name
	}
	if h.Flags&ipvsnl.FlagPersistent != 0 {
		out.Persistence = time.Duration(h.Timeout) * time.Second
		out.Granularity = granularity(h.Service)
	}
	for j := range h.Dests {
		out.Dests = append(out.Dests, s.dest(h, &h.Dests[j], want))
	}
	return out
}

// dest is one destination of h, which should be as want.
func (s *snapshot) dest(h *ServiceState, d *ipvsnl.DestState, want *Entry) status.Dest {
	k := key(d.Dest)
	x := status.Dest{
		Addr: d.Addr, Port: d.Port, Forward: forwardText(d.Forward), Tunnel: tunnelText(d.Dest), Weight: int(d.Weight),
		UThreshold: d.UThreshold, LThreshold: d.LThreshold,
		Active: d.Active, Inactive: d.Inactive, Persistent: d.Persistent,
		Stats: status.Stats(d.Stats),
	}
	if want == nil {
		x.Draining = d.Weight == 0 && s.want != nil
		return x
	}
	v := want.virtual
	x.Sorry = v.Sorry != nil && key(v.Sorry.Dest) == k
	if d.Weight == 0 {
		_, in := findDest(want.Dests, k)
		_, out := slices.BinarySearchFunc(want.Out, k, compareKey)
		x.Draining = !in && !out
	}
	for j, b := range want.belief.real {
		if b.order != asConfigured && key(v.Real[j].Dest) == k {
			x.Order = orderNames[b.order]
		}
	}
	return x
}

// tunnelText is the tunnel of a destination: "ipip", "gue 6080 csum", "gre".
func tunnelText(d ipvsnl.Dest) string {
	if d.Forward != ipvsnl.ForwardTUN {
		return ""
	}
	s := "ipip"
	switch d.TunnelType {
	case ipvsnl.TunnelGUE:
		s = "gue " + strconv.Itoa(int(d.TunnelPort))
	case ipvsnl.TunnelGRE:
		s = "gre"
	}
	switch d.TunnelFlags {
	case ipvsnl.TunnelCsum:
		s += " csum"
	case ipvsnl.TunnelRemCsum:
		s += " remcsum"
	}
	return s
}

// virtual reads the services of one virtual server from the kernel, with their
// statistics of now.
func (r *reconciler) virtual(name string) ([]status.Service, error) {
	if r.plan == nil || r.have == nil {
		return nil, errors.New("ipvs: there is no configuration yet; try again in a moment")
	}
	i, ok := r.plan.names[name]
	if !ok {
		return nil, fmt.Errorf("ipvs: there is no virtual server %q; \"show ipvs\" lists them, the way they are to be written", name)
	}
	ids := make([]model.ServiceID, 0, len(r.plan.Virtual[i].Services))
	for _, s := range r.plan.Virtual[i].Services {
		ids = append(ids, s.ID)
	}
	slices.SortFunc(ids, ipvsnl.CompareID)
	now, err := r.kernel.Dump(ids, r.tick)
	if err != nil {
		r.fault(err)
		return nil, err
	}
	snap := r.snapshot()
	out := make([]status.Service, 0, len(ids))
	for _, h := range now.Services {
		out = append(out, snap.service(h))
	}
	return out, nil
}
