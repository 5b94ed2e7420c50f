// Package disk writes what a Ballast disk holds (package layout), and reads it
// again: a whole disk from the parts of a bundle, the content of one slot, the
// state that boot loader and firmware share. Everything is written as bytes on a
// device; nothing needs to be mounted, and nothing needs root but the device.
//
// The order of writes is such that a power cut leaves a slot or disk that cannot
// be read rather than one that can be and is incomplete.
package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"ballast/image/bootenv"
	"ballast/image/bundle"
	"ballast/image/disk/fat"
	"ballast/image/disk/gpt"
	"ballast/image/layout"
)

// Device is a disk, a partition or a file; *os.File is one.
type Device interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

// Part is a file of a bundle, as it comes.
type Part struct {
	Name    string
	Size    int64
	Content io.Reader
}

// Parts returns one part after the other, and io.EOF behind the last. The
// content of a part is gone when the next is asked for.
type Parts func() (Part, error)

// each does something with every part.
func (ps Parts) each(do func(Part) error) error {
	for {
		p, err := ps()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := do(p); err != nil {
			return err
		}
	}
}

// headPart is what FromBundle puts behind the parts of a bundle.
var headPart = strings.TrimPrefix(layout.HeadFile, "/")

// WithHead adds the head of a whole bundle to its parts, for FromFiles: what is
// written of them then holds the bundle as with FromBundle.
func WithHead(parts []bundle.File, whole []byte) ([]bundle.File, error) {
	m, _, err := bundle.Peek(bytes.NewReader(whole))
	if err != nil {
		return nil, err
	}
	n := int64(len(whole)) - m.Size()
	if n <= 0 {
		return nil, errors.New("bundle: it is cut")
	}
	return append(slices.Clip(parts), bundle.File{Name: headPart, Data: whole[:n]}), nil
}

// FromBundle are the parts of a bundle that is read, and behind them its head:
// with that a slot holds the whole bundle (layout.HeadFile).
func FromBundle(r *bundle.Reader) Parts {
	ended := false
	return func() (Part, error) {
		if ended {
			return Part{}, io.EOF
		}
		p, err := r.Next()
		if errors.Is(err, io.EOF) {
			ended = true
			return Part{headPart, int64(len(r.Head)), bytes.NewReader(r.Head)}, nil
		}
		if err != nil {
			return Part{}, err
		}
		return Part{p.Name, p.Size, p}, nil
	}
}

// FromFiles are parts that are in memory.
func FromFiles(files ...bundle.File) Parts {
	return func() (Part, error) {
		if len(files) == 0 {
			return Part{}, io.EOF
		}
		f := files[0]
		files = files[1:]
		return Part{f.Name, int64(len(f.Data)), strings.NewReader(string(f.Data))}, nil
	}
}

const mib = 1 << 20

// first is where the first partition begins, tail what is left free behind the
// slots on an image: the beginning of the data partition, which must be blank, and
// the copy of the partition table.
const (
	first = 1 * mib
	blank = 1 * mib
	tail  = blank + 1*mib
)

// MinSize is that of disk.img: everything but the data partition. A disk must be
// larger by what is to be kept on it.
const MinSize = first + (layout.SizeBIOS+layout.SizeESP+2*layout.SizeSlot)*mib + tail

// Options of a disk.
type Options struct {
	// Name makes the identifiers of disk, partitions and file systems; always the
	// same ones of a name. Without it they are random, as they should be on a disk
	// that is used.
	Name string
	// Both writes the firmware into both slots; otherwise B is left empty.
	Both bool
	// Time is that of the files.
	Time time.Time
	// Progress is called with what has been written of a part, and with "verify".
	Progress func(what string, done, total int64)
}

func (o Options) guid(what string) gpt.GUID {
	if o.Name == "" {
		return gpt.RandomGUID()
	}
	return gpt.NamedGUID("ballast disk", o.Name, what)
}

func (o Options) fat(label, part string, at int64) fat.Options {
	g := o.guid("file system " + part)
	return fat.Options{Label: label, Serial: binary.LittleEndian.Uint32(g[:]), Hidden: uint32(at / gpt.Sector), Time: o.Time}
}

// Table is the partition table of a Ballast disk, without its data partition:
// the first boot makes that, as large as the disk allows.
func Table(o Options) *gpt.Table {
	t := &gpt.Table{GUID: o.guid("disk")}
	at := uint64(first / gpt.Sector)
	for _, p := range []struct {
		name string
		kind gpt.GUID
		mib  uint64
	}{
		layout.NumberBIOS - 1:  {layout.PartBIOS, gpt.TypeBIOS, layout.SizeBIOS},
		layout.NumberESP - 1:   {layout.PartESP, gpt.TypeESP, layout.SizeESP},
		layout.NumberSlotA - 1: {layout.PartSlotA, gpt.MustGUID(layout.TypeSlot), layout.SizeSlot},
		layout.NumberSlotB - 1: {layout.PartSlotB, gpt.MustGUID(layout.TypeSlot), layout.SizeSlot},
	} {
		n := p.mib * mib / gpt.Sector
		t.Partitions = append(t.Partitions, gpt.Partition{
			Number: len(t.Partitions) + 1, Type: p.kind, GUID: o.guid(p.name), Start: at, Last: at + n - 1, Name: p.name,
		})
		at += n
	}
	return t
}

// section is a part of a device.
type section struct {
	d        Device
	at, size int64
}

// Section is the partition on a disk, as a device of its own.
func Section(d Device, p gpt.Partition) Device { return section{d, p.Offset(), p.Size()} }

func (s section) Sync() error { return s.d.Sync() }

func (s section) ReadAt(b []byte, at int64) (int, error) {
	if at < 0 || at > s.size || int64(len(b)) > s.size-at {
		return 0, fmt.Errorf("read of %d bytes at %d: the partition has %d", len(b), at, s.size)
	}
	return s.d.ReadAt(b, s.at+at)
}

func (s section) WriteAt(b []byte, at int64) (int, error) {
	if at < 0 || at > s.size || int64(len(b)) > s.size-at {
		return 0, fmt.Errorf("write of %d bytes at %d: the partition has %d", len(b), at, s.size)
	}
	return s.d.WriteAt(b, s.at+at)
}

// Size is how long a device is: a block device, a file, or a partition of
// Section.
func Size(d Device) (int64, error) {
	switch d := d.(type) {
	case section:
		return d.size, nil
	case interface{ Size() int64 }:
		return d.Size(), nil
	case io.Seeker:
		n, err := d.Seek(0, io.SeekEnd)
		if err != nil {
			return 0, fmt.Errorf("disk: how large it is: %w", err)
		}
		return n, nil
	}
	return 0, fmt.Errorf("disk: how large a %T is cannot be told", d)
}

// ErrVerify is of a device that does not keep what was written to it.
var ErrVerify = errors.New("what was written reads back differently: the disk is bad")

// env finds the first sector of the state on an EFI system partition.
func env(esp Device) (at int64, err error) {
	size, err := Size(esp)
	if err != nil {
		return 0, err
	}
	f, err := fat.Open(esp, size)
	if err != nil {
		return 0, fmt.Errorf("boot state: %w", err)
	}
	file, err := f.Open(layout.EnvPath)
	if err != nil {
		return 0, fmt.Errorf("boot state: %w", err)
	}
	if file.Size < bootenv.Sector {
		return 0, fmt.Errorf("boot state: %s has %d bytes: want %d", layout.EnvPath, file.Size, bootenv.Size)
	}
	return file.Offset()
}

// ReadEnv reads the state from the EFI system partition. bootenv.Default is
// what the boot loader takes when this fails.
func ReadEnv(esp Device) (bootenv.Env, error) {
	at, err := env(esp)
	if err != nil {
		return bootenv.Env{}, err
	}
	b := make([]byte, bootenv.Sector)
	if _, err := esp.ReadAt(b, at); err != nil {
		return bootenv.Env{}, fmt.Errorf("boot state: %w", err)
	}
	return bootenv.Parse(b)
}

// WriteEnv overwrites the state in place: one sector, on the disk when it
// returns.
func WriteEnv(esp Device, e bootenv.Env) error {
	at, err := env(esp)
	if err != nil {
		return err
	}
	b := e.Bytes()
	if _, err := bootenv.Parse(b); err != nil {
		return err // nothing that the boot loader could not read is ever written
	}
	if _, err := esp.WriteAt(b[:bootenv.Sector], at); err != nil {
		return fmt.Errorf("boot state: %w", err)
	}
	if err := esp.Sync(); err != nil {
		return fmt.Errorf("boot state: %w", err)
	}
	return nil
}
