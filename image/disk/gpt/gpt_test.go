package gpt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// memory is a disk that keeps an order of writes and syncs.
type memory struct {
	b       []byte
	waiting []write
	events  int
	stop    int // events until the power goes; -1 for never
}

type write struct {
	at int64
	b  []byte
}

var errCut = errors.New("no power")

func disk(size int) *memory { return &memory{b: make([]byte, size), stop: -1} }

func (m *memory) event() error {
	if m.stop >= 0 && m.events >= m.stop {
		return errCut
	}
	m.events++
	return nil
}

func (m *memory) ReadAt(b []byte, at int64) (int, error) {
	if at < 0 || at+int64(len(b)) > int64(len(m.b)) {
		return 0, io.EOF
	}
	copy(b, m.b[at:])
	for _, w := range m.waiting {
		for i, c := range w.b {
			if j := w.at + int64(i) - at; j >= 0 && j < int64(len(b)) {
				b[j] = c
			}
		}
	}
	return len(b), nil
}

func (m *memory) WriteAt(b []byte, at int64) (int, error) {
	if err := m.event(); err != nil {
		return 0, err
	}
	m.waiting = append(m.waiting, write{at, bytes.Clone(b)})
	return len(b), nil
}

func (m *memory) Sync() error {
	if err := m.event(); err != nil {
		return err
	}
	for _, w := range m.waiting {
		copy(m.b[w.at:], w.b)
	}
	m.waiting = nil
	return nil
}

// cut is the end of power: pages of 4 KiB that were not synced are there or not.
func (m *memory) cut(r *rand.Rand) {
	for _, w := range m.waiting {
		for i := 0; i < len(w.b); {
			n := min(len(w.b)-i, int(atomic-(w.at+int64(i))%atomic))
			if r.IntN(2) == 0 {
				copy(m.b[w.at+int64(i):], w.b[i:i+n])
			}
			i += n
		}
	}
	m.waiting = nil
}

const size = 4 << 20

func table() *Table {
	return &Table{GUID: NamedGUID("d"), Partitions: []Partition{
		{Number: 1, Type: TypeBIOS, GUID: NamedGUID("1"), Start: 2048, Last: 2100, Name: "bios"},
		{Number: 3, Type: TypeLinux, GUID: NamedGUID("3"), Start: 2101, Last: 4000, Attributes: 4, Name: "größe"},
	}}
}

func TestWriteRead(t *testing.T) {
	d := disk(size)
	copy(d.b, "boot code")
	want := table()
	if err := want.Write(d, size); err != nil {
		t.Fatal(err)
	}
	got, err := Read(d, size)
	if err != nil {
		t.Fatal(err)
	}
	want.Sectors = size / Sector
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if !bytes.HasPrefix(d.b, []byte("boot code")) {
		t.Error("the boot code is gone")
	}
	for _, broken := range []int64{Sector, 2 * Sector, 2*Sector + 130} {
		c := disk(size)
		copy(c.b, d.b)
		c.b[broken+20] ^= 1
		got, err := Read(c, size)
		if err != nil || !got.FromBackup || len(got.Partitions) != 2 {
			t.Errorf("byte %d of the first copy: %+v, %v", broken, got, err)
		}
	}
	if _, err := Read(disk(size), size); !errors.Is(err, ErrNone) {
		t.Errorf("a blank disk: %v", err)
	}
	if p, ok := got.Find(3); !ok || p.Offset() != 2101*512 || p.Size() != 1900*512 {
		t.Errorf("%+v %v", p, ok)
	}
	if _, ok := got.Find(2); ok {
		t.Error("partition 2 is there")
	}
}

// Whenever the power goes while a partition is added and the disk has grown,
// the old or the new table is there.
func TestPowerCut(t *testing.T) {
	old := table()
	before := disk(size / 2)
	if err := old.Write(before, size/2); err != nil {
		t.Fatal(err)
	}
	grown := table()
	grown.Partitions = append(grown.Partitions, Partition{Number: 5, Type: TypeLinux, GUID: NamedGUID("5"), Start: 4096, Last: Last(size), Name: "data"})
	var seen [2]bool
	for stop := 0; ; stop++ {
		var done bool
		for seed := range uint64(8) {
			d := disk(size)
			copy(d.b, before.b)
			d.stop = stop
			err := grown.Write(d, size)
			done = err == nil
			d.cut(rand.New(rand.NewPCG(seed, uint64(stop))))
			got, rerr := Read(d, size)
			if rerr != nil {
				t.Fatalf("after %d writes and syncs: %v", stop, rerr)
			}
			if got.FromBackup {
				t.Errorf("after %d writes and syncs: only the copy is whole", stop)
			}
			seen[len(got.Partitions)-2] = true
			if done && len(got.Partitions) != 3 {
				t.Error("the table was not written")
			}
		}
		if done {
			break
		}
	}
	if !seen[0] || !seen[1] {
		t.Errorf("old, new seen: %v", seen)
	}
}

// A table whose sums are right and whose numbers cannot be is none.
func TestReadRefuses(t *testing.T) {
	le := binary.LittleEndian
	for name, change := range map[string]func(header, entry []byte){
		"the header of another place":  func(h, _ []byte) { le.PutUint64(h[24:], 7) },
		"more entries than anybody's":  func(h, _ []byte) { le.PutUint32(h[80:], 1025) },
		"entries of another length":    func(h, _ []byte) { le.PutUint32(h[84:], 256) },
		"entries behind the end":       func(h, _ []byte) { le.PutUint64(h[72:], size/Sector) },
		"a partition behind the end":   func(_, e []byte) { le.PutUint64(e[40:], size/Sector) },
		"a partition that ends before": func(_, e []byte) { le.PutUint64(e[40:], 2047) },
	} {
		d := disk(size)
		if err := table().Write(d, size); err != nil {
			t.Fatal(err)
		}
		clear(d.b[size-Tail*Sector:]) // the copy
		h, list := d.b[Sector:], d.b[2*Sector:]
		change(h, list)
		le.PutUint32(h[88:], crc32.ChecksumIEEE(list[:min(le.Uint32(h[80:])*entrySize, size/2)]))
		le.PutUint32(h[16:], 0)
		le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:headerSize]))
		if got, err := Read(d, size); err == nil || errors.Is(err, ErrNone) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestCheck(t *testing.T) {
	tests := []struct {
		name string
		edit func(*Table)
		err  string
	}{
		{"good", func(*Table) {}, ""},
		{"overlap", func(t *Table) { t.Partitions[1].Start = 2100 }, "overlap"},
		{"number", func(t *Table) { t.Partitions[1].Number = 1 }, "number 1"},
		{"behind the end", func(t *Table) { t.Partitions[1].Last = Last(size) + 1 }, "has room"},
		{"no type", func(t *Table) { t.Partitions[0].Type = GUID{} }, "type"},
		{"long name", func(t *Table) { t.Partitions[0].Name = strings.Repeat("x", 37) }, "longer"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := table()
			tt.edit(g)
			err := g.Write(disk(size), size)
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("error %v, want %q", err, tt.err)
			}
		})
	}
}

func TestGUID(t *testing.T) {
	const text = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
	if got := TypeESP.String(); got != text {
		t.Error(got)
	}
	if !bytes.HasPrefix(TypeESP[:], []byte{0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b}) {
		t.Errorf("% x", TypeESP[:])
	}
	a, b := RandomGUID(), RandomGUID()
	c, d := NamedGUID("a"), NamedGUID("a")
	if a == b || c != d || c == NamedGUID("b") {
		t.Error("identifiers")
	}
	if s := RandomGUID().String(); s[14] != '4' {
		t.Errorf("%s is of no version 4", s)
	}
	for _, bad := range []string{"", text[1:], text + "0", strings.ReplaceAll(text, "-", ""), strings.Replace(text, "c", "x", 1)} {
		if _, err := ParseGUID(bad); err == nil {
			t.Errorf("%q is a GUID", bad)
		}
	}
}

// seal makes the sums of a table's first copy right, so that a fuzzer gets to
// what is behind them.
func seal(b []byte) {
	le := binary.LittleEndian
	h := b[Sector : 2*Sector]
	at, n := le.Uint64(h[72:]), uint64(le.Uint32(h[80:]))*entrySize
	if each := le.Uint32(h[84:]); each == entrySize && at < size/Sector && n <= size-at*Sector {
		le.PutUint32(h[88:], crc32.ChecksumIEEE(b[at*Sector:][:n]))
	}
	le.PutUint32(h[16:], 0)
	le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:min(le.Uint32(h[12:]), Sector)]))
}

func FuzzRead(f *testing.F) {
	d := disk(size)
	if err := table().Write(d, size); err != nil {
		f.Fatal(err)
	}
	d.Sync()
	f.Add(d.b[:3*Sector], true) // the other entries are empty
	f.Add(d.b[:3*Sector], false)
	f.Fuzz(func(t *testing.T, b []byte, sealed bool) {
		d := disk(size)
		copy(d.b, b[:min(len(b), size)])
		if sealed {
			seal(d.b)
		}
		got, err := Read(d, size)
		if err != nil {
			return
		}
		for _, p := range got.Partitions {
			if p.Offset() < 0 || p.Size() <= 0 || p.Offset()+p.Size() > size {
				t.Errorf("%+v", p)
			}
		}
		filled, _, err := Fill(d, size, Rest{Number: 5, Name: "data", Type: TypeLinux, Least: Sector})
		if err != nil {
			return
		}
		d.Sync()
		again, err := Read(d, size)
		if err != nil {
			t.Fatalf("%+v was filled and cannot be read: %v", got, err)
		}
		if diff := cmp.Diff(filled, again); diff != "" {
			t.Error(diff)
		}
	})
}
