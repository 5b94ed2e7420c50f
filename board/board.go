// Package board describes the hardware that Ballast runs on, as data: an image
// is built for one board, and init asks the same description what to do when
// it boots. A new board is a new file with one literal in it; nothing else
// knows the names of boards.
package board

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Board is one hardware family.
type Board struct {
	Name    string // as in "make image BOARD=name"
	Summary string // one line for people

	// Modules go into the image, with what they depend on: names, or paths below
	// lib/modules/RELEASE without ".ko" that may hold wildcards. Drivers among
	// them are loaded when their device shows up, the rest when something asks.
	Modules []string
	// Load is loaded before the services start: what they would otherwise wait for.
	Load []string
	// Firmware are files below /lib/firmware that its drivers ask for. No build
	// packs them yet: Check refuses a board that has any.
	Firmware []string

	// Consoles are the serial lines with a login, the first one being the
	// kernel's console too: "ttyS0,115200".
	Consoles []string
	// CmdLine is the kernel's, without the consoles.
	CmdLine []string

	// Watchdogs are the drivers that may be the hardware's watchdog, best first.
	// softdog only helps while the kernel runs and belongs last.
	Watchdogs []string
	// WatchdogTimeout is how long the hardware waits for init before it resets
	// the box, in whole seconds.
	WatchdogTimeout time.Duration

	// NICs is to rename network interfaces before the services start: the first
	// entry whose Path fits an interface's place in /sys names it. Which names
	// users' files call them by is the configuration's matter. init does not do it
	// yet: Check refuses a board that has any.
	NICs []NIC

	// Data is where the disk with what outlives a reboot is looked for.
	Data Data
}

// NIC names the interface behind one socket of the box.
type NIC struct {
	Path string // ending of the device's path in /sys/devices: "0000:00:03.0/virtio1"
	Name string // at most 15 characters
}

// DataUUID is that of every file system that an image brings for a data disk:
// by it a damaged one is still known to be ours.
const DataUUID = "6d2fa0c4-7b1e-4c59-9d0e-ba11a57da7a0"

// Data finds the data disk. Either rule may fit; the first disk that fits is it.
// A disk with the serial number is for a director and nothing else: what else is
// on it is replaced. A partition's name is chosen by many; it is only used when it
// is blank or holds what a director put there.
type Data struct {
	Serial    string        // serial number of a whole disk
	Partition string        // name of a GPT partition
	Wait      time.Duration // how long a slow disk may take to show up; 0: it is there when its driver is loaded
}

var boards = map[string]Board{}

// register adds a board; two of one name are a fault of the program.
func register(b Board) Board {
	boards[b.Name] = b
	return b
}

// Get returns a board by name.
func Get(name string) (Board, error) {
	b, ok := boards[name]
	if !ok {
		return Board{}, fmt.Errorf("board: no board %q: there are %s", name, strings.Join(Names(), ", "))
	}
	return b, nil
}

// Names returns the names of all boards, sorted.
func Names() []string { return slices.Sorted(maps.Keys(boards)) }

// KernelCmdLine is the whole command line that the board's kernel is started
// with. What a user adds behind it wins.
func (b Board) KernelCmdLine() string {
	var words []string
	for _, c := range slices.Backward(b.Consoles) {
		words = append(words, "console="+c) // the last one is /dev/console
	}
	return strings.Join(append(words, b.CmdLine...), " ")
}

// Check returns what is wrong with a description.
func (b Board) Check() []error {
	var errs []error
	bad := func(format string, a ...any) {
		errs = append(errs, fmt.Errorf("board "+b.Name+": "+format, a...))
	}
	if b.Name == "" || strings.ContainsAny(b.Name, "/ \t\n") {
		bad("its name must be one word without a slash")
	}
	if len(b.Consoles) == 0 {
		bad("Consoles: a box without one cannot be helped")
	}
	if t := b.WatchdogTimeout; t%time.Second != 0 || len(b.Watchdogs) > 0 && (t < 10*time.Second || t > 10*time.Minute) {
		bad("WatchdogTimeout is %v: want whole seconds from 10s to 10m", t)
	}
	for _, w := range b.Watchdogs {
		if !slices.Contains(b.Modules, w) {
			bad("Modules lacks the watchdog driver %s", w)
		}
	}
	if len(b.Firmware) > 0 {
		bad("Firmware: image does not pack firmware yet; take a board whose drivers need none, or teach image.Build")
	}
	if len(b.NICs) > 0 {
		bad("NICs: init does not rename interfaces yet; name them in the configuration (interface NAME { mac … })")
	}
	for _, w := range b.CmdLine {
		if strings.HasPrefix(w, "console=") {
			bad("CmdLine: %s belongs into Consoles", w)
		}
	}
	return errs
}
