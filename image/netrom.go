package image

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"ballast/image/layout"
	"ballast/image/packages"
)

// undionly is iPXE for BIOS machines whose network card brings another PXE: a
// director gives it to those that boot from it.
func undionly(ctx context.Context) ([]byte, error) {
	tree, err := packages.Tree(ctx, "ipxe")
	if err != nil {
		return nil, err
	}
	rom, err := os.ReadFile(filepath.Join(tree, "usr/lib/ipxe", layout.NetUndionly))
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	return rom, nil
}
