package configs

import (
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"

	"ballast/configs/model"
	"ballast/configs/schema"
)

// frame is a text with one place for a line of a block.
var frames = map[string]string{
	"":            "%s\n",
	"global_defs": "global_defs {\n notification_email { a@example }\n smtp_server 192.0.2.1\n %s\n}\nstatic_ipaddress { 192.0.2.9 }\nvrrp_instance V {\n interface eth0\n virtual_router_id 7\n virtual_ipaddress { 192.0.2.80 }\n}\nvrrp_instance W {\n interface eth0\n virtual_router_id 7\n virtual_ipaddress { fe80::80 }\n}\n",
	"vrrp_instance": `vrrp_script s { script /bin/s }
track_file f { file /f }
vrrp_track_process p { process p }
bfd_instance b { neighbor_ip 192.0.2.2 }
vrrp_instance V {
 interface eth0
 virtual_router_id 7
 virtual_ipaddress { 192.0.2.80 }
 %s
}
`,
	"authentication":       "vrrp_instance V {\n interface eth0\n virtual_router_id 7\n virtual_ipaddress { 192.0.2.80 }\n authentication {\n %s\n }\n}\n",
	"auth_hmac":            "vrrp_instance V {\n interface eth0\n virtual_router_id 7\n version 3\n virtual_ipaddress { 192.0.2.80 }\n auth_hmac {\n key 1 hex:" + key32 + "\n key 2 hex:" + key32 + "\n active_key 1\n %s\n }\n}\n",
	"vrrp_sync_group":      "vrrp_script s { script /bin/s }\ntrack_file f { file /f }\nvrrp_track_process p { process p }\nbfd_instance b { neighbor_ip 192.0.2.2 }\n" + "vrrp_instance V {\n interface eth0\n virtual_router_id 7\n virtual_ipaddress { 192.0.2.80 }\n track_script { s weight 3 }\n}\nvrrp_instance W {\n interface eth0\n virtual_router_id 8\n virtual_ipaddress { 192.0.2.81 }\n}\nvrrp_sync_group G {\n group { V }\n %s\n}\n",
	"vrrp_script":          "vrrp_script s {\n script /bin/s\n %s\n}\n",
	"track_file":           "track_file f {\n file /f\n %s\n}\n",
	"vrrp_track_process":   "vrrp_track_process p {\n process p a\n quorum 1\n %s\n}\n",
	"bfd_instance":         "bfd_instance b {\n neighbor_ip 192.0.2.2\n %s\n}\n",
	"virtual_server_group": "virtual_server_group G {\n 192.0.2.80 80\n %s\n}\nvirtual_server group G {\n lb_algo rr\n lb_kind NAT\n protocol TCP\n real_server 10.0.0.2 80 {\n }\n}\n",
	"virtual_server":       "virtual_server 192.0.2.80 80 {\n lb_algo rr\n lb_kind DR\n protocol UDP\n persistence_timeout 60\n sorry_server 10.0.0.9 80\n %s\n real_server 10.0.0.2 80 {\n TCP_CHECK {\n }\n HTTP_GET {\n url {\n path /\n }\n }\n }\n real_server 10.0.0.3 80 {\n weight 9\n TCP_CHECK {\n }\n }\n}\n",
	"real_server":          "bfd_instance b { neighbor_ip 192.0.2.2 }\ntrack_file f { file /f }\nvirtual_server 192.0.2.80 80 {\n lb_algo rr\n lb_kind DR\n protocol TCP\n real_server 10.0.0.2 80 {\n HTTP_GET {\n url {\n path /\n }\n }\n %s\n }\n}\n",
	"HTTP_GET":             probing("SSL_GET", "url {\n path /\n }\n virtualhost a\n url {\n path /b\n }\n %s"),
	"url":                  probing("SSL_GET", "url {\n regex x\n %s\n }"),
	"TCP_CHECK":            probing("TCP_CHECK", "%s"),
	"SMTP_CHECK":           probing("SMTP_CHECK", "%s"),
	"smtp_host":            probing("SMTP_CHECK", "host {\n %s\n }"),
	"DNS_CHECK":            probing("DNS_CHECK", "%s"),
	"UDP_CHECK":            probing("UDP_CHECK", "%s"),
	"PING_CHECK":           probing("PING_CHECK", "%s"),
	"MISC_CHECK":           probing("MISC_CHECK", "misc_path /bin/m\n %s"),
	"BFD_CHECK":            "bfd_instance b { neighbor_ip 192.0.2.2 }\n" + probing("BFD_CHECK", "name b\n %s"),
	"FILE_CHECK":           "track_file f {\n file /f\n weight 5\n}\n" + probing("FILE_CHECK", "track_file f\n %s"),
	"SSL":                  "SSL {\n certificate /c\n key /k\n %s\n}\n",
	"garp_group":           "garp_group {\n garp_interval 1\n gna_interval 1\n %s\n}\n",
	"track_group":          "vrrp_instance V {\n interface eth0\n virtual_router_id 7\n virtual_ipaddress { 192.0.2.80 }\n}\ntrack_group T {\n %s\n}\n",
	"heartbeat":            "heartbeat {\n peer 192.0.2.1\n key 0123456789abcdef\n %s\n}\n",
	"peer":                 "peer {\n address 192.0.2.1\n key \"" + sshKey + "\"\n %s\n}\n",
	"snmp":                 "snmp {\n community x\n %s\n}\n",
	"netboot":              "netboot {\n %s\n}\n",
	"box":                  "netboot {\n box 52:54:00:00:00:07 {\n name n\n %s\n }\n}\n",
	"firewall":             "firewall {\n %s\n}\n",
	"system":               "system {\n %s\n}\n",
	"login":                "system {\n login u {\n key \"" + sshKey + "\"\n role operate\n %s\n }\n}\n",
	"interface":            "interface eth0 {\n %s\n}\n",
	"bond":                 "bond b {\n member e9\n %s\n}\n",
	"vlan":                 "vlan v {\n link e9\n id 9\n %s\n}\n",
	"address-line":         "static_ipaddress {\n 192.0.2.9/24 %s\n}\ntrack_group T { group { V } }\nvrrp_instance V {\n interface eth0\n virtual_router_id 7\n virtual_ipaddress { 192.0.2.80 }\n}\n",
	"address-line6":        "static_ipaddress {\n 2001:db8::9/64 %s\n}\n",
	"route-line":           "static_routes {\n 10.0.0.0/8 via 192.0.2.1 dev eth0 %s\n}\ntrack_group T { group { V } }\nvrrp_instance V {\n interface eth0\n virtual_router_id 7\n virtual_ipaddress { 192.0.2.80 }\n}\n",
	"rule-line":            "static_rules {\n from 192.0.2.0/24 lookup 100 preference 9 dev eth0 %s\n}\ntrack_group T { group { V } }\nvrrp_instance V {\n interface eth0\n virtual_router_id 7\n virtual_ipaddress { 192.0.2.80 }\n}\n",
	"rule-line0":           "static_rules {\n from 192.0.2.0/24 preference 9 %s\n}\n",
	"rule-line6":           "static_rules {\n lookup 100 preference 9 %s\n}\n",
	"mark":                 "mark 9 {\n tcp 192.0.2.99\n %s\n}\n",
}

const (
	key32    = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	otherKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUm"
	sshKey   = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEzKsvP2KUn3aZZQGcvRCF6B1Ewh2tFhGgkYyLzcYyZC me"
)

// probing is a virtual server (DR) with one check.
func probing(kind, lines string) string {
	return "virtual_server 192.0.2.80 80 {\n lb_algo rr\n lb_kind DR\n protocol TCP\n virtualhost h\n real_server 10.0.0.2 80 {\n " + kind + " {\n " + lines + "\n }\n }\n}\n"
}

// samples are lines of keywords whose grammar does not say what to write, or
// that need more than themselves. $ is the keyword.
var samples = map[string]string{
	"address-line brd": "$ 192.0.2.255", "address-line scope": "$ link", "address-line label": "$ eth0:1", "address-line peer": "$ 192.0.2.8",
	"address-line broadcast": "$ +", "address-line track_group": "$ T", "address-line preferred_lft": "$ 7",

	"route-line via": "$ 192.0.2.7", "route-line nexthop": "$ via 192.0.2.7 dev eth1 weight 7", "route-line or": "$ 192.0.2.7", "route-line gw": "$ inet 192.0.2.7",
	"route-line src": "$ 192.0.2.7", "route-line table": "$ 77", "route-line congctl": "$ lock reno", "route-line features": "$ ecn", "route-line from": "",
	"route-line hoplimit": "$ 7", "route-line mtu": "$ lock 1400", "route-line rtt": "$ 7ms", "route-line rttvar": "$ 7ms", "route-line rto_min": "$ 1s", "route-line quickack": "$ 1", "route-line fastopen_no_cookie": "$ 1",
	"route-line encap": "", "route-line ttl-propagate": "", "route-line expires": "", "route-line pref": "", "route-line realms": "$ 1/2", "route-line vrf": "", "route-line prepend": "",
	"route-line unicast": "", "route-line local": "", "route-line broadcast": "", "route-line multicast": "", "route-line anycast": "", "route-line nat": "", "route-line xresolve": "",
	"route-line scope": "$ link", "route-line protocol": "$ static", "route-line tos": "$ 0x10", "route-line dsfield": "$ 8", "route-line append": "$", "route-line onlink": "$", "route-line no_track": "$",
	"route-line dev": "$ eth7", "route-line oif": "$ eth7", "route-line track_group": "$ T", "route-line blackhole": "$",

	"rule-line from": "$ 198.51.100.0/24", "rule-line to": "$ 198.51.100.0/24", "rule-line lookup": "$ 77", "rule-line table": "$ main", "rule-line goto": "$ 77", "rule-line nop": "$",
	"rule-line type": "$ blackhole", "rule-line realms": "$ 1/2", "rule-line fwmark": "$ 7/0xff", "rule-line not": "$", "rule-line tos": "$ 8", "rule-line dsfield": "$ 8",
	"rule-line iif": "$ eth7", "rule-line dev": "$ eth7", "rule-line oif": "$ eth7", "rule-line uidrange": "$ 7-9", "rule-line tunnel-id": "$ 7", "rule-line l3mdev": "$",
	"rule-line ipproto": "$ tcp", "rule-line ip_proto": "$ 47", "rule-line sport": "$ 7-9", "rule-line dport": "$ 7", "rule-line protocol": "no_track $ 7",
	"rule-line suppress_prefixlength": "$ 0", "rule-line sup_pl": "$ 7", "rule-line suppress_ifgroup": "$ 7", "rule-line sup_group": "$ 7", "rule-line inet": "", "rule-line inet6": "$",
	"rule-line no_track": "$", "rule-line track_group": "$ T",
	"real_server retry": "$ 7", "real_server delay_before_retry": "$ 7", "real_server warmup": "$ 7", "real_server connect_timeout": "$ 7", "real_server delay_loop": "$ 7",
	"bond primary": "member w77\n$ w77",

	"root global_defs":              "global_defs { router_id X }",
	"root vrrp_instance":            "vrrp_instance V {\n interface eth0\n virtual_router_id 7\n virtual_ipaddress { 192.0.2.80 }\n}",
	"root virtual_server":           "virtual_server 192.0.2.80 80 { real_server 10.0.0.2 80 { } }",
	"root vrrp_sync_group":          "vrrp_instance V {\n interface eth0\n virtual_router_id 7\n virtual_ipaddress { 192.0.2.80 }\n}\nvrrp_sync_group G { group { V } }",
	"root vrrp_script":              "vrrp_script s { script /bin/s }",
	"root vrrp_track_process":       "vrrp_track_process p { process p }",
	"root track_file":               "$ f { file /f }",
	"root bfd_instance":             "bfd_instance b { neighbor_ip 192.0.2.2 }",
	"root virtual_server_group":     "virtual_server_group G { 192.0.2.80 80 }\nvirtual_server group G { real_server 10.0.0.2 80 { } }",
	"root track_group":              "vrrp_instance V {\n interface eth0\n virtual_router_id 7\n virtual_ipaddress { 192.0.2.80 }\n}\ntrack_group T { group { V } }",
	"root static_ipaddress":         "static_ipaddress { 192.0.2.9/24 }",
	"root static_routes":            "static_routes { 10.0.0.0/8 via 192.0.2.1 }",
	"root static_rules":             "static_rules { from 10.0.0.0/8 lookup 100 preference 9 }",
	"root garp_group":               "garp_group {\n garp_interval 1\n interface eth0\n}",
	"root interface_up_down_delays": "interface_up_down_delays { eth0 1 2 }",
	"root SSL":                      "SSL { ca /ca }",
	"root system":                   "system { host_name x }",
	"root interface":                "interface eth0 { address 192.0.2.1/24 }",
	"root bond":                     "bond b { member e }",
	"root vlan":                     "vlan v {\n link e\n id 5\n}",
	"root route":                    "route default via 192.0.2.1",
	"root mark":                     "mark 5 { tcp 192.0.2.1 }",
	"root heartbeat":                "heartbeat {\n peer 192.0.2.1\n key 0123456789abcdef\n}",
	"root firewall":                 "firewall {\n log\n}",
	"root snmp":                     "snmp {\n listen 192.0.2.1\n community x\n}",
	"root netboot":                  "netboot { box 52:54:00:00:00:09 { name x } }",

	"netboot box":                                  "$ 52:54:00:00:00:09 { name x }",
	"global_defs notification_email":               "$ { b@example }",
	"global_defs smtp_user":                        "smtp_tls on\n$ u\nsmtp_password p",
	"global_defs smtp_password":                    "smtp_tls on\nsmtp_user u\n$ p",
	"global_defs smtp_verify":                      "smtp_tls on\n$ off",
	"global_defs notify_fifo":                      "$ /p u g",
	"global_defs vrrp_notify_fifo":                 "$ /p u g",
	"global_defs lvs_notify_fifo":                  "$ /p u g",
	"global_defs notify_fifo_script":               "notify_fifo /p\n$ /bin/r",
	"global_defs vrrp_notify_fifo_script":          "vrrp_notify_fifo /p\n$ /bin/r",
	"global_defs lvs_notify_fifo_script":           "lvs_notify_fifo /p\n$ /bin/r",
	"global_defs script_user":                      "$ keepalived_script",
	"global_defs vrrp_mcast_group4":                "$ 224.0.0.77",
	"global_defs vrrp_mcast_group6":                "$ ff02::77",
	"global_defs vrrp_garp_extra_if":               "$ all 77",
	"global_defs lvs_sync_daemon":                  "$ eth0 id 4",
	"global_defs lvs_timeouts":                     "$ tcp 77",
	"vrrp_instance mcast_dst_ip":                   "$ 224.0.0.77",
	"vrrp_instance track_src_ip":                   "mcast_src_ip 192.0.2.1\n$",
	"vrrp_instance unicast_peer":                   "$ { 192.0.2.2 }",
	"vrrp_instance authentication":                 "$ {\n auth_type PASS\n auth_pass x\n}",
	"vrrp_instance auth_type":                      "auth_pass x\n$ AH",
	"vrrp_instance auth_pass":                      "auth_type PASS\n$ x",
	"vrrp_instance auth_hmac":                      "$ { key 1 hex:" + key32 + " }",
	"vrrp_instance key":                            "$ 3 hex:" + key32,
	"vrrp_instance active_key":                     "$ 2",
	"vrrp_instance virtual_ipaddress":              "$ { 192.0.2.81 }",
	"vrrp_instance virtual_ipaddress_excluded":     "$ { 192.0.2.81 }",
	"vrrp_instance virtual_routes":                 "$ { 10.0.0.0/8 via 192.0.2.1 dev eth0 }",
	"vrrp_instance virtual_rules":                  "$ { from 10.0.0.0/8 lookup 100 preference 9 }",
	"vrrp_instance use_vmac":                       "$",
	"vrrp_instance use_vmac_addr":                  "$",
	"vrrp_instance use_ipvlan":                     "$ 192.0.2.5/24",
	"vrrp_instance vmac_xmit_base":                 "use_vmac\n$",
	"vrrp_instance track_interface":                "$ { eth1 weight 3 reverse }",
	"vrrp_instance track_script":                   "$ { s }",
	"vrrp_instance track_file":                     "$ { f }",
	"vrrp_instance track_process":                  "$ { p }",
	"vrrp_instance track_bfd":                      "$ { b }",
	"vrrp_instance garp_extra_if":                  "$ 77",
	"vrrp_instance preempt":                        "nopreempt\n$",
	"vrrp_instance accept":                         "strict_mode\n$",
	"vrrp_instance vrf":                            "$ red",
	"vrrp_sync_group group":                        "$ { W }",
	"vrrp_sync_group track_interface":              "$ { eth1 }",
	"vrrp_sync_group track_script":                 "$ { s }",
	"vrrp_sync_group track_file":                   "$ { f }",
	"vrrp_sync_group track_process":                "$ { p }",
	"vrrp_sync_group track_bfd":                    "$ { b }",
	"vrrp_script user":                             "$ keepalived_script",
	"MISC_CHECK user":                              "$ keepalived_script",
	"track_file file":                              "$ /g",
	"track_file init_file":                         "$ 7 overwrite",
	"virtual_server_group fwmark":                  "$ 77",
	"virtual_server flag-1":                        "lb_algo sh\nflag-1",
	"virtual_server ops":                           "$",
	"virtual_server lb_kind":                       "$ TUN type gue port 7 csum",
	"virtual_server persistence_granularity":       "$ 255.255.255.0",
	"virtual_server protocol":                      "$ SCTP",
	"virtual_server ip_family":                     "",
	"virtual_server sorry_server":                  "$ 10.0.0.8 80",
	"virtual_server real_server":                   "$ 10.0.0.8 80 { }",
	"virtual_server sorry_server_lvs_method":       "$ TUN",
	"virtual_server quorum":                        "$ 4",
	"virtual_server hysteresis":                    "quorum 4\n$ 2",
	"real_server lvs_method":                       "$ TUN",
	"real_server alpha":                            "$",
	"TCP_CHECK TCP_CHECK":                          "$ { }",
	"HTTP_GET HTTP_GET":                            "$ { url { path / } }",
	"HTTP_GET SSL_GET":                             "$ { url { path / } }",
	"HTTP_GET url":                                 "$ { path /c }",
	"HTTP_GET digest":                              "$ 0123456789abcdef0123456789abcdef",
	"HTTP_GET status_code":                         "$ 404",
	"HTTP_GET regex_options":                       "$ caseless",
	"HTTP_GET enable_sni":                          "$",
	"HTTP_GET header":                              "$ X-A b c",
	"HTTP_GET expect_header":                       "$ X-A",
	"HTTP_GET nb_get_retry":                        "$ 7",
	"SMTP_CHECK SMTP_CHECK":                        "$ { }",
	"SMTP_CHECK host":                              "$ { connect_port 26 }",
	"DNS_CHECK DNS_CHECK":                          "$ { }",
	"DNS_CHECK type":                               "$ aaaa",
	"MISC_CHECK MISC_CHECK":                        "$ { misc_path /bin/x }",
	"MISC_CHECK misc_dynamic":                      "$",
	"UDP_CHECK UDP_CHECK":                          "$ { }",
	"UDP_CHECK payload":                            "$ 01 ff",
	"UDP_CHECK require_reply":                      "$ 0x ff",
	"PING_CHECK PING_CHECK":                        "$ { }",
	"PING_CHECK BFD_CHECK":                         "$ { name b }",
	"PING_CHECK FILE_CHECK":                        "$ { track_file f }",
	"BFD_CHECK name":                               "",
	"FILE_CHECK track_file":                        "",
	"SSL ca":                                       "$ /x",
	"SSL certificate":                              "$ /x",
	"SSL key":                                      "$ /x",
	"garp_group interfaces":                        "$ { eth0 eth1 }",
	"garp_group garp_interval":                     "interface eth0\n$ 2",
	"garp_group gna_interval":                      "interface eth0\n$ 2",
	"track_group group":                            "$ { V }",
	"heartbeat peer":                               "$ 192.0.2.3 from 192.0.2.4 dev eth9",
	"heartbeat key":                                "$ fedcba9876543210",
	"root peer":                                    "$ 192.0.2.3 {\n key \"" + sshKey + "\"\n}",
	"peer address":                                 "", // told by two boxes, in test/pair
	"peer key":                                     "$ \"" + otherKey + "\"",
	"snmp client":                                  "$ 192.0.2.0/24",
	"firewall ssh":                                 "$ from 192.0.2.0/24 on eth0",
	"firewall allow":                               "$ tcp 80-90 on eth0 from 192.0.2.1",
	"system login":                                 "$ u {\n key \"" + sshKey + "\"\n role admin\n}",
	"system dns":                                   "$ 192.0.2.53",
	"system ntp":                                   "$ time.example",
	"system syslog":                                "$ log.example",
	"login key":                                    "",
	"interface mac":                                "$ 52:54:00:00:00:09",
	"interface pci":                                "$ 0000:00:09.0",
	"interface address":                            "$ 192.0.2.9/24",
	"checker-common connect_ip":                    "$ 10.0.0.7",
	"checker-common bindto":                        "$ 10.0.0.7",
	"bfd_instance source_ip":                       "$ 192.0.2.9",
	"bfd_instance neighbor_ip":                     "$ 192.0.2.9",
	"checker-common through_vip":                   "$",
	"virtual_server weight":                        "$ 7",
	"vrrp_instance notify_deleted":                 "$ /bin/w77",
	"global_defs disable_local_igmp":               "$",
	"vrrp_track_process quorum_max":                "$ 7",
	"global_defs vmac_prefix":                      "$ vm",
	"vrrp_instance no_virtual_ipaddress":           "",
	"vrrp_sync_group notify_master":                "$ /bin/w77",
	"global_defs enable_script_security":           "$",
	"vrrp_sync_group sync_group_tracking_weight":   "$",
	"mark sctp":                                    "$ 192.0.2.7 7",
	"mark tcp":                                     "$ 192.0.2.7 7",
	"mark udp":                                     "$ 192.0.2.7 7-9",
	"bond member":                                  "$ e7",
	"checker-common bind_if":                       "$ e7",
	"vrrp_instance unicast_fault_no_peer":          "$",
	"vrrp_instance lvs_sync_daemon_interface":      "$ e7",
	"vrrp_instance promote_secondaries":            "$",
	"vrrp_instance linkbeat_use_polling":           "",
	"SMTP_CHECK helo_name":                         "$ a.example",
	"global_defs snmp_vs_stats_update_interval":    "$ 7",
	"global_defs snmp_rs_stats_update_interval":    "$ 7",
	"vrrp_instance virtual_router_id":              "$ 77",
	"global_defs fifo_write_vrrp_states_on_reload": "$",
}

// candidates are lines that use a keyword, from its grammar.
func candidates(k *schema.Keyword, name string) []string {
	s, ok := samples[k.Block+" "+name]
	if !ok {
		s, ok = samples[k.Block+" "+k.Name]
	}
	if ok {
		if s == "" {
			return nil
		}
		return []string{strings.ReplaceAll(s, "$", name)}
	}
	if len(k.Args) == 0 {
		return []string{name}
	}
	a := k.Args[0]
	num := func(v float64) string {
		if a.Min < 0 && v == a.Min {
			v = -7
		}
		return fmt.Sprint(math.Min(math.Max(v, 2), a.Max))
	}
	switch a.Kind {
	case schema.KindInt, schema.KindTimer:
		return []string{name + " " + num(a.Min+7), name + " " + num(a.Min+9)}
	case schema.KindBool:
		return []string{name + " on", name + " off"}
	case schema.KindEnum:
		var out []string
		for _, e := range a.Enum {
			out = append(out, name+" "+e)
		}
		return append(out, name)
	case schema.KindIP:
		return []string{name + " 192.0.2.77"}
	case schema.KindCmd:
		return []string{name + " /bin/w77"}
	}
	return []string{name + " w77"}
}

// TestEveryKeywordCounts: a keyword that has an effect changes the model, in
// every block that takes it and under each of its names.
func TestEveryKeywordCounts(t *testing.T) {
	load := func(frame, line string) (model.Config, []model.Problem) {
		return Load("t", []byte(strings.Replace(frame, "%s", line, 1)), Options{ConfigID: "a"})
	}
	// What these say is looked at elsewhere: in TestValues and package syntax.
	elsewhere := map[string]bool{"root include": true, "vrrp_instance preempt": true, "vrrp_instance vrf": true}
	// Lines of which a word alone says which frame it needs.
	special := map[string]string{
		"address-line home": "address-line6", "address-line mngtmpaddr": "address-line6", "rule-line inet6": "rule-line6",
		"rule-line lookup": "rule-line0", "rule-line table": "rule-line0", "rule-line goto": "rule-line0", "rule-line nop": "rule-line0",
		"rule-line type": "rule-line0", "rule-line l3mdev": "rule-line0",
	}
	tried := 0
	for _, k := range schema.Keywords() {
		if k.Status == schema.NoEffect || elsewhere[k.Block+" "+k.Name] {
			continue
		}
		for _, in := range k.In {
			frame, ok := frames[in]
			if !ok {
				t.Errorf("no text to try %s %s in block %q", k.Block, k.Name, in)
				continue
			}
			for _, name := range append([]string{k.Name}, k.Aliases...) {
				frame := frame
				if f := special[k.Block+" "+name]; f != "" {
					frame = frames[f]
				}
				if in == "PING_CHECK" && name == "connect_port" {
					continue // a ping has no port
				}
				lines := candidates(&k, name)
				if lines == nil {
					continue
				}
				base, problems := load(frame, "")
				if bad := errorsIn(problems); bad != "" && !strings.HasPrefix(in, "rule-line") {
					t.Fatalf("block %q: %s", in, bad)
				}
				changed, bad := false, ""
				for _, line := range lines {
					with, problems := load(frame, line)
					if e := errorsIn(problems); e != "" {
						bad = e
						continue
					}
					tried++
					changed = changed || !reflect.DeepEqual(base, with)
				}
				if !changed {
					t.Errorf("%s %s in block %q changes nothing: %q %s", k.Block, name, in, lines, bad)
				}
			}
		}
	}
	if tried < 300 {
		t.Errorf("only %d lines were tried", tried)
	}
}

func errorsIn(problems []model.Problem) string {
	for _, p := range problems {
		if p.Severity == model.Error {
			return p.String()
		}
	}
	return ""
}
