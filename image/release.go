package image

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"ballast/board"
	"ballast/image/kernel"
	"ballast/image/layout"
	"ballast/image/packages"
	"ballast/image/sbom"
)

// Files that a release has besides what boots.
const (
	SBOMFile   = "sbom.spdx.json" // what the firmware is made of, SPDX 2.3
	LockFile   = "image.lock"     // the same in lines: what to have for building it again
	SumsFile   = "SHA256SUMS"     // of every other file; sha256sum -c reads it
	NetbootDir = "netboot"        // what a network boot server serves
)

// bbmain is what makes one program of the u-root commands.
const bbmain = "github.com/u-root/gobusybox/src/pkg/bb/bbmain"

// goModule is a module whose code is in a program of the image.
type goModule struct{ path, version, dir, sum string }

// goModules are the modules that the packages are made of, without the main one,
// sorted.
func goModules(ctx context.Context, root string, pkgs ...string) ([]goModule, error) {
	const form = "{{with .Module}}{{if not .Main}}{{with .Replace}}{{.Path}}\t{{.Version}}\t{{.Dir}}{{else}}{{.Path}}\t{{.Version}}\t{{.Dir}}{{end}}{{end}}{{end}}"
	out, err := goTool(ctx, root, append([]string{"list", "-deps", "-f", form}, pkgs...)...)
	if err != nil {
		return nil, err
	}
	sums, err := goSums(filepath.Join(root, "go.sum"))
	if err != nil {
		return nil, err
	}
	var ms []goModule
	for line := range strings.Lines(out) {
		w := strings.Split(strings.TrimSpace(line), "\t")
		if len(w) == 3 {
			ms = append(ms, goModule{w[0], w[1], w[2], sums[w[0]+" "+w[1]]})
		}
	}
	slices.SortFunc(ms, func(a, b goModule) int { return strings.Compare(a.path+" "+a.version, b.path+" "+b.version) })
	return slices.Compact(ms), nil
}

// goSums reads the hashes of modules from a go.sum: "PATH VERSION" -> "h1:…".
func goSums(file string) (map[string]string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	sums := map[string]string{}
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		if w := strings.Fields(s.Text()); len(w) == 3 {
			sums[w[0]+" "+w[1]] = w[2]
		}
	}
	return sums, nil
}

// ingredients is everything that a firmware is made of.
type ingredients struct {
	board     board.Board
	version   string
	build     int64
	goVersion string
	goRoot    string
	binary    []goModule // of the one binary
	commands  []goModule // of the u-root commands
	hashes    [2]string  // of both programs
	kernel    packages.Package
	debs      []packages.Package // whose files are in it, but for the kernel
	tools     []packages.Package // that the build needs besides
}

// Where files of packages are in a release of any board.
var placed = map[string]string{
	"grub-pc-bin":        "boot loader of the disk on BIOS machines",
	"grub-efi-amd64-bin": "boot loader of the disk on UEFI machines",
	"shim-unsigned":      "what UEFI starts first with Secure Boot",
	"systemd-boot-efi":   "the stub that the firmware's EFI program begins with",
	"ipxe":               NetbootDir + "/undionly.kpxe",
}

// What only the build uses.
var buildTools = []string{"grub-common", "libdevmapper1.02.1"}

func gather(ctx context.Context, o Options, bb []byte, firmware []packages.Package) (ingredients, error) {
	in := ingredients{board: o.Board, version: o.Version, build: o.Build}
	out, err := goTool(ctx, o.Root, "env", "GOVERSION", "GOROOT")
	if err != nil {
		return in, err
	}
	w := strings.Split(strings.TrimSpace(out), "\n")
	if len(w) != 2 {
		return in, fmt.Errorf("image: go env says %q, want a version and a folder", out)
	}
	in.goVersion, in.goRoot = w[0], w[1]
	if in.binary, err = goModules(ctx, o.Root, "./init"); err != nil {
		return in, err
	}
	cmds, err := commandPackages(ctx, o.Root)
	if err != nil {
		return in, err
	}
	if in.commands, err = goModules(ctx, o.Root, append(cmds, bbmain)...); err != nil {
		return in, err
	}
	binary, err := os.ReadFile(filepath.Join(o.Out, BinaryFile))
	if err != nil {
		return in, fmt.Errorf("image: %w", err)
	}
	in.hashes = [2]string{hash(binary), hash(bb)}
	l, err := kernel.Pinned()
	if err != nil {
		return in, err
	}
	in.kernel = l.Pkg()
	all, err := packages.Locked()
	if err != nil {
		return in, fmt.Errorf("image: %w", err)
	}
	for _, p := range all {
		switch {
		case p.Name == "shim-unsigned" && o.Sign == nil:
		case placed[p.Name] != "" || slices.Contains(firmware, p):
			in.debs = append(in.debs, p)
		case slices.Contains(buildTools, p.Name):
			in.tools = append(in.tools, p)
		}
	}
	return in, nil
}

func hash(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// licenses of Debian's packages, as their files debian/copyright tell of what is
// taken from them. What is not here has many, and its own file of them.
var licenses = map[string]string{
	"linux": "GPL-2.0-only WITH Linux-syscall-note", "grub": "GPL-3.0-or-later", "systemd": "LGPL-2.1-or-later", "shim": "BSD-2-Clause", "ipxe": "GPL-2.0-or-later",
}

// bill is the SBOM.
func (in ingredients) bill() ([]byte, error) {
	d := &sbom.Document{Name: "ballast-" + in.board.Name + "-" + in.version, Tool: "ballast-mkimage-" + in.version, Created: time.Unix(in.build, 0)}
	root := d.Add(sbom.Part{Kind: "firmware", Name: "ballast-" + in.board.Name, Version: in.version, Purpose: "FIRMWARE"}, "", "")
	std := sbom.Part{Kind: "go", Name: "std", Version: strings.TrimPrefix(in.goVersion, "go"), Purpose: "LIBRARY", PURL: "pkg:golang/std@" + strings.TrimPrefix(in.goVersion, "go")}
	std.License, std.Notice = sbom.Folder(in.goRoot)
	for i, program := range []struct {
		part    sbom.Part
		modules []goModule
	}{
		{sbom.Part{Name: "ballast", Version: in.version, Comment: "the one binary, /init"}, in.binary},
		{sbom.Part{Name: "bb", Comment: "the u-root commands, /bin/bb"}, in.commands},
	} {
		program.part.Kind, program.part.Purpose, program.part.SHA256 = "binary", "APPLICATION", in.hashes[i]
		id := d.Add(program.part, root, sbom.Contains)
		d.Add(std, id, sbom.StaticLink)
		for _, m := range program.modules {
			p := sbom.Part{Kind: "go", Name: m.path, Version: m.version, Purpose: "LIBRARY", PURL: "pkg:golang/" + m.path + "@" + m.version}
			p.License, p.Notice = sbom.Folder(m.dir)
			if m.sum != "" {
				p.Comment = "go.sum " + m.sum
			}
			d.Add(p, id, sbom.StaticLink)
		}
	}
	for _, p := range append([]packages.Package{in.kernel}, in.debs...) {
		part := sbom.Part{Kind: "deb", Name: p.Name, Version: p.Version, Supplier: "Organization: Debian", SHA256: p.SHA256, Purpose: "APPLICATION",
			PURL: "pkg:deb/debian/" + strings.ReplaceAll(p.Name, "+", "%2B") + "@" + p.Version}
		family, _, _ := strings.Cut(p.Name, "-")
		part.License, part.Comment = licenses[family], placed[p.Name]
		switch family {
		case "linux":
			part.Purpose, part.Comment = "OTHER", "the kernel and its modules"
		case "firmware":
			part.Purpose, part.Comment = "FIRMWARE", "component "+p.Component+"; its licenses are in usr/share/doc/"+p.Name+"/copyright of the package"
		}
		d.Add(part, root, sbom.Contains)
	}
	return d.JSON()
}

// lock is the lock file.
func (in ingredients) lock() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# What this firmware was built from. With the sources of this version and these, the same bytes come out.\nboard %s\nversion %s\nbuild %d\ngo %s\n",
		in.board.Name, in.version, in.build, in.goVersion)
	ms := slices.Concat(in.binary, in.commands)
	slices.SortFunc(ms, func(a, b goModule) int { return strings.Compare(a.path+" "+a.version, b.path+" "+b.version) })
	for _, m := range slices.Compact(ms) {
		fmt.Fprintf(&b, "module %s %s %s\n", m.path, m.version, m.sum)
	}
	for _, p := range slices.Concat([]packages.Package{in.kernel}, in.debs, in.tools) {
		fmt.Fprintln(&b, strings.TrimSpace(fmt.Sprintf("package %s %s %s %s", p.Name, p.Version, p.SHA256, p.Component)))
	}
	return b.Bytes()
}

// finish makes of what boots a release: what it is made of, the netboot tree, the
// sums of all files.
func finish(ctx context.Context, o Options, bb []byte, firmware []packages.Package) error {
	in, err := gather(ctx, o, bb, firmware)
	if err != nil {
		return err
	}
	bill, err := in.bill()
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(o.Out, SBOMFile), bill, 0o644); err != nil {
		return err
	}
	if err := writeFile(filepath.Join(o.Out, LockFile), in.lock(), 0o644); err != nil {
		return err
	}
	if err := netboot(ctx, o); err != nil {
		return err
	}
	sums, err := checksums(o.Out)
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(o.Out, SumsFile), sums, 0o644)
}

// checksums is what sha256sum prints of every file below dir.
func checksums(dir string) ([]byte, error) {
	var b bytes.Buffer
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || strings.HasPrefix(d.Name(), ".") || d.Name() == SumsFile {
			return err
		}
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		h := sha256.New()
		if _, err := io.Copy(h, f); err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		fmt.Fprintf(&b, "%x  %s\n", h.Sum(nil), rel)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	return b.Bytes(), nil
}

// bootScript is what iPXE runs: files beside it, wherever it came from.
const bootScript = `#!ipxe
# Ballast %s for %s
kernel vmlinuz initrd=initramfs.zst %s %s ${ballast}
initrd initramfs.zst
boot
`

// netboot makes the tree that a server of one's own serves: BIOS machines load
// undionly.kpxe by TFTP, which is iPXE and runs boot.ipxe; UEFI machines load
// fw.efi, by TFTP or HTTP.
func netboot(ctx context.Context, o Options) error {
	dir := filepath.Join(o.Out, NetbootDir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("image: %w", err)
	}
	files := map[string]string{layout.NetKernel: KernelFile, layout.NetInitramfs: InitramfsFile, layout.NetFirmware: UKIFile(o.Board.Name)}
	if len(o.Keys) > 0 {
		files[layout.NetBundle] = BundleFile(o.Board.Name) // for "install DISK net"
	}
	for name, from := range files {
		if err := link(filepath.Join(o.Out, from), filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	rom, err := undionly(ctx)
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(dir, layout.NetUndionly), rom, 0o644); err != nil {
		return err
	}
	script := fmt.Sprintf(bootScript, o.Version, o.Board.Name, layout.IPXEWord, o.Board.KernelCmdLine())
	return writeFile(filepath.Join(dir, layout.NetScript), []byte(script), 0o644)
}

// link makes a file the same as another one, without a second copy where the
// file system can.
func link(from, to string) error {
	if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("image: %w", err)
	}
	if os.Link(from, to) == nil {
		return nil
	}
	b, err := os.ReadFile(from)
	if err != nil {
		return fmt.Errorf("image: %w", err)
	}
	return writeFile(to, b, 0o644)
}
