package vm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ballast/test/lab/wire"
)

func TestLock(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	unlock, err := Lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Lock(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "another lab") {
		t.Errorf("a second lab: %v", err)
	}
	unlock()
	again, err := Lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	again()
}

// TestLockInLine: who gives the lock back and asks again at once comes behind
// those who wait.
func TestLockInLine(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	for range 20 {
		unlock, err := Lock(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		had := make(chan error, 1)
		go func() {
			unlock, err := Lock(t.Context())
			had <- err
			if err == nil {
				unlock()
			}
		}()
		for inLine := false; !inLine; runtime.Gosched() {
			f, err := os.OpenFile(LockFile()+".line", os.O_CREATE|os.O_RDWR, 0o666)
			if err != nil {
				t.Fatal(err)
			}
			inLine = errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK)
			f.Close()
		}
		unlock()
		again, err := Lock(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		again()
		select {
		case err := <-had:
			if err != nil {
				t.Fatal(err)
			}
		default:
			t.Fatal("who asked again had the lock before who waited")
		}
	}
}

// TestLockOfParent: "flock FILE go test" must not wait for itself.
func TestLockOfParent(t *testing.T) {
	if os.Getenv("BALLAST_TEST_LOCK") != "" {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		unlock, err := Lock(ctx)
		if err != nil {
			t.Fatal(err)
		}
		unlock()
		return
	}
	t.Setenv("TMPDIR", t.TempDir())
	cmd := exec.Command("flock", LockFile(), os.Args[0], "-test.run", "^TestLockOfParent$", "-test.v")
	cmd.Env = append(os.Environ(), "BALLAST_TEST_LOCK=1")
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "PASS") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestArgs(t *testing.T) {
	t.Setenv(EnvAccel, "")
	a := strings.Join(Config{
		Name: "x", Dir: "/d", Kernel: "/k", Initrd: "/i", Append: "console=ttyS0 a b", Agent: true, Watchdog: true, NoReboot: true,
		NICs:  []NIC{{Netdev: "socket,udp=127.0.0.1:1,localaddr=127.0.0.1:2", MAC: "52:54:00:00:00:01"}, {Netdev: "user", MAC: "52:54:00:00:00:02"}},
		Disks: []Disk{{File: "/disk", Serial: "serial"}}, Extra: []string{"-icount", "shift=1"},
	}.Args(), "\n")
	for _, want := range []string{
		"-accel\ntcg", "-append\nconsole=ttyS0 a b no_timer_check\n", "-m\n384", "-smp\n1", "-no-reboot",
		"-netdev\nsocket,id=net0,udp=127.0.0.1:1,localaddr=127.0.0.1:2\n-device\nvirtio-net-pci,id=nic0,netdev=net0,mac=52:54:00:00:00:01,romfile=",
		"-netdev\nuser,id=net1\n",
		"if=none,id=disk0,format=raw,file=/disk\n-device\nvirtio-blk-pci,drive=disk0,serial=serial",
		"virtserialport,chardev=agent,name=" + wire.Port, "-device\ni6300esb\n-action\nwatchdog=reset", "-icount\nshift=1",
		"logfile=/d/x.console",
	} {
		if !strings.Contains(a, want) {
			t.Errorf("no %q in:\n%s", want, a)
		}
	}
	if !slices.Contains(Config{}.Args(), "tcg,thread=multi") {
		t.Error("without -icount each processor has a thread")
	}
	b := strings.Join(Config{
		Name: "x", Dir: "/d", UEFI: &UEFI{Vars: "/vars", Secure: true},
		NICs:  []NIC{{Netdev: "user", MAC: "52:54:00:00:00:01", Model: "e1000", ROM: true, BootIndex: 2}},
		Disks: []Disk{{File: "/a", Serial: "s", Bus: AHCI, BootIndex: 1, Cache: "unsafe"}, {File: "/b", Serial: "s", Bus: NVMe}, {File: "/c", Serial: "s", Bus: USB}},
	}.Args(), "\n")
	for _, want := range []string{
		"unit=0,format=raw,readonly=on,file=" + OVMFCode, "unit=1,format=raw,file=/vars", "smm=on", "\ne1000,id=nic0,netdev=net0,mac=52:54:00:00:00:01,bootindex=2\n",
		"file=/a,cache=unsafe\n-device\nide-hd,bus=ide.0,drive=disk0,serial=s,bootindex=1", "\nnvme,drive=disk1,serial=s\n",
		"\nqemu-xhci,id=usb2\n-device\nusb-storage,bus=usb2.0,drive=disk2,serial=s",
	} {
		if !strings.Contains(b, want) {
			t.Errorf("no %q in:\n%s", want, b)
		}
	}
	if strings.Contains(b, "-kernel") {
		t.Error("a machine that boots by itself has a kernel")
	}
	t.Setenv(EnvAccel, "kvm")
	if !slices.Contains(Config{}.Args(), "kvm") {
		t.Error(EnvAccel + " is not heard")
	}
}

// TestQMP speaks with a monitor that has other things to tell in between.
func TestQMP(t *testing.T) {
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, "x.qmp"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		fmt.Fprintln(c, `{"QMP": {"version": {}}}`)
		for s := bufio.NewScanner(c); s.Scan(); {
			fmt.Fprintln(c, `{"event": "NIC_RX_FILTER_CHANGED"}`)
			if strings.Contains(s.Text(), "set_link") {
				fmt.Fprintln(c, `{"error": {"class": "GenericError", "desc": "no such link"}}`)
			} else {
				fmt.Fprintln(c, `{"return": {}}`)
			}
		}
	}()
	v := &VM{Name: "x", dir: dir, exited: make(chan struct{}), stderr: &tail{max: 100}}
	if err := v.Pause(t.Context()); err != nil {
		t.Error(err)
	}
	if err := v.SetLink(t.Context(), 0, false); err == nil || !strings.Contains(err.Error(), "no such link") {
		t.Errorf("set_link: %v", err)
	}
	v.stderr.Write([]byte("qemu: could not do it"))
	close(v.exited)
	if err := v.Resume(t.Context()); err == nil || !strings.Contains(err.Error(), "could not do it") {
		t.Errorf("a machine that has ended: %v", err)
	}
	if _, err := v.WaitConsole(t.Context(), 0, "login"); err == nil {
		t.Error("a machine that has ended shows a login")
	}
}

// What a machine says when it ends is heard, by who waits for it then and by who
// asks afterwards.
func TestLastBreath(t *testing.T) {
	v := &VM{Name: "x", dir: t.TempDir(), exited: make(chan struct{}), stderr: &tail{max: 100}}
	heard := make(chan error, 1)
	go func() {
		_, err := v.WaitConsole(t.Context(), 0, "power down")
		heard <- err
	}()
	if err := os.WriteFile(ConsoleLog(v.dir, v.Name), []byte("reboot: power down\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	close(v.exited)
	if err := <-heard; err != nil {
		t.Error(err)
	}
	if at, err := v.WaitConsole(t.Context(), 2, "login", "down", "power"); err != nil || at != len("reboot: power") {
		t.Errorf("the first of several: %d, %v", at, err)
	}
	if at, err := v.WaitConsole(t.Context(), 3, "down"); err != nil || at != len("reboot: power down") {
		t.Errorf("%d, %v", at, err)
	}
	if _, err := v.WaitConsole(t.Context(), 0, "login"); err == nil {
		t.Error("it never showed a login")
	}
}

func TestStartFails(t *testing.T) {
	if cmd, pkg := Missing(); cmd != "" {
		t.Skipf("%s is not installed: apt-get install %s", cmd, pkg)
	}
	v, err := Start(Config{Name: "x", Dir: t.TempDir(), Kernel: "/nonexistent", Initrd: "/nonexistent"})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Kill()
	if _, err := v.Agent(t.Context()); err == nil || !strings.Contains(err.Error(), "nonexistent") {
		t.Errorf("no kernel: %v, want QEMU's own words", err)
	}
}

func TestSaid(t *testing.T) {
	const console = "conf ready: 9 serrvices\n\n> shhow status, show  status\n"
	for text, want := range map[string]int{
		"ready: ": 12, "9 services": 23, "show status\n": len(console), "\n> ": 27, ": 99": -1, "services\n": 24, "a+b": -1, "(9": -1, "s": 15, "show": 32,
	} {
		if got := Said(text)(console); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}
