package store

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// FS is the little that a store needs of a file system. It is an interface so
// that a test can cut the power at every single step.
type FS interface {
	MkdirAll(path string) error
	// Create makes an empty file, or empties an existing one.
	Create(path string) (File, error)
	Open(path string) (io.ReadCloser, error)
	Rename(from, to string) error
	Remove(path string) error
	// List returns the names in a folder, sorted. A missing folder is empty.
	List(path string) ([]string, error)
	// SyncDir makes creations, renames and removals in a folder outlive a power cut.
	SyncDir(path string) error
}

// File is a file open for writing.
type File interface {
	io.Writer
	Sync() error
	Close() error
}

// Disk is the real file system. Files are for their owner only: a
// configuration holds secrets.
type Disk struct{}

// MkdirAll implements FS.
func (Disk) MkdirAll(path string) error { return os.MkdirAll(path, 0o700) }

// Create implements FS.
func (Disk) Create(path string) (File, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
}

// Open implements FS.
func (Disk) Open(path string) (io.ReadCloser, error) { return os.Open(path) }

// Rename implements FS.
func (Disk) Rename(from, to string) error { return os.Rename(from, to) }

// Remove implements FS.
func (Disk) Remove(path string) error { return os.Remove(path) }

// List implements FS.
func (Disk) List(path string) ([]string, error) {
	es, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, e := range es {
		names = append(names, e.Name())
	}
	return names, err
}

// SyncDir implements FS.
func (Disk) SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// writeAtomic makes path hold data, or leaves what was there: written beside
// it, flushed, renamed, and the folder flushed, so that the new name is on the
// disk when it returns and never before its content is. data comes in pieces,
// which are written one after the other.
func writeAtomic(f FS, path string, data [][]byte) error {
	tmp := path + tmpSuffix
	w, err := f.Create(tmp)
	if err != nil {
		return err
	}
	for _, b := range data {
		if err == nil {
			_, err = w.Write(b)
		}
	}
	if err == nil {
		err = w.Sync()
	}
	if cerr := w.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = f.Rename(tmp, path)
	}
	if err != nil {
		f.Remove(tmp) // a leftover is swept at the next Open anyway
		return err
	}
	return f.SyncDir(filepath.Dir(path))
}

const tmpSuffix = ".tmp"

// readAll reads a file of at most limit bytes.
func readAll(f FS, path string, limit int64) ([]byte, error) {
	r, err := f.Open(path)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = errors.New("file is too large")
	}
	return b, err
}
