package kernel

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// rtPriority is keepalived's own default for its real-time class.
const rtPriority = 50

// RealTime puts the calling thread, which must be locked, into SCHED_FIFO, or
// SCHED_RR where that is refused. Children do not inherit it.
func RealTime() (string, error) {
	err := unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: rtPriority, Flags: unix.SCHED_FLAG_RESET_ON_FORK}, 0)
	if err == nil {
		return "SCHED_FIFO 50", nil
	}
	if unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_RR, Priority: rtPriority, Flags: unix.SCHED_FLAG_RESET_ON_FORK}, 0) == nil {
		return "SCHED_RR 50", nil
	}
	return "", fmt.Errorf("real-time scheduling: %w", err)
}

// Normal takes the calling thread back to the default class.
func Normal() {
	unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL}, 0)
}
