// Package netseed is what a box that was loaded over the network does before
// its services run: it asks by DHCP for an address and for who serves it, fetches
// its configuration and its identity, and lays them out as files. PID 1 runs it
// as a process of its own, with a user of its own and no more than it takes to
// set up an interface: what it reads is written by strangers.
package netseed

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ballast/image/layout"
	"ballast/services/netboot/seed"
)

// Environment of the process.
const (
	EnvSource = "BALLAST_SOURCE" // URL of the server's folder, from the kernel's command line; empty: DHCP tells
	EnvBootIF = "BALLAST_BOOTIF" // the card that it was loaded by, as pxelinux and iPXE write it; empty: any
	EnvOut    = "BALLAST_OUT"    // folder to be made

	envSys = "BALLAST_SYS" // of a test: another /sys/class/net
)

// Bounds.
const (
	carrierWait = 15 * time.Second // a switch that looks for loops may need twice that; then it is tried again
	fetchTime   = 2 * time.Minute
	pause       = 2 * time.Second
)

// ErrNone is returned when the server has no configuration for this box.
var ErrNone = errors.New("the server has no configuration for this box")

// options are where Run works.
type options struct {
	source string
	bootIF string
	out    string
	sys    string // network interfaces
	say    func(format string, a ...any)
}

// Main is the process: it says what it does to standard error, one line each,
// and returns the exit status.
func Main() int {
	o := options{source: os.Getenv(EnvSource), bootIF: os.Getenv(EnvBootIF), out: os.Getenv(EnvOut), sys: cmp.Or(os.Getenv(envSys), "/sys/class/net"),
		say: func(format string, a ...any) { fmt.Fprintf(os.Stderr, format+"\n", a...) }}
	if o.out == "" {
		fmt.Fprintln(os.Stderr, "<3>"+EnvOut+" is not set: PID 1 starts this")
		return 2
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "<3>"+err.Error())
		if errors.Is(err, ErrNone) {
			return StatusNone
		}
		return 1
	}
	return 0
}

// StatusNone is Main's exit status for ErrNone.
const StatusNone = 3

// run tries until it has a seed, or is told that there is none, or is killed.
func run(ctx context.Context, o options) error {
	said := ""
	// What the command line says is good for the first time; later the server
	// that knows the box may have another word for it.
	for quick := o.source != ""; ; quick = false {
		err := once(ctx, o, quick)
		if err == nil || errors.Is(err, ErrNone) || ctx.Err() != nil {
			return err
		}
		if text := err.Error(); text != said {
			said = text
			o.say("<4>not yet: %v", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// once tries all cards at the same time; the first one that brings a seed counts.
func once(ctx context.Context, o options, quick bool) error {
	names, err := cards(o.sys, o.bootIF)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		name   string
		s      seed.Seed
		source string
		err    error
	}
	results := make(chan result)
	for _, name := range names {
		go func() {
			s, source, err := by(ctx, name, o, quick)
			results <- result{name, s, source, err}
		}()
	}
	var errs []error
	var got *result
	for range names {
		r := <-results
		if r.err == nil && got == nil {
			got = &r
			cancel()
		} else if r.err != nil && got == nil {
			errs = append(errs, fmt.Errorf("%s: %w", r.name, r.err))
		}
	}
	if got == nil {
		return errors.Join(errs...)
	}
	if err := got.s.Lay(o.out, got.source); err != nil {
		return err
	}
	o.say("<5>%s: configuration of %s, generation %d of %s", got.name, got.s.Name, got.s.Generation, got.s.Server)
	return nil
}

// cards are the interfaces to try: the one that the box was loaded by, if it is
// told and there, or all that have a device.
func cards(sys, bootIF string) ([]string, error) {
	paths, _ := filepath.Glob(filepath.Join(sys, "*", "device")) // the pattern is well-formed
	var names []string
	want, named := strings.CutPrefix(strings.ToLower(bootIF), "01-")
	want = strings.ReplaceAll(want, "-", ":")
	for _, p := range paths {
		dir := filepath.Dir(p)
		mac, err := os.ReadFile(filepath.Join(dir, "address"))
		if named && err == nil && strings.TrimSpace(string(mac)) == want {
			return []string{filepath.Base(dir)}, nil
		}
		names = append(names, filepath.Base(dir))
	}
	if len(names) == 0 {
		return nil, errors.New("there is no network card: see which driver it needs")
	}
	slices.Sort(names)
	return names, nil
}

// by fetches a seed by one card. What it sets up for that it takes away again:
// from then on the card belongs to the configuration.
func by(ctx context.Context, name string, o options, quick bool) (s seed.Seed, source string, err error) {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return s, "", err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return s, "", fmt.Errorf("set it up: %w", err)
	}
	if err := carrier(ctx, filepath.Join(o.sys, name, "carrier")); err != nil {
		return s, "", err
	}
	l, err := lease(ctx, name, link.Attrs().HardwareAddr, quick)
	if err != nil {
		return s, "", err
	}
	source = l.source
	if source == "" {
		source = o.source
	}
	if source == "" {
		return s, "", errors.New("no server says that it serves this box: \"show netboot\" there")
	}
	o.say("<6>%s: %s by DHCP", name, l.addr)
	release, err := l.setUp(link)
	defer release()
	if err != nil {
		return s, "", err
	}
	s, err = fetch(ctx, name, source)
	return s, source, err
}

// carrier waits until the link is there.
func carrier(ctx context.Context, file string) error {
	for end := time.Now().Add(carrierWait); ; {
		b, err := os.ReadFile(file)
		if err == nil && strings.TrimSpace(string(b)) == "1" {
			return nil
		}
		if time.Now().After(end) {
			return errors.New("no cable, or nothing at its other end")
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// setUp gives the interface its address. release is never nil.
func (l leased) setUp(link netlink.Link) (release func(), err error) {
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: l.addr.Addr().AsSlice(), Mask: net.CIDRMask(l.addr.Bits(), 32)}}
	if err := netlink.AddrAdd(link, addr); err != nil && !errors.Is(err, unix.EEXIST) {
		return func() {}, fmt.Errorf("address %s: %w", l.addr, err)
	}
	release = func() { netlink.AddrDel(link, addr) } // and the routes by it go too
	if l.router.IsValid() {
		err := netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: l.router.AsSlice()})
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return release, fmt.Errorf("route by %s: %w", l.router, err)
		}
	}
	return release, nil
}

// fetch gets the seed from a server's folder.
func fetch(ctx context.Context, dev, source string) (seed.Seed, error) {
	u, err := url.Parse(source)
	if err != nil || u.Scheme != "http" || u.User != nil {
		return seed.Seed{}, errors.New("the server's folder is no URL that begins with http://")
	}
	if _, err := netip.ParseAddr(u.Hostname()); err != nil {
		return seed.Seed{}, errors.New("the server's folder has a name in its URL: write its address")
	}
	if !strings.HasSuffix(u.Path, "/") {
		u.Path += "/"
	}
	u.Path += layout.NetSeed
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	d := net.Dialer{Timeout: 5 * time.Second, Control: func(_, _ string, c syscall.RawConn) error {
		var serr error
		if err := c.Control(func(fd uintptr) { serr = unix.SetsockoptString(int(fd), unix.SOL_SOCKET, unix.SO_BINDTODEVICE, dev) }); err != nil {
			return err
		}
		return serr
	}}
	client := &http.Client{
		Transport:     &http.Transport{DialContext: d.DialContext, Proxy: nil, DisableKeepAlives: true, DisableCompression: true, ResponseHeaderTimeout: 30 * time.Second, MaxResponseHeaderBytes: 16 << 10},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return seed.Seed{}, errors.New("the server's folder is no URL")
	}
	resp, err := client.Do(req)
	if err != nil {
		return seed.Seed{}, fmt.Errorf("%s does not answer: %w", u.Host, bare(err))
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		return seed.Seed{}, fmt.Errorf("%s: %w", u.Host, ErrNone)
	default:
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 200))
		return seed.Seed{}, fmt.Errorf("%s answers %d: %.200q", u.Host, resp.StatusCode, strings.TrimSpace(string(text)))
	}
	return seed.Read(resp.Body)
}

// bare is an error without the URL, which has the word of this boot in it.
func bare(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}
