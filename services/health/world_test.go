package health

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ballast/configs/model"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func tcpCheck(last byte, alpha bool) model.Check {
	return model.Check{
		Kind: model.TCPCheck, Addr: netip.AddrFrom4([4]byte{10, 0, 1, last}), Port: 80, Alpha: alpha,
		ConnectTimeout: 3 * time.Second, DelayLoop: loopDelay, DelayBeforeRetry: retryDelay, Retry: 1,
	}
}

// lines are the transitions since the last call.
func lines(w *world, from *uint64) []string {
	var out []string
	for _, t := range w.ring {
		if t.Seq > *from {
			out = append(out, fmt.Sprintf("%s: %s -> %s: %s", t.Object, t.From, t.To, t.Reason))
			*from = t.Seq
		}
	}
	return out
}

func probe(w *world, last byte, ok bool) {
	reason := "connected"
	if !ok {
		reason = "connection refused"
	}
	for _, c := range w.checks {
		if c.spec.Addr.As4()[3] == last {
			w.result(c, outcome{ok: ok, reason: reason}, t0)
			return
		}
	}
}

func wantLines(t *testing.T, w *world, seen *uint64, want ...string) {
	t.Helper()
	if d := cmp.Diff(want, lines(w, seen)); d != "" {
		t.Error(d)
	}
}

func TestWorld(t *testing.T) {
	cfg := configOf(tcpCheck(1, false), tcpCheck(2, false))
	w := newWorld()
	var seen uint64
	applyTo(w, cfg, t0)
	wantLines(t, w, &seen, "[10.0.0.2]:tcp:80: INIT -> UP: live weight 2, quorum 1")
	probe(w, 1, true)
	probe(w, 2, false)
	wantLines(t, w, &seen, "[10.0.1.2]:tcp:80 of [10.0.0.2]:tcp:80: UP -> DOWN: TCP_CHECK: connection refused")
	probe(w, 1, false)
	wantLines(t, w, &seen)
	probe(w, 1, false)
	wantLines(t, w, &seen,
		"[10.0.1.1]:tcp:80 of [10.0.0.2]:tcp:80: UP -> DOWN: TCP_CHECK: connection refused",
		"[10.0.0.2]:tcp:80: UP -> DOWN: live weight 0, quorum 1 ([10.0.1.1]:tcp:80: TCP_CHECK: connection refused)")

	// A reload with the same checks changes nothing, whatever else changes.
	again := configOf(tcpCheck(1, false), tcpCheck(2, false))
	again.VirtualServers[0].Scheduler = "wlc"
	added, removed, _ := applyTo(w, again, t0)
	if len(added)+len(removed) != 0 {
		t.Errorf("added %d, removed %d", len(added), len(removed))
	}
	wantLines(t, w, &seen)

	// Other timing: the state stays.
	slow := tcpCheck(1, false)
	slow.DelayLoop = time.Minute
	added, removed, _ = applyTo(w, configOf(slow, tcpCheck(2, false)), t0)
	if len(added) != 1 || len(removed) != 1 {
		t.Errorf("added %d, removed %d", len(added), len(removed))
	}
	wantLines(t, w, &seen)

	// Another question: up again, and the first failure is enough.
	other := tcpCheck(1, false)
	other.ConnectTimeout = time.Second
	applyTo(w, configOf(other, tcpCheck(2, false)), t0)
	wantLines(t, w, &seen,
		"[10.0.1.1]:tcp:80 of [10.0.0.2]:tcp:80: DOWN -> UP: no check says otherwise any more",
		"[10.0.0.2]:tcp:80: DOWN -> UP: live weight 1, quorum 1")
	probe(w, 1, false)
	wantLines(t, w, &seen,
		"[10.0.1.1]:tcp:80 of [10.0.0.2]:tcp:80: UP -> DOWN: TCP_CHECK: connection refused",
		"[10.0.0.2]:tcp:80: UP -> DOWN: live weight 0, quorum 1 ([10.0.1.1]:tcp:80: TCP_CHECK: connection refused)")
	probe(w, 1, true)
	wantLines(t, w, &seen,
		"[10.0.1.1]:tcp:80 of [10.0.0.2]:tcp:80: DOWN -> UP: TCP_CHECK: connected",
		"[10.0.0.2]:tcp:80: DOWN -> UP: live weight 1, quorum 1 ([10.0.1.1]:tcp:80: TCP_CHECK: connected)")
}

func TestWorldAlpha(t *testing.T) {
	w := newWorld()
	var seen uint64
	applyTo(w, configOf(tcpCheck(1, true), tcpCheck(2, true)), t0)
	wantLines(t, w, &seen, "[10.0.0.2]:tcp:80: INIT -> DOWN: live weight 0, quorum 1")
	probe(w, 2, false)
	wantLines(t, w, &seen, "[10.0.1.2]:tcp:80 of [10.0.0.2]:tcp:80: INIT -> DOWN: TCP_CHECK: connection refused")
	probe(w, 1, true)
	wantLines(t, w, &seen,
		"[10.0.1.1]:tcp:80 of [10.0.0.2]:tcp:80: INIT -> UP: TCP_CHECK: connected",
		"[10.0.0.2]:tcp:80: DOWN -> UP: live weight 1, quorum 1 ([10.0.1.1]:tcp:80: TCP_CHECK: connected)")

	// One more alpha check on a server that lives does not take it out.
	cfg := configOf(tcpCheck(1, true), tcpCheck(2, true))
	more := tcpCheck(1, true)
	more.Port = 81
	cfg.VirtualServers[0].Real[0].Checks = append(cfg.VirtualServers[0].Real[0].Checks, more)
	applyTo(w, cfg, t0)
	wantLines(t, w, &seen)
	// A new server begins down.
	third := configOf(tcpCheck(1, true), tcpCheck(2, true), tcpCheck(3, true))
	applyTo(w, third, t0)
	if w.servers[0].real[2].alive {
		t.Error("a new alpha server must prove itself")
	}
}

// TestWorldAnd: a server lives when all its checks let it.
func TestWorldAnd(t *testing.T) {
	cfg := configOf(tcpCheck(1, false))
	second := tcpCheck(2, false)
	cfg.VirtualServers[0].Real[0].Checks = append(cfg.VirtualServers[0].Real[0].Checks, second)
	w := newWorld()
	applyTo(w, cfg, t0)
	rs := w.servers[0].real[0]
	for _, step := range []struct {
		last byte
		ok   bool
		want bool
	}{{1, true, true}, {2, false, false}, {1, false, false}, {1, false, false}, {2, true, false}, {1, true, true}} {
		probe(w, step.last, step.ok)
		if rs.alive != step.want {
			t.Fatalf("after %+v alive %t", step, rs.alive)
		}
	}
}

func TestWorldState(t *testing.T) {
	cfg := configOf(tcpCheck(1, false), tcpCheck(2, false))
	cfg.VirtualServers[0].Real[1].Weight = 3
	w := newWorld()
	applyTo(w, cfg, t0)
	probe(w, 2, false)
	got := w.state(status.Applied{Config: 7})
	addr := func(n byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 1, n}) }
	want := status.Health{
		Applied: status.Applied{Config: 7}, Probes: 1,
		Servers: []status.VirtualServerHealth{{
			Name: "[10.0.0.2]:tcp:80", QuorumUp: true, Weight: 1, Quorum: 1,
			Real: []status.RealServerHealth{
				{Addr: addr(1), Port: 80, Alive: true, Weight: -1, Since: t0, Checks: []status.CheckHealth{
					{Kind: "TCP_CHECK", Target: "10.0.1.1:80", Up: true}}},
				{Addr: addr(2), Port: 80, Weight: -1, Since: t0, Checks: []status.CheckHealth{
					{Kind: "TCP_CHECK", Target: "10.0.1.2:80", Known: true, Last: t0, Detail: "connection refused",
						Failed: t0, FailedDetail: "connection refused"}}},
			},
		}},
	}
	if d := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
		cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".Transitions" }, cmp.Ignore())); d != "" {
		t.Error(d)
	}
}

// TestRing: a storm keeps the newest, and what was published stays as it was.
func TestRing(t *testing.T) {
	w := newWorld()
	applyTo(w, configOf(tcpCheck(1, false)), t0)
	old := w.state(status.Applied{}).Transitions
	for i := range 5000 {
		probe(w, 1, i%3 == 0)
	}
	ring := w.state(status.Applied{}).Transitions
	if len(ring) != status.RingSize || ring[len(ring)-1].Seq != w.seq {
		t.Errorf("%d transitions, newest %d of %d", len(ring), ring[len(ring)-1].Seq, w.seq)
	}
	for i := 1; i < len(ring); i++ {
		if ring[i].Seq != ring[i-1].Seq+1 {
			t.Fatal("a gap in the ring")
		}
	}
	if len(old) != 1 || old[0].Seq != 1 {
		t.Error("a published state changed")
	}
}

// TestRun drives the whole service: configuration in, verdicts out.
func TestRun(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	dir := ipc.Dir(t.TempDir())
	var log bytes.Buffer
	env, err := ipc.NewEnv(dir, "health", slog.New(ipc.NewLogHandler(&log)))
	if err != nil {
		t.Fatal(err)
	}
	conf, err := ipc.NewEnv(dir, "conf", slog.Default())
	if err != nil {
		t.Fatal(err)
	}
	srv := ipc.NewServer("conf")
	go srv.Serve(ctx, conf.Listener)
	good := server(t, say("HTTP/1.0 200 OK\r\n\r\n"))
	cfg := configOf(testCheck(model.HTTPGet, good), testCheck(model.TCPCheck, closedPort(t)))
	srv.Publish(status.Conf{Generation: 3, Config: *cfg})

	done := make(chan error, 1)
	go func() { done <- Run(ctx, env) }()

	seen := make(chan status.Health, 64)
	go ipc.Watch(ctx, dir.Client("health"), func(_ uint64, h status.Health) { seen <- h })
	deadline := time.After(time.Minute)
	for {
		var h status.Health
		select {
		case h = <-seen:
		case <-deadline:
			t.Fatal("no verdict")
		}
		if h.Config == 3 && h.Probes == 2 && len(h.Transitions) == 2 {
			vs := h.Servers[0]
			if !vs.Real[0].Alive || vs.Real[1].Alive || vs.Weight != 1 || !vs.QuorumUp {
				t.Errorf("%+v", vs)
			}
			break
		}
	}
	// A configuration that cannot be checked is refused, with every fault.
	bad := *configOf(model.Check{Kind: model.HTTPGet, URLs: []model.URL{{Path: "/a", Regex: "("}}}, model.Check{Kind: model.SSLGet})
	err = dir.Client("health").Call(ctx, "prepare", status.Prepare{Config: bad}, nil)
	if err == nil || !strings.Contains(err.Error(), "regex") || !strings.Contains(err.Error(), "no url block") {
		t.Errorf("prepare: %v", err)
	}
	if err := dir.Client("health").Call(ctx, "prepare", status.Prepare{Config: *cfg}, nil); err != nil {
		t.Errorf("prepare: %v", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if !strings.Contains(log.String(), "<4>[10.0.1.2]:tcp:80 of [10.0.0.2]:tcp:80: UP -> DOWN: TCP_CHECK: connection refused\n") {
		t.Errorf("log:\n%s", log.String())
	}
}

// TestBadRegexCountsAsUp: a check that slipped past prepare must not take a
// server down that nobody looked at.
func TestBadRegexCountsAsUp(t *testing.T) {
	w := newWorld()
	_, _, errs := applyTo(w, configOf(model.Check{Kind: model.HTTPGet, URLs: []model.URL{{Regex: "("}}}), t0)
	if len(errs) != 1 || !w.servers[0].real[0].alive {
		t.Errorf("errors %v, alive %t", errs, w.servers[0].real[0].alive)
	}
}

func TestStateSize(t *testing.T) {
	w := newWorld()
	applyTo(w, configOf(tcpCheck(1, false)), t0)
	b, err := json.Marshal(w.state(status.Applied{}))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), `"target":"10.0.1.1:80"`) {
		t.Errorf("%s", b)
	}
}

// A director whose own network comes late does not call its real servers dead:
// not in its first minute, and not those that it has met.
func TestNetworkComesLate(t *testing.T) {
	w := newWorld()
	w.booting = t0.Add(time.Minute)
	cfg := &model.Config{VirtualServers: []model.VirtualServer{{Name: "v", Quorum: 1, Real: []model.RealServer{
		{Addr: tcpCheck(5, false).Addr, Port: 80, ConfPort: 80, Weight: 1, Checks: []model.Check{tcpCheck(5, false)}},
	}}}}
	added, _, errs := applyTo(w, cfg, t0)
	if len(added) != 1 || errs != nil {
		t.Fatal(added, errs)
	}
	c, r := added[0], w.servers[0].real[0]
	away := outcome{away: true, reason: "network is unreachable"}
	if changed, next := w.result(c, away, t0); changed || next != bootRetry || !r.alive {
		t.Errorf("at boot: changed %t, next in %s, alive %t", changed, next, r.alive)
	}
	if d := cmp.Diff("network is unreachable, and this box has just started: asking again soon", c.detail); d != "" {
		t.Error(d)
	}
	if changed, _ := w.result(c, away, t0.Add(time.Minute)); !changed || r.alive {
		t.Errorf("a minute later: changed %t, alive %t", changed, r.alive)
	}
	w.result(c, outcome{ok: true}, t0)
	w.result(c, away, t0)
	if changed, _ := w.result(c, away, t0); !changed || r.alive {
		t.Errorf("a server that was met: changed %t, alive %t", changed, r.alive)
	}
}
