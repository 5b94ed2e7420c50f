// Hang is a PID 1 that leaves a child behind and becomes the director's own, for
// tests: as soon as that has armed the watchdog, the child freezes it with all of its
// threads.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// director is the real init; the kernel is told rdinit=/hang.
const director = "/init"

func main() {
	if os.Getpid() == 1 {
		_, err := syscall.ForkExec(os.Args[0], os.Args[:1], &syscall.ProcAttr{Files: []uintptr{0, 1, 2}})
		fmt.Println("hang:", errors.Join(err, syscall.Exec(director, []string{director}, os.Environ())))
		select {} // a panic of the kernel would be another test
	}
	for !armed("/sys/class/watchdog") {
		time.Sleep(50 * time.Millisecond) // nobody tells of it
	}
	if err := freeze("/sys/fs/cgroup/hang"); err != nil {
		fmt.Println("hang:", err)
		return
	}
	fmt.Println("armed, and now it hangs")
}

// armed tells whether a watchdog counts.
func armed(class string) bool {
	list, _ := filepath.Glob(filepath.Join(class, "*", "state"))
	return slices.ContainsFunc(list, func(name string) bool {
		b, _ := os.ReadFile(name)
		return strings.TrimSpace(string(b)) == "active"
	})
}

// freeze stops PID 1 by a cgroup of its own: signals do nothing to it.
func freeze(group string) error {
	return errors.Join(os.Mkdir(group, 0o755),
		os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte("1"), 0),
		os.WriteFile(filepath.Join(group, "cgroup.freeze"), []byte("1"), 0))
}
