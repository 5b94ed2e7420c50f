package kernel

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

const (
	// Priority in the real-time class is keepalived's own default.
	Priority = 50
	// nicest is the strongest claim outside that class.
	nicest = -20
)

// RealTime puts a thread of this process, locked to its goroutine, into
// SCHED_FIFO, or SCHED_RR where that is refused. 0 is the calling thread.
// Children do not inherit it.
func RealTime(tid int, priority uint32) (string, error) {
	err := schedule(tid, unix.SCHED_FIFO, priority)
	if err == nil {
		return fmt.Sprintf("SCHED_FIFO %d", priority), nil
	}
	if schedule(tid, unix.SCHED_RR, priority) == nil {
		return fmt.Sprintf("SCHED_RR %d", priority), nil
	}
	return "", fmt.Errorf("real-time scheduling: %w", err)
}

func schedule(tid int, policy, priority uint32) error {
	return unix.SchedSetAttr(tid, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: policy, Priority: priority, Flags: unix.SCHED_FLAG_RESET_ON_FORK}, 0)
}

// Help gives all threads of this process the highest niceness. They share locks
// with the real-time thread inside the Go runtime, and a lock that a thread
// holds while other programs use up the processors makes the real-time thread
// wait as long as that one does: by measurement 120 ms beside four of them.
// Real-time priority for all of them is no way out: threads that wait for one
// another by spinning then stop for good on a processor that they share.
// Threads inherit it from those that start them.
func Help() {
	list, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return
	}
	for _, e := range list {
		if tid, err := strconv.Atoi(e.Name()); err == nil {
			unix.Setpriority(unix.PRIO_PROCESS, tid, nicest)
		}
	}
}

// Normal takes a thread back to the default class, where it is as nice as Help
// makes the others. 0 is the calling thread.
func Normal(tid int) {
	a := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL, Nice: nicest}
	if unix.SchedSetAttr(tid, &a, 0) != nil {
		a.Nice = 0
		unix.SchedSetAttr(tid, &a, 0)
	}
}
