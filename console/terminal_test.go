package console

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// openPTY makes a pseudo terminal.
func openPTY(t *testing.T) (master, slave *os.File) {
	t.Helper()
	m, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := m.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var n int
	raw.Control(func(fd uintptr) {
		if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err == nil {
			n, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	s, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close(); s.Close() })
	return m, s
}

// screen follows what a terminal shows.
type screen struct {
	t   *testing.T
	out *lockedBuffer
	to  *os.File
	at  int
}

func newScreen(t *testing.T, m *os.File) *screen {
	s := &screen{t: t, out: newLockedBuffer(), to: m}
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := m.Read(buf)
			s.out.Write(buf[:n])
			if err != nil {
				return // closed by the test's end
			}
		}
	}()
	return s
}

func (s *screen) send(text string) {
	s.t.Helper()
	if _, err := s.to.WriteString(text); err != nil {
		s.t.Fatal(err)
	}
}

func (s *screen) expect(parts ...string) {
	s.t.Helper()
	for _, p := range parts {
		s.at = s.out.await(s.t, s.at, p)
	}
}

// onTerminal starts the real client on a pseudo terminal.
func (l *lab) onTerminal(user string) (*screen, *exec.Cmd) {
	l.t.Helper()
	m, slave := openPTY(l.t)
	cmd := exec.Command("ssh", l.sshArgs(user, "-tt", user+"@127.0.0.1")...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.Env = append(os.Environ(), "TERM=xterm")
	if err := cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return newScreen(l.t, m), cmd
}

// endless is a client that sends a line without an end.
type endless struct{ sent int }

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	e.sent += len(p)
	if e.sent > 2*maxInput {
		return 0, io.ErrUnexpectedEOF
	}
	return len(p), nil
}

func TestReadUntilDot(t *testing.T) {
	e := &endless{}
	if _, err := readUntilDot(bufio.NewReaderSize(e, 64<<10)); err == nil || !strings.Contains(err.Error(), "bytes were sent") || e.sent > maxInput+1<<20 {
		t.Errorf("a line without an end: %d bytes were read, %v", e.sent, err)
	}
	long := strings.Repeat("y", 100)
	for _, c := range []struct{ in, want string }{
		{"a\n.\nrest", "a\n"}, {"a\r\n.\r\nb", "a\r\n"}, {"a\n", "a\n"}, {"a", "a"}, {".", ""}, {"", ""}, {"a.\n..\n. \n", "a.\n..\n. \n"},
		{long + "\n.\n", long + "\n"}, {long[:16] + ".\nb", long[:16] + ".\nb"}, {long[:15] + "\n.\nb", long[:15] + "\n"},
	} {
		if got, err := readUntilDot(bufio.NewReaderSize(strings.NewReader(c.in), 16)); got != c.want || err != nil {
			t.Errorf("%q: %q, %v", c.in, got, err)
		}
	}
}

// A configuration may hold anything in its comments; a screen does not obey it.
func TestHostileConfiguration(t *testing.T) {
	l := newLab(t)
	const text = "! \x1b]0;owned\a \u009b2J\n"
	l.conf.change(func() { l.conf.state.Text = text })
	l.start()
	s, _ := l.onTerminal("admin")
	s.expect("lb1> ")
	s.send("show conf\r")
	s.expect("show conf", "! ?]0;owned? ?2J", "lb1> ")
	if o := l.ssh("admin", "", "show", "configuration"); o.out != text {
		t.Errorf("into a file: %q, want %q", o.out, text)
	}
}

func TestInteractiveSession(t *testing.T) {
	l := newLab(t).start()
	s, cmd := l.onTerminal("admin")
	s.expect("Ballast director lb1", "lb1> ")
	s.send("sh vr\r")
	s.expect("VI_1      MASTER", "lb1> ")
	s.send("\x1b[A\r") // the last one again
	s.expect("sh vr", "VI_1      MASTER", "lb1> ")
	s.send("show v\t")
	s.expect("version", "vrrp")
	s.send("rr\t")
	s.expect("show vrrp ")
	s.send("\t") // the only instance
	s.expect("VI_1 ")
	s.send("\r")
	s.expect("Router", "VRID 51", "lb1> ")
	s.send("rubbish\x15help\r") // Ctrl-U
	s.expect("virtual routers: state", "lb1> ")
	s.send("nonsense \x03") // Ctrl-C gives up the line
	s.expect("^C", "lb1> ")
	s.send("load\r")
	s.expect("end with a line that holds only \".\"")
	s.send("vrrp_instance X {\r}\r.\r")
	s.expect("loaded;", "lb1 candidate> ")
	s.send("exit\r")
	s.expect("\"exit\" again forgets it", "candidate> ")
	s.send("commit comment typed\r")
	s.expect("committed: generation 8", "lb1> ")
	if got := l.conf.got[0]; got.Text != "vrrp_instance X {\n}\n" || got.Comment != "typed" {
		t.Errorf("conf got %+v", got)
	}
	s.send("reboot\r")
	s.expect("Reboot this box?")
	s.send("n\r")
	s.expect("not done", "lb1> ")
	s.send("reb\r")
	s.expect("[y/N]")
	s.send("y\r")
	s.expect("rebooting")
	if got := <-l.verbs; got != `init reboot {"by":"admin@127.0.0.1"}` {
		t.Error(got)
	}
	s.send("\x04") // Ctrl-D
	if err := cmd.Wait(); err != nil {
		t.Errorf("left with %v", err)
	}
}

// Ctrl-C, or a connection that is cut, must not stop a commit.
func TestCtrlCDoesNotStopACommit(t *testing.T) {
	for _, cut := range []bool{false, true} {
		l := newLab(t).start()
		s, cmd := l.onTerminal("admin")
		s.expect("lb1> ")
		hold, began, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
		l.conf.change(func() { l.conf.hold, l.conf.began, l.conf.ended = hold, began, ended })
		s.send("load\rx\r.\r")
		s.expect("candidate> ")
		s.send("commit\r")
		<-began
		s.send("\x03")
		if cut {
			cmd.Process.Kill()
			cmd.Wait()
		}
		close(hold)
		<-ended
		if !cut {
			s.expect("committed: generation 8", "lb1> ")
		}
		l.conf.mu.Lock()
		if len(l.conf.got) != 1 {
			t.Errorf("cut %v: the commit was not finished", cut)
		}
		l.conf.mu.Unlock()
		l.stop()
	}
}

func TestSerialConsole(t *testing.T) {
	l := newLab(t)
	m, slave := openPTY(t)
	l.serial = slave
	s := newScreen(t, m)
	l.start()
	s.expect("Ballast director lb1", "eth0     10.0.0.11/24 (dhcp)", "SSH host key SHA256:", "Press Enter")
	s.send("\r")
	s.expect("lb1> ")
	s.send("show vrrp\r")
	s.expect("MASTER", "lb1> ")
	s.send("load\rvrrp_instance S {\r\n}\r\n.\r")
	s.expect("loaded;", "candidate> ")
	s.send("commit\r")
	s.expect("committed: generation 8", "lb1> ")
	if got := l.conf.got[0]; got.Text != "vrrp_instance S {\n}\n" || got.Author != "serial@serial" {
		t.Errorf("conf got %+v", got)
	}
	s.send("exit\r")
	s.expect("Press Enter")
	s.send("\r") // the first key of the next session is not lost
	s.expect("lb1> ")
	s.send("show version\r")
	s.expect("Kernel", "lb1> ")
	if strings.Contains(s.out.String(), "\x1b") {
		t.Error("escape sequences were sent to a serial line")
	}
	if strings.Contains(s.out.String(), "\n\n") || strings.Contains(strings.ReplaceAll(s.out.String(), "\r\n", ""), "\n") {
		t.Error("a bare newline was sent to a raw line")
	}
}

// The screen of the box does what a serial line does, and its size and kind are
// known.
func TestScreenConsole(t *testing.T) {
	l := newLab(t)
	m, slave := openPTY(t)
	if err := unix.IoctlSetWinsize(int(slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 25, Col: 80}); err != nil {
		t.Fatal(err)
	}
	l.screen = slave
	s := newScreen(t, m)
	l.start()
	s.expect("Ballast director lb1", "Press Enter")
	s.send("\r")
	s.expect("lb1> ")
	s.send("show sessions\r")
	s.expect("screen", "screen", "lb1> ")
	s.send("load\rvrrp_instance S {\r\n}\r\n.\r")
	s.expect("loaded;", "candidate> ")
	s.send("commit\r")
	s.expect("committed: generation 8", "lb1> ")
	if got := l.conf.got[0]; got.Author != "screen@screen" {
		t.Errorf("conf got %+v", got)
	}
	s.send("monitor\r") // which a serial line refuses without a name of a terminal
	s.expect("\x1b[", "lb1")
	s.send("q")
	s.expect("lb1> ")
}

func TestSerialTellsFactory(t *testing.T) {
	l := newLab(t)
	m, slave := openPTY(t)
	l.serial = slave
	s := newScreen(t, m)
	l.start()
	s.expect("Press Enter")
	l.conf.change(func() { l.conf.state.Source = "factory"; l.conf.state.Generation++ })
	s.expect("no configuration yet", "Press Enter") // the banner is shown again
	s.send("\r")
	s.expect("no configuration yet", "Host name [lb1]: ")
}

func TestIdleSessionIsClosed(t *testing.T) {
	l := newLab(t)
	l.idle = 500 * time.Millisecond
	l.start()
	s, cmd := l.onTerminal("view")
	s.expect("lb1> ")
	s.expect("nobody typed for a long time")
	done := make(chan struct{})
	go func() { cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(patience):
		t.Error("the session is still open")
	}
}

// Configure mode on a real terminal: its prompt, help at each position, and a
// way out that asks.
func TestConfigureOnATerminal(t *testing.T) {
	l := newLab(t)
	l.conf.change(func() { l.conf.state.Text = someText })
	l.start()
	s, cmd := l.onTerminal("admin")
	s.expect("lb1> ")
	s.send("conf\r")
	s.expect("[edit]\r\n", "lb1# ")
	s.send("edit vrrp_inst\t")
	s.expect("edit vrrp_instance ")
	s.send("VI\t\r")
	s.expect("[edit vrrp_instance VI_1]\r\n", "lb1# ")
	s.send("set prio?")
	s.expect("priority", "the highest becomes master", "set prio")
	s.send("\t?")
	s.expect("1..255")
	s.send("150\r")
	s.expect("[edit vrrp_instance VI_1]\r\n", "lb1# ")
	s.send("show\r")
	s.expect("vrrp_instance VI_1 {\r\n", "priority 150", "auth_pass ********", "lb1# ")
	s.send("top\r")
	s.expect("[edit]\r\n", "lb1# ")
	s.send("run show vrrp\r")
	s.expect("VI_1      MASTER", "lb1# ")
	s.send("exit\r")
	s.expect("not committed", "[y/N] ")
	s.send("n\r")
	s.expect("still in configure mode", "lb1# ")
	s.send("commit and-quit\r")
	s.expect("committed: generation 8", "lb1> ")
	l.conf.mu.Lock()
	if got := l.conf.got[0]; !strings.Contains(got.Text, "priority 150\n") || !strings.Contains(got.Text, "auth_pass topsecret") || got.Session == nil || !got.Session.Terminal || got.Session.Local.String() != "127.0.0.1" {
		t.Errorf("conf got %+v", got)
	}
	l.conf.mu.Unlock()
	s.send("exit\r")
	if err := cmd.Wait(); err != nil {
		t.Errorf("left with %v", err)
	}
	if strings.Contains(l.log.String(), "topsecret") {
		t.Error("the log holds a secret")
	}
}
