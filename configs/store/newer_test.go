package store_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ballast/configs/store"
)

// later makes a file of the store one that a firmware of the next form wrote.
func later(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	first, rest, _ := bytes.Cut(b, []byte("\n"))
	b = append([]byte(strings.TrimSuffix(string(first), "1")+"2\n"), bytes.ToUpper(rest)...) // whatever it is, it is another form
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return b
}

// What a newer firmware stored stays byte for byte, whatever this one does, and
// the newest generation that this one can read runs.
func TestNewerForm(t *testing.T) {
	dir := t.TempDir()
	s := open(t, store.Disk{}, dir)
	old := put(t, s, "old")
	script, err := s.AddBlob("/opt/x", 0o755, []byte("only the newer one names me"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SetFiles([]store.FileRef{script}); err != nil {
		t.Fatal(err)
	}
	newest := put(t, s, "new")
	files := map[string][]byte{}
	for _, name := range []string{"running", "generations/00000002"} {
		path := filepath.Join(dir, name)
		files[path] = later(t, path)
	}
	blob := filepath.Join(dir, "blobs", script.Sum)

	s = open(t, store.Disk{}, dir)
	if len(s.Faults()) > 0 || s.Running() != old || len(s.List()) != 1 || !s.IsNewer(newest, store.Firmware{}) || s.IsNewer(old, store.Firmware{}) {
		t.Fatalf("faults %v, running %d, %v", s.Faults(), s.Running(), s.List())
	}
	if !strings.Contains(s.Newer(), "it is of format 2, and this firmware knows 1") {
		t.Errorf("it says %q", s.Newer())
	}
	if _, err := s.Load(newest); err == nil || !strings.Contains(err.Error(), "a newer one wrote it") {
		t.Errorf("loaded: %v", err)
	}
	// A commit of this firmware: it gets a number of its own and runs here.
	if err := s.SetFiles(nil); err != nil {
		t.Fatal(err)
	}
	n := put(t, s, "here")
	if n != newest+1 {
		t.Errorf("generation %d, want %d", n, newest+1)
	}
	for range store.Keep + 10 {
		n = put(t, s, "and on")
	}
	s = open(t, store.Disk{}, dir)
	if s.Running() != n || len(s.Faults()) > 0 {
		t.Errorf("running %d, want %d; %v", s.Running(), n, s.Faults())
	}
	for path, want := range files {
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s was touched: %v", path, err)
		}
	}
	if _, err := os.Stat(blob); err != nil {
		t.Errorf("a script of the newer firmware is gone: %v", err)
	}
}

// The newer firmware ran in between, and stored something that this one can read:
// that counts, not what this one stored before.
func TestNewerFormRanAgain(t *testing.T) {
	dir := t.TempDir()
	s := open(t, store.Disk{}, dir)
	put(t, s, "old")
	later(t, filepath.Join(dir, "running"))
	s = open(t, store.Disk{}, dir)
	here := put(t, s, "here") // into the pointer of its own
	// The newer one keeps to its own pointer; the generation is one of today's form.
	own, err := os.ReadFile(filepath.Join(dir, "running.1"))
	if err != nil {
		t.Fatal(err)
	}
	there := put(t, s, "there")
	if err := os.WriteFile(filepath.Join(dir, "running.1"), own, 0o600); err != nil {
		t.Fatal(err)
	}
	s = open(t, store.Disk{}, dir)
	if s.Running() != there {
		t.Errorf("running %d, want %d, which came after %d", s.Running(), there, here)
	}
}

// Each generation tells which firmware stored it.
func TestFirmware(t *testing.T) {
	dir := t.TempDir()
	s := open(t, store.Disk{}, dir)
	before := put(t, s, "before there was such a thing")
	s.SetFirmware(store.Firmware{Version: "1.2", Build: 200})
	n := put(t, s, "x")
	s = open(t, store.Disk{}, dir)
	if g, err := s.Load(n); err != nil || g.Firmware != (store.Firmware{Version: "1.2", Build: 200}) {
		t.Errorf("%+v, %v", g.Meta, err)
	}
	for _, c := range []struct {
		build int64
		want  bool
	}{{100, true}, {200, false}, {300, false}, {0, false}} {
		if got := s.IsNewer(n, store.Firmware{Build: c.build}); got != c.want {
			t.Errorf("seen by a firmware of %d: %v, want %v", c.build, got, c.want)
		}
	}
	if s.IsNewer(before, store.Firmware{Build: 1}) {
		t.Error("what is not known is newer")
	}
}
