package main

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// shed takes the program's own file out of this process's resident set: the
// code and tables that only the start needed are half of it. Nothing is lost.
// What is used again comes back from the page cache, some microseconds a page;
// the pages themselves are shared by all services and stay there.
func shed() error {
	var errs []error
	err := programFile(func(from, to uintptr) {
		if _, _, e := unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED); e != 0 {
			errs = append(errs, fmt.Errorf("madvise: %w", e))
		}
	})
	return errors.Join(append(errs, err)...)
}
