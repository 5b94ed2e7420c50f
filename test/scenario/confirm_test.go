package scenario

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"ballast/services/ipc/status"
	"ballast/test/lab"
)

// history is what a box ran, newest first.
func (s scenario) history(d *lab.Director) []status.Generation {
	s.Helper()
	h, err := lab.Show[[]status.Generation](s.ctx, d, "history")
	s.must(err)
	return h
}

// TestCommitConfirmed: a commit that takes away the address by which it came is
// taken back by the box itself; one whose box loses power before anybody
// confirms it as well; one that is confirmed stays.
func TestCommitConfirmed(t *testing.T) {
	s := begin(t, lab.Options{Config: web()}, 51)
	d := s.Directors[b]
	text := string(s.Text(b, web()))
	named := func(name string) []byte {
		return []byte(strings.Replace(text, "vrrp_version 3", "vrrp_version 3\n    router_id "+name, 1))
	}
	before := s.history(d)[0].Generation

	cut := strings.Replace(text, "\n    dhcp\n", "\n    address 10.99.0.1/24\n", 1)
	if cut == text {
		t.Fatalf("no DHCP in\n%s", text)
	}
	// The answer may or may not get out before the address goes.
	try, stop := context.WithTimeout(s.ctx, 40*time.Second)
	out, err := d.Console(try, "commit confirmed 1 override", []byte(cut))
	stop()
	t.Logf("cut: %v\n%s", err, out)
	s.until("the box can be reached again", func() (bool, string) {
		try, stop := context.WithTimeout(s.ctx, 15*time.Second)
		defer stop()
		out, err := s.OpenSSH(try, b, "show history")
		return err == nil && strings.Contains(out, "was not confirmed in 1m"), out
	})
	d.HangUp()
	h := s.history(d)
	if h[0].Source != "rollback" || !h[0].Running || h[0].Generation < before+2 {
		t.Errorf("history %+v", h[:2])
	}
	if out := s.run(d, "show configuration"); !strings.Contains(out, "dhcp") {
		t.Errorf("the configuration is not the one of before:\n%.400s", out)
	}

	if out, err := d.Console(s.ctx, "commit confirmed 1 override", named("UNSURE")); err != nil || !strings.Contains(out, "confirm") {
		t.Fatalf("%v\n%s", err, out)
	}
	d.Kill()
	s.must(d.Boot(s.ctx))
	s.must(d.WaitConsole(s.ctx))
	s.until("it is rolled back after the power cut", func() (bool, string) {
		out, err := d.Console(s.ctx, "show configuration", nil)
		return err == nil && !strings.Contains(out, "UNSURE"), fmt.Sprint(err)
	})
	if h := s.history(d); h[0].Source != "rollback" || !strings.Contains(h[0].Comment, "not confirmed") {
		t.Errorf("history %+v", h[:2])
	}

	if _, err := d.Console(s.ctx, "commit confirmed 1 override", named("SURE")); err != nil {
		t.Fatal(err)
	}
	s.run(d, "confirm")
	d.Kill()
	s.must(d.Boot(s.ctx))
	s.must(d.WaitConsole(s.ctx))
	if out := s.run(d, "show configuration"); !strings.Contains(out, "router_id SURE") {
		t.Errorf("what was confirmed is gone:\n%.400s", out)
	}
	if h := s.history(d); h[0].Pending || h[0].Source != "commit" {
		t.Errorf("history %+v", h[:2])
	}
}
