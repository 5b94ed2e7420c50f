package packages

import (
	"bufio"
	_ "embed"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
)

//go:embed packages.lock
var lockText string

// Package names one build of a Debian package.
type Package struct {
	Name    string // grub-pc-bin
	Version string // 2.06-13+deb12u2
	SHA256  string // of the .deb, in lower-case hex
	// Component of the archive when it is not main: a machine's package sources
	// may leave it out.
	Component string
}

// These are Debian policy's characters of a package name and a version
// (sections 5.6.1 and 5.6.12); both become parts of a command and of a path.
var (
	nameForm      = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]+$`)
	versionForm   = regexp.MustCompile(`^[0-9][A-Za-z0-9.+~:-]*$`)
	componentForm = regexp.MustCompile(`^[a-z][a-z-]*$`)
)

// Check tells whether p names a package as Debian writes one.
func (p Package) Check() error {
	if !nameForm.MatchString(p.Name) {
		return fmt.Errorf("package %q: want a name like grub-pc-bin", p.Name)
	}
	if !versionForm.MatchString(p.Version) {
		return fmt.Errorf("version %q: want a version like 2.06-13+deb12u2", p.Version)
	}
	if b, err := hex.DecodeString(p.SHA256); err != nil || len(b) != 32 || strings.ToLower(p.SHA256) != p.SHA256 {
		return fmt.Errorf("sha256 %q: want 64 lower-case hex digits", p.SHA256)
	}
	if p.Component != "" && !componentForm.MatchString(p.Component) {
		return fmt.Errorf("component %q: want a name like non-free-firmware", p.Component)
	}
	return nil
}

// Locked returns what packages.lock pins.
func Locked() ([]Package, error) { return ParseLock(lockText) }

// Get returns what packages.lock pins of one name.
func Get(name string) (Package, error) {
	ps, err := Locked()
	if err != nil {
		return Package{}, err
	}
	for _, p := range ps {
		if p.Name == name {
			return p, nil
		}
	}
	return Package{}, fmt.Errorf("packages.lock: no package %s: add a line with its name, and pin it with: make packages-pin", name)
}

// ParseLock reads a lock file: lines "NAME VERSION SHA256 [COMPONENT]"; # begins
// a comment.
func ParseLock(text string) ([]Package, error) {
	var ps []Package
	seen := map[string]bool{}
	n := 0
	for s := bufio.NewScanner(strings.NewReader(text)); s.Scan(); {
		n++
		line, _, _ := strings.Cut(s.Text(), "#")
		w := strings.Fields(line)
		if len(w) == 0 {
			continue
		}
		if len(w) != 3 && len(w) != 4 {
			return nil, fmt.Errorf("packages.lock:%d: want NAME VERSION SHA256 [COMPONENT], have %q", n, s.Text())
		}
		p := Package{Name: w[0], Version: w[1], SHA256: w[2]}
		if len(w) == 4 {
			p.Component = w[3]
		}
		if err := p.Check(); err != nil {
			return nil, fmt.Errorf("packages.lock:%d: %w", n, err)
		}
		if seen[p.Name] {
			return nil, fmt.Errorf("packages.lock:%d: %s is there twice", n, p.Name)
		}
		seen[p.Name] = true
		ps = append(ps, p)
	}
	return ps, nil
}

// Repin returns the lock file's text with the packages that newest knows moved
// to what it says; comments and order stay.
func Repin(text string, newest map[string]Package) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		body, comment, has := strings.Cut(strings.TrimRight(line, "\n"), "#")
		w := strings.Fields(body)
		p, ok := Package{}, false
		if len(w) > 0 {
			p, ok = newest[w[0]]
		}
		if !ok {
			out.WriteString(line)
			continue
		}
		row := strings.TrimSpace(fmt.Sprintf("%-22s %-24s %s %s", p.Name, p.Version, p.SHA256, p.Component))
		if has {
			row += " #" + comment
		}
		out.WriteString(row + "\n")
	}
	return out.String()
}
