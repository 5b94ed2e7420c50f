package show_test

import (
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"ballast/configs/model"
	"ballast/console/show"
	"ballast/services/ipc/status"
	"ballast/test/golden"
)

var now = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) time.Time { return now.Add(-d) }

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

var vrrp = status.VRRP{
	Instances: []status.VRRPInstance{
		{Name: "VI_2", State: status.VRRPBackup, Since: ago(49 * time.Hour), Reason: "advertisement from 10.0.0.12 with priority 150, ours is 98",
			Interface: "eth1", VRID: 52, Version: 3, Priority: 100, Effective: 98, AdvertInt: 100 * time.Millisecond, MasterDown: 361 * time.Millisecond,
			MasterAddr: addr("10.0.0.12"), MasterPriority: 150, LastAdvert: ago(50 * time.Millisecond),
			VIPs:     []netip.Prefix{prefix("10.0.1.100/24"), prefix("10.0.1.101/24"), prefix("10.0.1.102/24"), prefix("10.0.1.103/24"), prefix("10.0.1.104/24"), prefix("10.0.1.105/24")},
			Trackers: []status.Tracker{{Kind: "script", Name: "chk_nginx", Weight: -2, Detail: "exit 1"}, {Kind: "interface", Name: "eth2", Up: true}}},
		{Name: "VI_1", State: status.VRRPMaster, Since: ago(3*time.Hour + 12*time.Minute), Reason: "no advertisement from 10.0.0.12 for 3.61s",
			Interface: "eth0", VRID: 51, Version: 2, Priority: 100, Effective: 100, AdvertInt: time.Second, MasterDown: 3609375 * time.Microsecond,
			MasterAddr: addr("10.0.0.11"), MasterPriority: 100, LastAdvert: ago(3*time.Hour + 12*time.Minute + 4*time.Second),
			VIPs:  []netip.Prefix{prefix("10.0.0.100/24")},
			Stats: status.VRRPStats{AdvertRcvd: 12, AdvertSent: 11520, BecomeMaster: 1, AuthFailure: 3, MaxLate: 1500 * time.Microsecond}},
		{Name: "VI_6", State: status.VRRPFault, Since: ago(12 * time.Second), Reason: "eth3 has no carrier", Faults: []string{"interface eth3: no carrier"},
			Interface: "eth3", VRID: 6, Version: 3, IPv6: true, Priority: 255, Effective: 0, VIPs: []netip.Prefix{prefix("2001:db8:1234:5678::100/64"), prefix("fe80::1/64")}},
	},
	Groups:   []status.VRRPGroup{{Name: "G1", State: status.VRRPBackup, Since: ago(2 * time.Hour), Instances: []string{"VI_2", "VI_6"}}},
	Resigned: true, ResignedBy: "admin@10.0.0.9",
}

var health = status.Health{Servers: []status.VirtualServerHealth{
	{Name: "[10.0.0.100]:tcp:80", QuorumUp: true, Weight: 1, Quorum: 1, Real: []status.RealServerHealth{
		{Addr: addr("10.0.0.21"), Port: 80, Alive: true, Weight: -1, Since: ago(26 * time.Hour), Checks: []status.CheckHealth{
			{Kind: "HTTP_GET", Target: "10.0.0.21:80", Up: true, Known: true, Took: 2134 * time.Microsecond, Detail: "status 200"}}},
		{Addr: addr("10.0.0.22"), Port: 80, Weight: -1, Since: ago(12 * time.Second), Checks: []status.CheckHealth{
			{Kind: "TCP_CHECK", Target: "10.0.0.22:8080", Known: true, Detail: "connection refused"},
			{Kind: "MISC_CHECK", Target: "/etc/keepalived/x.sh", Detail: ""}}},
		{Addr: addr("10.0.0.23"), Port: 80, Alive: true, Weight: 7, Since: ago(time.Minute)},
	}},
	{Name: "FWM 300", Weight: 0, Quorum: 2, Real: []status.RealServerHealth{
		{Addr: addr("2001:db8::21"), Port: 21, Weight: -1, Since: ago(400 * 24 * time.Hour), Checks: []status.CheckHealth{
			{Kind: "TCP_CHECK", Target: "[2001:db8::21]:21", Up: false, Known: true, Detail: "timeout after 3s\x1b[31m"}}}}},
}}

var ipvs = status.IPVS{
	Services: []status.Service{
		{ID: model.ServiceID{Mark: 300, IPv6: true}, VirtualServer: "FWM 300", Scheduler: "sh", Flags: []string{"sh-port", "sh-fallback"}, Persistence: 50 * time.Second, Granularity: 64,
			Dests: []status.Dest{{Addr: addr("2001:db8::21"), Forward: "TUN", Weight: 0, Draining: true, Active: 3}}},
		{ID: model.ServiceID{Addr: addr("10.0.0.100"), Port: 80, Protocol: model.TCP}, VirtualServer: "[10.0.0.100]:tcp:80", Scheduler: "wrr", Persistence: 5 * time.Minute, Granularity: 32,
			Stats: status.Stats{Conns: 123456789012, InPackets: 12, OutPackets: 3, InBytes: 99999999, OutBytes: 123456789, CPS: 7, InPPS: 1000000},
			Dests: []status.Dest{
				{Addr: addr("10.0.0.22"), Port: 80, Forward: "DR", Weight: 0},
				{Addr: addr("10.0.0.21"), Port: 80, Forward: "DR", Weight: 1, Active: 12, Inactive: 345, Stats: status.Stats{Conns: 5}},
				{Addr: addr("10.0.0.23"), Port: 80, Forward: "NAT", Weight: 7},
				{Addr: addr("127.0.0.1"), Port: 80, Forward: "LOCAL", Weight: 1, Sorry: true}}},
		{ID: model.ServiceID{Addr: addr("10.0.0.101"), Port: 53, Protocol: model.UDP}, Scheduler: "rr", OnePacket: true},
	},
	Daemons: []status.Daemon{{Role: "master", Interface: "eth1", ID: 51}},
}

var netState = status.Net{
	Applied: status.Applied{Error: "bond0: eth7 is not there"},
	Links: []status.Link{
		{Name: "lo", Kind: "loopback", MTU: 65536, Up: true, Carrier: true, Addresses: []status.LinkAddress{{Prefix: prefix("127.0.0.1/8"), Origin: "kernel"}}},
		{Name: "eth1", Kind: "device", MAC: "52:54:00:00:00:02", MTU: 1500, Up: true, Driver: "virtio_net"},
		{Name: "eth0", Kind: "device", MAC: "52:54:00:00:00:01", MTU: 1500, Up: true, Carrier: true, Speed: 10000, Driver: "virtio_net", RxBytes: 123456789, TxBytes: 999, RxErrors: 1,
			Addresses: []status.LinkAddress{{Prefix: prefix("10.0.0.11/24"), Origin: "dhcp"}, {Prefix: prefix("10.0.0.100/32"), Origin: "vip"}}},
	},
	Routes:   []status.Route{{Dst: prefix("0.0.0.0/0"), Via: addr("10.0.0.1"), Interface: "eth0", Metric: 100, Origin: "dhcp"}, {Dst: prefix("10.0.0.0/24"), Interface: "eth0", Src: addr("10.0.0.11"), Origin: "kernel"}},
	NoAccept: []status.NoAccept{{Addr: addr("10.0.0.100"), Packets: 12, Bytes: 1008}},
	Missing:  []status.Missing{{Group: "G1", What: "route 10.9.0.0/16: network is unreachable"}},
	Firewall: &status.Firewall{Default: "drop", Rules: []status.FirewallRule{{Rule: "SSH", Does: "accept", Packets: 3, Bytes: 180}, {Rule: "everything else", Does: "drop", Packets: 12, Bytes: 3456}}},
	Marks:    []status.MarkCount{{Mark: 300, Rule: "tcp 192.168.100.111 8000-10000", Packets: 12, Bytes: 3456}},
}

var initState = status.Init{Version: "0.1.0", Kernel: "6.12.117", Board: "qemu", Started: ago(30 * time.Hour), Watchdog: "i6300esb, fed", Stateless: true, MemTotal: 512 << 20, MemFree: 400 << 20,
	Services: []status.Process{
		{Name: "vrrp", PID: 101, State: "ready", Since: ago(30 * time.Hour), RSS: 9 << 20, PSS: 7 << 20, CPU: 12345 * time.Millisecond},
		{Name: "health", PID: 102, State: "backoff", Since: ago(3 * time.Second), Restarts: 4, LastExit: "signal: killed"},
	}}

var notified = status.Notify{
	Applied: status.Applied{Config: 8, Error: "notify_fifo: no folder"}, Runs: 41, Dropped: 2, Missed: 3, Startup: "timeout after 10s, killed",
	MailSent: 5, MailFailed: 1, LastMailError: "10.0.0.25:25: connection refused",
	Scripts: []status.ScriptResult{
		{Name: "check_web", Known: true, OK: true, Last: ago(2 * time.Second), Took: 12300 * time.Microsecond, Detail: "exit 0"},
		{Name: "check_db", Known: true, Last: ago(time.Second), Took: 2 * time.Second, Exit: -1, Detail: "timeout after 2s, killed: waiting for\x1b[2J an answer of the database"},
		{Name: "check_new"},
		{Name: "check_gone", Missing: true, Last: ago(time.Second), Detail: "/etc/keepalived/gone.sh: no such file or directory"},
	},
	Files: []status.FileResult{{Name: "load", Value: -20, Last: ago(time.Hour)}, {Name: "odd", Last: ago(time.Minute), Detail: `"many": not a number; the value before holds`}},
	Processes: []status.ProcessResult{{Name: "haproxy", OK: true, Count: 2, Last: ago(time.Hour)},
		{Name: "named", Count: 0, Last: ago(time.Minute), Since: ago(3 * time.Second), Detail: "below quorum 1"}},
	FIFOs: []status.FIFOState{{Path: "/run/vrrp.fifo", Written: 120, Dropped: 4, Waiting: 7, Reader: "runs as 812"},
		{Path: "/run/none/lvs.fifo", Error: "/run/none: no such file or directory"}},
}

// failover is a pair with a heartbeat, whose master has just died.
var failover = status.VRRP{
	Instances: []status.VRRPInstance{
		{Name: "VI_1", State: status.VRRPMaster, Since: ago(72 * time.Second), Reason: "heartbeat of 10.0.0.12 lost on all paths for 31ms, and it does not answer ARP",
			Interface: "eth0", VRID: 51, Version: 2, Priority: 100, Effective: 98, MasterAddr: addr("10.0.0.11"), MasterPriority: 98, VMAC: "vrrp.51",
			Trackers: []status.Tracker{{Kind: "script", Name: "chk_nginx", Weight: -2, Detail: "exit 1"}, {Kind: "bfd", Name: "gw", Up: true}},
			Evidence: status.Evidence{From: addr("10.0.0.12"), Priority: 150, Interval: time.Second, At: ago(73 * time.Second),
				Rejected: "authentication: the password differs", RejectedFrom: addr("10.0.0.66"), RejectedAt: ago(12 * time.Second),
				Takeover: "heartbeat lost", FirstGARP: 412 * time.Microsecond}},
		{Name: "VI_2", State: status.VRRPBackup, Since: ago(time.Hour), Reason: "advertisement from 10.0.1.12 with priority 150, ours is 100", Priority: 100, Effective: 100,
			MasterAddr: addr("10.0.1.12"), MasterPriority: 150, MasterDown: 3609 * time.Millisecond},
		{Name: "VI_3", State: status.VRRPFault, Since: ago(time.Minute), Reason: "eth3 has no carrier", Faults: []string{"interface eth3: no carrier"}},
	},
	Groups: []status.VRRPGroup{{Name: "G1", State: status.VRRPBackup, Since: ago(time.Hour), Instances: []string{"VI_2", "VI_3"}}},
	BFD: []status.BFDSession{{Name: "gw", Neighbor: addr("10.0.0.1"), State: "Up", Since: ago(time.Hour), Interval: 10 * time.Millisecond, Detect: 50 * time.Millisecond, Sent: 360000, Received: 359990},
		{Name: "far", Neighbor: addr("2001:db8::1"), State: "Down", Diagnostic: "control detection time expired", Since: ago(time.Minute), Interval: time.Second}},
	Heartbeat: &status.Heartbeat{Since: ago(72 * time.Second), Detect: 30 * time.Millisecond,
		Paths: []status.HeartbeatPath{{Peer: addr("10.0.0.12"), Interface: "eth0", Since: ago(72 * time.Second), Last: ago(72 * time.Second), Sent: 123456, Received: 116000},
			{Peer: addr("fd00::12"), Up: true, Since: ago(time.Hour), Last: now, Rejected: 3}, {Peer: addr("192.0.2.9")}},
		Routers: []status.HeartbeatRouter{{Instance: "VI_1", State: "MASTER", Priority: 150}}},
	Timers:  status.Lateness{Count: 100000, P50: 18 * time.Microsecond, P99: 80 * time.Microsecond, P999: 1700 * time.Microsecond, Max: 2100 * time.Microsecond, RealTime: true},
	StandIn: status.StandIn{Connected: true, RealTime: true, Watched: 3, Adverts: 12, Failed: 1, Late: 61200 * time.Microsecond, OwnLate: 310400},
}

var beating = func() status.Heartbeat {
	h := *failover.Heartbeat
	h.Up, h.Since = true, ago(time.Hour)
	return h
}()

var ordered = status.IPVS{
	Services: []status.Service{{ID: model.ServiceID{Addr: addr("10.0.0.100"), Port: 80, Protocol: model.TCP}, VirtualServer: "[10.0.0.100]:tcp:80", Scheduler: "wrr", Dests: []status.Dest{
		{Addr: addr("10.0.0.21"), Port: 80, Forward: "DR", Order: status.OrderDrain, Active: 12, Inactive: 345},
		{Addr: addr("10.0.0.23"), Port: 80, Forward: "TUN", Tunnel: "gue 6080 csum", Weight: 50, Order: status.OrderWeight}}}},
	Orders: []status.Order{
		{VirtualServer: "[10.0.0.100]:tcp:80", Addr: addr("10.0.0.21"), Port: 80, Action: status.OrderDrain, By: "ann@10.0.0.9", Since: ago(3 * time.Minute)},
		{VirtualServer: "[10.0.0.100]:tcp:80", Addr: addr("10.0.0.23"), Port: 80, Action: status.OrderWeight, Weight: 50, Since: ago(time.Hour)}},
}

var probed = status.Health{Servers: []status.VirtualServerHealth{{Name: "[10.0.0.100]:tcp:80", Weight: 1, Quorum: 2, Real: []status.RealServerHealth{
	{Addr: addr("10.0.0.21"), Port: 80, Alive: true, Disabled: true, Weight: -1, Since: ago(26 * time.Hour), Checks: []status.CheckHealth{
		{Kind: "HTTP_GET", Target: "10.0.0.21:80", Up: true, Known: true, Took: 2134 * time.Microsecond, Detail: "status 200", Last: ago(3 * time.Second), Shared: 4,
			Failed: ago(26 * time.Hour), FailedDetail: "status 503, want 200", Answer: "HTTP/1.0 503 \x1b[31mno"}}},
	{Addr: addr("10.0.0.22"), Port: 80, Weight: -1, Since: ago(12 * time.Second), Checks: []status.CheckHealth{
		{Kind: "TCP_CHECK", Target: "10.0.0.22:8080", Known: true, Detail: "connection refused", Last: ago(time.Second), Failed: ago(time.Second), FailedDetail: "connection refused"}}},
	{Addr: addr("10.0.0.23"), Port: 80, Alive: true, Weight: 7, Since: ago(time.Minute)},
}}}}

var entries = []status.Entry{
	{Service: "vrrp", Transition: status.Transition{Time: ago(time.Hour), Object: "VI_1", Kind: "instance", From: "INIT", To: "BACKUP", Reason: "start"}},
	{Service: "health", Transition: status.Transition{Time: ago(12 * time.Second), Object: "[10.0.0.22]:tcp:80 of [10.0.0.100]:tcp:80", Kind: "real server", From: "UP", To: "DOWN", Reason: "TCP_CHECK: connection refused\x1b["}},
	{Service: "health", Transition: status.Transition{Time: ago(time.Second), Object: "[10.0.0.22]:tcp:80 of [10.0.0.200]:tcp:80", Kind: "real server", To: "DOWN"}},
}

// A pair of boxes.
var (
	wire   = status.Peer{PublicKey: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEzKsvP2KUn3aZZQGcvRCF6B1Ewh2tFhGgkYyLzcYyZC", Listening: "192.0.2.11:1913"}
	inStep = status.PairState{Configured: true, Addr: netip.MustParseAddr("192.0.2.12"), Reachable: true, Since: ago(26 * time.Hour), Seen: ago(time.Second),
		Own:  status.PairSide{Box: "lb1", Generation: 12, Content: "0fb11283ea779bcd25706d728b0eff8d", Source: "commit", Author: "ann@10.0.0.9", Time: ago(3 * time.Minute)},
		Peer: status.PairSide{Box: "lb2", Generation: 9, Content: "0fb11283ea779bcd25706d728b0eff8d", Source: "commit", Author: "ann@10.0.0.9", Time: ago(3 * time.Minute)}}
	apart = func() status.PairState {
		st := inStep
		st.Drift = true
		st.Peer = status.PairSide{Box: "lb2", Generation: 10, Content: "aa", Source: "commit", Author: "bob@10.0.0.8", Time: ago(time.Minute)}
		return st
	}()
	lost = func() status.PairState {
		st := apart
		st.Reachable, st.Since, st.Error, st.Doubt = false, ago(40*time.Second), "does not answer: 192.0.2.12: connection refused", "late"
		return st
	}()
)

func TestGolden(t *testing.T) {
	text := func(s string, _ bool) string { return s }
	problems := []model.Problem{
		{Severity: model.Error, File: "seed", Line: 5, Col: 3, Text: "unknown keyword \"virtual_ipadress\"", Fix: "did you mean virtual_ipaddress?"},
		{Severity: model.Warning, Text: "w"}, {Severity: model.Note, Text: "n"}, {Severity: model.Note, Text: "n"}}
	for name, got := range map[string]string{
		"vrrp":        text(show.VRRP(vrrp, "", now)),
		"vrrp-master": text(show.VRRP(vrrp, "VI_1", now)),
		"vrrp-backup": text(show.VRRP(vrrp, "VI_2", now)),
		"vrrp-none":   text(show.VRRP(status.VRRP{}, "", now)),
		"status": show.Status(show.Overview{Host: "lb1", Init: status.Init{Version: "0.9", Started: ago(26 * time.Hour), Services: []status.Process{{Name: "vrrp", State: "ready"}, {Name: "snmp", State: "backoff", Since: ago(time.Minute)}}},
			Conf: status.ConfNews{Generation: 7, Source: "commit", Pending: &status.Pending{Generation: 7, Back: 6, Deadline: now.Add(192 * time.Second)}}, VRRP: vrrp,
			Page: status.Page{Sum: status.Sum{Virtual: 4, Lost: 1, Real: 9, Down: 3, Ordered: 1, Active: 1316, Stats: status.Stats{CPS: 123}}, Rows: []status.PageRow{
				{Name: "[10.0.0.101]:udp:53", Real: 2, Down: 2}, {Name: "[10.0.0.100]:tcp:80", QuorumUp: true, Real: 3, Down: 1, Active: 1234}, {Name: "[10.0.0.100]:tcp:443", QuorumUp: true, Real: 3}}},
			Net:    status.Net{Links: []status.Link{{Name: "eth2", Configured: true, Up: true}}},
			Last:   []status.Entry{{Service: "health", Transition: status.Transition{Time: ago(13 * time.Minute), Object: "[10.0.0.23]:tcp:80 of [10.0.0.100]:tcp:80", From: "UP", To: "DOWN", Reason: "TCP_CHECK: connection refused"}}},
			Silent: []string{"notify does not answer; see \"show processes\" and \"show log notify\""}}, now),
		"status-well":   show.Status(show.Overview{}, now),
		"ipvs":          show.IPVS(ipvs, health, now),
		"ipvs-stats":    show.IPVSStats(ipvs),
		"ipvs-rates":    show.IPVSRates(ipvs),
		"health":        show.Health(health, "", now),
		"health-filter": show.Health(health, "10.0.0.22", now),
		"connections": show.Connections([]status.Conn{{Protocol: "TCP", State: "ESTABLISHED", Expires: 14*time.Minute + 5*time.Second,
			Client: netip.MustParseAddrPort("10.0.0.9:40001"), Virtual: netip.MustParseAddrPort("10.0.0.100:80"), Dest: netip.MustParseAddrPort("10.0.0.21:80")}}),
		"interfaces": show.Interfaces(netState),
		"routes":     show.Routes(netState),
		"marks":      show.Marks(netState),
		"firewall":   show.Firewall(netState),
		"log": show.Log([]status.LogLine{{Time: ago(time.Second), Service: "vrrp", Priority: 5, Text: "VI_1: backup -> master: no advertisement from 10.0.0.12 for 3.61s"},
			{Time: now, Service: "kernel", Priority: 3, Text: "eth0: gone\x1b]0;x"}}),
		"version":          show.Version(initState, status.Conf{Generation: 8, Source: "last good", Author: "admin@10.0.0.9", Time: ago(time.Hour), Problems: problems}, now),
		"processes":        show.Processes(initState, now),
		"vrrp-failover":    text(show.VRRP(failover, "", now)),
		"explain-master":   text(show.ExplainVRRP(failover, "VI_1", entries[:1], now)),
		"explain-backup":   text(show.ExplainVRRP(failover, "VI_2", nil, now)),
		"explain-fault":    text(show.ExplainVRRP(failover, "VI_3", nil, now)),
		"explain-drained":  text(show.ExplainServer(ordered, probed, addr("10.0.0.21"), 0, entries, now)),
		"explain-down":     text(show.ExplainServer(ordered, probed, addr("10.0.0.22"), 80, entries, now)),
		"explain-weighted": text(show.ExplainServer(ordered, probed, addr("10.0.0.23"), 0, entries, now)),
		"heartbeat":        show.Heartbeat(status.VRRP{Heartbeat: &beating}, now),
		"heartbeat-lost":   show.Heartbeat(failover, now),
		"bfd":              show.BFD(failover, now),
		"scripts":          show.Scripts(notified, now),
		"scripts-none":     show.Scripts(status.Notify{}, now),
		"fifos":            show.FIFOs(notified),
		"fifos-none":       show.FIFOs(status.Notify{}),
		"timers":           show.Timers(failover.Timers, failover.StandIn),
		"orders":           show.Orders(ordered.Orders, nil, now),
		"orders-asleep":    show.Orders(nil, ordered.Orders[:1], now),
		"ipvs-orders":      show.IPVS(ordered, probed, now),
		"health-orders":    show.Health(probed, "10.0.0.21", now),
		"journal":          show.Journal(entries),
		"history": show.History([]status.Generation{{Generation: 12, Time: ago(3 * time.Minute), Source: "commit", Author: "admin@10.0.0.9", Comment: "second pool", Running: true},
			{Generation: 11, Time: ago(10 * 24 * time.Hour), Source: "seed"}}, now),
		"files":    show.Files([]status.File{{Path: "/opt/z", Mode: 0o755, Size: 12345}, {Path: "/etc/keepalived/a.sh", Mode: 0o700, Size: 7}}),
		"problems": show.Problems(problems),

		"peer":       show.Peer(inStep, wire, now),
		"peer-alone": show.Peer(status.PairState{Own: inStep.Own}, wire, now),
		"peer-lost":  show.Peer(lost, status.Peer{PublicKey: wire.PublicKey, Error: "bind: cannot assign requested address"}, now),
		"drift":      show.Drift(status.Drift{State: apart, Diff: "--- running\n+++ candidate\n@@ -4,3 +4,3 @@\n global_defs {\n-    router_id old\n+    router_id new\n }\n", Files: []string{"/etc/keepalived/check.sh: differs"}}, now),
		"drift-none": show.Drift(status.Drift{State: inStep}, now),
		"drift-lost": show.Drift(status.Drift{State: lost}, now),
	} {
		t.Run(name, func(t *testing.T) {
			golden.Check(t, filepath.Join("testdata", name+".golden"), got)
			if strings.ContainsAny(got, "\x1b\r\t") {
				t.Error("control characters reach the terminal")
			}
			if name == "log" || name == "journal" || name == "problems" || name == "version" || strings.HasPrefix(name, "peer") {
				return // lines that people search for are not folded
			}
			for _, l := range strings.Split(got, "\n") {
				if utf8.RuneCountInString(l) > show.Width {
					t.Errorf("%d columns: %s", utf8.RuneCountInString(l), l)
				}
			}
		})
	}
	if _, ok := show.ExplainServer(ordered, probed, addr("10.0.0.21"), 81, nil, now); ok {
		t.Error("a port that no real server has was explained")
	}
	if _, ok := show.VRRP(vrrp, "VI_9", now); ok {
		t.Error("an instance that does not exist was shown")
	}
}

func TestAge(t *testing.T) {
	for want, d := range map[string]time.Duration{"0s": -time.Hour, "59s": 59900 * time.Millisecond, "1m00s": time.Minute, "3m05s": 185 * time.Second,
		"4h12m": 4*time.Hour + 12*time.Minute, "6d03h": 147 * time.Hour, "312d": 312 * 24 * time.Hour} {
		if got := show.Age(ago(d), now); got != want {
			t.Errorf("Age of %v: %q, want %q", d, got, want)
		}
	}
	if got := show.Age(time.Time{}, now); got != "-" {
		t.Errorf("Age of no time: %q", got)
	}
}

// A backup that lets a worse master go on says why, and for how long.
func TestExplainPatience(t *testing.T) {
	v := status.VRRPInstance{Name: "VI_1", State: status.VRRPBackup, Since: ago(time.Minute), Priority: 100, Effective: 100,
		MasterAddr: addr("10.0.0.12"), MasterPriority: 99, MasterDown: 3609 * time.Millisecond}
	for why, want := range map[string]string{
		"lvs_sync_daemon": "in 9s (lvs_sync_daemon: until then it is told of the connections); at once when nobody is heard for 3.609s",
		"preempt_delay":   "in 9s (preempt_delay); at once when nobody is heard for 3.609s",
		"":                "goes master when 10.0.0.12 is not heard for 3.609s",
	} {
		v.Evidence = status.Evidence{PreemptFor: why, PreemptAt: now.Add(9 * time.Second)}
		if why == "" {
			v.Evidence.PreemptAt = ago(time.Second)
		}
		text, _ := show.ExplainVRRP(status.VRRP{Instances: []status.VRRPInstance{v}}, "VI_1", nil, now)
		if got := strings.Join(strings.Fields(text), " "); !strings.Contains(got, want) {
			t.Errorf("%s: %s", why, text)
		}
	}
}
