package journal

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ballast/services/ipc/status"
)

// maxKernelLines bounds what is read of the kernel's log at a time.
const maxKernelLines = 20000

// Kernel returns the kernel's log, oldest first (Documentation/ABI/testing/dev-kmsg).
func Kernel() ([]status.LogLine, error) {
	fd, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("log: open /dev/kmsg: %w", err)
	}
	defer unix.Close(fd)
	boot := bootTime()
	var out []status.LogLine
	buf := make([]byte, 8192)
	for len(out) < maxKernelLines {
		n, err := unix.Read(fd, buf)
		switch {
		case errors.Is(err, unix.EPIPE), errors.Is(err, unix.EINTR): // lines were overwritten meanwhile
			continue
		case errors.Is(err, unix.EAGAIN):
			return out, nil
		case err != nil:
			return out, fmt.Errorf("log: read /dev/kmsg: %w", err)
		case n == 0:
			return out, nil
		}
		if l, ok := parseKmsg(string(buf[:n]), boot); ok {
			out = append(out, l)
		}
	}
	return out, nil
}

// parseKmsg reads a record "priority,sequence,microseconds,flags;text".
func parseKmsg(s string, boot time.Time) (status.LogLine, bool) {
	head, text, ok := strings.Cut(s, ";")
	f := strings.Split(head, ",")
	if !ok || len(f) < 3 {
		return status.LogLine{}, false
	}
	pri, err := strconv.Atoi(f[0])
	us, uerr := strconv.ParseInt(f[2], 10, 64)
	if err != nil || uerr != nil {
		return status.LogLine{}, false
	}
	text, _, _ = strings.Cut(text, "\n") // what follows are keys of the device
	return status.LogLine{Time: boot.Add(time.Duration(us) * time.Microsecond), Service: "kernel", Priority: pri & 7, Text: clean(text)}, true
}

// bootTime is when the kernel's clock of log lines began.
func bootTime() time.Time {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) != nil {
		return time.Now()
	}
	return time.Now().Add(-time.Duration(ts.Nano()))
}

// ToKernel writes one line into the kernel's log, where it outlives a reset
// with pstore. It never fails loudly: there is nobody to tell.
func ToKernel(priority int, text string) {
	f, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0)
	if err != nil {
		return
	}
	defer f.Close()
	fmt.Fprintf(f, "<%d>ballast: %s\n", priority, clean(text))
}
