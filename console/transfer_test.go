package console

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ballast/console/cli"
	"ballast/services/ipc"

	"github.com/pkg/sftp"
)

const configuration = "vrrp_instance VI_1 {\n  authentication { auth_pass topsecret }\n}\n"

// copied runs the real scp or sftp.
func (l *lab) copied(tool, user, stdin string, args ...string) outcome {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	options := l.sshArgs(user)
	for i := range options {
		if options[i] == "-p" {
			options[i] = "-P"
		}
	}
	cmd := exec.CommandContext(ctx, tool, append(options, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		l.t.Fatal(err)
	}
	return outcome{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

func (l *lab) file(name, text string) string {
	l.t.Helper()
	path := filepath.Join(l.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
		l.t.Fatal(err)
	}
	return path
}

func (l *lab) content(path string) string {
	l.t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		l.t.Fatal(err)
	}
	return string(b)
}

// scp in both of its protocols.
func TestSCP(t *testing.T) {
	for _, protocol := range []string{"-s", "-O"} {
		t.Run(protocol, func(t *testing.T) {
			l := newLab(t).start()
			good, bad := l.file("keepalived.conf", configuration), l.file("bad.conf", "good\nbad\n")
			scp := func(user string, args ...string) outcome {
				return l.copied("scp", user, "", append([]string{protocol}, args...)...)
			}
			box := func(user, path string) string { return user + "@127.0.0.1:" + path }
			const told = "3 lines, checked and kept; nothing runs yet"
			for _, to := range []string{"candidate", "/config/candidate", "", "/etc/keepalived/keepalived.conf"} {
				scp("admin", good, box("admin", to)).want(t, 0, "", told)
				l.ssh("admin", "", "load uploaded; commit comment by scp").want(t, 0, "committed: generation ", "")
				if n := len(l.conf.commits()); n == 0 || l.conf.commits()[n-1].Text != configuration {
					t.Fatalf("to %q: conf got %+v", to, l.conf.commits())
				}
			}
			commits := len(l.conf.commits())
			scp("admin", bad, box("admin", "candidate")).want(t, 1, "", "unknown keyword bad; write good")
			scp("admin", good, box("admin", "running")).want(t, 1, "", "cannot be written; a configuration goes to /config/candidate")
			for _, user := range []string{"view", "operate"} {
				scp(user, good, box(user, "candidate")).want(t, 1, "", "permission denied: it needs role admin")
				scp(user, good, box(user, "/etc/keepalived/x.sh")).want(t, 1, "", "permission denied: it needs role admin")
			}
			l.ssh("admin", "", "load uploaded").want(t, 0, "loaded", "") // the good one is still there
			script := l.file("check.sh", "#!/bin/sh\nexit 0\n")
			scp("admin", script, box("admin", "/etc/keepalived/")).want(t, 0, "", "")
			if len(l.conf.stored()) != 1 || l.conf.stored()[0].Path != "/etc/keepalived/check.sh" || l.conf.stored()[0].Mode != 0o755 || string(l.conf.stored()[0].Content) != "#!/bin/sh\nexit 0\n" {
				t.Errorf("stored %+v", l.conf.stored())
			}
			scp("admin", "-p", script, box("admin", "/etc/keepalived/")).want(t, 0, "", "")
			if f := l.conf.stored()[len(l.conf.stored())-1]; f.Mode != 0o640 {
				t.Errorf("with -p: mode %o", f.Mode)
			}
			got := filepath.Join(l.dir, "got")
			scp("admin", box("admin", "/etc/keepalived/check.sh"), got).want(t, 0, "", "")
			if s := l.content(got); s != "#!/bin/sh\nexit 0\n" {
				t.Errorf("the script came back as %q", s)
			}
			for _, path := range []string{"running", "history/7", "/etc/keepalived/keepalived.conf"} {
				scp("view", box("view", path), got).want(t, 0, "", "")
				if s := l.content(got); !strings.Contains(s, "vrrp_instance VI_1") || strings.Contains(s, "topsecret") {
					t.Errorf("%s for view: %q", path, s)
				}
			}
			scp("view", box("view", "/secrets/running"), got).want(t, 1, "", "")
			scp("admin", box("admin", "/secrets/running"), got).want(t, 0, "", "")
			if s := l.content(got); s != configuration {
				t.Errorf("with secrets: %q", s)
			}
			scp("view", box("view", "set"), got).want(t, 0, "", "")
			if s := l.content(got); !strings.HasPrefix(s, "set vrrp_instance VI_1 ") || strings.Contains(s, "topsecret") {
				t.Errorf("as set commands: %q", s)
			}
			scp("admin", box("admin", "/secrets/set"), got).want(t, 0, "", "")
			if s := l.content(got); !strings.Contains(s, "auth_pass topsecret") {
				t.Errorf("as set commands, with secrets: %q", s)
			}
			scp("view", box("view", "/log/vrrp"), got).want(t, 0, "", "")
			if s := l.content(got); !strings.Contains(s, "backup -> master") {
				t.Errorf("log: %q", s)
			}
			scp("view", box("view", "/etc/passwd"), got).want(t, 1, "", "")
			scp("view", box("view", "../../etc/shadow"), got).want(t, 1, "", "")
			if len(l.conf.commits()) != commits {
				t.Error("an upload was a commit")
			}
			if s := l.log.String(); strings.Contains(s, "topsecret") || !strings.Contains(s, "admin from 127.0.0.1: file put /etc/keepalived/check.sh") ||
				!strings.Contains(s, "view from 127.0.0.1: show configuration: ok") {
				t.Errorf("log: %s", s)
			}
		})
	}
}

func TestSFTP(t *testing.T) {
	l := newLab(t).start()
	conf := l.file("keepalived.conf", configuration)
	l.conf.change(func() { l.conf.state.Text = configuration })
	big := l.file("big.sh", strings.Repeat("#0123456789\n", 100000))
	script := "pwd\nls -l\nls /\nput " + conf + " candidate\nls -l candidate\nput " + big + " /etc/keepalived/big.sh\nget /etc/keepalived/big.sh " + l.dir + "/back\n" +
		"get running " + l.dir + "/running\nchmod 700 /etc/keepalived/big.sh\n"
	l.copied("sftp", "admin", script, "-b", "-", "admin@127.0.0.1").want(t, 0, "Remote working directory: /config", "checked and kept")
	if s := l.content(l.dir + "/back"); s != l.content(big) {
		t.Errorf("%d bytes came back", len(s))
	}
	if f := l.conf.stored()[len(l.conf.stored())-1]; f.Mode != 0o700 || string(f.Content) != l.content(big) {
		t.Errorf("after chmod: %o, %d bytes", f.Mode, len(f.Content))
	}
	if s := l.content(l.dir + "/running"); strings.Contains(s, "topsecret") {
		t.Error("a secret that nobody asked for")
	}
	l.ssh("admin", "", "load uploaded; commit").want(t, 0, "committed", "")
	o := l.copied("sftp", "view", "ls -l\nls /\n", "-b", "-", "view@127.0.0.1")
	if o.want(t, 0, "running", ""); strings.Contains(o.out, "secrets") || strings.Contains(o.out, "candidate") {
		t.Errorf("view sees %s", o.out)
	}
	for _, c := range []struct{ user, do, errs string }{
		{"admin", "rename running x", ""}, {"admin", "mkdir x", ""}, {"admin", "rm running", "cannot be deleted"}, {"admin", "ln -s running x", ""},
		{"admin", "reput " + conf + " candidate", ""}, {"view", "rm /etc/keepalived/big.sh", "permission denied"}, {"view", "put " + conf + " candidate", "needs role admin"},
		{"view", "get candidate", ""}, {"view", "ls /secrets", ""},
	} {
		l.copied("sftp", c.user, c.do+"\n", "-b", "-", c.user+"@127.0.0.1").want(t, 1, "", c.errs)
	}
}

// An upload that is cut off changes nothing.
func TestUploadCutOff(t *testing.T) {
	c := &console{}
	c.env = &ipc.Env{Log: slog.New(slog.DiscardHandler)}
	x := &transfer{t: &terminal{console: c, user: "ann", address: "10.0.0.9"}, err: newLockedBuffer()}
	for name, spoil := range map[string]func(u *upload){
		"lost":       func(u *upload) { u.WriteAt([]byte("a"), 0); u.TransferError(fs.ErrClosed) },
		"with holes": func(u *upload) { u.WriteAt([]byte("a"), 0); u.WriteAt([]byte("b"), 100) },
		"too long":   func(u *upload) { u.WriteAt([]byte("a"), maxInput) },
		"negative":   func(u *upload) { u.WriteAt([]byte("a"), -1) },
	} {
		x.opened()
		u := &upload{x: x, path: candidatePath}
		spoil(u)
		if err := u.Close(); err == nil || !strings.Contains(err.Error(), "nothing changes") {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := u.WriteAt([]byte("x"), 0); err == nil {
			t.Errorf("%s: written after the end", name)
		}
		if c.inFlight.Load() != 0 || x.open.Load() != 0 {
			t.Errorf("%s: %d bytes and %d files stay counted", name, c.inFlight.Load(), x.open.Load())
		}
	}
	// All uploads together are bounded.
	var all []*upload
	for range 4 {
		u := &upload{x: x, path: candidatePath}
		all = append(all, u)
		u.WriteAt([]byte("x"), maxInput-1)
	}
	if n := c.inFlight.Load(); n > maxInFlight {
		t.Errorf("%d bytes are held", n)
	}
	for _, u := range all {
		x.opened()
		u.Close()
	}
	if n := c.inFlight.Load(); n != 0 {
		t.Errorf("%d bytes stay counted", n)
	}
}

// Files that are open are bounded together: who may only look could otherwise
// open all generations at once, in all sessions.
func TestOpenFilesAreBounded(t *testing.T) {
	c := &console{}
	text := make([]byte, maxInput)
	var open []io.Closer
	for range 5 { // sessions
		x := &transfer{t: &terminal{console: c, user: "ann"}, err: newLockedBuffer()}
		x.cached = map[string]cachedFile{"/config/running": {text, time.Now().Add(time.Hour)}}
		for range 2 {
			r, err := sftpHandlers{x}.Fileread(sftp.NewRequest("Get", "/config/running"))
			if err == nil {
				open = append(open, r.(io.Closer))
			} else if !strings.Contains(err.Error(), "too much is read") {
				t.Fatal(err)
			}
		}
	}
	if n := len(open) * maxInput; n > maxInFlight || n == 0 {
		t.Errorf("%d files are open, %d bytes", len(open), n)
	}
	for _, f := range open {
		f.Close()
	}
	if n := c.reading.Load(); n != 0 {
		t.Errorf("%d bytes stay counted", n)
	}
}

// The connection of a real client that is lost in the middle.
func TestSCPIsKilled(t *testing.T) {
	l := newLab(t).start()
	cmd := exec.Command("ssh", l.sshArgs("admin", "admin@127.0.0.1", "scp -t candidate")...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out := newLockedBuffer()
	cmd.Stdout = out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	in.Write([]byte("C0644 1000000 keepalived.conf\nvrrp_instance X {\n}\n"))
	out.await(t, 0, "\x00\x00")
	cmd.Process.Kill()
	cmd.Wait()
	l.log.await(t, 0, "upload of \"/config/candidate\" given up, nothing changes")
	l.ssh("admin", "", "load uploaded").want(t, 1, "", "nothing was uploaded")
}

func TestSCPOrder(t *testing.T) {
	for _, c := range []struct {
		line, path string
		to, ok     bool
	}{
		{"scp -t candidate", "/candidate", true, true}, {"scp -v -f /log/vrrp", "/log/vrrp", false, true}, {"scp -p -t -- 'x'", "/x", true, true},
		{"scp -pt ../../x", "/x", true, true}, {"scp", "", false, false}, {"scp -t", "", false, false}, {"scp x", "/x", false, false},
	} {
		to, p, ok := scpOrder(c.line)
		if ok != c.ok || ok && (to != c.to || p != c.path) {
			t.Errorf("%q: %v %q %v", c.line, to, p, ok)
		}
	}
}

func TestUploadsAreBounded(t *testing.T) {
	var u uploads
	half := strings.Repeat("x", maxInput)
	if err := u.put("a", half); err != nil {
		t.Fatal(err)
	}
	if err := u.put("a", half); err != nil {
		t.Error("the second of one user:", err)
	}
	if err := u.put("b", half); err != nil {
		t.Error(err)
	}
	if err := u.put("c", "x"); err == nil {
		t.Error("no bound")
	}
	u.list["a"] = uploaded{half, time.Now().Add(-2 * keepUpload)}
	if err := u.put("c", "x"); err != nil {
		t.Error("an old one counts:", err)
	}
	if _, _, ok := u.get("a"); ok {
		t.Error("an old one is kept")
	}
}

// Whatever a client of the old protocol sends: no panic, nothing kept of what
// was not whole, nothing left counted.
func FuzzSCP(f *testing.F) {
	f.Add("scp -t candidate", "C0644 4 a.conf\nabc\n\x00")
	f.Add("scp -p -t /etc/keepalived/", "T1 0 1 0\nC0755 0 x\n\x00E\n")
	f.Add("scp -f running", "\x00\x00\x00")
	f.Add("scp -t .", "D0755 0 d\nC-1 x y\n")
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, line, sent string) {
		c := &console{env: &ipc.Env{Log: slog.New(slog.DiscardHandler)}, users: users{"ann": user{role: cli.Admin}}, auditor: newAuditor()}
		for role := range c.services {
			c.services[role] = cli.NewIPC(ipc.Dir(dir), cli.Role(role)) // nobody answers
		}
		x := &transfer{ctx: t.Context(), t: &terminal{console: c, user: "ann", address: "10.0.0.9"}, err: io.Discard}
		x.scp(bufio.NewReaderSize(strings.NewReader(sent), 4096), io.Discard, line)
		if c.inFlight.Load() != 0 || x.open.Load() != 0 || len(x.sending) != 0 || len(c.uploads.list) != 0 {
			t.Errorf("%q %q: %d bytes, %d files, %d names, %d uploads", line, sent, c.inFlight.Load(), x.open.Load(), len(x.sending), len(c.uploads.list))
		}
	})
}
