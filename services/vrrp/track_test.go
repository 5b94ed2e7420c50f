package vrrp

import (
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ballast/configs/model"
	"ballast/services/ipc/status"
	"ballast/services/vrrp/core"
	"ballast/services/vrrp/kernel"
)

func TestFileArithmetic(t *testing.T) {
	for _, c := range []struct {
		value, weight int
		reverse       bool
		delta         int
		fault         bool
	}{
		{0, 1, false, 0, false},
		{7, 1, false, 7, false},
		{7, -3, false, -21, false},
		{7, 3, true, -21, false},
		{-253, 1, false, -253, false},
		{-254, 1, false, 0, true},
		{-1000, 1, false, 0, true},
		{127, -2, false, 0, true},
		{254, 1, true, 0, true},
		{300, 1, false, 253, false},
		{math.MaxInt, 254, false, 253, false},
		{math.MinInt, 254, false, 0, true},
		{math.MinInt, -254, false, 253, false},
		{0, 0, false, 0, false},
		{1, 0, false, 0, true},
		{-1, 0, false, 0, true},
		{0, 0, true, 0, true},
		{5, 0, true, 0, false},
	} {
		if d, f := weighFile(c.value, c.weight, c.reverse); d != c.delta || f != c.fault {
			t.Errorf("value %d weight %d reverse %v: %d %v, want %d %v", c.value, c.weight, c.reverse, d, f, c.delta, c.fault)
		}
	}
}

// What files, processes and BFD sessions do to a router of priority 100: alone,
// by its sync group, before there is a result, and after its process died.
func TestTally(t *testing.T) {
	track := func(name string, weight int) []model.Track { return []model.Track{{Name: name, Weight: weight}} }
	for _, c := range []struct {
		name      string
		cfg       model.Instance
		group     *model.SyncGroup
		trust     bool
		files     map[string]status.FileResult
		processes map[string]status.ProcessResult
		scripts   []status.ScriptResult
		bfd       map[string]bool
		lost      map[string]string
		faults    []string
		effective uint8
	}{
		{name: "no trackers", effective: 100},
		{name: "file", cfg: model.Instance{TrackFiles: track("f", 2)}, files: map[string]status.FileResult{"f": {Value: -15}}, effective: 70},
		{name: "file takes it below 1", cfg: model.Instance{TrackFiles: track("f", 2)}, files: map[string]status.FileResult{"f": {Value: -60}}, effective: 1},
		{name: "file takes it above 254", cfg: model.Instance{TrackFiles: track("f", 1)}, files: map[string]status.FileResult{"f": {Value: 200}}, effective: 254},
		{name: "file says fault", cfg: model.Instance{TrackFiles: track("f", 1)}, files: map[string]status.FileResult{"f": {Value: -254}},
			faults: []string{"track_file f holds -254"}, effective: 100},
		{name: "file of the owner", cfg: model.Instance{Priority: 255, TrackFiles: track("f", 1)}, files: map[string]status.FileResult{"f": {Value: -50}}, effective: 255},
		{name: "file of the owner says fault", cfg: model.Instance{Priority: 255, TrackFiles: track("f", 1)}, files: map[string]status.FileResult{"f": {Value: -254}},
			faults: []string{"track_file f holds -254"}, effective: 255},
		{name: "unweighted file", cfg: model.Instance{TrackFiles: track("f", 0)}, files: map[string]status.FileResult{"f": {Value: 3, Detail: "by hand"}},
			faults: []string{"track_file f holds 3, by hand"}, effective: 100},
		{name: "unweighted file is not read yet", cfg: model.Instance{TrackFiles: track("f", 0)}, faults: []string{"track_file f has no result yet"}, effective: 100},
		{name: "weighted file is not read yet", cfg: model.Instance{TrackFiles: track("f", 10)}, effective: 100},

		{name: "process runs", cfg: model.Instance{TrackProcesses: track("p", 20)}, processes: map[string]status.ProcessResult{"p": {OK: true, Count: 2}}, effective: 120},
		{name: "process is gone", cfg: model.Instance{TrackProcesses: track("p", -20)}, processes: map[string]status.ProcessResult{"p": {}}, effective: 80},
		{name: "unweighted process is gone", cfg: model.Instance{TrackProcesses: track("p", 0)}, processes: map[string]status.ProcessResult{"p": {}},
			faults: []string{"process p is down, 0 running"}, effective: 100},
		{name: "no result of an unweighted process", cfg: model.Instance{TrackProcesses: track("p", 0)}, faults: []string{"process p has no result yet"}, effective: 100},
		{name: "the same after a crash as master", cfg: model.Instance{TrackProcesses: track("p", 0)}, trust: true, effective: 100},
		{name: "reverse", cfg: model.Instance{TrackProcesses: []model.Track{{Name: "p", Reverse: true}}}, processes: map[string]status.ProcessResult{"p": {OK: true, Count: 1}},
			faults: []string{"process p is up (reverse), 1 running"}, effective: 100},

		{name: "BFD up", cfg: model.Instance{TrackBFD: track("b", 30)}, bfd: map[string]bool{"b": true}, effective: 130},
		{name: "BFD down", cfg: model.Instance{TrackBFD: track("b", 0)}, bfd: map[string]bool{"b": false}, faults: []string{"BFD session b is down"}, effective: 100},
		{name: "BFD has not come up yet", cfg: model.Instance{TrackBFD: track("b", 0)}, faults: []string{"BFD session b has no result yet"}, effective: 100},

		{name: "script of the sync group fails", group: &model.SyncGroup{Name: "G", TrackScripts: []model.TrackScript{{Script: "s", Weight: -20}}}, scripts: []status.ScriptResult{{Name: "s", Known: true}}, effective: 80},
		{name: "script of the sync group, unweighted, fails", group: &model.SyncGroup{Name: "G", TrackScripts: []model.TrackScript{{Script: "s"}}}, scripts: []status.ScriptResult{{Name: "s", Known: true, Detail: "exit 1"}},
			faults: []string{"script s: exit 1"}, effective: 100},
		{name: "of the sync group too", cfg: model.Instance{TrackFiles: track("f", 1)}, group: &model.SyncGroup{Name: "G", TrackProcesses: track("p", -20), TrackBFD: track("b", 5), TrackFiles: track("g", 0)},
			files: map[string]status.FileResult{"f": {Value: 4}, "g": {Value: 9}}, processes: map[string]status.ProcessResult{"p": {}}, bfd: map[string]bool{"b": true},
			faults: []string{"track_file g holds 9"}, effective: 89},
		{name: "track_group", lost: map[string]string{"T": "address 10.0.0.9/24 is gone", "other": "x"},
			faults: []string{"track_group T: address 10.0.0.9/24 is gone"}, effective: 100},
		{name: "unicast_fault_no_peer", cfg: model.Instance{UnicastFaultNoPeer: true},
			faults: []string{"no unicast_peer is configured (unicast_fault_no_peer)"}, effective: 100},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.cfg.Name, c.cfg.DontTrackPrimary = "VI_1", true
			if c.cfg.Priority == 0 {
				c.cfg.Priority = 100
			}
			s := &service{log: newLogger(), files: c.files, processes: c.processes, lost: map[string]string{}, trackGroups: []model.TrackGroup{
				{Name: "T", Instances: []string{"VI_0", "VI_1"}}, {Name: "other", Instances: []string{"VI_2"}},
			}}
			if c.bfd != nil {
				s.bfd = func(name string) (up, known bool) { up, known = c.bfd[name]; return up, known }
			}
			s.scripts = map[string]status.ScriptResult{}
			for _, n := range c.scripts {
				s.scripts[n.Name] = n
			}
			for group, what := range c.lost {
				s.setLost(group, what)
			}
			r := &router{s: s, cfg: c.cfg, trust: c.trust}
			s.routers = []*router{r}
			if c.group != nil {
				r.group = &group{s: s, cfg: *c.group, members: s.routers}
			}
			faults, effective := r.examine()
			faults = faults[1:] // no interface: of no matter here
			if len(faults) == 0 {
				faults = nil
			}
			if d := cmp.Diff(c.faults, faults); d != "" {
				t.Errorf("faults (-want +got):\n%s", d)
			}
			if effective != c.effective {
				t.Errorf("effective priority %d, want %d", effective, c.effective)
			}
		})
	}
}

// A notify that starts again knows nothing at first; what it does not name any
// more is kept as long as somebody tracks it.
func TestResultsStay(t *testing.T) {
	s := &service{log: newLogger()}
	s.routers = []*router{{s: s, cfg: model.Instance{
		TrackScripts: []model.TrackScript{{Script: "s"}}, TrackFiles: []model.Track{{Name: "f"}}, TrackProcesses: []model.Track{{Name: "p"}},
	}}}
	s.setResults(&status.Notify{
		Scripts:   []status.ScriptResult{{Name: "s", Known: true, OK: true}, {Name: "old", Known: true}},
		Files:     []status.FileResult{{Name: "f", Value: 5}, {Name: "old"}},
		Processes: []status.ProcessResult{{Name: "p", OK: true}, {Name: "old"}},
	})
	s.setResults(&status.Notify{Scripts: []status.ScriptResult{{Name: "s"}}})
	if !s.scripts["s"].OK || s.files["f"].Value != 5 || !s.processes["p"].OK {
		t.Errorf("%+v %+v %+v", s.scripts, s.files, s.processes)
	}
	if len(s.scripts)+len(s.files)+len(s.processes) != 3 {
		t.Errorf("nobody tracks them: %+v %+v %+v", s.scripts, s.files, s.processes)
	}
}

// interface_up_down_delays: a change counts when it has lasted.
func TestLinkDelays(t *testing.T) {
	const ms = time.Millisecond
	l := &kernel.Link{Name: "eth0", Up: true, Run: true}
	s := &service{
		links: map[string]*kernel.Link{"eth0": l}, lags: map[string]*lag{},
		delays: []model.LinkDelay{{Interface: "eth0", Down: 200 * ms, Up: 500 * ms}, {Interface: "eth9", Down: 200 * ms}},
	}
	for _, step := range []struct {
		at  time.Duration
		run bool
		up  bool
		why string
	}{
		{1000 * ms, true, true, ""},
		{1100 * ms, false, true, ""},
		{1200 * ms, true, true, ""}, // a flap
		{1300 * ms, false, true, ""},
		{1499 * ms, false, true, ""},
		{1500 * ms, false, false, "interface eth0 has no carrier"},
		{1600 * ms, true, false, "interface eth0 is up, but not for as long as interface_up_down_delays wants"},
		{1700 * ms, false, false, "interface eth0 has no carrier"},
		{1800 * ms, true, false, "interface eth0 is up, but not for as long as interface_up_down_delays wants"},
		{2300 * ms, true, true, ""},
	} {
		s.now, l.Run = step.at, step.run
		s.settleLinks()
		if up, why := s.linkUp("eth0"); up != step.up || why != step.why {
			t.Errorf("at %s: %v %q, want %v %q", step.at, up, why, step.up, step.why)
		}
	}
	delete(s.links, "eth0")
	s.settleLinks()
	if up, _ := s.linkUp("eth0"); up || len(s.lags) != 0 {
		t.Error("a link that is not there is up")
	}
}

func TestStartupEnd(t *testing.T) {
	s := &service{now: time.Hour, started: time.Hour}
	if got := s.startupEnd(30*time.Second, 0); got != time.Hour+30*time.Second {
		t.Errorf("vrrp_startup_delay: %s", got)
	}
	// This machine booted in the past: the delay counts from there.
	const long = 100 * 365 * 24 * time.Hour
	if got := s.startupEnd(30*time.Second, long); got <= time.Hour+30*time.Second || got >= time.Hour+long {
		t.Errorf("vrrp_delay_after_boot: %s", got)
	}
}

// The group's setting counts for all of its members.
func TestPriorityEventOfGroup(t *testing.T) {
	loop, err := kernel.NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	defer loop.Close()
	s := &service{log: newLogger(), loop: loop}
	r := &router{s: s, cfg: model.Instance{Name: "VI_1"}, st: core.State{Phase: core.Backup, Effective: 90}}
	r.group = &group{s: s, members: []*router{r}}
	r.priorityChanged()
	if len(s.ring) != 0 {
		t.Errorf("nobody asked for %+v", s.ring)
	}
	r.group.cfg.NotifyPriorityChanges = true
	r.priorityChanged()
	r.st.Phase = core.Fault
	r.priorityChanged()
	if len(s.ring) != 1 || s.ring[0].To != status.BackupPriority || s.ring[0].Kind != status.KindPriority || s.ring[0].Priority != 90 {
		t.Errorf("%+v", s.ring)
	}
}
