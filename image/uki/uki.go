// Package uki joins kernel, initramfs and command line with the stub of
// systemd-boot into one EFI program, a unified kernel image, and finds the pieces
// in one.
package uki

import (
	"bytes"
	"context"
	"debug/pe"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"ballast/image/packages"
)

// Section is a piece of an image.
type Section struct {
	Name    string // with its dot, at most 8 bytes
	Content []byte
}

// Names of sections that the stub knows (The Boot Loader Specification, type 2).
const (
	OSRelease = ".osrel"
	Uname     = ".uname"
	CmdLine   = ".cmdline"
	Initrd    = ".initrd"
	Linux     = ".linux"
)

// Places in the headers (PE format, "COFF File Header" and "Optional Header").
const (
	lfanew        = 0x3c
	coffSize      = 20
	sectionHeader = 40

	coffSections = 2
	coffSymbols  = 8
	optInitData  = 8
	optImageSize = 56
	optCheckSum  = 64
	dirSecurity  = 4

	// fileAlign keeps every section at a sector: a boot loader without a file
	// system in between reads them by their numbers.
	fileAlign = 512
	pageAlign = 4096

	// initData | read: what the sections hold.
	characteristics = 0x40000040
)

// Stub is the pinned package's: an EFI program without a signature.
func Stub(ctx context.Context) ([]byte, error) {
	return packages.File(ctx, "systemd-boot-efi", "usr/lib/systemd/boot/efi/linuxx64.efi.stub")
}

func align[T int64 | uint32](v, a T) T { return (v + a - 1) &^ (a - 1) }

// Join adds sections to a stub.
func Join(stub []byte, sections []Section) ([]byte, error) {
	f, err := pe.NewFile(bytes.NewReader(stub))
	if err != nil {
		return nil, fmt.Errorf("uki: stub: %w", err)
	}
	o, ok := f.OptionalHeader.(*pe.OptionalHeader64)
	if !ok || o.NumberOfRvaAndSizes <= dirSecurity {
		return nil, errors.New("uki: the stub is no 64-bit EFI program")
	}
	if o.DataDirectory[dirSecurity].Size != 0 {
		return nil, errors.New("uki: the stub is signed; sections cannot be added to it")
	}
	if o.FileAlignment == 0 || fileAlign%o.FileAlignment != 0 || o.SectionAlignment == 0 || pageAlign%o.SectionAlignment != 0 {
		return nil, fmt.Errorf("uki: the stub's sections are aligned to %d and %d bytes: want divisors of %d and %d", o.FileAlignment, o.SectionAlignment, fileAlign, pageAlign)
	}
	var memory, end uint32
	room := o.SizeOfHeaders // where the headers must end
	for _, s := range f.Sections {
		memory = max(memory, s.VirtualAddress+s.VirtualSize)
		end = max(end, s.Offset+s.Size)
		if s.Size > 0 {
			room = min(room, s.Offset)
		}
	}
	if int64(end) > int64(len(stub)) {
		return nil, errors.New("uki: the stub is cut off")
	}
	le := binary.LittleEndian
	coff := le.Uint32(stub[lfanew:]) + 4
	opt := coff + coffSize
	table := opt + uint32(f.SizeOfOptionalHeader) + uint32(f.NumberOfSections)*sectionHeader
	if table+uint32(len(sections))*sectionHeader > room {
		return nil, fmt.Errorf("uki: the stub has no room for %d more sections", len(sections))
	}

	total := align(int64(end), fileAlign)
	for _, s := range sections {
		total += align(int64(len(s.Content)), fileAlign)
	}
	if total > 1<<31 {
		return nil, fmt.Errorf("uki: %d bytes are too many", total)
	}
	out := make([]byte, align(int64(end), fileAlign), total)
	copy(out, stub[:end]) // what follows are symbols for a debugger
	initData := o.SizeOfInitializedData
	for i, s := range sections {
		if len(s.Name) < 2 || len(s.Name) > 8 || s.Name[0] != '.' || len(s.Content) == 0 {
			return nil, fmt.Errorf("uki: section %q of %d bytes", s.Name, len(s.Content))
		}
		memory = align(memory, pageAlign)
		at, size := uint32(len(out)), align(uint32(len(s.Content)), fileAlign)
		out = append(out, s.Content...)
		out = append(out, make([]byte, int(size)-len(s.Content))...)
		h := out[table+uint32(i)*sectionHeader:][:sectionHeader]
		clear(h)
		copy(h, s.Name)
		le.PutUint32(h[8:], uint32(len(s.Content)))
		le.PutUint32(h[12:], memory)
		le.PutUint32(h[16:], size)
		le.PutUint32(h[20:], at)
		le.PutUint32(h[36:], characteristics)
		memory += uint32(len(s.Content))
		initData += size
	}
	le.PutUint16(out[coff+coffSections:], f.NumberOfSections+uint16(len(sections)))
	le.PutUint64(out[coff+coffSymbols:], 0) // where the symbols are, and how many
	le.PutUint32(out[opt+optInitData:], initData)
	le.PutUint32(out[opt+optImageSize:], align(memory, o.SectionAlignment))
	le.PutUint32(out[opt+optCheckSum:], 0)
	return out, nil
}

// Place is where a section lies in the file.
type Place struct{ Offset, Size int64 }

// Find returns the place of each section of an image, without the filling.
func Find(r io.ReaderAt) (map[string]Place, error) {
	f, err := pe.NewFile(r)
	if err != nil {
		return nil, fmt.Errorf("uki: %w", err)
	}
	places := map[string]Place{}
	for _, s := range f.Sections {
		places[s.Name] = Place{int64(s.Offset), int64(min(s.VirtualSize, s.Size))}
	}
	return places, nil
}
