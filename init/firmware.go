package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"ballast/image/bootenv"
	"ballast/image/disk"
	"ballast/image/layout"
	"ballast/init/boot"
	"ballast/init/journal"
	"ballast/init/power"
	"ballast/services/firmware"
	"ballast/services/ipc"
)

// diskDir has links to those partitions of the boot disk that others than PID 1
// read or write: firmware writes slots and boot state, netboot reads the slots.
const diskDir = "/run/ballast-disk"

// lentDir is where a disk that is lent to firmware appears. It is there before that
// service starts, which confines itself to what is there; and it is in /dev
// because devices cannot be opened anywhere else.
const lentDir = "/dev/lent"

// wordFile tells the firmware service of a trial that PID 1 ended.
const wordFile = boot.DataDir + "/firmware-word.json"

// handOver gives the firmware service the partitions of the boot disk, but the slot
// that runs: that one it reads, as others do.
func handOver(d boot.BootDisk, dir string, uid, gid int) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("boot disk: %w", err)
	}
	var errs []error
	for _, p := range []struct {
		number int
		name   string
		mode   os.FileMode
	}{
		// What is beside the boot loader is nobody else's business; a slot may be
		// read by all services.
		{layout.NumberESP, layout.PartESP, 0o600},
		{layout.NumberSlotA, layout.PartSlotA, 0o640},
		{layout.NumberSlotB, layout.PartSlotB, 0o640},
	} {
		dev, link := d.Partition(p.number), filepath.Join(dir, p.name)
		os.Remove(link)
		owner := uid
		if p.name == d.Slot.Part() {
			owner = 0
		}
		errs = append(errs, os.Chown(dev, owner, gid), os.Chmod(dev, p.mode), os.Symlink(dev, link))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("boot disk: hand over its partitions: %w", err)
	}
	return nil
}

// firmwareDisk makes the phase of it.
func (m *machine) firmwareDisk() (string, error) {
	if err := os.MkdirAll(lentDir, 0o755); err != nil {
		m.journal.Print(journal.Error, "install: %v", err)
	}
	if m.disk == nil {
		m.cannot = boot.ErrNoSlot.Error() + ": \"install DISK\" puts it on a disk that has slots"
		if m.cmdline.Get(layout.WordPart) != "" {
			m.cannot = "the disk that it booted from was not found: see \"show log init\""
		}
		return "none", nil
	}
	if err := handOver(*m.disk, diskDir, ipc.UIDFirmware, ipc.GroupBallast); err != nil {
		m.cannot = err.Error()
		return "", err
	}
	// The kernel's command line does not always say it (Secure Boot).
	if err := os.WriteFile(filepath.Join(diskDir, layout.RunningFile), []byte(m.disk.Slot), 0o644); err != nil {
		return "", fmt.Errorf("boot disk: %w", err)
	}
	return "", nil
}

// firmwareEnv is what the firmware service is told.
func (m *machine) firmwareEnv() []string {
	env := []string{firmware.EnvDisk + "=" + diskDir, firmware.EnvSlot + "=" + m.cmdline.Get(layout.WordSlot), firmware.EnvWord + "=" + wordFile, firmware.EnvLent + "=" + lentDir,
		firmware.EnvLimit + "=" + m.trialLimit().String()}
	if boot.SecureBoot(boot.EFIVars) {
		env = append(env, firmware.EnvSecure+"=1")
	}
	if m.onTrial() {
		env = append(env, firmware.EnvTrial+"=1")
	}
	if m.cannot != "" {
		env = append(env, firmware.EnvCannot+"="+m.cannot)
	}
	return env
}

// onTrial reports whether the boot loader started this firmware on trial.
func (m *machine) onTrial() bool { return m.cmdline.Get(layout.WordTrial) == "1" }

// trialLimit is how long after the kernel's start a trial ends.
func (m *machine) trialLimit() time.Duration {
	if n, err := strconv.Atoi(m.cmdline.Get(layout.WordLimit)); err == nil && n > 0 {
		return min(layout.TrialLimit, time.Duration(n)*time.Second)
	}
	return layout.TrialLimit
}

// guardTrial ends a trial that nobody has confirmed in time, whatever the
// firmware service does, and although the boot may not have got as far as that.
func (m *machine) guardTrial(ctx context.Context) {
	if !m.onTrial() {
		return
	}
	select {
	case <-time.After(m.trialLimit() - journal.Uptime()):
	case <-ctx.Done():
		return
	}
	if m.judgeTrial() {
		return // it is confirmed
	}
	m.mu.Lock()
	serving := m.serving
	m.mu.Unlock()
	if serving {
		m.ask <- power.Request{Action: power.Reboot, By: "the end of the trial"}
		time.Sleep(shutdownTime) // the shutdown may hang as well
	}
	if err := power.Now(power.Reboot); err != nil {
		m.journal.Print(journal.Error, "%v", err)
	}
}

// judgeTrial ends the trial in the boot state and leaves a word of why; over
// reports that it was confirmed. A disk that no longer answers, or whatever else
// stands still, holds it up for a moment only.
func (m *machine) judgeTrial() (over bool) {
	done := make(chan bool, 1)
	go func() {
		esp, err := m.openESP()
		if err == nil {
			defer esp.Close()
		}
		over, err := endTrial(esp, layout.Slot(m.cmdline.Get(layout.WordSlot)), err)
		if over {
			done <- true
			return
		}
		reason := fmt.Sprintf("not confirmed %v after its kernel started, ended by init", m.trialLimit())
		if err != nil {
			reason += fmt.Sprintf(" (%v)", err)
		}
		m.journal.Print(journal.Error, "trial: %s; the other firmware comes back", reason)
		journal.ToKernel(journal.Error, "trial: "+reason)
		w := firmware.Word{Slot: m.cmdline.Get(layout.WordSlot), Time: time.Now(), Reason: reason}
		if err := firmware.WriteWord(wordFile, w); err != nil {
			m.journal.Print(journal.Warning, "%v", err)
		}
		unix.Sync()
		done <- false
	}()
	select {
	case over = <-done:
		return over
	case <-time.After(10 * time.Second):
		return false
	}
}

// ownIdentity is what this firmware is; nothing where it does not know.
func ownIdentity() (id layout.Identity) {
	if b, err := os.ReadFile(layout.IdentityFile); err == nil {
		json.Unmarshal(b, &id)
	}
	return id
}

// openESP opens the partition with the boot state.
func (m *machine) openESP() (*os.File, error) {
	m.mu.Lock()
	d := m.disk
	m.mu.Unlock()
	if d == nil {
		return nil, errors.New("its disk was not found")
	}
	return os.OpenFile(d.Partition(layout.NumberESP), os.O_RDWR|unix.O_CLOEXEC, 0)
}

// endTrial takes the trial of a slot back in the boot state; over reports that
// there is none any more. An error is no reason to go on: then the boot loader counts.
func endTrial(esp disk.Device, slot layout.Slot, err error) (over bool, _ error) {
	if err != nil {
		return false, err
	}
	var env bootenv.Env
	if env, err = disk.ReadEnv(esp); err != nil {
		return false, err
	}
	if env.Try != slot {
		return true, nil
	}
	return false, disk.WriteEnv(esp, env.Reject())
}

// verbStick gives the firmware service the bundle on a USB stick: only PID 1 can
// mount one. It looks at no byte of it.
func (m *machine) verbStick(_ context.Context, _ ipc.Peer, s *ipc.Stream) error {
	if !m.sticking.TryLock() {
		return errors.New("a stick is being read already: try again when that is over")
	}
	defer m.sticking.Unlock()
	return boot.Bundle(m.board.Name, m.disk, func(name string, r io.Reader) error {
		if err := s.Note("%s", name); err != nil {
			return err
		}
		_, err := io.Copy(s, r)
		return err
	})
}
