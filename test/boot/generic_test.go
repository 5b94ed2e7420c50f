package boot

import (
	"context"
	"fmt"
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

// genericImage is the folder with the image for any machine, made once, with all
// that a release has.
func genericImage(t *testing.T) string {
	t.Helper()
	out := filepath.Join(built, board.Generic.Name)
	if _, err := os.Stat(filepath.Join(out, image.SumsFile)); err == nil {
		return out
	}
	err := image.Build(t.Context(), image.Options{Board: board.Generic, Root: "../..", Out: out, Version: "test", Applets: applet.Names, Log: os.Stdout, Release: true})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// generic boots the image for any machine, with a screen, on the hardware that
// QEMU has of what it is for.
func generic(t *testing.T, words string, extra ...string) *box {
	t.Helper()
	return genericWith(t, nil, words, extra...)
}

// genericWith is generic with an archive of further files.
func genericWith(t *testing.T, more *archive.Archive, words string, extra ...string) *box {
	t.Helper()
	out, dir := genericImage(t), t.TempDir()
	initrd := filepath.Join(dir, "initrd")
	if err := writeInitrd(initrd, out, more); err != nil {
		t.Fatal(err)
	}
	v, err := vm.Start(vm.Config{
		Name: "box", Dir: dir, Kernel: filepath.Join(out, image.KernelFile), Initrd: initrd,
		Append: strings.TrimSpace(board.Generic.KernelCmdLine() + " " + words), NoReboot: true, Extra: append([]string{"-vga", "std"}, extra...),
	})
	if err != nil {
		t.Fatal(err)
	}
	return newBox(t, v, dir)
}

// nicArgs are NICs of these kinds, in the slots from 0x10 on.
func nicArgs(kinds ...string) (args []string) {
	for i, kind := range kinds {
		rom := ",romfile="
		if kind == "usb-net" {
			rom = ""
		} else {
			rom += fmt.Sprintf(",addr=0x%x", 0x10+i)
		}
		args = append(args, "-netdev", fmt.Sprintf("user,id=n%d,restrict=on", i),
			"-device", fmt.Sprintf("%s,netdev=n%d,mac=52:54:00:ba:22:%02x%s", kind, i, i, rom))
	}
	return args
}

// screen is the text of the screen, as the display adapter's memory has it.
func (x *box) screen() string {
	x.t.Helper()
	file := filepath.Join(x.dir, "vga")
	// 32 KiB from here are the text, a character and its colour at a time.
	if err := x.QMP(x.t.Context(), "pmemsave", map[string]any{"val": 0xb8000, "size": 32 << 10, "filename": file}); err != nil {
		x.t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		x.t.Fatal(err)
	}
	var s strings.Builder
	for i := 0; i+1 < len(b); i += 2 {
		if c := b[i]; c >= ' ' && c < 0x7f {
			s.WriteByte(c)
		} else {
			s.WriteByte(' ')
		}
		if i%160 == 158 {
			s.WriteByte('\n')
		}
	}
	return s.String()
}

// shows waits until the screen shows a pattern.
func (x *box) shows(within time.Duration, pattern string) {
	x.t.Helper()
	re := regexp.MustCompile(pattern)
	for end := time.Now().Add(within); ; time.Sleep(200 * time.Millisecond) {
		text := x.screen()
		if re.MatchString(text) {
			return
		}
		if !x.Running() || time.Now().After(end) {
			x.t.Fatalf("the screen never showed %q:\n%s", pattern, regexp.MustCompile(`(\s*\n)+`).ReplaceAllString(text, "\n"))
		}
	}
}

// press types on the keyboard.
func (x *box) press(text string) {
	x.t.Helper()
	names := map[rune]string{' ': "spc", '\n': "ret", '.': "dot", '/': "slash", '-': "minus"}
	for _, c := range text {
		name := names[c]
		if name == "" {
			name = string(c)
		}
		ctx, stop := context.WithTimeout(x.t.Context(), 10*time.Second)
		err := x.QMP(ctx, "send-key", map[string]any{"keys": []map[string]string{{"type": "qcode", "data": name}}, "hold-time": 20})
		stop()
		if err != nil {
			x.t.Fatal(err)
		}
	}
}

// A machine with a screen and keyboard on USB, a disk on NVMe, others on a RAID
// controller and USB, and many kinds of NICs: all come up, in the order of the
// slots, and the screen gives what the serial line gives. The chipset's watchdog
// is armed.
func TestGeneric(t *testing.T) {
	lab(t)
	disk, other := blankDisk(t, 128), blankDisk(t, 1)
	args := []string{
		"-global", "ICH9-LPC.noreboot=false", "-device", "qemu-xhci,addr=0x8", "-device", "usb-kbd",
		"-drive", "if=none,id=d0,format=raw,file=" + disk.File, "-device", "nvme,drive=d0,serial=" + disk.Serial,
		"-drive", "if=none,id=d1,format=raw,read-only=on,file=" + other.File, "-device", "megasas", "-device", "scsi-hd,drive=d1",
		"-drive", "if=none,id=d2,format=raw,read-only=on,file=" + other.File, "-device", "usb-storage,drive=d2",
	}
	x := generic(t, "firmware_class.dyndbg=+p", append(args, nicArgs("i82551", "e1000e", "rtl8139", "vmxnet3", "virtio-net-pci", "e1000", "usb-net")...)...)
	x.expect(slow, "board: generic-x86_64", "watchdog: iTCO_wdt, 30s", "data: /dev/nvme0n1, new, 128 MiB, grown", "ready: ")
	t.Log(x.seen(`init is up [0-9.]+ s after the kernel started`), x.seen(`modules: .*`), x.seen(`ready: .*`))

	x.shows(60*time.Second, `ready: \d+ services(.|\n)*Ballast director ballast(.|\n)*Press Enter`)
	x.press("\n")
	x.shows(60*time.Second, `A few questions make it reachable(.|\n)*Host name \[ballast\]: `)
	for _, step := range [][2]string{{"lvs1\n", "Management interface"}, {"\n", "dhcp"}, {"\n", "Key: "}} {
		x.press(step[0])
		if step[1] == "Key: " { // the name of the first administrator comes before
			x.shows(60*time.Second, `\[admin\]: `)
			x.press("\n")
		}
		x.shows(60*time.Second, step[1])
	}

	// Meanwhile somebody works at the serial line.
	// (Asked again and again: QEMU's log of the line repeats a character now and then.)
	nics := ""
	for i := range 6 {
		nics += fmt.Sprintf(`eth%d +up .* 52:54:00:ba:22:%02x .*\s+`, i, i)
	}
	x.await("show interfaces", nics+`lo .*\s+(tunl0 .*\s+)?usb0 +up .* 52:54:00:ba:22:06 `)
	x.await("show sessions", `screen .*(.|\n)*serial `)
	x.await("show log kernel", `Loading firmware from /lib/firmware/e100/d102e_ucode.bin.zst`)
	x.ask("show processes")
	x.expect(time.Minute, "console", "> ")
	t.Log(x.seen(`(?s)Service +PID.*?snmp`))
	x.await("show version", `Memory +\S+ used of`)
	t.Log(x.seen(`modules: .* closed, .*`), x.seen(`Memory +\S+ used of \S+`))
	if bad := x.seen(`e100.*(Failed|invalid).*|oot firmware.*failed.*`); bad != "" {
		t.Error(bad)
	}
}

// A server whose watchdog is that of its management controller. Somebody brings a
// keyboard long after the boot, when no driver can be loaded any more.
func TestManagementController(t *testing.T) {
	lab(t)
	x := generic(t, "modprobe.blacklist=iTCO_wdt", "-device", "ipmi-bmc-sim,id=bmc0", "-device", "isa-ipmi-kcs,bmc=bmc0", "-device", "qemu-xhci,id=xhci")
	x.expect(slow, "watchdog: IPMI, 30s", "ready: ", "MB of files let go")
	t.Log(x.seen(`modules: .* closed, .*`))
	if err := x.QMP(t.Context(), "device_add", map[string]any{"driver": "usb-kbd", "bus": "xhci.0", "id": "late"}); err != nil {
		t.Fatal(err)
	}
	x.await("show log kernel", `hid-generic .* USB HID v1.11 Keyboard`)
	x.press("\n")
	x.await("show sessions", `screen .*`)
	x.ask("poweroff")
	x.expect(time.Minute, "[y/N]")
	x.ask("y")
	x.expect(time.Minute, "] power off")
	x.ended(time.Minute)
}

// On a board that names its sockets a card in a slot that comes before them on
// the bus does not shift the names.
func TestNICNames(t *testing.T) {
	lab(t)
	as := archive.New()
	as.File("etc/ballast/board", []byte(board.APU2.Name+"\n"), 0o644) // with the drivers of the generic one: QEMU has no igb
	var args []string
	for f := range 5 { // function 0 has to be there for the others to be looked for
		args = append(args, "-device", fmt.Sprintf("pcie-root-port,id=port%d,addr=2.%d,multifunction=on,chassis=%d,slot=%d", f, f, f, f))
	}
	for f, kind := range map[int]string{1: "virtio-net-pci", 2: "e1000e", 4: "e1000e"} {
		args = append(args, "-netdev", fmt.Sprintf("user,id=n%d,restrict=on", f),
			"-device", fmt.Sprintf("%s,bus=port%d,netdev=n%d,mac=52:54:00:ba:23:%02x,romfile=", kind, f, f, f))
	}
	x := genericWith(t, as, "", args...)
	x.expect(slow, "board: pcengines-apu2", "NICs: ", "not there: eth1", "ready: ")
	t.Log(x.seen(`NICs: .*`))
	x.await("show interfaces", `eth0 .* 52:54:00:ba:23:02 .*\s+eth2 .* 52:54:00:ba:23:04 .*\s+eth3 .* 52:54:00:ba:23:01 `)
}
