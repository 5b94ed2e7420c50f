package disk

import (
	"bytes"
	"crypto/ed25519"
	"io"
	"testing"

	"ballast/image/bundle"
	"ballast/image/disk/gpt"
	"ballast/image/layout"
)

// A slot gives the bundle that it was written from again, byte for byte, be it
// written alone or with the whole disk.
func TestSlotKeepsItsBundle(t *testing.T) {
	key := ed25519.NewKeyFromSeed(make([]byte, 32))
	files := parts(t, 3, 3<<20+77)
	_, c := firmware(t, 3, 3<<20+77)
	var b bytes.Buffer
	if err := bundle.Write(&b, bundle.Manifest{Identity: c.Identity}, files, key); err != nil {
		t.Fatal(err)
	}
	whole := b.Bytes()
	from := func() Parts {
		r, err := bundle.Open(bytes.NewReader(whole), []bundle.Key{{Public: key.Public().(ed25519.PublicKey)}})
		if err != nil {
			t.Fatal(err)
		}
		return FromBundle(r)
	}
	slot := slotDevice(t)
	if err := WriteSlot(slot, from(), Options{}); err != nil {
		t.Fatal(err)
	}
	d := blankDisk(t, MinSize+64*mib)
	if err := Write(d, from(), Options{Both: true}); err != nil {
		t.Fatal(err)
	}
	table, err := gpt.Read(d, MinSize+64*mib)
	if err != nil {
		t.Fatal(err)
	}
	devices := map[string]Device{"slot": slot}
	for name, n := range map[string]int{"slotA": layout.NumberSlotA, "slotB": layout.NumberSlotB} {
		p, _ := table.Find(n)
		devices[name] = Section(d, p)
	}
	for name, dev := range devices {
		s, err := ReadSlot(dev)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		r, err := s.Bundle()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, whole) {
			t.Errorf("%s: %v, %d bytes of %d", name, err, len(got), len(whole))
		}
		for _, at := range []int64{0, 100, r.Size() / 2, r.Size() - 5} { // pieces of it
			got := make([]byte, 5)
			if _, err := r.ReadAt(got, at); err != nil || !bytes.Equal(got, whole[at:at+5]) {
				t.Errorf("%s at %d: %v, %x", name, at, err, got)
			}
		}
	}
	withHead, err := WithHead(files, whole)
	if err != nil {
		t.Fatal(err)
	}
	if err := WriteSlot(slot, FromFiles(withHead...), Options{}); err != nil {
		t.Fatal(err)
	}
	if s, err := ReadSlot(slot); err != nil {
		t.Error(err)
	} else if r, err := s.Bundle(); err != nil || r.Size() != int64(len(whole)) {
		t.Errorf("from files with a head: %v", err)
	}
	// A slot that was not written from a bundle has none.
	if err := WriteSlot(slot, FromFiles(files...), Options{}); err != nil {
		t.Fatal(err)
	}
	s, err := ReadSlot(slot)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Bundle(); err == nil {
		t.Error("a bundle out of nowhere")
	}
}
