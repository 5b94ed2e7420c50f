package vrrp_test

import (
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc/status"
)

// signal goes to both processes of keepalived: the BFD one among them.
func (k *keepalived) signal(sig syscall.Signal) {
	k.l.t.Helper()
	for _, pid := range strings.Fields(sh(k.l.t, "ip netns pids "+k.l.ns(k.host))) {
		var n int
		if fmt.Sscan(pid, &n); n > 1 {
			syscall.Kill(n, sig)
		}
	}
}

// TestBFDWithKeepalived: a session with it comes up, its end is seen and moves
// our instance, and ours is seen by it.
func TestBFDWithKeepalived(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		pre  string // of the addresses
		ttl  int
	}{{"IPv4", "192.168.200.", 255}, {"IPv6", "fd00::", 64}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := newLAN(t)
			l.host("a", 1)
			l.host("b", 2)
			// Each has an instance of its own: only BFD goes between them.
			k := l.keepalived("b", fmt.Sprintf(`global_defs {
 router_id t
}
bfd_instance a {
 neighbor_ip %[1]s1
 source_ip %[1]s2
 min_rx 30
 min_tx 30
 multiplier 5
}
vrrp_instance VI_2 {
 state BACKUP
 interface eth0
 virtual_router_id 52
 priority 100
 advert_int 1
 track_bfd {
  a
 }
 virtual_ipaddress {
  192.168.200.26
 }
}
`, c.pre))
			i := kind{"", 3, false, false, "", 100 * time.Millisecond}.instance(1, 150)
			i.TrackBFD = []model.Track{{Name: "b"}}
			conf := config(i)
			conf.BFD = []model.BFD{{
				Name: "b", Neighbor: netip.MustParseAddr(c.pre + "2"), Source: netip.MustParseAddr(c.pre + "1"), MinRx: 20 * time.Millisecond,
				MinTx: 30 * time.Millisecond, IdleTx: time.Second, Multiplier: 5, TTL: c.ttl, VRRP: true, Checker: true,
			}}
			d := l.director("a", conf)
			d.start()
			d.awaitState(30*time.Second, status.VRRPFault) // nothing is known yet
			k.start()
			up := func(v status.VRRP) bool { return len(v.BFD) == 1 && v.BFD[0].State == "Up" }
			v := d.await(60*time.Second, "the session is up", up)
			if b := v.BFD[0]; b.Neighbor != conf.BFD[0].Neighbor || !b.VRRP || !b.Checker {
				t.Errorf("session %+v", b)
			}
			v = d.await(30*time.Second, "the agreed intervals", func(v status.VRRP) bool {
				return up(v) && v.BFD[0].Interval == 30*time.Millisecond && v.BFD[0].Detect == 150*time.Millisecond
			})
			if v.BFD[0].Remote != "Up" && v.BFD[0].Remote != "Init" {
				t.Errorf("session %+v", v.BFD[0])
			}
			d.awaitState(30*time.Second, status.VRRPMaster)
			l.until(60*time.Second, "keepalived's instance follows the session", func() bool { return l.has("b", "192.168.200.26") })

			k.signal(syscall.SIGSTOP)
			f := d.awaitState(30*time.Second, status.VRRPFault)
			if !strings.Contains(f.Reason, "BFD session b is down") {
				t.Errorf("reason %q", f.Reason)
			}
			v = d.await(30*time.Second, "it says why", func(v status.VRRP) bool { return len(v.BFD) == 1 && v.BFD[0].State != "Up" })
			if v.BFD[0].Diagnostic != "control detection time expired" {
				t.Errorf("session %+v", v.BFD[0])
			}
			k.signal(syscall.SIGCONT)
			d.await(60*time.Second, "the session is up again", up)
			l.until(60*time.Second, "keepalived's instance is back", func() bool { return l.has("b", "192.168.200.26") })

			d.cmd.Process.Signal(syscall.SIGSTOP)
			l.until(60*time.Second, "keepalived sees that we are gone", func() bool { return !l.has("b", "192.168.200.26") })
			d.cmd.Process.Signal(syscall.SIGCONT)
			d.await(60*time.Second, "the session is up once more", up)
		})
	}
}
