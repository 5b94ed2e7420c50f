package secureboot

import (
	"bytes"
	"context"
	"debug/pe"
	"encoding/binary"
	"errors"
	"fmt"

	"ballast/image/packages"
)

// Shim is Debian's shim, which lets GRUB ask UEFI what it may start, without
// Debian's certificate in it: it trusts whom the machine trusts, the owner, and
// nobody else. It is not signed yet. The program that enrols further keys
// (MokManager) is left out of images on purpose.
func Shim(ctx context.Context) ([]byte, error) {
	b, err := packages.File(ctx, "shim-unsigned", "usr/lib/shim/shimx64.efi")
	if err != nil {
		return nil, err
	}
	return disown(b)
}

// disown takes the certificate of its maker out of shim. Section .vendor_cert
// begins with four numbers (cert.S of shim): the lengths of what is trusted and of
// what is not, and where these are.
func disown(shim []byte) ([]byte, error) {
	f, err := pe.NewFile(bytes.NewReader(shim))
	if err != nil {
		return nil, fmt.Errorf("secureboot: shim: %w", err)
	}
	s := f.Section(".vendor_cert")
	if s == nil || s.Size < 16 || int64(s.Offset)+int64(s.Size) > int64(len(shim)) {
		return nil, errors.New("secureboot: shim has no section .vendor_cert: is it another version?")
	}
	out := bytes.Clone(shim)
	table := out[s.Offset : s.Offset+s.Size]
	le := binary.LittleEndian
	length, at := le.Uint32(table), le.Uint32(table[8:])
	if length == 0 || at < 16 || int64(at)+int64(length) > int64(s.Size) || table[at] != 0x30 {
		return nil, errors.New("secureboot: the certificate in shim is not where it is expected: is it another version?")
	}
	clear(table[at : at+length])
	le.PutUint32(table, 0)
	return out, nil
}
