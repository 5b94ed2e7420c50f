package notify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ballast/configs/model"
	"ballast/services/ipc"
)

// scriptPath is where a script finds its commands: what the administrator put
// on the box, our own commands, the u-root ones.
const scriptPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/bbin"

const (
	killAfter = 2 * time.Second        // from SIGTERM to SIGKILL
	pipeWait  = 200 * time.Millisecond // for what a script left in the background to let go of its output
	tailSize  = 4 << 10                // bytes of output kept
)

// runner starts programs for others: in a process group of their own, as the
// script user, with a clean environment.
type runner struct {
	shell  string   // interpreter of Command.Shell
	path   string   // PATH
	env    []string // beside PATH
	cred   *syscall.Credential
	cgroup *os.File // that scripts are put into; nil: the one of this process
}

func newRunner(o Options) *runner {
	r := &runner{shell: "/bin/sh", path: scriptPath, env: []string{
		"HOME=/", "LANG=C", "SHELL=/bin/sh", "USER=keepalived_script", "LOGNAME=keepalived_script",
		"BALLAST_SCRIPT=" + string(o.Socket),
	}}
	if o.Shell != "" {
		r.shell = o.Shell
	}
	if o.Path != "" {
		r.path = o.Path
	}
	dropAmbient()
	if maySetUser() {
		r.cred = &syscall.Credential{Uid: ipc.UIDScript, Gid: ipc.UIDScript}
	}
	return r
}

// dropAmbient keeps capabilities from reaching scripts: ambient ones survive
// both setuid (between two users that are not root) and exec.
func dropAmbient() {
	// ENOTSUP in a cgo build, which only tests are.
	syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0, 0)
}

// maySetUser reports whether this process may start others as the script user.
func maySetUser() bool {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if unix.Capget(&hdr, &data[0]) != nil {
		return false
	}
	const need = 1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID | 1<<unix.CAP_KILL
	return data[0].Effective&need == need
}

// result is what came of a run.
type result struct {
	exit    int  // -1: killed, or not started
	missing bool // the file is not there or cannot run
	output  string
	detail  string
	took    time.Duration
}

// argv finds the program of a command.
func (r *runner) argv(c model.Command, extra []string) (path string, argv []string, err error) {
	if c.Shell != "" {
		line := c.Shell
		argv = append([]string{"sh", "-c", line, "sh"}, extra...)
		return r.shell, argv, nil
	}
	if len(c.Argv) == 0 {
		return "", nil, errors.New("no command")
	}
	path, err = r.look(c.Argv[0])
	return path, append(append([]string(nil), c.Argv...), extra...), err
}

// look finds a program as execvp does, but along the script's own PATH.
func (r *runner) look(name string) (string, error) {
	if strings.Contains(name, "/") {
		return name, executable(name)
	}
	var first error
	for dir := range strings.SplitSeq(r.path, ":") {
		p := filepath.Join(dir, name)
		err := executable(p)
		if err == nil {
			return p, nil
		}
		if first == nil && !errors.Is(err, fs.ErrNotExist) {
			first = err
		}
	}
	if first == nil {
		first = fmt.Errorf("%s: not found in %s", name, r.path)
	}
	return name, first
}

func executable(path string) error {
	st, err := os.Stat(path)
	if err != nil {
		var pe *fs.PathError
		if errors.As(err, &pe) {
			return fmt.Errorf("%s: %w", path, pe.Err)
		}
		return err
	}
	switch {
	case st.IsDir():
		return fmt.Errorf("%s: is a folder", path)
	case st.Mode()&0o111 == 0:
		return fmt.Errorf("%s: not executable (mode %#o)", path, st.Mode().Perm())
	}
	return nil
}

// run does a command once and returns when nothing of its process group is
// left that it waited for. After timeout (0: none), or when ctx ends, the group
// gets SIGTERM, and SIGKILL 2 s later.
func (r *runner) run(ctx context.Context, c model.Command, extra []string, timeout time.Duration) result {
	began := time.Now()
	path, argv, err := r.argv(c, extra)
	if err != nil {
		return result{exit: -1, missing: true, detail: err.Error(), took: time.Since(began)}
	}
	out := &tail{}
	cmd := &exec.Cmd{
		Path: path, Args: argv, Dir: "/", Stdout: out, Stderr: out, WaitDelay: pipeWait,
		Env: append([]string{"PATH=" + r.path}, r.env...),
		SysProcAttr: &syscall.SysProcAttr{
			Setpgid: true, Pdeathsig: syscall.SIGTERM, Credential: r.cred,
		},
	}
	if r.cgroup != nil {
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(r.cgroup.Fd())
	}
	if err := cmd.Start(); err != nil {
		return result{exit: -1, missing: missingFile(err), detail: startReason(path, err), took: time.Since(began)}
	}
	res := r.wait(ctx, cmd, timeout)
	res.took = time.Since(began)
	res.output = out.String()
	return res
}

func (r *runner) wait(ctx context.Context, cmd *exec.Cmd, timeout time.Duration) result {
	pid := cmd.Process.Pid
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		// Do not reap it yet: while the leader is a zombie its process group
		// cannot be somebody else's.
		for {
			err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
			if err != unix.EINTR {
				return
			}
		}
	}()
	var limit <-chan time.Time // none: a reader of a pipe runs as long as the pipe is there
	if timeout > 0 {
		t := time.NewTimer(timeout)
		defer t.Stop()
		limit = t.C
	}
	killed := ""
	select {
	case <-exited:
	case <-limit:
		killed = fmt.Sprintf("timeout after %s, killed", timeout)
	case <-ctx.Done():
		killed = "stopped"
	}
	if killed != "" {
		unix.Kill(-pid, unix.SIGTERM)
		last := time.NewTimer(killAfter)
		defer last.Stop()
		select {
		case <-exited:
		case <-last.C:
		}
		unix.Kill(-pid, unix.SIGKILL) // the leader, or what it left behind
		<-exited
	}
	err := cmd.Wait()
	if killed != "" {
		return result{exit: -1, detail: killed}
	}
	if err != nil && cmd.ProcessState == nil {
		return result{exit: -1, detail: err.Error()}
	}
	ws, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ws.Signaled() {
		return result{exit: -1, detail: "killed by " + unix.SignalName(ws.Signal())}
	}
	return result{exit: ws.ExitStatus(), detail: fmt.Sprintf("exit %d", ws.ExitStatus())}
}

func missingFile(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.ENOEXEC)
}

func startReason(path string, err error) string {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return err.Error()
	}
	switch errno {
	case unix.ENOENT: // the file was there a moment ago
		return path + ": its interpreter (the #! line) is not on this box"
	case unix.ENOEXEC:
		return path + ": not a program and no #! line"
	case unix.EACCES:
		return path + ": the script user may not run it (mode of the file and of the folders above it)"
	}
	return path + ": " + errno.Error()
}

// tail keeps the end of what is written to it.
type tail struct {
	mu  sync.Mutex
	buf []byte
	cut bool
}

var _ io.Writer = (*tail)(nil)

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b[max(0, len(b)-tailSize):]...)
	if n := len(t.buf) - tailSize; n > 0 || len(b) > tailSize {
		t.buf = append(t.buf[:0], t.buf[max(n, 0):]...)
		t.cut = true
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := strings.ToValidUTF8(string(t.buf), "�")
	if t.cut {
		return "…" + s
	}
	return s
}

// lastLine is the last line of output that says something, for a Detail.
func lastLine(s string) string {
	s = strings.TrimSpace(s)
	if i := strings.LastIndexByte(s, '\n'); i >= 0 {
		s = s[i+1:]
	}
	const most = 200
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}
