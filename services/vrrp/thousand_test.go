package vrrp_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc/status"
	"ballast/test/probe"
	"ballast/test/stall"
)

// A thousand addresses move as one. keepalived and we are measured in one run,
// each taking over from the other, which dies without a word.
func TestThousandAddressesMove(t *testing.T) {
	if testing.Short() {
		t.Skip("measures failovers")
	}
	const n = 1000
	l := newLAN(t)
	l.host("a", 1)
	l.host("b", 2)
	l.host("c", 9)
	k := kind{"", 3, false, false, "", 100 * time.Millisecond}
	c := k.instance(1, 100)
	c.VIPs = nil
	lines := &strings.Builder{}
	fmt.Fprintf(lines, " virtual_ipaddress {\n  172.20.0.1\n }\n virtual_ipaddress_excluded {\n")
	var last netip.Addr
	for i := 1; i <= n; i++ {
		last = netip.AddrFrom4([4]byte{172, 20, byte(i >> 8), byte(i)})
		v := model.Address{Prefix: netip.PrefixFrom(last, 32)}
		if i == 1 {
			c.VIPs = append(c.VIPs, v)
			continue
		}
		c.ExcludedVIPs = append(c.ExcludedVIPs, v)
		fmt.Fprintf(lines, "  %s\n", last)
	}
	lines.WriteString(" }\n}\n")
	conf := func(priority int) string {
		head, _, _ := strings.Cut(k.keepalivedConf(2, priority), " virtual_ipaddress {")
		return head + lines.String()
	}
	p, err := probe.NewARP(l.ns("c"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	// answers waits until the last address answers, from mac if one is named.
	answers := func(mac string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		from, err := p.Await(ctx, last, mac)
		if err != nil {
			t.Fatal(err)
		}
		return from
	}
	const macB = "02:00:00:00:00:02"

	first, second := l.keepalived("b", conf(150)), l.keepalived("b", conf(50))
	d := l.director("a", config(c))
	if err := stall.Watch(t).Judge(10*time.Millisecond, func() error {
		first.start()
		answers(macB)
		d.start()
		d.awaitState(k.down(), status.VRRPBackup)
		l.run("sw", "ip link set p2 down")
		start := time.Now()
		if answers("") != macA {
			t.Fatal("the last address is not with us")
		}
		ours := time.Since(start)
		i := d.awaitInstance(k.down(), "master, announced", func(i status.VRRPInstance) bool {
			return i.State == status.VRRPMaster && i.Evidence.FirstGARP > 0
		})
		first.kill()
		l.run("b", "ip addr flush dev eth0 to 172.20.0.0/16")
		l.run("sw", "ip link set p2 up")

		second.start()
		l.until(30*time.Second, "keepalived is backup", func() bool {
			out := second.out.String()
			return strings.Count(out, "BACKUP STATE") > strings.Count(out, "MASTER STATE")
		})
		answers(macA)
		// Ours dies: its addresses stay as those of a dead box would not.
		l.run("sw", "ip link set p1 down")
		start = time.Now()
		if answers("") != macB {
			t.Fatal("the last address is not with keepalived")
		}
		theirs := time.Since(start)
		t.Logf("%d addresses, advert_int %s: the last one answers after %s here (first gratuitous ARP %s after the decision), after %s with keepalived 2.2.7",
			n, k.adv, ours.Round(time.Millisecond), i.Evidence.FirstGARP, theirs.Round(time.Millisecond))

		d.kill(syscall.SIGKILL)
		second.kill()
		l.run("a", "ip addr flush dev eth0 to 172.20.0.0/16")
		l.run("b", "ip addr flush dev eth0 to 172.20.0.0/16")
		l.run("sw", "ip link set p1 up")
		second.out.Reset()
		switch {
		case i.Evidence.FirstGARP > 20*time.Millisecond:
			return fmt.Errorf("first gratuitous ARP after %s", i.Evidence.FirstGARP)
		case ours > time.Second:
			return fmt.Errorf("the last address answers after %s", ours)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}
