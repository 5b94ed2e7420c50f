package boot

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"ballast/board"
)

const port = "/sys/devices/pci0000:00/0000:00:0"

func TestPlan(t *testing.T) {
	apu := board.APU2.NICs
	three := []nic{{"eth0", 2, port + "2.2/0000:01:00.0"}, {"eth1", 3, port + "2.3/0000:02:00.0"}, {"eth2", 4, port + "2.4/0000:03:00.0"}}
	tests := []struct {
		name    string
		have    []nic
		others  []string
		rules   []board.NIC
		want    map[string]string // device -> name
		missing []string
	}{
		{"as the board has them", three, []string{"lo"}, apu,
			map[string]string{three[0].device: "eth0", three[1].device: "eth1", three[2].device: "eth2"}, nil},
		{"a card with two ports in the slot that comes first", []nic{
			{"eth0", 2, port + "2.1/0000:01:00.0"}, {"eth1", 3, port + "2.1/0000:01:00.1"},
			{"eth2", 4, port + "2.2/0000:02:00.0"}, {"eth3", 5, port + "2.3/0000:03:00.0"}, {"eth4", 6, port + "2.4/0000:04:00.0"},
		}, []string{"lo"}, apu, map[string]string{
			port + "2.1/0000:01:00.0": "eth3", port + "2.1/0000:01:00.1": "eth4",
			port + "2.2/0000:02:00.0": "eth0", port + "2.3/0000:03:00.0": "eth1", port + "2.4/0000:04:00.0": "eth2",
		}, nil},
		{"one is dead", slices.Delete(slices.Clone(three), 1, 2), nil, apu,
			map[string]string{three[0].device: "eth0", three[2].device: "eth2"}, []string{"eth1"}},
		{"one is dead, and another card has its name", []nic{
			{"eth0", 2, port + "2.2/0000:01:00.0"}, {"eth1", 3, port + "2.4/0000:02:00.0"}, {"eth2", 4, port + "2.5/0000:03:00.0"},
		}, nil, apu, map[string]string{port + "2.2/0000:01:00.0": "eth0", port + "2.4/0000:02:00.0": "eth2", port + "2.5/0000:03:00.0": "eth3"}, []string{"eth1"}},
		{"in a circle", three, nil, []board.NIC{{Path: "0000:01:00.0", Name: "eth1"}, {Path: "0000:02:00.0", Name: "eth2"}, {Path: "0000:03:00.0", Name: "eth0"}},
			map[string]string{three[0].device: "eth1", three[1].device: "eth2", three[2].device: "eth0"}, nil},
		{"a tunnel has the name", three[:1], []string{"eth1", "aside0"}, []board.NIC{{Path: "0000:01:00.0", Name: "wan"}},
			map[string]string{three[0].device: "wan"}, nil},
		{"both ports of a card fit", []nic{{"eth0", 2, port + "2.2/0000:01:00.0"}, {"eth1", 3, port + "2.2/0000:01:00.1"}}, nil, apu[:1],
			map[string]string{port + "2.2/0000:01:00.0": "eth0", port + "2.2/0000:01:00.1": "eth1"}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			steps, missing := plan(tt.have, tt.others, tt.rules)
			if d := cmp.Diff(tt.missing, missing); d != "" {
				t.Errorf("missing (-want +got):\n%s", d)
			}
			if d := cmp.Diff(tt.want, replay(t, tt.have, tt.others, steps)); d != "" {
				t.Errorf("names (-want +got):\n%s", d)
			}
		})
	}
}

// replay does the steps as the kernel does, which refuses a name that is taken.
func replay(t *testing.T, have []nic, others []string, steps []rename) map[string]string {
	t.Helper()
	names := map[int]string{}
	for _, n := range have {
		names[n.index] = n.name
	}
	for _, s := range steps {
		if names[s.index] != s.from {
			t.Fatalf("%v: it is %s", s, names[s.index])
		}
		if slices.Contains(others, s.to) {
			t.Fatalf("%v: taken", s)
		}
		for i, n := range names {
			if n == s.to {
				t.Fatalf("%v: %d has that name", s, i)
			}
		}
		names[s.index] = s.to
	}
	out := map[string]string{}
	for _, n := range have {
		out[n.device] = names[n.index]
	}
	return out
}

// Whatever the kernel called them, each gets its name, and nobody's is taken.
func TestPlanAnyOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		n, k := 1+r.IntN(6), r.IntN(5)
		var have []nic
		for i, p := range r.Perm(n) {
			have = append(have, nic{fmt.Sprintf("eth%d", p), i + 2, fmt.Sprintf("%s2.%d/x", port, i)})
		}
		var rules []board.NIC
		for i, p := range r.Perm(6)[:k] {
			rules = append(rules, board.NIC{Path: fmt.Sprintf("0000:00:02.%d/x", p), Name: fmt.Sprintf("eth%d", i)})
		}
		steps, _ := plan(have, []string{"lo"}, rules)
		got := replay(t, have, []string{"lo"}, steps)
		for _, rule := range rules {
			if name, ok := got["/sys/devices/pci0000:00/"+rule.Path]; ok && name != rule.Name {
				t.Fatalf("%v %v: %v, want %s", have, rules, got, rule.Name)
			}
		}
		for _, name := range got {
			if strings.HasPrefix(name, "aside") {
				t.Fatalf("%v %v: %v", have, rules, got)
			}
		}
		if again, _ := plan(after(have, got), []string{"lo"}, rules); len(again) > 0 {
			t.Fatalf("%v %v: a second pass does %v", have, rules, again)
		}
	}
}

func after(have []nic, names map[string]string) []nic {
	out := slices.Clone(have)
	for i := range out {
		out[i].name = names[out[i].device]
	}
	return out
}

func TestFits(t *testing.T) {
	for _, tt := range []struct {
		pattern, device string
		want            bool
	}{
		{"0000:00:02.2/*", port + "2.2/0000:01:00.0", true},
		{"0000:00:02.2/*", port + "2.3/0000:01:00.0", false},
		{"0000:00:02.2/*", port + "2.2", false},
		{"0000:00:02.2/*", port + "2.2/0000:01:00.0/0000:02:00.0", false},
		{"0000:0?:00.0/virtio[0-9]", "/sys/devices/pci0000:00/0000:01:00.0/virtio3", true},
		{"a/b/c", "/b/c", false},
		{"usb1/1-1/1-1:1.0", port + "/usb1/1-1/1-1:1.0", true},
	} {
		if got := fits(tt.pattern, tt.device); got != tt.want {
			t.Errorf("%s fits %s: %v", tt.pattern, tt.device, got)
		}
	}
}

// What is read of a tree like /sys: what has no device is not a NIC.
func TestReadNICs(t *testing.T) {
	root := t.TempDir()
	for name, device := range map[string]string{"eth1": "pci0/0000:00:03.0", "eth0": "pci0/0000:00:04.0", "lo": ""} {
		dir := filepath.Join(root, "net", name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		os.WriteFile(filepath.Join(dir, "ifindex"), []byte("7\n"), 0o644)
		if device == "" {
			continue
		}
		dev := filepath.Join(root, "devices", device)
		if err := os.MkdirAll(dev, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(dev, filepath.Join(dir, "device")); err != nil {
			t.Fatal(err)
		}
	}
	have, others, err := readNICs(filepath.Join(root, "net"))
	if err != nil || !slices.Equal(others, []string{"lo"}) {
		t.Fatal(others, err)
	}
	if len(have) != 2 || have[0].name != "eth1" || have[1].name != "eth0" || have[0].index != 7 || !fits("0000:00:03.0", have[0].device) {
		t.Errorf("%+v", have)
	}
}

// The kernel does what was planned: three names go round, one of an interface
// that is up.
func TestRenameLinks(t *testing.T) {
	runtime.LockOSThread() // the thread ends with the test, and its namespace with it
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	var have []nic
	for i, name := range []string{"eth0", "eth1", "eth2"} {
		v := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: fmt.Sprintf("peer%d", i)}
		if err := netlink.LinkAdd(v); err != nil {
			t.Fatal(err)
		}
		l, err := netlink.LinkByName(name)
		if err != nil {
			t.Fatal(err)
		}
		have = append(have, nic{name, l.Attrs().Index, fmt.Sprintf("%s2.%d/0000:01:00.0", port, 2+i)})
	}
	if l, err := netlink.LinkByName("eth2"); err != nil || netlink.LinkSetUp(l) != nil {
		t.Fatal(err)
	}
	rules := []board.NIC{{Path: "0000:00:02.2/*", Name: "eth1"}, {Path: "0000:00:02.3/*", Name: "eth2"}, {Path: "0000:00:02.4/*", Name: "eth0"}}
	steps, _ := plan(have, []string{"lo", "peer0", "peer1", "peer2"}, rules)
	for _, s := range steps {
		if err := renameLink(s); err != nil {
			t.Fatal(err)
		}
	}
	for i, want := range []string{"eth1", "eth2", "eth0"} {
		if l, err := net.InterfaceByIndex(have[i].index); err != nil || l.Name != want {
			t.Errorf("%+v, %v: want %s", l, err, want)
		}
	}
	err = renameLink(rename{have[0].index, "eth1", "eth0"})
	if err == nil || !strings.Contains(err.Error(), "rename eth1 to eth0") {
		t.Errorf("a name that is taken: %v", err)
	}
}
