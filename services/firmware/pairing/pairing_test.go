package pairing

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"ballast/image/layout"

	"github.com/google/go-cmp/cmp"
)

// side is a box as it should be; lb2 is master of everything.
func side(name string) *Report {
	r := &Report{Speaks: 1, Box: name, Boot: name + "-1", Running: oldOne, Slot: layout.A, Loaded: newOne, Content: "c", Live: 3, Conns: 10}
	for _, n := range []string{"VI_1", "VI_2"} {
		s := backup
		if name == "lb2" {
			s = master
		}
		r.Instances = append(r.Instances, Instance{Name: n, State: s})
	}
	return r
}

func states(r *Report, s string) *Report {
	for i := range r.Instances {
		r.Instances[i].State = s
	}
	return r
}

func upgraded(r *Report) *Report {
	r.Running, r.Loaded = newOne, layout.Identity{}
	return r
}

// TestPlan: what may not be so when an upgrade begins, all of it at once.
func TestPlan(t *testing.T) {
	r, second, err := Plan(Request{ID: "1", Here: *side("lb2"), Peer: *side("lb1")})
	if err != nil || !second || r.Boxes != [2]string{"lb1", "lb2"} || r.Phase != Yield {
		t.Fatalf("%+v, %v, %v", r, second, err)
	}
	if r, second, err = Plan(Request{ID: "1", Here: *side("lb1"), Peer: *side("lb2")}); err != nil || second || r.Boxes != [2]string{"lb1", "lb2"} {
		t.Fatalf("from the backup: %+v, %v, %v", r, second, err)
	}
	for want, change := range map[string]func(here, peer *Report){
		"lb1: its firmware knows nothing":              func(_, p *Report) { p.Speaks = 0 },
		"lb1: no disk":                                 func(_, p *Report) { p.Cannot = "no disk" },
		"lb2: it did not boot from a slot":             func(h, _ *Report) { h.Slot = layout.None },
		"lb1: it runs 1 on trial: vrrp starts: wait":   func(_, p *Report) { p.Trial, p.Missing = true, "vrrp starts" },
		"lb1: it is on its way down":                   func(_, p *Report) { p.Going = true },
		"lb2: its configuration waits to be confirmed": func(h, _ *Report) { h.Pending = true },
		"lb1: ann made it resign":                      func(_, p *Report) { p.Resigned = "ann" },
		"lb1: ipvs: no memory":                         func(_, p *Report) { p.Unsound = []string{"ipvs: no memory"} },
		"both boxes are called lb2":                    func(_, p *Report) { p.Box = "lb2" },
		"no bundle is for both":                        func(_, p *Report) { p.Running.Board = "y" },
		"the boxes run different configurations":       func(_, p *Report) { p.Content = "d" },
		"VI_2 is on lb2 only":                          func(_, p *Report) { p.Instances = p.Instances[:1] },
		"VI_2 is on lb1 only":                          func(h, _ *Report) { h.Instances = h.Instances[:1] },
		"VI_1 is MASTER on lb2 and FAULT on lb1: eth0": func(_, p *Report) { p.Instances[0] = Instance{Name: "VI_1", State: "FAULT", Fault: "eth0"} },
		"VI_1 is MASTER on lb2 and MASTER on lb1":      func(_, p *Report) { states(p, master) },
	} {
		here, peer := side("lb2"), side("lb1")
		change(here, peer)
		if _, _, err := Plan(Request{Here: *here, Peer: *peer}); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "nothing has changed") {
			t.Errorf("want %q: %v", want, err)
		}
	}
	late := side("lb1")
	late.Last = time.Unix(2e9, 0) // by a clock that goes fast
	if r, _, err := Plan(Request{Now: time.Unix(1e9, 0), Here: *side("lb2"), Peer: *late}); err != nil || !r.Began.After(late.Last) {
		t.Errorf("it began %v, %v", r.Began, err)
	}
	here, peer := side("lb2"), side("lb1")
	here.Pending, peer.Going = true, true
	if _, _, err := Plan(Request{Here: *here, Peer: *peer}); err == nil || strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("want both reasons: %v", err)
	}
}

// at is a machine in a phase.
func at(p Phase) *Machine {
	r, _, err := Plan(Request{ID: "1", Here: *side("lb2"), Peer: *side("lb1")})
	if err != nil {
		panic(err)
	}
	r.To, r.Phase = newOne, p
	return &Machine{Record: r}
}

// TestDoubts: what makes each phase stop, and that both boxes then take part in
// VRRP again.
func TestDoubts(t *testing.T) {
	for _, c := range []struct {
		phase   Phase
		elapsed time.Duration
		change  func(l *Look)
		want    string
	}{
		{Yield, time.Second, func(l *Look) { l.Other.Boot = "x" }, "lb1 has rebooted, which was not its turn"},
		{Yield, time.Second, func(l *Look) { l.Own.Boot = "x" }, "lb2 has rebooted, which was not its turn"},
		{First, time.Second, func(l *Look) { l.Own.Boot = "x" }, "lb2 has rebooted, which was not its turn"},
		{Ready, time.Second, func(l *Look) { l.Other.Boot = "x" }, "lb1 has rebooted, which was not its turn"},
		{Switch, time.Second, func(l *Look) { l.Other.Boot = "x" }, "lb1 has rebooted, which was not its turn"},
		{Yield, 16 * time.Second, func(l *Look) { l.Other, l.Lost = nil, "no route" }, "lb1 does not answer: no route"},
		{Switch, 6 * time.Second, func(l *Look) { l.Other, l.Lost = nil, "no route" }, "lb1 does not answer: no route"},
		{Second, 6 * time.Second, func(l *Look) { l.Other, l.Lost = nil, "no route" }, "lb1 does not answer: no route"},
		{Yield, time.Second, func(l *Look) { l.Refused = map[Order]string{ResignOther: "no"} }, "lb1: make the other box resign: no"},
		{First, time.Second, func(l *Look) { l.Refused = map[Order]string{TrialOther: "no"} }, "lb1: reboot the other box into its trial: no"},
		{Second, time.Second, func(l *Look) { l.Refused = map[Order]string{TrialOwn: "no"} }, "lb2: reboot into the trial: no"},
		{Yield, 2 * time.Minute, func(l *Look) { states(l.Own, "FAULT") }, "after 1m0s: lb2 is FAULT of VI_1 and not master"},
		{Yield, 2 * time.Minute, func(l *Look) { l.Own.Unsound = []string{"ipvs: no memory"} }, "after 1m0s: lb2: ipvs: no memory"},
		{First, time.Second, func(l *Look) { l.Other.Boot, l.Other.Verdict = "x", "no VRRP" }, "lb1 is back with 1: no VRRP"},
		{First, 15 * time.Minute, func(l *Look) { upgraded(l.Other).Boot = "x"; l.Other.Trial, l.Other.Missing = true, "no key" }, "lb1 has not proved 2 within 14m0s: no key"},
		{First, 15 * time.Minute, func(l *Look) { l.Other, l.Lost = nil, "no route" }, "lb1 does not answer"},
		{First, 2 * time.Minute, func(*Look) {}, "lb1 has not rebooted though it was told to"},
		{Ready, 6 * time.Minute, func(l *Look) { upgraded(l.Other); l.Other.Content = "d" }, "after 5m0s: the boxes run different configurations"},
		{Ready, 6 * time.Minute, func(l *Look) { upgraded(l.Other).Pending = true }, "after 5m0s: the configuration waits to be confirmed"},
		{Ready, 6 * time.Minute, func(l *Look) { upgraded(l.Other).Live = 2 }, "after 5m0s: lb1 has 2 real servers in its table, of 3"},
		{Ready, 6 * time.Minute, func(l *Look) { l.Own.Sync = true }, "after 5m0s: lb1 has no daemon"},
		{Ready, 6 * time.Minute, func(l *Look) { states(l.Other, master) }, "after 5m0s: both boxes are master of VI_1"},
		{Ready, 6 * time.Minute, func(l *Look) { states(l.Own, backup) }, "after 5m0s: no box is master of VI_1"},
		{Ready, 6 * time.Minute, func(l *Look) { l.Other.Resigned = "ann" }, "after 5m0s: ann made lb1 resign"},
		{Switch, time.Second, func(l *Look) { states(l.Other, "FAULT") }, "VI_1 is FAULT on lb1"},
		{Switch, 2 * time.Minute, func(*Look) {}, "after 1m0s: lb1 is BACKUP of VI_1 and not master"},
		{Second, time.Second, func(*Look) {}, "lb1 is BACKUP of VI_1 and not master"},
		{Second, time.Second, func(l *Look) { l.Own.Boot, l.Own.Verdict = "x", "panic" }, "lb2 is back with 1: panic"},
		{Settle, 6 * time.Minute, func(l *Look) { l.Other.Unsound = []string{"health is starting"} }, "after 5m0s: lb1: health is starting"},
		{Settle, 6 * time.Minute, func(l *Look) { upgraded(l.Own).Instances[0].Learns = true; upgraded(l.Other) }, "after 5m0s: lb2 is told of connections, then it is master of VI_1"},
		{Settle, 6 * time.Minute, func(l *Look) { upgraded(l.Own).Live = 0; upgraded(l.Other) }, "after 5m0s: lb2 has 0 real servers in its table, of 3"},
		{Settle, 6 * time.Minute, func(l *Look) { upgraded(l.Other).Live = 1; upgraded(l.Own).Live = 2 }, "after 5m0s: lb1 has 1 real servers in its table, of 2"},
		{Settle, time.Second, func(l *Look) { l.Other.Speaks = 0 }, "lb1 no longer speaks"},
	} {
		m := at(c.phase)
		l := Look{Elapsed: c.elapsed, Own: side("lb2"), Other: side("lb1")}
		c.change(&l)
		if l.Other != nil && l.Other.Resigned == "" {
			l.Other.Resigned = ""
		}
		l.Own.Resigned = ""
		if c.phase == Switch {
			l.Own.Resigned = By
		}
		orders := m.Step(l)
		if !strings.HasPrefix(m.Stopped, c.want) {
			t.Errorf("%s: %q, want %q", c.phase, m.Stopped, c.want)
		}
		for _, o := range orders {
			if o != ResumeOwn {
				t.Errorf("%s: %q, and then %s", c.phase, m.Stopped, o)
			}
		}
		if (c.phase == Switch) != (len(orders) == 1) {
			t.Errorf("%s: orders %v", c.phase, orders)
		}
	}
	m := at(Yield)
	m.Step(Look{Elapsed: 16 * time.Second, Other: side("lb1")})
	if m.Stopped != "lb2: its own services do not answer" {
		t.Errorf("blind: %q", m.Stopped)
	}
}

// TestSettled: a pair is done when each box has the real servers that the other
// one has, or as many as it had before; some may have died meanwhile.
func TestSettled(t *testing.T) {
	for _, c := range []struct {
		first, second int
		want          string
	}{
		{3, 3, ""},
		{2, 2, ""},
		{9, 3, ""},
		{3, 2, "lb2 has 2 real servers in its table, of 3"},
		{0, 1, "lb1 has 0 real servers in its table, of 1"},
		{9, 0, "lb2 has 0 real servers in its table, of 3"},
	} {
		m := at(Settle)
		l := Look{Own: upgraded(side("lb2")), Other: upgraded(side("lb1"))}
		l.Other.Live, l.Own.Live = c.first, c.second
		if got := m.settled(l); got != c.want {
			t.Errorf("%d and %d of 3: %q, want %q", c.first, c.second, got, c.want)
		}
	}
	m := at(Settle)
	m.Live = [2]int{} // of a record that says nothing of them
	if got := m.settled(Look{Own: upgraded(side("lb2")), Other: upgraded(&Report{Speaks: 1, Box: "lb1", Running: oldOne, Content: "c", Instances: side("lb1").Instances})}); got != "" {
		t.Errorf("not asked for, and missed: %q", got)
	}
}

// TestTraffic: a box that is master and to which no client comes is a doubt, when
// there were many before.
func TestTraffic(t *testing.T) {
	m := at(Ready)
	own, other := side("lb2"), upgraded(side("lb1"))
	step := func() []Order { return m.Step(Look{Elapsed: 2 * time.Second, Own: own, Other: other}) }
	for m.Phase == Ready {
		own.Packets += 50
		step()
	}
	own.Resigned = By
	states(own, backup)
	states(other, master)
	for range 20 {
		step()
	}
	if m.Phase != Switch || !strings.Contains(m.Stopped, "no packet of a client has come to it in 20s") {
		t.Errorf("%s: %q", m.Phase, m.Stopped)
	}
	if err := m.Continue(Look{Own: own, Other: other}, "ann"); err != nil {
		t.Fatal(err)
	}
	own.Resigned = ""
	states(own, master)
	states(other, backup)
	for m.Phase == Ready {
		own.Packets += 50
		step()
	}
	states(own, backup)
	states(other, master)
	own.Resigned = By
	step()
	other.Packets += 3
	for range 3 {
		step()
	}
	if m.Phase != Second || m.Stopped != "" {
		t.Errorf("with packets: %s: %q", m.Phase, m.Stopped)
	}
}

// TestContinue: it goes on from what both boxes are now.
func TestContinue(t *testing.T) {
	gone := func(r *Report) *Report { r.Loaded = layout.Identity{}; return r }
	trial := func(r *Report) *Report { r.Trial = true; return r }
	for _, c := range []struct {
		own, other *Report
		want       Phase
		err        string
	}{
		{side("lb2"), side("lb1"), Yield, ""},
		{side("lb2"), upgraded(side("lb1")), Ready, ""},
		{upgraded(side("lb2")), upgraded(side("lb1")), Settle, ""},
		{upgraded(side("lb2")), side("lb1"), Yield, ""},
		{side("lb2"), gone(side("lb1")), Switch, "the slots of lb1 do not hold 2 any longer"},
		{side("lb2"), trial(upgraded(side("lb1"))), Switch, "lb1 runs 2 on trial"},
		{side("lb2"), nil, Switch, "lb1 does not answer"},
		{nil, side("lb1"), Switch, "the services of lb2 do not answer"},
	} {
		m := at(Switch)
		m.Stopped = "why"
		err := m.Continue(Look{Own: c.own, Other: c.other}, "ann")
		if m.Phase != c.want || (err == nil) != (c.err == "") || err != nil && !strings.HasPrefix(err.Error(), c.err) {
			t.Errorf("%+v: %s, %v, want %s, %s", c, m.Phase, err, c.want, c.err)
		}
		if (m.Stopped == "") != (err == nil) {
			t.Errorf("%+v: stopped %q", c, m.Stopped)
		}
	}
	m := at(Switch)
	if err := m.Continue(Look{}, "ann"); err == nil {
		t.Error("what goes on is continued")
	}
	if err := m.Abort("ann"); err != nil || m.Stopped != "aborted by ann" {
		t.Errorf("%v, %q", err, m.Stopped)
	}
	if err := m.Continue(Look{Own: side("lb2"), Other: side("lb1")}, "ann"); err == nil || !strings.Contains(err.Error(), "aborted") {
		t.Errorf("what was aborted is continued: %v", err)
	}
	if err := m.Abort("ann"); err == nil {
		t.Error("aborted twice")
	}
}

// TestTold: what the first box does not do.
func TestTold(t *testing.T) {
	for _, c := range []struct {
		phase  Phase
		order  Order
		change func(n *Node, own *Report)
		do     Order
		err    string
	}{
		{First, TrialOther, func(*Node, *Report) {}, TrialOwn, ""},
		{Yield, ResignOther, func(*Node, *Report) {}, ResignOwn, ""},
		{Ready, ResumeOther, func(_ *Node, o *Report) { o.Resigned = By }, ResumeOwn, ""},
		{Ready, ResumeOther, func(_ *Node, o *Report) { o.Resigned = "ann" }, "", ""},
		{First, TrialOther, func(_ *Node, o *Report) { o.Boot = "x" }, "", ""},
		{First, TrialOther, func(_ *Node, o *Report) { o.Going = true }, "", ""},
		{First, TrialOther, func(_ *Node, o *Report) { states(o, master) }, "", "it is master of VI_1"},
		{First, TrialOther, func(_ *Node, o *Report) { o.Pending = true }, "", "waits to be confirmed"},
		{First, TrialOther, func(_ *Node, o *Report) { o.Loaded = oldOne }, "", "does not hold 2"},
		{First, TrialOther, func(_ *Node, o *Report) { o.Cannot = "no disk" }, "", "no disk"},
		{First, TrialOther, func(n *Node, _ *Report) { n.age = 6 * time.Second }, "", ErrLate.Error()},
		{First, TrialOther, func(n *Node, _ *Report) { n.ticket = "other" }, "", ErrLate.Error()},
		{First, TrialOther, func(n *Node, _ *Report) { n.Stopped = "why" }, "", "not the time"},
		{Ready, TrialOther, func(*Node, *Report) {}, "", "not the time"},
		{First, ResignOther, func(*Node, *Report) {}, "", "not the time"},
		{First, "dance", func(*Node, *Report) {}, "", "not known"},
	} {
		n := NewNode("lb1", at(c.phase).Record)
		own := side("lb1")
		r := Report{}
		n.Issue(&r, "t")
		c.change(n, own)
		do, err := n.Told(c.order, "t", own)
		if do != c.do || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s, %s: %q, %v, want %q, %s", c.phase, c.order, do, err, c.do, c.err)
		}
	}
}

// TestHear: the record of the other box is taken when it is news.
func TestHear(t *testing.T) {
	n := NewNode("lb1", Record{})
	r := at(First).Record
	r.Seq = 5
	own := side("lb1")
	if err := n.Hear(&r, own); err != nil || n.Seq != 5 {
		t.Fatal(err)
	}
	old := r
	old.Seq = 4
	if err := n.Hear(&old, own); err == nil {
		t.Error("an older one is taken")
	}
	other := r
	other.ID, other.Began = "0", r.Began.Add(-time.Hour)
	if err := n.Hear(&other, own); err == nil {
		t.Error("one of an earlier upgrade is taken")
	}
	mine := r
	mine.Boxes = [2]string{"lb2", "lb1"}
	if err := n.Hear(&mine, own); err == nil {
		t.Error("one that this box drives is taken")
	}
	if err := n.Abort("ann"); err != nil {
		t.Fatal(err)
	}
	r.Seq = 9
	if err := n.Hear(&r, own); err == nil || !strings.Contains(err.Error(), "aborted by ann") {
		t.Errorf("what was aborted here goes on: %v", err)
	}
	if n := NewNode("lb1", at(Second).Record); n.Silence() != "" {
		t.Error("silence at the begin")
	}
}

// TestDrive: a box drives what begins, is meant for it, and still holds.
func TestDrive(t *testing.T) {
	for want, change := range map[string]func(n *Node, r *Record, own *Report){
		"":                  func(*Node, *Record, *Report) {},
		"that begins":       func(_ *Node, r *Record, _ *Report) { r.Phase = First },
		"is to drive":       func(n *Node, _ *Record, _ *Report) { n.box = "lb3" },
		"is under way":      func(n *Node, r *Record, _ *Report) { n.Record = *r; n.ID = "another" },
		"has rebooted":      func(_ *Node, _ *Record, own *Report) { own.Boot = "lb2-2" },
		"does not hold 2":   func(_ *Node, _ *Record, own *Report) { own.Loaded = oldOne },
		"upgrade that begi": func(_ *Node, r *Record, _ *Report) { r.Stopped = "why" },
	} {
		n, r, own := NewNode("lb2", Record{}), at(Yield).Record, side("lb2")
		change(n, &r, own)
		before := n.ID
		err := n.Drive(&r, own)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
		if took := n.ID != before; took != (want == "") {
			t.Errorf("%q: it drives %q", want, n.ID)
		}
	}
}

func TestMessages(t *testing.T) {
	r := at(First).Record
	want := Message{Speaks: Speaks, Kind: KindOrder, Record: &r, Order: TrialOther, Ticket: "t", Load: "x", Offset: 7, By: "ann", Payload: []byte("\x00piece")}
	b, err := want.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeMessage(b)
	if err != nil || cmp.Diff(want, got) != "" {
		t.Errorf("%v\n%s", err, cmp.Diff(want, got))
	}
	a := Answer{Speaks: Speaks, Report: side("lb1"), Loaded: &newOne, Refused: "no\x1b[2J"}
	if b, err = a.Encode(); err != nil {
		t.Fatal(err)
	}
	back, err := DecodeAnswer(b)
	if err != nil || strings.Contains(back.Refused, "\x1b") {
		t.Errorf("%q, %v", back.Refused, err)
	}
	back.Refused = a.Refused
	if d := cmp.Diff(a, back); d != "" {
		t.Error(d)
	}
	// A newer firmware may say more.
	if m, err := DecodeMessage([]byte(`{"speaks":9,"kind":"look","mood":{"x":[1]}}` + "\x00")); err != nil || m.Kind != KindLook {
		t.Errorf("%+v, %v", m, err)
	}
	if a, err := DecodeAnswer([]byte(`{"speaks":9,"report":{"box":"lb1","mood":1,"instances":[{"name":"a","state":"MASTER","colour":"red"}]}}`)); err != nil || a.Report.Instances[0].State != master {
		t.Errorf("%+v, %v", a, err)
	}
	if _, err := (Message{Payload: make([]byte, MaxPiece+1)}).Encode(); err == nil {
		t.Error("a piece that is too long is sent")
	}
	for _, bad := range []string{"{}", "{\x00", `{"offset":-1}` + "\x00", "{}\x00" + strings.Repeat("x", MaxPiece+1), "{" + strings.Repeat(" ", MaxHead) + "}\x00"} {
		if m, err := DecodeMessage([]byte(bad)); err == nil {
			t.Errorf("%.20q is read as %.60v", bad, m)
		}
	}
	r.Names, r.Boots[1], r.To.Version = []string{"\x1b[2J"}, "\x1b[2J", "\x1b[2J"
	if b, err = (Message{Kind: KindLook, Record: &r}).Encode(); err != nil {
		t.Fatal(err)
	}
	if m, err := DecodeMessage(b); err != nil || strings.ContainsRune(fmt.Sprint(m.Record), 0x1b) {
		t.Errorf("%q, %v", fmt.Sprint(m.Record), err)
	}
}

func FuzzMessage(f *testing.F) {
	r := at(First).Record
	b, _ := Message{Kind: KindOrder, Record: &r, Payload: []byte("x")}.Encode()
	f.Add(b)
	a, _ := Answer{Report: side("lb1")}.Encode()
	f.Add(a)
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := DecodeMessage(b); err == nil {
			if m.Record != nil {
				n := NewNode("lb1", Record{})
				n.Hear(m.Record, side("lb1"))
				n.Told(m.Order, m.Ticket, side("lb1"))
				n.Tick(Look{Own: side("lb1")})
				n = NewNode(m.Record.Boxes[1], *m.Record)
				n.Tick(Look{Elapsed: time.Second, Own: side("lb1"), Other: side("lb2")})
			}
			if strings.ContainsRune(fmt.Sprint(m.Waiting, m.By), 0x1b) {
				t.Errorf("%q %q", m.Waiting, m.By)
			}
		}
		if a, err := DecodeAnswer(b); err == nil && a.Report != nil {
			m := at(Ready)
			m.Step(Look{Elapsed: time.Second, Own: side("lb2"), Other: a.Report})
			if strings.ContainsRune(m.Stopped+m.Waiting, 0x1b) {
				t.Errorf("%q %q", m.Stopped, m.Waiting)
			}
		}
	})
}
