package conf

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"ballast/configs/store"
)

// included are the files that a configuration can include: those kept with it,
// as they are in its generation, not as they are on the box at the moment.
type included struct {
	refs    []store.FileRef
	content func(store.FileRef) ([]byte, error)
}

// open opens a file, or a folder to list. A relative path starts at
// /etc/keepalived, where keepalived.conf lives.
func (in included) open(name string) (fs.File, error) {
	full := name
	if !path.IsAbs(full) {
		full = path.Join("/etc/keepalived", full)
	}
	full = path.Clean(full)
	children := map[string]node{}
	for _, r := range in.refs {
		if r.Path == full {
			b, err := in.content(r)
			if err != nil {
				return nil, err
			}
			return &file{node: node{name: path.Base(full), size: int64(r.Size), mode: fs.FileMode(r.Mode)}, r: bytes.NewReader(b)}, nil
		}
		rest, below := strings.CutPrefix(r.Path, strings.TrimSuffix(full, "/")+"/")
		if !below {
			continue
		}
		child, _, deeper := strings.Cut(rest, "/")
		n := node{name: child, size: int64(r.Size), mode: fs.FileMode(r.Mode)}
		if deeper {
			n.mode = fs.ModeDir | 0o755
		}
		children[child] = n
	}
	if len(children) > 0 {
		f := &file{node: node{name: path.Base(full), mode: fs.ModeDir | 0o755}, r: bytes.NewReader(nil)}
		for _, n := range children {
			f.entries = append(f.entries, fs.FileInfoToDirEntry(n))
		}
		slices.SortFunc(f.entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
		return f, nil
	}
	err := fs.ErrNotExist
	if !inFolders(full) {
		err = fmt.Errorf("%w on this box; files to include lie under %s", err, strings.Join(folders, ", "))
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: err}
}

// node is the metadata of a file or folder.
type node struct {
	name string
	size int64
	mode fs.FileMode
}

func (n node) Name() string       { return n.name }
func (n node) Size() int64        { return n.size }
func (n node) Mode() fs.FileMode  { return n.mode }
func (n node) ModTime() time.Time { return time.Time{} }
func (n node) IsDir() bool        { return n.mode.IsDir() }
func (n node) Sys() any           { return nil }

type file struct {
	node
	r       *bytes.Reader
	entries []fs.DirEntry
}

func (f *file) Stat() (fs.FileInfo, error) { return f.node, nil }
func (f *file) Close() error               { return nil }

func (f *file) Read(p []byte) (int, error) {
	if f.IsDir() {
		return 0, &fs.PathError{Op: "read", Path: f.name, Err: fs.ErrInvalid}
	}
	return f.r.Read(p)
}

// ReadDir implements fs.ReadDirFile.
func (f *file) ReadDir(n int) ([]fs.DirEntry, error) {
	if n <= 0 || n > len(f.entries) {
		if n > 0 && len(f.entries) == 0 {
			return nil, io.EOF
		}
		n = len(f.entries)
	}
	out := f.entries[:n]
	f.entries = f.entries[n:]
	return out, nil
}
