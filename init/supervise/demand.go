package supervise

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ballast/init/journal"
)

// knock tells when somebody connects to a socket whose service does not run. It
// only looks: the connection stays in the backlog for the service.
type knock struct {
	f   *os.File // the same open socket once more
	raw syscall.RawConn
}

// newKnock waits at the Go runtime's poller, so that a service that sleeps
// costs init no thread.
func newKnock(l *net.UnixListener) (*knock, error) {
	raw, err := l.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd, ferr := -1, error(nil)
	if err := raw.Control(func(own uintptr) { fd, ferr = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return nil, err
	}
	if ferr != nil {
		return nil, fmt.Errorf("duplicate: %w", ferr)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // or the runtime does not take it
		unix.Close(fd)
		return nil, err
	}
	k := &knock{f: os.NewFile(uintptr(fd), "knock")}
	if k.raw, err = k.f.SyscallConn(); err != nil {
		k.f.Close()
		return nil, err
	}
	return k, nil
}

// wait returns when a connection waits, or with os.ErrDeadlineExceeded after cancel.
func (k *knock) wait() error {
	var perr error
	err := k.raw.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		for {
			n, err := unix.Poll(p, 0)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			perr = err
			return n > 0 || err != nil
		}
	})
	return errors.Join(err, perr)
}

// awaitUse returns true when somebody connects or Wake is called, false when
// the service is stopped.
func (v *service) awaitUse() bool {
	v.set(func() { v.pid, v.state = 0, Idle })
	v.knock.f.SetReadDeadline(time.Time{})
	came := make(chan error, 1)
	go func() { came <- v.knock.wait() }()
	use := true
	select {
	case err := <-came:
		if err != nil { // start it: it serves, and ends after a while
			v.say(journal.Error, "%s: wait for a caller: %v", v.spec.Name, err)
		}
		return true
	case <-v.wake:
	case <-v.stop:
		use = false
	}
	v.knock.f.SetReadDeadline(time.Unix(1, 0))
	<-came
	return use
}

// rested reports whether a process that began at begin has ended because nobody
// had a use for it, and not by a fault.
func (v *service) rested(p *process, begin time.Time, err error) bool {
	if v.spec.Idle == 0 || err != errOrderly || time.Since(begin) < v.spec.Idle {
		return false
	}
	select {
	case <-p.ready:
		return true
	default:
		return false
	}
}

// Wake starts a service on demand that is idle; it ends by itself when nobody
// has a use for it.
func (s *Supervisor) Wake(name string) {
	v := s.find(name)
	if v == nil || v.spec.Idle == 0 {
		return
	}
	select {
	case v.wake <- struct{}{}:
	default:
	}
}
