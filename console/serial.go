package console

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"ballast/console/cli"
	"ballast/services/ipc/status"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// Who works at a serial line, and at the screen and keyboard of the box.
const (
	serialUser = "serial"
	screenUser = "screen"
)

// local serves one serial line, or the screen, until ctx ends. Whoever is at it
// stands at the box: there is no login, and every command is allowed.
func (c *console) local(ctx context.Context, name string, f *os.File) {
	tty, width, height, err := openTTY(f)
	if err != nil {
		c.env.Log.Error(fmt.Sprintf("%s: %v", name, err))
		return
	}
	stop := context.AfterFunc(ctx, func() { tty.Close() })
	defer stop()
	out := &newlines{w: tty}
	t := &terminal{console: c, user: serialUser, address: name, fixed: cli.Admin, out: out, err: out}
	shown := newDisplay("", width, 0)
	if strings.HasPrefix(name, screenUser) {
		// The kernel's own terminal, of which everything is known.
		t.user, shown = screenUser, newDisplay("linux", width, height)
	}
	// One reader for all sessions of the line: one that outlived its session
	// would eat the next one's first key.
	t.start(ctx, tty, shown, true)
	defer t.idle.Stop()
	for c.awaitEnter(ctx, t) {
		sctx, cancel := context.WithCancel(ctx)
		end, touch, err := c.begin(t.user, t.address, t.user, nil, func(why string) {
			go func() {
				fmt.Fprintf(t.out, "\n%s\n", why)
				t.interrupt()
				cancel()
			}()
		})
		if err != nil {
			cancel()
			continue
		}
		t.touch = touch
		who := status.ConsoleSession{User: t.user, Address: t.address}
		c.note(who, "login", "ok")
		if c.blank() {
			c.firstBoot(sctx, t)
		}
		t.loop(sctx)
		c.note(who, "logout", "ok")
		cancel()
		end()
	}
}

// bannerPause is the least time between two banners while addresses change.
const bannerPause = 3 * time.Second

// awaitEnter shows the banner, again when what it says changes, until Enter is
// pressed. False: ctx ended.
func (c *console) awaitEnter(ctx context.Context, t *terminal) bool {
	shown := ""
	for {
		text, changed := c.banner()
		if text != shown {
			io.WriteString(t.out, text)
			shown = text
		}
		pause := time.After(bannerPause)
	wait:
		for {
			select {
			case b, ok := <-t.keys:
				if !ok {
					return false
				}
				if b == '\r' || b == '\n' {
					io.WriteString(t.out, "\n")
					return true
				}
			case <-pause:
				pause = nil
				if changed == nil {
					break wait
				}
			case <-changed:
				changed = nil
				if pause == nil {
					break wait
				}
			case <-ctx.Done():
				return false
			}
		}
	}
}

// banner says which box this is and how to reach it.
func (c *console) banner() (text string, changed <-chan struct{}) {
	host, warning := c.hostName(), c.warning()+c.firmwareWarning()
	c.mu.Lock()
	defer c.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "\n\nBallast director %s\n", host)
	for _, a := range c.addresses {
		b.WriteString("  " + a + "\n")
	}
	if len(c.addresses) == 0 {
		b.WriteString("  no address yet\n")
	}
	fmt.Fprintf(&b, "  SSH host key %s\n%sPress Enter for the command line.\n", c.hostKey.fingerprint(), warning)
	return b.String(), c.changed
}

// openTTY takes over a serial line or screen so that a read of it can be given
// up, in raw mode where it is a terminal.
func openTTY(f *os.File) (tty *os.File, width, height int, err error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, 0, 0, fmt.Errorf("duplicate: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, 0, 0, fmt.Errorf("set non-blocking: %w", err)
	}
	if _, err := term.MakeRaw(fd); err != nil && err != unix.ENOTTY {
		unix.Close(fd)
		return nil, 0, 0, fmt.Errorf("set raw mode: %w", err)
	}
	width, height, err = term.GetSize(fd)
	if err != nil {
		width, height = 0, 0 // a serial line does not know
	}
	return os.NewFile(uintptr(fd), f.Name()), width, height, nil
}

// newlines writes "\r\n" for "\n", which a raw line does not do by itself.
type newlines struct {
	w    io.Writer
	mu   sync.Mutex
	last byte
}

// Write implements io.Writer.
func (n *newlines) Write(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := make([]byte, 0, len(p)+16)
	for _, b := range p {
		if b == '\n' && n.last != '\r' {
			out = append(out, '\r')
		}
		out = append(out, b)
		n.last = b
	}
	if _, err := n.w.Write(out); err != nil {
		return 0, err
	}
	return len(p), nil
}
