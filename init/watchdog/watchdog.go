// Package watchdog feeds the hardware's watchdog timer while the services that
// make a director a director do their job, and lets it reset the box when they
// do not.
package watchdog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Device is an open watchdog (Documentation/watchdog/watchdog-api.rst). From
// the moment it is open the hardware counts; closing it, or the death of this
// process, does not stop it.
type Device struct {
	Identity string // "i6300ESB timer"
	Timeout  time.Duration
	Reset    bool // the hardware says that it, and nothing else, reset the box last time

	node     string // "watchdog0"
	mu       sync.Mutex
	f        *os.File
	disarmed bool
}

// Open opens the first watchdog of the kernel and sets its timeout, which must
// be whole seconds. The hardware may round it: Timeout is what it took.
func Open(dev string, timeout time.Duration) (*Device, error) {
	f, err := os.OpenFile(dev, os.O_WRONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("watchdog: %w", err)
	}
	d := &Device{f: f, Timeout: timeout, node: filepath.Base(dev), Identity: identity(filepath.Base(dev))}
	// The argument is a pointer to an int of seconds, nothing else.
	if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.WDIOC_SETTIMEOUT, int(timeout/time.Second)); err != nil {
		// Some have one fixed time only; feed it anyway.
		if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOTTY) && !errors.Is(err, unix.EINVAL) {
			f.Close()
			return nil, fmt.Errorf("watchdog: set %s to %v: %w", dev, timeout, err)
		}
	}
	if info, err := unix.IoctlGetWatchdogInfo(int(f.Fd())); err == nil && d.Identity == unknown {
		d.Identity = strings.TrimSpace(unix.ByteSliceToString(info.Identity[:]))
	}
	if s, err := unix.IoctlGetInt(int(f.Fd()), unix.WDIOC_GETTIMEOUT); err == nil && s > 0 {
		d.Timeout = time.Duration(s) * time.Second
	}
	if flags, err := unix.IoctlGetInt(int(f.Fd()), unix.WDIOC_GETBOOTSTATUS); err == nil {
		d.Reset = flags&cardReset != 0
	}
	return d, nil
}

// cardReset is WDIOF_CARDRESET of linux/watchdog.h.
const cardReset = 0x20

// Pretimeout has the kernel panic so long before the hardware resets the box: a
// panic leaves a record behind (pstore), a reset does not. It helps where the
// kernel still runs its timers, which most hangs of programs leave alone. The module
// pretimeout_panic must be loaded.
func (d *Device) Pretimeout(before time.Duration) error {
	dir := filepath.Join("/sys/class/watchdog", d.node)
	// First the governor: the default one only writes a line.
	if err := os.WriteFile(filepath.Join(dir, "pretimeout_governor"), []byte("panic"), 0o644); err != nil {
		return fmt.Errorf("watchdog: what to do before the reset: %w", err)
	}
	if err := unix.IoctlSetPointerInt(int(d.f.Fd()), unix.WDIOC_SETPRETIMEOUT, int(before/time.Second)); err != nil {
		return fmt.Errorf("watchdog: panic %v before the reset: %w", before, err)
	}
	return nil
}

// soft is how the kernel's own watchdog calls itself.
const soft = "Software Watchdog"

// Soft reports whether it is only a timer of the kernel, which ends with it.
func (d *Device) Soft() bool { return d.Identity == soft }

// Best is the device to open: one of hardware, where there is one besides the kernel's own timer;
// "" when there is none.
func Best() string { return best("/sys/class") }

func best(sys string) string {
	list, _ := filepath.Glob(filepath.Join(sys, "watchdog", "watchdog*"))
	found := ""
	for _, p := range list {
		b, _ := os.ReadFile(filepath.Join(p, "identity"))
		if hard := strings.TrimSpace(string(b)) != soft; hard {
			return filepath.Join("/dev", filepath.Base(p))
		}
		found = filepath.Join("/dev", filepath.Base(p))
	}
	if found == "" {
		// The management controller's (ipmi_watchdog) is a device of its own kind, and
		// takes the old name, which is free only while there is no other.
		if _, err := os.Stat(filepath.Join(sys, "misc", "watchdog")); err == nil {
			return "/dev/watchdog"
		}
	}
	return found
}

func identity(name string) string {
	for _, n := range []string{name, name + "0"} { // /dev/watchdog is watchdog0
		if b, err := os.ReadFile("/sys/class/watchdog/" + n + "/identity"); err == nil {
			return strings.TrimSpace(string(b))
		}
	}
	return unknown
}

// unknown is the identity of a device that /sys does not tell of.
const unknown = "unknown"

// Feed starts the hardware's timer anew; after Disarm it does nothing.
func (d *Device) Feed() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.disarmed {
		return nil
	}
	if _, err := d.f.Write([]byte{0}); err != nil {
		return fmt.Errorf("watchdog: feed: %w", err)
	}
	return nil
}

// Disarm stops the timer: only for a box that is about to be switched off and
// would be switched on again by it.
func (d *Device) Disarm() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.disarmed = true                                 // what is written after the "V" would take it back
	if _, err := d.f.Write([]byte("V")); err != nil { // the "magic close"
		return fmt.Errorf("watchdog: disarm: %w", err)
	}
	return d.f.Close()
}

// Path is the device's node.
func (d *Device) Path() string { return filepath.Join("/dev", d.node) }

// Close leaves the timer running.
func (d *Device) Close() error { return d.f.Close() }

// Feeder feeds a device while Health says that all is well.
type Feeder struct {
	Device interface {
		Feed() error
	}
	Interval time.Duration
	// Health returns what is wrong, "" for nothing.
	Health func(now time.Time) string
	// Starved is called when feeding stops, with the reason, and with "" when it
	// goes on.
	Starved func(why string)
}

// Run feeds until ctx ends. An error of the device is told once and tried again.
func (f Feeder) Run(ctx context.Context) {
	t := time.NewTicker(f.Interval)
	defer t.Stop()
	said := ""
	for {
		why := f.Health(time.Now())
		if why == "" {
			if err := f.Device.Feed(); err != nil {
				why = err.Error()
			}
		}
		if (why == "") != (said == "") {
			f.Starved(why)
		}
		said = why
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// Sign is what is known of a service's life.
type Sign struct {
	Name     string
	Ready    bool
	Progress time.Time // last sign of life while ready
	First    time.Time // first start; zero: not started yet
}

// Limits of a service's silence. Grace is for a service that starts or starts
// again: longer than any start takes, and long enough for a bad moment to pass.
const (
	Silence = 5 * time.Second
	Grace   = 60 * time.Second
)

// Judge returns what is wrong with the services at a time, "" for nothing.
func Judge(now time.Time, signs []Sign) string {
	for _, s := range signs {
		last := s.Progress
		if last.Before(s.First) {
			last = s.First
		}
		switch {
		case s.Ready && now.Sub(last) > Silence:
			return fmt.Sprintf("%s shows no progress for %v", s.Name, now.Sub(last).Round(time.Second))
		case !s.Ready && now.Sub(last) > Grace:
			return fmt.Sprintf("%s is not ready for %v", s.Name, now.Sub(last).Round(time.Second))
		}
	}
	return ""
}
