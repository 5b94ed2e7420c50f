package vm

import (
	"errors"
	"net"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// A port is the machine's: it can listen there again and again, and nobody is given
// it in between.
func TestPort(t *testing.T) {
	p, err := NewPort()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(p.Number))
	for range 3 {
		l, err := net.Listen("tcp4", addr) // which sets SO_REUSEADDR
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("tcp4", addr)
		if err != nil {
			t.Fatal(err)
		}
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		s.Close() // first, as a machine does whose power is cut: what is left is on this port
		c.Close()
		l.Close()
	}
	// One that nothing is left on: what keeps it is that it is bound.
	q, err := NewPort()
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	chosen(t, q.Number, false)
	l, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(q.Number)))
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	chosen(t, q.Number, false)
	q.Close()
	chosen(t, q.Number, true)
	q.Close()
}

// chosen asks the kernel for a port of its choice where one alone is left to choose.
func chosen(t *testing.T, port int, want bool) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		t.Fatal(err)
	}
	const localPortRange = 51 // IP_LOCAL_PORT_RANGE, of Linux 6.3
	if err := unix.SetsockoptInt(fd, unix.SOL_IP, localPortRange, port<<16|port); errors.Is(err, unix.ENOPROTOOPT) {
		t.Skip("this kernel lets nobody say between which ports it chooses")
	} else if err != nil {
		t.Fatal(err)
	}
	err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	if want && err != nil || !want && !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("port %d: %v, want it given: %v", port, err, want)
	}
}
