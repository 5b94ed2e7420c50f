package netboot

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"ballast/image/disk"
	"ballast/image/layout"
	"ballast/services/ipc/status"
	"ballast/services/netboot/tftp"
)

// slot is where the firmware of this box lies: the slot that it runs from, which
// nobody writes while it runs.
type slot struct {
	f      *os.File
	s      *disk.Slot
	source string
}

var errNoSlot = errors.New("this box did not boot from a slot of a disk, so it has no firmware to give: serve from one that did, or install this one (\"install DISK\")")

// openSlot opens the slot that runs.
func (p places) openSlot() (*slot, error) {
	line, err := os.ReadFile(p.cmdline)
	if err != nil {
		return nil, err
	}
	which := layout.None
	for _, w := range strings.Fields(string(line)) {
		if v, ok := strings.CutPrefix(w, layout.WordSlot+"="); ok {
			which = layout.Slot(v)
		}
	}
	if which == layout.None { // with Secure Boot nobody may add words
		b, _ := os.ReadFile(filepath.Join(p.disks, layout.RunningFile))
		which = layout.Slot(b)
	}
	if which != layout.A && which != layout.B {
		return nil, errNoSlot
	}
	f, err := os.Open(filepath.Join(p.disks, which.Part()))
	if err != nil {
		return nil, fmt.Errorf("slot %s: %w", which, err)
	}
	s, err := disk.ReadSlot(readOnly{f})
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("slot %s: %w", which, err)
	}
	return &slot{f, s, "slot " + string(which)}, nil
}

// readOnly is a device that is never written.
type readOnly struct{ *os.File }

// WriteAt refuses.
func (readOnly) WriteAt([]byte, int64) (int, error) { return 0, os.ErrPermission }

// section is a part of the slot that closes it in the end.
type section struct {
	*io.SectionReader
	f *os.File
}

// Close closes the device.
func (s section) Close() error { return s.f.Close() }

// piece is a range of the firmware.
func (l *slot) piece(r disk.Range) (*io.SectionReader, error) {
	w, err := l.s.Section(layout.FirmwareFile)
	if err != nil {
		return nil, err
	}
	if r.Offset+r.Size > w.Size() {
		return nil, errors.New("slot.cfg and fw.efi do not fit together")
	}
	return io.NewSectionReader(w, r.Offset, r.Size), nil
}

// text is a small file in memory.
type text struct{ *strings.Reader }

// Size implements tftp.File.
func (t text) Size() int64 { return t.Reader.Size() }

// imageFile is a file of the image.
type imageFile struct {
	*os.File
	size int64
}

// Size implements tftp.File.
func (f imageFile) Size() int64 { return f.size }

// file opens what a box may have, by the name that it asks for. The folder of
// its boot may be before the name, in TFTP too.
func (s *service) file(b *box, g *segment, name string) (tftp.File, error) {
	name = name[strings.LastIndexByte(name, '/')+1:]
	if name == layout.NetUndionly {
		f, err := os.Open(filepath.Join(s.places.image, layout.NetUndionly))
		if err != nil {
			return nil, err
		}
		st, err := f.Stat()
		if err != nil {
			f.Close()
			return nil, err
		}
		return imageFile{f, st.Size()}, nil
	}
	open := map[string]func(*slot) (*io.SectionReader, error){
		layout.NetFirmware:  func(l *slot) (*io.SectionReader, error) { return l.s.Section(layout.FirmwareFile) },
		layout.NetKernel:    func(l *slot) (*io.SectionReader, error) { return l.piece(l.s.Config.Linux) },
		layout.NetInitramfs: func(l *slot) (*io.SectionReader, error) { return l.piece(l.s.Config.Initrd) },
		layout.NetBundle:    func(l *slot) (*io.SectionReader, error) { return l.s.Bundle() },
	}[name]
	if open == nil && name != layout.NetScript {
		return nil, os.ErrNotExist
	}
	l, err := s.places.openSlot()
	if err != nil {
		return nil, noFile(err)
	}
	if name == layout.NetScript {
		defer l.f.Close()
		return text{strings.NewReader(g.script(b, l.s.Config.Args))}, nil
	}
	r, err := open(l)
	if err != nil {
		l.f.Close()
		return nil, noFile(err)
	}
	return section{r, l.f}, nil
}

// noFile keeps a fault of this box from being taken for a name that is wrong.
func noFile(err error) error { return errors.New(err.Error()) }

// lookAtFirmware notes what there is to give.
func (s *service) lookAtFirmware() {
	var st status.NetbootFirmware
	l, err := s.places.openSlot()
	if err != nil {
		st.Error = err.Error()
	} else {
		c := l.s.Config
		st.Source, st.Version, st.Board = l.source, c.Version, c.Board
		if w, err := l.s.Section(layout.FirmwareFile); err == nil {
			st.Size = w.Size()
		}
		if _, err := l.s.Bundle(); err != nil {
			st.Error = "nothing can be installed from here: " + err.Error()
		} else {
			st.Bundle = true
		}
		l.f.Close()
	}
	s.firmwareAt = time.Now()
	s.mu.Lock()
	s.firmware = st
	s.mu.Unlock()
}
