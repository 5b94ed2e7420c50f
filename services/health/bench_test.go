package health

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ballast/configs/model"
	"ballast/services/ipc/status"
	"ballast/services/ipc/verdicts"
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

// TestProbesAllocateNothing: what a half-open probe needs is there from the one
// before.
func TestProbesAllocateNothing(t *testing.T) {
	var spec [50]model.Check
	port := acceptor(t)
	for i := range spec {
		spec[i] = testCheck(model.TCPCheck, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 1, 1, byte(i)}), port))
		spec[i].ConnectTimeout, spec[i].DelayLoop, spec[i].HalfOpen = 3*time.Second, 2*time.Millisecond, true
	}
	w := newWorld()
	l, err := newLoop(w, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	applyIn(l, configOf(spec[:]...), time.Now())
	run := func(n uint64) {
		for until := w.probes + n; w.probes < until; {
			if err := l.turn(time.Second); err != nil {
				t.Fatal(err)
			}
		}
	}
	run(1000) // routes are asked for, sockets opened
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const n = 2000
	run(n)
	runtime.ReadMemStats(&after)
	if got := float64(after.Mallocs-before.Mallocs) / n; got > 0.1 {
		t.Errorf("%.2f allocations a probe", got)
	}
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
func acceptor(b testing.TB) uint16 {
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

// BenchmarkTable is a configuration of 10,000 virtual servers with 2 real
// servers each, without checks: taken for the first time, with one weight
// changed, and with one order of the operator, up to the published state.
func BenchmarkTable(b *testing.B) {
	list := make([]*model.VirtualServer, 10000)
	for i := range list {
		a := netip.AddrFrom4([4]byte{10, 100, byte(i >> 8), byte(i)})
		v := &model.VirtualServer{Name: fmt.Sprintf("[%s]:tcp:80", a), Services: []model.ServiceID{{Addr: a, Port: 80, Protocol: model.TCP}}, Quorum: 1}
		for j := range 2 {
			real := netip.AddrFrom4([4]byte{10, byte(1 + j), byte(i >> 8), byte(i)})
			v.Real = append(v.Real, model.RealServer{Addr: real, Port: 80, ConfPort: 80, Weight: 1})
		}
		list[i] = v
	}
	start := func() (*world, *verdicts.Book) {
		w, book := newWorld(), verdicts.NewBook()
		w.told = func(status.Transition) {}
		w.apply(&model.Global{}, list, t0)
		h := w.state(status.Applied{Config: 1})
		book.Enter(&h)
		return w, book
	}
	b.Run("load", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			start()
		}
	})
	b.Run("one weight", func(b *testing.B) {
		w, book := start()
		b.ReportAllocs()
		n := 1
		for b.Loop() {
			n++
			next := slices.Clone(list)
			v := *list[4711]
			v.Real = slices.Clone(v.Real)
			v.Real[0].Weight = n
			next[4711] = &v
			w.apply(&model.Global{}, next, t0)
			h := w.state(status.Applied{Config: uint64(n)})
			book.Enter(&h)
			if got := h.Servers[4711].Weight; got != n+1 {
				b.Fatalf("weight %d, want %d", got, n+1)
			}
		}
	})
	b.Run("one order", func(b *testing.B) {
		w, book := start()
		b.ReportAllocs()
		n := 1
		for b.Loop() {
			n++
			w.order([]status.Order{{VirtualServer: list[4711].Name, Addr: list[4711].Real[0].Addr, Port: 80, Action: status.OrderWeight, Weight: n}}, t0)
			h := w.state(status.Applied{Config: 1})
			book.Enter(&h)
			if got := h.Servers[4711].Weight; got != n+1 {
				b.Fatalf("weight %d, want %d", got, n+1)
			}
		}
	})
}
