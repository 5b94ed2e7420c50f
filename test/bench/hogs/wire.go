package hogs

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"
)

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
		}
	}
	g.last = at
}

func (g *gaps) quantile(q float64) time.Duration {
	want, sum := uint64(q*float64(g.n)), uint64(0)
	for i, n := range g.count {
		if sum += n; sum > want {
			return min(time.Duration(i+1)*100*time.Microsecond, g.worst)
		}
	}
	return g.worst
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
