package boot

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What lies behind the data, as the second place does, is not wiped with it.
func TestWipe(t *testing.T) {
	const size, data = 8 << 20, 5 << 20
	img := filepath.Join(t.TempDir(), "img")
	full := bytes.Repeat([]byte{0xff}, size)
	if err := os.WriteFile(img, full, 0o600); err != nil {
		t.Fatal(err)
	}
	dev := strings.TrimSpace(run(t, "losetup", "-f", "--show", img))
	t.Cleanup(func() { run(t, "losetup", "-d", dev) })
	if how, err := wipe(dev, data, -1); err != nil || !strings.HasSuffix(how, "the first 0 of 5 MiB overwritten") {
		t.Errorf("without time: %q, %v", how, err)
	}
	if how, err := wipe(dev, data, time.Minute); err != nil || !strings.HasSuffix(how, "overwritten") {
		t.Errorf("%q, %v", how, err)
	}
	got, err := os.ReadFile(img)
	if err != nil || !bytes.Equal(got[:data], make([]byte, data)) || !bytes.Equal(got[data:], full[data:]) {
		t.Errorf("%v: %d bytes are not zeros, want %d", err, len(bytes.ReplaceAll(got, []byte{0}, nil)), size-data)
	}
}

func TestPart(t *testing.T) {
	name := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(name, make([]byte, 64), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := OpenPlace(Place{Device: name, Offset: 16}, 32)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for at, inside := range map[int64]bool{-1: false, 0: true, 24: true, 25: false, 33: false} {
		b := bytes.Repeat([]byte{1}, 8)
		_, werr := p.WriteAt(b, at)
		_, rerr := p.ReadAt(b, at)
		if (werr == nil) != inside || (rerr == nil) != inside {
			t.Errorf("8 bytes at %d of 32: %v, %v", at, werr, rerr)
		}
	}
	want := append(append(make([]byte, 16), bytes.Repeat([]byte{1}, 8)...), make([]byte, 40)...)
	copy(want[40:], bytes.Repeat([]byte{1}, 8))
	if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%v: %x, want %x", err, got, want)
	}
}
