// Package console is how people and their scripts reach a director: an SSH
// server (public keys only) and the serial line, both with the command line of
// console/cli behind them.
package console

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"ballast/configs/model"
	"ballast/configs/printable"
	"ballast/console/cli"
	"ballast/services/ipc"
	"ballast/services/ipc/follow"
	"ballast/services/ipc/status"
)

// Bounds of the console.
const (
	idleTimeout     = 30 * time.Minute // without a key or a byte
	maxSessions     = 32               // over SSH; the serial line is always free
	maxConnections  = 64
	maxLoggingIn    = 16 // connections that have not authenticated yet
	maxLoggingFrom  = 4  // of them from one address
	loginGrace      = 20 * time.Second
	maxAuthTries    = 6
	maxInput        = 32 << 20 // bytes of a configuration or file that is sent
	keepaliveEvery  = 30 * time.Second
	keepaliveMisses = 3
)

// Run is the service. The SSH listener is env.Files["ssh"]; every file whose
// name begins with "serial" is a serial line, "screen" is the box's own.
func Run(ctx context.Context, env *ipc.Env) error { return run(ctx, env, idleTimeout) }

func run(ctx context.Context, env *ipc.Env, idle time.Duration) error {
	key, err := hostKey(env.Data, env.Log)
	if err != nil {
		return fmt.Errorf("console: host key: %w", err)
	}
	c := &console{
		env: env, hostKey: key, server: ipc.NewServer("console"),
		limit: newLimiter(), loggingIn: map[netip.Prefix]int{}, changed: make(chan struct{}), open: map[uint64]*session{}, connections: map[*connection]bool{},
		idle: idle, idleDefault: idle, auditor: newAuditor(),
		firmwareAsked: make(chan struct{}, 1), firmwareKnown: make(chan struct{}),
	}
	for role := range c.services {
		c.services[role] = cli.NewIPC(env.Dir, cli.Role(role))
	}
	c.histories = newHistories(env.Data, func(text string) { env.Log.Warn(text) })
	c.server.Handle("kick", c.verbKick, ipc.GroupAdmin)
	c.publish()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	// In the name of one who may look: what a user did is told for every user.
	wg.Go(func() { c.auditor.run(ctx, env.Dir.ClientAs("notify", ipc.View)) })
	wg.Go(func() {
		follow.New(env.Dir.Client("conf"), follow.Head).Run(ctx, func(u follow.Update) { c.configured(u.Conf) })
	})
	wg.Go(func() { c.watchFirmware(ctx) })
	wg.Go(func() { ipc.Watch(ctx, env.Dir.Client("net"), func(_ uint64, s status.Net) { c.networked(s) }) })
	for name, f := range env.Files {
		if strings.HasPrefix(name, serialUser) || strings.HasPrefix(name, screenUser) {
			wg.Go(func() { c.local(ctx, name, f) })
		}
	}
	failed := make(chan error, 2)
	if f := env.Files["ssh"]; f != nil {
		l, err := net.FileListener(f)
		if err != nil {
			return fmt.Errorf("console: the SSH listener that init handed over: %w", err)
		}
		f.Close() // l has its own descriptor
		wg.Go(func() { failed <- c.serveSSH(ctx, l) })
	} else {
		env.Log.Warn("no SSH listener: only the serial line is served")
	}
	wg.Go(func() { failed <- c.server.Serve(ctx, env.Listener) })
	env.Ready()
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return err
	}
}

type console struct {
	env      *ipc.Env
	services [cli.Admin + 1]*cli.IPC // by role
	hostKey  hostSigner
	server   *ipc.Server
	limit    *limiter
	editors  cli.Editors // sessions that hold a candidate
	auditor  *auditor

	histories *histories
	uploads   uploads
	inFlight  atomic.Int64 // bytes of uploads that are under way
	reading   atomic.Int64 // bytes of files that are open

	firmwareAsked chan struct{} // has a token when somebody comes

	mu            sync.Mutex
	firmware      string        // what everybody should know of it; a line, or empty
	firmwareKnown chan struct{} // closed when that was asked again
	changed       chan struct{} // closed when what the serial banner shows changes
	host          string
	users         users
	conf          status.Conf   // without its Config
	addresses     []string      // "eth0  10.0.0.11/24 (dhcp)"
	idle          time.Duration // that ends a session in which nobody types
	idleDefault   time.Duration // where the configuration does not say
	open          map[uint64]*session
	lastID        uint64
	loggingIn     map[netip.Prefix]int // connections that have not authenticated yet
	// connections are those that the SSH server holds.
	connections map[*connection]bool
}

// configured takes over users and host name from the running configuration.
func (c *console) configured(s status.Conf) {
	u, problems := readUsers(s.Config.System.Logins)
	c.mu.Lock()
	news := c.conf.Generation != s.Generation
	c.users, c.host = u, s.Config.System.HostName
	if c.idle = c.idleDefault; s.Config.System.IdleTimeout > 0 {
		c.idle = s.Config.System.IdleTimeout
	}
	s.Config = model.Config{} // not needed here any longer
	c.conf = s
	c.bump()
	gone := c.revokedLocked()
	c.publishLocked() // roles may have changed
	c.mu.Unlock()
	gone()
	if news {
		for _, p := range problems {
			c.env.Log.Warn(p)
		}
		if s.Generation > 0 && s.Source != "factory" { // else it is only not known who there is
			c.histories.prune(func(name string) bool { return name == serialUser || name == screenUser || c.role(name) != cli.None })
		}
	}
}

// networked takes over the addresses for the serial banner.
func (c *console) networked(s status.Net) {
	var lines []string
	for _, l := range s.Links {
		for _, a := range l.Addresses {
			if l.Kind == "loopback" || a.Prefix.Addr().IsLinkLocalUnicast() || a.Prefix.Addr().IsLoopback() {
				continue
			}
			lines = append(lines, fmt.Sprintf("%-8s %s (%s)", l.Name, a.Prefix, a.Origin))
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.Equal(lines, c.addresses) {
		c.addresses = lines
		c.bump()
	}
}

// bump wakes who waits for a change. Called with mu held.
func (c *console) bump() {
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *console) hostName() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.host == "" {
		return "ballast"
	}
	return c.host
}

// role is what the running configuration lets a user do now.
func (c *console) role(user string) cli.Role {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.users[user].role
}

// warning is what everyone who comes to the box should know first.
func (c *console) warning() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.conf
	errors := 0
	for _, p := range s.Problems {
		if p.Severity == "error" {
			errors++
		}
	}
	switch {
	case s.Generation == 0:
		return "! the configuration service does not answer yet\n"
	case s.Source == "factory" && errors == 0:
		return "! no configuration yet: a few questions at the serial line or the screen make one\n"
	case s.Source == "factory":
		return "! the configuration cannot be loaded, the factory default runs: see show version\n"
	case s.Source == "last good":
		return "! the configuration could not be loaded at boot, the last good one runs: see show version\n"
	case s.Source == "older firmware":
		return "! this firmware is older than the configuration, the newest one that it can read runs: see show version\n"
	case s.Reverted != "":
		return "! rolled back: " + printable.Line(s.Reverted) + "\n"
	case errors > 0:
		return "! the configuration had errors at boot: see show version\n"
	case s.Pair != "":
		return "! " + printable.Line(s.Pair) + "\n"
	}
	return ""
}

// boxAlarms is what init says that everyone who comes to the box should know: a
// crash that nobody has read of, data that was lost.
func (c *console) boxAlarms(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	var in status.InitNews
	if c.env.Dir.Client("init").Summary(ctx, &in) != nil {
		return "" // "show processes" tells
	}
	var b strings.Builder
	for _, a := range in.Alarms {
		b.WriteString("! " + printable.Line(a) + "\n")
	}
	return b.String()
}
