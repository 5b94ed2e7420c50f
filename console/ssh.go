package console

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"ballast/console/cli"
	"ballast/services/ipc/status"

	"github.com/gliderlabs/ssh"
	gossh "golang.org/x/crypto/ssh"
)

// connection is one TCP connection of a client, from accept to close.
type connection struct {
	net.Conn
	from   netip.Prefix
	grace  *time.Timer // closes it when nobody has logged in in time
	closed func()
	once   sync.Once

	mu   sync.Mutex
	user string          // of the last attempt to log in; empty: none was made
	key  gossh.PublicKey // that the user has proved; nil: none yet
	in   bool            // logged in
}

// Close implements net.Conn.
func (c *connection) Close() error {
	c.once.Do(func() {
		c.grace.Stop()
		c.closed()
	})
	return c.Conn.Close()
}

type connectionKey struct{}

// serveSSH serves SSH on l until ctx ends.
func (c *console) serveSSH(ctx context.Context, l net.Listener) error {
	srv := &ssh.Server{
		HostSigners:              []ssh.Signer{c.hostKey},
		Version:                  "Ballast",
		ConnCallback:             c.accept,
		ServerConfigCallback:     c.config,
		ConnectionFailedCallback: c.failed,
		PublicKeyHandler: func(ctx ssh.Context, key ssh.PublicKey) bool {
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.users.allows(ctx.User(), key)
		},
		// Sessions only: no forwarding of ports or agents.
		ChannelHandlers: map[string]ssh.ChannelHandler{"session": c.channel},
		RequestHandlers: map[string]ssh.RequestHandler{"keepalive@openssh.com": func(ssh.Context, *ssh.Server, *gossh.Request) (bool, []byte) { return true, nil }},
	}
	var sessions sync.WaitGroup
	srv.SubsystemHandlers = map[string]ssh.SubsystemHandler{"sftp": func(s ssh.Session) {
		sessions.Add(1)
		defer sessions.Done()
		c.session(ctx, s)
	}}
	srv.Handle(func(s ssh.Session) {
		sessions.Add(1)
		defer sessions.Done()
		c.session(ctx, s)
	})
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	err := srv.Serve(l)
	srv.Close()
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("console: SSH: %w", err)
}

// accept decides on a new connection before any cryptography.
func (c *console) accept(ctx ssh.Context, nc net.Conn) net.Conn {
	if ok, tell := c.limit.allow(nc.RemoteAddr()); !ok {
		if tell {
			c.env.Log.Warn(fmt.Sprintf("ssh: too many failed logins from %s: its connections are dropped for a while", source(nc.RemoteAddr())))
		}
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	from, total := source(nc.RemoteAddr()), 0
	for _, n := range c.loggingIn {
		total += n
	}
	if len(c.connections) >= maxConnections || total >= maxLoggingIn || c.loggingIn[from] >= maxLoggingFrom {
		return nil
	}
	if c.conf.Generation == 0 {
		return nil // no user is known yet: a refusal would count against who is only early
	}
	c.loggingIn[from]++
	conn := &connection{Conn: nc, from: from}
	c.connections[conn] = true
	conn.grace = time.AfterFunc(loginGrace, func() { nc.Close() })
	conn.closed = func() {
		conn.mu.Lock()
		in := conn.in
		conn.in = true
		conn.mu.Unlock()
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.connections, conn)
		if !in {
			c.leave(from)
		}
	}
	ctx.SetValue(connectionKey{}, conn)
	return conn
}

// leave counts a connection that is no longer logging in. Called with mu held.
func (c *console) leave(from netip.Prefix) {
	if c.loggingIn[from]--; c.loggingIn[from] == 0 {
		delete(c.loggingIn, from)
	}
}

// config offers modern algorithms only, and follows each attempt to log in.
func (c *console) config(ctx ssh.Context) *gossh.ServerConfig {
	conn, _ := ctx.Value(connectionKey{}).(*connection)
	cfg := &gossh.ServerConfig{
		MaxAuthTries: maxAuthTries,
		PublicKeyAuthAlgorithms: []string{gossh.KeyAlgoED25519, gossh.KeyAlgoSKED25519, gossh.KeyAlgoSKECDSA256,
			gossh.KeyAlgoECDSA256, gossh.KeyAlgoECDSA384, gossh.KeyAlgoECDSA521, gossh.KeyAlgoRSASHA256, gossh.KeyAlgoRSASHA512},
		AuthLogCallback: func(meta gossh.ConnMetadata, method string, err error) {
			if conn == nil {
				return
			}
			conn.mu.Lock()
			first := err == nil && !conn.in
			if method != "none" {
				conn.user = meta.User()
			}
			conn.in = conn.in || err == nil
			conn.mu.Unlock()
			if first {
				conn.grace.Stop()
				c.mu.Lock()
				c.leave(conn.from)
				c.mu.Unlock()
			}
		},
	}
	// Clients offer keys that they cannot prove: which one counts is told here
	// and nowhere else.
	cfg.VerifiedPublicKeyCallback = func(_ gossh.ConnMetadata, key gossh.PublicKey, p *gossh.Permissions, _ string) (*gossh.Permissions, error) {
		if conn != nil {
			conn.mu.Lock()
			conn.key = key
			conn.mu.Unlock()
		}
		return p, nil
	}
	cfg.KeyExchanges = []string{gossh.KeyExchangeMLKEM768X25519, gossh.KeyExchangeCurve25519}
	cfg.Ciphers = []string{gossh.CipherChaCha20Poly1305, gossh.CipherAES256GCM, gossh.CipherAES128GCM}
	cfg.MACs = []string{gossh.HMACSHA256ETM, gossh.HMACSHA512ETM} // of no use with the ciphers above, but the list must not be empty
	return cfg
}

// failed counts a connection that did not log in.
func (c *console) failed(nc net.Conn, err error) {
	var auth *gossh.ServerAuthError
	if !errors.As(err, &auth) {
		c.limit.fail(nc.RemoteAddr(), 0.2) // a look whether the port is open, most likely
		return
	}
	c.limit.fail(nc.RemoteAddr(), 1)
	c.env.Log.Warn(fmt.Sprintf("ssh: login from %s refused: no key of the configuration fits", addressOf(nc.RemoteAddr())))
}

func addressOf(a net.Addr) string {
	host, _, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	return host
}

type keepaliveKey struct{}

// channel starts one session channel; the first of a connection starts its
// keepalive too.
func (c *console) channel(srv *ssh.Server, conn *gossh.ServerConn, ch gossh.NewChannel, ctx ssh.Context) {
	ctx.Lock()
	first := ctx.Value(keepaliveKey{}) == nil
	if first {
		ctx.SetValue(keepaliveKey{}, true)
	}
	ctx.Unlock()
	if first {
		go keepalive(ctx, conn)
	}
	ssh.DefaultSessionHandler(srv, conn, ch, ctx)
}

// keepalive closes a connection whose client no longer answers.
func keepalive(ctx context.Context, conn *gossh.ServerConn) {
	dead := time.AfterFunc(keepaliveMisses*keepaliveEvery, func() { conn.Close() })
	defer dead.Stop()
	t := time.NewTicker(keepaliveEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if _, _, err := conn.SendRequest("keepalive@openssh.com", true, nil); err != nil {
			return
		}
		dead.Reset(keepaliveMisses * keepaliveEvery)
	}
}

// session serves one SSH session: interactive, a one-shot, or a script of
// commands on standard input.
func (c *console) session(ctx context.Context, s ssh.Session) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(s.Context(), cancel) // the client is gone
	defer stop()
	address := addressOf(s.RemoteAddr())
	conn, _ := s.Context().Value(connectionKey{}).(*connection)
	var key gossh.PublicKey
	if conn != nil {
		conn.mu.Lock()
		key = conn.key
		conn.mu.Unlock()
	}
	if key == nil { // no way leads here: there is no other way in than a key
		s.Exit(cli.Failed)
		return
	}
	t := &terminal{console: c, user: s.User(), address: address, key: gossh.FingerprintSHA256(key), out: s, err: s.Stderr()}
	pty, windows, interactive := s.Pty()
	kind := "terminal"
	switch {
	case s.Subsystem() == "sftp":
		kind = "sftp"
	case s.RawCommand() != "":
		kind = "command"
	case !interactive:
		kind = "script"
	}
	over := make(chan struct{})
	defer close(over)
	end, touch, err := c.begin(s.User(), address, kind, key, func(why string) {
		go func() { // its client may take in nothing more
			fmt.Fprintf(s.Stderr(), "\r\n%s\r\n", why)
			t.interrupt()
			s.Exit(cli.Failed)
			cancel()
		}()
		time.AfterFunc(shutTime, func() {
			select {
			case <-over:
			default:
				conn.Close()
			}
		})
	})
	if err != nil {
		fmt.Fprintln(s.Stderr(), err)
		s.Exit(cli.Failed)
		return
	}
	defer end()
	t.touch = touch
	signals := make(chan ssh.Signal, 16)
	s.Signals(signals)
	defer s.Signals(nil)
	if local, err := netip.ParseAddrPort(s.LocalAddr().String()); err == nil {
		t.local = local.Addr().Unmap()
		t.server = netip.AddrPortFrom(t.local, local.Port())
	}
	if client, err := netip.ParseAddrPort(s.RemoteAddr().String()); err == nil {
		t.client = netip.AddrPortFrom(client.Addr().Unmap(), client.Port())
	}
	go func() {
		for {
			select {
			case sig := <-signals:
				if sig == ssh.SIGINT || sig == ssh.SIGTERM {
					t.interrupt()
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	if kind == "sftp" {
		s.Exit(c.sftp(ctx, t, s))
		return
	}
	if !interactive {
		s.Exit(c.plain(ctx, t, s))
		return
	}
	t.err = s // a terminal has one screen
	t.getenv = func(name string) string {
		for _, v := range s.Environ() {
			if value, ok := strings.CutPrefix(v, name+"="); ok {
				return value
			}
		}
		return ""
	}
	t.start(ctx, s, newDisplay(pty.Term, pty.Window.Width, pty.Window.Height), false)
	defer t.idle.Stop()
	go func() {
		for w := range windows { // closed with the session's requests
			t.resize(w.Width, w.Height)
		}
	}()
	if line := s.RawCommand(); line != "" {
		t.begin(cancel)
		s.Exit(t.oneShot(ctx, line))
		return
	}
	who := status.ConsoleSession{User: t.user, Address: t.address, Key: t.key}
	c.note(who, "login", "ok")
	s.Exit(t.loop(ctx))
	c.note(who, "logout", "ok")
}

// plain serves a session without a terminal.
func (c *console) plain(ctx context.Context, t *terminal, s ssh.Session) int {
	// A client that is waited for, and sends nothing for too long, is cut off.
	idle := time.AfterFunc(time.Hour, func() { s.Close() })
	idle.Stop()
	defer idle.Stop()
	in := bufio.NewReaderSize(readerFunc(func(p []byte) (int, error) {
		idle.Reset(c.idleTime())
		n, err := s.Read(p)
		idle.Stop() // a command that works may take its time
		return n, err
	}), 64<<10)
	if line := s.RawCommand(); strings.HasPrefix(line, "scp ") {
		x := &transfer{ctx: ctx, t: t, err: s.Stderr()}
		return x.scp(in, s, line)
	} else if line != "" {
		t.in = in
		t.data = func(context.Context, string) (string, error) {
			b, err := io.ReadAll(io.LimitReader(in, maxInput+1))
			if err == nil && len(b) > maxInput {
				err = fmt.Errorf("more than %d bytes were sent", maxInput)
			}
			return string(b), err
		}
		return t.oneShot(ctx, line)
	}
	t.data = func(context.Context, string) (string, error) { return readUntilDot(in) }
	return t.script(ctx, in)
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// readUntilDot reads lines until one that holds only ".", or the end.
func readUntilDot(in *bufio.Reader) (string, error) {
	var b strings.Builder
	begins := true // what is read next begins a line
	for {
		part, err := in.ReadSlice('\n') // of a line that may have no end, no more than the buffer
		if begins && strings.TrimRight(string(part), "\r\n") == "." && !errors.Is(err, bufio.ErrBufferFull) {
			return b.String(), nil
		}
		b.Write(part)
		begins = err == nil
		switch {
		case b.Len() > maxInput:
			return "", fmt.Errorf("more than %d bytes were sent", maxInput)
		case errors.Is(err, io.EOF):
			return b.String(), nil
		case err != nil && !errors.Is(err, bufio.ErrBufferFull):
			return "", err
		}
	}
}
