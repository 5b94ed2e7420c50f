package supervise

import (
	"errors"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Reaper collects the exit of every child of this process: of the services,
// and of orphans, which the kernel makes children of PID 1. Nothing else in the
// process may wait for children, so there is no os/exec in init.
type Reaper struct {
	mu     sync.Mutex
	wanted map[int]chan<- Exit
	stop   chan struct{}
	done   chan struct{}
}

// Exit is how a process ended.
type Exit struct {
	Status syscall.WaitStatus
	Usage  syscall.Rusage
}

// String is "exit 1", "killed (SIGKILL)".
func (e Exit) String() string {
	switch {
	case e.Status.Exited():
		return "exit " + itoa(e.Status.ExitStatus())
	case e.Status.Signaled():
		s := unix.SignalName(e.Status.Signal())
		if e.Status.CoreDump() {
			s += ", core"
		}
		return "killed (" + s + ")"
	}
	return "ended"
}

// NewReaper begins to reap. Stop ends it.
func NewReaper() *Reaper {
	r := &Reaper{wanted: map[int]chan<- Exit{}, stop: make(chan struct{}), done: make(chan struct{})}
	sig := make(chan os.Signal, 1) // one is enough: each makes us look at everything
	signal.Notify(sig, unix.SIGCHLD)
	go func() {
		defer close(r.done)
		defer signal.Stop(sig)
		for {
			r.reap()
			select {
			case <-sig:
			case <-r.stop:
				return
			}
		}
	}()
	return r
}

// Stop ends reaping.
func (r *Reaper) Stop() {
	close(r.stop)
	<-r.done
}

func (r *Reaper) reap() {
	for {
		var e Exit
		// The lock makes sure that a child which ends at once is not reaped
		// before start has said who waits for it.
		r.mu.Lock()
		pid, err := syscall.Wait4(-1, &e.Status, syscall.WNOHANG, &e.Usage)
		ch := r.wanted[pid]
		if pid > 0 {
			delete(r.wanted, pid)
		}
		r.mu.Unlock()
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if ch != nil {
			ch <- e // has room for one
		}
	}
}

// start runs fork, which makes a child, and returns where its exit is told.
func (r *Reaper) start(fork func() (pid int, err error)) (int, <-chan Exit, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	pid, err := fork()
	if err != nil {
		return 0, nil, err
	}
	ch := make(chan Exit, 1)
	r.wanted[pid] = ch
	return pid, ch, nil
}
