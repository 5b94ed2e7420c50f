package pacer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Client is vrrp's side of a connection. Nothing in it waits, but for Commit and
// Clear, which do for milliseconds at most. It is for one goroutine.
type Client struct {
	fd     int
	mem    []byte
	table  table
	number uint32      // of the last arming
	socks  map[int]int // what the pacer has: descriptor here, number there
	taken  [Sockets]bool
	users  [Slots]int // descriptor that a slot leaves by, plus 1; 0: the slot is free
	broken error
	here   cpu
}

// ErrFull tells that there are more advertisements, or sockets, than the pacer
// can take. Those that it has are watched all the same.
var ErrFull = errors.New("pacer: no room for more advertisements")

// Dial connects to the pacer's socket. The table is not in force before Commit.
func Dial(path string) (*Client, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("pacer: %w", err)
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("pacer: connect: %w", err)
	}
	mem, memfd, err := newTable()
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("pacer: %w", err)
	}
	c := &Client{fd: fd, mem: mem, table: tableAt(unsafe.Pointer(&mem[0])), socks: map[int]int{}}
	c.say(sayHello, 0, memfd)
	unix.Close(memfd)
	if c.broken != nil {
		c.Close()
		return nil, c.broken
	}
	return c, nil
}

// say sends one message. A pacer that does not read is as good as none.
func (c *Client) say(kind, number uint32, fds ...int) {
	if c.broken != nil {
		return
	}
	var b [wordSize]byte
	binary.NativeEndian.PutUint32(b[:], kind)
	binary.NativeEndian.PutUint32(b[4:], number)
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	if err := unix.Sendmsg(c.fd, b[:], rights, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL); err != nil {
		c.broken = fmt.Errorf("pacer: %w", err)
	}
}

// FD is the connection's descriptor. It becomes readable when Heard is to be
// called.
func (c *Client) FD() int { return c.fd }

// Heard takes what the pacer said. An error means that the connection is of no
// use any more, also when another method noticed it.
func (c *Client) Heard() error {
	for c.broken == nil {
		var b [wordSize]byte
		n, err := unix.Read(c.fd, b[:])
		switch {
		case err == unix.EAGAIN:
			return nil
		case err == unix.EINTR:
		case err != nil:
			c.broken = fmt.Errorf("pacer: %w", err)
		case n == 0:
			c.broken = errors.New("pacer: it ended")
		}
	}
	return c.broken
}

// Broken is why the connection is of no use any more; nil: it is.
func (c *Client) Broken() error { return c.broken }

// Close clears all slots and gives everything back. A pacer that is still there
// sends nothing of this table any more.
func (c *Client) Close() {
	for i := range c.users {
		if c.users[i] != 0 {
			c.table.clear(i)
		}
	}
	unix.Close(c.fd)
	unix.Munmap(c.mem)
	c.table, c.mem = table{}, nil
}

// Turn tells that vrrp ended a turn of its loop: all that had arrived is judged,
// and the slots say what is right. at is on CLOCK_MONOTONIC, as all times here.
func (c *Client) Turn(at int64) {
	c.table.turn.Store(at)
	c.table.cpu.Store(c.here.ask())
}

// Sent tells that vrrp sent an advertisement itself, and what is to be sent in
// its place should the next one be overdue. slot is what an earlier call
// returned for it, or -1. With an error there is no stand-in for it.
func (c *Client) Sent(slot int, m *Message, interval time.Duration, at int64) (int, error) {
	if slot >= 0 {
		if n, ok := c.socks[m.FD]; ok && c.table.holds(slot, uint32(n), m, interval) {
			s := &c.table.slots[slot]
			s.sent.Swap(at)
			if s.asleep.Load() != 0 {
				c.say(sayLook, 0)
			}
			return slot, nil
		}
		if !c.table.clear(slot) {
			return slot, nil // it says nothing now; at the next advertisement we try again
		}
	}
	if !m.fits() {
		c.Clear(slot)
		return -1, fmt.Errorf("pacer: an advertisement of %d bytes is too long", len(m.Data))
	}
	sock, ok := c.socks[m.FD]
	if !ok {
		if sock = free(c.taken[:]); sock < 0 {
			c.Clear(slot)
			return -1, ErrFull
		}
		c.taken[sock], c.socks[m.FD] = true, sock
		c.say(saySocket, uint32(sock), m.FD)
	}
	if slot < 0 {
		for slot = 0; slot < Slots && c.users[slot] != 0; slot++ {
		}
		if slot == Slots {
			return -1, ErrFull
		}
		if !c.table.clear(slot) {
			return -1, nil // the pacer is still in a send of its last user
		}
		c.table.used.Store(max(c.table.used.Load(), uint32(slot)+1))
	}
	c.users[slot] = m.FD + 1
	if c.number++; c.number == 0 {
		c.number = 1
	}
	c.table.write(slot, c.number, uint32(sock), m, interval, at)
	c.say(sayLook, 0)
	return slot, nil
}

func free(taken []bool) int {
	for i, t := range taken {
		if !t {
			return i
		}
	}
	return -1
}

// Stood is when the pacer last sent an advertisement in vrrp's place; 0: never.
func (c *Client) Stood(slot int) int64 {
	if slot < 0 {
		return 0
	}
	return c.table.slots[slot].stood.Load()
}

// Clear ends a stand-in (-1: there is none): when it returns, the pacer has sent
// that advertisement for the last time. Only a pacer that was stopped in the
// middle of a send, from outside, can be an exception.
func (c *Client) Clear(slot int) {
	if slot < 0 {
		return
	}
	c.table.clear(slot)
	c.users[slot] = 0
	used := c.table.used.Load()
	for used > 0 && c.users[used-1] == 0 {
		used--
	}
	c.table.used.Store(used)
}

// Forget is to be called before a socket is closed: its number as a descriptor
// may soon be that of another one.
func (c *Client) Forget(fd int) {
	n, ok := c.socks[fd]
	if !ok {
		return
	}
	for i, u := range c.users {
		if u == fd+1 {
			c.table.clear(i) // its owner finds out when it sends next
		}
	}
	delete(c.socks, fd)
	c.taken[n] = false
	c.say(sayForget, uint32(n))
}

// Commit puts the table in force, in place of that of an earlier process, of
// which nothing is sent any more when Commit returns true. It waits at most as
// long as it may; a pacer that just starts, and has no other table, does it later.
func (c *Client) Commit(wait time.Duration) bool {
	c.say(sayCommit, 0)
	for end := time.Now().Add(wait); c.broken == nil; {
		left := unix.NsecToTimespec(int64(max(time.Until(end), 0)))
		n, err := unix.Ppoll([]unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLIN}}, &left, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return false
		}
		var b [wordSize]byte
		if n, err := unix.Read(c.fd, b[:]); err == nil && n == wordSize {
			return true // it says nothing else
		} else if err != unix.EAGAIN && err != unix.EINTR {
			c.broken = errors.New("pacer: it ended")
		}
	}
	return false
}

// Figures are what the pacer tells of itself.
type Figures struct {
	Adverts  uint64        // sent in vrrp's place
	Failed   uint64        // that the kernel refused
	Late     time.Duration // longest that vrrp was overdue when one was sent
	OwnLate  time.Duration // worst lateness of the pacer's own timer
	RealTime bool
}

// Figures since the pacer started.
func (c *Client) Figures() Figures {
	h := c.table.header
	return Figures{
		Adverts: h.stood.Load(), Failed: h.failed.Load(), Late: time.Duration(h.late.Load()),
		OwnLate: time.Duration(h.ownLate.Load()), RealTime: h.realTime.Load() != 0,
	}
}
