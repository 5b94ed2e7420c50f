package health

import (
	"context"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ballast/configs/model"
)

// BenchmarkTCP compares a TCP_CHECK in the epoll loop with the same check as a
// goroutine with net.Dialer, at 500 checks over 500 loopback addresses. Both
// pay the same for the accepting side. cpu-us/check is user and system time of
// the process.
func BenchmarkTCP(b *testing.B) {
	const checks = 500
	port := acceptor(b)
	var spec [checks]model.Check
	for i := range spec {
		spec[i] = testCheck(model.TCPCheck, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 1, byte(i >> 8), byte(i)}), port))
		spec[i].ConnectTimeout, spec[i].DelayLoop = 3*time.Second, 10*time.Millisecond
	}
	b.Run("epoll", func(b *testing.B) {
		w := newWorld()
		l, err := newLoop(w, nil)
		if err != nil {
			b.Fatal(err)
		}
		defer l.close()
		applyIn(l, configOf(spec[:]...), time.Now())
		measure(b, func() {
			for w.probes < uint64(b.N) {
				if err := l.turn(time.Second); err != nil {
					b.Fatal(err)
				}
			}
		})
	})
	b.Run("half-open", func(b *testing.B) {
		half := spec
		for i := range half {
			half[i].HalfOpen = true
		}
		w := newWorld()
		l, err := newLoop(w, nil)
		if err != nil {
			b.Fatal(err)
		}
		defer l.close()
		applyIn(l, configOf(half[:]...), time.Now())
		measure(b, func() {
			for w.probes < uint64(b.N) {
				if err := l.turn(time.Second); err != nil {
					b.Fatal(err)
				}
			}
		})
		for _, c := range w.checks {
			if !c.m.up {
				b.Fatal(c.detail)
			}
		}
	})
	b.Run("dialer", func(b *testing.B) {
		var left atomic.Int64
		left.Store(int64(b.N))
		var wg sync.WaitGroup
		measure(b, func() {
			for i := range spec {
				wg.Go(func() {
					d := net.Dialer{Timeout: spec[i].ConnectTimeout, KeepAlive: -1}
					tick := time.NewTicker(spec[i].DelayLoop)
					defer tick.Stop()
					for left.Add(-1) >= 0 {
						<-tick.C
						c, err := d.DialContext(context.Background(), "tcp", netip.AddrPortFrom(spec[i].Addr, port).String())
						if err != nil {
							b.Error(err)
							return
						}
						c.Close()
					}
				})
			}
			wg.Wait()
		})
	})
}

func measure(b *testing.B, fn func()) {
	b.ReportAllocs()
	runtime.GC()
	var before, after unix.Rusage
	unix.Getrusage(unix.RUSAGE_SELF, &before)
	b.ResetTimer()
	fn()
	b.StopTimer()
	unix.Getrusage(unix.RUSAGE_SELF, &after)
	cpu := time.Duration(after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano())
	b.ReportMetric(float64(cpu.Nanoseconds())/1e3/float64(b.N), "cpu-us/check")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "checks/s")
}

// acceptor takes and closes connections to any address on one port.
func acceptor(b *testing.B) uint16 {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{}); err != nil {
		b.Fatal(err)
	}
	if err := unix.Listen(fd, 4096); err != nil {
		b.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
			if err != nil {
				return
			}
			unix.Close(c)
		}
	}()
	b.Cleanup(func() { unix.Shutdown(fd, unix.SHUT_RDWR); <-done; unix.Close(fd) })
	return uint16(sa.(*unix.SockaddrInet4).Port)
}
