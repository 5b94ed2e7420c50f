package health

import (
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ballast/configs/model"
	"ballast/services/ipc/status"
)

// table is a configuration of n virtual servers with two real servers each.
func table(n int) *model.Config {
	cfg := &model.Config{}
	for i := range n {
		id := model.ServiceID{Addr: netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), Port: 80, Protocol: model.TCP}
		vs := model.VirtualServer{Name: id.String(), Services: []model.ServiceID{id}, Quorum: 1}
		for k := range byte(2) {
			c := tcpCheck(k, false)
			c.Addr = netip.AddrFrom4([4]byte{10, 2 + k, byte(i >> 8), byte(i)})
			vs.Real = append(vs.Real, model.RealServer{Addr: c.Addr, Port: 80, ConfPort: 80, Weight: 1, Checks: []model.Check{c}})
		}
		cfg.VirtualServers = append(cfg.VirtualServers, vs)
	}
	return cfg
}

// reweigh is a copy as a reader of the configuration gets it: what did not
// change is the very same value.
func reweigh(cfg *model.Config, i, weight int) *model.Config {
	next := *cfg
	next.VirtualServers = append([]model.VirtualServer{}, cfg.VirtualServers...)
	vs := &next.VirtualServers[i]
	vs.Real = append([]model.RealServer{}, vs.Real...)
	vs.Real[0].Weight = weight
	return &next
}

// TestApplyOne: of a large configuration only what changed is built again, and
// everything keeps its state and its shared checks.
func TestApplyOne(t *testing.T) {
	const n = 200
	cfg := table(n)
	// Two more users of the first check.
	for _, i := range []int{7, 9} {
		cfg.VirtualServers[i].Real[1].Checks[0] = cfg.VirtualServers[0].Real[0].Checks[0]
	}
	w := newWorld()
	added, _, _ := applyTo(w, cfg, t0)
	if len(added) != 2*n-2 {
		t.Fatalf("%d checks", len(added))
	}
	shared := w.checks[keyOf(&cfg.VirtualServers[0].Real[0].Checks[0])]
	w.result(shared, outcome{reason: "connection refused"}, t0)
	var seen uint64
	lines(w, &seen)
	before := append([]*virtualServer{}, w.servers...)
	next := reweigh(cfg, 7, 5)
	added, removed, errs := applyTo(w, next, t0)
	if len(added)+len(removed)+len(errs) != 0 {
		t.Errorf("added %d, removed %d, %v", len(added), len(removed), errs)
	}
	wantLines(t, w, &seen)
	for i, vs := range w.servers {
		if (vs == before[i]) != (i != 7) {
			t.Errorf("%d: built anew: %t", i, vs != before[i])
		}
		if vs.conf != &next.VirtualServers[i] {
			t.Errorf("%d: an old configuration", i)
		}
	}
	if w.servers[7].weight() != 5 || len(shared.users) != 3 || w.servers[9].real[1].alive || w.servers[7].real[1].alive {
		t.Errorf("weight %d, %d users", w.servers[7].weight(), len(shared.users))
	}
	if h := w.state(status.Applied{}).Servers[9].Real[1].Checks[0]; h.Shared != 3 {
		t.Errorf("shared by %d", h.Shared)
	}
	// One goes from the middle: the others move up and stay.
	last := reweigh(next, 3, 1)
	last.VirtualServers = append(last.VirtualServers[:3:3], last.VirtualServers[4:]...)
	_, removed, _ = applyTo(w, last, t0)
	if len(removed) != 2 || len(w.servers) != n-1 || w.servers[3] != before[4] {
		t.Errorf("%d checks removed, %d virtual servers", len(removed), len(w.servers))
	}
	wantLines(t, w, &seen)
}

func cpu(who int) time.Duration {
	var u unix.Rusage
	unix.Getrusage(who, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkApplyOne changes one weight among 10,000 virtual servers with two
// real servers each.
func BenchmarkApplyOne(b *testing.B) {
	cfg := table(10000)
	for _, what := range []string{"apply", "apply and state"} {
		b.Run(what, func(b *testing.B) {
			w := newWorld()
			l, err := newLoop(w, nil)
			if err != nil {
				b.Fatal(err)
			}
			defer l.close()
			applyIn(l, cfg, time.Now())
			b.ReportAllocs()
			began := cpu(unix.RUSAGE_SELF)
			for i := 0; b.Loop(); i++ {
				cfg = reweigh(cfg, 5000, 2+i%7)
				if errs := applyIn(l, cfg, time.Now()); errs != nil {
					b.Fatal(errs)
				}
				if what != "apply" {
					w.state(status.Applied{})
				}
			}
			b.ReportMetric(float64((cpu(unix.RUSAGE_SELF)-began).Microseconds())/1e3/float64(b.N), "cpu-ms/op")
		})
	}
}

// TestWarmup: the first probe comes at random within warmup, and without one
// at once.
func TestWarmup(t *testing.T) {
	const n = 200
	for _, warmup := range []time.Duration{0, time.Hour} {
		l, err := newLoop(newWorld(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer l.close()
		cfg := table(n)
		for i := range cfg.VirtualServers {
			for k := range cfg.VirtualServers[i].Real {
				cfg.VirtualServers[i].Real[k].Checks[0].Warmup = warmup
			}
		}
		if errs := applyIn(l, cfg, t0); errs != nil {
			t.Fatal(errs)
		}
		if len(l.timers) != 2*n {
			t.Fatalf("warmup %s: %d first probes", warmup, len(l.timers))
		}
		var tenths [10]int
		for _, c := range l.timers {
			in := c.edge.at.Sub(t0)
			if in < 0 || in > warmup {
				t.Fatalf("warmup %s: the first probe comes after %s", warmup, in)
			}
			if warmup > 0 {
				tenths[in*10/warmup]++
			}
		}
		// 40 of 400 are in each tenth, and hardly ever less than 10.
		for i, got := range tenths {
			if warmup > 0 && got < 10 {
				t.Errorf("%d first probes in tenth %d of warmup: %v", got, i, tenths)
			}
		}
	}
}

// listOf is the list of virtual servers as package follow gives it.
func listOf(cfg *model.Config) []*model.VirtualServer {
	var out []*model.VirtualServer
	for i := range cfg.VirtualServers {
		out = append(out, &cfg.VirtualServers[i])
	}
	return out
}

func applyTo(w *world, cfg *model.Config, now time.Time) (added, removed []*check, errs []error) {
	return w.apply(&cfg.Global, listOf(cfg), now)
}

func applyIn(l *loop, cfg *model.Config, now time.Time) []error {
	return l.apply(cfg, listOf(cfg), now)
}
