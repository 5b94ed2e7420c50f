package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"ballast/test/lab/wire"
)

// ftp speaks to the real server behind a control port as a passive FTP client
// does and prints the names of the servers of the two connections.
func ftp(args []string) error {
	if len(args) != 2 {
		return errors.New("ftp: want ADDRESS:PORT and a timeout")
	}
	timeout, err := time.ParseDuration(args[1])
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	control, err := (&prober{Probe: wire.Probe{Target: args[0]}}).dial(ctx, "tcp")
	if err != nil {
		return fmt.Errorf("control: %s", reason(err))
	}
	defer control.Close()
	if _, err := fmt.Fprintln(control, "PASV"); err != nil {
		return fmt.Errorf("control: %s", reason(err))
	}
	r := bufio.NewReader(control)
	answer, err := r.ReadString('\n')
	if err != nil {
		return fmt.Errorf("control: %s", reason(err))
	}
	w := strings.Fields(answer) // 227 NAME PORT
	if len(w) != 3 || w[0] != "227" {
		return fmt.Errorf("control: answer %q", answer)
	}
	host, _, err := net.SplitHostPort(args[0])
	if err != nil {
		return err
	}
	data, err := (&prober{Probe: wire.Probe{Target: net.JoinHostPort(host, w[2])}}).dial(ctx, "tcp")
	if err != nil {
		return fmt.Errorf("data port %s of %s: %s", w[2], w[1], reason(err))
	}
	defer data.Close()
	line, err := bufio.NewReader(data).ReadString('\n')
	if err != nil {
		return fmt.Errorf("data port %s of %s: %s", w[2], w[1], reason(err))
	}
	name, _, _ := strings.Cut(line, " ")
	fmt.Println(w[1], name)
	return nil
}

// ping sends one ICMP echo request (RFC 792, RFC 4443) and waits for its
// answer.
func ping(args []string) error {
	if len(args) != 2 {
		return errors.New("ping: want an address and a timeout")
	}
	timeout, err := time.ParseDuration(args[1])
	if err != nil {
		return err
	}
	addr, err := netip.ParseAddr(args[0])
	if err != nil {
		return err
	}
	network, request, answer := "ip4:icmp", byte(8), byte(0)
	if addr.Is6() {
		network, request, answer = "ip6:ipv6-icmp", 128, 129
	}
	c, err := net.Dial(network, args[0])
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(timeout))
	id := uint16(os.Getpid())
	b := []byte{request, 0, 0, 0, byte(id >> 8), byte(id), 0, 1}
	if addr.Is4() { // the kernel fills in the checksum of ICMPv6
		sum := uint32(0)
		for i := 0; i < len(b); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(b[i:]))
		}
		sum = sum>>16 + sum&0xffff
		binary.BigEndian.PutUint16(b[2:], ^uint16(sum))
	}
	if _, err := c.Write(b); err != nil {
		return errors.New(reason(err))
	}
	in := make([]byte, 1500)
	for {
		n, err := c.Read(in)
		if err != nil {
			return errors.New(reason(err))
		}
		p := in[:n]
		if addr.Is4() && n >= 20 && p[0]>>4 == 4 {
			p = p[min(int(p[0]&15)*4, n):]
		}
		if len(p) >= 8 && p[0] == answer && binary.BigEndian.Uint16(p[4:]) == id {
			return nil
		}
	}
}
