package boot

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"ballast/board"
	"ballast/image"
	"ballast/image/archive"
	"ballast/init/applet"
	"ballast/test/lab/vm"
)

// box is one machine under test.
type box struct {
	*vm.VM
	t    *testing.T
	dir  string
	pos  int // how far the console has been read
	conn net.Conn
}

// built is the image, made once for all tests.
var built string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "ballast-boot-")
	if err == nil {
		built = dir
		err = image.Build(context.Background(), image.Options{Board: board.QEMU, Root: "../..", Out: dir, Version: "test", Applets: applet.Names, Log: os.Stdout})
	}
	code := 1
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	} else {
		code = m.Run()
	}
	os.RemoveAll(dir)
	os.Exit(code)
}

// start boots the image with an archive of further files and returns when
// QEMU runs.
func start(t *testing.T, extra *archive.Archive, disks ...vm.Disk) *box {
	t.Helper()
	return startWith(t, extra, "", disks...)
}

// startWith is start with further words for the kernel.
func startWith(t *testing.T, extra *archive.Archive, words string, disks ...vm.Disk) *box {
	t.Helper()
	dir := t.TempDir()
	initrd := filepath.Join(dir, "initrd")
	if err := writeInitrd(initrd, built, extra); err != nil {
		t.Fatal(err)
	}
	v, err := vm.Start(vm.Config{
		Name: "box", Dir: dir, Kernel: filepath.Join(built, image.KernelFile), Initrd: initrd,
		Append: strings.TrimSpace(board.QEMU.KernelCmdLine() + " " + words), Disks: disks, Watchdog: true, NoReboot: true,
		NICs: []vm.NIC{{Netdev: "user,restrict=on", MAC: "52:54:00:ba:11:01"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return newBox(t, v, dir)
}

// expect waits until the console shows the texts, in this order.
func (x *box) expect(within time.Duration, texts ...string) {
	x.t.Helper()
	ctx, stop := context.WithTimeout(x.t.Context(), within)
	defer stop()
	for _, s := range texts {
		pos, err := x.WaitConsole(ctx, x.pos, s)
		if err != nil {
			x.t.Fatalf("waiting for %q: %v", s, err)
		}
		x.pos = pos
	}
}

// seen returns the first match of a pattern on the console so far.
func (x *box) seen(pattern string) string {
	return regexp.MustCompile(pattern).FindString(x.Console())
}

// ask types a line at the serial console.
func (x *box) ask(line string) {
	x.t.Helper()
	if x.conn == nil {
		x.dial()
		fmt.Fprint(x.conn, "\r\x03") // Ctrl-C: past the questions of a box without a configuration
		x.expect(time.Minute, "> ")
	}
	fmt.Fprint(x.conn, line+"\r")
}

// dial takes the serial line.
func (x *box) dial() {
	x.t.Helper()
	c, err := net.Dial("unix", vm.SerialSocket(x.dir, "box"))
	if err != nil {
		x.t.Fatal(err)
	}
	x.conn = c
	// QEMU waits for a reader that does not read; the console's log is ours.
	go io.Copy(io.Discard, c)
}

// await asks until the answer fits a pattern.
func (x *box) await(line, pattern string) {
	x.t.Helper()
	re := regexp.MustCompile(pattern)
	for end := time.Now().Add(2 * time.Minute); ; {
		if re.MatchString(x.answer(line)) {
			return
		}
		if time.Now().After(end) {
			x.t.Fatalf("%q never answered with %q", line, pattern)
		}
	}
}

// ended waits for the end of QEMU.
func (x *box) ended(within time.Duration) {
	x.t.Helper()
	select {
	case <-x.Exited():
	case <-time.After(within):
		x.t.Fatalf("the machine still runs")
	}
}

// lab skips where no machine may be booted, and waits until no other lab runs.
func lab(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("boots machines")
	}
	unlock, err := vm.Lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(unlock)
}

func blankDisk(t *testing.T, mib int64) vm.Disk {
	t.Helper()
	f := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(f, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(f, mib<<20); err != nil {
		t.Fatal(err)
	}
	return vm.Disk{File: f, Serial: board.QEMU.Data.Serial}
}

func seed() *archive.Archive {
	a := archive.New()
	a.File("seed/hostname", []byte("box-a\n"), 0o644)
	// No boot loads the scheduler "sed": the kernel asks for it when it is wanted.
	a.File("seed/config", []byte(`global_defs {
    router_id FROM_THE_SEED
}
virtual_server 192.0.2.1 80 {
    lb_algo sed
    lb_kind DR
    protocol TCP
    real_server 192.0.2.9 80 {
        weight 7
    }
}
`), 0o644)
	return a
}

const slow = 90 * time.Second // to boot on an emulated processor of a busy machine

// The life of a box: first boot with a blank disk, services killed, power
// button, second boot with what the disk kept, Ctrl-Alt-Del.
func TestLife(t *testing.T) {
	lab(t)
	disk := blankDisk(t, 256)
	x := start(t, seed(), disk)
	x.expect(slow, "watchdog: i6300ESB timer, 30s", "data: /dev/vda, new, 256 MiB, grown", "seed: found", "host name: box-a", "ready: ")
	t.Log(x.seen(`init is up [0-9.]+ s after the kernel started`))
	t.Log(x.seen(`ready: .*`))
	for _, s := range []string{"vrrp", "ipvs", "net"} {
		x.ask("restart " + s + " signal 9")
		x.expect(time.Minute, s+" ended: killed (SIGKILL); starting it again")
		x.await("show processes", `\n`+s+` +\d+ +ready +\S+ +1 `)
	}
	x.ask("show log init")
	x.expect(time.Minute, "ipvs is ready after", "> ")
	t.Log(x.seen(`(?s)ended: killed.*ready after [0-9.ms]+`))
	if err := x.PowerButton(t.Context()); err != nil {
		t.Fatal(err)
	}
	x.expect(time.Minute, "power off, asked by power button", "vrrp stopped: exit 0", "notify stopped: exit 0", "conf stopped: exit 0", "] power off")
	x.ended(time.Minute)
	if p := x.seen(`(?i)EXT4-fs.*(error|recovery)|did not end within|unmount /data`); p != "" {
		t.Errorf("the end was not in order: %s", p)
	}

	x = start(t, nil, disk)
	x.expect(slow, "data: /dev/vda, 256 MiB (", "seed: none", "ready: ")
	x.ask("show configuration")
	x.expect(time.Minute, "FROM_THE_SEED")
	x.await("show ipvs", `192\.0\.2\.1:80 +sed[^>]*\n +-> 192\.0\.2\.9:80 `)
	// The keyboard's driver is in the kernel; the machine has one.
	if err := x.QMP(t.Context(), "send-key", map[string]any{"keys": []map[string]string{
		{"type": "qcode", "data": "ctrl"}, {"type": "qcode", "data": "alt"}, {"type": "qcode", "data": "delete"}}}); err != nil {
		t.Fatal(err)
	}
	x.expect(time.Minute, "reboot, asked by Ctrl-Alt-Del", "vrrp stopped: exit 0")
	x.ended(time.Minute)
}

// A disk that holds something else, or a broken file system, is made anew and
// the box says so; without one it works and says that it forgets.
func TestDataDisk(t *testing.T) {
	lab(t)
	t.Run("none", func(t *testing.T) {
		x := start(t, nil)
		x.expect(slow, "no data disk", "data: in memory", "ready: ")
		x.ask("poweroff")
		x.expect(time.Minute, "[y/N]")
		x.ask("y")
		x.expect(time.Minute, "power off, asked by serial")
		x.ended(time.Minute)
	})
	t.Run("broken", func(t *testing.T) {
		disk := blankDisk(t, 128)
		junk := bytes.Repeat([]byte{0xa5}, 64<<10)
		junk[1024+0x38], junk[1024+0x39] = 0x53, 0xef // the magic number of a superblock full of rubbish
		f, err := os.OpenFile(disk.File, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		f.Write(junk)
		f.Close()
		x := start(t, nil, disk)
		x.expect(slow, "the file system on /dev/vda is damaged", "its files are lost", "data: /dev/vda, new, 128 MiB, grown", "ready: ")
	})
}

// The hardware resets the machine when a service hangs, and not before.
func TestWatchdog(t *testing.T) {
	lab(t)
	exe := filepath.Join(t.TempDir(), "starve")
	if err := buildStatic(t.Context(), exe, "ballast/test/boot/starve"); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	a := archive.New()
	a.File("init", b, 0o755)
	x := start(t, a)
	x.expect(slow, "starve: i6300ESB timer, timeout 10s")
	fed := time.Now()
	x.expect(60*time.Second, "starve: starved: vrrp shows no progress")
	if d := time.Since(fed); d < 10*time.Second {
		t.Errorf("starved after %v", d)
	}
	x.ended(time.Minute)
	if s := x.Console(); strings.Contains(s, "Kernel panic") {
		t.Error("it was a panic, not the watchdog")
	}
}
