package firmware

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"ballast/image/disk"
	"ballast/services/ipc/status"
	"ballast/test/firmware/machine"
	"ballast/test/lab"
	"ballast/test/lab/plan"
	"ballast/test/lab/wire"
)

// pairSite is a web site balanced by direct routing, whose connections are
// synchronised.
const pairSite = `global_defs {
    vrrp_version 3
    lvs_sync_daemon eth0 outside
}
vrrp_instance outside {
    state MASTER
    interface eth0
    virtual_router_id 51
    priority 100
    advert_int 1
    virtual_ipaddress {
        10.10.0.80/24
    }
}
virtual_server 10.10.0.80 80 {
    delay_loop 1
    lb_algo rr
    lb_kind DR
    protocol TCP
    real_server 10.10.0.11 80 {
        TCP_CHECK {
            connect_timeout 1
        }
    }
    real_server 10.10.0.12 80 {
        TCP_CHECK {
            connect_timeout 1
        }
    }
}
`

// onePair is one configuration for both boxes: they know each other by their keys,
// and hear each other's heartbeat.
func onePair(p plan.Plan, login string, keys [2]string) []byte {
	var w strings.Builder
	each := func(format string, arg func(i int) any) {
		for i, d := range p.Directors {
			fmt.Fprintf(&w, "    @%s "+format+"\n", d.Name, arg(i))
		}
	}
	at := func(i int) string { return p.Directors[i].Addresses[0][0].Addr().String() }
	w.WriteString("system {\n")
	each("host_name %s", func(i int) any { return p.Directors[i].Name })
	fmt.Fprintf(&w, "    login admin {\n        key \"%s\"\n        role admin\n    }\n}\n", login)
	for n, seg := range p.Segments {
		fmt.Fprintf(&w, "interface %s {\n", seg.Interface)
		each("mac %s", func(i int) any { return p.Directors[i].MACs[n] })
		for k := range p.Directors[0].Addresses[n] {
			each("address %s", func(i int) any { return p.Directors[i].Addresses[n][k] })
		}
		w.WriteString("}\n")
	}
	fmt.Fprintf(&w, "interface %s {\n    dhcp\n", p.Management)
	each("mac %s", func(i int) any { return plan.ManagementMAC(i) })
	w.WriteString("}\npeer {\n")
	each("address %s", func(i int) any { return at(1 - i) })
	each("key \"%s\"", func(i int) any { return keys[1-i] })
	each("from %s", func(i int) any { return at(i) })
	// Emulated processors that boot stand still for a while.
	w.WriteString("}\nheartbeat {\n    key \"scenario scenario scenario 123456\"\n    interval 100\n    multiplier 10\n")
	each("peer %s", func(i int) any { return at(1 - i) })
	w.WriteString("}\n")
	return append([]byte(w.String()), strings.ReplaceAll(pairSite, "priority 100", fmt.Sprintf("@%s priority 200\n    @%s priority 100", p.Directors[0].Name, p.Directors[1].Name))...)
}

// pairLab is two directors that boot from disks, and what is around them.
type pairLab struct {
	*testing.T
	*lab.Lab
	ctx context.Context
}

func (s pairLab) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// until polls what nothing announces.
func (s pairLab) until(what string, within time.Duration, ok func() error) {
	s.Helper()
	for end := time.Now().Add(within); ; {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			s.Fatalf("not within %v: %s: %v", within, what, err)
		}
		select {
		case <-time.After(500 * time.Millisecond):
		case <-s.ctx.Done():
			s.Fatalf("%s: %v: %v", what, s.ctx.Err(), err)
		}
	}
}

func (s pairLab) run(d *lab.Director, command string, stdin []byte) string {
	s.Helper()
	out, err := d.Console(s.ctx, command, stdin)
	s.must(err)
	return out
}

// firmware is what a box says of its firmware.
func (s pairLab) firmware(i int) (status.Firmware, error) {
	ctx, cancel := context.WithTimeout(s.ctx, 10*time.Second)
	defer cancel()
	return lab.Show[status.Firmware](ctx, s.Directors[i], "firmware")
}

// ended waits until both boxes say how the upgrade ended.
func (s pairLab) ended(within time.Duration, want func(status.Firmware) string) {
	s.Helper()
	s.until("both boxes say how it ended", within, func() error {
		for i, d := range s.Directors {
			st, err := s.firmware(i)
			switch {
			case err != nil:
				return err
			case st.Pair == nil || st.Pair.Goes:
				return fmt.Errorf("%s: %+v", d.Name(), st.Pair)
			}
			if why := want(st); why != "" {
				return fmt.Errorf("%s: %s: %+v", d.Name(), why, st.Pair)
			}
		}
		return nil
	})
}

// startPair boots a pair from disks and makes it one.
func startPair(t *testing.T) pairLab {
	if testing.Short() {
		t.Skip("boots machines")
	}
	// It waits for its turn, however long that takes.
	l, err := lab.Start(t.Context(), lab.Options{
		Name: t.Name(), Config: []byte(pairSite), Log: func(s string) { t.Log(s) },
		Disk: func(ctx context.Context, _ int, file string, seed []byte) error {
			own, err := fw.WithConfig(seed)
			if err != nil {
				return err
			}
			return own.Disk(ctx, file, diskSize, disk.Options{})
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	ctx, cancel := context.WithTimeout(t.Context(), 25*time.Minute)
	t.Cleanup(cancel)
	s := pairLab{t, l, ctx}
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		for i, d := range l.Directors {
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			out, err := d.Console(ctx, "show firmware; show log firmware 60; show vrrp", nil)
			cancel()
			t.Logf("%s: %v\n%s", d.Name(), err, out)
			console := l.Directors[i].VM().Console()
			t.Logf("its serial line:\n%s", console[max(0, len(console)-4000):])
		}
	})
	var keys [2]string
	for i, d := range s.Directors {
		// The console answers before all services do.
		_, err := d.VM().WaitConsole(s.ctx, 0, "ready: ")
		s.must(err)
		var st struct {
			Wire status.Peer `json:"wire"`
		}
		s.must(json.Unmarshal([]byte(s.run(d, "show peer --json", nil)), &st))
		keys[i] = st.Wire.PublicKey
	}
	_, login, _ := strings.Cut(s.run(s.Directors[0], "show configuration", nil), "key \"")
	login, _, _ = strings.Cut(login, "\"")
	for _, d := range s.Directors {
		s.run(d, "commit override local", onePair(s.Plan(), login, keys))
	}
	for i, d := range s.Directors {
		s.until("in step", 2*machine.Slow, func() error {
			out, err := d.Console(s.ctx, "show peer", nil)
			if err == nil && !strings.Contains(out, "In step      yes\n") {
				err = fmt.Errorf("%s", out)
			}
			return err
		})
		role := []string{"MASTER", "BACKUP"}[i]
		s.until(role, 2*machine.Slow, func() error {
			v, err := d.VRRP(s.ctx)
			if err == nil && (len(v.Instances) != 1 || v.Instances[0].State != role || v.Heartbeat == nil || !v.Heartbeat.Up) {
				err = fmt.Errorf("%+v", v.Instances)
			}
			return err
		})
	}
	s.until("the site answers", 2*machine.Slow, func() error {
		_, err := s.Node.Get(s.ctx, "10.10.0.80:80", "/", 2*time.Second)
		return err
	})
	return s
}

// under runs something under the eyes of clients: new connections, and some that
// stay.
func (s pairLab) under(what string, do func()) {
	s.Helper()
	http, err := s.Node.Probe(wire.Probe{Kind: "http", Target: "10.10.0.80:80", Every: 100 * time.Millisecond, Timeout: 10 * time.Second}, nil)
	s.must(err)
	held, err := s.Node.Probe(wire.Probe{Kind: "held", Target: "10.10.0.80:80", Every: time.Second, Timeout: 20 * time.Second, Conns: 5}, nil)
	s.must(err)
	s.must(http.Answered(s.ctx))
	s.must(held.Answered(s.ctx))
	start := time.Now()
	do()
	took := time.Since(start)
	for name, p := range map[string]*lab.Probe{"requests": http, "held connections": held} {
		r, err := p.Stop(s.ctx)
		s.must(err)
		s.Logf("%s, %v: %s: %d failed of %d: %s", what, took.Round(time.Second), name, r.Failed(), r.Sent, r)
		if r.Failed() > 0 {
			s.Errorf("%s: %s: %d failed", what, name, r.Failed())
		}
	}
}

// TestPair: both boxes of a pair are upgraded while clients are served, and no
// request fails; a firmware that does not start on the backup stops it there, and
// nothing else reboots.
func TestPair(t *testing.T) {
	s := startPair(t)
	da, db := s.Directors[0], s.Directors[1]

	bad, err := fw.With("broken-2", fw.ID.Build+1, nil)
	s.must(err)
	bad.CmdLine += " rdinit=/nowhere root=/dev/none panic=1"
	good, err := fw.With("good-3", fw.ID.Build+2, nil)
	s.must(err)
	bundles := map[string][]byte{}
	for name, f := range map[string]*machine.Firmware{"bad": bad, "good": good} {
		b, err := f.Bundle(s.ctx)
		s.must(err)
		bundles[name] = b
	}
	s.under("a firmware that does not start", func() {
		out, err := da.Console(s.ctx, "upgrade pair", bundles["bad"])
		if err == nil || !strings.Contains(err.Error(), "stopped while director-b boots the new firmware: director-b is back with "+fw.ID.Version) {
			t.Fatalf("%v\n%s", err, out)
		}
		t.Logf("the user reads: %v", err)
		s.ended(2*machine.Slow, func(st status.Firmware) string {
			if st.Running.Version != fw.ID.Version || !strings.Contains(st.Notice, "director-b is back with") {
				return st.Notice
			}
			return ""
		})
	})
	if n := strings.Count(da.VM().Console(), "init is up"); n != 1 {
		t.Errorf("director-a has started %d times", n)
	}

	s.until("director-b is backup again", 2*machine.Slow, func() error {
		v, err := db.VRRP(s.ctx)
		if err == nil && (len(v.Instances) != 1 || v.Instances[0].State != "BACKUP") {
			err = fmt.Errorf("%+v", v.Instances)
		}
		return err
	})
	s.under("pair upgrade", func() {
		// From the box that reboots first: its session ends with that.
		out, err := db.Console(s.ctx, "upgrade pair", bundles["good"])
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		s.until("director-a is told", 2*machine.Slow, func() error {
			st, err := s.firmware(0)
			if err == nil && (st.Pair == nil || st.Pair.To.Version != "good-3") {
				err = fmt.Errorf("%+v", st.Pair)
			}
			return err
		})
		s.ended(12*time.Minute, func(st status.Firmware) string {
			if !st.Pair.Done || st.Running.Version != "good-3" || st.Trial != nil {
				return "runs " + st.Running.Version
			}
			return ""
		})
	})
	t.Log("\n" + s.run(da, "show firmware", nil) + s.run(da, "show journal pair", nil))
	s.until("director-a is master again", 2*machine.Slow, func() error {
		v, err := da.VRRP(s.ctx)
		if err == nil && (len(v.Instances) != 1 || v.Instances[0].State != "MASTER") {
			err = fmt.Errorf("%+v", v.Instances)
		}
		return err
	})
	for i, want := range []int{2, 4} { // the backup: first boot, its way back, the new one; two starts of the broken one say nothing
		if n := strings.Count(s.Directors[i].VM().Console(), "init is up"); n > want {
			t.Errorf("%s has started %d times", s.Directors[i].Name(), n)
		}
	}
}
