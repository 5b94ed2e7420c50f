package image

import (
	"bytes"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"ballast/board"
	"ballast/image/bundle"
	"ballast/image/layout"
	"ballast/image/secureboot"
)

// What UEFI starts is signed, what BIOS machines start is as it was, and the same
// key makes the same parts again.
func TestSecure(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	if err := secureboot.MakeKeys(dir, time.Now()); err != nil {
		t.Fatal(err)
	}
	s, err := secureboot.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	id := layout.Identity{Version: "1", Build: 1, Board: "qemu", Kernel: "6"}
	plain, err := FirmwareParts(t.Context(), board.QEMU, bytes.Repeat([]byte("k"), 4096), bytes.Repeat([]byte("i"), 4096), "quiet", id)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := Secure(t.Context(), s, plain)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Secure(t.Context(), s, plain)
	if err != nil {
		t.Fatal(err)
	}
	programs := []string{bundle.Firmware, bundle.Loader, bundle.SecureLoader}
	for i, p := range signed {
		if !bytes.Equal(p.Data, again[i].Data) {
			t.Errorf("%s: another one the second time", p.Name)
		}
		is := slices.Contains(programs, p.Name)
		if secureboot.Signed(p.Data) != is {
			t.Errorf("%s: signed %v, want %v", p.Name, !is, is)
		}
		if !is && !bytes.Equal(p.Data, plain[i].Data) {
			t.Errorf("%s is not what it was", p.Name)
		}
	}
	if n := len(plain) + 1; len(signed) != n || signed[n-1].Name != bundle.SecureLoader {
		t.Errorf("%d parts of %d", len(signed), len(plain))
	}
	if _, err := Secure(t.Context(), s, plain[:2]); err == nil {
		t.Error("no boot loader, and no error")
	}
}
