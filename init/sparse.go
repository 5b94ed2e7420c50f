package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Of linux/userfaultfd.h.
const (
	uffdUserModeOnly = 1
	uffdAPI          = 0xaa
	uffdAsync        = 1 << 15 // UFFD_FEATURE_WP_ASYNC, Linux 6.7: the kernel resolves all by itself
	uffdRegisterWP   = 1 << 1
	uffdioAPI        = 0xc018aa3f
	uffdioRegister   = 0xc020aa00
)

// programPages has the kernel map one page of the program when one is touched,
// where it otherwise maps the 16 around it: the file is in memory as a whole
// anyway, and of those 16 a process that sits idle uses two or three. There is
// no call for that (the setting for all is in debugfs, which is closed), but the
// kernel does so in memory whose writes are tracked, because there it must see
// each page once. Nothing is tracked here: what is registered cannot be written.
type programPages struct{ fd int }

// openPages is called before a process gives up what it may.
func openPages() (*programPages, error) {
	fd, _, e := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|uffdUserModeOnly, 0, 0)
	if e != 0 {
		return nil, fmt.Errorf("userfaultfd: %w", e)
	}
	api := struct{ api, features, ioctls uint64 }{uffdAPI, uffdAsync, 0}
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, fd, uffdioAPI, uintptr(unsafe.Pointer(&api))); e != 0 {
		unix.Close(int(fd))
		return nil, fmt.Errorf("userfaultfd of this kernel: %w", e)
	}
	return &programPages{int(fd)}, nil
}

// alone has each page come alone from now on. It holds while the descriptor is
// open, which is as long as the process lives.
func (p *programPages) alone() error {
	if p == nil {
		return nil // openPages said why
	}
	var errs []error
	err := programFile(func(from, to uintptr) {
		r := struct{ start, len, mode, ioctls uint64 }{uint64(from), uint64(to - from), uffdRegisterWP, 0}
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(p.fd), uffdioRegister, uintptr(unsafe.Pointer(&r))); e != 0 {
			errs = append(errs, fmt.Errorf("userfaultfd: %w", e))
		}
	})
	return errors.Join(append(errs, err)...)
}

// programFile calls f with the parts of memory that are the program's own file
// and cannot have been written to.
func programFile(f func(from, to uintptr)) error {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return err
	}
	defer maps.Close()
	for s := bufio.NewScanner(maps); s.Scan(); {
		line := s.Text()
		var from, to uintptr
		var perms string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &perms); err != nil {
			return fmt.Errorf("/proc/self/maps: %q: %w", line, err)
		}
		if strings.HasSuffix(line, exe) && !strings.Contains(perms, "w") {
			f(from, to)
		}
	}
	return nil
}
