package boot

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"ballast/board"
)

// A disk of the tests is a loop device, and everything is mounted in a mount
// namespace of the test's own thread.
type disk struct {
	mounter
	img, dev string
	data     board.Data
}

// newDisk makes one of 16 MiB; size is what the kernel is said to tell of it.
func newDisk(t *testing.T, size int64, readOnly bool, prepare func(img string)) *disk {
	t.Helper()
	runtime.LockOSThread() // never unlocked: the thread, and its mounts, end with the test
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	d := &disk{img: dir + "/img", mounter: mounter{sys: dir + "/sys", dir: dir + "/data", run: dir, template: dir + "/template"}}
	f, err := os.Create(d.img)
	if err != nil {
		t.Fatal(err)
	}
	f.Truncate(16 << 20)
	f.Close()
	prepare(d.img)
	args := []string{"-f", "--show", d.img}
	if readOnly {
		args = append([]string{"-r"}, args...)
	}
	d.dev = strings.TrimSpace(run(t, "losetup", args...))
	t.Cleanup(func() {
		unix.Unmount(d.dir, unix.MNT_DETACH)
		unix.Unmount(d.dir, unix.MNT_DETACH)
		run(t, "losetup", "-d", d.dev)
	})
	name := filepath.Base(d.dev)
	write(t, d.sys+"/"+name+"/serial", "ballast-data\n")
	write(t, d.sys+"/"+name+"/size", fmt.Sprintln(size/512))
	d.data = board.Data{Serial: "ballast-data"}

	empty := dir + "/empty"
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	os.Truncate(empty, 8<<20)
	run(t, "mkfs.ext4", "-q", empty)
	b, err := os.ReadFile(empty)
	if err != nil {
		t.Fatal(err)
	}
	e, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	write(t, d.template, string(e.EncodeAll(b, nil)))
	return d
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
	return string(out)
}

// withConfig makes a file system of n MiB that holds a configuration.
func withConfig(t *testing.T, mib int) func(string) {
	return func(img string) {
		src := t.TempDir()
		write(t, src+"/conf/running", "generation 7")
		run(t, "mkfs.ext4", "-q", "-d", src, img, fmt.Sprintf("%dM", mib))
	}
}

// zeroJournal takes the journal's own header away.
func zeroJournal(t *testing.T, img string) {
	var block, size int64
	// debugfs says its version first, on standard error.
	if _, err := fmt.Sscan(run(t, "sh", "-c", "debugfs -R 'bmap <8> 0' "+img+" 2>/dev/null"), &block); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(run(t, "sh", "-c", "dumpe2fs -h "+img+" 2>/dev/null")) {
		if v, ok := strings.CutPrefix(line, "Block size:"); ok {
			fmt.Sscan(v, &size)
		}
	}
	f, err := os.OpenFile(img, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(make([]byte, size), block*size); err != nil || size == 0 {
		t.Fatal(size, err)
	}
}

func (d *disk) config() string {
	b, _ := os.ReadFile(d.dir + "/conf/running")
	return string(b)
}

func TestMountData(t *testing.T) {
	tests := []struct {
		name      string
		readOnly  bool
		prepare   func(*testing.T) func(string)
		stateless bool
		config    string
		warning   string // part of it
		larger    bool   // the disk is, than the file system
	}{
		{"blank", false, func(*testing.T) func(string) { return func(string) {} }, false, "", "", false},
		{"good", false, func(t *testing.T) func(string) { return withConfig(t, 16) }, false, "generation 7", "", false},
		{"garbage", false, func(t *testing.T) func(string) {
			return func(img string) {
				f, err := os.OpenFile(img, os.O_WRONLY, 0)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				f.WriteString(strings.Repeat("garbage ", 1<<20))
			}
		}, false, "", "held something else", false},
		// The configuration is what a director must not lose: where a disk
		// cannot be written it is used from memory, and the disk stays as it is.
		{"write-protected", true, func(t *testing.T) func(string) { return withConfig(t, 16) }, true, "generation 7", "cannot be used", false},
		{"had errors, and the disk is larger", false, func(t *testing.T) func(string) {
			return func(img string) {
				withConfig(t, 8)(img)
				run(t, "debugfs", "-w", "-R", "set_super_value state 2", img)
			}
		}, false, "generation 7", "the kernel met an error in it", true},
		{"damaged", false, func(t *testing.T) func(string) {
			return func(img string) {
				withConfig(t, 16)(img)
				zeroJournal(t, img)
			}
		}, false, "generation 7", "was put back", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			size := int64(4 << 20)
			if tt.larger {
				size = 16 << 20
			}
			d := newDisk(t, size, tt.readOnly, tt.prepare(t))
			before, err := os.ReadFile(d.img)
			if err != nil {
				t.Fatal(err)
			}
			got, err := d.mount(d.data)
			if err != nil {
				t.Fatal(err)
			}
			if got.Stateless != tt.stateless || d.config() != tt.config || !strings.Contains(got.Warning, tt.warning) || (tt.warning == "") != (got.Warning == "") {
				t.Errorf("%+v, configuration %q; want stateless %v, %q, warning with %q", got, d.config(), tt.stateless, tt.config, tt.warning)
			}
			if left, _ := filepath.Glob(d.run + "/rescue*"); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
			if after, err := os.ReadFile(d.img); tt.readOnly && (err != nil || string(after) != string(before)) {
				t.Errorf("the disk was written to (%v)", err)
			}
		})
	}
}

// The kernel meets an error while the box runs: that is told of at once, and the
// next boot begins with a file system that can be written.
func TestFault(t *testing.T) {
	d := newDisk(t, 16<<20, false, withConfig(t, 16))
	got, err := d.mount(d.data)
	if err != nil || got.Warning != "" || got.Fault() != "" {
		t.Fatalf("%+v, %v, %q", got, err, got.Fault())
	}
	if err := os.WriteFile(filepath.Join("/sys/fs/ext4", filepath.Base(d.dev), "trigger_fs_error"), []byte("test"), 0); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.dir+"/new", []byte("x"), 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("written with an error: %v", err)
	}
	if f := got.Fault(); !strings.Contains(f, d.dev) {
		t.Errorf("nothing tells of the error: %q", f)
	}
	if err := unix.Unmount(d.dir, 0); err != nil {
		t.Fatal(err)
	}
	got, err = d.mount(d.data)
	if err != nil || !got.Fresh || got.Stateless || !strings.Contains(got.Warning, "was put back") || d.config() != "generation 7" || got.Fault() != "" {
		t.Errorf("%+v, %v, configuration %q, %q", got, err, d.config(), got.Fault())
	}
	if err := os.WriteFile(d.dir+"/new", []byte("x"), 0o600); err != nil {
		t.Error(err)
	}
}

// A file that is too large to be saved costs no other one.
func TestRescueRoom(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	write(t, from+"/a/large", "")
	if err := os.Truncate(from+"/a/large", maxRescue+1); err != nil {
		t.Fatal(err)
	}
	write(t, from+"/conf/running", "generation 7")
	if err := copyTree(from, to); err == nil || !strings.Contains(err.Error(), "a/large: more than 32 MiB") {
		t.Errorf("%v", err)
	}
	if b, err := os.ReadFile(to + "/conf/running"); string(b) != "generation 7" {
		t.Errorf("%q, %v", b, err)
	}
}

// "data" is a name that many give to a partition: what is on one that no
// director made is not replaced.
func TestPartitionOfOthers(t *testing.T) {
	tests := []struct {
		name    string
		prepare func(*testing.T, string)
		config  string
		warning string
		written bool
	}{
		{"something else", func(t *testing.T, img string) {
			write(t, img+"2", "pictures")
			run(t, "dd", "conv=notrunc", "if="+img+"2", "of="+img)
		}, "", "holds something else", false},
		{"damaged, of others", func(t *testing.T, img string) { withConfig(t, 16)(img); zeroJournal(t, img) }, "generation 7", "no director made", false},
		// The kernel refuses to resize a file system that had errors.
		{"had errors, of others", func(t *testing.T, img string) {
			withConfig(t, 2)(img)
			run(t, "debugfs", "-w", "-R", "set_super_value state 2", img)
		}, "generation 7", "is used, but the kernel met an error in it: structure needs cleaning; ", true},
		{"damaged, ours", func(t *testing.T, img string) {
			withConfig(t, 16)(img)
			run(t, "tune2fs", "-U", board.DataUUID, img)
			zeroJournal(t, img)
		}, "generation 7", "was put back", true},
		{"blank", func(*testing.T, string) {}, "", "", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := newDisk(t, 4<<20, false, func(img string) { tt.prepare(t, img) })
			write(t, filepath.Join(d.sys, filepath.Base(d.dev), "uevent"), "MAJOR=8\nPARTNAME=data\n")
			before, _ := os.ReadFile(d.img)
			got, err := d.mount(board.Data{Serial: "no", Partition: "data"})
			if err != nil {
				t.Fatal(err)
			}
			if got.Stateless == tt.written || d.config() != tt.config || !strings.Contains(got.Warning, tt.warning) {
				t.Errorf("%+v, configuration %q", got, d.config())
			}
			if after, _ := os.ReadFile(d.img); !tt.written && string(after) != string(before) {
				t.Error("it was written to")
			}
		})
	}
}

// Only what says that the file system itself is no good may cost its files.
func TestDamaged(t *testing.T) {
	for err, want := range map[error]bool{
		unix.EUCLEAN: true, unix.EBADMSG: true, unix.EINVAL: true, unix.EIO: true,
		unix.ENODEV: false, unix.EROFS: false, unix.EACCES: false, unix.ENOMEM: false, unix.EBUSY: false, unix.EPERM: false, unix.ENXIO: false,
	} {
		if got := damaged(fmt.Errorf("mount: %w", err)); got != want {
			t.Errorf("%v: %v, want %v", err, got, want)
		}
	}
}
