package vrrp_test

import (
	"net/netip"
	"testing"
	"time"

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
		"fd00::1:1/64 scope global nodad deprecated", "fd00::1:2/64 scope global nodad home", "preferred_lft 1000sec", "fd00::1:3/64", "mngtmpaddr noprefixroute",
		"10.4.0.1 peer 10.4.0.2/32 scope link eth0:x", "239.1.1.1/32 scope global autojoin",
	} {
		if !allIn(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
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
	l.until(5*time.Second, "three rounds of two addresses", func() bool { return frames() >= 6 })
	for i := 1; i < len(at); i++ {
		if d := at[i] - at[i-1]; d < 95*time.Millisecond {
			t.Errorf("announcement %d comes %s after the one before", i, d)
		}
	}
}
