package net

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"ballast/configs/model"
	"ballast/services/ipc/status"
	"ballast/test/guest"
)

// TestFirmwareKernel does what the kernel of the machine that builds may lack:
// bonds, VLANs, IPVS's sysctls, and the renames as the firmware's kernel does them.
func TestFirmwareKernel(t *testing.T) {
	if !guest.Inside() {
		guest.Run(t, guest.Options{Package: "./services/net", Args: []string{"-test.run", "^TestFirmwareKernel$", "-test.v"},
			Modules: []string{"veth", "bonding", "8021q", "ip_vs", "nf_tables", "virtio_net"},
			// QEMU's own network hands out 10.0.2.15 by DHCP.
			Extra: []string{"-netdev", "user,id=nic,ipv6=off", "-device", "virtio-net-pci,netdev=nic,mac=52:54:00:aa:bb:01,addr=0x7,romfile="}})
		return
	}
	t.Run("a card by its PCI path", cardByPath)
	for i := range 4 {
		name := "eth" + string(rune('0'+i))
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.HardwareAddr = name, []byte{2, 0, 0, 0, 1, byte(i)}
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "p" + name[3:]}); err != nil {
			t.Fatal(err)
		}
		for _, n := range []string{name, "p" + name[3:]} {
			if err := netlink.LinkSetUp(&netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Name: n}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	c := model.Config{
		Interfaces: []model.Interface{
			{Name: "bond7", MTU: 1600, Addresses: []netip.Prefix{prefix("10.0.0.1/24")}},
			{Name: "eth3.5", MTU: 1550, Addresses: []netip.Prefix{prefix("10.5.0.1/24")}},
			{Name: "eth3", MTU: 1600},
			{Name: "inside", Addresses: []netip.Prefix{prefix("2001:db8:9::1/64")}},
			{Name: "eth1", Match: model.Match{MAC: "02:00:00:00:01:02"}},
			{Name: "eth2", Match: model.Match{MAC: "02:00:00:00:01:01"}},
		},
		Bonds:          []model.Bond{{Name: "bond7", Mode: "active-backup", Members: []string{"eth0", "eth1"}, MIIMon: 100 * time.Millisecond, Primary: "eth1"}},
		VLANs:          []model.VLAN{{Name: "eth3.5", Link: "eth3", ID: 5}, {Name: "inside", Link: "bond7", ID: 100}},
		StaticRoutes:   []model.Route{{Dst: prefix("0.0.0.0/0"), Via: ip("10.0.0.254"), Interface: "bond7"}},
		VirtualServers: []model.VirtualServer{{Scheduler: "sh"}},
	}
	b := newBox(t)
	st := b.commit(c)
	if st.Error != "" {
		t.Fatalf("faults: %s", st.Error)
	}
	for _, op := range b.log.applied() {
		if !strings.HasPrefix(op, "set net/") {
			t.Log(op)
		}
	}
	check := func(c model.Config, st status.Net, want ...string) {
		t.Helper()
		var got []string
		for _, l := range st.Links {
			if strings.HasPrefix(l.Name, "p") || l.Kind == "loopback" {
				continue
			}
			if !slices.ContainsFunc(c.Interfaces, func(i model.Interface) bool { return i.Name == l.Name }) && l.Master == "" && l.Kind != "bond" && l.Kind != "vlan" {
				continue
			}
			s := l.Name + " " + l.Kind + " mtu " + itoa(l.MTU)
			if l.Master != "" {
				s += " in " + l.Master
			}
			if l.Up {
				s += " up"
			}
			got = append(got, s+" "+strings.Join(addrsOf(st, l.Name), ","))
		}
		slices.Sort(got)
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("links (-want +got):\n%s", d)
		}
		b.idle(c)
	}
	check(c, st,
		"bond0 bond mtu 1500 ", // made by the module itself: not ours
		"bond7 bond mtu 1600 up 10.0.0.1/24 static",
		"eth0 veth mtu 1600 in bond7 up ",
		"eth1 veth mtu 1600 in bond7 up ",
		"eth2 veth mtu 1500 up ",
		"eth3 veth mtu 1600 up ",
		"eth3.5 vlan mtu 1550 up 10.5.0.1/24 static",
		"inside vlan mtu 1600 up 2001:db8:9::1/64 static")
	if got := readFile(t, "/sys/class/net/bond7/bonding/primary"); got != "eth1" {
		t.Errorf("primary %q", got)
	}
	if got := readFile(t, "/sys/class/net/eth1/address"); linkNamed(st, "eth1").PermMAC == "" && got == "" {
		t.Errorf("eth1 has no address")
	}
	for key, want := range map[string]string{"sync_threshold": "0\t0", "sync_refresh_period": "10", "sloppy_tcp": "1", "expire_nodest_conn": "1", "drop_entry": "1", "nat_icmp_send": "0"} {
		if got := readFile(t, "/proc/sys/net/ipv4/vs/"+key); got != want {
			t.Errorf("%s = %q, want %q", key, got, want)
		}
	}

	// Restart: nothing to do.
	b.stop()
	b.start()
	b.await("the state after a restart", func(n status.Net) bool { return n.Config == b.gen })
	if ops := b.log.applied(); len(ops) > 0 {
		t.Errorf("the restarted service did %q", ops)
	}

	// LACP instead, other members, another VLAN id, one VLAN gone, a smaller MTU.
	c.Bonds[0] = model.Bond{Name: "bond7", Mode: "802.3ad", Members: []string{"eth1", "eth2"}, MIIMon: 50 * time.Millisecond, HashPolicy: "layer3+4", LACPRate: "fast"}
	c.Interfaces = append(c.Interfaces[:3:3], c.Interfaces[4:]...)
	c.Interfaces[0].MTU = 1400
	c.Interfaces[1].MTU = 0
	c.Interfaces[2].MTU = 1500
	c.VLANs = []model.VLAN{{Name: "eth3.5", Link: "eth3", ID: 6}}
	c.VirtualServers = nil
	st = b.commit(c)
	if st.Error != "" {
		t.Fatalf("faults: %s", st.Error)
	}
	for _, op := range b.log.applied() {
		t.Log(op)
	}
	check(c, st,
		"bond0 bond mtu 1500 ",
		"bond7 bond mtu 1400 up 10.0.0.1/24 static",
		"eth1 veth mtu 1400 in bond7 up ",
		"eth2 veth mtu 1400 in bond7 up ",
		"eth3 veth mtu 1500 up ",
		"eth3.5 vlan mtu 1500 up 10.5.0.1/24 static")
	for file, want := range map[string]string{"mode": "802.3ad 4", "lacp_rate": "fast 1", "xmit_hash_policy": "layer3+4 1", "miimon": "50"} {
		if got := readFile(t, filepath.Join("/sys/class/net/bond7/bonding", file)); got != want {
			t.Errorf("bond %s = %q, want %q", file, got, want)
		}
	}
	if got := readFile(t, "/proc/sys/net/ipv4/vs/sloppy_tcp"); got != "0" {
		t.Errorf("sloppy_tcp = %q", got)
	}
	st = b.commit(model.Config{Interfaces: []model.Interface{{Name: "eth3"}}})
	check(model.Config{Interfaces: []model.Interface{{Name: "eth3"}}}, st, "bond0 bond mtu 1500 ", "eth3 veth mtu 1500 up ")
}

// cardByPath gives a real (well, virtio) card its name by its place in the box.
func cardByPath(t *testing.T) {
	b := newBox(t)
	c := model.Config{Interfaces: []model.Interface{{Name: "enp1s0", Match: model.Match{PCI: "0000:00:07.0"}, DHCP: true}}}
	b.commit(c)
	st := b.await("the lease", func(n status.Net) bool { return slices.Equal(addrsOf(n, "enp1s0"), []string{"10.0.2.15/24 dhcp"}) })
	l := linkNamed(st, "enp1s0")
	if l.PCI != "0000:00:07.0" || l.Driver != "virtio_net" || l.PermMAC != "52:54:00:aa:bb:01" || l.Kind != "device" || !l.Carrier || !l.Configured {
		t.Errorf("link %+v", l)
	}
	if !slices.ContainsFunc(st.Routes, func(r status.Route) bool { return r.Via == ip("10.0.2.2") && r.Origin == "dhcp" }) || len(st.DNS) != 1 {
		t.Errorf("routes %+v, name servers %v", st.Routes, st.DNS)
	}
	for _, op := range b.log.applied() {
		if !strings.HasPrefix(op, "set net/") {
			t.Log(op)
		}
	}
	c.Interfaces[0].DHCP = false
	if st := b.commit(c); len(addrsOf(st, "enp1s0")) != 0 {
		t.Errorf("addresses left: %q", addrsOf(st, "enp1s0"))
	}
	b.idle(c)
}

func itoa(n int) string { return strconv.Itoa(n) }

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}
