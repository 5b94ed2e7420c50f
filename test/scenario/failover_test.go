package scenario

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"ballast/services/ipc/status"
	"ballast/test/lab"
	"ballast/test/lab/wire"
)

const site = "10.10.0.80:80"

// every is the pace of the client in the failover tests.
const every = 20 * time.Millisecond

// settle brings director-a back as master with its cables in.
func (s scenario) settle() {
	s.Helper()
	d := s.Directors[a]
	if !d.Running() {
		s.must(d.Boot(s.ctx))
		s.must(d.WaitConsole(s.ctx))
	}
	s.must(d.Unplug(s.ctx, false))
	s.waitMaster(51, a)
	s.answers(site, anybody)
}

// TestFailover: whatever happens to the master, the other one takes over, and
// the first one takes back what is its own when it returns.
func TestFailover(t *testing.T) {
	s := begin(t, lab.Options{Config: web()}, 51, 52, 53)
	s.answers(site, anybody)
	// The master-down interval is 0.72 s. What comes on top on two emulated
	// processors that boot and balance at the same time is not the product's.
	const dead, resigned = 3 * time.Second, 1500 * time.Millisecond
	for _, c := range []struct {
		name string
		do   func(ctx context.Context) error
		most time.Duration
	}{
		{"stopped", s.Directors[a].Stop, resigned},
		{"killed", func(context.Context) error { s.Directors[a].Kill(); return nil }, dead},
		{"unplugged", func(ctx context.Context) error { return s.Directors[a].Unplug(ctx, true) }, dead},
		{"resigned", func(ctx context.Context) error {
			_, err := s.Directors[a].Console(ctx, "resign", nil)
			return err
		}, resigned},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := s.in(t)
			s.measured(s.settle, func() (faults []string) {
				r := s.probe(wire.Probe{Kind: "http", Target: site, Every: every, Timeout: 500 * time.Millisecond}, func(ctx context.Context) {
					s.must(c.do(ctx))
					for _, v := range []uint8{51, 52, 53} {
						s.waitMaster(v, b)
					}
					s.answers(site, anybody)
				})
				if r.Outage > c.most {
					faults = append(faults, fmt.Sprintf("%s: the client saw a gap of %v, want at most %v", c.name, r.Outage, c.most))
				}
				s.answers("10.10.0.80:8080", anybody) // the inside gateway came along
				s.Directors[a].Console(s.ctx, "resume", nil)
				return faults
			})
			s.settle()
		})
	}
}

// TestConnectionsSurvive: connections that the client holds go on over the
// second box, because it knows them from the sync daemon.
func TestConnectionsSurvive(t *testing.T) {
	s := begin(t, lab.Options{Config: web()}, 51)
	s.settle()
	s.until("the sync daemons run", func() (bool, string) {
		for i, role := range []string{"master", "backup"} {
			table, err := s.Directors[i].IPVS(s.ctx)
			if err != nil {
				return false, err.Error()
			}
			if len(table.Daemons) != 1 || table.Daemons[0].Role != role {
				return false, s.Directors[i].Name()
			}
		}
		return true, ""
	})
	r := s.probe(wire.Probe{Kind: "held", Target: site, Every: 100 * time.Millisecond, Timeout: 15 * time.Second, Conns: 10}, func(ctx context.Context) {
		time.Sleep(8 * time.Second) // the kernel sends what the other one should know after 2 to 3 s
		s.Directors[a].Kill()
		s.waitMaster(51, b)
		s.answers(site, anybody)
		time.Sleep(3 * time.Second) // TCP's retransmission timers have backed off
	})
	if r.Failed() > 0 {
		t.Errorf("%d of 10 connections broke: %s", r.Failed(), r)
	}
	if r.Slowest < 200*time.Millisecond {
		t.Errorf("the slowest answer took %v: was there a failover?", r.Slowest)
	}
	s.settle()
}

// TestConnectionsComeBack: the box that should be master was away, hears again and
// takes back its place; connections that the other one began meanwhile go on.
func TestConnectionsComeBack(t *testing.T) {
	s := begin(t, lab.Options{Config: web()}, 51)
	s.settle()
	s.must(s.Directors[a].Unplug(s.ctx, true))
	s.waitMaster(51, b)
	s.answers(site, anybody)
	// The kernel tells of a connection every 10 s: these are told at different times.
	var probes []*lab.Probe
	for range 6 {
		p, err := s.Node.Probe(wire.Probe{Kind: "held", Target: site, Every: 500 * time.Millisecond, Timeout: 15 * time.Second, Conns: 3}, nil)
		s.must(err)
		s.must(p.Answered(s.ctx))
		probes = append(probes, p)
		time.Sleep(2 * time.Second)
	}
	s.must(s.Directors[a].Unplug(s.ctx, false))
	s.until("director-a says what it waits for", func() (bool, string) {
		out, err := s.Directors[a].Console(s.ctx, "explain vrrp outside", nil)
		if err != nil {
			return false, err.Error()
		}
		return strings.Contains(strings.Join(strings.Fields(out), " "), "(lvs_sync_daemon: until then it is told of the connections)"), out
	})
	s.settle()
	time.Sleep(2 * time.Second) // each connection has sent something over director-a
	for i, p := range probes {
		r, err := p.Stop(s.ctx)
		s.must(err)
		if r.Failed() > 0 {
			t.Errorf("%d of 3 connections that were %d s old broke: %s", r.Failed(), 12-2*i, r)
		}
	}
}

// TestProcessKilled: a process that is killed comes back without anybody
// outside noticing.
func TestProcessKilled(t *testing.T) {
	s := begin(t, lab.Options{Config: web()}, 51, 52, 53)
	s.settle()
	for _, name := range []string{"vrrp", "pacer", "ipvs", "health", "net", "conf", "notify"} {
		t.Run(name, func(t *testing.T) {
			s := s.in(t)
			d := s.Directors[a]
			s.measured(s.settle, func() (faults []string) {
				before := s.process(d, name)
				begin := time.Now()
				r := s.probe(wire.Probe{Kind: "http", Target: site, Every: every, Timeout: 2 * time.Second}, func(ctx context.Context) {
					_, err := d.Console(ctx, "restart "+name+" signal 9", nil)
					s.must(err)
					s.until(name+" is back", func() (bool, string) {
						p := s.process(d, name)
						return p.PID != before.PID && p.State == "ready", p.State
					})
					time.Sleep(time.Second) // a failover would have come by now
				})
				if r.Failed() > 0 {
					faults = append(faults, fmt.Sprintf("%s killed: %s", name, r))
				}
				if e := s.since(begin); len(e) > 0 {
					faults = append(faults, fmt.Sprintf("%s killed: the master changed: %v", name, e))
				}
				return faults
			})
		})
	}
}

func (s scenario) process(d *lab.Director, name string) status.Process {
	s.Helper()
	st, err := lab.Show[status.Init](s.ctx, d, "processes")
	s.must(err)
	for _, p := range st.Services {
		if p.Name == name {
			return p
		}
	}
	s.Fatalf("%s has no process %s", d.Name(), name)
	return status.Process{}
}
