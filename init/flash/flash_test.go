package flash

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"ballast/image/bundle"
	"ballast/image/disk"
	"ballast/image/disk/gpt"
	"ballast/image/layout"
	"ballast/test/lesser"
)

var key = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))

var public = bundle.Key{Public: key.Public().(ed25519.PublicKey), Name: "maker"}

var identity = layout.Identity{Version: "1.2.3", Build: 1_700_000_000, Board: "qemu", Kernel: "6.12.1"}

func parts(t *testing.T) []bundle.File {
	t.Helper()
	fw := bytes.Repeat([]byte("firmware"), 300_000)
	cfg, err := disk.SlotConfig{Identity: identity, Linux: disk.Range{Offset: 512, Size: 1000}, Initrd: disk.Range{Offset: 2048, Size: 5000}, Args: "panic=10"}.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return []bundle.File{
		{Name: bundle.SlotConfig, Data: cfg}, {Name: bundle.Firmware, Data: fw}, {Name: bundle.BootCode, Data: bytes.Repeat([]byte{0x90}, 440)},
		{Name: bundle.CoreImage, Data: bytes.Repeat([]byte("core"), 9000)}, {Name: bundle.Loader, Data: []byte("MZ loader")},
		{Name: bundle.ESPPrefix + "EFI/BOOT/grubx64.efi", Data: []byte("MZ grub")},
	}
}

// sources writes the same firmware as image, compressed image and bundle.
func sources(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	var b bytes.Buffer
	if err := bundle.Write(&b, bundle.Manifest{Identity: identity, ConfigFormat: 1}, parts(t), key); err != nil {
		t.Fatal(err)
	}
	signed, err := disk.WithHead(parts(t), b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	image := func(name string, parts []bundle.File) *os.File {
		f := file(t, filepath.Join(dir, name), disk.MinSize)
		if err := disk.Write(f, disk.FromFiles(parts...), disk.Options{Name: "x"}); err != nil {
			t.Fatal(err)
		}
		return f
	}
	image("unsigned.img", parts(t)).Close()
	f := image("disk.img", signed)
	defer f.Close()
	raw, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	e, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	damaged := bytes.Clone(raw)
	if i := bytes.LastIndex(damaged, []byte("firmwarefirmware")); i > 0 {
		damaged[i] ^= 1
	}
	whole := e.EncodeAll(raw, nil)
	mangled := bytes.Clone(b.Bytes())
	mangled[bytes.IndexByte(mangled, '{')] = 'x'
	small := make([]byte, disk.MinSize)
	if err := (&gpt.Table{Partitions: []gpt.Partition{{Number: 1, Type: gpt.TypeLinux, Start: 2048, Last: 4096}}}).Write(memory(small), disk.MinSize); err != nil {
		t.Fatal(err)
	}
	table := disk.Table(disk.Options{})
	without := func(number int) []byte { // a partition of the unsigned image is wiped
		raw, err := os.ReadFile(filepath.Join(dir, "unsigned.img"))
		if err != nil {
			t.Fatal(err)
		}
		p, _ := table.Find(number)
		clear(raw[p.Offset():][:64<<10])
		return raw
	}
	if err := unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"empty": nil, "short": raw[:31], "long": make([]byte, 1<<20), "key.pem": pkcs8(t, key), "mangled.bundle": mangled,
		"other.img": small, "cut.img": raw[:len(raw)/2], "slotless.img": without(layout.NumberSlotA), "loaderless.img": without(layout.NumberESP),
		"cut.zst": whole[:len(whole)-1], "else.zst": e.EncodeAll([]byte("something else, of which nothing is there twice: 0123456789"), nil),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, content := range map[string][]byte{"disk.img.zst": whole, "x.bundle": b.Bytes(), "keys": []byte(public.Line() + "\n"), "damaged.img": damaged} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// memory is a disk.
type memory []byte

func (m memory) ReadAt(b []byte, at int64) (int, error)  { return copy(b, m[at:]), nil }
func (m memory) WriteAt(b []byte, at int64) (int, error) { return copy(m[at:], b), nil }
func (m memory) Sync() error                             { return nil }

func file(t *testing.T, name string, size int64) *os.File {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return f
}

// check looks at a disk that was flashed.
func check(t *testing.T, name string, size int64) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	table, err := gpt.Read(f, size)
	if err != nil {
		t.Fatal(err)
	}
	if table.Sectors != uint64(size/512) {
		t.Errorf("the table is of a disk of %d sectors, this one has %d", table.Sectors, size/512)
	}
	if p, _ := table.Find(layout.NumberSlotA); p.GUID == gpt.NamedGUID("ballast disk", "x", layout.PartSlotA) {
		t.Error("the disk has the image's identifiers")
	}
	for _, number := range []int{layout.NumberSlotA, layout.NumberSlotB} {
		p, _ := table.Find(number)
		s, err := disk.ReadSlot(disk.Section(f, p))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(identity, s.Config.Identity); d != "" {
			t.Error(d)
		}
	}
	p, _ := table.Find(layout.NumberESP)
	if _, err := disk.ReadEnv(disk.Section(f, p)); err != nil {
		t.Error(err)
	}
}

// flash runs the command.
func flash(t *testing.T, stdin string, args ...string) (code int, out string) {
	t.Helper()
	var b bytes.Buffer
	code = Main(t.Context(), args, strings.NewReader(stdin), &b, &b)
	return code, b.String()
}

// pkcs8 is a key as openssl writes it.
func pkcs8(t *testing.T, k ed25519.PrivateKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func TestFlash(t *testing.T) {
	dir := sources(t)
	t.Setenv("XDG_CONFIG_HOME", t.TempDir()) // a user without a key
	keys := filepath.Join(dir, "keys")
	signer := hash(public)
	for _, tt := range []struct {
		name string
		args []string
		in   string
		code int
		want string
	}{
		{"image", []string{"-yes", "disk.img"}, "", Done, "Ballast 1.2.3 for qemu"},
		{"compressed image", []string{"-yes", "disk.img.zst"}, "", Done, "written and read back"},
		{"bundle", []string{"-yes", "-key", keys, "x.bundle"}, "", Done, "signed by maker SHA256:"},
		{"bundle of a signer", []string{"-yes", "-signer", signer, "x.bundle"}, "", Done, "written and read back"},
		{"bundle of a stranger", []string{"-yes", "x.bundle"}, "", Cannot, "-signer " + signer},
		{"bundle, with a key in PEM", []string{"-yes", "-key", filepath.Join(dir, "key.pem"), "x.bundle"}, "", Done, "signed by SHA256:"},
		{"bundle, with what is no key", []string{"-yes", "-key", filepath.Join(dir, "empty"), "x.bundle"}, "", Cannot, "empty: there is no key in it: want lines as"},
		{"bundle, with a key that is not there", []string{"-yes", "-key", filepath.Join(dir, "none"), "x.bundle"}, "", Cannot, "none: no such file or directory: name a file with them"},
		{"bundle of another signer", []string{"-yes", "-signer", "SHA256:x", "x.bundle"}, "", Cannot, "it is not signed by SHA256:x"},
		{"an image with a key", []string{"-yes", "-key", keys, "disk.img"}, "", Done, "signed by maker SHA256:"},
		{"an image of another signer", []string{"-yes", "-signer", "SHA256:x", "disk.img.zst"}, "", Cannot, "it is not signed by SHA256:x"},
		{"an image without signature", []string{"-yes", "unsigned.img"}, "", Done, "not signed"},
		{"an image without signature, with a key", []string{"-yes", "-key", keys, "unsigned.img"}, "", Cannot, "this image is not signed"},
		{"a damaged image", []string{"-yes", "damaged.img"}, "", Cannot, "not what was signed"},
		{"asked", []string{"disk.img"}, "target\n", Done, "Type target to go on"},
		{"asked, no", []string{"disk.img"}, "yes\n", Cannot, "nothing was written: the answer was not target (-yes does not ask)"},
		{"asked, nobody there", []string{"disk.img"}, "", Cannot, "nothing was written: the answer was not target (-yes does not ask)"},
		{"something else", []string{"-yes", "keys"}, "", Cannot, dir + "/keys: it is no image of Ballast (gpt: read sector 1: EOF): " + want},
		{"something else that is long", []string{"-yes", "long"}, "", Cannot, dir + "/long: it is no image of Ballast (gpt: no partition table): " + want},
		{"another table", []string{"-yes", "other.img"}, "", Cannot, "is not"},
		{"a cut image", []string{"-yes", "cut.img"}, "", Cannot, "it is damaged or cut (gpt: partition 3 has sectors"},
		{"an image of an empty slot", []string{"-yes", "slotless.img"}, "", Cannot, "it is damaged or cut: " + again},
		{"an image without its boot loader", []string{"-yes", "loaderless.img"}, "", Cannot, "partition esp: fat: "},
		{"cut and compressed", []string{"-yes", "cut.zst"}, "", Cannot, "cut.zst: decompress: unexpected EOF: it is damaged: " + again},
		{"something else, compressed", []string{"-yes", "else.zst"}, "", Cannot, "else.zst: it is no image of Ballast (gpt: read sector 1: EOF): " + want},
		{"nothing", []string{"-yes", "nothing"}, "", Cannot, dir + "/nothing: no such file or directory: " + want},
		{"below a file", []string{"-yes", "keys/x"}, "", Cannot, dir + "/keys/x: not a directory: " + want},
		{"a URL", []string{"-yes", "http://host/disk.img"}, "", Cannot, "nothing is fetched here: download it first"},
		{"a folder", []string{"-yes", "."}, "", Cannot, dir + " is a folder: " + want},
		{"a pipe", []string{"-yes", "pipe"}, "", Cannot, dir + "/pipe is neither a file nor a disk"},
		{"an empty file", []string{"-yes", "empty"}, "", Cannot, dir + "/empty: it has 0 bytes, too few for an image or a bundle: " + again},
		{"a short file", []string{"-yes", "short"}, "", Cannot, dir + "/short: it has 31 bytes, too few for an image or a bundle: " + again},
		{"a damaged bundle", []string{"-yes", "mangled.bundle"}, "", Cannot, "mangled.bundle: bundle: manifest: "},
		{"no words", nil, "", Usage, "want an image or bundle, and a disk\nusage"},
		{"an option", []string{"-no", "disk.img"}, "", Usage, "unknown option -no"},
		{"two kinds of trust", []string{"-key", keys, "-signer", "x", "x.bundle"}, "", Usage, "not both"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			const size = least + 50<<20
			target := filepath.Join(t.TempDir(), "target")
			file(t, target, size).Close()
			args := append([]string{}, tt.args...)
			if n := len(args); n > 0 {
				if !strings.Contains(args[n-1], "://") {
					args[n-1] = filepath.Join(dir, args[n-1])
				}
				args = append(args, target)
			}
			code, out := flash(t, tt.in, args...)
			if code != tt.code || !strings.Contains(out, tt.want) {
				t.Fatalf("exit status %d, want %d with %q:\n%s", code, tt.code, tt.want, out)
			}
			if code == Done {
				check(t, target, size)
				return
			}
			if strings.Contains(tt.name, "damaged") { // found while it is written
				if f, err := os.Open(target); err != nil {
					t.Error(err)
				} else if _, err := gpt.Read(f, size); err == nil {
					t.Error("it can be booted")
				}
				return
			}
			b := make([]byte, 4096)
			if f, err := os.Open(target); err == nil {
				io.ReadFull(f, b)
				f.Close()
			}
			if !bytes.Equal(b, make([]byte, 4096)) {
				t.Error("something was written")
			}
		})
	}
	t.Run("the user's own key", func(t *testing.T) {
		// Made by openssl genpkey, as the build makes it.
		home := t.TempDir()
		t.Setenv("XDG_CONFIG_HOME", home)
		os.MkdirAll(filepath.Join(home, "ballast"), 0o700)
		if err := os.WriteFile(filepath.Join(home, "ballast", "firmware.key"), pkcs8(t, key), 0o600); err != nil {
			t.Fatal(err)
		}
		target := filepath.Join(t.TempDir(), "target")
		file(t, target, least).Close()
		if code, out := flash(t, "", "-yes", filepath.Join(dir, "x.bundle"), target); code != Done {
			t.Error(out)
		}
	})
	t.Run("nowhere", func(t *testing.T) {
		if least > 2<<30 {
			t.Errorf("2G are too few: it takes %d bytes", least)
		}
		target := filepath.Join(t.TempDir(), "target")
		for path, want := range map[string]string{target: "\"truncate -s 2G " + target + "\" makes one\n", "/dev/none": "name a disk of this machine"} {
			code, out := flash(t, "", "-yes", filepath.Join(dir, "disk.img"), path)
			if code != Cannot || !strings.Contains(out, path+": no such file or directory") || !strings.Contains(out, want) {
				t.Errorf("exit status %d, want %q:\n%s", code, want, out)
			}
			if _, err := os.Stat(path); err == nil {
				t.Errorf("%s is there now", path)
			}
		}
		small := filepath.Join(dir, "short")
		image := filepath.Join(dir, "disk.img")
		before, err := os.ReadFile(image)
		if err != nil {
			t.Fatal(err)
		}
		for path, want := range map[string]string{
			dir: dir + " is no disk: " + wantDisk, "/dev/null": "/dev/null is no disk: " + wantDisk,
			small + "/x": small + "/x: not a directory: " + wantDisk,
			small:        "want at least 315 MB, of which 64 MiB are for what is kept on it: \"truncate -s 2G " + small + "\" makes one",
			image:        image + " is both what is written and what is written to: name another disk",
			"":           "want an image or bundle, and a disk\n",
		} {
			if code, out := flash(t, "", "-yes", image, path); code == Done || !strings.Contains(out, want) {
				t.Errorf("exit status %d, want %q:\n%s", code, want, out)
			}
		}
		if after, err := os.ReadFile(image); err != nil || !bytes.Equal(before, after) {
			t.Errorf("the image was written: %v", err)
		}
	})
	t.Run("interrupted", func(t *testing.T) {
		target := filepath.Join(t.TempDir(), "target")
		file(t, target, least).Close()
		ctx, stop := context.WithCancel(t.Context())
		stop()
		var b bytes.Buffer
		if code := Main(ctx, []string{"-yes", filepath.Join(dir, "disk.img"), target}, nil, &b, &b); code != Cannot || !strings.Contains(b.String(), "interrupted\n"+target+" is not a director's disk now: flash it again, or another one") {
			t.Errorf("%d %s", code, b.String())
		}
	})
}

// Who may not read or write something is told who may.
func TestFlashForbidden(t *testing.T) {
	dir := sources(t)
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	put := func(name string, mode os.FileMode) string {
		p := filepath.Join(dir, name)
		if err := os.Chmod(p, mode); err != nil {
			t.Fatal(err)
		}
		return p
	}
	image, bundled, secret, keys := put("disk.img", 0o644), put("x.bundle", 0o644), put("unsigned.img", 0), put("keys", 0)
	to := filepath.Join(t.TempDir(), "target")
	file(t, to, least).Close()
	if err := os.Chmod(to, 0); err != nil {
		t.Fatal(err)
	}
	lesser.Files(t, func() {
		for _, c := range []struct {
			args []string
			want string
		}{
			{[]string{secret, to}, secret + ": permission denied: run this as a user who may read it"},
			{[]string{"-key", keys, bundled, to}, keys + ": permission denied: run this as a user who may read it"},
			{[]string{image, to}, to + ": permission denied: run this as root"},
		} {
			if code, out := flash(t, "", append([]string{"-yes"}, c.args...)...); code != Cannot || !strings.Contains(out, c.want) {
				t.Errorf("exit status %d, want %q:\n%s", code, c.want, out)
			}
		}
	})
	t.Setenv("TMPDIR", filepath.Join(dir, "none"))
	if code, out := flash(t, "", "-yes", filepath.Join(dir, "disk.img.zst"), to); code != Cannot || !strings.Contains(out, "no such file or directory: "+elsewhere) {
		t.Errorf("exit status %d:\n%s", code, out)
	}
	// A disk that cannot be opened for another reason: a program that runs.
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (&target{path: self}).open(); err == nil || !strings.Contains(err.Error(), "text file busy: take another disk") {
		t.Errorf("%v", err)
	}
}

// The first boot of the smallest disk has room for the data partition.
func TestLeast(t *testing.T) {
	target := filepath.Join(t.TempDir(), "target")
	f := file(t, target, least)
	defer f.Close()
	if code, out := flash(t, "", "-yes", filepath.Join(sources(t), "disk.img"), target); code != Done {
		t.Fatal(out)
	}
	if _, _, err := gpt.Fill(f, least, gpt.Rest{Number: layout.NumberData, Name: layout.PartData, Type: gpt.TypeLinux, Least: layout.SizeData << 20}); err != nil {
		t.Error(err)
	}
}

// What the kernel says of a disk decides whether it may be written.
func TestTarget(t *testing.T) {
	sys := t.TempDir()
	put := func(name, content string) {
		t.Helper()
		p := filepath.Join(sys, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(content+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"sdb", "sdc", "sdd", "sde", "sdf", "sdg", "sdh"} {
		put(d+"/size", "15269888")
		put(d+"/queue/logical_block_size", "512")
		put(d+"/device/vendor", "SanDisk ")
		put(d+"/device/model", "Ultra Fit       ")
		put(d+"/removable", "1")
		put(d+"/ro", "0")
		put(d+"/"+d+"1/partition", "1")
	}
	put("sdc/size", fmt.Sprint(least/512-1))
	put("sdd/ro", "1")
	put("sde/queue/logical_block_size", "4096")
	put("sdf/sdf1/holders/md0/x", "")
	put("sdg/size", "0")
	proc := t.TempDir()
	os.MkdirAll(filepath.Join(proc, "self"), 0o755)
	os.WriteFile(filepath.Join(proc, "self/mounts"), []byte("/dev/sda1 / ext4 rw 0 0\nsdb1 /tmp tmpfs rw 0 0\n"), 0o644)
	os.WriteFile(filepath.Join(proc, "swaps"), []byte("Filename Type Size Used Priority\n/dev/sda2 partition 1 0 -2\n/dev/sdh1 partition 1 0 -2\n"), 0o644)
	for _, tt := range []struct{ dir, mounts, err string }{
		{"sdb", "", ""},
		{"sdb/sdb1", "", "/dev/sdb1 is a partition: name the whole disk, /dev/sdb"},
		{"sdc", "", "/dev/sdc has 315 MB: want at least 315 MB, of which 64 MiB are for what is kept on it"},
		{"sdd", "", "/dev/sdd is write-protected: move its switch, or take another disk"},
		{"sde", "", "sectors of 4096"},
		{"sdf", "", "/dev/sdf is in use by md0: end that first, or take another disk"},
		{"sdg", "", "/dev/sdg has nothing in it: put a card or stick into it, or take another disk"},
		{"sdb", "/dev/sdb1 /mnt vfat rw 0 0\n", "/dev/sdb: /dev/sdb1 is mounted on /mnt: unmount it first, or take another disk"},
		{"sdb", "/dev/sdb /mnt vfat rw 0 0\n", "/dev/sdb: /dev/sdb is mounted on /mnt: unmount it first, or take another disk"},
		{"sdh", "", "/dev/sdh: /dev/sdh1 holds swap space: \"swapoff /dev/sdh1\" first, or take another disk"},
	} {
		if tt.mounts != "" {
			os.WriteFile(filepath.Join(proc, "self/mounts"), []byte(tt.mounts), 0o644)
		}
		d := &target{path: "/dev/" + filepath.Base(tt.dir), block: true}
		if err := d.read(filepath.Join(sys, tt.dir)); err != nil {
			t.Fatal(err)
		}
		err := d.check(proc)
		if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
			t.Errorf("%s: error %v, want %q", tt.dir, err, tt.err)
		}
		if tt.dir == "sdb" && tt.mounts == "" {
			if d := cmp.Diff("/dev/sdb, SanDisk Ultra Fit, 7.8 GB, removable, now with sdb1", d.describe()); d != "" {
				t.Error(d)
			}
		}
	}
	if _, err := look("/sys", "/dev/null"); err == nil || !strings.Contains(err.Error(), "no disk") {
		t.Errorf("/dev/null: %v", err)
	}
}

// A real block device: written, and refused while somebody else has it.
func TestBlockDevice(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for a loop device")
	}
	dir := sources(t)
	const size = 300 << 20
	back := filepath.Join(t.TempDir(), "back")
	file(t, back, size).Close()
	out, err := exec.Command("losetup", "--find", "--show", "--partscan", back).CombinedOutput()
	if err != nil {
		t.Fatalf("losetup: %v: %s", err, out)
	}
	dev := strings.TrimSpace(string(out))
	t.Cleanup(func() { exec.Command("losetup", "--detach", dev).Run() })
	if code, out := flash(t, filepath.Base(dev)+"\n", filepath.Join(dir, "disk.img.zst"), dev); code != Done {
		t.Fatal(out)
	} else if !strings.Contains(out, dev) {
		t.Errorf("%s", out)
	}
	check(t, dev, size)
	if _, err := look(t.TempDir(), dev); err == nil || !strings.Contains(err.Error(), "is it plugged in? "+wantDisk) {
		t.Errorf("a device without a disk: %v", err)
	}
	// Somebody else has it.
	hold, err := os.OpenFile(dev, os.O_RDWR|os.O_EXCL, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer hold.Close()
	if code, out := flash(t, "", "-yes", filepath.Join(dir, "disk.img"), dev); code != Cannot || !strings.Contains(out, dev+" is in use: unmount what is on it, and end what works with it, or take another disk") {
		t.Errorf("%d %s", code, out)
	}
}
