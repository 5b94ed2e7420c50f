package hogs

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"ballast/services/ipc"
	"ballast/services/vrrp"
	"ballast/services/vrrp/kernel"
	"ballast/services/vrrp/pacer"
)

// roleEnv makes the program one of the processes of a run.
const roleEnv = "BALLAST_HOGS_ROLE"

const (
	roleRouter  = "router"
	roleHog     = "hog"
	roleThrash  = "thrash"
	roleWitness = "witness"
	roleReader  = "reader"
	rolePacer   = "pacer"
	roleWire    = "wire"
	roleLooker  = "looker"

	collectEnv = "BALLAST_HOGS_COLLECT"
)

// Child does the role that this process was started for and reports true, or
// reports false in any other process. A program that calls Run calls it first.
func Child() bool {
	role := os.Getenv(roleEnv)
	if role == "" {
		return false
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, os.Interrupt)
	defer stop()
	switch role {
	case roleRouter:
		env, err := ipc.NewEnv(ipc.Dir(os.Getenv(ipc.EnvDir)), "vrrp", slog.New(ipc.NewLogHandler(os.Stderr)))
		if os.Getenv(collectEnv) != "" {
			go collect()
		}
		if err == nil {
			err = vrrp.Run(ctx, env)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	case rolePacer:
		dir := ipc.Dir(os.Getenv(ipc.EnvDir))
		l, err := net.Listen("unixpacket", dir.Path("pacer"))
		if err == nil {
			err = pacer.Run(ctx, &ipc.Env{Listener: l, Dir: dir, Log: slog.New(ipc.NewLogHandler(os.Stderr))})
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	case roleWire:
		if err := listen(ctx); err != nil {
			fmt.Println(err)
		}
	case roleHog:
		for ctx.Err() == nil {
			for n := 0; n < 1<<24; n++ {
			}
		}
	case roleThrash:
		thrash(ctx)
	case roleReader:
		read(ctx, ipc.Dir(os.Getenv(ipc.EnvDir)).Client("vrrp"))
	case roleLooker:
		processors(ctx)
	case roleWitness:
		fmt.Println(watch(ctx))
	}
	return true
}

// collect is the worst neighbour that a real-time thread can have in its own
// process: 16 processors of the runtime, which collect a heap of small pieces
// without end.
func collect() {
	for runtime.GOMAXPROCS(0) != 2 { // as vrrp sets it
		time.Sleep(10 * time.Millisecond)
	}
	runtime.GOMAXPROCS(16)
	type piece struct{ next *piece }
	live := make([]*piece, 1<<10)
	for n := 0; ; n++ {
		for range 1 << 10 {
			n++
			live[n%len(live)] = &piece{live[n*7919%len(live)]}
		}
		clear(live[:n%len(live)])
		runtime.GC()
	}
}

// thrash keeps 200 MiB alive and makes garbage of it all the time.
func thrash(ctx context.Context) {
	live := make([][]byte, 200<<10)
	for n := 0; ctx.Err() == nil; n++ {
		b := make([]byte, 1<<10)
		b[n%len(b)] = 1
		live[n*7919%len(live)] = b
	}
}

// read asks a router for its state over and over, as consoles and monitoring
// systems do: work for the other threads of its process.
func read(ctx context.Context, c *ipc.Client) {
	for ctx.Err() == nil {
		if _, err := c.Get(ctx, "/state"); err != nil {
			time.Sleep(10 * time.Millisecond) // it is not there yet
		}
	}
}

// watch is the witness: how late a real-time thread in an idle process is.
func watch(ctx context.Context) string {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	class := "real time"
	if err := unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 50}, 0); err != nil {
		class = "no real time: " + err.Error()
	}
	kernel.Help()
	const every = 10 * time.Millisecond
	var worst time.Duration
	count, over5, over20 := 0, 0, 0
	next := time.Now().Add(every)
	for ctx.Err() == nil {
		spec := unix.NsecToTimespec(int64(time.Until(next)))
		if spec.Nsec > 0 || spec.Sec > 0 {
			unix.Nanosleep(&spec, nil)
		}
		late := time.Since(next)
		count++
		worst = max(worst, late)
		if late > 5*time.Millisecond {
			over5++
		}
		if late > 20*time.Millisecond {
			over20++
		}
		if next = next.Add(every); time.Since(next) > 0 {
			next = time.Now().Add(every)
		}
	}
	return fmt.Sprintf("%s; of %d wake-ups %d more than 5 ms late, %d more than 20 ms, worst %v", class, count, over5, over20, worst)
}
