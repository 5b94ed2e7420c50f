package conf_test

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ballast/configs"
	"ballast/configs/model"
	"ballast/configs/store"
	"ballast/services/conf"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

// confirmed commits with a time to confirm.
func (b *box) confirmed(text string, in time.Duration) (status.CommitResult, error) {
	var r status.CommitResult
	err := b.call("commit", status.Candidate{Text: text, Author: "bob@10.0.0.9", Confirm: in}, &r)
	return r, err
}

func (b *box) mustConfirmed(text string, in time.Duration) status.CommitResult {
	b.t.Helper()
	r, err := b.confirmed(text, in)
	if err != nil {
		b.t.Fatal(err)
	}
	return r
}

// until waits for a state of conf.
func (b *box) until(what string, ok func(status.Conf) bool) (found status.Conf) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	got := false
	ipc.Watch(ctx, b.dir.Client("conf"), func(_ uint64, s status.Conf) {
		if found = s; ok(s) {
			got = true
			cancel()
		}
	})
	if !got {
		b.t.Fatalf("%s did not come; last: %+v", what, found)
	}
	return found
}

// logs waits until the log has a text: conf logs what it has published already.
func (b *box) logs(part string) {
	b.t.Helper()
	for end := time.Now().Add(time.Minute); !strings.Contains(b.log.String(), part); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			b.t.Fatalf("no %q in the log:\n%s", part, b.log)
		}
	}
}

// inTime is a time to confirm for tests that look at what happens before its end:
// a machine that stands still for a second does not get past it.
const inTime = 5 * time.Second

func back(s status.Conf) bool { return s.Reverted != "" }

func serves(t testing.TB, s status.Conf, name string) {
	t.Helper()
	if len(s.Config.VirtualServers) != 1 || s.Config.VirtualServers[0].Name != name {
		t.Errorf("runs %+v of generation %d, want virtual server %s", s.Config.VirtualServers, s.Generation, name)
	}
}

func TestUnconfirmedCommitGoesBack(t *testing.T) {
	t.Parallel()
	b := newBox(t, "net", "vrrp").start()
	one := b.mustCommit("vs one\n")
	r := b.mustConfirmed("vs two\n", inTime)
	s := b.state()
	serves(t, s, "two")
	if p := r.Pending; p == nil || s.Pending == nil || *p != *s.Pending || p.Generation != r.Generation || p.Back != one || p.Author != "bob@10.0.0.9" ||
		time.Until(p.Deadline) <= 0 || time.Until(p.Deadline) > inTime {
		t.Fatalf("result %+v, state %+v", r.Pending, s.Pending)
	}
	if h := b.history(); !h[0].Pending || h[0].Size == 0 {
		t.Errorf("history %+v", h[0])
	}
	s = b.until("roll back", back)
	serves(t, s, "one")
	if s.Pending != nil || s.Source != "rollback" || s.Generation <= r.Generation ||
		s.Reverted != "generation 3 by bob@10.0.0.9 was not confirmed in 5s: generation 2 runs again" {
		t.Errorf("%+v", s)
	}
	for _, svc := range b.svcs {
		for svc.last().Generation != s.Generation {
			<-svc.gens
		}
		serves(t, svc.last(), "one")
	}
	b.logs("and generation 2 again in 5s unless it is confirmed")
	b.logs(s.Reverted)
	wantError(t, b.call("confirm", status.Confirmation{}, nil), "too late", "not confirmed in 5s")
	b.restart()
	s2 := b.state()
	serves(t, s2, "one")
	if s2.Generation != s.Generation || s2.Reverted != s.Reverted {
		t.Errorf("after a restart %+v", s2)
	}
	b.mustCommit("vs three\n")
	if s := b.state(); s.Reverted != "" {
		t.Errorf("a later commit leaves %q", s.Reverted)
	}
}

func TestConfirm(t *testing.T) {
	b := newBox(t, "net").start()
	wantError(t, b.call("confirm", status.Confirmation{}, nil), "nothing waits")
	b.mustCommit("vs one\n")
	r := b.mustConfirmed("vs two\n", time.Minute)
	for net := b.svcs["net"]; net.last().Pending == nil; { // who follows conf hears of it
		<-net.gens
	}
	wantError(t, b.call("confirm", status.Confirmation{Generation: 99}, nil), "generation 3 is what waits")
	var done status.Confirmed
	if err := b.call("confirm", status.Confirmation{Generation: r.Generation, Author: "eve@10.0.0.7"}, &done); err != nil || done.Generation != r.Generation || done.Left < 50*time.Second {
		t.Fatalf("%+v %v", done, err)
	}
	s := b.state()
	serves(t, s, "two")
	if s.Pending != nil || s.Generation != r.Generation {
		t.Errorf("%+v", s)
	}
	if !strings.Contains(b.log.String(), "generation 3 confirmed by eve@10.0.0.7") {
		t.Errorf("log:\n%s", b.log)
	}
	b.restart()
	if s := b.state(); s.Pending != nil || s.Generation != r.Generation {
		t.Errorf("after a restart %+v", s)
	}
	for _, d := range []time.Duration{-time.Second, 61 * time.Minute} {
		_, err := b.confirmed("vs three\n", d)
		wantError(t, err, "outside 1…60 minutes")
	}
}

// A plain commit confirms, one that is refused or fails does not, one that has to
// be confirmed itself goes back to what was confirmed last.
func TestCommitsOverAnUnconfirmedOne(t *testing.T) {
	b := newBox(t, "net").start()
	one := b.mustCommit("vs one\n")
	two := b.mustConfirmed("vs two\n", time.Minute)
	net := b.svcs["net"]
	net.set(func() { net.refuse = "no" })
	_, err := b.commit("vs three\n")
	wantError(t, err, "net: no")
	if s := b.state(); s.Pending == nil || s.Pending.Deadline != two.Pending.Deadline {
		t.Fatalf("a refused commit: %+v", s.Pending)
	}
	net.set(func() {
		net.refuse = ""
		net.failing = func(c model.Config) string {
			if c.VirtualServers[0].Name == "three" {
				return "no room"
			}
			return ""
		}
	})
	_, err = b.commit("vs three\n")
	wantError(t, err, "net: no room")
	s := b.state()
	serves(t, s, "two")
	if s.Pending == nil || s.Pending.Generation != s.Generation || s.Pending.Back != one || s.Pending.Deadline.Sub(two.Pending.Deadline).Abs() > time.Second {
		t.Fatalf("a commit that failed: %+v", s)
	}
	b.restart()
	if s := b.state(); s.Pending == nil || s.Pending.Generation != s.Generation || s.Pending.Back != one {
		t.Fatalf("after a restart %+v", s)
	}
	four := b.mustConfirmed("vs four\n", time.Minute)
	if four.Pending.Back != one || four.Confirmed != 0 {
		t.Errorf("%+v", four.Pending)
	}
	r, err := b.commit("vs five\n")
	if err != nil || r.Confirmed != four.Generation || r.Pending != nil || b.state().Pending != nil {
		t.Errorf("%+v %v", r, err)
	}
	b.mustConfirmed("vs six\n", time.Minute)
	b.mustConfirmed("vs seven\n", time.Minute)
	r = status.CommitResult{}
	if err := b.call("rollback", status.Rollback{}, &r); err != nil || r.Confirmed != 0 {
		t.Fatalf("%+v %v", r, err)
	}
	s = b.state()
	serves(t, s, "five")
	if s.Pending != nil {
		t.Errorf("a roll back by hand: %+v", s.Pending)
	}
}

// What ran before may be in no generation: the factory default.
func TestUnconfirmedFirstCommitGoesBackToFactory(t *testing.T) {
	b := newBox(t, "net").start()
	b.mustConfirmed("interface eth5\nvs one\n", 300*time.Millisecond)
	s := b.until("roll back", back)
	if s.Source != "factory" || len(s.Config.Interfaces) != 2 || !s.Config.Interfaces[0].DHCP || len(s.Config.VirtualServers) != 0 {
		t.Errorf("%+v", s)
	}
	b.opts.NICs = func() []string { return []string{"eth0", "eth1", "eth2"} }
	b.restart()
	if s := b.state(); s.Source != "factory" || len(s.Config.Interfaces) != 3 {
		t.Errorf("after a reboot with another card: %+v", s)
	}
	b.mustCommit("vs two\n")
}

// clock is the kernel's clock in a test: a boot and its age.
type clock struct {
	boot  string
	since time.Duration
}

func (b *box) clock(c *clock) {
	b.opts.Clock = func() (string, time.Duration) { return c.boot, c.since }
}

func TestWindowOutlivesRestarts(t *testing.T) {
	b := newBox(t, "net")
	c := &clock{"boot-1", time.Hour}
	b.clock(c)
	b.start()
	one := b.mustCommit("vs one\n")
	r := b.mustConfirmed("vs two\n", 10*time.Minute)
	c.since += 4 * time.Minute // conf alone starts anew
	b.restart()
	s := b.state()
	serves(t, s, "two")
	left := func(s status.Conf) time.Duration { return time.Until(s.Pending.Deadline).Round(10 * time.Second) }
	if s.Pending == nil || s.Generation != r.Generation || left(s) != 6*time.Minute || s.Pending.Back != one {
		t.Fatalf("%+v", s.Pending)
	}
	*c = clock{"boot-2", 5 * time.Second} // the box: the wall clock has not moved, but no more is left than was
	b.restart()
	if s = b.state(); s.Pending == nil || left(s) != 6*time.Minute {
		t.Fatalf("%+v", s.Pending)
	}
	serves(t, s, "two")
	b.stop() // the third start is one too many
	b.start()
	s = b.state()
	serves(t, s, "one")
	if s.Pending != nil || !strings.Contains(s.Reverted, "not confirmed, and the box or conf started 3 times meanwhile") || !hasProblem(s.Problems, "started 3 times") {
		t.Errorf("%+v", s)
	}
	if h := b.history(); h[0].Source != "rollback" || !h[0].Running {
		t.Errorf("%+v", h)
	}
}

// The time at which a commit goes back is one: what is told is what the disk has,
// at the commit and after a start, however long writing it takes.
func TestWindowEndsAtOneTime(t *testing.T) {
	b := newBox(t, "net").start()
	b.mustCommit("vs one\n")
	r := b.mustConfirmed("vs two\n", 10*time.Minute)
	stored := func() time.Time {
		t.Helper()
		s, err := store.Open(store.Disk{}, filepath.Join(b.data, "configuration"))
		if err != nil || s.Pending() == nil {
			t.Fatalf("no mark on the disk: %v", err)
		}
		return s.Pending().Until
	}
	if on := stored(); !on.Equal(r.Pending.Deadline) {
		t.Errorf("told is %v, the disk has %v", r.Pending.Deadline, on)
	}
	b.restart()
	if on, s := stored(), b.state(); s.Pending == nil || !on.Equal(s.Pending.Deadline) {
		t.Errorf("after a restart told is %+v, the disk has %v", s.Pending, on)
	}
}

func TestWindowEndsWhileConfIsDown(t *testing.T) {
	b := newBox(t, "net")
	c := &clock{"boot-1", time.Hour}
	b.clock(c)
	b.start()
	b.mustCommit("vs one\n")
	b.mustConfirmed("vs two\n", time.Minute)
	c.since += 2 * time.Minute
	b.restart()
	s := b.state()
	serves(t, s, "one")
	if s.Pending != nil || !strings.Contains(s.Reverted, "not confirmed in 1m:") {
		t.Errorf("%+v", s)
	}
	b.restart()
	if again := b.state(); again.Generation != s.Generation || len(again.Problems) > 0 {
		t.Errorf("at the next start %+v", again)
	}
}

// A configuration that conf cannot load any more does not keep the box from what
// was confirmed: not what lies between the two either.
func TestUnconfirmedThatDoesNotLoad(t *testing.T) {
	b := newBox(t, "net").start()
	b.mustCommit("vs one\n")
	b.mustConfirmed("vs two\n", time.Minute)
	r := b.mustConfirmed("vs three\n", time.Minute)
	b.stop()
	os.Truncate(generationFile(b, "00000004"), 20)
	b.start()
	s := b.state()
	serves(t, s, "one")
	if r.Generation != 4 || s.Pending != nil || !strings.Contains(s.Reverted, "could not be loaded at boot") {
		t.Errorf("%+v", s)
	}
}

// Where nothing before it is intact, an unconfirmed generation is better than none.
func TestNothingToGoBackTo(t *testing.T) {
	b := newBox(t, "net").start()
	b.mustCommit("vs one\n")
	os.Truncate(generationFile(b, "00000002"), 20)
	b.mustConfirmed("vs two\n", 400*time.Millisecond)
	s := b.until("the end of the time", func(s status.Conf) bool { return s.Pending == nil })
	serves(t, s, "two")
	if !strings.Contains(b.log.String(), "no generation before it can be loaded: it stays") {
		t.Errorf("log:\n%s", b.log)
	}
	b.restart()
	s = b.state()
	serves(t, s, "two")
	if s.Pending != nil {
		t.Errorf("%+v", s.Pending)
	}
}

// The first commit of a box that is cut short by a crash does not run at the
// next boot: it was never applied.
func TestUnfinishedFirstCommit(t *testing.T) {
	b := newBox(t, "net").start()
	svc := b.svcs["net"]
	svc.set(func() { svc.mute = true })
	for len(svc.gens) > 0 {
		<-svc.gens
	}
	done := make(chan error, 1)
	go func() { _, err := b.commit("vs one\n"); done <- err }()
	for g := range svc.gens {
		if g > 1 {
			break
		}
	}
	b.stop()
	<-done
	svc.set(func() { svc.mute = false })
	b.start()
	if s := b.state(); s.Source != "factory" || len(s.Config.VirtualServers) > 0 {
		t.Errorf("%+v", s)
	}
	if names, _ := filepath.Glob(filepath.Join(b.data, "configuration", "generations", "*")); len(names) > 0 {
		t.Errorf("%q is still there", names)
	}
}

func TestScriptFilesGoBackToo(t *testing.T) {
	t.Parallel()
	b := newBox(t, "net").start()
	const path = "/opt/x"
	put := func(text string) {
		if err := b.call("file-put", status.File{Path: path, Content: []byte(text)}, nil); err != nil {
			t.Fatal(err)
		}
	}
	put("old")
	b.mustCommit("vs one\n")
	put("new")
	b.mustConfirmed("vs two\n", inTime)
	put("newer")
	b.until("roll back", back)
	if got, err := os.ReadFile(filepath.Join(b.root, path)); string(got) != "old" {
		t.Errorf("%q %v", got, err)
	}
}

func TestCompareGenerations(t *testing.T) {
	b := newBox(t, "net").start()
	one := b.mustCommit("vs one\n")
	two := b.mustCommit("vs two\n")
	b.mustCommit("vs three\n")
	var d string
	if err := b.call("compare", status.Compare{A: one, B: two}, &d); err != nil || !strings.Contains(d, "-vs one") || !strings.Contains(d, "+vs two") {
		t.Errorf("%q %v", d, err)
	}
	if err := b.call("compare", status.Compare{A: two}, &d); err != nil || !strings.Contains(d, "+vs three") {
		t.Errorf("%q %v", d, err)
	}
	wantError(t, b.call("compare", status.Compare{A: 77}, &d), "generation 77", "not stored")
}

func TestComparisonIsMasked(t *testing.T) {
	b := newBox(t, "net")
	b.opts.Language = conf.Language{}
	b.start()
	text := func(pass string) string {
		return "vrrp_instance V {\n interface eth0\n virtual_router_id 5\n priority 9\n authentication {\n  auth_type PASS\n  auth_pass " + pass + "\n }\n virtual_ipaddress {\n  10.1.1.1/24\n }\n}\n"
	}
	one, two := b.mustCommit(text("topsecr")), b.mustCommit(text("othersec"))
	var d string
	if err := b.call("compare", status.Compare{A: one, B: two}, &d); err != nil || d == "" || strings.Contains(d, "topsecr") || strings.Contains(d, "othersec") {
		t.Errorf("%q %v", d, err)
	}
}

// Whoever would cut himself off is told before, not after.
func TestCommitThatCutsItsOwnSession(t *testing.T) {
	b := newBox(t, "net")
	b.opts.Language.Load = func(name, text string, o configs.Options) (model.Config, []model.Problem) {
		c, ps := toy.Load(name, text, o)
		for i := range c.System.Logins {
			c.System.Logins[i].Keys = []string{"ssh-ed25519 AAAA"}
		}
		return c, ps
	}
	b.start()
	b.mustCommit("login bob\nlogin eve\nvs one\n")
	session := &status.Session{User: "bob", Local: netip.MustParseAddr("10.0.0.1"), Remote: netip.MustParseAddr("10.0.0.9"), Terminal: true}
	in := status.Candidate{Text: "login eve\nvs two\n", Author: "bob@10.0.0.9", Session: session}
	var k status.CheckReport
	if err := b.call("check", in, &k); err != nil || len(k.Cuts) != 1 {
		t.Errorf("check: %v %v", k.Cuts, err)
	}
	wantError(t, b.call("commit", in, nil), "nothing changed", "login bob, who you are, is removed", "commit confirmed 5", "commit force")
	serves(t, b.state(), "one")

	in.Confirm = 300 * time.Millisecond
	var r status.CommitResult
	if err := b.call("commit", in, &r); err != nil || !strings.Contains(r.Warnings["session"], "login bob") {
		t.Fatalf("confirmed: %+v %v", r, err)
	}
	s := b.until("roll back", back)
	serves(t, s, "one")
	if len(s.Config.System.Logins) != 2 {
		t.Errorf("%+v", s.Config.System)
	}
	in.Confirm, session.Terminal = 0, false
	if err := b.call("commit", in, &r); err != nil || r.Warnings["session"] == "" {
		t.Errorf("a script: %+v %v", r, err)
	}
	session.Terminal, session.User = true, "eve"
	in.Text = "login bob\nvs three\n"
	wantError(t, b.call("commit", in, nil), "login eve")
	in.Force = true
	if err := b.call("commit", in, &r); err != nil {
		t.Errorf("forced: %v", err)
	}
	wantError(t, b.call("rollback", status.Rollback{Session: &status.Session{User: "bob", Terminal: true}}, nil), "login bob")
}
