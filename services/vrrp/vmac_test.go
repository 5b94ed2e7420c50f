package vrrp_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc/status"
	"ballast/test/probe"
)

// on tells whether a host has an address on a link.
func (l *lan) on(host, link, addr string) bool {
	l.t.Helper()
	for _, line := range strings.Split(l.run(host, "ip -o addr show"), "\n") {
		if f := strings.Fields(line); len(f) > 3 && f[1] == link && strings.HasPrefix(f[3], addr+"/") {
			return true
		}
	}
	return false
}

func vmacOn(c *model.Instance) {
	c.VMAC = &model.VMAC{Name: "vrrp.51", MAC: "00:00:5e:00:01:33"}
	if c.IPv6 {
		c.VMAC = &model.VMAC{Name: "vrrp6.51", MAC: "00:00:5e:00:02:33"}
	}
}

// sources are the source MACs of the advertisements on the wire.
func (l *lan) sources(src string) map[string]int {
	l.t.Helper()
	out := map[string]int{}
	for _, mac := range strings.Fields(l.tshark("vrrp&&"+src, "eth.src")) {
		out[mac]++
	}
	return out
}

// Both boxes have use_vmac: they elect and replace one another in both roles,
// the advertisements and the announcements come from the virtual MAC, and a
// client that keeps the ARP entry of the first answer goes on.
func TestVirtualMACWithKeepalived(t *testing.T) {
	t.Parallel()
	for _, k := range kinds {
		if k.unicast || k.pass != "" || testing.Short() && k.version == 2 {
			continue
		}
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			l := newLAN(t)
			l.host("a", 1)
			l.host("b", 2)
			l.host("c", 9)
			l.capture()
			c := k.instance(1, 150)
			vmacOn(&c)
			link, mac, vip := c.VMAC.Name, c.VMAC.MAC, k.vips()[1]
			owner := func(host, other string) {
				t.Helper()
				l.until(k.down(), "the virtual addresses move to "+host, func() bool {
					return l.on(host, link, vip) && !l.on(other, link, vip)
				})
			}
			ka := l.keepalived("b", strings.Replace(k.keepalivedConf(2, 100), " virtual_router_id", " use_vmac\n virtual_router_id", 1))
			ka.start()
			l.until(k.down(), "keepalived is master", func() bool { return strings.Contains(l.run("b", "ip -o addr show"), vip) })
			// The entry is made once and never again.
			l.run("c", fmt.Sprintf("ip neigh replace %s lladdr %s dev eth0 nud permanent", vip, mac))
			ping := func(who string) {
				t.Helper()
				l.until(k.down(), "the client reaches "+who, func() bool {
					return l.reaches("c", vip)
				})
			}
			ping("keepalived")

			d := l.director("a", config(c))
			d.start()
			owner("a", "b")
			i := d.awaitState(k.down(), status.VRRPMaster)
			if !strings.Contains(i.Reason, "lower priority 100, ours 150") || i.VMAC != link {
				t.Errorf("%+v", i)
			}
			ping("us")
			if out := l.run("a", "ip -d link show "+link); !strings.Contains(out, "macvlan mode private") || !strings.Contains(out, mac) || !strings.Contains(out, "addrgenmode none") {
				t.Error(out)
			}
			for key, want := range map[string]string{link + "/arp_ignore": "1", link + "/accept_local": "1", link + "/rp_filter": "0", link + "/promote_secondaries": "1", "eth0/arp_ignore": "1", "eth0/arp_filter": "1"} {
				if got := strings.TrimSpace(l.run("a", "cat /proc/sys/net/ipv4/conf/"+key)); got != want {
					t.Errorf("%s is %s, want %s", key, got, want)
				}
			}

			// A crash leaves it in place, and the next run takes it over.
			index := l.run("a", "cat /sys/class/net/"+link+"/ifindex")
			d.kill(syscall.SIGKILL)
			if !l.on("a", link, vip) {
				t.Error("a crash took the address away")
			}
			d.start()
			if i := d.awaitState(k.down(), status.VRRPMaster); !strings.Contains(i.Reason, "was master before") {
				t.Errorf("%+v", i)
			}
			if now := l.run("a", "cat /sys/class/net/"+link+"/ifindex"); now != index {
				t.Errorf("the interface was made anew: %s, %s", index, now)
			}

			d.kill(syscall.SIGTERM)
			if strings.Contains(l.run("a", "ip -o link"), link) {
				t.Error("the interface outlives an orderly stop")
			}
			if got := strings.TrimSpace(l.run("a", "cat /proc/sys/net/ipv4/conf/eth0/arp_filter")); got != "0" {
				t.Errorf("arp_filter of eth0 was not put back: %s", got)
			}
			ping("keepalived again")

			low := k.instance(1, 50)
			vmacOn(&low)
			d.commit(config(low))
			d.start()
			if i := d.awaitInstance(k.down(), "backup that hears keepalived", func(i status.VRRPInstance) bool {
				return i.State == status.VRRPBackup && i.MasterPriority == 100
			}); i.Stats.BecomeMaster != 0 {
				t.Errorf("%+v", i)
			}
			ping("keepalived, we being backup with the same MAC")
			ka.kill()
			l.run("b", "ip link set eth0 down")
			l.until(k.down(), "the virtual addresses move to a", func() bool { return l.on("a", link, vip) })
			ping("us after its death")
			d.kill(syscall.SIGTERM)
			l.stopCapture()
			// As backup we send nothing from the virtual MAC, IGMP and MLD reports least of all.
			ours := "ip.src==192.168.200.1"
			if k.ipv6 {
				ours = "ipv6.src==fe80::1"
			}
			if got := l.sources(ours); got[mac] < 5 || len(got) != 1 {
				t.Errorf("source MACs of our advertisements: %v", got)
			}
			reports := l.tshark("(igmp||icmpv6.type==143)&&"+ours+"&&eth.src=="+mac, "frame.number")
			if reports != "" {
				t.Errorf("reports from the virtual MAC:\n%s", reports)
			}
			l.checkCapture(mac)
		})
	}
}

// tshark prints a field of the captured frames that a filter lets through.
func (l *lan) tshark(filter, field string) string {
	l.t.Helper()
	out, err := exec.Command("tshark", "-r", l.pcap, "-Y", filter, "-T", "fields", "-e", field).Output()
	if err != nil {
		l.t.Fatalf("tshark %s: %v", filter, err)
	}
	return string(out)
}

// reaches tells whether a host gets an answer from an address: a refusal, since
// nobody listens there.
func (l *lan) reaches(host, addr string) bool {
	l.t.Helper()
	if strings.HasPrefix(addr, "fe80:") {
		addr += "%eth0"
	}
	var err error
	l.inside(host, func() {
		var c net.Conn
		if c, err = net.DialTimeout("tcp", net.JoinHostPort(addr, "9"), 300*time.Millisecond); err == nil {
			c.Close()
		}
	})
	return err == nil || errors.Is(err, syscall.ECONNREFUSED)
}

// inside does fn on a thread in a host's namespace.
func (l *lan) inside(host string, fn func()) {
	l.t.Helper()
	if err := probe.Inside(l.ns(host), func() error { fn(); return nil }); err != nil {
		l.t.Fatal(err)
	}
}

// Without use_vmac there, and with vmac_xmit_base here, we hear one another
// as well.
func TestVirtualMACFromBase(t *testing.T) {
	t.Parallel()
	l, a, b := pair(t, quick, nil)
	one, two := quick.instance(1, 200), quick.instance(2, 100)
	vmacOn(&one)
	one.VMAC.XmitBase = true
	two.VIPs = one.VIPs
	a.conf.Publish(status.Conf{Generation: a.gen, Config: config(one)})
	l.capture()
	b.start()
	b.awaitState(quick.down(), status.VRRPMaster)
	a.start()
	a.awaitState(quick.down(), status.VRRPMaster)
	b.awaitState(quick.down(), status.VRRPBackup)
	if err := a.call("resign", status.Resign{By: "test"}); err != nil {
		t.Fatal(err)
	}
	b.awaitState(quick.down(), status.VRRPMaster)
	a.awaitInstance(quick.down(), "hears its peer", func(i status.VRRPInstance) bool { return i.MasterPriority == 100 })
	l.stopCapture()
	if got := l.sources("ip.src==192.168.200.1"); got[macA] == 0 || len(got) != 1 {
		t.Errorf("source MACs of our advertisements: %v", got)
	}

	// The configuration drops it: the addresses go to the interface itself.
	if err := a.call("resume", nil); err != nil {
		t.Fatal(err)
	}
	a.awaitState(quick.down(), status.VRRPMaster)
	if !l.on("a", "vrrp.51", quick.vips()[0]) {
		t.Error("not on the virtual MAC")
	}
	one.VMAC = nil
	a.commit(config(one))
	l.until(quick.down(), "the address is on eth0", func() bool {
		return l.on("a", "eth0", quick.vips()[0]) && !strings.Contains(l.run("a", "ip -o link"), "vrrp.51")
	})
}

// Addresses on other interfaces get virtual MACs of their own; an interface
// that somebody takes away is made again, and its addresses with it.
func TestVirtualMACOfAddresses(t *testing.T) {
	t.Parallel()
	l := newLAN(t)
	l.host("a", 1)
	l.second("a")
	c := quick.instance(1, 200)
	vmacOn(&c)
	c.ExcludedVIPs = []model.Address{{Prefix: netip.MustParsePrefix("10.1.1.100/32"), Interface: "eth1", UseVMAC: true}}
	a := l.director("a", config(c))
	a.start()
	a.awaitState(quick.down(), status.VRRPMaster)
	there := func() bool { return l.on("a", "vrrp.51.eth1", "10.1.1.100") && l.on("a", "vrrp.51", quick.vips()[0]) }
	l.until(quick.down(), "the addresses are on their virtual MACs", there)
	if out := l.run("a", "ip link show vrrp.51.eth1"); !strings.Contains(out, "00:00:5e:00:01:33") {
		t.Error(out)
	}
	for _, link := range []string{"vrrp.51.eth1", "vrrp.51"} {
		l.run("a", "ip link del "+link)
		l.until(quick.down(), link+" is back", there)
	}
	a.awaitState(quick.down(), status.VRRPMaster)
	// use_vmac_addr is for all of them.
	c.VMACAddr, c.ExcludedVIPs = true, []model.Address{{Prefix: netip.MustParsePrefix("10.1.1.101/32"), Interface: "eth1"}}
	a.commit(config(c))
	l.until(quick.down(), "the other address is there", func() bool {
		return l.on("a", "vrrp.51.eth1", "10.1.1.101") && !l.on("a", "vrrp.51.eth1", "10.1.1.100")
	})
	c.ExcludedVIPs = nil
	a.commit(config(c))
	l.until(quick.down(), "it goes with its address", func() bool { return !strings.Contains(l.run("a", "ip -o link"), "vrrp.51.eth1") })
	if !there() && !l.on("a", "vrrp.51", quick.vips()[0]) {
		t.Error("the other address went with it")
	}
}
