package health

import (
	"context"
	"log/slog"
	"math"
	"net/netip"
	"strings"
	"testing"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

func TestFileOutcome(t *testing.T) {
	for _, c := range []struct {
		value, weight int
		reverse       bool
		ok            bool
		adds          int
	}{
		{0, 1, false, true, 0}, {5, 2, false, true, 10}, {5, 2, true, true, -10}, {-3, 2, false, true, -6},
		{0, 0, false, true, 0}, {1, 0, false, false, 0}, {0, 0, true, false, 0}, {-1, 0, true, true, 0},
		{math.MinInt32, 1, false, false, 0}, {math.MinInt64, 254, false, false, 0}, {math.MinInt64, -1, false, true, maxWeight},
		{math.MaxInt64, 254, false, true, maxWeight}, {math.MaxInt64, 254, true, false, 0},
	} {
		o := fileOutcome([]status.FileResult{{Name: "other", Value: 9}, {Name: "f", Value: c.value}}, &model.Check{Name: "f", Weight: c.weight, Reverse: c.reverse})
		if o.ok != c.ok || o.adds != c.adds || o.local {
			t.Errorf("%+v: %+v", c, o)
		}
	}
	if o := fileOutcome(nil, &model.Check{Name: "f"}); !o.local {
		t.Error("a file that nobody has read gives a verdict")
	}
}

func TestBFDOutcome(t *testing.T) {
	fresh, known := &check{spec: &model.Check{Name: "b"}}, &check{spec: &model.Check{Name: "b"}}
	known.m.known = true
	for _, c := range []struct {
		state, remote string
		c             *check
		over          bool
		ok, local     bool
	}{
		{"Up", "Up", fresh, false, true, false},
		{"Down", "", fresh, false, false, true},
		{"Init", "Down", fresh, false, false, true},
		{"Down", "", fresh, true, false, false},
		{"Down", "", known, false, false, false},
		{"AdminDown", "", known, false, false, true},
		{"Down", "AdminDown", known, false, false, true},
	} {
		o := bfdOutcome([]status.BFDSession{{Name: "b", State: c.state, Remote: c.remote}}, c.c, c.over)
		if o.ok != c.ok || o.local != c.local {
			t.Errorf("%+v: %+v", c, o)
		}
	}
	if o := bfdOutcome(nil, known, true); !o.local {
		t.Error("no session gives a verdict")
	}
}

// TestTold drives the service as a whole: vrrp, notify and ipvs tell, and
// health follows.
func TestTold(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	dir := ipc.Dir(t.TempDir())
	publish := func(name string, state any) *ipc.Server {
		env, err := ipc.NewEnv(dir, name, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		srv := ipc.NewServer(name)
		srv.Publish(state)
		go srv.Serve(ctx, env.Listener)
		return srv
	}
	cfg := configOf(model.Check{Kind: model.BFDCheck, Name: "b"}, model.Check{Kind: model.FileCheck, Name: "f", Weight: 2})
	cfg.VirtualServers[0].Real[1].Weight = 10
	cfg.VirtualServers[0].Real[1].Checks = append(cfg.VirtualServers[0].Real[1].Checks, model.Check{Kind: model.FileCheck, Name: "g", Weight: -1})
	publish("conf", status.Conf{Generation: 1, Config: *cfg})
	vrrp := publish("vrrp", status.VRRP{BFD: []status.BFDSession{{Name: "b", State: "Up"}}})
	notify := publish("notify", status.Notify{Files: []status.FileResult{{Name: "f", Value: 3}, {Name: "g", Value: 1}}})
	kernel := publish("ipvs", status.IPVS{Applied: status.Applied{Config: 1}})

	env, err := ipc.NewEnv(dir, "health", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- Run(ctx, env) }()
	seen := make(chan status.Health, 256)
	go ipc.Watch(ctx, dir.Client("health"), func(_ uint64, h status.Health) { seen <- h })
	await := func(what string, good func(vs status.VirtualServerHealth) bool) {
		t.Helper()
		deadline := time.After(time.Minute)
		var last status.Health
		for {
			select {
			case last = <-seen:
				if len(last.Servers) == 1 && good(last.Servers[0]) {
					return
				}
			case <-deadline:
				t.Fatalf("%s: %+v", what, last)
			}
		}
	}
	await("told at start", func(vs status.VirtualServerHealth) bool {
		return vs.Real[0].Alive && vs.Real[0].Checks[0].Known && vs.Real[1].Weight == 10+6-1 && vs.Weight == 1+15
	})
	vrrp.Publish(status.VRRP{BFD: []status.BFDSession{{Name: "b", State: "Down", Diagnostic: "control detection time expired"}}})
	await("session down", func(vs status.VirtualServerHealth) bool {
		return !vs.Real[0].Alive && vs.Real[0].Checks[0].Detail == "session Down: control detection time expired" && vs.Weight == 15
	})
	notify.Publish(status.Notify{Files: []status.FileResult{{Name: "f", Value: -20}, {Name: "g", Value: 0}}})
	await("weight below 0", func(vs status.VirtualServerHealth) bool {
		return vs.Real[1].Alive && vs.Real[1].Weight == 0 && vs.Weight == 0 && !vs.QuorumUp
	})
	vrrp.Publish(status.VRRP{BFD: []status.BFDSession{{Name: "b", State: "Up"}}})
	await("session up", func(vs status.VirtualServerHealth) bool { return vs.Real[0].Alive && vs.QuorumUp })

	order := func(list ...status.Order) {
		kernel.Publish(status.IPVS{Applied: status.Applied{Config: 1}, Orders: list})
	}
	at := cfg.VirtualServers[0].Real[0].Addr
	order(status.Order{VirtualServer: cfg.VirtualServers[0].Name, Addr: at, Port: 80, Action: status.OrderDrain, By: "ann"})
	await("drained", func(vs status.VirtualServerHealth) bool {
		return vs.Real[0].Alive && vs.Real[0].Disabled && vs.Weight == 0 && !vs.QuorumUp
	})
	order()
	await("enabled", func(vs status.VirtualServerHealth) bool { return !vs.Real[0].Disabled && vs.Weight == 1 && vs.QuorumUp })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestOrders(t *testing.T) {
	w := newWorld()
	var seen uint64
	cfg := configOf(tcpCheck(1, false), tcpCheck(2, false))
	applyTo(w, cfg, t0)
	lines(w, &seen)
	o := func(i int, action string, weight int) status.Order {
		return status.Order{VirtualServer: "[10.0.0.2]:tcp:80", Addr: netip.AddrFrom4([4]byte{10, 0, 1, byte(i)}), Port: 80, Action: action, Weight: weight, By: "ann"}
	}
	if !w.order([]status.Order{o(1, status.OrderDisable, 0), o(2, status.OrderWeight, 4)}, t0) || w.servers[0].weight() != 4 {
		t.Errorf("weight %d", w.servers[0].weight())
	}
	if w.order([]status.Order{o(1, status.OrderDisable, 0), o(2, status.OrderWeight, 4)}, t0) {
		t.Error("the same orders again are news")
	}
	wantLines(t, w, &seen)
	w.order([]status.Order{o(1, status.OrderDisable, 0), o(2, status.OrderDrain, 0)}, t0)
	wantLines(t, w, &seen, "[10.0.0.2]:tcp:80: UP -> DOWN: live weight 0, quorum 1 ([10.0.1.2]:tcp:80: drain by ann)")
	// Probes go on, and a reload keeps the orders.
	probe(w, 1, false)
	wantLines(t, w, &seen, "[10.0.1.1]:tcp:80 of [10.0.0.2]:tcp:80: UP -> DOWN: TCP_CHECK: connection refused")
	applyTo(w, configOf(tcpCheck(1, false), tcpCheck(2, false)), t0)
	if h := w.state(status.Applied{}).Servers[0]; !h.Real[0].Disabled || !h.Real[1].Disabled || h.QuorumUp {
		t.Errorf("%+v", h)
	}
	// A weight that a check measures counts more than an ordered one, as in ipvs.
	script := testCheck(model.MiscCheck, netip.AddrPort{})
	script.Command.Argv, script.Dynamic = []string{"/bin/x"}, true
	measured := configOf(script)
	m := newWorld()
	applyTo(m, measured, t0)
	r := m.servers[0].real[0]
	m.result(r.checks[0], outcome{ok: true, weight: 7}, t0)
	m.order([]status.Order{{VirtualServer: m.servers[0].conf.Name, Addr: r.conf.Addr, Port: r.conf.ConfPort, Action: status.OrderWeight, Weight: 3}}, t0)
	if got := m.servers[0].weight(); got != 7 {
		t.Errorf("weight %d with an order for 3, 7 was measured", got)
	}
	w.order(nil, t0)
	wantLines(t, w, &seen, "[10.0.0.2]:tcp:80: DOWN -> UP: live weight 1, quorum 1 ([10.0.1.2]:tcp:80: order taken back)")
}

func TestLogAllFailures(t *testing.T) {
	for _, global := range []bool{false, true} {
		w := newWorld()
		var said []string
		w.failed = func(s string) { said = append(said, s) }
		c := tcpCheck(1, false)
		c.Retry, c.LogAllFailures = 2, !global
		cfg := configOf(c)
		cfg.Global.CheckerLogAllFailures = global
		applyTo(w, cfg, t0)
		probe(w, 1, true)
		for range 4 {
			probe(w, 1, false)
		}
		const head = "[10.0.1.1]:tcp:80 of [10.0.0.2]:tcp:80: failed: TCP_CHECK: connection refused"
		want := head + " (try 1 of 2 follows)|" + head + " (try 2 of 2 follows)|" + head // the third is a transition
		if got := strings.Join(said, "|"); got != want {
			t.Errorf("global %t: %s", global, got)
		}
	}
}

func TestInitNotifies(t *testing.T) {
	w := newWorld()
	var seen uint64
	cfg := configOf(tcpCheck(1, false), tcpCheck(2, true))
	cfg.Global.RSInitNotifies = true
	applyTo(w, cfg, t0)
	wantLines(t, w, &seen,
		"[10.0.1.1]:tcp:80 of [10.0.0.2]:tcp:80: INIT -> UP: starts up, not yet probed (rs_init_notifies)",
		"[10.0.0.2]:tcp:80: INIT -> UP: live weight 1, quorum 1")
	applyTo(w, cfg, t0)
	wantLines(t, w, &seen)
}

// TestEvidence: the last failure stays visible when the check is well again.
func TestEvidence(t *testing.T) {
	w := newWorld()
	applyTo(w, configOf(tcpCheck(1, false)), t0)
	var c *check
	for _, c = range w.checks {
	}
	long := []byte("HTTP/1.0 500 No\r\nX: \x00\xff\x1b[31m\r\n\r\n" + strings.Repeat("z", 300))
	w.result(c, outcome{reason: "status 500", answer: long}, t0)
	w.result(c, outcome{ok: true, reason: "status 200"}, t0.Add(time.Second))
	h := w.state(status.Applied{}).Servers[0].Real[0].Checks[0]
	if !h.Up || h.Detail != "status 200" || h.FailedDetail != "status 500" || !h.Failed.Equal(t0) ||
		h.Answer != "HTTP/1.0 500 No X: ???[31m  "+strings.Repeat("z", evidenceSize-31) {
		t.Errorf("%+v", h)
	}
}
