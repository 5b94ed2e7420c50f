package kernel

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// rtPriority is keepalived's own default for its real-time class.
const rtPriority = 50

// RealTime puts a thread of this process, locked to its goroutine, into
// SCHED_FIFO, or SCHED_RR where that is refused. 0 is the calling thread.
// Children do not inherit it.
func RealTime(tid int) (string, error) {
	err := unix.SchedSetAttr(tid, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: rtPriority, Flags: unix.SCHED_FLAG_RESET_ON_FORK}, 0)
	if err == nil {
		return "SCHED_FIFO 50", nil
	}
	if unix.SchedSetAttr(tid, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_RR, Priority: rtPriority, Flags: unix.SCHED_FLAG_RESET_ON_FORK}, 0) == nil {
		return "SCHED_RR 50", nil
	}
	return "", fmt.Errorf("real-time scheduling: %w", err)
}

// Normal takes a thread back to the default class. 0 is the calling thread.
func Normal(tid int) {
	unix.SchedSetAttr(tid, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL}, 0)
}
