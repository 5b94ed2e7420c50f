package ipc

import (
	"errors"
	"os"
	"path/filepath"
)

// WriteDurable puts b in the place of a small file that only its owner may
// read, so that a power cut leaves the old file or the new one, and the new one
// once it has returned.
func WriteDurable(path string, b []byte) error {
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err = os.Rename(path+".new", path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
