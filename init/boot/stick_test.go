package boot

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"ballast/configs/store"
)

// fat is the beginning of a FAT file system as mkfs writes it, with a label in
// the boot sector and, where dir is set, one in the root folder.
func fat(thirtyTwo bool, label, dir string) []byte {
	b := make([]byte, 64<<10)
	binary.LittleEndian.PutUint16(b[11:], 512)
	b[13], b[16], b[510], b[511] = 1, 2, 0x55, 0xaa
	binary.LittleEndian.PutUint16(b[14:], 4)
	at := (4 + 2*8) * 512
	if thirtyTwo {
		binary.LittleEndian.PutUint32(b[36:], 8)
		binary.LittleEndian.PutUint32(b[44:], 3) // the root folder begins one cluster later
		at += 512
		copy(b[71:], label+strings.Repeat(" ", 11)[:11-len(label)])
		copy(b[82:], "FAT32   ")
	} else {
		binary.LittleEndian.PutUint16(b[22:], 8)
		copy(b[43:], label+strings.Repeat(" ", 11)[:11-len(label)])
		copy(b[54:], "FAT16   ")
	}
	if dir != "" {
		copy(b[at:], "AB_LONGNAME\x0f")
		copy(b[at+32:], "\xe5LD        \x08")
		copy(b[at+64:], dir+strings.Repeat(" ", 11)[:11-len(dir)]+"\x08")
		copy(b[at+96:], "BALLAST CON\x20")
	}
	return b
}

func TestLabel(t *testing.T) {
	for _, tc := range []struct {
		name        string
		b           []byte
		kind, label string
	}{
		{"FAT32", fat(true, "BALLAST", ""), "vfat", "BALLAST"},
		{"FAT32 named by Windows", fat(true, "NO NAME", "BALLAST"), "vfat", "BALLAST"},
		{"FAT16", fat(false, "BALLAST", ""), "vfat", "BALLAST"},
		{"FAT16 named by Windows", fat(false, "NO NAME", "BALLAST"), "vfat", "BALLAST"},
		{"FAT with another name", fat(true, "BALLAST", "HOLIDAY"), "vfat", "HOLIDAY"},
		{"zeros", make([]byte, 4096), "", ""}, {"short", make([]byte, 100), "", ""},
	} {
		if kind, label := labelOf(bytes.NewReader(tc.b)); kind != tc.kind || label != tc.label {
			t.Errorf("%s: %q %q", tc.name, kind, label)
		}
	}
}

func FuzzLabel(f *testing.F) {
	f.Add(fat(true, "BALLAST", "X"))
	f.Add(fat(false, "BALLAST", ""))
	f.Fuzz(func(t *testing.T, b []byte) {
		if kind, label := labelOf(bytes.NewReader(b)); kind == "" && label != "" || len(label) > 16 {
			t.Errorf("%q %q", kind, label)
		}
	})
}

// newBeginnings is a box with one disk: an ext4 file system of that name with
// files in it, on a loop device.
func newBeginnings(t *testing.T, label string, files map[string]string) beginnings {
	t.Helper()
	runtime.LockOSThread() // never unlocked: the thread, and its mounts, end with the test
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	content := filepath.Join(dir, "content")
	os.MkdirAll(content, 0o755)
	for name, text := range files {
		if to, is := strings.CutPrefix(text, "-> "); is {
			if err := os.Symlink(to, filepath.Join(content, name)); err != nil {
				t.Fatal(err)
			}
			continue
		}
		write(t, filepath.Join(content, name), text)
	}
	img := filepath.Join(dir, "img")
	if err := os.WriteFile(img, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	os.Truncate(img, 8<<20)
	run(t, "mkfs.ext4", "-q", "-L", label, "-d", content, img)
	dev := strings.TrimSpace(run(t, "losetup", "-r", "-f", "--show", img))
	t.Cleanup(func() { run(t, "losetup", "-d", dev) })
	b := beginnings{sys: filepath.Join(dir, "sys"), dev: filepath.Dir(dev), data: filepath.Join(dir, "data"), seed: filepath.Join(dir, "seed"), mount: filepath.Join(dir, "mnt"), nics: []string{"eth0"}}
	os.MkdirAll(filepath.Join(b.sys, filepath.Base(dev)), 0o755)
	return b
}

func (b beginnings) seeded(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(b.seed, name))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(text)
}

func TestStick(t *testing.T) {
	const conf = "vrrp_instance VI_1 {\n}\n"
	b := newBeginnings(t, "BALLAST", map[string]string{"ballast.conf": conf})
	write(t, filepath.Join(b.seed, "config"), "of the image")
	what, faults, err := b.collect("quiet ballast.host=lb1 ballast.address=192.0.2.11 x=y")
	if err != nil || len(faults) != 1 || !strings.Contains(what, "ballast.conf on /dev/loop") || !strings.Contains(what, "words") {
		t.Fatalf("%q %v %v", what, faults, err)
	}
	if got := b.seeded(t, "config"); got != conf {
		t.Errorf("config %q", got)
	}
	if got := b.seeded(t, "words"); got != "system {\n    host_name lb1\n}\n" {
		t.Errorf("words %q", got)
	}
	if _, err := os.Stat(b.mount); err == nil {
		t.Error("the stick is still there")
	}
	// A box that has a configuration looks at none.
	os.RemoveAll(b.seed)
	write(t, filepath.Join(b.data, "conf/configuration/generations/3"), "x")
	if what, faults, err := b.collect("ballast.host=lb1"); what != "" || faults != nil || err != nil || b.seeded(t, "config")+b.seeded(t, "words") != "" {
		t.Errorf("%q %v %v", what, faults, err)
	}
}

func TestStickWithoutAFile(t *testing.T) {
	b := newBeginnings(t, "BALLAST", nil)
	if _, _, err := b.collect(""); err == nil || !strings.Contains(err.Error(), "ballast.conf") || b.seeded(t, "config") != "" {
		t.Errorf("%v", err)
	}
}

func TestStickWithTooMuch(t *testing.T) {
	b := newBeginnings(t, "BALLAST", map[string]string{"ballast.conf": strings.Repeat("\x00", store.MaxText+1)})
	if _, _, err := b.collect(""); err == nil || !strings.Contains(err.Error(), "ballast.conf has more than") || b.seeded(t, "config") != "" {
		t.Errorf("%v", err)
	}
}

// A link on a stick leads to no file of the box.
func TestStickWithALink(t *testing.T) {
	b := newBeginnings(t, "BALLAST", map[string]string{"ballast.conf": "-> /etc/passwd"})
	if _, _, err := b.collect(""); err == nil || b.seeded(t, "config") != "" {
		t.Errorf("%v", err)
	}
}

func TestAnotherDisk(t *testing.T) {
	b := newBeginnings(t, "backup", map[string]string{"ballast.conf": "x"})
	if what, _, err := b.collect(""); what != "" || err != nil || b.seeded(t, "config") != "" {
		t.Errorf("%q %v", what, err)
	}
}
