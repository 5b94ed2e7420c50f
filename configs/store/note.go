package store

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
)

const (
	noteMagic = "ballast note 1\n"
	maxNote   = 64 << 10
)

// SetNote keeps a few bytes beside the generations, as safe from power cuts as
// they are. name is a file name.
func (s *Store) SetNote(name string, b []byte) error {
	if len(b) > maxNote {
		return fmt.Errorf("note %s: %d bytes are more than %d", name, len(b), maxNote)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note(name) // what is there stays what is read when the write fails half-way
	if err := s.write(s.path(name), seal(noteMagic, b), s.ptr.Files); err != nil {
		return fmt.Errorf("note %s: %w", name, err)
	}
	s.notes[name] = slices.Clone(b)
	return nil
}

// Note reads what SetNote kept; nil: nothing.
func (s *Store) Note(name string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.note(name)
}

// note is Note with mu held.
func (s *Store) note(name string) ([]byte, error) {
	if b, ok := s.notes[name]; ok {
		return b, nil
	}
	b, err := readAll(s.fs, s.path(name), maxNote+1024)
	if errors.Is(err, fs.ErrNotExist) {
		s.notes[name] = nil
		return nil, nil
	}
	if err == nil {
		b, err = unseal(b, noteMagic)
	}
	if err != nil {
		return nil, fmt.Errorf("note %s: %w", name, err)
	}
	s.notes[name] = b
	return b, nil
}
