package uki

import (
	"bytes"
	"debug/pe"
	"strings"
	"testing"
)

func stub(t testing.TB) []byte {
	t.Helper()
	b, err := Stub(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestJoin(t *testing.T) {
	in := []Section{
		{OSRelease, []byte("NAME=Ballast\n")}, {CmdLine, []byte("panic=10")},
		{Initrd, bytes.Repeat([]byte("initrd"), 100_001)}, {Linux, bytes.Repeat([]byte("linux"), 70_003)},
	}
	s := stub(t)
	image, err := Join(s, in)
	if err != nil {
		t.Fatal(err)
	}
	if len(image)%fileAlign != 0 {
		t.Errorf("%d bytes", len(image))
	}
	places, err := Find(bytes.NewReader(image))
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range in {
		p := places[x.Name]
		if p.Offset%512 != 0 || p.Offset == 0 || !bytes.Equal(image[p.Offset:p.Offset+p.Size], x.Content) {
			t.Errorf("%s at %+v", x.Name, p)
		}
	}
	f, err := pe.NewFile(bytes.NewReader(image))
	if err != nil {
		t.Fatal(err)
	}
	before, err := pe.NewFile(bytes.NewReader(s))
	if err != nil {
		t.Fatal(err)
	}
	o := f.OptionalHeader.(*pe.OptionalHeader64)
	var end uint32
	for i, x := range f.Sections {
		if i >= len(before.Sections) {
			if x.VirtualAddress%pageAlign != 0 || x.VirtualAddress < end {
				t.Errorf("%s: address %x behind %x", x.Name, x.VirtualAddress, end)
			}
		} else if b, _ := x.Data(); !bytes.Equal(b, func() []byte { b, _ := before.Sections[i].Data(); return b }()) {
			t.Errorf("%s of the stub has changed", x.Name)
		}
		end = max(end, x.VirtualAddress+x.VirtualSize)
	}
	if o.SizeOfImage < end || o.SizeOfImage > end+pageAlign {
		t.Errorf("size of image %x, want just above %x", o.SizeOfImage, end)
	}
	if again, err := Join(s, in); err != nil || !bytes.Equal(again, image) {
		t.Error("the same pieces make another image")
	}
}

func TestJoinRefuses(t *testing.T) {
	s := stub(t)
	many := make([]Section, 40)
	for i := range many {
		many[i] = Section{".x", []byte("x")}
	}
	for _, tt := range []struct {
		name     string
		stub     []byte
		sections []Section
		want     string
	}{
		{"no program", []byte("hello"), nil, "stub"},
		{"cut off", s[:len(s)/3], nil, ""},
		{"many", s, many, "no room"},
		{"a long name", s, []Section{{".ninechars", []byte("x")}}, ".ninechars"},
		{"an empty one", s, []Section{{".x", nil}}, "0 bytes"},
	} {
		if _, err := Join(tt.stub, tt.sections); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func FuzzFind(f *testing.F) {
	image, err := Join(stub(f), []Section{{CmdLine, []byte("x")}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(image[:4096])
	f.Fuzz(func(t *testing.T, b []byte) {
		places, err := Find(bytes.NewReader(b))
		if err != nil {
			return
		}
		for name, p := range places {
			if p.Offset < 0 || p.Size < 0 {
				t.Errorf("%q %+v", name, p)
			}
		}
	})
}
