package notify

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// scriptUser does things with files as the scripts' user would: what is made
// is theirs, and what they may not reach is not reached for them. The thread
// that does it has that user's file system identity (setfsuid(2)) and no
// supplementary group; the process keeps its own.
type scriptUser struct {
	cred *syscall.Credential // nil: as this process

	once sync.Once
	work chan func()
}

func (u *scriptUser) do(f func() error) error {
	if u.cred == nil {
		return f()
	}
	u.once.Do(func() {
		u.work = make(chan func())
		ready := make(chan error)
		go func() {
			runtime.LockOSThread() // for good: nothing else ever runs on this thread
			err := u.become()
			ready <- err
			if err != nil {
				close(u.work)
				return
			}
			for f := range u.work {
				f()
			}
		}()
		if err := <-ready; err != nil {
			u.work = nil
		}
	})
	if u.work == nil {
		return errors.New("this process may not act as the scripts' user")
	}
	done := make(chan error, 1)
	u.work <- func() { done <- f() }
	return <-done
}

// become changes the calling thread only, so it goes by the raw system calls.
func (u *scriptUser) become() error {
	if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0); e != 0 {
		return e
	}
	unix.RawSyscall(unix.SYS_SETFSGID, uintptr(u.cred.Gid), 0, 0)
	unix.RawSyscall(unix.SYS_SETFSUID, uintptr(u.cred.Uid), 0, 0)
	// Neither call tells whether it worked; asking with an invalid id does.
	if uid, _, _ := unix.RawSyscall(unix.SYS_SETFSUID, ^uintptr(0), 0, 0); uint32(uid) != u.cred.Uid {
		return unix.EPERM
	}
	return nil
}

// allowedRoots are the folders in which a configuration's pipes and numbers
// may lie.
var allowedRoots = []string{
	"/etc/keepalived", "/usr/local", "/usr/libexec/keepalived", "/opt", "/run", "/var/run", "/tmp",
}

// ownRoots are those in which folders are made as they are needed; they are
// empty after each boot.
var ownRoots = []string{"/run", "/var/run", "/tmp"}

// reserved is the director's own.
var reserved = []string{"/run/ballast", "/run/service", "/var/run/ballast", "/var/run/service"}

func below(p string, roots []string) bool {
	for _, r := range roots {
		if strings.HasPrefix(p, r+"/") {
			return true
		}
	}
	return false
}

// checkPath says whether a path of the configuration may be used.
func checkPath(p string) error {
	switch {
	case !filepath.IsAbs(p) || filepath.Clean(p) != p:
		return fmt.Errorf("%q: want a path from / on, without \"..\"", p)
	case !below(p, allowedRoots) || below(p, reserved):
		return fmt.Errorf("%s: must lie below one of %s", p, strings.Join(allowedRoots, ", "))
	}
	return nil
}

// makeFolder makes the folder of a path where the box has a place for such.
func makeFolder(p string) error {
	dir := filepath.Dir(p)
	if !below(dir, ownRoots) {
		return nil
	}
	return os.MkdirAll(dir, 0o755)
}

// makePipe makes a named pipe for its owner alone, or takes the one that is
// there, and opens it without waiting for a reader.
func (u *scriptUser) makePipe(p string) (*os.File, error) {
	if err := checkPath(p); err != nil {
		return nil, err
	}
	var f *os.File
	err := u.do(func() error {
		if err := makeFolder(p); err != nil {
			return err
		}
		if err := unix.Mkfifo(p, 0o600); err != nil && err != unix.EEXIST {
			return fmt.Errorf("make pipe %s: %w", p, hint(err))
		}
		// Both ways, so that there always is a reader: a write never fails with
		// EPIPE, and lines wait in the kernel for one to come.
		fd, err := unix.Open(p, unix.O_RDWR|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open pipe %s: %w", p, hint(err))
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO {
			unix.Close(fd)
			return fmt.Errorf("%s is there and is no pipe: remove it, or name another one", p)
		}
		f = os.NewFile(uintptr(fd), p)
		return nil
	})
	return f, err
}

func hint(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: the scripts' user may not write there; /run, /var/run and /tmp are for that", err)
	}
	return err
}

// pipeEmpty reports whether a reader has taken all that was written.
func pipeEmpty(f *os.File) bool {
	empty := true
	if c, err := f.SyscallConn(); err == nil {
		c.Control(func(fd uintptr) {
			n, err := unix.IoctlGetInt(int(fd), unix.TIOCINQ)
			empty = err != nil || n == 0
		})
	}
	return empty
}
