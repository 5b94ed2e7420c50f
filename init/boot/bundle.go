package boot

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// sticks is where a bundle that somebody brought is looked for.
type sticks struct {
	sys, dev string
	mount    string
	except   string // name of a disk that is none: the box booted from it
}

// Bundle hands take the bundle for a board that lies on a USB stick: the file
// ballast-BOARD.bundle of its root folder, or the only one that ends in .bundle.
// The stick is mounted read-only while take reads. boot is the disk that the box
// booted from, which is none; nil: there is no such disk.
func Bundle(board string, boot *BootDisk, take func(name string, r io.Reader) error) error {
	s := sticks{sys: "/sys/class/block", dev: "/dev", mount: "/run/bundle"}
	if boot != nil {
		s.except = boot.name
	}
	return s.bundle("ballast-"+board+".bundle", take)
}

func (s sticks) bundle(want string, take func(string, io.Reader) error) error {
	var looked []string
	list, _ := os.ReadDir(s.sys)
	for _, e := range list {
		kind, ok := s.stick(e.Name())
		if !ok {
			continue
		}
		name, err := s.read(e.Name(), kind, want, take)
		if name != "" || err == nil {
			return err
		}
		looked = append(looked, fmt.Sprintf("%s: %v", e.Name(), err))
	}
	if len(looked) == 0 {
		return errors.New("there is no USB stick with FAT or ext4 on it: plug one in, or send the bundle by SSH")
	}
	return fmt.Errorf("no USB stick has a bundle: %s", strings.Join(looked, "; "))
}

// stick tells whether a block device is a file system on a stick, and which.
func (s sticks) stick(name string) (kind string, ok bool) {
	at, err := filepath.EvalSymlinks(filepath.Join(s.sys, name))
	if err != nil || s.except != "" && (name == s.except || filepath.Base(filepath.Dir(at)) == s.except) {
		return "", false
	}
	if !strings.Contains(at, "/usb") {
		return "", false
	}
	f, err := os.Open(filepath.Join(s.dev, name))
	if err != nil {
		return "", false
	}
	defer f.Close()
	kind, _ = labelOf(f)
	return kind, kind != ""
}

// read hands on the bundle of one stick; name is empty when it has none.
func (s sticks) read(dev, kind, want string, take func(string, io.Reader) error) (name string, err error) {
	unmount, err := mountStick(filepath.Join(s.dev, dev), s.mount, kind)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, unmount()) }()
	root, err := os.OpenRoot(s.mount) // a link leads nowhere else
	if err != nil {
		return "", err
	}
	defer root.Close()
	if name, err = pickBundle(root.FS(), want); err != nil {
		return "", err
	}
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0) // a pipe of that name holds nobody up
	if err != nil {
		return name, fmt.Errorf("%s: %w: copy the file itself to the stick", dev, err)
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return name, errors.Join(fmt.Errorf("%s: %s is no file: copy a bundle to the stick", dev, name), err)
	}
	return name, take(dev+": "+name, f)
}

// pickBundle is the name of the bundle among the files of a root folder.
func pickBundle(root fs.FS, want string) (string, error) {
	list, err := fs.ReadDir(root, ".")
	if err != nil {
		return "", err
	}
	var found []string
	for _, e := range list {
		n := e.Name()
		if strings.EqualFold(n, want) {
			return n, nil
		}
		if strings.HasSuffix(strings.ToLower(n), ".bundle") && !strings.HasPrefix(n, ".") {
			found = append(found, n)
		}
	}
	switch len(found) {
	case 0:
		return "", fmt.Errorf("there is no %s in its root folder: copy it there, or send it by SSH", want)
	case 1:
		return found[0], nil
	}
	return "", fmt.Errorf("there are %s: leave one of them, or call it %s", strings.Join(found, ", "), want)
}

// mountStick mounts a file system read-only, with nothing on it that could be run.
func mountStick(dev, at, kind string) (unmount func() error, err error) {
	if err := os.MkdirAll(at, 0o700); err != nil {
		return nil, err
	}
	options := ""
	if kind == "ext4" {
		options = "noload" // a journal would be written
	}
	if err := unix.Mount(dev, at, kind, careful|unix.MS_RDONLY, options); err != nil {
		return nil, fmt.Errorf("mount as %s: %w: take another stick, or send the bundle by SSH", kind, err)
	}
	return func() error {
		err := unix.Unmount(at, unix.MNT_DETACH)
		os.Remove(at)
		return err
	}, nil
}
