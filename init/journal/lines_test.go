package journal

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestScreenOf(t *testing.T) {
	for console, want := range map[string]string{"tty0": "tty1", "tty2": "tty2", "ttyS0": "", "ttyS1": "", "ttyAMA0": "", "hvc0": "", "tty": "", "netcon0": ""} {
		if got, ok := screenOf(console); got != want || ok != (want != "") {
			t.Errorf("%s: %q, %v", console, got, ok)
		}
	}
}

func TestActive(t *testing.T) {
	got := active("tty0 ttyS0\n")
	if want := []Line{{"ttyS0", false, "ttyS0"}, {"tty1", true, "tty0"}}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := active(""); len(got) != 0 {
		t.Errorf("%v", got)
	}
}

// A line that is there gets its speed, one that has no hardware is none.
func TestSetLine(t *testing.T) {
	m, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := unix.IoctlSetPointerInt(int(m.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(m.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	dev := fmt.Sprintf("/dev/pts/%d", n)
	for mode, want := range map[string]uint32{"115200": unix.B115200, "57600n8": unix.B57600, "": unix.B9600} {
		if err := setLine(dev, mode); err != nil {
			t.Fatal(err)
		}
		got, err := unix.IoctlGetTermios(int(m.Fd()), unix.TCGETS)
		if err != nil || got.Cflag&unix.CBAUD != want || got.Cflag&unix.CSIZE != unix.CS8 {
			t.Errorf("%q: %o, %v", mode, got.Cflag, err)
		}
	}
	if !works(dev) || works("/dev/null") {
		t.Error("works: a terminal is none, or /dev/null is one")
	}
	for dev, mode := range map[string]string{dev: "115201", "/dev/null": "9600", "/no/such": "9600"} {
		if err := setLine(dev, mode); err == nil {
			t.Errorf("%s, %s: no error", dev, mode)
		}
	}
}
