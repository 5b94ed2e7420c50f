package disk

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"io"
	"math"
	"slices"
	"strings"
	"testing"

	"ballast/image/bootenv"
	"ballast/image/bundle"
	"ballast/image/disk/fat"
	"ballast/image/disk/gpt"
	"ballast/image/layout"
)

// powered is a device that tells what it was not told to keep: cuttable, whose
// power does not go.
func powered(d *quick) *cuttable { return &cuttable{quick: d, left: math.MaxInt} }

// As soon as a disk is written nothing boots from it: the table that was there
// is gone, and so is its copy.
func TestWriteTakesTheOldTable(t *testing.T) {
	d := blankDisk(t, MinSize)
	if err := Write(d, FromFiles(parts(t, 1, mib)...), Options{}); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	if err := Write(d, func() (Part, error) { return Part{}, broken }, Options{}); !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
	if table, err := gpt.Read(d, MinSize); err == nil {
		t.Errorf("the old table is there: %+v", table)
	}
}

// Wherever a disk does not keep a byte, it is not said to be written.
func TestWriteReadsBack(t *testing.T) {
	esp := Table(Options{}).Partitions[layout.NumberESP-1].Offset()
	slot := Table(Options{}).Partitions[layout.NumberSlotA-1].Offset()
	for name, at := range map[string]int64{"the table": gpt.Sector + 20, "core.img": first + 100, "the loader": esp + 2*mib, "the firmware": slot + 2*mib} {
		d := &lossy{quick: blankDisk(t, MinSize), at: at}
		ps := parts(t, 1, 3*mib)
		ps[4].Data = bytes.Repeat([]byte("MZ"), 3*mib/2)
		if err := Write(d, FromFiles(ps...), Options{}); !errors.Is(err, ErrVerify) {
			t.Errorf("a byte of %s: %v", name, err)
		}
	}
}

func TestWriteRefusesParts(t *testing.T) {
	for _, c := range []struct {
		name string
		size int
		want string
	}{
		{bundle.BootCode, bootCode - 1, "has 439 bytes"}, {bundle.BootCode, maxBoot + 1, "has 513 bytes"},
		{bundle.CoreImage, layout.SizeBIOS*mib + 1, "want at most 1 MiB"},
		{bundle.ESPPrefix + "BALLAST/grubenv", 10, "state of the boot loader"},
	} {
		ps := slices.DeleteFunc(parts(t, 1, mib), func(p bundle.File) bool { return p.Name == c.name })
		ps = append(ps, bundle.File{Name: c.name, Data: make([]byte, c.size)})
		if err := Write(blankDisk(t, MinSize), FromFiles(ps...), Options{}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s of %d bytes: %v, want %q", c.name, c.size, err, c.want)
		}
	}
}

// A partition ends where it ends.
func TestSection(t *testing.T) {
	d := blankDisk(t, 4*mib)
	s := Section(d, gpt.Partition{Start: 2048, Last: 2049})
	b := make([]byte, gpt.Sector)
	for _, at := range []int64{-1, 2*gpt.Sector - 1, 2 * gpt.Sector, 1 << 40} {
		if _, err := s.WriteAt(b, at); err == nil {
			t.Errorf("written at %d", at)
		}
		if _, err := s.ReadAt(b, at); err == nil {
			t.Errorf("read at %d", at)
		}
	}
	if _, err := s.WriteAt(bytes.Repeat([]byte("x"), gpt.Sector), gpt.Sector); err != nil {
		t.Error(err)
	}
	if _, err := d.ReadAt(b, 2049*gpt.Sector); err != nil || b[0] != 'x' {
		t.Errorf("%q, %v", b[:1], err)
	}
}

// When the state is written it is on the disk: the box reboots next.
func TestEnvIsKept(t *testing.T) {
	d := powered(blankDisk(t, layout.SizeESP*mib))
	v, err := newVolume(d, fat.Options{})
	if err == nil {
		err = v.put(layout.EnvPath, bootenv.Default.Bytes())
	}
	if err == nil {
		err = v.finish(Options{})
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := WriteEnv(d, bootenv.Default.Trial(layout.B)); err != nil || len(d.waiting) != 0 {
		t.Errorf("%v, %d writes may be lost", err, len(d.waiting))
	}
	if v, err = newVolume(d, fat.Options{}); err == nil {
		err = v.put(layout.EnvPath, bootenv.Default.Bytes()[:100])
	}
	if err == nil {
		err = v.finish(Options{})
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ReadEnv(d); err == nil || !strings.Contains(err.Error(), "has 100 bytes") {
		t.Errorf("a state of 100 bytes: %v", err)
	}
}

// A slot that was not written to its end holds nothing, and that is on the disk.
func TestSlotRefuses(t *testing.T) {
	long := func(ps []bundle.File) Parts {
		next := FromFiles(ps...)
		return func() (Part, error) {
			p, err := next()
			if p.Name == bundle.Firmware {
				p.Content = io.MultiReader(p.Content, strings.NewReader("x"))
			}
			return p, err
		}
	}
	for want, change := range map[string]func(ps []bundle.File) Parts{
		"more than":                func(ps []bundle.File) Parts { return long(ps) },
		"no part slot.cfg":         func(ps []bundle.File) Parts { return FromFiles(ps[1:]...) },
		"no part fw.efi":           func(ps []bundle.File) Parts { return FromFiles(ps[:1]...) },
		"slot.cfg: it does not be": func(ps []bundle.File) Parts { ps[0].Data = []byte("junk"); return FromFiles(ps...) },
	} {
		d := powered(slotDevice(t))
		if err := WriteSlot(d, change(parts(t, 1, mib)), Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
		if len(d.waiting) != 0 {
			t.Errorf("%s: %d writes may be lost", want, len(d.waiting))
		}
		if _, err := ReadSlot(d); err == nil {
			t.Errorf("%s: there is a firmware", want)
		}
	}
}

// What slot.cfg says of fw.efi is looked at before it is believed.
func TestPieceBehindTheFile(t *testing.T) {
	d := slotDevice(t)
	ps := parts(t, 1, mib)
	ps[1].Data = ps[1].Data[:6656+10]
	if err := WriteSlot(d, FromFiles(ps...), Options{}); err != nil {
		t.Fatal(err)
	}
	s, err := ReadSlot(d)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Initrd(); err == nil || !strings.Contains(err.Error(), "slot.cfg speaks of") {
		t.Errorf("an initramfs behind the end: %v", err)
	}
}

// A slot gives no bundle that it has not got whole, and keeps no part that is as
// long as a firmware.
func TestSlotBundleFaults(t *testing.T) {
	files := parts(t, 1, mib)
	_, c := firmware(t, 1, mib)
	var whole bytes.Buffer
	if err := bundle.Write(&whole, bundle.Manifest{Identity: c.Identity}, files, ed25519.NewKeyFromSeed(make([]byte, 32))); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(ps []bundle.File) []bundle.File{
		"boot.img has 441 bytes, not 446": func(ps []bundle.File) []bundle.File { ps[2].Data = ps[2].Data[:441]; return ps },
		"its head has":                    func(ps []bundle.File) []bundle.File { ps[6].Data = make([]byte, maxHead+1); return ps },
		"/boot.img: no such file":         func(ps []bundle.File) []bundle.File { return slices.Delete(ps, 2, 3) },
		"/core.img: no such file":         func(ps []bundle.File) []bundle.File { ps[3].Data = make([]byte, keepMost+1); return ps },
	} {
		ps, err := WithHead(slices.Clone(files), whole.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		d := slotDevice(t)
		if err := WriteSlot(d, FromFiles(change(ps)...), Options{}); err != nil {
			t.Fatal(err)
		}
		s, err := ReadSlot(d)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Bundle(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
