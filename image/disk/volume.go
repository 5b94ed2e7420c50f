package disk

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"ballast/image/disk/fat"
)

// sum is a hash of what a file should hold.
type sum = [sha256.Size]byte

// volume is a file system that is written and then checked.
type volume struct {
	d    Device
	fs   *fat.Writer
	sums map[string]sum
}

// newVolume begins a file system. What was on the device cannot be read from
// here on.
func newVolume(d Device, o fat.Options) (*volume, error) {
	size, err := Size(d)
	if err != nil {
		return nil, err
	}
	fs, err := fat.Create(d, size, o)
	if err != nil {
		return nil, fmt.Errorf("disk: %w", err)
	}
	if err := d.Sync(); err != nil {
		return nil, fmt.Errorf("disk: %w", err)
	}
	return &volume{d, fs, map[string]sum{}}, nil
}

// write makes a file of a part.
func (v *volume) write(file string, p Part, o Options) error {
	w, err := v.fs.Create(file, p.Size)
	if err != nil {
		return fmt.Errorf("disk: %w", err)
	}
	v.sums[file], err = copyPart(w, p, o.Progress)
	return err
}

// put makes a small file.
func (v *volume) put(file string, b []byte) error {
	return v.write(file, Part{file, int64(len(b)), bytes.NewReader(b)}, Options{})
}

// finish makes the file system readable and reads everything back, from the
// device as far as the kernel lets us.
func (v *volume) finish(o Options) error {
	if err := v.fs.Close(v.d.Sync); err != nil {
		return fmt.Errorf("disk: %w", err)
	}
	forget(v.d)
	size, err := Size(v.d)
	if err != nil {
		return err
	}
	fs, err := fat.Open(v.d, size)
	if err != nil {
		return fmt.Errorf("disk: %w: %w", ErrVerify, err)
	}
	for name, want := range v.sums {
		f, err := fs.Open(name)
		if err != nil {
			return fmt.Errorf("disk: %w: %w", ErrVerify, err)
		}
		if err := verify(f, f.Size, name, want, o); err != nil {
			return err
		}
	}
	return nil
}

// verify compares what a device holds with what it should.
func verify(r io.Reader, size int64, name string, want sum, o Options) error {
	h := sha256.New()
	b := make([]byte, 256<<10)
	var done int64
	for done < size {
		n, err := io.ReadFull(r, b[:min(int64(len(b)), size-done)])
		h.Write(b[:n])
		done += int64(n)
		if err != nil {
			return fmt.Errorf("disk: read %s back: %w", name, err)
		}
		if o.Progress != nil {
			o.Progress("verify", done, size)
		}
	}
	if sum(h.Sum(nil)) != want {
		return fmt.Errorf("disk: %s: %w", name, ErrVerify)
	}
	return nil
}

// forget makes what is read next come from the device, not from memory. It is
// only advice: a kernel that does not take it makes a verification weaker, not
// wrong.
func forget(d Device) {
	switch d := d.(type) {
	case section:
		forget(d.d)
	case interface{ Fd() uintptr }: // *os.File, and what holds one
		_ = unix.Fadvise(int(d.Fd()), 0, 0, unix.FADV_DONTNEED)
	}
}

// copyPart writes a part and returns the hash of it.
func copyPart(w io.Writer, p Part, progress func(string, int64, int64)) (sum, error) {
	h := sha256.New()
	b := make([]byte, mib)
	var done int64
	for done < p.Size {
		n, err := io.ReadFull(p.Content, b[:min(int64(len(b)), p.Size-done)])
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return sum{}, fmt.Errorf("disk: %s, after %d of %d bytes: %w", p.Name, done+int64(n), p.Size, err)
		}
		h.Write(b[:n])
		if _, err := w.Write(b[:n]); err != nil {
			return sum{}, fmt.Errorf("disk: %w", err)
		}
		done += int64(n)
		if progress != nil {
			progress(p.Name, done, p.Size)
		}
	}
	// Some readers check the whole of a part when they are asked for its end.
	if n, err := p.Content.Read(b[:1]); n > 0 {
		return sum{}, fmt.Errorf("disk: %s has more than the %d bytes that were announced", p.Name, p.Size)
	} else if err != nil && !errors.Is(err, io.EOF) {
		return sum{}, err
	}
	return sum(h.Sum(nil)), nil
}
