package boot

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	idisk "ballast/image/disk"

	"ballast/image/bundle"
	"ballast/image/layout"
)

// A disk that was just written gets a data partition over the rest of it, with
// what the box has, but for what belongs to the disk that it runs from.
func TestCarry(t *testing.T) {
	d := newDisk(t, 16<<20, false, func(string) {}) // for its template
	img := filepath.Join(t.TempDir(), "disk")
	func() {
		f, err := os.Create(img)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := f.Truncate(700 << 20); err != nil {
			t.Fatal(err)
		}
		cfg, err := idisk.SlotConfig{Identity: layout.Identity{Version: "1", Board: "qemu", Kernel: "6"}, Linux: idisk.Range{Offset: 512, Size: 9}, Initrd: idisk.Range{Offset: 1024, Size: 9}}.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		parts := []bundle.File{{Name: bundle.SlotConfig, Data: cfg}, {Name: bundle.Firmware, Data: bytes.Repeat([]byte{1}, 4096)},
			{Name: bundle.BootCode, Data: make([]byte, 440)}, {Name: bundle.CoreImage, Data: []byte("core")}, {Name: bundle.Loader, Data: []byte("loader")}}
		if err := idisk.Write(f, idisk.FromFiles(parts...), idisk.Options{}); err != nil {
			t.Fatal(err)
		}
	}()
	dev := strings.TrimSpace(run(t, "losetup", "-P", "-f", "--show", img))
	t.Cleanup(func() { run(t, "losetup", "-d", dev) })
	data := filepath.Join(t.TempDir(), "data")
	for name, text := range map[string]string{"conf/configuration/generations/3": "text", "peer/peer_ed25519_key": "key",
		"firmware/history.json": "of this disk", "firmware-word.json": "of this disk", "crash/1.json": "of this disk", "init/hostname": "ballast\n"} {
		write(t, filepath.Join(data, name), text)
	}
	if err := os.Chown(filepath.Join(data, "peer/peer_ed25519_key"), 110, 100); err != nil {
		t.Fatal(err)
	}
	name := filepath.Base(dev)
	at := filepath.Join(t.TempDir(), "at")
	m := mounter{sys: "/sys/class/block", dir: at, run: d.run, template: d.template}
	note, err := m.carry(name, "lb3", data)
	if err != nil {
		t.Fatalf("%v (%s)", err, note)
	}
	if !strings.Contains(note, "data: ") {
		t.Errorf("it says %q", note)
	}
	if _, err := os.Stat(at); err == nil {
		t.Error("it is mounted still")
	}
	if err := os.Mkdir(at, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(dev+"p5", at, "ext4", unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(at, unix.MNT_DETACH)
	for name, want := range map[string]string{"conf/configuration/generations/3": "text", "peer/peer_ed25519_key": "key", "init/hostname": "lb3\n"} {
		if b, err := os.ReadFile(filepath.Join(at, name)); err != nil || string(b) != want {
			t.Errorf("%s: %v %q", name, err, b)
		}
	}
	if st, err := os.Stat(filepath.Join(at, "peer/peer_ed25519_key")); err != nil || st.Sys().(*syscall.Stat_t).Uid != 110 {
		t.Errorf("the key: %v", err)
	}
	for _, own := range []string{"firmware", "firmware-word.json", "crash"} {
		if _, err := os.Stat(filepath.Join(at, own)); err == nil {
			t.Errorf("%s came along, which belongs to the other disk", own)
		}
	}
	if _, err := m.carry("nothing", "lb3", data); err == nil {
		t.Error("there is no such disk")
	}
}
