// Package kernel provides the kernel that images are built from: Debian's own
// package, pinned by version and SHA-256 in kernel.lock, fetched with the
// machine's package client, kept unpacked in a cache.
//
// A package archive drops a version when a newer one comes out, so the cache
// is the only place where an old pin stays. BALLAST_KERNEL_DEB names a copy of
// the .deb that was kept elsewhere.
package kernel

import (
	"context"
	"fmt"
	"os"
	"strings"

	"ballast/image/packages"
)

// EnvDeb is a file to use instead of fetching the package. Its hash must be
// the pinned one.
const EnvDeb = "BALLAST_KERNEL_DEB"

// Tree returns the folder that holds the pinned kernel's boot/vmlinuz-RELEASE
// and lib/modules/RELEASE, fetching and unpacking it first when the cache does
// not have it. It may be called by several processes at once.
func Tree(ctx context.Context) (dir, release string, err error) {
	l, err := Pinned()
	if err != nil {
		return "", "", err
	}
	dir, err = tree(ctx, l)
	return dir, l.Release(), err
}

func tree(ctx context.Context, l Lock) (string, error) {
	return packages.Unpacked{
		Kind: "kernel", Pin: "make kernel-pin", Deb: os.Getenv(EnvDeb), Keep: keep,
		Want: []string{"boot/vmlinuz-" + l.Release(), "lib/modules/" + l.Release() + "/modules.builtin"},
	}.Tree(ctx, l.Pkg())
}

// keep takes the files below boot/ and lib/modules/ (in either place, / or
// /usr). Links are left out: what the package links to (headers, the build tree)
// is not in it.
func keep(name string, link bool) (string, bool) {
	name = strings.TrimPrefix(name, "usr/")
	return name, !link && (strings.HasPrefix(name, "boot/") || strings.HasPrefix(name, "lib/modules/"))
}

// Newest asks the machine's package sources for the newest build of a kernel
// series ("6.12") and fetches it into the cache.
func Newest(ctx context.Context, series string) (Lock, error) {
	meta := "linux-image-" + series + "-amd64"
	out, err := packages.Output(ctx, "apt-cache", "depends", "--important", meta)
	if err != nil || !strings.Contains(out, "Depends:") {
		// From the release on whose default this series is, the package has no series in its name.
		meta = "linux-image-amd64"
		if out, err = packages.Output(ctx, "apt-cache", "depends", "--important", meta); err != nil {
			return Lock{}, fmt.Errorf("kernel: ask for the newest build of %s: %w", series, err)
		}
	}
	pkg := ""
	for line := range strings.Lines(out) {
		if w := strings.Fields(line); len(w) == 2 && w[0] == "Depends:" && strings.HasPrefix(w[1], "linux-image-"+series+".") {
			pkg = w[1]
		}
	}
	if pkg == "" {
		return Lock{}, fmt.Errorf("kernel: the package sources of this machine offer no kernel %s (%s depends on none)", series, meta)
	}
	show, err := packages.Output(ctx, "apt-cache", "show", "--no-all-versions", pkg)
	if err != nil {
		return Lock{}, fmt.Errorf("kernel: %w", err)
	}
	l := Lock{Package: pkg, Version: packages.Field(show, "Version"), SHA256: packages.Field(show, "SHA256")}
	if _, err := ParseLock(l.Text()); err != nil {
		return Lock{}, fmt.Errorf("kernel: what apt-cache tells of %s: %w", pkg, err)
	}
	_, err = tree(ctx, l)
	return l, err
}
