package machine

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"ballast/board"
	"ballast/configs/first"
	"ballast/image"
	"ballast/image/archive"
	"ballast/image/bundle"
	"ballast/image/disk"
	"ballast/image/disk/gpt"
	"ballast/image/layout"
	"ballast/image/secureboot"
	"ballast/init/applet"
	"ballast/test/lab/vm"
)

// Firmware is what machines boot: an image with a configuration for its first
// boot, in which the tests' SSH key may log in. Variants of it share kernel and
// initramfs, so that they are made in a second.
type Firmware struct {
	Board     board.Board
	ID        layout.Identity
	Kernel    []byte
	Initramfs []byte
	CmdLine   string
	Key       ed25519.PrivateKey // signs its bundles
	SSH       ssh.Signer         // of the user "admin"
	Sign      *secureboot.Signer // nil: it is not signed for Secure Boot
}

// EnvImage names a folder with an image of board qemu that "make image" made:
// tests take it and build none. They trust the key that the image does then, which
// must be in ~/.config/ballast.
const EnvImage = "BALLAST_TEST_IMAGE"

// Build makes an image of a board in dir, from the sources at root.
func Build(ctx context.Context, root, dir string, b board.Board, log io.Writer) (*Firmware, error) {
	f := &Firmware{Board: b, CmdLine: cmdLine(b)}
	_, secret, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("machine: key: %w", err)
	}
	if f.SSH, err = ssh.NewSignerFromKey(secret); err != nil {
		return nil, fmt.Errorf("machine: key: %w", err)
	}
	if have := os.Getenv(EnvImage); have != "" {
		dir = have
		keys, err := image.SigningKeys("", log)
		if err != nil {
			return nil, err
		}
		f.Key = keys[0]
	} else {
		if _, f.Key, err = ed25519.GenerateKey(rand.Reader); err != nil {
			return nil, fmt.Errorf("machine: key: %w", err)
		}
		err = image.Build(ctx, image.Options{
			Board: b, Root: root, Out: dir, Version: "test-1", Build: 1_800_000_000, Keys: []ed25519.PrivateKey{f.Key}, Applets: applet.Names, Log: log,
		})
		if err != nil {
			return nil, err
		}
	}
	return f, f.read(dir)
}

// Read is the image in a folder that "make image" made, for disks: nothing trusts
// the key of its bundles.
func Read(dir string) (*Firmware, error) {
	f := &Firmware{}
	err := f.read(dir)
	if err == nil {
		f.Board, err = board.Get(f.ID.Board)
	}
	if err == nil {
		f.CmdLine = cmdLine(f.Board)
		_, f.Key, err = ed25519.GenerateKey(rand.Reader)
	}
	return f, err
}

// cmdLine is a board's kernel command line, as emulated machines need it.
func cmdLine(b board.Board) string {
	words := strings.Fields(b.KernelCmdLine())
	if !slices.Contains(words, vm.NoTimerCheck) {
		words = append(words, vm.NoTimerCheck)
	}
	return strings.Join(words, " ")
}

func (f *Firmware) read(dir string) (err error) {
	for name, to := range map[string]*[]byte{image.KernelFile: &f.Kernel, image.InitramfsFile: &f.Initramfs} {
		if *to, err = os.ReadFile(filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("machine: %w", err)
		}
	}
	f.ID, err = identity(filepath.Join(dir, image.DiskFile))
	return err
}

// identity reads it from the slot of a disk.
func identity(name string) (layout.Identity, error) {
	f, err := os.Open(name)
	if err != nil {
		return layout.Identity{}, fmt.Errorf("machine: %w", err)
	}
	defer f.Close()
	size, err := disk.Size(f)
	if err != nil {
		return layout.Identity{}, err
	}
	t, err := gpt.Read(f, size)
	if err != nil {
		return layout.Identity{}, err
	}
	p, _ := t.Find(layout.NumberSlotA)
	s, err := disk.ReadSlot(disk.Section(f, p))
	if err != nil {
		return layout.Identity{}, err
	}
	return s.Config.Identity, nil
}

// Seed is the configuration of a first boot: the host name, DHCP on eth0, the
// user admin with the tests' key, and what else a test wants.
func (f *Firmware) Seed(host, more string) []byte {
	a := first.Answers{Host: host, Interface: "eth0", Address: first.DHCP, User: "admin", Key: strings.TrimSpace(string(ssh.MarshalAuthorizedKey(f.SSH.PublicKey())))}
	return []byte(a.Text() + more)
}

// With is the firmware with further files, under another version and build when
// they are not "" and 0. Files replace those of the same name: /init, or a first
// configuration at seed/config.
func (f *Firmware) With(version string, build int64, more *archive.Archive) (*Firmware, error) {
	g := *f
	if version != "" {
		g.ID.Version = version
	}
	if build != 0 {
		g.ID.Build = build
	}
	if more == nil {
		more = archive.New()
	}
	id, err := json.Marshal(g.ID)
	if err != nil {
		return nil, fmt.Errorf("machine: %w", err)
	}
	more.File(strings.TrimPrefix(layout.IdentityFile, "/"), append(id, '\n'), 0o644)
	b, err := more.Bytes()
	if err != nil {
		return nil, fmt.Errorf("machine: %w", err)
	}
	g.Initramfs = append(bytes.Clone(f.Initramfs), b...)
	return &g, nil
}

// WithSeed is the firmware with Seed as its first configuration.
func (f *Firmware) WithSeed(host, more string) (*Firmware, error) {
	return f.WithConfig(f.Seed(host, more))
}

// WithConfig is the firmware with a first configuration.
func (f *Firmware) WithConfig(text []byte) (*Firmware, error) {
	a := archive.New()
	a.File("seed/config", text, 0o600)
	return f.With("", 0, a)
}

// Parts are those of its bundle.
func (f *Firmware) Parts(ctx context.Context) ([]bundle.File, error) {
	parts, err := image.FirmwareParts(ctx, f.Board, f.Kernel, f.Initramfs, f.CmdLine, f.ID)
	if err != nil || f.Sign == nil {
		return parts, err
	}
	return image.Secure(ctx, *f.Sign, parts)
}

// Bundle is its signed upgrade.
func (f *Firmware) Bundle(ctx context.Context) ([]byte, error) {
	parts, err := f.Parts(ctx)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = image.Bundle(&b, f.ID, parts, f.Key)
	return b.Bytes(), err
}

// Disk writes a disk of so many bytes with the firmware into a new sparse file,
// as "ballast flash" would.
func (f *Firmware) Disk(ctx context.Context, name string, size int64, o disk.Options) error {
	parts, err := f.Parts(ctx)
	if err != nil {
		return err
	}
	var whole bytes.Buffer
	if err := image.Bundle(&whole, f.ID, parts, f.Key); err != nil {
		return err
	}
	if parts, err = disk.WithHead(parts, whole.Bytes()); err != nil {
		return err
	}
	file, err := os.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("machine: %w", err)
	}
	defer file.Close()
	if err := file.Truncate(size); err != nil {
		return fmt.Errorf("machine: %w", err)
	}
	return disk.Write(file, disk.FromFiles(parts...), o)
}
