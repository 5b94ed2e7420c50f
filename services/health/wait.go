package health

import (
	"fmt"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// waiter is the loop's epoll descriptor, waited for by way of Go's own poller.
//
// A goroutine that waits inside epoll_wait(2) itself is, to Go's scheduler, one
// in a system call: each waking takes the processor back, which wakes Go's
// monitor thread, which then looks about every 20 µs until nothing runs. With
// a few probes a waking that is a quarter of what a half-open check costs. One
// that is parked has none of it. For the same reason calls on the way of each
// probe that cannot block are made raw: past the scheduler.
type waiter struct {
	ep     int
	file   *os.File // the same descriptor, as Go's poller has it
	conn   syscall.RawConn
	timer  int       // timerfd: exact, and woken by epoll like everything else
	armed  time.Time // what the timer is set to, zero: off
	parked time.Time // the last time that others could run for sure
	look   func(uintptr) bool
	looks  int
	events []unix.EpollEvent
	n      int // of them are ready
	err    error
}

// mostBusy is how long the loop may run without a pause until Go's monitor is
// told: on one processor nobody else would ever take it from us.
const mostBusy = 10 * time.Millisecond

func newWaiter() (w *waiter, err error) {
	w = &waiter{ep: -1, timer: -1, events: make([]unix.EpollEvent, 256)}
	w.look = w.ready
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return w, fmt.Errorf("health: epoll: %w", err)
	}
	w.ep = ep
	if err := unix.SetNonblock(ep, true); err != nil { // else Go does not poll it
		return w, fmt.Errorf("health: epoll: %w", err)
	}
	w.file = os.NewFile(uintptr(ep), "epoll")
	if w.conn, err = w.file.SyscallConn(); err != nil {
		return w, fmt.Errorf("health: epoll: %w", err)
	}
	if w.timer, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK); err != nil {
		return w, fmt.Errorf("health: timer: %w", err)
	}
	// By edge: then nobody needs to read it.
	return w, w.add(w.timer, unix.EPOLLIN|unix.EPOLLET)
}

func (w *waiter) add(fd int, events uint32) error {
	return w.ctl(unix.EPOLL_CTL_ADD, fd, events)
}

func (w *waiter) ctl(op, fd int, events uint32) error {
	ev := unix.EpollEvent{Events: events, Fd: int32(fd)}
	_, _, e := unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(w.ep), uintptr(op), uintptr(fd), uintptr(unsafe.Pointer(&ev)), 0, 0)
	if e != 0 {
		return e
	}
	return nil
}

func (w *waiter) close() {
	if w.timer >= 0 {
		unix.Close(w.timer)
	}
	switch {
	case w.file != nil:
		w.file.Close()
	case w.ep >= 0:
		unix.Close(w.ep)
	}
	w.timer, w.ep, w.file = -1, -1, nil
}

// wait returns the descriptors that are ready, none at the latest when it is
// the given time.
func (w *waiter) wait(now, until time.Time) ([]unix.EpollEvent, error) {
	switch {
	case !until.After(now):
		w.n, w.err = w.poll(now.Sub(w.parked) > mostBusy)
	default:
		if err := w.arm(until, until.Sub(now)); err != nil {
			return nil, err
		}
		w.looks = 0
		if err := w.conn.Read(w.look); err != nil {
			return nil, fmt.Errorf("health: epoll: %w", err)
		}
	}
	if w.err != nil {
		return nil, fmt.Errorf("health: epoll: %w", w.err)
	}
	return w.events[:w.n], nil
}

// ready is called by Go's poller before the goroutine is parked, and each time
// that the descriptor has become readable. It must leave nothing unread before
// it says no: the poller tells of a change only.
func (w *waiter) ready(uintptr) bool {
	now := time.Now()
	if w.looks++; w.looks > 1 {
		w.parked = now
	}
	w.n, w.err = w.poll(now.Sub(w.parked) > mostBusy)
	return w.n > 0 || w.err != nil
}

// arm sets the timer, if it is not set to that time already. A time that has
// gone by since was told, so it never stands for one to come.
func (w *waiter) arm(until time.Time, in time.Duration) error {
	if w.armed.Equal(until) {
		return nil
	}
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(in))}
	if _, _, e := unix.RawSyscall6(unix.SYS_TIMERFD_SETTIME, uintptr(w.timer), 0, uintptr(unsafe.Pointer(&spec)), 0, 0, 0); e != 0 {
		return fmt.Errorf("health: timer: %w", e)
	}
	w.armed = until
	return nil
}

// poll asks without waiting. An ordinary call wakes Go's monitor, a raw one
// does not.
func (w *waiter) poll(ordinary bool) (int, error) {
	call := unix.RawSyscall6
	if ordinary {
		call = unix.Syscall6
	}
	n, _, e := call(unix.SYS_EPOLL_PWAIT, uintptr(w.ep), uintptr(unsafe.Pointer(&w.events[0])), uintptr(len(w.events)), 0, 0, 0)
	switch e {
	case 0:
		return int(n), nil
	case unix.EINTR:
		return 0, nil
	}
	return 0, e
}

// wakeMonitor is for who computes for long: on one processor Go's monitor, which
// may be asleep, is what lets the loop in between.
func wakeMonitor() { unix.Syscall(unix.SYS_GETPID, 0, 0, 0) }
