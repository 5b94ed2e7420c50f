// Package jail takes away from a running process what it does not need and an
// intruder in it would: files outside of its own folders (Landlock), and system
// calls that start programs, load code into the kernel, look into other
// processes or change what the machine is (seccomp). It adds to what init does
// before a service starts: a user of its own, no capabilities but those of the
// table, no_new_privs.
//
// Both are the kernel's; what an older kernel lacks of them is left out.
package jail

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Policy is what a process keeps.
type Policy struct {
	// Files are confined when Confine is set: Read may be read, Write may be read
	// and written, all else is as if it were not allowed. A path that is not there is
	// left out. Files that are open, and sockets, are no matter of it.
	Confine     bool
	Read, Write []string
	// NoTCP: of the internet's sockets it has those of datagrams only.
	NoTCP bool
	// Exec: it starts programs.
	Exec bool
	// Packets: it sees frames (AF_PACKET).
	Packets bool
}

// Apply confines the whole process, all of its threads, for good. What could be
// done is done; the error tells the rest.
func Apply(p Policy) error {
	// Both need it, and init has set it for services already.
	if _, _, e := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); e != 0 {
		return fmt.Errorf("jail: no_new_privs: %w", e)
	}
	// Landlock first: seccomp takes its calls away.
	return errors.Join(landlock(p), filter(p))
}

// Rights of Landlock by what they are for (linux/landlock.h).
const (
	rightsRead  = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	rightsWrite = unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE |
		unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_SOCK | unix.LANDLOCK_ACCESS_FS_MAKE_FIFO |
		unix.LANDLOCK_ACCESS_FS_MAKE_SYM | unix.LANDLOCK_ACCESS_FS_REFER | unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	rightsNever = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_MAKE_CHAR | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK
	rightsFile  = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
)

// rulesetAttr is struct landlock_ruleset_attr up to the sixth version. Its rights
// for TCP are not used: what MPTCP carries, as Go's sockets do, is not held by them.
type rulesetAttr struct{ fs, net, scoped uint64 }

// handled is what a kernel of a version of Landlock knows of these.
func handled(abi uintptr, p Policy) (a rulesetAttr, size uintptr) {
	if p.Confine {
		a.fs = rightsRead | rightsWrite | rightsNever
	}
	if abi < 2 {
		a.fs &^= unix.LANDLOCK_ACCESS_FS_REFER
	}
	if abi < 3 {
		a.fs &^= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	if abi < 5 {
		a.fs &^= unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}
	size = 8
	if abi >= 6 {
		size = 24
		if !p.Exec { // who starts programs also ends them
			a.scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL
		}
	}
	return a, size
}

func landlock(p Policy) error {
	abi, _, e := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if e == unix.ENOSYS || e == unix.EOPNOTSUPP {
		return nil
	}
	if e != 0 {
		return fmt.Errorf("jail: Landlock: %w", e)
	}
	attr, size := handled(abi, p)
	if attr == (rulesetAttr{}) {
		return nil
	}
	fd, _, e := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), size, 0)
	if e != 0 {
		return fmt.Errorf("jail: Landlock ruleset: %w", e)
	}
	defer unix.Close(int(fd))
	var errs []error
	if p.Confine {
		for _, path := range p.Read {
			errs = append(errs, allow(fd, path, attr.fs&rightsRead))
		}
		for _, path := range p.Write {
			errs = append(errs, allow(fd, path, attr.fs&(rightsRead|rightsWrite)))
		}
	}
	if _, _, e := syscall.AllThreadsSyscall(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0); e != 0 {
		errs = append(errs, fmt.Errorf("jail: Landlock: %w", e))
	}
	return errors.Join(errs...)
}

// allow adds a path, and what is below it.
func allow(ruleset uintptr, path string, rights uint64) error {
	f, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EACCES) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("jail: %w", &os.PathError{Op: "open", Path: path, Err: err})
	}
	defer unix.Close(f)
	var st unix.Stat_t
	if err := unix.Fstat(f, &st); err != nil {
		return fmt.Errorf("jail: %w", &os.PathError{Op: "stat", Path: path, Err: err})
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		rights &= rightsFile
	}
	// The kernel's struct is packed: twelve bytes.
	var attr struct {
		access uint64
		fd     int32
	}
	attr.access, attr.fd = rights, int32(f)
	_, _, e := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, ruleset, unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&attr)), 0, 0, 0)
	runtime.KeepAlive(&attr)
	if e != 0 {
		return fmt.Errorf("jail: Landlock rule: %w", &os.PathError{Op: "allow", Path: path, Err: e})
	}
	return nil
}
