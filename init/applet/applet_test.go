package applet

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

// The test binary is the one binary: linked under a command's name it is that
// command, as on the box.
func TestMain(m *testing.M) {
	if name := filepath.Base(os.Args[0]); slices.Contains(Names, name) {
		code, _ := Main(name, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
		os.Exit(code)
	}
	if os.Getenv("BALLAST_TEST_SLEEP") != "" {
		fmt.Println("here")
		os.Stdin.Read(make([]byte, 1))
		os.Exit(0)
	}
	// A PID namespace of our own: what else runs on this machine (a director in a
	// test of somebody else, say) must not answer to killall. And a network: what
	// it is told, who may ping, is told to nobody else, and a port that nobody
	// listens on stays so.
	if os.Getenv("BALLAST_TEST_INSIDE") == "" {
		cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		cmd.Env = append(os.Environ(), "BALLAST_TEST_INSIDE=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
		if err := cmd.Run(); cmd.ProcessState == nil {
			fmt.Fprintln(os.Stderr, "namespace:", err)
			os.Exit(2)
		}
		os.Exit(cmd.ProcessState.ExitCode())
	}
	if err := errors.Join(
		syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""),
		syscall.Mount("proc", "/proc", "proc", 0, ""),
	); err != nil {
		fmt.Fprintln(os.Stderr, "mount /proc:", err)
		os.Exit(2)
	}
	if err := loopbackUp(); err != nil {
		fmt.Fprintln(os.Stderr, "loopback:", err)
		os.Exit(2)
	}
	os.Exit(m.Run())
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
}

// closedPort is one that nobody listens on.
const closedPort = "1"

// box is a folder of commands as /bin is on a director.
type box struct {
	bin string
	env []string
}

func newBox(t *testing.T, d *fakeDirector) box {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b := box{bin: t.TempDir()}
	for _, n := range Names {
		if err := os.Symlink(self, filepath.Join(b.bin, n)); err != nil {
			t.Fatal(err)
		}
	}
	b.env = []string{"PATH=" + b.bin + ":/usr/bin:/bin", "HOME=/", "BALLAST_SCRIPT=" + string(d.dir)}
	return b
}

// do runs a program of the box and gives its code and what it printed.
func (b box) do(t *testing.T, stdin string, argv ...string) (int, string) {
	t.Helper()
	path := argv[0]
	if !strings.Contains(path, "/") {
		path = filepath.Join(b.bin, path)
	}
	cmd := exec.Command(path, argv[1:]...)
	cmd.Args[0] = argv[0]
	cmd.Env, cmd.Dir, cmd.Stdin = b.env, "/", strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if _, ok := err.(*exec.ExitError); err != nil && !ok {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// fakeDirector answers on the scripts' socket and remembers what was asked.
type fakeDirector struct {
	dir    ipc.Dir
	mu     sync.Mutex
	calls  []string
	active bool
}

var boxes int

func newDirector(t *testing.T) *fakeDirector {
	t.Helper()
	boxes++
	d := &fakeDirector{dir: ipc.Dir(fmt.Sprintf("@ballast-applet-%d-%d", os.Getpid(), boxes)), active: true}
	l, err := net.Listen("unix", d.dir.Path("script"))
	if err != nil {
		t.Fatal(err)
	}
	srv := ipc.NewServer("script")
	note := func(s string) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.calls = append(d.calls, s)
	}
	srv.Handle("resign", func(_ context.Context, _ ipc.Peer, b json.RawMessage) (any, error) {
		var r status.Resign
		json.Unmarshal(b, &r)
		note("resign by " + r.By)
		d.active = false
		return nil, nil
	})
	srv.Handle("resume", func(context.Context, ipc.Peer, json.RawMessage) (any, error) {
		note("resume")
		d.active = true
		return nil, nil
	})
	srv.Handle("mail", func(_ context.Context, _ ipc.Peer, b json.RawMessage) (any, error) {
		var m status.Mail
		json.Unmarshal(b, &m)
		note(fmt.Sprintf("mail %q to %v: %q", m.Subject, m.To, m.Body))
		return nil, nil
	})
	srv.Handle("keepalived", func(context.Context, ipc.Peer, json.RawMessage) (any, error) {
		return status.Keepalived{Active: d.active}, nil
	})
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	go srv.Serve(ctx, l)
	return d
}

func (d *fakeDirector) took() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.calls
	d.calls = nil
	return c
}

// pretend starts a process whose command line is argv, as another program's.
func pretend(t *testing.T, argv ...string) int {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// A link of that name, so that the kernel's name of the process fits too.
	link := filepath.Join(t.TempDir(), filepath.Base(argv[0]))
	if err := os.Symlink(self, link); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(link)
	cmd.Args, cmd.Env = argv, []string{"BALLAST_TEST_SLEEP=1"} // nothing else of ours
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); cmd.Process.Kill(); cmd.Wait() })
	if _, err := out.Read(make([]byte, 1)); err != nil { // it is past its exec
		t.Fatal(err)
	}
	return cmd.Process.Pid
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestShell(t *testing.T) {
	b := newBox(t, newDirector(t))
	dir := t.TempDir()
	there := write(t, filepath.Join(dir, "down"), "")
	for _, c := range []struct {
		argv []string
		code int
		out  string
	}{
		{[]string{"sh", "-c", "[ -e " + there + " ] && exit 1 || exit 0"}, 1, ""},
		{[]string{"sh", "-c", "[ -e " + there + ".not ] && exit 1 || exit 0"}, 0, ""},
		{[]string{"sh", "-c", `echo "$0 $1 $#"`, "name", "a", "b"}, 0, "name a 2\n"},
		{[]string{"bash", "-c", `[[ abc == a* ]] && x=(1 2 3) && echo ${#x[@]}`}, 0, "3\n"},
		{[]string{"sh", "-ec", "false; echo no"}, 1, ""},
		{[]string{"sh", "-c", "exit 300"}, 44, ""},
		{[]string{"sh", "-c", "no-such-command"}, 127, "\"no-such-command\": executable file not found in $PATH\n"},
		{[]string{"sh", "-c", "echo 'open"}, 2, "sh: sh:1:6: reached EOF without closing quote `'`\n"},
		{[]string{"sh", dir + "/none"}, 127, "sh: " + dir + "/none: No such file or directory\n"},
		{[]string{"sh", "-c", "killall -0 surely-not-there || echo none"}, 0, "surely-not-there: no process found\nnone\n"},
		{[]string{"sh", "-c", "/usr/bin/killall -q -0 surely-not-there; echo $?"}, 0, "1\n"},
		{[]string{"sh", "-c", `n=$(ps -C surely-not-there --no-header | wc -l); [ "$n" -eq 0 ] && echo zero`}, 0, "zero\n"},
		{[]string{"sh", "-c", "for i in 1 2 3; do echo -n $i; done; printf '%s\\n' x"}, 0, "123x\n"},
	} {
		code, out := b.do(t, "", c.argv...)
		if code != c.code || out != c.out {
			t.Errorf("%q: code %d, %q; want %d, %q", c.argv, code, out, c.code, c.out)
		}
	}
	if code, out := b.do(t, "echo from stdin $1\r\nexit 3\r\n", "sh", "-s"); code != 3 || out != "from stdin\n" {
		t.Errorf("code %d, %q", code, out)
	}
}

// TestDevTCP: the port check that needs no program.
func TestDevTCP(t *testing.T) {
	b := newBox(t, newDirector(t))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	line := fmt.Sprintf("</dev/tcp/127.0.0.1/%d", l.Addr().(*net.TCPAddr).Port)
	if code, out := b.do(t, "", "sh", "-c", line); code != 0 {
		t.Errorf("open port: code %d, %s", code, out)
	}
	l.Close()
	if code, _ := b.do(t, "", "sh", "-c", "</dev/tcp/127.0.0.1/"+closedPort); code == 0 {
		t.Error("closed port: code 0")
	}
}

func TestProcesses(t *testing.T) {
	d := newDirector(t)
	b := newBox(t, d)
	if code, out := b.do(t, "", "killall", "-0", "nginx"); code != 1 || out != "nginx: no process found\n" {
		t.Fatalf("code %d, %q: nginx cannot be here", code, out)
	}
	pid := pretend(t, "nginx")
	for _, c := range []struct {
		argv string
		code int
		out  string
	}{
		{"killall -0 nginx", 0, ""},
		{"killall -0 nginx apache2", 1, "apache2: no process found\n"},
		{"pidof nginx", 0, fmt.Sprintf("%d\n", pid)},
		{"pidof -s nginx", 0, fmt.Sprintf("%d\n", pid)},
		{"pidof apache2", 1, ""},
		{"pgrep -x nginx", 0, fmt.Sprintf("%d\n", pid)},
		{"pgrep -c ngin", 0, "1\n"},
		{"pgrep -x ngin", 1, ""},
		{"ps -C nginx --no-header", 0, fmt.Sprintf("%7d ?        00:00:00 nginx\n", pid)},
		{"ps -C nginx", 0, fmt.Sprintf("    PID TTY          TIME CMD\n%7d ?        00:00:00 nginx\n", pid)},
		{"ps -C apache2 --no-headers", 1, ""},
		{"ps -o comm= -p " + fmt.Sprint(pid), 0, "nginx\n"},
		{"kill -0 " + fmt.Sprint(pid), 0, ""},
		{"kill -0 4194304", 1, "kill: (4194304) - no such process\n"},
		{"killall -BOGUS nginx", 1, "killall: -BOGUS: unknown signal\n"},
	} {
		code, out := b.do(t, "", strings.Fields(c.argv)...)
		if code != c.code || out != c.out {
			t.Errorf("%s: code %d, %q; want %d, %q", c.argv, code, out, c.code, c.out)
		}
	}
	for _, form := range []string{"ps -ef", "ps aux", "ps -e", "ps ax", "ps -eo pid,comm"} {
		code, out := b.do(t, "", strings.Fields(form)...)
		if code != 0 || !strings.Contains(out, "nginx") || !strings.Contains(out, "PID") {
			t.Errorf("%s: code %d without nginx or a header", form, code)
		}
	}
	if code, out := b.do(t, "", "sh", "-c", "ps -ef | grep nginx | grep -v grep | wc -l"); code != 0 || strings.TrimSpace(out) != "1" {
		t.Errorf("code %d, %q", code, out)
	}
	if code, _ := b.do(t, "", "killall", "nginx"); code != 0 {
		t.Error("killall nginx")
	}
}

// TestKeepalived: what scripts do to keepalived reaches vrrp as resign.
func TestKeepalived(t *testing.T) {
	d := newDirector(t)
	b := newBox(t, d)
	pid := pretend(t, "ballast", "run", "vrrp")
	var calls []string
	for _, c := range []struct {
		argv string
		code int
		out  string
	}{
		{"killall -0 keepalived", 0, ""},
		{"pidof keepalived", 0, fmt.Sprintf("%d\n", pid)},
		{"ps -C keepalived --no-header -o comm=", 0, "keepalived\n"},
		{"systemctl is-active keepalived", 0, "active\n"},
		{"systemctl is-active --quiet keepalived.service", 0, ""},
		{"systemctl stop keepalived", 0, ""},
		{"systemctl is-active keepalived", 3, "inactive\n"},
		{"killall -0 keepalived", 1, "keepalived: no process found\n"},
		{"pidof keepalived", 1, ""},
		{"systemctl start keepalived", 0, ""},
		{"killall keepalived", 0, ""},
		{"service keepalived start", 0, ""},
		{"service keepalived stop", 0, ""},
		{"systemctl restart keepalived", 0, ""},
		{"pkill keepalived", 0, ""},
		{"systemctl start keepalived", 0, ""},
		{fmt.Sprintf("kill %d", pid), 0, ""},
		{"systemctl start keepalived", 0, ""},
		{"killall -HUP keepalived", 0, ""},
		{"systemctl reload keepalived", 0, ""},
	} {
		code, out := b.do(t, "", strings.Fields(c.argv)...)
		if code != c.code || out != c.out {
			t.Errorf("%s: code %d, %q; want %d, %q", c.argv, code, out, c.code, c.out)
		}
		for _, call := range d.took() {
			calls = append(calls, c.argv+": "+call)
		}
	}
	want := []string{
		"systemctl stop keepalived: resign by systemctl stop",
		"systemctl start keepalived: resume",
		"killall keepalived: resign by killall",
		"service keepalived start: resume",
		"service keepalived stop: resign by service stop",
		"systemctl restart keepalived: resign by systemctl restart",
		"systemctl restart keepalived: resume",
		"pkill keepalived: resign by pkill",
		"systemctl start keepalived: resume",
		fmt.Sprintf("kill %d: resign by kill", pid),
		"systemctl start keepalived: resume",
	}
	if diff := cmp.Diff(want, calls); diff != "" {
		t.Error(diff)
	}
}

func TestOtherUnits(t *testing.T) {
	b := newBox(t, newDirector(t))
	for _, c := range []struct {
		argv string
		code int
		out  string
	}{
		{"systemctl start nginx", 5, "Failed to start nginx.service: Unit nginx.service not found.\n"},
		{"systemctl restart nginx.service", 5, "Failed to restart nginx.service: Unit nginx.service not found.\n"},
		{"systemctl stop nginx", 5, "Failed to stop nginx.service: Unit nginx.service not loaded.\n"},
		{"systemctl status nginx", 4, "Unit nginx.service could not be found.\n"},
		{"systemctl is-active nginx", 3, "inactive\n"},
		{"service nginx start", 5, "Failed to start nginx.service: Unit nginx.service not found.\n"},
	} {
		code, out := b.do(t, "", strings.Fields(c.argv)...)
		if code != c.code || out != c.out {
			t.Errorf("%s: code %d, %q; want %d, %q", c.argv, code, out, c.code, c.out)
		}
	}
}

func TestMail(t *testing.T) {
	d := newDirector(t)
	b := newBox(t, d)
	if code, out := b.do(t, "", "sh", "-c", `echo "$(hostname -s 2>/dev/null; echo moved)" | mail -s "VIP floated to a" root@localhost,b@x c@y`); code != 0 {
		t.Fatalf("code %d, %s", code, out)
	}
	got := d.took()
	if len(got) != 1 || !strings.HasPrefix(got[0], `mail "VIP floated to a" to [root@localhost b@x c@y]: `) || !strings.HasSuffix(got[0], `moved"`) {
		t.Errorf("%q", got)
	}
	if code, out := b.do(t, "", "logger", "-t", "chk", "-p", "daemon.err", "gone", "away"); code != 0 || out != "chk: gone away\n" {
		t.Errorf("code %d, %q", code, out)
	}
}

// The scripts that the cases' users keep beside their configuration.
const (
	checkNginx = `#!/bin/bash
# count nginx; if there is none start it, look again, and hand over if that did not help
count=$(ps -C nginx --no-header | wc -l)
if [ $count -eq 0 ]; then
    systemctl start nginx
    sleep 0.1
    count=$(ps -C nginx --no-header | wc -l)
    if [ $count -eq 0 ]; then
        systemctl stop keepalived
    fi
fi
`
	notifyScript = `#!/bin/sh
contact='root@localhost'
notify() {
    local subject="$(hostname) to be $1, vip floating"
    local body="$(date +'%F %T'): vrrp transition, $(hostname) changed to be $1"
    echo "$body" | mail -s "$subject" $contact
}
case $1 in
master)
    notify master
    ;;
backup)
    notify backup
    ;;
*)
    echo "Usage: $(basename $0) {master|backup}"
    exit 1
    ;;
esac
`
)

func TestUsersScripts(t *testing.T) {
	d := newDirector(t)
	b := newBox(t, d)
	dir := t.TempDir()
	check := write(t, filepath.Join(dir, "check_nginx.sh"), checkNginx)
	code, out := b.do(t, "", "bash", check)
	if code != 0 {
		t.Errorf("code %d, %s", code, out)
	}
	if diff := cmp.Diff([]string{"resign by systemctl stop"}, d.took()); diff != "" {
		t.Errorf("no nginx: the director must resign: %s", diff)
	}
	pretend(t, "nginx")
	if code, out = b.do(t, "", "bash", check); code != 0 || out != "" || len(d.took()) != 0 {
		t.Errorf("nginx runs: code %d, %s", code, out)
	}
	notify := write(t, filepath.Join(dir, "notify.sh"), notifyScript)
	code, out = b.do(t, "", "sh", notify, "master")
	host, _ := os.Hostname()
	if got := d.took(); code != 0 || len(got) != 1 || !strings.HasPrefix(got[0], fmt.Sprintf("mail %q to [root@localhost]: ", host+" to be master, vip floating")) {
		t.Errorf("code %d, %s, %q", code, out, got)
	}
	if code, out = b.do(t, "", "sh", notify); code != 1 || out != "Usage: notify.sh {master|backup}\n" {
		t.Errorf("code %d, %q", code, out)
	}
}

func TestNoDirector(t *testing.T) {
	b := newBox(t, &fakeDirector{dir: "@ballast-nobody"})
	if code, out := b.do(t, "", "systemctl", "stop", "keepalived"); code == 0 || !strings.Contains(out, "does not answer") {
		t.Errorf("code %d, %q", code, out)
	}
	if code, out := b.do(t, "x", "mail", "-s", "x", "a@b"); code == 0 || !strings.Contains(out, "does not answer") {
		t.Errorf("code %d, %q", code, out)
	}
}

func TestMainUnknown(t *testing.T) {
	var out bytes.Buffer
	if _, ok := Main("nginx", nil, strings.NewReader(""), &out, &out); ok {
		t.Error("nginx is no command of this box")
	}
	if d := cmp.Diff(slices.Sorted(maps.Keys(commands)), Names); d != "" {
		t.Errorf("the list of names is not that of the commands (-commands +names):\n%s", d)
	}
}

func TestPing(t *testing.T) {
	b := newBox(t, newDirector(t))
	set := func(name, value string) {
		t.Helper()
		if err := os.WriteFile("/proc/sys/net/ipv4/"+name, []byte(value), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	set("ping_group_range", "0 2147483647")
	if code, out := b.do(t, "", "ping", "-c1", "-W", "20", "127.0.0.1"); code != 0 || !strings.Contains(out, "1 packets transmitted, 1 received, 0% packet loss") {
		t.Errorf("code %d, %s", code, out)
	}
	set("icmp_echo_ignore_all", "1")
	defer set("icmp_echo_ignore_all", "0")
	best := time.Hour // of three: the machine may stand still
	for range 3 {
		began := time.Now()
		if code, out := b.do(t, "", "ping", "-c", "1", "-W", "0.2", "-q", "127.0.0.1"); code != 1 || !strings.Contains(out, "1 packets transmitted, 0 received, 100% packet loss") {
			t.Errorf("code %d, %s", code, out)
		}
		best = min(best, time.Since(began))
	}
	if best < 200*time.Millisecond || best > 3*time.Second { // without -W it is 4 s
		t.Errorf("took %s", best)
	}
}
