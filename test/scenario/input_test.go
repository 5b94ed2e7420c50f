package scenario

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"ballast/test/lab"
	"ballast/test/lab/wire"
)

// TestBadInput: what users send by mistake is refused with its reason, and what
// runs goes on running.
func TestBadInput(t *testing.T) {
	s := begin(t, lab.Options{Config: web()}, 51)
	good := string(web())
	twice := vrrp("one", 51, "eth0", "10.10.0.80/24") + vrrp("two", 51, "eth0", "10.10.0.82/24")
	d := s.Directors[a]
	s.measured(s.settle, func() (faults []string) {
		r := s.probe(wire.Probe{Kind: "http", Target: site, Every: every, Timeout: 2 * time.Second}, func(ctx context.Context) {
			for _, c := range []struct {
				name, text string
				says       []string // any of them
			}{
				{"duplicate VRID", twice, []string{"51"}},
				{"unknown block", good + "\nvirtual_sever 10.10.0.9 80 {\n    lb_kind DR\n}\n", []string{"virtual_sever"}},
				{"binary garbage", string(bytes.Repeat([]byte{0, 1, 0xff, '{', 0x80, '\n'}, 2000)), []string{":1:", "binary", "text"}},
				{"a line of 1 MB", good + "\n! x\nrouter_id " + strings.Repeat("x", 1<<20) + "\n", []string{"long", "bytes"}},
				{"half a file", good[:len(good)*2/3], []string{"}", "open"}},
				{"nothing", "", []string{"nothing", "empty"}},
				{"not a number", strings.Replace(good, "priority 100", "priority high", 1), []string{"high"}},
			} {
				_, err := d.Commit(ctx, []byte(c.text))
				var exit *lab.ExitError
				if !errors.As(err, &exit) {
					t.Errorf("%s: %v, want it refused", c.name, err)
					continue
				}
				told := false
				for _, w := range c.says {
					told = told || strings.Contains(exit.Text, w)
				}
				if !told {
					t.Errorf("%s: the box says %.300q, want one of %q in it", c.name, exit.Text, c.says)
				}
			}
		})
		if r.Failed() > 0 {
			faults = append(faults, fmt.Sprintf("while the box was sent rubbish: %s", r))
		}
		return faults
	})
	// A NIC that is not there may come later, so it need not be refused, but
	// the user is told.
	out, err := d.Console(s.ctx, "check", append(s.Text(a, web()), vrrp("three", 54, "eth9", "10.30.0.1/24")...))
	if err != nil {
		out += err.Error()
	}
	if !strings.Contains(out, "eth9") {
		t.Errorf("nobody tells that eth9 is not there:\n%s", out)
	}
}

// TestBrokenSeed: a box whose first configuration is broken can be reached all
// the same, and takes a good one.
func TestBrokenSeed(t *testing.T) {
	s := begin(t, lab.Options{Config: web()}, 51)
	d := s.Directors[b]
	d.Kill()
	s.must(d.Wipe())
	good := s.Text(b, nil)
	s.must(d.Seed(append(good, "vrrp_instance outside {\n    state BACKUP\n    virtual_router_id 51\n    priority much\n"...), nil))
	s.must(d.Boot(s.ctx))
	s.must(d.WaitConsole(s.ctx))
	out, err := d.Console(s.ctx, "show log conf", nil)
	if err != nil || !strings.Contains(out, "much") {
		t.Errorf("the log does not tell what is wrong: %v\n%s", err, out)
	}
	s.must(s.Apply(s.ctx, lab.Options{Name: t.Name(), Config: web()}))
	s.Directors[a].Kill()
	s.waitMaster(51, b)
	s.answers(site, anybody)
}

// TestReboot: a box that was cut off in the middle of its life comes back with
// the configuration that it had, not with its seed.
func TestReboot(t *testing.T) {
	s := begin(t, lab.Options{Config: web()}, 51)
	d := s.Directors[b]
	other := strings.Replace(string(s.Text(b, web())), "vrrp_version 3", "vrrp_version 3\n    router_id AFTER", 1)
	if _, err := d.Commit(s.ctx, []byte(other)); err != nil {
		t.Fatal(err)
	}
	d.Kill()
	s.must(d.Boot(s.ctx))
	s.must(d.WaitConsole(s.ctx))
	out, err := d.Console(s.ctx, "show configuration", nil)
	if err != nil || !strings.Contains(out, "router_id AFTER") {
		t.Errorf("the configuration is not the one of before: %v\n%.400s", err, out)
	}
}
