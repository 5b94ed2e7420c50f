package probe

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"testing"
	"time"
)

// pair makes two namespaces with an eth0 each on one wire: a is 10.77.3.1, MAC
// 02:00:00:00:00:01.
func pair(t *testing.T) (a, b string) {
	if os.Getuid() != 0 {
		t.Skip("needs root for network namespaces")
	}
	a, b = fmt.Sprintf("probe%d-a", os.Getpid()), fmt.Sprintf("probe%d-b", os.Getpid())
	for _, ns := range []string{a, b} {
		ip(t, "netns", "add", ns)
		t.Cleanup(func() { ip(t, "netns", "del", ns) })
	}
	ip(t, "-n", a, "link", "add", "eth0", "address", "02:00:00:00:00:01", "type", "veth", "peer", "name", "eth0", "netns", b)
	for i, ns := range []string{a, b} {
		ip(t, "-n", ns, "addr", "add", fmt.Sprintf("10.77.3.%d/24", i+1), "dev", "eth0")
		ip(t, "-n", ns, "link", "set", "eth0", "up")
	}
	return a, b
}

func ip(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %v: %v: %s", args, err, out)
	}
}

func TestProbes(t *testing.T) {
	a, b := pair(t)
	stop, err := Echo(a)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	vip := netip.MustParseAddr("10.77.3.1")
	c, end, err := Ask(b, vip)
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	if err := c.Answered(t.Context(), 50*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	since := time.Now() // before answers that came for sure, and after the first ones
	if err := c.Answered(t.Context(), 50*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	ip(t, "-n", a, "addr", "del", "10.77.3.1/24", "dev", "eth0")
	gone := time.Now()
	arp, err := NewARP(b)
	if err != nil {
		t.Fatal(err)
	}
	defer arp.Close()
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if from, err := arp.Await(short, vip, ""); err == nil {
		t.Errorf("an address that is gone answers from %s", from)
	}
	for end := time.Now().Add(patience); c.Lost(gone) == 0; time.Sleep(time.Millisecond) { // the client may not have been run meanwhile
		if time.Now().After(end) {
			t.Fatal("requests to an address that is gone are not lost")
		}
	}
	away := time.Since(gone)
	ip(t, "-n", a, "addr", "add", "10.77.3.1/24", "dev", "eth0")
	if from, err := arp.Await(t.Context(), vip, ""); err != nil || from != "02:00:00:00:00:01" {
		t.Errorf("from %q, %v", from, err)
	}
	if err := c.Answered(t.Context(), 50*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if worst, lost := c.Outage(since), c.Lost(gone); worst < away || lost == 0 {
		t.Errorf("outage %v, %d lost; it was away for %v", worst, lost, away)
	}
}
