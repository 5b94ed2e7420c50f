package edit

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const pair = `! Configuration File for keepalived

$PRIO=100
global_defs {
    router_id lb1   # of mail
}

# The web.
vrrp_instance VI_1 {
    state BACKUP
    @lb1 priority 150
    @lb2 priority 100
    advert_int 1
    # the address
    virtual_ipaddress {
        192.0.2.10/24 dev eth0
        192.0.2.11/24
    }
    notify_master "/bin/x a" # tell
}
vrrp_instance VI_2 {
	priority $PRIO
	unicast_peer { 192.0.2.1 192.0.2.2 }
	~SEQ(i, 1, 3) garp_master_repeat $i
}

virtual_server 10.0.0.1 53 {
    protocol UDP
    real_server 10.1.0.1 53 {
        weight 1
        HTTP_GET {
            url {
                path /a
                status_code 200 301
            }
            url {
                path /b
            }
        }
    }
}
virtual_server 10.0.0.1 53 {
    protocol TCP
}
vrrp_sync_group G {
    group { VI_1 VI_2 }
}
`

// edited applies one command, "set …" or the like, in a block.
func edited(t *testing.T, d *Doc, at Path, line string) error {
	t.Helper()
	w, ok := Split(line)
	if !ok {
		t.Fatal(line)
	}
	switch w[0] {
	case "set":
		return d.Set(at, w[1:])
	case "delete":
		return d.Delete(at, w[1:])
	case "annotate":
		return d.Annotate(at, w[1:len(w)-1], w[len(w)-1])
	case "rename", "copy", "insert":
		i := 1
		for w[i] != "to" && w[i] != "before" && w[i] != "after" {
			i++
		}
		switch w[0] {
		case "rename":
			return d.Rename(at, w[1:i], w[i+1:])
		case "copy":
			return d.Copy(at, w[1:i], w[i+1:])
		}
		return d.Insert(at, w[1:i], w[i] == "before", w[i+1:])
	}
	t.Fatal(line)
	return nil
}

// lines gives what a line diff would: the lines of a and b that differ, in order.
func changed(a, b string) string {
	x, y := strings.SplitAfter(a, "\n"), strings.SplitAfter(b, "\n")
	i := 0
	for i < len(x) && i < len(y) && x[i] == y[i] {
		i++
	}
	j := 0
	for j < len(x)-i && j < len(y)-i && x[len(x)-1-j] == y[len(y)-1-j] {
		j++
	}
	var out strings.Builder
	for _, l := range x[i : len(x)-j] {
		out.WriteString("-" + strings.TrimSuffix(l, "\n") + "\n")
	}
	for _, l := range y[i : len(y)-j] {
		out.WriteString("+" + strings.TrimSuffix(l, "\n") + "\n")
	}
	return out.String()
}

func TestEdit(t *testing.T) {
	vi1, vi2 := Path{"vrrp_instance VI_1"}, Path{"vrrp_instance VI_2"}
	vs := Path{"virtual_server[1] 10.0.0.1 53", "real_server 10.1.0.1 53"}
	for _, tt := range []struct {
		at         Path
		line, want string
	}{
		{nil, "set global_defs router_id lb2", "-    router_id lb1   # of mail\n+    router_id lb2   # of mail\n"},
		{vi1, "set state MASTER", "-    state BACKUP\n+    state MASTER\n"},
		{vi1, "set state BACKUP", ""},
		{vi1, "set @lb1 priority 200", "-    @lb1 priority 150\n+    @lb1 priority 200\n"},
		{vi1, "set @lb3 priority 50", "+    @lb3 priority 50\n"},
		{nil, "set vrrp_instance VI_1 @lb1 advert_int 2", "+    @lb1 advert_int 2\n"},
		{vi1, "set virtual_router_id 7", "+    virtual_router_id 7\n"},
		{vi1, "set virtual_ipaddress 192.0.2.12/24", "+        192.0.2.12/24\n"},
		{vi1, "set virtual_ipaddress 192.0.2.10/24 dev eth1", "-        192.0.2.10/24 dev eth0\n+        192.0.2.10/24 dev eth1\n"},
		{vi1, "set notify_master \"/bin/y b c\"", "-    notify_master \"/bin/x a\" # tell\n+    notify_master \"/bin/y b c\" # tell\n"},
		{vi1, "set authentication auth_pass \"a b\"", "+    authentication {\n+        auth_pass \"a b\"\n+    }\n"},
		{vi2, "set unicast_peer 192.0.2.3", "-\tunicast_peer { 192.0.2.1 192.0.2.2 }\n+\tunicast_peer { 192.0.2.1 192.0.2.2 192.0.2.3 }\n"},
		{vi2, "set unicast_peer 192.0.2.1 min_ttl 3", "-\tunicast_peer { 192.0.2.1 192.0.2.2 }\n+\tunicast_peer { 192.0.2.1 min_ttl 3 192.0.2.2 }\n"},
		{nil, "set vrrp_sync_group G group VI_1 VI_3", "-    group { VI_1 VI_2 }\n+    group { VI_1 VI_2 VI_3 }\n"},
		{nil, "set $PRIO=120", "-$PRIO=100\n+$PRIO=120\n"},
		{nil, "set $X=1", "+$X=1\n"},
		{nil, "set route default via 192.0.2.1", "+\n+route default via 192.0.2.1\n"},
		{nil, "set system dns 192.0.2.1 192.0.2.2", "+\n+system {\n+    dns 192.0.2.1 192.0.2.2\n+}\n"},
		{vs, "set HTTP_GET url[1] status_code 404", "-                status_code 200 301\n+                status_code 200 301 404\n"},
		{vs, "set HTTP_GET url[3] path /c", "+            url {\n+                path /c\n+            }\n"},
		{vs, "set weight 5", "-        weight 1\n+        weight 5\n"},
		{nil, "set virtual_server[2] 10.0.0.1 53 real_server 10.1.0.2 53 TCP_CHECK connect_port 53", "+    real_server 10.1.0.2 53 {\n+        TCP_CHECK {\n+            connect_port 53\n+        }\n+    }\n"},
		{nil, "set virtual_server 10.0.0.1 lb_algo rr", "+\n+virtual_server 10.0.0.1 {\n+    lb_algo rr\n+}\n"},

		{vi1, "delete state", "-    state BACKUP\n"},
		{vi1, "delete state BACKUP", "-    state BACKUP\n"},
		{vi1, "delete @lb1 priority", "-    @lb1 priority 150\n"},
		{vi1, "delete virtual_ipaddress 192.0.2.11", "-        192.0.2.11/24\n"},
		{vi1, "delete virtual_ipaddress", "-    virtual_ipaddress {\n-        192.0.2.10/24 dev eth0\n-        192.0.2.11/24\n-    }\n"},
		{vi2, "delete priority", "-\tpriority $PRIO\n"},
		{vi2, "delete unicast_peer 192.0.2.1", "-\tunicast_peer { 192.0.2.1 192.0.2.2 }\n+\tunicast_peer { 192.0.2.2 }\n"},
		{nil, "delete vrrp_sync_group G group VI_1 VI_2", "-    group { VI_1 VI_2 }\n+    group { }\n"},
		{nil, "delete global_defs", "-global_defs {\n-    router_id lb1   # of mail\n-}\n"},
		{vs, "delete HTTP_GET url[1] status_code 301", "-                status_code 200 301\n+                status_code 200\n"},
		{vs, "delete HTTP_GET url[2]", "-            url {\n-                path /b\n-            }\n"},
		{nil, "delete $PRIO", "-$PRIO=100\n"},

		{nil, "annotate vrrp_instance VI_1 \"the web pair\"", "-# The web.\n+# the web pair\n"},
		{nil, "annotate vrrp_instance VI_1 \"\"", "-# The web.\n"},
		{vi1, "annotate advert_int \"as fast\\nas it goes\"", "+    # as fast\\nas it goes\n"},
	} {
		d := New(pair)
		line := tt.line
		if err := edited(t, d, tt.at, line); err != nil {
			t.Errorf("%s: %v", tt.line, err)
			continue
		}
		got := changed(pair, d.Text())
		if strings.HasPrefix(tt.line, "annotate adv") {
			got = strings.ReplaceAll(got, "asnas", "as\\nas")
			got = strings.ReplaceAll(got, "fastnas", "fast\\nas")
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.line, diff)
		}
		// The places that are remembered are those of the text.
		if diff := cmp.Diff(New(d.Text()).root().spans, d.root().spans); diff != "" {
			t.Errorf("%s: spans (-want +got):\n%s", tt.line, diff)
		}
	}
}

func TestErrors(t *testing.T) {
	vi1, vi2 := Path{"vrrp_instance VI_1"}, Path{"vrrp_instance VI_2"}
	for _, tt := range []struct {
		at         Path
		line, want string
	}{
		{vi1, "set priority 120", `priority differs by box: @lb1 priority 150 (line 11), @lb2 priority 100 (line 12); write set @lb1 priority …, or delete these lines`},
		{vi2, "set priority 120", `priority comes from a parameter: priority $PRIO (line 22); change the parameter: set $PRIO=VALUE, or delete the line first`},
		{vi2, "set garp_master_repeat 3", `garp_master_repeat comes from a sequence: ~SEQ(i, 1, 3) garp_master_repeat $i (line 24); edit the text there, or delete that line first`},
		{vi2, "set virtual_router_id 300", `vrrp_instance VI_2: virtual_router_id: "300" is outside 1…255; write virtual_router_id 1…255`},
		{vi2, "set prioriti 300", `unknown keyword "prioriti" in vrrp_instance; did you mean priority?`},
		{vi2, "set priority 3 4", `priority takes one value: "4" is too much; write priority 1…255`},
		{vi2, "set nopreempt 3", `nopreempt takes no value: "3" is too much; write nopreempt`},
		{vi2, "set lb_algo rr", `unknown keyword "lb_algo" in vrrp_instance; it belongs into a virtual_server block`},
		{vi2, "set virtual_ipaddress 192.0.2", `virtual_ipaddress: "192.0.2" is no IP address; write IP/LENGTH, for example 192.0.2.10/24`},
		{nil, "set vrrp_instance", `vrrp_instance is not complete; write vrrp_instance NAME; there is vrrp_instance VI_1, vrrp_instance VI_2`},
		{nil, "set virtual_server 10.0.0.1 53 lb_algo rr", `there are 2 blocks virtual_server 10.0.0.1 53 in the configuration; say which one: virtual_server[1] 10.0.0.1 53 in line 27, virtual_server[2] 10.0.0.1 53 in line 42`},
		{nil, "set virtual_server 10.0.0 53 lb_algo rr", `"10.0.0" is no IP address; write virtual_server ADDRESS PORT, fwmark N or group NAME`},
		{nil, "set virtual_server 10.0.0.7 53 real_server x 3", `virtual_server 10.0.0.7 53: real_server: "x" is no IP address; write real_server ADDRESS PORT`},
		{nil, "set @lb1 vrrp_instance VI_1", `a condition counts for one line, not for a block; set the lines in it with the condition`},
		{nil, "set heartbeat key x", `heartbeat: the key has 1 bytes; 16…64 are needed; make one with: openssl rand -hex 32, and write hex: before it`},
		{nil, "set x", `unknown keyword "x" at top level; delete it, or correct the name`},
		{vi1, "set priority \"1\n2\"", `"1\n2" cannot stand in a line; write it on one line, without control characters`},
		{vi1, "set notify \"", ``},
		{vi1, "delete priority", `priority differs by box: @lb1 priority 150 (line 11), @lb2 priority 100 (line 12); write the condition in front: delete @lb1 priority`},
		{vi1, "delete state MASTER", `there is no state MASTER in vrrp_instance VI_1; there is state BACKUP`},
		{vi1, "delete virtual_router_id", `there is no virtual_router_id in vrrp_instance VI_1; there is state, priority, advert_int, virtual_ipaddress, notify_master`},
		{vi1, "delete virtual_ipaddress 192.0.2.9", `there is no 192.0.2.9 in virtual_ipaddress; there is 192.0.2.10/24 dev eth0, 192.0.2.11/24`},
		{nil, "delete vrrp_instance VI_3", `there is no vrrp_instance VI_3 in the configuration; did you mean vrrp_instance VI_1?`},
		{nil, "delete vrrp_script x", `there is no vrrp_script x in the configuration`},
		{nil, "delete", `nothing is named; name what is meant; "top" and the name of a block stands for the block`},
		{Path{"vrrp_instance VI_9"}, "delete state", `there is no vrrp_instance VI_9 in the configuration; did you mean vrrp_instance VI_1?`},
		{vi1, "annotate priority x", `priority differs by box: @lb1 priority 150 (line 11), @lb2 priority 100 (line 12); write the condition in front: delete @lb1 priority`},
	} {
		if tt.want == "" {
			continue
		}
		d := New(pair)
		err := edited(t, d, tt.at, tt.line)
		if err == nil {
			t.Errorf("%s: no error: %s", tt.line, changed(pair, d.Text()))
			continue
		}
		if diff := cmp.Diff(tt.want, err.Error()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.line, diff)
		}
		if d.Text() != pair {
			t.Errorf("%s changed the text", tt.line)
		}
	}
}

// TestForms: texts of other shapes get their lines in the same shape.
func TestForms(t *testing.T) {
	for _, tt := range []struct{ name, text, line, want string }{
		{"an empty text", "", "set route default via 192.0.2.1", "route default via 192.0.2.1\n"},
		{"a byte order mark", "\xef\xbb\xbf", "set system dhcp6", ""},
		{"no end of line", "system {\n}", "set route default via 192.0.2.1", "system {\n}\n\nroute default via 192.0.2.1"},
		{"no end of line, deleted", "system {\n}\n\nroute a", "delete route", "system {\n}"},
		{"ends of line of a PC", "system {\r\n  dns 192.0.2.1\r\n}\r\n", "set system login a role view", "system {\r\n  dns 192.0.2.1\r\n  login a {\r\n    role view\r\n  }\r\n}\r\n"},
		{"the only value", "system {\n\tdns 192.0.2.1\n}\n", "delete system dns 192.0.2.1", "system {\n}\n"},
		{"an empty block", "system { }\n", "set system host_name a", "system {\n    host_name a\n}\n"},
		{"a block on one line", "vrrp_instance A { state BACKUP }\n", "set vrrp_instance A priority 7", "vrrp_instance A {\n    state BACKUP\n    priority 7\n}\n"},
		{"a brace below", "vrrp_instance A\n{\n  state BACKUP }\n", "set vrrp_instance A priority 7", "vrrp_instance A\n{\n  state BACKUP\n  priority 7\n}\n"},
		{"a comment in an empty block", "system { # of the box\n  # nothing yet\n}\n", "set system host_name a", "system { # of the box\n    host_name a\n  # nothing yet\n}\n"},
		{"aligned values", "vrrp_instance A {\n  priority      7   # low\n}\n", "set vrrp_instance A priority 8", "vrrp_instance A {\n  priority      8   # low\n}\n"},
		{"another name of a keyword", "virtual_server 10.0.0.1 80 {\n  lvs_sched rr\n}\n", "set virtual_server 10.0.0.1 80 lb_algo wrr", "virtual_server 10.0.0.1 80 {\n  lb_algo wrr\n}\n"},
		{"names that share a row", "vrrp_sync_group G {\n  notify_backup /a\n}\n", "set vrrp_sync_group G notify_master /b", "vrrp_sync_group G {\n  notify_backup /a\n  notify_master /b\n}\n"},
		{"a block that there is one of", "peer 10.0.0.2 {\n}\n", "set peer port 7", "peer 10.0.0.2 {\n    port 7\n}\n"},
		{"its head", "peer 10.0.0.2 {\n}\n", "rename peer to 10.0.0.3", "peer 10.0.0.3 {\n}\n"},
		{"its head, set", "peer 10.0.0.2 {\n}\n", "set peer 10.0.0.3 port 7", ""},
		{"a comment of the whole text", "# lb1 and lb2\nsystem {\n}\n\nroute a\n", "delete system", "# lb1 and lb2\n\nroute a\n"},
		{"a parameter below it", "# lb1 and lb2\nsystem {\n}\n", "set $A=1", "# lb1 and lb2\n$A=1\nsystem {\n}\n"},
		{"the opposite", "vrrp_instance A {\n  preempt\n}\n", "set vrrp_instance A nopreempt", "vrrp_instance A {\n  nopreempt\n}\n"},
		{"an address written otherwise", "virtual_server 2001:db8::1 80 {\n}\n", "set virtual_server 2001:DB8:0::1 80 quorum 2", "virtual_server 2001:db8::1 80 {\n    quorum 2\n}\n"},
		{"two blocks that add up", "global_defs {\n  router_id a\n}\nglobal_defs {\n  vrrp_version 3\n}\n", "set global_defs router_id b", "global_defs {\n  router_id b\n}\nglobal_defs {\n  vrrp_version 3\n}\n"},
		{"heads by box", "virtual_server 10.0.0.1 80 {\n@a real_server 10.1.0.1 80 {\n@b real_server 10.1.0.2 80 {\n  weight 1\n}\n}\n", "set virtual_server 10.0.0.1 80 real_server 10.1.0.2 80 weight 5",
			"virtual_server 10.0.0.1 80 {\n@a real_server 10.1.0.1 80 {\n@b real_server 10.1.0.2 80 {\n  weight 5\n}\n}\n"},
		{"a value by parameter", "$P=7\nvrrp_instance A {\n}\n", "set vrrp_instance A priority $P", "$P=7\nvrrp_instance A {\n    priority $P\n}\n"},
		{"a comment that goes along", "vrrp_instance A {\n  # why\n  state BACKUP\n\n  priority 7\n}\n", "delete vrrp_instance A state", "vrrp_instance A {\n\n  priority 7\n}\n"},
		{"a comment that stays", "vrrp_instance A {\n  # these\n  state BACKUP\n  priority 7\n}\n", "delete vrrp_instance A state", "vrrp_instance A {\n  # these\n  priority 7\n}\n"},
		{"a command with quotes", "vrrp_script s {\n}\n", `set vrrp_script s script "/bin/sh -c \"a | b\""`, "vrrp_script s {\n    script \"/bin/sh -c \\\"a | b\\\"\"\n}\n"},
		{"lines that nobody knows", "frob {\n  x 1 # }\n}\nzz {\n", "delete frob", "zz {\n"},
	} {
		d := New(tt.text)
		err := edited(t, d, nil, tt.line)
		if tt.want == "" {
			if err == nil || d.Text() != tt.text {
				t.Errorf("%s: %v %q", tt.name, err, d.Text())
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if diff := cmp.Diff(tt.want, d.Text()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

// TestNoSecretShown: no error tells a password or a key.
func TestNoSecretShown(t *testing.T) {
	const text = "$PW=hunter3\nvrrp_instance A {\n  authentication {\n    @a auth_pass hunter1\n    @b auth_pass hunter2\n  }\n}\nvrrp_instance B {\n  authentication {\n    auth_pass $PW\n    ~LST(x, hunter4) auth_type PASS\n  }\n}\n" +
		"vrrp_instance C {\n  authentication {\n    ~LST(x, hunter5) auth_pass $x\n  }\n}\nsnmp {\n  community hunter6\n}\nheartbeat {\n}\n"
	for _, line := range []string{
		"set vrrp_instance A authentication auth_pass hunter7", "set vrrp_instance B authentication auth_pass hunter7", "set vrrp_instance C authentication auth_pass hunter7",
		"set snmp community hunter7 hunter8", `set snmp community "hun\"ter7 hunter8"`, "set heartbeat key hunter7", "set heartbeat key hex:hunter7",
		"delete vrrp_instance A authentication auth_pass", "delete vrrp_instance A authentication @a auth_pass hunter7", "delete snmp community hunter7", "annotate snmp community hunter7 x",
		"set $PW=a \x01hunter7", "set heartbeat hunter", "set global_defs smtp_password \"hunter7\x01\"",
	} {
		d := New(text)
		err := edited(t, d, nil, line)
		if err == nil {
			t.Errorf("%s: no error", line)
			continue
		}
		if s := err.Error(); strings.Contains(strings.ReplaceAll(s, `keyword "hunter"`, ""), "hunter") || strings.Contains(s, "ter7") {
			t.Errorf("%s: %s", line, s)
		}
	}
	for _, at := range []string{"snmp community", "vrrp_instance B authentication auth_pass", "vrrp_instance A authentication @a auth_pass"} {
		for _, c := range Complete(New(text), nil, strings.Fields(at), "", nil) {
			if strings.Contains(c.Text+c.Help, "hunter") || strings.Contains(c.Text, "$") {
				t.Errorf("%s offers %q", at, c.Text)
			}
		}
	}
}
