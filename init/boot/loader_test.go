package boot

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"

	"ballast/image/bootenv"
	device "ballast/image/disk"
	vfat "ballast/image/disk/fat"
	"ballast/image/layout"
)

// vars is a folder like efivarfs.
func vars(t *testing.T, secure byte, part string) string {
	t.Helper()
	dir := t.TempDir()
	text := []byte{7, 0, 0, 0}
	for _, u := range utf16.Encode([]rune(part + "\x00")) {
		text = append(text, byte(u), byte(u>>8))
	}
	for name, b := range map[string][]byte{"SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c": {6, 0, 0, 0, secure}, stubPart: text} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestFromStub(t *testing.T) {
	const part = "0B0B0B0B-1111-4222-8333-444444444444"
	for _, tt := range []struct {
		name, efivars string
		words, want   CmdLine
	}{
		{"Secure Boot", vars(t, 1, part), "quiet", CmdLine("quiet ballast.part=" + strings.ToLower(part))},
		{"without, the boot loader tells or nobody does", vars(t, 0, part), "quiet", "quiet"},
		{"no variables: a BIOS", t.TempDir(), "quiet", "quiet"},
		{"the boot loader told", vars(t, 1, part), "ballast.part=x", "ballast.part=x"},
		{"words in the variable", vars(t, 1, part+" rdinit=/bin/sh"), "quiet", "quiet"},
		{"nothing in it", vars(t, 1, ""), "quiet", "quiet"},
	} {
		if got := tt.words.FromStub(tt.efivars); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestFromState(t *testing.T) {
	dir := t.TempDir()
	esp := filepath.Join(dir, "sda2")
	d := BootDisk{Device: filepath.Join(dir, "sda"), name: "sda", Slot: layout.B}
	for _, tt := range []struct {
		name string
		env  bootenv.Env
		once string
		want CmdLine
	}{
		{"as always", bootenv.Env{Good: layout.B}, "", "quiet ballast.slot=B"},
		{"a trial that was counted", bootenv.Env{Good: layout.A, Try: layout.B, Left: 1}, "", "quiet ballast.slot=B ballast.trial=1"},
		{"its last attempt", bootenv.Env{Good: layout.A, Try: layout.B}, "", "quiet ballast.slot=B ballast.trial=1"},
		{"chosen by hand before the trial began", bootenv.Env{Good: layout.A, Try: layout.B, Left: 2}, "", "quiet ballast.slot=B"},
		{"the other one is on trial", bootenv.Env{Good: layout.B, Try: layout.A, Left: 1}, "", "quiet ballast.slot=B"},
		{"confirmed", bootenv.Env{Good: layout.B, Try: layout.B, Left: 1}, "", "quiet ballast.slot=B"},
		{"factory reset", bootenv.Env{Good: layout.B}, "factory", "quiet ballast.slot=B ballast.factory=1"},
		{"no data", bootenv.Env{Good: layout.B}, "nodata", "quiet ballast.slot=B ballast.data=none"},
	} {
		b := tt.env.Bytes()
		if tt.once != "" { // as GRUB does, in place of filling
			i := strings.Index(string(b), "\n####") + 1
			copy(b[i:], "once="+tt.once+"\n")
		}
		makeESP(t, esp, b)
		got, err := CmdLine("quiet").FromState(d)
		if err != nil || got != tt.want {
			t.Errorf("%s: %q, %v; want %q", tt.name, got, err, tt.want)
		}
		f, err := os.Open(esp)
		if err != nil {
			t.Fatal(err)
		}
		if e, err := device.ReadEnv(readOnly{f}); err != nil || e != tt.env {
			t.Errorf("%s: the state is %+v then, %v", tt.name, e, err)
		}
		f.Close()
	}
	if got, err := CmdLine("ballast.slot=A").FromState(d); got != "ballast.slot=A" || err != nil {
		t.Errorf("the boot loader told: %q, %v", got, err)
	}
	os.Remove(esp)
	if got, err := CmdLine("quiet").FromState(d); got != "quiet ballast.slot=B" || err == nil {
		t.Errorf("no state: %q, %v", got, err)
	}
}

type readOnly struct{ *os.File }

func (readOnly) WriteAt([]byte, int64) (int, error) { return 0, os.ErrPermission }

// makeESP writes a file system with the boot loader's state.
func makeESP(t *testing.T, name string, env []byte) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(layout.SizeESP << 20); err != nil {
		t.Fatal(err)
	}
	w, err := vfat.Create(f, layout.SizeESP<<20, vfat.Options{Label: "ESP"})
	if err != nil {
		t.Fatal(err)
	}
	o, err := w.Create(layout.EnvPath, int64(len(env)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := o.Write(env); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(f.Sync); err != nil {
		t.Fatal(err)
	}
}
