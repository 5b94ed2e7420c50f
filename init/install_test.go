package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"ballast/services/ipc"
)

// A disk is lent by a node of its own, whatever was left there; the one in /dev
// keeps its owner.
func TestLend(t *testing.T) {
	dir := t.TempDir()
	dev, node := filepath.Join(dir, "sda"), filepath.Join(dir, "lent", "sda")
	number := unix.Mkdev(7, 250)
	if err := errors.Join(unix.Mknod(dev, unix.S_IFBLK|0o600, int(number)), os.Mkdir(filepath.Dir(node), 0o755),
		unix.Mknod(node, unix.S_IFBLK|0o600, int(unix.Mkdev(7, 251)))); err != nil {
		t.Fatalf("needs root, for nodes of devices: %v", err)
	}
	if err := lend(dev, node, ipc.UIDFirmware); err != nil {
		t.Fatal(err)
	}
	for path, uid := range map[string]uint32{dev: 0, node: ipc.UIDFirmware} {
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			t.Fatal(err)
		}
		if st.Mode != unix.S_IFBLK|0o600 || st.Rdev != number || st.Uid != uid {
			t.Errorf("%s: mode %o, device %d:%d, user %d", path, st.Mode, unix.Major(st.Rdev), unix.Minor(st.Rdev), st.Uid)
		}
	}
	for range 2 { // the second time as after an hour
		if err := endLoan(node); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Lstat(node); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := lend(file, node, ipc.UIDFirmware); err == nil {
		t.Error("a file was lent")
	}
}
