package image

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"ballast/board"
	"ballast/image/disk"
	"ballast/image/disk/gpt"
	"ballast/image/layout"
)

// What is made of a kernel and an initramfs is the same every time, whatever the
// clock says, and slot.cfg knows where they are.
func TestArtefacts(t *testing.T) {
	vmlinuz, initramfs := bytes.Repeat([]byte("kernel"), 100_000), bytes.Repeat([]byte("init"), 200_001)
	o := Options{Board: board.QEMU, Version: "1.2.3", Build: 1_700_000_000, Log: &bytes.Buffer{}}
	var seen []map[string][]byte
	for range 2 {
		o.Out = t.TempDir()
		if err := artefacts(t.Context(), o, vmlinuz, initramfs, "6.12.1"); err != nil {
			t.Fatal(err)
		}
		got := map[string][]byte{}
		for _, n := range []string{UKIFile("qemu"), DiskFile, DiskZstd} {
			b, err := os.ReadFile(filepath.Join(o.Out, n))
			if err != nil {
				t.Fatal(err)
			}
			got[n] = b
		}
		seen = append(seen, got)
		time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second))) // a clock that shows would show
	}
	for n, b := range seen[0] {
		if !bytes.Equal(b, seen[1][n]) {
			t.Errorf("%s differs", n)
		}
	}
	img := bytes.NewReader(seen[0][DiskFile])
	if img.Size() != disk.MinSize {
		t.Errorf("the image has %d bytes, want %d", img.Size(), disk.MinSize)
	}
	table, err := gpt.Read(img, img.Size())
	if err != nil {
		t.Fatal(err)
	}
	p, _ := table.Find(layout.NumberSlotA)
	s, err := disk.ReadSlot(readOnly{bytes.NewReader(seen[0][DiskFile][p.Offset() : p.Offset()+p.Size()])})
	if err != nil {
		t.Fatal(err)
	}
	if want := (layout.Identity{Version: "1.2.3", Build: 1_700_000_000, Board: "qemu", Kernel: "6.12.1"}); s.Config.Identity != want || s.Config.Args != board.QEMU.KernelCmdLine() {
		t.Errorf("%+v", s.Config)
	}
	image := seen[0][UKIFile("qemu")]
	at := func(r disk.Range) []byte { return image[r.Offset : r.Offset+r.Size] }
	if !bytes.Equal(at(s.Config.Linux), vmlinuz) || !bytes.Equal(at(s.Config.Initrd), initramfs) {
		t.Error("slot.cfg leads to something else")
	}
}

// readOnly is a device that nobody writes.
type readOnly struct{ *bytes.Reader }

func (readOnly) Sync() error                        { return nil }
func (readOnly) WriteAt([]byte, int64) (int, error) { return 0, os.ErrPermission }
