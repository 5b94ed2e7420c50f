package netboot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"ballast/configs/printable"
	"ballast/image/layout"
	"ballast/services/ipc/status"
	"ballast/services/netboot/seed"
	"ballast/services/netboot/tftp"
)

// Bounds of HTTP.
const (
	maxConns  = 8
	transfers = 15 * time.Minute // a bundle over a slow line
)

// http answers on one interface until the segment is closed.
func (g *segment) http(l net.Listener) error {
	srv := &http.Server{
		Handler: g, ReadHeaderTimeout: 10 * time.Second, WriteTimeout: transfers, IdleTimeout: 30 * time.Second, MaxHeaderBytes: 8 << 10,
		BaseContext: func(net.Listener) context.Context { return g.ctx },
		ErrorLog:    log.New(io.Discard, "", 0), // what strangers do wrong
	}
	stop := context.AfterFunc(g.ctx, func() { srv.Close() })
	defer stop()
	err := srv.Serve(&guarded{Listener: l, g: g, slots: make(chan struct{}, maxConns)})
	if g.ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("HTTP: %w", err)
}

// guarded accepts connections of boxes that are served, before a byte of them
// is read.
type guarded struct {
	net.Listener
	g     *segment
	slots chan struct{}
}

func (l *guarded) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		a, ok := c.RemoteAddr().(*net.TCPAddr)
		if !ok || l.g.who(a.AddrPort().Addr()) == nil {
			c.Close()
			continue
		}
		select {
		case l.slots <- struct{}{}:
			return &slotConn{Conn: c, free: sync.OnceFunc(func() { <-l.slots })}, nil
		default:
			c.Close()
		}
	}
}

type slotConn struct {
	net.Conn
	free func()
}

// Close is called more than once.
func (c *slotConn) Close() error {
	c.free()
	return c.Conn.Close()
}

// ServeHTTP answers GET /WORD/FILE.
func (g *segment) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		http.Error(w, "who asks is not known", http.StatusForbidden)
		return
	}
	b := g.who(from.Addr())
	if b == nil {
		http.Error(w, "this box is not served", http.StatusForbidden)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		http.Error(w, "want GET or HEAD", http.StatusMethodNotAllowed)
		return
	}
	word, name, ok := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if !ok {
		http.NotFound(w, r)
		return
	}
	if name == layout.NetSeed {
		g.seed(w, r, b, word)
		return
	}
	f, err := g.s.file(b, g, name)
	if errors.Is(err, os.ErrNotExist) {
		http.NotFound(w, r)
		return
	}
	if err != nil {
		g.s.progress(b, status.NetbootTransfer{File: printable.Line(name), By: "HTTP"}, true, err)
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	if c, ok := f.(io.Closer); ok {
		defer c.Close()
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	if name == layout.NetFirmware {
		w.Header().Set("Content-Type", "application/efi") // by which UEFI knows what to do with it
	}
	t := &counted{File: f, report: func(sent int64, done bool, err error) {
		g.s.progress(b, status.NetbootTransfer{File: printable.Line(name), By: "HTTP", Sent: sent, Size: f.Size()}, done, err)
	}}
	http.ServeContent(w, r, "", time.Time{}, io.NewSectionReader(t, 0, f.Size()))
	if r.Method == http.MethodGet {
		t.end()
	}
}

// counted tells how a file goes.
type counted struct {
	tftp.File
	report func(sent int64, done bool, err error)
	far    int64
	said   time.Time
}

func (c *counted) ReadAt(p []byte, at int64) (int, error) {
	n, err := c.File.ReadAt(p, at)
	c.far = max(c.far, at+int64(n))
	if now := time.Now(); now.Sub(c.said) >= time.Second {
		c.said = now
		c.report(c.far, false, nil)
	}
	return n, err
}

func (c *counted) end() {
	if c.far < c.File.Size() {
		c.report(c.far, true, errors.New("it broke off"))
		return
	}
	c.report(c.far, true, nil)
}

// seed gives a box its configuration, once for each word.
func (g *segment) seed(w http.ResponseWriter, r *http.Request, b *box, word string) {
	s := g.s
	s.mu.Lock()
	fresh := b.word != "" && word == b.word && time.Since(b.wordAt) <= wordAge
	name, keys := b.Name, b.keys
	if !fresh && b.event("asks for its configuration with a word that counts no more: refused") {
		s.env.Log.Warn(fmt.Sprintf("%s (%s) asks for its configuration with a word that counts no more: refused", b.Name, b.MAC))
	}
	s.mu.Unlock()
	if !fresh {
		http.Error(w, "this word counts no more: ask by DHCP again", http.StatusGone)
		return
	}
	fail := func(err error) {
		s.progress(b, status.NetbootTransfer{File: layout.NetSeed, By: "HTTP"}, true, err)
		http.Error(w, "there is no configuration to give: see \"show netboot\" of the server", http.StatusServiceUnavailable)
	}
	var c status.NetbootContent
	if err := s.conf.Call(r.Context(), "netboot-seed", status.NetbootQuery{Name: name, Whole: true}, &c); err != nil {
		fail(err)
		return
	}
	out := seed.Seed{Name: name, Server: c.Server, Generation: c.Generation, Config: c.Text, Keys: keys}
	for _, f := range c.Files {
		out.Files = append(out.Files, seed.File{Path: f.Path, Data: f.Content})
	}
	body, err := out.Encode()
	if err != nil {
		fail(err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	w.Header().Set("Cache-Control", "no-store")
	if r.Method == http.MethodHead {
		return
	}
	if _, err := w.Write(body); err != nil {
		s.progress(b, status.NetbootTransfer{File: layout.NetSeed, By: "HTTP", Size: int64(len(body))}, true, err)
		return // it may ask again
	}
	s.mu.Lock()
	if b.word == word {
		b.word = ""
	}
	b.given, b.givenAt = c.Generation, time.Now()
	b.event("has its configuration: generation %d", c.Generation)
	s.mu.Unlock()
	s.env.Log.Info(fmt.Sprintf("%s (%s): has its configuration, generation %d", b.Name, b.MAC, c.Generation))
	s.publish()
}

// script is what iPXE does.
func (g *segment) script(b *box, args string) string {
	g.s.mu.Lock()
	base := g.base(b)
	g.s.mu.Unlock()
	// The network card goes the way of pxelinux: type, then address.
	args = layout.IPXEWord + " " + strings.TrimSpace(args) + " " + layout.WordSource + "=" + base + " BOOTIF=01-${netX/mac:hexhyp}"
	return fmt.Sprintf(`#!ipxe
iseq ${platform} efi && goto efi ||
kernel %[1]s%[2]s %[5]s initrd=%[3]s || goto failed
initrd %[1]s%[3]s || goto failed
boot || goto failed
:efi
kernel %[1]s%[4]s %[5]s || goto failed
boot || goto failed
:failed
echo Ballast could not be loaded, trying again in 10 s
sleep 10
reboot
`, base, layout.NetKernel, layout.NetInitramfs, layout.NetFirmware, args)
}
