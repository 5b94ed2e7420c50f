package image

import (
	"context"
	"fmt"
	"slices"

	"ballast/image/bundle"
	"ballast/image/secureboot"
)

// Secure signs the parts of a firmware with its owner's key: UEFI starts shim,
// shim starts GRUB, GRUB starts the firmware, and each only what is signed. GRUB by
// itself starts nothing with Secure Boot: it must ask shim. BIOS machines take the
// same parts and look at no signature.
func Secure(ctx context.Context, s secureboot.Signer, parts []bundle.File) ([]bundle.File, error) {
	out := slices.Clone(parts)
	var grub []byte
	for i := range out {
		p := &out[i]
		var err error
		switch p.Name {
		case bundle.Firmware:
			p.Data, err = s.Sign(p.Data)
		case bundle.Loader:
			if grub, err = s.Sign(p.Data); err != nil {
				break
			}
			var shim []byte
			if shim, err = secureboot.Shim(ctx); err == nil {
				p.Data, err = s.Sign(shim)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("image: sign %s: %w", p.Name, err)
		}
	}
	if grub == nil {
		return nil, fmt.Errorf("image: sign: there is no part %s", bundle.Loader)
	}
	return append(out, bundle.File{Name: bundle.SecureLoader, Data: grub}), nil
}
