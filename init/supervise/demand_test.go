package supervise

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

func isIdle(p status.Process) bool { return p.State == Idle && p.PID == 0 }

func TestOnDemand(t *testing.T) {
	f := newFixture(t, "")
	f.add(t, Spec{Name: "capture", UID: ipc.UIDCapture, GID: ipc.GroupBallast, Idle: 30 * time.Millisecond})
	f.Start()
	if missing := f.WaitReady(t.Context()); missing != nil {
		t.Fatalf("a box waits for what nobody asked for: %v", missing)
	}
	f.await(t, "capture", isIdle)
	if l, err := f.j.Lines(status.LogQuery{Service: "capture"}); err == nil {
		t.Errorf("it ran before anybody called: %v", l)
	}
	if err := f.Signal("capture", unix.SIGTERM); err == nil {
		t.Error("a signal to a service that does not run was no error")
	}
	for range 2 {
		var id identity
		if _, err := f.dir.Client("capture").State(t.Context(), &id); err != nil || id.UID != ipc.UIDCapture {
			t.Fatalf("a call: %+v, %v", id, err)
		}
		if p := f.await(t, "capture", isIdle); p.Restarts != 0 || p.LastExit != "" {
			t.Errorf("its end counts as a fault: %+v", p)
		}
	}
	before := f.starts(t, "capture")
	f.Wake("capture")
	f.Wake("nobody")
	// It is ready for a moment only, which nobody may be there to see.
	f.await(t, "capture", func(p status.Process) bool { return isIdle(p) && f.starts(t, "capture") > before })
	f.Stop("capture")
	f.await(t, "capture", func(p status.Process) bool { return p.State == Stopped })
}

// Calls come at every moment of a process's life, and none is lost.
func TestOnDemandRace(t *testing.T) {
	f := newFixture(t, "")
	const idle = 4 * time.Millisecond
	f.add(t, Spec{Name: "capture", Idle: idle})
	f.Start()
	pids := sync.Map{}
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			for range 40 {
				ctx, stop := context.WithTimeout(t.Context(), patience)
				_, err := f.dir.Client("capture").State(ctx, new(identity))
				stop()
				if err != nil {
					t.Errorf("%v; %+v", err, f.State())
					return
				}
				for _, p := range f.State() {
					pids.Store(p.PID, true)
				}
				time.Sleep(rand.N(4 * idle))
			}
		})
	}
	all.Wait()
	n := 0
	pids.Range(func(any, any) bool { n++; return true })
	if n < 5 {
		t.Errorf("the calls met %d processes only", n)
	}
	if p := f.await(t, "capture", isIdle); p.Restarts != 0 {
		t.Errorf("%+v", p)
	}
}

// What ends by a fault had something to do: it is back at once, also when
// nobody calls. What says at once that nothing is wrong is at fault too.
func TestOnDemandFault(t *testing.T) {
	f := newFixture(t, "")
	f.add(t, Spec{Name: "capture", Idle: 3 * time.Second}, Spec{Name: "crash", Idle: time.Millisecond, MaxBackoff: time.Millisecond},
		Spec{Name: "quit", Idle: time.Hour, MaxBackoff: time.Millisecond})
	f.Start()
	f.Wake("capture")
	p := f.await(t, "capture", isReady)
	if err := f.Signal("capture", unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	q := f.await(t, "capture", func(p status.Process) bool { return p.State == Ready && p.Restarts == 1 })
	if q.PID == p.PID || q.LastExit != "killed (SIGKILL)" {
		t.Errorf("%+v", q)
	}
	f.await(t, "capture", isIdle)
	for _, name := range []string{"crash", "quit"} {
		f.await(t, name, isIdle)
		f.Wake(name)
		f.await(t, name, func(p status.Process) bool { return p.Restarts > 2 })
	}
}

// An optional service may be one on demand: it is asked for nothing until the
// configuration has it.
func TestOnDemandOptional(t *testing.T) {
	f := newFixture(t, "")
	f.add(t, Spec{Name: "netboot", Idle: 20 * time.Millisecond, Optional: true})
	f.Start()
	stopped := func(p status.Process) bool { return p.State == Stopped }
	f.await(t, "netboot", stopped)
	for range 2 {
		f.Want("netboot", true)
		f.await(t, "netboot", isIdle)
		if _, err := f.dir.Client("netboot").State(t.Context(), new(identity)); err != nil {
			t.Error(err)
		}
		f.Want("netboot", false)
		f.await(t, "netboot", stopped)
	}
}
