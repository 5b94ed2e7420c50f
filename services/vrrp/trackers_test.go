package vrrp_test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ballast/configs/model"
	"ballast/services/ipc/status"
)

func TestTrackers(t *testing.T) {
	t.Parallel()
	k := quick
	l, a, b := pair(t, k, func(c *model.Instance) {
		if c.Priority == 200 {
			c.TrackScripts = []model.TrackScript{{Script: "chk"}, {Script: "soft", Weight: -150}, {Script: "gone"}}
			c.TrackInterfaces = []model.TrackInterface{{Interface: "aux", Weight: -20}}
		}
	})
	l.run("a", "ip link add aux type veth peer name aux2")
	l.run("a", "ip link set aux up")
	l.run("a", "ip link set aux2 up")
	b.start()
	a.start()
	i := a.awaitState(k.down(), status.VRRPFault)
	if d := cmp.Diff([]string{"script chk has no result yet", "script gone has no result yet"}, i.Faults); d != "" {
		t.Error(d)
	}
	results := func(chk, soft bool) {
		a.notify.Publish(status.Notify{Scripts: []status.ScriptResult{
			{Name: "chk", Known: true, OK: chk, Detail: "exit 1"}, {Name: "soft", Known: true, OK: soft}, {Name: "gone", Missing: true},
		}})
	}
	effective := func(want int) {
		t.Helper()
		a.awaitInstance(k.down(), "effective priority", func(i status.VRRPInstance) bool { return i.Effective == want })
	}
	results(true, true)
	l.movesTo(k, "a", "b")
	effective(200)
	l.run("a", "ip link set aux2 down")
	effective(180)
	results(true, false) // 30: b has more
	effective(30)
	l.movesTo(k, "b", "a")
	results(true, true)
	l.movesTo(k, "a", "b")
	results(false, true)
	i = a.awaitState(k.down(), status.VRRPFault)
	if d := cmp.Diff([]string{"script chk: exit 1"}, i.Faults); d != "" {
		t.Error(d)
	}
	l.movesTo(k, "b", "a")
	// A notify that starts again and knows nothing changes nothing.
	results(true, true)
	l.movesTo(k, "a", "b")
	a.notify.Publish(status.Notify{Scripts: []status.ScriptResult{{Name: "chk"}, {Name: "soft"}, {Name: "gone", Missing: true}}})
	// A crash of a master: its scripts have no result yet, which is no fault.
	a.kill(syscall.SIGKILL)
	a.start()
	if i := a.awaitState(k.down(), status.VRRPMaster); len(i.Faults) > 0 {
		t.Errorf("faults %q", i.Faults)
	}
}

// A sync group goes together: one member's interface down takes all.
func TestSyncGroup(t *testing.T) {
	t.Parallel()
	k := quick
	l, a, b := pair(t, k, nil)
	both := func(n int, priority uint8) model.Config {
		one, two := k.instance(n, priority), k.instance(n, priority)
		two.Name, two.VRID, two.VIPs, one.VIPs = "VI_2", 52, two.VIPs[1:], one.VIPs[:1]
		if n == 1 {
			two.TrackInterfaces = []model.TrackInterface{{Interface: "aux"}}
		}
		c := config(one, two)
		c.SyncGroups = []model.SyncGroup{{Name: "G", Instances: []string{"VI_1", "VI_2"}}}
		return c
	}
	l.run("a", "ip link add aux type veth peer name aux2")
	l.run("a", "ip link set aux up")
	l.run("a", "ip link set aux2 up")
	a.commit(both(1, 200))
	b.commit(both(2, 100))
	a.start()
	b.start()
	a.awaitState(k.down(), status.VRRPMaster)
	b.awaitState(k.down(), status.VRRPBackup)
	l.run("a", "ip link set aux2 down")
	v := a.await(k.down(), "both in fault", func(v status.VRRP) bool {
		return v.Instances[0].State == status.VRRPFault && v.Instances[1].State == status.VRRPFault && v.Groups[0].State == status.VRRPFault
	})
	if d := cmp.Diff([]string{"sync group G: VI_2 is in FAULT"}, v.Instances[0].Faults); d != "" {
		t.Error(d)
	}
	// At three in the morning "its group did" is no answer: each member says
	// what it or the other one saw.
	v = b.await(k.down(), "the group is master", func(v status.VRRP) bool { return v.Groups[0].State == status.VRRPMaster })
	for _, i := range v.Instances {
		if !strings.Contains(i.Reason, "resigned (priority 0)") {
			t.Errorf("%s is master: %s", i.Name, i.Reason)
		}
	}
	l.run("a", "ip link set aux2 up")
	a.awaitState(k.down()+2*time.Second, status.VRRPMaster)
	b.awaitState(k.down(), status.VRRPBackup)
	a.await(k.down(), "the group is master", func(v status.VRRP) bool { return v.Groups[0].State == status.VRRPMaster })
	// sync_group_tracking_weight: what the binder leaves to a member counts.
	c := both(1, 200)
	c.Instances[1].TrackInterfaces[0].Weight = -20
	a.commit(c)
	l.run("a", "ip link set aux2 down")
	a.await(k.down(), "the weight counts", func(v status.VRRP) bool {
		return v.Instances[1].Effective == 180 && v.Groups[0].State == status.VRRPMaster
	})
}

// Numbers in files and counts of processes move a running router, by itself and
// by its sync group.
func TestTrackedFilesAndProcesses(t *testing.T) {
	t.Parallel()
	k := quick
	l, a, b := pair(t, k, func(c *model.Instance) {
		if c.Priority == 200 {
			c.TrackFiles = []model.Track{{Name: "load", Weight: 1}}
			c.TrackProcesses = []model.Track{{Name: "proxy", Weight: -150}}
			c.NotifyPriorityChanges = true
		}
	})
	b.start()
	a.start()
	said := func(load int, proxy bool) {
		a.notify.Publish(status.Notify{
			Files:     []status.FileResult{{Name: "load", Value: load}},
			Processes: []status.ProcessResult{{Name: "proxy", OK: proxy, Count: map[bool]int{true: 3}[proxy]}},
		})
	}
	said(0, true)
	l.movesTo(k, "a", "b")
	said(-150, true)
	l.movesTo(k, "b", "a")
	i := a.awaitInstance(k.down(), "effective priority", func(i status.VRRPInstance) bool { return i.Effective == 50 })
	want := []status.Tracker{{Kind: "file", Name: "load", Up: true, Weight: 1, Detail: "holds -150"}, {Kind: "process", Name: "proxy", Up: true, Weight: -150, Detail: "3 running"}}
	if d := cmp.Diff(want, i.Trackers); d != "" {
		t.Error(d)
	}
	said(20, true)
	l.movesTo(k, "a", "b")
	said(20, false)
	l.movesTo(k, "b", "a")
	a.awaitInstance(k.down(), "effective priority", func(i status.VRRPInstance) bool { return i.Effective == 70 })
	v := a.await(k.down(), "priority changes are told", func(v status.VRRP) bool { return true })
	var told []string
	for _, t := range v.Transitions {
		if t.Kind == status.KindPriority {
			told = append(told, fmt.Sprint(t.From, " ", t.To, " ", t.Priority))
		}
	}
	if d := cmp.Diff([]string{"MASTER MASTER_PRIORITY 50", "BACKUP BACKUP_PRIORITY 220", "MASTER MASTER_PRIORITY 70"}, told); d != "" {
		t.Error(d)
	}
	said(-254, true)
	if i := a.awaitState(k.down(), status.VRRPFault); i.Reason != "track_file load holds -254" {
		t.Errorf("reason %q", i.Reason)
	}
	// The group's file holds both members.
	one, two := k.instance(1, 200), k.instance(1, 200)
	two.Name, two.VRID, two.VIPs, one.VIPs = "VI_2", 52, two.VIPs[1:], one.VIPs[:1]
	c := config(one, two)
	c.SyncGroups = []model.SyncGroup{{Name: "G", Instances: []string{"VI_1", "VI_2"}, TrackFiles: []model.Track{{Name: "load"}}}}
	a.commit(c)
	a.await(k.down(), "both in fault", func(v status.VRRP) bool {
		return v.Config == a.gen && v.Instances[0].State == status.VRRPFault && v.Instances[1].State == status.VRRPFault
	})
	said(0, true)
	a.await(k.down(), "the group is master", func(v status.VRRP) bool { return v.Groups[0].State == status.VRRPMaster })
}

// interface_up_down_delays: a carrier that is away for a moment is no fault.
func TestShortLossOfCarrier(t *testing.T) {
	t.Parallel()
	k := quick
	l, a, _ := pair(t, k, nil)
	c := config(k.instance(1, 200))
	c.LinkDelays = []model.LinkDelay{{Interface: "eth0", Down: 4 * time.Second, Up: time.Second}}
	a.commit(c)
	a.start()
	a.awaitState(k.down(), status.VRRPMaster)
	l.run("sw", "ip link set p1 down")
	time.Sleep(300 * time.Millisecond) // shorter than the delay: nothing is to happen
	l.run("sw", "ip link set p1 up")
	// The kernel tells of carriers up to a second late: what was not told was not.
	l.until(30*time.Second, "the carrier is back", func() bool { return strings.Contains(l.run("a", "ip link show eth0"), "state UP") })
	gone := time.Now()
	l.run("sw", "ip link set p1 down")
	a.awaitState(k.down(), status.VRRPFault)
	if took := time.Since(gone); took < 4*time.Second {
		t.Errorf("in fault after %s", took)
	}
	back := time.Now()
	l.run("sw", "ip link set p1 up")
	i := a.awaitState(k.down(), status.VRRPMaster)
	if took := time.Since(back); took < time.Second {
		t.Errorf("out of fault after %s", took)
	}
	if i.Stats.BecomeMaster != 2 {
		t.Errorf("became master %d times", i.Stats.BecomeMaster)
	}
}
