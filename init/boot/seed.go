package boot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"ballast/configs/first"
	"ballast/services/netboot/seed"
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
func HostName(cmdline CmdLine, data, seedDir string) string {
	for _, n := range []string{cmdline.Get("ballast.hostname"), cmdline.Get(first.WordHost), firstLine(filepath.Join(data, hostFile)), firstLine(filepath.Join(seedDir, seed.HostFile))} {
		if seed.ValidName(n) {
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

// SetHostName sets the host name and keeps it in the data folder for the next
// boot; data "" keeps nothing.
func SetHostName(name, data string) error {
	if !seed.ValidName(name) {
		return fmt.Errorf("host name %q: want at most 64 letters, digits, hyphens and dots", name)
	}
	if err := unix.Sethostname([]byte(name)); err != nil {
		return fmt.Errorf("host name: %w", err)
	}
	if data == "" {
		return nil
	}
	return KeepHostName(name, data)
}

// KeepHostName keeps a host name in the data folder for the next boot.
func KeepHostName(name, data string) error {
	if !seed.ValidName(name) {
		return fmt.Errorf("host name %q: want at most 64 letters, digits, hyphens and dots", name)
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

// scriptRoom bounds each of them: what conf stores is in them once more.
const scriptRoom = "size=32m"

// WriteProtect makes the root file system read-only: all that is in it came with
// the firmware. The folders of scripts get a file system of their own first, with
// what is in them, because conf writes there.
func WriteProtect() error {
	var errs []error
	for _, d := range ScriptDirs {
		errs = append(errs, ownRoom(d))
	}
	// A flag of the mount, not of the file system, which the kernel may share.
	const flags = unix.MS_REMOUNT | unix.MS_BIND | unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV
	if err := unix.Mount("", "/", "", flags, ""); err != nil {
		errs = append(errs, fmt.Errorf("make / read-only: %w", err))
	}
	return errors.Join(errs...)
}

// Lockdown has the kernel refuse whatever would change it while it runs: writing
// to its memory and to the hardware's registers, another kernel in its place,
// debugfs. Not even root takes that back. With Secure Boot the kernel does so
// before PID 1 starts.
func Lockdown() error {
	dir, err := os.MkdirTemp("/run", "securityfs")
	if err != nil {
		return fmt.Errorf("lockdown: %w", err)
	}
	defer os.Remove(dir)
	if err := unix.Mount("securityfs", dir, "securityfs", careful, ""); err != nil {
		return fmt.Errorf("lockdown: mount securityfs: %w", err)
	}
	defer unix.Unmount(dir, 0)
	file := filepath.Join(dir, "lockdown")
	if b, err := os.ReadFile(file); err == nil && !strings.Contains(string(b), "[none]") {
		return nil
	}
	if err := os.WriteFile(file, []byte("integrity"), 0o644); err != nil {
		return fmt.Errorf("lockdown: %w", err)
	}
	return nil
}

// ownRoom mounts memory over a folder, with a copy of what the folder holds.
func ownRoom(dir string) error {
	keep, err := os.MkdirTemp("/run", ".room-")
	if err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	defer os.Remove(keep)
	if err := unix.Mount("tmpfs", keep, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOATIME, "mode=0755,"+scriptRoom); err != nil {
		return fmt.Errorf("memory for %s: %w", dir, err)
	}
	err = cloneTree(dir, keep)
	if err == nil {
		err = unix.Mount(keep, dir, "", unix.MS_BIND, "") // the flags go along
	}
	if uerr := unix.Unmount(keep, 0); err == nil {
		err = uerr
	}
	if err != nil {
		return fmt.Errorf("a file system for %s: %w", dir, err)
	}
	return nil
}

// cloneTree copies files, folders and links with their owners and modes.
func cloneTree(from, to string) error {
	return filepath.WalkDir(from, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		dst := filepath.Join(to, strings.TrimPrefix(p, from))
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		switch d.Type() {
		case fs.ModeDir:
			if err := os.MkdirAll(dst, 0o700); err != nil {
				return err
			}
		case fs.ModeSymlink:
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			if err := os.Symlink(target, dst); err != nil {
				return err
			}
			return os.Lchown(dst, int(st.Uid), int(st.Gid))
		case 0:
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			if err := os.WriteFile(dst, b, 0o600); err != nil {
				return err
			}
		default:
			return nil // no script
		}
		if err := os.Lchown(dst, int(st.Uid), int(st.Gid)); err != nil {
			return err
		}
		return os.Chmod(dst, fs.FileMode(st.Mode&0o777))
	})
}

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
