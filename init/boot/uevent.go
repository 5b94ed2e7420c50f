package boot

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Uevent is one message of the kernel about a device.
type Uevent struct {
	Action    string // "add", "remove", …
	Path      string // below /sys
	Subsystem string
	Modalias  string
}

// Uevents tells fn of devices that come and go, until ctx ends. The socket is
// open when it returns.
func Uevents(ctx context.Context, fn func(Uevent)) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return fmt.Errorf("uevents: %w", err)
	}
	// Group 1 are the kernel's own messages.
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		unix.Close(fd)
		return fmt.Errorf("uevents: %w", err)
	}
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 1<<20)
	f := os.NewFile(uintptr(fd), "uevents")
	context.AfterFunc(ctx, func() { f.Close() })
	go func() {
		b := make([]byte, 64<<10)
		for ctx.Err() == nil {
			n, err := f.Read(b)
			if err != nil { // ENOBUFS: some were lost; the next ones are not
				select {
				case <-ctx.Done():
					return
				case <-time.After(100 * time.Millisecond):
				}
				continue
			}
			if u, ok := parseUevent(b[:n]); ok {
				fn(u)
			}
		}
	}()
	return nil
}

// parseUevent reads "ACTION@PATH\0KEY=VALUE\0…".
func parseUevent(b []byte) (Uevent, bool) {
	words := strings.Split(strings.TrimRight(string(b), "\x00"), "\x00")
	action, path, ok := strings.Cut(words[0], "@")
	if !ok {
		return Uevent{}, false
	}
	u := Uevent{Action: action, Path: path}
	for _, w := range words[1:] {
		switch k, v, _ := strings.Cut(w, "="); k {
		case "SUBSYSTEM":
			u.Subsystem = v
		case "MODALIAS":
			u.Modalias = v
		}
	}
	return u, true
}
