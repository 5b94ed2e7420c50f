package vrrp_test

import (
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc/status"
)

// kind is one way to run VRRP; every one is tried against keepalived.
type kind struct {
	name    string
	version int
	ipv6    bool
	unicast bool
	pass    string
	adv     time.Duration
}

var kinds = []kind{
	{"v2", 2, false, false, "", time.Second},
	{"v2 PASS", 2, false, false, "1111", time.Second},
	{"v2 PASS unicast", 2, false, true, "1111", time.Second},
	{"v2 AH", 2, false, false, "1111", time.Second},
	{"v2 AH unicast", 2, false, true, "1111", time.Second},
	{"v3 IPv4", 3, false, false, "", quick.adv},
	{"v3 IPv4 unicast", 3, false, true, "", quick.adv},
	{"v3 IPv6", 3, true, false, "", quick.adv},
	{"v3 IPv6 unicast", 3, true, true, "", quick.adv},
}

// ah tells whether the password goes into an authentication header.
func (k kind) ah() bool { return strings.Contains(k.name, "AH") }

func (k kind) vips() []string {
	if k.ipv6 {
		return []string{"fe80::51", "fd00::100"}
	}
	return []string{"192.168.200.16", "192.168.200.17"}
}

func (k kind) addr(n int) string {
	if k.ipv6 {
		return fmt.Sprintf("fd00::%d", n)
	}
	return fmt.Sprintf("192.168.200.%d", n)
}

// instance is ours on host n.
func (k kind) instance(n int, priority uint8) model.Instance {
	c := model.Instance{
		Name: "VI_1", Interface: "eth0", VRID: 51, Priority: priority, Version: k.version, AdvertInt: k.adv,
		DownTimerAdverts: 3, IPv6: k.ipv6, McastGroup: netip.MustParseAddr("224.0.0.18"),
		GARPMasterDelay: 5 * time.Second, GARPMasterRepeat: 5, GARPMasterRefreshRepeat: 1,
		GARPLowerPrioDelay: 5 * time.Second, GARPLowerPrioRepeat: 5,
	}
	if k.ipv6 {
		c.McastGroup = netip.MustParseAddr("ff02::12")
	}
	if k.pass != "" {
		c.AuthPass, c.AuthAH = []byte(k.pass), k.ah()
	}
	if k.unicast {
		c.Unicast, c.SrcIP = true, netip.MustParseAddr(k.addr(n))
		c.Peers = []model.Peer{{Addr: netip.MustParseAddr(k.addr(3 - n)), MinTTL: -1, MaxTTL: -1}}
	}
	for _, v := range k.vips() {
		a := netip.MustParseAddr(v)
		c.VIPs = append(c.VIPs, model.Address{Prefix: netip.PrefixFrom(a, a.BitLen())})
	}
	return c
}

func config(list ...model.Instance) model.Config { return model.Config{Instances: list} }

// keepalivedConf is the same for keepalived on host n.
func (k kind) keepalivedConf(n int, priority int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "global_defs {\n router_id t\n}\nvrrp_instance VI_1 {\n state BACKUP\n interface eth0\n virtual_router_id 51\n priority %d\n version %d\n advert_int %g\n",
		priority, k.version, k.adv.Seconds())
	if k.pass != "" {
		fmt.Fprintf(&b, " authentication {\n auth_type %s\n auth_pass %s\n }\n", map[bool]string{true: "AH", false: "PASS"}[k.ah()], k.pass)
	}
	if k.unicast {
		fmt.Fprintf(&b, " unicast_src_ip %s\n unicast_peer {\n %s\n }\n", k.addr(n), k.addr(3-n))
	}
	fmt.Fprintf(&b, " virtual_ipaddress {\n %s\n }\n}\n", strings.Join(k.vips(), "\n "))
	return b.String()
}

// down is the longest time in which a backup of any priority takes over, with
// what a loaded machine adds.
func (k kind) down() time.Duration { return 4*k.adv + 30*time.Second }

// TestKeepalivedIsThePeer: it and we elect, hand over, preempt and replace one
// another, in every way to run VRRP, and tshark has nothing to say against
// what we send.
func TestKeepalivedIsThePeer(t *testing.T) {
	t.Parallel()
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			l := newLAN(t)
			l.host("a", 1)
			l.host("b", 2)
			l.capture()
			vip := k.vips()[1]
			owner := func(host, other string) {
				t.Helper()
				l.until(k.down(), "the virtual addresses move to "+host, func() bool {
					return l.has(host, k.vips()[0]) && l.has(host, vip) && !l.has(other, vip)
				})
			}
			ka := l.keepalived("b", k.keepalivedConf(2, 100))
			ka.start()
			owner("b", "a")

			d := l.director("a", config(k.instance(1, 150)))
			d.start()
			owner("a", "b") // we preempt
			i := d.awaitState(k.down(), status.VRRPMaster)
			if !strings.Contains(i.Reason, "lower priority 100, ours 150") {
				t.Errorf("reason %q", i.Reason)
			}

			d.kill(syscall.SIGTERM) // we resign: it waits its skew time only
			owner("b", "a")
			l.until(30*time.Second, "one advertisement of priority 0 is captured", func() bool { return len(l.framesOf(macA, resigns)) == 1 })

			d.commit(config(k.instance(1, 50)))
			d.start()
			d.awaitState(k.down(), status.VRRPBackup)
			ka.stop() // it resigns
			owner("a", "b")
			if i := d.awaitState(k.down(), status.VRRPMaster); !strings.Contains(i.Reason, "resigned (priority 0)") {
				t.Errorf("reason %q", i.Reason)
			}
			ka.start()
			owner("b", "a") // it preempts
			i = d.awaitState(k.down(), status.VRRPBackup)
			if !strings.Contains(i.Reason, "higher priority 100, ours 50") || i.MasterPriority != 100 {
				t.Errorf("state %+v", i)
			}

			ka.kill()
			l.run("b", "ip link set eth0 down") // its addresses stay, as those of a dead box would not
			i = d.awaitState(k.down(), status.VRRPMaster)
			if !strings.Contains(i.Reason, "no advertisement from ") || !l.has("a", vip) {
				t.Errorf("state %+v", i)
			}
			d.kill(syscall.SIGTERM)
			if l.has("a", vip) {
				t.Error("the virtual address is still there after an orderly stop")
			}
			l.stopCapture()
			l.checkCapture("02:00:00:00:00:01")
		})
	}
}

// checkCapture lets tshark look at every frame that came from a MAC.
func (l *lan) checkCapture(mac string) {
	l.t.Helper()
	out := sh(l.t, "tshark -r "+l.pcap+" -o ip.check_checksum:TRUE -Y eth.src=="+mac+" -T fields -E separator=; -e frame.number -e _ws.col.Protocol -e vrrp.checksum.status -e ip.checksum.status -e icmpv6.checksum.status -e _ws.expert.severity -e _ws.expert.message")
	adverts, announcements := 0, 0
	for _, line := range strings.Split(out, "\n") {
		f := strings.Split(line, ";")
		if len(f) != 7 {
			continue
		}
		switch f[1] {
		case "VRRP":
			adverts++
			if f[2] != "1" || f[3] == "0" || f[6] != "" {
				l.t.Errorf("tshark on our frame %s: %s", f[0], line)
			}
		case "ARP":
			announcements++
		case "ICMPv6":
			announcements++
			if f[4] == "0" {
				l.t.Errorf("tshark on our frame %s: %s", f[0], line)
			}
		}
	}
	if adverts < 5 || announcements < 10 {
		l.t.Errorf("the capture holds %d advertisements and %d announcements of ours:\n%s", adverts, announcements, out)
	}
}
