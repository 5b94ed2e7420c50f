// Package archive writes the cpio archives that Linux unpacks as its first
// root file system (Documentation/driver-api/early-userspace/buffer-format.rst
// in the kernel's tree), so that the same content always gives the same bytes:
// names sorted, inode numbers counted from 1, every time stamp zero, every
// owner root.
//
// The kernel unpacks several archives laid behind one another, each compressed
// or not, each padded to four bytes; a later file replaces an earlier one of
// the same name. That is how a boot loader or a test adds its own files to an
// image without building it anew: append what Bytes or Zstd returns.
package archive

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/u-root/u-root/pkg/cpio"
)

// Archive is a tree of files to be. The zero value is not usable; New makes
// one. A name added twice holds what was added last. Folders on the way to a
// name need not be added. It is not for use by several goroutines at once.
type Archive struct {
	records map[string]cpio.Record
	err     error // the first fault, told by Bytes
}

// New returns an empty archive.
func New() *Archive { return &Archive{records: map[string]cpio.Record{}} }

// clean makes a name relative to the root, and refuses one that is the root or
// leaves it.
func (a *Archive) clean(name string) (string, bool) {
	n := strings.TrimPrefix(path.Clean("/"+name), "/")
	if n == "" || strings.Contains(name, "\x00") || slices.Contains(strings.Split(name, "/"), "..") {
		if a.err == nil {
			a.err = fmt.Errorf("archive: %q cannot be the name of a file", name)
		}
		return "", false
	}
	return n, true
}

func (a *Archive) put(name string, make func(name string) cpio.Record) {
	if n, ok := a.clean(name); ok {
		a.records[n] = make(n)
	}
}

// File adds a regular file. perm are its permission bits (0o755).
func (a *Archive) File(name string, content []byte, perm uint32) {
	a.put(name, func(n string) cpio.Record {
		return cpio.StaticFile(n, string(content), uint64(perm))
	})
}

// Dir adds a folder. perm are its permission bits; 0o1777 is a sticky one.
func (a *Archive) Dir(name string, perm uint32) {
	a.put(name, func(n string) cpio.Record { return cpio.Directory(n, uint64(perm)) })
}

// Symlink adds a symbolic link to target, which is not looked at.
func (a *Archive) Symlink(name, target string) {
	a.put(name, func(n string) cpio.Record { return cpio.Symlink(n, target) })
}

// CharDev adds a character device node.
func (a *Archive) CharDev(name string, perm uint32, major, minor uint32) {
	a.put(name, func(n string) cpio.Record {
		return cpio.CharDev(n, uint64(perm), uint64(major), uint64(minor))
	})
}

// Has reports whether name was added.
func (a *Archive) Has(name string) bool {
	_, ok := a.records[strings.TrimPrefix(path.Clean("/"+name), "/")]
	return ok
}

// Names returns what was added, sorted.
func (a *Archive) Names() []string { return slices.Sorted(maps.Keys(a.records)) }

// Merge adds everything that an uncompressed newc archive holds.
func (a *Archive) Merge(newc []byte) error {
	records, err := records(newc)
	if err != nil {
		return fmt.Errorf("archive: merge: %w", err)
	}
	for _, r := range records {
		if r.Name == "." || r.Name == "" {
			continue
		}
		a.put(r.Name, func(n string) cpio.Record { r.Name = n; return r })
	}
	return a.err
}

// Bytes returns the archive uncompressed.
func (a *Archive) Bytes() ([]byte, error) {
	if a.err != nil {
		return nil, a.err
	}
	all := maps.Clone(a.records)
	for name := range a.records {
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if _, ok := all[dir]; !ok {
				all[dir] = cpio.Directory(dir, 0o755)
			}
		}
	}
	var b bytes.Buffer
	w := cpio.Newc.Writer(&b)
	// "a" sorts before "a/b", so a folder always comes before what it holds.
	for i, name := range slices.Sorted(maps.Keys(all)) {
		r := cpio.MakeReproducible(all[name])
		r.Ino = uint64(i + 1)
		if err := w.WriteRecord(r); err != nil {
			return nil, fmt.Errorf("archive: write %s: %w", name, err)
		}
	}
	if err := cpio.WriteTrailer(w); err != nil {
		return nil, fmt.Errorf("archive: write the trailer: %w", err)
	}
	return pad(b.Bytes()), nil
}

// Zstd returns the archive compressed as the kernel can unpack it
// (CONFIG_RD_ZSTD). The same content gives the same bytes with the same
// version of the compressor, on any number of processors.
func (a *Archive) Zstd() ([]byte, error) {
	raw, err := a.Bytes()
	if err != nil {
		return nil, err
	}
	b, err := Compress(raw)
	if err != nil {
		return nil, fmt.Errorf("archive: %w", err)
	}
	return pad(b), nil
}

// Compress is zstd at its best level that is still quick, deterministic, with
// a window of 8 MiB (the kernel takes at most 128).
func Compress(b []byte) ([]byte, error) {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression),
		zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(8<<20), zstd.WithEncoderCRC(true))
	if err != nil {
		return nil, err
	}
	defer e.Close()
	return e.EncodeAll(b, nil), nil
}

// CompressFrame is Compress for one file that the kernel decompresses by itself
// (firmware): its frame tells how long the content is.
func CompressFrame(b []byte) ([]byte, error) {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(8<<20), zstd.WithEncoderCRC(true), zstd.WithSingleSegment(true))
	if err != nil {
		return nil, err
	}
	defer e.Close()
	return e.EncodeAll(b, nil), nil
}

// pad fills up to four bytes: the kernel looks for a further archive at the
// next multiple of four, and skips zeros before it.
func pad(b []byte) []byte {
	return append(b, make([]byte, -len(b)&3)...)
}

func records(newc []byte) ([]cpio.Record, error) {
	// The reader takes an archive that breaks off for one that ends.
	if !bytes.Contains(newc, []byte(cpio.Trailer)) {
		return nil, fmt.Errorf("%d bytes without an end mark: not a whole newc archive", len(newc))
	}
	return cpio.ReadAllRecords(cpio.Newc.Reader(bytes.NewReader(newc)))
}

// Entry is one file of an archive that was read back.
type Entry struct {
	Name   string
	Mode   uint32 // Linux mode: type and permission bits
	Data   []byte // content, or the target of a symbolic link
	Device [2]uint32
}

// Read returns the entries of an uncompressed newc archive in their order.
func Read(newc []byte) ([]Entry, error) {
	records, err := records(newc)
	if err != nil {
		return nil, fmt.Errorf("archive: read: %w", err)
	}
	var out []Entry
	for _, r := range records {
		e := Entry{Name: r.Name, Mode: uint32(r.Mode), Device: [2]uint32{uint32(r.Rmajor), uint32(r.Rminor)}}
		if r.ReaderAt != nil {
			e.Data, err = io.ReadAll(io.NewSectionReader(r.ReaderAt, 0, int64(r.FileSize)))
			if err != nil {
				return nil, fmt.Errorf("archive: read %s: %w", r.Name, err)
			}
		}
		out = append(out, e)
	}
	return out, nil
}
