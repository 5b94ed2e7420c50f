package disk

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"ballast/image/bundle"
	"ballast/image/disk/fat"
	"ballast/image/layout"
)

// Range is a piece of a file, in bytes.
type Range struct{ Offset, Size int64 }

// SlotConfig is what slot.cfg tells the boot loader, and everybody else, of the
// firmware beside it.
type SlotConfig struct {
	layout.Identity
	// Linux and Initrd are the sections of the unified kernel image that a BIOS
	// machine starts. They begin at a sector of the file.
	Linux, Initrd Range
	Args          string // the kernel's command line; the boot loader adds what slot it is
}

const (
	slotHead = "# Ballast firmware slot\n"
	sector   = 512
)

// slotNames are the variables, in their order.
var slotNames = []string{"version", "build", "board", "kernel", "linux", "linux_size", "initrd", "initrd_size", "args"}

// Bytes is the file: assignments in GRUB's language, which it reads with
// "source".
func (c SlotConfig) Bytes() ([]byte, error) {
	values := map[string]string{
		"version": c.Version, "build": strconv.FormatInt(c.Build, 10), "board": c.Board, "kernel": c.Kernel,
		"linux": c.Linux.sectors(), "linux_size": strconv.FormatInt(c.Linux.Size, 10),
		"initrd": c.Initrd.sectors(), "initrd_size": strconv.FormatInt(c.Initrd.Size, 10),
		"args": c.Args,
	}
	var b strings.Builder
	b.WriteString(slotHead)
	for _, n := range slotNames {
		fmt.Fprintf(&b, "set slot_%s='%s'\n", n, values[n])
	}
	if back, err := ParseSlotConfig([]byte(b.String())); err != nil {
		return nil, err
	} else if back != c {
		return nil, fmt.Errorf("slot.cfg: %+v cannot be written: sections begin at a sector, words have no blanks", c)
	}
	return []byte(b.String()), nil
}

// sectors is a range in GRUB's block list form: first sector + number.
func (r Range) sectors() string {
	return fmt.Sprintf("%d+%d", r.Offset/sector, (r.Size+sector-1)/sector)
}

// plain tells whether GRUB takes a value as it is, in quotes and where it is
// expanded: no quotes, no variables, and none of the characters of file names that
// stand for others.
func plain(s string) bool {
	for _, c := range []byte(s) {
		if c < ' ' || c > '~' || strings.IndexByte("'\"\\$`*?[]{};|&<>#", c) >= 0 {
			return false
		}
	}
	return true
}

// ParseSlotConfig reads what Bytes wrote, and nothing else.
func ParseSlotConfig(b []byte) (SlotConfig, error) {
	var c SlotConfig
	if len(b) > bundle.MaxSlotConfig {
		return c, fmt.Errorf("slot.cfg: %d bytes", len(b))
	}
	text, ok := strings.CutPrefix(string(b), slotHead)
	if !ok {
		return c, errors.New("slot.cfg: it does not begin as one of Ballast")
	}
	values := map[string]string{}
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "='")
		name, ok2 := strings.CutPrefix(name, "set slot_")
		value, ok3 := strings.CutSuffix(value, "'")
		if !ok || !ok2 || !ok3 || !plain(value) {
			return c, fmt.Errorf("slot.cfg: %.80q: want set slot_NAME='VALUE' without special characters", line)
		}
		if _, twice := values[name]; twice {
			return c, fmt.Errorf("slot.cfg: slot_%s is there twice", name)
		}
		values[name] = value
	}
	for _, n := range slotNames {
		if _, ok := values[n]; !ok {
			return c, fmt.Errorf("slot.cfg: slot_%s is missing", n)
		}
	}
	for n, to := range map[string]*string{"version": &c.Version, "board": &c.Board, "kernel": &c.Kernel} {
		if values[n] == "" || strings.Contains(values[n], " ") {
			return c, fmt.Errorf("slot.cfg: slot_%s is %q: want one word", n, values[n])
		}
		*to = values[n]
	}
	c.Args = values["args"]
	var err error
	if c.Build, err = strconv.ParseInt(values["build"], 10, 64); err != nil || c.Build < 0 {
		return c, fmt.Errorf("slot.cfg: slot_build is %q: want a number", values["build"])
	}
	for n, r := range map[string]*Range{"linux": &c.Linux, "initrd": &c.Initrd} {
		if *r, err = parseRange(values[n], values[n+"_size"]); err != nil {
			return c, fmt.Errorf("slot.cfg: slot_%s: %w", n, err)
		}
	}
	return c, nil
}

func parseRange(sectors, size string) (Range, error) {
	a, _, _ := strings.Cut(sectors, "+")
	at, err := strconv.ParseInt(a, 10, 32)
	n, err2 := strconv.ParseInt(size, 10, 32)
	r := Range{at * sector, n}
	if err != nil || err2 != nil || at < 1 || n < 1 || r.sectors() != sectors || r.Offset+r.Size > layout.SizeSlot*mib {
		return Range{}, fmt.Errorf("%q of %q bytes is no place in a firmware", sectors, size)
	}
	return r, nil
}

// Slot is the content of a slot that is read.
type Slot struct {
	Config SlotConfig
	fs     *fat.FS
	d      Device
}

// ReadSlot looks at a slot. An error says that it holds no firmware, or a damaged
// one.
func ReadSlot(d Device) (*Slot, error) {
	size, err := Size(d)
	if err != nil {
		return nil, err
	}
	fs, err := fat.Open(d, size)
	if err != nil {
		return nil, fmt.Errorf("slot: %w", err)
	}
	f, err := fs.Open(layout.SlotFile)
	if err != nil {
		return nil, fmt.Errorf("slot: %w", err)
	}
	b, err := io.ReadAll(io.LimitReader(f, bundle.MaxSlotConfig+1))
	if err != nil {
		return nil, fmt.Errorf("slot: %w", err)
	}
	s := &Slot{fs: fs, d: d}
	if s.Config, err = ParseSlotConfig(b); err != nil {
		return nil, fmt.Errorf("slot: %w", err)
	}
	return s, nil
}

// Open opens a file of the slot: layout.FirmwareFile or layout.SlotFile, or what
// else a bundle put there.
func (s *Slot) Open(name string) (*fat.File, error) { return s.fs.Open(name) }

// Linux and Initrd return the kernel and the initramfs of the firmware, and how
// long they are.
func (s *Slot) Linux() (io.Reader, int64, error) { return s.piece(s.Config.Linux) }

// Initrd is the initramfs; see Linux.
func (s *Slot) Initrd() (io.Reader, int64, error) { return s.piece(s.Config.Initrd) }

func (s *Slot) piece(r Range) (io.Reader, int64, error) {
	f, err := s.fs.Open(layout.FirmwareFile)
	if err != nil {
		return nil, 0, err
	}
	if f.Size < r.Offset+r.Size {
		return nil, 0, fmt.Errorf("slot: %s has %d bytes, slot.cfg speaks of %d", layout.FirmwareFile, f.Size, r.Offset+r.Size)
	}
	if _, err := io.CopyN(io.Discard, f, r.Offset); err != nil {
		return nil, 0, err
	}
	return io.LimitReader(f, r.Size), r.Size, nil
}

// destroy makes a file system unreadable.
func destroy(d Device) error {
	if _, err := d.WriteAt(make([]byte, 32*sector), 0); err != nil {
		return err
	}
	return d.Sync()
}

// slotLabel is the name of a slot's file system. No label of ours is "BALLAST":
// that is what a stick with a first configuration is called.
const slotLabel = "SLOT"

// slotParts are those of a bundle that belong into a slot.
var slotParts = map[string]string{bundle.SlotConfig: layout.SlotFile, bundle.Firmware: layout.FirmwareFile}

// keepMost is how long a part may be that a slot keeps only to give it on: boot
// loaders have less than a MiB.
const keepMost = 4 * mib

// kept is the file in which a slot keeps a part that it has no use for itself;
// empty: it does not.
func kept(p Part) string {
	if p.Size > keepMost || !fat.ValidPath("/"+p.Name) {
		return ""
	}
	return "/" + p.Name
}

// WriteSlot replaces the content of a slot, reads it back and compares. The
// other parts of a bundle are kept beside, to be given on. What was in the slot
// is gone as soon as this begins; after an error the slot holds nothing that can
// be started.
func WriteSlot(d Device, ps Parts, o Options) error {
	v, err := newVolume(d, o.fat(slotLabel, "slot", 0))
	if err != nil {
		return err
	}
	if err := writeSlot(v, ps, o); err != nil {
		if derr := destroy(d); derr != nil {
			return fmt.Errorf("%w; and the slot could not be marked as empty: %w", err, derr)
		}
		return err
	}
	return nil
}

func writeSlot(v *volume, ps Parts, o Options) error {
	err := ps.each(func(p Part) error {
		file, ok := slotParts[p.Name]
		if !ok {
			file = kept(p)
		}
		if file != "" {
			return v.write(file, p, o)
		}
		_, err := copyPart(io.Discard, p, o.Progress)
		return err
	})
	if err != nil {
		return err
	}
	return finishSlot(v, o)
}

// finishSlot makes a slot readable and checks it.
func finishSlot(v *volume, o Options) error {
	for part, file := range slotParts {
		if _, ok := v.sums[file]; !ok {
			return fmt.Errorf("disk: the bundle has no part %s", part)
		}
	}
	if err := v.finish(o); err != nil {
		return err
	}
	_, err := ReadSlot(v.d)
	return err
}
