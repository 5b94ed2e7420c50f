package console

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// Every way to give commands without sitting at a terminal: what comes on which
// stream, and with which status.
func TestStreams(t *testing.T) {
	l := newLab(t).start()
	const change = "configure; set vrrp_instance VI_1 priority 90; commit comment one line"
	l.ssh("admin", "", change).want(t, 0, "committed: generation 8", "")
	if got := l.conf.commits()[0].Text; got != "vrrp_instance VI_1 {\n    priority 90\n}\n" {
		t.Errorf("conf got %q", got)
	}
	// The first that fails ends it, and nothing is committed.
	o := l.ssh("admin", "", "configure; set vrrp_instance VI_1 priority 900; commit")
	if o.code == 0 || !strings.Contains(o.err, "1…255") || o.out != "" {
		t.Errorf("a bad set: %+v", o)
	}
	l.ssh("admin", "", "configure; set vrrp_instance VI_1 priority 91").want(t, 1, "", "not committed")
	with := func(stdin string, options []string, command ...string) outcome {
		return l.run(stdin, append(l.sshArgs("admin", append(options, "admin@127.0.0.1")...), command...)...)
	}
	// A heredoc, with the ends of lines of either kind, and without the last one.
	for i, text := range []string{"configure\nset vrrp_instance VI_1 priority 92\ncommit\nexit\n", "configure\r\nset vrrp_instance VI_1 priority 93\r\ncommit\r\n",
		"# a comment\n\nconfigure\nset vrrp_instance VI_1 priority 94\ncommit"} {
		o := with(text, []string{"-T"})
		if o.code != 0 || !strings.Contains(o.out, fmt.Sprintf("committed: generation %d", 9+i)) || strings.Contains(o.out, "lb1") || o.err != "" {
			t.Errorf("%q: %+v", text, o)
		}
	}
	if n := len(l.conf.commits()); n != 4 || strings.Contains(l.conf.commits()[n-1].Text, "\r") {
		t.Errorf("%d commits, the last one %+v", n, l.conf.commits()[n-1])
	}
	// Data with CR LF, as an editor of Windows leaves it, arrives as it is sent.
	with("load\r\nvrrp_instance W {\r\n}\r\n.\r\ncommit\r\n", []string{"-T"}).want(t, 0, "committed: generation 12", "")
	// Nothing on standard input: nothing is waited for.
	with("", []string{"-n", "-T"}, "show", "vrrp").want(t, 0, "MASTER", "")
	with("", []string{"-n", "-T"}).want(t, 0, "", "")
	with("", []string{"-n"}, "commit").want(t, 2, "", "nothing was sent")
	// With a terminal there is one stream, with its ends of lines, and the status stays.
	if o := with("", []string{"-tt"}, "show", "vrrp"); o.code != 0 || !strings.Contains(o.out, "MASTER") || strings.Contains(strings.ReplaceAll(o.out, "\r\n", ""), "\n") {
		t.Errorf("-tt: %+v", o)
	}
	with("", []string{"-tt"}, "show", "vrrrp").want(t, 2, "does not take", "")
	with("show version\rexit\r", []string{"-tt"}).want(t, 0, "Kernel", "")
	// A script that is longer than a command may be.
	with(strings.Repeat("x", 100000)+"\n", []string{"-T"}).want(t, 1, "", "longer than")
}

// slow reads as a serial line of 115200 baud does: 11,520 bytes a second.
func slow(m *os.File, out *lockedBuffer) {
	buf := make([]byte, 115) // 10 ms
	for {
		n, err := m.Read(buf)
		out.Write(buf[:n])
		if err != nil {
			return
		}
		time.Sleep(time.Duration(n) * time.Second / 11520) // the line, not an event, is what is slow
	}
}

// A serial line that takes in less than is said loses nothing, and its keys are
// taken meanwhile.
func TestSlowSerialLine(t *testing.T) {
	l := newLab(t)
	l.long()
	m, slave := openPTY(t)
	l.serial = slave
	s := &screen{t: t, out: newLockedBuffer(), to: m}
	go slow(m, s.out)
	l.start()
	s.expect("Press Enter")
	s.send("\r")
	s.expect("lb1> ")
	s.send("show configuration\rshow version\r")
	s.expect("comment 1\r\n", "comment 100\r\n", "lb1> ", "Kernel", "lb1> ")
	s.send("terminal length 10\rshow configuration\r")
	s.expect("-- more -- 9%")
	s.send("q")
	s.expect("lb1> ")
	s.send("terminal width 80; terminal length 24\redit full\r")
	s.expect("candidate  line 1 of 100", "^X leave")
	s.send("\x18")
	s.expect("nothing was taken over", "lb1# ")
	if strings.Contains(s.out.String(), "\x1b[?") {
		t.Error("a serial line was asked for more than a VT100 knows")
	}
}
