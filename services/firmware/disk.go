package firmware

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"ballast/image/bootenv"
	"ballast/image/bundle"
	"ballast/image/disk"
	"ballast/image/layout"
)

// machine is the disk of the box as this service needs it.
type machine interface {
	Env() (bootenv.Env, error)
	SetEnv(bootenv.Env) error
	// Identity is what is in a slot; an error says that nothing there can start.
	Identity(layout.Slot) (layout.Identity, error)
	// Write replaces the content of a slot, and compares it with what was written.
	// After an error the slot holds nothing that starts.
	Write(s layout.Slot, r *bundle.Reader, progress func(what string, done, total int64)) error
	// Check reads a slot to its end and compares it with the head of its bundle.
	Check(s layout.Slot, keys []bundle.Key) error
	Close() error
}

// blocks are the block devices that init handed over.
type blocks struct {
	esp   disk.Device
	slots map[layout.Slot]disk.Device
}

// openDisk opens what init linked into a folder. The slot that runs is opened to
// be read only: it is never written.
func openDisk(dir string, running layout.Slot) (*blocks, error) {
	if dir == "" || running.Other() == layout.None {
		return nil, errors.New("it did not start from a slot of its disk")
	}
	d := &blocks{slots: map[layout.Slot]disk.Device{}}
	open := func(name string, flags int) (disk.Device, error) {
		f, err := os.OpenFile(filepath.Join(dir, name), flags|unix.O_CLOEXEC, 0)
		if err != nil {
			d.Close()
			return nil, fmt.Errorf("firmware: the partition %s of its disk: %w", name, err)
		}
		return f, nil
	}
	var err error
	if d.esp, err = open(layout.PartESP, os.O_RDWR); err != nil {
		return nil, err
	}
	if d.slots[running], err = open(running.Part(), os.O_RDONLY); err != nil {
		return nil, err
	}
	if d.slots[running.Other()], err = open(running.Other().Part(), os.O_RDWR); err != nil {
		return nil, err
	}
	return d, nil
}

// Close closes the devices.
func (d *blocks) Close() error {
	var errs []error
	for _, f := range []disk.Device{d.esp, d.slots[layout.A], d.slots[layout.B]} {
		if c, ok := f.(io.Closer); ok {
			errs = append(errs, c.Close())
		}
	}
	return errors.Join(errs...)
}

func (d *blocks) Env() (bootenv.Env, error) { return disk.ReadEnv(d.esp) }

// SetEnv writes the state and reads it back from the disk.
func (d *blocks) SetEnv(e bootenv.Env) error {
	if err := disk.WriteEnv(d.esp, e); err != nil {
		return err
	}
	forget(d.esp)
	got, err := disk.ReadEnv(d.esp)
	if err != nil {
		return err
	}
	if got != e {
		return fmt.Errorf("boot state: %+v was written and reads back as %+v: the disk is bad, replace it", e, got)
	}
	return nil
}

func (d *blocks) Identity(s layout.Slot) (layout.Identity, error) {
	v, err := disk.ReadSlot(d.slots[s])
	if err != nil {
		return layout.Identity{}, err
	}
	return v.Config.Identity, nil
}

func (d *blocks) Write(s layout.Slot, r *bundle.Reader, progress func(string, int64, int64)) error {
	return disk.WriteSlot(d.slots[s], disk.FromBundle(r), disk.Options{Progress: progress})
}

// forget drops what the kernel remembers of a device, so that the next read is
// one of the disk. What cannot be dropped is no error: then it is a weaker test.
func forget(d disk.Device) {
	if f, ok := d.(*os.File); ok {
		unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	}
}

// Check reads a slot to its end. With the head of its bundle beside it, it is
// the bundle again, and checked as such; without, what a BIOS machine starts must
// be there.
func (d *blocks) Check(s layout.Slot, keys []bundle.Key) error {
	dev := d.slots[s]
	forget(dev)
	v, err := disk.ReadSlot(dev)
	if err != nil {
		return err
	}
	head, err := v.Open(layout.HeadFile)
	if err != nil {
		for _, piece := range []func() (io.Reader, int64, error){v.Linux, v.Initrd} {
			r, n, err := piece()
			if err == nil {
				_, err = io.CopyN(io.Discard, r, n)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	b, err := bundle.Open(head, keys)
	if err != nil {
		return err
	}
	for _, name := range []string{bundle.SlotConfig, bundle.Firmware} {
		p, _ := b.Manifest.Part(name)
		f, err := v.Open("/" + name)
		if err != nil {
			return err
		}
		sum := sha256.New()
		if n, err := io.Copy(sum, f); err != nil || n != p.Size || bundle.Hash(sum.Sum(nil)) != p.SHA256 {
			return fmt.Errorf("%s is not what its bundle says: %w", name, errors.Join(bundle.ErrUntrusted, err))
		}
	}
	return nil
}
