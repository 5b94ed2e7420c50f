package store_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"ballast/configs/store"

	"github.com/google/go-cmp/cmp"
)

func open(t *testing.T, fs store.FS, dir string) *store.Store {
	t.Helper()
	s, err := store.Open(fs, dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func put(t *testing.T, s *store.Store, text string) uint64 {
	t.Helper()
	n, err := s.Put(store.Generation{Text: text, Meta: store.Meta{Source: "commit", Author: "me", Time: time.Unix(1000, 0).UTC(), Files: s.Files()}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SetRunning(n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestRoundTrip(t *testing.T) {
	dir := t.TempDir()
	s := open(t, store.Disk{}, dir)
	ref, err := s.AddBlob("/etc/keepalived/x.sh", 0o755, []byte("exit 0\n"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SetFiles([]store.FileRef{ref}); err != nil {
		t.Fatal(err)
	}
	texts := []string{"", "a\n", "no end of line", "garbage \x00\xff\n\nsha256 x\n", "x\ncrc32 0123456789abcdef\n", strings.Repeat("x", 1<<20)}
	for _, text := range texts {
		put(t, s, text)
	}
	s = open(t, store.Disk{}, dir)
	if len(s.Faults()) > 0 || s.Running() != uint64(len(texts)) || s.Previous() != uint64(len(texts))-1 {
		t.Fatalf("faults %v, running %d, previous %d", s.Faults(), s.Running(), s.Previous())
	}
	for i, text := range texts {
		g, err := s.Load(uint64(i + 1))
		if err != nil || g.Text != text || g.Author != "me" || len(g.Files) != 1 {
			t.Errorf("generation %d: %v %+v", i+1, err, g.Meta)
		}
	}
	if b, err := s.Content(s.Files()[0]); err != nil || string(b) != "exit 0\n" {
		t.Errorf("content %q %v", b, err)
	}
	if _, err := s.Load(99); !errors.Is(err, store.ErrNone) {
		t.Errorf("a generation that is not there: %v", err)
	}
	st, err := os.Stat(filepath.Join(dir, "generations", "00000001"))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode of a generation: %v %v, want 0600: it holds secrets", st.Mode(), err)
	}
}

// TestOldChecksum: what earlier releases wrote, with a SHA-256 at the end, is
// still read, and no less looked at.
func TestOldChecksum(t *testing.T) {
	dir := t.TempDir()
	s := open(t, store.Disk{}, dir)
	n := put(t, s, "vrrp_instance VI_1 {\n}\n")
	path := filepath.Join(dir, "generations", "00000001")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	body := b[:strings.LastIndex(string(b), "\ncrc32 ")]
	old := func(body []byte) []byte {
		return fmt.Appendf(nil, "%s\nsha256 %x\n", body, sha256.Sum256(body))
	}
	os.WriteFile(path, old(body), 0o600)
	if g, err := s.Load(n); err != nil || g.Text != "vrrp_instance VI_1 {\n}\n" {
		t.Errorf("%v %q", err, g.Text)
	}
	for i := range old(body) {
		bad := old(body)
		bad[i] ^= 1
		os.WriteFile(path, bad, 0o600)
		if _, err := s.Load(n); !errors.Is(err, store.ErrDamaged) {
			t.Fatalf("byte %d altered: %v", i, err)
		}
	}
}

// Every single bit that flips on the disk must be found out.
func TestDamageIsDetected(t *testing.T) {
	dir := t.TempDir()
	s := open(t, store.Disk{}, dir)
	ref, _ := s.AddBlob("/opt/x", 0o755, []byte("content"))
	s.SetFiles([]store.FileRef{ref})
	n := put(t, s, "vrrp_instance VI_1 {\n}\n")
	path := filepath.Join(dir, "generations", "00000001")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range whole {
		bad := append([]byte{}, whole...)
		bad[i] ^= 1
		os.WriteFile(path, bad, 0o600)
		if _, err := s.Load(n); !errors.Is(err, store.ErrDamaged) {
			t.Fatalf("byte %d altered: %v", i, err)
		}
		os.WriteFile(path, whole[:i], 0o600)
		if _, err := s.Load(n); !errors.Is(err, store.ErrDamaged) {
			t.Fatalf("cut at %d: %v", i, err)
		}
		if s2 := open(t, store.Disk{}, dir); s2.Running() != n {
			t.Fatalf("cut at %d: the pointer moved", i)
		}
	}
	os.WriteFile(path, whole, 0o600)
	blob := filepath.Join(dir, "blobs", ref.Sum)
	os.WriteFile(blob, []byte("CONTENT"), 0o600)
	if _, err := s.Content(ref); !errors.Is(err, store.ErrDamaged) {
		t.Errorf("altered file: %v", err)
	}
	if _, err := s.AddBlob("/opt/x", 0o755, []byte("content")); err != nil {
		t.Errorf("a damaged file is mended by putting it again: %v", err)
	}
	if _, err := s.Content(ref); err != nil {
		t.Errorf("mended: %v", err)
	}
	pointer := filepath.Join(dir, "running")
	os.WriteFile(pointer, []byte("junk"), 0o600)
	s = open(t, store.Disk{}, dir)
	if len(s.Faults()) != 1 || s.Running() != n || len(s.Files()) != 1 {
		t.Errorf("lost pointer: faults %v, running %d, files %v", s.Faults(), s.Running(), s.Files())
	}
}

func TestHundredAreKept(t *testing.T) {
	s := open(t, store.Memory(), "/")
	ref, _ := s.AddBlob("/opt/old", 0o755, []byte("old"))
	s.SetFiles([]store.FileRef{ref})
	put(t, s, "first")
	s.SetFiles(nil)
	for i := range 150 {
		put(t, s, fmt.Sprint(i))
	}
	list := s.List()
	if len(list) != store.Keep+1 || list[0].Generation != 151 || list[len(list)-1].Generation != 51 {
		t.Errorf("%d kept, %d to %d", len(list), list[len(list)-1].Generation, list[0].Generation)
	}
	if _, err := s.Content(ref); err == nil {
		t.Error("the file of a generation that is gone is still there")
	}
	if _, err := s.Load(1); !errors.Is(err, store.ErrNone) {
		t.Errorf("generation 1: %v", err)
	}
}

func TestUnfinishedAndNumbers(t *testing.T) {
	fs := store.Memory()
	s := open(t, fs, "/")
	put(t, s, "one")
	n, _ := s.Put(store.Generation{Text: "two"})
	s = open(t, fs, "/")
	if s.Running() != 1 || !cmp.Equal(s.Unfinished(), []uint64{n}) {
		t.Fatalf("running %d, unfinished %v", s.Running(), s.Unfinished())
	}
	if err := s.Drop(n); err != nil {
		t.Fatal(err)
	}
	if err := s.Drop(1); err == nil {
		t.Error("the running generation was dropped")
	}
	s = open(t, fs, "/")
	if got, _ := s.Reserve(); got != n+1 {
		t.Errorf("next number %d: the one of a dropped generation was given out again", got)
	}
	s = open(t, fs, "/")
	if got := put(t, s, "three"); got != n+2 {
		t.Errorf("next number %d", got)
	}
}

func TestLimits(t *testing.T) {
	s := open(t, store.Memory(), "/")
	if _, err := s.Put(store.Generation{Text: strings.Repeat("x", store.MaxText+1)}); err == nil {
		t.Error("a text over the limit was stored")
	}
	if _, err := s.AddBlob("/opt/x", 0o755, make([]byte, store.MaxFile+1)); err == nil {
		t.Error("a file over the limit was stored")
	}
	if err := s.SetFiles(make([]store.FileRef, store.MaxFiles+1)); err == nil {
		t.Error("too many files were stored")
	}
}

func FuzzLoad(f *testing.F) {
	fs := store.Memory()
	s, _ := store.Open(fs, "/")
	s.Put(store.Generation{Text: "a { b }\n"})
	r, _ := fs.Open("/generations/00000001")
	good := make([]byte, 4096)
	n, _ := r.Read(good)
	f.Add(good[:n])
	f.Add([]byte("ballast generation 1\n{}\n"))
	f.Add([]byte("ballast generation 1\n"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		fs := store.Memory()
		for _, name := range []string{"/generations/00000001", "/running"} {
			w, _ := fs.Create(name)
			w.Write(b)
		}
		s, err := store.Open(fs, "/")
		if err != nil {
			t.Fatal(err)
		}
		s.Load(1)
		if got := put(t, s, "next"); got < 2 {
			t.Fatalf("number %d was given out again", got)
		}
	})
}

// small is a disk of so many bytes.
type small struct {
	store.FS
	room  int
	sizes map[string]int
}

type smallFile struct {
	store.File
	disk *small
	path string
}

func (f smallFile) Write(b []byte) (int, error) {
	if f.disk.room < len(b) {
		return 0, &os.PathError{Op: "write", Path: f.path, Err: syscall.ENOSPC}
	}
	f.disk.room -= len(b)
	f.disk.sizes[f.path] += len(b)
	return f.File.Write(b)
}

func (d *small) forget(path string) {
	d.room += d.sizes[path]
	delete(d.sizes, path)
}

func (d *small) Create(path string) (store.File, error) {
	d.forget(path)
	f, err := d.FS.Create(path)
	return smallFile{f, d, path}, err
}

func (d *small) Rename(from, to string) error {
	d.forget(to)
	d.sizes[to] = d.sizes[from]
	delete(d.sizes, from)
	return d.FS.Rename(from, to)
}

func (d *small) Remove(path string) error {
	d.forget(path)
	return d.FS.Remove(path)
}

// History is worth less than the next commit: on a small disk older
// generations make room for it.
func TestFullDisk(t *testing.T) {
	d := &small{store.Memory(), 100_000, map[string]int{}}
	s := open(t, d, "/")
	file := func(b byte) {
		t.Helper()
		ref, err := s.AddBlob("/opt/x", 0o755, bytes.Repeat([]byte{b}, 10_000))
		if err == nil {
			err = s.SetFiles([]store.FileRef{ref})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range byte(20) {
		file(i)
		put(t, s, strings.Repeat("x", 9_000))
	}
	s = open(t, d, "/")
	if len(s.Faults()) > 0 || s.Running() != 20 || s.Previous() != 19 {
		t.Fatalf("faults %v, running %d, previous %d", s.Faults(), s.Running(), s.Previous())
	}
	for _, m := range s.List() {
		if g, err := s.Load(m.Generation); err != nil || len(g.Files) != 1 {
			t.Errorf("generation %d: %v", m.Generation, err)
		} else if _, err := s.Content(g.Files[0]); err != nil {
			t.Errorf("generation %d: %v", m.Generation, err)
		}
	}
	// What can never fit is an error, and what runs and the one before stay.
	if _, err := s.Put(store.Generation{Text: strings.Repeat("x", 90_000)}); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("90,000 bytes beside what must stay: %v", err)
	}
	if s.Running() != 20 || s.Previous() != 19 {
		t.Errorf("running %d, previous %d", s.Running(), s.Previous())
	}
}

// The files are also in the memory of the box, within the limit of conf.
func TestFilesTogether(t *testing.T) {
	s := open(t, store.Memory(), "/")
	var refs []store.FileRef
	for i := range store.MaxFilesTotal/store.MaxFile + 1 {
		refs = append(refs, store.FileRef{Path: fmt.Sprintf("/opt/%d", i), Size: store.MaxFile})
	}
	if err := s.SetFiles(refs); err == nil || !strings.Contains(err.Error(), "together") {
		t.Errorf("%d files of %d bytes: %v", len(refs), store.MaxFile, err)
	}
	if err := s.SetFiles(refs[1:]); err != nil {
		t.Error(err)
	}
}
