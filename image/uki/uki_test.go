package uki

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
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

// Places in the headers that tests change.
const (
	optSectionAlign = 32
	optFileAlign    = 36
	optHeaders      = 60
	optDirectories  = 108
	optSecurity     = optDirectories + 4 + 8*dirSecurity
)

// headers finds the places of a program's headers: the COFF header, the optional
// one, and the room behind the last section header.
func headers(t *testing.T, b []byte) (coff, opt, gap, room int, f *pe.File) {
	t.Helper()
	f, err := pe.NewFile(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	coff = int(binary.LittleEndian.Uint32(b[lfanew:])) + 4
	opt = coff + coffSize
	gap = opt + int(f.SizeOfOptionalHeader) + int(f.NumberOfSections)*sectionHeader
	return coff, opt, gap, min(int(f.OptionalHeader.(*pe.OptionalHeader64).SizeOfHeaders), int(f.Sections[0].Offset)), f
}

// sections are so many small ones.
func sections(n int) []Section {
	list := make([]Section, n)
	for i := range list {
		list[i] = Section{".x", []byte("x")}
	}
	return list
}

// The headers say of the new sections what loaders look at.
func TestJoinHeaders(t *testing.T) {
	s := bytes.Clone(stub(t))
	_, opt, gap, room, before := headers(t, s)
	for i := gap; i < room; i++ {
		s[i] = 0xff // nothing that lies where the new headers come is left
	}
	binary.LittleEndian.PutUint32(s[opt+optCheckSum:], 0x12345678)
	contents := []int{1, fileAlign - 1, fileAlign, fileAlign + 1}
	var in []Section
	for _, n := range contents {
		in = append(in, Section{".eightch", bytes.Repeat([]byte("x"), n)})
	}
	in[0].Name = ".x"
	image, err := Join(s, in)
	if err != nil {
		t.Fatal(err)
	}
	_, _, _, _, after := headers(t, image)
	if int(after.NumberOfSections) != int(before.NumberOfSections)+len(in) || after.PointerToSymbolTable != 0 || after.NumberOfSymbols != 0 {
		t.Errorf("%+v", after.FileHeader)
	}
	var added uint32
	for i, x := range after.Sections[before.NumberOfSections:] {
		size := uint32((contents[i] + fileAlign - 1) / fileAlign * fileAlign)
		if diff := cmp.Diff(pe.SectionHeader{Name: in[i].Name, VirtualSize: uint32(contents[i]), VirtualAddress: x.VirtualAddress, Size: size, Offset: x.Offset,
			Characteristics: pe.IMAGE_SCN_CNT_INITIALIZED_DATA | pe.IMAGE_SCN_MEM_READ}, x.SectionHeader); diff != "" {
			t.Errorf("section %d: %s", i, diff)
		}
		added += size
	}
	o, was := after.OptionalHeader.(*pe.OptionalHeader64), before.OptionalHeader.(*pe.OptionalHeader64)
	if o.SizeOfInitializedData != was.SizeOfInitializedData+added || o.CheckSum != 0 {
		t.Errorf("%d bytes of data before, %d after, %d added; sum %x", was.SizeOfInitializedData, o.SizeOfInitializedData, added, o.CheckSum)
	}
}

func TestJoinRefuses(t *testing.T) {
	s := stub(t)
	coff, opt, gap, room, f := headers(t, s)
	end := 0
	for _, x := range f.Sections {
		end = max(end, int(x.Offset+x.Size))
	}
	fit := (room - gap) / sectionHeader
	huge := sections(fit)
	piece := make([]byte, 1<<31/fit)
	for i := range huge {
		huge[i].Content = piece
	}
	type change struct{ at, value int }
	with := func(changes ...change) []byte {
		b := bytes.Clone(s)
		for _, c := range changes {
			binary.LittleEndian.PutUint32(b[c.at:], uint32(c.value))
		}
		return b
	}
	// One without symbols, which are behind the sections.
	plain := with(change{coff + coffSymbols, 0}, change{coff + coffSymbols + 4, 0})
	// One of whose optional header nothing is left, nor of its sections.
	bare := bytes.Clone(s)
	binary.LittleEndian.PutUint16(bare[coff+coffSections:], 0)
	binary.LittleEndian.PutUint16(bare[coff+16:], 0)
	// One whose list of directories ends before the one of signatures.
	short := with(change{opt + optDirectories, dirSecurity})
	binary.LittleEndian.PutUint16(short[coff+coffSections:], 0)
	binary.LittleEndian.PutUint16(short[coff+16:], optDirectories+4+8*dirSecurity)
	for _, tt := range []struct {
		name     string
		stub     []byte
		sections []Section
		want     string // "": it is taken
	}{
		{"as it is", s, sections(1), ""},
		{"no program", []byte("hello"), nil, "stub"},
		{"another kind of program", bare, sections(1), "no 64-bit EFI program"},
		{"few directories", short, sections(1), "no 64-bit EFI program"},
		{"signed", with(change{opt + optSecurity + 4, 8}), sections(1), "is signed"},
		{"files aligned wide", with(change{opt + optFileAlign, 2 * fileAlign}), sections(1), "are aligned to 1024 and"},
		{"files aligned oddly", with(change{opt + optFileAlign, 384}), sections(1), "are aligned to 384 and"},
		{"files not aligned", with(change{opt + optFileAlign, 0}), sections(1), "are aligned to 0 and"},
		{"files aligned as ours", with(change{opt + optFileAlign, fileAlign}), sections(1), ""},
		{"memory aligned wide", with(change{opt + optSectionAlign, 2 * pageAlign}), sections(1), "and 8192 bytes"},
		{"memory not aligned", with(change{opt + optSectionAlign, 0}), sections(1), "and 0 bytes"},
		{"memory aligned as ours", with(change{opt + optSectionAlign, pageAlign}), sections(1), ""},
		{"all of it", plain[:end], sections(1), ""},
		{"cut off", plain[:end-1], sections(1), "cut off"},
		{"as many as there is room for", s, sections(fit), ""},
		{"one more", s, sections(fit + 1), "no room"},
		{"headers just long enough", with(change{opt + optHeaders, gap + sectionHeader}), sections(1), ""},
		{"headers that end early", with(change{opt + optHeaders, gap + sectionHeader - 1}), sections(1), "no room"},
		{"headers that overlap", with(change{opt + optHeaders, room + 10*sectionHeader}), sections(fit + 1), "no room"},
		{"2 GiB", s, huge, "are too many"},
		{"a long name", s, []Section{{".ninechar", []byte("x")}}, ".ninechar"},
		{"no dot", s, []Section{{"name", []byte("x")}}, "name"},
		{"a dot alone", s, []Section{{".", []byte("x")}}, `"."`},
		{"an empty one", s, []Section{{".x", nil}}, "0 bytes"},
	} {
		_, err := Join(tt.stub, tt.sections)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
	if _, err := Find(strings.NewReader("hello")); err == nil {
		t.Error("sections of what is no program")
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
