package health

import (
	"os"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func newTestWaiter(t *testing.T) (w *waiter, event int) {
	t.Helper()
	w, err := newWaiter()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.close)
	event, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(event) })
	if err := w.add(event, unix.EPOLLIN); err != nil {
		t.Fatal(err)
	}
	return w, event
}

var one = [8]byte{1}

// rawWrite does not wake Go's monitor.
func rawWrite(fd int) {
	unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&one[0])), uintptr(len(one)))
}

// TestWaiterTime: it wakes at the time that was asked for last, never before;
// the same time again after it has gone by is no wait at all.
func TestWaiterTime(t *testing.T) {
	w, event := newTestWaiter(t)
	for _, in := range []time.Duration{time.Hour, 20 * time.Millisecond, 300 * time.Microsecond, 5 * time.Millisecond} {
		now := time.Now()
		until := now.Add(in)
		if in == time.Hour { // left by an event, and replaced by a shorter one
			unix.Write(event, one[:])
		}
		for {
			ev, err := w.wait(time.Now(), until)
			if err != nil {
				t.Fatal(err)
			}
			if len(ev) > 0 && int(ev[0].Fd) == event {
				var b [8]byte
				unix.Read(event, b[:])
				break
			}
			if time.Now().Before(until) {
				if len(ev) > 0 {
					t.Fatalf("woken %s before the time", time.Until(until))
				}
				continue
			}
			break
		}
		if ev, err := w.wait(time.Now(), until.Add(-2*in)); err != nil || len(ev) > 1 {
			t.Fatal(ev, err)
		}
	}
}

// TestWaiterMissesNothing: an event that comes while the loop is on its way to
// sleep wakes it.
func TestWaiterMissesNothing(t *testing.T) {
	w, event := newTestWaiter(t)
	const rounds = 2000
	back := make(chan struct{})
	go func() {
		for range rounds {
			unix.Write(event, one[:])
			<-back
		}
	}()
	end := time.Now().Add(time.Minute)
	for n := 0; n < rounds; {
		ev, err := w.wait(time.Now(), end)
		if err != nil {
			t.Fatal(err)
		}
		if !time.Now().Before(end) {
			t.Fatalf("event %d was not seen", n)
		}
		for i := range ev {
			if int(ev[i].Fd) == event {
				var b [8]byte
				unix.Read(event, b[:])
				n++
				back <- struct{}{}
			}
		}
	}
}

// TestWaiterLetsOthersRun: a loop that is never without work must not keep the
// one processor from a goroutine that a descriptor has woken.
func TestWaiterLetsOthersRun(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	w, event := newTestWaiter(t)
	r, p, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer p.Close()
	c, err := p.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	heard := make(chan struct{})
	go func() {
		var b [1]byte
		r.Read(b[:])
		close(heard)
	}()
	// All sleep, so that Go's monitor does as well.
	if _, err := w.wait(time.Now(), time.Now().Add(50*time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	rawWrite(event) // and nobody reads it
	c.Control(func(fd uintptr) { rawWrite(int(fd)) })
	for end := time.Now().Add(time.Minute); ; {
		if _, err := w.wait(time.Now(), time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		select {
		case <-heard:
			return
		default:
		}
		if time.Now().After(end) {
			t.Fatal("nobody else has run for a minute")
		}
	}
}
