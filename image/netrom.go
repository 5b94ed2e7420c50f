package image

import (
	"context"

	"ballast/image/layout"
	"ballast/image/packages"
)

// undionly is iPXE for BIOS machines whose network card brings another PXE: a
// director gives it to those that boot from it.
func undionly(ctx context.Context) ([]byte, error) {
	return packages.File(ctx, "ipxe", "usr/lib/ipxe/"+layout.NetUndionly)
}
