package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ballast/init/boot"
	"ballast/init/flash"
	"ballast/init/journal"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

// takenFor is how long the firmware service may have a disk: more than it takes to
// fetch a firmware over the worst line and write it to the worst stick.
const takenFor = 24 * time.Hour

// installable tells what a disk is, and why nothing may be installed on it.
func (m *machine) installable(name string) (t status.InstallTarget, err error) {
	name = strings.TrimPrefix(name, "/dev/")
	t.Disk = name
	if !slices.Contains(boot.Disks(), name) {
		return t, fmt.Errorf("there is no disk %.40q; there are: %s", name, strings.Join(boot.Disks(), ", "))
	}
	dev := filepath.Join("/dev", name)
	m.mu.Lock()
	disk, data, source := m.disk, m.data.Device, m.source
	m.mu.Unlock()
	if disk != nil {
		t.Slot = string(disk.Slot)
		if disk.Device == dev {
			return t, fmt.Errorf("%s is the disk that this box runs from: \"upgrade\" is for that", name)
		}
	}
	t.Net = source
	if data == dev {
		return t, fmt.Errorf("%s holds the data of this box: take another disk", name)
	}
	t.About, err = flash.Look(dev)
	return t, err
}

// verbDisks lists the disks of this box.
func (m *machine) verbDisks(context.Context, ipc.Peer, json.RawMessage) (any, error) {
	out := []status.InstallTarget{}
	for _, name := range boot.Disks() {
		t, err := m.installable(name)
		if err != nil {
			t.Refuse = err.Error()
		}
		out = append(out, t)
	}
	return out, nil
}

// lend makes a second node of a device, for one user. What that user may open is
// this one: the node in /dev stays root's.
func lend(dev, node string, uid int) error {
	var st unix.Stat_t
	if err := unix.Stat(dev, &st); err != nil {
		return fmt.Errorf("install: %w", &os.PathError{Op: "stat", Path: dev, Err: err})
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return fmt.Errorf("install: %s is no disk", dev)
	}
	if err := endLoan(node); err != nil { // of a disk that had this name before
		return err
	}
	if err := unix.Mknod(node, unix.S_IFBLK|0o600, int(st.Rdev)); err != nil {
		return fmt.Errorf("install: %w", &os.PathError{Op: "mknod", Path: node, Err: err})
	}
	if err := os.Chown(node, uid, uid); err != nil {
		return errors.Join(fmt.Errorf("install: %w", err), endLoan(node))
	}
	return nil
}

// endLoan takes the node away. Who has it open keeps that.
func endLoan(node string) error {
	if err := os.Remove(node); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("install: %w", err)
	}
	return nil
}

// verbDiskTake lends the firmware service one whole disk that nobody uses. That
// service installs on one at a time: when it asks again, what it had before was
// left behind by a process that has ended.
func (m *machine) verbDiskTake(ctx context.Context, _ ipc.Peer, body json.RawMessage) (any, error) {
	var q status.InstallDisk
	if err := unmarshal(body, &q); err != nil {
		return nil, err
	}
	m.taking.Lock()
	defer m.taking.Unlock()
	if err := ctx.Err(); err != nil { // it gave up while another disk got its data
		return nil, err
	}
	if m.taken != "" {
		m.takeBack()
	}
	t, err := m.installable(q.Disk)
	if err != nil {
		return nil, err
	}
	if err := lend(filepath.Join("/dev", t.Disk), filepath.Join(lentDir, t.Disk), ipc.UIDFirmware); err != nil {
		return nil, err
	}
	m.taken = t.Disk
	m.journal.Print(journal.Notice, "install: %s, %s, is lent to firmware", t.Disk, t.About)
	m.takenTimer = time.AfterFunc(takenFor, func() {
		m.taking.Lock()
		defer m.taking.Unlock()
		if m.taken == t.Disk {
			m.takeBack()
		}
	})
	return t, nil
}

// takeBack ends the loan. Called with taking held.
func (m *machine) takeBack() {
	if err := endLoan(filepath.Join(lentDir, m.taken)); err != nil {
		m.journal.Print(journal.Error, "%v", err)
	}
	m.takenTimer.Stop()
	m.taken = ""
}

// verbDiskGive takes the disk back, and has it carry the data of this box.
func (m *machine) verbDiskGive(_ context.Context, _ ipc.Peer, body json.RawMessage) (any, error) {
	var q status.InstallDisk
	if err := unmarshal(body, &q); err != nil {
		return nil, err
	}
	m.taking.Lock()
	defer m.taking.Unlock()
	name := strings.TrimPrefix(q.Disk, "/dev/")
	if m.taken == "" || m.taken != name {
		return nil, fmt.Errorf("%.40q is not lent, or no more: install it again", q.Disk)
	}
	m.takeBack()
	if !q.Carry {
		return "", nil
	}
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	note, err := boot.Carry(name, host)
	if err != nil {
		return nil, fmt.Errorf("%s has the firmware, but not the configuration of this box: %w: install it again, or on another disk", name, err)
	}
	m.journal.Print(journal.Notice, "install: %s has the data of this box; %s", name, note)
	return note, nil
}
