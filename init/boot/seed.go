package boot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"ballast/configs/first"

	"golang.org/x/sys/unix"
)

// SeedDir is where the image, or an archive that the boot loader or a test
// appended to it, may bring a first configuration:
//
//	config        keepalived.conf of a box that has none of its own yet
//	words         what the kernel's command line says of name, address and first user
//	files/…       scripts and other files that the configuration calls, by path
//	hostname      what the box is called until its configuration says otherwise
const SeedDir = "/seed"

// Seed makes the seed readable for conf, and for nobody else: it may hold
// secrets. It returns false when there is none.
func Seed(dir string, uid, gid int) (bool, error) {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.Type()&fs.ModeSymlink != 0 {
			return nil
		}
		mode := fs.FileMode(0o600)
		if st, err := d.Info(); err == nil && (d.IsDir() || st.Mode()&0o100 != 0) {
			mode = 0o700
		}
		return errors.Join(os.Chmod(p, mode), os.Lchown(p, uid, gid))
	})
	if err != nil {
		return true, fmt.Errorf("seed: %w", err)
	}
	return true, nil
}

// hostFile keeps the last host name for the next boot: the lines of a
// configuration that are meant for one box only are chosen by it.
const hostFile = "init/hostname"

// HostName returns what the box is called before its configuration is read:
// by the kernel's command line (ballast.hostname=), by its last configuration,
// by the seed, and if nobody says, "ballast".
func HostName(cmdline CmdLine, data, seed string) string {
	for _, n := range []string{cmdline.Get("ballast.hostname"), cmdline.Get(first.WordHost), firstLine(filepath.Join(data, hostFile)), firstLine(filepath.Join(seed, "hostname"))} {
		if ValidHostName(n) {
			return n
		}
	}
	return "ballast"
}

func firstLine(name string) string {
	f, err := os.Open(name)
	if err != nil {
		return ""
	}
	defer f.Close()
	b := make([]byte, 256)
	n, _ := f.Read(b)
	s, _, _ := strings.Cut(string(b[:n]), "\n")
	return strings.TrimSpace(s)
}

// ValidHostName reports whether the kernel and RFC 1123 take s: at most 64
// bytes of letters, digits, hyphens and dots.
func ValidHostName(s string) bool {
	if s == "" || len(s) > 64 || s[0] == '-' || s[0] == '.' {
		return false
	}
	for _, c := range []byte(s) {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '.' || c == '_') {
			return false
		}
	}
	return true
}

// SetHostName sets the host name and keeps it in the data folder for the next
// boot; data "" keeps nothing.
func SetHostName(name, data string) error {
	if !ValidHostName(name) {
		return fmt.Errorf("host name %q: want at most 64 letters, digits, hyphens and dots", name)
	}
	if err := unix.Sethostname([]byte(name)); err != nil {
		return fmt.Errorf("host name: %w", err)
	}
	if data == "" {
		return nil
	}
	p := filepath.Join(data, hostFile)
	if firstLine(p) == name {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		return fmt.Errorf("host name: %w", err)
	}
	if err := os.WriteFile(p+".new", []byte(name+"\n"), 0o644); err != nil {
		return fmt.Errorf("host name: %w", err)
	}
	return os.Rename(p+".new", p)
}

// ScriptDirs are the folders in which conf puts the scripts that the
// configuration calls; they are its own.
var ScriptDirs = []string{"/etc/keepalived", "/usr/local", "/usr/libexec/keepalived", "/opt"}

// OwnScriptDirs makes them and gives them to conf.
func OwnScriptDirs(uid, gid int) error {
	var errs []error
	for _, d := range ScriptDirs {
		if err := os.MkdirAll(d, 0o755); err != nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, filepath.WalkDir(d, func(p string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			return os.Lchown(p, uid, gid)
		}))
	}
	return errors.Join(errs...)
}
