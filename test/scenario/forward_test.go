package scenario

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"ballast/test/lab"
	"ballast/test/lab/wire"
)

// web is the configuration of most tests: direct routing on the service
// segment, NAT through the inside one, tunnels, UDP, and IPv6.
func web() []byte {
	return config("    lvs_sync_daemon eth0 outside\n",
		"vrrp_sync_group pair {\n    group {\n        outside\n        inside\n    }\n}\n",
		vrrp("outside", 51, "eth0", "10.10.0.80/24", "10.10.0.81/24"),
		vrrp("inside", 52, "eth1", "10.20.0.1/24"),
		vrrp("six", 53, "eth0", "fd00:10::80"),
		service("10.10.0.80", 80, "DR", "10.10.0.11", "10.10.0.12"),
		service("10.10.0.80", 8080, "NAT", "10.20.0.11", "10.20.0.12"),
		service("10.10.0.81", 80, "TUN", "10.10.0.21", "10.10.0.22"),
		service("fd00:10::80", 80, "DR", "fd00:10::11", "fd00:10::12"),
		`virtual_server 10.10.0.80 5353 {
    delay_loop 1
    lb_algo rr
    lb_kind DR
    protocol UDP
    real_server 10.10.0.11 5353 {
    }
    real_server 10.10.0.12 5353 {
    }
}
`)
}

// TestForwarding: bodies arrive byte for byte over each forwarding method, and
// each real server has its share.
func TestForwarding(t *testing.T) {
	s := begin(t, lab.Options{Config: web()}, 51, 52, 53)
	for name, target := range map[string]string{
		"DR": "10.10.0.80:80", "NAT": "10.10.0.80:8080", "TUN": "10.10.0.81:80", "IPv6 DR": "[fd00:10::80]:80",
	} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			s := s.in(t)
			s.answers(target, anybody)
			servers := map[string]int{}
			s.until("both real servers answer", func() (bool, string) {
				g, err := s.Node.Get(s.ctx, target, "/bytes/300000?seed="+strings.ReplaceAll(name, " ", ""), 10*time.Second)
				if err != nil {
					return false, err.Error()
				}
				if g.Bytes != 300000 || g.Differ >= 0 || g.Status != 200 {
					t.Fatalf("%s: %+v: the body is not what was sent", target, g)
				}
				servers[g.Server]++
				return len(servers) == 2, g.Server
			})
		})
	}
	t.Run("UDP", func(t *testing.T) {
		s := s.in(t)
		s.measured(func() {}, func() (faults []string) {
			r := s.probe(wire.Probe{Kind: "udp", Target: "10.10.0.80:5353", Every: 20 * time.Millisecond}, func(context.Context) {
				time.Sleep(time.Second)
			})
			if r.Failed() > 0 {
				faults = append(faults, fmt.Sprintf("udp: %s", r))
			}
			return faults
		})
	})
}

// probe asks while do runs and returns what the client saw. It begins with the
// first answer.
func (s scenario) probe(p wire.Probe, do func(ctx context.Context)) lab.Report {
	s.Helper()
	pr, err := s.Node.Probe(p, nil)
	s.must(err)
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	err = pr.Answered(ctx)
	if err == nil {
		do(s.ctx)
	}
	r, serr := pr.Stop(s.ctx)
	s.must(err)
	s.must(serr)
	s.Logf("%s %s: %s", p.Kind, p.Target, r)
	return r
}

// TestRealServer: a real server that dies gets no more requests once its check
// has failed, and has its share again when it is back.
func TestRealServer(t *testing.T) {
	s := begin(t, lab.Options{Config: web()}, 51)
	target := "10.10.0.80:80"
	rs1 := s.Node.Server("rs1")
	s.measured(func() {
		s.answers(target, only("rs1"))
		s.answers(target, only("rs2"))
	}, func() (faults []string) {
		r := s.probe(wire.Probe{Kind: "http", Target: target, Every: 50 * time.Millisecond}, func(ctx context.Context) {
			s.must(rs1.Stop(ctx))
			s.inTable("10.10.0.11", false)
			s.must(rs1.Start(ctx))
			s.inTable("10.10.0.11", true)
		})
		// delay_loop 1 s, one retry after 1 s: at most half the requests of 2 to 4 seconds.
		if r.Failed() > 60 || r.Errors["refused"]+r.Errors["reset"] != r.Failed() {
			faults = append(faults, fmt.Sprintf("a dead real server: %s", r))
		}
		return faults
	})
	// One that answers, but with an error, counts as dead too.
	s.must(rs1.Control(wire.ServeControl{Status: 503}))
	s.inTable("10.10.0.11", false)
	s.must(rs1.Control(wire.ServeControl{}))
	s.inTable("10.10.0.11", true)
}

// inTable waits until the master's table sends to a real server, or does not.
func (s scenario) inTable(addr string, want bool) {
	s.Helper()
	s.until(addr+" in or out of the table", func() (bool, string) {
		table, err := s.Directors[a].IPVS(s.ctx)
		if err != nil {
			return false, err.Error()
		}
		found := false
		for _, v := range table.Services {
			for _, d := range v.Dests {
				found = found || d.Addr.String() == addr && v.ID.Port == 80 && d.Weight > 0
			}
		}
		return found == want, table.LastPass.String()
	})
}
