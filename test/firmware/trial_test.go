package firmware

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ballast/image/archive"
	"ballast/image/bootenv"
	"ballast/image/layout"
	"ballast/services/ipc/status"
	"ballast/test/firmware/machine"
)

// bad is a firmware that must not stay.
type bad struct {
	name    string
	make    func(t *testing.T) *machine.Firmware
	says    []string // on the console, in this order, before the old one is back
	verdict string
	reason  string
	uefi    bool // on a machine with UEFI too
}

// variant is a newer firmware with other files and arguments.
func variant(t *testing.T, more *archive.Archive, words string) *machine.Firmware {
	t.Helper()
	f, err := fw.With("bad", fw.ID.Build+60, more)
	if err != nil {
		t.Fatal(err)
	}
	f.CmdLine += words
	return f
}

var bads = []bad{
	{
		name: "kernel that panics",
		make: func(t *testing.T) *machine.Firmware {
			return variant(t, nil, " rdinit=/nowhere root=/dev/none panic=1")
		},
		says: []string{tell(layout.B), "Kernel panic", tell(layout.B), "Kernel panic"}, verdict: status.VerdictFailed, reason: "2 starts of it ended", uefi: true,
	},
	{
		name: "init that hangs as a whole: the watchdog",
		make: func(t *testing.T) *machine.Firmware {
			exe := filepath.Join(t.TempDir(), "hang")
			cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", exe, "./hang")
			cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			b, err := os.ReadFile(exe)
			if err != nil {
				t.Fatal(err)
			}
			a := archive.New()
			a.File("hang", b, 0o755)
			return variant(t, a, " rdinit=/hang")
		},
		says: []string{tell(layout.B), "and now it hangs", tell(layout.B), "and now it hangs"}, verdict: status.VerdictFailed, reason: "2 starts of it ended", uefi: true,
	},
	{
		name: "init that hangs in the middle of the boot: its own limit",
		make: func(t *testing.T) *machine.Firmware {
			f := variant(t, nil, fmt.Sprintf(" %s=30", layout.WordLimit))
			a := archive.New() // behind the one with the identity, which init reads before it starts the services
			a.Symlink(strings.TrimPrefix(layout.IdentityFile, "/"), "/dev/console")
			b, err := a.Bytes()
			if err != nil {
				t.Fatal(err)
			}
			f.Initramfs = append(f.Initramfs, b...)
			return f
		},
		says: []string{tell(layout.B), "not confirmed 30s after its kernel started, ended by init"}, verdict: status.VerdictRejected, reason: "ended by init",
	},
	{
		name: "service that never becomes ready",
		make: func(t *testing.T) *machine.Firmware {
			a := archive.New()
			a.File("lib/modules/"+fw.ID.Kernel+"/kernel/net/netfilter/ipvs/ip_vs.ko.xz", []byte("no module"), 0o644)
			return variant(t, a, fmt.Sprintf(" %s=80", layout.WordLimit))
		},
		says: []string{tell(layout.B), "reboot"}, verdict: status.VerdictRejected, reason: "ipvs",
	},
}

// Whatever is wrong with a firmware, the old one is back without hands, and tells
// why.
func TestTrialFails(t *testing.T) {
	machine.Lab(t)
	// One box loads them all, each with the record of its upgrade.
	m := machine.New(t, machine.Config{Disk: base, SSH: fw.SSH, Name: "loader"})
	m.PowerOn()
	m.Expect(machine.Slow, "ready: ")
	disks := map[string]string{}
	for _, b := range bads {
		if out, err := upgrade(t, m, bundleOf(t, b.make(t)), "noreboot"); err != nil {
			t.Fatalf("%s: %v: %s", b.name, err, out)
		}
		if err := m.VM().Pause(t.Context()); err != nil {
			t.Fatal(err)
		}
		disks[b.name] = filepath.Join(m.Dir, fmt.Sprintf("bad%d.img", len(disks)))
		if err := machine.Copy(disks[b.name], m.Disk, 0); err != nil {
			t.Fatal(err)
		}
		if err := m.VM().Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	st := state(t, m)
	if e := st.History[0]; e.Verdict != status.VerdictRejected || !strings.Contains(e.Reason, "another") {
		t.Errorf("one that was replaced before it was started: %+v", e)
	}
	m.PowerCord()
	back := func(b bad, uefi bool) func(*testing.T) {
		return func(t *testing.T) {
			t.Parallel()
			m := machine.New(t, machine.Config{Disk: disks[b.name], UEFI: uefi, SSH: fw.SSH})
			m.PowerOn()
			m.Expect(3*machine.Slow, append(slices.Clone(b.says), tell(layout.A), "ready: ")...)
			e := decided(t, m, b.verdict)
			if e.To.Version != "bad" || e.By != "admin@10.0.2.2" || !strings.Contains(e.Reason, b.reason) {
				t.Errorf("%+v", e)
			}
			t.Logf("%v after power on: %s", m.Expect(0), e.Reason)
			if st := state(t, m); st.Slot != "A" || st.Next != "A" || !strings.Contains(st.Notice, e.Reason) {
				t.Errorf("%+v", st)
			}
			m.PowerCord()
			if got := m.Env(); got != bootenv.Default {
				t.Errorf("the boot loader is told %+v", got)
			}
		}
	}
	t.Run("all", func(t *testing.T) {
		for _, b := range bads {
			t.Run("BIOS, "+b.name, back(b, false))
			if b.uefi {
				t.Run("UEFI, "+b.name, back(b, true))
			}
		}
	})
}
