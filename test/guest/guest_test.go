package guest

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

func TestRunTest(t *testing.T) {
	if Inside() {
		t.Skip("this test starts the virtual machine")
	}
	if testing.Short() {
		t.Skip("a virtual machine takes too long for -short")
	}
	for name, test := range map[string]struct {
		run  string
		code int
		want string
	}{
		"pass": {"^TestInside$", 0, "PASS"},
		"fail": {"^TestInsideFails$", 1, "as it should"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			code, err := Exec(t.Context(), Options{
				Package: "./test/guest", Args: []string{"-test.run", test.run, "-test.v"}, Output: &out,
				Binaries: []string{"ls"},
			})
			if err != nil {
				t.Fatal(err)
			}
			if code != test.code || !strings.Contains(out.String(), test.want) {
				t.Errorf("exit status %d, want %d, with %q in:\n%s", code, test.code, test.want, out.String())
			}
		})
	}
}

// TestInside checks, inside, what tests of services rely on.
func TestInside(t *testing.T) {
	if !Inside() {
		t.Skip("runs in the virtual machine, started by TestRunTest")
	}
	if os.Getpid() == 1 || os.Geteuid() != 0 {
		t.Errorf("pid %d, uid %d: want a child of init, as root", os.Getpid(), os.Geteuid())
	}
	for _, l := range []netlink.Link{ // each makes the kernel ask modprobe for a module
		&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: "d0"}},
		&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "v0"}, PeerName: "v1"},
		&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}},
	} {
		if err := netlink.LinkAdd(l); err != nil {
			t.Errorf("add %s: %v", l.Attrs().Name, err)
		}
	}
	if f, err := netlink.GenlFamilyGet("IPVS"); err != nil {
		t.Errorf("IPVS: %v", err)
	} else if f.ID == 0 {
		t.Error("IPVS has no id")
	}
	if out, err := exec.Command("ls", "/sys/class/net").CombinedOutput(); err != nil || !strings.Contains(string(out), "d0") {
		t.Errorf("a program of the host: %v: %s", err, out)
	}
	if _, err := os.Stat("guest_test.go"); err == nil {
		t.Error("the sources are here: this is not the virtual machine")
	}
}

// TestInsideFails fails inside, so that TestRunTest can see that it is told.
func TestInsideFails(t *testing.T) {
	if !Inside() {
		t.Skip("runs in the virtual machine, started by TestRunTest")
	}
	t.Fatal("as it should")
}
