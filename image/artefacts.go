package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"

	"ballast/board"
	"ballast/image/bundle"
	"ballast/image/disk"
	"ballast/image/grub"
	"ballast/image/layout"
	"ballast/image/uki"
)

// Files that Build leaves in Options.Out besides those of image.go.
const (
	DiskFile = "disk.img"     // a whole disk, sparse: for dd, or for a virtual machine
	DiskZstd = "disk.img.zst" // the same to carry around
)

// UKIFile is the name of a board's unified kernel image.
func UKIFile(board string) string { return "ballast-" + board + ".efi" }

// UKI joins kernel, initramfs and the kernel's command line into the one file
// that a slot holds.
func UKI(ctx context.Context, vmlinuz, initramfs []byte, cmdline string, id layout.Identity) ([]byte, error) {
	stub, err := uki.Stub(ctx)
	if err != nil {
		return nil, err
	}
	return uki.Join(stub, []uki.Section{
		{Name: uki.OSRelease, Content: []byte(osRelease(id.Version, id.Board))},
		{Name: uki.Uname, Content: []byte(id.Kernel)},
		{Name: uki.CmdLine, Content: []byte(cmdline)},
		{Name: uki.Initrd, Content: initramfs},
		{Name: uki.Linux, Content: vmlinuz},
	})
}

// osRelease is /etc/os-release of a firmware; boot loaders show it too.
func osRelease(version, board string) string {
	return fmt.Sprintf("NAME=Ballast\nID=ballast\nPRETTY_NAME=\"Ballast %s\"\nVERSION_ID=%s\nVARIANT_ID=%s\n", version, version, board)
}

// SlotConfig describes a unified kernel image for the boot loader.
func SlotConfig(image []byte, cmdline string, id layout.Identity) ([]byte, error) {
	places, err := uki.Find(bytes.NewReader(image))
	if err != nil {
		return nil, err
	}
	return disk.SlotConfig{
		Identity: id, Args: cmdline,
		Linux:  disk.Range(places[uki.Linux]),
		Initrd: disk.Range(places[uki.Initrd]),
	}.Bytes()
}

// FirmwareParts are what a bundle of a firmware holds, the boot loader for the
// board included. Tests make other firmwares of the same kernel with it.
func FirmwareParts(ctx context.Context, b board.Board, vmlinuz, initramfs []byte, cmdline string, id layout.Identity) ([]bundle.File, error) {
	image, err := UKI(ctx, vmlinuz, initramfs, cmdline, id)
	if err != nil {
		return nil, err
	}
	slot, err := SlotConfig(image, cmdline, id)
	if err != nil {
		return nil, err
	}
	loader, err := grub.Build(ctx, b.Consoles)
	if err != nil {
		return nil, err
	}
	return []bundle.File{
		{Name: bundle.SlotConfig, Data: slot}, {Name: bundle.Firmware, Data: image},
		{Name: bundle.BootCode, Data: loader.Boot}, {Name: bundle.CoreImage, Data: loader.Core}, {Name: bundle.Loader, Data: loader.EFI},
	}, nil
}

// DiskImage writes a disk of parts to a new file, as small as it can be and
// sparse. Its identifiers follow from the identity.
func DiskImage(name string, parts []bundle.File, id layout.Identity) error {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-")
	if err != nil {
		return fmt.Errorf("image: %w", err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := f.Truncate(disk.MinSize); err != nil {
		return fmt.Errorf("image: %w", err)
	}
	o := disk.Options{Name: strings.Join([]string{id.Board, id.Version, fmt.Sprint(id.Build)}, " "), Time: time.Unix(id.Build, 0)}
	if err := disk.Write(unsynced{f}, disk.FromFiles(parts...), o); err != nil {
		return err
	}
	if err := errors.Join(f.Chmod(0o644), f.Close(), os.Rename(f.Name(), name)); err != nil {
		return fmt.Errorf("image: %w", err)
	}
	return nil
}

// unsynced is a file on the machine that builds: no order of writes matters
// there, holes stay holes.
type unsynced struct{ *os.File }

func (unsynced) Sync() error { return nil }

func (u unsynced) WriteAt(b []byte, at int64) (int, error) {
	// What is new in a file is zero already.
	const page = 4096
	for i := 0; i < len(b); i += page {
		p := b[i:min(i+page, len(b))]
		if len(bytes.Trim(p, "\x00")) == 0 {
			old := make([]byte, len(p))
			if _, err := u.File.ReadAt(old, at+int64(i)); err == nil && bytes.Equal(old, p) {
				continue
			}
		}
		if _, err := u.File.WriteAt(p, at+int64(i)); err != nil {
			return i, err
		}
	}
	return len(b), nil
}

// compressFile makes name of the file from, as people decompress it with
// "zstd -d".
func compressFile(name, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("image: %w", err)
	}
	defer in.Close()
	var b bytes.Buffer
	// What is in it is compressed already; the rest is zeros.
	e, err := zstd.NewWriter(&b, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(true))
	if err != nil {
		return fmt.Errorf("image: %w", err)
	}
	if _, err := io.Copy(e, in); err != nil {
		return fmt.Errorf("image: %w", err)
	}
	if err := e.Close(); err != nil {
		return fmt.Errorf("image: %w", err)
	}
	return writeFile(name, b.Bytes(), 0o644)
}

// artefacts makes what is flashed and upgraded with of kernel and initramfs.
func artefacts(ctx context.Context, o Options, vmlinuz, initramfs []byte, release string) error {
	id := layout.Identity{Version: o.Version, Build: o.Build, Board: o.Board.Name, Kernel: release}
	parts, err := FirmwareParts(ctx, o.Board, vmlinuz, initramfs, o.Board.KernelCmdLine(), id)
	if err != nil {
		return err
	}
	if o.Sign != nil {
		if parts, err = Secure(ctx, *o.Sign, parts); err != nil {
			return err
		}
	}
	report := func(name string) error {
		st, err := os.Stat(filepath.Join(o.Out, name))
		if err != nil {
			return fmt.Errorf("image: %w", err)
		}
		fmt.Fprintf(o.Log, "%-14s %6.2f MB\n", name, mb(int(st.Size())))
		return nil
	}
	if err := writeFile(filepath.Join(o.Out, UKIFile(id.Board)), parts[1].Data, 0o644); err != nil {
		return err
	}
	if err := report(UKIFile(id.Board)); err != nil {
		return err
	}
	var b bytes.Buffer
	onDisk := parts
	if len(o.Keys) > 0 { // else it is for a test that needs no bundle
		if err := Bundle(&b, id, parts, o.Keys...); err != nil {
			return err
		}
		if onDisk, err = disk.WithHead(parts, b.Bytes()); err != nil {
			return err
		}
	}
	img := filepath.Join(o.Out, DiskFile)
	if err := DiskImage(img, onDisk, id); err != nil {
		return err
	}
	if err := compressFile(filepath.Join(o.Out, DiskZstd), img); err != nil {
		return err
	}
	if err := report(DiskZstd); err != nil {
		return err
	}
	if b.Len() == 0 {
		return nil
	}
	if err := writeFile(filepath.Join(o.Out, BundleFile(id.Board)), b.Bytes(), 0o644); err != nil {
		return err
	}
	return report(BundleFile(id.Board))
}
