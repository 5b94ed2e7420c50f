package firmware

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ballast/image/bootenv"
	"ballast/image/bundle"
	"ballast/image/disk"
	"ballast/image/layout"
	"ballast/image/secureboot"
	"ballast/test/firmware/machine"
	"ballast/test/lab/vm"
)

// A machine that trusts its owner's key only: what that key signed boots, a slot
// that it did not sign is passed over for the other one, an upgrade is on trial
// although the boot loader may not tell the kernel so; and with a boot loader that
// nobody, or somebody else, signed nothing starts.
func TestSecureBoot(t *testing.T) {
	machine.Lab(t)
	dir := t.TempDir()
	owner := func(name string) (string, secureboot.Signer) {
		keys := filepath.Join(dir, name)
		if err := secureboot.MakeKeys(keys, time.Now()); err != nil {
			t.Fatal(err)
		}
		s, err := secureboot.Load(keys)
		if err != nil {
			t.Fatal(err)
		}
		return keys, s
	}
	keys, signer := owner("owner")
	_, stranger := owner("stranger")
	vars := filepath.Join(dir, "vars")
	if err := machine.EnrolledVars(vars, keys); err != nil {
		t.Fatal(err)
	}
	boot := func(name string) *machine.Machine {
		return machine.New(t, machine.Config{Name: name, Disk: filepath.Join(dir, name), UEFI: true, Vars: vars, Firmware: &vm.UEFI{Code: vm.OVMFSecureCode, Secure: true}, SSH: fw.SSH})
	}
	write := func(name string, parts []bundle.File) {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := f.Truncate(diskSize); err != nil {
			t.Fatal(err)
		}
		if err := disk.Write(f, disk.FromFiles(parts...), disk.Options{}); err != nil {
			t.Fatal(err)
		}
	}
	signed := *fw
	signed.Sign = &signer
	if err := signed.Disk(t.Context(), filepath.Join(dir, "signed"), diskSize, disk.Options{}); err != nil {
		t.Fatal(err)
	}
	slot := func(m *machine.Machine, f *machine.Firmware) {
		parts, err := f.Parts(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		d, closeDisk := m.Partition(layout.NumberSlotB)
		defer closeDisk()
		if err := disk.WriteSlot(d, disk.FromFiles(parts...), disk.Options{}); err != nil {
			t.Fatal(err)
		}
		m.SetEnv(bootenv.Default.Trial(layout.B))
	}

	m := boot("signed")
	evil, err := fw.With("evil", fw.ID.Build+60, nil)
	if err != nil {
		t.Fatal(err)
	}
	slot(m, evil)
	m.PowerOn()
	m.Expect(machine.Slow, "Starting Ballast evil from slot B", "Slot B cannot be started.", "from slot A", "boot disk: ", "slot A", "Secure Boot", "ready: ")
	// The address comes by DHCP, soon after the box is ready.
	m.Await(machine.Slow, "show log kernel 2000", `ecure boot enabled`)
	m.Await(machine.Slow, "show log kernel 2000", `locked down from EFI Secure Boot`)
	if s := m.Ask("show firmware"); strings.Contains(s, "trial of") {
		t.Errorf("slot A is taken to be on trial:\n%s", s)
	}
	m.Off()

	next, err := signed.With("next", fw.ID.Build+120, nil)
	if err != nil {
		t.Fatal(err)
	}
	slot(m, next)
	m.PowerOn()
	m.Expect(machine.Slow, "Starting Ballast next from slot B", "slot B", "ready: ")
	if e := m.Env(); e.Try != layout.B && e.Good != layout.B {
		t.Errorf("the state is %+v", e)
	}
	// It may be confirmed by the time that it is asked.
	m.Await(machine.Slow, "show log firmware 100", `firmware next is on trial`)
	m.PowerCord()

	parts, err := signed.Parts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(parts, func(p bundle.File) bool { return strings.HasSuffix(p.Name, "grubx64.efi") })
	if parts[i].Data, err = stranger.Sign(parts[i].Data); err != nil {
		t.Fatal(err)
	}
	write("grub", parts)
	m = boot("grub")
	m.PowerOn()
	m.Expect(machine.Slow, "Security Violation")
	m.PowerCord()

	if parts, err = fw.Parts(t.Context()); err != nil {
		t.Fatal(err)
	}
	write("unsigned", parts)
	m = boot("unsigned")
	m.PowerOn()
	m.Expect(machine.Slow, "Access Denied")
	if s := m.Console(); strings.Contains(s, "Starting Ballast") {
		t.Error("an unsigned boot loader runs")
	}
}
