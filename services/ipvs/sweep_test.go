package ipvs

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ballast/configs/model"
	"ballast/services/ipc"
	"ballast/services/ipvs/ipvsnl"
)

func TestSweepRepairs(t *testing.T) {
	c := config(vs("10.0.0.1", nil, rs("10.0.1.1", 1), rs("10.0.1.2", 1)), vs("10.0.0.2", nil, rs("10.0.1.1", 1)))
	c.Global.Timeouts.TCP = 100 * time.Second
	w := orderedWorld(t, c)
	var log strings.Builder
	w.r.log = slog.New(ipc.NewLogHandler(&log))
	find := func(addr string) *ServiceState {
		return w.k.state.find(model.ServiceID{Addr: ip(addr), Port: 80, Protocol: model.TCP})
	}
	if got := w.do(w.sweep); got != "" {
		t.Fatalf("a sweep over a good table does %s", got)
	}
	for what, test := range map[string]struct {
		harm func()
		n    uint64
	}{
		"weight": {func() { find("10.0.0.1").Dests[0].Weight = 9 }, 1},
		"destination deleted": {func() {
			s := find("10.0.0.1")
			s.Dests = slices.Delete(s.Dests, 0, 1)
		}, 1},
		"destination added": {func() {
			s := find("10.0.0.1")
			s.Dests = append(s.Dests, ipvsnl.DestState{Dest: ipvsnl.Dest{Addr: ip("10.9.9.9"), Weight: 1}, Active: 3})
		}, 1},
		"scheduler":       {func() { find("10.0.0.2").Scheduler = "rr" }, 1},
		"service deleted": {func() { w.k.state.Services = slices.Delete(w.k.state.Services, 0, 1) }, 3},
		"service added": {func() {
			w.k.do(ipvsnl.Request{Verb: ipvsnl.AddService, Service: ipvsnl.Service{ID: model.ServiceID{Mark: 3}, Scheduler: "rr"}})
			w.k.do(ipvsnl.Request{Verb: ipvsnl.AddDest, Service: ipvsnl.Service{ID: model.ServiceID{Mark: 3}}, Dest: ipvsnl.Dest{Addr: ip("10.9.9.9"), Weight: 1}})
			w.k.state.sort()
		}, 1},
		"flush":    {func() { w.k.state.Services = nil }, 5},
		"timeouts": {func() { w.k.state.Timeouts.TCP = 7 }, 1},
	} {
		log.Reset()
		test.harm()
		before := w.r.repairs
		w.sweep()
		if n := w.r.repairs - before; n != test.n || uint64(len(w.r.repaired)) != n || !w.r.lastRepair.Equal(w.clock) {
			t.Errorf("%s: %d repairs, want %d: %q at %s", what, n, test.n, w.r.repaired, w.r.lastRepair)
		}
		if n := strings.Count(log.String(), "\n"); n != 1 || !strings.Contains(log.String(), "somebody else had changed it") {
			t.Errorf("%s: %d lines\n%s", what, n, &log)
		}
		for _, s := range w.k.state.Services { // the stranger's connections end
			for i := range s.Dests {
				s.Dests[i].Active = 0
			}
		}
		w.sweep()
		w.sweep()
		checkHolds(t, w)
		if got := w.do(w.sweep); got != "" {
			t.Errorf("%s: afterwards %s", what, got)
		}
	}
}

// What was read before an operation and comes in after it is no repair.
func TestSweepThatIsLate(t *testing.T) {
	c := config(vs("10.0.0.1", nil, rs("10.0.1.1", 1), rs("10.0.1.2", 1)), vs("10.0.0.2", nil, rs("10.0.1.1", 1)))
	w := orderedWorld(t, c)
	list, _ := w.k.Services()
	d, tm, _ := w.k.Rest()
	ids := []model.ServiceID{list[0].ID, list[1].ID}
	dests, _ := w.k.Dests(ids, nil)
	w.r.hear(health(1, c, "10.0.1.1"))
	w.r.configure(2, config(c.VirtualServers[0]))
	w.r.event()
	got := w.do(func() {
		w.r.sweepList(list, d, tm)
		w.r.event()
		w.r.sweepDests(ids, dests)
		w.r.event()
	})
	if strings.Contains(got, "add") || strings.Contains(got, "edit") || w.r.repairs != 0 {
		t.Errorf("%d repairs, %s", w.r.repairs, got)
	}
	checkKept(t, w)
}

func TestSweepReadsSlices(t *testing.T) {
	var v []model.VirtualServer
	for i := range 3*sliceSize + 5 {
		v = append(v, vs(fmt.Sprintf("10.0.%d.%d", i/200, i%200+1), nil, rs("10.1.1.1", 1)))
	}
	w := orderedWorld(t, config(v...))
	before := w.k.dumps
	w.k.state.Services[150].Dests[0].Weight = 4
	if got := w.do(w.sweep); strings.Count(got, "\n") != 1 || w.k.dumps-before != 1 || len(w.k.looked) != 1 {
		t.Errorf("%d dumps of %d services: %s", w.k.dumps-before, len(w.k.looked), got)
	}
	for _, s := range w.k.state.Services {
		s.Stats.Conns = 7
	}
	w.sweep()
	for _, s := range w.r.snapshot().status().Services {
		if s.Stats.Conns != 7 {
			t.Fatalf("%s: statistics %+v", s.ID, s.Stats)
		}
	}
}

// An address that is not there yet is waited for: one line, and done at once
// when something changes.
func TestWaitsForAddresses(t *testing.T) {
	c := config(vs("10.0.0.1", nil, rs("10.0.1.1", 1), rs("10.0.1.2", 1)))
	c.Global.SyncDaemon = &model.SyncDaemon{Interface: "eth1"}
	w := newWorld(t)
	var log strings.Builder
	w.r.log = slog.New(ipc.NewLogHandler(&log))
	w.k.strict = false
	w.k.refuse = func(r ipvsnl.Request) error {
		switch r.Verb {
		case ipvsnl.AddDest:
			return errno(unix.EINVAL)
		case ipvsnl.StartDaemon:
			return errno(unix.ENODEV)
		}
		return nil
	}
	w.r.configure(1, c)
	w.full()
	again := func() { w.clock = w.clock.Add(time.Second); w.r.due(false); w.r.event() }
	for range 10 {
		again()
	}
	if n := strings.Count(log.String(), "waiting for addresses"); n != 1 || strings.Contains(log.String(), "ERROR") || strings.Contains(log.String(), "rror") {
		t.Errorf("%d lines:\n%s", n, &log)
	}
	if !strings.Contains(w.r.problem(), "invalid argument") {
		t.Errorf("problem %q", w.r.problem())
	}
	log.Reset()
	for range 20 {
		again()
	}
	if n := strings.Count(log.String(), "no interface eth1"); n != 2 { // once for each daemon
		t.Errorf("after a while %d complaints:\n%s", n, &log)
	}
	w.k.refuse = nil
	w.r.due(true)
	w.r.event()
	if w.r.problem() != "" || len(w.k.state.Services[0].Dests) != 2 || len(w.k.state.Daemons) != 2 || w.r.repairs != 0 {
		t.Errorf("when something changed: %q, %d repairs", w.r.problem(), w.r.repairs)
	}
}

// TestConnectionLost: when the kernel's answers are lost everything is read
// again, what is missing is done, and no error stays behind.
func TestConnectionLost(t *testing.T) {
	w := newWorld(t)
	c := config(vs("10.0.0.1", nil, rs("10.0.1.1", 1)))
	w.r.configure(1, c)
	w.full()
	w.r.hear(health(1, c))
	w.r.event()
	dumps := w.k.dumps
	w.k.cut = errors.New("ipvs: netlink: connection lost")
	w.r.configure(2, config(vs("10.0.0.1", nil, rs("10.0.1.1", 5))))
	w.r.event()
	if got := w.r.problem(); got != "ipvs: netlink: connection lost" {
		t.Errorf("problem %q", got)
	}
	if got := w.do(w.r.event); !strings.HasPrefix(got, "edit destination [10.0.1.1]:tcp:80 of [10.0.0.1]:tcp:80 to ") || strings.Count(got, "\n") != 1 {
		t.Errorf("again: %q", got)
	}
	if w.r.problem() != "" || w.k.dumps == dumps || w.r.repairs != 0 || w.k.state.Services[0].Dests[0].Weight != 5 {
		t.Errorf("problem %q, %d dumps, %d repairs, %+v", w.r.problem(), w.k.dumps-dumps, w.r.repairs, w.k.state.Services[0].Dests)
	}
}

// TestHold: a commit of a large table is not disturbed by the sweep, and many of
// them do not put it off for ever.
func TestHold(t *testing.T) {
	start := time.Now()
	s := newSweeper()
	s.next = start
	if s.hold(start, largeTable); !s.due().Equal(start) {
		t.Error("a small table is not swept")
	}
	if s.hold(start, largeTable+1); !s.due().Equal(start.Add(calm)) {
		t.Errorf("swept %v after a commit", s.due().Sub(start))
	}
	for d := time.Duration(0); d < 2*maxPeriod; d += time.Second {
		s.hold(start.Add(d), largeTable+1)
	}
	if !s.due().Equal(start.Add(maxPeriod)) {
		t.Errorf("put off for %v", s.due().Sub(start))
	}
	s.next = start.Add(2 * maxPeriod)
	if !s.due().Equal(s.next) {
		t.Error("the pace of the sweep is not kept")
	}
}
