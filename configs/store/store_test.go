package store_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
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
	texts := []string{"", "a\n", "no end of line", "garbage \x00\xff\n\nsha256 x\n", strings.Repeat("x", 1<<20)}
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
