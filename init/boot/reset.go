package boot

import (
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// wipeTime bounds how long a disk is written with zeros; the watchdog, and whoever
// stands there, wait for it.
const wipeTime = 2 * time.Minute

// WipeData takes everything from the mounted data disk: it is told to forget what
// it holds, written with zeros as far as the time allows, and gets an empty file
// system. how tells what was done.
func WipeData(d Data) (r Data, how string, err error) {
	m := director
	if d.Spare.Device == d.Device {
		m.reserve = spareReserve
	}
	if err := unix.Unmount(m.dir, 0); err != nil {
		return d, "", fmt.Errorf("wipe: unmount %s: %w", m.dir, err)
	}
	how, err = wipe(d.Device, m.size(d.Device)-m.reserve, wipeTime)
	if err == nil {
		r, _, err = m.fresh(Data{Device: d.Device, Spare: d.Spare}, "")
	}
	if err != nil {
		r, merr := m.memory(fmt.Sprintf("the data disk %s cannot be used: %v; changes are lost at a reboot", d.Device, err))
		if merr != nil {
			return d, "", merr
		}
		r.Device, r.Spare = d.Device, d.Spare
		return r, "", err
	}
	return r, how, nil
}

// wipe discards the first bytes of a disk and writes zeros over them. A disk need
// not do what it is told by the first; it does what it is told by the second.
func wipe(dev string, size uint64, within time.Duration) (how string, err error) {
	f, err := os.OpenFile(dev, os.O_WRONLY, 0)
	if err != nil {
		return "", fmt.Errorf("wipe: %w", err)
	}
	defer f.Close()
	end := time.Now().Add(within)
	r := [2]uint64{0, size}
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.BLKDISCARD, uintptr(unsafe.Pointer(&r))); e == 0 {
		how = "discarded, "
	}
	const piece = 64 << 20
	for at := uint64(0); at < size; at += piece {
		if time.Now().After(end) {
			return how + fmt.Sprintf("the first %d of %d MiB overwritten", at>>20, size>>20), nil
		}
		r := [2]uint64{at, min(piece, size-at)}
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.BLKZEROOUT, uintptr(unsafe.Pointer(&r))); e != 0 {
			return "", fmt.Errorf("wipe %s at %d MiB: %w", dev, at>>20, e)
		}
	}
	if err := f.Sync(); err != nil {
		return "", fmt.Errorf("wipe: %w", err)
	}
	return how + "overwritten", nil
}

// OpenPlace opens a part of a block device for package spare: what is beyond its
// end is not there.
func OpenPlace(p Place, size int64) (*Part, error) {
	f, err := os.OpenFile(p.Device, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return &Part{f, p.Offset, size}, nil
}

// Part is an open part of a block device.
type Part struct {
	f        *os.File
	at, size int64
}

func (p *Part) inside(b []byte, at int64) error {
	if at < 0 || at > p.size || int64(len(b)) > p.size-at {
		return fmt.Errorf("%d bytes at %d of %d", len(b), at, p.size)
	}
	return nil
}

// ReadAt implements io.ReaderAt.
func (p *Part) ReadAt(b []byte, at int64) (int, error) {
	if err := p.inside(b, at); err != nil {
		return 0, err
	}
	return p.f.ReadAt(b, p.at+at)
}

// WriteAt implements io.WriterAt.
func (p *Part) WriteAt(b []byte, at int64) (int, error) {
	if err := p.inside(b, at); err != nil {
		return 0, err
	}
	return p.f.WriteAt(b, p.at+at)
}

// Sync returns when what was written is on the disk.
func (p *Part) Sync() error { return p.f.Sync() }

// Close ends the use.
func (p *Part) Close() error { return p.f.Close() }
