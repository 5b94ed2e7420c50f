package ipvsnl

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// ConnTab is where the kernel lists its connections.
const ConnTab = "/proc/thread-self/net/ip_vs_conn"

// Connection is one entry of the connection table. A persistence template has
// client port 0; that of a mark service has protocol "IP" and the mark in the
// low bytes of Virtual.
type Connection struct {
	Protocol              string // "TCP", "UDP", "SCTP", "IP"
	Client, Virtual, Dest netip.AddrPort
	State                 string // "ESTABLISHED", "FIN_WAIT", "NONE", …
	Expires               time.Duration
}

// maxConnLine bounds a line: two IPv6 endpoints and persistence engine data.
const maxConnLine = 4096

// ErrStop ends ReadConnections early without an error.
var ErrStop = errors.New("stop")

// ReadConnections parses r, the text of ConnTab, line by line and hands each
// connection to f, until r or f ends it. It holds one line at a time.
func ReadConnections(r io.Reader, f func(Connection) error) error {
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 0, maxConnLine), maxConnLine)
	for n := 1; sc.Scan(); n++ {
		line := sc.Text()
		if n == 1 && strings.HasPrefix(line, "Pro ") {
			continue
		}
		c, err := parseConnection(line)
		if err != nil {
			return fmt.Errorf("ipvs: %s line %d: %w", ConnTab, n, err)
		}
		if err := f(c); err != nil {
			if errors.Is(err, ErrStop) {
				return nil
			}
			return err
		}
	}
	if err := sc.Err(); err != nil {
		return fmt.Errorf("ipvs: read %s: %w", ConnTab, err)
	}
	return nil
}

func parseConnection(line string) (c Connection, err error) {
	f := strings.Fields(line)
	if len(f) < 9 {
		return c, fmt.Errorf("%d fields, want 9 or more", len(f))
	}
	c.Protocol, c.State = strings.Clone(f[0]), strings.Clone(f[7])
	for i, p := range []*netip.AddrPort{&c.Client, &c.Virtual, &c.Dest} {
		a, err := hexAddr(f[1+2*i])
		if err != nil {
			return Connection{}, err
		}
		port, err := strconv.ParseUint(f[2+2*i], 16, 16)
		if err != nil || len(f[2+2*i]) != 4 {
			return Connection{}, fmt.Errorf("port %q", f[2+2*i])
		}
		*p = netip.AddrPortFrom(a, uint16(port))
	}
	sec, err := strconv.ParseUint(f[8], 10, 32)
	if err != nil {
		return Connection{}, fmt.Errorf("expiry %q", f[8])
	}
	c.Expires = time.Duration(sec) * time.Second
	return c, nil
}

// hexAddr reads "C0A80001" or eight groups of four hexadecimal digits.
func hexAddr(s string) (netip.Addr, error) {
	if len(s) == 39 {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" || a.Is4() {
			return netip.Addr{}, fmt.Errorf("address %q", s)
		}
		return a, nil
	}
	var b [4]byte
	if len(s) != 8 {
		return netip.Addr{}, fmt.Errorf("address %q", s)
	}
	if _, err := hex.Decode(b[:], []byte(s)); err != nil {
		return netip.Addr{}, fmt.Errorf("address %q", s)
	}
	return netip.AddrFrom4(b), nil
}
