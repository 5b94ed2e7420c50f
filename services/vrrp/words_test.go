package vrrp_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ballast/configs/model"
	"ballast/services/ipc/status"
)

// The words of an address line reach the kernel, and an IPv6 address of any
// length is nobody's source unless its line says so.
func TestAddressWords(t *testing.T) {
	t.Parallel()
	l := newLAN(t)
	l.host("a", 1)
	c := quick.instance(1, 200)
	p := netip.MustParsePrefix
	c.ExcludedVIPs = []model.Address{
		{Prefix: p("fd00::1:1/64")},
		{Prefix: p("fd00::1:2/64"), Home: true, Preferred: 1000 * time.Second},
		{Prefix: p("fd00::1:3/64"), MngTmpAddr: true, NoPrefixRoute: true},
		{Prefix: p("10.4.0.1/32"), Peer: p("10.4.0.2/32"), Scope: 253, Label: "eth0:x"},
		{Prefix: p("239.1.1.1/32"), AutoJoin: true},
	}
	a := l.director("a", config(c))
	a.start()
	a.awaitState(quick.down(), status.VRRPMaster)
	out := l.run("a", "ip -o addr show dev eth0")
	for _, want := range []string{
		"fd00::1:1/64 scope global nodad deprecated", "fd00::1:2/64 scope global nodad home", "fd00::1:3/64", "mngtmpaddr noprefixroute",
		"10.4.0.1 peer 10.4.0.2/32 scope link eth0:x", "239.1.1.1/32 scope global autojoin",
	} {
		if !allIn(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	// The kernel counts the lifetime down.
	var left int
	if _, text, _ := strings.Cut(out, "fd00::1:2/64"); text != "" {
		_, text, _ = strings.Cut(text, "preferred_lft ")
		fmt.Sscanf(text, "%dsec", &left)
	}
	if left < 900 || left > 1000 {
		t.Errorf("a lifetime of %d s in\n%s", left, out)
	}
	// Of addresses that match the destination alike, the one with a lifetime.
	if src := l.run("a", "ip -6 route get fd00::1:4"); !allIn(src, "src fd00::1:2 ") {
		t.Errorf("source address: %s", src)
	}
	if out := l.run("a", "ip maddr show dev eth0"); !allIn(out, "239.1.1.1") {
		t.Errorf("the group was not joined:\n%s", out)
	}
}

// garp_group paces what leaves by its interfaces; garp_extra_if goes on
// announcing the addresses of interfaces that no advertisement leaves by.
func TestAnnouncementsArePacedAndRepeated(t *testing.T) {
	t.Parallel()
	l := newLAN(t)
	l.host("a", 1)
	l.second("a")
	c := quick.instance(1, 200)
	c.GARPMasterDelay, c.GARPMasterRepeat = 0, 1
	c.GARPExtra, c.GARPExtraAll = 300*time.Millisecond, true
	vip := netip.MustParseAddr("10.1.1.100")
	c.ExcludedVIPs = []model.Address{{Prefix: netip.PrefixFrom(vip, 32), Interface: "eth1"}, {Prefix: netip.MustParsePrefix("10.1.1.101/32"), Interface: "eth1"}}
	m := config(c)
	m.GARPGroups = []model.GARPGroup{{GARPInterval: 100 * time.Millisecond, Interfaces: []string{"eth0", "eth1"}}}
	a := l.director("a", m)
	l.captureOn("a", "eth1")
	a.start()
	a.awaitState(quick.down(), status.VRRPMaster)
	var at []time.Duration
	frames := func() int {
		at = at[:0]
		l.eachFrame(macSecond, isARP, func(_ []byte, when time.Duration) { at = append(at, when) })
		return len(at)
	}
	l.until(30*time.Second, "three rounds of two addresses", func() bool { return frames() >= 6 })
	for i := 1; i < len(at); i++ {
		if d := at[i] - at[i-1]; d < 80*time.Millisecond { // a frame may be late on its way to the wire
			t.Errorf("announcement %d comes %s after the one before", i, d)
		}
	}
}

// vrrp_garp_interval and vrrp_gna_interval are gaps between the announcements
// that leave by one interface; vrrp_garp_master_refresh sends the addresses
// again, vrrp_garp_master_refresh_repeat times each.
func TestAnnouncementsHaveGapsAndAreRefreshed(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		name   string
		vips   []string
		is     func([]byte) bool
		gap    time.Duration
		repeat int
	}{
		{"ARP", []string{"192.168.200.101", "192.168.200.102"}, isARP, 60 * time.Millisecond, 2},
		{"NA", []string{"fd00::101", "fd00::102"}, isNA, 80 * time.Millisecond, 3},
	} {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			l := newLAN(t)
			l.host("a", 1)
			c := quick.instance(1, 200)
			c.GARPMasterDelay, c.GARPMasterRepeat = 0, 1
			const refresh = 4 * time.Second // far more than a round takes on a machine that stands still in it
			c.GARPMasterRefresh, c.GARPMasterRefreshRepeat = refresh, x.repeat
			c.GARPInterval, c.GNAInterval = 60*time.Millisecond, 80*time.Millisecond
			c.VIPs, c.ExcludedVIPs = nil, nil
			of := map[netip.Addr]bool{}
			for _, v := range x.vips {
				a := netip.MustParseAddr(v)
				of[a] = true
				c.ExcludedVIPs = append(c.ExcludedVIPs, model.Address{Prefix: netip.PrefixFrom(a, a.BitLen())})
			}
			c.VIPs = []model.Address{{Prefix: netip.MustParsePrefix("192.168.200.100/32"), Interface: "lo"}}
			a := l.director("a", config(c))
			l.capture()
			a.start()
			a.awaitState(quick.down(), status.VRRPMaster)
			var at []time.Duration
			frames := func() int {
				at = at[:0]
				l.eachFrame("", x.is, func(f []byte, when time.Duration) {
					announced := netip.Addr{}
					if isARP(f) {
						announced = netip.AddrFrom4([4]byte(f[28:32]))
					} else {
						announced = netip.AddrFrom16([16]byte(f[62:78]))
					}
					if of[announced] {
						at = append(at, when)
					}
				})
				return len(at)
			}
			// One round at the start, and repeat rounds at each of two refreshes.
			want := 2 + 2*2*x.repeat
			l.until(30*time.Second, "two refreshes", func() bool { return frames() >= want })
			rounds := []int{1}
			for i := 1; i < want; i++ {
				d := at[i] - at[i-1]
				if d < x.gap-20*time.Millisecond {
					t.Errorf("announcement %d comes %s after the one before", i, d)
				}
				if d > refresh/2 {
					rounds = append(rounds, 0)
				}
				rounds[len(rounds)-1]++
			}
			if d := cmp.Diff([]int{2, 2 * x.repeat, 2 * x.repeat}, rounds); d != "" {
				t.Errorf("announcements in a row (-want +got):\n%s", d)
			}
		})
	}
}
