package pacer

import (
	"encoding/binary"
	"fmt"
	"math"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What vrrp says over its connection: four bytes of kind and four of a number,
// some with a descriptor.
const (
	sayHello  = 1 // with the table's memory; always the first
	saySocket = 2 // number, with a socket
	sayForget = 3 // number of a socket that is closed
	sayCommit = 4 // the table is in force, and no other; answered by itself
	sayLook   = 5 // a slot was armed, or one that is asleep was sent
	wordSize  = 8
)

const (
	idleTurn = 2 * time.Second // the loop goes round at least this often
	maxConns = 4
)

// conn is one process of vrrp: its connection and its table. Where fd is -1 the
// process is gone, and the table in force until its lease ends.
type conn struct {
	fd    int
	mem   unsafe.Pointer // nil: no hello yet
	table table
	socks [Sockets]int32 // -1: none
	watch [Slots]watch
}

// loop is all of the process that matters. Whoever calls its methods is locked
// to a thread.
type loop struct {
	turns    atomic.Uint64
	listen   int
	stop     int    // an eventfd: end
	trash    [2]int // a pipe: descriptors for somebody else to close
	allowed  [2]int // users
	realTime bool
	base     time.Time // together with epoch: CLOCK_MONOTONIC without a system call
	epoch    int64

	cpus unix.CPUSet // that the process may use
	left unix.CPUSet // those without vrrp's
	here cpu

	conns [maxConns]conn
	used  [maxConns]bool
	force int // the connection whose table is in force; -1: none
	// Figures since the start of this process; every table in force has them.
	stood, failed uint64
	late, ownLate int64

	scratch scratch
	poll    [2 + maxConns]unix.PollFd
	timeout unix.Timespec
	hdr     unix.Msghdr
	iov     unix.Iovec
	word    [wordSize]byte
	oob     [64]byte
	dropFD  [4]byte
}

func newLoop(listen int, allowed ...int) (*loop, error) {
	l := &loop{listen: listen, stop: -1, trash: [2]int{-1, -1}, force: -1}
	copy(l.allowed[:], allowed)
	if len(allowed) == 1 {
		l.allowed[1] = allowed[0]
	}
	for i := range l.conns {
		l.conns[i].fd = -1
	}
	if err := unix.SetNonblock(listen, true); err != nil {
		return nil, fmt.Errorf("pacer: listener: %w", err)
	}
	var err error
	if l.stop, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, fmt.Errorf("pacer: eventfd: %w", err)
	}
	if err := unix.Pipe2(l.trash[:], unix.O_CLOEXEC); err != nil {
		unix.Close(l.stop)
		return nil, fmt.Errorf("pacer: pipe: %w", err)
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return nil, fmt.Errorf("pacer: clock: %w", err)
	}
	l.base, l.epoch = time.Now(), now.Nano()
	unix.SchedGetaffinity(0, &l.cpus) // none: the loop stays where it is
	go sweep(l.trash[0])
	return l, nil
}

// sweep closes what the loop throws away. The last close of a packet socket
// waits until no processor can be using it any more, which takes milliseconds.
func sweep(fd int) {
	defer unix.Close(fd)
	var b [4]byte
	for {
		n, err := unix.Read(fd, b[:])
		if err == unix.EINTR {
			continue
		}
		if err != nil || n != len(b) {
			return
		}
		unix.Close(int(binary.NativeEndian.Uint32(b[:])))
	}
}

// end makes run return. It may be called from any goroutine.
func (l *loop) end() {
	one := [8]byte{1}
	unix.Write(l.stop, one[:])
}

func (l *loop) close() {
	for i := range l.conns {
		l.drop(i)
	}
	unix.Close(l.stop)
	unix.Close(l.trash[1])
}

func (l *loop) now() int64 { return l.epoch + int64(time.Since(l.base)) }

// run is the loop, until end is called.
func (l *loop) run() unix.Errno {
	pinned := false
	for {
		l.turns.Add(1)
		wake, hasty := l.look()
		switch {
		case hasty && !pinned:
			procPin()
			pinned = true
			continue // pinning costs nothing, coming back to this thread before it may have
		case !hasty && pinned:
			procUnpin()
			pinned = false
		}
		done, e := l.wait(wake, pinned)
		if done || e != 0 {
			if pinned {
				procUnpin()
			}
			return e
		}
	}
}

// calm is the interval from which on the loop need not be pinned. Who waits three
// of them has time for what the runtime of a process without garbage may do; and
// while a goroutine is pinned the runtime looks a hundred times a second whether
// it still is, which costs 0.3 % of a processor.
const calm = time.Second

// look sends what is overdue and tells when to look again, and whether that is
// a matter of milliseconds.
func (l *loop) look() (wake int64, hasty bool) {
	wake = math.MaxInt64
	if l.force < 0 {
		return wake, false
	}
	c := &l.conns[l.force]
	t := &c.table
	now, turn := l.now(), t.turn.Load()
	watched := false
	for i := range min(int(t.used.Load()), Slots) {
		s := &t.slots[i]
		v := view{armed: s.armed.Load()}
		if v.armed != 0 {
			v.sent, v.interval = s.sent.Load(), s.interval
		}
		d := c.watch[i].look(now, turn, v)
		switch asleep := s.asleep.Load() != 0; {
		case c.watch[i].asleep && !asleep:
			s.asleep.Swap(1)
			if s.sent.Load() != v.sent { // vrrp is back, and may not have seen that
				d.next = now
			}
		case asleep && !c.watch[i].asleep:
			s.asleep.Store(0)
		}
		if d.send {
			l.standIn(c, i, v.armed, d.late)
			now = l.now()
		}
		if d.next != 0 {
			wake, watched, hasty = min(wake, d.next), true, hasty || v.interval < int64(calm)
		}
	}
	if hasty {
		l.apart(t)
	}
	if c.fd < 0 && !watched {
		l.drop(l.force) // it died, and nobody came after it
	}
	return wake, hasty
}

// apart moves the loop to another processor than vrrp's last turn was on, when it
// is on the same. What holds one up, a storm of packets or the host of a virtual
// machine, would else hold both.
func (l *loop) apart(t *table) {
	vrrp := t.cpu.Load()
	if vrrp == 0 || vrrp != l.here.ask() {
		return
	}
	l.left = l.cpus
	l.left.Clear(int(vrrp - 1))
	if l.left.Count() > 0 {
		raw(unix.SYS_SCHED_SETAFFINITY, 0, unsafe.Sizeof(l.left), uintptr(unsafe.Pointer(&l.left)), 0, 0)
	}
}

// standIn sends a slot in vrrp's place.
func (l *loop) standIn(c *conn, i int, number uint32, late int64) {
	t := &c.table
	if !t.take(i, number) {
		return
	}
	s, b := &t.slots[i], &t.bodies[i]
	sock := int32(-1)
	if s.sock < Sockets {
		sock = c.socks[s.sock]
	}
	if name, control, data := s.name, s.control, s.data; sock >= 0 && name <= maxName && control <= maxControl && data > 0 && data <= MaxData {
		l.iov.Base = &b.data[0]
		l.iov.SetLen(int(data))
		l.hdr = unix.Msghdr{Name: &b.name[0], Namelen: name, Iov: &l.iov}
		l.hdr.SetIovlen(1)
		if control > 0 {
			l.hdr.Control = &b.control[0]
			l.hdr.SetControllen(int(control))
		}
		if _, e := raw(unix.SYS_SENDMSG, uintptr(sock), uintptr(unsafe.Pointer(&l.hdr)), unix.MSG_DONTWAIT, 0, 0); e == 0 {
			l.stood++
			s.stood.Store(l.now())
		} else {
			l.failed++
		}
	}
	t.leave(i)
	l.late = max(l.late, late)
	l.tell(t)
}

func (l *loop) tell(t *table) {
	t.stood.Store(l.stood)
	t.failed.Store(l.failed)
	t.late.Store(l.late)
	t.ownLate.Store(l.ownLate)
}

// wait waits until wake, or for what others say, and hears it. done: the end.
func (l *loop) wait(wake int64, pinned bool) (done bool, e unix.Errno) {
	n := 2
	l.poll[0] = unix.PollFd{Fd: int32(l.listen), Events: unix.POLLIN}
	l.poll[1] = unix.PollFd{Fd: int32(l.stop), Events: unix.POLLIN}
	var who [maxConns]int
	for i := range l.conns {
		if l.used[i] && l.conns[i].fd >= 0 {
			l.poll[n] = unix.PollFd{Fd: int32(l.conns[i].fd), Events: unix.POLLIN}
			who[n-2] = i
			n++
		}
	}
	d := int64(idleTurn)
	timed := false
	if wake != math.MaxInt64 {
		if left := max(wake-l.now(), 0); left < d {
			d, timed = left, true
		}
	}
	l.timeout = unix.NsecToTimespec(d)
	var ready uintptr
	if pinned {
		ready, e = raw(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&l.poll[0])), uintptr(n), uintptr(unsafe.Pointer(&l.timeout)), 0, 0)
	} else {
		k, err := unix.Ppoll(l.poll[:n], &l.timeout, nil)
		ready = uintptr(k)
		e, _ = err.(unix.Errno)
	}
	if e == unix.EINTR {
		return false, 0
	}
	if e != 0 {
		return false, e
	}
	if ready == 0 {
		if timed && l.force >= 0 {
			if late := l.now() - wake; late > l.ownLate {
				l.ownLate = late
				l.tell(&l.conns[l.force].table)
			}
		}
		return false, 0
	}
	for k := 2; k < n; k++ {
		if l.poll[k].Revents != 0 {
			l.hear(who[k-2])
		}
	}
	if l.poll[0].Revents != 0 {
		l.accept()
	}
	return l.poll[1].Revents != 0, 0
}

// accept takes one more connection, in place of one that is not in force when
// there are too many.
func (l *loop) accept() {
	r, e := raw(unix.SYS_ACCEPT4, uintptr(l.listen), 0, 0, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if e != 0 {
		return
	}
	fd := int(r)
	if uid := l.scratch.peerUID(fd); uid != l.allowed[0] && uid != l.allowed[1] {
		l.discard(fd)
		return
	}
	at := -1
	for i := range l.conns {
		if !l.used[i] {
			at = i
			break
		}
		if i != l.force && at < 0 {
			at = i
		}
	}
	l.drop(at)
	c := &l.conns[at]
	l.used[at], c.fd = true, fd
	for i := range c.socks {
		c.socks[i] = -1
	}
	for i := range c.watch {
		c.watch[i] = watch{}
	}
}

// discard has a descriptor closed.
func (l *loop) discard(fd int) {
	binary.NativeEndian.PutUint32(l.dropFD[:], uint32(fd))
	raw(unix.SYS_WRITE, uintptr(l.trash[1]), uintptr(unsafe.Pointer(&l.dropFD)), uintptr(len(l.dropFD)), 0, 0)
}

// drop forgets a connection with all that came over it.
func (l *loop) drop(i int) {
	if !l.used[i] {
		return
	}
	c := &l.conns[i]
	l.used[i] = false
	if l.force == i {
		l.force = -1
	}
	if c.mem != nil {
		unmap(c.mem)
		c.mem, c.table = nil, table{}
	}
	if c.fd >= 0 {
		l.discard(c.fd)
		c.fd = -1
	}
	for k, fd := range c.socks {
		if fd >= 0 {
			l.discard(int(fd))
			c.socks[k] = -1
		}
	}
}

// hearMax bounds what is heard between two looks at the slots.
const hearMax = 16

// hear takes what a connection holds.
func (l *loop) hear(i int) {
	for range hearMax {
		c := &l.conns[i]
		l.iov.Base = &l.word[0]
		l.iov.SetLen(wordSize)
		l.hdr = unix.Msghdr{Iov: &l.iov, Control: &l.oob[0]}
		l.hdr.SetIovlen(1)
		l.hdr.SetControllen(len(l.oob))
		n, e := raw(unix.SYS_RECVMSG, uintptr(c.fd), uintptr(unsafe.Pointer(&l.hdr)), unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC, 0, 0)
		if e == unix.EAGAIN || e == unix.EINTR {
			return
		}
		if e != 0 || n == 0 {
			l.gone(i)
			return
		}
		fd := l.passed()
		if n != wordSize || !l.obey(i, fd, binary.NativeEndian.Uint32(l.word[:]), binary.NativeEndian.Uint32(l.word[4:])) {
			if fd >= 0 {
				l.discard(fd)
			}
			l.drop(i) // it does not speak our language
			return
		}
		if !l.used[i] {
			return
		}
	}
}

// gone is the end of a connection. The table of a process that is gone stays in
// force while its lease lasts; one that never was is of no use.
func (l *loop) gone(i int) {
	if i != l.force {
		l.drop(i)
		return
	}
	l.discard(l.conns[i].fd)
	l.conns[i].fd = -1
}

// passed is the descriptor that came with a message; -1: none. Others that came
// with it are thrown away.
func (l *loop) passed() int {
	b := l.oob[:min(int(l.hdr.Controllen), len(l.oob))]
	if len(b) < unix.SizeofCmsghdr+4 || binary.NativeEndian.Uint32(b[8:]) != unix.SOL_SOCKET || binary.NativeEndian.Uint32(b[12:]) != unix.SCM_RIGHTS {
		return -1
	}
	end := min(int(binary.NativeEndian.Uint64(b)), len(b))
	for at := unix.SizeofCmsghdr + 4; at+4 <= end; at += 4 {
		l.discard(int(binary.NativeEndian.Uint32(b[at:])))
	}
	return int(binary.NativeEndian.Uint32(b[unix.SizeofCmsghdr:]))
}

// obey does what a message says; false: it makes no sense.
func (l *loop) obey(i, fd int, kind, number uint32) bool {
	c := &l.conns[i]
	if (kind == sayHello || kind == saySocket) != (fd >= 0) || (kind == sayHello) != (c.mem == nil) {
		return false
	}
	switch kind {
	case sayHello:
		mem, ok := l.scratch.mapTable(fd)
		if !ok {
			return false
		}
		l.discard(fd)
		c.mem, c.table = mem, tableAt(mem)
		if l.realTime {
			c.table.realTime.Store(1)
		}
	case saySocket:
		if number >= Sockets || c.socks[number] >= 0 {
			return false
		}
		c.socks[number] = int32(fd)
	case sayForget:
		if number >= Sockets || c.socks[number] < 0 {
			return false
		}
		l.discard(int(c.socks[number]))
		c.socks[number] = -1
	case sayCommit:
		if l.force != i {
			if l.force >= 0 {
				l.drop(l.force)
			}
			l.force = i
			l.tell(&c.table)
		}
		raw(unix.SYS_SENDTO, uintptr(c.fd), uintptr(unsafe.Pointer(&l.word)), wordSize, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0)
	case sayLook:
	default:
		return false
	}
	return true
}
