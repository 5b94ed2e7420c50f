package boot

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ballast/board"
	"ballast/image"
	"ballast/image/archive"
	"ballast/test/lab/vm"
)

// sabotaged boots the image with a program beside PID 1 that does it harm when
// told to. A reset does not end the machine: its memory stays, as that of hardware.
func sabotaged(t *testing.T, disks ...vm.Disk) (*box, func(string)) {
	t.Helper()
	a := archive.New()
	exe := filepath.Join(t.TempDir(), "sabotage")
	if err := buildStatic(t.Context(), exe, "ballast/test/boot/sabotage"); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	a.File("sabotage", b, 0o755)
	// nokaslr: of so little memory the kernel takes a sixth, each time another one,
	// and what a panic left there is gone.
	x := startMachine(t, a, vm.Config{Append: "rdinit=/sabotage nokaslr", Disks: disks, Agent: true})
	var c net.Conn
	return x, func(what string) {
		t.Helper()
		if c == nil { // QEMU runs by now, and has made it
			var err error
			if c, err = net.Dial("unix", filepath.Join(x.dir, "box.agent")); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
		}
		if _, err := fmt.Fprintln(c, what); err != nil {
			t.Fatal(err)
		}
	}
}

// answer asks at the console and returns what it says.
func (x *box) answer(line string) string {
	x.t.Helper()
	x.pos = len(x.Console())
	from := x.pos
	x.ask(line)
	x.expect(60*time.Second, line+"\n", "> ")
	return x.Console()[from:]
}

// wants holds the answer to a line against texts.
func (x *box) wants(line string, texts ...string) {
	x.t.Helper()
	got := x.answer(line)
	flat := strings.Join(strings.Fields(got), " ") // lines are folded
	for _, s := range texts {
		if vm.Said(strings.Join(strings.Fields(s), " "))(flat) < 0 {
			x.t.Errorf("%s does not say %q: %s", line, s, got)
		}
	}
}

// again takes the serial line of a machine that has booted again. What was typed
// last must have been heard: QEMU forgets what a line that is given up still holds.
func (x *box) again() {
	if x.conn != nil {
		x.conn.Close()
		x.conn = nil
	}
}

// A kernel that panics, a PID 1 that hangs and one that ends: each is a reset,
// of which the next boot knows what there is to know.
func TestCrash(t *testing.T) {
	lab(t)
	x, sabotage := sabotaged(t, blankDisk(t, 256))
	x.expect(slow, "watchdog: i6300ESB timer, 30s", "crash records: ramoops", "last start: the first start with this data disk", "ready: ")

	sabotage("panic")
	x.expect(slow, "last start: kernel panic: sysrq triggered crash", "ready: ")
	x.wants("show crash", "Last start  kernel panic: sysrq triggered crash", "1      2", "panic  test", "no    sysrq triggered crash")
	x.wants("show status", "! crash 1 at ", "panic: sysrq triggered crash")
	x.ask("show crash 1 | no-more")
	x.expect(time.Minute, "--- kernel, panic 1", "sysrq: Trigger a crash", "Call Trace", "--- journal", "ready: ", "ballast> ")
	if got := x.answer("show status"); strings.Contains(got, "crash 1") {
		t.Errorf("it has been read: %s", got)
	}
	x.again()

	sabotage("stop init")
	x.expect(2*slow, "last start: the watchdog ended the run before: PID 1 did not feed it any more", "ready: ")
	x.ask("show crash 2 | no-more")
	x.expect(time.Minute, "Kind      watchdog", "watchdog pretimeout event", "ballast> ")
	x.again()

	sabotage("end init")
	x.expect(2*slow, "last start: PID 1 ended: SIGSEGV", "ready: ")
	x.ask("show crash 3 | no-more")
	x.expect(time.Minute, "Kind      init", "--- init", "SIGSEGV", "goroutine ", "ballast> ")
	x.wants("show version", "Last start     PID 1 ended")
	x.ask("reboot")
	x.expect(time.Minute, "[y/N]")
	x.ask("y")
	x.expect(slow, "reboot, asked by serial", "last start: reboot, asked by serial")
	x.expect(slow, "ready: ")
	if err := x.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	x.expect(slow, "last start: the run before did not end in order: the power failed, or somebody reset the box; it was alive at ", "ready: ")
}

// own is a configuration that says who the box is, and something else.
const own = `system {
    host_name lost1
    login ann {
        role admin
        key "ssh-ed25519 ` + firstKey + ` ann"
    }
}
interface eth0 {
    address 192.0.2.11/24
}
global_defs {
    router_id ITS_WORK
}
`

// The data disk is lost: the box is itself again, and says so until somebody has
// read it. A factory reset from the console keeps that or does not, as told; the boot
// menu's word acts once.
func TestLostData(t *testing.T) {
	lab(t)
	disk := blankDisk(t, 128)
	a := archive.New()
	a.File("seed/config", []byte(own), 0o644)
	x := startMachine(t, a, vm.Config{Disks: []vm.Disk{disk}})
	x.expect(slow, "ready: ")
	x.await("show log init", "spare copy of the identity: that of generation 1 is kept")
	key := x.seen("SSH host key \\S+")
	x.VM.Kill()
	<-x.Exited()

	f, err := os.OpenFile(disk.File, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteAt(make([]byte, 100<<20), 0) // all of the file system that matters
	f.Close()
	x = startMachine(t, nil, vm.Config{Disks: []vm.Disk{disk}})
	x.expect(slow, "data: /dev/vda, new", "identity: lost1 is itself again by the second place", "host name: lost1", "ready: ")
	x.wants("show configuration", "host_name lost1", "192.0.2.11/24", "login ann")
	if got := x.answer("show configuration"); strings.Contains(got, "ITS_WORK") {
		t.Errorf("where does that come from? %s", got)
	}
	if again := x.seen("SSH host key \\S+"); key == "" || again != key {
		t.Errorf("host key %q, and was %q", again, key)
	}
	x.wants("show status", "! crash 1 at ", "data: the data disk was empty; lost1 is itself again")

	x.ask("factory-reset keep-identity")
	x.expect(time.Minute, "Host name, interfaces, routes, users and keys stay", "[y/N]")
	x.ask("y")
	x.expect(slow, "reboot, asked by serial")
	x.again()
	x.expect(slow, "factory reset: factory reset, asked by serial", "identity: lost1, kept over the factory reset", "host name: lost1", "ready: ")
	x.wants("show version", "Last start     factory reset, asked by serial")
	x.wants("show audit", "factory-reset")
	x.wants("show configuration", "host_name lost1")

	x.ask("factory-reset")
	x.expect(time.Minute, "[y/N]")
	x.ask("y")
	x.expect(slow, "reboot, asked by serial")
	x.again()
	x.expect(slow, "factory reset: factory reset, asked by serial", "identity: new", "host name: ballast", "ready: ")
	if got := x.answer("show configuration"); strings.Contains(got, "lost1") {
		t.Errorf("something is left: %s", got)
	}
	x.VM.Kill()
	<-x.Exited()

	// What the boot menu adds stays on this command line.
	a = archive.New()
	a.File("seed/config", []byte(own), 0o644)
	x = startMachine(t, a, vm.Config{Append: "ballast.factory=1", Disks: []vm.Disk{disk}})
	x.expect(slow, "factory reset: factory reset, asked by the boot menu", "ready: ")
	if err := x.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	x.expect(slow, "asks for a factory reset, as it did at the last boot: that is done once", "factory reset: done at an earlier boot", "identity: on the data disk", "ready: ")
}

// startMachine is startWith for a machine that lives on after a reset.
func startMachine(t *testing.T, extra *archive.Archive, c vm.Config) *box {
	t.Helper()
	dir := t.TempDir()
	c.Name, c.Dir, c.Kernel, c.Initrd = "box", dir, filepath.Join(built, image.KernelFile), filepath.Join(dir, "initrd")
	c.Append = strings.TrimSpace(board.QEMU.KernelCmdLine() + " " + c.Append)
	c.Watchdog = true
	c.NICs = []vm.NIC{{Netdev: "user,restrict=on", MAC: "52:54:00:ba:11:01"}}
	if err := writeInitrd(c.Initrd, built, extra); err != nil {
		t.Fatal(err)
	}
	v, err := vm.Start(c)
	if err != nil {
		t.Fatal(err)
	}
	return newBox(t, v, dir)
}

// writeInitrd makes the initramfs of a folder's image anew, with further files.
func writeInitrd(path, from string, extra *archive.Archive) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	in, err := os.Open(filepath.Join(from, image.InitramfsFile))
	if err != nil {
		return err
	}
	defer in.Close()
	if _, err := io.Copy(f, in); err != nil || extra == nil {
		return err
	}
	b, err := extra.Bytes()
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return err
}

func newBox(t *testing.T, v *vm.VM, dir string) *box {
	x := &box{VM: v, t: t, dir: dir}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(x.Console())
		}
		if x.conn != nil {
			x.conn.Close()
		}
		v.Kill()
	})
	return x
}
