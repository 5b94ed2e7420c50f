package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"

	"ballast/configs/store"
)

// disk is a file system with a power switch. It knows what a real one
// guarantees and no more: the content of a file is safe once it was flushed, a
// name once its folder was.
type disk struct {
	now   map[string]*inode // as programs see it
	safe  map[string]*inode // names that outlive a power cut
	left  int               // steps until the power goes; <0: never
	steps int
}

type inode struct{ data, safe []byte }

var errPower = errors.New("power cut")

func newDisk() *disk {
	return &disk{now: map[string]*inode{}, safe: map[string]*inode{}, left: -1}
}

// step is called before anything that changes the disk.
func (d *disk) step() error {
	d.steps++
	if d.left == 0 {
		return errPower
	}
	if d.left > 0 {
		d.left--
	}
	return nil
}

type handle struct {
	d *disk
	n *inode
}

func (h handle) Write(p []byte) (int, error) {
	if err := h.d.step(); err != nil {
		h.n.data = append(h.n.data, p[:len(p)/2]...) // torn
		return len(p) / 2, err
	}
	h.n.data = append(h.n.data, p...)
	return len(p), nil
}

func (h handle) Sync() error {
	if err := h.d.step(); err != nil {
		return err
	}
	h.n.safe = bytes.Clone(h.n.data)
	return nil
}

func (h handle) Close() error { return nil }

func (d *disk) MkdirAll(string) error { return nil }

func (d *disk) Create(path string) (store.File, error) {
	if err := d.step(); err != nil {
		return nil, err
	}
	n := &inode{}
	d.now[path] = n
	return handle{d, n}, nil
}

func (d *disk) Open(path string) (io.ReadCloser, error) {
	n, ok := d.now[path]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	return io.NopCloser(bytes.NewReader(n.data)), nil
}

func (d *disk) Rename(from, to string) error {
	if err := d.step(); err != nil {
		return err
	}
	d.now[to] = d.now[from]
	delete(d.now, from)
	return nil
}

func (d *disk) Remove(path string) error {
	if err := d.step(); err != nil {
		return err
	}
	delete(d.now, path)
	return nil
}

func (d *disk) List(path string) (names []string, err error) {
	for _, p := range slices.Sorted(maps.Keys(d.now)) {
		if filepath.Dir(p) == filepath.Clean(path) {
			names = append(names, filepath.Base(p))
		}
	}
	return names, nil
}

func (d *disk) SyncDir(path string) error {
	if err := d.step(); err != nil {
		return err
	}
	for p := range d.safe {
		if filepath.Dir(p) == filepath.Clean(path) && d.now[p] == nil {
			delete(d.safe, p)
		}
	}
	for p, n := range d.now {
		if filepath.Dir(p) == filepath.Clean(path) {
			d.safe[p] = n
		}
	}
	return nil
}

// reboot is what a disk can look like after the power came back. What was not
// flushed may be there, may be lost, may be there in part.
func (d *disk) reboot(r *rand.Rand, keep float64) *disk {
	after := newDisk()
	paths := map[string]bool{}
	for p := range d.now {
		paths[p] = true
	}
	for p := range d.safe {
		paths[p] = true
	}
	for _, p := range slices.Sorted(maps.Keys(paths)) {
		n := d.safe[p]
		if d.now[p] != n && r.Float64() < keep {
			n = d.now[p]
		}
		if n == nil {
			continue
		}
		data := n.safe
		if !bytes.Equal(n.safe, n.data) && r.Float64() < keep {
			data = bytes.Clone(n.data[:r.IntN(len(n.data)+1)])
			if len(data) > 0 && r.IntN(2) == 0 {
				clear(data[len(data)/2:]) // blocks that were allocated but not written
			}
		}
		after.now[p] = &inode{data, data}
		after.safe[p] = after.now[p]
	}
	return after
}

// history is a life of a store: commits, files, a roll back, pruning. It calls
// did after each step that returned without an error.
func history(s *store.Store, did func(running uint64, text string)) error {
	for i := 1; i <= 4; i++ {
		ref, err := s.AddBlob("/opt/x", 0o755, fmt.Appendf(nil, "script %d", i))
		if err != nil {
			return err
		}
		if err := s.SetFiles([]store.FileRef{ref}); err != nil {
			return err
		}
		text := fmt.Sprintf("text %d", i)
		n, err := s.Put(store.Generation{Text: text, Meta: store.Meta{Files: s.Files()}})
		if err != nil {
			return err
		}
		if i == 3 { // a commit that the services did not take
			if err := s.Drop(n); err != nil {
				return err
			}
			continue
		}
		if err := s.SetRunning(n); err != nil {
			return err
		}
		did(n, text)
	}
	return nil
}

// The power goes at every single step, and the disk comes back in many shapes:
// the store must open without a fault, and run what the last finished commit
// left, or what the one under way was about to.
func TestPowerCutAtEveryStep(t *testing.T) {
	count := newDisk()
	s, err := store.Open(count, "/s")
	if err != nil {
		t.Fatal(err)
	}
	type state struct {
		n    uint64
		text string
	}
	states := []state{{0, ""}}
	if err := history(s, func(n uint64, text string) { states = append(states, state{n, text}) }); err != nil {
		t.Fatal(err)
	}
	if count.steps < 40 {
		t.Fatalf("only %d steps: the disk is not asked to flush", count.steps)
	}
	for cut := range count.steps {
		for seed := range uint64(40) {
			d := newDisk()
			d.left = cut
			finished := 0
			s, err := store.Open(d, "/s")
			if err == nil {
				err = history(s, func(uint64, string) { finished++ })
			}
			if !errors.Is(err, errPower) {
				t.Fatalf("cut %d: %v", cut, err)
			}
			keep := []float64{0, 1, 0.5, 0.5}[seed%4]
			after := d.reboot(rand.New(rand.NewPCG(uint64(cut), seed)), keep)
			s, err = store.Open(after, "/s")
			where := fmt.Sprintf("cut at step %d, seed %d, after commit %d", cut, seed, finished)
			if err != nil {
				t.Fatalf("%s: %v", where, err)
			}
			if f := s.Faults(); len(f) > 0 {
				t.Fatalf("%s: faults %v", where, f)
			}
			want := states[finished]
			if finished+1 < len(states) && s.Running() == states[finished+1].n {
				want = states[finished+1] // the commit under way made it
			}
			if s.Running() != want.n {
				t.Fatalf("%s: generation %d runs, want %d", where, s.Running(), want.n)
			}
			if want.n > 0 {
				g, err := s.Load(want.n)
				if err != nil || g.Text != want.text {
					t.Fatalf("%s: %q %v", where, g.Text, err)
				}
				for _, ref := range append(s.Files(), g.Files...) {
					if _, err := s.Content(ref); err != nil {
						t.Fatalf("%s: %v", where, err)
					}
				}
			}
			for _, m := range s.List() { // also those that do not run
				if _, err := s.Load(m.Generation); err != nil {
					t.Fatalf("%s: %v", where, err)
				}
			}
			if err := history(s, func(uint64, string) {}); err != nil { // life goes on
				t.Fatalf("%s: %v", where, err)
			}
		}
	}
}

// A disk that fails one step and works again must not confuse the store that
// is open.
func TestFailureAtEveryStep(t *testing.T) {
	count := newDisk()
	s, _ := store.Open(count, "/s")
	history(s, func(uint64, string) {})
	for cut := range count.steps {
		d := newDisk()
		d.left = cut
		s, err := store.Open(d, "/s")
		if err != nil {
			t.Fatal(err)
		}
		var last uint64
		err = history(s, func(n uint64, _ string) { last = n })
		if err == nil {
			t.Fatalf("step %d failed and nobody was told", cut)
		}
		d.left = -1
		if s.Running() != last && s.Running() != 0 {
			if _, err := s.Load(s.Running()); err != nil {
				t.Fatalf("step %d failed: %v", cut, err)
			}
		}
		if err := history(s, func(uint64, string) {}); err != nil {
			t.Fatalf("after step %d failed: %v", cut, err)
		}
	}
}
