package boot

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"ballast/board"
	"ballast/image/layout"
)

// Places of the data disk.
const (
	DataDir      = "/data"
	dataTemplate = "/etc/ballast/data.ext4.zst"
	dataOptions  = "errors=remount-ro,commit=5"
	dataFlags    = unix.MS_NOATIME | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
)

// Data is the outcome of MountData.
type Data struct {
	Device    string // "/dev/vda"; empty: there is none
	Stateless bool   // what is written is gone at the next boot
	Fresh     bool   // its file system was made at this boot
	Note      string // one line for the log
	Warning   string // what a person must know, or ""
	// Spare is room on the same disk beside the file system, for package spare;
	// Device "": there is none.
	Spare Place
}

// Place is a part of a block device.
type Place struct {
	Device string
	Offset int64
}

// mounter is where MountData works. A test has places of its own.
type mounter struct {
	sys      string // block devices, as the kernel lists them
	dir      string // where the disk is mounted
	run      string // in memory: what was saved of a disk waits here
	template string // an empty file system
	reserve  uint64 // bytes at the end of the disk that the file system leaves alone
}

// spareReserve is what the file system leaves of a disk that is the director's as a whole.
const spareReserve = 1 << 20

// MountData finds the data disk and mounts it on /data, after it has written
// an empty file system to a blank one. A box without such a disk, or whose disk
// cannot be used, gets a /data in memory: it works, and forgets. What could be
// read of a disk that cannot be written is in it.
//
// A box that booted from a slot (disk is not nil) has its data on the same disk,
// in the partition that Fit made, and nowhere else.
func MountData(d board.Data, disk *BootDisk) (Data, error) {
	m := director
	if disk == nil {
		return m.mount(d)
	}
	r, err := m.mountAt(disk.Partition(layout.NumberData))
	r.Spare = Place{disk.Device, layout.SpareOffset}
	return r, err
}

var director = mounter{sys: "/sys/class/block", dir: DataDir, run: "/run", template: dataTemplate}

// mountAt mounts a partition that is for a director and nothing else.
func (m mounter) mountAt(dev string) (Data, error) {
	if err := os.MkdirAll(m.dir, 0o755); err != nil {
		return Data{}, err
	}
	return m.use(dev, true)
}

func (m mounter) mount(d board.Data) (Data, error) {
	if err := os.MkdirAll(m.dir, 0o755); err != nil {
		return Data{}, err
	}
	dev, whole := findData(m.sys, d)
	for end := time.Now().Add(d.Wait); dev == "" && time.Now().Before(end); {
		time.Sleep(100 * time.Millisecond) // a disk behind USB: its driver looks for it in the background
		dev, whole = findData(m.sys, d)
	}
	if dev == "" {
		return m.memory("no data disk: the configuration must come with the image and changes are lost at a reboot")
	}
	if !whole {
		return m.use(dev, whole)
	}
	m.reserve = spareReserve
	r, err := m.use(dev, whole)
	r.Spare = m.tail(dev)
	return r, err
}

// tail is the room behind the file system of a disk, where it leaves some.
func (m mounter) tail(dev string) Place {
	size := m.size(dev)
	if fs, err := fileSystemSize(dev); err != nil || size < m.reserve || fs > size-m.reserve {
		return Place{}
	}
	return Place{dev, int64(size - m.reserve)}
}

// size is that of a block device, in bytes.
func (m mounter) size(dev string) uint64 {
	return readNumber(filepath.Join(m.sys, filepath.Base(dev), "size")) * 512
}

// superblock reads that of an ext4.
func superblock(dev string) ([]byte, error) {
	f, err := os.Open(dev)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, 1024)
	if _, err := f.ReadAt(b, 1024); err != nil {
		return nil, err
	}
	if binary.LittleEndian.Uint16(b[0x38:]) != 0xef53 || binary.LittleEndian.Uint32(b[0x18:]) > 6 {
		return nil, errors.New("no ext4")
	}
	return b, nil
}

// fileSystemSize is how many bytes an ext4 takes.
func fileSystemSize(dev string) (uint64, error) {
	b, err := superblock(dev)
	if err != nil {
		return 0, err
	}
	le := binary.LittleEndian
	return (uint64(le.Uint32(b[4:])) | uint64(le.Uint32(b[0x150:]))<<32) << (10 + le.Uint32(b[0x18:])), nil
}

// use mounts a disk, or what can be read of it in memory.
func (m mounter) use(dev string, whole bool) (Data, error) {
	r, saved, err := m.device(dev, whole)
	if saved != "" {
		defer os.RemoveAll(saved)
	}
	if err == nil {
		return r, nil
	}
	r, merr := m.memory(fmt.Sprintf("the data disk %s cannot be used: %v; changes are lost at a reboot", dev, err))
	r.Device = dev
	if merr == nil && saved != "" {
		r.Warning += "; what was readable of its files is in use"
		if err := copyTree(saved, m.dir); err != nil {
			r.Warning += fmt.Sprintf(", but for: %v", err)
		}
	}
	return r, merr
}

func (m mounter) memory(why string) (Data, error) {
	err := unix.Mount("tmpfs", m.dir, "tmpfs", careful|unix.MS_NOATIME, "mode=0755,size=64m")
	if err != nil {
		return Data{}, fmt.Errorf("mount a %s in memory: %w", m.dir, err)
	}
	return Data{Stateless: true, Note: "in memory", Warning: why}, nil
}

// findData returns the device of the data disk, or "", and whether it was found
// by its serial number.
func findData(sys string, d board.Data) (dev string, whole bool) {
	names, _ := filepath.Glob(filepath.Join(sys, "*"))
	read := func(p string) string {
		b, _ := os.ReadFile(p)
		return strings.TrimSpace(string(b))
	}
	for _, n := range names {
		dev := "/dev/" + filepath.Base(n)
		if d.Serial != "" && (read(n+"/serial") == d.Serial || read(n+"/device/serial") == d.Serial) {
			return dev, true
		}
		if d.Partition != "" && strings.Contains(read(n+"/uevent")+"\n", "\nPARTNAME="+d.Partition+"\n") {
			return dev, false
		}
	}
	return "", false
}

// device mounts a disk. saved is a folder in memory with what was readable of
// a disk that could not be mounted as it was; the caller removes it. What is on
// a disk that is not whole the director's is replaced only when it is ours.
func (m mounter) device(dev string, whole bool) (r Data, saved string, err error) {
	kind, ours, err := probe(dev)
	if err != nil {
		return Data{}, "", err
	}
	r.Device = dev
	switch kind {
	case isExt4:
		err := m.attach(dev)
		if err == nil {
			m.grown(&r, "")
			return r, "", nil
		}
		saved, serr := m.rescue(dev)
		if errors.Is(err, errFaulty) && (serr != nil || !whole && !ours) {
			// It works until the kernel comes upon the error again, and what cannot be
			// copied or is not ours is not thrown away.
			if merr := unix.Mount(dev, m.dir, "ext4", dataFlags, dataOptions); merr == nil {
				r.Warning = fmt.Sprintf("the file system on %s is used, but %v", dev, err)
				m.grown(&r, "")
				return r, saved, nil
			}
		}
		if !damaged(err) {
			// A write-protected disk, a driver that is not there: what is on it is
			// good, and nothing here may take it away.
			return Data{}, saved, fmt.Errorf("mount: %w", err)
		}
		if !whole && !ours {
			return Data{}, saved, fmt.Errorf("mount: %w, and no director made its file system: to have it replaced, write zeros to its first MiB", err)
		}
		r.Warning = fmt.Sprintf("the file system on %s is damaged (%v): made a new one", dev, err)
		if serr == nil {
			r.Warning += ", and what was readable of its files was put back"
		} else {
			r.Warning += fmt.Sprintf("; its files are lost: %v", serr)
		}
		return m.fresh(r, saved)
	case isOther:
		if !whole {
			return Data{}, "", errors.New("it holds something else: to have it replaced, write zeros to its first MiB")
		}
		r.Warning = fmt.Sprintf("%s is the data disk but held something else: made a new file system", dev)
	}
	return m.fresh(r, "")
}

// errFaulty is what attach says of a file system with errors, as the kernel does
// of one that it cannot mount.
var errFaulty = fmt.Errorf("the kernel met an error in it: %w", unix.EUCLEAN)

// attach mounts a file system unless the kernel has met an error in it: it would
// become read-only as soon as the kernel comes upon that again, at every boot, for
// nothing here repairs it.
func (m mounter) attach(dev string) error {
	if err := unix.Mount(dev, m.dir, "ext4", dataFlags, dataOptions); err != nil {
		return err
	}
	// Now that it is mounted it tells of an error in the journal too.
	const state, hadErrors = 0x3a, 2 // s_state, EXT4_ERROR_FS
	b, err := superblock(dev)
	if err != nil || binary.LittleEndian.Uint16(b[state:])&hadErrors == 0 {
		return nil
	}
	if err := unix.Unmount(m.dir, 0); err != nil {
		return fmt.Errorf("%v, and it does not let go: %w", errFaulty, err)
	}
	return errFaulty
}

// Fault tells, in a line for whoever comes to the box, that the kernel met an error
// in the data disk's file system: it makes it read-only then. "" is no error.
func (d Data) Fault() string {
	if d.Device == "" || readNumber(filepath.Join("/sys/fs/ext4", filepath.Base(d.Device), "errors_count")) == 0 {
		return ""
	}
	return fmt.Sprintf("the file system on %s has an error, and the kernel may write nothing more there: \"show log kernel\" tells which; a reboot makes a new one with what can be read", d.Device)
}

// fresh makes and mounts a new file system with the saved files in it.
func (m mounter) fresh(r Data, saved string) (Data, string, error) {
	if err := m.format(r.Device); err != nil {
		return Data{}, saved, err
	}
	if err := unix.Mount(r.Device, m.dir, "ext4", dataFlags, dataOptions); err != nil {
		return Data{}, saved, fmt.Errorf("mount the new file system: %w", err)
	}
	r.Fresh = true
	m.grown(&r, "new, ")
	if saved != "" {
		if err := copyTree(saved, m.dir); err != nil {
			r.Warning += fmt.Sprintf("; putting them back: %v", err)
		}
		unix.Sync() // they are nowhere else
	}
	return r, saved, nil
}

// grown lets the mounted file system fill its disk. One that stays small is
// still one that works.
func (m mounter) grown(r *Data, note string) {
	size, err := m.grow(r.Device)
	r.Note = r.Device + ", " + note + size
	if err != nil {
		if r.Warning != "" {
			r.Warning += "; "
		}
		r.Warning += fmt.Sprintf("%s stays smaller than its disk: %v", m.dir, err)
	}
}

// damaged reports whether an error of mount says that the file system itself
// is no good: ext4 tells so by EUCLEAN (EFSCORRUPTED), EBADMSG (EFSBADCRC), EINVAL (its
// superblock) and EIO (it cannot be read).
func damaged(err error) bool {
	for _, e := range []error{unix.EUCLEAN, unix.EBADMSG, unix.EINVAL, unix.EIO} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// What is on a disk.
const (
	isBlank = iota
	isExt4
	isOther
)

// probe looks at the beginning of a disk: all zeros is blank. ours tells
// whether an image brought its file system.
func probe(dev string) (kind int, ours bool, err error) {
	f, err := os.Open(dev)
	if err != nil {
		return 0, false, err
	}
	defer f.Close()
	b := make([]byte, 128<<10)
	if _, err := io.ReadFull(f, b); err != nil {
		return 0, false, fmt.Errorf("read %s: %w", dev, err)
	}
	uuid, err := hex.DecodeString(strings.ReplaceAll(board.DataUUID, "-", ""))
	return probeBytes(b), err == nil && bytes.Equal(b[1024+0x68:][:16], uuid), nil // s_uuid
}

func probeBytes(b []byte) int {
	const magic = 1024 + 0x38 // ext4's superblock, s_magic
	if len(b) > magic+2 && binary.LittleEndian.Uint16(b[magic:]) == 0xef53 {
		return isExt4
	}
	if len(bytes.Trim(b, "\x00")) == 0 {
		return isBlank
	}
	return isOther
}

// format writes the empty file system of the image to a disk.
func (m mounter) format(dev string) error {
	src, err := os.Open(m.template)
	if err != nil {
		return fmt.Errorf("format: %w", err)
	}
	defer src.Close()
	return formatFrom(dev, src)
}

func formatFrom(dev string, src io.Reader) error {
	z, err := zstd.NewReader(src, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
	if err != nil {
		return fmt.Errorf("format: %w", err)
	}
	defer z.Close()
	dst, err := os.OpenFile(dev, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("format: %w", err)
	}
	defer dst.Close()
	// The first block comes last: a disk whose power failed meanwhile still
	// counts as blank.
	first := make([]byte, 1<<20)
	n, err := fill(z, first)
	if err != nil && err != io.EOF {
		return fmt.Errorf("format %s: %w", dev, err)
	}
	// Nearly all of it is zeros, which many disks write by themselves.
	zeroed := zeroOut(dst, templateSize) == nil
	if !zeroed {
		if _, err := dst.WriteAt(make([]byte, n), 0); err != nil {
			return fmt.Errorf("format %s: %w", dev, err)
		}
	}
	for at, b := int64(n), make([]byte, 1<<20); err == nil; at += int64(len(b)) {
		var m int
		m, err = fill(z, b)
		if m > 0 && (!zeroed || at+int64(m) > templateSize || len(bytes.Trim(b[:m], "\x00")) > 0) {
			if _, err := dst.WriteAt(b[:m], at); err != nil {
				return fmt.Errorf("format %s: %w", dev, err)
			}
		}
	}
	if err != io.EOF {
		return fmt.Errorf("format %s: %w", dev, err)
	}
	if err := dst.Sync(); err != nil {
		return fmt.Errorf("format %s: %w", dev, err)
	}
	if _, err := dst.WriteAt(first[:n], 0); err != nil {
		return fmt.Errorf("format %s: %w", dev, err)
	}
	if err := dst.Sync(); err != nil {
		return fmt.Errorf("format %s: %w", dev, err)
	}
	return nil
}

// fill reads until b is full or r ends. Unlike io.ReadFull it tells the end of
// r (io.EOF) from the error of a stream that breaks off.
func fill(r io.Reader, b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var m int
		m, err = r.Read(b[n:])
		n += m
	}
	return n, err
}

// templateSize is how large the empty file system of the image is.
const templateSize = layout.SizeData << 20

// zeroOut has the first n bytes of a disk written with zeros by the kernel
// (BLKZEROOUT).
func zeroOut(f *os.File, n uint64) error {
	r := [2]uint64{0, n}
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.BLKZEROOUT, uintptr(unsafe.Pointer(&r))); e != 0 {
		return e
	}
	return nil
}

// ext4ResizeFS is EXT4_IOC_RESIZE_FS, _IOW('f', 16, __u64): the new size in
// blocks (fs/ext4/ext4.h).
const ext4ResizeFS = 0x40086610

// grow makes the mounted file system as large as its disk.
func (m mounter) grow(dev string) (string, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(m.dir, &st); err != nil {
		return "", fmt.Errorf("grow: %w", err)
	}
	b, err := os.ReadFile(filepath.Join(m.sys, filepath.Base(dev), "size"))
	if err != nil {
		return "", fmt.Errorf("grow: %w", err)
	}
	sectors, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return "", fmt.Errorf("grow: size of %s: %w", dev, err)
	}
	want := (sectors*512 - min(m.reserve, sectors*512)) / uint64(st.Bsize)
	size := fmt.Sprintf("%d MiB", sectors>>11)
	// statfs counts without the file system's own tables; a tenth is more than
	// they take.
	if st.Blocks >= want*9/10 {
		return size, nil
	}
	d, err := os.Open(m.dir)
	if err != nil {
		return size, fmt.Errorf("grow: %w", err)
	}
	defer d.Close()
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, d.Fd(), ext4ResizeFS, uintptr(unsafe.Pointer(&want))); e != 0 {
		return size, fmt.Errorf("grow %s to %d blocks: %w", dev, want, e)
	}
	return size + ", grown", nil
}

// maxRescue bounds what is copied of a damaged disk: configurations and keys
// are small. A file for which there is no room is left out, the next ones are not.
const maxRescue = 32 << 20

// rescue copies what can be read of a file system that cannot be mounted for
// writing into memory, and returns where.
func (m mounter) rescue(dev string) (string, error) {
	dir, err := os.MkdirTemp(m.run, "rescue")
	if err != nil {
		return "", err
	}
	if err := unix.Mount(dev, m.dir, "ext4", unix.MS_RDONLY|dataFlags, "noload"); err != nil {
		os.RemoveAll(dir)
		return "", fmt.Errorf("it cannot be read either: %w", err)
	}
	copyTree(m.dir, dir) // some of it is better than nothing
	if err := unix.Unmount(m.dir, 0); err != nil {
		os.RemoveAll(dir)
		return "", fmt.Errorf("unmount: %w", err)
	}
	return dir, nil
}

// copyTree copies regular files and folders with owners and modes, as far as
// they can be read.
func copyTree(from, to string) error {
	var errs []error
	total := int64(0)
	err := filepath.WalkDir(from, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			errs = append(errs, err)
			return nil
		}
		rel, err := filepath.Rel(from, p)
		if err != nil || rel == "." {
			return err
		}
		if rel == "lost+found" {
			return fs.SkipDir
		}
		st, err := d.Info()
		if err != nil {
			errs = append(errs, err)
			return nil
		}
		dst := filepath.Join(to, rel)
		switch {
		case d.IsDir():
			err = os.MkdirAll(dst, 0o700)
		case st.Mode().IsRegular():
			if st.Size() > maxRescue-total {
				errs = append(errs, fmt.Errorf("%s: more than %d MiB", rel, maxRescue>>20))
				return nil
			}
			total += st.Size()
			var b []byte
			if b, err = os.ReadFile(p); err == nil {
				err = os.WriteFile(dst, b, 0o600)
			}
		default:
			return nil
		}
		if err == nil {
			if sys, ok := st.Sys().(*syscall.Stat_t); ok {
				err = os.Chown(dst, int(sys.Uid), int(sys.Gid))
			}
			os.Chmod(dst, st.Mode().Perm())
		}
		if err != nil {
			errs = append(errs, err)
		}
		return nil
	})
	return errors.Join(append(errs, err)...)
}

// UnmountData ends the use of the data disk: unmounted, or at least read-only.
func UnmountData() error {
	unix.Sync()
	err := unix.Unmount(DataDir, 0)
	if err == nil || errors.Is(err, unix.EINVAL) { // EINVAL: not mounted
		return nil
	}
	if rerr := unix.Mount("", DataDir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); rerr != nil {
		return fmt.Errorf("unmount %s: %w", DataDir, err)
	}
	return nil
}
