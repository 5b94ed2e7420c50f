package pacer

import (
	"bytes"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The table is the memory that vrrp and the pacer share: a header, the heads of
// the slots, then what each slot sends. A slot is one advertisement to one
// destination. Every field has one writer, and only what an armed slot says is
// read by the pacer.
const (
	// Slots is how many advertisements there can be stand-ins for.
	Slots = 1024
	// Sockets is how many sockets they may leave by.
	Sockets = 256
	// MaxData is the longest advertisement: Ethernet, IPv6 and VRRP headers and
	// 255 addresses of IPv6.
	MaxData = 14 + 40 + 8 + 255*16

	maxName    = 32
	maxControl = 96
	bodySize   = 4608
	headsAt    = 4096
	bodiesAt   = headsAt + Slots*int(unsafe.Sizeof(slot{}))
	tableSize  = bodiesAt + Slots*bodySize

	magic = 0x7072_7276_0001 // with the layout's version at its end
)

// header is the first page. vrrp writes the first part, the pacer the second.
type header struct {
	magic uint64
	used  atomic.Uint32 // slots below it may be armed
	_     uint32
	turn  atomic.Int64  // when vrrp last ended a turn, on CLOCK_MONOTONIC
	cpu   atomic.Uint32 // where that was, plus 1

	_        [36]byte
	stood    atomic.Uint64 // advertisements that the pacer sent
	failed   atomic.Uint64 // that the kernel refused
	late     atomic.Int64  // longest that vrrp was overdue when one was sent
	ownLate  atomic.Int64  // of the pacer's own timer
	realTime atomic.Uint32
}

// slot is the head of one: a cache line.
type slot struct {
	armed atomic.Uint32 // 0: cleared; else the number of this arming
	busy  atomic.Uint32 // by the pacer: it is about to send this
	// asleep, by the pacer: it does not look at this slot until it is told to.
	asleep   atomic.Uint32
	sock     uint32
	sent     atomic.Int64 // by vrrp: when it sent this last, on CLOCK_MONOTONIC
	interval int64
	name     uint32 // lengths of what is in the body
	control  uint32
	data     uint32
	_        uint32
	stood    atomic.Int64 // by the pacer: when it sent this last in vrrp's place
	_        [8]byte
}

// body is what a slot sends, as sendmsg takes it.
type body struct {
	name    [maxName]byte
	control [maxControl]byte
	data    [bodySize - maxName - maxControl]byte
}

// table is a mapping of it.
type table struct {
	*header
	slots  *[Slots]slot
	bodies *[Slots]body
}

func tableAt(mem unsafe.Pointer) table {
	return table{(*header)(mem), (*[Slots]slot)(unsafe.Add(mem, headsAt)), (*[Slots]body)(unsafe.Add(mem, bodiesAt))}
}

// Message is one advertisement, ready to be sent.
type Message struct {
	FD      int    // the socket that it leaves by
	Name    []byte // where it goes: a struct sockaddr
	Control []byte // ancillary data
	Data    []byte
}

func (m *Message) fits() bool {
	return len(m.Name) <= maxName && len(m.Control) <= maxControl && len(m.Data) <= MaxData && len(m.Data) > 0
}

// clearPatience bounds how long clear waits for a pacer that is in the middle of
// a send. It is there for one that was stopped or died in it.
const clearPatience = time.Millisecond

// clear keeps the pacer from sending a slot. When it returns true, nothing of
// the slot is sent or will be: the pacer looks at armed after it has set busy.
func (t *table) clear(i int) bool {
	s := &t.slots[i]
	s.armed.Swap(0) // not Store: in a build for the race detector that may pass the load behind it
	if s.busy.Load() == 0 {
		return true
	}
	for begin := time.Now(); time.Since(begin) < clearPatience; {
		if s.busy.Load() == 0 {
			return true
		}
	}
	return false
}

// write fills a slot that is cleared, and arms it.
func (t *table) write(i int, number, sock uint32, m *Message, interval time.Duration, at int64) {
	s, b := &t.slots[i], &t.bodies[i]
	s.sock, s.interval = sock, int64(interval)
	s.name, s.control, s.data = uint32(len(m.Name)), uint32(len(m.Control)), uint32(len(m.Data))
	copy(b.name[:], m.Name)
	copy(b.control[:], m.Control)
	copy(b.data[:], m.Data)
	s.sent.Store(at)
	s.stood.Store(0)
	s.armed.Store(number)
}

// holds tells whether a slot says this already. It is for the writer only.
func (t *table) holds(i int, sock uint32, m *Message, interval time.Duration) bool {
	s, b := &t.slots[i], &t.bodies[i]
	return s.armed.Load() != 0 && s.sock == sock && s.interval == int64(interval) &&
		int(s.name) == len(m.Name) && int(s.control) == len(m.Control) && int(s.data) == len(m.Data) &&
		bytes.Equal(b.name[:s.name], m.Name) && bytes.Equal(b.control[:s.control], m.Control) && bytes.Equal(b.data[:s.data], m.Data)
}

// take begins a send of a slot by the pacer; false: it was cleared, or armed
// anew, since the pacer looked. leave ends it.
func (t *table) take(i int, number uint32) bool {
	s := &t.slots[i]
	s.busy.Swap(1)
	if s.armed.Load() == number {
		return true
	}
	s.busy.Store(0)
	return false
}

func (t *table) leave(i int) { t.slots[i].busy.Store(0) }

const sealed = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW

// newTable makes the memory and its descriptor. It cannot shrink any more: the
// pacer would die of reading what is not there.
func newTable() (mem []byte, fd int, err error) {
	fd, err = unix.MemfdCreate("vrrp-pacer", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // a kernel before 6.3
		fd, err = unix.MemfdCreate("vrrp-pacer", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, -1, fmt.Errorf("memory to share: %w", err)
	}
	if err = unix.Ftruncate(fd, int64(tableSize)); err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, sealed)
	}
	if err == nil {
		mem, err = unix.Mmap(fd, 0, tableSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	}
	if err != nil {
		unix.Close(fd)
		return nil, -1, fmt.Errorf("memory to share: %w", err)
	}
	tableAt(unsafe.Pointer(&mem[0])).magic = magic
	return mem, fd, nil
}
