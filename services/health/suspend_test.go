package health

import (
	"net"
	"net/netip"
	"os/exec"
	"testing"
	"time"

	"ballast/configs/model"
)

// TestSuspend: probes wait for an address to appear, and stop when it goes.
func TestSuspend(t *testing.T) {
	hits := make(chan struct{}, 1000)
	ap := server(t, func(net.Conn) { hits <- struct{}{} })
	spec := testCheck(model.TCPCheck, ap)
	spec.DelayLoop = 20 * time.Millisecond
	cfg := configOf(spec)
	const vip = "127.77.0.9"
	cfg.VirtualServers[0].HASuspend = true
	cfg.VirtualServers[0].Services[0].Addr = netip.MustParseAddr(vip)
	w := newWorld()
	l, err := newLoop(w, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	applyIn(l, cfg, time.Now())
	turn := func(until func() bool) bool {
		for end := time.Now().Add(time.Minute); time.Now().Before(end); {
			if until() {
				return true
			}
			if err := l.turn(10 * time.Millisecond); err != nil {
				t.Fatal(err)
			}
		}
		return false
	}
	for range 10 {
		l.turn(10 * time.Millisecond)
	}
	if w.probes != 0 || !w.servers[0].real[0].alive {
		t.Fatalf("%d probes without the address", w.probes)
	}
	ip := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %s", args, out)
		}
	}
	ip("addr", "add", vip+"/32", "dev", "lo")
	added := true
	defer func() {
		if added {
			ip("addr", "del", vip+"/32", "dev", "lo")
		}
	}()
	if !turn(func() bool { return w.probes >= 3 }) {
		t.Fatal("no probes with the address")
	}
	ip("addr", "del", vip+"/32", "dev", "lo")
	added = false
	if !turn(func() bool { return w.servers[0].suspended }) {
		t.Fatal("the address went, and nobody noticed")
	}
	at := w.probes
	for range 10 {
		l.turn(10 * time.Millisecond)
	}
	if w.probes > at+1 {
		t.Errorf("%d probes after the address went", w.probes-at)
	}
	// A mark has no address: it is never suspended.
	cfg.VirtualServers[0].Services[0] = model.ServiceID{Mark: 3}
	applyIn(l, cfg, time.Now())
	if w.servers[0].suspended {
		t.Error("a firewall mark waits for an address")
	}
}
