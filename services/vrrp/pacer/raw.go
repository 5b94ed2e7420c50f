package pacer

import (
	"unsafe" // also for go:linkname

	"golang.org/x/sys/unix"
)

// A pinned goroutine keeps its processor of the Go runtime: neither the
// scheduler nor the garbage collector can take its thread away, whatever locks
// of theirs an ordinary thread holds while it waits for a processor. In return
// it must not wait for any of them: no locks, no channels, no memory to
// allocate, no system calls that the runtime knows of.
//
//go:linkname procPin runtime.procPin
func procPin() int

//go:linkname procUnpin runtime.procUnpin
func procUnpin()

// raw is a system call that the runtime does not hear of. Pointers among the
// arguments must be to memory that does not move: never to a stack.
func raw(nr, a, b, c, d, e uintptr) (uintptr, unix.Errno) {
	r, _, errno := unix.RawSyscall6(nr, a, b, c, d, e, 0)
	return r, errno
}

// maskPreemption blocks SIGURG in the calling thread, with which the runtime
// asks a thread that runs for long to let others in: the pinned loop would be
// woken a hundred times a second for nothing. The mask before is returned.
func maskPreemption() (before unix.Sigset_t, err error) {
	var set unix.Sigset_t
	set.Val[0] = 1 << (unix.SIGURG - 1)
	err = unix.PthreadSigmask(unix.SIG_BLOCK, &set, &before)
	return before, err
}

// cpu is where a thread runs. It is part of something on the heap.
type cpu struct{ n uint32 }

// ask returns the number of the calling thread's processor, plus 1; 0: it is not
// known.
func (c *cpu) ask() uint32 {
	if _, e := raw(unix.SYS_GETCPU, uintptr(unsafe.Pointer(&c.n)), 0, 0, 0, 0); e != 0 {
		return 0
	}
	return c.n + 1
}

// scratch is where the kernel writes answers. It is part of the loop, which is
// on the heap.
type scratch struct {
	stat unix.Stat_t
	cred unix.Ucred
	size uint32
}

// mapTable maps a descriptor that vrrp sent, when it is what it should be.
func (x *scratch) mapTable(fd int) (unsafe.Pointer, bool) {
	seals, e := raw(unix.SYS_FCNTL, uintptr(fd), unix.F_GET_SEALS, 0, 0, 0)
	if e != 0 || seals&sealed != sealed {
		return nil, false
	}
	if _, e := raw(unix.SYS_FSTAT, uintptr(fd), uintptr(unsafe.Pointer(&x.stat)), 0, 0, 0); e != 0 || x.stat.Size != int64(tableSize) {
		return nil, false
	}
	addr, _, e := unix.RawSyscall6(unix.SYS_MMAP, 0, uintptr(tableSize), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED, uintptr(fd), 0)
	if e != 0 {
		return nil, false
	}
	mem := *(*unsafe.Pointer)(unsafe.Pointer(&addr)) // not Go's memory
	if (*header)(mem).magic != magic {
		unmap(mem)
		return nil, false
	}
	return mem, true
}

func unmap(mem unsafe.Pointer) {
	raw(unix.SYS_MUNMAP, uintptr(mem), uintptr(tableSize), 0, 0, 0)
}

// peerUID is who is at the other end of a connection; -1: nobody knows.
func (x *scratch) peerUID(fd int) int {
	x.size = unix.SizeofUcred
	if _, e := raw(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERCRED, uintptr(unsafe.Pointer(&x.cred)), uintptr(unsafe.Pointer(&x.size))); e != 0 {
		return -1
	}
	return int(x.cred.Uid)
}
