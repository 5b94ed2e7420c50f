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
			// A key that comes before the driver is lost.
			m.Await(machine.Slow, "show log kernel 2000", `hid-generic .* USB HID v1.11 Keyboard`)
			before := shown(t, m, "something that is not black", func(b []byte) bool { return len(b)-bytes.Count(b, []byte{0}) >= len(b)/200 })
			enter := map[string]any{"keys": []map[string]string{{"type": "qcode", "data": "ret"}}}
			if err := m.VM().QMP(t.Context(), "send-key", enter); err != nil {
				t.Fatal(err)
			}
			m.Await(machine.Slow, "show sessions", `screen +admin +screen `)
			shown(t, m, "anything else than before the key", func(b []byte) bool { return !bytes.Equal(before, b) })
		})
	}
}

// shown waits until the screen shows what it should: that is drawn later than it is
// said, and told by nobody.
func shown(t *testing.T, m *machine.Machine, what string, ok func(picture []byte) bool) []byte {
	t.Helper()
	for end := time.Now().Add(machine.Slow); ; time.Sleep(250 * time.Millisecond) {
		b := picture(t, m)
		if ok(b) {
			return b
		}
		if time.Now().After(end) {
			t.Fatalf("the screen never shows %s", what)
		}
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
