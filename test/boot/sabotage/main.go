// Sabotage is a PID 1 that leaves a child behind and becomes the director's own.
// The child does what it reads from a virtio port: has the kernel panic, PID 1
// hang or end, data be gone.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// director is the real init; the kernel is told rdinit=/sabotage.
const director = "/init"

func main() {
	if os.Getpid() == 1 {
		if _, err := syscall.ForkExec(os.Args[0], []string{"sabotage"}, &syscall.ProcAttr{Files: []uintptr{0, 1, 2}}); err != nil {
			fmt.Println("sabotage:", err)
		}
		fmt.Println("sabotage:", syscall.Exec(director, []string{director}, os.Environ()))
		select {}
	}
	var f *os.File
	for ; f == nil; f = port() {
		time.Sleep(50 * time.Millisecond) // the port's driver is a module
	}
	// It stays open: nobody keeps for a closed one what is sent to it. While nobody
	// is at the other end, it has ended.
	line := ""
	for b := make([]byte, 256); ; time.Sleep(20 * time.Millisecond) {
		n, _ := f.Read(b)
		line += string(b[:n])
		what, rest, ok := strings.Cut(line, "\n")
		if !ok {
			continue
		}
		line = rest
		if err := do(what); err != nil {
			fmt.Printf("sabotage: %s: %v\r\n", what, err)
		}
	}
}

func port() *os.File {
	list, _ := filepath.Glob("/dev/vport*")
	if len(list) == 0 {
		return nil
	}
	f, err := os.OpenFile(list[0], os.O_RDWR, 0)
	if err != nil {
		return nil
	}
	return f
}

func do(what string) error {
	const freezer = "/sys/fs/cgroup/sabotage"
	switch strings.TrimSpace(what) {
	case "panic":
		return os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0)
	case "end init": // Go's runtime takes it for a fault of the program
		return syscall.Kill(1, syscall.SIGSEGV)
	case "stop init":
		if err := os.Mkdir(freezer, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(freezer+"/cgroup.procs", []byte("1"), 0); err != nil {
			return err
		}
		return os.WriteFile(freezer+"/cgroup.freeze", []byte("1"), 0)
	}
	return fmt.Errorf("not known")
}
