package kernel

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

// unpack writes the package's boot/ and lib/modules/ below root. dpkg-deb only
// takes the .deb apart; nothing of the package is installed or run.
func unpack(ctx context.Context, deb, root string) error {
	cmd := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", deb)
	var words bytes.Buffer
	cmd.Stderr = &words
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("kernel: unpack: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("kernel: unpack %s: %w", deb, err)
	}
	uerr := untar(pipe, root)
	io.Copy(io.Discard, pipe) // let it end by itself, so that its own fault is told
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("kernel: unpack %s: %w: %s", deb, err, lastLine(words.String()))
	}
	return uerr
}

// maxFile bounds one unpacked file; the largest module has about 3 MB, the
// kernel 12.
const maxFile = 256 << 20

// untar writes the regular files below boot/ and lib/modules/ (in either place,
// / or /usr) of a tar stream. Links are left out: what the package links to
// (headers, the build tree) is not in it.
func untar(r io.Reader, root string) error {
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("kernel: unpack: %w", err)
		}
		name := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
		name = strings.TrimPrefix(name, "usr/")
		if h.Typeflag != tar.TypeReg || !strings.HasPrefix(name, "boot/") && !strings.HasPrefix(name, "lib/modules/") {
			continue
		}
		if h.Size > maxFile {
			return fmt.Errorf("kernel: unpack: %s has %d bytes, more than a file of a kernel package", name, h.Size)
		}
		if err := writeFile(filepath.Join(root, name), t); err != nil {
			return fmt.Errorf("kernel: unpack: %w", err)
		}
	}
}

func writeFile(name string, r io.Reader) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, r); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
