package firmware

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"ballast/board"
	"ballast/image/bootenv"
	"ballast/image/disk"
	"ballast/image/layout"
	"ballast/test/firmware/machine"
	"ballast/test/lab/vm"
)

// fw is the firmware of all tests, and base a disk with it in slot A that was
// never booted. plain is it without a first configuration.
var (
	fw, plain *machine.Firmware
	base      string
)

const diskSize = 512 << 20

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "ballast-firmware-")
	if err == nil {
		fw, err = machine.Build(context.Background(), "../..", dir, board.QEMU, os.Stdout)
	}
	if err == nil {
		plain = fw
		if fw, err = fw.WithSeed("box", ""); err == nil {
			base = filepath.Join(dir, "base.img")
			err = fw.Disk(context.Background(), base, diskSize, disk.Options{})
		}
	}
	code := 1
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	} else {
		code = m.Run()
	}
	os.RemoveAll(dir)
	os.Exit(code)
}

// figures waits until a box is ready and logs how long its boot took.
func figures(t *testing.T, m *machine.Machine, what string) {
	t.Helper()
	ready := m.Expect(machine.Slow, "ready: ")
	m.Expect(machine.Slow, "s after the kernel started") // the rest of that line
	s := m.Since(0)
	kernel := regexp.MustCompile(`init is up ([0-9.]+) s after the kernel started`).FindStringSubmatch(s)
	after := regexp.MustCompile(`ready: \d+ services, ([0-9.]+) s after the kernel started`).FindStringSubmatch(s)
	if kernel == nil || after == nil {
		t.Fatalf("the console tells no times")
	}
	var pid1, all float64
	fmt.Sscan(kernel[1], &pid1)
	fmt.Sscan(after[1], &all)
	before := ready.Seconds() - all // firmware and boot loader
	t.Logf("%s: power on to kernel %.1f s, to PID 1 %.1f s, to ready %.1f s", what, before, before+pid1, ready.Seconds())
}

// leastMemory is what docs/boards.md says that a box needs, in MiB.
const leastMemory = 256

// A disk boots on every kind of machine, behind every kind of bus, and tells the
// firmware from where.
func TestBoot(t *testing.T) {
	machine.Lab(t)
	for _, tt := range []struct {
		name   string
		uefi   bool
		bus    vm.Bus
		memory int
	}{
		{"BIOS virtio", false, vm.Virtio, 0}, {"UEFI virtio", true, vm.Virtio, 0},
		{"BIOS AHCI", false, vm.AHCI, leastMemory}, {"UEFI NVMe", true, vm.NVMe, leastMemory}, {"BIOS USB", false, vm.USB, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m := machine.New(t, machine.Config{Disk: base, UEFI: tt.uefi, Bus: tt.bus, SSH: fw.SSH, Memory: tt.memory})
			m.PowerOn()
			// PID 1 has the slot from the boot loader, and finds the disk by its partition.
			m.Expect(machine.Slow, tell(layout.A), "boot disk: /dev/", "slot A;")
			figures(t, m, tt.name)
		})
	}
}

// tell is where a boot loader says what it starts.
func tell(slot layout.Slot) string { return "from slot " + string(slot) }

// bootMenu has the boot loader, which starts, show its menu. It waits 2 s for Esc: a
// machine that stood still for as long is started anew.
func bootMenu(t *testing.T, m *machine.Machine) {
	t.Helper()
	const menu = "Press a number"
	for range 3 {
		m.Expect(machine.Slow, loaderWords)
		m.Type("\x1b")
		if m.Which(machine.Slow, menu, "Starting Ballast", "holds no firmware") == menu {
			return
		}
		m.Reset()
	}
	t.Fatal("the boot loader takes no Esc")
}

// Whatever is wrong with one slot or with the state, the box comes up.
func TestFallback(t *testing.T) {
	machine.Lab(t)
	both := filepath.Join(t.TempDir(), "both.img")
	if err := fw.Disk(t.Context(), both, diskSize, disk.Options{Both: true}); err != nil {
		t.Fatal(err)
	}
	up := "init is up"
	t.Run("slot A zeroed, state damaged, BIOS", func(t *testing.T) {
		t.Parallel()
		m := machine.New(t, machine.Config{Disk: both})
		m.Ruin(layout.NumberSlotA, 1<<20)
		m.Ruin(layout.NumberESP, 1<<20)
		m.PowerOn()
		m.Expect(machine.Slow, "Slot A holds no firmware", tell(layout.B), up)
	})
	t.Run("trial of a firmware that cannot be started, UEFI", func(t *testing.T) {
		t.Parallel()
		m := machine.New(t, machine.Config{Disk: both, UEFI: true})
		m.SetEnv(bootenv.Default.Trial(layout.B))
		d, done := m.Partition(layout.NumberSlotB)
		// What is behind the boot sector and the tables: fw.efi's first bytes.
		s, err := disk.ReadSlot(d)
		if err != nil {
			t.Fatal(err)
		}
		f, err := s.Open(layout.FirmwareFile)
		if err != nil {
			t.Fatal(err)
		}
		at, err := f.Offset()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.WriteAt(make([]byte, 4096), at); err != nil {
			t.Fatal(err)
		}
		done()
		m.PowerOn()
		m.Expect(machine.Slow, tell(layout.B), "ballast.trial=1", "Slot B cannot be started", tell(layout.A), up)
		m.PowerCord()
		if got, want := m.Env(), (bootenv.Env{Good: layout.A, Try: layout.B, Left: 1}); got != want {
			t.Errorf("state %+v, want %+v", got, want)
		}
	})
	t.Run("trial that is cut off twice, BIOS", func(t *testing.T) {
		t.Parallel()
		m := machine.New(t, machine.Config{Disk: both})
		m.SetEnv(bootenv.Default.Trial(layout.B))
		m.PowerOn()
		m.Expect(machine.Slow, tell(layout.B))
		m.PowerCord()
		m.PowerOn()
		m.Expect(machine.Slow, tell(layout.B))
		m.Reset()
		m.Expect(machine.Slow, tell(layout.A), up)
		m.PowerCord()
		if got, want := m.Env(), (bootenv.Env{Good: layout.A, Try: layout.B}); got != want {
			t.Errorf("state %+v, want %+v", got, want)
		}
	})
	t.Run("trial on a disk that cannot be written, BIOS", func(t *testing.T) {
		t.Parallel()
		d := machine.New(t, machine.Config{Disk: both})
		d.SetEnv(bootenv.Default.Trial(layout.B))
		m := machine.New(t, machine.Config{More: []vm.Disk{{File: d.Disk, Serial: "system", BootIndex: 1, Cache: "unsafe,readonly=on"}}})
		m.PowerOn()
		m.Expect(machine.Slow, "The state of the boot loader cannot be written: no trial of slot B", tell(layout.A), up)
	})
	t.Run("neither slot, menu", func(t *testing.T) {
		t.Parallel()
		m := machine.New(t, machine.Config{Disk: both})
		m.Ruin(layout.NumberSlotA, 1<<20)
		m.Ruin(layout.NumberSlotB, 1<<20)
		m.PowerOn()
		bootMenu(t, m)
		menu := m.Expect(machine.Slow, "Factory reset", "Without the data disk")
		// Neither GRUB's own command line nor an arrow opens anything, and the box does
		// not wait for whoever pressed it.
		m.Type("c\r\x1b[B")
		if d := m.Expect(2*machine.Slow, "Neither slot of this disk holds a firmware") - menu; d < 50*time.Second {
			t.Errorf("it went on after %v, which was no minute", d)
		}
		if s := m.Since(0); strings.Contains(s, "grub>") || strings.Contains(s, "username") {
			t.Error("GRUB asks")
		}
	})
	t.Run("neither slot but a stick", func(t *testing.T) {
		t.Parallel()
		stick := filepath.Join(t.TempDir(), "stick") // the name of this test has no comma, which QEMU would take for its own
		if err := machine.Copy(stick, base, 0); err != nil {
			t.Fatal(err)
		}
		m := machine.New(t, machine.Config{Disk: both, More: []vm.Disk{{File: stick, Serial: "stick", Cache: "unsafe"}}})
		m.Ruin(layout.NumberSlotA, 1<<20)
		m.Ruin(layout.NumberSlotB, 1<<20)
		m.PowerOn()
		m.Expect(machine.Slow, tell(layout.A), up, "boot disk: /dev/vdb")
	})
}
