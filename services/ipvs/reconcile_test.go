package ipvs

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"ballast/configs/model"
	"ballast/services/ipvs/ipvsnl"
)

// world is a reconciler over a fake kernel on a clock of its own.
type world struct {
	k     *fakeKernel
	r     *reconciler
	clock time.Time
}

func newWorld(t testing.TB) *world {
	w := &world{k: &fakeKernel{t: t, strict: true}, clock: time.Unix(1e9, 0)}
	w.k.state.Timeouts = ipvsnl.Timeouts{TCP: 900, TCPFin: 120, UDP: 300}
	w.restart()
	return w
}

// restart is a new process over the same kernel.
func (w *world) restart() {
	w.r = newReconciler(w.k, slog.New(slog.DiscardHandler), func() time.Time { return w.clock })
}

// do runs fn and returns the operations that the kernel got.
func (w *world) do(fn func()) string {
	w.k.requests = nil
	fn()
	var b strings.Builder
	for _, q := range w.k.requests {
		o := &Op{Request: q}
		if q.Verb == ipvsnl.EditDest {
			b.WriteString("edit destination " + o.object() + " to " + destText(q.Dest) + "\n")
			continue
		}
		b.WriteString(o.String() + "\n")
	}
	return b.String()
}

func (w *world) full() { w.clock = w.clock.Add(2 * time.Second); w.r.pass() }

// sweep is one sweep of the table.
func (w *world) sweep() {
	w.clock = w.clock.Add(2 * time.Second)
	if err := w.r.sweep(w.k); err != nil {
		w.k.t.Error(err)
	}
}

func TestRestartChangesNothing(t *testing.T) {
	c := config(
		vs("10.0.0.1", nil, rs("10.0.1.1", 1), rs("10.0.1.2", 1), rs("10.0.1.3", 2, inhibit), rs("10.0.1.4", 1, alpha)),
		vs("10.0.0.2", func(v *model.VirtualServer) { s := rs("10.0.9.9", 1, noChecks); v.Sorry = &s }, rs("10.0.1.2", 1)),
		vs("10.0.0.3", nil, rs("10.0.1.5", 4, func(r *model.RealServer) { r.Checks[0].Dynamic = true })),
	)
	c.Global.SyncDaemon = &model.SyncDaemon{Interface: "eth1", Instance: "VI_1", ID: 51}
	h := health(1, c, "10.0.1.2", "10.0.1.3")
	h.Servers[2].Real[0].Weight = 9
	w := newWorld(t)
	w.r.configure(1, c)
	w.r.roles = Roles{Known: true, Master: map[string]bool{"VI_1": true}}
	w.full()
	w.r.hear(h)
	w.full()
	if got := w.do(w.full); got != "" {
		t.Fatalf("second pass:\n%s", got)
	}
	fresh := health(1, c) // a health process that has just started and assumes
	for i := range fresh.Servers {
		for j := range fresh.Servers[i].Real {
			fresh.Servers[i].Real[j].Settled = false
		}
	}
	for name, next := range map[string]func(){
		"health never speaks": func() {
			for range 5 {
				w.full()
			}
		},
		"health speaks at once": func() { w.r.hear(h); w.full() },
		"health is fresh too":   func() { w.r.hear(fresh); w.full(); w.full(); w.r.hear(h); w.full() },
		"health before conf":    func() { w.full() },
	} {
		t.Run(name, func(t *testing.T) {
			w.restart()
			if name == "health before conf" {
				w.r.hear(h)
			}
			got := w.do(func() {
				w.full()
				w.r.configure(1, c)
				w.r.event()
				next()
				w.r.roles = Roles{Known: true, Master: map[string]bool{"VI_1": true}}
				w.r.event()
				w.full()
			})
			if got != "" {
				t.Errorf("operations after a restart:\n%s", got)
			}
		})
	}
}

// A vrrp that starts anew says for a moment that it has no instances, and one
// that has not yet taken over a commit lacks the instance of the sync daemon.
func TestSyncDaemonKeepsItsRole(t *testing.T) {
	state := func(text string) *instances {
		var v instances
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			t.Fatal(err)
		}
		return &v
	}
	c := config(vs("10.0.0.1", nil, rs("10.0.1.1", 1)))
	c.Global.SyncDaemon = &model.SyncDaemon{Interface: "eth1", Instance: "VI_1", ID: 51}
	w := newWorld(t)
	w.r.configure(1, c)
	tell := func(text string) string {
		return w.do(func() {
			if w.r.learn(state(text)) {
				w.r.event()
			}
			w.full()
		})
	}
	tell(`{"config":1,"instances":[{"name":"VI_1","state":"MASTER"}]}`)
	for _, text := range []string{`{"config":0,"instances":null}`, `{"config":1,"instances":[{"name":"VI_1","state":"MASTER"}]}`} {
		if got := tell(text); got != "" {
			t.Errorf("after %s:\n%s", text, got)
		}
	}
	c2 := *c
	c2.Global.SyncDaemon = &model.SyncDaemon{Interface: "eth1", Instance: "VI_2", ID: 51}
	if got := w.do(func() { w.r.configure(2, &c2); w.r.event(); w.full() }); got != "" {
		t.Errorf("before vrrp has VI_2:\n%s", got)
	}
	if got := tell(`{"config":2,"instances":[{"name":"VI_2","state":"MASTER"}]}`); got != "" {
		t.Errorf("VI_2 is master too:\n%s", got)
	}
	// It goes on telling of what it has forwarded for a while.
	const backup, master = `{"config":2,"instances":[{"name":"VI_2","state":"BACKUP"}]}`, `{"config":2,"instances":[{"name":"VI_2","state":"MASTER"}]}`
	for _, x := range []struct{ state, want string }{
		{backup, "start backup sync daemon on eth1 id 51\n"},
		{master, "stop backup sync daemon on eth1 id 51\n"},
		{backup, "start backup sync daemon on eth1 id 51\n"},
		{backup, "stop master sync daemon on eth1 id 51\n"},
		{backup, ""},
	} {
		if d := cmp.Diff(x.want, tell(x.state)); d != "" {
			t.Errorf("%s: %s", x.state, d)
		}
	}
}

func TestStartWaitsForHealth(t *testing.T) {
	old := config(vs("10.0.0.1", nil, rs("10.0.1.1", 1), rs("10.0.1.2", 1)), vs("10.0.0.9", nil, rs("10.0.1.1", 1)))
	c := config(vs("10.0.0.1", nil, rs("10.0.1.1", 1), rs("10.0.1.3", 1)), vs("10.0.0.2", nil, rs("10.0.1.1", 1)))
	w := newWorld(t)
	w.r.configure(1, old)
	w.full()
	w.restart()
	w.r.configure(2, c)
	added := "add service [10.0.0.2]:tcp:80 wrr\nadd destination [10.0.1.1]:tcp:80 of [10.0.0.2]:tcp:80 DR weight 1\n"
	if d := cmp.Diff(added, w.do(w.full)); d != "" {
		t.Errorf("before health spoke: -want +got\n%s", d)
	}
	got := w.do(func() { w.r.hear(health(2, c)); w.r.event() })
	for _, line := range []string{"add destination [10.0.1.3]:tcp:80 of [10.0.0.1]:tcp:80 DR weight 1\n", "edit destination [10.0.1.2]:tcp:80 of [10.0.0.1]:tcp:80 to DR weight 0", "edit destination [10.0.1.1]:tcp:80 of [10.0.0.9]:tcp:80 to DR weight 0"} {
		if !strings.Contains(got, line) {
			t.Errorf("after health spoke: no %q in\n%s", line, got)
		}
	}
}

func TestAssumptionsOfHealthAreHeldForAWhile(t *testing.T) {
	c := config(vs("10.0.0.1", nil, rs("10.0.1.1", 1), rs("10.0.1.2", 1)))
	w := newWorld(t)
	w.r.configure(1, c)
	w.full()
	w.r.hear(health(1, c, "10.0.1.2"))
	w.r.event()
	fresh := health(1, c)
	for j := range fresh.Servers[0].Real {
		fresh.Servers[0].Real[j].Settled = false
	}
	if got := w.do(func() { w.r.hear(fresh); w.r.event(); w.full() }); got != "" {
		t.Errorf("on an assumption:\n%s", got)
	}
	w.clock = w.clock.Add(HoldBound)
	if got := w.do(w.full); got != "add destination [10.0.1.2]:tcp:80 of [10.0.0.1]:tcp:80 DR weight 1\n" {
		t.Errorf("after %s: %q", HoldBound, got)
	}
	w.r.hear(health(1, c, "10.0.1.2"))
	w.r.event()
	if got := w.do(func() { w.r.hear(health(1, c)); w.r.event() }); !strings.HasPrefix(got, "add destination [10.0.1.2]") {
		t.Errorf("on a probe: %q", got)
	}
}

func TestHealthEventsTouchOneService(t *testing.T) {
	var v []model.VirtualServer
	for i := range 50 {
		v = append(v, vs(fmt.Sprintf("10.0.0.%d", i+1), nil, rs(fmt.Sprintf("10.0.1.%d", i+1), 1), rs("10.0.2.1", 1)))
	}
	c := config(v...)
	w := newWorld(t)
	w.r.configure(1, c)
	w.full()
	w.r.hear(health(1, c))
	w.r.event()
	before := w.k.dumps
	got := w.do(func() {
		if !w.r.hear(health(1, c, "10.0.1.7")) {
			t.Error("news are no news")
		}
		w.r.event()
	})
	if d := cmp.Diff("delete destination [10.0.1.7]:tcp:80 of [10.0.0.7]:tcp:80\n", got); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	if w.k.dumps != before {
		t.Errorf("%d dumps: what was read last is still true", w.k.dumps-before)
	}
	if w.r.hear(health(1, c, "10.0.1.7")) {
		t.Error("the same health is news")
	}
	if last := w.r.ring[len(w.r.ring)-1]; last.Reason != "health: down" || last.To != "absent" {
		t.Errorf("transition %+v", last)
	}
	if w.r.repairs != 0 {
		t.Errorf("%d repairs", w.r.repairs)
	}
}

func TestRepairs(t *testing.T) {
	c := config(vs("10.0.0.1", nil, rs("10.0.1.1", 1), rs("10.0.1.2", 1)), vs("10.0.0.2", nil, rs("10.0.1.1", 1)))
	w := newWorld(t)
	w.r.configure(1, c)
	w.full()
	s := w.k.state.Services[0]
	s.Dests[0].Weight = 9                                                                           // changed
	s.Scheduler = "rr"                                                                              // changed
	s.Dests = append(s.Dests, ipvsnl.DestState{Dest: ipvsnl.Dest{Addr: ip("10.9.9.9"), Weight: 1}}) // added
	w.k.state.Services = slices.Delete(w.k.state.Services, 1, 2)                                    // deleted
	ops := w.r.ops
	w.full()
	if w.r.repairs != 5 || w.r.ops-ops != 5 {
		t.Errorf("%d repairs, %d operations, want 5: %q", w.r.repairs, w.r.ops-ops, w.r.lastOps)
	}
	w.full() // the stranger is gone
	if got := w.do(w.full); got != "" || len(w.k.state.Services[0].Dests) != 2 || w.r.repairs != 5 {
		t.Errorf("afterwards: repairs %d, %s, %+v", w.r.repairs, got, w.k.state.Services[0].Dests)
	}
}

func TestDrain(t *testing.T) {
	c1 := config(vs("10.0.0.1", nil, rs("10.0.1.1", 1), rs("10.0.1.2", 1)), vs("10.0.0.2", nil, rs("10.0.1.1", 1)))
	c2 := config(vs("10.0.0.1", nil, rs("10.0.1.1", 1)))
	w := newWorld(t)
	w.r.configure(1, c1)
	w.full()
	conns := func(n uint32) {
		for i := range w.k.state.Services {
			for j := range w.k.state.Services[i].Dests {
				w.k.state.Services[i].Dests[j].Active = n
			}
		}
	}
	conns(2)
	w.r.configure(2, c2)
	w.full()
	if got := w.do(func() { w.full(); w.full() }); got != "" {
		t.Errorf("while draining:\n%s", got)
	}
	st := w.r.snapshot().status()
	if d := st.Services[0].Dests[1]; !d.Draining || d.Weight != 0 {
		t.Errorf("destination %+v, want draining", d)
	}
	if s := st.Services[1]; s.VirtualServer != "" || !s.Dests[0].Draining {
		t.Errorf("service %+v, want draining", s)
	}
	w.clock = w.clock.Add(DrainBound)
	if d := cmp.Diff("delete destination [10.0.1.2]:tcp:80 of [10.0.0.1]:tcp:80\ndelete service [10.0.0.2]:tcp:80\n", w.do(w.full)); d != "" {
		t.Errorf("after the bound: -want +got\n%s", d)
	}
	if w.r.repairs != 0 || len(w.r.drains) != 0 && w.do(w.full) != "" {
		t.Errorf("repairs %d, drains %v", w.r.repairs, w.r.drains)
	}

	// Back in the configuration during a drain: it serves again, at once.
	w.r.configure(3, c1)
	w.full()
	conns(1)
	w.r.configure(4, c2)
	w.full()
	w.r.configure(5, c1)
	got := w.do(w.full)
	if !strings.Contains(got, "edit") || strings.Contains(got, "add") || strings.Contains(got, "delete") {
		t.Errorf("back from a drain:\n%s", got)
	}
}

func TestFailures(t *testing.T) {
	c := config(vs("10.0.0.1", func(v *model.VirtualServer) { v.Scheduler = "foo" }, rs("10.0.1.1", 1), rs("10.0.1.2", 1)), vs("10.0.0.2", nil, rs("10.0.1.1", 1)))
	w := newWorld(t)
	w.k.strict = false
	w.k.refuse = func(r ipvsnl.Request) error {
		if r.Verb == ipvsnl.AddService && r.Service.Scheduler == "foo" {
			return errno(unix.ENOENT)
		}
		return nil
	}
	w.r.configure(1, c)
	w.full()
	want := `add service [10.0.0.1]:tcp:80 foo: no such file or directory (the kernel has no scheduler "foo": load module ip_vs_foo, or choose another lb_algo)`
	if d := cmp.Diff(want, w.r.problem()); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	if got := len(w.k.state.Services); got != 1 || w.r.snapshot().head.Config != 1 {
		t.Errorf("%d services, generation %d", got, w.r.snapshot().head.Config)
	}
	// Tried again with growing gaps, the rest undisturbed.
	tries := 0
	for range 60 {
		if w.do(w.full) != "" {
			tries++
		}
	}
	if tries < 3 || tries > 10 {
		t.Errorf("%d tries in 2 minutes", tries)
	}
	w.k.refuse = nil
	w.clock = w.clock.Add(backoffMax)
	w.full()
	if w.r.problem() != "" || len(w.k.state.Services) != 2 {
		t.Errorf("after the module came: %q, %d services", w.r.problem(), len(w.k.state.Services))
	}
	if w.r.repairs != 0 {
		t.Errorf("%d repairs", w.r.repairs)
	}

	w.k.dumpErr = fmt.Errorf("ipvs: %w", ipvsnl.ErrNoIPVS)
	w.full()
	w.r.configure(2, c)
	w.full()
	if s := w.r.snapshot().head; !strings.Contains(s.Error, "module ip_vs is not loaded") || s.Config != 2 {
		t.Errorf("without IPVS: %+v", s)
	}
}
