package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"ballast/board"
	"ballast/image/archive"
	"ballast/image/packages"
)

// firmwarePackages are the locked packages that bring firmware for hardware.
func firmwarePackages() ([]packages.Package, error) {
	all, err := packages.Locked()
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	return slices.DeleteFunc(all, func(p packages.Package) bool { return !strings.HasPrefix(p.Name, "firmware-") }), nil
}

// blobs finds what the patterns name: path below /lib/firmware -> file of the
// cache. A pattern that finds nothing is an error: it would be a NIC that does
// not work. used are the packages that they came from, in the lock's order.
func blobs(ctx context.Context, patterns []string) (files map[string]string, used []packages.Package, err error) {
	files = map[string]string{}
	if len(patterns) == 0 {
		return files, nil, nil
	}
	ps, err := firmwarePackages()
	if err != nil {
		return nil, nil, err
	}
	found := map[string]bool{}
	for _, p := range ps {
		tree, err := packages.Tree(ctx, p.Name)
		if err != nil {
			return nil, nil, err
		}
		n := len(files)
		for _, below := range []string{"lib/firmware", "usr/lib/firmware"} {
			if err := matchBlobs(filepath.Join(tree, below), patterns, files, found); err != nil {
				return nil, nil, err
			}
		}
		if len(files) > n {
			used = append(used, p)
		}
	}
	var errs []error
	for _, p := range patterns {
		if !found[p] {
			errs = append(errs, fmt.Errorf("image: no locked package has firmware %q: correct the board, or add the package to packages.lock and pin it with: make packages-pin", p))
		}
	}
	return files, used, errors.Join(errs...)
}

func matchBlobs(dir string, patterns []string, files map[string]string, found map[string]bool) error {
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		for _, p := range patterns {
			if ok, err := path.Match(p, rel); ok && err == nil {
				files[rel], found[p] = name, true
			}
		}
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("image: %w", err)
	}
	return nil
}

// addFirmware puts what the board's drivers load into their hardware below
// /lib/firmware, compressed: the kernel decompresses it when a driver asks
// (CONFIG_FW_LOADER_COMPRESS_ZSTD), and until then it takes less memory.
func addFirmware(ctx context.Context, a *archive.Archive, b board.Board) (count, []packages.Package, error) {
	files, used, err := blobs(ctx, b.Firmware)
	if err != nil {
		return count{}, nil, fmt.Errorf("board %s: %w", b.Name, err)
	}
	var n count
	for _, rel := range slices.Sorted(maps.Keys(files)) {
		raw, err := readBlob(files[rel])
		if err != nil {
			return n, nil, err
		}
		z, err := archive.CompressFrame(raw)
		if err != nil {
			return n, nil, fmt.Errorf("image: compress %s: %w", rel, err)
		}
		a.File("lib/firmware/"+rel+".zst", z, 0o644)
		n.count++
		n.bytes += len(z)
	}
	return n, used, nil
}

// readBlob reads a file of a package; a link of it is followed inside its folder,
// never out of the package.
func readBlob(name string) ([]byte, error) {
	dir, base := filepath.Split(name)
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	defer root.Close()
	b, err := root.ReadFile(base)
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	return b, nil
}
