// Package bundle is the form in which a firmware travels: one stream that is
// signed at its head, so that who receives it can check each piece before he
// does anything with it, and needs no room to keep the whole.
//
//	ballast-bundle 1\n
//	length of the manifest    4 bytes, big-endian
//	manifest                  JSON, a Manifest
//	number of signatures      1 byte
//	signatures                32 bytes of public key, 64 bytes ed25519, each
//	the parts                 one after the other, as the manifest says
//
// The signatures are over a fixed word and the bytes of the manifest, which
// holds a hash of every chunk of every part. A firmware is signed with several
// keys while a key is being replaced; one that the box trusts is enough.
package bundle

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"ballast/image/layout"
)

// magic is the first line of a bundle: the form of what is around the manifest.
const (
	magicName = "ballast-bundle "
	magic     = magicName + "1\n"
)

// domain is signed before the manifest: a signature that the same key made for
// something else is none of a bundle.
const domain = "ballast firmware bundle 1\x00"

// Format is the form of the manifest and the parts that this package knows.
const Format = 1

// Limits of what a bundle may hold.
const (
	MaxManifest   = 256 << 10
	MaxSignatures = 8
	MaxParts      = 16
	MaxPart       = layout.SizeSlot << 20
	MaxSlotConfig = 64 << 10 // of the part SlotConfig, which a reader keeps in memory
	maxChunk      = 4 << 20
	maxWord       = 64 // of version, board, kernel
)

// ChunkSize is what Write cuts parts into.
const ChunkSize = 1 << 20

// Parts of every bundle, the first two in this order: what a slot holds.
const (
	SlotConfig = "slot.cfg"
	Firmware   = "fw.efi"
)

// Parts that only an installation to a fresh disk needs. What is to be a file of
// the EFI system partition has its path there in its name, behind ESPPrefix.
const (
	BootCode  = "boot.img" // 446 bytes for the master boot record
	CoreImage = "core.img" // GRUB for BIOS machines
	Loader    = "BOOTX64.EFI"
	ESPPrefix = "esp/"
	// SecureLoader is in bundles that are signed for Secure Boot: GRUB, which shim
	// starts.
	SecureLoader = ESPPrefix + "EFI/BOOT/grubx64.efi"
)

// Manifest is what a bundle says of itself.
type Manifest struct {
	Format int `json:"format"`
	layout.Identity
	// ConfigFormat is the newest form of stored configurations that this firmware
	// reads (layout.ConfigFormat).
	ConfigFormat int `json:"configFormat"`
	// MinBuild is the oldest firmware that may upgrade to this one in one step.
	MinBuild  int64  `json:"minBuild,omitempty"`
	ChunkSize int    `json:"chunkSize"`
	Parts     []Part `json:"parts"`
}

// Part is one file of a bundle.
type Part struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 Hash   `json:"sha256"`
	Chunks []Hash `json:"chunks"`
}

// Part finds a part by its name.
func (m Manifest) Part(name string) (Part, bool) {
	for _, p := range m.Parts {
		if p.Name == name {
			return p, true
		}
	}
	return Part{}, false
}

// Size is the length of all parts together.
func (m Manifest) Size() (n int64) {
	for _, p := range m.Parts {
		n += p.Size
	}
	return n
}

// ErrFormat is of a bundle that is in order but newer than this package.
var ErrFormat = errors.New("its form is unknown here")

var (
	partName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$`)
	oneWord  = regexp.MustCompile(`^[!-~]+$`)
)

// check finds what cannot be in a manifest, be it signed or not: a reader
// trusts its maker, and not its maker's mistakes.
func (m Manifest) check() error {
	if m.Format != Format {
		return fmt.Errorf("manifest of format %d, this firmware knows %d: %w: upgrade to a firmware between first", m.Format, Format, ErrFormat)
	}
	for _, w := range []struct{ name, value string }{{"version", m.Version}, {"board", m.Board}, {"kernel", m.Kernel}} {
		if len(w.value) > maxWord || !oneWord.MatchString(w.value) {
			return fmt.Errorf("manifest: %s %.80q: want one word of at most %d characters", w.name, w.value, maxWord)
		}
	}
	switch {
	case m.Build < 0 || m.MinBuild < 0:
		return fmt.Errorf("manifest: build %d, least build %d: want none below 0", m.Build, m.MinBuild)
	case m.ChunkSize < 4<<10 || m.ChunkSize > maxChunk:
		return fmt.Errorf("manifest: chunks of %d bytes: want 4 KiB to 4 MiB", m.ChunkSize)
	case len(m.Parts) < 2 || len(m.Parts) > MaxParts:
		return fmt.Errorf("manifest: %d parts: want 2 to %d", len(m.Parts), MaxParts)
	case m.Parts[0].Name != SlotConfig || m.Parts[1].Name != Firmware:
		return fmt.Errorf("manifest: it begins with %q and %q: want %s and %s", m.Parts[0].Name, m.Parts[1].Name, SlotConfig, Firmware)
	case m.Parts[0].Size > MaxSlotConfig:
		return fmt.Errorf("manifest: %s of %d bytes: want at most %d", SlotConfig, m.Parts[0].Size, MaxSlotConfig)
	}
	seen := map[string]bool{}
	for _, p := range m.Parts {
		switch {
		case len(p.Name) > maxWord || !partName.MatchString(p.Name) || strings.Contains(p.Name, ".."):
			return fmt.Errorf("manifest: %.80q cannot be the name of a part", p.Name)
		case seen[strings.ToLower(p.Name)]:
			return fmt.Errorf("manifest: part %s is there twice", p.Name)
		case p.Size < 1 || p.Size > MaxPart:
			return fmt.Errorf("manifest: part %s of %d bytes: want 1 to %d", p.Name, p.Size, int64(MaxPart))
		}
		seen[strings.ToLower(p.Name)] = true
		if want := (p.Size + int64(m.ChunkSize) - 1) / int64(m.ChunkSize); int64(len(p.Chunks)) != want {
			return fmt.Errorf("manifest: part %s of %d bytes has %d chunks: want %d", p.Name, p.Size, len(p.Chunks), want)
		}
	}
	return nil
}
