package plan

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ballast/configs/model"
)

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

func vip(s string) model.Address { return model.Address{Prefix: netip.MustParsePrefix(s)} }

func service(addr string, port uint16, fw model.Forward, real ...string) model.VirtualServer {
	v := model.VirtualServer{
		Name:     "[" + addr + "]",
		Services: []model.ServiceID{{Addr: ip(addr), Port: port, Protocol: model.TCP}}, Forward: fw,
	}
	for _, r := range real {
		v.Real = append(v.Real, model.RealServer{Addr: ip(r), Port: port, ConfPort: port, Forward: fw})
	}
	return v
}

func TestMake(t *testing.T) {
	sorry := service("10.10.10.2", 80, model.DR, "192.168.200.2", "192.168.200.3")
	sorry.Sorry = &model.RealServer{Addr: ip("192.168.200.200"), Port: 80, ConfPort: 80, Forward: model.DR}
	for name, test := range map[string]struct {
		config model.Config
		want   string
	}{
		"real servers in another subnet": {
			model.Config{
				Instances:      []model.Instance{{Name: "VI_1", Interface: "eth0", VIPs: []model.Address{vip("10.10.10.2/32")}}},
				VirtualServers: []model.VirtualServer{sorry},
			}, `
eth0 ══ 10.10.10.0/24 192.168.200.0/24
  ├ director-a   10.10.10.251/24 192.168.200.251/24
  ├ director-b   10.10.10.252/24 192.168.200.252/24
  ├ client       10.10.10.100/24
  ├ rs1          192.168.200.2/24 DR VIP 10.10.10.2
  ├ rs2          192.168.200.3/24 DR VIP 10.10.10.2
  ├ sorry1       192.168.200.200/24 DR VIP 10.10.10.2
asked: tcp 10.10.10.2:80
`},
		"unicast, the directors are the real servers": {
			model.Config{
				Instances: []model.Instance{{
					Name: "VI_1", Interface: "eth0", SrcIP: ip("192.168.0.1"), Unicast: true,
					Peers: []model.Peer{{Addr: ip("192.168.0.2")}}, VIPs: []model.Address{vip("192.168.0.3/32")},
				}},
				VirtualServers: []model.VirtualServer{service("192.168.0.3", 81, model.DR, "192.168.0.1", "192.168.0.2")},
			}, `
eth0 ══ 192.168.0.0/24
  ├ director-a   192.168.0.1/24
  ├ director-b   192.168.0.2/24
  ├ client       192.168.0.100/24
asked: tcp 192.168.0.3:81
note: real server 192.168.0.1 of [192.168.0.3] is a director itself: nothing listens there
note: real server 192.168.0.2 of [192.168.0.3] is a director itself: nothing listens there
`},
		"NAT with a gateway that moves": {
			model.Config{
				Instances: []model.Instance{
					{Name: "front", Interface: "eth0", VIPs: []model.Address{vip("10.1.0.80/24")}},
					{Name: "back", Interface: "eth1", VIPs: []model.Address{vip("10.2.0.1/24")}},
				},
				VirtualServers: []model.VirtualServer{service("10.1.0.80", 80, model.NAT, "10.2.0.11")},
			}, `
eth0 ══ 10.1.0.0/24
  ├ director-a   10.1.0.251/24
  ├ director-b   10.1.0.252/24
  ├ client       10.1.0.100/24
eth1 ══ 10.2.0.0/24
  ├ director-a   10.2.0.251/24
  ├ director-b   10.2.0.252/24
  ├ rs1          10.2.0.11/24 NAT via 10.2.0.1
asked: tcp 10.1.0.80:80
`},
		"NAT with no inside interface": {
			model.Config{
				Instances:      []model.Instance{{Name: "VI_1", Interface: "ens33", VIPs: []model.Address{vip("10.1.0.80/32")}}},
				VirtualServers: []model.VirtualServer{service("10.1.0.80", 80, model.NAT, "172.16.0.11")},
			}, `
ens33 ══ 10.1.0.0/24
  ├ director-a   10.1.0.251/24
  ├ director-b   10.1.0.252/24
  ├ client       10.1.0.100/24
eth1 ══ 172.16.0.0/24
  ├ director-a   172.16.0.251/24
  ├ director-b   172.16.0.252/24
  ├ rs1          172.16.0.11/24 NAT via 172.16.0.251
asked: tcp 10.1.0.80:80
note: no VIP in 172.16.0.0/24 can be the gateway of rs1: it uses director-a's address and loses its way when that one is down
`},
		"NAT on one network": {
			model.Config{
				Instances:      []model.Instance{{Name: "VI_1", Interface: "eth0", VIPs: []model.Address{vip("10.1.0.80/32")}}},
				VirtualServers: []model.VirtualServer{service("10.1.0.80", 80, model.NAT, "10.1.0.11")},
			}, `
eth0 ══ 10.1.0.0/24
  ├ director-a   10.1.0.251/24
  ├ director-b   10.1.0.252/24
  ├ client       10.1.0.100/24
  ├ rs1          10.1.0.11/32 NAT via 10.1.0.80
asked: tcp 10.1.0.80:80
`},
		"TUN over a router's network, IPv6": {
			model.Config{
				Instances: []model.Instance{{Name: "VI_6", Interface: "eth0", IPv6: true, VIPs: []model.Address{vip("fd00:1::80/64")}}},
				VirtualServers: []model.VirtualServer{
					service("fd00:1::80", 80, model.DR, "fd00:1::11"),
				},
			}, `
eth0 ══ fd00:1::/64
  ├ director-a   fd00:1::fb/64
  ├ director-b   fd00:1::fc/64
  ├ client       fd00:1::64/64
  ├ rs1          fd00:1::11/64 DR VIP fd00:1::80
asked: tcp [fd00:1::80]:80
`},
		"marks": {
			model.Config{
				Instances: []model.Instance{{Name: "VI_1", Interface: "enp1s0", SrcIP: ip("192.168.100.244"), VIPs: []model.Address{vip("192.168.100.111/32")}}},
				VirtualServers: []model.VirtualServer{{
					Name: "FWM 300", Services: []model.ServiceID{{Mark: 300, Protocol: model.TCP}}, Forward: model.DR,
					Real: []model.RealServer{{Addr: ip("192.168.100.34"), Port: 9814, ConfPort: 9814, Forward: model.DR}},
				}},
				Marks: []model.Mark{{Mark: 300, Rules: []model.MarkRule{{
					Protocol: model.TCP, Dst: netip.MustParsePrefix("192.168.100.111/32"),
					Ports: []model.PortRange{{From: 9814, To: 9814}, {From: 8000, To: 10000}},
				}}}},
			}, `
enp1s0 ══ 192.168.100.0/24
  ├ director-a   192.168.100.244/24
  ├ director-b   192.168.100.252/24
  ├ client       192.168.100.100/24
  ├ rs1          192.168.100.34/24 DR VIP 192.168.100.111
asked: tcp 192.168.100.111:9814
`},
		"no service at all": {
			model.Config{Instances: []model.Instance{{Name: "VI_1", Interface: "eth0", VIPs: []model.Address{vip("192.168.56.100/32")}}}}, `
eth0 ══ 192.168.56.0/24
  ├ director-a   192.168.56.251/24
  ├ director-b   192.168.56.252/24
  ├ client       192.168.56.101/24
`},
		"nothing": {model.Config{}, `
eth0 ══ 
  ├ director-a   
  ├ director-b   
`},
	} {
		t.Run(name, func(t *testing.T) {
			got := "\n" + Make(test.config, nil).String()
			if d := cmp.Diff(test.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestSlots(t *testing.T) {
	for in, want := range map[string]string{
		"eth0":               "eth0",
		"eth1 eth0":          "eth0 eth1",
		"eth2":               "eth0 eth1 eth2",
		"ens33 eth0":         "eth0 ens33",
		"ens33 eth1":         "ens33 eth1",
		"bond0 eth01 eth99":  "bond0 eth01 eth99",
		"enp1s0 enp2s0 eth1": "enp1s0 eth1 enp2s0",
	} {
		if got := strings.Join(slots(strings.Fields(in)), " "); got != want {
			t.Errorf("slots(%s) = %s, want %s", in, got, want)
		}
	}
}

func TestPeer(t *testing.T) {
	p := Make(model.Config{Instances: []model.Instance{
		{Name: "V1", Interface: "eth0", SrcIP: ip("10.0.0.1"), Peers: []model.Peer{{Addr: ip("10.0.0.2")}}, VIPs: []model.Address{vip("10.0.0.9/24")}},
		{Name: "V2", Interface: "eth1", SrcIP: ip("10.1.0.1"), VIPs: []model.Address{vip("10.1.0.9/24")}},
	}}, nil)
	text := `! priority 100 in a comment stays
vrrp_instance V1 {
    state MASTER
    interface eth0
    priority 100 # not this 100
    unicast_src_ip 10.0.0.1
    unicast_peer {
        10.0.0.2
    }
    virtual_ipaddress { 10.0.0.9/24 }
}
vrrp_instance V2 { state BACKUP
  interface eth1
  priority 90
  mcast_src_ip 10.1.0.1
}
vrrp_instance V3 {
  state BACKUP
  nopreempt
  priority 100
}
`
	got, err := Peer("x.conf", []byte(text), p)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.NewReplacer(
		"state MASTER", "state BACKUP", "priority 100 # not", "priority 99 # not",
		"unicast_src_ip 10.0.0.1", "unicast_src_ip 10.0.0.2", "        10.0.0.2", "        10.0.0.1",
		"V2 { state BACKUP", "V2 { state MASTER", "priority 90", "priority 91", "mcast_src_ip 10.1.0.1", "mcast_src_ip 10.1.0.252",
		"nopreempt\n  priority 100", "nopreempt\n  priority 99",
	).Replace(text)
	if d := cmp.Diff(want, string(got)); d != "" {
		t.Error(d)
	}
}

func TestHosts(t *testing.T) {
	names, ok := Hosts([]byte("a {\n @lb1 state MASTER\n@lb2 state BACKUP\n@lb1 priority 3\n}\n# @lb3 x\n"))
	if !ok || names != [2]string{"lb1", "lb2"} {
		t.Errorf("%v %v", names, ok)
	}
	if _, ok := Hosts([]byte("mail admin@example.com")); ok {
		t.Error("an address is taken for a condition")
	}
}

// TestAddresses: nobody gets an address that somebody else has.
func TestAddresses(t *testing.T) {
	c := model.Config{Instances: []model.Instance{{Name: "V", Interface: "eth0", VIPs: []model.Address{
		vip("10.0.0.251/24"), vip("10.0.0.252/24"), vip("10.0.0.100/24"),
	}}}}
	c.VirtualServers = append(c.VirtualServers, service("10.0.0.251", 80, model.TUN, "10.0.0.253", "10.0.0.254"))
	p := Make(c, nil)
	var all []netip.Addr
	for _, d := range p.Directors {
		all = append(all, d.Addresses[0][0].Addr())
	}
	all = append(all, p.Client.Links[0].Addresses[0].Addr(), ip("10.0.0.251"), ip("10.0.0.252"), ip("10.0.0.100"))
	for _, s := range p.Servers {
		all = append(all, s.Addr)
	}
	slices.SortFunc(all, netip.Addr.Compare)
	if n := len(slices.Compact(slices.Clone(all))); n != len(all) {
		t.Errorf("an address is used twice: %v", all)
	}
	if !strings.Contains(p.String(), "TUN VIP 10.0.0.251") {
		t.Errorf("no tunnel:\n%s", p)
	}
	if w := p.Net().Spaces[1]; w.Links[1].Kind != "ipip" || w.Loopback[0] != netip.MustParsePrefix("10.0.0.251/32") {
		t.Errorf("space of a TUN server: %+v", w)
	}
}
