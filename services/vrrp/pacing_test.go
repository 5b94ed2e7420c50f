package vrrp_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc/status"
)

// announced is one announcement on the wire: the address, and the MAC of the
// interface that it left by.
type announced struct {
	addr netip.Addr
	mac  [6]byte
	at   time.Duration
}

func (l *lan) announcements() (arp, na []announced) {
	l.t.Helper()
	l.eachFrame("", isARP, func(f []byte, at time.Duration) {
		if string(f[28:32]) == string(f[38:42]) { // gratuitous
			arp = append(arp, announced{netip.AddrFrom4([4]byte(f[28:32])), [6]byte(f[6:12]), at})
		}
	})
	l.eachFrame("", isNA, func(f []byte, at time.Duration) {
		na = append(na, announced{netip.AddrFrom16([16]byte(f[62:78])), [6]byte(f[6:12]), at})
	})
	return arp, na
}

// pacedHost is a host with two interfaces on one switch, and an instance that
// announces once two addresses of each family on each of them.
func pacedHost(t *testing.T) (*lan, model.Instance) {
	t.Helper()
	l := newLAN(t)
	l.host("a", 1)
	l.second("a")
	l.run("sw", "ip link set second master br0")
	l.run("a", "ip addr add fd01::1/64 dev eth1 nodad")
	c := quick.instance(1, 200)
	c.GARPMasterDelay, c.GARPMasterRepeat = 0, 1
	c.VIPs = []model.Address{{Prefix: netip.MustParsePrefix("192.168.200.100/32"), Interface: "lo"}}
	c.ExcludedVIPs = nil
	for _, x := range []struct{ link, addr string }{
		{"eth0", "192.168.200.101"}, {"eth0", "192.168.200.102"}, {"eth1", "10.1.1.101"}, {"eth1", "10.1.1.102"},
		{"eth0", "fd00::101"}, {"eth0", "fd00::102"}, {"eth1", "fd01::101"}, {"eth1", "fd01::102"},
	} {
		a := netip.MustParseAddr(x.addr)
		c.ExcludedVIPs = append(c.ExcludedVIPs, model.Address{Prefix: netip.PrefixFrom(a, a.BitLen()), Interface: x.link})
	}
	return l, c
}

// closest is the shortest time between two announcements that follow one
// another, of those that left by some interface ("" any).
func closest(list []announced, mac string) (n int, gap time.Duration) {
	gap = time.Hour
	var last time.Duration
	for _, x := range list {
		if mac != "" && mac != macText(x.mac) {
			continue
		}
		if n++; n > 1 {
			gap = min(gap, x.at-last)
		}
		last = x.at
	}
	return n, gap
}

func macText(m [6]byte) string {
	const hex = "0123456789abcdef"
	out := make([]byte, 0, 17)
	for i, b := range m {
		if i > 0 {
			out = append(out, ':')
		}
		out = append(out, hex[b>>4], hex[b&15])
	}
	return string(out)
}

// garp_group: ARP has the pace of garp_interval and neighbour advertisements
// that of gna_interval, over all interfaces of the group together; one that is
// not in it goes at its own, which is none here.
func TestGARPGroupPacesItsInterfaces(t *testing.T) {
	t.Parallel()
	const arpGap, naGap, slack = 80 * time.Millisecond, 110 * time.Millisecond, 20 * time.Millisecond
	for name, links := range map[string][]string{"both interfaces": {"eth0", "eth1"}, "one interface": {"eth1"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, c := pacedHost(t)
			m := config(c)
			m.GARPGroups = []model.GARPGroup{{GARPInterval: arpGap, GNAInterval: naGap, Interfaces: links}}
			a := l.director("a", m)
			l.capture()
			a.start()
			a.awaitState(quick.down(), status.VRRPMaster)
			var arp, na []announced
			l.until(30*time.Second, "each address was announced", func() bool {
				arp, na = l.announcements()
				return len(arp) >= 4 && len(na) >= 4
			})
			grouped := ""
			if len(links) == 1 {
				grouped = macSecond
				// What goes at its own pace is out before the group's second one may go.
				for family, list := range map[string][]announced{"ARP": arp, "NA": na} {
					free, paced := 0, 0
					for _, x := range list {
						if macText(x.mac) == macSecond {
							paced++
						} else if free++; paced > 1 {
							t.Errorf("%s of the interface that is in no group waited for the group: %v", family, list)
						}
					}
					if free != 2 {
						t.Errorf("%s of the interface that is in no group: %d announcements", family, free)
					}
				}
			}
			if _, gap := closest(arp, grouped); gap < arpGap-slack {
				t.Errorf("ARP announcements are %s apart, want %s", gap, arpGap)
			}
			if _, gap := closest(na, grouped); gap < naGap-slack {
				t.Errorf("neighbour advertisements are %s apart, want %s", gap, naGap)
			}
		})
	}
}

// garp_extra_if announces again and again what is on interfaces that no
// advertisement leaves by: with "all" on any, else on virtual MACs only.
func TestGARPExtraInterfaces(t *testing.T) {
	t.Parallel()
	const every = 200 * time.Millisecond
	for name, all := range map[string]bool{"all": true, "virtual MACs only": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, c := pacedHost(t)
			c.GARPExtra, c.GARPExtraAll = every, all
			a := l.director("a", config(c))
			l.capture()
			a.start()
			a.awaitState(quick.down(), status.VRRPMaster)
			// usual is the gap between two announcements that half of them keep to:
			// a machine that stands still for once does not move it.
			usual := func(list []announced, addr string) (n int, gap time.Duration) {
				var last time.Duration
				var gaps []time.Duration
				for _, x := range list {
					if x.addr == netip.MustParseAddr(addr) {
						if n++; n > 1 {
							gaps = append(gaps, x.at-last)
						}
						last = x.at
					}
				}
				if n > 1 {
					slices.Sort(gaps)
					gap = gaps[len(gaps)/2]
				}
				return n, gap
			}
			// Long enough for seven rounds by the advertisements, which go on.
			l.until(30*time.Second, "time passes", func() bool {
				n := 0
				l.eachFrame(macA, isVRRP, func([]byte, time.Duration) { n++ })
				return time.Duration(n)*quick.adv > 10*every
			})
			l.caughtUp()
			arp, na := l.announcements()
			for _, x := range []struct {
				list []announced
				addr string
				on   string
			}{{arp, "192.168.200.101", "eth0"}, {na, "fd00::101", "eth0"}, {arp, "10.1.1.101", "eth1"}, {na, "fd01::101", "eth1"}} {
				n, gap := usual(x.list, x.addr)
				if x.on == "eth0" || !all {
					if n != 1 {
						t.Errorf("%s on %s was announced %d times, want once", x.addr, x.on, n)
					}
					continue
				}
				if n < 4 {
					t.Errorf("%s on %s was announced %d times", x.addr, x.on, n)
				} else if gap < every-20*time.Millisecond || gap > 2*every {
					t.Errorf("%s is announced each %s, want each %s", x.addr, gap, every)
				}
			}
		})
	}
}
