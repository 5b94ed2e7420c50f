// Package boot brings a director's kernel into the state that the services
// expect: file systems, random numbers, modules, the data disk, the seed, the
// host name. What it does is a list of named phases, each timed.
package boot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// RunDir holds a folder for each service, its own, whose content is gone at a
// reboot. /etc/resolv.conf of the image points into net's.
const RunDir = "/run/service"

type mount struct {
	source, target, kind string
	flags                uintptr
	options              string
	optional             bool // this kernel or firmware may not have it
}

const careful = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

var mounts = []mount{
	{"proc", "/proc", "proc", careful, "", false},
	{"sysfs", "/sys", "sysfs", careful, "", false},
	{"devtmpfs", "/dev", "devtmpfs", unix.MS_NOSUID | unix.MS_NOEXEC, "mode=0755", false},
	{"devpts", "/dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "gid=5,mode=0620,ptmxmode=0666", true},
	{"tmpfs", "/dev/shm", "tmpfs", careful, "mode=1777,size=16m", true},
	// The scripts' user (ipc.UIDScript) may make pipes and numbers in it, and
	// remove nobody else's.
	{"tmpfs", "/run", "tmpfs", careful, "mode=1775,gid=200,size=32m", false},
	{"tmpfs", "/tmp", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777,size=32m", false},
	{"cgroup2", "/sys/fs/cgroup", "cgroup2", careful, "", false},
	{"pstore", "/sys/fs/pstore", "pstore", careful, "", true},
}

// Mounts mounts the kernel's file systems. All faults are returned; what could
// be mounted is.
func Mounts() error {
	var errs []error
	for _, m := range mounts {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			if !m.optional { // a folder of /sys that is not there cannot be made
				errs = append(errs, err)
			}
			continue
		}
		err := unix.Mount(m.source, m.target, m.kind, m.flags, m.options)
		if err != nil && !errors.Is(err, unix.EBUSY) && !m.optional {
			errs = append(errs, fmt.Errorf("mount %s on %s: %w", m.kind, m.target, err))
		}
	}
	for name, target := range map[string]string{"/dev/fd": "/proc/self/fd", "/dev/stdin": "fd/0", "/dev/stdout": "fd/1", "/dev/stderr": "fd/2"} {
		os.Symlink(target, name)
	}
	return errors.Join(errs...)
}

// cgroupRoot holds the cgroups of the services.
const cgroupRoot = "/sys/fs/cgroup"

// Cgroups turns on the controllers that the services' limits need and returns
// the folder in which their cgroups are made. init itself stays in the root
// cgroup, which has no limits.
func Cgroups() (string, error) {
	err := os.WriteFile(filepath.Join(cgroupRoot, "cgroup.subtree_control"), []byte("+memory +pids +cpu"), 0o644)
	if err != nil {
		return "", fmt.Errorf("cgroups: %w", err)
	}
	return cgroupRoot, nil
}

// Entropy waits until the kernel can make random numbers that nobody guesses.
// Without a hardware source that takes about a second, once; a reader that asks
// without waiting, as libraries do, would find none and turn in circles.
func Entropy() error {
	var b [16]byte
	if _, err := unix.Getrandom(b[:], 0); err != nil {
		return fmt.Errorf("random numbers: %w", err)
	}
	return nil
}

// CmdLine is the kernel's command line.
type CmdLine string

// ReadCmdLine reads it from /proc.
func ReadCmdLine() CmdLine {
	b, _ := os.ReadFile("/proc/cmdline")
	return CmdLine(strings.TrimSpace(string(b)))
}

// Get is the value of the last word "key=value", "" for none.
func (c CmdLine) Get(key string) string {
	v := ""
	for _, w := range strings.Fields(string(c)) {
		if k, x, ok := strings.Cut(w, "="); ok && k == key {
			v = x
		}
	}
	return v
}

// Sysctl are kernel settings, as "path below /proc/sys" and value, that belong
// to no service.
var sysctl = [][2]string{
	{"kernel/modprobe", "/sbin/modprobe"},
	{"kernel/hung_task_timeout_secs", "60"},
	{"kernel/panic_on_oops", "1"},  // with panic=10: a kernel that is not sound starts anew
	{"kernel/kptr_restrict", "2"},  // no kernel addresses for services
	{"kernel/dmesg_restrict", "1"}, // the console's users see the kernel's log through init only
	{"kernel/sysrq", "0"},          // a break on the serial line is no command; /proc/sysrq-trigger is root's
	{"kernel/kexec_load_disabled", "1"},
	{"kernel/unprivileged_bpf_disabled", "1"},
	{"net/core/bpf_jit_harden", "2"},
	{"kernel/yama/ptrace_scope", "3"}, // nobody looks into another process, root neither
	{"kernel/perf_event_paranoid", "3"},
	{"kernel/io_uring_disabled", "2"},
	{"vm/unprivileged_userfaultfd", "0"},
	{"user/max_user_namespaces", "0"}, // where an unprivileged user could be root of his own
	{"dev/tty/ldisc_autoload", "0"},
	{"dev/tty/legacy_tiocsti", "0"},
	{"fs/suid_dumpable", "0"},
	{"fs/protected_symlinks", "1"}, // scripts write to /run and /tmp: nobody follows their links there
	{"fs/protected_hardlinks", "1"},
	{"fs/protected_regular", "2"},
	{"fs/protected_fifos", "2"},
	{"net/ipv4/tcp_syncookies", "1"},
	{"net/core/fb_tunnels_only_for_init_net", "2"}, // a module for tunnels makes no interface by itself
	{"kernel/sched_rt_runtime_us", "980000"},
	{"vm/panic_on_oom", "0"},
	{"vm/swappiness", "0"},
	{"vm/min_free_kbytes", "8192"},                // room for packets while memory is short
	{"net/ipv4/ping_group_range", "0 2147483647"}, // ping needs no capability
}

// Sysctls applies them, and makes the program that the kernel calls when it
// wants a module. All faults are returned.
func Sysctls() error {
	var errs []error
	if err := os.Symlink("/init", "/sbin/modprobe"); err != nil && !errors.Is(err, fs.ErrExist) {
		errs = append(errs, fmt.Errorf("modprobe: %w", err))
	}
	for _, s := range sysctl {
		if err := os.WriteFile("/proc/sys/"+s[0], []byte(s[1]), 0o644); err != nil && !os.IsNotExist(err) {
			errs = append(errs, fmt.Errorf("sysctl %s: %w", s[0], err))
		}
	}
	return errors.Join(errs...)
}
