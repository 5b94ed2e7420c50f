package snmp

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc/status"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// example has something in every table.
func example() *facts {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	vip := model.ServiceID{Addr: addr("10.0.0.100"), Port: 80, Protocol: model.TCP}
	f := &facts{version: "0.1", host: "lb1", start: now.Add(-time.Hour), now: now}
	f.conf = model.Config{
		Global: model.Global{
			RouterID: "lb1-id", NotificationEmail: []string{"a@example.org", "b@example.org"}, NotificationEmailFrom: "lb@example.org", SMTPServer: "192.0.2.25:25",
			SMTPConnectTimeout: 30 * time.Second, SNMP: model.SNMP{VRRP: true, Checker: true, Traps: true},
			SyncDaemon: &model.SyncDaemon{Interface: "eth1", Instance: "VI_1", ID: 51, Group: addr("224.0.0.81")}, Timeouts: model.Timeouts{TCP: 900 * time.Second},
		},
		Scripts:     []model.Script{{Name: "chk", Command: model.Command{Argv: []string{"/bin/chk", "a"}}, Interval: 2 * time.Second, Weight: -2, Rise: 1, Fall: 3}},
		TrackFiles:  []model.TrackFile{{Name: "load", Path: "/etc/keepalived/load"}},
		StaticAddrs: []model.Address{{Prefix: netip.MustParsePrefix("192.0.2.1/24"), Interface: "eth1"}},
		Instances: []model.Instance{
			{Name: "VI_1", State: model.StateMaster, Interface: "eth0", VRID: 51, Priority: 150, Version: 2, AdvertInt: time.Second, AuthPass: []byte{0}, GARPMasterDelay: 5 * time.Second,
				VIPs:         []model.Address{{Prefix: netip.MustParsePrefix("10.0.0.100/32"), Interface: "eth0"}},
				ExcludedVIPs: []model.Address{{Prefix: netip.MustParsePrefix("2001:db8::100/64"), Interface: "eth0", Scope: 253}},
				TrackScripts: []model.TrackScript{{Script: "chk", Weight: -2}}, TrackInterfaces: []model.TrackInterface{{Interface: "eth1", Weight: 5}, {Interface: "lo"}},
				TrackFiles: []model.Track{{Name: "load"}}, Notify: model.Notify{Master: model.Command{Argv: []string{"/bin/m"}}}},
			{Name: "VI_2", Interface: "eth1", VRID: 52, Priority: 100, Version: 3, AdvertInt: 100 * time.Millisecond, NoPreempt: true},
		},
		SyncGroups: []model.SyncGroup{{Name: "G1", Instances: []string{"VI_1", "VI_2"}}},
		VirtualServers: []model.VirtualServer{
			{Name: vip.String(), Services: []model.ServiceID{vip}, Scheduler: "wrr", Forward: model.DR, Quorum: 1, Persistence: 300 * time.Second, Granularity: 24,
				Sorry: &model.RealServer{Addr: addr("127.0.0.1"), Port: 80, ConfPort: 80},
				Real:  []model.RealServer{{Addr: addr("10.0.0.21"), Port: 80, ConfPort: 8080, Weight: 1, Forward: model.DR}, {Addr: addr("10.0.0.22"), Port: 80, ConfPort: 80, Weight: 3, Forward: model.TUN, InhibitOnFailure: true}}},
			{Name: "FWM 7", Services: []model.ServiceID{{Mark: 7}}, Scheduler: "mh", Real: []model.RealServer{{Addr: addr("2001:db8::21"), Weight: 1}}},
			{Name: "[web]:0", Services: []model.ServiceID{vip, {Addr: addr("10.0.0.101"), Port: 80, Protocol: model.TCP}}, Scheduler: "rr"},
		},
	}
	f.vrrp = status.VRRP{Instances: []status.VRRPInstance{{Name: "VI_1", State: status.VRRPMaster, Effective: 148}, {Name: "VI_2", State: status.VRRPBackup, Effective: 100}},
		Groups: []status.VRRPGroup{{Name: "G1", State: status.VRRPMaster}}}
	f.health = status.Health{Servers: []status.VirtualServerHealth{{Name: vip.String(), QuorumUp: true, Real: []status.RealServerHealth{
		{Addr: addr("10.0.0.21"), Port: 8080, Alive: true, Weight: -1},
		{Addr: addr("10.0.0.22"), Port: 80, Weight: -1, Checks: []status.CheckHealth{{Known: true}, {Known: true, Up: true}}}}}}}
	f.ipvs = status.IPVS{Services: []status.Service{{VirtualServer: vip.String(), Stats: status.Stats{Conns: 1<<33 + 5, InBytes: 7, CPS: 1<<32 + 9},
		Dests: []status.Dest{{Addr: addr("10.0.0.21"), Port: 80, Weight: 1, Active: 12, Inactive: 345, Stats: status.Stats{InPackets: 99}}}}}}
	f.net = status.Net{Links: []status.Link{
		{Index: 7, Name: "eth1", Kind: "device", MAC: "52:54:00:00:00:02", MTU: 1500, Up: true, Speed: 10000, RxBytes: 1<<32 + 1},
		{Index: 1, Name: "lo", Kind: "loopback", Up: true, Carrier: true}, {Index: 2, Name: "eth0", MAC: "bad", Up: true, Carrier: true}}}
	f.notify = status.Notify{Scripts: []status.ScriptResult{{Name: "chk", Known: true}}, Files: []status.FileResult{{Name: "load", Value: 42}}}
	return f
}

// walk goes through the whole tree from a name on.
func walk(t *testing.T, tr tree, from oid) (names []oid) {
	t.Helper()
	for n := from; ; {
		next, _, ok := tr.next(n)
		if !ok {
			return names
		}
		if slices.Compare(next, n) <= 0 {
			t.Fatalf("%v follows %v", next, n)
		}
		if _, ok := tr.get(next); !ok {
			t.Fatalf("%v is walked over, but cannot be read", next)
		}
		names = append(names, next)
		n = next
	}
}

func TestTree(t *testing.T) {
	tr := makeTree(example())
	for name, want := range map[string]any{
		".1.3.6.1.2.1.1.5.0":                   "lb1",
		".1.3.6.1.2.1.2.2.1.2.7":               "eth1",
		".1.3.6.1.2.1.2.2.1.8.7":               2,
		".1.3.6.1.2.1.2.2.1.10.7":              uint32(1),
		".1.3.6.1.2.1.31.1.1.1.6.7":            uint64(1<<32 + 1),
		".1.3.6.1.4.1.9586.100.5.1.2.0":        "lb1-id",
		".1.3.6.1.4.1.9586.100.5.1.3.5.1.2.2":  "b@example.org",
		".1.3.6.1.4.1.9586.100.5.2.1.1.3.1":    2,
		".1.3.6.1.4.1.9586.100.5.2.2.1.2.1.2":  "VI_2",
		".1.3.6.1.4.1.9586.100.5.2.3.1.2.1":    "VI_1",
		".1.3.6.1.4.1.9586.100.5.2.3.1.3.2":    uint32(52),
		".1.3.6.1.4.1.9586.100.5.2.3.1.4.1":    2,
		".1.3.6.1.4.1.9586.100.5.2.3.1.8.1":    148,
		".1.3.6.1.4.1.9586.100.5.2.3.1.12.1":   uint32(1),
		".1.3.6.1.4.1.9586.100.5.2.3.1.12.2":   uint32(10),
		".1.3.6.1.4.1.9586.100.5.2.3.1.13.2":   2,
		".1.3.6.1.4.1.9586.100.5.2.3.1.15.1":   1,
		".1.3.6.1.4.1.9586.100.5.2.3.1.18.2":   "G1",
		".1.3.6.1.4.1.9586.100.5.2.3.1.22.1":   "/bin/m",
		".1.3.6.1.4.1.9586.100.5.2.4.1.2.1.7":  5,
		".1.3.6.1.4.1.9586.100.5.2.5.1.3.1.1":  -2,
		".1.3.6.1.4.1.9586.100.5.2.6.1.8.0.1":  "eth1",
		".1.3.6.1.4.1.9586.100.5.2.6.1.11.1.2": 2,
		".1.3.6.1.4.1.9586.100.5.2.9.1.3.1":    "/bin/chk a",
		".1.3.6.1.4.1.9586.100.5.2.9.1.6.1":    2,
		".1.3.6.1.4.1.9586.100.5.2.13.1.4.1":   42,
		".1.3.6.1.4.1.9586.100.5.3.3.1.2.1":    2,
		".1.3.6.1.4.1.9586.100.5.3.3.1.2.2":    1,
		".1.3.6.1.4.1.9586.100.5.3.3.1.3.3":    "web",
		".1.3.6.1.4.1.9586.100.5.3.3.1.4.2":    uint32(7),
		".1.3.6.1.4.1.9586.100.5.3.3.1.9.2":    99,
		".1.3.6.1.4.1.9586.100.5.3.3.1.10.1":   2,
		".1.3.6.1.4.1.9586.100.5.3.3.1.14.1":   uint32(300),
		".1.3.6.1.4.1.9586.100.5.3.3.1.20.1":   uint32(2),
		".1.3.6.1.4.1.9586.100.5.3.3.1.21.1":   uint32(1),
		".1.3.6.1.4.1.9586.100.5.3.3.1.23.1":   1,
		".1.3.6.1.4.1.9586.100.5.3.3.1.27.1":   uint32(1<<32 - 1),
		".1.3.6.1.4.1.9586.100.5.3.3.1.38.1":   uint64(1<<33 + 5),
		".1.3.6.1.4.1.9586.100.5.3.3.1.41.1":   uint32(9),
		".1.3.6.1.4.1.9586.100.5.3.3.1.42.1":   uint32(1),
		".1.3.6.1.4.1.9586.100.5.3.4.1.2.1.3":  2,
		".1.3.6.1.4.1.9586.100.5.3.4.1.5.1.1":  uint32(8080),
		".1.3.6.1.4.1.9586.100.5.3.4.1.6.1.2":  2,
		".1.3.6.1.4.1.9586.100.5.3.4.1.7.1.2":  3,
		".1.3.6.1.4.1.9586.100.5.3.4.1.10.1.2": 2,
		".1.3.6.1.4.1.9586.100.5.3.4.1.13.1.2": uint32(1),
		".1.3.6.1.4.1.9586.100.5.3.4.1.15.1.1": uint32(12),
		".1.3.6.1.4.1.9586.100.5.3.4.1.18.1.1": uint32(99),
		".1.3.6.1.4.1.9586.100.5.3.4.1.40.1.2": 3,
		".1.3.6.1.4.1.9586.100.5.3.6.4.0":      51,
		".1.3.6.1.4.1.9586.100.5.3.7.1.0":      900,
	} {
		o, _ := parseOID(name)
		got, ok := tr.get(o)
		if !ok || got.v != want {
			t.Errorf("%s: %v (%T), want %v (%T)", name, got.v, got.v, want, want)
		}
	}
	for _, name := range []string{".1.3.6.1.4.1.9586.100.5.3.3.1.4.1", ".1.3.6.1.4.1.9586.100.5.3.3.1.2.9", ".1.3.6.1.4.1.9586.100.5.3.7.2.0", ".1.3.6.1.2.1.1", ".1", ""} {
		o, _ := parseOID(name)
		if v, ok := tr.get(o); ok {
			t.Errorf("%s exists: %v", name, v)
		}
	}
}

// A walk meets everything once and in order, from wherever it begins.
func TestWalk(t *testing.T) {
	tr := makeTree(example())
	all := walk(t, tr, oid{})
	if len(all) < 300 {
		t.Errorf("only %d variables", len(all))
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		from := slices.Clone(all[r.IntN(len(all))])
		switch r.IntN(4) {
		case 0:
			from = from[:r.IntN(len(from))]
		case 1:
			from = append(from, uint32(r.IntN(3)))
		case 2:
			from[r.IntN(len(from))] += uint32(r.IntN(3)) - 1
		}
		want, _ := slices.BinarySearchFunc(all, from, slices.Compare)
		if want < len(all) && slices.Equal(all[want], from) {
			want++
		}
		next, _, ok := tr.next(from)
		if ok != (want < len(all)) || ok && !slices.Equal(next, all[want]) {
			t.Fatalf("behind %v comes %v, want %v", from, next, all[min(want, len(all)-1)])
		}
	}
}

func TestOnlyWhatIsEnabled(t *testing.T) {
	f := example()
	f.conf.Global.SNMP = model.SNMP{}
	for _, n := range walk(t, makeTree(f), oid{}) {
		if n.under(mibVRRP) || n.under(mibCheck) {
			t.Errorf("%v is shown", n)
		}
	}
}
