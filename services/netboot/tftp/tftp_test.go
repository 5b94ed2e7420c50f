package tftp

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func rrq(words ...string) []byte {
	return append([]byte{0, opRead}, strings.Join(words, "\x00")+"\x00"...)
}

func TestRequest(t *testing.T) {
	for _, tt := range []struct {
		in   []byte
		want request
		oack string
		err  string
	}{
		{rrq("f", "octet"), request{name: "f", block: 512, window: 1}, "", ""},
		{rrq("f", "OCTET", "BLKSIZE", "1408", "tsize", "0", "windowsize", "64", "timeout", "3"),
			request{name: "f", block: 1408, window: maxWindow, timeout: 3 * time.Second}, "blksize 1408 tsize 77 windowsize 32 timeout 3", ""},
		{rrq("f", "octet", "blksize", "65464", "multicast", ""), request{name: "f", block: maxBlock, window: 1}, "blksize 1468", ""},
		{rrq("f", "octet", "blksize", "7", "windowsize", "0", "timeout", "256", "tsize", "-1", "blksize", "x"), request{name: "f", block: 512, window: 1}, "", ""},
		{rrq("f", "octet", "blksize", "600", "blksize", "700"), request{name: "f", block: 600, window: 1}, "blksize 600", ""},
		{rrq("f", "mail"), request{}, "", "want mode octet"},
		{rrq("f"), request{}, "", "no mode"},
		{[]byte{0, opRead, 'f', 0, 'o'}, request{}, "", "does not end"},
		{[]byte{0, opWrite, 'f', 0, 'o', 0}, request{}, "", "nothing can be written"},
		{[]byte{0, opAck, 0, 1}, request{}, "", "no request"},
		{nil, request{}, "", "no request"},
	} {
		r, err := parseRequest(tt.in)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%q: %v, want %q", tt.in, err, tt.err)
			}
			continue
		}
		var oack string
		if b := r.oack(77); b != nil {
			words := strings.Split(strings.TrimSuffix(string(b[2:]), "\x00"), "\x00")
			oack = strings.Join(words, " ")
		}
		r.agreed = nil
		if d := cmp.Diff(tt.want, r, cmp.AllowUnexported(request{})); d != "" || err != nil || oack != tt.oack {
			t.Errorf("%q: %v, %q, want %q (-want +got):\n%s", tt.in, err, oack, tt.oack, d)
		}
	}
}

// client fetches a file as a boot ROM does, and loses packets on the way.
type client struct {
	conn  *net.UDPConn
	drop  func() bool
	block int
}

func (c *client) fetch(server netip.AddrPort, words ...string) ([]byte, error) {
	c.block = 512
	if _, err := c.conn.WriteToUDPAddrPort(rrq(words...), server); err != nil {
		return nil, err
	}
	var out []byte
	var peer netip.AddrPort
	want, window, inWindow := uint16(1), 1, 0
	ack := func(n uint16) {
		c.conn.WriteToUDPAddrPort(binary.BigEndian.AppendUint16([]byte{0, opAck}, n), peer)
	}
	b := make([]byte, 2000)
	for {
		c.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		n, from, err := c.conn.ReadFromUDPAddrPort(b)
		if err != nil {
			return nil, err
		}
		if c.drop() {
			continue
		}
		peer = from
		switch binary.BigEndian.Uint16(b) {
		case opError:
			return nil, errors.New(string(b[4 : n-1]))
		case opOACK:
			f := strings.Split(string(b[2:n]), "\x00")
			for i := 0; i+1 < len(f); i += 2 {
				switch f[i] {
				case "blksize":
					fmt.Sscan(f[i+1], &c.block)
				case "windowsize":
					fmt.Sscan(f[i+1], &window)
				}
			}
			ack(0)
		case opData:
			if binary.BigEndian.Uint16(b[2:]) != want {
				ack(want - 1) // RFC 7440: the last one in order
				inWindow = 0
				continue
			}
			out = append(out, b[4:n]...)
			end := n-4 < c.block
			if inWindow++; inWindow == window || end {
				ack(want)
				inWindow = 0
			}
			want++
			if end {
				return out, nil
			}
		}
	}
}

type memory struct{ *bytes.Reader }

func (m memory) Size() int64 { return m.Reader.Size() }

// Of a server that sends again soon, and does not give up before a client that
// stands still for a while; and of one that sends everything once.
var (
	eager  = Server{timeout: 50 * time.Millisecond, tries: 400}
	steady = Server{timeout: time.Minute}
)

// serve runs a server with the times of another one.
func serve(t *testing.T, times Server, files map[string][]byte, ended chan<- error) netip.AddrPort {
	t.Helper()
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	at := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	s := &Server{timeout: times.timeout, tries: times.tries,
		Open: func(_ netip.AddrPort, name string) (File, error) {
			if name == "secret" {
				return nil, os.ErrPermission
			}
			if b, ok := files[name]; ok {
				return memory{bytes.NewReader(b)}, nil
			}
			return nil, os.ErrNotExist
		},
		Dial: func(to netip.AddrPort) (net.Conn, error) { return net.Dial("udp4", to.String()) },
		Progress: func(_ netip.AddrPort, _ string, sent, size int64, done bool, err error) {
			if !done {
				return
			}
			if err == nil && sent != size {
				err = fmt.Errorf("%d of %d bytes and no error", sent, size)
			}
			ended <- err
		},
	}
	ctx, stop := context.WithCancel(context.Background())
	over := make(chan error)
	go func() { over <- s.Serve(ctx, conn) }()
	t.Cleanup(func() {
		stop()
		if err := <-over; err != nil {
			t.Error(err)
		}
	})
	return at
}

func TestTransfer(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	random := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return b
	}
	files := map[string][]byte{"empty": {}, "small": random(100), "even": random(4 * 512), "large": random(1<<20 + 7), "wraps": random(70000 * 8)}
	ended := make(chan error, 10)
	at := serve(t, eager, files, ended)
	for _, tt := range []struct {
		words []string
		loss  int // percent
	}{
		{[]string{"empty", "octet"}, 0},
		{[]string{"empty", "octet", "tsize", "0"}, 0},
		{[]string{"small", "netascii"}, 0},
		{[]string{"even", "octet"}, 0},
		{[]string{"even", "octet", "blksize", "1024", "windowsize", "8"}, 20},
		{[]string{"large", "octet", "blksize", "1468", "windowsize", "16", "tsize", "0"}, 1},
		{[]string{"large", "octet", "blksize", "1468"}, 1},
		{[]string{"wraps", "octet", "blksize", "8", "windowsize", "32"}, 0},
	} {
		conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		c := &client{conn: conn, drop: func() bool { return rng.IntN(100) < tt.loss }}
		got, err := c.fetch(at, tt.words...)
		if err != nil || !bytes.Equal(got, files[tt.words[0]]) {
			t.Errorf("%q: %v, %d bytes of %d", tt.words, err, len(got), len(files[tt.words[0]]))
		}
		conn.Close()
		select {
		case err := <-ended: // the last acknowledgement may have been for a closed port
			if err != nil && tt.loss == 0 {
				t.Errorf("%q: the server says %v", tt.words, err)
			}
		case <-time.After(30 * time.Second):
			t.Errorf("%q: the server goes on", tt.words)
		}
	}
	for name, want := range map[string]string{"none": "there is no such file", "secret": "refused"} {
		conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		c := &client{conn: conn, drop: func() bool { return false }}
		if _, err := c.fetch(at, name, "octet"); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
		conn.Close()
		<-ended
	}
}

// A client that goes away ends its transfer, by its own word and without one.
func TestClientEnds(t *testing.T) {
	ended := make(chan error, 2)
	files := map[string][]byte{"f": make([]byte, 1<<20)}
	at := serve(t, steady, files, ended)
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.WriteToUDPAddrPort(rrq("f", "octet", "tsize", "0"), at)
	b := make([]byte, 100)
	_, from, err := conn.ReadFromUDPAddrPort(b)
	if err != nil {
		t.Fatal(err)
	}
	conn.WriteToUDPAddrPort([]byte("\x00\x05\x00\x08User aborted\x00"), from)
	var e *Ended
	if err := <-ended; !errors.As(err, &e) || e.Text != "User aborted" || e.Code != 8 {
		t.Errorf("%v", err)
	}
	conn.WriteToUDPAddrPort(rrq("f", "octet"), serve(t, Server{timeout: time.Millisecond}, files, ended))
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("%v", err)
	}
}

// An acknowledgement that says nothing new is not answered with data: each would
// double what follows (RFC 1123, section 4.2.3.1).
func TestOldAcknowledgement(t *testing.T) {
	ended := make(chan error, 1)
	at := serve(t, steady, map[string][]byte{"f": make([]byte, 600)}, ended)
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	conn.WriteToUDPAddrPort(rrq("f", "octet", "timeout", "10"), at) // nothing is sent again meanwhile
	b := make([]byte, 1000)
	var got [][]byte
	for _, acks := range [][]byte{{0, 0}, {1}, {2}} {
		_, from, err := conn.ReadFromUDPAddrPort(b)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, bytes.Clone(b[:4]))
		for _, n := range acks {
			conn.WriteToUDPAddrPort([]byte{0, opAck, 0, n}, from)
		}
	}
	if want := [][]byte{{0, opOACK, 't', 'i'}, {0, opData, 0, 1}, {0, opData, 0, 2}}; !cmp.Equal(want, got) {
		t.Errorf("%v, want %v", got, want)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// A request that comes twice, because its answer is late, is served once.
func TestRequestTwice(t *testing.T) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	at := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	var opened atomic.Int32
	both := make(chan struct{}) // closed when what follows the second request has been read
	s := &Server{
		Open: func(_ netip.AddrPort, name string) (File, error) {
			if name == "after" {
				close(both)
			} else {
				opened.Add(1)
			}
			<-both
			return nil, os.ErrNotExist
		},
		Dial: func(to netip.AddrPort) (net.Conn, error) { return net.Dial("udp4", to.String()) },
	}
	ctx, stop := context.WithCancel(t.Context())
	over := make(chan error)
	go func() { over <- s.Serve(ctx, conn) }()
	for _, names := range [][]string{{"f", "f"}, {"after"}} {
		c, err := net.Dial("udp4", at.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for _, n := range names {
			c.Write(rrq(n, "octet"))
		}
	}
	<-both
	stop()
	if err := <-over; err != nil || opened.Load() != 1 {
		t.Errorf("%v, served %d times", err, opened.Load())
	}
}

// A client that asks for the size of a file only, and then for the file from the
// same port without a word between, gets it at once.
func TestRequestAnew(t *testing.T) {
	ended := make(chan error, 2)
	want := bytes.Repeat([]byte("ballast"), 300)
	at := serve(t, steady, map[string][]byte{"f": want}, ended)
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	conn.WriteToUDPAddrPort(rrq("f", "octet", "tsize", "0", "timeout", "10"), at)
	b := make([]byte, 1000)
	n, first, err := conn.ReadFromUDPAddrPort(b)
	if err != nil || string(b[2:n]) != "tsize\x002100\x00timeout\x0010\x00" {
		t.Fatalf("%q %v", b[:n], err)
	}
	conn.WriteToUDPAddrPort(rrq("f", "octet"), at)
	var got []byte
	for block := byte(1); len(got) < len(want); block++ {
		n, from, err := conn.ReadFromUDPAddrPort(b)
		if err != nil || from == first || !bytes.Equal(b[:4], []byte{0, opData, 0, block}) {
			t.Fatalf("block %d: %v, %q from %s", block, err, b[:n], from)
		}
		got = append(got, b[4:n]...)
		conn.WriteToUDPAddrPort([]byte{0, opAck, 0, block}, from)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	var end *Ended
	if a, b := <-ended, <-ended; !errors.As(errors.Join(a, b), &end) || a != nil && b != nil {
		t.Errorf("the transfers ended with %v and %v", a, b)
	}
}

// A server that ends tells its clients.
func TestServerEnds(t *testing.T) {
	listen := func() *net.UDPConn {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	at, client := listen(), listen()
	defer client.Close()
	s := &Server{
		Open: func(netip.AddrPort, string) (File, error) { return memory{bytes.NewReader(make([]byte, 9000))}, nil },
		Dial: func(to netip.AddrPort) (net.Conn, error) { return net.Dial("udp4", to.String()) },
	}
	ctx, stop := context.WithCancel(t.Context())
	over := make(chan error)
	go func() { over <- s.Serve(ctx, at) }()
	client.SetDeadline(time.Now().Add(20 * time.Second))
	client.WriteToUDPAddrPort(rrq("f", "octet"), at.LocalAddr().(*net.UDPAddr).AddrPort())
	b := make([]byte, 1000)
	if n, err := client.Read(b); err != nil || n != 516 {
		t.Fatalf("%d bytes, %v", n, err)
	}
	stop()
	if err := <-over; err != nil {
		t.Error(err)
	}
	for { // the block may have come again
		n, err := client.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		if b[1] == opError {
			if got := string(b[4:n]); got != "the server ends\x00" {
				t.Errorf("%q", got)
			}
			return
		}
	}
}

func FuzzPackets(f *testing.F) {
	f.Add(rrq("f", "octet", "blksize", "1468", "tsize", "0"))
	f.Add([]byte{0, opAck, 0, 1})
	f.Add([]byte("\x00\x05\x00\x01text\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := parseRequest(b); err == nil {
			if r.block < minBlock || r.block > maxBlock || r.window < 1 || r.window > maxWindow || r.timeout < 0 {
				t.Errorf("%q: %+v", b, r)
			}
			if oack := r.oack(1 << 40); len(oack) > 512 { // RFC 2347
				t.Errorf("%q: an answer of %d bytes", b, len(oack))
			}
		}
		if r, ok := parseReply(b); ok && r.ended != nil && r.ended.Error() == "" {
			t.Errorf("%q", b)
		}
	})
}
