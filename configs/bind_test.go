package configs

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"ballast/configs/model"

	"github.com/google/go-cmp/cmp"
)

// vi wraps lines into an instance that is otherwise complete.
func vi(lines string) string {
	return "vrrp_instance V {\n interface eth0\n virtual_router_id 7\n virtual_ipaddress { 192.0.2.80 }\n" + lines + "\n}\n"
}

// vs wraps lines into a virtual server with one real server.
func vs(lines, real string) string {
	return "virtual_server 192.0.2.80 80 {\n lb_algo rr\n lb_kind NAT\n protocol TCP\n" + lines + "\n real_server 10.0.0.2 80 {\n" + real + "\n}\n}\n"
}

// inside is an instance with the gateway of vs's real server.
const inside = "vrrp_instance IN {\n interface eth1\n virtual_router_id 9\n virtual_ipaddress { 10.0.0.1/24 }\n}\n"

// words prints values with a blank between any two.
func words(v ...any) string { return strings.TrimSuffix(fmt.Sprintln(v...), "\n") }

// TestValues looks at one value of the model a row.
func TestValues(t *testing.T) {
	in := func(f func(model.Instance) any) func(model.Config) any {
		return func(c model.Config) any { return f(c.Instances[0]) }
	}
	check := func(f func(model.Check) any) func(model.Config) any {
		return func(c model.Config) any { return f(c.VirtualServers[0].Real[0].Checks[0]) }
	}
	server := func(f func(model.VirtualServer) any) func(model.Config) any {
		return func(c model.Config) any { return f(c.VirtualServers[0]) }
	}
	timing := check(func(c model.Check) any {
		return words(c.ConnectTimeout, c.Retry, c.DelayBeforeRetry, c.DelayLoop, c.Warmup, c.Alpha)
	})
	for _, tt := range []struct {
		text    string
		get     func(model.Config) any
		want    any
		problem string // part of a problem that must be there; empty: none at all
	}{
		// priority and state
		{vi("state MASTER"), in(func(i model.Instance) any { return i.Priority }), uint8(255), "255 is used"},
		{vi("state MASTER\npriority 300"), nil, nil, "outside 1…255"},
		{vi("priority 255"), in(func(i model.Instance) any { return i.State }), model.StateMaster, ""},
		{vi("priority 255\nnopreempt"), in(func(i model.Instance) any { return i.NoPreempt }), false, "priority 255"},
		{vi("nopreempt\npreempt_delay 5"), in(func(i model.Instance) any { return words(i.NoPreempt, i.PreemptDelay) }), "true 0s", "does not go with nopreempt"},
		{vi("priority 101 extra junk"), in(func(i model.Instance) any { return i.Priority }), uint8(101), "are ignored"},
		{vi(`priority "77"`), in(func(i model.Instance) any { return i.Priority }), uint8(77), ""},
		// advert_int
		{vi("advert_int 2.5"), in(func(i model.Instance) any { return i.AdvertInt }), 3 * time.Second, "cannot carry"},
		{vi("advert_int 0.01"), in(func(i model.Instance) any { return i.AdvertInt }), time.Second, "cannot carry"},
		{vi("version 3\nadvert_int 0.01"), in(func(i model.Instance) any { return i.AdvertInt }), 10 * time.Millisecond, ""},
		{vi("version 3\nadvert_int 60"), in(func(i model.Instance) any { return i.AdvertInt }), 40950 * time.Millisecond, "cannot carry"},
		// version and family
		{"global_defs {\n vrrp_version 3\n}\n" + vi(""), in(func(i model.Instance) any { return i.Version }), 3, ""},
		{vi("") + "global_defs {\n vrrp_version 3\n}\n", in(func(i model.Instance) any { return i.Version }), 3, "stands below an instance"},
		{"vrrp_instance V {\n interface e\n virtual_router_id 1\n virtual_ipaddress {\n fe80::1\n 2001:db8::1/64\n }\n}\n",
			in(func(i model.Instance) any { return words(i.Version, i.IPv6, i.McastGroup, len(i.VIPs)) }), "3 true ff02::12 2", ""},
		{"vrrp_instance V {\n interface e\n virtual_router_id 1\n version 2\n virtual_ipaddress {\n fe80::1\n }\n}\n",
			in(func(i model.Instance) any { return i.Version }), 3, "IPv6 needs version 3"},
		{"global_defs {\n vrrp_mcast_group4 224.0.0.99\n}\n" + vi(""), in(func(i model.Instance) any { return i.McastGroup }), netip.MustParseAddr("224.0.0.99"), ""},
		{vi("mcast_dst_ip 224.0.0.98"), in(func(i model.Instance) any { return i.McastGroup }), netip.MustParseAddr("224.0.0.98"), ""},
		{vi("mcast_src_ip 2001:db8::1"), in(func(i model.Instance) any { return i.SrcIP.IsValid() }), false, "is not"},
		// authentication
		{vi("authentication {\n auth_pass 12345678\n auth_type PASS\n}"), in(func(i model.Instance) any { return string(i.AuthPass) }), "12345678", ""},
		{vi("authentication {\n auth_pass 123456789\n auth_type PASS\n}"), in(func(i model.Instance) any { return string(i.AuthPass) }), "12345678", "cut to its first 8"},
		{vi("authentication {\n auth_pass x\n}"), in(func(i model.Instance) any { return i.AuthPass == nil }), true, "without auth_type"},
		{vi("authentication {\n auth_type PASS\n}"), in(func(i model.Instance) any { return i.AuthPass == nil }), true, "without auth_pass"},
		{vi("authentication {\n auth_type AH\n auth_pass x\n}"), in(func(i model.Instance) any { return words(string(i.AuthPass), i.AuthAH) }), "x true", ""},
		{vi("authentication {\n auth_type pass\n auth_pass x\n}"), nil, nil, "did you mean PASS?"},
		// unicast
		{vi("unicast_peer {\n 192.0.2.12 min_ttl 254 max_ttl 255\n 192.0.2.13 192.0.2.14\n}"),
			in(func(i model.Instance) any { return words(i.Unicast, i.Peers, i.CheckUnicastSrc) }), "true [{192.0.2.12 254 255} {192.0.2.13 -1 -1} {192.0.2.14 -1 -1}] true", ""},
		{"vrrp_instance V {\n virtual_router_id 7\n unicast_src_ip 192.0.2.11\n unicast_peer { 192.0.2.12 }\n virtual_ipaddress { 192.0.2.80 }\n}\n",
			in(func(i model.Instance) any { return i.Interface }), "", ""},
		// gratuitous ARP
		{"global_defs {\n vrrp_garp_master_delay 9\n vrrp_garp_master_repeat 0\n vrrp_garp_interval 0.001\n}\n" + vi("garp_master_repeat 2"),
			in(func(i model.Instance) any {
				return words(i.GARPMasterDelay, i.GARPMasterRepeat, i.GARPLowerPrioDelay, i.GARPLowerPrioRepeat, i.GARPInterval)
			}), "9s 2 9s 1 1ms", ""},
		{"global_defs {\n vrrp_min_garp\n}\n" + vi(""), in(func(i model.Instance) any { return words(i.GARPMasterDelay, i.GARPMasterRepeat) }), "0s 1", ""},
		// trackers
		{vi("track_interface {\n eth0\n eth1 weight -254 reverse\n}"), in(func(i model.Instance) any { return words(i.TrackInterfaces) }), "[{eth1 -253 true}]", "its own interface"},
		{vi("track_script {\n nope\n}"), in(func(i model.Instance) any { return len(i.TrackScripts) }), 0, "there is no vrrp_script"},
		{"vrrp_script s {\n script x\n weight 3 reverse\n raise 2\n init_fail\n}\n" + vi("track_script {\n s\n}"),
			in(func(i model.Instance) any { return words(i.TrackScripts) }), "[{s 3 true}]", "raise is read as rise"},
		// alerts
		{"global_defs {\n smtp_alert\n}\n" + vi(""), in(func(i model.Instance) any { return i.SMTPAlert }), true, ""},
		{"global_defs {\n smtp_alert\n smtp_alert_vrrp off\n}\n" + vi(""), in(func(i model.Instance) any { return i.SMTPAlert }), false, ""},
		{"global_defs {\n smtp_alert off\n}\n" + vs("", ""), server(func(v model.VirtualServer) any { return words(v.SMTPAlert, v.Real[0].SMTPAlert) }), "false false", ""},
		// synchronisation
		{"global_defs {\n lvs_sync_daemon eth0 inst V maxlen 1000 port 8849 ttl 3 group 224.0.0.82\n}\n" + vi(""),
			func(c model.Config) any { return words(*c.Global.SyncDaemon) }, "{eth0 V 7 1000 8849 3 224.0.0.82}", ""},
		{"global_defs {\n lvs_sync_daemon eth0 id 0\n lvs_timeouts tcp 600 udp 30\n}\n",
			func(c model.Config) any { return words(c.Global.SyncDaemon.ID, c.Global.Timeouts) }, "0 {10m0s 0s 30s}", ""},
		{"global_defs {\n lvs_sync_daemon eth0 W\n}\n" + vi(""), nil, nil, `no vrrp_instance "W"`},
		{vi("lvs_sync_daemon_interface eth1"), func(c model.Config) any { return words(c.Global.SyncDaemon.Interface, c.Global.SyncDaemon.ID) }, "eth1 7", "old form"},
		// inheritance of checks: check, real server, virtual server, default
		{vs("", "TCP_CHECK {\n}"), timing, "5s 1 1s 1m0s 1m0s false", ""},
		{vs("", "HTTP_GET {\n url {\n path /\n}\n}"), timing, "5s 1 3s 1m0s 1m0s false", ""},
		{vs("", "DNS_CHECK {\n}"), timing, "5s 3 1m0s 1m0s 1m0s false", "not implemented"},
		{vs("", "MISC_CHECK {\n misc_path x\n}"), timing, "0s 0 1s 1m0s 1m0s false", ""},
		{vs("delay_loop 6\nconnect_timeout 2\nretry 4\ndelay_before_retry 7\nalpha", "TCP_CHECK {\n}"), timing, "2s 4 7s 6s 6s true", ""},
		{vs("delay_loop 6\nretry 4\nwarmup 1\nalpha", "retry 2\nwarmup 0\nalpha off\nTCP_CHECK {\n delay_loop 9\n}"), timing, "5s 2 1s 9s 0s false", ""},
		{vs("retry 4", "retry 2\nTCP_CHECK {\n retry 0\n}"), timing, "5s 0 1s 1m0s 1m0s false", ""},
		{vs("delay_loop 0.5", "TCP_CHECK {\n}"), timing, "5s 1 1s 500ms 500ms false", ""},
		{vs("", "retry x\nTCP_CHECK {\n}"), timing, "5s 1 1s 1m0s 1m0s false", "no whole number"},
		{vs("", "TCP_CHECK {\n connect_ip 10.9.9.9\n connect_port 81\n bindto 10.0.0.1\n bind_port 99\n bind_if eth1\n fwmark 5\n}"),
			check(func(c model.Check) any {
				return words(c.Addr, c.Port, c.BindAddr, c.BindPort, c.BindInterface, c.Mark)
			}), "10.9.9.9 81 10.0.0.1 99 eth1 5", ""},
		{vs("virtualhost v", "virtualhost r\nSSL_GET {\n enable_sni\n url {\n path /a\n}\n url {\n path /b\n virtualhost u\n status_code 200-204 302\n}\n}"),
			check(func(c model.Check) any {
				return words(c.SNI, c.SNIName, c.URLs[0].VirtualHost, c.URLs[1].VirtualHost, c.URLs[1].Status)
			}), "true u r u [{200 204} {302 302}]", ""},
		{vs("", "HTTP_GET {\n url {\n regex \"(?=x)\"\n}\n}"), check(func(c model.Check) any { return c.URLs[0].Path }), "/", "RE2"},
		{vs("", "HTTP_GET {\n url {\n path /\n regex (?=x)\n}\n}"), nil, nil, "RE2"},
		{vs("", "HTTP_GET {\n}"), server(func(v model.VirtualServer) any { return len(v.Real[0].Checks) }), 0, "has no url"},
		{vs("", "MISC_CHECK {\n misc_path /bin/a b c\n misc_dynamic\n}"), check(func(c model.Check) any { return words(c.Command.Argv, c.MiscTimeout, c.Dynamic) }), "[/bin/a b c] 1m0s true", ""},
		{vs("", "MISC_CHECK {\n}"), nil, nil, "has no command"},
		// virtual servers
		{vs("persistence_timeout", ""), server(func(v model.VirtualServer) any { return v.Persistence }), 6 * time.Minute, ""},
		{vs("persistence_timeout 10\npersistence_granularity 255.255.255.0", ""), server(func(v model.VirtualServer) any { return v.Granularity }), 24, ""},
		{vs("persistence_granularity 255.0.255.0", ""), nil, nil, "is no netmask"},
		{vs("ops", ""), server(func(v model.VirtualServer) any { return v.OnePacket }), false, "for UDP only"},
		{vs("sh-port", ""), server(func(v model.VirtualServer) any { return len(v.SchedFlags) }), 0, "goes with lb_algo sh"},
		{vs("lb_algo sh\nsh-port\nsh-fallback", ""), server(func(v model.VirtualServer) any { return words(v.SchedFlags) }), "[sh-port sh-fallback]", ""},
		{vs("lb_algo loadbalance", ""), server(func(v model.VirtualServer) any { return v.Scheduler }), "rr", "no scheduler loadbalance"},
		{vs("weight 4", ""), server(func(v model.VirtualServer) any { return v.Real[0].Weight }), 4, ""},
		{vs("inhibit_on_failure", "inhibit_on_failure off\nuthreshold 5\nlthreshold 4294967295"),
			server(func(v model.VirtualServer) any {
				r := v.Real[0]
				return words(r.InhibitOnFailure, r.UThreshold, r.LThreshold)
			}), "false 5 4294967295", ""},
		{vs("lb_kind TUN type gre csum", ""), server(func(v model.VirtualServer) any { return words(v.Real[0].Forward, v.Real[0].Tunnel) }), "TUN {gre 0 csum}", ""},
		{vs("lb_kind TUN type gue", ""), nil, nil, "needs a port"},
		{vs("sorry_server 10.0.0.9", ""), server(func(v model.VirtualServer) any { return words(v.Sorry.Addr, v.Sorry.Port) }), "10.0.0.9 80", ""},
		{vs("quorum_up /bin/up\nquorum_down \"down a 'b c'\"\nomega\nha_suspend", ""),
			server(func(v model.VirtualServer) any {
				return fmt.Sprintf("%q %q %v %v", v.QuorumUp.Argv, v.QuorumDown.Argv, v.Omega, v.HASuspend)
			}), `["/bin/up"] ["down" "a" "b c"] true true`, "omega is accepted but not implemented"},
		{"virtual_server 2001:db8::80 80 {\n lb_algo rr\n lb_kind NAT\n protocol udp\n real_server 10.0.0.2 80 {\n}\n real_server fd00::2 {\n}\n}\n",
			server(func(v model.VirtualServer) any { return words(v.Real[0].Addr, v.Real[0].Port, v.Granularity) }), "fd00::2 80 128", "not of the family"},
		{"virtual_server fwmark 3 {\n lb_algo rr\n lb_kind DR\n real_server fd00::2 80 {\n TCP_CHECK {\n}\n}\n}\nmark 3 { tcp 2001:db8::1 80-90 443 }\n",
			func(c model.Config) any {
				v := c.VirtualServers[0]
				return words(v.Services[0].IPv6, v.Granularity, v.Real[0].Port, v.Real[0].ConfPort, v.Real[0].Checks[0].Port, c.Marks)
			}, "true 128 0 80 80 [{3 [{tcp 2001:db8::1/128 [{80 90} {443 443}]}]}]", ""},
		// commands
		{vi("notify_master \"/a b\" keepalived_script\nnotify \"X=1 /a\""),
			in(func(i model.Instance) any { return fmt.Sprintf("%q %q", i.Notify.Master.Argv, i.Notify.Any.Shell) }), `["/a" "b"] "X=1 /a"`, ""},
		{vi(`notify_fault "/a $HOME"`), in(func(i model.Instance) any { return i.Notify.Fault.Shell }), "/a $HOME", ""},
		{vi(`notify_fault "/a '$HOME' 'a;b'"`), in(func(i model.Instance) any { return fmt.Sprintf("%q", i.Notify.Fault.Argv) }), `["/a" "$HOME" "a;b"]`, ""},
		{vi(`notify_fault "/a 'b"`), nil, nil, "quote inside the command"},
		// the appliance's own
		{"system {\n host_name a.example\n dns 192.0.2.53 2001:db8::53\n ntp pool.example\n syslog 192.0.2.1 log.example:6514 2001:db8::1\n}\n",
			func(c model.Config) any { return words(c.System) }, "{a.example [] [192.0.2.53 2001:db8::53] [pool.example] [192.0.2.1:514 log.example:6514 [2001:db8::1]:514]}", "ntp is accepted but not implemented"},
		{"system {\n login x {\n role admin\n}\n}\n", nil, nil, "has no key"},
		{"system {\n login x {\n role admin\n key \"ssh-ed25519 AAAA me\"\n}\n}\n", nil, nil, "too short"},
		{"system {\n login x {\n role admin\n key \"ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIEzKsvP2KUn3aZZQGcvRCF6B1Ewh2tFhGgkYyLzcYyZC\"\n}\n}\n", nil, nil, "not of type"},
		{"system {\n login x {\n key ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEzKsvP2KUn3aZZQGcvRCF6B1Ewh2tFhGgkYyLzcYyZC me\n}\n}\n",
			func(c model.Config) any { return words(c.System.Logins[0].Role, len(c.System.Logins[0].Keys)) }, "view 1", "has no role"},
		{"interface lan {\n mac 52:54:00:AB:cd:ef\n address 192.0.2.1/24 2001:db8::1/64\n mtu 9000\n dhcp6\n ra on\n disable\n}\n",
			func(c model.Config) any { return words(c.Interfaces[0]) }, "{lan {52:54:00:ab:cd:ef } [192.0.2.1/24 2001:db8::1/64] false true 9000 true 1}", "dhcp6 is accepted but not implemented"},
		{"interface lan {\n pci 02:00.1\n address 192.0.2.1\n}\n", func(c model.Config) any { return c.Interfaces[0].Match.PCI }, "0000:02:00.1", "no address with its length"},
		{"bond b0 {\n mode 802.3ad\n member e1 e2\n member e3\n lacp_rate fast\n xmit_hash_policy layer3+4\n}\nvlan v7 {\n link b0\n id 7\n}\n",
			func(c model.Config) any { return words(c.Bonds, c.VLANs) }, "[{b0 802.3ad [e1 e2 e3] 100ms  layer3+4 fast}] [{v7 b0 7}]", ""},
		{"route default via 192.0.2.1\nroute 2001:db8:1::/48 via fe80::1 dev eth0 metric 5 table 9\n",
			func(c model.Config) any {
				return words(c.StaticRoutes[0].Dst, c.StaticRoutes[1].Dst, c.StaticRoutes[1].Interface, c.StaticRoutes[1].Metric, c.StaticRoutes[1].Table)
			}, "0.0.0.0/0 2001:db8:1::/48 eth0 5 9", ""},
		{"route default via 192.0.2.1 dev\nroute via 192.0.2.1\nroute 10.0.0.0/8\n", nil, nil, "leads nowhere"},
		{"static_ipaddress {\n 192.0.2.9/24\n}\nstatic_routes {\n 10.0.0.0/8 via 192.0.2.1\n}\n",
			func(c model.Config) any { return words(c.StaticAddrs[0].Interface, c.StaticRoutes[0].Via) }, "eth0 192.0.2.1", ""},
		// across the whole
		{vi("") + strings.Replace(vi(""), "V {\n interface eth0\n virtual_router_id 7", "W {\n interface eth0\n virtual_router_id 8", 1), nil, nil, "both carry 192.0.2.80"},
		{vi("") + "static_ipaddress {\n 192.0.2.80/24\n}\n", nil, nil, "192.0.2.80 is in static_ipaddress and a VIP of V"},
		{vi("") + inside + vs("", ""), nil, nil, "V and IN can be master on different boxes"},
		{vi("") + inside + "vrrp_sync_group G {\n group {\n V\n IN\n }\n}\n" + vs("", ""), nil, nil, ""},
		{vi("virtual_ipaddress_excluded { 10.0.0.1/24 dev eth1 }") + vs("", ""), nil, nil, ""},
		{vi("") + "interface eth0 {\n address 192.0.2.80/24\n}\n", nil, nil, "a fixed address of interface eth0 and a VIP of V"},
		{"interface a {\n mac 52:54:00:00:00:01\n}\ninterface b {\n mac 52:54:00:00:00:01\n}\n", nil, nil, "name the same card"},
		{"mark 9 {\n tcp 192.0.2.1\n}\n", func(c model.Config) any { return len(c.Marks[0].Rules[0].Ports) }, 0, "no virtual server uses mark 9"},
		{"bond b {\n member a\n}\nvlan b {\n link a\n id 1\n}\n", nil, nil, "has the name of a bond"},
		{vi("virtual_adress {\n 192.0.2.81\n}"), nil, nil, "did you mean virtual_ipaddress?"},
		{"TCP_CHECK {\n}\n", nil, nil, "it belongs into a real_server block"},
	} {
		c, problems := Load("t", []byte(tt.text), Options{ConfigID: "a"})
		var all strings.Builder
		for _, p := range problems {
			fmt.Fprintln(&all, p)
		}
		if tt.get != nil {
			func() {
				defer func() {
					if e := recover(); e != nil {
						t.Errorf("%s\n%v\n%s", tt.text, e, &all)
					}
				}()
				if d := cmp.Diff(tt.want, tt.get(c), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
					t.Errorf("%s\n%s", tt.text, d)
				}
			}()
		}
		if !strings.Contains(all.String(), tt.problem) || tt.problem == "" && len(problems) > 0 {
			t.Errorf("%s\nproblems:\n%swant %q", tt.text, &all, tt.problem)
		}
	}
}
