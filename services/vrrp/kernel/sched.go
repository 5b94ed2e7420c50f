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

// LockMemory keeps the pages that this process has touched in memory. It does nothing
// without CAP_IPC_LOCK: under a limit, later mappings would fail and the Go
// runtime with them.
func LockMemory() error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return fmt.Errorf("lock memory: %w", err)
	}
	if data[unix.CAP_IPC_LOCK/32].Effective&(1<<(unix.CAP_IPC_LOCK%32)) == 0 {
		return fmt.Errorf("lock memory: %w", unix.EPERM)
	}
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		return fmt.Errorf("lock memory: %w", err)
	}
	return nil
}
