package journal

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Line is a terminal at which somebody may sit.
type Line struct {
	Terminal string // its name in /dev, "ttyS0"
	Screen   bool   // and not a serial line
	console  string // where lines for whoever looks on are written: of a screen, whichever terminal is shown
}

// Lines are the kernel's consoles, the one that is /dev/console first, and of
// more ("ttyS1,115200") the serial lines that the box has. The kernel writes to one
// serial line only, whatever its command line says.
func Lines(more []string) []Line {
	b, _ := os.ReadFile("/sys/class/tty/console/active")
	// The kernel takes a serial port for its console whether there is such hardware
	// or not.
	lines := slices.DeleteFunc(active(string(b)), func(l Line) bool { return !works(filepath.Join("/dev", l.Terminal)) })
	for _, m := range more {
		name, mode, _ := strings.Cut(m, ",")
		if _, ok := screenOf(name); ok || slices.ContainsFunc(lines, func(l Line) bool { return l.Terminal == name }) {
			continue
		}
		if err := setLine(filepath.Join("/dev", name), mode); err != nil {
			continue // there is no such hardware
		}
		lines = append(lines, Line{Terminal: name, console: name})
	}
	return lines
}

// active reads the names of the kernel's consoles, /dev/console last.
func active(text string) (lines []Line) {
	for _, name := range slices.Backward(strings.Fields(text)) {
		l := Line{Terminal: name, console: name}
		if screen, ok := screenOf(name); ok {
			l.Terminal, l.Screen = screen, true
		}
		lines = append(lines, l)
	}
	return lines
}

// screenOf is the virtual terminal of a kernel's console that is a screen: tty0
// is whichever is shown, and the first one is shown unless somebody switches.
func screenOf(console string) (terminal string, ok bool) {
	n, ok := strings.CutPrefix(console, "tty")
	if !ok || n == "" || strings.Trim(n, "0123456789") != "" {
		return "", false
	}
	if n == "0" {
		n = "1"
	}
	return "tty" + n, true
}

// works tells whether a terminal has hardware: one without has no settings.
func works(dev string) bool {
	fd, err := unix.Open(dev, unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	_, err = unix.IoctlGetTermios(fd, unix.TCGETS)
	return err == nil
}

// speeds are those of serial lines.
var speeds = map[int]uint32{
	9600: unix.B9600, 19200: unix.B19200, 38400: unix.B38400, 57600: unix.B57600, 115200: unix.B115200, 230400: unix.B230400,
}

// setLine sets the speed of a serial line that is not the kernel's, 8 bits
// without parity. A port without hardware has no settings.
func setLine(dev, mode string) error {
	digits := mode[:len(mode)-len(strings.TrimLeft(mode, "0123456789"))]
	n, err := strconv.Atoi(digits)
	if err != nil {
		n = 9600 // as the kernel takes it
	}
	speed, ok := speeds[n]
	if !ok {
		return fmt.Errorf("serial line %s: no speed %d", dev, n)
	}
	fd, err := unix.Open(dev, unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("serial line %s: %w", dev, err)
	}
	defer unix.Close(fd)
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return fmt.Errorf("serial line %s: %w", dev, err)
	}
	t.Cflag = t.Cflag&^(unix.CBAUD|unix.CSIZE|unix.PARENB|unix.CSTOPB|unix.CRTSCTS) | speed | unix.CS8 | unix.CREAD | unix.CLOCAL
	t.Ispeed, t.Ospeed = speed, speed
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, t); err != nil {
		return fmt.Errorf("serial line %s: %w", dev, err)
	}
	return nil
}
