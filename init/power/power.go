// Package power watches for people and programs that want the box to stop, and
// stops the kernel.
package power

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Action is what shall become of the box.
type Action int

// The actions.
const (
	Reboot Action = iota + 1
	PowerOff
)

func (a Action) String() string {
	if a == PowerOff {
		return "power off"
	}
	return "reboot"
}

// Request is one wish.
type Request struct {
	Action Action
	By     string // "power button", "Ctrl-Alt-Del", "SIGTERM", …
}

// Signals turns signals into requests until ctx ends: SIGINT, which the kernel
// sends PID 1 for Ctrl-Alt-Del, and SIGTERM reboot, SIGUSR2 powers off, as with
// other small inits. It also tells the kernel not to reboot by itself on
// Ctrl-Alt-Del.
func Signals(ctx context.Context, ask chan<- Request) error {
	err := unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF)
	ch := make(chan os.Signal, 4)
	signal.Notify(ch, unix.SIGINT, unix.SIGTERM, unix.SIGUSR2)
	go func() {
		defer signal.Stop(ch)
		for {
			var r Request
			select {
			case s := <-ch:
				switch s {
				case unix.SIGINT:
					r = Request{Reboot, "Ctrl-Alt-Del"}
				case unix.SIGTERM:
					r = Request{Reboot, "SIGTERM"}
				default:
					r = Request{PowerOff, "SIGUSR2"}
				}
			case <-ctx.Done():
				return
			}
			select {
			case ask <- r:
			case <-ctx.Done():
				return
			}
		}
	}()
	if err != nil {
		return fmt.Errorf("power: take Ctrl-Alt-Del from the kernel: %w", err)
	}
	return nil
}

// Hold keeps signals from ending this process that nobody needs here. The
// kernel protects PID 1 from signals without a handler, but Go's runtime has one
// for each, which prints or not and then exits: a kernel panic. (Signals that
// are ignored instead would be ignored by the services too.)
func Hold() {
	signal.Notify(make(chan os.Signal, 1), // nobody reads it
		unix.SIGHUP, unix.SIGQUIT, unix.SIGPIPE, unix.SIGALRM, unix.SIGUSR1, unix.SIGPWR, unix.SIGVTALRM, unix.SIGXCPU, unix.SIGXFSZ)
}

// Constants of linux/input-event-codes.h.
const (
	evKey    = 1
	keyPower = 116
)

// eventSize is that of struct input_event on 64-bit machines.
const eventSize = 24

// pressed reports whether a read from an input device holds a press of the
// power button.
func pressed(b []byte) bool {
	for ; len(b) >= eventSize; b = b[eventSize:] {
		if binary.NativeEndian.Uint16(b[16:]) == evKey && binary.NativeEndian.Uint16(b[18:]) == keyPower && binary.NativeEndian.Uint32(b[20:]) == 1 {
			return true
		}
	}
	return false
}

// Buttons are the names of the input devices that have a power button
// ("event0"), by what sysfs says of their keys.
func Buttons(sys string) []string {
	var out []string
	dirs, _ := filepath.Glob(filepath.Join(sys, "event*"))
	for _, d := range dirs {
		b, err := os.ReadFile(filepath.Join(d, "device/capabilities/key"))
		if err == nil && hasBit(string(b), keyPower) {
			out = append(out, filepath.Base(d))
		}
	}
	return out
}

// hasBit looks into a bitmap as sysfs prints it: words of 64 bits in hex, the
// highest first.
func hasBit(bitmap string, bit int) bool {
	words := strings.Fields(bitmap)
	i := len(words) - 1 - bit/64
	if i < 0 {
		return false
	}
	var w uint64
	if _, err := fmt.Sscanf(words[i], "%x", &w); err != nil {
		return false
	}
	return w>>(bit%64)&1 == 1
}

// Button asks for PowerOff when the power button of an input device is
// pressed, until ctx ends or the device is gone.
func Button(ctx context.Context, name string, ask chan<- Request) error {
	f, err := os.OpenFile(filepath.Join("/dev/input", name), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("power: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { f.Close() })
	defer stop()
	defer f.Close()
	b := make([]byte, 64*eventSize)
	for {
		n, err := f.Read(b)
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, unix.ENODEV) {
				return nil
			}
			return fmt.Errorf("power: read %s: %w", name, err)
		}
		if pressed(b[:n]) {
			select {
			case ask <- Request{PowerOff, "power button"}:
			case <-ctx.Done():
				return nil
			}
		}
	}
}

// Now ends the kernel. It returns only when the kernel refuses.
func Now(a Action) error {
	cmd := unix.LINUX_REBOOT_CMD_RESTART
	if a == PowerOff {
		cmd = unix.LINUX_REBOOT_CMD_POWER_OFF
	}
	if err := unix.Reboot(cmd); err != nil {
		return fmt.Errorf("power: %s: %w", a, err)
	}
	return nil
}

// EndAll tells every process but this one to end, and after grace makes it.
// Only PID 1 may call it.
func EndAll(grace time.Duration) {
	if os.Getpid() != 1 {
		return
	}
	unix.Kill(-1, unix.SIGTERM)
	time.Sleep(grace)
	unix.Kill(-1, unix.SIGKILL)
}
