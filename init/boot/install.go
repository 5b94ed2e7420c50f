package boot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"ballast/image/layout"
)

// carryDir is where the data partition of a disk is mounted while it gets the
// data of this box.
const carryDir = "/run/carry"

// Disks are the names of the whole disks of this box.
func Disks() []string { return disks("/sys/class/block") }

// Carry makes the data partition of a disk that has just been written and gives
// it what this box has in its data folder: configuration, keys, journal. What
// belongs to the disk that this box runs from stays there.
func Carry(name, host string) (note string, err error) {
	m := director
	m.dir = carryDir
	return m.carry(name, host, DataDir)
}

// carry is Carry of the data in a folder; the partition is mounted where m says.
func (m mounter) carry(name, host, data string) (note string, err error) {
	if !slices.Contains(Disks(), name) {
		return "", fmt.Errorf("there is no disk %s", name)
	}
	d := BootDisk{Device: filepath.Join("/dev", name), name: name, sys: "/sys/class/block"}
	d.size = int64(readNumber(filepath.Join(d.sys, name, "size"))) * 512 // whatever its own sectors are
	f, err := os.Open(d.Device)
	if err != nil {
		return "", err
	}
	err = unix.IoctlSetInt(int(f.Fd()), unix.BLKRRPART, 0)
	f.Close()
	if err != nil {
		return "", fmt.Errorf("%s: have the kernel read its partitions: %w", name, err)
	}
	if note, err = d.Fit(); err != nil {
		return note, err
	}
	r, err := m.mountAt(d.Partition(layout.NumberData))
	if err != nil {
		return note, fmt.Errorf("data of %s: %w", name, err)
	}
	defer func() {
		unix.Sync()
		err = errors.Join(err, unix.Unmount(m.dir, 0), os.Remove(m.dir))
	}()
	if r.Warning != "" {
		note += "; " + r.Warning
	}
	if r.Stateless {
		return note, fmt.Errorf("data of %s: %s", name, r.Warning)
	}
	if err := copyTree(data, m.dir); err != nil {
		return note, fmt.Errorf("data of %s: %w", name, err)
	}
	for _, own := range []string{"firmware", "firmware-word.json", "crash"} {
		if err := os.RemoveAll(filepath.Join(m.dir, own)); err != nil {
			return note, fmt.Errorf("data of %s: %w", name, err)
		}
	}
	// A box whose data is in memory keeps no name there.
	p := filepath.Join(m.dir, hostFile)
	if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(host+"\n"), 0o644)); err != nil {
		return note, fmt.Errorf("data of %s: %w", name, err)
	}
	return note, nil
}
