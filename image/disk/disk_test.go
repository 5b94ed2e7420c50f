package disk

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ballast/image/bootenv"
	"ballast/image/bundle"
	"ballast/image/disk/gpt"
	"ballast/image/layout"
)

// firmware is one of random bytes, with its slot.cfg.
func firmware(t testing.TB, seed uint64, size int) (fw []byte, c SlotConfig) {
	t.Helper()
	fw = make([]byte, size)
	r := rand.New(rand.NewPCG(seed, 0))
	for i := range fw {
		fw[i] = byte(r.Uint32())
	}
	c = SlotConfig{
		Identity: layout.Identity{Version: fmt.Sprintf("v%d", seed), Build: int64(seed), Board: "qemu", Kernel: "6.12.1"},
		Linux:    Range{1024, 5000}, Initrd: Range{6656, int64(size) - 6656},
		Args: "console=ttyS0,115200 panic=10 reserve_mem=2M:4096:oops",
	}
	return fw, c
}

func parts(t testing.TB, seed uint64, size int) []bundle.File {
	t.Helper()
	fw, c := firmware(t, seed, size)
	cfg, err := c.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return []bundle.File{
		{Name: bundle.SlotConfig, Data: cfg}, {Name: bundle.Firmware, Data: fw},
		{Name: bundle.BootCode, Data: bytes.Repeat([]byte{0x90}, 446)}, {Name: bundle.CoreImage, Data: bytes.Repeat([]byte("core"), 5000)},
		{Name: bundle.Loader, Data: bytes.Repeat([]byte("MZ"), 70000)}, {Name: bundle.ESPPrefix + "EFI/BOOT/grubx64.efi", Data: []byte("grub")},
	}
}

// blankDisk is a file of a size, with noise where old tables and file systems
// would be.
func blankDisk(t testing.TB, size int64) *quick {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk.img"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	noise := bytes.Repeat([]byte("old "), 4096)
	for _, at := range []int64{0, size - 16384, first, MinSize - tail} {
		if _, err := f.WriteAt(noise, at); err != nil {
			t.Fatal(err)
		}
	}
	return &quick{f}
}

// quick is a file that nobody waits for to be on the disk.
type quick struct{ *os.File }

func (quick) Sync() error { return nil }

// tool runs a program of Debian's that knows better, and returns what it says.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	for _, dir := range []string{"", "/usr/sbin/", "/sbin/"} {
		if p, err := exec.LookPath(dir + name); err == nil {
			out, err := exec.Command(p, args...).CombinedOutput()
			if err != nil {
				t.Errorf("%s %v: %v\n%s", name, args, err, out)
			}
			return string(out)
		}
	}
	t.Fatalf("%s is not installed: make test-tools", name)
	return ""
}

// cut copies a partition to a file of its own.
func cut(t *testing.T, f *quick, p gpt.Partition) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), p.Name)
	out, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := io.Copy(out, io.NewSectionReader(f, p.Offset(), p.Size())); err != nil {
		t.Fatal(err)
	}
	return name
}

// A disk that we write is one that other programs find no fault with.
func TestWrite(t *testing.T) {
	for _, both := range []bool{false, true} {
		t.Run(fmt.Sprintf("both=%v", both), func(t *testing.T) {
			f := blankDisk(t, 400*mib)
			ps := parts(t, 1, 20*mib+77)
			steps := map[string]bool{}
			o := Options{Both: both, Time: time.Unix(1_700_000_000, 0), Progress: func(what string, _, _ int64) { steps[what] = true }}
			if err := Write(f, FromFiles(ps...), o); err != nil {
				t.Fatal(err)
			}
			for _, s := range []string{"fw.efi", "core.img", "verify"} {
				if !steps[s] {
					t.Errorf("no progress of %s", s)
				}
			}
			if out := tool(t, "sgdisk", "-v", f.Name()); !strings.Contains(out, "No problems found") {
				t.Errorf("sgdisk: %s", out)
			}
			table, err := gpt.Read(f, 400*mib)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, p := range table.Partitions {
				names = append(names, p.Name)
			}
			if d := cmp.Diff([]string{layout.PartBIOS, layout.PartESP, layout.PartSlotA, layout.PartSlotB}, names); d != "" {
				t.Error(d)
			}
			for _, p := range table.Partitions[1:] {
				name := cut(t, f, p)
				if out := tool(t, "fsck.fat", "-n", "-v", name); strings.Contains(out, "differ") || strings.Contains(out, "wrong") {
					t.Errorf("%s: %s", p.Name, out)
				}
				switch p.Name {
				case layout.PartSlotA, layout.PartSlotB:
					out := tool(t, "mdir", "-b", "-i", name)
					if want := p.Name == layout.PartSlotA || both; strings.Contains(out, "fw.efi") != want {
						t.Errorf("%s: %s", p.Name, out)
					}
					if both || p.Name == layout.PartSlotA {
						to := filepath.Join(t.TempDir(), "fw.efi")
						tool(t, "mcopy", "-i", name, "::fw.efi", to)
						if b, _ := os.ReadFile(to); !bytes.Equal(b, ps[1].Data) {
							t.Errorf("%s: fw.efi is another", p.Name)
						}
					}
				case layout.PartESP:
					out := tool(t, "mdir", "-/", "-b", "-i", name)
					for _, want := range []string{"::/EFI/BOOT/BOOTX64.EFI", "::/EFI/BOOT/grubx64.efi", "::/ballast/grubenv"} {
						if !strings.Contains(out, want) {
							t.Errorf("the ESP has no %s: %s", want, out)
						}
					}
				}
			}
			// The first boot takes a blank beginning of the data partition for a new one.
			b := make([]byte, blank)
			if _, err := f.ReadAt(b, MinSize-tail); err != nil || !bytes.Equal(b, make([]byte, blank)) {
				t.Errorf("where data begins: %v, not blank", err)
			}
			// Between the boot code and the partitions of the MBR is the disk's signature.
			if _, err := f.ReadAt(b[:446-bootCode], bootCode); err != nil || !bytes.Equal(b[:446-bootCode], make([]byte, 446-bootCode)) {
				t.Errorf("the signature of the disk: %x, %v", b[:446-bootCode], err)
			}
			core := make([]byte, len(ps[3].Data))
			if _, err := f.ReadAt(core, first); err != nil || !bytes.Equal(core, ps[3].Data) {
				t.Errorf("core.img is another: %v", err)
			}
		})
	}
}

// The same parts and name make the same bytes; without a name no two disks have
// the same identifiers.
func TestWriteReproducible(t *testing.T) {
	hash := func(o Options) string {
		f := blankDisk(t, MinSize)
		if err := Write(f, FromFiles(parts(t, 1, mib)...), o); err != nil {
			t.Fatal(err)
		}
		h := sha256.New()
		if _, err := io.Copy(h, io.NewSectionReader(f, 0, MinSize)); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%x", h.Sum(nil))
	}
	named := Options{Name: "qemu v1", Time: time.Unix(1_700_000_000, 0)}
	if one, two := hash(named), hash(named); one != two {
		t.Error("two disks of one name differ")
	}
	if one, two := hash(Options{}), hash(Options{}); one == two {
		t.Error("two disks without a name are the same")
	}
}

func TestWriteRefuses(t *testing.T) {
	small := blankDisk(t, MinSize-mib)
	if err := Write(small, FromFiles(parts(t, 1, mib)...), Options{}); err == nil || !strings.Contains(err.Error(), "want at least") {
		t.Errorf("a small disk: %v", err)
	}
	for _, missing := range []string{bundle.SlotConfig, bundle.Firmware, bundle.BootCode, bundle.CoreImage, bundle.Loader} {
		f := blankDisk(t, MinSize)
		var ps []bundle.File
		for _, p := range parts(t, 1, mib) {
			if p.Name != missing {
				ps = append(ps, p)
			}
		}
		err := Write(f, FromFiles(ps...), Options{})
		if err == nil || !strings.Contains(err.Error(), missing) {
			t.Errorf("without %s: %v", missing, err)
		}
		if _, err := gpt.Read(f, MinSize); err == nil {
			t.Errorf("without %s: there is a partition table", missing)
		}
	}
	// A file that would take the state's place.
	ps := append(parts(t, 1, mib), bundle.File{Name: bundle.ESPPrefix + "ballast/grubenv", Data: []byte("x")})
	if err := Write(blankDisk(t, MinSize), FromFiles(ps...), Options{}); err == nil {
		t.Error("a part in the place of the state is taken")
	}
}

// A disk that loses power while it is written cannot be booted, or is whole.
func TestWritePowerCut(t *testing.T) {
	ps := parts(t, 1, mib)
	const step = 13 // one in so many writes and syncs
	for n := 0; ; n += step {
		d := &cuttable{quick: blankDisk(t, MinSize), left: n, rnd: rand.New(rand.NewPCG(uint64(n), 2))}
		err := Write(d, FromFiles(ps...), Options{})
		d.cut(t)
		table, rerr := gpt.Read(d.quick, MinSize)
		if err == nil {
			if rerr != nil || n < 3*step {
				t.Errorf("after %d writes all is written: %v", n, rerr)
			}
			return
		}
		if rerr != nil {
			continue
		}
		// The table came last.
		p, _ := table.Find(layout.NumberSlotA)
		if _, err := ReadSlot(Section(d.quick, p)); err != nil {
			t.Errorf("after %d writes there is a table, and no firmware: %v", n, err)
		}
	}
}

// slotDevice is a file as large as a slot.
func slotDevice(t testing.TB) *quick { return blankDisk(t, layout.SizeSlot*mib) }

func TestSlot(t *testing.T) {
	d := slotDevice(t)
	if _, err := ReadSlot(d); err == nil {
		t.Error("noise is a slot")
	}
	for seed := range uint64(2) { // a fresh one, and one that holds another
		ps := parts(t, seed, 3*mib+int(seed))
		if err := WriteSlot(d, FromFiles(ps...), Options{}); err != nil {
			t.Fatal(err)
		}
		s, err := ReadSlot(d)
		if err != nil {
			t.Fatal(err)
		}
		_, want := firmware(t, seed, 3*mib+int(seed))
		if diff := cmp.Diff(want, s.Config); diff != "" {
			t.Error(diff)
		}
		fw := ps[1].Data
		for name, piece := range map[string]struct {
			open func() (io.Reader, int64, error)
			r    Range
		}{"linux": {s.Linux, want.Linux}, "initrd": {s.Initrd, want.Initrd}} {
			r, n, err := piece.open()
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(r)
			if err != nil || n != piece.r.Size || !bytes.Equal(b, fw[piece.r.Offset:piece.r.Offset+piece.r.Size]) {
				t.Errorf("%s: %d bytes, %v", name, len(b), err)
			}
		}
	}
}

// Whatever ends an upgrade, the slot holds the whole new firmware or none, and
// never an old or a half one.
func TestSlotBroken(t *testing.T) {
	ps := parts(t, 2, 3*mib)
	t.Run("stream", func(t *testing.T) {
		d := slotDevice(t)
		if err := WriteSlot(d, FromFiles(parts(t, 1, mib)...), Options{}); err != nil {
			t.Fatal(err)
		}
		broken := errors.New("broken")
		next := FromFiles(ps...)
		err := WriteSlot(d, func() (Part, error) {
			p, err := next()
			if p.Name == bundle.Firmware {
				p.Content = io.MultiReader(io.LimitReader(p.Content, mib), failing{broken})
			}
			return p, err
		}, Options{})
		if !errors.Is(err, broken) {
			t.Errorf("error %v", err)
		}
		if _, err := ReadSlot(d); err == nil {
			t.Error("there is a firmware")
		}
	})
	t.Run("short part", func(t *testing.T) {
		d := slotDevice(t)
		next := FromFiles(ps...)
		err := WriteSlot(d, func() (Part, error) {
			p, err := next()
			p.Content = io.LimitReader(p.Content, p.Size-1)
			return p, err
		}, Options{})
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("bad disk", func(t *testing.T) {
		d := &lossy{quick: slotDevice(t), at: 2 * mib}
		if err := WriteSlot(d, FromFiles(ps...), Options{}); !errors.Is(err, ErrVerify) {
			t.Errorf("error %v", err)
		}
		if _, err := ReadSlot(d); err == nil {
			t.Error("there is a firmware")
		}
	})
	t.Run("power cut", func(t *testing.T) {
		// Every write and sync is an event; the cut comes after n of them, and keeps any
		// of those that were not synced.
		for n := 0; ; n++ {
			d := &cuttable{quick: slotDevice(t), left: n, rnd: rand.New(rand.NewPCG(uint64(n), 1))}
			if err := WriteSlot(d.quick, FromFiles(parts(t, 1, mib)...), Options{}); err != nil {
				t.Fatal(err)
			}
			err := WriteSlot(d, FromFiles(ps...), Options{})
			if err == nil {
				if n < 10 {
					t.Errorf("only %d writes", n)
				}
				break
			}
			d.cut(t)
			s, err := ReadSlot(d.quick)
			if err != nil {
				continue
			}
			if s.Config.Version == "v1" && n > 1 {
				t.Fatalf("after %d writes the old firmware is there", n)
			}
			if s.Config.Version == "v2" {
				f, err := s.Open(layout.FirmwareFile)
				if err != nil {
					t.Fatal(err)
				}
				if b, err := io.ReadAll(f); err != nil || !bytes.Equal(b, ps[1].Data) {
					t.Fatalf("after %d writes half a firmware is there: %v", n, err)
				}
			}
		}
	})
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// lossy loses what is written at one place.
type lossy struct {
	*quick
	at int64
}

func (l *lossy) WriteAt(b []byte, at int64) (int, error) {
	if at <= l.at && l.at < at+int64(len(b)) {
		c := bytes.Clone(b)
		c[l.at-at] ^= 1
		b = c
	}
	return l.quick.WriteAt(b, at)
}

// cuttable is a disk whose power goes after some writes and syncs: of what was
// not synced then, it has kept what it liked, sector by sector.
type cuttable struct {
	*quick
	left    int
	rnd     *rand.Rand
	waiting []struct {
		at int64
		b  []byte
	}
}

var errCut = errors.New("no power")

func (c *cuttable) WriteAt(b []byte, at int64) (int, error) {
	if c.left--; c.left < 0 {
		return 0, errCut
	}
	c.waiting = append(c.waiting, struct {
		at int64
		b  []byte
	}{at, bytes.Clone(b)})
	return len(b), nil
}

func (c *cuttable) ReadAt(b []byte, at int64) (int, error) {
	if c.left < 0 {
		return 0, errCut
	}
	n, err := c.File.ReadAt(b, at)
	for _, w := range c.waiting {
		lo, hi := max(at, w.at), min(at+int64(n), w.at+int64(len(w.b)))
		if lo < hi {
			copy(b[lo-at:hi-at], w.b[lo-w.at:])
		}
	}
	return n, err
}

func (c *cuttable) Sync() error {
	if c.left--; c.left < 0 {
		return errCut
	}
	for _, w := range c.waiting {
		if _, err := c.File.WriteAt(w.b, w.at); err != nil {
			return err
		}
	}
	c.waiting = nil
	return nil
}

func (c *cuttable) cut(t *testing.T) {
	t.Helper()
	for _, w := range c.waiting {
		for i := 0; i < len(w.b); i += sector {
			if c.rnd.IntN(2) == 0 {
				continue
			}
			if _, err := c.File.WriteAt(w.b[i:min(i+sector, len(w.b))], w.at+int64(i)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestEnv(t *testing.T) {
	f := blankDisk(t, MinSize)
	if err := Write(f, FromFiles(parts(t, 1, mib)...), Options{Name: "x"}); err != nil {
		t.Fatal(err)
	}
	table, err := gpt.Read(f, MinSize)
	if err != nil {
		t.Fatal(err)
	}
	p, _ := table.Find(layout.NumberESP)
	esp := Section(f, p)
	before, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	want := bootenv.Default.Trial(layout.B)
	if err := WriteEnv(esp, want); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadEnv(esp); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	// One sector and nothing else was written.
	after, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	changed := map[int]bool{}
	for i := 0; i < len(after); i += sector {
		if !bytes.Equal(before[i:i+sector], after[i:i+sector]) {
			changed[i] = true
		}
	}
	if len(changed) != 1 {
		t.Errorf("%d sectors have changed, want 1", len(changed))
	}
	if err := WriteEnv(esp, bootenv.Env{Good: "X"}); err == nil {
		t.Error("a state that cannot be was written")
	}
	if _, err := ReadEnv(Section(f, table.Partitions[layout.NumberSlotB-1])); err == nil {
		t.Error("an empty slot has a state")
	}
}

func TestSlotConfig(t *testing.T) {
	_, c := firmware(t, 1, mib)
	b, err := c.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	good := string(b)
	tests := []struct{ name, text, err string }{
		{"good", good, ""},
		{"no head", strings.TrimPrefix(good, "#"), "begin"},
		{"missing", strings.Replace(good, "set slot_board='qemu'\n", "", 1), "slot_board is missing"},
		{"twice", good + "set slot_board='qemu'\n", "twice"},
		{"a command", good + "reboot\n", "want set"},
		{"a variable", strings.Replace(good, "panic", "$panic", 1), "want set"},
		{"a quote", strings.Replace(good, "panic", "' panic", 1), "want set"},
		{"a wildcard", strings.Replace(good, "panic", "p*", 1), "want set"},
		{"a range behind the slot", strings.Replace(strings.Replace(good, "linux='2+", "linux='900000000+", 1), "x", "x", 1), "no place"},
		{"a length that is another", strings.Replace(good, "linux_size='5000'", "linux_size='50'", 1), "no place"},
		{"a build", strings.Replace(good, "build='1'", "build='-1'", 1), "slot_build"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseSlotConfig([]byte(tt.text))
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("error %v, want %q", err, tt.err)
			}
		})
	}
	for _, bad := range []SlotConfig{
		{Identity: c.Identity, Linux: Range{100, 5}, Initrd: c.Initrd},
		{Identity: c.Identity, Linux: c.Linux, Initrd: c.Initrd, Args: "a'b"},
		{Linux: c.Linux, Initrd: c.Initrd},
	} {
		if b, err := bad.Bytes(); err == nil {
			t.Errorf("%+v: %s", bad, b)
		}
	}
}

func FuzzParseSlotConfig(f *testing.F) {
	_, c := firmware(f, 1, mib)
	b, err := c.Bytes()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseSlotConfig(b)
		if err != nil {
			return
		}
		if again, err := c.Bytes(); err != nil {
			t.Errorf("%q is read and cannot be written: %v", b, err)
		} else if back, err := ParseSlotConfig(again); err != nil || back != c {
			t.Errorf("%+v, %v, want %+v", back, err, c)
		}
	})
}
