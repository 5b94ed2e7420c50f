package firmware

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"ballast/image/bundle"
	"ballast/image/disk"
	"ballast/image/layout"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

// granted is a disk that init gave this process for a while.
type granted interface {
	disk.Device
	io.Closer
}

// disks is how this process gets a whole disk: init asks the kernel whether
// anybody uses it, lends it, and takes it back.
type disks interface {
	take(ctx context.Context, name string) (granted, status.InstallTarget, error)
	give(ctx context.Context, name string, carry bool) (note string, err error)
}

// initDisks is init over its socket.
type initDisks struct {
	init *ipc.Client
	lent string // folder in which the disk appears
}

func (d initDisks) take(ctx context.Context, name string) (granted, status.InstallTarget, error) {
	var t status.InstallTarget
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := d.init.Call(ctx, "disk-take", status.InstallDisk{Disk: name}, &t); err != nil {
		return nil, t, err
	}
	f, err := os.OpenFile(filepath.Join(d.lent, t.Disk), os.O_RDWR|unix.O_EXCL|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EBUSY) {
		err = fmt.Errorf("%s is in use: try again when what reads it is over, or take another disk: \"install\" lists them", t.Disk)
	}
	if err != nil {
		_, gerr := d.give(context.WithoutCancel(ctx), name, false)
		return nil, t, errors.Join(err, gerr)
	}
	return f, t, nil
}

// carryTime is how long a slow disk may take to get a file system and its files.
const carryTime = 2 * time.Minute

func (d initDisks) give(ctx context.Context, name string, carry bool) (note string, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), carryTime)
	defer cancel()
	err = d.init.Call(ctx, "disk-give", status.InstallDisk{Disk: name, Carry: carry}, &note)
	return note, err
}

// verbInstall writes a whole disk: this firmware's bundle, and the
// configuration and identity of this box.
func (s *service) verbInstall(ctx context.Context, _ ipc.Peer, st *ipc.Stream) error {
	var q status.FirmwareInstall
	if err := unmarshal(st.Argument, &q); err != nil {
		return err
	}
	if !s.busy.TryLock() {
		return errBusy
	}
	defer s.busy.Unlock()
	release := s.hold()
	defer release()
	// A reboot, ordered or at the end of a trial, would come in the middle of it;
	// and confirm and rollback wait for whoever is busy.
	s.mu.Lock()
	going := s.going
	s.mu.Unlock()
	switch {
	case going:
		return errGoing
	case s.pairGoes():
		return errPair
	case s.trialOn():
		return s.errTrial()
	}
	if len(s.keys) == 0 {
		return errors.New("this firmware trusts no key: it takes no bundle; write the disk with \"ballast flash\" on another machine")
	}
	to, err := s.install(ctx, q, st.In, st.Note, progressTo(st))
	text := fmt.Sprintf("install on %s by %s: %s", q.Disk, cmp.Or(q.By, "nobody known"), to.Version)
	if err != nil {
		s.log.Warn(fmt.Sprintf("install on %s by %s: %v", q.Disk, cmp.Or(q.By, "nobody known"), err))
		return err
	}
	s.log.Info(text)
	return st.Note("%s has the firmware, the configuration and the identity of this box. Let the machine boot from it first, and \"reboot\".\n"+
		"From then on this box without its disk, or another one that serves itself as it, would be a second one of its name.\n", q.Disk)
}

// install is verbInstall without its stream. Called with busy held.
func (s *service) install(ctx context.Context, q status.FirmwareInstall, in io.Reader, note func(string, ...any) error, progress func(status.FirmwareProgress) error) (to layout.Identity, err error) {
	dev, target, err := s.disks.take(ctx, q.Disk)
	if err != nil {
		return to, err
	}
	carry := false
	defer func() {
		err = errors.Join(err, dev.Close())
		what, gerr := s.disks.give(ctx, q.Disk, carry && err == nil)
		if what != "" {
			note("%s\n", what)
		}
		err = errors.Join(err, gerr)
	}()
	r, err := s.source(ctx, q.Source, target, in)
	if err != nil {
		return to, fmt.Errorf("%w\nnothing was written", err)
	}
	defer r.Close()
	b, err := bundle.Open(r, s.keys)
	if err != nil {
		return to, fmt.Errorf("%w\nnothing was written", notSent(err, q.Source, "install "+q.Disk, "\"net\", \"slot\" or a URL"))
	}
	to = b.Manifest.Identity
	// Whoever answers in a server's place must not choose the release. The same one
	// is new to the disk.
	if err := bundle.Policy(s.running, b.Manifest, bundle.Words{Older: q.Older, Again: true}); err != nil {
		return to, fmt.Errorf("%w\nnothing was written", err)
	}
	note("%s, signed by %s\nwriting %s: %s\n", status.FirmwareIdentity(to), b.SignedBy[0], target.Disk, target.About)
	noteFormat(b.Manifest, note)
	err = disk.Write(dev, disk.FromBundle(b), disk.Options{Both: true, Time: time.Now(), Progress: inRow(b.Manifest, q.By, func(p status.FirmwareProgress) {
		progress(p) // who no longer looks on keeps nothing from going on
	})})
	if err != nil {
		return to, fmt.Errorf("%[1]w\n%[2]s holds nothing now that could be started: \"install %[2]s\" again, or on another disk", err, target.Disk)
	}
	carry = true
	return to, nil
}

// source opens what is to be installed.
func (s *service) source(ctx context.Context, source string, t status.InstallTarget, in io.Reader) (io.ReadCloser, error) {
	switch source {
	case "":
		return io.NopCloser(in), nil
	case "net":
		if t.Net == "" {
			return nil, errors.New("this box was not loaded over the network by a box that serves it: name a URL, or send the bundle")
		}
		return s.client(ctx, t.Net+layout.NetBundle)
	case "slot":
		if t.Slot == "" {
			return nil, errors.New("this box did not start from a slot of a disk or stick: name a URL, or send the bundle")
		}
		return slotBundle(filepath.Join(os.Getenv(EnvDisk), layout.Slot(t.Slot).Part()))
	}
	return s.client(ctx, source)
}

// slotBundle opens the bundle that a slot was written from.
func slotBundle(dev string) (io.ReadCloser, error) {
	f, err := os.OpenFile(dev, os.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	v, err := disk.ReadSlot(f)
	var r io.Reader
	if err == nil {
		r, err = v.Bundle()
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w: name a URL, or send the bundle", filepath.Base(dev), err)
	}
	return struct {
		io.Reader
		io.Closer
	}{r, f}, nil
}
