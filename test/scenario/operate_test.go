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

// weights are those of port 80's destinations in a box's kernel, by address; a
// destination that is not in the table is not in the map.
func (s scenario) weights(d *lab.Director) map[string]int {
	s.Helper()
	table, err := d.IPVS(s.ctx)
	s.must(err)
	got := map[string]int{}
	for _, v := range table.Services {
		for _, x := range v.Dests {
			if v.ID.Port == 80 && v.ID.Addr.String() == "10.10.0.80" {
				got[x.Addr.String()] = x.Weight
			}
		}
	}
	return got
}

func (s scenario) run(d *lab.Director, command string) string {
	s.Helper()
	out, err := d.Console(s.ctx, command, nil)
	if err != nil {
		s.Fatalf("%s: %s: %v\n%s", d.Name(), command, err, out)
	}
	return out
}

// contains waits until a command of the console prints all of the words.
func (s scenario) contains(d *lab.Director, command string, words ...string) {
	s.Helper()
	s.until(command, func() (bool, string) {
		out, err := d.Console(s.ctx, command, nil)
		if err != nil {
			return false, fmt.Sprintf("%v\n%s", err, out)
		}
		for _, w := range words {
			if !strings.Contains(out, w) {
				return false, fmt.Sprintf("no %q in\n%s", w, out)
			}
		}
		return true, ""
	})
}

// TestOrders: a real server is drained, weighed and disabled from the console
// without a request lost; orders outlive a commit, a restart of ipvs and a
// reboot; explain and the journal tell of them.
func TestOrders(t *testing.T) {
	s := begin(t, lab.Options{Config: web()}, 51)
	d := s.Directors[a]
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		d.Console(ctx, "enable 10.10.0.11", nil)
	})
	s.measured(func() {
		s.settle()
		d.Console(s.ctx, "enable 10.10.0.11", nil) // what the run before ordered
		s.inTable("10.10.0.11", true)
		s.inTable("10.10.0.12", true)
	}, func() (faults []string) {
		r := s.probe(wire.Probe{Kind: "http", Target: site, Every: every}, func(ctx context.Context) {
			if out := s.run(d, "drain 10.10.0.11:80"); !strings.Contains(out, "10.10.0.11:80: weight 0") {
				t.Errorf("drain: %s", out)
			}
			if w := s.weights(d); w["10.10.0.11"] != 0 || w["10.10.0.12"] == 0 {
				faults = append(faults, fmt.Sprintf("drained: %v", w))
			}
			s.run(d, "weight 10.10.0.11 7 of [10.10.0.80]:tcp:80")
			if w := s.weights(d); w["10.10.0.11"] != 7 {
				faults = append(faults, fmt.Sprintf("weighed: %v", w))
			}
			s.run(d, "drain 10.10.0.11:80")
			time.Sleep(time.Second) // of requests
			if w := s.weights(d); w["10.10.0.11"] != 0 {
				faults = append(faults, fmt.Sprintf("drained again: %v", w))
			}
		})
		if r.Failed() > 0 {
			faults = append(faults, fmt.Sprintf("requests were lost: %s", r))
		}
		return faults
	})
	s.contains(d, "explain server 10.10.0.11", "drains", "Ordered", "drain by", "HTTP_GET ok")
	s.contains(d, "show orders", "10.10.0.11:80  drain")

	s.run(d, "restart ipvs signal 9")
	s.until("ipvs is back with its orders", func() (bool, string) {
		out, err := d.Console(s.ctx, "show orders", nil)
		return err == nil && strings.Contains(out, "drain"), out
	})
	text := s.run(d, "show configuration")
	if _, err := d.Commit(s.ctx, []byte(strings.Replace(text, "delay_loop 1", "delay_loop 2", 1))); err != nil {
		t.Fatal(err)
	}
	if w := s.weights(d); w["10.10.0.11"] != 0 {
		t.Errorf("after a commit: %v", w)
	}
	s.must(d.Stop(s.ctx))
	s.waitMaster(51, b)
	s.settle()
	s.until("it is drained after a reboot", func() (bool, string) {
		w := s.weights(d)
		return w["10.10.0.12"] > 0 && w["10.10.0.11"] == 0, fmt.Sprint(w)
	})
	s.run(d, "disable 10.10.0.11")
	if w, ok := s.weights(d)["10.10.0.11"]; ok {
		t.Errorf("disabled, but in the table with weight %d", w)
	}
	s.run(d, "enable 10.10.0.11")
	s.inTable("10.10.0.11", true)
	s.contains(d, "show journal 10.10.0.11", "10.10.0.11", "drain")
	s.contains(d, "explain vrrp outside", "outside is MASTER", "Heard", "Priority", "Last changes")
}

// heartbeat is its block for both boxes: their addresses on every
// segment.
func (s scenario) heartbeat() string {
	var w strings.Builder
	w.WriteString("heartbeat {\n    key \"scenario scenario scenario 123456\"\n    interval 50\n    multiplier 4\n")
	for i, d := range s.Plan().Directors {
		for _, n := range s.Plan().Directors[1-i].Addresses {
			fmt.Fprintf(&w, "@%s peer %s\n", d.Name, n[0].Addr())
		}
	}
	w.WriteString("}\n")
	return w.String()
}

// slow is the configuration that people run: one second between
// advertisements, so that VRRP alone needs 3.6 s to replace a dead master.
func slow() []byte {
	return []byte(strings.ReplaceAll(string(web()), "advert_int 0.2", "advert_int 1"))
}

// TestHeartbeat: with an untouched advert_int of a second, a master that loses
// its power or its cable is replaced in a fraction of a second, and one that
// resigns without a lost request.
func TestHeartbeat(t *testing.T) {
	s := begin(t, lab.Options{Config: slow()}, 51, 52)
	s.must(s.Apply(s.ctx, lab.Options{Config: slow(), Blocks: s.heartbeat()}))
	s.waitMaster(51, a)
	for _, d := range s.Directors {
		s.contains(d, "show heartbeat", "peer UP", "outside", "inside")
	}
	// 50 ms on a machine of its own; the rest is for two emulated processors and
	// a client that share two real ones. VRRP would take 3 s or more.
	const soon = 1500 * time.Millisecond
	for _, c := range []struct {
		name, why string
		do        func(ctx context.Context) error
		most      time.Duration
	}{
		{"killed", "heartbeat", func(context.Context) error { s.Directors[a].Kill(); return nil }, soon},
		{"resigned", "hand", func(ctx context.Context) error {
			_, err := s.Directors[a].Console(ctx, "resign", nil)
			return err
		}, 500 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := s.in(t)
			s.measured(func() {
				s.settle()
				s.waitMaster(52, a)
				s.contains(s.Directors[b], "show heartbeat", "peer UP")
			}, func() (faults []string) {
				r := s.probe(wire.Probe{Kind: "udp", Target: "10.10.0.80:5353", Every: 10 * time.Millisecond, Timeout: 500 * time.Millisecond}, func(ctx context.Context) {
					s.must(c.do(ctx))
					s.waitMaster(51, b)
					s.waitMaster(52, b)
					time.Sleep(time.Second)
				})
				if r.Outage > c.most {
					faults = append(faults, fmt.Sprintf("%s: the client saw a gap of %v, want at most %v", c.name, r.Outage, c.most))
				}
				st, err := lab.Show[status.VRRP](s.ctx, s.Directors[b], "vrrp")
				s.must(err)
				for _, v := range st.Instances {
					if v.Name == "outside" && !strings.Contains(v.Evidence.Takeover, c.why) {
						faults = append(faults, fmt.Sprintf("it took over by %q (%s), want %q", v.Evidence.Takeover, v.Reason, c.why))
					}
				}
				if c.name == "resigned" && r.Failed() > 0 {
					faults = append(faults, fmt.Sprintf("a planned switchover lost requests: %s", r))
				}
				s.Directors[a].Console(s.ctx, "resume", nil)
				return faults
			})
			s.settle()
		})
	}
}

// TestSNMP: the agent runs while the configuration has it, and no longer.
func TestSNMP(t *testing.T) {
	s := begin(t, lab.Options{Config: web()}, 51)
	d := s.Directors[a]
	s.until("without an snmp block snmp is stopped", func() (bool, string) {
		p := s.process(d, "snmp")
		return p.State == "stopped" && p.PID == 0, p.State
	})
	s.must(s.Apply(s.ctx, lab.Options{Config: []byte(strings.Replace(string(web()), "vrrp_version 3", "vrrp_version 3\n    enable_snmp_vrrp\n    enable_traps", 1)),
		Blocks: "snmp {\n    listen 0.0.0.0\n    community scenario1\n}\n"}))
	s.until("snmp is ready", func() (bool, string) {
		p := s.process(d, "snmp")
		return p.State == "ready", p.State
	})
	s.must(s.Apply(s.ctx, lab.Options{Config: web()}))
	s.until("snmp is stopped", func() (bool, string) {
		p := s.process(d, "snmp")
		return p.State == "stopped", p.State
	})
}

// TestVirtualMAC: with use_vmac and no_accept the addresses are on the virtual
// MAC, the box does not answer a ping on them, IPVS balances all the same, and
// the other box takes over with the same MAC.
func TestVirtualMAC(t *testing.T) {
	text := strings.Replace(string(web()), "    virtual_router_id 51\n", "    virtual_router_id 51\n    use_vmac\n    vmac_xmit_base\n    no_accept\n", 1)
	s := begin(t, lab.Options{Config: []byte(text)}, 51)
	s.answers(site, anybody)
	s.contains(s.Directors[a], "show interfaces", "vrrp.51", "00:00:5e:00:01:33", "10.10.0.80", "no_accept")
	if err := s.Node.Ping(s.ctx, "10.10.0.80"); err == nil {
		t.Error("the box answers a ping to an address of no_accept")
	}
	s.must(s.Directors[a].Stop(s.ctx))
	s.waitMaster(51, b)
	s.answers(site, anybody)
	s.contains(s.Directors[b], "show interfaces", "00:00:5e:00:01:33")
	s.settle()
	s.must(s.Apply(s.ctx, lab.Options{Config: web()}))
	s.until("the virtual MAC is gone", func() (bool, string) {
		out := s.run(s.Directors[a], "show interfaces")
		return !strings.Contains(out, "00:00:5e:00:01:33"), out
	})
	s.pings("10.10.0.80")
}

// TestTrackFile: a number written to a file moves the mastership.
func TestTrackFile(t *testing.T) {
	text := strings.Replace(string(web()), "vrrp_instance six {\n", `track_file load {
    file /run/load
    weight -1
    init_file 0 overwrite
}
vrrp_instance six {
    track_file {
        load
    }
`, 1)
	s := begin(t, lab.Options{Config: []byte(text)}, 53)
	s.contains(s.Directors[a], "explain vrrp six", "file load", "effective 100")
	s.run(s.Directors[a], "track-file load 50")
	s.waitMaster(53, b)
	s.contains(s.Directors[a], "explain vrrp six", "effective 50")
	s.run(s.Directors[a], "track-file load 0")
	s.waitMaster(53, a)
}
