// Package pacer keeps virtual routers alive while the process that runs them
// stands still. Garbage is collected there, configurations are taken over, a
// lock of the Go runtime may be held by a thread that waits for a processor;
// with advertisements 10 ms apart, backups call a master dead that says nothing
// for 36 ms.
//
// The pacer is a process of its own with one thread that matters. vrrp sends its
// advertisements as ever, and writes the time of each into memory that both
// share, beside the frame itself. When that time is overdue by half an interval,
// the pacer sends the frame, and goes on until vrrp is back or its lease ends.
// It decides nothing: what vrrp has not armed is not sent, and vrrp clears a
// slot before it leaves the role of master.
//
// table is the memory, watch the decision, loop the process, Client what vrrp
// uses. The loop makes no garbage, takes no lock and is pinned to its processor
// of the Go runtime while there is something to watch.
package pacer

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"ballast/services/ipc"
	"ballast/services/vrrp/kernel"
)

// Priority is that of the pacer's thread in SCHED_FIFO: above vrrp's, so that a
// send of one is over before the other goes on.
const Priority = kernel.Priority + 1

// Run is the service, until ctx ends. It takes connections of vrrp's user and of
// its own.
func Run(ctx context.Context, env *ipc.Env) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if os.Getenv(ipc.EnvDir) != "" {
		// Whatever stops all goroutines would wait for the loop for ever: a
		// collection of garbage, of which there is none after the start, and a new
		// number of processors, which the runtime sets by itself unless told.
		debug.SetGCPercent(-1)
		debug.SetMemoryLimit(math.MaxInt64)
		runtime.GOMAXPROCS(2)
	}
	listener, ok := env.Listener.(*net.UnixListener)
	if !ok || listener.Addr().Network() != "unixpacket" {
		return errors.New("pacer: the listener that it was handed is none for packets")
	}
	listen, err := listener.File() // a descriptor of our own
	if err != nil {
		return fmt.Errorf("pacer: %w", err)
	}
	defer listen.Close()
	l, err := newLoop(int(listen.Fd()), ipc.UIDVRRP, os.Geteuid())
	if err != nil {
		return err
	}
	defer l.close()
	defer unix.SchedSetaffinity(0, &l.cpus) // the thread goes back to the runtime
	stop := context.AfterFunc(ctx, l.end)
	defer stop()

	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	go progress(life, &l.turns, env)
	class, err := kernel.RealTime(0, Priority)
	if err != nil {
		env.Log.Warn("no real-time scheduling here, stand-ins may be late: " + err.Error())
	} else {
		defer kernel.Normal(0)
		kernel.Help()
		l.realTime = true
		env.Log.Info("started, " + class)
	}
	before, err := maskPreemption()
	if err != nil {
		return fmt.Errorf("pacer: %w", err)
	}
	defer unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil)
	env.Ready()
	if e := l.run(); e != 0 {
		return fmt.Errorf("pacer: poll: %w", e)
	}
	return nil
}

// progress tells init that the loop goes round, as long as it does. It runs on
// another thread: the loop has no time to wait for a pipe.
func progress(ctx context.Context, turns *atomic.Uint64, env *ipc.Env) {
	t := time.NewTicker(idleTurn)
	defer t.Stop()
	var last uint64
	for {
		select {
		case <-t.C:
			if n := turns.Load(); n != last {
				last = n
				env.Progress()
			}
		case <-ctx.Done():
			return
		}
	}
}
