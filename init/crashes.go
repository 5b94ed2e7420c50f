package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ballast/init/boot"
	"ballast/init/crash"
	"ballast/init/journal"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

// Places of what is kept over a crash.
const (
	pstoreDir = "/sys/fs/pstore"
	ownDir    = boot.DataDir + "/init"
	markFile  = ownDir + "/run"
	traceFile = ownDir + "/panic"
	crashDir  = boot.DataDir + "/crash"
)

// ramBytes is how much of the kernel's log a panic leaves in memory that outlives
// a reset; the variables of an EFI firmware take the kernel's own 10 KiB.
const ramBytes = 128 << 10

// keepRecords has a panic of the kernel from now on leave a record: in the
// variables of an EFI firmware, which lose nothing, or in a piece of memory, which a
// firmware without EFI leaves alone when the box resets.
func (m *machine) keepRecords() (string, error) {
	if m.loader == nil {
		return "", errors.New("no drivers")
	}
	crashToKernel() // until there is a disk: lastStart
	drivers := []string{"ramoops"}
	if _, err := os.Stat("/sys/firmware/efi/runtime"); err == nil {
		drivers = []string{"efi-pstore", "ramoops"}
	}
	for _, d := range drivers {
		if keeper() != "" {
			break // the firmware has a place of its own for them (ERST)
		}
		m.load(d)
	}
	k := keeper()
	switch k {
	case "":
		return "", errors.New("nothing keeps the last words of a kernel that panics: the firmware has no place for them, and the kernel's command line no reserve_mem=")
	case "ramoops":
		if err := unix.Mount("", pstoreDir, "", unix.MS_REMOUNT|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, fmt.Sprintf("kmsg_bytes=%d", ramBytes)); err != nil {
			m.journal.Print(journal.Info, "crash records: %v", err)
		}
	}
	return k, nil
}

// keeper is where pstore puts records, "" for nowhere.
func keeper() string {
	b, err := os.ReadFile("/sys/module/pstore/parameters/backend")
	if name := strings.TrimSpace(string(b)); err == nil && name != "(null)" {
		return name
	}
	return ""
}

// lastStart finds out how the box came to start, takes the records of crashes
// out of pstore, and leaves the marks by which the next start knows of this run.
func (m *machine) lastStart() (string, error) {
	var errs []error
	note := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	note(os.MkdirAll(ownDir, 0o755))
	e := crash.Evidence{Remember: !m.data.Stateless}
	var err error
	e.Last, e.Alive, e.Known, err = crash.ReadMark(markFile)
	note(err)
	m.mu.Lock()
	e.Reset = m.dog != nil && m.dog.Reset
	m.mu.Unlock()
	tail := crash.Last(ownDir)
	trace := lastWords(traceFile)
	about := func(r *status.CrashReport) {
		r.Version, r.Slot = e.Last.Version, e.Last.Slot
		if len(trace) > 0 {
			r.Parts = append(r.Parts, status.CrashPart{Name: "init", Text: trace})
		}
		if tail != "" && e.Last.Ended == "" {
			r.Parts = append(r.Parts, status.CrashPart{Name: "journal", Text: tail})
		}
		if kind, line := crash.Summary(r.Parts); kind != "" {
			r.Kind, r.Summary = kind, line
		}
	}
	store, err := crash.Open(crashDir)
	note(err)
	if store != nil {
		e.Crashes, err = store.Collect(pstoreDir, about)
		note(err)
		why, starved := crash.Starved(tail)
		if len(e.Crashes) == 0 && (len(trace) > 0 || e.Last.Ended == "" && (e.Reset || starved)) {
			// The memory did not keep what the kernel said, or nothing was said.
			r := status.CrashReport{Crash: status.Crash{Time: e.Alive, Kind: crash.Watchdog, Summary: cmp.Or(why, "it was not fed any more")}}
			about(&r)
			r, err = store.Add(r)
			note(err)
			e.Crashes = append(e.Crashes, r)
		}
	}
	start := crash.Judge(e)
	m.mu.Lock()
	m.start, m.crashes = start, store
	m.mu.Unlock()
	id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	m.mark = crash.Mark{Boot: strings.TrimSpace(string(id)), Started: m.started, Version: version, Slot: m.slot()}
	note(m.mark.Write(markFile))
	note(m.tail.Open(ownDir))
	note(crashOutput(traceFile))
	if start.Kind == status.StartPanic || start.Kind == status.StartWatchdog {
		m.journal.Print(journal.Warning, "%s; \"show crash %d\"", start.Why, start.Crash)
	}
	return start.Why, errors.Join(errs...)
}

// traceSize is room for the words of PID 1's end, made before: to write into it
// changes nothing else on the disk, which is what takes time.
const traceSize = 256 << 10

// crashOutput has the words with which a Go program ends go to a file too, each
// of them to the disk before the next: after the last one the kernel panics.
func crashOutput(path string) error {
	room, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err == nil {
		_, err = room.Write(make([]byte, traceSize))
		err = errors.Join(err, room.Sync(), room.Close())
	}
	if err == nil {
		var f *os.File
		if f, err = os.OpenFile(path, os.O_WRONLY|unix.O_DSYNC, 0); err == nil {
			defer f.Close() // the runtime has a descriptor of its own
			err = debug.SetCrashOutput(f, debug.CrashOptions{})
		}
	}
	if err != nil {
		return fmt.Errorf("last words of PID 1: %w", err)
	}
	return nil
}

// lastWords reads what crashOutput's file got.
func lastWords(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	text, _, _ := bytes.Cut(b, []byte{0})
	return string(text)
}

// crashToKernel has them go to the kernel's log, which a panic keeps.
func crashToKernel() {
	if f, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0); err == nil {
		debug.SetCrashOutput(f, debug.CrashOptions{})
		f.Close()
	}
}

// leaveData closes what this process has open on the data disk, which is to be
// unmounted.
func (m *machine) leaveData() {
	m.tail.Close()
	crashToKernel()
}

// slot is the slot that the box booted from, "" for none.
func (m *machine) slot() string {
	if m.disk == nil {
		return ""
	}
	return string(m.disk.Slot)
}

// aliveEvery is how well a box knows when it was there last.
const aliveEvery = time.Minute

func (m *machine) stayAlive(ctx context.Context) {
	t := time.NewTicker(aliveEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			crash.Alive(markFile)
		case <-ctx.Done():
			return
		}
	}
}

// endMark says to the next start that this run ends in order.
func (m *machine) endMark(how string) {
	mark := m.mark
	if mark.Started.IsZero() {
		return // the boot did not come so far
	}
	mark.Ended = how
	if err := mark.Write(markFile); err != nil {
		m.journal.Print(journal.Warning, "%v", err)
	}
}

// alarms are what whoever comes to the box must know of.
func (m *machine) alarms() (out []string) {
	if fault := m.data.Fault(); fault != "" {
		out = append(out, fault)
	}
	m.mu.Lock()
	store := m.crashes
	m.mu.Unlock()
	if store != nil {
		out = append(out, crash.Unseen(store.List())...)
	}
	return out
}

// verbCrash lists the records of crashes, or shows one: it has been seen then, if
// it was shown to somebody who does more than look.
func (m *machine) verbCrash(_ context.Context, p ipc.Peer, body json.RawMessage) (any, error) {
	var q status.CrashQuery
	if err := unmarshal(body, &q); err != nil {
		return nil, err
	}
	m.mu.Lock()
	store := m.crashes
	m.mu.Unlock()
	if store == nil {
		return nil, errors.New("crash records: there is no place for them: \"show log init\" tells why")
	}
	if q.Number == 0 {
		return status.CrashAnswer{List: store.List()}, nil
	}
	r, err := store.Get(q.Number)
	if err != nil {
		return nil, err
	}
	if p.Role() >= ipc.Operate && !q.Unseen {
		if err := store.Seen(q.Number); err != nil {
			m.journal.Print(journal.Warning, "%v", err)
		}
		m.touch()
	}
	return status.CrashAnswer{Report: &r}, nil
}
