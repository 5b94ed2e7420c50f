package store

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// Files is the working set: the script files that the next commit takes along.
func (s *Store) Files() []FileRef {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.ptr.Files)
}

// AddBlob stores the content of a file and returns its reference. It belongs
// to nothing until SetFiles or a generation names it.
func (s *Store) AddBlob(path string, mode uint32, content []byte) (FileRef, error) {
	if len(content) > MaxFile {
		return FileRef{}, fmt.Errorf("%s: %d bytes is larger than %d", path, len(content), MaxFile)
	}
	sum := sha256.Sum256(content)
	ref := FileRef{Path: path, Mode: mode, Size: len(content), Sum: hex.EncodeToString(sum[:])}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.blob(ref); err == nil {
		return ref, nil
	}
	if err := s.write(s.path("blobs", ref.Sum), [][]byte{content}, nil); err != nil {
		return FileRef{}, fmt.Errorf("store file %s: %w", path, err)
	}
	return ref, nil
}

// SetFiles makes refs the working set.
func (s *Store) SetFiles(refs []FileRef) error {
	if len(refs) > MaxFiles {
		return fmt.Errorf("%d files are more than %d", len(refs), MaxFiles)
	}
	total := 0
	for _, r := range refs {
		total += r.Size
	}
	if total > MaxFilesTotal {
		return fmt.Errorf("the files have %d bytes together; at most %d are possible: delete some", total, MaxFilesTotal)
	}
	refs = slices.Clone(refs)
	slices.SortFunc(refs, func(a, b FileRef) int { return strings.Compare(a.Path, b.Path) })
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.ptr
	p.Files = refs
	if err := s.writePointer(p); err != nil {
		return err
	}
	s.pruneBlobs()
	return nil
}

// Content reads a file and verifies it.
func (s *Store) Content(ref FileRef) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.blob(ref)
}

func (s *Store) blob(ref FileRef) ([]byte, error) {
	if b, err := hex.DecodeString(ref.Sum); err != nil || len(b) != sha256.Size {
		return nil, fmt.Errorf("file %s: %w: bad checksum in its reference", ref.Path, ErrDamaged)
	}
	b, err := readAll(s.fs, s.path("blobs", ref.Sum), MaxFile)
	if err != nil {
		return nil, fmt.Errorf("file %s: %w", ref.Path, err)
	}
	if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != ref.Sum {
		return nil, fmt.Errorf("file %s: %w: checksum does not match", ref.Path, ErrDamaged)
	}
	return b, nil
}

// used are the contents that a generation, the working set or files name.
func (s *Store) used(files []FileRef) map[string]bool {
	used := map[string]bool{}
	for _, r := range slices.Concat(s.ptr.Files, files) {
		used[r.Sum] = true
	}
	for _, m := range s.metas {
		for _, r := range m.Files {
			used[r.Sum] = true
		}
	}
	return used
}

// pruneBlobs removes contents that nothing names.
func (s *Store) pruneBlobs() {
	if s.keepsBlobs() {
		return
	}
	used := s.used(nil)
	names, err := s.fs.List(s.path("blobs"))
	if err != nil {
		return // again at the next commit
	}
	for _, name := range names {
		if !used[name] {
			s.fs.Remove(s.path("blobs", name))
		}
	}
}
