// Package packages provides files of Debian packages that images are made of:
// pinned by version and SHA-256 in a lock file, fetched with the machine's own
// package client without root, kept unpacked in a cache. Nothing of a package is
// installed.
//
// A package archive drops a version when a newer one comes out, so the cache is
// the only place where an old pin stays. BALLAST_DEBS names a folder with copies
// of .debs that were kept elsewhere.
package packages

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
	// EnvDebs is a folder with .debs to use instead of fetching them: those whose
	// hash is a pinned one.
	EnvDebs = "BALLAST_DEBS"
)

// CacheDir is the folder that build steps keep their results in.
func CacheDir() (string, error) {
	if d := os.Getenv(EnvCache); d != "" {
		return filepath.Abs(d)
	}
	d, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("packages: no folder for the cache: %w: set %s", err, EnvCache)
	}
	return filepath.Join(d, "ballast"), nil
}

// Tree returns the folder that holds the files of a package of packages.lock,
// fetching and unpacking it first when the cache does not have it. It may be
// called by several processes at once.
func Tree(ctx context.Context, name string) (string, error) {
	p, err := Get(name)
	if err != nil {
		return "", err
	}
	return Unpacked{Kind: "packages", Pin: "make packages-pin"}.Tree(ctx, p)
}

// File is what is in a file of a package of packages.lock.
func File(ctx context.Context, name, file string) ([]byte, error) {
	dir, err := Tree(ctx, name)
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return nil, fmt.Errorf("packages: %s: %w", name, err)
	}
	return b, nil
}

// Unpacked is a room of the cache where packages lie unpacked.
type Unpacked struct {
	Kind string // folder of the cache
	Pin  string // the command that moves the pin, for errors
	// Deb is a copy of the package to use instead of fetching it; "" for none.
	Deb string
	// Keep says where a regular file or symbolic link of the package belongs, and
	// which are left out; nil keeps everything where it is.
	Keep Keep
	// Want are files without which a package is not what was meant.
	Want []string
}

// Tree returns the folder with the files of p.
func (u Unpacked) Tree(ctx context.Context, p Package) (string, error) {
	if err := p.Check(); err != nil {
		return "", err
	}
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	room := filepath.Join(cache, u.Kind)
	dir := filepath.Join(room, p.SHA256)
	if isDir(dir) {
		return dir, nil
	}
	if err := os.MkdirAll(room, 0o755); err != nil {
		return "", fmt.Errorf("packages: %w", err)
	}
	unlock, err := lockFile(filepath.Join(room, "lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	if isDir(dir) { // another process was faster
		return dir, nil
	}
	tmp, err := os.MkdirTemp(room, ".new-")
	if err != nil {
		return "", fmt.Errorf("packages: %w", err)
	}
	defer os.RemoveAll(tmp)
	deb, err := u.deb(ctx, tmp, p)
	if err != nil {
		return "", err
	}
	sum, err := hashFile(deb)
	if err != nil {
		return "", err
	}
	if sum != p.SHA256 {
		return "", fmt.Errorf("packages: %s has SHA-256 %s, the lock file wants %s: it is another build; if that is meant, move the pin with: %s", deb, sum, p.SHA256, u.Pin)
	}
	root := filepath.Join(tmp, "root")
	if err := unpack(ctx, deb, root, u.Keep); err != nil {
		return "", err
	}
	for _, want := range u.Want {
		if _, err := os.Stat(filepath.Join(root, want)); err != nil {
			return "", fmt.Errorf("packages: %s holds no %s", filepath.Base(deb), want)
		}
	}
	// The name appears with its whole content or not at all.
	if err := os.Rename(root, dir); err != nil {
		return "", fmt.Errorf("packages: %w", err)
	}
	return dir, nil
}

// deb finds or fetches the package's file.
func (u Unpacked) deb(ctx context.Context, dir string, p Package) (string, error) {
	if u.Deb != "" {
		return u.Deb, nil
	}
	if kept := os.Getenv(EnvDebs); kept != "" {
		debs, err := filepath.Glob(filepath.Join(kept, p.Name+"_*.deb"))
		if err != nil {
			return "", fmt.Errorf("packages: %s: %w", EnvDebs, err)
		}
		for _, d := range debs {
			if sum, err := hashFile(d); err == nil && sum == p.SHA256 {
				return d, nil
			}
		}
	}
	return u.download(ctx, dir, p)
}

// download fetches the pinned package into dir with the machine's own client.
func (u Unpacked) download(ctx context.Context, dir string, p Package) (string, error) {
	if _, err := exec.LookPath("apt-get"); err != nil {
		return "", fmt.Errorf("packages: %s %s is not in the cache, and this machine has no apt-get to fetch it: put a copy of the .deb into a folder and set %s to it", p.Name, p.Version, EnvDebs)
	}
	get := []string{"download", p.Name + "=" + p.Version}
	err := run(ctx, dir, "apt-get", get...)
	if err != nil && p.Component == "" {
		// The machine's list of packages may be older than the pin. A fresh one
		// of our own needs no privilege and leaves the machine's alone.
		own, e := ownLists(dir)
		if e == nil && run(ctx, dir, "apt-get", append(own, "update")...) == nil {
			err = run(ctx, dir, "apt-get", append(own, get...)...)
		}
	}
	if err != nil && p.Component != "" {
		// The machine's sources leave this component of their archives out.
		var own []string
		if own, err = ownSources(ctx, dir, p.Component); err == nil {
			err = run(ctx, dir, "apt-get", append(own, get...)...)
		}
	}
	if err != nil {
		return "", fmt.Errorf("packages: the package sources of this machine do not offer %s %s (%w). "+
			"Refresh their list with: apt-get update; if they have dropped that version, move the pin to one they offer with: %s; "+
			"or put a copy of the .deb into a folder and set %s to it", p.Name, p.Version, err, u.Pin, EnvDebs)
	}
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(debs) != 1 {
		return "", fmt.Errorf("packages: apt-get download %s left %d files, want 1", p.Name, len(debs))
	}
	return debs[0], nil
}

// ownLists are the options that make apt-get keep its lists below dir.
func ownLists(dir string) ([]string, error) {
	own := []string{"-o", "Dir::State::Lists=" + filepath.Join(dir, "lists"), "-o", "Dir::Cache=" + filepath.Join(dir, "cache")}
	return own, os.MkdirAll(filepath.Join(dir, "lists", "partial"), 0o755)
}

// Newest asks the machine's package sources for the newest build of a package.
// component is where it was so far, "" for main.
func Newest(ctx context.Context, name, component string) (Package, error) {
	show, err := Output(ctx, "apt-cache", "show", "--no-all-versions", name)
	if component != "" && (err != nil || Field(show, "Version") == "") { // it may know the name and nothing else
		var dir string
		if dir, err = os.MkdirTemp("", "ballast-packages-"); err != nil {
			return Package{}, fmt.Errorf("packages: %w", err)
		}
		defer os.RemoveAll(dir)
		var own []string
		if own, err = ownSources(ctx, dir, component); err != nil {
			return Package{}, err
		}
		show, err = Output(ctx, "apt-cache", append(own, "show", "--no-all-versions", name)...)
	}
	if err != nil {
		return Package{}, fmt.Errorf("packages: %w", err)
	}
	p := Package{Name: name, Version: Field(show, "Version"), SHA256: Field(show, "SHA256")}
	if component, _, ok := strings.Cut(Field(show, "Section"), "/"); ok {
		p.Component = component
	}
	if err := p.Check(); err != nil {
		return Package{}, fmt.Errorf("packages: what apt-cache tells of %s: %w", name, err)
	}
	return p, nil
}

// Field is the value of a field of an RFC 822 paragraph, or "".
func Field(paragraph, name string) string {
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
		return nil, fmt.Errorf("packages: %w", err)
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("packages: lock %s: %w", name, err)
	}
	return func() { f.Close() }, nil
}

func hashFile(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", fmt.Errorf("packages: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("packages: read %s: %w", name, err)
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

// Output is what a command prints; its last words are in the error.
func Output(ctx context.Context, name string, args ...string) (string, error) {
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
