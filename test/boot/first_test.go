package boot

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"ballast/test/lab/vm"
)

const firstKey = "AAAAC3NzaC1lZDI1NTE5AAAAIEzKsvP2KUn3aZZQGcvRCF6B1Ewh2tFhGgkYyLzcYyZC"

// stick is a disk that brings a configuration.
func stick(t *testing.T, text string) vm.Disk {
	t.Helper()
	dir := t.TempDir()
	content := filepath.Join(dir, "content")
	img := filepath.Join(dir, "stick")
	if err := os.Mkdir(content, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(content, "ballast.conf"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(img, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(img, 8<<20); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-L", "BALLAST", "-d", content, img).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v %s", err, out)
	}
	return vm.Disk{File: img, Serial: "stick"}
}

// The first configuration of a box: from a stick and the words of the kernel's
// command line, and from who answers at the serial line.
func TestFirstBoot(t *testing.T) {
	lab(t)
	x := startWith(t, nil, "ballast.host=word1 ballast.address=dhcp ballast.gateway=10.0.2.2 ballast.login=ann ballast.key=ssh-ed25519,"+firstKey,
		blankDisk(t, 64), stick(t, "global_defs {\n    router_id FROM_THE_STICK\n}\n"))
	x.expect(slow, "ballast.gateway: it is left out: with dhcp the gateway comes from there",
		"first configuration: words of the kernel's command line, ballast.conf on /dev/vdb", "ready: ")
	x.ask("show configuration")
	x.expect(20*time.Second, "router_id FROM_THE_STICK", "host_name word1", "login ann", "role admin", firstKey, "dhcp", "> ")
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
		x.expect(30*time.Second, step[1])
	}
	fmt.Fprint(x.conn, "\r")
	x.expect(60*time.Second, "committed: generation ", "ssh ann@192.0.2.11", "SHA256:", "> ")
	x.ask("show sessions")
	x.expect(20*time.Second, "serial", "admin", "> ")
	x.ask("show audit")
	x.expect(20*time.Second, "serial from serial: first boot: ok", "> ")
}
