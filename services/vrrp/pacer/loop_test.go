package pacer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"ballast/services/ipc"
	"ballast/test/stall"
)

// TestHandshake: whatever the two sides do at the same moment, nothing is sent
// after clear has returned, and what is sent is whole.
func TestHandshake(t *testing.T) {
	mem, fd, err := newTable()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	defer unix.Munmap(mem)
	vrrp := tableAt(unsafe.Pointer(&mem[0]))
	var cleared atomic.Bool // by vrrp, after clear returned
	var stop atomic.Bool
	var sent atomic.Int32
	var stale, torn int
	var wg sync.WaitGroup
	wg.Go(func() {
		p := tableAt(unsafe.Pointer(&mem[0]))
		for !stop.Load() {
			number := p.slots[0].armed.Load()
			for range number * 37 % 5000 {
				p.slots[0].busy.Load() // the decision takes its time
			}
			if number == 0 || !p.take(0, number) {
				continue
			}
			if cleared.Load() {
				stale++
			}
			b := p.bodies[0].data[:p.slots[0].data]
			for _, x := range b {
				if x != b[0] || int(x) != len(b)&0xff {
					torn++
					break
				}
			}
			if cleared.Load() {
				stale++
			}
			sent.Add(1)
			p.leave(0)
		}
	})
	data := make([]byte, MaxData)
	end := time.Now().Add(time.Minute)
	for n := uint32(1); sent.Load() < 2000 && time.Now().Before(end); n++ {
		m := Message{Data: data[:1+int(n*97)%1500]}
		for i := range m.Data {
			m.Data[i] = byte(len(m.Data))
		}
		cleared.Store(false)
		vrrp.write(0, n, 0, &m, time.Second, 1)
		for range n % 50 {
			vrrp.slots[0].armed.Load()
		}
		for !vrrp.clear(0) { // the other side may have lost its processor
		}
		cleared.Store(true)
	}
	stop.Store(true)
	wg.Wait()
	if stale > 0 || torn > 0 || sent.Load() < 100 {
		t.Errorf("%d sends, %d of them after the slot was cleared, %d torn", sent.Load(), stale, torn)
	}
}

// room is a pacer in this process.
type room struct {
	t    *testing.T
	path string
	end  func()
}

func start(t *testing.T) *room {
	t.Helper()
	r := &room{t: t, path: filepath.Join(t.TempDir(), "pacer")}
	r.start()
	return r
}

func (r *room) start() {
	r.t.Helper()
	l, err := net.Listen("unixpacket", r.path)
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	env := &ipc.Env{Listener: l, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	go func() { done <- Run(ctx, env) }()
	r.end = sync.OnceFunc(func() {
		cancel()
		l.Close()
		if err := <-done; err != nil {
			r.t.Error(err)
		}
	})
	r.t.Cleanup(r.end)
}

func (r *room) dial() *Client {
	r.t.Helper()
	c, err := Dial(r.path)
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

// wire is a pair of sockets: what is sent by the first is heard at the second.
func wire(t *testing.T) (fd int, heard func(limit time.Duration) string) {
	t.Helper()
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(p[0]); unix.Close(p[1]) })
	return p[0], func(limit time.Duration) string {
		t.Helper()
		poll := []unix.PollFd{{Fd: int32(p[1]), Events: unix.POLLIN}}
		for end := time.Now().Add(limit); ; {
			n, err := unix.Poll(poll, max(int(time.Until(end)/time.Millisecond), 0))
			if err == unix.EINTR {
				continue
			}
			if n == 0 {
				return ""
			}
			b := make([]byte, 128)
			k, err := unix.Read(p[1], b)
			if err != nil {
				t.Fatal(err)
			}
			return string(b[:k])
		}
	}
}

func clock(t *testing.T) int64 {
	t.Helper()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		t.Fatal(err)
	}
	return now.Nano()
}

const every = 50 * time.Millisecond

// arm is vrrp's first advertisement and the end of its turn.
func arm(t *testing.T, c *Client, slot, fd int, text string) int {
	t.Helper()
	slot, err := c.Sent(slot, &Message{FD: fd, Data: []byte(text)}, every, clock(t))
	if err != nil || slot < 0 {
		t.Fatal(slot, err)
	}
	c.Turn(clock(t))
	return slot
}

// TestStandIn: what is overdue is sent, with the interval that it has, until
// vrrp is back.
func TestStandIn(t *testing.T) {
	r := start(t)
	c := r.dial()
	defer c.Close()
	fd, heard := wire(t)
	begin := time.Now()
	slot := arm(t, c, -1, fd, "one")
	if !c.Commit(5 * time.Second) {
		t.Fatal("no answer")
	}
	for n := range 3 {
		if got := heard(5 * time.Second); got != "one" {
			t.Fatalf("%d: heard %q", n, got)
		}
	}
	if took := time.Since(begin); took < 3*every {
		t.Errorf("three stand-ins after %v", took)
	}
	// It is back: as long as it sends itself, nobody else does.
	for heard(0) != "" {
	}
	arm(t, c, slot, fd, "two")
	for heard(5*time.Second) != "two" {
	}
	if f := c.Figures(); f.Adverts < 3 || f.Failed != 0 || f.Late < every/2 || f.OwnLate <= 0 {
		t.Errorf("%+v", f)
	}
	c.Clear(slot)
	for heard(0) != "" {
	}
	if got := heard(3 * every); got != "" {
		t.Errorf("heard %q of a slot that is cleared", got)
	}
	// The same slot again, for another one.
	if n := arm(t, c, -1, fd, "three"); n != slot {
		t.Errorf("slot %d, want %d again", n, slot)
	}
	if got := heard(5 * time.Second); got != "three" {
		t.Errorf("heard %q", got)
	}
}

// TestLease: the pacer speaks for a process that is gone until its lease ends;
// one that has stood still must advertise itself before the pacer does again.
func TestLease(t *testing.T) {
	r := start(t)
	c := r.dial()
	fd, heard := wire(t)
	slot := arm(t, c, -1, fd, "one")
	c.Commit(5 * time.Second)
	w := stall.Watch(t)
	if err := w.Judge(every/2, func() error {
		arm(t, c, slot, fd, "one")
		begin, n := time.Now(), 0
		for heard(4*every) != "" {
			n++
		}
		if took := time.Since(begin); n < int(lease/every)/2 || took < lease-every || took > lease+time.Second {
			return fmt.Errorf("%d stand-ins in %v", n, took)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	for heard(4*every) != "" {
	}
	c.Turn(clock(t)) // a turn alone is no word about this router
	if got := heard(3 * every); got != "" {
		t.Errorf("heard %q from one that has decided nothing", got)
	}
	arm(t, c, slot, fd, "one")
	if got := heard(5 * time.Second); got != "one" {
		t.Errorf("heard %q, it is back", got)
	}

	// The process dies: its connection ends, its lease does not.
	if err := w.Judge(every/2, func() error {
		d := r.dial()
		arm(t, d, -1, fd, "one")
		d.Commit(5 * time.Second)
		for heard(0) != "" {
		}
		d.Turn(clock(t))
		unix.Close(d.fd)
		n := 0
		for ; heard(4*every) != ""; n++ {
		}
		if n < int(lease/every)/2 {
			return fmt.Errorf("%d stand-ins for one that died", n)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	c.Close()
}

// TestSuccessor: what a process left is in force until the next one commits its
// own, and not a moment longer.
func TestSuccessor(t *testing.T) {
	r := start(t)
	a := r.dial()
	fd, heard := wire(t)
	arm(t, a, -1, fd, "old")
	a.Commit(5 * time.Second)
	unix.Close(a.fd)
	b := r.dial()
	defer b.Close()
	other, heardOther := wire(t)
	if got := heard(5 * time.Second); got != "old" {
		t.Fatalf("heard %q after a hello of the next process", got)
	}
	arm(t, b, -1, other, "new")
	if !b.Commit(5 * time.Second) {
		t.Fatal("no answer")
	}
	for heard(0) != "" { // before the commit
	}
	if got := heardOther(5 * time.Second); got != "new" {
		t.Errorf("heard %q", got)
	}
	if got := heard(3 * every); got != "" {
		t.Errorf("heard %q of a process that has a successor", got)
	}
}

// TestSockets: a socket that vrrp closes is closed by the pacer too, and its
// number may be another one's.
func TestSockets(t *testing.T) {
	r := start(t)
	c := r.dial()
	defer c.Close()
	fd, heard := wire(t)
	slot := arm(t, c, -1, fd, "one")
	c.Commit(5 * time.Second)
	heard(5 * time.Second)
	c.Forget(fd)
	for heard(0) != "" {
	}
	if got := heard(3 * every); got != "" {
		t.Errorf("heard %q by a socket that is closed", got)
	}
	other, heardOther := wire(t)
	if n := arm(t, c, slot, other, "two"); n != slot {
		t.Errorf("slot %d, want %d", n, slot)
	}
	if got := heardOther(5 * time.Second); got != "two" {
		t.Errorf("heard %q", got)
	}
	// More advertisements than there are slots.
	for n := 1; n < Slots; n++ {
		arm(t, c, -1, other, "x")
	}
	if _, err := c.Sent(-1, &Message{FD: other, Data: []byte("x")}, every, clock(t)); !errors.Is(err, ErrFull) {
		t.Errorf("one more: %v", err)
	}
	if _, err := c.Sent(slot, &Message{FD: other, Data: make([]byte, MaxData+1)}, every, clock(t)); err == nil {
		t.Error("an advertisement that is too long was taken")
	}
}

// TestApart: the loop leaves the processor that vrrp runs on.
func TestApart(t *testing.T) {
	if runtime.NumCPU() < 2 {
		t.Skip("there is one processor")
	}
	mem, fd, err := newTable()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	defer unix.Munmap(mem)
	null, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(null)
	l, err := newLoop(null, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer unix.SchedSetaffinity(0, &l.cpus)
	h := tableAt(unsafe.Pointer(&mem[0]))
	for range 10 {
		var one unix.CPUSet
		for one.Count() == 0 {
			if n := int(l.here.ask()) - 1; l.cpus.IsSet(n) {
				one.Set(n)
			}
		}
		if err := unix.SchedSetaffinity(0, &one); err != nil {
			t.Fatal(err)
		}
		vrrp := l.here.ask()
		h.cpu.Store(vrrp)
		if l.apart(&h); l.here.ask() == vrrp {
			t.Fatalf("still on processor %d", vrrp-1)
		}
	}
	h.cpu.Store(1 << 20) // a number that there is none of
	l.apart(&h)
}

// TestPacerEnds: vrrp learns that the pacer is gone, and may come again.
func TestPacerEnds(t *testing.T) {
	r := start(t)
	c := r.dial()
	fd, heard := wire(t)
	arm(t, c, -1, fd, "one")
	c.Commit(5 * time.Second)
	r.end()
	for c.Heard() == nil {
		unix.Poll([]unix.PollFd{{Fd: int32(c.FD()), Events: unix.POLLIN}}, 1000)
	}
	c.Close()
	if _, err := Dial(r.path); err == nil {
		t.Fatal("connected with nobody")
	}
	for heard(0) != "" {
	}
	os.Remove(r.path)
	r.start()
	c = r.dial()
	defer c.Close()
	arm(t, c, -1, fd, "two")
	c.Commit(5 * time.Second)
	if got := heard(5 * time.Second); got != "two" {
		t.Errorf("heard %q", got)
	}
}

// TestNonsense: who does not speak the language is cut off, and nobody else is
// troubled.
func TestNonsense(t *testing.T) {
	r := start(t)
	c := r.dial()
	defer c.Close()
	fd, heard := wire(t)
	arm(t, c, -1, fd, "one")
	c.Commit(5 * time.Second)
	plain, err := unix.MemfdCreate("plain", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(plain)
	for _, x := range []struct {
		what         string
		kind, number uint32
		fds          []int
	}{
		{"look before hello", sayLook, 0, nil},
		{"commit before hello", sayCommit, 0, nil},
		{"hello without memory", sayHello, 0, nil},
		{"hello with something else", sayHello, 0, []int{fd}},
		{"hello with memory that can shrink", sayHello, 0, []int{plain}},
		{"unknown", 77, 0, nil},
	} {
		s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Connect(s, &unix.SockaddrUnix{Name: r.path}); err != nil {
			t.Fatal(err)
		}
		bad := &Client{fd: s}
		bad.say(x.kind, x.number, x.fds...)
		if n, err := unix.Read(s, make([]byte, 8)); n != 0 || err != nil {
			t.Errorf("%s: read %d, %v", x.what, n, err)
		}
		unix.Close(s)
	}
	d := r.dial()
	for _, x := range []struct{ kind, number uint32 }{{saySocket, Sockets}, {sayForget, 3}} {
		d.say(x.kind, x.number)
		for err := error(unix.EINTR); err == unix.EINTR; {
			_, err = unix.Poll([]unix.PollFd{{Fd: int32(d.FD()), Events: unix.POLLIN}}, 60_000)
		}
		if d.Heard() == nil {
			t.Errorf("message %d of number %d was taken", x.kind, x.number)
		}
		d.Close()
		d = r.dial()
	}
	d.Close()
	if got := heard(5 * time.Second); got != "one" {
		t.Errorf("heard %q", got)
	}
}

// TestNoGarbage: once it runs, neither side allocates.
func TestNoGarbage(t *testing.T) {
	r := start(t)
	c := r.dial()
	defer c.Close()
	fd, heard := wire(t)
	m := &Message{FD: fd, Data: []byte("one")}
	slot := arm(t, c, -1, fd, "one")
	c.Commit(5 * time.Second)
	heard(5 * time.Second)
	at := clock(t)
	if n := testing.AllocsPerRun(100, func() {
		at++
		c.Sent(slot, m, every, at)
		c.Turn(at)
	}); n != 0 {
		t.Errorf("%v allocations of vrrp's, or the pacer's, for an advertisement", n)
	}
}
