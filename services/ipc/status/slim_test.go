package status_test

import (
	"encoding/json"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ballast/configs/model"
	"ballast/services/ipc/status"
)

func TestSlimHasAllButRealServers(t *testing.T) {
	whole := model.Config{
		System:    model.System{HostName: "lb1"},
		Instances: []model.Instance{{Name: "VI_1", VRID: 51, AuthPass: []byte("secret")}},
		VirtualServers: []model.VirtualServer{{
			Name: "[192.0.2.1]:tcp:80", Scheduler: "mh", Forward: model.DR,
			Real: []model.RealServer{{Addr: netip.MustParseAddr("192.0.2.2"), Port: 80}},
		}},
	}
	b, err := json.Marshal(status.Conf{Generation: 7, Config: whole})
	if err != nil {
		t.Fatal(err)
	}
	var s status.Slim
	if err := json.Unmarshal(b, &s); err != nil {
		t.Fatal(err)
	}
	want := whole
	want.VirtualServers = []model.VirtualServer{whole.VirtualServers[0]}
	want.VirtualServers[0].Real = nil
	opt := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
	prefix := cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
	if d := cmp.Diff(status.Conf{Generation: 7, Config: want}, s.Conf(), opt, prefix); d != "" {
		t.Error(d)
	}
}
