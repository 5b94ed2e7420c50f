package vrrp_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ballast/configs/model"
	"ballast/services/ipc/status"
)

// arpProbe asks by ARP, from a host's eth0, who has an address.
type arpProbe struct {
	fd  int
	to  unix.SockaddrLinklayer
	mac []byte
}

func (l *lan) arpProbe(host string) *arpProbe {
	l.t.Helper()
	p := &arpProbe{}
	var err error
	l.inside(host, func() {
		var ifi *net.Interface
		if ifi, err = net.InterfaceByName("eth0"); err != nil {
			return
		}
		const arp = unix.ETH_P_ARP&0xff<<8 | unix.ETH_P_ARP>>8
		if p.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, arp); err != nil {
			return
		}
		p.mac = ifi.HardwareAddr
		p.to = unix.SockaddrLinklayer{Ifindex: ifi.Index, Protocol: arp, Halen: 6}
		err = unix.Bind(p.fd, &unix.SockaddrLinklayer{Ifindex: ifi.Index, Protocol: arp})
	})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { unix.Close(p.fd) })
	tv := unix.NsecToTimeval(int64(2 * time.Millisecond))
	unix.SetsockoptTimeval(p.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
	return p
}

// answers waits until an address answers and tells from which MAC; empty: not
// before the limit.
func (p *arpProbe) answers(addr netip.Addr, limit time.Duration) string {
	ask := make([]byte, 42)
	copy(ask, "\xff\xff\xff\xff\xff\xff")
	copy(ask[6:], p.mac)
	binary.BigEndian.PutUint16(ask[12:], unix.ETH_P_ARP)
	copy(ask[14:], "\x00\x01\x08\x00\x06\x04\x00\x01")
	copy(ask[22:], p.mac)
	a := addr.As4()
	copy(ask[38:], a[:])
	buf := make([]byte, 128)
	for end := time.Now().Add(limit); time.Now().Before(end); {
		unix.Sendto(p.fd, ask, 0, &p.to)
		for {
			n, _, err := unix.Recvfrom(p.fd, buf, 0)
			if err != nil {
				break
			}
			if n >= 42 && buf[21] == 2 && string(buf[28:32]) == string(a[:]) {
				return net.HardwareAddr(buf[22:28]).String()
			}
		}
	}
	return ""
}

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
	p := l.arpProbe("c")
	await := func(mac string) {
		t.Helper()
		l.until(20*time.Second, "the addresses are with "+mac, func() bool { return p.answers(last, 10*time.Millisecond) == mac })
	}
	const macB = "02:00:00:00:00:02"

	ka := l.keepalived("b", conf(150))
	ka.start()
	await(macB)
	d := l.director("a", config(c))
	d.start()
	d.awaitState(k.down(), status.VRRPBackup)
	l.run("sw", "ip link set p2 down")
	start := time.Now()
	if p.answers(last, 20*time.Second) != macA {
		t.Fatal("the last address is not with us")
	}
	ours := time.Since(start)
	i := d.awaitState(k.down(), status.VRRPMaster)
	ka.kill()
	l.run("b", "ip addr flush dev eth0 to 172.20.0.0/16")
	l.run("sw", "ip link set p2 up")
	if i.Evidence.FirstGARP == 0 || i.Evidence.FirstGARP > 20*time.Millisecond {
		t.Errorf("first gratuitous ARP after %s", i.Evidence.FirstGARP)
	}

	ka = l.keepalived("b", conf(50))
	ka.start()
	l.until(10*time.Second, "keepalived is backup", func() bool { return strings.Contains(ka.out.String(), "BACKUP STATE") })
	await(macA)
	// Ours dies: its addresses stay as those of a dead box would not.
	l.run("sw", "ip link set p1 down")
	start = time.Now()
	if p.answers(last, 20*time.Second) != macB {
		t.Fatal("the last address is not with keepalived")
	}
	theirs := time.Since(start)
	d.kill(syscall.SIGKILL)
	t.Logf("%d addresses, advert_int %s: the last one answers after %s here (first gratuitous ARP %s after the decision), after %s with keepalived 2.2.7",
		n, k.adv, ours.Round(time.Millisecond), i.Evidence.FirstGARP, theirs.Round(time.Millisecond))
	if ours > time.Second {
		t.Errorf("the last address answers after %s", ours)
	}
}
