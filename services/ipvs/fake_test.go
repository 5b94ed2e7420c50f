package ipvs

import (
	"fmt"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"ballast/configs/model"
	"ballast/services/ipvs/ipvsnl"
)

// fakeKernel is IPVS as the kernel does it, and stricter: in strict mode an
// operation that the kernel would refuse fails the test, and so does a moment
// in which a service that serves before and after a pass has nobody to serve.
type fakeKernel struct {
	t        testing.TB
	strict   bool
	state    State
	refuse   func(ipvsnl.Request) error // nil result: go on
	dumpErr  error
	cut      error // of Do, once: the connection is lost, and the outcome with it
	dumps    int
	partial  int
	looked   []model.ServiceID // read one by one
	requests []ipvsnl.Request
}

func (k *fakeKernel) Close() error { return nil }

func (k *fakeKernel) Dump(only []model.ServiceID, tick func()) (*State, error) {
	if k.dumpErr != nil {
		return nil, k.dumpErr
	}
	k.dumps++
	out := &State{Daemons: slices.Clone(k.state.Daemons), Timeouts: k.state.Timeouts}
	for _, s := range k.state.Services {
		if only == nil || slices.Contains(only, s.ID) {
			out.Services = append(out.Services, &ServiceState{s.ServiceState, slices.Clone(s.Dests)})
		}
	}
	if only != nil {
		k.partial++
		k.looked = append(k.looked, only...)
		out.Daemons, out.Timeouts = nil, ipvsnl.Timeouts{}
	}
	out.sort()
	return out, nil
}

func (k *fakeKernel) Services() ([]ipvsnl.ServiceState, error) {
	var out []ipvsnl.ServiceState
	for _, s := range k.state.Services {
		out = append(out, s.ServiceState)
	}
	return out, k.dumpErr
}

func (k *fakeKernel) Dests(ids []model.ServiceID, tick func()) ([][]ipvsnl.DestState, error) {
	out := make([][]ipvsnl.DestState, len(ids))
	for i, id := range ids {
		for _, s := range k.state.Services {
			if s.ID == id {
				out[i] = slices.Clone(s.Dests)
				sortDests(out[i])
			}
		}
	}
	return out, k.dumpErr
}

func (k *fakeKernel) Rest() ([]ipvsnl.Daemon, ipvsnl.Timeouts, error) {
	d := slices.Clone(k.state.Daemons)
	sortDaemons(d)
	return d, k.state.Timeouts, k.dumpErr
}

// sort puts a state into canonical order.
func (s *State) sort() {
	sortServices(s.Services)
	for _, h := range s.Services {
		sortDests(h.Dests)
	}
	sortDaemons(s.Daemons)
}

func (s *State) serving() map[model.ServiceID]bool {
	m := map[model.ServiceID]bool{}
	for _, s := range s.Services {
		for _, d := range s.Dests {
			if d.Weight > 0 {
				m[s.ID] = true
			}
		}
	}
	return m
}

func (k *fakeKernel) Do(reqs []ipvsnl.Request, tick func()) ([]error, error) {
	errs := make([]error, len(reqs))
	if err := k.cut; err != nil {
		k.cut = nil
		for i := range errs {
			errs[i] = ipvsnl.ErrUnknown
		}
		return errs, err
	}
	before := k.state.serving()
	idle := map[model.ServiceID]ipvsnl.Request{}
	for i, r := range reqs {
		k.requests = append(k.requests, r)
		if k.refuse != nil {
			if errs[i] = k.refuse(r); errs[i] != nil {
				continue
			}
		}
		if errs[i] = k.do(r); errs[i] != nil && k.strict {
			k.t.Errorf("kernel refuses %v: %v", (&Op{Request: r}).String(), errs[i])
		}
		now := k.state.serving()
		for id := range before {
			if _, seen := idle[id]; !seen && !now[id] {
				idle[id] = r
			}
		}
	}
	for id := range k.state.serving() {
		if r, was := idle[id]; was && k.strict {
			k.t.Errorf("service %s had no destination for a moment, after %v", id, (&Op{Request: r}).String())
		}
	}
	return errs, nil
}

func errno(e unix.Errno) error { return &ipvsnl.Error{Errno: e} }

func (k *fakeKernel) do(r ipvsnl.Request) error {
	if r.Verb >= ipvsnl.StartDaemon {
		return k.doRest(r)
	}
	i := slices.IndexFunc(k.state.Services, func(s *ServiceState) bool { return s.ID == r.Service.ID })
	switch {
	case r.Verb == ipvsnl.AddService && i >= 0:
		return errno(unix.EEXIST)
	case r.Verb == ipvsnl.AddService:
		s := &ServiceState{}
		s.Service = r.Service
		k.state.Services = append(k.state.Services, s)
		return nil
	case i < 0:
		return errno(unix.ESRCH)
	}
	s := k.state.Services[i]
	j := slices.IndexFunc(s.Dests, func(d ipvsnl.DestState) bool { return key(d.Dest) == key(r.Dest) })
	switch r.Verb {
	case ipvsnl.EditService:
		if s.Service == r.Service {
			return fmt.Errorf("edit of %s changes nothing", s.ID)
		}
		s.Service = r.Service
	case ipvsnl.DelService:
		k.state.Services = slices.Delete(k.state.Services, i, i+1)
	case ipvsnl.AddDest:
		if j >= 0 {
			return errno(unix.EEXIST)
		}
		if r.Dest.Weight < 0 || r.Dest.LThreshold > r.Dest.UThreshold {
			return errno(unix.ERANGE)
		}
		// As the kernel: the newest comes first.
		s.Dests = slices.Insert(s.Dests, 0, ipvsnl.DestState{Dest: r.Dest})
	case ipvsnl.EditDest:
		if j < 0 {
			return errno(unix.ENOENT)
		}
		if s.Dests[j].Dest == r.Dest {
			return fmt.Errorf("edit of %s changes nothing", destName(s.ID, r.Dest))
		}
		s.Dests[j].Dest = r.Dest
	case ipvsnl.DelDest:
		if j < 0 {
			return errno(unix.ENOENT)
		}
		s.Dests = slices.Delete(s.Dests, j, j+1)
	}
	return nil
}

func (k *fakeKernel) doRest(r ipvsnl.Request) error {
	i := slices.IndexFunc(k.state.Daemons, func(d ipvsnl.Daemon) bool { return d.Role == r.Daemon.Role })
	switch r.Verb {
	case ipvsnl.StartDaemon:
		if i >= 0 {
			return errno(unix.EEXIST)
		}
		d := r.Daemon
		if d.MaxLen == 0 {
			d.MaxLen = 1472
		}
		if d.Role == ipvsnl.Backup {
			d.MaxLen = max(d.MaxLen, 1024)
		}
		if d.Port == 0 {
			d.Port = 8848
		}
		if d.TTL == 0 {
			d.TTL = 1
		}
		if !d.Group.IsValid() {
			d.Group = ip("224.0.0.81")
		}
		k.state.Daemons = append(k.state.Daemons, d)
	case ipvsnl.StopDaemon:
		if i < 0 {
			return errno(unix.ESRCH)
		}
		k.state.Daemons = slices.Delete(k.state.Daemons, i, i+1)
	case ipvsnl.SetTimeouts:
		k.state.Timeouts = timeouts(k.state.Timeouts, r.Timeouts)
	}
	return nil
}
