package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"ballast/image/bootenv"
	"ballast/image/bundle"
	"ballast/image/disk/gpt"
	"ballast/image/layout"
)

// Sizes that a disk of BIOS machines has for the boot loader.
const (
	bootCode = 440 // of the first sector, before the disk's signature
	maxBoot  = 512
)

// Write makes a Ballast disk of a device, from the parts of a bundle, reads it
// back and compares. Everything on the device is lost from the beginning of this;
// it can be booted only when all of it is written.
func Write(d Device, ps Parts, o Options) error {
	size, err := Size(d)
	if err != nil {
		return err
	}
	size -= size % gpt.Sector
	if size < MinSize {
		return fmt.Errorf("disk: it has %d MiB: want at least %d", size/mib, MinSize/mib)
	}
	w := &writer{d: d, size: size, table: Table(o), o: o}
	if err := w.begin(); err != nil {
		return err
	}
	if err := ps.each(w.part); err != nil {
		return err
	}
	return w.finish()
}

// writer writes a whole disk.
type writer struct {
	d     Device
	size  int64
	table *gpt.Table
	o     Options

	slots  []*volume
	esp    *volume
	empty  *volume // slot B, when the firmware is for A only
	boot   []byte
	core   sum
	coreAt int64
	coreN  int64
}

func (w *writer) section(number int) (Device, int64) {
	p, _ := w.table.Find(number)
	return Section(w.d, p), p.Offset()
}

// begin makes what was on the disk unreadable and begins the file systems.
func (w *writer) begin() error {
	dataAt := w.table.Partitions[len(w.table.Partitions)-1].Offset() + layout.SizeSlot*mib
	for _, z := range []struct{ at, n int64 }{
		{0, first},                     // old table and boot code
		{first, layout.SizeBIOS * mib}, // what is behind core.img
		{dataAt, blank},                // an old file system of the data partition that the first boot makes
		{w.size - gpt.Tail*gpt.Sector, gpt.Tail * gpt.Sector}, // the old table's copy
	} {
		if _, err := w.d.WriteAt(make([]byte, z.n), z.at); err != nil {
			return fmt.Errorf("disk: %w", err)
		}
	}
	if err := w.d.Sync(); err != nil {
		return fmt.Errorf("disk: %w", err)
	}
	begin := func(number int, label, part string) (*volume, error) {
		d, at := w.section(number)
		return newVolume(d, w.o.fat(label, part, at))
	}
	a, err := begin(layout.NumberSlotA, slotLabel, layout.PartSlotA)
	if err != nil {
		return err
	}
	b, err := begin(layout.NumberSlotB, slotLabel, layout.PartSlotB)
	if err != nil {
		return err
	}
	if w.slots = []*volume{a}; w.o.Both {
		w.slots = append(w.slots, b)
	} else {
		w.empty = b
	}
	w.esp, err = begin(layout.NumberESP, "ESP", layout.PartESP)
	return err
}

// part writes one part to where it belongs.
func (w *writer) part(p Part) error {
	if slotParts[p.Name] != "" {
		return w.slotPart(slotParts[p.Name], p)
	}
	if file := kept(p); file != "" { // the slots keep it too
		var b bytes.Buffer
		if _, err := copyPart(&b, p, nil); err != nil {
			return err
		}
		p.Content = bytes.NewReader(b.Bytes())
		if err := w.slotPart(file, p); err != nil {
			return err
		}
		p.Content = bytes.NewReader(b.Bytes())
	}
	switch {
	case p.Name == bundle.BootCode:
		if p.Size < bootCode || p.Size > maxBoot {
			return fmt.Errorf("disk: %s has %d bytes: want %d to %d", p.Name, p.Size, bootCode, maxBoot)
		}
		var b bytes.Buffer
		_, err := copyPart(&b, p, w.o.Progress)
		w.boot = b.Bytes()
		return err
	case p.Name == bundle.CoreImage:
		if p.Size > layout.SizeBIOS*mib {
			return fmt.Errorf("disk: %s has %d bytes: want at most %d MiB", p.Name, p.Size, layout.SizeBIOS)
		}
		d, at := w.section(layout.NumberBIOS)
		var err error
		w.coreAt, w.coreN = at, p.Size
		w.core, err = copyPart(io.NewOffsetWriter(d, 0), p, w.o.Progress)
		return err
	case p.Name == bundle.Loader:
		return w.esp.write(layout.LoaderPath, p, w.o)
	case strings.HasPrefix(p.Name, bundle.ESPPrefix):
		file := "/" + strings.TrimPrefix(p.Name, bundle.ESPPrefix)
		if strings.EqualFold(file, layout.EnvPath) {
			return fmt.Errorf("disk: part %s: that file is the state of the boot loader", p.Name)
		}
		return w.esp.write(file, p, w.o)
	}
	// Something that a newer maker knows: not for us to refuse, nor to write.
	_, err := copyPart(io.Discard, p, w.o.Progress)
	return err
}

// slotPart writes one stream into one or both slots.
func (w *writer) slotPart(file string, p Part) error {
	var to []io.Writer
	for _, s := range w.slots {
		f, err := s.fs.Create(file, p.Size)
		if err != nil {
			return fmt.Errorf("disk: %w", err)
		}
		to = append(to, f)
	}
	sum, err := copyPart(io.MultiWriter(to...), p, w.o.Progress)
	for _, s := range w.slots {
		s.sums[file] = sum
	}
	return err
}

// finish makes all of it readable, the partition table last.
func (w *writer) finish() error {
	for _, missing := range []struct {
		name string
		is   bool
	}{{bundle.BootCode, w.boot == nil}, {bundle.CoreImage, w.coreN == 0}, {bundle.Loader, w.esp.sums[layout.LoaderPath] == sum{}}} {
		if missing.is {
			return fmt.Errorf("disk: the bundle has no part %s: it is for upgrades only; take one that can be installed", missing.name)
		}
	}
	for _, s := range w.slots {
		if err := finishSlot(s, w.o); err != nil {
			return err
		}
	}
	if w.empty != nil {
		if err := w.empty.finish(w.o); err != nil {
			return err
		}
	}
	if err := w.esp.put(layout.EnvPath, bootenv.Default.Bytes()); err != nil {
		return err
	}
	if err := w.esp.finish(w.o); err != nil {
		return err
	}
	d, _ := w.section(layout.NumberESP)
	if _, err := ReadEnv(d); err != nil {
		return err
	}
	if err := verify(io.NewSectionReader(w.d, w.coreAt, w.coreN), w.coreN, bundle.CoreImage, w.core, w.o); err != nil {
		return err
	}
	if _, err := w.d.WriteAt(w.boot[:bootCode], 0); err != nil {
		return fmt.Errorf("disk: %w", err)
	}
	if err := w.table.Write(w.d, w.size); err != nil {
		return fmt.Errorf("disk: %w", err)
	}
	forget(w.d)
	if t, err := gpt.Read(w.d, w.size); err != nil || t.GUID != w.table.GUID || t.FromBackup {
		return fmt.Errorf("disk: the partition table: %w", errors.Join(ErrVerify, err))
	}
	return nil
}
