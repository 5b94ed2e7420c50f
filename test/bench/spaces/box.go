package spaces

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ballast/configs/model"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
	"ballast/test/locked"
)

// Box is a router: our vrrp process, or keepalived.
type Box struct {
	net   *Net
	index int
	ours  ipc.Dir
	start func() (*exec.Cmd, error)
	cmd   *exec.Cmd
	words *locked.Buffer
	// files are what our process inherits.
	files []*os.File
}

// maxWords are the bytes that are kept of what a box says.
const maxWords = 64 << 10

// Words are the first that the box said.
func (b *Box) Words() string { return b.words.String() }

// Ours starts the vrrp process of the box as init does, with the bench in the
// place of the services that it watches.
func (n *Net) Ours(index int, binary string, c model.Config) (*Box, error) {
	dir := n.file(hosts[index])
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, fmt.Errorf("spaces: %w", err)
	}
	b := &Box{net: n, index: index, ours: ipc.Dir(dir), words: &locked.Buffer{Max: maxWords}}
	ctx, cancel := context.WithCancel(context.Background())
	n.defers(cancel)
	for name, state := range map[string]any{"conf": status.Conf{Generation: 1, Config: c}, "notify": nil, "net": nil, "ipvs": nil} {
		s := ipc.NewServer(name)
		s.Publish(state)
		l, err := net.Listen("unix", b.ours.Path(name))
		if err != nil {
			return nil, fmt.Errorf("spaces: %w", err)
		}
		go s.Serve(ctx, l)
	}
	l, err := net.Listen("unix", b.ours.Path("vrrp"))
	if err != nil {
		return nil, fmt.Errorf("spaces: %w", err)
	}
	n.defers(func() { l.Close() })
	lf, err := l.(*net.UnixListener).File()
	if err != nil {
		return nil, fmt.Errorf("spaces: %w", err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("spaces: %w", err)
	}
	n.defers(func() { lf.Close(); w.Close(); r.Close() })
	go io.Copy(io.Discard, r)
	b.files = []*os.File{lf, w}
	b.start = func() (*exec.Cmd, error) {
		cmd := exec.Command("ip", "netns", "exec", n.space(hosts[index]), binary, "run", "vrrp")
		cmd.ExtraFiles = b.files
		cmd.Env = []string{"PATH=/bin:/sbin:/usr/sbin", ipc.EnvDir + "=" + dir}
		return cmd, nil
	}
	return b, b.Start()
}

// Keepalived starts the peer, VRRP only.
func (n *Net) Keepalived(index int, text string) (*Box, error) {
	b := &Box{net: n, index: index, words: &locked.Buffer{Max: maxWords}}
	p := func(what string) string { return n.file(hosts[index] + "." + what) }
	if err := os.WriteFile(p("conf"), []byte(text), 0o644); err != nil {
		return nil, fmt.Errorf("spaces: %w", err)
	}
	b.start = func() (*exec.Cmd, error) {
		return exec.Command("ip", "netns", "exec", n.space(hosts[index]), "keepalived", "--dont-fork", "--log-console", "--vrrp",
			"--use-file", p("conf"), "--pid", p("pid"), "--vrrp_pid", p("vrrp.pid")), nil
	}
	return b, b.Start()
}

// Start starts the box's process, again after Stop.
func (b *Box) Start() error {
	cmd, err := b.start()
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = b.words, b.words
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("spaces: %w", err)
	}
	b.cmd = cmd
	b.net.defers(func() { b.end(cmd, unix.SIGTERM) })
	return nil
}

// end makes a process end, within five seconds by force.
func (b *Box) end(cmd *exec.Cmd, sig unix.Signal) {
	if cmd.ProcessState != nil {
		return
	}
	cmd.Process.Signal(unix.SIGCONT)
	cmd.Process.Signal(sig)
	done := make(chan struct{})
	go func() { cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		b.signal(unix.SIGKILL)
		<-done
	}
}

// Stop ends the box in order, as an operator would.
func (b *Box) Stop() { b.end(b.cmd, unix.SIGTERM) }

// Freeze stops all processes of the box where they are.
func (b *Box) Freeze() { b.signal(unix.SIGSTOP) }

// Thaw lets them go on.
func (b *Box) Thaw() { b.signal(unix.SIGCONT) }

func (b *Box) signal(s unix.Signal) {
	for _, pid := range b.tree() {
		unix.Kill(pid, s)
	}
}

// tree is the first process and its children, whichever process groups they
// made for themselves.
func (b *Box) tree() []int {
	list := []int{b.cmd.Process.Pid}
	for i := 0; i < len(list); i++ {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", list[i], list[i]))
		if err != nil {
			continue
		}
		for f := range strings.FieldsSeq(string(text)) {
			if pid, err := strconv.Atoi(f); err == nil {
				list = append(list, pid)
			}
		}
	}
	return list
}

// Used is the processor time of the box's processes by their own clocks, to the
// nanosecond.
func (b *Box) Used() (time.Duration, error) {
	var sum time.Duration
	for _, pid := range b.tree() {
		var ts unix.Timespec
		// The clock id of another process's processor time: MAKE_PROCESS_CPUCLOCK
		// with CPUCLOCK_SCHED of the kernel's posix-timers.h.
		if err := unix.ClockGettime(int32(^pid)<<3|2, &ts); err != nil {
			return 0, fmt.Errorf("spaces: processor time of process %d: %w", pid, err)
		}
		sum += time.Duration(ts.Nano())
	}
	return sum, nil
}

// RSS is the memory of the box's processes in bytes.
func (b *Box) RSS() (sum uint64) {
	for _, pid := range b.tree() {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
		if f := strings.Fields(string(text)); err == nil && len(f) > 1 {
			n, _ := strconv.ParseUint(f[1], 10, 64)
			sum += n * uint64(os.Getpagesize())
		}
	}
	return sum
}

// State is what our process says of itself.
func (b *Box) State(ctx context.Context) (v status.VRRP, err error) {
	if b.ours == "" {
		return v, errors.New("spaces: keepalived has no state")
	}
	_, err = b.ours.Client("vrrp").State(ctx, &v)
	return v, err
}

// Verb asks our process for something.
func (b *Box) Verb(ctx context.Context, name string, arg any) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return b.ours.Client("vrrp").Call(ctx, name, arg, nil)
}
