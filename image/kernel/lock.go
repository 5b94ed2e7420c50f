package kernel

import (
	"bufio"
	_ "embed"
	"fmt"
	"regexp"
	"strings"

	"ballast/image/packages"
)

//go:embed kernel.lock
var lockText string

// Lock names one build of the kernel package.
type Lock struct {
	Package string // linux-image-6.12.117+deb12-amd64
	Version string // 6.12.117-1~deb12u1
	SHA256  string // of the .deb, in lower-case hex
}

// Pinned returns what kernel.lock says.
func Pinned() (Lock, error) { return ParseLock(lockText) }

// Release is what uname -r says when this kernel runs.
func (l Lock) Release() string { return strings.TrimPrefix(l.Package, "linux-image-") }

// Pkg is the package that l pins.
func (l Lock) Pkg() packages.Package {
	return packages.Package{Name: l.Package, Version: l.Version, SHA256: l.SHA256}
}

// packageForm is that of a package with a kernel; what else is behind the name
// package packages checks.
var packageForm = regexp.MustCompile(`^linux-image-[a-z0-9]`)

// ParseLock reads a lock file: lines "package NAME", "version VERSION" and
// "sha256 HEX"; # begins a comment.
func ParseLock(text string) (Lock, error) {
	var l Lock
	n := 0
	for s := bufio.NewScanner(strings.NewReader(text)); s.Scan(); {
		n++
		line, _, _ := strings.Cut(s.Text(), "#")
		w := strings.Fields(line)
		if len(w) == 0 {
			continue
		}
		if len(w) != 2 {
			return Lock{}, fmt.Errorf("kernel.lock:%d: want a name and a value, have %q", n, s.Text())
		}
		switch w[0] {
		case "package":
			l.Package = w[1]
		case "version":
			l.Version = w[1]
		case "sha256":
			l.SHA256 = w[1]
		default:
			return Lock{}, fmt.Errorf("kernel.lock:%d: unknown name %q: write package, version or sha256", n, w[0])
		}
	}
	if !packageForm.MatchString(l.Package) {
		return Lock{}, fmt.Errorf("kernel.lock: package %q: want a name like linux-image-6.12.117+deb12-amd64", l.Package)
	}
	if err := l.Pkg().Check(); err != nil {
		return Lock{}, fmt.Errorf("kernel.lock: %w", err)
	}
	return l, nil
}

// Text is the lock file of l.
func (l Lock) Text() string {
	return fmt.Sprintf(`# The kernel that images are built from. "make kernel-pin" moves it to the newest
# build that the machine's own package sources offer.
package %s
version %s
sha256  %s
`, l.Package, l.Version, l.SHA256)
}
