package hogs

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"ballast/services/ipc"
	"ballast/services/vrrp"
	"ballast/services/vrrp/kernel"
)

// roleEnv makes the program one of the processes of a run.
const roleEnv = "BALLAST_HOGS_ROLE"

const (
	roleRouter  = "router"
	roleHog     = "hog"
	roleThrash  = "thrash"
	roleWitness = "witness"
	roleReader  = "reader"
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
		if err == nil {
			err = vrrp.Run(ctx, env)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
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
	case roleWitness:
		fmt.Println(watch(ctx))
	}
	return true
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
