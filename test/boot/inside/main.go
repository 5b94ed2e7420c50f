// Inside is in the place of /init: it starts a process that looks at the box
// from within, as root with every capability, and then becomes the real init.
// What the process finds it writes into the kernel's log, a line each, and from
// there it comes to the serial line: "inside: WHAT: VALUE".
package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Real is where the box's own binary is.
const Real = "/real"

func main() {
	if name := filepath.Base(os.Args[0]); name != "init" && name != "inside" {
		become(os.Args) // the box's small programs are links to /init
	}
	if os.Getpid() == 1 {
		if err := watch(); err != nil {
			fmt.Fprintln(os.Stderr, "inside:", err)
		}
		become(os.Args)
	}
	if len(os.Args) > 1 && os.Args[1] == "look" {
		if err := look(); err != nil {
			say("failed", "%v", err)
		}
		say("done", "")
		return
	}
	become(os.Args)
}

func become(args []string) {
	err := syscall.Exec(Real, args, os.Environ())
	fmt.Fprintln(os.Stderr, "inside: exec:", err)
	os.Exit(1)
}

// watch starts the process that looks.
func watch() error {
	_, err := syscall.ForkExec("/init", []string{"inside", "look"}, &syscall.ProcAttr{Dir: "/", Env: os.Environ(), Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Setsid: true}})
	return err
}

var kmsg *os.File

// say writes one line that the console shows.
func say(what, format string, a ...any) {
	if kmsg == nil {
		f, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0)
		if err != nil {
			return
		}
		kmsg = f
	}
	fmt.Fprintf(kmsg, "<2>inside: %s: %s\n", what, fmt.Sprintf(format, a...))
}

// await asks until something is so; nothing tells when.
func await(what string, is func() bool) error {
	for end := time.Now().Add(2 * time.Minute); !is(); {
		if time.Now().After(end) {
			return fmt.Errorf("never: %s", what)
		}
		time.Sleep(50 * time.Millisecond)
	}
	return nil
}

func read(path string) string {
	b, _ := os.ReadFile(path)
	return strings.TrimSpace(string(b))
}

func look() error {
	runtime.LockOSThread()
	if err := await("modules can be loaded", func() bool { _, err := os.Lstat("/sbin/modprobe"); return err == nil }); err != nil {
		return err
	}
	s, err := newStranger()
	if err != nil {
		return fmt.Errorf("a stranger's network: %w", err)
	}
	if err := await("the services start", func() bool { _, err := os.Stat("/run/ballast/vrrp.sock"); return err == nil }); err != nil {
		return err
	}
	before := moduleSizes()
	if err := await("modules are closed", func() bool { return read("/proc/sys/kernel/modules_disabled") == "1" }); err != nil {
		return err
	}
	after := moduleSizes()
	more := 0
	for n, size := range after {
		if _, was := before[n]; !was {
			more += size
		}
	}
	say("modules", "%d, of them %d with %d KiB since the services started", len(after), len(after)-len(before), more>>10)
	files()
	kernel()
	s.later()
	// Not all of them are waited for before the modules are closed.
	err = await("the services listen at "+strings.Join(ports, " "), func() bool {
		all := strings.Join(listening(), " ") + " "
		return !slices.ContainsFunc(ports, func(p string) bool { return !strings.Contains(all, p+" ") })
	})
	processes()
	for _, l := range listening() {
		say("listens", "%s", l)
	}
	if err != nil {
		return err
	}
	if err := await("the box has its virtual address", func() bool {
		as, err := net.InterfaceAddrs()
		return err == nil && slices.ContainsFunc(as, func(a net.Addr) bool { return strings.HasPrefix(a.String(), vip+"/") })
	}); err != nil {
		return err
	}
	return s.scan()
}

// ports are those at which something listens in the end: SSH, SNMP, heartbeat, the
// peer, BFD, IPVS synchronisation.
var ports = []string{":22", ":161", ":1912", ":1913", ":3784", ":8848"}

func moduleSizes() map[string]int {
	out := map[string]int{}
	for line := range strings.Lines(read("/proc/modules")) {
		var name string
		var size int
		fmt.Sscan(line, &name, &size)
		out[name] = size
	}
	return out
}

func verdict(err error) string {
	if err == nil {
		return "yes"
	}
	if e, is := err.(syscall.Errno); is {
		return unix.ErrnoName(e)
	}
	if e, is := err.(*os.PathError); is {
		return verdict(e.Err)
	}
	return err.Error()
}

// files is who may write where.
func files() {
	for _, p := range []string{"/x", "/etc/x", "/bin/x", "/init.new", "/lib/modules/x", "/root/x", "/etc/keepalived/x", "/usr/local/bin/x", "/opt/x", "/run/x", "/tmp/x", "/var/tmp/x", "/data/x"} {
		err := os.WriteFile(p, nil, 0o600)
		os.Remove(p)
		say("write "+p, "%s", verdict(err))
	}
	for line := range strings.Lines(read("/proc/mounts")) {
		f := strings.Fields(line)
		var lacks []string
		for _, flag := range []string{"nosuid", "nodev", "noexec"} {
			if !strings.Contains(","+f[3]+",", ","+flag+",") {
				lacks = append(lacks, flag)
			}
		}
		say("mount "+f[1], "%s", strings.Join(lacks, " "))
	}
}

// kernel is what root may do to it.
func kernel() {
	if err := os.MkdirAll("/run/securityfs", 0o700); err == nil {
		if err := unix.Mount("securityfs", "/run/securityfs", "securityfs", 0, ""); err == nil {
			say("lockdown", "%s", read("/run/securityfs/lockdown"))
			unix.Unmount("/run/securityfs", 0)
		}
	}
	say("sig_enforce", "%s", read("/sys/module/module/parameters/sig_enforce"))
	dummy, _ := filepath.Glob("/lib/modules/*/kernel/drivers/net/dummy.ko*")
	for _, d := range dummy {
		f, err := os.Open(d)
		if err == nil {
			err = unix.FinitModule(int(f.Fd()), "", unix.MODULE_INIT_COMPRESSED_FILE)
			f.Close()
		}
		say("load a module", "%s", verdict(err))
	}
	say("take a module out", "%s", verdict(unix.DeleteModule("ip_vs_rr", 0)))
	_, err := os.Open("/dev/mem")
	say("read the memory", "%s", verdict(err))
	_, _, e := unix.Syscall6(unix.SYS_KEXEC_LOAD, 0, 0, 0, 0, 0, 0)
	say("another kernel", "%s", unix.ErrnoName(e))
	say("ports of the machine", "%s", verdict(unix.Ioperm(0x60, 1, 1)))
	say("ptrace", "%s", verdict(unix.PtraceAttach(1)))
	for _, k := range []string{"kernel/kptr_restrict", "kernel/dmesg_restrict", "kernel/sysrq", "kernel/kexec_load_disabled", "kernel/unprivileged_bpf_disabled",
		"net/core/bpf_jit_harden", "kernel/yama/ptrace_scope", "kernel/io_uring_disabled", "user/max_user_namespaces", "fs/protected_symlinks", "fs/protected_regular",
		"net/ipv4/tcp_syncookies", "kernel/modprobe", "kernel/panic_on_oops"} {
		say("sysctl "+k, "%q", read("/proc/sys/"+k))
	}
	say("pstore", "%v", strings.Contains(read("/proc/mounts"), " /sys/fs/pstore pstore "))
}

// processes is what the services are held in.
func processes() {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		cmd := strings.Split(read(d+"/cmdline"), "\x00")
		if len(cmd) < 3 || cmd[1] != "run" {
			continue
		}
		st := map[string]string{}
		for line := range strings.Lines(read(d + "/status")) {
			k, v, _ := strings.Cut(strings.TrimSpace(line), ":")
			st[k] = strings.TrimSpace(v)
		}
		say("process "+cmd[2], "seccomp %s, no_new_privs %s, root %v, capabilities %s", st["Seccomp"], st["NoNewPrivs"], strings.HasPrefix(st["Uid"], "0\t"), st["CapBnd"])
	}
}

// listening are the sockets that wait for somebody: protocol, address and port.
func listening() []string {
	var out []string
	for _, p := range []string{"tcp", "tcp6", "udp", "udp6"} {
		for line := range strings.Lines(read("/proc/net/" + p)) {
			f := strings.Fields(line)
			if len(f) < 4 || !strings.Contains(f[1], ":") {
				continue
			}
			if strings.HasPrefix(p, "tcp") && f[3] != "0A" || strings.HasPrefix(p, "udp") && !strings.HasSuffix(f[2], ":0000") {
				continue
			}
			out = append(out, p+" "+hexAddr(f[1]))
		}
	}
	return out
}
