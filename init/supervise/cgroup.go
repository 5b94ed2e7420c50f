package supervise

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// cgroup is the folder of one service in the cgroup2 file system; "" is none.
type cgroup string

// newCgroup makes a service's cgroup below root with a memory limit and a share
// of the processors, or takes over the one that is there. A limit that cannot be
// set does not keep the others from being set.
func newCgroup(root, name string, memory int64, weight int) (cgroup, error) {
	dir := filepath.Join(root, name)
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("cgroup of %s: %w", name, err)
	}
	c := cgroup(dir)
	var errs []error
	set := func(file, value string) {
		if err := c.write(file, value); err != nil {
			errs = append(errs, fmt.Errorf("cgroup of %s: %w", name, err))
		}
	}
	if memory > 0 {
		set("memory.max", strconv.FormatInt(memory, 10))
		// A process of a service that ran out of memory dies alone and starts anew,
		// with what it started.
		set("memory.oom.group", "1")
	}
	if weight > 0 {
		set("cpu.weight", strconv.Itoa(weight))
	}
	return c, errors.Join(errs...)
}

// The folders in the cgroup of a service with Scripts. Processes may be in
// leaves only, so the service itself is in one beside its scripts.
const (
	cgroupMain    = "main"
	cgroupScripts = "scripts"
)

// split divides the cgroup of a service for its scripts and returns the part
// for the service itself and that for them. The service's user may start
// processes in both: a fork from one into the other needs that of both and of
// what they have in common. Where scripts has no room of its own it is "".
func (c cgroup) split(uid uint32, s Scripts) (home, scripts cgroup, err error) {
	home = c
	fail := func(err error) (cgroup, cgroup, error) { return home, "", fmt.Errorf("cgroup for scripts: %w", err) }
	parts := []cgroup{c, cgroup(filepath.Join(string(c), cgroupMain)), cgroup(filepath.Join(string(c), cgroupScripts))}
	for _, p := range parts {
		if err := os.Mkdir(string(p), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fail(err)
		}
		if err := os.Chown(filepath.Join(string(p), "cgroup.procs"), int(uid), -1); err != nil {
			return fail(err)
		}
	}
	home, scripts = parts[1], parts[2]
	for _, limit := range []struct {
		controller, file string
		value            int64
	}{{"+memory", "memory.max", s.Memory}, {"+pids", "pids.max", int64(s.PIDs)}} {
		if limit.value == 0 {
			continue
		}
		if err := c.write("cgroup.subtree_control", limit.controller); err != nil {
			return fail(err)
		}
		if err := scripts.write(limit.file, strconv.FormatInt(limit.value, 10)); err != nil {
			return fail(err)
		}
	}
	return home, scripts, nil
}

func (c cgroup) write(file, value string) error {
	return os.WriteFile(filepath.Join(string(c), file), []byte(value), 0o644)
}

// open returns the descriptor that a fork into the cgroup wants, -1 for none.
func (c cgroup) open() (fd int, closeFD func()) {
	if c == "" {
		return -1, func() {}
	}
	fd, err := syscall.Open(string(c), syscall.O_DIRECTORY|syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return -1, func() {}
	}
	return fd, func() { syscall.Close(fd) }
}

// kill ends everything in the cgroup: a script that outlived the service.
func (c cgroup) kill() {
	if c != "" {
		c.write("cgroup.kill", "1") // nothing in it is not an error; the kernel has it since 5.14
	}
}
