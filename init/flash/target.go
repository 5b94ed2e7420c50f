package flash

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"ballast/image/disk"
	"ballast/image/disk/gpt"
	"ballast/image/layout"
)

// target is the disk that is written.
type target struct {
	path  string // as the user wrote it
	name  string // sdb, or the file's name
	block bool

	size       int64
	sector     int64
	model      string
	serial     string
	removable  bool
	readOnly   bool
	partition  string   // the disk that it is a partition of
	partitions []string // on it
	users      []string // what the kernel says holds it: md0, dm-0
}

// wantDisk is what to name in place of something else, anotherDisk what helps
// where a disk is as it is.
const (
	wantDisk    = "name a whole disk, as /dev/sdX, or a file of the size that it is to have"
	anotherDisk = "or take another disk"
)

// look finds out what the kernel knows of a disk.
func look(sys, path string) (*target, error) {
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && strings.HasPrefix(path, "/dev/"):
		return nil, fmt.Errorf("%w: name a disk of this machine, /proc/partitions lists them", err)
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w: a disk that is a file must be there, with the size that it is to have: %s", err, makes(path))
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%w: run this as root", err)
	case err != nil:
		return nil, fmt.Errorf("%w: %s", err, wantDisk)
	}
	t := &target{path: path, name: filepath.Base(path), size: st.Size(), sector: gpt.Sector}
	switch mode := st.Mode(); {
	case mode.IsRegular():
		t.model = "a file"
		return t, nil
	case mode&os.ModeDevice == 0 || mode&os.ModeCharDevice != 0:
		return nil, fmt.Errorf("%s is no disk: %s", path, wantDisk)
	}
	t.block = true
	var raw unix.Stat_t
	if err := unix.Stat(path, &raw); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	// By its number: what the user named may be a link.
	dir, err := filepath.EvalSymlinks(filepath.Join(sys, "dev/block", fmt.Sprintf("%d:%d", unix.Major(raw.Rdev), unix.Minor(raw.Rdev))))
	if err != nil {
		return nil, fmt.Errorf("%s: the kernel does not know it: %w: is it plugged in? %s", path, err, wantDisk)
	}
	return t, t.read(dir)
}

// read takes what the kernel says in a folder of /sys.
func (t *target) read(dir string) error {
	word := func(name string) string {
		b, _ := os.ReadFile(filepath.Join(dir, name))
		return strings.Join(strings.Fields(string(b)), " ")
	}
	t.name = filepath.Base(dir)
	if word("partition") != "" {
		t.partition = filepath.Base(filepath.Dir(dir))
		return nil
	}
	sectors, err := strconv.ParseInt(word("size"), 10, 64)
	if err != nil {
		return fmt.Errorf("%s: how large it is: %w", t.path, err)
	}
	t.size = sectors * 512 // whatever the disk's own sectors are
	if t.sector, err = strconv.ParseInt(word("queue/logical_block_size"), 10, 64); err != nil {
		return fmt.Errorf("%s: the size of its sectors: %w", t.path, err)
	}
	t.model = word("device/model")
	if v := word("device/vendor"); !strings.HasPrefix(v, "0x") { // of PCI, where the disk has none
		t.model = strings.TrimSpace(v + " " + t.model)
	}
	if t.serial = word("device/serial"); t.serial == "" {
		t.serial = word("serial")
	}
	t.removable, t.readOnly = word("removable") == "1", word("ro") == "1"
	held := func(dir string) {
		holders, _ := os.ReadDir(filepath.Join(dir, "holders"))
		for _, h := range holders {
			t.users = append(t.users, h.Name())
		}
	}
	held(dir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("%s: %w", t.path, err)
	}
	for _, e := range entries {
		if _, err := os.Stat(filepath.Join(dir, e.Name(), "partition")); err == nil {
			t.partitions = append(t.partitions, e.Name())
			held(filepath.Join(dir, e.Name()))
		}
	}
	return nil
}

// describe is one line for a person who decides.
func (t *target) describe() string {
	words := []string{t.path}
	if t.block && filepath.Base(t.path) != t.name {
		words[0] += " (" + t.name + ")"
	}
	if t.model != "" {
		words = append(words, t.model)
	}
	if t.serial != "" {
		words = append(words, "serial "+t.serial)
	}
	if t.partition == "" {
		words = append(words, bytesText(t.size))
	}
	if t.removable {
		words = append(words, "removable")
	}
	if len(t.partitions) > 0 {
		words = append(words, "now with "+strings.Join(t.partitions, " "))
	}
	return strings.Join(words, ", ")
}

// makes says how a file that is a disk comes about.
func makes(path string) string { return fmt.Sprintf("\"truncate -s 2G %s\" makes one", path) }

// bytesText is a size as disks are sold.
func bytesText(n int64) string {
	switch {
	case n >= 1e12:
		return fmt.Sprintf("%.1f TB", float64(n)/1e12)
	case n >= 1e9:
		return fmt.Sprintf("%.1f GB", float64(n)/1e9)
	}
	return fmt.Sprintf("%.0f MB", float64(n)/1e6)
}

// least is the size of the smallest disk: on one that had room for the image only,
// the first boot could not make the data partition, and the box would forget all.
const least = disk.MinSize + layout.SizeData<<20

// check refuses a disk that must not be written.
func (t *target) check(proc string) error {
	switch {
	case t.partition != "":
		return fmt.Errorf("%s is a partition: name the whole disk, /dev/%s", t.path, t.partition)
	case t.readOnly:
		return fmt.Errorf("%s is write-protected: move its switch, %s", t.path, anotherDisk)
	case t.block && t.size == 0:
		return fmt.Errorf("%s has nothing in it: put a card or stick into it, %s", t.path, anotherDisk)
	case t.sector != gpt.Sector:
		return fmt.Errorf("%s has sectors of %d bytes: want a disk with sectors of 512 bytes, or one that is set to them", t.path, t.sector)
	case t.size < least:
		err := fmt.Errorf("%s has %s: want at least %s, of which %d MiB are for what is kept on it", t.path, bytesText(t.size), bytesText(least), layout.SizeData)
		if !t.block {
			err = fmt.Errorf("%w: %s", err, makes(t.path))
		}
		return err
	case len(t.users) > 0:
		return fmt.Errorf("%s is in use by %s: end that first, %s", t.path, strings.Join(t.users, ", "), anotherDisk)
	}
	if !t.block {
		return nil
	}
	ours := func(dev string) bool {
		name := filepath.Base(dev)
		if real, err := filepath.EvalSymlinks(dev); err == nil {
			name = filepath.Base(real)
		}
		for _, p := range append([]string{t.name}, t.partitions...) {
			if name == p && strings.HasPrefix(dev, "/dev/") {
				return true
			}
		}
		return false
	}
	for _, table := range []struct {
		file string
		use  func(dev, column string) string
	}{
		{"self/mounts", func(dev, at string) string { return fmt.Sprintf("%s is mounted on %s: unmount it first", dev, at) }},
		{"swaps", func(dev, _ string) string { return fmt.Sprintf("%[1]s holds swap space: \"swapoff %[1]s\" first", dev) }},
	} {
		b, err := os.ReadFile(filepath.Join(proc, table.file))
		if err != nil {
			continue // O_EXCL finds it as well, with fewer words
		}
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) >= 2 && ours(f[0]) {
				return fmt.Errorf("%s: %s, %s", t.path, table.use(f[0], f[1]), anotherDisk)
			}
		}
	}
	return nil
}

// open takes the disk for nobody else.
func (t *target) open() (*os.File, error) {
	flags := os.O_RDWR
	if t.block {
		flags |= unix.O_EXCL // fails while anything of it is mounted or held
	}
	f, err := os.OpenFile(t.path, flags, 0)
	switch {
	case errors.Is(err, unix.EBUSY):
		return nil, fmt.Errorf("%s is in use: unmount what is on it, and end what works with it, %s", t.path, anotherDisk)
	case errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("%w: run this as root", err)
	case err != nil:
		return nil, fmt.Errorf("%w: take another disk", err)
	}
	return f, nil
}

// reread has the kernel look at the new partition table. A disk that is taken
// out does not need it.
func (t *target) reread() {
	if !t.block {
		return
	}
	if f, err := os.Open(t.path); err == nil {
		_ = unix.IoctlSetInt(int(f.Fd()), unix.BLKRRPART, 0)
		f.Close()
	}
}

// Look says what a disk is, for a person who decides, and why it must not be
// written.
func Look(path string) (about string, err error) {
	t, err := look("/sys", path)
	if err != nil {
		return "", err
	}
	return t.describe(), t.check("/proc")
}
