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
	// Services reads all services without their destinations.
	Services() ([]ipvsnl.ServiceState, error)
	// Dests reads the destinations of services, sorted; none where there is no
	// such service.
	Dests(ids []model.ServiceID, tick func()) ([][]ipvsnl.DestState, error)
	// Rest reads the sync daemons, sorted by role, and the timeouts.
	Rest() ([]ipvsnl.Daemon, ipvsnl.Timeouts, error)
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

// with calls f with a connection and closes that after a fault.
func (k *netlinkKernel) with(f func(c *ipvsnl.Conn) error) error {
	c, err := k.conn()
	if err != nil {
		return err
	}
	if err = f(c); err != nil {
		k.Close()
	}
	return err
}

func (k *netlinkKernel) Services() (out []ipvsnl.ServiceState, err error) {
	err = k.with(func(c *ipvsnl.Conn) error {
		out, err = c.Services()
		return err
	})
	return out, err
}

func (k *netlinkKernel) Dests(ids []model.ServiceID, tick func()) (out [][]ipvsnl.DestState, err error) {
	out = make([][]ipvsnl.DestState, len(ids))
	err = k.with(func(c *ipvsnl.Conn) error {
		for i, id := range ids {
			if out[i], err = c.Dests(id); err != nil {
				return err
			}
			sortDests(out[i])
			if i%100 == 99 {
				tick()
			}
		}
		return nil
	})
	return out, err
}

func (k *netlinkKernel) Rest() (d []ipvsnl.Daemon, t ipvsnl.Timeouts, err error) {
	err = k.with(func(c *ipvsnl.Conn) error {
		if d, err = c.Daemons(); err != nil {
			return err
		}
		t, err = c.Timeouts()
		return err
	})
	sortDaemons(d)
	return d, t, err
}

func (k *netlinkKernel) Dump(only []model.ServiceID, tick func()) (*State, error) {
	s := &State{}
	var services []ipvsnl.ServiceState
	var err error
	if only == nil {
		if services, err = k.Services(); err != nil {
			return nil, err
		}
		if s.Daemons, s.Timeouts, err = k.Rest(); err != nil {
			return nil, err
		}
	}
	err = k.with(func(c *ipvsnl.Conn) error {
		for _, id := range only {
			switch one, err := c.Service(id); {
			case err == nil:
				services = append(services, one)
			case !isMissing(err):
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	ids := make([]model.ServiceID, len(services))
	for i := range services {
		ids[i] = services[i].ID
	}
	dests, err := k.Dests(ids, tick)
	if err != nil {
		return nil, err
	}
	all := make([]ServiceState, len(services))
	s.Services = make([]*ServiceState, len(services))
	for i := range all {
		all[i] = ServiceState{services[i], dests[i]}
		s.Services[i] = &all[i]
	}
	sortServices(s.Services)
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

func compareServices(a, b *ServiceState) int { return ipvsnl.CompareID(a.ID, b.ID) }

func sortServices(s []*ServiceState) {
	if !slices.IsSortedFunc(s, compareServices) {
		slices.SortFunc(s, compareServices)
	}
}

func sortDests(d []ipvsnl.DestState) {
	slices.SortFunc(d, func(a, b ipvsnl.DestState) int { return ipvsnl.CompareDest(a.Dest, b.Dest) })
}

func sortDaemons(d []ipvsnl.Daemon) {
	slices.SortFunc(d, func(a, b ipvsnl.Daemon) int { return int(a.Role) - int(b.Role) })
}

// merge returns s with the services ids, which are sorted, as part shows them.
func (s *State) merge(ids []model.ServiceID, part *State) *State {
	out := *s
	var cut []int
	for _, id := range ids {
		if i, ok := s.place(id); ok {
			cut = append(cut, i)
		}
	}
	out.Services = spliced(s.Services, cut, part.Services, compareServices)
	return &out
}
