package notify

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ballast/configs/model"
	"ballast/services/ipc/status"
)

func eventConfig() *model.Config {
	return &model.Config{
		Global: model.Global{RouterID: "LVS_DEVEL"},
		Instances: []model.Instance{{Name: "VI_1", SMTPAlert: true, Notify: model.Notify{
			Master: command("m"), Backup: command("b"), Fault: command("f"), Stop: command("s"), Any: command("any")}}},
		SyncGroups: []model.SyncGroup{{Name: "G", SMTPAlert: true, Notify: model.Notify{Any: command("gany")}}},
		VirtualServers: []model.VirtualServer{{
			Name: "[10.10.10.2]:tcp:80", QuorumUp: command("qup"), QuorumDown: command("qdown"), SMTPAlert: true,
			Services: []model.ServiceID{{Protocol: model.TCP}},
			Real: []model.RealServer{{Addr: netip.MustParseAddr("192.168.200.2"), ConfPort: 80, SMTPAlert: true,
				NotifyUp: command("up"), NotifyDown: command("down")}},
		}},
	}
}

func TestEvents(t *testing.T) {
	cfg := eventConfig()
	cfg.VirtualServers[0].Sorry = nil
	for _, c := range []struct {
		t    status.Transition
		want []string
		subj string
	}{
		{status.Transition{Kind: "instance", Object: "VI_1", To: "MASTER", Priority: 100}, []string{"m", "any INSTANCE VI_1 MASTER 100"}, "[LVS_DEVEL] VRRP Instance VI_1 - Entering MASTER state"},
		{status.Transition{Kind: "instance", Object: "VI_1", To: "BACKUP", Priority: 98}, []string{"b", "any INSTANCE VI_1 BACKUP 98"}, "[LVS_DEVEL] VRRP Instance VI_1 - Entering BACKUP state"},
		{status.Transition{Kind: "instance", Object: "VI_1", To: "FAULT", Priority: 98}, []string{"f", "any INSTANCE VI_1 FAULT 98"}, "[LVS_DEVEL] VRRP Instance VI_1 - Entering FAULT state"},
		{status.Transition{Kind: "instance", Object: "VI_1", To: "STOP", Priority: 98}, []string{"s", "any INSTANCE VI_1 STOP 98"}, "[LVS_DEVEL] VRRP Instance VI_1 - Stopping"},
		{status.Transition{Kind: "instance", Object: "VI_1", To: "INIT"}, nil, ""},
		{status.Transition{Kind: "instance", Object: "VI_9", To: "MASTER"}, nil, ""},
		{status.Transition{Kind: "group", Object: "G", To: "MASTER", Priority: 100}, []string{"gany GROUP G MASTER 0"}, "[LVS_DEVEL] VRRP Group G - Entering MASTER state"},
		{status.Transition{Kind: "virtual server", Object: "[10.10.10.2]:tcp:80", From: "UP", To: "DOWN"}, []string{"qdown"}, "[LVS_DEVEL] Virtualserver [10.10.10.2]:tcp:80 - DOWN"},
		{status.Transition{Kind: "virtual server", Object: "[10.10.10.2]:tcp:80", From: "INIT", To: "UP"}, []string{"qup"}, "[LVS_DEVEL] Virtualserver [10.10.10.2]:tcp:80 - UP"},
		{status.Transition{Kind: "virtual server", Object: "[10.10.10.2]:tcp:80", From: "INIT", To: "DOWN"}, nil, ""},
		{status.Transition{Kind: "real server", Object: "[192.168.200.2]:tcp:80 of [10.10.10.2]:tcp:80", To: "DOWN"}, []string{"down"},
			"[LVS_DEVEL] Realserver [192.168.200.2]:tcp:80 of virtual server [10.10.10.2]:tcp:80 - DOWN"},
		{status.Transition{Kind: "real server", Object: "[192.168.200.2]:tcp:80 of [10.10.10.2]:tcp:80", To: "UP"}, []string{"up"},
			"[LVS_DEVEL] Realserver [192.168.200.2]:tcp:80 of virtual server [10.10.10.2]:tcp:80 - UP"},
		{status.Transition{Kind: "real server", Object: "[192.168.200.9]:tcp:80 of [10.10.10.2]:tcp:80", To: "UP"}, nil, ""},
	} {
		find := forHealth
		if c.t.Kind == kindInstance || c.t.Kind == kindGroup {
			find = forVRRP
		}
		a := find(objectsOf(cfg), c.t)
		var got []string
		for _, j := range a.jobs {
			got = append(got, strings.Join(append(j.cmd.Argv, j.extra...), " "))
		}
		subj := ""
		if a.mail != nil {
			subj = a.mail.subject
		}
		if d := cmp.Diff(c.want, got); d != "" || subj != c.subj {
			t.Errorf("%+v: %s; subject %q", c.t, d, subj)
		}
	}
	cfg.Global.NoEmailFaults = true
	if a := forVRRP(objectsOf(cfg), status.Transition{Kind: "instance", Object: "VI_1", To: "FAULT"}); a.mail != nil {
		t.Error("no_email_faults")
	}
}

func TestNews(t *testing.T) {
	ring := func(from, n int, at time.Time) (out []status.Transition) {
		for i := range n {
			out = append(out, status.Transition{Seq: uint64(from + i), Time: at.Add(time.Duration(i) * time.Second)})
		}
		return out
	}
	for _, c := range []struct {
		name string
		ring []status.Transition
		last mark
		want int

		missed uint64
	}{
		{"empty", nil, mark{}, 0, 0},
		{"nothing new", ring(1, 3, t0), markOf(ring(3, 1, t0.Add(2*time.Second))[0]), 0, 0},
		{"two new", ring(1, 5, t0), markOf(ring(3, 1, t0.Add(2*time.Second))[0]), 2, 0},
		{"the first ever", ring(1, 2, t0), mark{}, 2, 0},
		{"missed a whole ring", ring(900, 5, t0), mark{3, t0.Add(-time.Hour).UnixNano()}, 5, 896},
		{"restarted, lower numbers", ring(1, 2, t0), mark{40, t0.Add(-time.Minute).UnixNano()}, 2, 0},
		{"restarted, and the clock was set back", ring(1, 2, t0), mark{40, t0.Add(time.Hour).UnixNano()}, 2, 0},
		{"restarted, same numbers", ring(1, 3, t0), mark{2, t0.Add(-time.Minute).UnixNano()}, 3, 0},
	} {
		list, missed := news(c.ring, c.last)
		if missed != c.missed {
			t.Errorf("%s: %d missed, want %d", c.name, missed, c.missed)
		}
		if got := len(list); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

// objectsOf lists the virtual servers of a configuration as package follow does.
func objectsOf(cfg *model.Config) *objects {
	o := &objects{Config: cfg}
	for i := range cfg.VirtualServers {
		o.list = append(o.list, &cfg.VirtualServers[i])
	}
	return o
}
