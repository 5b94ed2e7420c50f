package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"

	"ballast/test/lab/vm"
)

// tool is a program of the machine that the lab or the image's build runs, or
// a file that they read (a path).
type tool struct {
	command, pkg string
	optional     bool // only what the lab tells its user to type
}

var tools = []tool{
	{"qemu-system-x86_64", "qemu-system-x86", false},
	{"dpkg-deb", "dpkg", false},
	{"mke2fs", "e2fsprogs", false},
	{"ssh", "openssh-client", true},
	{"socat", "socat", true},
}

// testTools are what the tests run besides: keepalived as the peer, tshark and
// nft to look at what was sent and made, ipvsadm to compare with.
var testTools = []tool{
	{"keepalived", "keepalived", false},
	{"ipvsadm", "ipvsadm", false},
	{"tshark", "tshark", false},
	{"ansible-playbook", "ansible-core", false},
	{"tcpdump", "tcpdump", false},
	{"nft", "nftables", false},
	{"ip", "iproute2", false},
	{"nsenter", "util-linux", false},
	{"ldd", "libc-bin", false},
	{"ssh", "openssh-client", false},
	{"e2fsck", "e2fsprogs", false},
	{"git", "git", false},
	{"sgdisk", "gdisk", false},
	{"snmpwalk", "snmp", false},
	{"snmptrapd", "snmptrapd", false},
	{"busybox", "busybox-static", false},
	{"dnsmasq", "dnsmasq-base", false},
	{"curl", "curl", false},
	{"fsck.fat", "dosfstools", false},
	{"mdir", "mtools", false},
	{"qemu-img", "qemu-utils", false},
	{"sbverify", "sbsigntool", false},
	{"openssl", "openssl", false},
	{vm.OVMFCode, "ovmf", false},
	{"/usr/lib/ipxe/qemu/efi-virtio.rom", "ipxe-qemu", false},
}

// missing returns the packages that this machine lacks.
func missing(look func(string) (string, error), more ...tool) (must, may []string) {
	for _, t := range append(more, tools...) {
		if _, err := look(t.command); err == nil {
			continue
		}
		switch {
		case slices.Contains(must, t.pkg):
		case t.optional:
			may = append(may, t.pkg)
		default:
			must = append(must, t.pkg)
		}
	}
	return must, may
}

// install gets what is missing from the machine's own package sources. Without
// the right to do so it says what to type.
func install(ctx context.Context, more ...tool) error {
	must, may := missing(look, more...)
	if len(must)+len(may) == 0 {
		return nil
	}
	command := "apt-get install --no-install-recommends " + strings.Join(append(must, may...), " ")
	_, err := exec.LookPath("apt-get")
	if err != nil || os.Geteuid() != 0 {
		if len(must) == 0 {
			fmt.Printf("The lab works without, but you may want: sudo %s\n", command)
			return nil
		}
		return fmt.Errorf("this machine lacks %s; run: sudo %s", strings.Join(must, ", "), command)
	}
	fmt.Println("installing", strings.Join(append(must, may...), " "))
	if err := apt(ctx, append([]string{"install", "-y", "--no-install-recommends"}, append(must, may...)...)...); err == nil {
		return nil
	}
	// The list of packages may be older than the archive.
	if err := apt(ctx, "update"); err != nil {
		return err
	}
	return apt(ctx, append([]string{"install", "-y", "--no-install-recommends"}, append(must, may...)...)...)
}

// look finds a program, also where only root's PATH leads.
func look(name string) (string, error) {
	if strings.HasPrefix(name, "/") {
		_, err := os.Stat(name)
		return name, err
	}
	p, err := exec.LookPath(name)
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if err != nil {
			p, err = exec.LookPath(dir + "/" + name)
		}
	}
	return p, err
}

func apt(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "apt-get", append([]string{"-qq"}, args...)...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("apt-get %s: %w", strings.Join(args, " "), err)
	}
	return nil
}
