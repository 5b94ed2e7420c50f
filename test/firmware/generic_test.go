package firmware

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"ballast/board"
	"ballast/image/disk"
	"ballast/test/firmware/machine"
	"ballast/test/lab/vm"
)

// The disk of the board for any machine boots where there is a screen and a
// keyboard on USB, with BIOS and UEFI; who sits there gets a session.
func TestGeneric(t *testing.T) {
	machine.Lab(t)
	t.Setenv(machine.EnvImage, "") // that is another board's
	dir := t.TempDir()
	hw, err := machine.Build(t.Context(), "../..", dir, board.Generic, os.Stdout)
	if err != nil {
		t.Fatal(err)
	}
	if hw, err = hw.WithSeed("box", ""); err != nil {
		t.Fatal(err)
	}
	img := filepath.Join(dir, "generic.img")
	if err := hw.Disk(t.Context(), img, diskSize, disk.Options{}); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		uefi bool
		bus  vm.Bus
	}{{"BIOS AHCI", false, vm.AHCI}, {"UEFI NVMe", true, vm.NVMe}} {
		t.Run(tt.name, func(t *testing.T) {
			m := machine.New(t, machine.Config{Disk: img, UEFI: tt.uefi, Bus: tt.bus, SSH: hw.SSH,
				Extra: []string{"-vga", "std", "-device", "qemu-xhci,id=keys", "-device", "usb-kbd,bus=keys.0"}})
			m.PowerOn()
			m.Expect(machine.Slow, "board: generic-x86_64", "slot A", "data: ")
			figures(t, m, tt.name)
			before := picture(t, m)
			if lit := len(before) - bytes.Count(before, []byte{0}); lit < len(before)/200 {
				t.Errorf("%d of %d bytes of the picture are not black", lit, len(before))
			}
			enter := map[string]any{"keys": []map[string]string{{"type": "qcode", "data": "ret"}}}
			if err := m.VM().QMP(t.Context(), "send-key", enter); err != nil {
				t.Fatal(err)
			}
			m.Await(30*time.Second, "show sessions", `screen +admin +screen `)
			if bytes.Equal(before, picture(t, m)) {
				t.Error("the screen shows what it showed before the key")
			}
		})
	}
}

// picture is what the screen shows, three bytes a pixel.
func picture(t *testing.T, m *machine.Machine) []byte {
	t.Helper()
	file := filepath.Join(m.Dir, "screen.ppm")
	if err := m.VM().QMP(t.Context(), "screendump", map[string]any{"filename": file}); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var w, h, most int
	if _, err := fmt.Fscanf(bytes.NewReader(b), "P6\n%d %d\n%d\n", &w, &h, &most); err != nil || len(b) < 3*w*h || w == 0 {
		t.Fatalf("%d bytes of a picture of %d by %d, %v", len(b), w, h, err)
	}
	return b[len(b)-3*w*h:]
}
