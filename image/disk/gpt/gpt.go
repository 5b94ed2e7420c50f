// Package gpt reads and writes the partition table of a disk: GPT with 128
// entries on sectors of 512 bytes (UEFI specification, section 5.3). Write keeps
// an order in which a power cut leaves the old or the new table.
package gpt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"unicode/utf16"
)

// Geometry. Everything is counted in sectors.
const (
	Sector       = 512
	entries      = 128
	entrySize    = 128
	entrySectors = entries * entrySize / Sector
	headerSize   = 92
	First        = 2 + entrySectors // first sector that a partition may have
	Tail         = 1 + entrySectors // sectors at the end that none may have
	nameLength   = 36
)

// Partition is one entry.
type Partition struct {
	Number      int // 1 to 128
	Type, GUID  GUID
	Start, Last uint64 // sectors, both belong to it
	Attributes  uint64
	Name        string
}

// Size is the partition's length in bytes.
func (p Partition) Size() int64 { return int64(p.Last-p.Start+1) * Sector }

// Offset is where the partition begins, in bytes.
func (p Partition) Offset() int64 { return int64(p.Start) * Sector }

// Table is a partition table.
type Table struct {
	GUID       GUID
	Partitions []Partition // by number

	// Sectors is how long the disk was when the table was written: a disk that
	// was made from a smaller one's image, or has grown, has more.
	Sectors uint64
	// FromBackup says that the first copy was damaged.
	FromBackup bool
}

// Find returns the partition with a number.
func (t *Table) Find(number int) (Partition, bool) {
	for _, p := range t.Partitions {
		if p.Number == number {
			return p, true
		}
	}
	return Partition{}, false
}

// Last is the last sector that a partition may have on a disk of so many bytes.
func Last(size int64) uint64 { return uint64(size/Sector) - Tail - 1 }

// ErrNone is of a disk without a table.
var ErrNone = errors.New("gpt: no partition table")

// Read reads the table of a disk of so many bytes: the first copy, or the one at
// the end when the first is damaged.
func Read(r io.ReaderAt, size int64) (*Table, error) {
	t, err := readCopy(r, size, 1)
	if err == nil {
		return t, nil
	}
	if last := uint64(size / Sector); last > First+Tail {
		if t, berr := readCopy(r, size, last-1); berr == nil {
			t.FromBackup = true
			return t, nil
		}
	}
	return nil, err
}

func readCopy(r io.ReaderAt, size int64, lba uint64) (*Table, error) {
	h := make([]byte, Sector)
	if _, err := r.ReadAt(h, int64(lba)*Sector); err != nil {
		return nil, fmt.Errorf("gpt: read sector %d: %w", lba, err)
	}
	le := binary.LittleEndian
	if string(h[:8]) != "EFI PART" {
		return nil, ErrNone
	}
	n := le.Uint32(h[12:])
	if n < headerSize || n > Sector {
		return nil, fmt.Errorf("gpt: header of %d bytes in sector %d", n, lba)
	}
	sum := le.Uint32(h[16:])
	le.PutUint32(h[16:], 0)
	if crc32.ChecksumIEEE(h[:n]) != sum || le.Uint64(h[24:]) != lba {
		return nil, fmt.Errorf("gpt: the header in sector %d is damaged", lba)
	}
	t := &Table{GUID: GUID(h[56:72])}
	alternate, at, count, each := le.Uint64(h[32:]), le.Uint64(h[72:]), le.Uint32(h[80:]), le.Uint32(h[84:])
	if count == 0 || count > 1024 || each != entrySize || at >= uint64(size/Sector) {
		return nil, fmt.Errorf("gpt: the header in sector %d: %d entries of %d bytes at sector %d: want up to 1024 of %d", lba, count, each, at, entrySize)
	}
	t.Sectors = max(alternate, lba) + 1
	e := make([]byte, count*each)
	if _, err := r.ReadAt(e, int64(at)*Sector); err != nil {
		return nil, fmt.Errorf("gpt: read the entries at sector %d: %w", at, err)
	}
	if crc32.ChecksumIEEE(e) != le.Uint32(h[88:]) {
		return nil, fmt.Errorf("gpt: the entries at sector %d are damaged", at)
	}
	for i := range int(count) {
		p, ok := parseEntry(e[i*entrySize:][:entrySize])
		if !ok {
			continue
		}
		p.Number = i + 1
		if p.Start < 1 || p.Last < p.Start || p.Last >= uint64(size/Sector) {
			return nil, fmt.Errorf("gpt: partition %d has sectors %d to %d, the disk %d", p.Number, p.Start, p.Last, size/Sector)
		}
		t.Partitions = append(t.Partitions, p)
	}
	return t, nil
}

func parseEntry(e []byte) (Partition, bool) {
	le := binary.LittleEndian
	p := Partition{Type: GUID(e[:16]), GUID: GUID(e[16:32]), Start: le.Uint64(e[32:]), Last: le.Uint64(e[40:]), Attributes: le.Uint64(e[48:])}
	var name []uint16
	for i := 56; i < entrySize; i += 2 {
		c := le.Uint16(e[i:])
		if c == 0 {
			break
		}
		name = append(name, c)
	}
	p.Name = string(utf16.Decode(name))
	return p, p.Type != GUID{}
}

// check finds what no table may hold.
func (t *Table) check(size int64) error {
	if size < (First+Tail+1)*Sector || size%Sector != 0 {
		return fmt.Errorf("gpt: a disk of %d bytes has no room for a table, or no whole sectors", size)
	}
	for i, p := range t.Partitions {
		switch {
		case p.Number < 1 || p.Number > entries || p.Type == GUID{}:
			return fmt.Errorf("gpt: partition %d %q: want a number from 1 to %d and a type", p.Number, p.Name, entries)
		case p.Start < First || p.Last < p.Start || p.Last > Last(size):
			return fmt.Errorf("gpt: partition %d %q: sectors %d to %d: the disk has room from %d to %d", p.Number, p.Name, p.Start, p.Last, First, Last(size))
		case len(utf16.Encode([]rune(p.Name))) > nameLength:
			return fmt.Errorf("gpt: partition %d: the name %q is longer than %d characters", p.Number, p.Name, nameLength)
		}
		for _, o := range t.Partitions[:i] {
			if o.Number == p.Number {
				return fmt.Errorf("gpt: two partitions have the number %d", p.Number)
			}
			if o.Start <= p.Last && p.Start <= o.Last {
				return fmt.Errorf("gpt: partitions %d and %d overlap", o.Number, p.Number)
			}
		}
	}
	return nil
}

// encode returns the entries and both headers for a disk of so many bytes.
func (t *Table) encode(size int64) (list, primary, backup []byte) {
	le := binary.LittleEndian
	list = make([]byte, entries*entrySize)
	for _, p := range t.Partitions {
		e := list[(p.Number-1)*entrySize:][:entrySize]
		copy(e, p.Type[:])
		copy(e[16:], p.GUID[:])
		le.PutUint64(e[32:], p.Start)
		le.PutUint64(e[40:], p.Last)
		le.PutUint64(e[48:], p.Attributes)
		for i, c := range utf16.Encode([]rune(p.Name)) {
			le.PutUint16(e[56+2*i:], c)
		}
	}
	end := uint64(size/Sector) - 1
	header := func(own, other, at uint64) []byte {
		h := make([]byte, Sector)
		copy(h, "EFI PART")
		le.PutUint32(h[8:], 0x00010000)
		le.PutUint32(h[12:], headerSize)
		le.PutUint64(h[24:], own)
		le.PutUint64(h[32:], other)
		le.PutUint64(h[40:], First)
		le.PutUint64(h[48:], Last(size))
		copy(h[56:], t.GUID[:])
		le.PutUint64(h[72:], at)
		le.PutUint32(h[80:], entries)
		le.PutUint32(h[84:], entrySize)
		le.PutUint32(h[88:], crc32.ChecksumIEEE(list))
		le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:headerSize]))
		return h
	}
	return list, header(1, end, 2), header(end, 1, end-entrySectors)
}

// protective is the partition record of the MBR by which old programs see that
// the disk is in use.
func protective(size int64) []byte {
	b := make([]byte, 66)
	// Some BIOSes start a disk only when one of the MBR's partitions is active;
	// the UEFI specification wants it not to be, and its firmwares do not look.
	b[1], b[2], b[3], b[4] = 0x00, 0x02, 0x00, 0xee
	b[5], b[6], b[7] = 0xff, 0xff, 0xff
	binary.LittleEndian.PutUint32(b[8:], 1)
	binary.LittleEndian.PutUint32(b[12:], uint32(min(size/Sector-1, 0xffffffff)))
	b[64], b[65] = 0x55, 0xaa
	return b
}

// Device is a disk, as *os.File is one.
type Device interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

// atomic is the size of a write that disks do as a whole or not at all, as far as
// any does: a page, and a sector of those with large ones.
const atomic = 4096

// Write puts the table on a disk of so many bytes. The boot code in its first
// sector stays. The copy at the end is written first; then the entries of the
// first copy that an atomic write does not reach, and then, in one such write,
// the head of the disk with everything that a small change touches. A power cut
// leaves one copy whole; only one that tears the last write makes it the one at the
// end, which Linux reads when "gpt" is among its words. A table that was read from the
// copy at the end leaves that alone until the first one is whole.
func (t *Table) Write(d Device, size int64) error {
	if err := t.check(size); err != nil {
		return err
	}
	list, primary, backup := t.encode(size)
	head := make([]byte, atomic)
	if _, err := d.ReadAt(head[:Sector], 0); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("gpt: read the first sector: %w", err)
	}
	copy(head[446:], protective(size))
	copy(head[Sector:], primary)
	inHead := copy(head[2*Sector:], list)
	order := []struct {
		what string
		b    []byte
		at   int64
	}{
		{"the copy's entries", list, size - Tail*Sector},
		{"the copy's header", backup, size - Sector},
		{"the entries", list[inHead:], atomic},
		{"the head", head, 0},
	}
	if t.FromBackup {
		order = append(order[2:], order[:2]...)
	}
	for _, w := range order {
		if err := update(d, w.b, w.at); err != nil {
			return fmt.Errorf("gpt: write %s: %w", w.what, err)
		}
	}
	return nil
}

// update writes what is not there already, and waits until the disk has it.
func update(d Device, b []byte, at int64) error {
	old := make([]byte, len(b))
	if _, err := d.ReadAt(old, at); err == nil && bytes.Equal(old, b) {
		return nil
	}
	if _, err := d.WriteAt(b, at); err != nil {
		return err
	}
	return d.Sync()
}
