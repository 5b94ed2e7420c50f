package notify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"ballast/configs/model"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

// syslogd is a syslog server that keeps what it gets.
type syslogd struct {
	net.PacketConn
	got chan string
}

func newSyslogd(t *testing.T, addr string) *syslogd {
	t.Helper()
	c, err := net.ListenPacket("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	s := &syslogd{c, make(chan string, 5000)}
	t.Cleanup(func() { c.Close() })
	go func() {
		b := make([]byte, 1<<16)
		for {
			n, _, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			s.got <- string(b[:n])
		}
	}()
	return s
}

func (s *syslogd) addr() string { return s.LocalAddr().String() }

// text waits for a message and gives its text.
func (s *syslogd) text(t *testing.T) string {
	t.Helper()
	select {
	case m := <-s.got:
		f := strings.SplitN(m, " ", 8)
		if len(f) != 8 {
			t.Fatalf("message %q", m)
		}
		return f[7]
	case <-time.After(time.Minute):
		t.Fatal("waited a minute for a message")
		return ""
	}
}

// book is a log that grows.
type book struct {
	mu    sync.Mutex
	lines []status.LogLine
	fail  bool
}

func (b *book) add(texts ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, text := range texts {
		at := time.Now()
		if n := len(b.lines); n > 0 && !at.After(b.lines[n-1].Time) {
			at = b.lines[n-1].Time.Add(1)
		}
		b.lines = append(b.lines, status.LogLine{Time: at, Service: "vrrp", Priority: 5, Text: text})
	}
}

func (b *book) read(_ context.Context, after time.Time) (out []status.LogLine, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fail {
		return nil, errors.New("init does not answer")
	}
	for _, l := range b.lines {
		if l.Time.After(after) {
			out = append(out, l)
		}
	}
	return out, nil
}

// forward starts a forwarder; stop ends it as the service does.
func forwardLog(t *testing.T, b *book, file string) (f *forwarder, stop func()) {
	t.Helper()
	f = &forwarder{read: b.read, log: discard(), file: file, boot: "one", gap: 5 * time.Millisecond, news: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); f.work(ctx) }()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return f, stop
}

func TestSyslogMessage(t *testing.T) {
	at := time.Date(2026, 11, 21, 17, 4, 5, 123456789, time.UTC)
	for _, tt := range []struct {
		line status.LogLine
		host string
		want string
	}{
		{status.LogLine{Time: at, Service: "vrrp", Priority: 6, Text: "VI_1: backup -> master"}, "director-a", "<30>1 2026-11-21T17:04:05.123456Z director-a vrrp - - - VI_1: backup -> master"},
		{status.LogLine{Time: at.In(time.FixedZone("", 3600)), Service: "", Priority: 99, Text: "é"}, "-", "<31>1 2026-11-21T18:04:05.123456+01:00 - - - - - é"},
		{status.LogLine{Time: at, Service: "a b\n" + strings.Repeat("c", 60), Priority: -1, Text: ""}, "h", "<24>1 2026-11-21T17:04:05.123456Z h ab" + strings.Repeat("c", 46) + " - - - "},
	} {
		if got := string(syslogMessage(tt.line, tt.host)); got != tt.want {
			t.Errorf("%q, want %q", got, tt.want)
		}
	}
	for n := range 4 {
		long := syslogMessage(status.LogLine{Time: at, Service: "x", Text: strings.Repeat("x", n) + strings.Repeat("€", 1000)}, "h")
		if len(long) > syslogSize || len(long) < syslogSize-3 || !utf8.Valid(long) {
			t.Errorf("a long line has %d bytes, valid %v", len(long), utf8.Valid(long))
		}
	}
}

// TestSyslogServers: the first servers get the log from its beginning, later ones from
// now on, one that is taken out gets no more; a restart sends nothing twice.
func TestSyslogServers(t *testing.T) {
	a, b := newSyslogd(t, "127.0.0.1:0"), newSyslogd(t, "[::1]:0")
	var log book
	log.add("early", "second")
	file := filepath.Join(t.TempDir(), "syslog")
	f, stop := forwardLog(t, &log, file)
	stop() // by hand from here
	f.begun = false
	f.apply([]string{a.addr()})
	f.look(t.Context())
	f.apply([]string{a.addr(), b.addr()})
	f.look(t.Context())
	log.add("for both")
	f.look(t.Context())
	f.apply([]string{b.addr()})
	log.add("for the second")
	f.look(t.Context())
	log.add("while away")
	f, stop = forwardLog(t, &log, file)
	f.configure([]string{b.addr()})
	got := []string{a.text(t), a.text(t), a.text(t), b.text(t), b.text(t), b.text(t)}
	log.add("at the end")
	stop() // what is left goes out
	got = append(got, b.text(t))
	if d := cmp.Diff([]string{"early", "second", "for both", "for both", "for the second", "while away", "at the end"}, got); d != "" {
		t.Error(d)
	}
	if len(a.got)+len(b.got) > 0 {
		t.Errorf("%d and %d messages more", len(a.got), len(b.got))
	}
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
}

// TestSyslogBurst: a long log goes out in order and without a loss, a bounded
// piece at a time.
func TestSyslogBurst(t *testing.T) {
	a := newSyslogd(t, "127.0.0.1:0")
	raw, err := a.PacketConn.(*net.UDPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	// All of it fits, however late this test reads, and whatever the machine's bound.
	raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20) })
	if err != nil {
		t.Fatal(err)
	}
	var log book
	for i := range 3 * syslogBurst / 2 {
		log.add(fmt.Sprint("line ", i))
	}
	f, _ := forwardLog(t, &log, "")
	f.configure([]string{a.addr()})
	for i := range 3 * syslogBurst / 2 {
		if got := a.text(t); got != fmt.Sprint("line ", i) {
			t.Fatalf("%q at %d", got, i)
		}
	}
}

// TestSyslogAway: lines wait for a server that cannot be reached, other servers
// do not, and it is said once.
func TestSyslogAway(t *testing.T) {
	a := newSyslogd(t, "127.0.0.1:0")
	var log book
	log.add("one")
	f, stop := forwardLog(t, &log, "")
	stop() // by hand from here
	said := &strings.Builder{}
	f.log = slog.New(slog.NewTextHandler(said, nil))
	f.servers = []*syslogServer{{addr: "no such name.invalid:514"}, {addr: a.addr()}}
	f.look(t.Context())
	if got := a.text(t); got != "one" {
		t.Errorf("%q", got)
	}
	log.add("two")
	f.look(t.Context()) // not tried again yet
	f.servers[0].retry = time.Time{}
	f.look(t.Context())
	if got := a.text(t); got != "two" || strings.Count(said.String(), "syslog no such name.invalid:514") != 1 {
		t.Errorf("%q, %q", got, said)
	}
	if !f.servers[0].at.IsZero() {
		t.Error("lines do not wait for the server")
	}
	f.servers[0].addr, f.servers[0].retry = a.addr(), time.Time{} // it is there again
	f.look(t.Context())
	if got := []string{a.text(t), a.text(t)}; got[0] != "one" || got[1] != "two" {
		t.Errorf("%q", got)
	}
	// init that does not answer costs nothing, nor does a clock that is set back.
	log.fail = true
	f.look(t.Context())
	log.fail = false
	f.servers[1].at = time.Now().Add(time.Hour)
	f.look(t.Context())
	log.add("three")
	f.look(t.Context())
	if got := []string{a.text(t), a.text(t)}; got[0] != "three" || got[1] != "three" {
		t.Errorf("%q", got)
	}
}

// TestSyslogRefused: a server that is not listening refuses; when it listens, lines come.
func TestSyslogRefused(t *testing.T) {
	// A port that refuses and is nobody else's: its socket takes datagrams of one peer only.
	closed, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 9), Port: 9})
	if err != nil {
		t.Fatal(err)
	}
	addr := closed.LocalAddr().String()
	var log book
	log.add("lost on the wire", "waits")
	f, stop := forwardLog(t, &log, "")
	stop()
	f.servers = []*syslogServer{{addr: addr}}
	await(t, "the refusal", func() bool {
		f.servers[0].retry = time.Time{}
		f.look(t.Context())
		log.add("more")
		return !f.servers[0].retry.IsZero()
	})
	closed.Close()
	b := newSyslogd(t, addr)
	f.servers[0].retry = time.Time{}
	log.add("last")
	f.look(t.Context())
	for b.text(t) != "last" {
	}
}

// TestSyslogService: the service forwards init's log to what the configuration names.
func TestSyslogService(t *testing.T) {
	dir := ipc.Dir(t.TempDir())
	ctx, end := context.WithCancel(context.Background())
	defer end()
	var log book
	log.add("vrrp starts")
	init := peer(t, ctx, dir, "init")
	init.Handle("log", func(ctx context.Context, _ ipc.Peer, body json.RawMessage) (any, error) {
		var q status.LogQuery
		if err := json.Unmarshal(body, &q); err != nil || q.Lines != syslogBacklog {
			return nil, fmt.Errorf("%+v: %v", q, err)
		}
		return log.read(ctx, q.After)
	})
	a := newSyslogd(t, "127.0.0.1:0")
	conf := peer(t, ctx, dir, "conf")
	conf.Publish(status.Conf{Generation: 1, Config: model.Config{System: model.System{Syslog: []string{a.addr()}}}})
	env, err := ipc.NewEnv(dir, "notify", discard())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		done <- RunWith(ctx, env, Options{Socket: ipc.Dir(fmt.Sprintf("@ballast-syslog-%d", os.Getpid()))})
	}()
	message := <-a.got
	if want := regexp.MustCompile(`^<29>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d\d:\d\d) \S+ vrrp - - - vrrp starts$`); !want.MatchString(message) {
		t.Errorf("%q", message)
	}
	log.add("at the end")
	end()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
