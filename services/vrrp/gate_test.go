package vrrp_test

import (
	"context"
	"fmt"
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
	k := kind{"", 3, false, false, "", time.Second} // a process that restarts is back before its peer takes over
	l, a, b := pair(t, k, nil)
	b.start()
	b.awaitState(k.down(), status.VRRPMaster)
	table := a.ipvs()
	c := config(k.instance(1, 200))
	c.VirtualServers = []model.VirtualServer{{Name: "[192.0.2.1]:tcp:80"}}
	a.commit(c)
	a.start()
	l.until(30*time.Second, "the log says that it waits", func() bool {
		return strings.Contains(a.out.String(), "not taking over before the IPVS table is programmed")
	})
	if i := b.awaitState(k.down(), status.VRRPMaster); i.Stats.ReleaseMaster != 0 {
		t.Errorf("the peer lost mastership to a box that cannot forward yet: %+v", i)
	}
	table.Publish(status.IPVS{Applied: status.Applied{Config: a.gen}})
	i := a.awaitState(k.down(), status.VRRPMaster)
	if i.Stats.LateTimers != 0 {
		t.Errorf("the wait counts as lateness: %+v", i.Stats)
	}
	b.awaitState(k.down(), status.VRRPBackup)

	// Later configurations do not wait: the box serves already.
	a.commit(c)
	a.awaitState(k.down(), status.VRRPMaster)

	// Nor does a process that was master when it died.
	a.kill(9)
	table.Publish(status.IPVS{})
	a.start()
	a.awaitInstance(k.down(), "it goes on as master", func(i status.VRRPInstance) bool { return i.State == status.VRRPMaster })
	if i := b.awaitState(k.down(), status.VRRPBackup); i.Stats.BecomeMaster != 1 {
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
	a.awaitState(60*time.Second, status.VRRPMaster)
	l.until(30*time.Second, "the log says that it takes over without", func() bool {
		return strings.Contains(a.out.String(), "taking over without its table")
	})
}

// keepalived starts VRRP when startup_script has ended. A box that waits for it
// listens, also as the owner of the address.
func TestBootWaitsForStartupScript(t *testing.T) {
	t.Parallel()
	for _, priority := range []uint8{200, 255} {
		t.Run(fmt.Sprint("priority ", priority), func(t *testing.T) {
			t.Parallel()
			l := newLAN(t)
			l.host("a", 1)
			c := config(quick.instance(1, priority))
			c.Global.StartupScript = model.Command{Argv: []string{"/bin/true"}}
			c.Global.StartupScriptTimeout = time.Minute
			a := l.director("a", c)
			a.start()
			waits := func() {
				t.Helper()
				l.until(30*time.Second, "the log says that it waits", func() bool {
					return strings.Contains(a.out.String(), "not taking over before startup_script has ended")
				})
				if i := a.awaitState(quick.down(), status.VRRPBackup); i.Stats.BecomeMaster != 0 {
					t.Errorf("master before the script ended: %+v", i)
				}
			}
			waits()
			a.notify.Publish(status.Notify{Startup: "running", Applied: status.Applied{Config: a.gen}})
			waits()
			a.notify.Publish(status.Notify{Startup: "exit code 1", Applied: status.Applied{Config: a.gen}})
			a.awaitState(quick.down(), status.VRRPMaster)
			// Started again, it finds that the script ran, and goes on at once.
			a.kill(9)
			start := time.Now()
			a.start()
			a.awaitInstance(quick.down(), "it goes on as master", func(i status.VRRPInstance) bool { return i.State == status.VRRPMaster })
			if d := time.Since(start); d > 20*time.Second {
				t.Errorf("after %s", d)
			}
		})
	}
}
