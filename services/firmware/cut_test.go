package firmware

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"ballast/image/bundle"
	"ballast/image/disk"
	"ballast/image/layout"
	"ballast/services/ipc/status"
)

var errPower = errors.New("the power is gone")

// drive is what the partitions of a disk share: one power cord.
type drive struct {
	left  int // writes and flushes until it is pulled; <0: never
	steps int
	torn  bool // a write was cut in its middle
}

func (d *drive) step() error {
	d.steps++
	if d.left == 0 {
		return errPower
	}
	d.left--
	return nil
}

// partition keeps what was written since the last flush apart: a power cut leaves
// any of it, sector by sector, and all that was flushed.
type partition struct {
	drive *drive
	size  int64
	safe  map[int64][]byte // sectors
	loose map[int64][]byte
}

const sector = 512

func (p *partition) Size() int64 { return p.size }

func (p *partition) ReadAt(b []byte, at int64) (int, error) {
	if at >= p.size {
		return 0, io.EOF
	}
	n := int(min(int64(len(b)), p.size-at))
	for i := 0; i < n; {
		s, off := (at+int64(i))/sector, (at+int64(i))%sector
		have := p.loose[s]
		if have == nil {
			have = p.safe[s]
		}
		m := min(n-i, int(sector-off))
		if have == nil {
			clear(b[i : i+m])
		} else {
			copy(b[i:i+m], have[off:])
		}
		i += m
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (p *partition) WriteAt(b []byte, at int64) (int, error) {
	if at < 0 || at+int64(len(b)) > p.size {
		return 0, errors.New("write beyond the partition")
	}
	err := p.drive.step()
	if err != nil {
		if p.drive.torn {
			return 0, err
		}
		p.drive.torn = true // the write under way: its first half may be there
		b = b[:len(b)/2/sector*sector]
	}
	for i := 0; i < len(b); {
		s, off := (at+int64(i))/sector, (at+int64(i))%sector
		now := make([]byte, sector)
		p.ReadAt(now, s*sector)
		m := copy(now[off:], b[i:])
		p.loose[s] = now
		i += m
	}
	return len(b), err
}

func (p *partition) Sync() error {
	if err := p.drive.step(); err != nil {
		return err
	}
	for s, b := range p.loose {
		p.safe[s] = b
	}
	p.loose = map[int64][]byte{}
	return nil
}

// reboot is the partition after the power came back: of what was not flushed any
// sectors are there.
func (p *partition) reboot(d *drive, r *rand.Rand, keep float64) *partition {
	after := &partition{drive: d, size: p.size, safe: map[int64][]byte{}, loose: map[int64][]byte{}}
	for s, b := range p.safe {
		after.safe[s] = b
	}
	for s, b := range p.loose {
		if r.Float64() < keep {
			after.safe[s] = b
		}
	}
	return after
}

// cutDisk is a disk of such partitions, as it was flashed.
type cutDisk struct {
	esp, a, b *partition
}

func newCutDisk(t *testing.T) cutDisk {
	t.Helper()
	dir := flashed(t, oldID)
	d := &drive{left: -1}
	read := func(name string) *partition {
		whole, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		p := &partition{drive: d, size: int64(len(whole)), safe: map[int64][]byte{}, loose: map[int64][]byte{}}
		none := make([]byte, sector)
		for at := 0; at < len(whole); at += sector {
			if s := whole[at : at+sector]; !bytes.Equal(s, none) {
				p.safe[int64(at/sector)] = s
			}
		}
		return p
	}
	return cutDisk{read(layout.PartESP), read(layout.PartSlotA), read(layout.PartSlotB)}
}

// after is the disk after a power cut, with a cord that is pulled after left steps.
func (c cutDisk) after(left int, r *rand.Rand, keep float64) (cutDisk, *drive) {
	d := &drive{left: left}
	return cutDisk{c.esp.reboot(d, r, keep), c.a.reboot(d, r, keep), c.b.reboot(d, r, keep)}, d
}

func (c cutDisk) machine() *blocks {
	return &blocks{esp: c.esp, slots: map[layout.Slot]disk.Device{layout.A: c.a, layout.B: c.b}}
}

// starts does as the boot loader: it counts a trial down, takes the other slot
// when one cannot be read, and says which firmware runs. A firmware that is not
// whole is an error.
func (c cutDisk) starts() (slot layout.Slot, trial bool, id layout.Identity, err error) {
	m := c.machine()
	env, err := m.Env()
	if err != nil {
		return slot, false, id, err // one sector: it is the old state or the new one
	}
	slot = env.Next()
	if trial = slot == env.Try; trial {
		env.Left--
		if err := m.SetEnv(env); err != nil {
			return slot, false, id, err
		}
	}
	s, err := disk.ReadSlot(m.slots[slot])
	if err != nil {
		slot, trial = slot.Other(), false
		if s, err = disk.ReadSlot(m.slots[slot]); err != nil {
			return slot, false, id, fmt.Errorf("neither slot can be started: %w", err)
		}
	}
	f, err := s.Open(layout.FirmwareFile)
	if err != nil {
		return slot, false, id, err
	}
	got, err := io.ReadAll(f)
	fill, known := filled[s.Config.Identity]
	if err != nil || !known || !bytes.Equal(got, bytes.Repeat([]byte{fill}, 3<<20)) {
		return slot, false, id, fmt.Errorf("slot %s with %s is not whole: %d bytes, %v", slot, s.Config.Version, len(got), err)
	}
	return slot, trial, s.Config.Identity, nil
}

// life is an upgrade and its trial on one disk: from flash to confirmed. say is
// told what is finished.
func life(t *testing.T, c cutDisk, file []byte, say func(string)) error {
	s, _, _ := newService(t)
	s.machine = c.machine()
	s.begin(t.Context())
	quiet := func(string, ...any) error { return nil }
	to, err := s.load(t.Context(), bytes.NewReader(file), status.FirmwareUpgrade{}, quiet, func(status.FirmwareProgress) error { return nil })
	if err != nil {
		return err
	}
	say("loaded")
	if err := s.try(t.Context(), status.FirmwareEvent{Kind: "upgrade", To: status.FirmwareIdentity(to)}); err != nil {
		return err
	}
	say("on trial")
	if slot, trial, _, err := c.starts(); err != nil || slot != layout.B || !trial {
		return fmt.Errorf("slot %s starts: %w", slot, err)
	}
	b, _, _ := newService(t)
	b.machine, b.slot, b.onTrial, b.running, b.boot, b.records = c.machine(), layout.B, true, newID, "boot2", s.records
	if !b.begin(t.Context()) {
		return errors.New("it is not on trial")
	}
	if err := b.confirm("it does its job"); err != nil {
		return err
	}
	say("confirmed")
	return nil
}

// filled is what the firmwares of these tests are full of.
var filled = map[layout.Identity]byte{oldID: 1, newID: 2}

// The power is cut at every write and flush of an upgrade, and the disk comes
// back with any part of what was not flushed: what starts is whole, it is the old one
// until the trial was ordered and the new one when it is confirmed, and the next upgrade
// goes through.
func TestPowerCutAtEveryStep(t *testing.T) {
	flash := newCutDisk(t)
	var b bytes.Buffer
	if err := bundle.Write(&b, bundle.Manifest{Identity: newID, ConfigFormat: 1}, slotParts(t, newID, 2), maker); err != nil {
		t.Fatal(err)
	}
	file := b.Bytes()
	r := rand.New(rand.NewPCG(1, 1))
	count, d := flash.after(-1, r, 1)
	if err := life(t, count, file, func(string) {}); err != nil {
		t.Fatal(err)
	}
	stride := 1
	if testing.Short() {
		stride = 7
	}
	t.Logf("%d steps", d.steps)
	for cut := 0; cut < d.steps; cut += stride {
		for _, keep := range []float64{0, 0.5, 1} {
			r := rand.New(rand.NewPCG(uint64(cut), uint64(10*keep)))
			c, _ := flash.after(cut, r, 1)
			done := ""
			if err := life(t, c, file, func(what string) { done = what }); err == nil {
				t.Fatalf("cut at %d of %d: it is finished", cut, d.steps)
			}
			after, _ := c.after(-1, r, keep)
			slot, trial, id, err := after.starts()
			switch {
			case err != nil:
				t.Fatalf("cut at %d, after it was %q: %v", cut, done, err)
			case done == "" && (slot != layout.A || id != oldID):
				t.Fatalf("cut at %d, before it was loaded: slot %s with %s starts", cut, slot, id.Version)
			case done == "confirmed" && (slot != layout.B || id != newID || trial):
				t.Fatalf("cut at %d, when it was confirmed: slot %s with %s starts", cut, slot, id.Version)
			case slot == layout.B && id != newID, slot == layout.A && id != oldID:
				t.Fatalf("cut at %d: slot %s with %s", cut, slot, id.Version)
			}
			if slot == layout.A && cut%5 == 0 {
				again, _ := after.after(-1, r, 1)
				if err := life(t, again, file, func(string) {}); err != nil {
					t.Fatalf("cut at %d, the next upgrade: %v", cut, err)
				}
			}
		}
	}
}
