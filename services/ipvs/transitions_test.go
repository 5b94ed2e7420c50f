package ipvs

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ballast/configs/model"
	"ballast/services/ipc/status"
	"ballast/services/ipvs/ipvsnl"
)

// TestTransitions leads the strict kernel through random worlds, applied on
// one another: every pass must succeed, the second one must be empty, and what
// the kernel then holds must be what is wanted plus what drains.
func TestTransitions(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	rnd := rand.New(rand.NewPCG(seed, 0))
	defer func() {
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	}()
	schedulers := []string{"rr", "wrr", "wlc", "sh", "mh", "dh", "fo"}
	pick := func(n int) bool { return rnd.IntN(n) == 0 }
	randomReal := func(i int) model.RealServer {
		r := rs(fmt.Sprintf("10.0.1.%d", i), rnd.IntN(4), func(r *model.RealServer) {
			r.Forward = model.Forward(rnd.IntN(3))
			r.InhibitOnFailure = pick(4)
			r.UThreshold = uint32(rnd.IntN(3))
			if pick(5) {
				r.Checks = nil
			} else {
				r.Checks[0].Alpha = pick(5)
				r.Checks[0].Dynamic = pick(5)
			}
		})
		return r
	}
	random := func() *model.Config {
		c := &model.Config{}
		for i := range 6 {
			if pick(3) {
				continue
			}
			v := vs(fmt.Sprintf("10.0.0.%d", i+1), func(v *model.VirtualServer) {
				v.Scheduler = schedulers[rnd.IntN(len(schedulers))]
				v.Quorum = 1 + rnd.IntN(3)
				if pick(2) {
					v.Persistence, v.Granularity = time.Duration(1+rnd.IntN(3))*time.Minute, 24+rnd.IntN(9)
				}
				if pick(4) {
					v.Services = append(v.Services, model.ServiceID{Mark: uint32(i + 1)})
				}
				if pick(6) {
					v.Services[0].Port = 0
				}
				if pick(3) {
					s := randomReal(rnd.IntN(8)) // may be a real server too
					s.Checks = nil
					v.Sorry, v.SorryInhibit = &s, pick(2)
				}
			})
			for j := range 8 {
				if !pick(3) {
					v.Real = append(v.Real, randomReal(j))
				}
			}
			rnd.Shuffle(len(v.Real), func(a, b int) { v.Real[a], v.Real[b] = v.Real[b], v.Real[a] })
			c.VirtualServers = append(c.VirtualServers, v)
		}
		if pick(2) {
			c.Global.SyncDaemon = &model.SyncDaemon{Interface: "eth1", ID: uint8(rnd.IntN(2)), Instance: []string{"", "V"}[rnd.IntN(2)]}
		}
		c.Global.Timeouts.TCP = time.Duration(rnd.IntN(3)) * time.Minute
		return c
	}
	randomHealth := func(gen uint64, c *model.Config) *Health {
		var down []string
		for i := range 8 {
			if pick(3) {
				down = append(down, fmt.Sprintf("10.0.1.%d", i))
			}
		}
		h := health(gen, c, down...)
		for i := range h.Servers {
			for j := range h.Servers[i].Real {
				if pick(6) {
					h.Servers[i].Real[j].Weight = rnd.IntN(5)
				}
				if pick(9) {
					h.Servers[i].Real[j].Settled = false
				}
			}
		}
		return h
	}
	w := newWorld(t)
	c, gen := config(), uint64(0)
	for n := range 1500 {
		w.clock = w.clock.Add(time.Duration(rnd.IntN(200)) * time.Second)
		what := ""
		w.k.requests = nil
		switch rnd.IntN(9) {
		case 0, 1:
			c, gen = random(), gen+1
			w.r.configure(gen, c)
			what = "configuration"
		case 2, 3, 4:
			w.r.hear(randomHealth(gen, c))
			what = "health"
		case 5:
			w.r.roles = Roles{Known: true, Master: map[string]bool{"V": pick(2)}}
			what = "role"
		case 6:
			for i := range w.k.state.Services { // connections come and go
				for j := range w.k.state.Services[i].Dests {
					w.k.state.Services[i].Dests[j].Active = uint32(rnd.IntN(2))
				}
			}
			what = "connections"
		case 7:
			orders := w.r.orders
			w.restart()
			w.r.orders = orders
			w.r.configure(gen, c)
			what = "restart"
		case 8:
			for range 1 + rnd.IntN(3) {
				w.r.order(status.ServerOrder{Addr: ip(fmt.Sprintf("10.0.1.%d", rnd.IntN(8))), Weight: rnd.IntN(3),
					Action: []string{status.OrderDrain, status.OrderDisable, status.OrderWeight, status.OrderEnable, status.OrderEnable}[rnd.IntN(5)]})
			}
			what = "order"
		}
		w.r.event()
		if !w.r.settled {
			w.clock = w.clock.Add(HealthWait)
			w.full()
		}
		if w.r.settled && w.r.plan != nil {
			checkKept(t, w)
		}
		w.clock = w.clock.Add(2 * time.Second)
		look := func() { w.r.pass() }
		if pick(2) {
			look = func() { w.r.sweep(w.k) }
		}
		look()
		look() // a drain that has nothing to wait for ends
		look() // and gives the fallback back
		if got := w.do(look); got != "" {
			t.Fatalf("step %d, %s: one more pass does\n%s", n, what, got)
		}
		if w.r.plan != nil {
			checkHolds(t, w)
		}
		if w.r.problem() != "" {
			t.Errorf("step %d, %s: %s", n, what, w.r.problem())
		}
		if w.r.repairs != 0 {
			t.Errorf("step %d, %s: %d repairs: %q", n, what, w.r.repairs, w.r.repaired)
		}
		if t.Failed() {
			t.Fatalf("step %d, %s: operations\n%s", n, what, w.r.lastOps)
		}
	}
	t.Logf("%d operations, %d passes", w.r.ops, w.r.passes)
}

// checkKept checks that what is believed of the kernel is true, and that what
// is left to do is to end drains.
func checkKept(t *testing.T, w *world) {
	t.Helper()
	have, _ := w.k.Dump(nil, nil)
	conf := func(s *State) (out []string) {
		for _, h := range s.Services {
			out = append(out, h.ID.String()+" "+serviceText(h.Service))
			for _, d := range h.Dests {
				out = append(out, destName(h.ID, d.Dest)+" "+destText(d.Dest))
			}
		}
		return out
	}
	if d := cmp.Diff(conf(have), conf(w.r.have)); d != "" {
		t.Errorf("what is believed of the kernel: -kernel +belief\n%s", d)
	}
	for _, o := range Diff(have, w.r.want, func(model.ServiceID, netip.AddrPort) bool { return false }) {
		if !o.Drain || o.Verb == ipvsnl.EditDest {
			t.Errorf("not done: %s", o.String())
		}
	}
}

// checkHolds compares the kernel with what is wanted, field by field.
func checkHolds(t *testing.T, w *world) {
	t.Helper()
	have, _ := w.k.Dump(nil, nil)
	want := w.r.want
	for _, w := range want.Services {
		e := *w
		h := have.find(e.ID)
		if h == nil {
			t.Errorf("no service %s", e.ID)
			continue
		}
		var got []ipvsnl.Dest
		lent := false
		for _, d := range h.Dests {
			if _, ok := findDest(e.Dests, key(d.Dest)); !ok && d.Weight == 0 && d.Active > 0 && !slices.Contains(e.Out, key(d.Dest)) {
				lent = e.Scheduler == "sh" || e.Scheduler == "mh"
				continue // drains
			}
			got = append(got, d.Dest)
		}
		if lent {
			e.Flags |= ipvsnl.FlagSched1
		}
		if d := cmp.Diff(e.Service, h.Service, cmpAddrs); d != "" {
			t.Errorf("service %s: -want +got\n%s", e.ID, d)
		}
		if d := cmp.Diff(e.Dests, got, cmpAddrs); d != "" {
			t.Errorf("destinations of %s: -want +got\n%s", e.ID, d)
		}
	}
	for _, h := range have.Services {
		if _, ok := findEntry(want.Services, h.ID); ok {
			continue
		}
		busy := false
		for _, d := range h.Dests {
			busy = busy || d.Active > 0
			if d.Weight != 0 {
				t.Errorf("service %s drains with weight %d", h.ID, d.Weight)
			}
		}
		if !busy {
			t.Errorf("service %s is neither wanted nor busy", h.ID)
		}
	}
}
