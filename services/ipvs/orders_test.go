package ipvs

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ballast/configs/model"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

// told is what an order did to the kernel.
func (w *world) told(t *testing.T, q status.ServerOrder) string {
	t.Helper()
	return w.do(func() {
		if _, err := w.r.order(q); err != nil {
			t.Errorf("%+v: %v", q, err)
		}
	})
}

func orderedWorld(t *testing.T, c *model.Config) *world {
	t.Helper()
	w := newWorld(t)
	w.r.configure(1, c)
	w.full()
	w.r.hear(health(1, c))
	w.r.event()
	return w
}

func TestOrders(t *testing.T) {
	c := config(
		vs("10.0.0.1", nil, rs("10.0.1.1", 3), rs("10.0.1.2", 1, inhibit)),
		vs("10.0.0.2", nil, rs("10.0.1.1", 5), rs("10.0.1.3", 1)))
	w := orderedWorld(t, c)
	one := c.VirtualServers[0].Name
	for _, step := range []struct {
		order status.ServerOrder
		want  string
	}{
		{status.ServerOrder{Addr: ip("10.0.1.1"), Action: status.OrderDrain, By: "anna", VirtualServer: one},
			"edit destination [10.0.1.1]:tcp:80 of [10.0.0.1]:tcp:80 to DR weight 0\n"},
		{status.ServerOrder{Addr: ip("10.0.1.1"), Action: status.OrderDrain, VirtualServer: one}, ""},
		{status.ServerOrder{Addr: ip("10.0.1.1"), Action: status.OrderWeight, Weight: 7},
			"edit destination [10.0.1.1]:tcp:80 of [10.0.0.1]:tcp:80 to DR weight 7\nedit destination [10.0.1.1]:tcp:80 of [10.0.0.2]:tcp:80 to DR weight 7\n"},
		{status.ServerOrder{Addr: ip("10.0.1.1"), Port: 80, Action: status.OrderDisable, VirtualServer: one},
			"delete destination [10.0.1.1]:tcp:80 of [10.0.0.1]:tcp:80\n"},
		{status.ServerOrder{Addr: ip("10.0.1.1"), Action: status.OrderEnable},
			"add destination [10.0.1.1]:tcp:80 of [10.0.0.1]:tcp:80 DR weight 3\nedit destination [10.0.1.1]:tcp:80 of [10.0.0.2]:tcp:80 to DR weight 5\n"},
		// A server that would stay at weight 0 when it is down goes when it is disabled.
		{status.ServerOrder{Addr: ip("10.0.1.2"), Action: status.OrderDisable}, "delete destination [10.0.1.2]:tcp:80 of [10.0.0.1]:tcp:80\n"},
	} {
		dumps := w.k.dumps
		if d := cmp.Diff(step.want, w.told(t, step.order)); d != "" {
			t.Errorf("%+v: -want +got\n%s", step.order, d)
		}
		if w.k.dumps != dumps {
			t.Errorf("%+v: %d dumps: an order reads nothing", step.order, w.k.dumps-dumps)
		}
		checkKept(t, w)
	}
	if w.r.repairs != 0 {
		t.Errorf("%d repairs", w.r.repairs)
	}
	got, err := w.r.order(status.ServerOrder{Addr: ip("10.0.1.1"), Action: status.OrderDrain, By: "anna", VirtualServer: one})
	want := []status.Dest{{Addr: ip("10.0.1.1"), Port: 80, Forward: "DR", Order: "drain"}}
	if d := cmp.Diff(want, got, cmpAddrs); d != "" || err != nil {
		t.Errorf("answer: %v -want +got\n%s", err, d)
	}
	if got := w.r.ring[len(w.r.ring)-1].Reason; got != "order of anna: drain" {
		t.Errorf("reason %q", got)
	}
	o := w.r.snapshot().head.Orders
	if len(o) != 2 || o[0].Action != "drain" || o[0].By != "anna" || o[0].Port != 80 || !o[0].Since.Equal(w.clock) || o[1].Action != "disable" {
		t.Errorf("orders %+v", o)
	}
	if d := w.r.snapshot().status().Services[0].Dests[0]; d.Order != "drain" || d.Draining {
		t.Errorf("destination %+v", d)
	}

	// Down by health counts more than a drain, and up again is a drain again.
	if got := w.do(func() { w.r.hear(health(1, c, "10.0.1.1")); w.r.event() }); !strings.Contains(got, "delete destination [10.0.1.1]:tcp:80 of [10.0.0.1]") {
		t.Errorf("down: %s", got)
	}
	if got := w.do(func() { w.r.hear(health(1, c)); w.r.event() }); !strings.Contains(got, "add destination [10.0.1.1]:tcp:80 of [10.0.0.1]:tcp:80 DR weight 0") {
		t.Errorf("up: %s", got)
	}
}

func TestOrdersThatCannotBe(t *testing.T) {
	sorry := rs("10.0.9.9", 1, noChecks)
	c := config(vs("10.0.0.1", func(v *model.VirtualServer) { v.Scheduler, v.Sorry = "dh", &sorry }, rs("10.0.1.1", 3)))
	w := newWorld(t)
	if _, err := w.r.order(status.ServerOrder{Addr: ip("10.0.1.1"), Action: "drain"}); err == nil || !strings.Contains(err.Error(), "no configuration yet") {
		t.Error(err)
	}
	w = orderedWorld(t, c)
	for want, q := range map[string]status.ServerOrder{
		"there is no real server 10.0.1.2:80;":      {Addr: ip("10.0.1.2"), Port: 80, Action: "disable"},
		"there is no real server 10.0.1.1:81;":      {Addr: ip("10.0.1.1"), Port: 81, Action: "disable"},
		`there is no virtual server "web"`:          {Addr: ip("10.0.1.1"), VirtualServer: "web", Action: "disable"},
		"10.0.9.9 is a sorry server":                {Addr: ip("10.0.9.9"), Action: "disable"},
		`no action "kill"`:                          {Addr: ip("10.0.1.1"), Action: "kill"},
		"weight -1 is out of range 0 to 2147483647": {Addr: ip("10.0.1.1"), Action: "weight", Weight: -1},
		"scheduler dh would go on sending":          {Addr: ip("10.0.1.1"), Action: "drain"},
		"which real server?":                        {Action: "drain"},
	} {
		got := w.do(func() {
			if _, err := w.r.order(q); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%+v: %v, want %s", q, err, want)
			}
		})
		if got != "" || len(w.r.orders.list) != 0 {
			t.Errorf("%+v does %q, orders %v", q, got, w.r.orders.list)
		}
	}
}

// DR and TUN cannot change a port: the kernel has the service's, the file
// another one, and an order may name either.
func TestOrderNamesThePortOfTheFile(t *testing.T) {
	c := config(vs("10.0.0.1", nil, rs("10.0.1.1", 3, func(r *model.RealServer) { r.ConfPort = 8080 })))
	w := orderedWorld(t, c)
	for _, port := range []uint16{8080, 80} {
		if got := w.told(t, status.ServerOrder{Addr: ip("10.0.1.1"), Port: port, Action: "drain"}); !strings.Contains(got, "[10.0.1.1]:tcp:80 of [10.0.0.1]:tcp:80 to DR weight 0") {
			t.Errorf("port %d: %s", port, got)
		}
		if o := w.r.snapshot().head.Orders; len(o) != 1 || o[0].Port != 8080 {
			t.Errorf("orders %+v", o)
		}
		w.told(t, status.ServerOrder{Addr: ip("10.0.1.1"), Port: port, Action: "enable"})
	}
}

// sh and mh go on sending clients to a server of weight 0 and refuse them,
// unless they fall back: an order to drain lends the flag for its time.
func TestOrderLendsTheFallback(t *testing.T) {
	c := config(vs("10.0.0.1", func(v *model.VirtualServer) { v.Scheduler = "sh" }, rs("10.0.1.1", 1), rs("10.0.1.2", 1)))
	w := orderedWorld(t, c)
	got := w.told(t, status.ServerOrder{Addr: ip("10.0.1.1"), Action: "drain"})
	if !strings.HasPrefix(got, "edit service [10.0.0.1]:tcp:80:") || !strings.Contains(got, "sh-fallback") {
		t.Errorf("drain: %s", got)
	}
	if got := w.do(func() { w.sweep(); w.full() }); got != "" {
		t.Errorf("while it drains: %s", got)
	}
	if got := w.told(t, status.ServerOrder{Addr: ip("10.0.1.1"), Action: "enable"}); !strings.Contains(got, "edit service") || strings.Contains(got, "sh-fallback") {
		t.Errorf("enable: %s", got)
	}
}

// The sorry server comes in when what is left has no quorum; a drained server
// keeps its connections even then.
func TestDrainedServerStaysBesideTheSorryServer(t *testing.T) {
	sorry := rs("10.0.9.9", 1, noChecks)
	c := config(vs("10.0.0.1", func(v *model.VirtualServer) { v.Sorry = &sorry }, rs("10.0.1.1", 1), rs("10.0.1.2", 1)))
	w := orderedWorld(t, c)
	w.told(t, status.ServerOrder{Addr: ip("10.0.1.1"), Action: "drain"})
	h := health(1, c, "10.0.1.2")
	h.Servers[0].QuorumUp = false
	got := w.do(func() { w.r.hear(h); w.r.event() })
	want := "add destination [10.0.9.9]:tcp:80 of [10.0.0.1]:tcp:80 DR weight 1\ndelete destination [10.0.1.2]:tcp:80 of [10.0.0.1]:tcp:80\n"
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

// What a check measured counts more than the order's weight.
func TestOrderOfWeightYieldsToTheCheck(t *testing.T) {
	c := config(vs("10.0.0.1", nil, rs("10.0.1.1", 3, func(r *model.RealServer) { r.Checks[0].Dynamic = true })))
	w := orderedWorld(t, c)
	h := health(1, c)
	h.Servers[0].Real[0].Weight = 17
	w.r.hear(h)
	w.r.event()
	if got := w.told(t, status.ServerOrder{Addr: ip("10.0.1.1"), Action: "weight", Weight: 9}); got != "" {
		t.Errorf("%s", got)
	}
	if got := w.do(func() { w.r.hear(health(1, c)); w.r.event() }); !strings.Contains(got, "weight 9") {
		t.Errorf("without the check's word: %q", got)
	}
}

func TestOrdersOutliveCommitsAndRestarts(t *testing.T) {
	dir := t.TempDir()
	var log bytes.Buffer
	c := config(vs("10.0.0.1", nil, rs("10.0.1.1", 3, alpha), rs("10.0.1.2", 1), rs("10.0.1.3", 1)))
	w := orderedWorld(t, c)
	w.told(t, status.ServerOrder{Addr: ip("10.0.1.1"), Action: "drain", By: "anna"})
	w.told(t, status.ServerOrder{Addr: ip("10.0.1.2"), Action: "disable"})
	w.told(t, status.ServerOrder{Addr: ip("10.0.1.3"), Action: "weight", Weight: 4})
	if err := w.r.orders.save(dir); err != nil {
		t.Fatal(err)
	}
	restart := func() {
		t.Helper()
		orders, err := LoadOrders(dir)
		if err != nil {
			t.Fatal(err)
		}
		log.Reset()
		w.r = newReconciler(w.k, slog.New(ipc.NewLogHandler(&log)), func() time.Time { return w.clock })
		w.r.orders = orders
	}
	want := w.r.snapshot().head.Orders
	restart()
	if d := cmp.Diff(want, w.r.snapshot().head.Orders, cmpAddrs); d != "" {
		t.Errorf("-written +read\n%s", d)
	}
	if got := w.do(func() { w.r.configure(1, c); w.full(); w.r.hear(health(1, c)); w.r.event() }); got != "" {
		t.Errorf("a restart does\n%s", got)
	}
	// A commit that says something else about the drained server, which stays.
	c2 := config(vs("10.0.0.1", nil, rs("10.0.1.1", 5, alpha), rs("10.0.1.2", 1), rs("10.0.1.3", 2)))
	if got := w.do(func() { w.r.configure(2, c2); w.r.event() }); got != "" {
		t.Errorf("a commit does\n%s", got)
	}
	// Without the disabled server and the one with a weight: their orders
	// sleep, over a restart too, and a rollback wakes them.
	less := config(vs("10.0.0.1", nil, rs("10.0.1.1", 5, alpha)))
	w.r.configure(3, less)
	w.r.event()
	if n := len(w.r.snapshot().head.Orders); n != 1 {
		t.Errorf("%d orders are in force", n)
	}
	if !strings.Contains(log.String(), "10.0.1.2:80 of [10.0.0.1]:tcp:80: disable: the real server left the configuration") {
		t.Errorf("log:\n%s", &log)
	}
	if err := w.r.orders.save(dir); err != nil {
		t.Fatal(err)
	}
	w.clock = w.clock.Add(KeepOrders - time.Minute)
	restart()
	w.r.configure(3, less)
	w.full()
	w.r.hear(health(3, less))
	w.sweep()
	w.sweep()
	if got := w.do(func() { w.r.configure(4, c2); w.r.event() }); strings.Contains(got, "10.0.1.2") || !strings.Contains(got, "[10.0.1.3]:tcp:80 of [10.0.0.1]:tcp:80 DR weight 4") {
		t.Errorf("the rollback does\n%s", got)
	}
	// After an hour they are forgotten.
	w.r.configure(5, less)
	w.r.event()
	w.clock = w.clock.Add(KeepOrders)
	log.Reset()
	w.sweep()
	if n := len(w.r.orders.list); n != 1 || strings.Count(log.String(), "forgotten") != 2 {
		t.Errorf("%d orders; log:\n%s", n, &log)
	}
	if got := w.do(func() { w.r.configure(6, c2); w.r.event() }); !strings.Contains(got, "10.0.1.2") {
		t.Errorf("back after the hour:\n%s", got)
	}
}

// TestSleepingOrders: an order about a real server that is not configured is
// told, can be taken back, and is kept for an hour by a box that knows no date.
func TestSleepingOrders(t *testing.T) {
	dir := t.TempDir()
	c := config(vs("10.0.0.1", nil, rs("10.0.1.1", 5), rs("10.0.1.2", 1)), vs("10.0.0.2", nil, rs("10.0.1.2", 1)))
	less := config(vs("10.0.0.1", nil, rs("10.0.1.1", 5)))
	w := orderedWorld(t, c)
	asleep := func() (out []string) {
		for _, o := range w.r.snapshot().head.Asleep {
			out = append(out, o.VirtualServer+" "+o.Addr.String()+" "+o.Action)
		}
		return out
	}
	drain := func() {
		t.Helper()
		w.r.configure(w.r.config+1, c)
		w.r.event()
		if _, err := w.r.order(status.ServerOrder{Addr: ip("10.0.1.2"), Action: status.OrderDrain, By: "ann"}); err != nil {
			t.Fatal(err)
		}
		w.r.configure(w.r.config+1, less)
		w.r.event()
		if d := cmp.Diff([]string{"[10.0.0.1]:tcp:80 10.0.1.2 drain", "[10.0.0.2]:tcp:80 10.0.1.2 drain"}, asleep()); d != "" {
			t.Errorf("asleep: %s", d)
		}
	}
	drain()
	if n := len(w.r.snapshot().head.Orders); n != 0 {
		t.Errorf("%d orders in force", n)
	}
	enable := func(q status.ServerOrder) error {
		q.Action, q.By = status.OrderEnable, "ann"
		_, err := w.r.order(q)
		return err
	}
	for _, q := range []status.ServerOrder{{Addr: ip("10.0.1.3")}, {Addr: ip("10.0.1.2"), Port: 81}, {Addr: ip("10.0.1.2"), VirtualServer: "[10.0.0.3]:tcp:80"}} {
		if err := enable(q); err == nil || len(asleep()) != 2 {
			t.Errorf("%+v: %v, asleep: %v", q, err, asleep())
		}
	}
	if err := enable(status.ServerOrder{Addr: ip("10.0.1.2"), Port: 80, VirtualServer: "[10.0.0.2]:tcp:80"}); err != nil || len(asleep()) != 1 {
		t.Errorf("%v, asleep: %v", err, asleep())
	}
	if err := enable(status.ServerOrder{Addr: ip("10.0.1.2")}); err != nil || len(asleep()) != 0 {
		t.Errorf("%v, asleep: %v", err, asleep())
	}
	// Only what is there is an error to any other action, as ever.
	if _, err := w.r.order(status.ServerOrder{Addr: ip("10.0.1.2"), Action: status.OrderDrain}); err == nil {
		t.Error("an order about a real server that is nowhere")
	}
	w.r.configure(w.r.config+1, c)
	w.r.event()
	if n := len(w.r.snapshot().head.Orders); n != 0 {
		t.Errorf("what was taken back is in force again: %d", n)
	}

	// The battery is empty: after a reboot it is 1970.
	drain()
	if w.clock = w.clock.Add(KeepOrders / 2); len(asleep()) != 2 {
		t.Fatal(asleep())
	}
	w.sweep()
	if err := w.r.orders.save(dir); err != nil {
		t.Fatal(err)
	}
	w.clock = time.Unix(100, 0)
	w.restart()
	orders, err := LoadOrders(dir)
	if err != nil {
		t.Fatal(err)
	}
	w.r.orders = orders
	w.r.configure(9, less)
	w.full()
	w.r.hear(health(9, less))
	w.sweep()
	if n := len(asleep()); n != 2 {
		t.Fatalf("%d orders sleep after the reboot", n)
	}
	w.clock = w.clock.Add(KeepOrders/2 - time.Minute)
	if w.sweep(); len(asleep()) != 2 {
		t.Error("forgotten before the hour is over")
	}
	w.clock = w.clock.Add(time.Minute)
	if w.sweep(); len(asleep()) != 0 {
		t.Error("kept for longer than an hour of this box's own time")
	}
}

func TestDamagedOrders(t *testing.T) {
	good := `{"virtualServer":"[10.0.0.1]:tcp:80","addr":"10.0.1.1","port":80,"action":"drain","since":"2026-01-02T03:04:05Z"}`
	for name, test := range map[string]struct {
		text string
		n    int
	}{
		"cut":            {`{"orders":[` + good[:40], 0},
		"nothing":        {"", 0},
		"noise":          {"\x00\xff", 0},
		"one of two bad": {`{"orders":[{"virtualServer":"x","addr":"10.0.1.1","action":"explode"},` + good + `]}`, 1},
		"no server":      {`{"orders":[{"action":"drain"},` + good + `]}`, 1},
		"weight":         {`{"orders":[{"virtualServer":"x","addr":"10.0.1.1","action":"weight","weight":99999999999}]}`, 0},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, ordersFile), []byte(test.text), 0o600); err != nil {
				t.Fatal(err)
			}
			o, err := LoadOrders(dir)
			if err == nil || !strings.Contains(err.Error(), "damaged") || len(o.list) != test.n {
				t.Errorf("%d orders, %v", len(o.list), err)
			}
			if b, _ := os.ReadFile(filepath.Join(dir, ordersFile+".damaged")); string(b) != test.text {
				t.Errorf("set aside: %q", b)
			}
			o.changed = true
			if err := o.save(dir); err != nil {
				t.Error(err)
			}
			if again, err := LoadOrders(dir); err != nil || len(again.list) != test.n {
				t.Errorf("afterwards: %d orders, %v", len(again.list), err)
			}
		})
	}
	if o, err := LoadOrders(t.TempDir()); err != nil || len(o.list) != 0 {
		t.Errorf("without a file: %v", err)
	}
}

func FuzzOrders(f *testing.F) {
	f.Add([]byte(`{"orders":[{"virtualServer":"x","addr":"10.0.1.1","port":80,"action":"weight","weight":7,"by":"anna","since":"2026-01-02T03:04:05Z","left":"2026-01-02T03:04:05Z"}]}`))
	f.Add([]byte(`{"orders":[null,1,{}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		o := &Orders{}
		o.decode(b)
		for _, k := range o.list {
			if how, _ := k.belief(); how == asConfigured || k.Weight < 0 && how == orderWeight {
				t.Errorf("%+v", k)
			}
		}
	})
}
