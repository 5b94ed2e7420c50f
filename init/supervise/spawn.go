package supervise

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

func itoa(n int) string { return strconv.Itoa(n) }

// command is one process to be.
type command struct {
	exe    string
	args   []string // with argv[0]
	env    []string
	files  []uintptr // descriptors 0, 1, 2, …
	uid    uint32
	gid    uint32
	caps   []uintptr // ambient, and the whole bounding set
	cgroup int       // descriptor of a cgroup's folder, -1: none
}

// spawn forks and executes c. What of a process's credentials cannot be named
// in a fork call (bounding set, no_new_privs, securebits) belongs to a thread
// and is inherited by its children: a thread of init takes them on, forks, and
// ends. That saves a second exec in the child, which would double the time in
// which a service that crashed is away.
func spawn(c command) (int, error) {
	type result struct {
		pid int
		err error
	}
	ch := make(chan result, 1)
	onThrowawayThread(func() {
		if err := restrict(c); err != nil {
			ch <- result{0, err}
			return
		}
		attr := &syscall.ProcAttr{Dir: "/", Env: c.env, Files: c.files, Sys: &syscall.SysProcAttr{Setsid: true}}
		if c.uid != 0 || c.gid != 0 {
			attr.Sys.Credential = &syscall.Credential{Uid: c.uid, Gid: c.gid, Groups: []uint32{c.gid}}
			attr.Sys.AmbientCaps = c.caps
		}
		if c.cgroup >= 0 {
			attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, c.cgroup
		}
		pid, err := syscall.ForkExec(c.exe, c.args, attr)
		ch <- result{pid, err}
	})
	r := <-ch
	return r.pid, r.err
}

// onThrowawayThread runs f on a thread that ends afterwards.
func onThrowawayThread(f func()) {
	go func() {
		// Never unlocked: the thread ends with the goroutine. While it is locked,
		// the Go runtime makes no thread from it that would inherit its limits.
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			f()
			return
		}
		// The main thread cannot end, and is what the rest of the world sees of
		// the process. Hold it until another one is found.
		found := make(chan struct{})
		onThrowawayThread(func() { close(found); f() })
		<-found
		runtime.UnlockOSThread()
	}()
}

// lastCap is the highest capability that the running kernel knows.
var lastCap = sync.OnceValue(func() uintptr {
	b, err := os.ReadFile("/proc/sys/kernel/cap_last_cap")
	if err == nil {
		if n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 16); err == nil {
			return uintptr(n)
		}
	}
	return unix.CAP_LAST_CAP
})

// restrict limits what the calling thread's children can ever have
// (capabilities(7)).
func restrict(c command) error {
	for n := uintptr(0); n <= lastCap(); n++ {
		if slices.Contains(c.caps, n) {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, n, 0, 0, 0); err != nil {
			return fmt.Errorf("drop capability %d: %w", n, err)
		}
	}
	const noRoot = 1<<0 | 1<<1 // SECBIT_NOROOT and its lock
	if err := unix.Prctl(unix.PR_SET_SECUREBITS, noRoot, 0, 0, 0); err != nil {
		return fmt.Errorf("securebits: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	return nil
}
