// Package board describes the hardware that Ballast runs on, as data: an image
// is built for one board, and init asks the same description what to do when
// it boots. A new board is a new file with one literal in it; nothing else
// knows the names of boards.
package board

import (
	"fmt"
	"maps"
	"path"
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
	// Later is loaded when the box is ready, before the kernel is told to load no
	// more: what a configuration or a stick may ask for in the months to come. What the
	// image does not have is left out.
	Later []string
	// Firmware are the files below /lib/firmware that its drivers load into their
	// hardware: paths that may hold the wildcards of path.Match. image takes them
	// from Debian's packages.
	Firmware []string
	// NoFirmware are those that its drivers ask for and the image does not have,
	// by path (wildcards too), with the reason. What is in neither list fails a test.
	NoFirmware map[string]string

	// Consoles are the serial lines ("ttyS0,115200") and the screen ("tty0") with
	// a login, where init's lines go too. The first one is /dev/console. The kernel's
	// own lines go to the first of each kind only: it has one console of a kind.
	Consoles []string
	// CmdLine is the kernel's, without the consoles.
	CmdLine []string

	// Watchdogs are the drivers that may be the hardware's watchdog, best first.
	// softdog only helps while the kernel runs and belongs last.
	Watchdogs []string
	// WatchdogTimeout is how long the hardware waits for init before it resets
	// the box, in whole seconds.
	WatchdogTimeout time.Duration

	// NICs names network interfaces before the services start: the first entry
	// whose Path fits an interface's place in /sys names it. Others keep the name
	// that the kernel gave them, or get the next free one if it is taken here. Without
	// any the names are the kernel's: eth0, eth1, … in the order of the bus, one
	// driver after the other.
	NICs []NIC

	// Data is where the disk with what outlives a reboot is looked for.
	Data Data
}

// NIC names the interface behind one socket of the box.
type NIC struct {
	// Path is the ending of the device's path in /sys/devices, with the wildcards of
	// path.Match: "0000:00:02.2/*" is what is behind that bridge, whichever number
	// its bus got.
	Path string
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
	seen := map[string]bool{}
	for _, c := range b.Consoles {
		// Of several of a kind the kernel would take the first that it is told of,
		// whether there is such hardware or not.
		kind := strings.TrimRight(strings.SplitN(c, ",", 2)[0], "0123456789")
		if !seen[kind] {
			words = append(words, "console="+c)
		}
		seen[kind] = true
	}
	slices.Reverse(words) // the last one is /dev/console
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
	for _, p := range slices.Concat(b.Firmware, slices.Collect(maps.Keys(b.NoFirmware))) {
		if _, err := path.Match(p, ""); err != nil || path.Clean(p) != p || path.IsAbs(p) || strings.HasPrefix(p, "..") {
			bad("Firmware: %q is no path below /lib/firmware", p)
		}
	}
	for p, why := range b.NoFirmware {
		if why == "" {
			bad("NoFirmware: %s has no reason", p)
		}
	}
	names := map[string]bool{}
	for _, n := range b.NICs {
		if _, err := path.Match(n.Path, ""); err != nil || n.Path == "" || path.Clean(n.Path) != n.Path {
			bad("NICs: %q is no ending of a path in /sys/devices", n.Path)
		}
		if !nicName(n.Name) {
			bad("NICs: the kernel does not take %q as a name: want 1 to 15 characters without blank, slash and colon", n.Name)
		}
		if names[n.Name] {
			bad("NICs: %s is there twice", n.Name)
		}
		names[n.Name] = true
	}
	for _, w := range b.CmdLine {
		if strings.HasPrefix(w, "console=") {
			bad("CmdLine: %s belongs into Consoles", w)
		}
	}
	return errs
}

// nicName tells whether the kernel takes a name for an interface
// (dev_valid_name in net/core/dev.c).
func nicName(s string) bool {
	return s != "" && len(s) < 16 && s != "." && s != ".." && !strings.ContainsAny(s, "/: \t\n\v\f\r")
}
