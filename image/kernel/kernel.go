// Package kernel provides the kernel that images are built from: Debian's own
// package, pinned by version and SHA-256 in kernel.lock, fetched with the
// machine's package client, kept unpacked in a cache.
//
// A package archive drops a version when a newer one comes out, so the cache
// is the only place where an old pin stays. BALLAST_KERNEL_DEB names a copy of
// the .deb that was kept elsewhere.
package kernel

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Names of environment variables.
const (
	// EnvCache is the folder of the build's cache; ~/.cache/ballast when unset.
	EnvCache = "BALLAST_CACHE"
	// EnvDeb is a file to use instead of fetching the package. Its hash must be
	// the pinned one.
	EnvDeb = "BALLAST_KERNEL_DEB"
)

// CacheDir is the folder that build steps keep their results in.
func CacheDir() (string, error) {
	if d := os.Getenv(EnvCache); d != "" {
		return filepath.Abs(d)
	}
	d, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("kernel: no folder for the cache: %w: set %s", err, EnvCache)
	}
	return filepath.Join(d, "ballast"), nil
}

// Tree returns the folder that holds the pinned kernel's boot/vmlinuz-RELEASE
// and lib/modules/RELEASE, fetching and unpacking it first when the cache does
// not have it. It may be called by several processes at once.
func Tree(ctx context.Context) (dir, release string, err error) {
	l, err := Pinned()
	if err != nil {
		return "", "", err
	}
	cache, err := CacheDir()
	if err != nil {
		return "", "", err
	}
	dir, err = tree(ctx, cache, l)
	return dir, l.Release(), err
}

func tree(ctx context.Context, cache string, l Lock) (string, error) {
	dir := filepath.Join(cache, "kernel", l.SHA256)
	if isDir(dir) {
		return dir, nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", fmt.Errorf("kernel: %w", err)
	}
	unlock, err := lockFile(filepath.Join(cache, "kernel", "lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	if isDir(dir) { // another process was faster
		return dir, nil
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), ".new-")
	if err != nil {
		return "", fmt.Errorf("kernel: %w", err)
	}
	defer os.RemoveAll(tmp)
	deb := os.Getenv(EnvDeb)
	if deb == "" {
		if deb, err = download(ctx, tmp, l); err != nil {
			return "", err
		}
	}
	sum, err := hashFile(deb)
	if err != nil {
		return "", err
	}
	if sum != l.SHA256 {
		return "", fmt.Errorf("kernel: %s has SHA-256 %s, kernel.lock wants %s: it is another build; if that is meant, move the pin with: make kernel-pin", deb, sum, l.SHA256)
	}
	root := filepath.Join(tmp, "root")
	if err := unpack(ctx, deb, root); err != nil {
		return "", err
	}
	for _, want := range []string{"boot/vmlinuz-" + l.Release(), "lib/modules/" + l.Release() + "/modules.builtin"} {
		if _, err := os.Stat(filepath.Join(root, want)); err != nil {
			return "", fmt.Errorf("kernel: %s holds no %s", filepath.Base(deb), want)
		}
	}
	// The name appears with its whole content or not at all.
	if err := os.Rename(root, dir); err != nil {
		return "", fmt.Errorf("kernel: %w", err)
	}
	return dir, nil
}

// download fetches the pinned package into dir with the machine's own client.
func download(ctx context.Context, dir string, l Lock) (string, error) {
	if _, err := exec.LookPath("apt-get"); err != nil {
		return "", fmt.Errorf("kernel: %s %s is not in the cache, and this machine has no apt-get to fetch it: set %s to a copy of the .deb", l.Package, l.Version, EnvDeb)
	}
	get := []string{"download", l.Package + "=" + l.Version}
	err := run(ctx, dir, "apt-get", get...)
	if err != nil && ctx.Err() == nil {
		// The machine's list of packages may be older than the pin. A fresh one
		// of our own needs no privilege and leaves the machine's alone.
		own := []string{"-o", "Dir::State::Lists=" + filepath.Join(dir, "lists"), "-o", "Dir::Cache=" + filepath.Join(dir, "cache")}
		if e := os.MkdirAll(filepath.Join(dir, "lists", "partial"), 0o755); e == nil && run(ctx, dir, "apt-get", append(own, "update")...) == nil {
			err = run(ctx, dir, "apt-get", append(own, get...)...)
		}
	}
	if err != nil {
		return "", fmt.Errorf("kernel: the package sources of this machine do not offer %s %s (%w). "+
			"Refresh their list with: apt-get update; if they have dropped that version, move the pin to one they offer with: make kernel-pin; "+
			"or set %s to a copy of the .deb", l.Package, l.Version, err, EnvDeb)
	}
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(debs) != 1 {
		return "", fmt.Errorf("kernel: apt-get download %s left %d files, want 1", l.Package, len(debs))
	}
	return debs[0], nil
}

// Newest asks the machine's package sources for the newest build of a kernel
// series ("6.12") and fetches it into the cache.
func Newest(ctx context.Context, series string) (Lock, error) {
	meta := "linux-image-" + series + "-amd64"
	out, err := output(ctx, "apt-cache", "depends", "--important", meta)
	if err != nil || !strings.Contains(out, "Depends:") {
		// From the release on whose default this series is, the package has no series in its name.
		meta = "linux-image-amd64"
		if out, err = output(ctx, "apt-cache", "depends", "--important", meta); err != nil {
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
	show, err := output(ctx, "apt-cache", "show", "--no-all-versions", pkg)
	if err != nil {
		return Lock{}, fmt.Errorf("kernel: %w", err)
	}
	l := Lock{Package: pkg, Version: field(show, "Version"), SHA256: field(show, "SHA256")}
	if _, err := ParseLock(l.Text()); err != nil {
		return Lock{}, fmt.Errorf("kernel: what apt-cache tells of %s: %w", pkg, err)
	}
	cache, err := CacheDir()
	if err != nil {
		return Lock{}, err
	}
	_, err = tree(ctx, cache, l)
	return l, err
}

// field is the value of a field of an RFC 822 paragraph, or "".
func field(paragraph, name string) string {
	for line := range strings.Lines(paragraph) {
		if v, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func isDir(name string) bool {
	st, err := os.Stat(name)
	return err == nil && st.IsDir()
}

func lockFile(name string) (unlock func(), err error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("kernel: %w", err)
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("kernel: lock %s: %w", name, err)
	}
	return func() { f.Close() }, nil
}

func hashFile(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", fmt.Errorf("kernel: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("kernel: read %s: %w", name, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// run runs a command in dir; its last words are in the error.
func run(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	var b bytes.Buffer
	cmd.Stdout, cmd.Stderr = &b, &b
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, lastLine(b.String()))
	}
	return nil
}

func output(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var b bytes.Buffer
	cmd.Stderr = &b
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", name, err, lastLine(b.String()))
	}
	return string(out), nil
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndexByte(s, '\n')+1:]
}
