package boot

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"ballast/configs/first"
	"ballast/configs/store"

	"golang.org/x/sys/unix"
)

// A stick, or any further disk, with a FAT or ext4 file system of this name may
// bring the first configuration in this file.
const (
	stickLabel = "BALLAST"
	stickFile  = "ballast.conf"
	// stickWait is how long a box with USB, and nothing else that configures it,
	// waits for its sticks to be found.
	stickWait = 3 * time.Second
)

// beginnings is where a box looks for what its first configuration may be made
// of. A test has places of its own.
type beginnings struct {
	sys, dev string // block devices
	data     string // disk, with the configuration that is stored
	seed     string
	mount    string // where a stick is mounted while it is read
	nics     []string
	wait     time.Duration
}

// FirstConfiguration puts what a stick and the kernel's command line bring for a
// box without a configuration into the seed, for conf; and nothing for a box
// that has one: then no stick is even looked at. A stick's file takes the place
// of the seed that the image brought. faults is what was left out of the words.
func FirstConfiguration(c CmdLine) (what string, faults []error, err error) {
	b := beginnings{sys: "/sys/class/block", dev: "/dev", data: DataDir, seed: SeedDir, mount: "/run/stick", nics: nics()}
	if list, _ := os.ReadDir("/sys/bus/usb/devices"); len(list) > 0 {
		b.wait = stickWait
	}
	return b.collect(c)
}

// nics lists the network interfaces that have a device behind them.
func nics() (names []string) {
	paths, _ := filepath.Glob("/sys/class/net/*/device") // the pattern is well-formed
	for _, p := range paths {
		names = append(names, filepath.Base(filepath.Dir(p)))
	}
	slices.SortFunc(names, func(a, b string) int { // eth2 before eth10
		if len(a) != len(b) {
			return len(a) - len(b)
		}
		return strings.Compare(a, b)
	})
	return names
}

func (b beginnings) collect(c CmdLine) (what string, faults []error, err error) {
	if Stored(b.data) {
		return "", nil, nil
	}
	var parts []string
	answers, faults := first.FromWords(c.Get, b.nics)
	if text := answers.Text(); text != "" {
		if err := b.write("words", []byte(text)); err != nil {
			return "", faults, err
		}
		parts = append(parts, "words of the kernel's command line")
	}
	_, serr := os.Stat(filepath.Join(b.seed, "config"))
	wait := b.wait
	if serr == nil || len(parts) > 0 {
		wait = 0 // it is told already
	}
	dev, kind := b.find()
	for end := time.Now().Add(wait); dev == "" && time.Now().Before(end); dev, kind = b.find() {
		time.Sleep(100 * time.Millisecond) // its driver looks for it in the background
	}
	if dev != "" {
		text, rerr := b.read(dev, kind)
		if rerr == nil {
			rerr = b.write("config", text)
		}
		if rerr != nil {
			err = fmt.Errorf("%s, %s: %w", stickLabel, dev, rerr)
		} else {
			parts = append(parts, fmt.Sprintf("%s on %s", stickFile, dev))
		}
	}
	return strings.Join(parts, ", "), faults, err
}

func (b beginnings) write(name string, text []byte) error {
	if err := os.MkdirAll(b.seed, 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(b.seed, name), text, 0o600)
}

// find returns the device with the label and what is on it.
func (b beginnings) find() (dev, kind string) {
	list, _ := os.ReadDir(b.sys)
	for _, e := range list {
		if n := e.Name(); strings.HasPrefix(n, "ram") || strings.HasPrefix(n, "zram") {
			continue
		}
		dev := filepath.Join(b.dev, e.Name())
		f, err := os.Open(dev)
		if err != nil {
			continue
		}
		kind, label := labelOf(f)
		f.Close()
		if label == stickLabel {
			return dev, kind
		}
	}
	return "", ""
}

// read takes the file from a stick, which is mounted read-only meanwhile, with
// nothing on it that could be run.
func (b beginnings) read(dev, kind string) (text []byte, err error) {
	unmount, err := mountStick(dev, b.mount, kind)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unmount()) }()
	root, err := os.OpenRoot(b.mount) // a link leads nowhere else
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := root.OpenFile(stickFile, os.O_RDONLY|unix.O_NONBLOCK, 0) // a pipe of that name holds nobody up
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, errors.Join(fmt.Errorf("%s is no file", stickFile), err)
	}
	text, err = io.ReadAll(io.LimitReader(f, store.MaxText+1))
	if err == nil && len(text) > store.MaxText {
		return nil, fmt.Errorf("%s has more than %d bytes", stickFile, store.MaxText)
	}
	return text, err
}

// labelOf tells the file system of a disk and its name; empty: neither FAT nor
// ext4, or none can be read.
func labelOf(r io.ReaderAt) (kind, label string) {
	b := make([]byte, 2048)
	if n, err := r.ReadAt(b, 0); n < len(b) && err != nil {
		return "", ""
	}
	if sb := b[1024:]; binary.LittleEndian.Uint16(sb[0x38:]) == 0xef53 {
		return "ext4", strings.TrimRight(string(sb[0x78:0x88]), "\x00")
	}
	if b[510] != 0x55 || b[511] != 0xaa {
		return "", ""
	}
	at := int64(0) // of the root folder, which has the name that Windows gives
	size, cluster, reserved, fats := int64(binary.LittleEndian.Uint16(b[11:])), int64(b[13]), int64(binary.LittleEndian.Uint16(b[14:])), int64(b[16])
	switch {
	case bytes.HasPrefix(b[82:], []byte("FAT32")):
		label = string(b[71:82])
		at = (reserved + fats*int64(binary.LittleEndian.Uint32(b[36:])) + (int64(binary.LittleEndian.Uint32(b[44:]))-2)*cluster) * size
	case bytes.HasPrefix(b[54:], []byte("FAT1")):
		label = string(b[43:54])
		at = (reserved + fats*int64(binary.LittleEndian.Uint16(b[22:]))) * size
	default:
		return "", ""
	}
	entries := make([]byte, 512)
	if at > 0 {
		if n, err := r.ReadAt(entries, at); n == len(entries) || err == nil {
			for e := entries; len(e) >= 32 && e[0] != 0; e = e[32:] {
				if e[11]&0x3f == 0x08 && e[0] != 0xe5 { // a volume label, and not part of a long name
					label = string(e[:11])
				}
			}
		}
	}
	return "vfat", strings.TrimRight(label, " \x00")
}
