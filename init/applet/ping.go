package applet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

func sprintLine(format string, args ...any) string { return fmt.Sprintf(format, args...) + "\n" }

// ping sends ICMP echo requests through the kernel's datagram ICMP sockets,
// which need no privilege (net.ipv4.ping_group_range), for "ping -c 1 -W 1 HOST"
// of check scripts. Code 0: an answer came; 1: none; 2: it could not be sent.
func ping(e *env, args []string) int {
	count, wait, interval, size := 4, 4*time.Second, time.Second, 56
	var deadline time.Duration
	quiet, six := false, e.name == "ping6"
	source, host := "", ""
	for i := 0; i < len(args); i++ {
		a := args[i]
		if !strings.HasPrefix(a, "-") {
			host = a
			continue
		}
		flag, v := a[:min(2, len(a))], ""
		switch flag {
		case "-c", "-W", "-w", "-i", "-s", "-I", "-t", "-l", "-p", "-M", "-Q", "-S", "-m":
			if v = a[2:]; v == "" {
				if i++; i < len(args) {
					v = args[i]
				}
			}
		}
		secs, err := strconv.ParseFloat(v, 64)
		d := time.Duration(secs * float64(time.Second))
		switch flag {
		case "-c", "-W", "-w", "-i", "-s":
			if err != nil || secs < 0 || secs > 65000 {
				return e.fail(2, "%s: want a number, got %q", flag, v)
			}
		}
		switch flag {
		case "-c":
			count = max(1, int(secs))
		case "-W":
			wait = d
		case "-w":
			deadline = d
		case "-i":
			interval = max(d, 10*time.Millisecond)
		case "-s":
			size = int(secs)
		case "-I":
			source = v
		case "-q":
			quiet = true
		case "-6":
			six = true
		}
	}
	if host == "" {
		return e.fail(2, "want a host")
	}
	dst, err := resolve(host, six)
	if err != nil {
		return e.fail(2, "%s: %v", host, err)
	}
	p, err := newPinger(dst, source, size)
	if err != nil {
		return e.fail(2, "%s: %v", host, err)
	}
	defer p.conn.Close()
	e.outf("PING %s (%s) %d data bytes\n", host, dst, size)
	began, got, sent := time.Now(), 0, 0
	for seq := 1; seq <= count; seq++ {
		if deadline > 0 && time.Since(began) >= deadline {
			break
		}
		sent++
		took, err := p.once(seq, wait)
		switch {
		case err == nil:
			got++
			if !quiet {
				e.outf("%d bytes from %s: icmp_seq=%d time=%.3f ms\n", size+8, dst, seq, float64(took.Microseconds())/1e3)
			}
		case !errors.Is(err, os.ErrDeadlineExceeded):
			e.fail(0, "%v", err)
		}
		if seq < count {
			time.Sleep(max(interval-took, 0))
		}
	}
	e.outf("\n--- %s ping statistics ---\n%d packets transmitted, %d received, %d%% packet loss\n", host, sent, got, 100*(sent-got)/max(sent, 1))
	if got == 0 {
		return 1
	}
	return 0
}

func resolve(host string, six bool) (netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return a, nil
	}
	network := "ip"
	if six {
		network = "ip6"
	}
	a, err := net.ResolveIPAddr(network, host)
	if err != nil {
		return netip.Addr{}, err
	}
	ip, _ := netip.AddrFromSlice(a.IP)
	return ip.Unmap(), nil
}

type pinger struct {
	conn *icmp.PacketConn
	dst  netip.Addr
	data []byte
	buf  []byte
}

func newPinger(dst netip.Addr, source string, size int) (*pinger, error) {
	network, local := "udp4", "0.0.0.0"
	if dst.Is6() {
		network, local = "udp6", "::"
	}
	if source != "" {
		local = source
		if _, err := netip.ParseAddr(source); err != nil {
			a, err := interfaceAddr(source, dst.Is6())
			if err != nil {
				return nil, err
			}
			local = a
		}
	}
	conn, err := icmp.ListenPacket(network, local)
	if err != nil {
		return nil, err
	}
	return &pinger{conn: conn, dst: dst, data: make([]byte, max(size, 8)), buf: make([]byte, 65536)}, nil
}

func interfaceAddr(name string, six bool) (string, error) {
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		return "", err
	}
	addrs, err := ifi.Addrs()
	if err != nil {
		return "", err
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is6() == six {
			return p.Addr().String(), nil
		}
	}
	return "", fmt.Errorf("%s has no address", name)
}

func (p *pinger) once(seq int, wait time.Duration) (time.Duration, error) {
	began := time.Now()
	binary.BigEndian.PutUint64(p.data, uint64(began.UnixNano()))
	var kind icmp.Type = ipv4.ICMPTypeEcho
	var reply icmp.Type = ipv4.ICMPTypeEchoReply
	proto := 1
	if p.dst.Is6() {
		kind, reply, proto = ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply, 58
	}
	m := icmp.Message{Type: kind, Body: &icmp.Echo{ID: os.Getpid() & 0xffff, Seq: seq, Data: p.data}}
	b, err := m.Marshal(nil)
	if err != nil {
		return 0, err
	}
	if _, err := p.conn.WriteTo(b, &net.UDPAddr{IP: p.dst.AsSlice(), Zone: p.dst.Zone()}); err != nil {
		return 0, err
	}
	p.conn.SetReadDeadline(began.Add(wait))
	for {
		n, _, err := p.conn.ReadFrom(p.buf)
		if err != nil {
			return time.Since(began), err
		}
		r, err := icmp.ParseMessage(proto, p.buf[:n])
		if err != nil || r.Type != reply {
			continue
		}
		// The kernel gives us only answers to this socket; the number tells
		// late ones from this one.
		if echo, ok := r.Body.(*icmp.Echo); ok && echo.Seq == seq {
			return time.Since(began), nil
		}
	}
}
