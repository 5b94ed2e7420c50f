package ipvs

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
	"ballast/services/ipc/verdicts"
	"ballast/services/ipvs/ipvsnl"
)

// lockedKernel lets a test look at a fake kernel that a service works on.
type lockedKernel struct {
	mu sync.Mutex
	k  *fakeKernel
}

func (l *lockedKernel) Dump(only []model.ServiceID, tick func()) (*State, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.k.Dump(only, tick)
}

func (l *lockedKernel) Do(r []ipvsnl.Request, tick func()) ([]error, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.k.Do(r, tick)
}

func (l *lockedKernel) Services() ([]ipvsnl.ServiceState, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.k.Services()
}

func (l *lockedKernel) Dests(ids []model.ServiceID, tick func()) ([][]ipvsnl.DestState, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.k.Dests(ids, tick)
}

func (l *lockedKernel) Rest() ([]ipvsnl.Daemon, ipvsnl.Timeouts, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.k.Rest()
}

func (l *lockedKernel) Close() error { return nil }

// neighbour is another service's socket with a state of the test's choice.
func neighbour(t testing.TB, dir ipc.Dir, name string) *ipc.Server {
	t.Helper()
	env, err := ipc.NewEnv(dir, name, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s := ipc.NewServer(name)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, env.Listener) }()
	t.Cleanup(func() { cancel(); <-done })
	return s
}

// start runs the service until the returned function is called.
func start(t testing.TB, dir ipc.Dir, k Kernel, connTab string) (stop func()) {
	t.Helper()
	os.Remove(dir.Path("ipvs"))
	env, err := ipc.NewEnv(dir, "ipvs", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	env.Data = string(dir)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx, env, k, k, connTab, func(context.Context, func()) {}) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("run: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

// await watches the service's state until ok.
func await(t testing.TB, dir ipc.Dir, what string, ok func(status.IPVS) bool) status.IPVS {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var last status.IPVS
	found := false
	ipc.Watch(ctx, dir.Client("ipvs"), func(_ uint64, s status.IPVS) {
		if last = s; ok(s) {
			found = true
			cancel()
		}
	})
	if !found {
		t.Fatalf("%s: never; the last state is %+v", what, last)
	}
	return last
}

// verdictsOf is the state of health that says h.
func verdictsOf(h *Health) *status.Health {
	out := &status.Health{Applied: status.Applied{Config: h.Config}}
	for _, v := range h.Servers {
		x := status.VirtualServerHealth{Name: v.Name, QuorumUp: v.QuorumUp}
		for _, r := range v.Real {
			x.Real = append(x.Real, status.RealServerHealth{Addr: r.Addr, Port: r.Port, Alive: r.Alive, Weight: r.Weight,
				Checks: []status.CheckHealth{{Known: r.Settled, Up: r.Alive}}})
		}
		out.Servers = append(out.Servers, x)
	}
	return out
}

func TestRun(t *testing.T) {
	dir := ipc.Dir(t.TempDir())
	connTab := filepath.Join(t.TempDir(), "conns")
	if err := os.WriteFile(connTab, []byte("Pro FromIP\nTCP 0A4D0005 D431 0A4D0001 0050 0A4D0102 0050 ESTABLISHED 899\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	conf, hs, vr := neighbour(t, dir, "conf"), neighbour(t, dir, "health"), neighbour(t, dir, "vrrp")
	c := config(vs("10.0.0.1", nil, rs("10.0.1.1", 1), rs("10.0.1.2", 1)))
	c.Global.SyncDaemon = &model.SyncDaemon{Interface: "eth1", Instance: "VI_1"}
	conf.Publish(status.Conf{Generation: 3, Config: *c})
	vr.Publish(status.VRRP{Applied: status.Applied{Config: 3}, Instances: []status.VRRPInstance{{Name: "VI_1", State: status.VRRPMaster}}})
	k := &lockedKernel{k: &fakeKernel{t: t, strict: true}}

	stop := start(t, dir, k, connTab)
	s := await(t, dir, "programmed", func(s status.IPVS) bool {
		return s.Config == 3 && len(s.Services) == 1 && len(s.Services[0].Dests) == 2 && len(s.Daemons) == 1
	})
	if s.Services[0].VirtualServer != c.VirtualServers[0].Name || s.Daemons[0].Role != "master" || s.Error != "" || s.Repairs != 0 {
		t.Errorf("state %+v", s)
	}
	hs.Publish(verdicts.NewBook().Enter(verdictsOf(health(3, c, "10.0.1.1"))))
	s = await(t, dir, "real server out", func(s status.IPVS) bool { return len(s.Services[0].Dests) == 1 })
	if tr := s.Transitions[len(s.Transitions)-1]; tr.Object != "[10.0.1.1]:tcp:80 of [10.0.0.1]:tcp:80" || tr.To != "absent" || tr.Reason != "health: down" {
		t.Errorf("transition %+v", tr)
	}
	vr.Publish(status.VRRP{Applied: status.Applied{Config: 3}, Instances: []status.VRRPInstance{{Name: "VI_1", State: status.VRRPBackup}}})
	await(t, dir, "backup daemon", func(s status.IPVS) bool { return len(s.Daemons) == 1 && s.Daemons[0].Role == "backup" })

	// A new process finds everything as it should be.
	stop()
	k.mu.Lock()
	k.k.requests = nil
	k.mu.Unlock()
	stop = start(t, dir, k, connTab)
	s = await(t, dir, "adopted", func(s status.IPVS) bool { return s.Config == 3 && s.Passes >= 2 })
	k.mu.Lock()
	if n := len(k.k.requests); n != 0 || s.Ops != 0 {
		t.Errorf("%d operations after a restart: %v", n, s.LastOps)
	}
	k.mu.Unlock()

	cl := dir.Client("ipvs")
	var dests []status.Dest
	order := func() error {
		return cl.Call(t.Context(), "order", status.ServerOrder{Addr: ip("10.0.1.2"), Action: status.OrderDrain, By: "anna"}, &dests)
	}
	err := order()
	for end := time.Now().Add(time.Minute); err != nil && strings.Contains(err.Error(), "when health has spoken") && time.Now().Before(end); err = order() {
		time.Sleep(10 * time.Millisecond) // the new process tells nobody when it has heard health
	}
	if err != nil || len(dests) != 1 || dests[0].Weight != 0 || dests[0].Order != "drain" {
		t.Errorf("order: %+v, %v", dests, err)
	}
	var one []status.Service
	if err := cl.Call(t.Context(), "service", c.VirtualServers[0].Name, &one); err != nil || len(one) != 1 || one[0].Dests[0].Order != "drain" || one[0].Dests[0].Weight != 0 {
		t.Errorf("service: %+v, %v", one, err)
	}
	if err := cl.Call(t.Context(), "service", "web", &one); err == nil || !strings.Contains(err.Error(), `no virtual server "web"`) {
		t.Errorf("service that is not there: %v", err)
	}
	var page status.Page
	if err := cl.Call(t.Context(), "page", nil, &page); err != nil || len(page.Rows) != 1 || page.Rows[0].Ordered != 1 || page.Sum.Ordered != 1 || page.Matched != 1 {
		t.Errorf("page: %+v, %v", page, err)
	}
	if err := cl.Call(t.Context(), "page", status.PageQuery{Sort: "beauty"}, &page); err == nil || !strings.Contains(err.Error(), "possible: state, connections") {
		t.Errorf("page sorted by what is not there: %v", err)
	}
	var orders []status.Order
	if err := cl.Call(t.Context(), "orders", nil, &orders); err != nil || len(orders) != 1 || orders[0].By != "anna" {
		t.Errorf("orders: %+v, %v", orders, err)
	}
	var news status.IPVSNews
	if err := cl.Summary(t.Context(), &news); err != nil || len(news.Orders) != 1 || news.Orders[0].By != "anna" || len(news.Transitions) == 0 {
		t.Errorf("summary %+v, %v", news, err)
	}
	// Somebody else's change is found by the sweep that runs beside.
	k.mu.Lock()
	k.k.state.Services[0].Dests[0].Weight = 5
	k.mu.Unlock()
	await(t, dir, "repaired", func(s status.IPVS) bool { return s.Repairs == 1 && s.Services[0].Dests[0].Weight == 0 })

	// A new process keeps the order.
	stop()
	stop = start(t, dir, k, connTab)
	await(t, dir, "order kept", func(s status.IPVS) bool {
		return s.Config == 3 && len(s.Orders) == 1 && len(s.Services) == 1 && s.Services[0].Dests[0].Order == "drain"
	})
	defer stop()
	cl = dir.Client("ipvs") // the old one holds a connection to the old process
	if err := cl.Call(t.Context(), "prepare", status.Prepare{Generation: 4, Config: *c}, nil); err != nil {
		t.Errorf("prepare: %v", err)
	}
	bad := *c
	bad.VirtualServers = append(bad.VirtualServers, c.VirtualServers[0])
	if err := cl.Call(t.Context(), "prepare", status.Prepare{Generation: 4, Config: bad}, nil); err == nil || !strings.Contains(err.Error(), "belongs to virtual server") {
		t.Errorf("prepare of a duplicate: %v", err)
	}
	var conns []status.Conn
	if err := cl.Call(t.Context(), "connections", nil, &conns); err != nil || len(conns) != 1 || conns[0].State != "ESTABLISHED" {
		t.Errorf("connections: %v %v", conns, err)
	}
	if err := cl.Call(t.Context(), "connections", status.ConnQuery{Client: ip("10.9.9.9")}, &conns); err != nil || len(conns) != 0 {
		t.Errorf("connections of another client: %v %v", conns, err)
	}
}

func TestRunWithoutIPVS(t *testing.T) {
	dir := ipc.Dir(t.TempDir())
	conf := neighbour(t, dir, "conf")
	conf.Publish(status.Conf{Generation: 1, Config: *config(vs("10.0.0.1", nil, rs("10.0.1.1", 1)))})
	k := &lockedKernel{k: &fakeKernel{t: t, strict: true, dumpErr: ipvsnl.ErrNoIPVS}}
	start(t, dir, k, "")
	await(t, dir, "error told", func(s status.IPVS) bool { return s.Config == 1 && strings.Contains(s.Error, "module ip_vs") })
	k.mu.Lock()
	k.k.dumpErr = nil
	k.mu.Unlock()
	await(t, dir, "programmed once the module is there", func(s status.IPVS) bool { return s.Error == "" && len(s.Services) == 1 })
}
