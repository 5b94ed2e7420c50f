package vm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// LockFile is the file that a lab locks while it runs, one on a machine.
func LockFile() string { return filepath.Join(os.TempDir(), "ballast-lab.lock") }

// Lock waits until no other lab runs on this machine. Two labs at once would
// share its processors, and every timing would be wrong. A lock that a parent
// process holds ("flock FILE go test …") counts as ours.
func Lock(ctx context.Context) (unlock func(), err error) {
	f, err := os.OpenFile(LockFile(), os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		return nil, fmt.Errorf("lab: lock: %w", err)
	}
	if heldByAncestor(f) {
		f.Close()
		return func() {}, nil
	}
	line, err := os.OpenFile(LockFile()+".line", os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lab: lock: %w", err)
	}
	got := make(chan error, 1)
	go func() {
		// A place in line first, and the lock with it: who gives the lock back and asks
		// again at once would have it before those who wait in the kernel wake up.
		err := flock(line, unix.LOCK_EX)
		if err == nil {
			err = flock(f, unix.LOCK_EX)
		}
		line.Close()
		got <- err
	}()
	select {
	case err := <-got:
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("lab: lock %s: %w", f.Name(), err)
		}
		return func() { f.Close() }, nil
	case <-ctx.Done():
		go func() { // nothing ends the wait; the lock goes back when it comes
			<-got
			f.Close()
		}()
		return nil, fmt.Errorf("lab: another lab runs on this machine (%s is locked): %w", LockFile(), ctx.Err())
	}
}

func flock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// heldByAncestor looks the lock up in /proc/locks:
//
//	1: FLOCK  ADVISORY  WRITE 1234 fe:01:5678 0 EOF
func heldByAncestor(f *os.File) bool {
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil {
		return false
	}
	locks, err := os.Open("/proc/locks")
	if err != nil {
		return false
	}
	defer locks.Close()
	holders := map[int]bool{}
	for s := bufio.NewScanner(locks); s.Scan(); {
		w := strings.Fields(s.Text())
		if len(w) < 6 || w[1] != "FLOCK" || !strings.HasSuffix(w[5], ":"+strconv.FormatUint(st.Ino, 10)) {
			continue
		}
		if pid, err := strconv.Atoi(w[4]); err == nil {
			holders[pid] = true
		}
	}
	for pid := os.Getppid(); pid > 1; pid = parent(pid) {
		if holders[pid] {
			return true
		}
	}
	return false
}

// parent of a process, 0 when it is gone.
func parent(pid int) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	w := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(w) < 2 {
		return 0
	}
	n, _ := strconv.Atoi(w[1])
	return n
}
