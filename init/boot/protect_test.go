package boot

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A folder of scripts gets a file system of its own, with what is in it, and can
// be written when the one below it cannot.
func TestOwnRoom(t *testing.T) {
	if os.Getenv("ROOM_TEST") == "" {
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestOwnRoom$", "-test.v")
		cmd.Env = append(os.Environ(), "ROOM_TEST=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("in its namespace: %v\n%s", err, out)
		}
		return
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	root := "/run/root"
	dir := filepath.Join(root, "scripts")
	if err := errors.Join(os.MkdirAll(root, 0o755), unix.Mount("tmpfs", root, "tmpfs", 0, "mode=0755"), os.MkdirAll(filepath.Join(dir, "bin"), 0o750),
		os.WriteFile(filepath.Join(dir, "bin/check"), []byte("#!/bin/sh\n"), 0o755), os.Symlink("bin/check", filepath.Join(dir, "link")),
		os.Chown(filepath.Join(dir, "bin/check"), 101, 100), os.Chown(dir, 101, 100)); err != nil {
		t.Fatal(err)
	}
	if err := ownRoom(dir); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", root, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "x"), nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("the folder around: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bin/new"), nil, 0o600); err != nil {
		t.Errorf("the folder of scripts: %v", err)
	}
	var st unix.Stat_t
	for name, want := range map[string]uint32{"bin/check": unix.S_IFREG | 0o755, "bin": unix.S_IFDIR | 0o750, "link": unix.S_IFLNK | 0o777} {
		if err := unix.Lstat(filepath.Join(dir, name), &st); err != nil || st.Mode != want {
			t.Errorf("%s: mode %o, %v; want %o", name, st.Mode, err, want)
		}
		if name == "bin/check" && (st.Uid != 101 || st.Gid != 100) {
			t.Errorf("%s: of %d:%d", name, st.Uid, st.Gid)
		}
	}
	if b, err := os.ReadFile(filepath.Join(dir, "link")); err != nil || string(b) != "#!/bin/sh\n" {
		t.Errorf("%q, %v", b, err)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); f[1] == dir && !(strings.Contains(f[3], "nosuid") && strings.Contains(f[3], "nodev")) {
			t.Errorf("%s", line)
		}
	}
	if left, _ := filepath.Glob("/run/.room-*"); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}
