package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"ballast/test/lab/wire"
)

// openPort opens the virtio-serial port with the agent's name.
func openPort() (*os.File, error) {
	names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		if b, err := os.ReadFile(n); err == nil && strings.TrimSpace(string(b)) == wire.Port {
			return os.OpenFile(filepath.Join("/dev", filepath.Base(filepath.Dir(n))), os.O_RDWR, 0)
		}
	}
	return nil, fmt.Errorf("this VM has no virtio-serial port %s", wire.Port)
}

// server is the agent's side of one connection.
type server struct {
	mu    sync.Mutex // writes
	enc   *json.Encoder
	procs sync.Map // uint64: *process

	netMu  sync.Mutex
	spaces map[string]bool
}

// process is a program from the moment that it is asked for: a signal that comes
// before it has started waits for that.
type process struct {
	started chan struct{} // closed then, or when it did not start
	cmd     *exec.Cmd     // nil: it did not start
	stdin   io.WriteCloser
}

func agent() error {
	port, err := openPort()
	if err != nil {
		return err
	}
	defer port.Close()
	s := &server{enc: json.NewEncoder(port), spaces: map[string]bool{}}
	d := json.NewDecoder(port)
	for {
		var r wire.Request
		if err := d.Decode(&r); err != nil {
			return fmt.Errorf("the lab has gone: %w", err)
		}
		switch r.Op {
		case wire.OpStdin, wire.OpSignal: // in their order, and quick
			s.control(r)
		default:
			if r.Op == wire.OpExec {
				s.procs.Store(r.ID, &process{started: make(chan struct{})})
			}
			go s.handle(r)
		}
	}
}

func (s *server) reply(r wire.Reply) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.enc.Encode(r) // a lab that has gone ends the reader
}

func (s *server) handle(r wire.Request) {
	done := wire.Reply{ID: r.ID, Done: true}
	var err error
	switch r.Op {
	case wire.OpPing:
	case wire.OpExec:
		done.Code, err = s.exec(r)
	case wire.OpPut:
		err = put(r)
	case wire.OpGet:
		var b []byte
		if b, err = os.ReadFile(r.Path); err == nil {
			done.Out = b
		}
	case wire.OpNet:
		err = s.setNet(*r.Net)
	case wire.OpOff:
		unix.Sync()
		err = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	default:
		err = fmt.Errorf("unknown operation %q", r.Op)
	}
	if err != nil {
		done.Error = err.Error()
	}
	s.reply(done)
}

func put(r wire.Request) error {
	if err := os.MkdirAll(filepath.Dir(r.Path), 0o755); err != nil {
		return err
	}
	mode := os.FileMode(r.Mode)
	if mode == 0 {
		mode = 0o644
	}
	return os.WriteFile(r.Path, r.Data, mode)
}

// stream sends what a program prints.
type stream struct {
	s   *server
	id  uint64
	err bool
}

func (w stream) Write(p []byte) (int, error) {
	w.s.reply(wire.Reply{ID: w.id, Out: p, Err: w.err})
	return len(p), nil
}

func (s *server) exec(r wire.Request) (int, error) {
	v, _ := s.procs.Load(r.ID)
	p := v.(*process)
	defer s.procs.Delete(r.ID)
	up := sync.OnceFunc(func() { close(p.started) })
	defer up()
	e := r.Exec
	if e == nil || len(e.Argv) == 0 {
		return -1, errors.New("exec: no program")
	}
	name := e.Argv[0]
	if name == "node" {
		name = self
	}
	cmd := exec.Command(name, e.Argv[1:]...)
	cmd.Env = append(os.Environ(), e.Env...)
	cmd.Dir = e.Dir
	cmd.Stdout, cmd.Stderr = stream{s, r.ID, false}, stream{s, r.ID, true}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := cmd.StdinPipe()
	if err != nil {
		return -1, err
	}
	if err := startIn(cmd, e.Space); err != nil {
		return -1, err
	}
	p.cmd, p.stdin = cmd, in
	up()
	err = cmd.Wait()
	var ee *exec.ExitError
	switch {
	case err == nil:
		return 0, nil
	case errors.As(err, &ee) && ee.Exited():
		return ee.ExitCode(), nil
	}
	return -1, err
}

// startIn starts a program in a network namespace: a child inherits that of
// the thread that forks it.
func startIn(cmd *exec.Cmd, space string) error {
	if space == "" {
		return cmd.Start()
	}
	return inSpace(space, cmd.Start)
}

// inSpace calls fn on a thread that is in a network namespace.
func inSpace(space string, fn func() error) error {
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with the goroutine and no other one
		// gets a thread that is in the wrong namespace.
		runtime.LockOSThread()
		ns, err := netns.GetFromName(space)
		if err != nil {
			done <- fmt.Errorf("namespace %s: %w", space, err)
			return
		}
		defer ns.Close()
		if err := netns.Set(ns); err != nil {
			done <- fmt.Errorf("enter namespace %s: %w", space, err)
			return
		}
		done <- fn()
	}()
	return <-done
}

func (s *server) control(r wire.Request) {
	v, ok := s.procs.Load(r.To)
	if !ok {
		return // it has ended
	}
	p := v.(*process)
	<-p.started
	if p.cmd == nil {
		return
	}
	switch r.Op {
	case wire.OpSignal:
		syscall.Kill(-p.cmd.Process.Pid, syscall.Signal(r.Signal))
	case wire.OpStdin:
		if len(r.Data) > 0 {
			p.stdin.Write(r.Data)
		}
		if r.EOF {
			p.stdin.Close()
		}
	}
}
