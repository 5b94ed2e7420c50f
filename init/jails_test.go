package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"ballast/init/jail"
	"ballast/services/ipc"
)

// attempt is something that a service may try, and whether it may. An error is
// part of the answer: "no" for one reason is not "no" for another.
type attempt struct {
	name string
	do   func(env *ipc.Env, others string) error
}

func call(nr uintptr, args ...uintptr) error {
	var a [6]uintptr
	copy(a[:], args)
	if _, _, e := unix.Syscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5]); e != 0 {
		return e
	}
	return nil
}

func socket(family, kind, proto int) error {
	fd, err := unix.Socket(family, kind, proto)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

var attempts = []attempt{
	{"write its own file", func(env *ipc.Env, _ string) error {
		p := filepath.Join(env.Data, "x")
		if err := os.WriteFile(p, []byte("x"), 0o600); err != nil {
			return err
		}
		if err := os.Rename(p, p+".new"); err != nil {
			return err
		}
		return os.Remove(p + ".new")
	}},
	{"read /etc/passwd", func(*ipc.Env, string) error { _, err := os.ReadFile("/etc/passwd"); return err }},
	{"read another's file", func(_ *ipc.Env, others string) error { _, err := os.ReadFile(others); return err }},
	{"list /", func(*ipc.Env, string) error { _, err := os.ReadDir("/"); return err }},
	{"read another process's memory map", func(*ipc.Env, string) error { _, err := os.ReadFile("/proc/1/maps"); return err }},
	{"start a program", func(*ipc.Env, string) error { return exec.Command("/bin/true").Run() }},
	{"ptrace", func(*ipc.Env, string) error { return call(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(os.Getppid())) }},
	{"end another process", func(*ipc.Env, string) error { return unix.Kill(os.Getppid(), 0) }},
	{"load a module", func(*ipc.Env, string) error { return call(unix.SYS_INIT_MODULE, 0, 0, 0) }},
	{"load a program into the kernel", func(*ipc.Env, string) error { return call(unix.SYS_BPF, 0, 0, 0) }},
	{"mount", func(*ipc.Env, string) error { return unix.Mount("tmpfs", "/mnt", "tmpfs", 0, "") }},
	{"a namespace of its own", func(*ipc.Env, string) error {
		runtime.LockOSThread()
		return unix.Unshare(unix.CLONE_NEWNET)
	}},
	{"io_uring", func(*ipc.Env, string) error {
		var p [120]byte
		return call(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&p)))
	}},
	{"keys", func(*ipc.Env, string) error { return call(unix.SYS_KEYCTL, 0, ^uintptr(2)) }},
	{"raw socket", func(*ipc.Env, string) error { return socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP) }},
	{"frames", func(*ipc.Env, string) error { return socket(unix.AF_PACKET, unix.SOCK_RAW, 0) }},
	{"vsock", func(*ipc.Env, string) error { return socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0) }},
	{"crypto socket", func(*ipc.Env, string) error { return socket(unix.AF_ALG, unix.SOCK_SEQPACKET, 0) }},
	{"listen on TCP", func(*ipc.Env, string) error {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err == nil {
			l.Close()
		}
		return err
	}},
	{"a socket of UDP", func(*ipc.Env, string) error { return socket(unix.AF_INET, unix.SOCK_DGRAM, 0) }},
	{"configure the network", func(*ipc.Env, string) error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		ifr, err := unix.NewIfreq("lo")
		if err != nil {
			return err
		}
		ifr.SetUint16(unix.IFF_UP)
		return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
	}},
}

// insideJail is the child: it confines itself as the service does, tries, and
// prints.
func insideJail(name string) int {
	s, ok := serviceNamed(name)
	if !ok {
		return 2
	}
	env := &ipc.Env{Data: os.Getenv("JAIL_DATA")}
	// The limits may be above those of whoever runs the test.
	if err := s.restrict(); err != nil && !errors.Is(err, unix.EPERM) {
		fmt.Println("restrict:", err)
		return 1
	}
	if err := jail.Apply(s.policy(env)); err != nil {
		fmt.Println("jail:", err)
		return 1
	}
	for _, a := range attempts {
		err := a.do(env, os.Getenv("JAIL_OTHERS"))
		var e syscall.Errno
		switch {
		case err == nil:
			fmt.Printf("%s: yes\n", a.name)
		case errors.As(err, &e):
			fmt.Printf("%s: %s\n", a.name, unix.ErrnoName(e))
		default:
			fmt.Printf("%s: %v\n", a.name, err)
		}
	}
	return 0
}

func TestMain(m *testing.M) {
	if name := os.Getenv("JAIL_SERVICE"); name != "" {
		os.Exit(insideJail(name))
	}
	os.Exit(m.Run())
}

// What each service cannot do, tried by a process like it: its user, its
// capabilities, its jail. All that is not in the table of the service is refused
// to it, and with the error that tells which wall it was.
func TestJails(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("needs root: it becomes other users")
	}
	if testing.Short() {
		t.Skip("builds the package once more")
	}
	// Threads are confined together, which a program with C in it cannot.
	dir, err := os.MkdirTemp("/var/tmp", "ballast-jail-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	exe := filepath.Join(dir, "init.test")
	build := exec.Command("go", "test", "-c", "-o", exe, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	others := filepath.Join(dir, "secret")
	if err := os.WriteFile(others, []byte("of another service"), 0o644); err != nil {
		t.Fatal(err)
	}
	common := map[string]string{
		"write its own file": "yes", "read /etc/passwd": "yes", "read another's file": "yes", "list /": "yes",
		"read another process's memory map": "EACCES", "start a program": "EPERM", "ptrace": "EPERM", "end another process": "EPERM",
		"load a module": "EPERM", "load a program into the kernel": "EPERM", "mount": "EPERM", "a namespace of its own": "EPERM",
		"io_uring": "EPERM", "keys": "EPERM", "raw socket": "EPERM", "frames": "EAFNOSUPPORT", "vsock": "EAFNOSUPPORT", "crypto socket": "EAFNOSUPPORT",
		"listen on TCP": "yes", "a socket of UDP": "yes", "configure the network": "EPERM",
	}
	confined := map[string]string{"read another's file": "EACCES", "list /": "EACCES"}
	raw := map[string]string{"raw socket": "yes", "frames": "yes"}
	admin := map[string]string{"configure the network": "yes"}
	noTCP := map[string]string{"listen on TCP": "EACCES"}
	type walls []map[string]string
	own := map[string]walls{
		"net": {raw, admin}, "vrrp": {raw, admin}, "ipvs": {admin}, "health": {raw, confined},
		"console": {confined}, "peer": {confined}, "snmp": {confined, noTCP}, "pacer": {confined, noTCP},
		"capture": {confined, noTCP, raw}, "netboot": {confined},
		"notify": {{"start a program": "yes", "end another process": "yes"}}, // CAP_KILL: scripts that run too long
	}
	for _, s := range services {
		t.Run(s.name, func(t *testing.T) {
			want := map[string]string{}
			for _, m := range append(walls{common}, own[s.name]...) {
				for k, v := range m {
					want[k] = v
				}
			}
			data := filepath.Join(dir, s.name)
			if err := os.Mkdir(data, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.Chown(data, int(s.uid), ipc.GroupBallast); err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithTimeout(t.Context(), time.Minute)
			defer stop()
			c := exec.CommandContext(ctx, exe)
			c.Dir = "/"
			c.Env = append(os.Environ(), "JAIL_SERVICE="+s.name, "JAIL_DATA="+data, "JAIL_OTHERS="+others)
			c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: s.uid, Gid: ipc.GroupBallast, Groups: []uint32{ipc.GroupBallast}}, AmbientCaps: s.caps,
				Cloneflags: unix.CLONE_NEWNET} // the one whose network may be configured
			out, err := c.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			got := map[string]string{}
			for line := range strings.Lines(string(out)) {
				k, v, _ := strings.Cut(strings.TrimSpace(line), ": ")
				got[k] = v
			}
			for _, a := range attempts {
				if got[a.name] != want[a.name] {
					t.Errorf("%s: %q, want %q", a.name, got[a.name], want[a.name])
				}
			}
		})
	}
}
