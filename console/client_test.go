package console

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// client starts the real client on a pseudo terminal of a kind and size.
func (l *lab) client(user, term string, columns, rows uint16, command ...string) (*screen, *exec.Cmd, *os.File) {
	l.t.Helper()
	m, slave := openPTY(l.t)
	setSize(l.t, slave, columns, rows)
	cmd := exec.Command("ssh", append(l.sshArgs(user, "-tt", user+"@127.0.0.1"), command...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.Env = append(os.Environ(), "TERM="+term)
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return newScreen(l.t, m), cmd, slave
}

func setSize(t *testing.T, tty *os.File, columns, rows uint16) {
	t.Helper()
	if err := unix.IoctlSetWinsize(int(tty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: rows}); err != nil {
		t.Fatal(err)
	}
}

// long makes the running configuration longer than any screen.
func (l *lab) long() {
	var b strings.Builder
	for i := range 100 {
		fmt.Fprintf(&b, "! comment %d\n", i+1)
	}
	l.conf.change(func() { l.conf.state.Text = b.String() })
}

// Nobody comes back to a page, or to a question.
func TestIdleAtAPage(t *testing.T) {
	for _, command := range []string{"show configuration\r", "reboot\r", "load\r", "edit full\r"} {
		l := newLab(t)
		l.idle = time.Second
		l.start()
		l.long()
		s, cmd, _ := l.client("admin", "xterm", 80, 24)
		s.expect("lb1> ")
		s.send(command)
		s.expect("nobody typed for a long time")
		cmd.Wait()
		l.stop()
	}
}

// Each kind of terminal gets a prompt, a history and its own kind of cursor keys.
func TestTerminals(t *testing.T) {
	l := newLab(t).start()
	for _, c := range []struct{ term, up, left, wordLeft, home, escapes string }{
		{"xterm-256color", "\x1b[A", "\x1b[D", "\x1b[1;5D", "\x1b[H", "\x1b[?2004h"},
		{"putty", "\x1b[A", "\x1b[D", "\x1bOD", "\x1b[1~", "\x1b[?2004h"},
		{"xterm", "\x1bOA", "\x1bOD", "\x1bb", "\x1b[1~", "\x1b[?2004h"}, // PuTTY calls itself xterm; application keys
		{"linux", "\x1b[A", "\x1b[D", "\x1bb", "\x1b[1~", ""},
		{"vt100", "\x1bOA", "\x1bOD", "\x1bb", "\x01", ""},
		{"dumb", "\x10", "\x02", "\x1bb", "\x01", ""},
	} {
		s, cmd, _ := l.client("view", c.term, 80, 24)
		s.expect("lb1> ")
		s.send("show vrrp\r")
		s.expect("VI_1      MASTER", "lb1> ")
		s.send(c.up + "P" + c.left + c.left + "\x7f\x7f\x7f\x7f" + c.home + c.wordLeft + "\x05\x15show vrr" + "\x1b[200~p\x1b[201~\r")
		s.expect("VI_1      MASTER", "lb1> ")
		s.send("\x04")
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: left with %v", c.term, err)
		}
		text := s.out.String()
		if c.escapes != "" != strings.Contains(text, "\x1b") || !strings.Contains(text, c.escapes) {
			t.Errorf("%s: escape sequences, want %q: %q", c.term, c.escapes, text)
		}
	}
}

func TestPaging(t *testing.T) {
	l := newLab(t).start()
	l.long()
	s, cmd, tty := l.client("admin", "xterm", 80, 24)
	s.expect("lb1> ")
	s.send("show configuration\r")
	s.expect("comment 23\r\n", "-- more -- 23%, 100 lines")
	s.send(" ")
	s.expect("comment 46\r\n", "-- more --")
	s.send("/comment 90\r")
	s.expect("...", "comment 90\r\n", "lb1> ") // the end of it
	s.send("show configuration\r")
	s.expect("-- more --")
	s.send("\x03") // ends the paging, not the session
	s.expect("lb1> ")
	setSize(t, tty, 100, 40)
	cmd.Process.Signal(unix.SIGWINCH) // the client is told by its terminal
	// It tells the console beside what is typed: a page shows when that has come.
	for end, page := time.Now().Add(patience), ""; !strings.Contains(page, "-- more -- 39%"); {
		from := s.at
		s.send("show configuration\r")
		s.expect("-- more -- ", "%,")
		page = s.out.String()[from:s.at]
		s.send("q")
		s.expect("lb1> ")
		if last := strings.Contains(page, "comment 39\r\n"); last != strings.Contains(page, "39%") || !last && time.Now().After(end) {
			t.Fatalf("on a screen of 40 rows: %q", page)
		}
	}
	for _, all := range []string{"show configuration | no-more\r", "terminal length 0\rshow conf\r"} {
		from := s.at
		s.send(all)
		s.expect("comment 100\r\n", "lb1> ")
		if strings.Contains(s.out.String()[from:], "more --") {
			t.Errorf("%q waits for a key", all)
		}
	}
	s.send("terminal length 10\rshow configuration\r")
	s.expect("comment 9\r\n", "-- more -- 9%")
	s.send("q")
	s.expect("lb1> ")
	s.send("terminal width 5\r")
	s.expect("does not fit: terminal width COLUMNS", "lb1> ")
	// Nobody is there to press a key.
	for _, term := range []string{"xterm", "dumb"} {
		o, cmd, _ := l.client("admin", term, 80, 24, "show configuration")
		o.expect("comment 100\r\n")
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
		if strings.Contains(o.out.String(), "more --") {
			t.Errorf("%s: a one-shot waits for a key", term)
		}
	}
	d, _, _ := l.client("admin", "dumb", 80, 24)
	d.expect("lb1> ")
	d.send("show configuration\r")
	d.expect("comment 100\r\n", "lb1> ")
	l.ssh("admin", "", "terminal length 0").want(t, 1, "", "no terminal")
}

func TestHistoryOverSessions(t *testing.T) {
	l := newLab(t).start()
	leave := func(user string, lines ...string) {
		t.Helper()
		s, cmd, _ := l.client(user, "dumb", 80, 24)
		s.expect("lb1> ")
		for _, line := range lines {
			s.send(line + "\r")
			s.expect("lb1> ")
		}
		s.send("\x04")
		cmd.Wait()
	}
	leave("admin", "show vrrp", "show auth_pass hunter2", "show version")
	leave("admin", "show log")
	leave("view", "show processes")
	s, cmd, _ := l.client("admin", "dumb", 80, 24)
	s.expect("lb1> ")
	s.send("\x10\x10\x10\r") // two sessions back, past the secret
	s.expect("VI_1      MASTER", "lb1> ")
	s.send("\x12proc") // what another user typed
	s.expect("not found")
	s.send("\x07\x12vers\r")
	s.expect("Kernel", "lb1> ")
	s.send("\x04")
	cmd.Wait()
	files, _ := filepath.Glob(l.dir + "/data/history/*")
	for _, f := range files {
		if b, err := os.ReadFile(f); err != nil || strings.Contains(string(b), "hunter2") {
			t.Errorf("a secret was kept: %q %v", b, err)
		}
	}
	if len(files) != 2 {
		t.Errorf("histories %q", files)
	}
}

// A user who is gone leaves nothing behind.
func TestHistoryOfUsersWhoAreGone(t *testing.T) {
	warned := ""
	h := newHistories(t.TempDir(), func(s string) { warned = s })
	h.save("ann", []string{"show vrrp"})
	h.save("ann", []string{"show log"})
	h.save("../bob/\x00", []string{"show version"})
	if got := strings.Join(h.load("ann"), ","); got != "show vrrp,show log" {
		t.Errorf("ann: %q", got)
	}
	h.prune(func(u string) bool { return u == "ann" })
	if a, b := h.load("ann"), h.load("../bob/\x00"); len(a) != 2 || b != nil || warned != "" {
		t.Errorf("%q %q %q", a, b, warned)
	}
	os.RemoveAll(h.dir)
	os.WriteFile(h.dir, nil, 0o600) // no folder can be made
	h.save("ann", []string{"x"})
	if !strings.Contains(warned, "not kept") {
		t.Errorf("warned %q", warned)
	}
}

// Of a paste of which a command fails nothing more is done.
func TestPasteStopsAtAFailure(t *testing.T) {
	l := newLab(t).start()
	s, _, _ := l.client("admin", "xterm", 80, 24)
	s.expect("lb1> ")
	s.send("\x1b[200~show version\r\nshow rubbish\r\nresign\r\nresume\r\n\x1b[201~")
	s.expect("Kernel", "does not take \"rubbish\"", "2 more pasted lines are left out", "lb1> ")
	s.send("show vrrp\r")
	s.expect("VI_1      MASTER", "lb1> ")
	select {
	case v := <-l.verbs:
		t.Errorf("%s was done", v)
	default:
	}
}

// The candidate on the whole screen, over the real client.
func TestEditFull(t *testing.T) {
	l := newLab(t).start()
	s, cmd, tty := l.client("admin", "xterm", 80, 24)
	s.expect("lb1> ")
	s.send("edit full\r")
	s.expect("\x1b[?1049h", "candidate  line 1 of 2", "vrrp_instance VI_1 {", "^X leave")
	s.send("bad\r")
	s.expect("changed")
	s.send("\x0f")
	s.expect("1 problems", "unknown keyword bad; write good")
	setSize(t, tty, 100, 30)
	cmd.Process.Signal(unix.SIGWINCH)
	s.expect("\x1b[2J", "\x1b[30;1H") // all of the larger screen
	s.send("\x1a\x1a! note\r\x18y")
	s.expect("\x1b[?1049l", "taken over", "[edit]", "lb1# ")
	s.send("commit\r")
	s.expect("committed: generation 8", "lb1# ")
	if got := l.conf.commits()[0].Text; got != "! note\nvrrp_instance VI_1 {\n}\n" {
		t.Errorf("conf got %q", got)
	}
	l.copied("scp", "admin", "", l.file("new.conf", "! new\n"), "admin@127.0.0.1:candidate").want(t, 0, "", "kept")
	d, _, _ := l.client("admin", "dumb", 80, 24)
	d.expect("A configuration was uploaded 0s ago", "lb1> ")
	d.send("edit full\r")
	d.expect("a terminal that is known")
	l.ssh("admin", "", "edit full").want(t, 1, "", "needs a terminal")
	l.ssh("view", "", "edit full").want(t, 1, "", "permission denied")
}
