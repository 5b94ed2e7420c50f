package console

import (
	"context"
	"encoding/json"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"ballast/services/ipc"
	"ballast/services/ipc/status"

	"golang.org/x/sys/unix"
)

// shown follows a terminal well enough to know what is on its screen: what the
// view may send, and fails on anything else.
type shown struct {
	mu    sync.Mutex
	t     *testing.T
	cells [24][80]rune
	x, y  int
	other *shown // the screen before, while the view has one of its own
	left  []byte // of a sequence that is not complete yet
	alt   bool
	hid   bool // the cursor is hidden
	// The lines from top to before bottom scroll; insert moves what is right of the cursor.
	top, bottom int
	insert      bool
	bytes       int
	news        chan struct{}
}

func newShown(t *testing.T) *shown {
	s := &shown{t: t, news: make(chan struct{}, 1)}
	s.bottom = 24
	s.clear(0, 24)
	return s
}

// scroll moves the lines from a to before b up by n, or down by -n.
func (s *shown) scroll(a, b, n int) {
	n = max(a-b, min(n, b-a))
	if n >= 0 {
		copy(s.cells[a:b], s.cells[a+n:b])
		s.clear(b-n, b)
		return
	}
	copy(s.cells[a-n:b], s.cells[a:b])
	s.clear(a, a-n)
}

func (s *shown) clear(from, to int) {
	for y := from; y < to; y++ {
		for x := range s.cells[y] {
			s.cells[y][x] = ' '
		}
	}
}

func (s *shown) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bytes += len(p)
	text := append(s.left, p...)
	for len(text) > 0 {
		n := s.one(text)
		if n == 0 {
			break
		}
		text = text[n:]
	}
	s.left = append([]byte(nil), text...)
	select {
	case s.news <- struct{}{}:
	default:
	}
	return len(p), nil
}

// one takes one character or sequence; 0: it is not complete.
func (s *shown) one(p []byte) int {
	switch c := p[0]; {
	case c == '\r':
		s.x = 0
	case c == '\n':
		if s.y == s.bottom-1 {
			s.scroll(s.top, s.bottom, 1)
		} else {
			s.y = min(23, s.y+1)
		}
	case c == '\b':
		s.x = max(0, s.x-1)
	case c == 7 || c == 14 || c == 15:
	case c == 27:
		if len(p) < 2 {
			return 0
		}
		if p[1] == 'M' { // a line up
			if s.y == s.top {
				s.scroll(s.top, s.bottom, -1)
			} else {
				s.y = max(0, s.y-1)
			}
		}
		if p[1] != '[' {
			return 2
		}
		for i := 2; i < len(p); i++ {
			if p[i] >= 0x40 && p[i] <= 0x7e {
				s.sequence(string(p[2:i]), p[i])
				return i + 1
			}
		}
		return 0
	default:
		r, n := []rune(string(p[:min(len(p), 4)]))[0], 0
		if n = len(string(r)); r == 0xfffd && len(p) < 4 {
			return 0
		}
		if s.x < 80 {
			if s.insert {
				copy(s.cells[s.y][s.x+1:], s.cells[s.y][s.x:])
			}
			s.cells[s.y][s.x] = r
			s.x++
		}
		return n
	}
	return 1
}

func (s *shown) sequence(args string, final byte) {
	if strings.HasPrefix(args, "?") {
		switch args[1:] {
		case "1049":
			if s.alt = final == 'h'; s.alt {
				s.other = &shown{cells: s.cells, x: s.x, y: s.y}
				s.clear(0, 24)
			} else {
				s.cells, s.x, s.y = s.other.cells, s.other.x, s.other.y
			}
		case "7": // lines are broken at the edge, or not
		case "25":
			s.hid = final == 'l'
		case "2004": // the prompt marks what is pasted
		default:
			s.t.Errorf("mode %q %c", args, final)
		}
		return
	}
	var n [2]int
	for i, a := range strings.SplitN(args, ";", 2) {
		for _, d := range a {
			n[i] = 10*n[i] + int(d-'0')
		}
	}
	by := max(1, n[0])
	switch final {
	case 'H':
		s.y, s.x = min(23, max(1, n[0])-1), min(79, max(1, n[1])-1)
	case 'A':
		s.y = max(0, s.y-by)
	case 'B':
		s.y = min(23, s.y+by)
	case 'C':
		s.x = min(79, s.x+by)
	case 'D':
		s.x = max(0, s.x-by)
	case 'K':
		for x := s.x; x < 80 && n[0] == 0; x++ {
			s.cells[s.y][x] = ' '
		}
		if n[0] != 0 {
			s.t.Errorf("erase %q", args)
		}
	case 'J':
		if n[0] == 2 {
			s.clear(0, 24)
			return
		}
		for x := s.x; x < 80; x++ {
			s.cells[s.y][x] = ' '
		}
		s.clear(s.y+1, 24)
	case 'm':
	case 'r': // the lines that scroll
		if s.top, s.bottom = max(1, n[0])-1, n[1]; s.bottom == 0 {
			s.bottom = 24
		}
		s.x, s.y = 0, 0
	case 'h', 'l':
		if s.insert = final == 'h'; n[0] != 4 {
			s.t.Errorf("mode %q %c", args, final)
		}
	case 'L', 'M': // lines are put in, or taken out, at the cursor
		if final == 'L' {
			by = -by
		}
		if s.y >= s.top && s.y < s.bottom {
			s.scroll(s.y, s.bottom, by)
			s.x = 0
		}
	case 'P': // characters are taken out
		row := s.cells[s.y][:]
		by = min(by, len(row)-s.x)
		copy(row[s.x:], row[s.x+by:])
		for x := len(row) - by; x < len(row); x++ {
			row[x] = ' '
		}
	default:
		s.t.Errorf("a terminal is sent %q %c", args, final)
	}
}

func (s *shown) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for y := range s.cells {
		out = append(out, strings.TrimRight(string(s.cells[y][:]), " "))
	}
	return strings.Join(out, "\n")
}

// await waits until all parts are on the screen.
func (s *shown) await(parts ...string) {
	s.t.Helper()
	end := time.After(patience)
	for {
		text, missing := s.text(), ""
		for _, p := range parts {
			if !strings.Contains(text, p) {
				missing = p
			}
		}
		if missing == "" {
			return
		}
		select {
		case <-s.news:
		case <-end:
			s.t.Fatalf("no %q on the screen:\n%s", missing, text)
		}
	}
}

// awaitRestored waits until the terminal is as it was before the view.
func (s *shown) awaitRestored() {
	s.t.Helper()
	end := time.After(patience)
	for {
		s.mu.Lock()
		left := s.alt || s.hid
		s.mu.Unlock()
		if !left {
			return
		}
		select {
		case <-s.news:
		case <-end:
			s.t.Fatalf("the terminal is not as before:\n%s", s.text())
		}
	}
}

const webServer = "[10.0.0.100]:tcp:80"

// serveServers adds ipvs, health and notify to a lab; orders are sent to l.verbs.
func (l *lab) serveServers() {
	l.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	l.t.Cleanup(func() { cancel(); wg.Wait() })
	var mu sync.Mutex
	dest := status.Dest{Addr: netip.MustParseAddr("10.0.0.21"), Port: 80, Forward: "DR", Weight: 1, Active: 12, Stats: status.Stats{CPS: 42}}
	ipvs, health, notify := ipc.NewServer("ipvs"), ipc.NewServer("health"), ipc.NewServer("notify")
	handle := func(s *ipc.Server, verb string, fn func(body json.RawMessage) any) {
		s.Handle(verb, func(_ context.Context, _ ipc.Peer, body json.RawMessage) (any, error) {
			mu.Lock()
			defer mu.Unlock()
			return fn(body), nil
		}, ipc.AnyUID)
	}
	handle(ipvs, "page", func(json.RawMessage) any {
		return status.Page{Sum: status.Sum{Virtual: 1, Real: 1}, Matched: 1, Rows: []status.PageRow{{Name: webServer, QuorumUp: true, Real: 1, Active: uint64(dest.Active), Stats: dest.Stats}}}
	})
	handle(ipvs, "service", func(json.RawMessage) any {
		return []status.Service{{VirtualServer: webServer, Scheduler: "wrr", Dests: []status.Dest{dest}}}
	})
	handle(ipvs, "orders", func(json.RawMessage) any { return []status.Order{} })
	handle(ipvs, "order", func(body json.RawMessage) any {
		var o status.ServerOrder
		json.Unmarshal(body, &o)
		dest.Weight, dest.Order = 0, o.Action
		l.verbs <- "ipvs order " + string(body)
		return []status.Dest{dest}
	})
	handle(health, "server", func(json.RawMessage) any {
		return status.VirtualServerHealth{Name: webServer, QuorumUp: true, Weight: 1, Quorum: 1, Real: []status.RealServerHealth{
			{Addr: dest.Addr, Port: 80, Alive: true, Since: time.Now(), Checks: []status.CheckHealth{{Kind: "TCP_CHECK", Up: true, Known: true, Detail: "connected"}}}}}
	})
	handle(notify, "journal", func(json.RawMessage) any {
		return []status.Entry{{Service: "vrrp", Transition: status.Transition{Time: time.Now(), Object: "VI_1", From: "BACKUP", To: "MASTER", Reason: "because"}}}
	})
	for name, s := range map[string]*ipc.Server{"ipvs": ipvs, "health": health, "notify": notify} {
		env, err := ipc.NewEnv(ipc.Dir(l.dir), name, nil)
		if err != nil {
			l.t.Fatal(err)
		}
		wg.Go(func() { s.Serve(ctx, env.Listener) })
	}
}

// onScreen starts the real client on a terminal of 80 by 24.
func (l *lab) onScreen(user, term string, command ...string) (*shown, *os.File, *exec.Cmd) {
	l.t.Helper()
	m, slave := openPTY(l.t)
	if err := unix.IoctlSetWinsize(int(slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 80}); err != nil {
		l.t.Fatal(err)
	}
	cmd := exec.Command("ssh", append(l.sshArgs(user, "-tt", user+"@127.0.0.1"), command...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.Env = append(os.Environ(), "TERM="+term)
	if err := cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	s := newShown(l.t)
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := m.Read(buf)
			s.Write(buf[:n])
			if err != nil {
				return // closed by the test's end
			}
		}
	}()
	return s, m, cmd
}

// The view over the real client: look into a server, drain it, leave; the
// terminal is as before, and the session goes on.
func TestMonitor(t *testing.T) {
	l := newLab(t)
	l.serveServers()
	l.start()
	s, keys, cmd := l.onScreen("operate", "xterm-256color")
	s.await("lb1>")
	keys.WriteString("monitor\r")
	s.await("lb1  generation 7", "VI_1", "MASTER", "> "+webServer, "BACKUP -> MASTER: because", "q quit")
	if !s.alt || !s.hid {
		t.Error("neither another screen nor a hidden cursor")
	}
	keys.WriteString("\x1b[B\r")
	s.await("> 10.0.0.21:80", "TCP_CHECK: connected", "quorum up")
	keys.WriteString("d")
	s.await("drain 10.0.0.21:80 of " + webServer + ": no new connections for it? [y/N]")
	keys.WriteString("y")
	s.await("10.0.0.21:80: weight 0, 12 active", "drain  ")
	if got := <-l.verbs; !strings.Contains(got, `"action":"drain","by":"operate@127.0.0.1"`) || !strings.Contains(got, webServer) {
		t.Errorf("ipvs was told %s", got)
	}
	if !strings.Contains(l.log.String(), "operate from 127.0.0.1: drain 10.0.0.21:80 of "+webServer+": ok") {
		t.Errorf("the order is not in the log:\n%s", l.log)
	}
	keys.WriteString("\r")
	s.await("10.0.0.21:80 of "+webServer, "Kernel")
	keys.WriteString("qqq")
	s.awaitRestored()
	s.await("lb1> monitor\nlb1>")     // a new prompt: what is typed before it may still be the view's
	keys.WriteString("show status\r") // no key was lost
	s.await("no alarms", "because")
	keys.WriteString("exit\r")
	if err := cmd.Wait(); err != nil {
		t.Errorf("left with %v", err)
	}
}

// Ctrl-C leaves the view of a one-shot; the role view may give no orders; an
// old terminal gets ASCII without colours.
func TestMonitorOneShot(t *testing.T) {
	l := newLab(t)
	l.serveServers()
	l.start()
	s, keys, cmd := l.onScreen("view", "vt100", "monitor")
	s.await("> " + webServer)
	keys.WriteString("\r")
	s.await("> 10.0.0.21:80")
	keys.WriteString("dy")
	s.await("permission denied")
	for _, r := range s.text() {
		if r > 0x7e {
			t.Errorf("%q on a vt100", r)
		}
	}
	keys.WriteString("\x03")
	if err := cmd.Wait(); err != nil {
		t.Errorf("left with %v", err)
	}
	s, _, cmd = l.onScreen("view", "dumb", "monitor")
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("on a dumb terminal: %v", err)
	}
	s.await("cannot show a full screen")
	l.ssh("view", "", "monitor").want(t, 1, "", "there is no terminal here")
	l.ssh("view", "", "monitor", "--once").want(t, 0, webServer, "")
	l.ssh("view", "", "show", "status", "--json").want(t, 0, `"alarms": []`, "")
}

// Who types nothing is out, as at the prompt, and the terminal is as before.
func TestMonitorIdle(t *testing.T) {
	l := newLab(t)
	l.serveServers()
	l.idle = 5 * time.Second // the view is on the screen for no longer
	l.start()
	s, _, cmd := l.onScreen("view", "xterm", "monitor")
	s.await("> " + webServer)
	done := make(chan struct{})
	go func() { cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("the session is still open")
	}
	s.awaitRestored()
}

// On a serial line the user names the terminal.
func TestMonitorOnSerial(t *testing.T) {
	l := newLab(t)
	l.serveServers()
	m, slave := openPTY(t)
	l.serial = slave
	s := newShown(t)
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := m.Read(buf)
			s.Write(buf[:n])
			if err != nil {
				return
			}
		}
	}()
	l.start()
	s.await("Press Enter")
	m.WriteString("\r")
	s.await("lb1>")
	m.WriteString("monitor\r")
	s.await("name it, for example")
	m.WriteString("monitor vt100\r")
	s.await("lb1  generation 7", "> "+webServer, "q quit")
	m.WriteString("q")
	s.await("monitor vt100\nlb1>") // a new prompt: what is typed before it may still be the view's
	m.WriteString("show version\r")
	s.await("Kernel")
}
