package flash

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/klauspost/compress/zstd"

	"ballast/image/bundle"
	"ballast/image/disk"
	"ballast/image/disk/fat"
	"ballast/image/disk/gpt"
	"ballast/image/layout"
)

// source is what is written.
type source struct {
	what  string // for people
	parts disk.Parts
	files []func()
}

func (s *source) close() {
	for _, f := range s.files {
		f()
	}
}

// want is what to give in place of something else, again what to do with
// something that is not whole.
const (
	want  = "give disk.img, disk.img.zst or ballast-BOARD.bundle, and behind it the disk"
	again = "fetch or copy it again"
)

// open finds out what a file is by its content.
func open(o options) (*source, error) {
	// A pipe would not open before somebody writes to it.
	st, err := os.Stat(o.from)
	switch {
	case errors.Is(err, fs.ErrPermission):
	case err != nil && strings.Contains(o.from, "://"):
		return nil, fmt.Errorf("%w: nothing is fetched here: download it first, with SHA256SUMS", err)
	case err != nil:
		return nil, fmt.Errorf("%w: %s", err, want)
	case st.IsDir():
		return nil, fmt.Errorf("%s is a folder: %s", o.from, want)
	case !st.Mode().IsRegular() && st.Mode()&os.ModeType != os.ModeDevice:
		return nil, fmt.Errorf("%s is neither a file nor a disk, and what is read must be there as a whole: %s", o.from, want)
	}
	f, err := os.Open(o.from)
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("%w: run this as a user who may read it", err)
	}
	if err != nil {
		return nil, err
	}
	s := &source{files: []func(){func() { f.Close() }}}
	if to, err := os.Stat(o.to); err == nil && os.SameFile(st, to) {
		s.close()
		return nil, fmt.Errorf("%s is both what is written and what is written to: name another disk", o.from)
	}
	if err := s.read(f, o); err != nil {
		s.close()
		return nil, fmt.Errorf("%s: %w", o.from, err)
	}
	return s, nil
}

// How the files begin.
var (
	zstdMagic   = []byte{0x28, 0xb5, 0x2f, 0xfd}
	bundleMagic = []byte("ballast-bundle ")
)

func (s *source) read(f *os.File, o options) error {
	head := make([]byte, 32)
	switch n, err := io.ReadFull(f, head); {
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("it has %d bytes, too few for an image or a bundle: %s", n, again)
	case err != nil:
		return fmt.Errorf("%w: %s", err, again)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	switch {
	case bytes.HasPrefix(head, bundleMagic):
		return s.bundle(f, o)
	case bytes.HasPrefix(head, zstdMagic):
		return s.compressed(f, o)
	}
	return s.image(f, o)
}

// bundle takes a bundle that somebody signed who is trusted here.
func (s *source) bundle(f io.ReadSeeker, o options) error {
	_, signers, err := bundle.Peek(f)
	if err != nil {
		return err
	}
	keys, whose, err := trusted(o, signers)
	if err != nil {
		return err
	}
	if len(keys) == 0 {
		var names []string
		for _, k := range signers {
			names = append(names, k.String())
		}
		return fmt.Errorf("%s: there is no key to check it with: name the maker's public keys with -key FILE, or, when you know that the hash is the maker's, "+
			"say -signer %s", strings.Join(names, ", "), hash(signers[0]))
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	r, err := bundle.Open(f, keys)
	if err != nil {
		return fmt.Errorf("%w (checked with the keys of %s)", err, whose)
	}
	s.what = about(r.Manifest.Identity) + ", signed by " + r.SignedBy[0].String()
	s.parts = disk.FromBundle(r)
	return nil
}

func about(id layout.Identity) string {
	return fmt.Sprintf("Ballast %s for %s, kernel %s", id.Version, id.Board, id.Kernel)
}

// within is the bundle that an image was made of. Its signature is checked only
// when the user names a key: an image may be anybody's. Whether it is damaged is
// seen all the same.
func (s *source) within(r *io.SectionReader, o options) error {
	if o.key != "" || o.signer != "" {
		return s.bundle(r, o)
	}
	_, signers, err := bundle.Peek(r)
	if err != nil {
		return err
	}
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return err
	}
	b, err := bundle.Open(r, signers)
	if err != nil {
		return err
	}
	s.what = about(b.Manifest.Identity) + ", whole; who signed it is not checked without -key or -signer"
	s.parts = disk.FromBundle(b)
	return nil
}

// hash is the part of a key's name by which it is told apart.
func hash(k bundle.Key) string {
	s := k.String()
	return s[strings.LastIndexByte(s, ' ')+1:]
}

// trusted are the keys that a bundle is checked with, and where they are from.
func trusted(o options, signers []bundle.Key) ([]bundle.Key, string, error) {
	switch {
	case o.key != "":
		keys, err := bundle.ReadKeys(o.key)
		return keys, o.key, err
	case o.signer != "":
		for _, k := range signers {
			if hash(k) == o.signer {
				return []bundle.Key{k}, "-signer", nil
			}
		}
		return nil, "", fmt.Errorf("it is not signed by %s, but by %s: take a bundle of that maker, or mend the hash", o.signer, hash(signers[0]))
	}
	return bundle.TrustedHere()
}

// maxImage bounds what an image may be when it is decompressed.
const maxImage = 4 << 30

// elsewhere is what helps where an image cannot be decompressed.
const elsewhere = "name a folder that has room for it in the variable TMPDIR, or decompress it with \"zstd -d\""

// compressed puts an image into a temporary file first: what belongs together is
// not in one place of it.
func (s *source) compressed(f *os.File, o options) error {
	z, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return err
	}
	defer z.Close()
	tmp, err := os.CreateTemp("", "ballast-image-")
	if err != nil {
		return fmt.Errorf("decompress: %w: %s", err, elsewhere)
	}
	os.Remove(tmp.Name()) // gone when it is closed
	s.files = append(s.files, func() { tmp.Close() })
	to := &sparse{f: tmp}
	n, err := io.Copy(to, io.LimitReader(z, maxImage+1))
	if err == nil {
		to.err = tmp.Truncate(n)
	}
	var unread *fs.PathError
	switch {
	case to.err != nil:
		return fmt.Errorf("decompress: %w: %s", to.err, elsewhere)
	case errors.As(err, &unread):
		return fmt.Errorf("%w: %s", err, again)
	case err != nil:
		return fmt.Errorf("decompress: %w: it is damaged: %s", err, again)
	case n > maxImage:
		return fmt.Errorf("it has more than %d GiB when it is decompressed: %s", maxImage>>30, want)
	}
	return s.image(tmp, o)
}

// sparse is a file in which there are holes where zeros are written.
type sparse struct {
	f   *os.File
	at  int64
	err error // of the file
}

// Write implements io.Writer.
func (s *sparse) Write(b []byte) (n int, err error) {
	n = len(b)
	if len(bytes.TrimLeft(b, "\x00")) > 0 {
		n, err = s.f.WriteAt(b, s.at)
		s.err = err
	}
	s.at += int64(n)
	return n, err
}

// bootCode is the size of the MBR's code.
const bootCode = 440

// image takes the bundle out of an image, or the parts out of one that was made
// of none.
func (s *source) image(f *os.File, o options) error {
	size, err := disk.Size(f)
	if err != nil {
		return err
	}
	t, err := gpt.Read(f, size)
	if errors.Is(err, gpt.ErrNone) || size < gpt.First*gpt.Sector {
		return fmt.Errorf("it is no image of Ballast (%w): %s", err, want)
	}
	if err != nil {
		return fmt.Errorf("it is damaged or cut (%w): %s", err, again)
	}
	section := func(number int) disk.Device {
		p, _ := t.Find(number)
		return disk.Section(f, p)
	}
	for number, name := range map[int]string{layout.NumberBIOS: layout.PartBIOS, layout.NumberESP: layout.PartESP, layout.NumberSlotA: layout.PartSlotA} {
		if p, ok := t.Find(number); !ok || p.Name != name {
			return fmt.Errorf("it is no image of Ballast (partition %d is not %s): %s", number, name, want)
		}
	}
	slot, err := disk.ReadSlot(section(layout.NumberSlotA))
	if err != nil {
		return fmt.Errorf("%w: it is damaged or cut: %s", err, again)
	}
	if b, err := slot.Bundle(); err == nil {
		return s.within(b, o)
	}
	if o.key != "" || o.signer != "" {
		return errors.New("this image is not signed: leave -key and -signer out, and compare it with SHA256SUMS")
	}
	var queue []func() (disk.Part, error)
	add := func(name string, open func() (*fat.File, error)) {
		queue = append(queue, func() (disk.Part, error) {
			f, err := open()
			if err != nil {
				return disk.Part{}, err
			}
			return disk.Part{Name: name, Size: f.Size, Content: f}, nil
		})
	}
	raw := func(name string, at, n int64) {
		queue = append(queue, func() (disk.Part, error) {
			return disk.Part{Name: name, Size: n, Content: io.NewSectionReader(f, at, n)}, nil
		})
	}
	add(bundle.SlotConfig, func() (*fat.File, error) { return slot.Open(layout.SlotFile) })
	add(bundle.Firmware, func() (*fat.File, error) { return slot.Open(layout.FirmwareFile) })
	raw(bundle.BootCode, 0, bootCode)
	p, _ := t.Find(layout.NumberBIOS)
	raw(bundle.CoreImage, p.Offset(), p.Size())
	p, _ = t.Find(layout.NumberESP)
	esp, err := fat.Open(section(layout.NumberESP), p.Size())
	var names []string
	if err == nil {
		names, err = esp.Files()
	}
	if err != nil {
		return fmt.Errorf("partition %s: %w: it is damaged or cut: %s", layout.PartESP, err, again)
	}
	for _, n := range names {
		switch {
		case strings.EqualFold(n, layout.EnvPath): // a new disk has a new state
		case strings.EqualFold(n, layout.LoaderPath):
			add(bundle.Loader, func() (*fat.File, error) { return esp.Open(n) })
		default:
			add(bundle.ESPPrefix+strings.TrimPrefix(n, "/"), func() (*fat.File, error) { return esp.Open(n) })
		}
	}
	s.what = about(slot.Config.Identity) + ", not signed"
	s.parts = func() (disk.Part, error) {
		if len(queue) == 0 {
			return disk.Part{}, io.EOF
		}
		next := queue[0]
		queue = queue[1:]
		return next()
	}
	return nil
}
