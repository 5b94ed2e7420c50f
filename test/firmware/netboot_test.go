package firmware

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"ballast/image/disk"
	"ballast/image/layout"
	"ballast/test/firmware/machine"
	"ballast/test/lab/ether"
	"ballast/test/lab/vm"
)

// Network cards on the segment of the pair.
const (
	serverMAC = "52:54:00:ba:11:11"
	biosMAC   = "52:54:00:ba:11:12"
	uefiMAC   = "52:54:00:ba:11:13"
	httpMAC   = "52:54:00:ba:11:14"
)

// pairText is the configuration of lb1 and of those that boot from it.
func pairText(peers string) string {
	login := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(plain.SSH.PublicKey())))
	return fmt.Sprintf(`system {
    @lb1 host_name lb1
    @lb2 host_name lb2
    @lb3 host_name lb3
    @lb4 host_name lb4
    login admin {
        role admin
        key "%s"
    }
}
interface eth0 {
    dhcp
}
interface eth1 {
    @lb1 address 10.9.0.11/24
    @lb2 address 10.9.0.12/24
    @lb3 address 10.9.0.13/24
    @lb4 address 10.9.0.14/24
}
netboot {
    box %s {
        name lb2
    }
}
%svrrp_instance V {
    interface eth1
    virtual_router_id 5
    @lb1 priority 150
    @lb2 priority 100
    @lb3 priority 90
    @lb4 priority 80
    advert_int 1
    virtual_ipaddress {
        10.9.0.80/24
    }
}
`, login, biosMAC, peers)
}

// stick makes a disk that brings a first configuration.
func stick(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	content := filepath.Join(dir, "content")
	if err := os.Mkdir(content, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(content, "ballast.conf"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	img := filepath.Join(dir, "stick")
	if out, err := exec.Command("mke2fs", "-q", "-t", "ext4", "-L", "BALLAST", "-d", content, img, "8M").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return img
}

// byUndionly is how a machine boots whose boot ROM is not iPXE.
var byUndionly = regexp.MustCompile(`(?s)BIOS PXE asks what to boot: undionly\.kpxe.*undionly\.kpxe by TFTP: \d+ bytes.*iPXE asks what to boot: boot\.ipxe.*boot\.ipxe by HTTP.*vmlinuz by HTTP`)

var keyLine = regexp.MustCompile(`key "(ssh-ed25519 [^" ]+)`)

// plainPXE makes iPXE in a machine's card on the segment a boot ROM that is not iPXE,
// by its command line: with another user class it is one to the DHCP server, and it
// does not look for IPv6, loads the file that it is told by TFTP and runs it, as such a
// ROM does. What it runs would take over the user class.
func plainPXE(box *machine.Machine) {
	box.Expect(machine.Slow, "Ctrl-B")
	box.Type("\x02")
	for _, line := range [][]string{{"set ", "user-class ", "PXE"}, {"ifconf ", "-c dhcp ", "net1"}, {"clear ", "user-class"}, {"chain ", "${filename}"}} {
		box.Expect(machine.Slow, "iPXE> ")
		for _, word := range line { // the BIOS keeps few keys
			box.Type(word)
			box.Expect(machine.Slow, word)
		}
		box.Type("\r")
	}
	box.Expect(machine.Slow, layout.NetUndionly+"... ok")
}

// TestNetboot: a box serves others of its segment: one without a disk becomes its
// peer, others boot in the ways that UEFI knows.
func TestNetboot(t *testing.T) {
	machine.Lab(t)
	segment := ether.New("pair")
	defer segment.Close()
	nic := func(mac string, rom bool, boot int) vm.NIC {
		p, err := segment.Port(mac)
		if err != nil {
			t.Fatal(err)
		}
		return vm.NIC{Netdev: p.Netdev(), MAC: mac, ROM: rom, BootIndex: boot}
	}
	img := filepath.Join(t.TempDir(), "server.img")
	if err := plain.Disk(t.Context(), img, diskSize, disk.Options{}); err != nil {
		t.Fatal(err)
	}
	server := machine.New(t, machine.Config{Name: "lb1", Disk: img, SSH: plain.SSH, NICs: []vm.NIC{nic(serverMAC, false, 0)},
		More: []vm.Disk{{File: stick(t, strings.ReplaceAll(pairText(""), "@lb1 ", "")), Serial: "stick"}}})
	server.PowerOn()
	server.Expect(machine.Slow, "ready: ")
	// Now that it has a name, the text for all of them.
	server.Await(machine.Slow, "show version", `.`)
	if out, err := server.Run(t.Context(), "commit override", strings.NewReader(pairText(""))); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	server.Await(machine.Slow, "show netboot", `Served .*10\.9\.0\.11`)

	t.Cleanup(func() {
		if t.Failed() {
			out, err := server.Run(context.Background(), "show netboot", nil)
			t.Logf("show netboot: %v\n%s", err, out)
		}
	})
	t.Run("BIOS, a peer without a disk", func(t *testing.T) {
		own := keyLine.FindStringSubmatch(server.Ask("show peer"))
		its := keyLine.FindStringSubmatch(server.Await(machine.Slow, "show netboot", keyLine.String()))
		if own == nil || its == nil {
			t.Fatalf("no keys: %s\n%s", server.Ask("show peer"), server.Ask("show netboot"))
		}
		text := pairText(fmt.Sprintf("peer {\n    @lb1 address 10.9.0.12\n    @lb1 key \"%s\"\n    @lb2 address 10.9.0.11\n    @lb2 key \"%s\"\n    @lb3 address 10.9.0.11\n    @lb3 key \"%[2]s\"\n    @lb4 address 10.9.0.11\n    @lb4 key \"%[2]s\"\n}\n", its[1], own[1]))
		if out, err := server.Run(t.Context(), "commit local override", strings.NewReader(text)); err != nil {
			t.Fatalf("%v %s", err, out)
		}
		// The service that serves it follows the configuration.
		server.Await(machine.Slow, "show netboot --json", `"peerKeyHere":\s*true`)
		if out := server.Ask("show netboot"); strings.Contains(out, "another key") {
			t.Errorf("the peer block has the key, but:\n%s", out)
		}
		// Without graphics the BIOS, and so the boot ROM, is on the serial line.
		box := machine.New(t, machine.Config{Name: "lb2", SSH: plain.SSH, Memory: 768, NICs: []vm.NIC{nic(biosMAC, true, 1)}, Extra: []string{"-machine", "graphics=off"}})
		box.PowerOn()
		at := box.Expect(2*machine.Slow, "init is up")
		box.Expect(2*machine.Slow, "network: loaded over the network; configuration: generation", "ready: ")
		t.Logf("BIOS, iPXE: PID 1 after %.1f s, ready after %.1f s", at.Seconds(), time.Since(box.Started).Seconds())
		// It is the backup, and both run the same.
		box.Await(machine.Slow, "show peer", `In step +yes`)
		box.Await(machine.Slow, "show vrrp", `BACKUP`)
		server.Await(machine.Slow, "show vrrp", `MASTER`)
		server.Await(machine.Slow, "show peer", `In step +yes`)
		// A commit reaches it, and so the next boot.
		text = strings.Replace(text, "advert_int 1", "advert_int 0.5", 1)
		if out, err := server.Run(t.Context(), "commit override", strings.NewReader(text)); err != nil {
			t.Fatalf("%v %s", err, out)
		}
		if out := box.Ask("show configuration"); !strings.Contains(out, "advert_int 0.5") {
			t.Errorf("the commit did not reach it:\n%s", out)
		}
		key := keyLine.FindString(box.Ask("show peer"))
		mark := len(box.Console())
		// The second boot is that of a card whose boot ROM is not iPXE.
		box.Ask("reboot")
		box.Expect(machine.Slow, "Restarting system")
		begin := time.Now()
		plainPXE(box)
		box.Expect(machine.Slow, layout.NetScript+"... ok")
		box.Expect(2*machine.Slow, "init is up")
		pid1 := time.Since(begin)
		box.Expect(2*machine.Slow, "network: loaded over the network; configuration: generation", "ready: ")
		t.Logf("BIOS, undionly.kpxe: PID 1 after %.1f s, ready after %.1f s", pid1.Seconds(), time.Since(begin).Seconds())
		out := server.Ask("show netboot")
		t.Logf("show netboot:\n%s", out)
		if n := strings.Count(box.Since(mark), layout.NetUndionly+"... ok"); n != 1 || !byUndionly.MatchString(out) {
			t.Errorf("it was not by undionly.kpxe, or not by it at once: it was loaded %d times", n)
		}
		if got := keyLine.FindString(box.Await(machine.Slow, "show peer", `key "`)); got != key || !strings.Contains(key, its[1]) {
			t.Errorf("the second boot is somebody else: %s, was %s, serves %s", got, key, its[1])
		}
		box.Await(machine.Slow, "show configuration", `advert_int 0\.5`)
		box.Await(machine.Slow, "show peer", `In step +yes`)
		if s := box.Since(mark); strings.Contains(s, "panic") {
			t.Errorf("it panicked:\n%s", s)
		}
	})
	t.Run("UEFI PXE, then from the disk that was blank", func(t *testing.T) {
		t.Log(server.Ask("netboot serve " + uefiMAC + " as lb3 on eth1 for 10m"))
		blank := filepath.Join(t.TempDir(), "blank")
		if err := os.WriteFile(blank, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		box := machine.New(t, machine.Config{Name: "lb3", UEFI: true, SSH: plain.SSH, Memory: 768, NICs: []vm.NIC{nic(uefiMAC, false, 2)},
			Disk: blank, Size: diskSize})
		box.PowerOn()
		at := box.Expect(2*machine.Slow, "init is up")
		box.Expect(2*machine.Slow, "network: loaded over the network; configuration: generation", "host name: lb3", "ready: ")
		t.Logf("UEFI PXE: PID 1 after %.1f s, ready after %.1f s", at.Seconds(), time.Since(box.Started).Seconds())
		box.Await(machine.Slow, "show version", `.`)
		key := keyLine.FindString(box.Ask("show peer"))
		begin := time.Now()
		out, err := box.Run(t.Context(), "install vda net", nil)
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		t.Logf("installed in %.1f s:\n%s", time.Since(begin).Seconds(), out)
		box.Ask("reboot")
		box.Expect(2*machine.Slow, tell(layout.A), "boot disk: /dev/vda, slot A", "host name: lb3", "ready: ")
		if got := keyLine.FindString(box.Await(machine.Slow, "show peer", `key "`)); got != key {
			t.Errorf("from its disk it is somebody else: %s, was %s", got, key)
		}
		if out := box.Ask("show configuration"); !strings.Contains(out, "@lb3 address 10.9.0.13/24") {
			t.Errorf("from its disk it has another configuration:\n%s", out)
		}
	})
	t.Run("UEFI HTTP boot", func(t *testing.T) {
		server.Ask("netboot serve " + httpMAC + " as lb4 on eth1 for 10m")
		box := machine.New(t, machine.Config{Name: "lb4", UEFI: true, SSH: plain.SSH, Memory: 768, NICs: []vm.NIC{nic(httpMAC, false, 1)},
			Extra: []string{"-fw_cfg", "name=opt/org.tianocore/IPv4PXESupport,string=no", "-fw_cfg", "name=opt/org.tianocore/IPv6Support,string=no"}})
		box.PowerOn()
		at := box.Expect(2*machine.Slow, "init is up")
		ready := box.Expect(2*machine.Slow, "network: loaded over the network; configuration: generation", "host name: lb4", "ready: ")
		t.Logf("UEFI HTTP boot: PID 1 after %.1f s, ready after %.1f s", at.Seconds(), ready.Seconds())
		if out := server.Ask("show netboot"); !strings.Contains(out, "fw.efi by HTTP") {
			t.Errorf("it was not by HTTP:\n%s", out)
		}
	})
}
