// Package bundle is the command "ballast bundle": it looks at a signed firmware
// bundle on any Linux machine, and checks it as a box would before it is sent to one.
package bundle

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"ballast/image/bundle"
)

const usage = `usage: ballast bundle verify FILE [KEY]
       ballast bundle inspect FILE

verify checks the signature and every byte of a bundle. KEY is a file with the
keys to trust: lines as "ed25519 BASE64 NAME", or ed25519 keys in PEM, public or
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
			keys, file, err := trust(args[2:])
			if err != nil {
				return err
			}
			return verify(r, keys, file, stdout)
		})
	case len(args) > 0 && args[0] != "inspect" && args[0] != "verify":
		fmt.Fprintf(stderr, "ballast bundle: unknown command %q\n%s", args[0], usage)
		return 2
	default:
		fmt.Fprintf(stderr, "ballast bundle: want verify FILE [KEY], or inspect FILE\n%s", usage)
		return 2
	}
	if err != nil {
		fmt.Fprintf(stderr, "ballast bundle: %v\n", err)
		return 1
	}
	return 0
}

// want is what to say in place of a name that is none of a bundle.
const want = "give the path of a bundle, such as ballast-BOARD.bundle, or - for standard input"

func with(name string, stdin io.Reader, do func(io.Reader) error) error {
	if name == "-" {
		return do(stdin)
	}
	f, err := os.Open(name)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: run this as a user who may read it", err)
	case err != nil:
		return fmt.Errorf("%w: %s", err, want)
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil {
		return err
	} else if st.IsDir() {
		return fmt.Errorf("%s is a folder: %s", name, want)
	}
	if err := do(f); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// trust are the keys that count, and the file they are of.
func trust(args []string) ([]bundle.Key, string, error) {
	if len(args) == 1 {
		keys, err := bundle.ReadKeys(args[0])
		return keys, args[0], err
	}
	keys, file, err := bundle.TrustedHere()
	if err == nil && len(keys) == 0 {
		err = errors.New("there is no key here to trust: name a file with one: ballast bundle verify FILE KEY")
	}
	return keys, file, err
}

func verify(r io.Reader, keys []bundle.Key, file string, out io.Writer) error {
	b, err := bundle.Open(r, keys)
	if errors.Is(err, bundle.ErrUntrusted) {
		return fmt.Errorf("%w (checked with the keys of %s)", err, file)
	}
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
		return errors.Join(fmt.Errorf("%d bytes follow the last part: a box would not look at them: fetch the file again", n), err)
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
