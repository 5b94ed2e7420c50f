package firmware

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"ballast/image/archive"
	"ballast/image/disk"
	"ballast/image/layout"
	"ballast/test/firmware/machine"
)

// The first boot makes the data partition on whatever room the disk has, a power
// cut during that does no harm, and a larger disk is filled. Lost data is told of,
// and the box is itself again.
func TestDataPartition(t *testing.T) {
	machine.Lab(t)
	m := machine.New(t, machine.Config{Disk: base, Size: 1 << 30, SSH: fw.SSH})
	for _, cut := range []string{"modules: ", "boot disk: ", "data: "} {
		m.PowerOn()
		m.Expect(machine.Slow, cut)
		m.PowerCord()
	}
	m.PowerOn()
	m.Expect(machine.Slow, "boot disk: /dev/vda, slot A", "data: /dev/vda5, ", "ready: ")
	m.Await(machine.Slow, "show version", "Ballast")
	m.Await(machine.Slow, "show log init", "spare copy of the identity: that of generation 1 is kept")
	m.Off()

	if err := os.Truncate(m.Disk, 2<<30); err != nil {
		t.Fatal(err)
	}
	m.PowerOn()
	m.Expect(machine.Slow, "slot A; partition 5 of /dev/vda, data: 1813 MiB", "data: /dev/vda5, 1813 MiB, grown", "last start: power off, asked by power button", "identity: on the data disk", "ready: ")
	m.PowerCord()
	if out, err := exec.Command("sgdisk", "-v", m.Disk).CombinedOutput(); err != nil || !strings.Contains(string(out), "No problems found") {
		t.Errorf("%v: %s", err, out)
	}

	m.Ruin(layout.NumberData, 200<<20)
	m.PowerOn()
	m.Expect(machine.Slow, "data: /dev/vda5, new", "identity: box is itself again by the second place: name, addresses, users and keys; the rest of the configuration is gone", "host name: box", "ready: ")
	// Lines are folded.
	m.Await(machine.Slow, "show status", `the data disk was empty;\s+box\s+is\s+itself\s+again`)
}

// What a kernel says that panics on a machine with EFI is in the firmware's
// variables, and outlives the power.
func TestCrashEFI(t *testing.T) {
	machine.Lab(t)
	dir := t.TempDir()
	exe := filepath.Join(dir, "sabotage")
	cmd := exec.Command("go", "build", "-o", exe, "ballast/test/boot/sabotage")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	b, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	a := archive.New()
	a.File("sabotage", b, 0o755)
	bad, err := fw.With("", 0, a)
	if err != nil {
		t.Fatal(err)
	}
	bad.CmdLine += " rdinit=/sabotage"
	img := filepath.Join(dir, "disk")
	if err := bad.Disk(t.Context(), img, diskSize, disk.Options{}); err != nil {
		t.Fatal(err)
	}
	port := filepath.Join(dir, "port")
	m := machine.New(t, machine.Config{Disk: img, UEFI: true, SSH: fw.SSH, Extra: []string{
		"-device", "virtio-serial-pci", "-chardev", "socket,id=port,server=on,wait=off,path=" + port, "-device", "virtserialport,chardev=port,name=sabotage"}})
	m.PowerOn()
	m.Expect(machine.Slow, "crash records: efi_pstore", "ready: ")
	c, err := net.Dial("unix", port)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("panic\n")); err != nil {
		t.Fatal(err)
	}
	m.Expect(machine.Slow, "crash records: efi_pstore", "last start: kernel panic: sysrq triggered crash", "ready: ")
	got := m.Await(machine.Slow, "show crash 1", "(?s)Kind +panic.*sysrq: Trigger a crash.*Call Trace")
	if n := strings.Count(got, "--- kernel, panic"); n != 1 {
		t.Errorf("%d texts of the kernel: %s", n, got)
	}
	m.Ask("factory-reset")
	m.Expect(machine.Slow, "for a factory reset", "factory reset: factory reset, asked by admin@", "last start: factory reset, asked by admin@", "ready: ")
	m.PowerCord()
}

// The boot menu wipes the data once; both slots stay.
func TestFactoryMenu(t *testing.T) {
	machine.Lab(t)
	m := machine.New(t, machine.Config{Disk: base, SSH: fw.SSH})
	m.PowerOn()
	m.Expect(machine.Slow, "ready: ")
	m.Await(machine.Slow, "show log init", "spare copy of the identity: that of generation 1 is kept")
	m.Reset()
	bootMenu(t, m)
	m.Expect(machine.Slow, "Without the data disk")
	m.Type("3")
	m.Expect(machine.Slow, "Press y")
	m.Type("y")
	m.Expect(machine.Slow, "ballast.factory=1")
	m.Expect(machine.Slow, "factory reset: factory reset, asked by the boot menu: /dev/vda5 ", "identity: new", "seed: found", "ready: ")
	m.Reset()
	m.Expect(machine.Slow, "factory reset: not asked for", "identity: on the data disk", "ready: ")
}
