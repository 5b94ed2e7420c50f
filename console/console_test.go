package console

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

func TestOneShots(t *testing.T) {
	l := newLab(t).start()
	l.ssh("view", "", "show", "vrrp").want(t, 0, "VI_1      MASTER", "")
	l.ssh("view", "", "sh vr").want(t, 0, "VI_1      MASTER", "")
	l.ssh("view", "", "show vrrp VI_2").want(t, 1, "", "there is no instance \"VI_2\"; there are: VI_1")
	l.ssh("view", "", "shwo vrrp").want(t, 2, "", "\"shwo\" is not a command; possible: exit, explain, file, help, monitor, quit, show")
	l.ssh("view", "", "show log | match flaps | count").want(t, 0, "1\n", "")
	l.ssh("view", "", "show ipvs").want(t, 1, "", "ipvs does not answer; see \"show processes\"")
	var st status.VRRP
	o := l.ssh("view", "", "show vrrp --json")
	if err := json.Unmarshal([]byte(o.out), &st); err != nil || st.Instances[0].VRID != 51 {
		t.Errorf("--json: %v %q", err, o.out)
	}
	l.ssh("admin", "", "show version; show processes").want(t, 0, "Kernel", "")
	l.ssh("admin", "", "show nothing; show version").want(t, 2, "", "possible: ")
	l.ssh("admin", "", "rollback 3").want(t, 1, "", "rollback to 3 by admin@127.0.0.1")
	l.ssh("admin", "", "restart vrrp signal 9").want(t, 0, "starts it again", "")
	if got := <-l.verbs; got != `init restart {"service":"vrrp","signal":9}` {
		t.Error(got)
	}
	l.ssh("admin", "", "reboot").want(t, 0, "rebooting", "")
	if got := <-l.verbs; got != `init reboot {"by":"admin@127.0.0.1"}` {
		t.Error(got)
	}
	l.ssh("operate", "", "resign").want(t, 0, "resigned", "")
	if got := <-l.verbs; got != `vrrp resign {"by":"operate@127.0.0.1"}` {
		t.Error(got)
	}
}

func TestConfigurationOverSSH(t *testing.T) {
	l := newLab(t).start()
	const good = "vrrp_instance VI_1 {\n  authentication { auth_pass topsecret }\n}\n"
	l.ssh("admin", good, "commit comment from a file").want(t, 0, "committed: generation 8 runs, applied in 42ms", "")
	if got := l.conf.got[0]; got.Text != good || got.Author != "admin@127.0.0.1" || got.Comment != "from a file" || got.Base != 7 {
		t.Errorf("conf got %+v", got)
	}
	l.ssh("admin", good+"bad\n", "check").want(t, 1, "", "candidate:4: error: unknown keyword bad; write good\n1 error")
	l.ssh("admin", good, "check").want(t, 0, "no faults found", "")
	l.ssh("admin", good+"bad\nbad\n", "load").want(t, 1, "", "2 errors")
	l.ssh("admin", good, "compare").want(t, 0, "+++ candidate", "")
	l.ssh("admin", "bad\nbad\n", "commit").want(t, 1, "", "2 errors")
	l.ssh("admin", "", "commit").want(t, 2, "", "nothing was sent")
	l.ssh("admin", good, "load; commit").want(t, 0, "committed: generation 9", "")
	// A heredoc: commands and the configuration on one standard input.
	l.ssh("admin", "load\n"+good+".\ncompare\ncommit comment here\nexit\n").want(t, 0, "committed: generation 10", "")
	l.ssh("admin", "load\nbad\n.\ncommit\n").want(t, 1, "", "1 error")
	l.ssh("admin", "load\n"+good+".\n").want(t, 1, "loaded", "the candidate was not committed")
	l.ssh("admin", "commit\n").want(t, 1, "", "nothing is loaded")
	if len(l.conf.got) != 3 {
		t.Errorf("%d commits reached conf, want 3", len(l.conf.got))
	}
	l.ssh("admin", "exit 0\n", "file put /etc/keepalived/x.sh 700").want(t, 0, "stored, 7 bytes", "")
	l.ssh("view", "", "file list").want(t, 0, "0700  7     /etc/keepalived/x.sh", "")
	if s := l.log.String(); strings.Contains(s, "topsecret") {
		t.Error("the log holds a secret")
	}
	for _, want := range []string{"admin from 127.0.0.1: commit comment from a file: ok", "admin from 127.0.0.1: check: 1 errors"} {
		if !strings.Contains(l.log.String(), want) {
			t.Errorf("no %q in the log:\n%s", want, l.log)
		}
	}
}

func TestConfRefuses(t *testing.T) {
	l := newLab(t).start()
	l.conf.change(func() { l.conf.refuse = "not committed, nothing changed:\n  vrrp: no\n  net: neither" })
	l.ssh("admin", "good\n", "commit").want(t, 1, "", "vrrp: no\n  net: neither")
}

func TestTwoSessionsCommitting(t *testing.T) {
	l := newLab(t).start()
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("ssh", l.sshArgs("admin", "admin@127.0.0.1")...)
	out := newLockedBuffer()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = pr, out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(pw, "load\nmine\n.\n")
	out.await(t, 0, "loaded")
	l.ssh("admin", "theirs\n", "commit").want(t, 0, "generation 8", "")
	fmt.Fprint(pw, "commit\n")
	out.await(t, 0, "moved from generation 7 to 8 (commit by admin@127.0.0.1")
	pw.Close()
	if err := cmd.Wait(); err == nil {
		t.Error("the refused commit left status 0")
	}
	if len(l.conf.got) != 1 {
		t.Errorf("%+v", l.conf.got)
	}
}

func TestWhoGetsIn(t *testing.T) {
	l := newLab(t).start()
	as := func(user, key string, more ...string) outcome {
		args := l.sshArgs(key, more...)
		return l.run("", append(args, user+"@127.0.0.1", "show version")...)
	}
	as("admin", "admin").want(t, 0, "Kernel", "")
	as("admin", "stranger").want(t, 255, "", "Permission denied (publickey)")
	as("admin", "view").want(t, 255, "", "Permission denied (publickey)")
	as("nobody", "admin").want(t, 255, "", "Permission denied (publickey)")
	as("admin", "stranger", "-o", "PreferredAuthentications=password,keyboard-interactive", "-o", "BatchMode=no", "-o", "NumberOfPasswordPrompts=1").
		want(t, 255, "", "Permission denied (publickey)")
	// Old algorithms are not even offered.
	as("admin", "admin", "-o", "KexAlgorithms=diffie-hellman-group14-sha256").want(t, 255, "", "no matching key exchange")
	as("admin", "admin", "-o", "Ciphers=aes128-cbc").want(t, 255, "", "no matching cipher")
	as("admin", "admin", "-o", "HostKeyAlgorithms=ssh-rsa").want(t, 255, "", "no matching host key")
	if !strings.Contains(l.log.String(), "ssh: login from 127.0.0.1 refused") {
		t.Errorf("refused logins are not in the log:\n%s", l.log)
	}
	// A user who is taken out of the configuration is out at once.
	l.conf.change(func() { l.conf.state.Generation++; l.conf.state.Config.System.Logins = nil })
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if as("admin", "admin").code == 255 {
			return
		}
	}
	t.Error("a user who is no longer in the configuration gets in")
}

func TestRoles(t *testing.T) {
	l := newLab(t).start()
	for _, tc := range []struct {
		user, command string
		code          int
	}{
		{"view", "commit", 1}, {"view", "load", 1}, {"view", "check", 1}, {"view", "rollback", 1}, {"view", "resign", 1}, {"view", "resume", 1},
		{"view", "restart vrrp", 1}, {"view", "reboot", 1}, {"view", "poweroff", 1}, {"view", "file put /opt/x", 1}, {"view", "file delete /opt/x", 1},
		{"view", "show history", 0}, {"view", "help", 0}, {"view", "show interfaces", 0},
		{"operate", "commit", 1}, {"operate", "reboot", 1}, {"operate", "file put /opt/x", 1}, {"operate", "restart vrrp", 0}, {"operate", "resume", 0},
		{"admin", "show files", 0}, {"admin", "poweroff", 0},
	} {
		o := l.ssh(tc.user, "x\n", tc.command)
		if o.code != tc.code || (tc.code == 1 && !strings.Contains(o.err, "permission denied: it needs role")) {
			t.Errorf("%s: %s: status %d %q, want %d", tc.user, tc.command, o.code, o.err, tc.code)
		}
	}
	if len(l.conf.got)+len(l.conf.files) > 0 {
		t.Errorf("conf got %+v %+v", l.conf.got, l.conf.files)
	}
}

func TestHostKeyStays(t *testing.T) {
	l := newLab(t).start()
	var st status.Console
	if _, err := ipc.Dir(l.dir).Client("console").State(t.Context(), &st); err != nil {
		t.Fatal(err)
	}
	first := st.Fingerprint
	l.stop()
	if fi, err := os.Stat(filepath.Join(l.dir, "data", hostKeyFile)); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("host key file: %v %v", fi.Mode(), err)
	}
	l.start()
	ipc.Dir(l.dir).Client("console").State(t.Context(), &st)
	if st.Fingerprint != first {
		t.Errorf("host key changed from %s to %s", first, st.Fingerprint)
	}
	l.stop()
	os.WriteFile(filepath.Join(l.dir, "data", hostKeyFile), []byte("torn"), 0o600)
	os.Remove(filepath.Join(l.dir, "known_hosts"))
	l.start() // a damaged key must not keep people out
	if !strings.Contains(l.log.String(), "the SSH host key is damaged") {
		t.Error("the log does not tell")
	}
}

func TestFailedLoginsAreSlowedDown(t *testing.T) {
	l := newLab(t).start()
	refused := -1
	began := time.Now()
	for i := range 100 {
		if o := l.run("", append(l.sshArgs("stranger"), "admin@127.0.0.1", "show version")...); !strings.Contains(o.err, "Permission denied") {
			refused = i
			break
		}
	}
	back := int(time.Since(began) / limitRefill) // what came back meanwhile
	if refused < 5 || refused > 15+back {
		t.Errorf("connections are dropped after %d failed logins, want about %v and %d more", refused, limitBurst, back)
	}
	if n := strings.Count(l.log.String(), "too many failed logins from 127.0.0.1"); n != 1 {
		t.Errorf("told %d times in the log, want once", n)
	}
}

// Somebody who opens connections and says nothing takes the places of his own
// address only.
func TestSilentConnections(t *testing.T) {
	l := newLab(t).start()
	for range 2 * maxLoggingIn {
		c, err := net.Dial("tcp", "127.0.0.1:"+l.port)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		// Served or dropped: its place is decided on when something comes back.
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		c.Read(make([]byte, 1))
	}
	if o := l.run("", append(l.sshArgs("admin", "-b", "127.0.0.9"), "admin@127.0.0.1", "show version")...); o.code != 0 {
		t.Errorf("an administrator is kept out: %+v", o)
	}
}

const someText = `vrrp_instance VI_1 {
    interface eth0
    virtual_router_id 51
    priority 100
    authentication {
        auth_type PASS
        auth_pass topsecret
    }
}
`

func TestConfigureOverSSH(t *testing.T) {
	l := newLab(t)
	l.conf.change(func() { l.conf.state.Text = someText })
	l.start()
	l.ssh("admin", "", "configure; set vrrp_instance VI_1 priority 150; commit comment one line").want(t, 0, "committed: generation 8", "")
	l.ssh("admin", "", "configure; set vrrp_instance VI_1 priority 1000; commit").want(t, 1, "", "1000")
	l.ssh("admin", "", "configure; set vrrp_instance VI_1 nonsense 1; commit").want(t, 1, "", "nonsense")
	l.ssh("admin", "", "configure; set vrrp_instance VI_1 priority 151").want(t, 1, "", "the candidate was not committed and is forgotten")
	l.ssh("admin", "", "configure; set vrrp_instance VI_1 priority 151; exit").want(t, 1, "", "the candidate was not committed and is forgotten")
	l.ssh("admin", "", "configure; show vrrp_instance VI_1 | display set").want(t, 0, "set vrrp_instance VI_1 priority 150\n", "")
	l.ssh("admin", "set vrrp_instance VI_1 advert_int 2\ndelete vrrp_instance VI_1 priority\n", "load set; commit").want(t, 0, "committed: generation 9", "")
	l.ssh("admin", "configure\nedit vrrp_instance VI_1\nset priority 99\ntop\ncompare\ncommit\n").want(t, 0, "committed: generation 10", "")
	l.ssh("admin", "configure\nset vrrp_instance VI_1 priority 98\nset frob\ncommit\n").want(t, 1, "", "frob")
	l.ssh("admin", "configure\nset vrrp_instance VI_1 priority 98\nexit\nexit\n").want(t, 1, "", "the candidate was not committed")
	l.ssh("view", "", "configure").want(t, 1, "", "permission denied")
	l.conf.mu.Lock()
	defer l.conf.mu.Unlock()
	if n := len(l.conf.got); n != 3 {
		t.Fatalf("%d commits reached conf, want 3", n)
	}
	if got, want := l.conf.got[2].Text, strings.Replace(strings.Replace(someText, "    priority 100\n", "", 1), "}\n}", "}\n    advert_int 2\n    priority 99\n}", 1); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// summarized is init's state, with the summary that a login reads.
type summarized struct {
	status.Init
	news status.InitNews
}

func (s summarized) Summary() any { return s.news }

// What init has to tell is read at each login, without all that it knows.
func TestAlarms(t *testing.T) {
	l := newLab(t)
	l.init.Publish(summarized{news: status.InitNews{Alarms: []string{"the kernel crashed\x1b[2J", "data was lost"}}})
	l.start()
	s, _ := l.onTerminal("view")
	s.expect("! the kernel crashed?[2J\r\n! data was lost\r\n", "lb1> ")
}
