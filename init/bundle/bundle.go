// Package bundle is the command "ballast bundle": it looks at a signed firmware
// bundle on any Linux machine, and checks it as a box would before it is sent to one.
package bundle

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"ballast/image/bundle"
	"ballast/image/layout"
)

const usage = `usage: ballast bundle verify FILE [KEY]
       ballast bundle inspect FILE

verify checks the signature and every byte of a bundle. KEY is a file with the
keys to trust: lines as "ed25519 BASE64 NAME", or an ed25519 key in PEM, public or
private. Without it: ~/.config/ballast/firmware.key, else the keys of this box.
inspect shows what a bundle says of itself, and believes it.
FILE may be - for standard input.

Exit status: 0 in order, 1 not in order, 2 wrong usage.
`

// Main runs the command with the words behind "bundle" and gives the exit code.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) == 1 && (args[0] == "help" || args[0] == "--help" || args[0] == "-h") {
		io.WriteString(stdout, usage)
		return 0
	}
	var err error
	switch {
	case len(args) == 2 && args[0] == "inspect":
		err = with(args[1], stdin, func(r io.Reader) error { return inspect(r, stdout) })
	case (len(args) == 2 || len(args) == 3) && args[0] == "verify":
		err = with(args[1], stdin, func(r io.Reader) error {
			keys, err := trust(args[2:])
			if err != nil {
				return err
			}
			return verify(r, keys, stdout)
		})
	default:
		io.WriteString(stderr, usage)
		return 2
	}
	if err != nil {
		fmt.Fprintf(stderr, "ballast bundle: %v\n", err)
		return 1
	}
	return 0
}

func with(name string, stdin io.Reader, do func(io.Reader) error) error {
	if name == "-" {
		return do(stdin)
	}
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: give the path of a bundle, such as ballast-BOARD.bundle, or - for standard input", err)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	return do(f)
}

// trust are the keys that count.
func trust(args []string) ([]bundle.Key, error) {
	if len(args) == 1 {
		return readKeys(args[0])
	}
	var places []string
	if dir, err := os.UserConfigDir(); err == nil {
		places = append(places, filepath.Join(dir, "ballast", "firmware.key"))
	}
	for _, name := range append(places, layout.KeysFile) {
		keys, err := readKeys(name)
		if !errors.Is(err, fs.ErrNotExist) {
			return keys, err
		}
	}
	return nil, errors.New("there is no key here to trust: name a file with one")
}

func readKeys(name string) ([]bundle.Key, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		keys, err := bundle.ParseKeys(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		return keys, nil
	}
	var public any
	if block.Type == "PRIVATE KEY" {
		var k any
		if k, err = x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
			if private, ok := k.(ed25519.PrivateKey); ok {
				public = private.Public()
			}
		}
	} else {
		public, err = x509.ParsePKIXPublicKey(block.Bytes)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	k, ok := public.(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("%s: it is no ed25519 key", name)
	}
	return []bundle.Key{{Public: k}}, nil
}

func verify(r io.Reader, keys []bundle.Key, out io.Writer) error {
	b, err := bundle.Open(r, keys)
	if err != nil {
		return err
	}
	for {
		_, err := b.Next() // what is not read is checked all the same
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	if n, err := io.Copy(io.Discard, r); err != nil || n > 0 {
		return errors.Join(fmt.Errorf("%d bytes follow the last part: a box would not look at them", n), err)
	}
	fmt.Fprintf(out, "%s of %s for %s, signed by %s: in order\n", b.Manifest.Version, bundle.Date(b.Manifest.Build), b.Manifest.Board, b.SignedBy[0])
	return nil
}

func inspect(r io.Reader, out io.Writer) error {
	m, keys, err := bundle.Peek(r)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "version   %s\nbuild     %s UTC (%d)\nboard     %s\nkernel    %s\n", m.Version, bundle.Date(m.Build), m.Build, m.Board, m.Kernel)
	if m.MinBuild > 0 {
		fmt.Fprintf(out, "upgrades  in one step from a firmware of %s on (%d)\n", bundle.Date(m.MinBuild), m.MinBuild)
	}
	fmt.Fprintf(out, "configs   format %d\n", m.ConfigFormat)
	for _, k := range keys {
		fmt.Fprintf(out, "signed by %s (not checked)\n", k)
	}
	for _, p := range m.Parts {
		fmt.Fprintf(out, "%10d  %s  %s\n", p.Size, p.SHA256, p.Name)
	}
	return nil
}
