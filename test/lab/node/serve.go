package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"ballast/test/lab/wire"
)

// realServer answers whatever a client of an LVS site would ask.
type realServer struct {
	wire.Serve
	http   chan net.Conn // connections whose client speaks HTTP
	cert   tls.Certificate
	status atomic.Int64
	delay  atomic.Int64 // nanoseconds
}

// serve runs until it is killed. It prints "ready" when every port is open.
func serve(args []string) error {
	if len(args) != 1 {
		return errors.New("serve: want a wire.Serve in JSON")
	}
	s := &realServer{http: make(chan net.Conn)}
	if err := json.Unmarshal([]byte(args[0]), &s.Serve); err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	var err error
	if s.cert, err = selfSigned(s.Name); err != nil {
		return err
	}
	fail := make(chan error, 1)
	for _, p := range s.TCP {
		l, err := net.Listen("tcp", ":"+strconv.Itoa(int(p)))
		if err != nil {
			return err
		}
		go s.accept(l)
	}
	for _, p := range s.UDP {
		if err := s.echo(int(p)); err != nil {
			return err
		}
	}
	go func() {
		fail <- (&http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second}).Serve(connListener{s.http})
	}()
	go s.obey(os.Stdin)
	fmt.Println("ready")
	return <-fail
}

// obey reads wire.ServeControl lines.
func (s *realServer) obey(r io.Reader) {
	d := json.NewDecoder(r)
	for {
		var c wire.ServeControl
		if d.Decode(&c) != nil {
			return
		}
		s.status.Store(int64(c.Status))
		s.delay.Store(int64(max(c.Delay, 0)))
	}
}

func (s *realServer) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go s.speak(c)
	}
}

// speak finds out from its first byte what the client speaks.
func (s *realServer) speak(c net.Conn) {
	r := bufio.NewReader(c)
	b, err := r.Peek(1)
	if err != nil {
		c.Close()
		return
	}
	switch {
	case b[0] == 0x16: // a TLS handshake record
		s.http <- tls.Server(peeked{c, r}, &tls.Config{Certificates: []tls.Certificate{s.cert}})
		return
	case b[0] >= 'A' && b[0] <= 'Z':
		if method, err := r.Peek(4); err == nil && strings.Contains("GET HEADPOST", string(method)) {
			s.http <- peeked{c, r}
			return
		}
	}
	defer c.Close()
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimSpace(line)
		if line == "PASV" {
			if s.passive(c) != nil {
				return
			}
			continue
		}
		if _, err := fmt.Fprintf(c, "%s %s\n", s.Name, line); err != nil {
			return
		}
	}
}

// passive opens a data port as an FTP server does (RFC 959, 4.1.2), tells it as
// "227 NAME PORT", and sends one line over it.
func (s *realServer) passive(c net.Conn) error {
	from, to := int(s.Passive[0]), int(s.Passive[1])
	if from == 0 || to < from {
		_, err := fmt.Fprintf(c, "502 %s has no passive ports\n", s.Name)
		return err
	}
	for range 20 {
		n, err := rand.Int(rand.Reader, big.NewInt(int64(to-from+1)))
		if err != nil {
			return err
		}
		l, err := net.Listen("tcp", ":"+strconv.Itoa(from+int(n.Int64())))
		if err != nil {
			continue // in use
		}
		go func() {
			defer l.Close()
			l.(*net.TCPListener).SetDeadline(time.Now().Add(10 * time.Second))
			if d, err := l.Accept(); err == nil {
				fmt.Fprintf(d, "%s data\n", s.Name)
				d.Close()
			}
		}()
		_, err = fmt.Fprintf(c, "227 %s %d\n", s.Name, l.Addr().(*net.TCPAddr).Port)
		return err
	}
	_, err := fmt.Fprintf(c, "425 %s found no free port\n", s.Name)
	return err
}

// ServeHTTP answers with the server's name; /bytes/N with N bytes that
// package wire's Body can check.
func (s *realServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if d := s.delay.Load(); d > 0 {
		select {
		case <-time.After(time.Duration(d)):
		case <-r.Context().Done():
			return
		}
	}
	w.Header().Set(wire.ServerHeader, s.Name)
	if n, ok := strings.CutPrefix(r.URL.Path, "/bytes/"); ok {
		size, err := strconv.ParseInt(n, 10, 64)
		if err != nil || size < 0 || size > wire.MaxBody {
			http.Error(w, "want /bytes/N", http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Length", n)
		io.CopyN(w, wire.Body(r.URL.Query().Get("seed")), size)
		return
	}
	if st := s.status.Load(); st != 0 {
		w.WriteHeader(int(st))
	}
	fmt.Fprintln(w, s.Name)
}

// echo answers datagrams from the address that they were sent to, which is a
// VIP that the kernel would not pick by itself.
func (s *realServer) echo(port int) error {
	c4, err := net.ListenPacket("udp4", ":"+strconv.Itoa(port))
	if err != nil {
		return err
	}
	p4 := ipv4.NewPacketConn(c4)
	if err := p4.SetControlMessage(ipv4.FlagDst, true); err != nil {
		return err
	}
	go func() {
		b := make([]byte, 2048)
		for {
			n, cm, from, err := p4.ReadFrom(b)
			if err != nil {
				return
			}
			if cm != nil {
				cm = &ipv4.ControlMessage{Src: cm.Dst}
			}
			p4.WriteTo(append(b[:n:n], s.Name...), cm, from)
		}
	}()
	c6, err := net.ListenPacket("udp6", ":"+strconv.Itoa(port))
	if err != nil {
		return err
	}
	p6 := ipv6.NewPacketConn(c6)
	if err := p6.SetControlMessage(ipv6.FlagDst, true); err != nil {
		return err
	}
	go func() {
		b := make([]byte, 2048)
		for {
			n, cm, from, err := p6.ReadFrom(b)
			if err != nil {
				return
			}
			if cm != nil {
				cm = &ipv6.ControlMessage{Src: cm.Dst}
			}
			p6.WriteTo(append(b[:n:n], s.Name...), cm, from)
		}
	}()
	return nil
}

// connListener hands over connections that came some other way.
type connListener struct{ c chan net.Conn }

func (l connListener) Accept() (net.Conn, error) { return <-l.c, nil }
func (l connListener) Close() error              { return nil }
func (l connListener) Addr() net.Addr            { return &net.TCPAddr{} }

// peeked is a connection some of whose bytes are in a reader.
type peeked struct {
	net.Conn
	r *bufio.Reader
}

func (p peeked) Read(b []byte) (int, error) { return p.r.Read(b) }

func selfSigned(name string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Unix(0, 0), NotAfter: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
