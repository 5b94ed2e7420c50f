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
	"ballast/test/stall"
)

// TestDeadMasterIsReplacedOverIPv6: the master's link-local address is asked by
// neighbour solicitation. A kernel that answers keeps its place, a dead one
// does not.
func TestDeadMasterIsReplacedOverIPv6(t *testing.T) {
	t.Parallel()
	l := newLAN(t)
	for n, name := range []string{"a", "b"} {
		l.host(name, n+1)
		l.link2(name, n+1)
	}
	k := kind{"", 3, true, false, "", time.Second}
	a, b := l.director("a", beating(1, k.instance(1, 150))), l.director("b", beating(2, k.instance(2, 100)))
	a.start()
	b.start()
	rest := func() {
		t.Helper()
		a.awaitState(30*time.Second, status.VRRPMaster)
		b.await(30*time.Second, "b listens to a", func(v status.VRRP) bool {
			return heartbeatUp(v) && v.Instances[0].State == status.VRRPBackup && v.Instances[0].MasterAddr == netip.MustParseAddr("fe80::1") && v.Instances[0].MasterPriority == 150
		})
	}
	w := stall.Watch(t)
	judged(t, w, func() (err error) {
		rest()
		a.cmd.Process.Signal(syscall.SIGSTOP)
		v := b.await(30*time.Second, "VRRP's own timer", func(v status.VRRP) bool { return v.Instances[0].State == status.VRRPMaster })
		if i := v.Instances[0]; !strings.Contains(i.Reason, "no advertisement from fe80::1") {
			err = fmt.Errorf("its kernel answers, yet: %q", i.Reason)
		}
		a.cmd.Process.Signal(syscall.SIGCONT)
		return err
	})
	judged(t, w, func() (err error) {
		rest()
		l.power(1, false)
		a.cmd.Process.Signal(syscall.SIGSTOP)
		v := b.await(30*time.Second, "b replaces a", func(v status.VRRP) bool { return v.Instances[0].State == status.VRRPMaster })
		if i := v.Instances[0]; !strings.Contains(i.Reason, "heartbeat of master fe80::1 lost") {
			err = fmt.Errorf("reason %q", i.Reason)
		}
		l.power(1, true)
		a.cmd.Process.Signal(syscall.SIGCONT)
		return err
	})
}

// routed puts a router between two hosts: a has 10.8.1.1, b 10.8.2.1.
func (l *lan) routed() {
	l.t.Helper()
	for _, h := range []string{"a", "r", "b"} {
		l.addNS(h)
	}
	l.run("r", "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
	for n, h := range []string{"a", "b"} {
		n++
		port := []string{"", "eth0", "eth1"}[n]
		l.run("r", "ip link add "+port+" type veth peer name eth0 netns "+l.ns(h))
		for _, c := range []struct{ prefix, len string }{{"10.8.", "/24"}, {"fd08:", "/64"}} {
			host, gate := ".1", ".254"
			if c.len == "/64" {
				host, gate = "::1", "::254"
			}
			net := c.prefix + string(rune('0'+n))
			l.run("r", "ip addr add "+net+gate+c.len+" dev "+port+nodad(c.len))
			l.run(h, "ip addr add "+net+host+c.len+" dev eth0"+nodad(c.len))
		}
		l.run("r", "ip link set "+port+" up")
		l.run(h, "ip link set eth0 up")
		l.run(h, "ip route add default via 10.8."+string(rune('0'+n))+".254")
		l.run(h, "ip -6 route add default via fd08:"+string(rune('0'+n))+"::254")
	}
}

func nodad(length string) string {
	if length == "/64" {
		return " nodad"
	}
	return ""
}

// TestBFDMultihop: over a router, on UDP 4784. max_hops bounds what the TTL may
// lose on the way, so that with none of it the session stays down.
func TestBFDMultihop(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, a, b string }{{"IPv4", "10.8.1.1", "10.8.2.1"}, {"IPv6", "fd08:1::1", "fd08:2::1"}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := newLAN(t)
			l.routed()
			session := func(own, peer string, hops int) model.Config {
				return model.Config{BFD: []model.BFD{{
					Name: "m", Neighbor: netip.MustParseAddr(peer), Source: netip.MustParseAddr(own), MinRx: 20 * time.Millisecond, MinTx: 20 * time.Millisecond,
					IdleTx: 50 * time.Millisecond, Multiplier: 5, TTL: 255, MaxHops: hops, Multihop: true, VRRP: true,
				}}}
			}
			a, b := l.director("a", session(c.a, c.b, 1)), l.director("b", session(c.b, c.a, 1))
			a.start()
			b.start()
			up := func(v status.VRRP) bool { return len(v.BFD) == 1 && v.BFD[0].State == "Up" && v.Config == a.gen }
			a.await(60*time.Second, "the session is up over a router", up)
			l.run("r", "ip link set eth1 down")
			v := a.await(30*time.Second, "the end of the way is seen", func(v status.VRRP) bool { return len(v.BFD) == 1 && v.BFD[0].State != "Up" })
			if v.BFD[0].Diagnostic != "control detection time expired" {
				t.Errorf("session %+v", v.BFD[0])
			}
			l.run("r", "ip link set eth1 up")
			if c.name == "IPv6" { // the address went with the link
				l.run("r", "ip -6 addr replace fd08:2::254/64 dev eth1 nodad")
			}
			a.await(60*time.Second, "the session is up again", up)

			a.commit(session(c.a, c.b, 0))
			a.await(60*time.Second, "no hop is allowed", func(v status.VRRP) bool { return len(v.BFD) == 1 && v.BFD[0].State != "Up" && v.Config == a.gen })
			a.commit(session(c.a, c.b, 1))
			a.await(60*time.Second, "one hop is allowed", up)
		})
	}
}
