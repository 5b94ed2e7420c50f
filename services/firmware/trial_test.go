package firmware

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"ballast/image/bootenv"
	"ballast/image/layout"
	"ballast/services/ipc/status"
)

var ordered = time.Unix(1_800_000_000, 0).UTC()

func event(verdict string) *status.FirmwareEvent {
	return &status.FirmwareEvent{Time: ordered, Kind: "upgrade", By: "ann", Slot: "B", From: status.FirmwareIdentity(oldID), To: status.FirmwareIdentity(newID), Boot: "boot1", Verdict: verdict}
}

// What became of an upgrade, told by what is found after the next start.
func TestOutcome(t *testing.T) {
	onB := bootenv.Env{Good: layout.A, Try: layout.B, Left: 1}
	for _, c := range []struct {
		name    string
		f       facts
		trial   bool
		verdict string
		reason  string
		env     *bootenv.Env
	}{
		{"nothing happened", facts{slot: layout.A, env: bootenv.Default}, false, "", "", nil},
		{"on trial", facts{slot: layout.B, onTrial: true, env: onB, last: event("")}, true, "", "", nil},
		{"on trial, the second start", facts{slot: layout.B, onTrial: true, env: bootenv.Env{Good: layout.A, Try: layout.B}, last: event("")}, true, "", "", nil},
		{"the process was started again in a trial that is confirmed", facts{slot: layout.B, onTrial: true, env: bootenv.Env{Good: layout.B}, last: event(status.VerdictConfirmed)}, false, "", "", nil},
		{"the power went after the boot loader was told", facts{slot: layout.B, onTrial: true, env: bootenv.Env{Good: layout.B}, last: event("")}, false, status.VerdictConfirmed, "the power went", nil},
		{"the reboot is to come", facts{slot: layout.A, boot: "boot1", env: bootenv.Default.Trial(layout.B), last: event("")}, false, "", "", nil},
		{"it panicked twice", facts{slot: layout.A, env: bootenv.Env{Good: layout.A, Try: layout.B}, last: event("")}, false, status.VerdictFailed, "2 starts of it ended", &bootenv.Default},
		{"its slot could not be read", facts{slot: layout.A, env: bootenv.Default.Trial(layout.B), last: event("")}, false, status.VerdictFailed, "it was not started", &bootenv.Default},
		{"one start, then the menu", facts{slot: layout.A, env: onB, last: event("")}, false, status.VerdictFailed, "a start of it ended", &bootenv.Default},
		{"the trial gave up", facts{slot: layout.A, env: bootenv.Default, last: func() *status.FirmwareEvent { e := event(""); e.Reason = "vrrp VI_1 is in FAULT"; return e }()},
			false, status.VerdictRejected, "vrrp VI_1 is in FAULT", nil},
		{"init gave up", facts{slot: layout.A, env: bootenv.Default, last: event(""), word: &Word{Slot: "B", Time: ordered.Add(time.Minute), Reason: "not confirmed after 5m0s"}},
			false, status.VerdictRejected, "not confirmed after 5m0s", nil},
		{"a word of another one", facts{slot: layout.A, env: bootenv.Default, last: event(""), word: &Word{Slot: "B", Time: ordered.Add(-time.Minute), Reason: "old"}},
			false, status.VerdictRejected, "before it wrote down why", nil},
		{"the state is damaged", facts{slot: layout.A, envErr: errors.New("no GRUB"), last: event("")}, false, status.VerdictFailed, "no GRUB", nil},
		{"it runs, but not on trial: the state was lost", facts{slot: layout.B, envErr: errors.New("no GRUB"), last: event("")}, false, status.VerdictFailed, "its state was lost", nil},
		{"it runs, but not on trial: the state was made anew", facts{slot: layout.B, env: bootenv.Default, last: event("")}, false, status.VerdictFailed, "its state was lost", nil},
		{"chosen in the menu before its trial", facts{slot: layout.B, env: bootenv.Default.Trial(layout.B), last: event("")}, false, "", "", nil},
		{"a trial without a record", facts{slot: layout.B, onTrial: true, env: onB, running: status.FirmwareIdentity(newID)}, true, "", "", nil},
		{"a trial that nobody knows of is over", facts{slot: layout.A, env: onB, last: event(status.VerdictRejected)}, false, "", "", &bootenv.Default},
	} {
		if c.f.boot == "" {
			c.f.boot = "boot2"
		}
		r := outcome(c.f)
		verdict, reason := "", ""
		if r.event != nil {
			verdict, reason = r.event.Verdict, r.event.Reason
		}
		if r.trial != c.trial || verdict != c.verdict || !strings.Contains(reason, c.reason) || !cmp.Equal(r.env, c.env) {
			t.Errorf("%s: trial %v, %q because of %q, state %v\nwant trial %v, %q because of %q, state %v", c.name, r.trial, verdict, reason, r.env, c.trial, c.verdict, c.reason, c.env)
		}
		if c.trial && c.f.last == nil && (r.event == nil || !r.fresh) {
			t.Errorf("%s: nothing is recorded", c.name)
		}
	}
}

// What counts against a firmware, and what was so before.
func TestMissing(t *testing.T) {
	base := baselineOf(well(), ordered)
	for _, c := range []struct {
		name   string
		change func(*sight)
		want   []string
	}{
		{"well", func(*sight) {}, nil},
		{"a service that starts", func(s *sight) { s.Init.Services[0].State = "starting" }, []string{"service conf is not ready (starting)"}},
		{"one that cannot", func(s *sight) {
			s.Init.Services[0] = status.Process{Name: "ipvs", State: "backoff", LastExit: "exit 1"}
		}, []string{"service ipvs is not ready (backoff): exit 1"}},
		{"silence", func(s *sight) { s.IPVS, s.Silent = nil, []string{"ipvs does not answer: refused"} }, []string{"ipvs does not answer: refused"}},
		{"no configuration", func(s *sight) {
			s.Conf.Generation = 0
			s.VRRP.Config, s.IPVS.Config, s.Net.Config, s.Health.Config = 0, 0, 0, 0
		}, []string{"conf runs no configuration yet"}},
		{"one that it cannot read", func(s *sight) {
			s.Conf.Source, s.Conf.Problems = "last good", []status.Problem{{Severity: "warning", Text: "w"}, {Severity: "error", Text: "unknown keyword"}}
		}, []string{"the configuration that ran cannot be loaded: unknown keyword"}},
		{"behind", func(s *sight) { s.IPVS.Config = 6 }, []string{"ipvs has not applied generation 7"}},
		{"cannot apply", func(s *sight) { s.Net.Error = "no eth0" }, []string{"net cannot apply the configuration: no eth0"}},
		{"vrrp behind", func(s *sight) { s.VRRP.Config = 3 }, []string{"vrrp has not applied generation 7"}},
		{"a fault that is new", func(s *sight) {
			s.VRRP.Instances[0].State, s.VRRP.Instances[0].Reason = status.VRRPFault, "no carrier on eth0"
		}, []string{"vrrp instance VI_1 is in FAULT, and was MASTER before: no carrier on eth0"}},
		{"backup now", func(s *sight) { s.VRRP.Instances[0].State = status.VRRPBackup }, nil},
		{"not begun", func(s *sight) { s.VRRP.Instances[0].State = status.VRRPInit }, []string{"vrrp instance VI_1 has not begun"}},
		{"gone", func(s *sight) { s.VRRP.Instances = s.VRRP.Instances[:1] }, []string{"vrrp instance VI_2 is gone"}},
		{"gone with what an older firmware cannot read", func(s *sight) {
			s.Conf.Source, s.VRRP.Instances, s.Net.Links, s.Real = "older firmware", s.VRRP.Instances[:1], nil, reals{}
		}, nil},
		{"fewer real servers are live", func(s *sight) { s.Real = reals{All: 4, Live: 1} }, nil},
		{"one is live, the others are not checked yet", func(s *sight) { s.Real = reals{All: 4, Live: 1, Open: 3} }, nil},
		{"none is live", func(s *sight) { s.Real = reals{All: 4} }, []string{"no real server is live, and 3 were before"}},
		{"none is there", func(s *sight) { s.Real = reals{} }, []string{"no real server is live, and 3 were before"}},
		{"none was checked yet", func(s *sight) { s.Real = reals{All: 4, Open: 2} },
			[]string{"no real server has passed its checks yet, 2 of 4 are still to be checked, and 3 were live before"}},
		{"health is silent", func(s *sight) { s.Health, s.Real, s.Silent = nil, reals{}, []string{"health: refused"} }, []string{"health: refused"}},
		{"a cable is out", func(s *sight) { s.Net.Links[1].Carrier = false }, []string{"interface eth0 has no carrier, and had one before"}},
		{"no lease", func(s *sight) { s.Net.Links[1].Addresses = nil }, []string{"interface eth0 has no address by configuration or DHCP, and had 10.0.0.11/24 before"}},
		{"another lease", func(s *sight) { s.Net.Links[1] = link("eth0", true, "10.0.0.99/24", "dhcp") }, nil},
		{"a VIP only", func(s *sight) { s.Net.Links[2].Addresses[0].Origin = "vip" },
			[]string{"interface eth1 has no address by configuration or DHCP, and had 192.0.2.11/24 before"}},
		{"a VIP is elsewhere", func(s *sight) { s.Net.Links[3].Addresses = nil }, nil},
		{"no driver for the NICs", func(s *sight) { s.Net.Links = s.Net.Links[:1] },
			[]string{"interface eth0 is not there, and had 10.0.0.11/24 before", "interface eth1 is not there, and had 192.0.2.11/24 before"}},
		{"net is silent", func(s *sight) { s.Net, s.Silent = nil, []string{"net: refused"} }, []string{"net: refused"}},
	} {
		s := well()
		c.change(&s)
		if diff := cmp.Diff(c.want, missing(&base, s, true)); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", c.name, diff)
		}
	}
	// Without a baseline no fault counts that may have been there.
	s := well()
	s.VRRP.Instances[0].State, s.Conf.Source = status.VRRPFault, "last good"
	if got := missing(nil, s, true); got != nil {
		t.Errorf("without a baseline: %q", got)
	}
	// What could not be applied before need not be now.
	before := well()
	before.Net.Error = "no eth7"
	base = baselineOf(before, ordered)
	if got := missing(&base, before, true); got != nil {
		t.Errorf("as before: %q", got)
	}
	before.Net.Error = "no eth7; no eth8"
	if got := missing(&base, before, true); !cmp.Equal(got, []string{"net cannot apply the configuration: no eth8"}) {
		t.Errorf("an error that is new beside one that is not: %q", got)
	}
	// What was never checked is no answer for ever.
	base, s = baselineOf(well(), ordered), well()
	s.Real = reals{All: 4, Open: 1}
	if got := missing(&base, s, false); got != nil {
		t.Errorf("not checked for long: %q", got)
	}
	// What the firmware before did not write down is not asked for.
	s.Real, s.Net.Links = reals{All: 4}, nil
	if got := missing(&baseline{Source: "commit", Instances: base.Instances, Errors: base.Errors}, s, true); got != nil {
		t.Errorf("with a baseline of an older firmware: %q", got)
	}
	// A box as it came from its maker has nothing but its address.
	before = well()
	before.Conf.Source = "factory"
	base, s = baselineOf(before, ordered), before
	s.Net = &status.Net{Applied: before.Net.Applied}
	if got := missing(&base, s, true); len(got) != 2 || !strings.Contains(got[0], "interface eth0 is not there") {
		t.Errorf("a factory default without its NICs: %q", got)
	}
}

func TestNewErrors(t *testing.T) {
	for _, c := range []struct{ before, now, want string }{
		{"", "no eth7", "no eth7"},
		{"no eth7", "no eth7", ""},
		{"no eth7", "no eth8", "no eth8"},
		{"no eth7; no eth8", "no eth8", ""},
		{"no eth7", "no eth7\nno eth8; no eth9", "no eth8; no eth9"},
		{"a: tried 3 times in 1.5s (12 left)", "a: tried 14 times in 2m3s (1 left)", ""},
		{"10.0.0.5:80: refused", "10.0.0.6:80: refused", "10.0.0.6:80: refused"},
		{"10.0.0.0/24: refused", "10.0.0.0/25: refused", "10.0.0.0/25: refused"},
		{"2001:db8::5: refused", "2001:db8::6: refused", "2001:db8::6: refused"},
		{"a; b; and 2 more", "a; b; and 1 more", ""},
		{"a; b; and 2 more", "a; b; and 3 more", "5 errors, and 4 before: a; b; and 3 more"},
		{"a; b; and 1 more", "b; c", ""}, // c was not told
		{"a; b; and 1 more", "a; c; d", "c; d"},
		{"a", "a; and 5 of them", "and 5 of them"},
		{"mark 5: refused", "mark 5: refused; mark 6: refused", "2 errors, and 1 before: mark 5: refused; mark 6: refused"},
		{"10.0.0.5: refused, try 1", "10.0.0.5: refused, try 2", ""},
	} {
		if got := newErrors(c.before, c.now); got != c.want {
			t.Errorf("%q before, %q now: %q is new, want %q", c.before, c.now, got, c.want)
		}
	}
}

// onTrial is a service on slot B, whose trial ann ordered.
func onTrial(t *testing.T) (*service, *fakeDisk, *fakeBox) {
	s, d, b := newService(t)
	d.slots[layout.B], d.env = newID, bootenv.Env{Good: layout.A, Try: layout.B, Left: 1}
	s.slot, s.onTrial, s.running, s.boot = layout.B, true, newID, "boot2"
	s.records.write(baselineFile, baselineOf(well(), ordered))
	s.records.keep([]status.FirmwareEvent{*event("")})
	if !s.begin(t.Context()) {
		t.Fatal("it does not know that it is on trial")
	}
	return s, d, b
}

func trialOf(s *service) *status.FirmwareTrial {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.trial
}

func TestTrialConfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, d, b := onTrial(t)
		b.set(func(n *sight) { n.Init.Services[0].State = "starting" })
		b.greeting = errors.New("connection refused")
		over := make(chan struct{})
		go func() { s.watchTrial(t.Context()); close(over) }()
		time.Sleep(30*time.Second + 1)
		if now := trialOf(s); now == nil || len(now.Missing) != 1 {
			t.Fatalf("after 30 s: %+v", now)
		}
		b.set(func(*sight) {})
		time.Sleep(2 * time.Second)
		if now := trialOf(s); now.Steady || !strings.Contains(now.Missing[0], "SSH handshake: connection refused") {
			t.Fatalf("without a console: %+v", now)
		}
		b.mu.Lock()
		b.greeting = nil
		b.mu.Unlock()
		time.Sleep(5 * time.Second)
		b.set(func(n *sight) { n.Init.Services[0].Restarts = 1 }) // it crashed and is back
		time.Sleep(9 * time.Second)
		select {
		case <-over:
			t.Fatal("confirmed, though a service crashed 9 s ago")
		default:
		}
		<-over
		if env, _ := d.Env(); env != (bootenv.Env{Good: layout.B}) {
			t.Errorf("the boot loader is told %+v", env)
		}
		if e := s.history[0]; e.Verdict != status.VerdictConfirmed || e.By != "ann" || s.trial != nil {
			t.Errorf("%+v, trial %+v", e, s.trial)
		}
		if len(b.audits) != 1 || b.audits[0].Command != "upgrade of ann" || !strings.Contains(b.audits[0].Result, "confirmed: it does its job") {
			t.Errorf("audit %+v", b.audits)
		}
	})
}

// A firmware under which every real server is dead is not confirmed, and neither
// is one whose real servers nobody has asked yet.
func TestTrialWithoutRealServers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, d, b := onTrial(t)
		began := time.Now()
		s.uptime = func() time.Duration { return time.Since(began) + 5*time.Second }
		b.set(func(n *sight) { n.Real = reals{All: 4, Open: 4} })
		over := make(chan struct{})
		go func() { s.watchTrial(t.Context()); close(over) }()
		time.Sleep(time.Minute)
		if now := trialOf(s); now == nil || now.Steady {
			t.Fatalf("with nothing checked: %+v", now)
		}
		b.set(func(n *sight) { n.Real = reals{All: 4} })
		time.Sleep(2 * time.Minute)
		if now := trialOf(s); now == nil || now.Steady || !strings.Contains(now.Missing[0], "no real server is live") {
			t.Fatalf("with all dead: %+v", now)
		}
		b.set(func(n *sight) { n.Real = reals{All: 4, Open: 4} }) // it has waited for long enough
		<-over
		if env, _ := d.Env(); env != (bootenv.Env{Good: layout.B}) {
			t.Errorf("the boot loader is told %+v", env)
		}
	})
}

func TestTrialRejected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, d, b := onTrial(t)
		b.set(func(n *sight) { n.VRRP.Instances[0].State, n.VRRP.Instances[0].Reason = status.VRRPFault, "no carrier" })
		began := time.Now()
		s.watchTrial(t.Context())
		<-b.rebooted
		if took, want := time.Since(began), layout.TrialLimit-margin-5*time.Second; took != want {
			t.Errorf("given up after %v, want %v", took, want)
		}
		if env, _ := d.Env(); env != bootenv.Default {
			t.Errorf("the boot loader is told %+v", env)
		}
		// The other firmware finds the reason and tells everybody.
		old, oldDisk, _ := newService(t)
		old.records, oldDisk.env, oldDisk.slots = s.records, d.env, d.slots
		old.boot = "boot3"
		if old.begin(t.Context()) {
			t.Error("the old one believes to be on trial")
		}
		e := old.history[0]
		if e.Verdict != status.VerdictRejected || !strings.Contains(e.Reason, "vrrp instance VI_1 is in FAULT, and was MASTER before: no carrier") {
			t.Errorf("%+v", e)
		}
		st := status.Firmware{Running: status.FirmwareIdentity(oldID), Slot: "A", Next: "A", History: old.history}
		if n := notice(st, nil); !strings.Contains(n, "firmware 1.1") || !strings.Contains(n, "rejected") || !strings.Contains(n, "; 1.0 runs") {
			t.Errorf("the notice: %q", n)
		}
	})
}

// A user at the console decides at once.
func TestTrialByHand(t *testing.T) {
	for _, verb := range []string{"confirm", "rollback"} {
		synctest.Test(t, func(t *testing.T) {
			s, d, b := onTrial(t)
			b.set(func(n *sight) { n.Init.Services[0].State = "starting" })
			ctx, decided := context.WithCancel(t.Context())
			s.decided = decided
			over := make(chan struct{})
			go func() { s.watchTrial(ctx); close(over) }()
			time.Sleep(7 * time.Second)
			do, want, env := s.verbConfirm, status.VerdictConfirmed, bootenv.Env{Good: layout.B}
			if verb == "rollback" {
				do, want, env = s.verbRollback, status.VerdictRejected, bootenv.Default
			}
			if _, err := do(t.Context(), ipcPeer, []byte(`{"by":"eve"}`)); err != nil {
				t.Fatal(err)
			}
			<-over
			if got, _ := d.Env(); got != env {
				t.Errorf("%s: %+v", verb, got)
			}
			if e := s.history[0]; e.Verdict != want || !strings.Contains(e.Reason, "by eve") {
				t.Errorf("%s: %+v", verb, e)
			}
			if verb == "rollback" {
				<-b.rebooted
				if _, err := s.verbConfirm(t.Context(), ipcPeer, nil); err == nil || !strings.Contains(err.Error(), "too late") {
					t.Errorf("confirmed after that: %v", err)
				}
			}
		})
	}
}

// deciding is a box whose user confirms while the trial looks at the console.
type deciding struct {
	*fakeBox
	confirm func()
}

func (b deciding) greet(context.Context) error {
	b.confirm()
	return nil
}

// A trial that a user decides during a look is over, and what was seen in that look
// does not begin it anew.
func TestTrialDecidedInALook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, d, b := onTrial(t)
		s.others = deciding{b, sync.OnceFunc(func() {
			if err := s.confirm("by eve"); err != nil {
				t.Error(err)
			}
		})}
		s.watchTrial(t.Context())
		if s.trial != nil || s.trialOn() || s.last().Reason != "by eve" {
			t.Errorf("on trial %v: %+v, %+v", s.trialOn(), s.trial, s.last())
		}
		if env, _ := d.Env(); env != (bootenv.Env{Good: layout.B}) {
			t.Errorf("the boot loader is told %+v", env)
		}
	})
}
