package journal

import (
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"ballast/services/ipc/status"
)

// Console shows lines on all of the kernel's consoles. Lines that come faster
// than a serial line takes them are dropped and counted.
type Console struct {
	queue   chan item
	level   atomic.Int32
	dropped atomic.Int64
	mu      sync.Mutex
	out     []io.Writer
}

type item struct {
	text string
	done chan struct{} // closed when everything before it is written
}

// NewConsole shows the services' lines of priority level and more severe ones on what Open
// finds; until then on out.
func NewConsole(level int, out ...io.Writer) *Console {
	c := &Console{queue: make(chan item, 256), out: out}
	c.level.Store(int32(level))
	go c.run()
	return c
}

// SetLevel changes what is shown: smaller is more severe.
func (c *Console) SetLevel(level int) { c.level.Store(int32(level)) }

// Open finds where somebody may look on, and writes to all of it from now on:
// see Lines. Without any it goes on as before.
func (c *Console) Open(more ...string) {
	var out []io.Writer
	for _, l := range Lines(more) {
		// O_NONBLOCK: neither the open (waiting for a modem's carrier) nor a write
		// (flow control stops the line) may hang.
		fd, err := unix.Open(filepath.Join("/dev", l.console), unix.O_WRONLY|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		out = append(out, &tty{fd: fd})
	}
	if len(out) == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range c.out {
		if t, ok := w.(*tty); ok {
			unix.Close(t.fd)
		}
	}
	c.out = out
}

// tty writes to a terminal without ever waiting longer than a second.
type tty struct{ fd int }

func (t *tty) Write(b []byte) (int, error) {
	n := 0
	for end := time.Now().Add(time.Second); n < len(b) && time.Now().Before(end); {
		m, err := unix.Write(t.fd, b[n:])
		if m > 0 {
			n += m
		}
		if err == unix.EAGAIN {
			unix.Poll([]unix.PollFd{{Fd: int32(t.fd), Events: unix.POLLOUT}}, 100)
			continue
		}
		if err != nil && err != unix.EINTR {
			return n, err
		}
	}
	return n, nil
}

// Show queues a line; it never blocks. Of init's own lines notices are shown
// too: they tell of the boot, the shutdown and services that end.
func (c *Console) Show(l status.LogLine) {
	level := int(c.level.Load())
	if l.Service == "init" {
		level = max(level, Notice)
	}
	if l.Priority > level {
		return
	}
	name := ""
	if l.Service != "init" {
		name = l.Service + ": "
	}
	// "\r\n": a console session may have the line in raw mode.
	c.say(fmt.Sprintf("[%8.3f] %s%s\r\n", Uptime().Seconds(), name, l.Text))
}

func (c *Console) say(s string) {
	select {
	case c.queue <- item{text: s}:
	default:
		c.dropped.Add(1)
	}
}

func (c *Console) run() {
	for i := range c.queue {
		if i.done != nil {
			close(i.done)
			continue
		}
		c.mu.Lock()
		out := c.out
		c.mu.Unlock()
		for _, w := range out {
			io.WriteString(w, i.text)
		}
		if n := c.dropped.Swap(0); n > 0 {
			c.say(fmt.Sprintf("(%d lines were too many for the console: see show log)\r\n", n))
		}
	}
}

// Drain waits until what is queued is written, for at most d.
func (c *Console) Drain(d time.Duration) {
	limit := time.After(d)
	done := make(chan struct{})
	select {
	case c.queue <- item{done: done}:
	case <-limit:
		return
	}
	select {
	case <-done:
	case <-limit:
	}
}

// Uptime is the time since the kernel started.
func Uptime() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}
