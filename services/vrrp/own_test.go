package vrrp_test

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ballast/configs/model"
	"ballast/services/ipc/status"
)

// framesOf are the frames of a MAC captured so far that satisfy a filter, in hex.
func (l *lan) framesOf(mac string, ok func(f []byte) bool) (frames []string) {
	l.t.Helper()
	l.eachFrame(mac, ok, func(f []byte, _ time.Duration) { frames = append(frames, hex.EncodeToString(f)) })
	return frames
}

// eachFrame calls fn for the captured frames from a MAC, with the moment of
// each.
func (l *lan) eachFrame(mac string, ok func(f []byte) bool, fn func(f []byte, at time.Duration)) {
	l.t.Helper()
	b, err := os.ReadFile(l.pcap)
	if err != nil {
		l.t.Fatal(err)
	}
	for b = b[min(24, len(b)):]; len(b) >= 16; {
		at := time.Duration(binary.NativeEndian.Uint32(b))*time.Second + time.Duration(binary.NativeEndian.Uint32(b[4:]))*time.Microsecond
		n := int(binary.NativeEndian.Uint32(b[8:]))
		if len(b) < 16+n {
			break
		}
		f := b[16 : 16+n]
		b = b[16+n:]
		if len(f) > 54 || len(f) > 40 && f[12] == 8 {
			if (mac == "" || hex.EncodeToString(f[6:12]) == strings.ReplaceAll(mac, ":", "")) && ok(f) {
				fn(f, at)
			}
		}
	}
}

func isVRRP(f []byte) bool {
	return f[12] == 8 && f[13] == 0 && (f[23] == 112 || f[23] == 51 && f[34] == 112) || f[12] == 0x86 && f[20] == 112
}
func isARP(f []byte) bool { return f[12] == 8 && f[13] == 6 }
func isNA(f []byte) bool  { return f[12] == 0x86 && f[20] == 58 && f[54] == 136 }

// resigns tells whether a frame is an advertisement of priority 0.
func resigns(f []byte) bool {
	if !isVRRP(f) {
		return false
	}
	switch {
	case f[12] == 0x86:
		return f[56] == 0
	case f[23] == 51: // behind an authentication header
		return f[60] == 0
	}
	return f[36] == 0
}

const macA = "02:00:00:00:00:01"

func fixture(t *testing.T, name string) []string {
	t.Helper()
	b, err := os.ReadFile("packet/testdata/" + name + ".hex")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(b))
}

// TestFramesOnTheWireEqualTheCapturedOnes runs the configurations under which
// keepalived was captured, with the same MAC and addresses, and compares what
// is on the wire from the first advertisement on: headers, ids, order, bursts.
func TestFramesOnTheWireEqualTheCapturedOnes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		k    kind
		vips []string
		file string
		edit func(*model.Instance)
		n    int // advertisements to compare
	}{
		{kind{"v2_pass", 2, false, false, "1111", time.Second}, []string{"192.168.200.16", "192.168.200.17"}, "v2_pass", nil, 3},
		{kind{"v2_none", 2, false, false, "", time.Second}, []string{"192.168.200.16"}, "v2_none", nil, 3},
		{kind{"v3_ipv4", 3, false, false, "", 500 * time.Millisecond}, []string{"192.168.200.16", "192.168.200.17"}, "v3_ipv4", nil, 4},
		{kind{"v3_ipv4_unicast", 3, false, true, "", time.Second}, []string{"192.168.200.16"}, "v3_ipv4_unicast", func(c *model.Instance) {
			c.Peers = append(c.Peers, model.Peer{Addr: netip.MustParseAddr("192.168.200.3"), MinTTL: -1, MaxTTL: -1})
		}, 4},
		{kind{"v3_ipv6", 3, true, false, "", time.Second}, []string{"fe80::51", "fd00::100"}, "v3_ipv6", nil, 3},
		{kind{"v3_ipv6_unicast", 3, true, true, "", time.Second}, []string{"fd00::100"}, "v3_ipv6_unicast", nil, 3},
	} {
		t.Run(c.file, func(t *testing.T) {
			t.Parallel()
			l := newLAN(t)
			l.host("a", 1)
			l.host("b", 2)
			l.host("c", 3)
			if c.k.unicast { // so that no neighbour is to be asked for first
				for _, n := range []int{2, 3} {
					l.run("a", fmt.Sprintf("ip neigh replace %s lladdr 02:00:00:00:00:%02x dev eth0", c.k.addr(n), n))
				}
			}
			l.capture()
			i := c.k.instance(1, 100)
			i.VIPs = i.VIPs[:0]
			for _, v := range c.vips {
				a := netip.MustParseAddr(v)
				i.VIPs = append(i.VIPs, model.Address{Prefix: netip.PrefixFrom(a, a.BitLen())})
			}
			if c.edit != nil {
				c.edit(&i)
			}
			d := l.director("a", config(i))
			d.start()
			d.awaitState(c.k.down(), status.VRRPMaster)
			last := max(len(i.Peers), 1)
			l.until(c.k.down(), "enough advertisements", func() bool { return len(l.framesOf(macA, isVRRP)) >= c.n })
			d.kill(syscall.SIGTERM)
			l.until(c.k.down(), "the resignation", func() bool { return len(l.framesOf(macA, resigns)) >= last })
			l.stopCapture()

			want := fixture(t, c.file)
			got := l.framesOf(macA, isVRRP)
			if len(got) < c.n+last {
				t.Fatalf("%d frames", len(got))
			}
			for n := range c.n {
				if d := cmp.Diff(comparable(t, want[n]), comparable(t, got[n])); d != "" {
					t.Errorf("advertisement %d (-captured +ours):\n%s", n, d)
				}
			}
			if c.file != "v2_pass" { // whose capture ends before the resignation
				for n := 1; n <= last; n++ {
					w, g := want[len(want)-n], got[len(got)-n]
					if d := cmp.Diff(payload(t, w), payload(t, g)); d != "" {
						t.Errorf("resignation (-captured +ours):\n%s", d)
					}
				}
			}
			switch c.file {
			case "v2_pass":
				arp := l.framesOf(macA, isARP)
				if d := cmp.Diff(fixture(t, "garp")[:10], arp[:min(10, len(arp))]); d != "" {
					t.Errorf("gratuitous ARP (-captured +ours):\n%s", d)
				}
			case "v3_ipv6":
				na := l.framesOf(macA, isNA)
				if d := cmp.Diff(fixture(t, "na"), na[:min(2, len(na))]); d != "" {
					t.Errorf("neighbour advertisements (-captured +ours):\n%s", d)
				}
			}
		})
	}
}

// comparable blanks the flow label, which the kernel draws at random.
func comparable(t *testing.T, frame string) string {
	t.Helper()
	b, err := hex.DecodeString(frame)
	if err != nil || len(b) < 18 {
		t.Fatalf("frame %q: %v", frame, err)
	}
	if b[12] == 0x86 {
		b[15] &= 0xf0
		b[16], b[17] = 0, 0
	}
	return hex.EncodeToString(b)
}

// payload is the VRRP message of a frame.
func payload(t *testing.T, frame string) string {
	t.Helper()
	if len(frame) < 84 {
		t.Fatalf("frame %q", frame)
	}
	if frame[24:28] == "86dd" {
		return frame[108:]
	}
	return frame[68:]
}

// TestKillAndRestartKeepsTheAddresses: after kill -9 the virtual addresses
// stay, the next process advertises again inside the master-down interval, and
// the peer never takes over.
func TestKillAndRestartKeepsTheAddresses(t *testing.T) {
	t.Parallel()
	k := kind{"", 3, false, false, "", time.Second}
	l := newLAN(t)
	l.host("a", 1)
	l.host("b", 2)
	a, b := l.director("a", config(k.instance(1, 100))), l.director("b", config(k.instance(2, 100)))
	a.start()
	a.awaitState(k.down(), status.VRRPMaster)
	b.start()
	b.await(k.down(), "b hears a", func(v status.VRRP) bool {
		return len(v.Instances) == 1 && v.Instances[0].State == status.VRRPBackup && v.Instances[0].MasterPriority == 100
	})
	before := l.run("a", "ip -o addr show dev eth0")
	watch := l.watchAddrs("a")
	a.kill(syscall.SIGKILL)
	if !l.has("a", k.vips()[0]) {
		t.Error("the virtual address went away with the process")
	}
	a.start()
	i := a.awaitState(k.down(), status.VRRPMaster)
	if !strings.Contains(i.Reason, "still in place") {
		t.Errorf("reason %q", i.Reason)
	}
	got := b.await(k.down()+6*time.Second, "b hears a again", func(v status.VRRP) bool {
		return v.Instances[0].LastAdvert.After(i.Since.Add(k.adv))
	})
	if n := got.Instances[0].Stats.BecomeMaster; n != 0 {
		t.Errorf("b became master %d times: %+v", n, got.Transitions)
	}
	if ev := watch(); strings.Contains(ev, "Deleted") {
		t.Errorf("addresses were removed:\n%s", ev)
	}
	if after := l.run("a", "ip -o addr show dev eth0"); after != before {
		t.Errorf("addresses changed:\n%s\n%s", before, after)
	}
	// The memory of a process that only does VRRP.
	t.Logf("RSS of the test binary as director:\n%s", rss(a))

	// A configuration without the instance, and a crash: the leftovers go.
	a.kill(syscall.SIGKILL)
	a.commit(model.Config{})
	a.start()
	l.until(k.down(), "addresses of no instance go", func() bool { return !l.has("a", k.vips()[0]) })
	b.awaitState(k.down(), status.VRRPMaster)
}

func rss(d *director) string {
	out, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	var keep []string
	for _, line := range strings.Split(string(out), "\n") {
		if strings.HasPrefix(line, "VmRSS") || strings.HasPrefix(line, "Rss") || strings.HasPrefix(line, "Name") {
			keep = append(keep, line)
		}
	}
	return strings.Join(keep, "\n")
}
