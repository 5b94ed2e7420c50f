package vrrp_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc/status"
	"ballast/test/guest"
)

// use_ipvlan: the addresses are on an ipvlan of the interface, which keeps its
// own address in every role; two boxes elect and replace one another, and a
// client reaches who is master. The kernel of the box has the module, that of
// the machine that builds may not.
func TestIPVLAN(t *testing.T) {
	if !guest.Inside() {
		t.Parallel()
		guest.Run(t, guest.Options{
			Package: "./services/vrrp", Args: []string{"-test.v", "-test.run", "^TestIPVLAN$"},
			Binaries: []string{"ip", "sysctl"}, Modules: []string{"bridge", "veth", "ipvlan"},
		})
		return
	}
	for _, mode := range []string{"", "private", "vepa"} {
		t.Run("mode "+mode, func(t *testing.T) {
			l := newLAN(t)
			l.host("a", 1)
			l.host("b", 2)
			l.host("c", 9)
			k := kind{"", 3, false, false, "", time.Second}
			config := func(n int, priority uint8) model.Config {
				c := k.instance(n, priority)
				own := netip.MustParseAddr(fmt.Sprintf("192.168.200.10%d", n))
				c.VMAC = &model.VMAC{Name: "ipv.51", IPVLAN: true, Mode: mode, Addr: netip.PrefixFrom(own, 24)}
				c.SrcIP = own
				return model.Config{Instances: []model.Instance{c}}
			}
			vip := k.vips()[0]
			holds := func(host, other string) {
				t.Helper()
				l.until(60*time.Second, "the address is with "+host, func() bool {
					return l.on(host, "ipv.51", vip) && !l.on(other, "ipv.51", vip)
				})
				reached := false
				for end := time.Now().Add(60 * time.Second); !reached && time.Now().Before(end); {
					reached = l.reaches("c", vip)
				}
				if !reached {
					t.Fatalf("the client does not reach %s:\n%s\n%s\n%s\n%s", host, l.run(host, "ip addr"), l.run(host, "ip route show table all"), l.run(host, "ip neigh"), l.run("c", "ip neigh"))
				}
			}
			b := l.director("b", config(2, 100))
			b.start()
			b.awaitState(60*time.Second, status.VRRPMaster)
			holds("b", "a")
			if text := strings.Join(strings.Fields(l.run("b", "ip -d link show ipv.51")), " "); !strings.Contains(text, "ipvlan mode l2 "+map[string]string{"": "bridge"}[mode]+mode) {
				t.Errorf("the link is %s", text)
			}

			a := l.director("a", config(1, 150))
			a.start()
			if i := a.awaitState(60*time.Second, status.VRRPMaster); !strings.Contains(i.Reason, "192.168.200.102") {
				t.Errorf("reason %q", i.Reason)
			}
			if i := b.awaitState(60*time.Second, status.VRRPBackup); i.MasterAddr.String() != "192.168.200.101" {
				t.Errorf("b listens to %s", i.MasterAddr)
			}
			holds("a", "b")
			for _, h := range []string{"a", "b"} {
				own := map[string]string{"a": "192.168.200.101", "b": "192.168.200.102"}[h]
				if !l.on(h, "ipv.51", own) {
					t.Errorf("%s lost the address of the link, %s", h, own)
				}
			}
			a.kill(15)
			b.awaitState(60*time.Second, status.VRRPMaster)
			holds("b", "a")
			if text := l.run("a", "ip -o link show"); strings.Contains(text, "ipv.51") {
				t.Errorf("the link outlived the service: %s", text)
			}
		})
	}
}
