package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"ballast/image/bootenv"
	"ballast/image/bundle"
	"ballast/image/disk"
	"ballast/image/disk/gpt"
	"ballast/image/layout"
	"ballast/init/boot"
)

// anESP is the EFI system partition of a disk that was just flashed.
func anESP(t *testing.T) disk.Device {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(disk.MinSize); err != nil {
		t.Fatal(err)
	}
	cfg, err := disk.SlotConfig{Identity: layout.Identity{Version: "1", Board: "qemu", Kernel: "6"}, Linux: disk.Range{Offset: 512, Size: 9}, Initrd: disk.Range{Offset: 1024, Size: 9}}.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	parts := disk.FromFiles(bundle.File{Name: bundle.SlotConfig, Data: cfg}, bundle.File{Name: bundle.Firmware, Data: make([]byte, 4096)},
		bundle.File{Name: bundle.BootCode, Data: make([]byte, 440)}, bundle.File{Name: bundle.CoreImage, Data: []byte("x")}, bundle.File{Name: bundle.Loader, Data: []byte("x")})
	if err := disk.Write(f, parts, disk.Options{Name: "test"}); err != nil {
		t.Fatal(err)
	}
	table, err := gpt.Read(f, disk.MinSize)
	if err != nil {
		t.Fatal(err)
	}
	p, _ := table.Find(layout.NumberESP)
	return disk.Section(f, p)
}

// PID 1 takes back a trial that nobody confirmed, and no other state.
func TestEndTrial(t *testing.T) {
	esp := anESP(t)
	onB := bootenv.Env{Good: layout.A, Try: layout.B, Left: 1}
	for _, c := range []struct {
		env  bootenv.Env
		over bool
		want bootenv.Env
	}{
		{onB, false, bootenv.Env{Good: layout.A}},
		{onB.Confirm(layout.B), true, bootenv.Env{Good: layout.B}},
		{bootenv.Env{Good: layout.B, Try: layout.A, Left: 2}, true, bootenv.Env{Good: layout.B, Try: layout.A, Left: 2}}, // confirmed, and the next one is loaded
	} {
		if err := disk.WriteEnv(esp, c.env); err != nil {
			t.Fatal(err)
		}
		over, err := endTrial(esp, layout.B, nil)
		got, rerr := disk.ReadEnv(esp)
		if over != c.over || err != nil || rerr != nil || got != c.want {
			t.Errorf("%+v: over %v, %v; state %+v, %v; want %v, %+v", c.env, over, err, got, rerr, c.over, c.want)
		}
	}
	if over, err := endTrial(nil, layout.B, errors.New("no disk")); over || err == nil {
		t.Errorf("a trial whose disk is gone goes on: %v, %v", over, err)
	}
}

func TestTrialLimit(t *testing.T) {
	for words, want := range map[boot.CmdLine]time.Duration{
		"quiet":                     layout.TrialLimit,
		"ballast.triallimit=90":     90 * time.Second,
		"ballast.triallimit=999999": layout.TrialLimit,
		"ballast.triallimit=0":      layout.TrialLimit,
		"ballast.triallimit=x":      layout.TrialLimit,
	} {
		if got := (&machine{cmdline: words}).trialLimit(); got != want {
			t.Errorf("%s: %v, want %v", words, got, want)
		}
	}
}
