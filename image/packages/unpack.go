package packages

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

// Keep says where a file of a package belongs below the folder of the cache, and
// whether it is wanted. Names have no slash in front.
type Keep func(name string, link bool) (to string, ok bool)

// unpack writes the package's files below root. dpkg-deb only takes the .deb
// apart; nothing of the package is installed or run.
func unpack(ctx context.Context, deb, root string, keep Keep) error {
	cmd := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", deb)
	var words bytes.Buffer
	cmd.Stderr = &words
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("packages: unpack: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("packages: unpack %s: %w", deb, err)
	}
	uerr := Untar(pipe, root, keep)
	io.Copy(io.Discard, pipe) // let it end by itself, so that its own fault is told
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("packages: unpack %s: %w: %s", deb, err, lastLine(words.String()))
	}
	return uerr
}

// maxFile bounds one unpacked file; the largest module has about 3 MB, the
// kernel 12, the largest blob of firmware 25.
const maxFile = 256 << 20

// Untar writes the regular files and symbolic links of a tar stream that keep
// wants below root. A name or a link that leads out of root is an error, and
// nothing is ever written there.
func Untar(r io.Reader, root string, keep Keep) error {
	if err := os.MkdirAll(root, 0o755); err != nil {
		return fmt.Errorf("packages: unpack: %w", err)
	}
	in, err := os.OpenRoot(root)
	if err != nil {
		return fmt.Errorf("packages: unpack: %w", err)
	}
	defer in.Close()
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("packages: unpack: %w", err)
		}
		name := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
		if h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeSymlink || name == "" {
			continue
		}
		if keep != nil {
			to, ok := keep(name, h.Typeflag == tar.TypeSymlink)
			if !ok {
				continue
			}
			name = to
		}
		if h.Size > maxFile {
			return fmt.Errorf("packages: unpack: %s has %d bytes, more than a file of these packages", name, h.Size)
		}
		if err := writeEntry(in, name, h, t); err != nil {
			return fmt.Errorf("packages: unpack: %w", err)
		}
	}
}

// writeEntry makes one file or link. Of a file's mode only the right to run it
// is kept.
func writeEntry(in *os.Root, name string, h *tar.Header, r io.Reader) error {
	if err := in.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeSymlink {
		return in.Symlink(h.Linkname, name)
	}
	mode := os.FileMode(0o644)
	if h.Mode&0o111 != 0 {
		mode = 0o755
	}
	f, err := in.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, r); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
