package peer

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc"
	"ballast/services/ipc/follow"
	"ballast/services/ipc/status"
)

// box is a peer process with a conf that answers by what.
type box struct {
	t      *testing.T
	dir    ipc.Dir
	addr   netip.Addr
	server *ipc.Server
	book   *follow.Book
	gen    uint64
	state  chan status.Peer

	mu     sync.Mutex
	answer func(in []byte) ([]byte, error)
}

func newBox(t *testing.T, addr netip.Addr) *box {
	t.Helper()
	dir, err := os.MkdirTemp("", "peer")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	b := &box{t: t, dir: ipc.Dir(dir), addr: addr, server: ipc.NewServer("conf"), book: follow.NewBook(), state: make(chan status.Peer, 1000)}
	log := slog.New(slog.DiscardHandler)
	conf, err := ipc.NewEnv(b.dir, "conf", log)
	if err != nil {
		t.Fatal(err)
	}
	env, err := ipc.NewEnv(b.dir, "peer", log)
	if err != nil {
		t.Fatal(err)
	}
	env.Data = filepath.Join(dir, "data")
	if err := os.Mkdir(env.Data, 0o700); err != nil {
		t.Fatal(err)
	}
	b.answer = func(in []byte) ([]byte, error) { return append([]byte(addr.String()+" got "), in...), nil }
	b.server.Handle("pair", func(_ context.Context, _ ipc.Peer, body json.RawMessage) (any, error) {
		b.mu.Lock()
		f := b.answer
		b.mu.Unlock()
		out, err := f(body)
		return status.PeerMessage{Body: out}, err
	}, ipc.AnyUID)
	b.configure(nil)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { b.server.Serve(ctx, conf.Listener) })
	wg.Go(func() {
		if err := Run(ctx, env); err != nil {
			t.Error(err)
		}
	})
	wg.Go(func() {
		ipc.Watch(ctx, b.dir.Client("peer"), func(_ uint64, s status.Peer) { b.state <- s })
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	return b
}

func (b *box) configure(p *model.Pair) {
	b.gen++
	b.server.Publish(b.book.Publish(status.Conf{Generation: b.gen, Config: model.Config{Pair: p}}, ""))
}

// await waits until the state is such.
func (b *box) await(what string, ok func(status.Peer) bool) status.Peer {
	b.t.Helper()
	end := time.After(time.Minute)
	var last status.Peer
	for {
		select {
		case last = <-b.state:
			if ok(last) {
				return last
			}
		case <-end:
			b.t.Fatalf("%s: not %s: %+v", b.addr, what, last)
		}
	}
}

func (b *box) key() string {
	return b.await("with a key", func(s status.Peer) bool { return s.PublicKey != "" }).PublicKey
}

func (b *box) send(t status.PeerTarget, message string) (string, error) {
	head, _ := json.Marshal(t)
	var out status.PeerMessage
	err := b.dir.Client("peer").Call(context.Background(), "send", json.RawMessage(append(append(head, 0), message...)), &out)
	return string(out.Body), err
}

// listenPort is where the boxes of these tests listen: on addresses that no other
// test has, and outside the range that the kernel picks ports from.
const listenPort = 1913

// loopback is the nth address of the tests of this process: another one that runs
// them at the same time has others.
func loopback(n int) netip.Addr {
	pid := os.Getpid()
	return netip.AddrFrom4([4]byte{127, byte(64 | pid>>14&0x3f), byte(pid >> 6), byte(pid<<2 | n)})
}

func pairOf(t *testing.T) (a, b *box, toA, toB status.PeerTarget) {
	const port = listenPort
	a, b = newBox(t, loopback(1)), newBox(t, loopback(2))
	toB = status.PeerTarget{Addr: b.addr, Port: port, From: a.addr, Key: b.key()}
	toA = status.PeerTarget{Addr: a.addr, Port: port, From: b.addr, Key: a.key()}
	a.configure(&model.Pair{Addr: b.addr, Key: toB.Key, From: a.addr, Port: port})
	b.configure(&model.Pair{Addr: a.addr, Key: toA.Key, From: b.addr, Port: port})
	for _, x := range []*box{a, b} {
		want := netip.AddrPortFrom(x.addr, port).String()
		x.await("listening", func(s status.Peer) bool { return s.Listening == want })
	}
	return a, b, toA, toB
}

// TestPinnedKeys: two boxes that name each other's key talk, on the address and
// port that the block says; nobody else does.
func TestPinnedKeys(t *testing.T) {
	a, b, toA, toB := pairOf(t)
	for range 3 {
		if out, err := a.send(toB, "hello"); err != nil || out != b.addr.String()+" got hello" {
			t.Fatalf("%q, %v", out, err)
		}
	}
	long := strings.Repeat("x", 3<<20)
	if out, err := b.send(toA, long); err != nil || out != a.addr.String()+" got "+long {
		t.Fatalf("%d bytes, %v", len(out), err)
	}
	// The other box is not who it must be.
	other := toB
	other.Key = toA.Key
	if _, err := a.send(other, "hello"); err == nil || !strings.Contains(err.Error(), "its key is not the one of the peer block") {
		t.Errorf("a box with another key: %v", err)
	}
	// The other box expects another key than ours.
	b.configure(nil)
	b.await("silent", func(s status.Peer) bool { return s.Listening == "" })
	b.configure(&model.Pair{Addr: a.addr, Key: toB.Key, From: b.addr, Port: toB.Port})
	b.await("listening again", func(s status.Peer) bool { return s.Listening != "" })
	if _, err := a.send(toB, "hello"); err == nil || !strings.Contains(err.Error(), "it does not know the key of this box") {
		t.Errorf("a box that expects another key: %v", err)
	}
	// Without a block nobody listens.
	b.configure(nil)
	b.await("silent", func(s status.Peer) bool { return s.Listening == "" && s.Inbound == 0 })
	if _, err := a.send(toB, "hello"); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("a box without a peer block: %v", err)
	}
}

// TestStrangers: from another address than the peer's comes no byte, not even of
// the handshake, and the peer goes on being served.
func TestStrangers(t *testing.T) {
	a, b, _, toB := pairOf(t)
	to := netip.AddrPortFrom(b.addr, toB.Port).String()
	for range 20 {
		c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: loopback(3).AsSlice()}}).Dial("tcp4", to)
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(30 * time.Second))
		if got, err := io.ReadAll(c); len(got) != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a stranger got %x, %v", got, err)
		}
		c.Close()
	}
	// On the peer's address without the peer's key: no further than the handshake.
	_, key, _ := ed25519.GenerateKey(rand.Reader)
	cert, err := certificate(key)
	if err != nil {
		t.Fatal(err)
	}
	for _, how := range []*tls.Config{
		{InsecureSkipVerify: true}, {InsecureSkipVerify: true, Certificates: []tls.Certificate{cert}},
	} {
		raw, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: a.addr.AsSlice()}}).Dial("tcp4", to)
		if err != nil {
			t.Fatal(err)
		}
		c := tls.Client(raw, how)
		c.SetDeadline(time.Now().Add(30 * time.Second))
		writeFrame(c, []byte("hello"))
		if out, err := readFrame(c); err == nil {
			t.Errorf("a stranger was answered %q", out)
		}
		c.Close()
	}
	b.await("counting strangers", func(s status.Peer) bool { return s.Strangers >= 22 })
	if out, err := a.send(toB, "hello"); err != nil || out != b.addr.String()+" got hello" {
		t.Errorf("the peer: %q, %v", out, err)
	}
}

// TestRestart: a connection that the other box closed meanwhile costs nothing;
// a conf that is away is told, and the message not sent again.
func TestRestart(t *testing.T) {
	a, b, toA, toB := pairOf(t)
	if _, err := a.send(toB, "hello"); err != nil {
		t.Fatal(err)
	}
	b.configure(nil)
	b.await("silent", func(s status.Peer) bool { return s.Listening == "" && s.Inbound == 0 })
	b.configure(&model.Pair{Addr: a.addr, Key: toA.Key, From: b.addr, Port: toB.Port})
	b.await("listening", func(s status.Peer) bool { return s.Listening != "" })
	if _, err := a.send(toB, "hello"); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	n := 0
	b.mu.Lock()
	b.answer = func([]byte) ([]byte, error) { n++; return nil, errors.New("conf went away") }
	b.mu.Unlock()
	if _, err := a.send(toB, "hello"); err == nil || !strings.Contains(err.Error(), "its configuration service does not answer") {
		t.Errorf("without its conf: %v", err)
	}
	if n != 1 {
		t.Errorf("the message went %d times", n)
	}
}

// TestAlive: a connection is alive until the other end closes it or says something,
// whatever deadline it has.
func TestAlive(t *testing.T) {
	l, err := net.Listen("tcp4", net.JoinHostPort(loopback(1).String(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for what, end := range map[string]func(net.Conn) error{
		"closed": func(c net.Conn) error { return c.Close() },
		"spoken": func(c net.Conn) error { _, err := c.Write([]byte("x")); return err },
	} {
		raw, err := net.Dial("tcp4", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		other, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		c := tls.Client(raw, &tls.Config{InsecureSkipVerify: true})
		raw.SetDeadline(time.Unix(1, 0))
		if !alive(c) {
			t.Errorf("%s: it was not alive before", what)
		}
		if err := end(other); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(time.Minute); alive(c); runtime.Gosched() {
			if time.Now().After(end) {
				t.Fatalf("%s: it is still alive", what)
			}
		}
		raw.Close()
		if alive(c) {
			t.Errorf("%s: it is alive without a socket", what)
		}
	}
}

func TestIdentityIsKept(t *testing.T) {
	dir, log := t.TempDir(), slog.New(slog.DiscardHandler)
	first, err := identity(dir, log)
	if err != nil {
		t.Fatal(err)
	}
	again, err := identity(dir, log)
	if err != nil || !first.Equal(again) {
		t.Errorf("another key at the second start: %v", err)
	}
	st, err := os.Stat(filepath.Join(dir, keyFile))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
	if err := os.WriteFile(filepath.Join(dir, keyFile), []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	if next, err := identity(dir, log); err != nil || first.Equal(next) {
		t.Errorf("a damaged key: %v", err)
	}
	line := publicLine(first.Public().(ed25519.PublicKey))
	back, err := parsePublic(line + " lb1")
	if err != nil || !back.Equal(first.Public()) {
		t.Errorf("%s: %v", line, err)
	}
}

func FuzzFrame(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x02hi"))
	f.Add([]byte("\xff\xff\xff\xffhi"))
	f.Fuzz(func(t *testing.T, b []byte) {
		out, err := readFrame(strings.NewReader(string(b)))
		if err == nil && (len(out) == 0 || len(out) > len(b)-4) {
			t.Errorf("%q gives %q", b, out)
		}
	})
}

func FuzzParsePublic(f *testing.F) {
	f.Add("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEzKsvP2KUn3aZZQGcvRCF6B1Ewh2tFhGgkYyLzcYyZC x")
	f.Fuzz(func(t *testing.T, line string) {
		key, err := parsePublic(line)
		if err == nil && !strings.HasPrefix(strings.Join(strings.Fields(line), " "), publicLine(key)) {
			t.Errorf("%q", line)
		}
	})
}
