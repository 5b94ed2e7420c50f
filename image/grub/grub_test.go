package grub

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"ballast/image/packages"
)

func TestBuild(t *testing.T) {
	f, err := Build(t.Context(), []string{"ttyS1,57600", "tty0"})
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Boot) != 440 || binary.LittleEndian.Uint64(f.Boot[0x5c:]) != 2048 || binary.LittleEndian.Uint64(f.Core[0x1f4:]) != 2049 {
		t.Errorf("boot code of %d bytes, core at %d", len(f.Boot), binary.LittleEndian.Uint64(f.Boot[0x5c:]))
	}
	// What the list in its first sector says must be all of it.
	if n := int(binary.LittleEndian.Uint16(f.Core[0x1fc:])); n != (len(f.Core)-512+511)/512 {
		t.Errorf("core.img: %d sectors behind the first, %d bytes", n, len(f.Core))
	}
	e, err := pe.NewFile(bytes.NewReader(f.EFI))
	if err != nil {
		t.Fatal(err)
	}
	if s := e.Section(".sbat"); s == nil {
		t.Error("BOOTX64.EFI has no section .sbat")
	}
	if !bytes.Contains(f.EFI, []byte("serial --unit=1 --speed=57600")) {
		t.Error("BOOTX64.EFI has no script")
	}
	again, err := Build(t.Context(), []string{"ttyS1,57600", "tty0"})
	if err != nil || !bytes.Equal(again.Core, f.Core) || !bytes.Equal(again.EFI, f.EFI) || !bytes.Equal(again.Boot, f.Boot) {
		t.Errorf("the second one differs: %v", err)
	}
}

// What the menu says can be pressed can, and Esc can in every menu: GRUB would draw
// it there, and wait for ever.
func TestMenuKeys(t *testing.T) {
	s := Script(nil)
	for _, m := range regexp.MustCompile(`(?m)^echo "  (\d)  (.*)"$`).FindAllStringSubmatch(s, -1) {
		if !regexp.MustCompile(`(?m)^(menuentry|submenu) "` + regexp.QuoteMeta(m[2]) + `" --hotkey=` + m[1] + ` `).MatchString(s) {
			t.Errorf("no entry %q with the key %s", m[2], m[1])
		}
	}
	if menus, esc := strings.Count(s, "set timeout_style=hidden"), strings.Count(s, "--hotkey=\"\x1b\""); menus != 2 || esc != menus || strings.Count(s, "set timeout=60") != menus {
		t.Errorf("%d menus, %d know Esc", menus, esc)
	}
	if regexp.MustCompile(`(?m)^\s*read\b`).MatchString(s) {
		t.Error("read waits for ever")
	}
}

// GRUB's own parser reads the script, for a box with and without a serial line.
func TestScript(t *testing.T) {
	dir, err := packages.Tree(t.Context(), "grub-common")
	if err != nil {
		t.Fatal(err)
	}
	for _, consoles := range [][]string{{"ttyS0,115200"}, {"tty0"}, {"ttyS1", "ttyS0,115200", "tty0"}} {
		s := Script(consoles)
		if strings.Contains(s, "@") {
			t.Errorf("%v: something was not filled in", consoles)
		}
		for _, c := range consoles {
			if n, ok := strings.CutPrefix(c, "ttyS"); ok && strings.Count(s, "set lines=\"$lines serial_com"+n[:1]+"\"") != 1 {
				t.Errorf("%v: the menu is not on %s", consoles, c)
			}
		}
		file := filepath.Join(t.TempDir(), "grub.cfg")
		if err := os.WriteFile(file, []byte(s), 0o644); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(filepath.Join(dir, "usr/bin/grub-script-check"), file).CombinedOutput(); err != nil {
			t.Errorf("%v: %v: %s", consoles, err, out)
		}
	}
}
