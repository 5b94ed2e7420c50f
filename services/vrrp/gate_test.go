package vrrp_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

// ipvs serves the state of an ipvs beside a director.
func (d *director) ipvs() *ipc.Server {
	d.l.t.Helper()
	sock, err := net.Listen("unix", d.dir.Path("ipvs"))
	if err != nil {
		d.l.t.Fatal(err)
	}
	s := ipc.NewServer("ipvs")
	s.Publish(status.IPVS{})
	ctx, cancel := context.WithCancel(context.Background())
	d.l.t.Cleanup(cancel)
	go s.Serve(ctx, sock)
	return s
}

// A box that boots must not draw requests from a peer before it can forward
// them: with a higher priority it preempts only once its IPVS table is there.
func TestBootWaitsForIPVS(t *testing.T) {
	t.Parallel()
	l, a, b := pair(t, quick, nil)
	b.start()
	b.awaitState(quick.down(), status.VRRPMaster)
	table := a.ipvs()
	c := config(quick.instance(1, 200))
	c.VirtualServers = []model.VirtualServer{{Name: "[192.0.2.1]:tcp:80"}}
	a.commit(c)
	a.start()
	l.until(5*time.Second, "the log says that it waits", func() bool {
		return strings.Contains(a.out.String(), "not taking over before the IPVS table is programmed")
	})
	if i := b.awaitState(quick.down(), status.VRRPMaster); i.Stats.ReleaseMaster != 0 {
		t.Errorf("the peer lost mastership to a box that cannot forward yet: %+v", i)
	}
	table.Publish(status.IPVS{Applied: status.Applied{Config: a.gen}})
	i := a.awaitState(quick.down(), status.VRRPMaster)
	if i.Stats.LateTimers != 0 {
		t.Errorf("the wait counts as lateness: %+v", i.Stats)
	}
	b.awaitState(quick.down(), status.VRRPBackup)

	// Later configurations do not wait: the box serves already.
	a.commit(c)
	a.awaitState(quick.down(), status.VRRPMaster)

	// Nor does a process that was master when it died.
	a.kill(9)
	table.Publish(status.IPVS{})
	a.start()
	a.awaitInstance(quick.down(), "it goes on as master", func(i status.VRRPInstance) bool { return i.State == status.VRRPMaster })
	if i := b.awaitState(quick.down(), status.VRRPBackup); i.Stats.BecomeMaster != 1 {
		t.Errorf("the peer took over while the process restarted: %+v", i.Stats)
	}
}

// A table that never comes must not keep the addresses down for ever.
func TestBootWaitsForIPVSOnlySoLong(t *testing.T) {
	t.Parallel()
	l, a, _ := pair(t, quick, nil)
	a.ipvs()
	c := config(quick.instance(1, 200))
	c.VirtualServers = []model.VirtualServer{{Name: "[192.0.2.1]:tcp:80"}}
	a.commit(c)
	a.start()
	a.awaitState(15*time.Second, status.VRRPMaster)
	l.until(time.Second, "the log says that it takes over without", func() bool {
		return strings.Contains(a.out.String(), "taking over without its table")
	})
}
