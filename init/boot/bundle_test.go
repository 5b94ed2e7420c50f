package boot

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// aStick is a USB stick with files on it; the box booted from the disk except.
func aStick(t *testing.T, except string, files map[string]string) sticks {
	t.Helper()
	b := newBeginnings(t, "ANY", files)
	list, err := os.ReadDir(b.sys)
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	name := list[0].Name()
	// As in sysfs: the class has a link to the device behind its bus.
	at := filepath.Join(filepath.Dir(b.sys), "devices/usb1/1-1/block/sda")
	if err := os.MkdirAll(filepath.Join(at, name), 0o755); err != nil {
		t.Fatal(err)
	}
	os.Remove(filepath.Join(b.sys, name))
	if err := os.Symlink(filepath.Join(at, name), filepath.Join(b.sys, name)); err != nil {
		t.Fatal(err)
	}
	return sticks{sys: b.sys, dev: b.dev, mount: b.mount, except: except}
}

func TestBundleOnAStick(t *testing.T) {
	for _, c := range []struct {
		name   string
		except string
		files  map[string]string
		want   string // what is read; else
		err    string
	}{
		{"by its name", "", map[string]string{"ballast-qemu.bundle": "right", "other.bundle": "wrong", "notes.txt": "x"}, "right", ""},
		{"the only one", "", map[string]string{"new firmware.bundle": "right", ".trash.bundle": "x"}, "right", ""},
		{"two", "", map[string]string{"a.bundle": "x", "b.bundle": "x"}, "", "there are a.bundle, b.bundle"},
		{"none", "", map[string]string{"notes.txt": "x"}, "", "there is no ballast-qemu.bundle in its root folder: copy it there, or send it by SSH"},
		{"a link", "", map[string]string{"ballast-qemu.bundle": "-> /etc/passwd"}, "", "copy the file itself to the stick"},
		{"a folder", "", map[string]string{"ballast-qemu.bundle/x": "y"}, "", "ballast-qemu.bundle is no file: copy a bundle to the stick"},
		{"the disk it booted from", "sda", map[string]string{"ballast-qemu.bundle": "x"}, "", "there is no USB stick"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := aStick(t, c.except, c.files)
			got := ""
			err := s.bundle("ballast-qemu.bundle", func(_ string, r io.Reader) error {
				b, err := io.ReadAll(r)
				got = string(b)
				return err
			})
			if got != c.want || c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
				t.Errorf("read %q, %v; want %q, %q", got, err, c.want, c.err)
			}
			if _, err := os.Stat(s.mount); err == nil {
				t.Error("the stick is still there")
			}
		})
	}
	s := aStick(t, "", map[string]string{"ballast-qemu.bundle": "x"})
	if err := s.bundle("ballast-qemu.bundle", func(string, io.Reader) error { return errors.New("nobody takes it") }); err == nil || err.Error() != "nobody takes it" {
		t.Errorf("what the reader says: %v", err)
	}
	s = aStick(t, "sd", map[string]string{"ballast-qemu.bundle": "x"})
	take := func(string, io.Reader) error { return nil }
	if err := s.bundle("ballast-qemu.bundle", take); err != nil {
		t.Errorf("a stick beside a disk with a shorter name: %v", err)
	}
	list, _ := os.ReadDir(s.sys)
	if _, err := mountStick(filepath.Join(s.dev, list[0].Name()), s.mount, "vfat"); err == nil || !strings.HasPrefix(err.Error(), "mount as vfat: ") || !strings.HasSuffix(err.Error(), ": take another stick, or send the bundle by SSH") {
		t.Errorf("a stick of another kind: %v", err)
	}
	os.Remove(s.mount)
	s.except = list[0].Name()
	if err := s.bundle("ballast-qemu.bundle", take); err == nil || !strings.Contains(err.Error(), "there is no USB stick") {
		t.Errorf("a disk without partitions that it booted from: %v", err)
	}
	s.except = ""
	at := filepath.Join(filepath.Dir(s.sys), "devices")
	if err := errors.Join(os.Rename(at+"/usb1", at+"/ata1"), os.Remove(filepath.Join(s.sys, list[0].Name())),
		os.Symlink(filepath.Join(at, "ata1/1-1/block/sda", list[0].Name()), filepath.Join(s.sys, list[0].Name()))); err != nil {
		t.Fatal(err)
	}
	if err := s.bundle("ballast-qemu.bundle", take); err == nil || !strings.Contains(err.Error(), "there is no USB stick") {
		t.Errorf("a disk that is built in: %v", err)
	}
	if err := (sticks{sys: t.TempDir()}).bundle("x", nil); err == nil || !strings.Contains(err.Error(), "there is no USB stick") {
		t.Errorf("no disks at all: %v", err)
	}
}
