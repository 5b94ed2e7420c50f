package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"ballast/image/bundle"
	"ballast/image/layout"
)

// maxHead bounds what is read of a bundle's head.
const maxHead = bundle.MaxManifest + 64<<10

// pieces are files one behind the other.
type pieces []*io.SectionReader

func (ps pieces) size() (n int64) {
	for _, p := range ps {
		n += p.Size()
	}
	return n
}

// ReadAt implements io.ReaderAt.
func (ps pieces) ReadAt(b []byte, at int64) (n int, err error) {
	for _, p := range ps {
		if at >= p.Size() {
			at -= p.Size()
			continue
		}
		m, err := p.ReadAt(b[n:min(int64(len(b)), int64(n)+p.Size()-at)], at)
		n += m
		if err != nil && !errors.Is(err, io.EOF) || n == len(b) {
			return n, err
		}
		at = 0
	}
	return n, io.EOF
}

// Section is a file of the slot that can be read at any place: every file that
// was written by this package.
func (s *Slot) Section(name string) (*io.SectionReader, error) {
	f, err := s.fs.Open(name)
	if err != nil {
		return nil, err
	}
	if err := f.Contiguous(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	at, err := f.Offset()
	if err != nil {
		return nil, err
	}
	return io.NewSectionReader(s.d, at, f.Size), nil
}

// Bundle is the bundle that the slot was written from, as it came: signed by
// its maker. A slot that was written from something else, or by an older
// firmware, has none.
func (s *Slot) Bundle() (*io.SectionReader, error) {
	head, err := s.Section(layout.HeadFile)
	if err != nil {
		return nil, fmt.Errorf("the slot keeps no bundle: %w", err)
	}
	if head.Size() > maxHead {
		return nil, fmt.Errorf("the slot keeps no bundle: its head has %d bytes", head.Size())
	}
	b := make([]byte, head.Size())
	if _, err := io.ReadFull(io.NewSectionReader(head, 0, head.Size()), b); err != nil {
		return nil, fmt.Errorf("the bundle of the slot: %w", err)
	}
	m, _, err := bundle.Peek(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("the bundle of the slot: %w", err)
	}
	all := pieces{head}
	for _, p := range m.Parts {
		file := slotParts[p.Name]
		if file == "" {
			file = "/" + p.Name
		}
		f, err := s.Section(file)
		if err != nil {
			return nil, fmt.Errorf("the bundle of the slot is not whole: %w", err)
		}
		if f.Size() != p.Size {
			return nil, fmt.Errorf("the bundle of the slot: %s has %d bytes, not %d", p.Name, f.Size(), p.Size)
		}
		all = append(all, f)
	}
	return io.NewSectionReader(all, 0, all.size()), nil
}
