package boot

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Discard removes what is in a folder of the read-only root file system, which is
// memory, and returns how many bytes that frees. It does so through a mount of
// that folder that nobody else can see: the one in the tree stays read-only.
func Discard(dir string) (freed int64, err error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return 0, fmt.Errorf("clone the mount of %s: %w", dir, err)
	}
	defer unix.Close(fd)
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY}); err != nil {
		return 0, fmt.Errorf("make the clone of %s writable: %w", dir, err)
	}
	dir = fmt.Sprintf("/proc/self/fd/%d", fd)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	filepath.WalkDir(dir+"/.", func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if i, err := d.Info(); err == nil {
				freed += i.Size()
			}
		}
		return nil
	})
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return freed, err
		}
	}
	return freed, nil
}
