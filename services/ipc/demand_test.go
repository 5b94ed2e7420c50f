package ipc_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ballast/services/ipc"
)

// succession is a socket that one process after the other serves, as init's.
type succession struct {
	dir    ipc.Dir
	master *net.UnixListener
}

func newSuccession(t *testing.T) *succession {
	t.Helper()
	s := &succession{dir: ipc.Dir(t.TempDir())}
	var err error
	if s.master, err = net.ListenUnix("unix", &net.UnixAddr{Name: s.dir.Path("svc"), Net: "unix"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.master.Close() })
	return s
}

// serve is one such process.
func (s *succession) serve(ctx context.Context, srv *ipc.Server, idle time.Duration) error {
	f, err := s.master.File()
	if err != nil {
		return err
	}
	l, err := net.FileListener(f)
	f.Close()
	if err != nil {
		return err
	}
	env := &ipc.Env{Listener: l, Dir: s.dir, Log: slog.New(slog.DiscardHandler)}
	env.OnDemand(idle)
	return srv.Serve(ctx, env.Listener)
}

// Whoever calls while a process ends is served, by that one or the next.
func TestDemandLosesNoCall(t *testing.T) {
	s := newSuccession(t)
	const idle = 500 * time.Microsecond
	ctx, stop := context.WithCancel(t.Context())
	var processes, served atomic.Int64
	done := make(chan error, 1)
	go func() {
		for ctx.Err() == nil {
			srv := ipc.NewServer("svc")
			srv.Handle("do", func(context.Context, ipc.Peer, json.RawMessage) (any, error) {
				served.Add(1)
				return "done", nil
			}, ipc.AnyUID)
			if err := s.serve(ctx, srv, idle); err != nil && !errors.Is(err, ipc.ErrIdle) {
				done <- err
				return
			}
			processes.Add(1)
		}
		done <- nil
	}()
	const callers, calls = 4, 300
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			c := s.dir.Client("svc")
			for range calls {
				var answer string
				if err := c.Call(t.Context(), "do", "something", &answer); err != nil || answer != "done" {
					t.Errorf("%q, %v", answer, err)
					return
				}
				time.Sleep(rand.N(4 * idle)) // so that calls meet every moment of an end
			}
		})
	}
	all.Wait()
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if n := processes.Load(); served.Load() != callers*calls || n < 10 {
		t.Errorf("%d calls served by %d processes; want %d by many", served.Load(), n, callers*calls)
	}
}

// A watch, a request that takes long and work on hold keep it from ending.
func TestDemandInUse(t *testing.T) {
	s := newSuccession(t)
	const idle = 20 * time.Millisecond
	srv := ipc.NewServer("svc")
	srv.Publish(state{1})
	free := make(chan func(), 1)
	srv.Handle("hold", func(context.Context, ipc.Peer, json.RawMessage) (any, error) {
		free <- srv.Hold()
		return nil, nil
	}, ipc.AnyUID)
	began, over := make(chan struct{}), make(chan struct{})
	srv.Handle("long", func(context.Context, ipc.Peer, json.RawMessage) (any, error) {
		close(began)
		<-over
		return nil, nil
	}, ipc.AnyUID)
	ended := make(chan error, 1)
	first := srv.Hold()
	go func() { ended <- s.serve(t.Context(), srv, idle) }()
	alive := func(why string) {
		t.Helper()
		select {
		case err := <-ended:
			t.Fatalf("ended during %s: %v", why, err)
		case <-time.After(4 * idle):
		}
	}
	alive("a hold from before its start")
	c := s.dir.Client("svc")
	if err := c.Call(t.Context(), "hold", nil, nil); err != nil {
		t.Fatal(err)
	}
	first()
	first() // once more is nothing
	alive("a hold")
	ctx, stop := context.WithCancel(t.Context())
	seen, watched := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		ipc.WatchBriefOnce(ctx, s.dir.Client("svc"), func(uint64, state) { close(seen) })
	}()
	<-seen
	(<-free)()
	alive("a watch")
	answered := make(chan error, 1)
	go func() { answered <- c.Call(t.Context(), "long", nil, nil) }()
	<-began
	stop()
	<-watched
	alive("a request that takes long")
	close(over)
	if err := <-answered; err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, ipc.ErrIdle) {
		t.Errorf("ended with %v", err)
	}
}

// The end of a box is not idleness.
func TestDemandStopped(t *testing.T) {
	s := newSuccession(t)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.serve(ctx, ipc.NewServer("svc"), time.Hour) }()
	if _, err := s.dir.Client("svc").State(t.Context(), new(any)); err != nil {
		t.Fatal(err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
