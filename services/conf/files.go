package conf

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"ballast/configs/model"
	"ballast/configs/store"
	"ballast/services/ipc/status"
)

// folders are where the files that a configuration calls may lie: where users
// of keepalived keep them. Everything else on the box is the image's.
var folders = []string{"/etc/keepalived", "/usr/local", "/usr/libexec/keepalived", "/opt"}

func inFolders(p string) bool {
	_, _, ok := cutFolder(p)
	return ok
}

// cutFolder parts a path into one of the folders and the rest.
func cutFolder(p string) (folder, rest string, ok bool) {
	for _, f := range folders {
		if rest, ok := strings.CutPrefix(p, f+"/"); ok {
			return f, rest, true
		}
	}
	return "", "", false
}

// validPath says why a file cannot lie at p.
func validPath(p string) error {
	switch {
	case len(p) > 512:
		return errors.New("the path is longer than 512 bytes")
	case strings.ContainsFunc(p, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffd }):
		return errors.New("the path has characters that cannot be shown")
	case p != path.Clean(p) || !inFolders(p):
		return fmt.Errorf("%q is not possible: a file must lie under %s, with no \"..\" in its path", p, strings.Join(folders, ", "))
	case p == "/etc/keepalived/keepalived.conf":
		return errors.New("keepalived.conf is the configuration itself: use load and commit")
	case strings.HasSuffix(p, tmpSuffix):
		return fmt.Errorf("a name must not end in %s", tmpSuffix)
	}
	return nil
}

const tmpSuffix = ".ballast-tmp"

func (c *conf) fileList() []status.File {
	out := []status.File{}
	for _, r := range c.store.Files() {
		out = append(out, status.File{Path: r.Path, Mode: r.Mode, Size: r.Size})
	}
	return out
}

func (c *conf) fileGet(_ context.Context, f status.File) (any, error) {
	for _, r := range c.store.Files() {
		if r.Path == f.Path {
			b, err := c.store.Content(r)
			return status.File{Path: r.Path, Mode: r.Mode, Size: r.Size, Content: b}, err
		}
	}
	return nil, fmt.Errorf("there is no file %s", f.Path)
}

func (c *conf) filePut(_ context.Context, f status.File) (any, error) {
	if err := validPath(f.Path); err != nil {
		return nil, err
	}
	if f.Mode == 0 {
		f.Mode = 0o755
	}
	if f.Mode&^0o777 != 0 {
		return nil, fmt.Errorf("%s: mode %o: only permission bits are possible", f.Path, f.Mode)
	}
	ref, err := c.store.AddBlob(f.Path, f.Mode, f.Content)
	if err != nil {
		return nil, err
	}
	refs := slices.DeleteFunc(c.store.Files(), func(r store.FileRef) bool { return r.Path == f.Path })
	return nil, c.setFiles(append(refs, ref), fmt.Sprintf("file %s stored, %d bytes", f.Path, len(f.Content)))
}

func (c *conf) fileDelete(_ context.Context, f status.File) (any, error) {
	old := c.store.Files()
	refs := slices.DeleteFunc(slices.Clone(old), func(r store.FileRef) bool { return r.Path == f.Path })
	if len(refs) == len(old) {
		return nil, fmt.Errorf("there is no file %s", f.Path)
	}
	return nil, c.setFiles(refs, "file "+f.Path+" deleted")
}

// setFiles makes refs the working set, on the box at once and in the next
// generation.
func (c *conf) setFiles(refs []store.FileRef, what string) error {
	old := c.store.Files()
	if faults := c.place(refs); len(faults) > 0 {
		c.place(old)
		return fmt.Errorf("not stored%s", list(faults))
	}
	if err := c.store.SetFiles(refs); err != nil {
		c.place(old)
		return err
	}
	c.env.Log.Info(what)
	now := c.current()
	now.files = c.store.Files()
	c.publish(now) // services look again for scripts that were missing
	return nil
}

// place makes the files of the box those of refs and returns what it could not
// write. Called with the turn held.
func (c *conf) place(refs []store.FileRef) (problems []model.Problem) {
	bad := func(ref store.FileRef, err error) {
		problems = append(problems, model.Problem{Severity: model.Error, File: ref.Path, Text: err.Error(),
			Fix: "put the file again"})
	}
	want := map[string]bool{}
	for _, ref := range refs {
		want[ref.Path] = true
		tag := fmt.Sprintf("%o %s", ref.Mode, ref.Sum)
		if c.placed[ref.Path] == tag {
			continue
		}
		b, err := c.store.Content(ref)
		if err == nil {
			err = c.inFolder(ref.Path, func(root *os.Root, name string) error { return writeFile(root, name, b, fs.FileMode(ref.Mode)) })
		}
		if err != nil {
			bad(ref, err)
			continue
		}
		c.placed[ref.Path] = tag
	}
	for p := range c.placed {
		if want[p] {
			continue
		}
		err := c.inFolder(p, func(root *os.Root, name string) error { return root.Remove(name) })
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			bad(store.FileRef{Path: p}, err)
			continue
		}
		delete(c.placed, p)
	}
	return problems
}

// inFolder does something to a file, by its name in the folder that it lies in.
// Of the folders, and of nothing above them, conf may open what it likes.
func (c *conf) inFolder(p string, do func(root *os.Root, name string) error) error {
	folder, name, ok := cutFolder(p)
	if !ok {
		return validPath(p)
	}
	root, err := openFolder(c.Root, folder)
	if err != nil {
		return err
	}
	return errors.Join(do(root, name), root.Close())
}

// openFolder opens one of the folders, which is no link, nor behind one. init has
// made them all; where there is no init, it makes it.
func openFolder(top, folder string) (*os.Root, error) {
	full := filepath.Join(top, folder)
	real, err := filepath.EvalSymlinks(full)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		root, err := os.OpenRoot(top)
		if err != nil {
			return nil, err
		}
		if err := errors.Join(root.MkdirAll(strings.TrimPrefix(folder, "/"), 0o755), root.Close()); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, err
	case real != full:
		return nil, fmt.Errorf("%s is a link to %s", full, real)
	}
	return os.OpenRoot(full)
}

// writeFile replaces a file in one step, so that a script that is about to run
// is the old or the new one. root keeps links from leading out of it.
func writeFile(root *os.Root, name string, content []byte, mode fs.FileMode) error {
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	tmp := name + tmpSuffix
	f, err := root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if _, err = f.Write(content); err == nil {
		err = f.Chmod(mode)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = root.Rename(tmp, name)
	}
	if err != nil {
		root.Remove(tmp)
	}
	return err
}
