package board

import (
	"strings"
	"testing"
	"time"
)

func TestBoards(t *testing.T) {
	for _, name := range Names() {
		b, err := Get(name)
		if err != nil {
			t.Error(err)
		}
		for _, err := range b.Check() {
			t.Error(err)
		}
	}
}

func TestGetUnknown(t *testing.T) {
	if _, err := Get("toaster"); err == nil || !strings.Contains(err.Error(), "qemu") {
		t.Errorf("error %v does not say what there is", err)
	}
}

func TestCheck(t *testing.T) {
	good := Board{Name: "x", Consoles: []string{"ttyS0"}}
	tests := []struct {
		name string
		edit func(*Board)
		want string
	}{
		{"good", func(*Board) {}, ""},
		{"no console", func(b *Board) { b.Consoles = nil }, "Consoles"},
		{"name", func(b *Board) { b.Name = "a/b" }, "one word"},
		{"watchdog not in the image", func(b *Board) { b.Watchdogs, b.WatchdogTimeout = []string{"w"}, time.Minute }, "lacks the watchdog driver w"},
		{"watchdog timeout", func(b *Board) { b.WatchdogTimeout = 1500 * time.Millisecond }, "WatchdogTimeout"},
		{"firmware", func(b *Board) { b.Firmware, b.NoFirmware = []string{"a/*.bin"}, map[string]string{"b": "old"} }, ""},
		{"firmware elsewhere", func(b *Board) { b.Firmware = []string{"../x.bin"} }, "below /lib/firmware"},
		{"firmware of the root", func(b *Board) { b.Firmware = []string{"/x.bin"} }, "below /lib/firmware"},
		{"no reason", func(b *Board) { b.NoFirmware = map[string]string{"x.bin": ""} }, "has no reason"},
		{"NIC", func(b *Board) { b.NICs = []NIC{{"0000:00:02.2/*", "eth0"}, {"p", "mgmt"}} }, ""},
		{"NIC's name", func(b *Board) { b.NICs = []NIC{{"p", "a/b"}} }, "does not take"},
		{"NIC's long name", func(b *Board) { b.NICs = []NIC{{"p", "abcdefghijklmnop"}} }, "does not take"},
		{"NIC's name twice", func(b *Board) { b.NICs = []NIC{{"p", "eth0"}, {"q", "eth0"}} }, "there twice"},
		{"NIC's path", func(b *Board) { b.NICs = []NIC{{"p/[", "eth0"}} }, "no ending"},
		{"console twice", func(b *Board) { b.CmdLine = []string{"console=ttyS1"} }, "belongs into Consoles"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := good
			tt.edit(&b)
			errs := b.Check()
			if tt.want == "" {
				if len(errs) > 0 {
					t.Error(errs)
				}
				return
			}
			if len(errs) != 1 || !strings.Contains(errs[0].Error(), tt.want) {
				t.Errorf("%v, want one error with %q", errs, tt.want)
			}
		})
	}
}

func TestKernelCmdLine(t *testing.T) {
	b := Board{Consoles: []string{"ttyS0,115200", "ttyS1,115200", "tty0"}, CmdLine: []string{"panic=10"}}
	if got, want := b.KernelCmdLine(), "console=tty0 console=ttyS0,115200 panic=10"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
