package ipvs

import (
	"slices"

	"ballast/configs/model"
	"ballast/services/ipvs/ipvsnl"
)

// Kernel is the edge to IPVS.
type Kernel interface {
	// Dump reads the named services, or everything if only is nil. tick is
	// called now and then while it works.
	Dump(only []model.ServiceID, tick func()) (*State, error)
	// Do makes changes in order and returns the outcome of each; the second
	// result is a fault of the connection.
	Do(reqs []ipvsnl.Request, tick func()) ([]error, error)
	Close() error
}

// netlinkKernel dials when needed and again after a fault.
type netlinkKernel struct{ c *ipvsnl.Conn }

func (k *netlinkKernel) conn() (*ipvsnl.Conn, error) {
	if k.c == nil {
		c, err := ipvsnl.Dial()
		if err != nil {
			return nil, err
		}
		k.c = c
	}
	return k.c, nil
}

func (k *netlinkKernel) Close() error {
	if k.c == nil {
		return nil
	}
	err := k.c.Close()
	k.c = nil
	return err
}

func (k *netlinkKernel) Dump(only []model.ServiceID, tick func()) (s *State, err error) {
	c, err := k.conn()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			k.Close()
		}
	}()
	s = &State{}
	var services []ipvsnl.ServiceState
	if only == nil {
		if services, err = c.Services(); err != nil {
			return nil, err
		}
		if s.Daemons, err = c.Daemons(); err != nil {
			return nil, err
		}
		if s.Timeouts, err = c.Timeouts(); err != nil {
			return nil, err
		}
	}
	for _, id := range only {
		switch one, err := c.Service(id); {
		case err == nil:
			services = append(services, one)
		case !isMissing(err):
			return nil, err
		}
	}
	s.Services = make([]ServiceState, len(services))
	for i := range services {
		s.Services[i].ServiceState = services[i]
		if s.Services[i].Dests, err = c.Dests(services[i].ID); err != nil {
			return nil, err
		}
		if i%100 == 99 {
			tick()
		}
	}
	s.sort()
	return s, nil
}

func (k *netlinkKernel) Do(reqs []ipvsnl.Request, tick func()) ([]error, error) {
	c, err := k.conn()
	if err != nil {
		return nil, err
	}
	errs, err := c.Do(reqs, func(int) { tick() })
	if err != nil {
		k.Close()
	}
	return errs, err
}

// sort puts a state into canonical order.
func (s *State) sort() {
	slices.SortFunc(s.Services, func(a, b ServiceState) int { return ipvsnl.CompareID(a.ID, b.ID) })
	for i := range s.Services {
		slices.SortFunc(s.Services[i].Dests, func(a, b ipvsnl.DestState) int { return ipvsnl.CompareDest(a.Dest, b.Dest) })
	}
	slices.SortFunc(s.Daemons, func(a, b ipvsnl.Daemon) int { return int(a.Role) - int(b.Role) })
}

// merge returns s with the services ids as part shows them.
func (s *State) merge(ids []model.ServiceID, part *State) *State {
	out := &State{Daemons: s.Daemons, Timeouts: s.Timeouts}
	out.Services = make([]ServiceState, 0, len(s.Services)+len(part.Services))
	for i := range s.Services {
		if !slices.Contains(ids, s.Services[i].ID) {
			out.Services = append(out.Services, s.Services[i])
		}
	}
	out.Services = append(out.Services, part.Services...)
	slices.SortFunc(out.Services, func(a, b ServiceState) int { return ipvsnl.CompareID(a.ID, b.ID) })
	return out
}
