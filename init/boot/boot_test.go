package boot

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"ballast/board"
	"ballast/init/journal"
)

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestFindData(t *testing.T) {
	sys := t.TempDir()
	write(t, sys+"/vda/serial", "other\n")
	write(t, sys+"/vda/uevent", "MAJOR=254\nDEVNAME=vda\n")
	write(t, sys+"/vdb/serial", "ballast-data\n")
	write(t, sys+"/nvme0n1/device/serial", "nvme-data  \n")
	write(t, sys+"/sda1/uevent", "MAJOR=8\nPARTNAME=data\n")
	write(t, sys+"/sda2/uevent", "PARTNAME=database\nPARTN=2\n")
	for _, tt := range []struct {
		d    board.Data
		want string
	}{
		{board.Data{Serial: "ballast-data"}, "/dev/vdb"},
		{board.Data{Serial: "nvme-data"}, "/dev/nvme0n1"},
		{board.Data{Serial: "none", Partition: "data"}, "/dev/sda1"},
		{board.Data{Partition: "dat"}, ""},
		{board.Data{}, ""},
	} {
		if got, whole := findData(sys, tt.d); got != tt.want || whole != (tt.want != "" && got != "/dev/sda1") {
			t.Errorf("%+v: %q, %v, want %q", tt.d, got, whole, tt.want)
		}
	}
}

func TestProbe(t *testing.T) {
	ext := make([]byte, 4096)
	binary.LittleEndian.PutUint16(ext[1024+0x38:], 0xef53)
	for _, tt := range []struct {
		name string
		b    []byte
		want int
	}{
		{"zeros", make([]byte, 4096), isBlank}, {"nothing", nil, isBlank}, {"ext4", ext, isExt4}, {"text", []byte("hello"), isOther},
	} {
		if got := probeBytes(tt.b); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}

// The template is written whole, and its beginning last.
func TestFormat(t *testing.T) {
	want := make([]byte, 3<<20+4096)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range want[:len(want)/4] {
		want[3*i] = byte(rng.Uint32()) // and zeros behind
	}
	e, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	z := e.EncodeAll(want, nil)
	dev := filepath.Join(t.TempDir(), "dev")
	if err := os.WriteFile(dev, bytes.Repeat([]byte{0xff}, 4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := formatFrom(dev, bytes.NewReader(z)); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(dev)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got[:len(want)], want) || got[len(want)] != 0xff {
		t.Error("the disk does not hold the template")
	}
	// Power fails in the middle: what is there counts as blank.
	if err := os.WriteFile(dev, make([]byte, 4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := formatFrom(dev, bytes.NewReader(z[:len(z)-1000])); err == nil {
		t.Fatal("half a template was no error")
	}
	if k, _, err := probe(dev); err != nil || k != isBlank {
		t.Errorf("after half a template: %d, %v; want blank", k, err)
	}
}

func TestCopyTree(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	write(t, from+"/conf/generation/1", "text")
	write(t, from+"/lost+found/x", "x")
	if err := os.Chown(from+"/conf/generation/1", 101, 100); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(from+"/conf", 0o711); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(from+"/conf/pipe", 0o600); err != nil { // reading it would hang
		t.Fatal(err)
	}
	if err := copyTree(from, to); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(to + "/conf/generation/1")
	if err != nil || string(b) != "text" {
		t.Errorf("%q, %v", b, err)
	}
	st, err := os.Stat(to + "/conf/generation/1")
	if err != nil {
		t.Fatal(err)
	}
	if s := st.Sys().(*syscall.Stat_t); s.Uid != 101 || s.Gid != 100 || st.Mode().Perm() != 0o644 {
		t.Errorf("owner %d:%d, mode %v", s.Uid, s.Gid, st.Mode())
	}
	if st, err := os.Stat(to + "/conf"); err != nil || st.Mode().Perm() != 0o711 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
}

func TestSeed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "seed")
	if ok, err := Seed(dir, 101, 100); ok || err != nil {
		t.Errorf("no seed: %v, %v", ok, err)
	}
	write(t, dir+"/config", "auth_pass x")
	write(t, dir+"/files/etc/check.sh", "#!/bin/sh")
	os.Chmod(dir+"/files/etc/check.sh", 0o755)
	if ok, err := Seed(dir, 101, 100); !ok || err != nil {
		t.Fatal(ok, err)
	}
	for name, mode := range map[string]os.FileMode{"": 0o700, "/config": 0o600, "/files/etc/check.sh": 0o700} {
		st, err := os.Stat(dir + name)
		if err != nil {
			t.Fatal(err)
		}
		if s := st.Sys().(*syscall.Stat_t); s.Uid != 101 || s.Gid != 100 || st.Mode().Perm() != mode {
			t.Errorf("%s: owner %d:%d, mode %v", name, s.Uid, s.Gid, st.Mode())
		}
	}
}

func TestHostName(t *testing.T) {
	data, seed := t.TempDir(), t.TempDir()
	if got := HostName("quiet", data, seed); got != "ballast" {
		t.Errorf("nobody says: %q", got)
	}
	write(t, seed+"/hostname", "from-seed\n")
	if got := HostName("", data, seed); got != "from-seed" {
		t.Errorf("%q", got)
	}
	write(t, data+"/init/hostname", "bad name!\n")
	if got := HostName("", data, seed); got != "from-seed" {
		t.Errorf("a name that is none was taken: %q", got)
	}
	write(t, data+"/init/hostname", "lvs1.example\n")
	if got := HostName("", data, seed); got != "lvs1.example" {
		t.Errorf("%q", got)
	}
	if got := HostName("a ballast.hostname=x ballast.hostname=y ballast.host=z", data, seed); got != "y" {
		t.Errorf("%q", got)
	}
}

func TestParseUevent(t *testing.T) {
	in := "add@/devices/pci0000:00/0000:00:02.0/virtio0\x00ACTION=add\x00SUBSYSTEM=virtio\x00MODALIAS=virtio:d00000001v00001AF4\x00SEQNUM=12\x00"
	got, ok := parseUevent([]byte(in))
	want := Uevent{"add", "/devices/pci0000:00/0000:00:02.0/virtio0", "virtio", "virtio:d00000001v00001AF4"}
	if d := cmp.Diff(want, got); d != "" || !ok {
		t.Errorf("(-want +got):\n%s", d)
	}
	for _, bad := range []string{"", "libudev\x00", "\x00\x00"} {
		if u, ok := parseUevent([]byte(bad)); ok {
			t.Errorf("%q: %+v", bad, u)
		}
	}
}

func TestPhases(t *testing.T) {
	var lines []string
	j := journal.New(nil)
	p := Phases{Journal: j}
	p.Run("good", func() (string, error) { return "42 loaded", nil })
	p.Run("bad", func() (string, error) { return "", os.ErrNotExist })
	for _, ph := range p.List() {
		lines = append(lines, ph.Name+" "+ph.Error)
	}
	if d := cmp.Diff([]string{"good ", "bad file does not exist"}, lines); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func FuzzParseUevent(f *testing.F) {
	f.Add([]byte("add@/x\x00MODALIAS=y\x00"))
	f.Fuzz(func(t *testing.T, b []byte) { parseUevent(b); probeBytes(b) })
}
