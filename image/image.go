// Package image builds what a director boots: a kernel and an initramfs that
// holds everything else. It needs no root, and the same sources give the same
// bytes, in whatever folder and however often they are built.
//
// What goes in: the one static binary as /init, the u-root commands that
// scripts call, the kernel's modules that the board names, an empty ext4 file
// system for a blank data disk, and a few files in /etc.
package image

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"ballast/board"
	"ballast/image/archive"
	"ballast/image/kernel"
	"ballast/image/layout"
	"ballast/image/modules"
	"ballast/image/secureboot"
)

// Options are what an image is built from.
type Options struct {
	Board   board.Board
	Root    string               // of this module's sources
	Out     string               // folder for the results; it is made
	Version string               // what the firmware calls itself; one word
	Build   int64                // which of two firmwares is newer: see layout.Identity
	Keys    []ed25519.PrivateKey // sign the bundle; boxes that run this firmware take what one of them signed
	Trust   []byte               // further public keys that they take, as in layout.KeysFile
	// Sign signs what UEFI starts, for Secure Boot with the owner's own key; nil:
	// nothing is signed.
	Sign    *secureboot.Signer
	Applets []string // names that the binary answers to besides its own
	Log     io.Writer
	// Release makes what a release has besides what boots: see release.go.
	Release bool
}

// Files that Build leaves in Options.Out.
const (
	KernelFile    = "vmlinuz"       // the kernel, bzImage
	InitramfsFile = "initramfs.zst" // further archives may be appended
	CmdLineFile   = "cmdline"       // the kernel's command line, one line
	ManifestFile  = "manifest"      // SHA-256, size and name of the files above
	BinaryFile    = "ballast"       // the binary, as /init
)

// Build makes an image.
func Build(ctx context.Context, o Options) error {
	for _, err := range o.Board.Check() {
		return err
	}
	say := func(format string, a ...any) { fmt.Fprintf(o.Log, format+"\n", a...) }
	if err := os.MkdirAll(o.Out, 0o755); err != nil {
		return fmt.Errorf("image: %w", err)
	}
	dir, release, err := kernel.Tree(ctx)
	if err != nil {
		return err
	}
	binary := filepath.Join(o.Out, BinaryFile)
	if err := Binary(ctx, o.Root, binary, o.Version); err != nil {
		return err
	}
	initBytes, err := os.ReadFile(binary)
	if err != nil {
		return fmt.Errorf("image: %w", err)
	}
	say("%-14s %6.2f MB", BinaryFile, mb(len(initBytes)))

	a := archive.New()
	skeleton(a, o.Board, o.Version)
	if err := addIdentity(a, o, release); err != nil {
		return err
	}
	bb, err := Commands(ctx, o.Root)
	if err != nil {
		return err
	}
	if err := addCommands(a, bb); err != nil {
		return err
	}
	a.File("init", initBytes, 0o755)
	// No modprobe: until init makes that link, what the kernel asks for while it
	// starts fails at once, without a process for each (none of it is in the
	// image, and they cost a second).
	for _, name := range append([]string{"ballast"}, o.Applets...) {
		a.Symlink("bin/"+name, "/init")
	}
	n, err := addModules(ctx, a, o.Board)
	if err != nil {
		return err
	}
	say("%-14s %6.2f MB, %d of them", "modules", mb(n.bytes), n.count)
	fw, used, err := addFirmware(ctx, a, o.Board)
	if err != nil {
		return err
	}
	if fw.count > 0 {
		say("%-14s %6.2f MB, %d of them", "firmware", mb(fw.bytes), fw.count)
	}
	fs, err := DataTemplate(ctx)
	if err != nil {
		return err
	}
	a.File("etc/ballast/data.ext4.zst", fs, 0o644)
	rom, err := undionly(ctx)
	if err != nil {
		return err
	}
	a.File("etc/ballast/"+layout.NetUndionly, rom, 0o644)

	initramfs, err := a.Zstd()
	if err != nil {
		return err
	}
	vmlinuz, err := os.ReadFile(filepath.Join(dir, "boot", "vmlinuz-"+release))
	if err != nil {
		return fmt.Errorf("image: %w", err)
	}
	manifest := ""
	for _, f := range []struct {
		name    string
		content []byte
	}{
		{KernelFile, vmlinuz}, {InitramfsFile, initramfs}, {CmdLineFile, []byte(o.Board.KernelCmdLine() + "\n")},
	} {
		if err := writeFile(filepath.Join(o.Out, f.name), f.content, 0o644); err != nil {
			return err
		}
		sum := sha256.Sum256(f.content)
		manifest += fmt.Sprintf("%s %9d %s\n", hex.EncodeToString(sum[:]), len(f.content), f.name)
		if len(f.content) > 1<<16 {
			say("%-14s %6.2f MB", f.name, mb(len(f.content)))
		}
	}
	if err := artefacts(ctx, o, vmlinuz, initramfs, release); err != nil {
		return err
	}
	say("%-14s %6.2f MB: %s %s for %s, kernel %s", "together", mb(len(vmlinuz)+len(initramfs)), "Ballast", o.Version, o.Board.Name, release)
	if err := writeFile(filepath.Join(o.Out, ManifestFile), []byte(manifest), 0o644); err != nil {
		return err
	}
	if !o.Release {
		return nil
	}
	return finish(ctx, o, bb, used)
}

// addIdentity tells the firmware what it is, and whose upgrades it takes.
func addIdentity(a *archive.Archive, o Options, release string) error {
	id, err := json.Marshal(layout.Identity{Version: o.Version, Build: o.Build, Board: o.Board.Name, Kernel: release})
	if err != nil {
		return fmt.Errorf("image: %w", err)
	}
	keys, err := trustedKeys(o.Keys, o.Trust)
	if err != nil {
		return err
	}
	a.File(strings.TrimPrefix(layout.IdentityFile, "/"), append(id, '\n'), 0o644)
	a.File(strings.TrimPrefix(layout.KeysFile, "/"), keys, 0o644)
	return nil
}

func mb(n int) float64 { return float64(n) / 1e6 }

// writeFile replaces a file as a whole.
func writeFile(name string, b []byte, perm os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-")
	if err != nil {
		return fmt.Errorf("image: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Chmod(f.Name(), perm)
	}
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return fmt.Errorf("image: %w", err)
	}
	return nil
}

type count struct{ count, bytes int }

func addModules(ctx context.Context, a *archive.Archive, b board.Board) (count, error) {
	dir, release, err := kernel.Tree(ctx)
	if err != nil {
		return count{}, err
	}
	x, err := modules.Open(dir, release)
	if err != nil {
		return count{}, err
	}
	ms, err := x.Select(b.Modules...)
	if err != nil {
		return count{}, fmt.Errorf("board %s: %w", b.Name, err)
	}
	var n count
	base := "lib/modules/" + release + "/"
	for _, m := range ms {
		f, err := x.File(m)
		if err != nil {
			return n, err
		}
		a.File(base+m.Path, f, 0o644)
		n.count++
		n.bytes += len(f)
	}
	for name, table := range x.Tables(ms) {
		a.File(base+name, table, 0o644)
	}
	return n, nil
}
