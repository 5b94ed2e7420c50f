package store_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"

	"ballast/configs/store"
)

// disk is a file system with a power switch. It knows what a real one
// guarantees and no more: the content of a file is safe once it was flushed, a
// name once its folder was, a folder once the one above it was. Until then what
// was done may have reached the disk in any order, in part, or not at all.
type disk struct {
	now   map[string]*inode   // names as programs see them; nil: none
	past  map[string][]*inode // what each name meant since its folder was flushed, the flushed meaning first
	dirs  map[string]bool     // folders; false: not flushed above
	left  int                 // steps until the power goes; <0: never
	fail  int                 // the step that fails once, while the power stays; <0: none
	steps int
	kinds map[string]int // steps by kind
}

// inode is a file.
type inode struct {
	data, safe []byte
	lost       bool // a flush failed: the kernel tells of that once, and forgets what it could not write
}

var (
	errPower = errors.New("power cut")
	errIO    = errors.New("input/output error")
)

const block = 16 // bytes that reach the disk together

func newDisk() *disk {
	return &disk{now: map[string]*inode{}, past: map[string][]*inode{}, dirs: map[string]bool{"/": true, "/data": true}, left: -1, fail: -1, kinds: map[string]int{}}
}

// step is called before anything that changes the disk.
func (d *disk) step(kind string) error {
	d.kinds[kind]++
	d.steps++
	if d.steps-1 == d.fail {
		return errIO
	}
	if d.left == 0 {
		return errPower
	}
	if d.left > 0 {
		d.left--
	}
	return nil
}

// name gives path another meaning.
func (d *disk) name(path string, n *inode) {
	if d.past[path] == nil {
		d.past[path] = []*inode{d.now[path]}
	}
	d.past[path] = append(d.past[path], n)
	d.now[path] = n
}

type handle struct {
	d *disk
	n *inode
}

func (h handle) Write(p []byte) (int, error) {
	if err := h.d.step("write"); err != nil {
		h.n.data = append(h.n.data, p[:len(p)/2]...) // torn
		return len(p) / 2, err
	}
	h.n.data = append(h.n.data, p...)
	return len(p), nil
}

func (h handle) Sync() error {
	if err := h.d.step("sync"); err != nil {
		h.n.lost = true
		return err
	}
	if !h.n.lost {
		h.n.safe = bytes.Clone(h.n.data)
	}
	return nil
}

func (h handle) Close() error { return h.d.step("close") }

func (d *disk) MkdirAll(path string) error {
	var err error
	for p := filepath.Clean(path); p != "/"; p = filepath.Dir(p) {
		if _, ok := d.dirs[p]; ok {
			continue
		}
		if err = d.step("mkdir"); err != nil {
			return err
		}
		d.dirs[p] = false
	}
	return nil
}

func (d *disk) Create(path string) (store.File, error) {
	if err := d.step("create"); err != nil {
		return nil, err
	}
	if n := d.now[path]; n != nil { // the same file, emptied
		n.data = nil
		return handle{d, n}, nil
	}
	n := &inode{}
	d.name(path, n)
	return handle{d, n}, nil
}

func (d *disk) Open(path string) (io.ReadCloser, error) {
	n := d.now[path]
	if n == nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	return io.NopCloser(bytes.NewReader(n.data)), nil
}

func (d *disk) Rename(from, to string) error {
	if err := d.step("rename"); err != nil {
		return err
	}
	d.name(to, d.now[from])
	d.name(from, nil)
	return nil
}

func (d *disk) Remove(path string) error {
	if err := d.step("remove"); err != nil {
		return err
	}
	d.name(path, nil)
	return nil
}

func (d *disk) List(path string) (names []string, err error) {
	for _, p := range slices.Sorted(maps.Keys(d.now)) {
		if d.now[p] != nil && filepath.Dir(p) == filepath.Clean(path) {
			names = append(names, filepath.Base(p))
		}
	}
	for p := range d.dirs {
		if p != "/" && filepath.Dir(p) == filepath.Clean(path) {
			names = append(names, filepath.Base(p))
		}
	}
	slices.Sort(names)
	return names, nil
}

func (d *disk) SyncDir(path string) error {
	if err := d.step("syncdir"); err != nil {
		return err
	}
	for p := range d.past {
		if filepath.Dir(p) == filepath.Clean(path) {
			delete(d.past, p)
		}
	}
	for p := range d.dirs {
		if filepath.Dir(p) == filepath.Clean(path) {
			d.dirs[p] = true
		}
	}
	return nil
}

// reboot is what a disk can look like after the power came back. keep is how
// likely it is that something that was not flushed is there.
func (d *disk) reboot(r *rand.Rand, keep float64) *disk {
	after := newDisk()
	gone := map[string]bool{}
	for _, p := range slices.Sorted(maps.Keys(d.dirs)) { // those above come first
		if gone[filepath.Dir(p)] || !d.dirs[p] && r.Float64() >= keep {
			gone[p] = true
			continue
		}
		after.dirs[p] = true
	}
	kept := func(dir string) bool { return after.dirs[dir] }
	copies := map[*inode]*inode{} // one file may be there by two names
	for _, p := range slices.Sorted(maps.Keys(d.now)) {
		n := d.now[p]
		if past := d.past[p]; past != nil { // any of its meanings
			switch {
			case keep == 1:
			case r.Float64() >= keep:
				n = past[0]
			default:
				n = past[r.IntN(len(past))]
			}
		}
		if n == nil || !kept(filepath.Dir(p)) {
			continue
		}
		if copies[n] == nil {
			data := n.torn(r, keep)
			copies[n] = &inode{data: data, safe: data}
		}
		after.now[p] = copies[n]
	}
	return after
}

// torn is the content after a power cut: each block as it was flushed, as it was
// written since, or nothing where it is new.
func (n *inode) torn(r *rand.Rand, keep float64) []byte {
	if bytes.Equal(n.safe, n.data) {
		return bytes.Clone(n.safe)
	}
	size := len(n.safe)
	if r.Float64() < keep {
		size = len(n.data)
		if r.IntN(2) == 0 {
			size = r.IntN(len(n.data) + 1)
		}
	}
	out := make([]byte, size)
	copy(out, n.safe)
	for i := 0; i < size; i += block {
		if end := min(i+block, size, len(n.data)); i < end && r.Float64() < keep {
			copy(out[i:end], n.data[i:end])
		}
	}
	return out
}
