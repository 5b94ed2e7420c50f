package flash

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
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

// open finds out what a file is by its content.
func open(o options) (*source, error) {
	f, err := os.Open(o.from)
	if err != nil {
		return nil, err
	}
	s := &source{files: []func(){func() { f.Close() }}}
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
	if _, err := io.ReadFull(f, head); err != nil {
		return errors.New("it is too short for an image or a bundle")
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
		b, err := os.ReadFile(o.key)
		if err != nil {
			return nil, "", err
		}
		keys, err := bundle.ParseKeys(b)
		if err != nil {
			return nil, "", fmt.Errorf("%s: %w", o.key, err)
		}
		return keys, o.key, nil
	case o.signer != "":
		for _, k := range signers {
			if hash(k) == o.signer {
				return []bundle.Key{k}, "-signer", nil
			}
		}
		return nil, "", fmt.Errorf("it is not signed by %s, but by %s", o.signer, hash(signers[0]))
	}
	if b, err := os.ReadFile(layout.KeysFile); err == nil {
		keys, err := bundle.ParseKeys(b)
		return keys, layout.KeysFile, err
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return nil, "", nil
	}
	name := filepath.Join(dir, "ballast", "firmware.key")
	key, err := publicHalf(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", name, err)
	}
	return []bundle.Key{key}, name, nil
}

// publicHalf is that of a maker's key.
func publicHalf(name string) (bundle.Key, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return bundle.Key{}, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return bundle.Key{}, errors.New("it is no PEM file")
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return bundle.Key{}, err
	}
	secret, ok := k.(ed25519.PrivateKey)
	if !ok {
		return bundle.Key{}, errors.New("it is no ed25519 key")
	}
	return bundle.Key{Public: secret.Public().(ed25519.PublicKey)}, nil
}

// maxImage bounds what an image may be when it is decompressed.
const maxImage = 4 << 30

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
		return err
	}
	os.Remove(tmp.Name()) // gone when it is closed
	s.files = append(s.files, func() { tmp.Close() })
	n, err := copySparse(tmp, io.LimitReader(z, maxImage+1))
	if err != nil {
		return fmt.Errorf("decompress: %w", err)
	}
	if n > maxImage {
		return fmt.Errorf("it has more than %d GiB when it is decompressed", maxImage>>30)
	}
	return s.image(tmp, o)
}

// copySparse leaves holes where there are zeros.
func copySparse(to *os.File, from io.Reader) (int64, error) {
	b := make([]byte, 64<<10)
	zero := make([]byte, len(b))
	var at int64
	for {
		n, err := io.ReadFull(from, b)
		if !bytes.Equal(b[:n], zero[:n]) {
			if _, werr := to.WriteAt(b[:n], at); werr != nil {
				return at, werr
			}
		}
		at += int64(n)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return at, to.Truncate(at)
		}
		if err != nil {
			return at, err
		}
	}
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
	if err != nil {
		return fmt.Errorf("it is no image of Ballast (%w): give disk.img, disk.img.zst or ballast-BOARD.bundle", err)
	}
	section := func(number int) disk.Device {
		p, _ := t.Find(number)
		return disk.Section(f, p)
	}
	for number, name := range map[int]string{layout.NumberBIOS: layout.PartBIOS, layout.NumberESP: layout.PartESP, layout.NumberSlotA: layout.PartSlotA} {
		if p, ok := t.Find(number); !ok || p.Name != name {
			return fmt.Errorf("it is no image of Ballast (partition %d is not %s): give disk.img, disk.img.zst or ballast-BOARD.bundle", number, name)
		}
	}
	slot, err := disk.ReadSlot(section(layout.NumberSlotA))
	if err != nil {
		return err
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
	if err != nil {
		return err
	}
	names, err := esp.Files()
	if err != nil {
		return err
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
