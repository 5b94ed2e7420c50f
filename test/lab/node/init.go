package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// self is the path of this program in the VM.
const self = "/init"

// rc is a program that init starts, where the VM has one, before the agent:
// what a machine of its own kind does at its boot.
const rc = "/bin/rc"

// initVM is PID 1. Its only child is the agent, so that it can reap whatever
// else comes without taking somebody's exit status away.
func initVM() error {
	fmt.Println("node: PID 1")
	for _, m := range []struct{ source, target, kind string }{
		{"proc", "/proc", "proc"}, {"sysfs", "/sys", "sysfs"}, {"devtmpfs", "/dev", "devtmpfs"},
		{"devpts", "/dev/pts", "devpts"}, {"tmpfs", "/run", "tmpfs"}, {"tmpfs", "/tmp", "tmpfs"},
		{"cgroup2", "/sys/fs/cgroup", "cgroup2"},
	} {
		os.MkdirAll(m.target, 0o755)
		if err := unix.Mount(m.source, m.target, m.kind, 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
			fmt.Printf("node: mount %s: %v\n", m.target, err)
		}
	}
	os.Chmod("/tmp", 0o1777)
	os.MkdirAll("/run/netns", 0o755)
	os.MkdirAll("/root", 0o700)
	os.Symlink("/proc/self/fd", "/dev/fd")
	unix.Sethostname([]byte("node"))
	os.Setenv("PATH", "/bin:/sbin:/usr/bin:/usr/sbin")
	os.Setenv("HOME", "/root")
	if lo, err := netlink.LinkByName("lo"); err == nil {
		netlink.LinkSetUp(lo)
	}
	t := time.Now()
	n, err := loadList("/lib/modules/load")
	fmt.Printf("node: %d modules in %v\n", n, time.Since(t).Round(time.Millisecond))
	if err != nil {
		fmt.Printf("node: %v\n", err)
	}
	if _, err := os.Stat(rc); err == nil {
		first := exec.Command(rc, "boot")
		first.Stdout, first.Stderr = os.Stdout, os.Stderr
		if err := first.Start(); err != nil {
			fmt.Printf("node: %v\n", err)
		}
	}
	cmd := exec.Command(self, "agent")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		fmt.Printf("node: %v\n", err)
	}
	for {
		pid, err := unix.Wait4(-1, nil, 0, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || pid == cmd.Process.Pid {
			break
		}
	}
	fmt.Println("node: the agent has ended, power off")
	return unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}
