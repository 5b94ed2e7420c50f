package ipvs

import (
	"log/slog"
	"slices"
	"testing"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc/status"
	"ballast/services/ipvs/ipvsnl"
)

// nullKernel says yes to everything and holds nothing: what is measured over
// it is our own part.
type nullKernel struct{ ops int }

func (k *nullKernel) Dump([]model.ServiceID, func()) (*State, error)        { return &State{}, nil }
func (k *nullKernel) Services() ([]ipvsnl.ServiceState, error)              { return nil, nil }
func (k *nullKernel) Rest() (d []ipvsnl.Daemon, t ipvsnl.Timeouts, _ error) { return d, t, nil }
func (k *nullKernel) Close() error                                          { return nil }
func (k *nullKernel) Dests(ids []model.ServiceID, _ func()) ([][]ipvsnl.DestState, error) {
	return make([][]ipvsnl.DestState, len(ids)), nil
}
func (k *nullKernel) Do(r []ipvsnl.Request, _ func()) ([]error, error) {
	k.ops += len(r)
	return make([]error, len(r)), nil
}

// reweighed is a list with another weight of one real server; everything else
// is the very same in memory, as package follow has it.
func reweighed(list []*model.VirtualServer, i, weight int) []*model.VirtualServer {
	out := slices.Clone(list)
	v := *list[i]
	v.Real = slices.Clone(v.Real)
	v.Real[0].Weight = weight
	out[i] = &v
	return out
}

// BenchmarkTable is a table of 10,000 services with 2 destinations each.
func BenchmarkTable(b *testing.B) {
	c := large(10000, 2)
	load := func() (*reconciler, *nullKernel) {
		k := &nullKernel{}
		r := newReconciler(k, slog.New(slog.DiscardHandler), time.Now)
		r.configure(1, c)
		r.pass()
		return r, k
	}
	b.Run("load", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, k := load(); k.ops != 30000 {
				b.Fatal(k.ops)
			}
		}
	})
	b.Run("one weight", func(b *testing.B) {
		r, k := load()
		list, n := listed(c), 0
		r.follow(1, compile(nil, c, list))
		k.ops = 0
		b.ReportAllocs()
		b.ResetTimer()
		for b.Loop() {
			n++
			list = reweighed(list, 4711, 1+n%9+1)
			r.follow(uint64(1+n), r.plan.Next(c, list))
			r.event()
			r.snapshot().Summary()
		}
		if k.ops != n {
			b.Errorf("%d operations of %d commits", k.ops, n)
		}
	})
	b.Run("one verdict", func(b *testing.B) {
		r, k := load()
		r.hear(health(1, c))
		r.event()
		up, down := health(1, c), health(1, c, "10.100.3.4")
		n := 0
		k.ops = 0
		b.ReportAllocs()
		b.ResetTimer()
		for b.Loop() {
			if n++; n%2 == 1 {
				r.hear(down)
			} else {
				r.hear(up)
			}
			r.event()
		}
		if k.ops < n {
			b.Errorf("%d operations of %d verdicts", k.ops, n)
		}
	})
	b.Run("one order", func(b *testing.B) {
		r, k := load()
		n := 0
		k.ops = 0
		b.ReportAllocs()
		b.ResetTimer()
		for b.Loop() {
			n++
			q := status.ServerOrder{Addr: ip("10.100.3.4"), VirtualServer: "[10.50.3.4]:tcp:80", Action: status.OrderWeight, Weight: n%9 + 2}
			if _, err := r.order(q); err != nil {
				b.Fatal(err)
			}
		}
		if k.ops != n {
			b.Errorf("%d operations of %d orders", k.ops, n)
		}
	})
}
