package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"ballast/init/journal"
	"ballast/init/kmod"
	"ballast/init/watchdog"
)

// softDriver is the kernel's own timer, the last resort.
const softDriver = "softdog"

// watchdogBuses are drivers of what some watchdogs hang on: the devices of
// iTCO_wdt show up through them.
var watchdogBuses = []string{"lpc_ich", "i2c-i801"}

// managementDriver is that of a server's management controller.
const managementDriver = "ipmi_watchdog"

// pretimeout is how long before the hardware's reset the kernel is to panic, so
// that a record of what went on is left; writing one takes a few seconds in the
// variables of an EFI firmware.
const pretimeout = 6 * time.Second

// earlyWatchdog arms a watchdog before anything else is waited for: the
// hardware's where its driver finds the device by itself, else the kernel's own timer.
func (m *machine) earlyWatchdog(ctx context.Context) (string, error) {
	var err error
	if m.loader, err = kmod.Open(string(m.cmdline)); err != nil {
		err = fmt.Errorf("no drivers: %w", err) // a timer that firmware or kernel brought is opened all the same
	} else {
		m.loader.Trace = func(name string, took time.Duration) {
			m.journal.Print(journal.Info, "module %s took %v", name, took.Round(100*time.Microsecond))
		}
	}
	if m.cmdline.Get("ballast.watchdog") == "off" {
		m.dogState = "off: ballast.watchdog=off on the kernel's command line"
		return m.dogState, err
	}
	if m.loader != nil {
		hard := slices.DeleteFunc(slices.Clone(m.board.Watchdogs), func(n string) bool { return n == softDriver })
		for _, lerr := range m.loader.ColdplugOnly("/sys", append(hard, watchdogBuses...)) {
			m.journal.Print(journal.Warning, "%v", lerr)
		}
		m.load("pretimeout_panic")
		if watchdog.Best() == "" && slices.Contains(m.board.Watchdogs, managementDriver) {
			// It cannot take the place of softdog later, and asking the controller
			// takes a moment: only where the chipset has none.
			for _, lerr := range m.loader.ColdplugOnly("/sys", []string{"ipmi_si"}) {
				m.journal.Print(journal.Warning, "%v", lerr)
			}
			if _, err := os.Stat("/sys/module/ipmi_si"); err == nil {
				m.load(managementDriver)
			}
		}
		if watchdog.Best() == "" && slices.Contains(m.board.Watchdogs, softDriver) {
			m.load(softDriver)
		}
	}
	what, oerr := m.openWatchdog(watchdog.Best())
	// Fed from now on, not with the services: a dying disk can hold up a later
	// phase for longer than the hardware waits, and a box that boots again and again is of no use.
	go watchdog.Feeder{Device: kennel{m}, Interval: 2 * time.Second, Health: m.health, Starved: m.starved}.Run(ctx)
	return what, errors.Join(err, oerr)
}

// lateWatchdog looks again when the drivers of all devices are there, where the
// hardware's was not found yet.
func (m *machine) lateWatchdog() (string, error) {
	if m.dog != nil && !m.dog.Soft() || m.cmdline.Get("ballast.watchdog") == "off" || m.loader == nil {
		return m.dogState, nil
	}
	for _, driver := range m.board.Watchdogs {
		if driver != softDriver || m.dog == nil {
			m.load(driver)
		}
		if dev := watchdog.Best(); dev != "" && (m.dog == nil || dev != m.dog.Path()) {
			break
		}
	}
	dev := watchdog.Best()
	if m.dog != nil && dev == m.dog.Path() {
		return m.dogState, nil
	}
	before := m.dog
	what, err := m.openWatchdog(dev)
	if err == nil && before != nil {
		err = before.Disarm() // the better one counts now
	}
	return what, err
}

// load loads a driver; that its device is not there is no news.
func (m *machine) load(driver string) {
	if err := m.loader.Load(driver); err != nil {
		m.journal.Print(journal.Info, "%v", err)
	}
}

// openWatchdog arms a device ("": there is none).
func (m *machine) openWatchdog(dev string) (string, error) {
	if dev == "" {
		m.setDog(nil, "none: no driver of the board found one")
		return "", errors.New(m.dogState)
	}
	d, err := watchdog.Open(dev, m.board.WatchdogTimeout)
	if err != nil {
		if m.dog == nil {
			m.setDog(nil, "none: "+err.Error())
		}
		return "", err
	}
	if err := d.Pretimeout(pretimeout); err != nil {
		m.journal.Print(journal.Info, "%v", err) // a reset then leaves no record, and that is all
	}
	m.setDog(d, d.Identity+", fed")
	return fmt.Sprintf("%s, %v", d.Identity, d.Timeout), d.Feed()
}

func (m *machine) setDog(d *watchdog.Device, state string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dog, m.dogState = d, state
}

// kennel feeds the device that is armed now.
type kennel struct{ m *machine }

// Feed does nothing while there is none.
func (k kennel) Feed() error {
	k.m.mu.Lock()
	d := k.m.dog
	k.m.mu.Unlock()
	if d == nil {
		return nil
	}
	return d.Feed()
}
