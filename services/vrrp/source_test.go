package vrrp_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc/status"
)

// mcast_src_ip is where advertisements come from, also when another address of
// the interface is the first one. With track_src_ip its loss is a fault, without
// it advertisements go on.
func TestSourceAddress(t *testing.T) {
	t.Parallel()
	k := quick
	src := netip.MustParseAddr("192.168.200.77")
	l, a, b := pair(t, k, func(c *model.Instance) {
		if c.Priority == 200 {
			c.SrcIP, c.TrackSrcIP = src, true
		}
	})
	b.start()
	b.awaitState(k.down(), status.VRRPMaster)
	a.start()
	i := a.awaitState(k.down(), status.VRRPFault)
	if len(i.Faults) != 1 || i.Faults[0] != "source address 192.168.200.77 is on no interface" {
		t.Errorf("faults %q", i.Faults)
	}
	l.run("a", "ip addr add 192.168.200.77/24 dev eth0")
	l.movesTo(k, "a", "b")
	from := func(want netip.Addr) {
		t.Helper()
		b.awaitInstance(k.down(), "the source", func(i status.VRRPInstance) bool {
			return i.State == status.VRRPBackup && i.MasterAddr == want && i.Evidence.From == want && i.Evidence.Priority == 200 && i.Evidence.Interval == k.adv
		})
	}
	from(src)
	l.run("a", "ip addr del 192.168.200.77/24 dev eth0")
	l.movesTo(k, "b", "a")
	a.awaitState(k.down(), status.VRRPFault)
	c := k.instance(1, 200)
	c.SrcIP = src
	a.commit(config(c))
	l.movesTo(k, "a", "b")
	from(src)
}

// What explains a state: who was heard last, who was not believed and why, and
// what made a router master.
func TestEvidence(t *testing.T) {
	t.Parallel()
	k := quick
	hmac := func(key string) *model.AuthHMAC {
		return &model.AuthHMAC{Keys: []model.HMACKey{{ID: 3, Key: []byte(strings.Repeat(key, 32))}}, Active: 3, TimeWindow: 5 * time.Second, Mode: "enforce"}
	}
	_, a, b := pair(t, k, func(c *model.Instance) { c.AuthHMAC = hmac("k") })
	a.start()
	i := a.awaitInstance(k.down(), "master, announced", func(i status.VRRPInstance) bool {
		return i.State == status.VRRPMaster && i.Evidence.FirstGARP > 0
	})
	if e := i.Evidence; e.Takeover != "master down timer" || e.FirstGARP > 10*time.Second || e.From.IsValid() || e.Rejected != "" {
		t.Errorf("%+v", e)
	}
	inst := k.instance(2, 100)
	inst.AuthHMAC = hmac("x")
	b.commit(config(inst))
	b.start()
	i = b.awaitInstance(k.down(), "the key differs", func(i status.VRRPInstance) bool { return i.Evidence.Rejected != "" })
	if e := i.Evidence; e.Rejected != "has a wrong auth_hmac signature" || e.RejectedFrom != netip.MustParseAddr(k.addr(1)) || e.RejectedAt.IsZero() || e.From.IsValid() {
		t.Errorf("%+v", e)
	}
	inst.AuthHMAC = hmac("k")
	b.commit(config(inst))
	b.awaitInstance(k.down(), "the master is heard", func(i status.VRRPInstance) bool {
		return i.State == status.VRRPBackup && i.Evidence.From == netip.MustParseAddr(k.addr(1)) && !i.Evidence.At.IsZero()
	})
	a.kill(15)
	i = b.awaitInstance(k.down(), "the master has resigned", func(i status.VRRPInstance) bool { return i.State == status.VRRPMaster })
	if i.Evidence.Takeover != "priority 0" {
		t.Errorf("%+v", i.Evidence)
	}
	a.start()
	i = a.awaitInstance(k.down(), "it preempts", func(i status.VRRPInstance) bool { return i.State == status.VRRPMaster })
	if i.Evidence.Takeover != "preempt" {
		t.Errorf("%+v", i.Evidence)
	}
	v := a.await(k.down()+6*time.Second, "lateness of timers", func(v status.VRRP) bool { return v.Timers.Count > 5 })
	if v.Timers.Max <= 0 || v.Timers.P50 > v.Timers.P99 || v.Timers.P99 > v.Timers.Max {
		t.Errorf("%+v", v.Timers)
	}
}

// log_unknown_vrids: a neighbour with a number that is not configured here.
func TestUnknownVRIDIsLogged(t *testing.T) {
	t.Parallel()
	k := quick
	l, a, b := pair(t, k, nil)
	one := k.instance(1, 200)
	one.VRID = 77
	c := config(one)
	c.Global.LogUnknownVRIDs = true
	a.commit(c)
	a.start()
	b.start()
	l.until(k.down(), "the log names it", func() bool {
		return strings.Contains(a.out.String(), "packet from 192.168.200.2 of virtual router 51, which is not configured here")
	})
}
