package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"ballast/image/layout"
	"ballast/init/jail"
	"ballast/services/conf"
	"ballast/services/firmware"
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
	{"what the box is called", func(*ipc.Env, string) error { _, err := os.ReadFile("/proc/sys/kernel/hostname"); return err }},
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
	if files := os.Getenv("JAIL_FILES"); files != "" {
		fmt.Println("jailed")
		io.Copy(io.Discard, os.Stdin) // ends when what comes later is there
		for _, word := range strings.Fields(files) {
			how, path, _ := strings.Cut(word, ":")
			fmt.Printf("%s: %s\n", word, outcome(reach(how, path)))
		}
		return 0
	}
	for _, a := range attempts {
		fmt.Printf("%s: %s\n", a.name, outcome(a.do(env, os.Getenv("JAIL_OTHERS"))))
	}
	return 0
}

// outcome is an error as the tables have it.
func outcome(err error) string {
	var e syscall.Errno
	switch {
	case err == nil:
		return "yes"
	case errors.As(err, &e):
		return unix.ErrnoName(e)
	}
	return err.Error()
}

// reach tries one path in one way.
func reach(how, path string) error {
	switch how {
	case "read":
		_, err := os.ReadFile(path)
		return err
	case "write":
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err == nil {
			err = f.Close()
		}
		return err
	case "list":
		_, err := os.ReadDir(path)
		return err
	case "replace": // as conf puts a script
		if err := os.WriteFile(path+".new", []byte("x"), 0o600); err != nil {
			return err
		}
		if err := os.Rename(path+".new", path); err != nil {
			return err
		}
		return os.Remove(path)
	}
	return fmt.Errorf("%s?", how)
}

func TestMain(m *testing.M) {
	if name := os.Getenv("JAIL_SERVICE"); name != "" {
		os.Exit(insideJail(name))
	}
	os.Exit(m.Run())
}

// prisoner is this test's program in the place of a service, in a network of its own,
// which may be configured. What it keeps for itself is in data.
func prisoner(t *testing.T, exe string, s service, data string, env ...string) *exec.Cmd {
	t.Helper()
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(data, int(s.uid), ipc.GroupBallast); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(stop)
	c := exec.CommandContext(ctx, exe)
	c.Dir = "/"
	c.Env = append(append(os.Environ(), "JAIL_SERVICE="+s.name, "JAIL_DATA="+data), env...)
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: s.uid, Gid: ipc.GroupBallast, Groups: []uint32{ipc.GroupBallast}}, AmbientCaps: s.caps,
		Cloneflags: unix.CLONE_NEWNET}
	return c
}

// answers are the lines "what: how" of a prisoner.
func answers(out string) map[string]string {
	got := map[string]string{}
	for line := range strings.Lines(out) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), ": ")
		got[k] = v
	}
	return got
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
		"write its own file": "yes", "read /etc/passwd": "yes", "read another's file": "yes", "what the box is called": "yes", "list /": "yes",
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
		"conf": {confined, noTCP}, "firmware": {confined},
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
			out, err := prisoner(t, exe, s, filepath.Join(dir, s.name), "JAIL_OTHERS="+others).CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			got := answers(string(out))
			for _, a := range attempts {
				if got[a.name] != want[a.name] {
					t.Errorf("%s: %q, want %q", a.name, got[a.name], want[a.name])
				}
			}
		})
	}
	t.Run("files", func(t *testing.T) { jailsOfFiles(t, filepath.Join(dir, "files"), exe) })
}

// jailsOfFiles is what conf and firmware reach of files that are theirs in one
// way and not in the other. Their users own all of these: it is the jail that refuses.
func jailsOfFiles(t *testing.T, dir, exe string) {
	// A namespace of mounts for this test's thread, which ends with it: the folders of
	// scripts are of the machine that it runs on.
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	const scripts = "/opt"
	if err := unix.Mount("tmpfs", scripts, "tmpfs", 0, fmt.Sprintf("mode=0755,uid=%d", ipc.UIDConf)); err != nil {
		t.Fatal(err)
	}
	own := func(path string, uid int) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.Chown(path, uid, uid), os.Chown(filepath.Dir(path), uid, uid)); err != nil {
			t.Fatal(err)
		}
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	own(at("seed/config"), ipc.UIDConf)
	own(at("elsewhere/conf"), ipc.UIDConf)
	for _, name := range []string{"dev/a", "dev/b", "dev/esp", "dev/sda", "lent/none", "word.json", "elsewhere2/firmware"} {
		own(at(name), ipc.UIDFirmware)
	}
	if err := os.Mkdir(at("disk"), 0o755); err != nil { // links, as init makes them
		t.Fatal(err)
	}
	for link, to := range map[string]string{layout.PartSlotA: "a", layout.PartSlotB: "b", layout.PartESP: "esp"} {
		if err := os.Symlink(at("dev/"+to), at("disk/"+link)); err != nil {
			t.Fatal(err)
		}
	}
	disk := []string{firmware.EnvDisk + "=" + at("disk"), firmware.EnvWord + "=" + at("word.json"), firmware.EnvLent + "=" + at("lent")}
	for _, tt := range []struct {
		name, service string
		env           []string
		want          map[string]string
	}{
		{"conf", "conf", []string{conf.EnvSeed + "=" + at("seed")}, map[string]string{
			"read:" + at("seed/config"): "yes", "list:" + at("seed"): "yes", "write:" + at("seed/config"): "EACCES", "replace:" + at("seed/x"): "EACCES",
			"replace:" + scripts + "/x": "yes", "list:/sys/class/net": "yes", "list:/sys/class/net/lo/": "EACCES", "list:/sys/class": "EACCES",
			"read:" + at("elsewhere/conf"): "EACCES", "write:" + at("elsewhere/conf"): "EACCES", "replace:" + at("elsewhere/x"): "EACCES", "list:" + at("elsewhere"): "EACCES",
			"read:/proc/cmdline": "EACCES", "list:/dev": "EACCES",
		}},
		{"conf without a seed", "conf", nil, map[string]string{"read:" + at("seed/config"): "EACCES", "replace:" + scripts + "/x": "yes"}},
		{"firmware of slot A", "firmware", append([]string{firmware.EnvSlot + "=A"}, disk...), map[string]string{
			"read:" + at("disk/slotA"): "yes", "write:" + at("disk/slotA"): "EACCES", "write:" + at("disk/slotB"): "yes", "write:" + at("disk/esp"): "yes",
			"read:" + at("word.json"): "yes", "write:" + at("word.json"): "EACCES",
			"write:" + at("lent/vdb"): "yes", "read:" + at("dev/sda"): "EACCES", "write:" + at("dev/sda"): "EACCES", "list:" + at("dev"): "EACCES", "list:" + at("disk"): "EACCES",
			"read:" + at("elsewhere2/firmware"): "EACCES", "replace:" + at("elsewhere2/x"): "EACCES", "list:/dev": "EACCES",
		}},
		{"firmware of slot B", "firmware", append([]string{firmware.EnvSlot + "=B"}, disk...), map[string]string{
			"write:" + at("disk/slotA"): "yes", "read:" + at("disk/slotB"): "yes", "write:" + at("disk/slotB"): "EACCES",
		}},
		{"firmware of no slot", "firmware", disk, map[string]string{
			"read:" + at("disk/slotA"): "EACCES", "read:" + at("disk/slotB"): "EACCES", "read:" + at("disk/esp"): "EACCES", "list:" + at("disk"): "EACCES", "write:" + at("lent/vdb"): "yes",
		}},
	} {
		t.Log(tt.name) // no subtest: it would run on another thread
		s, _ := serviceNamed(tt.service)
		c := prisoner(t, exe, s, at("data of "+tt.name), append(tt.env, "JAIL_FILES="+strings.Join(slices.Sorted(maps.Keys(tt.want)), " "))...)
		var out strings.Builder
		in, err := c.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		stdout, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		c.Stderr = &out
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(stdout)
		if line, err := r.ReadString('\n'); err != nil || line != "jailed\n" {
			t.Fatalf("%s: %q %v %s", tt.name, line, err, out.String())
		}
		late := at("lent/vdb") // a disk that is lent when the jail is there
		own(late, ipc.UIDFirmware)
		in.Close()
		said, err := io.ReadAll(r)
		if err = errors.Join(err, c.Wait(), os.Remove(late)); err != nil {
			t.Fatalf("%s: %v\n%s%s", tt.name, err, said, out.String())
		}
		got := map[string]string{}
		for word := range tt.want {
			got[word] = "not tried"
		}
		maps.Copy(got, answers(string(said)))
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

// A path that init did not tell of opens nothing, least of all the folder that it
// would be in.
func TestPolicyOfFirmware(t *testing.T) {
	s, _ := serviceNamed("firmware")
	base := len(s.policy(&ipc.Env{}).Read)
	for _, slot := range []string{"", "C", "../x"} {
		t.Setenv(firmware.EnvDisk, "/run/disk")
		t.Setenv(firmware.EnvSlot, slot)
		p := s.policy(&ipc.Env{})
		if len(p.Read) != base || slices.ContainsFunc(slices.Concat(p.Read, p.Write), func(s string) bool { return strings.HasPrefix(s, "/run/disk") }) {
			t.Errorf("slot %q: %+v", slot, p)
		}
	}
}
