package vrrp_test

import (
	"context"
	"net"
	"testing"

	"ballast/configs/model"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

// What net cannot restore of a track_group is a fault of its instances, and
// theirs only, until it is back. A net that starts again clears nothing.
func TestTrackGroup(t *testing.T) {
	t.Parallel()
	k := quick
	l := newLAN(t)
	l.host("a", 1)
	one, two := k.instance(1, 200), k.instance(1, 200)
	two.Name, two.VRID, two.VIPs = "VI_2", 52, nil
	c := config(one, two)
	c.TrackGroups = []model.TrackGroup{{Name: "uplink", Instances: []string{"VI_1"}}}
	d := l.director("a", c)
	sock, err := net.Listen("unix", d.dir.Path("net"))
	if err != nil {
		t.Fatal(err)
	}
	s := ipc.NewServer("net")
	s.Publish(status.Net{})
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	go s.Serve(ctx, sock)
	d.start()
	d.awaitState(k.down(), status.VRRPMaster)

	applied := status.Applied{Config: 1}
	states := func(first string) {
		t.Helper()
		v := d.await(k.down(), "VI_1 is "+first, func(v status.VRRP) bool {
			return len(v.Instances) == 2 && v.Instances[0].State == first && v.Instances[1].State == status.VRRPMaster
		})
		if f := v.Instances[0].Faults; first == status.VRRPFault && (len(f) != 1 || f[0] != "track_group uplink: route 10.9.0.0/16: network is unreachable, rule 5: x") {
			t.Errorf("faults %q", f)
		}
	}
	s.Publish(status.Net{Applied: applied, Missing: []status.Missing{{Group: "other", What: "y"},
		{Group: "uplink", What: "route 10.9.0.0/16: network is unreachable"}, {Group: "uplink", What: "rule 5: x"}}})
	states(status.VRRPFault)
	s.Publish(status.Net{}) // as after a restart
	s.Publish(status.Net{Applied: applied, Missing: []status.Missing{{Group: "uplink", What: "route 10.9.0.0/16: network is unreachable"}, {Group: "uplink", What: "rule 5: x"}}})
	states(status.VRRPFault)
	s.Publish(status.Net{Applied: applied})
	states(status.VRRPMaster)
}
