package boot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"ballast/image/layout"
	"ballast/services/netboot/seed"
)

// FromNetwork tells whether this firmware was loaded over the network, and
// where from, as far as the kernel's command line says so.
func FromNetwork(efivars string, c CmdLine) (source string, is bool) {
	if source = c.Get(layout.WordSource); source != "" {
		return source, true
	}
	if c.Get(layout.WordSlot) != "" || c.Get(layout.WordPart) != "" {
		return "", false
	}
	// The stub says of which partition it was loaded, if it was one.
	if _, err := os.Stat(filepath.Join(efivars, "StubInfo"+stubVendor)); err != nil {
		return "", false
	}
	_, err := os.Stat(filepath.Join(efivars, stubPart))
	return "", errors.Is(err, os.ErrNotExist)
}

// Configured reports whether the box has a configuration already: stored ones,
// or one that came with the image.
func Configured(data, seedDir string) bool {
	_, err := os.Stat(seedDir)
	return Stored(data) || err == nil
}

// Stored reports whether the data disk has a configuration of this box.
func Stored(data string) bool {
	list, _ := filepath.Glob(filepath.Join(data, "conf", "configuration", "generations", "*")) // the pattern is well-formed
	return len(list) > 0
}

// identities are the files in which services keep the keys of the box, by the
// name that a seed gives them.
var identities = map[string]string{seed.SSHKey: "console/ssh_host_ed25519_key", seed.PeerKey: "peer/peer_ed25519_key"}

// TakeSeed takes over what the process that fetched it laid out in from: the
// configuration becomes the seed, the keys go to the folders of the services
// that have them, if those have none yet. owner is the user of a service.
func TakeSeed(from, seedDir, data string, owner func(service string) (uid, gid int)) (origin, source string, err error) {
	if err := seed.Take(from, seedDir); err != nil {
		return "", "", err
	}
	origin, source = firstLine(filepath.Join(seedDir, seed.OriginFile)), firstLine(filepath.Join(seedDir, seed.SourceFile))
	var errs []error
	for name, file := range identities {
		errs = append(errs, placeKey(filepath.Join(seedDir, seed.KeysDir, name), filepath.Join(data, file), owner))
	}
	// conf reads the seed, and has no use for keys.
	errs = append(errs, os.RemoveAll(filepath.Join(seedDir, seed.KeysDir)), os.Remove(filepath.Join(seedDir, seed.OriginFile)), os.Remove(filepath.Join(seedDir, seed.SourceFile)))
	return origin, source, errors.Join(errs...)
}

func placeKey(from, to string, owner func(service string) (uid, gid int)) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return fmt.Errorf("seed: %w", err)
	}
	dir := filepath.Dir(to)
	uid, gid := owner(filepath.Base(dir))
	if err := os.Mkdir(dir, 0o700); err == nil {
		err = os.Chown(dir, uid, gid)
		if err != nil {
			return fmt.Errorf("identity: %w", err)
		}
	} else if !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("identity: %w", err)
	}
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil // it is somebody already
	}
	if err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Chown(uid, gid), f.Close()); err != nil {
		return fmt.Errorf("identity: %s: %w", strings.TrimPrefix(to, dir), err)
	}
	return nil
}
