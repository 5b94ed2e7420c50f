package hogs

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// span is a while on the wall clock, in nanoseconds.
type span struct{ from, to int64 }

func (s span) String() string { return fmt.Sprintf("%d %d", s.from, s.to) }

// spans finds the lines of a child's that tell of some.
func spans(text, word string) (list []span) {
	for line := range strings.Lines(text) {
		var s span
		if n, _ := fmt.Sscanf(line, word+" %d %d", &s.from, &s.to); n == 2 {
			list = append(list, s)
		}
	}
	return list
}

// stallLine and gapLine are what the children write of a processor that stood
// still, and of a gap that a backup does not forgive.
const (
	stallLine = "processor"
	gapLine   = "silence"
)

// standstill is how late a thread above all others, one for each processor, must
// be for that processor to count as having stood still: no program can do
// anything about that. In a virtual machine the host does so.
const standstill = 5 * time.Millisecond

// A pinned goroutine keeps its thread, whatever the runtime of the witness does:
// what is late is the kernel's or the machine's.
//
//go:linkname procPin runtime.procPin
func procPin() int

//go:linkname procUnpin runtime.procUnpin
func procUnpin()

// onlooker is a thread that does nothing but look whether its processor runs.
type onlooker struct {
	nap  unix.Timespec
	seen []span
}

// processors writes a line for each standstill of a processor when ctx ends.
func processors(ctx context.Context) {
	debug.SetGCPercent(-1) // it would wait for them for ever
	runtime.GOMAXPROCS(runtime.NumCPU() + 3)
	var stop atomic.Bool
	context.AfterFunc(ctx, func() { stop.Store(true) })
	all := make([]onlooker, runtime.NumCPU())
	var wg sync.WaitGroup
	for cpu := range all {
		all[cpu].seen = make([]span, 0, 1<<16)
		wg.Go(func() { all[cpu].look(cpu, &stop) })
	}
	wg.Wait()
	for _, o := range all {
		for _, s := range o.seen {
			fmt.Println(stallLine, s)
		}
	}
}

func (o *onlooker) look(cpu int, stop *atomic.Bool) {
	runtime.LockOSThread() // never unlocked: the thread ends with this
	var set unix.CPUSet
	set.Set(cpu)
	if unix.SchedSetaffinity(0, &set) != nil ||
		unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 60}, 0) != nil {
		return
	}
	const every = 2 * time.Millisecond
	procPin()
	defer procUnpin()
	for !stop.Load() {
		due := time.Now().Add(every)
		o.nap = unix.NsecToTimespec(int64(every))
		unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&o.nap)), 0, 0) // a signal ends it early: no harm
		if now := time.Now(); now.Sub(due) > standstill && len(o.seen) < cap(o.seen) {
			o.seen = append(o.seen, span{due.UnixNano(), now.UnixNano()})
		}
	}
}

// innocent counts the gaps in which a processor stood still, for at least half of
// what they are longer than they should be.
func innocent(gaps, stalls []span, most time.Duration) (n int) {
	for _, g := range gaps {
		worst := int64(0)
		for _, s := range stalls {
			worst = max(worst, min(s.to, g.to)-max(s.from, g.from))
		}
		if 2*worst >= g.to-g.from-int64(most) {
			n++
		}
	}
	return n
}

// gaps are the times between advertisements of the master, in tenths of a
// millisecond; the last one counts all that are longer.
type gaps struct {
	count  [10001]uint64
	n      uint64
	worst  time.Duration
	over   uint64 // longer than 36 ms: with 10 ms, a backup acts
	last   time.Duration
	resign uint64 // advertisements of priority 0
}

const dead = 36 * time.Millisecond

func (g *gaps) add(at time.Duration, priority byte) {
	if priority == 0 {
		g.resign++
		return
	}
	if g.last != 0 {
		d := max(at-g.last, 0)
		g.count[min(int(d/(100*time.Microsecond)), len(g.count)-1)]++
		g.n++
		g.worst = max(g.worst, d)
		if d > dead {
			g.over++
			fmt.Println(gapLine, span{int64(g.last), int64(at)})
		}
	}
	g.last = at
}

func (g *gaps) quantile(q float64) time.Duration {
	want, sum := uint64(q*float64(g.n)), uint64(0)
	for i, n := range g.count {
		if sum += n; sum > want {
			return min(time.Duration(i+1)*100*time.Microsecond, g.worst.Round(10*time.Microsecond))
		}
	}
	return g.worst.Round(10 * time.Microsecond)
}

func (g *gaps) String() string {
	return fmt.Sprintf("%d gaps, p50 %v, p99 %v, p99.9 %v, worst %v, %d longer than %v, %d of priority 0",
		g.n, g.quantile(0.5), g.quantile(0.99), g.quantile(0.999), g.worst.Round(10*time.Microsecond), g.over, dead, g.resign)
}

// listen is the role that sits at the backup and says, every second, how far
// apart the advertisements of 192.0.2.1 came in by the kernel's clock. SIGUSR1
// makes it begin anew.
func listen(ctx context.Context) error {
	anew := make(chan os.Signal, 1)
	signal.Notify(anew, unix.SIGUSR1)
	const ip = unix.ETH_P_IP
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, ip<<8|ip>>8)
	if err != nil {
		return fmt.Errorf("wire: %w", err)
	}
	defer unix.Close(fd)
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20)
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1); err != nil {
		return fmt.Errorf("wire: timestamps: %w", err)
	}
	tv := unix.Timeval{Usec: 200_000}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		return fmt.Errorf("wire: %w", err)
	}
	var g gaps
	b, oob := make([]byte, 2048), make([]byte, 128)
	for told := time.Now(); ctx.Err() == nil; {
		select {
		case <-anew:
			g = gaps{}
		default:
		}
		if time.Since(told) > time.Second {
			told = time.Now()
			fmt.Println(&g)
		}
		n, m, _, _, err := unix.Recvmsg(fd, b, oob, 0)
		if err != nil || n < 24 || b[9] != 112 || [4]byte(b[12:16]) != [4]byte{192, 0, 2, 1} || m < unix.SizeofCmsghdr+16 {
			continue
		}
		stamp := oob[unix.SizeofCmsghdr:]
		at := time.Duration(binary.NativeEndian.Uint64(stamp))*time.Second + time.Duration(binary.NativeEndian.Uint64(stamp[8:]))
		if head := int(b[0]&0x0f) * 4; head+3 <= n {
			g.add(at, b[head+2])
		}
	}
	fmt.Println(&g)
	return nil
}
