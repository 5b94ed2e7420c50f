// Package rootfs builds the initramfs of the lab VMs that are not directors:
// the node program as init, and the kernel modules that network tests use.
package rootfs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"ballast/image/archive"
	"ballast/image/kernel"
	"ballast/image/modules"
	"ballast/image/packages"
)

// boot are the modules that the VM loads at its start. The kernel asks for the
// others when they are needed.
var boot = []string{"virtio_net", "virtio_rng"}

// patterns are the modules that the VM has, in the words of modules.Select.
var patterns = append([]string{
	"bridge", "veth", "dummy", "macvlan", "ipvlan", "tun", "bonding", "8021q", "ifb",
	"ipip", "sit", "ip_gre", "ip6_tunnel", "ip6_gre", "fou", "fou6",
	"kernel/net/netfilter/ipvs/*",
	"kernel/net/netfilter/nf_*", "kernel/net/netfilter/nft_*", "nfnetlink", "nf_tables",
	"kernel/net/ipv4/netfilter/nf_*", "kernel/net/ipv6/netfilter/nf_*",
	"sch_netem", "sch_fq", "sch_ingress", "cls_u32",
	"inet_diag", "tcp_diag", "udp_diag", "unix_diag", "netlink_diag", "af_packet_diag",
	"crc32c_generic", "virtio_blk", "i6300esb", "softdog",
}, boot...)

// Kernel returns the kernel image that the initramfs is for.
func Kernel(ctx context.Context) (string, error) {
	dir, release, err := kernel.Tree(ctx)
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "boot", "vmlinuz-"+release), nil
}

// Base returns an uncompressed archive with the node program and the modules.
// load are further modules that the VM loads at its start. Archives made with
// archive.New may be laid behind it.
func Base(ctx context.Context, load ...string) ([]byte, error) {
	mods, err := moduleArchive(ctx)
	if err != nil {
		return nil, err
	}
	node, err := Build(ctx, "ballast/test/lab/node")
	if err != nil {
		return nil, err
	}
	a := archive.New()
	a.File("init", node, 0o755)
	a.Symlink("sbin/modprobe", "/init")
	a.File("lib/modules/load", []byte(strings.Join(append(boot[:len(boot):len(boot)], load...), "\n")+"\n"), 0o644)
	for _, d := range []string{"proc", "sys", "dev", "run", "tmp", "root", "bin", "etc"} {
		a.Dir(d, 0o755)
	}
	// Before init mounts devtmpfs it writes to the console.
	a.CharDev("dev/console", 0o600, 5, 1)
	a.CharDev("dev/null", 0o666, 1, 3)
	b, err := a.Bytes()
	if err != nil {
		return nil, err
	}
	return append(mods, b...), nil
}

// Build compiles a program of this module as a static binary.
func Build(ctx context.Context, pkg string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "ballast-build-")
	if err != nil {
		return nil, fmt.Errorf("rootfs: %w", err)
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "program")
	if err := Go(ctx, "build", "-trimpath", "-ldflags=-s -w", "-o", out, pkg); err != nil {
		return nil, err
	}
	b, err := os.ReadFile(out)
	if err != nil {
		return nil, fmt.Errorf("rootfs: %w", err)
	}
	return b, nil
}

// Go runs the go command without cgo.
func Go(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	var words bytes.Buffer
	cmd.Stdout, cmd.Stderr = &words, &words
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, words.String())
	}
	return nil
}

// moduleArchive is the part of the archive that only changes with the kernel
// or the list above; it is kept in the build's cache.
func moduleArchive(ctx context.Context) ([]byte, error) {
	tree, release, err := kernel.Tree(ctx)
	if err != nil {
		return nil, err
	}
	cache, err := packages.CacheDir()
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(release + "\n" + strings.Join(patterns, "\n")))
	name := filepath.Join(cache, "lab", "modules-"+hex.EncodeToString(sum[:8])+".cpio")
	if b, err := os.ReadFile(name); err == nil {
		return b, nil
	}
	x, err := modules.Open(tree, release)
	if err != nil {
		return nil, err
	}
	ms, err := x.Select(patterns...)
	if err != nil {
		return nil, err
	}
	a := archive.New()
	dir := "lib/modules/" + release + "/"
	for _, m := range ms {
		b, err := x.File(m)
		if err != nil {
			return nil, err
		}
		a.File(dir+m.Path, b, 0o644)
	}
	for n, b := range x.Tables(ms) {
		a.File(dir+n, b, 0o644)
	}
	b, err := a.Bytes()
	if err != nil {
		return nil, err
	}
	return b, writeWhole(name, b)
}

// writeWhole makes a file appear with its whole content or not at all.
func writeWhole(name string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return fmt.Errorf("rootfs: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".new-")
	if err != nil {
		return fmt.Errorf("rootfs: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return fmt.Errorf("rootfs: write %s: %w", name, err)
	}
	return nil
}
