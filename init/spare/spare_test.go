package spare

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
)

type memory []byte

func (m memory) ReadAt(b []byte, at int64) (int, error)  { return copy(b, m[at:]), nil }
func (m memory) WriteAt(b []byte, at int64) (int, error) { return copy(m[at:], b), nil }
func (m memory) Sync() error                             { return nil }

func box(n int) Record {
	return Record{Host: "lb1", Text: strings.Repeat("interface eth0 {\n    address 192.0.2.11/24\n}\n", n), Peer: true,
		Files: []File{{"peer/key", 110, []byte("secret")}, {"console/key", 106, []byte("secret too")}}}
}

func TestWriteRead(t *testing.T) {
	m := make(memory, Size)
	if _, err := Read(m); !errors.Is(err, ErrNone) {
		t.Errorf("of a blank place: %v", err)
	}
	for n := 1; n < 6; n++ {
		if written, err := Write(m, box(n)); err != nil || !written {
			t.Fatal(written, err)
		}
		if written, err := Write(m, box(n)); err != nil || written {
			t.Errorf("what is kept is written again: %v", err)
		}
		got, err := Read(m)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(box(n), got); d != "" {
			t.Error(d)
		}
	}
	if err := Wipe(m); err != nil || len(bytes.Trim(m, "\x00")) > 0 {
		t.Errorf("something is left: %v", err)
	}
}

func TestTooLarge(t *testing.T) {
	m := make(memory, Size)
	if _, err := Write(m, box(1)); err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 1))
	junk := make([]byte, 400<<10)
	for i := range junk {
		junk[i] = byte('!' + r.IntN(90))
	}
	big := box(1)
	big.Text = string(junk)
	if _, err := Write(m, big); err == nil || !strings.Contains(err.Error(), "room") {
		t.Errorf("%v", err)
	}
	if got, err := Read(m); err != nil || !got.Same(box(1)) {
		t.Errorf("what was kept is gone: %v", err)
	}
}

// Whatever part of a write a power cut leaves, and whatever happens to one of
// the copies, the old or the new record is read.
func TestTorn(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	m := make(memory, Size)
	Write(m, box(1))
	for n := 2; n < 60; n++ {
		before, old := bytes.Clone(m), box(n-1)
		if _, err := Write(m, box(n)); err != nil {
			t.Fatal(err)
		}
		torn := bytes.Clone(before)
		for at := 0; at < Size; at += 512 {
			if r.IntN(2) == 0 {
				copy(torn[at:at+512], m[at:])
			}
		}
		got, err := Read(memory(torn))
		if err != nil || !got.Same(old) && !got.Same(box(n)) {
			t.Fatalf("write %d: %v", n, err)
		}
		if _, err := Write(memory(torn), box(n)); err != nil {
			t.Fatal(err)
		}
		if got, err := Read(memory(torn)); err != nil || !got.Same(box(n)) {
			t.Fatalf("write %d, again: %v", n, err)
		}
		clear(torn[r.IntN(2)*Half:][:512])
		if _, err := Read(memory(torn)); err != nil && !errors.Is(err, ErrNone) {
			t.Errorf("%v", err)
		}
	}
}

// The place lies on a disk, and may hold anything; also what its sum fits.
func FuzzDecode(f *testing.F) {
	b, err := encode(box(2), 7)
	if err != nil {
		f.Fatal(err)
	}
	body := b[head:][:binary.LittleEndian.Uint64(b[24:])]
	text, err := json.Marshal(box(2))
	if err != nil {
		f.Fatal(err)
	}
	z, err := zstd.NewWriter(nil)
	if err != nil {
		f.Fatal(err)
	}
	const asItIs, summed, compressed = 0, 1, 2
	f.Add(b, byte(asItIs))
	f.Add(magic, byte(asItIs))
	f.Add(body, byte(summed))
	f.Add(text, byte(compressed))
	f.Fuzz(func(t *testing.T, b []byte, how byte) {
		if how == compressed {
			b = z.EncodeAll(b, nil)
		}
		if how == summed || how == compressed {
			c := append(make([]byte, head), b...)
			copy(c, magic)
			binary.LittleEndian.PutUint64(c[24:], uint64(len(b)))
			sum := sum(c[:32], b)
			copy(c[32:], sum[:])
			b = c
		}
		r, n, err := decode(b)
		if err != nil {
			return
		}
		again, err := encode(r, n)
		if err != nil {
			return // what was compressed well may not fit with other settings
		}
		if got, m, err := decode(again); err != nil || m != n || !got.Same(r) {
			t.Errorf("%v %d %+v", err, m, got)
		}
	})
}
