package kernel

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Loop waits for descriptors, a deadline or a Wake, whatever comes first.
type Loop struct {
	epoll, timer, wake int
	events             [64]unix.EpollEvent
	ready              []int
	base               time.Time
	armed              time.Duration // what the timer is set to
}

// NewLoop opens what a loop needs.
func NewLoop() (*Loop, error) {
	l := &Loop{epoll: -1, timer: -1, wake: -1, base: time.Now(), ready: make([]int, 0, 64)}
	var err error
	if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	if l.timer, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK); err != nil {
		l.Close()
		return nil, fmt.Errorf("timerfd: %w", err)
	}
	if l.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		l.Close()
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	for _, fd := range []int{l.timer, l.wake} {
		if err := l.Add(fd); err != nil {
			l.Close()
			return nil, err
		}
	}
	return l, nil
}

// Close closes the loop's own descriptors.
func (l *Loop) Close() {
	for _, fd := range []int{l.epoll, l.timer, l.wake} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// Now is the time on the loop's monotonic scale, which is CLOCK_MONOTONIC's.
func (l *Loop) Now() time.Duration { return time.Since(l.base) + time.Hour }

// Time is the wall-clock time of a moment on the loop's scale.
func (l *Loop) Time(at time.Duration) time.Time { return time.Now().Add(at - l.Now()) }

// Add waits for a descriptor to become readable, from now on.
func (l *Loop) Add(fd int) error {
	if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}); err != nil {
		return fmt.Errorf("epoll add: %w", err)
	}
	return nil
}

// Remove stops waiting for a descriptor. Closing it does the same.
func (l *Loop) Remove(fd int) { unix.EpollCtl(l.epoll, unix.EPOLL_CTL_DEL, fd, nil) }

// Wake makes Wait return. It may be called from any goroutine.
func (l *Loop) Wake() {
	one := [8]byte{1}
	unix.Write(l.wake, one[:])
}

// Rest sleeps, whatever becomes readable meanwhile, but not beyond the deadline.
func (l *Loop) Rest(d, deadline time.Duration) {
	if d = min(d, deadline-l.Now()); d > 0 {
		t := unix.NsecToTimespec(int64(d))
		unix.Nanosleep(&t, nil)
	}
}

// Wait returns the readable descriptors at the deadline at the latest, on the
// scale of Now. The slice is valid until the next Wait.
func (l *Loop) Wait(deadline time.Duration) ([]int, error) {
	// A timer that rings too early costs a turn, setting it costs a call each
	// turn: with hundreds of advertisements a second the deadline moves on with
	// each of them. Setting it also takes back that it has rung.
	if now := l.Now(); l.armed <= now || deadline < l.armed {
		l.armed = max(deadline, now+1)
		spec := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(l.armed - now))}
		if err := unix.TimerfdSettime(l.timer, 0, &spec, nil); err != nil {
			return nil, fmt.Errorf("timerfd: %w", err)
		}
	}
	n, err := unix.EpollWait(l.epoll, l.events[:], -1)
	if err == unix.EINTR {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	l.ready = l.ready[:0]
	var drop [8]byte
	for _, e := range l.events[:n] {
		switch fd := int(e.Fd); fd {
		case l.timer:
		case l.wake:
			unix.Read(fd, drop[:])
		default:
			l.ready = append(l.ready, fd)
		}
	}
	return l.ready, nil
}
