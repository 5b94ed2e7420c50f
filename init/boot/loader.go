package boot

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf16"

	"golang.org/x/sys/unix"

	"ballast/image/bootenv"
	device "ballast/image/disk"
	"ballast/image/layout"
)

// Variables of the stub at the beginning of a unified kernel image: its vendor's,
// and the one that says which partition the image was read from (The Boot Loader
// Interface).
const (
	stubVendor = "-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
	stubPart   = "LoaderDevicePartUUID" + stubVendor
)

// EFIVars is where the kernel shows UEFI's variables.
const EFIVars = "/sys/firmware/efi/efivars"

// MountEFIVars mounts them, where there are any: their driver is a module, which
// comes after all else was mounted.
func MountEFIVars() error {
	if _, err := os.Stat(filepath.Dir(EFIVars)); err != nil {
		return nil
	}
	err := unix.Mount("efivarfs", EFIVars, "efivarfs", careful|unix.MS_RDONLY, "")
	if err != nil && !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("UEFI variables: %w", err)
	}
	return nil
}

// SecureBoot says whether UEFI started nothing but what is signed.
func SecureBoot(efivars string) bool {
	b, err := os.ReadFile(filepath.Join(efivars, "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"))
	return err == nil && len(b) == 5 && b[4] == 1 // four bytes of attributes
}

// FromStub adds the partition that the firmware was read from. With Secure Boot
// the stub takes no words from the boot loader, which anybody could have written:
// only those that were signed with it.
func (c CmdLine) FromStub(efivars string) CmdLine {
	if c.Get(layout.WordPart) != "" || !SecureBoot(efivars) {
		return c
	}
	b, err := os.ReadFile(filepath.Join(efivars, stubPart))
	if err != nil || len(b) < 4 {
		return c // from the network, or from a stick
	}
	var u []uint16
	for b = b[4:]; len(b) >= 2; b = b[2:] {
		u = append(u, binary.LittleEndian.Uint16(b))
	}
	part := strings.TrimRight(string(utf16.Decode(u)), "\x00")
	if part == "" || strings.ContainsAny(part, " \t\n\"") {
		return c
	}
	return c + CmdLine(" "+layout.WordPart+"="+strings.ToLower(part))
}

// FromState adds what the boot loader could not say because of that: slot, trial,
// and what its menu was asked for, which it left in its state. What was asked for
// once is taken out of there.
func (c CmdLine) FromState(d BootDisk) (CmdLine, error) {
	if c.Get(layout.WordSlot) != "" {
		return c, nil
	}
	c += CmdLine(" " + layout.WordSlot + "=" + string(d.Slot))
	f, err := os.OpenFile(d.Partition(layout.NumberESP), os.O_RDWR|os.O_SYNC, 0)
	if err != nil {
		return c, fmt.Errorf("boot state: %w", err)
	}
	defer f.Close()
	e, err := device.ReadEnv(f)
	if err != nil {
		return c, err
	}
	// The boot loader counts an attempt before it starts a trial.
	if e.Try == d.Slot && e.Good != d.Slot && e.Left < layout.TrialAttempts {
		c += CmdLine(" " + layout.WordTrial + "=1")
	}
	switch e.Once {
	case bootenv.None:
		return c, nil
	case bootenv.Factory:
		c += CmdLine(" " + layout.WordFactory + "=1")
	case bootenv.NoData:
		c += " ballast.data=none"
	}
	e.Once = bootenv.None
	return c, device.WriteEnv(f, e)
}
