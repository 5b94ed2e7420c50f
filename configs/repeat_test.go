package configs

import (
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"ballast/configs/bind"
	"ballast/configs/schema"
	"ballast/configs/syntax"
)

var lastNumber = regexp.MustCompile(`^(.*?)(\d+)(\D*)$`)

// another is a line of the same keyword with another value; empty: none is known.
func another(k *schema.Keyword, lines []string) string {
	if len(lines) > 1 && lines[1] != k.Name {
		return lines[1]
	}
	line := lines[0]
	for _, p := range [][2]string{{"PASS", "AH"}, {"SCTP", "TCP"}, {"aaaa", "mx"}, {"TUN type gue port 7 csum", "TUN"}, {"TUN", "NAT"}, {"255.255.255.0", "255.255.0.0"},
		{"caseless", "dotall"}, {" IF", " IG"}, {"keepalived_script", ""}, {"/bin/w77", "/bin/w78"}, {"0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"},
		{"fedcba9876543210", "0123456789abcdee"}, {"192.0.2.0/24", "198.51.100.0/24"}, {"0x ff", "0x fe"}, {"01 ff", "01 fe"}, {"a.example", "b.example"}, {"time.example", "tine.example"},
		{"log.example", "lag.example"}, {"10.0.0.7", "10.0.0.6"}, {"52:54:00:00:00:09", "52:54:00:00:00:08"}, {"0000:00:09.0", "0000:00:08.0"}, {"X-A", "X-B"}, {" vm", " vn"}, {" /x", " /y"},
		{"/p u g", "/q"}, {"/bin/r", "/bin/q"}, {"smtp_user u", "smtp_user v"}, {"/g", "/h"}, {" red", " blue"}, {"eth0 id 4", "eth1 id 4"}, {"all 77", "78"}, {"tcp 77", "tcp 78"}, {"7 overwrite", "8"}, {"e7", "e6"}, {"w77", "w76"}, {"7-9", "7-8"}} {
		if strings.Contains(line, p[0]) && p[1] != "" {
			return strings.ReplaceAll(line, p[0], p[1])
		}
	}
	if m := lastNumber.FindStringSubmatch(line); m != nil {
		n, _ := strconv.Atoi(m[2])
		return m[1] + strconv.Itoa(n-1) + m[3]
	}
	return ""
}

// TestRepeats: the schema says of each line whether a second one counts beside
// the first, as the binder treats it.
func TestRepeats(t *testing.T) {
	load := func(frame, lines string) any {
		tree, _ := syntax.Parse("t", strings.Replace(frame, "%s", lines, 1), syntax.Options{Grammar: schema.Grammar{}, ConfigID: "a"})
		return bind.Bind(tree).Config
	}
	repeat, single := 0, 0
	for _, k := range schema.Keywords() {
		if k.Opens != "" || len(k.Args) == 0 || k.Status == schema.NoEffect || strings.HasSuffix(strings.Join(k.In, ""), "-line") {
			continue
		}
		for _, in := range k.In {
			frame := strings.ReplaceAll(strings.ReplaceAll(frames[in], " member e9\n", ""), " key \""+sshKey+"\"\n", "")
			if k.Block == "HTTP_GET" && in == "HTTP_GET" && k.Name == "virtualhost" {
				frame = strings.Replace(frame, " virtualhost a\n", "", 1)
			}
			for _, name := range append([]string{k.Name}, k.Aliases...) {
				lines := candidates(&k, name)
				switch k.Block + " " + name {
				case "login key":
					lines = []string{`key "` + sshKey + `"`, `key "` + sshKey + `2"`}
				case "vrrp_instance key":
					lines = []string{"key 3 hex:" + key32, "key 4 hex:" + key32}
				case "track_file init_file":
					lines = []string{"init_file 7", "init_file 8"}
				case "root include", "BFD_CHECK name", "FILE_CHECK track_file", "virtual_server ip_family", "peer address": // one name in the frame, or no effect by itself
					continue
				}
				if lines == nil || strings.Contains(lines[0], "\n") && !strings.Contains(lines[0], name) {
					t.Errorf("no line of %s %s", k.Block, name)
					continue
				}
				a, b := lines[0], another(&k, lines)
				if i := strings.LastIndexByte(a, '\n'); i >= 0 && len(b) > i { // what it needs, and the line
					frame, a, b = strings.Replace(frame, "%s", a[:i+1]+"%s", 1), a[i+1:], b[i+1:]
				}
				if b == "" || b == a {
					if !k.Repeats {
						continue // nothing else can be said with it
					}
					t.Errorf("no second line of %s %s: %q", k.Block, name, lines)
					continue
				}
				onlyA, onlyB, both := load(frame, a), load(frame, b), load(frame, a+"\n"+b)
				if reflect.DeepEqual(onlyA, onlyB) {
					continue // its effect is elsewhere: a note, or what is not in the model
				}
				one := reflect.DeepEqual(both, onlyA) || reflect.DeepEqual(both, onlyB)
				if one == k.Repeats {
					t.Errorf("%s %s in %q: Repeats is %v, and of %q and %q one counts: %v", k.Block, name, in, k.Repeats, a, b, one)
				}
				if k.Repeats {
					repeat++
				} else {
					single++
				}
			}
		}
	}
	if repeat < 15 || single < 200 {
		t.Errorf("%d lines that repeat and %d that do not were looked at", repeat, single)
	}
}

// TestBlocksRepeat: two blocks of a keyword that does not repeat say what one
// with the lines of both says; of one that repeats each counts.
func TestBlocksRepeat(t *testing.T) {
	// The two heads and what stands in the blocks. Blocks that repeat have other
	// names, or none.
	cases := map[string][4]string{
		" global_defs": {"", "router_id a", "", "vrrp_version 3"}, " static_ipaddress": {"", "192.0.2.1", "", "192.0.2.2"}, " SSL": {"", "ca /a", "", "password x"},
		" static_routes": {"", "10.0.0.0/8 via 192.0.2.1", "", "10.1.0.0/16 via 192.0.2.1"}, " static_rules": {"", "from 10.0.0.0/8 lookup 1 preference 2", "", "from 11.0.0.0/8 lookup 1 preference 3"},
		" interface_up_down_delays": {"", "eth0 1", "", "eth1 2"}, " system": {"", "host_name a", "", "dns 192.0.2.1"}, " snmp": {"", "community a", "", "listen 192.0.2.1"},
		" netboot": {"", "box 52:54:00:00:00:01 {\nname a\n}", "", "box 52:54:00:00:00:02 {\nname b\n}"}, "netboot box": {"52:54:00:00:00:01", "name a", "52:54:00:00:00:02", "name b"},
		" firewall":      {"", "allow tcp 80", "", "log"},
		" garp_group":    {"", "garp_interval 1\ninterface eth0", "", "gna_interval 1\ninterface eth1"},
		" vrrp_instance": {"A", "interface eth0\nvirtual_router_id 1", "B", "interface eth0\nvirtual_router_id 2"}, " vrrp_script": {"A", "script /a", "B", "script /b"},
		" vrrp_track_process": {"A", "process a", "B", "process b"}, " track_file": {"A", "file /a", "B", "file /b"}, " bfd_instance": {"A", "neighbor_ip 192.0.2.1", "B", "neighbor_ip 192.0.2.2"},
		" virtual_server": {"192.0.2.1 80", "real_server 10.0.0.1 80 {\n}", "192.0.2.2 80", "real_server 10.0.0.1 80 {\n}"},
		" interface":      {"eth0", "mtu 1400", "eth1", "mtu 1400"}, " bond": {"a", "member e0", "b", "member e1"}, " vlan": {"a", "link e\nid 1", "b", "link e\nid 2"}, " mark": {"1", "tcp 192.0.2.1", "2", "tcp 192.0.2.1"},
		"system login":                 {"a", "role view", "b", "role admin"},
		"virtual_server real_server":   {"10.0.0.4 80", "weight 2", "10.0.0.5 80", "weight 3"},
		"HTTP_GET url":                 {"", "path /x", "", "path /y"},
		"SMTP_CHECK host":              {"", "connect_port 26", "", "connect_port 27"},
		"vrrp_instance authentication": {"", "auth_type PASS", "", "auth_pass x"},
		"vrrp_instance unicast_peer":   {"", "192.0.2.3", "", "192.0.2.4"}, "vrrp_instance virtual_ipaddress": {"", "192.0.2.3", "", "192.0.2.4"}, "vrrp_instance virtual_ipaddress_excluded": {"", "192.0.2.3", "", "192.0.2.4"},
		"vrrp_instance virtual_routes": {"", "10.0.0.0/8 via 192.0.2.1 dev eth0", "", "10.1.0.0/16 via 192.0.2.1 dev eth0"},
		"vrrp_instance virtual_rules":  {"", "from 10.0.0.0/8 lookup 1 preference 2", "", "from 11.0.0.0/8 lookup 1 preference 3"}, "vrrp_instance track_interface": {"", "eth1", "", "eth2"},
		"real_server TCP_CHECK": {"", "connect_port 1", "", "connect_port 2"}, "real_server HTTP_GET": {"", "url {\npath /x\n}", "", "url {\npath /y\n}"}, "real_server SSL_GET": {"", "url {\npath /x\n}", "", "url {\npath /y\n}"},
		"real_server SMTP_CHECK": {"", "helo_name a", "", "helo_name b"}, "real_server DNS_CHECK": {"", "name a", "", "name b"}, "real_server MISC_CHECK": {"", "misc_path /a", "", "misc_path /b"},
		"real_server UDP_CHECK": {"", "payload 01", "", "payload 02"}, "real_server PING_CHECK": {"", "retry 2", "", "retry 3"},
		"global_defs notification_email": {"", "a@b", "", "c@d"},
	}
	// One name only stands in the frames, or the block says nothing by itself.
	elsewhere := " track_group vrrp_sync_group virtual_server_group linkbeat_interfaces heartbeat peer auth_hmac track_script track_file track_process track_bfd group interfaces BFD_CHECK FILE_CHECK "
	load := func(frame, lines string) any {
		tree, _ := syntax.Parse("t", strings.Replace(frame, "%s", lines, 1), syntax.Options{Grammar: schema.Grammar{}})
		return bind.Bind(tree).Config
	}
	for _, k := range schema.Keywords() {
		for _, in := range k.In {
			if k.Opens == "" {
				continue
			}
			c, ok := cases[in+" "+k.Name]
			if !ok {
				if in == "vrrp_sync_group" || strings.Contains(elsewhere, " "+k.Name+" ") {
					continue
				}
				t.Errorf("no case of %s in %q", k.Name, in)
				continue
			}
			block := func(head, inside string) string { return k.Name + " " + head + " {\n" + inside + "\n}\n" }
			a, b := block(c[0], c[1]), block(c[2], c[3])
			both, joined := load(frames[in], a+b), load(frames[in], block(c[0], c[1]+"\n"+c[3]))
			if same := reflect.DeepEqual(both, joined); same == k.Repeats {
				t.Errorf("%s in %q: Repeats is %v, and two blocks are one: %v", k.Name, in, k.Repeats, same)
			}
			if k.Repeats && (reflect.DeepEqual(both, load(frames[in], a)) || reflect.DeepEqual(both, load(frames[in], b))) {
				t.Errorf("%s in %q: one of two blocks counts", k.Name, in)
			}
		}
	}
}
