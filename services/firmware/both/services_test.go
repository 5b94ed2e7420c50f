package both

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"ballast/services/firmware/pairing"
	"ballast/services/ipc"
	"ballast/services/ipc/status"

	"github.com/google/go-cmp/cmp"
)

// TestServices: what the services of a box say becomes its report, over their
// sockets; what is asked of them arrives.
func TestServices(t *testing.T) {
	dir := ipc.Dir(t.TempDir())
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	servers := map[string]*ipc.Server{}
	for _, name := range []string{"init", "conf", "net", "vrrp", "ipvs", "health", "peer", "notify"} {
		env, err := ipc.NewEnv(dir, name, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		s := ipc.NewServer(name)
		servers[name] = s
		wg.Go(func() { s.Serve(ctx, env.Listener) })
	}
	t.Cleanup(func() { cancel(); wg.Wait() })
	did := make(chan string, 10)
	on := func(service, verb string, answer func(body json.RawMessage) (any, error)) {
		servers[service].Handle(verb, func(_ context.Context, _ ipc.Peer, body json.RawMessage) (any, error) { return answer(body) }, ipc.UIDFirmware)
	}
	asked := func(word string) func(json.RawMessage) (any, error) {
		return func(body json.RawMessage) (any, error) { did <- word + string(body); return nil, nil }
	}
	servers["init"].Publish(status.Init{Services: []status.Process{{Name: "vrrp", State: "ready"}, {Name: "snmp", State: "stopped"}, {Name: "capture", State: "idle"}, {Name: "health", State: "backoff"}}})
	servers["conf"].Publish(status.ConfNews{Generation: 7, Pending: &status.Pending{Generation: 7}})
	servers["vrrp"].Publish(status.VRRP{
		Applied: status.Applied{Config: 7}, Resigned: true, ResignedBy: "ann", Heartbeat: &status.Heartbeat{Up: true},
		Instances:   []status.VRRPInstance{{Name: "VI_1", State: status.VRRPMaster}, {Name: "VI_2", State: status.VRRPFault, Faults: []string{"eth1: no carrier", "more"}}},
		Transitions: []status.Transition{{Seq: 1}},
	})
	servers["net"].Publish(status.Net{Applied: status.Applied{Config: 6}})
	servers["ipvs"].Publish(status.IPVS{Applied: status.Applied{Config: 7, Error: "no memory"}})
	servers["health"].Publish(status.Health{Applied: status.Applied{Config: 7}})
	on("conf", "peer-state", func(json.RawMessage) (any, error) {
		return status.PairState{Own: status.PairSide{Box: "lb1", Content: "c"}, Doubt: "late"}, nil
	})
	on("ipvs", "page", func(json.RawMessage) (any, error) {
		return status.Page{Sum: status.Sum{Real: 5, Down: 2, Active: 9, Stats: status.Stats{InPackets: 77}}, Daemons: []status.Daemon{{Role: "master"}}}, nil
	})
	on("vrrp", "resign", asked("resign "))
	on("vrrp", "resume", asked("resume "))
	on("notify", "note", asked("note "))
	on("peer", "send", func(body json.RawMessage) (any, error) {
		head, message, _ := strings.Cut(string(body), "\x00")
		if message == "no" {
			return nil, errors.New("192.0.2.2: connection refused")
		}
		return status.PeerMessage{Body: []byte(head + "|" + message)}, nil
	})
	s := newServices(dir)
	r := pairing.Report{}
	if err := s.Look(t.Context(), &r); err != nil {
		t.Fatal(err)
	}
	want := pairing.Report{
		Box: "lb1", Content: "c", Pending: true, Resigned: "ann", Heartbeat: true, Live: 3, Conns: 9, Packets: 77, Sync: true,
		Instances: []pairing.Instance{{Name: "VI_1", State: "MASTER"}, {Name: "VI_2", State: "FAULT", Fault: "eth1: no carrier"}},
		Unsound:   []string{"a commit of the pair is in doubt: see \"show peer\"", "service health: backoff", "net has not applied generation 7 yet", "ipvs: no memory"},
	}
	if d := cmp.Diff(want, r); d != "" {
		t.Error(d)
	}
	for _, c := range []struct {
		do   func() error
		want string
	}{
		{func() error { return s.Resign(t.Context()) }, `resign {"by":"upgrade pair"}`},
		{func() error { return s.Resume(t.Context()) }, `resume `},
		{func() error { s.Note(status.Transition{Object: "pair"}); return nil }, `note {"seq":0`},
	} {
		if err := c.do(); err != nil {
			t.Error(err)
		}
		if got := <-did; !strings.HasPrefix(got, c.want) {
			t.Errorf("%s, want %s", got, c.want)
		}
	}
	out, err := s.Send(t.Context(), []byte("hello"))
	if err != nil || !strings.HasSuffix(string(out), "|hello") || !strings.Contains(string(out), `"channel":"firmware"`) {
		t.Errorf("%s, %v", out, err)
	}
	if _, err := s.Send(t.Context(), []byte("no")); err == nil || err.Error() != "192.0.2.2: connection refused" {
		t.Errorf("%v", err)
	}
}
