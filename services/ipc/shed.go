package ipc

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// shedAfter is how long after Ready a service gives up the pages that only its
// start needed.
const shedAfter = 5 * time.Second

// madvDontneedLocked is MADV_DONTNEED for locked memory too (linux 5.18).
const madvDontneedLocked = 24

// Shed takes the pages of the program file out of this process. The start of a
// Go program touches most of a binary of which one service then uses a fifth,
// and each touch maps 16 pages. They stay in the page cache, which all services
// share, and what is used again comes back by a minor fault. It is for
// processes that run for long; failing changes nothing.
func Shed() error {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("shed: %w", err)
	}
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return fmt.Errorf("shed: %w", err)
	}
	defer f.Close()
	var errs []error
	for _, m := range programMaps(f, exe) {
		_, _, e := unix.Syscall(unix.SYS_MADVISE, m.from, m.to-m.from, madvDontneedLocked)
		if e == unix.EINVAL {
			_, _, e = unix.Syscall(unix.SYS_MADVISE, m.from, m.to-m.from, unix.MADV_DONTNEED)
		}
		if e != 0 {
			errs = append(errs, fmt.Errorf("shed: madvise %x-%x: %w", m.from, m.to, e))
		}
	}
	return errors.Join(errs...)
}

type mapping struct{ from, to uintptr }

// programMaps lists the mappings of the file exe that can be read from it again
// at any time: read-only, and with no page that this process has of its own (a
// relocation, a breakpoint), which would be lost. r is /proc/PID/smaps.
func programMaps(r io.Reader, exe string) []mapping {
	var out []mapping
	var m mapping
	want := false
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := lines.Text()
		words := strings.Fields(line)
		switch {
		case len(words) >= 5 && strings.Contains(words[0], "-") && len(words[1]) == 4:
			n, err := fmt.Sscanf(words[0], "%x-%x", &m.from, &m.to)
			want = err == nil && n == 2 && m.from < m.to && words[1][:2] == "r-" && strings.HasSuffix(line, " "+exe)
		case want && words[0] == "Anonymous:":
			if len(words) > 1 && words[1] == "0" {
				out = append(out, m)
			}
			want = false
		}
	}
	return out
}
