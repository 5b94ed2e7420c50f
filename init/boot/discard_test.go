package boot

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// What is in the folder is gone, what is beside it is not, and nothing can be
// written afterwards, as before.
func TestDiscard(t *testing.T) {
	root := t.TempDir()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // the thread ends, and its mounts with it
		if err := errors.Join(unix.Unshare(unix.CLONE_NEWNS), unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
			unix.Mount("tmpfs", root, "tmpfs", 0, "")); err != nil {
			t.Error(err)
			return
		}
		dir := filepath.Join(root, "lib/modules")
		if err := errors.Join(os.MkdirAll(filepath.Join(dir, "1/kernel"), 0o755), os.WriteFile(filepath.Join(dir, "1/kernel/a.ko"), make([]byte, 5000), 0o644),
			os.WriteFile(filepath.Join(root, "lib/b"), nil, 0o644)); err != nil {
			t.Error(err)
			return
		}
		if err := unix.Mount("", root, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
			t.Error(err)
			return
		}
		if freed, err := Discard(dir); freed != 5000 || err != nil {
			t.Errorf("%d bytes, %v", freed, err)
		}
		if left, err := os.ReadDir(dir); len(left) > 0 || err != nil {
			t.Errorf("%v, %v", left, err)
		}
		if _, err := os.Stat(filepath.Join(root, "lib/b")); err != nil {
			t.Error(err)
		}
		if err := os.WriteFile(filepath.Join(root, "c"), nil, 0o644); !errors.Is(err, unix.EROFS) {
			t.Errorf("written afterwards: %v", err)
		}
		if err := os.WriteFile(filepath.Join(dir, "c"), nil, 0o644); !errors.Is(err, unix.EROFS) {
			t.Errorf("written there afterwards: %v", err)
		}
		if _, err := Discard(filepath.Join(root, "none")); err == nil {
			t.Error("a folder that is not there")
		}
		if err := os.WriteFile(filepath.Join(root, "c"), nil, 0o644); !errors.Is(err, unix.EROFS) {
			t.Errorf("written after a fault: %v", err)
		}
	}()
	<-done
}
