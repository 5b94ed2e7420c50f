package boot

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ballast/test/lab/vm"
)

const firstKey = "AAAAC3NzaC1lZDI1NTE5AAAAIEzKsvP2KUn3aZZQGcvRCF6B1Ewh2tFhGgkYyLzcYyZC"

// stick is a disk of 4 MiB as a PC formats it (FAT16, a file with a
// long name), which brings a configuration.
func stick(t *testing.T, text string) vm.Disk {
	t.Helper()
	const sector, sectors, reserved, fatSectors, rootEntries = 512, 8192, 1, 32, 512
	b := make([]byte, sectors*sector)
	le := binary.LittleEndian
	copy(b, "\xeb\x3c\x90mkfs.fat")
	le.PutUint16(b[11:], sector)
	b[13] = 1 // sectors of a cluster
	le.PutUint16(b[14:], reserved)
	b[16] = 2 // tables
	le.PutUint16(b[17:], rootEntries)
	le.PutUint16(b[19:], sectors)
	b[21] = 0xf8
	le.PutUint16(b[22:], fatSectors)
	le.PutUint16(b[24:], 32)
	le.PutUint16(b[26:], 64)
	b[36], b[38] = 0x80, 0x29
	copy(b[43:], "NO NAME    FAT16   ") // as Windows leaves it
	b[510], b[511] = 0x55, 0xaa
	clusters := (len(text) + sector - 1) / sector
	for n := range 2 {
		fat := b[(reserved+n*fatSectors)*sector:]
		le.PutUint16(fat, 0xfff8)
		le.PutUint16(fat[2:], 0xffff)
		for i := range clusters {
			next := uint16(i + 3)
			if i == clusters-1 {
				next = 0xffff
			}
			le.PutUint16(fat[(i+2)*2:], next)
		}
	}
	root := b[(reserved+2*fatSectors)*sector:]
	copy(root, "BALLAST    \x08")
	// The name of eight and three is not the long one.
	const short = "BALLAS~1CON"
	sum := byte(0)
	for _, c := range []byte(short) {
		sum = sum>>1 | sum<<7
		sum += c
	}
	long := root[32:]
	long[0], long[11], long[13] = 0x41, 0x0f, sum
	for i, c := range []byte("ballast.conf") {
		at := []int{1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28}[i]
		long[at] = c
	}
	copy(root[64:], short+"\x20")
	le.PutUint16(root[64+26:], 2)
	le.PutUint32(root[64+28:], uint32(len(text)))
	copy(b[(reserved+2*fatSectors+rootEntries*32/sector)*sector:], text)
	img := filepath.Join(t.TempDir(), "stick")
	if err := os.WriteFile(img, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return vm.Disk{File: img, Serial: "stick"}
}

// The first configuration of a box: from a stick and the words of the kernel's
// command line, and from who answers at the serial line.
func TestFirstBoot(t *testing.T) {
	lab(t)
	x := startWith(t, nil, "ballast.host=word1 ballast.address=dhcp ballast.gateway=10.0.2.2 ballast.login=ann ballast.key=ssh-ed25519,"+firstKey,
		blankDisk(t, 64), stick(t, strings.Repeat("! a comment of some length, for more than one cluster\n", 50)+"global_defs {\n    router_id FROM_THE_STICK\n}\n"))
	x.expect(slow, "ballast.gateway: it is left out: with dhcp the gateway comes from there",
		"first configuration: words of the kernel's command line, ballast.conf on /dev/vdb", "ready: ")
	x.ask("show configuration")
	x.expect(time.Minute, "router_id FROM_THE_STICK", "host_name word1", "login ann", "role admin", firstKey, "dhcp", "> ")
	x.VM.Kill()
	<-x.Exited()

	x = start(t, nil, blankDisk(t, 64))
	x.expect(slow, "first configuration: neither asked for nor brought", "ready: ")
	x.dial()
	for _, step := range [][2]string{
		{"", "Host name ["}, {"edge1", "Management interface [eth0]: "}, {"", "[dhcp]: "}, {"192.0.2.11", "write 192.0.2.11/24"}, {"192.0.2.11/24", "empty for none: "},
		{"192.0.2.1", "[admin]: "}, {"ann", "Key: "}, {"ssh-ed25519 " + firstKey + " ann@laptop", "[yes]: "},
	} {
		fmt.Fprint(x.conn, step[0]+"\r")
		x.expect(time.Minute, step[1])
	}
	fmt.Fprint(x.conn, "\r")
	x.expect(60*time.Second, "committed: generation ", "ssh ann@192.0.2.11", "SHA256:", "> ")
	x.ask("show sessions")
	x.expect(time.Minute, "serial", "admin", "> ")
	x.ask("show audit")
	x.expect(time.Minute, "serial from serial: first boot: ok", "> ")
}
