package firmware

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ballast/configs/store"
	"ballast/image/bootenv"
	"ballast/image/bundle"
	"ballast/image/disk"
	"ballast/image/disk/gpt"
	"ballast/image/layout"
	"ballast/services/ipc"
)

var ipcPeer = ipc.Peer{UID: ipc.UIDConsole, GID: ipc.GroupAdmin}

// slotParts are those of a small firmware whose sections are where slot.cfg says.
func slotParts(t testing.TB, id layout.Identity, fill byte) []bundle.File {
	t.Helper()
	cfg, err := disk.SlotConfig{Identity: id, Linux: disk.Range{Offset: 512, Size: 1000}, Initrd: disk.Range{Offset: 2048, Size: 9000}, Args: "quiet"}.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return []bundle.File{
		{Name: bundle.SlotConfig, Data: cfg}, {Name: bundle.Firmware, Data: bytes.Repeat([]byte{fill}, 3<<20)},
		{Name: bundle.BootCode, Data: make([]byte, 440)}, {Name: bundle.CoreImage, Data: []byte("core")}, {Name: bundle.Loader, Data: []byte("loader")},
	}
}

// flashed makes partitions as files, as a disk has them that was just flashed.
func flashed(t testing.TB, id layout.Identity) string {
	t.Helper()
	dir := t.TempDir()
	whole, err := os.Create(filepath.Join(dir, "disk"))
	if err != nil {
		t.Fatal(err)
	}
	defer whole.Close()
	if err := whole.Truncate(disk.MinSize); err != nil {
		t.Fatal(err)
	}
	if err := disk.Write(whole, disk.FromFiles(slotParts(t, id, 1)...), disk.Options{Name: "test"}); err != nil {
		t.Fatal(err)
	}
	table, err := gpt.Read(whole, disk.MinSize)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range table.Partitions {
		b := make([]byte, p.Size())
		if _, err := whole.ReadAt(b, p.Offset()); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, p.Name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// An upgrade, its trial and its rejection on partitions as they are.
func TestOnARealDisk(t *testing.T) {
	dir := flashed(t, oldID)
	open := func(s layout.Slot) *blocks {
		t.Helper()
		d, err := openDisk(dir, s)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		return d
	}
	d := open(layout.A)
	before, err := os.ReadFile(filepath.Join(dir, "slotA"))
	if err != nil {
		t.Fatal(err)
	}
	s, _, b := newService(t)
	s.machine = d
	s.begin(t.Context())
	c := serve(t, s)
	if st := published(t, c); st.Slots[0].State != "good" || st.Slots[0].Identity.Version != "1.0" || st.Slots[1].State != "empty" {
		t.Fatalf("a disk that was just flashed: %+v", st.Slots)
	}
	var file bytes.Buffer
	if err := bundle.Write(&file, bundle.Manifest{Identity: newID, ConfigFormat: 1}, slotParts(t, newID, 2), maker); err != nil {
		t.Fatal(err)
	}
	if _, err := upgrade(t, c, upgradeWords(), bytes.NewReader(file.Bytes())); err != nil {
		t.Fatal(err)
	}
	<-b.rebooted
	if after, err := os.ReadFile(filepath.Join(dir, "slotA")); err != nil || !bytes.Equal(before, after) {
		t.Error("the slot that runs was written")
	}
	onB := open(layout.B)
	if id, err := onB.Identity(layout.B); err != nil || id != newID {
		t.Errorf("slot B holds %+v, %v", id, err)
	}
	if env, err := onB.Env(); err != nil || env != bootenv.Default.Trial(layout.B) {
		t.Errorf("%+v, %v", env, err)
	}
	if err := onB.Check(layout.B, trusted()); err != nil {
		t.Error(err)
	}
	// A transfer that breaks off leaves nothing in the slot.
	half := file.Bytes()[:file.Len()-2<<20]
	again, _, _ := newService(t)
	again.machine = open(layout.A)
	again.begin(t.Context())
	q := upgradeWords()
	if _, err := upgrade(t, serve(t, again), q, bytes.NewReader(half)); err == nil || !strings.Contains(err.Error(), "broke off") {
		t.Fatal(err)
	}
	if _, err := onB.Identity(layout.B); err == nil {
		t.Error("half a firmware can be started")
	}
	if env, err := onB.Env(); err != nil || env != bootenv.Default {
		t.Errorf("%+v, %v", env, err)
	}
	if err := onB.Check(layout.B, trusted()); err == nil {
		t.Error("half a firmware is in order")
	}
	// The one that runs cannot be written, whoever tries.
	if _, err := onB.slots[layout.B].WriteAt([]byte("x"), 0); err == nil {
		t.Error("the slot that runs can be written")
	}
}

// deaf is a disk that takes what is written and keeps nothing.
type deaf struct{ *os.File }

func (deaf) WriteAt(b []byte, _ int64) (int, error) { return len(b), nil }

// A disk that has lost the state, or a part of a firmware, is found out.
func TestBadDisk(t *testing.T) {
	d, err := openDisk(flashed(t, oldID), layout.A)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	esp := d.esp.(*os.File)
	d.esp = deaf{esp}
	if err := d.SetEnv(bootenv.Default.Trial(layout.B)); err == nil || !strings.Contains(err.Error(), "the disk is bad") {
		t.Errorf("a state that is not kept: %v", err)
	}
	d.esp = esp
	var file bytes.Buffer
	if err := bundle.Write(&file, bundle.Manifest{Identity: newID, ConfigFormat: 1}, slotParts(t, newID, 2), maker); err != nil {
		t.Fatal(err)
	}
	for want, other := range map[string]func([]bundle.File){
		"":                           func([]bundle.File) {},
		"fw.efi is not what its bun": func(ps []bundle.File) { ps[1].Data[1<<20] ^= 1 },
		"fw.efi is not what its b":   func(ps []bundle.File) { ps[1].Data = ps[1].Data[:1<<20] },
	} {
		parts := slotParts(t, newID, 2)
		other(parts)
		if parts, err = disk.WithHead(parts, file.Bytes()); err != nil {
			t.Fatal(err)
		}
		if err := disk.WriteSlot(d.slots[layout.B], disk.FromFiles(parts...), disk.Options{}); err != nil {
			t.Fatal(err)
		}
		if err := d.Check(layout.B, trusted()); want == "" && err != nil || want != "" && (!errors.Is(err, bundle.ErrUntrusted) || !strings.Contains(err.Error(), want)) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestOpenDisk(t *testing.T) {
	if _, err := openDisk(t.TempDir(), layout.A); err == nil || !strings.Contains(err.Error(), "the partition esp") {
		t.Errorf("no partitions: %v", err)
	}
	if _, err := openDisk("", layout.None); err == nil || !strings.Contains(err.Error(), "did not start from a slot") {
		t.Errorf("no slot: %v", err)
	}
}

// Bundles say which form of stored configurations their firmware reads.
func TestConfigFormat(t *testing.T) {
	if store.Format != layout.ConfigFormat {
		t.Errorf("the store writes format %d, bundles say %d", store.Format, layout.ConfigFormat)
	}
}
