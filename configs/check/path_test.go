package check_test

import (
	"net/netip"
	"strings"
	"testing"

	"ballast/configs"
	"ballast/configs/check"
	"ballast/configs/model"
)

// Public keys of nobody.
const (
	keyA = "AAAAC3NzaC1lZDI1NTE5AAAAIAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB"
	keyB = "AAAAC3NzaC1lZDI1NTE5AAAAIAICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIC"
	keyC = "AAAAC3NzaC1lZDI1NTE5AAAAIAMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMD"
)

const cutsBase = `
system {
    host_name lb1
    login ann {
        role admin
        key "ssh-ed25519 ` + keyA + ` ann@laptop"
        key "ssh-ed25519 ` + keyB + ` ann@phone"
    }
}
interface eth0 {
    address 10.1.0.2/24
}
interface eth1 {
    dhcp
}
interface bond0 {
    address 10.3.0.2/24
}
bond bond0 {
    mode active-backup
    member eth2
    member eth3
}
vlan v5 {
    link bond0
    id 5
}
interface v5 {
    address 10.5.0.2/24
}
route default via 10.1.0.1
vrrp_instance VI_1 {
    interface eth0
    virtual_router_id 51
    priority 100
    virtual_ipaddress {
        10.1.0.100/24
    }
}
virtual_server 10.1.0.100 80 {
    protocol TCP
    real_server 10.1.0.21 80 {
    }
}
`

func modelOf(t *testing.T, text string) *model.Config {
	t.Helper()
	c, problems := configs.Load("t", []byte(text), configs.Options{})
	for _, p := range problems {
		if p.Severity == model.Error {
			t.Fatal(p)
		}
	}
	return &c
}

func TestCuts(t *testing.T) {
	near := check.Session{User: "ann", Local: netip.MustParseAddr("10.1.0.2"), Remote: netip.MustParseAddr("10.1.0.9"), Interface: "eth0"}
	far, vip, dhcp, vlan, bond, serial := near, near, near, near, near, check.Session{User: "serial"}
	far.Remote = netip.MustParseAddr("192.168.7.7")
	vip.Local = netip.MustParseAddr("10.1.0.100")
	dhcp.Local, dhcp.Interface = netip.MustParseAddr("10.2.0.2"), "eth1"
	vlan.Local, vlan.Remote, vlan.Interface = netip.MustParseAddr("10.5.0.2"), netip.MustParseAddr("10.5.0.9"), "v5"
	bond.Local, bond.Remote, bond.Interface = netip.MustParseAddr("10.3.0.2"), netip.MustParseAddr("10.3.0.9"), "bond0"
	type session = check.Session
	for _, tc := range []struct {
		name     string
		s        session
		from, to string // replaced in the base
		want     string // part of the only reason; empty: none
	}{
		{"nothing", near, "priority 100", "priority 90", ""},
		{"user removed", near, "login ann {", "login bob {", "login ann, who you are, is removed"},
		{"role lowered", near, "role admin", "role operate", "gets role operate"},
		{"one key of two", near, keyB, keyC, ""},
		{"comment of a key", near, "ann@laptop", "ann@desk", ""},
		{"all keys", near, keyA + " ann@laptop\"\n        key \"ssh-ed25519 " + keyB, keyC, "keeps none of its keys"},
		{"serial line", serial, "address 10.1.0.2/24", "address 10.9.0.2/24", ""},
		{"address gone", near, "address 10.1.0.2/24", "address 10.1.0.3/24", "address 10.1.0.2 of eth0, which your session came in on, is removed"},
		{"another one added", near, "address 10.1.0.2/24", "address 10.1.0.2/24\n    address 10.1.0.3/24", ""},
		{"address moves", near, "interface eth0 {\n", "interface eth4 {\n", "moves from eth0 to eth4"},
		{"shorter prefix", near, "address 10.1.0.2/24", "address 10.1.0.2/16", ""},
		{"longer prefix", near, "address 10.1.0.2/24", "address 10.1.0.2/30", "would go by 10.1.0.1; so far they go directly by eth0"},
		{"other card", near, "interface eth0 {\n", "interface eth0 {\n    mac 02:00:00:00:00:07\n", "becomes another card"},
		{"disabled", near, "interface eth0 {\n", "interface eth0 {\n    disable\n", "*"},
		{"gateway", far, "via 10.1.0.1", "via 10.1.0.7", "answers to you (192.168.7.7) would go by 10.1.0.7; so far they go by 10.1.0.1"},
		{"gateway, but on link", near, "via 10.1.0.1", "via 10.1.0.7", ""},
		{"no route", far, "route default via 10.1.0.1", "", "no route leads to you"},
		{"better route", far, "route default", "route 192.168.0.0/16 via 10.1.0.8\nroute default", "would go by 10.1.0.8"},
		{"black hole", far, "route default", "static_routes {\n    blackhole 192.168.7.0/24\n}\nroute default", "blackhole"},
		{"route for others", far, "route default", "route 172.16.0.0/16 via 10.1.0.8\nroute default", ""},
		{"VIP gone", vip, "10.1.0.100/24\n", "10.1.0.101/24\n", "address 10.1.0.100 of vrrp_instance VI_1"},
		{"no_accept", vip, "priority 100", "priority 100\n    no_accept", "does not answer on 10.1.0.100"},
		{"ssh for others", near, "interface eth0 {", "firewall {\n    ssh from 10.9.0.0/16\n    ssh on eth1\n    allow tcp 80 on eth0\n}\ninterface eth0 {", "lets nobody in by SSH from 10.1.0.9 on eth0"},
		{"ssh for the network", near, "interface eth0 {", "firewall {\n    ssh from 10.1.0.0/24\n}\ninterface eth0 {", ""},
		{"ssh for the interface", near, "interface eth0 {", "firewall {\n    ssh on eth0\n}\ninterface eth0 {", ""},
		{"ssh by an allow line", near, "interface eth0 {", "firewall {\n    ssh on eth1\n    allow tcp 20-30 from 10.1.0.9\n}\ninterface eth0 {", ""},
		{"serial line, ssh for nobody", serial, "interface eth0 {", "firewall {\n    ssh on eth9\n}\ninterface eth0 {", ""},
		{"virtual server on ssh", vip, "10.1.0.100 80", "10.1.0.100 22", "virtual_server [10.1.0.100]:tcp:22 takes the connections"},
		{"mark on ssh", near, "virtual_server 10.1.0.100 80", "mark 7 {\n    tcp 10.1.0.2 1-1024\n}\nvirtual_server fwmark 7", "virtual_server FWM 7 takes"},
		{"mark beside ssh", near, "virtual_server 10.1.0.100 80", "mark 7 {\n    tcp 10.1.0.2 80-1024\n}\nvirtual_server fwmark 7", ""},
		{"dhcp goes", dhcp, "    dhcp\n", "    address 10.2.0.3/24\n", "eth1 gets no address by itself any more"},
		{"dhcp goes, address stays", dhcp, "    dhcp\n", "    address 10.2.0.2/24\n", ""},
		{"dhcp of another", near, "    dhcp\n", "    address 10.2.0.3/24\n", ""},
		{"vlan id", vlan, "id 5", "id 6", "goes from id 5 on bond0 to id 6 on bond0"},
		{"bond below", vlan, "mode active-backup", "mode 802.3ad", "goes from mode active-backup to 802.3ad"},
		{"bond members", bond, "member eth2\n    member eth3", "member eth4\n    member eth5", "keeps none of its members"},
		{"bond loses one", bond, "member eth2\n    member eth3", "member eth2", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			text := strings.Replace(cutsBase, tc.from, tc.to, 1)
			if text == cutsBase {
				t.Fatalf("%q is not in the base", tc.from)
			}
			got := check.Cuts(modelOf(t, cutsBase), modelOf(t, text), tc.s)
			switch {
			case tc.want == "*" && len(got) > 0:
			case tc.want == "" && len(got) == 0:
			case tc.want != "" && len(got) == 1 && strings.Contains(got[0], tc.want):
			default:
				t.Errorf("%q, want %q", got, tc.want)
			}
			if same := check.Cuts(modelOf(t, text), modelOf(t, text), tc.s); len(same) > 0 {
				t.Errorf("what stays as it is: %q", same)
			}
		})
	}
}
