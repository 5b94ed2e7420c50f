package notify

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ballast/configs/model"
)

func testRunner() *runner { return newRunner(Options{Socket: "@ballast-test"}) }

func TestRunner(t *testing.T) {
	dir := folder(t)
	r := testRunner()
	plain := write(t, filepath.Join(dir, "plain"), "")
	os.Chmod(plain, 0o644)
	for _, c := range []struct {
		name    string
		cmd     model.Command
		exit    int
		detail  string
		output  string
		missing bool
	}{
		{"exit 0", model.Command{Argv: []string{write(t, filepath.Join(dir, "ok"), "echo $# $1 $2"), "a b", "c"}}, 0, "exit 0", "2 a b c\n", false},
		{"exit 7", model.Command{Argv: []string{write(t, filepath.Join(dir, "seven"), "echo out; echo err >&2; exit 7")}}, 7, "exit 7", "out\nerr\n", false},
		{"found along PATH", model.Command{Argv: []string{"echo", "x"}}, 0, "exit 0", "x\n", false},
		{"shell line", model.Command{Shell: "[ -e /nope ] && exit 1 || exit 3"}, 3, "exit 3", "", false},
		{"no such file", model.Command{Argv: []string{dir + "/none"}}, -1, dir + "/none: no such file or directory", "", true},
		{"not on PATH", model.Command{Argv: []string{"no-such-command-at-all"}}, -1, "no-such-command-at-all: not found in " + scriptPath, "", true},
		{"not executable", model.Command{Argv: []string{plain}}, -1, plain + ": not executable (mode 0644)", "", true},
		{"a folder", model.Command{Argv: []string{dir}}, -1, dir + ": is a folder", "", true},
		{"no interpreter", model.Command{Argv: []string{func() string {
			p := filepath.Join(dir, "perl")
			os.WriteFile(p, []byte("#!/usr/bin/no-such-perl\n"), 0o755)
			return p
		}()}}, -1, dir + "/perl: its interpreter (the #! line) is not on this box", "", true},
		{"killed by a signal", model.Command{Shell: "kill -9 $$"}, -1, "killed by SIGKILL", "", false},
		{"nothing", model.Command{}, -1, "no command", "", true},
	} {
		res := r.run(context.Background(), c.cmd, nil, time.Minute)
		if res.exit != c.exit || res.detail != c.detail || res.output != c.output || res.missing != c.missing {
			t.Errorf("%s: %+v", c.name, res)
		}
	}
}

// TestRunnerIsolation: what a script is and has.
func TestRunnerIsolation(t *testing.T) {
	t.Setenv("SECRET", "x")
	res := testRunner().run(context.Background(), model.Command{Shell: `
		echo "$(id -u) $(id -g) $(id -G)"
		pwd
		grep -E 'Cap(Prm|Eff|Amb)' /proc/self/status
		ps -o pgid= -p $$ | tr -d ' '
		echo $$
		env | sort
		read x && echo stdin`}, nil, time.Minute)
	lines := strings.Split(res.output, "\n")
	if len(lines) < 8 {
		t.Fatalf("%+v", res)
	}
	who := fmt.Sprintf("%d %d %d", os.Getuid(), os.Getgid(), os.Getgid())
	if maySetUser() {
		who = "200 200 200"
		for _, l := range lines[2:5] {
			if !strings.HasSuffix(l, "0000000000000000") {
				t.Errorf("capabilities reach a script: %s", l)
			}
		}
	}
	if !strings.HasPrefix(lines[0]+" ", who+" ") || lines[1] != "/" {
		t.Errorf("runs as %q in %q", lines[0], lines[1])
	}
	if lines[5] != lines[6] {
		t.Errorf("process group %s of process %s", lines[5], lines[6])
	}
	if strings.Contains(res.output, "SECRET") || !strings.Contains(res.output, "BALLAST_SCRIPT=@ballast-test\n") || strings.Contains(res.output, "stdin") {
		t.Errorf("environment:\n%s", res.output)
	}
}

// TestTimeoutKillsTheGroup: also a child that ignores SIGTERM, and one whose
// parent has gone.
func TestTimeoutKillsTheGroup(t *testing.T) {
	dir := folder(t)
	pids := filepath.Join(dir, "pids")
	child := write(t, filepath.Join(dir, "child"), `trap '' TERM; echo $$ >>`+pids+`; while :; do sleep 0.05; done`)
	const limit = 3 * time.Second // far more than they need to begin
	began := time.Now()
	res := testRunner().run(context.Background(), model.Command{Shell: child + " & " + child + " & trap '' TERM; while [ $(wc -l <" + pids + ") -lt 2 ]; do sleep 0.02; done; wait"},
		nil, limit)
	if res.exit != -1 || res.detail != "timeout after 3s, killed" {
		t.Errorf("%+v", res)
	}
	if d := time.Since(began); d < limit+killAfter || d > limit+killAfter+30*time.Second {
		t.Errorf("took %s: SIGKILL comes %s after SIGTERM", d, killAfter)
	}
	b, err := os.ReadFile(pids)
	if err != nil {
		t.Fatal(err)
	}
	list := strings.Fields(string(b))
	if len(list) != 2 {
		t.Fatalf("children %q", list)
	}
	for _, p := range list {
		var pid int
		fmt.Sscan(p, &pid)
		await(t, "the end of child "+p, func() bool { return gone(pid) })
	}
	// SIGTERM reaches the children too, and gives them time to tidy up.
	tidy := filepath.Join(dir, "tidied")
	child = write(t, filepath.Join(dir, "tidy"), `trap 'echo x >`+tidy+`; exit' TERM; echo >`+tidy+`.up; while :; do sleep 0.02; done`)
	testRunner().run(context.Background(), model.Command{Shell: child + " & trap '' TERM; while [ ! -e " + tidy + ".up ]; do sleep 0.02; done; while :; do sleep 0.02; done"},
		nil, limit)
	if _, err := os.Stat(tidy); err != nil {
		t.Errorf("the child was not asked to end: %v", err)
	}
	// One that dies of SIGTERM is not waited for longer.
	began = time.Now()
	testRunner().run(context.Background(), model.Command{Argv: []string{"sleep", "60"}}, nil, 50*time.Millisecond)
	if d := time.Since(began); d > killAfter {
		t.Errorf("took %s", d)
	}
}

// gone counts a zombie that init has yet to reap as gone.
func gone(pid int) bool {
	if unix.Kill(pid, 0) == unix.ESRCH {
		return true
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(b), ") Z ")
}

// TestBackgroundChild: a script that leaves something running with its output
// open has ended all the same.
func TestBackgroundChild(t *testing.T) {
	began := time.Now()
	res := testRunner().run(context.Background(), model.Command{Shell: "sleep 30 & echo done"}, nil, time.Minute)
	if res.exit != 0 || res.output != "done\n" || time.Since(began) > 20*time.Second {
		t.Errorf("%+v after %s", res, time.Since(began))
	}
}

func TestTail(t *testing.T) {
	res := testRunner().run(context.Background(), model.Command{Shell: "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done"}, nil, time.Minute)
	if len(res.output) > tailSize+8 || !strings.HasSuffix(res.output, "line 19999\n") || !strings.HasPrefix(res.output, "…") {
		t.Errorf("%d bytes: %.20q…", len(res.output), res.output)
	}
	var big tail
	big.Write([]byte(strings.Repeat("x", 3*tailSize)))
	big.Write([]byte("end"))
	if s := big.String(); len(s) != tailSize+len("…") || !strings.HasSuffix(s, "xend") {
		t.Errorf("%d bytes", len(s))
	}
}

// Who asked to resign is told without what may be a secret: the words behind a
// script's name, and a shell line.
func TestProcessNameHoldsNoArguments(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"/etc/keepalived/check.sh\x00--password\x00hunter2\x00", "/etc/keepalived/check.sh"},
		{"/bin/sh\x00/etc/keepalived/check.sh\x00hunter2\x00", "/etc/keepalived/check.sh"},
		{"sh\x00-c\x00curl -u ann:hunter2 http://x || killall keepalived\x00", "sh -c"},
		{"bash\x00-x\x00/opt/a\x00", "bash"},
		{"sh\x00", "sh"},
		{"/opt/a\x1b[2J\n\x00", "/opt/a?[2J"},
	} {
		if got := commandName([]byte(c.in)); got != c.want {
			t.Errorf("%q: %q, want %q", c.in, got, c.want)
		}
	}
}
