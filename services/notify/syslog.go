package notify

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

const (
	syslogGap     = time.Second      // between two looks at the log
	syslogBurst   = 500              // lines to one server at a look: more would overrun its socket
	syslogRetry   = 5 * time.Second  // until a server is tried again
	syslogQuiet   = 10 * time.Minute // between two words about a server that cannot be reached
	syslogBacklog = 20_000           // lines of one look
	syslogSize    = 2048             // bytes of a message, RFC 5426 section 3.2
	facility      = 3                // system daemons, RFC 5424 section 6.2.1
)

// forwarder sends the lines of the box's log to syslog servers as well: RFC 5424
// over UDP, one message a datagram (RFC 5426). init's log is its queue, which is
// bounded: a server that is away for long misses the oldest lines, and nothing
// waits for it.
type forwarder struct {
	read func(ctx context.Context, after time.Time) ([]status.LogLine, error) // oldest first
	log  *slog.Logger
	file string // remembers how far each server is, over a restart of this process; empty: nothing does
	boot string
	gap  time.Duration

	mu     sync.Mutex
	wanted []string // host:port
	news   chan struct{}

	// Only the goroutine of work.
	servers []*syslogServer
	begun   bool
}

// syslogServer is one server that lines go to.
type syslogServer struct {
	addr  string
	at    time.Time // of the last line that was sent
	conn  net.Conn
	retry time.Time // not before this
	told  time.Time // when it was last said that it cannot be reached
}

// syslogFile is what outlives a restart.
type syslogFile struct {
	Boot string               `json:"boot"`
	At   map[string]time.Time `json:"at"`
}

func newForwarder(env *ipc.Env, boot string) *forwarder {
	f := &forwarder{log: env.Log, boot: boot, gap: syslogGap, news: make(chan struct{}, 1)}
	if env.Run != "" {
		f.file = filepath.Join(env.Run, "syslog")
	}
	f.read = func(ctx context.Context, after time.Time) (lines []status.LogLine, err error) {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		err = env.Dir.Client("init").Call(ctx, "log", status.LogQuery{After: after, Lines: syslogBacklog}, &lines)
		return lines, err
	}
	return f
}

// configure says where lines go from now on.
func (f *forwarder) configure(servers []string) {
	f.mu.Lock()
	f.wanted = servers
	f.mu.Unlock()
	poke(f.news)
}

// work forwards until ctx ends, and then what is left.
func (f *forwarder) work(ctx context.Context) {
	var tick <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			f.look(last)
			f.apply(nil)
			return
		case <-f.news:
			f.mu.Lock()
			wanted := f.wanted
			f.mu.Unlock()
			f.apply(wanted)
		case <-tick:
		}
		f.look(ctx)
		if tick = nil; len(f.servers) > 0 {
			tick = time.After(f.gap)
		}
	}
}

// apply makes the servers those that are wanted. The first ones since the start
// of the box get its log from the beginning, later ones from now on.
func (f *forwarder) apply(wanted []string) {
	known := map[string]time.Time{}
	if !f.begun && len(wanted) > 0 {
		known = f.remembered()
	}
	var next []*syslogServer
	for _, addr := range wanted {
		var s *syslogServer
		for i, old := range f.servers {
			if old != nil && old.addr == addr {
				s, f.servers[i] = old, nil
			}
		}
		if s == nil {
			s = &syslogServer{addr: addr, at: known[addr]}
			if f.begun {
				s.at = time.Now()
			}
		}
		next = append(next, s)
	}
	for _, old := range f.servers {
		if old != nil && old.conn != nil {
			old.conn.Close()
		}
	}
	f.servers, f.begun = next, true
}

// look sends what is new.
func (f *forwarder) look(ctx context.Context) {
	if len(f.servers) == 0 {
		return
	}
	now := time.Now()
	oldest := now
	for _, s := range f.servers {
		if s.at.After(now) {
			s.at = now // the clock was set back
		}
		if s.at.Before(oldest) && !now.Before(s.retry) {
			oldest = s.at
		}
	}
	lines, err := f.read(ctx, oldest)
	if err != nil || len(lines) == 0 {
		return // init answers again before long, and still has the lines
	}
	host := syslogHost()
	sent := false
	for _, s := range f.servers {
		if now.Before(s.retry) {
			continue
		}
		n, err := s.send(ctx, lines, host)
		sent = sent || n > 0
		if err == nil || ctx.Err() != nil {
			continue
		}
		s.retry = now.Add(syslogRetry)
		if now.Sub(s.told) >= syslogQuiet {
			s.told = now
			f.log.Warn(fmt.Sprintf("syslog %s: %v; lines wait, and it is tried again every %v", s.addr, err, syslogRetry))
		}
	}
	if sent {
		f.remember()
	}
}

// send sends the lines behind the last one that went to the server, and tells
// how many.
func (s *syslogServer) send(ctx context.Context, lines []status.LogLine, host string) (n int, err error) {
	for _, l := range lines {
		if !l.Time.After(s.at) {
			continue
		}
		if n == syslogBurst {
			return n, nil
		}
		if s.conn == nil {
			d := net.Dialer{Timeout: 5 * time.Second}
			if s.conn, err = d.DialContext(ctx, "udp", s.addr); err != nil {
				s.conn = nil
				return n, err
			}
		}
		// A full queue of the device must not hold the others up.
		s.conn.SetWriteDeadline(time.Now().Add(time.Second))
		if _, err = s.conn.Write(syslogMessage(l, host)); err != nil {
			s.conn.Close()
			s.conn = nil // its name may lead elsewhere by then
			return n, err
		}
		s.at = l.Time
		n++
	}
	return n, nil
}

// syslogMessage is a line as RFC 5424 section 6 writes it: the service is the
// APP-NAME, and there is no PROCID, MSGID and structured data.
func syslogMessage(l status.LogLine, host string) []byte {
	priority := facility*8 + min(max(l.Priority, 0), 7)
	b := fmt.Appendf(nil, "<%d>1 %s %s %s - - - %s", priority, l.Time.Format("2006-01-02T15:04:05.000000Z07:00"), host, syslogName(l.Service, 48), l.Text)
	if len(b) > syslogSize {
		b = bytes.ToValidUTF8(b[:syslogSize], nil) // the last character may be cut
	}
	return b
}

func syslogHost() string {
	name, _ := os.Hostname()
	return syslogName(name, 255)
}

// syslogName keeps what may stand in the header, PRINTUSASCII; "-" is none.
func syslogName(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return -1
		}
		return r
	}, s)
	if s == "" {
		return "-"
	}
	return s[:min(len(s), most)]
}

func (f *forwarder) remembered() map[string]time.Time {
	var m syslogFile
	b, err := os.ReadFile(f.file)
	if f.file == "" || err != nil || json.Unmarshal(b, &m) != nil || m.Boot != f.boot || m.At == nil {
		return map[string]time.Time{}
	}
	return m.At
}

// remember writes how far the servers are, in memory. Without it a restart sends
// some lines twice, which is all that is lost.
func (f *forwarder) remember() {
	if f.file == "" {
		return
	}
	m := syslogFile{Boot: f.boot, At: map[string]time.Time{}}
	for _, s := range f.servers {
		m.At[s.addr] = s.at
	}
	b, err := json.Marshal(m)
	if err == nil && os.WriteFile(f.file+".new", b, 0o600) == nil {
		os.Rename(f.file+".new", f.file)
	}
}
