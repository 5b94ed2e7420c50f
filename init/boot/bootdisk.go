package boot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"ballast/image/disk/gpt"
	"ballast/image/layout"
)

// BootDisk is the disk with the slot that this firmware was started from. What
// other disks have partitions of the same names is nobody's business.
type BootDisk struct {
	Device string      // "/dev/sda"
	Slot   layout.Slot // that runs

	name string // "sda"
	sys  string // /sys/class/block
	size int64
}

// ErrNoSlot is the error of a box that no boot loader of a Ballast disk started.
var ErrNoSlot = errors.New("this box did not boot from a slot")

// bootDiskWait is how long a disk may take to show up: one behind USB is looked
// for by its driver in the background.
const bootDiskWait = 15 * time.Second

// FindBootDisk finds it by what the boot loader says of the slot's partition. It
// reads the partition tables itself: the kernel knows none whose first copy a power cut
// has damaged.
func FindBootDisk(c CmdLine) (BootDisk, error) {
	return findBootDisk("/sys/class/block", "/dev", c, bootDiskWait)
}

func findBootDisk(sys, dev string, c CmdLine, wait time.Duration) (BootDisk, error) {
	word := c.Get(layout.WordPart)
	if word == "" {
		return BootDisk{}, ErrNoSlot
	}
	part, err := gpt.ParseGUID(word)
	if err != nil {
		return BootDisk{}, fmt.Errorf("%s: %w", layout.WordPart, err)
	}
	for end := time.Now().Add(wait); ; time.Sleep(100 * time.Millisecond) {
		for _, name := range disks(sys) {
			d := BootDisk{Device: filepath.Join(dev, name), name: name, sys: sys, Slot: layout.Slot(c.Get(layout.WordSlot))}
			if d.holds(part) {
				return d, nil // with its slot, where no word says it
			}
		}
		if time.Now().After(end) {
			return BootDisk{}, fmt.Errorf("no disk has the partition %s that the boot loader says this firmware came from", part)
		}
	}
}

// disks are the names of the whole disks that have a size.
func disks(sys string) (names []string) {
	list, _ := os.ReadDir(sys)
	for _, e := range list {
		n := e.Name()
		if _, err := os.Stat(filepath.Join(sys, n, "partition")); err == nil || readNumber(filepath.Join(sys, n, "size")) == 0 {
			continue
		}
		if !slices.ContainsFunc([]string{"ram", "zram", "sr", "fd", "nbd", "dm-", "md"}, func(p string) bool { return strings.HasPrefix(n, p) }) {
			names = append(names, n)
		}
	}
	return names
}

func readNumber(name string) uint64 {
	b, err := os.ReadFile(name)
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	return n
}

// holds reports whether a disk has a partition, and takes its size over.
func (d *BootDisk) holds(part gpt.GUID) bool {
	f, err := os.Open(d.Device)
	if err != nil {
		return false
	}
	defer f.Close()
	d.size = int64(readNumber(filepath.Join(d.sys, d.name, "size"))) * gpt.Sector
	t, err := gpt.Read(f, d.size)
	if err != nil {
		return false
	}
	i := slices.IndexFunc(t.Partitions, func(p gpt.Partition) bool { return p.GUID == part })
	if i >= 0 && d.Slot == layout.None {
		d.Slot = map[int]layout.Slot{layout.NumberSlotA: layout.A, layout.NumberSlotB: layout.B}[t.Partitions[i].Number]
	}
	return i >= 0
}

// Partition is the block device of a partition by its number in package layout.
func (d BootDisk) Partition(number int) string {
	sep := ""
	if last := d.name[len(d.name)-1]; '0' <= last && last <= '9' {
		sep = "p"
	}
	return d.Device + sep + strconv.Itoa(number)
}

// leastData is the smallest data partition: the empty file system fits.
const leastData = templateSize

// Fit moves the backup of the partition table to the end of the disk, makes or
// grows the data partition over the rest of it, and tells the kernel. note says what was
// done, "" for nothing. A disk that is as it should be is not written to.
func (d BootDisk) Fit() (note string, err error) {
	if n := readNumber(filepath.Join(d.sys, d.name, "queue/logical_block_size")); n != gpt.Sector && n != 0 {
		return "", fmt.Errorf("%s has blocks of %d bytes: images are made for disks with blocks of %d", d.Device, n, gpt.Sector)
	}
	f, err := os.OpenFile(d.Device, os.O_RDWR, 0)
	if err != nil {
		return "", fmt.Errorf("partition table: %w", err)
	}
	defer f.Close()
	table, changed, err := gpt.Fill(f, d.size, gpt.Rest{Number: layout.NumberData, Name: layout.PartData, Type: gpt.TypeLinux, Least: leastData})
	if err != nil {
		return "", fmt.Errorf("partition table of %s: %w", d.Device, err)
	}
	made, err := d.tellKernel(f, table)
	if p, ok := table.Find(layout.NumberData); ok && (changed || made) {
		note = fmt.Sprintf("partition %d of %s, %s: %d MiB", layout.NumberData, d.Device, layout.PartData, p.Size()>>20)
	}
	return note, err
}

// Structures and words of BLKPG (include/uapi/linux/blkpg.h).
const (
	blkpgAdd    = 1
	blkpgDel    = 2
	blkpgResize = 3
)

type blkpgPartition struct {
	start, length int64 // bytes
	pno           int32
	_             [64]byte // names that the kernel does not read
	_             [64]byte
	_             [4]byte
}

type blkpgArg struct {
	op, flags, length int32
	data              *blkpgPartition
}

func blkpg(f *os.File, op int32, p gpt.Partition) error {
	b := blkpgPartition{start: p.Offset(), length: p.Size(), pno: int32(p.Number)}
	a := blkpgArg{op: op, length: int32(unsafe.Sizeof(b)), data: &b}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.BLKPG, uintptr(unsafe.Pointer(&a))); errno != 0 {
		return errno
	}
	return nil
}

// tellKernel makes the kernel's partitions those of the table, one by one: it
// rereads a table as a whole only while nobody uses the disk. made tells that some
// were others.
func (d BootDisk) tellKernel(f *os.File, t *gpt.Table) (made bool, err error) {
	var errs []error
	for _, p := range t.Partitions {
		dir := filepath.Join(d.sys, d.name, filepath.Base(d.Partition(p.Number)))
		start, size := readNumber(filepath.Join(dir, "start")), readNumber(filepath.Join(dir, "size"))
		op := int32(blkpgAdd)
		switch {
		case start == p.Start && size == uint64(p.Size())/gpt.Sector:
			continue
		case start == p.Start:
			op = blkpgResize
		case start != 0: // no partition starts with the disk
			if err := blkpg(f, blkpgDel, p); err != nil {
				errs = append(errs, fmt.Errorf("partition %d is elsewhere now, and the kernel keeps the old one: %w; reboot", p.Number, err))
				continue
			}
		}
		if err := blkpg(f, op, p); err != nil {
			errs = append(errs, fmt.Errorf("tell the kernel of partition %d of %s: %w", p.Number, d.Device, err))
			continue
		}
		made = true
	}
	return made, errors.Join(errs...)
}
