package kernel

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseLock(t *testing.T) {
	sum := strings.Repeat("0a", 32)
	good := "# why\npackage linux-image-6.12.1+deb12-amd64\nversion 6.12.1-1~deb12u1 # x\nsha256 " + sum + "\n"
	tests := []struct {
		name, text, err string
		want            Lock
	}{
		{"good", good, "", Lock{"linux-image-6.12.1+deb12-amd64", "6.12.1-1~deb12u1", sum}},
		{"empty", "", "package", Lock{}},
		{"path in the name", strings.Replace(good, "6.12.1+deb12", "../x", 1), "package", Lock{}},
		{"option as a version", strings.Replace(good, "version 6", "version -o6", 1), "version", Lock{}},
		{"short hash", strings.Replace(good, sum, sum[1:], 1), "sha256", Lock{}},
		{"unknown name", good + "mirror x\n", ":5: unknown name", Lock{}},
		{"three words", good + "package a b\n", ":5: want a name and a value", Lock{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseLock(tt.text)
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Fatalf("error %v, want %q", err, tt.err)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestPinned(t *testing.T) {
	l, err := Pinned()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(l.Release(), "6.12.") {
		t.Errorf("release %q", l.Release())
	}
	if again, err := ParseLock(l.Text()); err != nil || again != l {
		t.Errorf("what Text writes is read as %+v, %v", again, err)
	}
}

// A .deb whose hash is not the pinned one must not get into the cache.
func TestTreeRefusesAnotherBuild(t *testing.T) {
	deb := filepath.Join(t.TempDir(), "k.deb")
	if err := os.WriteFile(deb, []byte("something else"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv(EnvDeb, deb)
	cache := t.TempDir()
	l := Lock{"linux-image-6.12.1-amd64", "6.12.1-1", strings.Repeat("00", 32)}
	_, err := tree(t.Context(), cache, l)
	if err == nil || !strings.Contains(err.Error(), "make kernel-pin") {
		t.Errorf("error %v, want one that names the way out", err)
	}
	if left, _ := filepath.Glob(filepath.Join(cache, "kernel", "*")); len(left) != 1 { // the lock
		t.Errorf("left behind: %v", left)
	}
}

// What the archive has dropped: the error says what to do.
func TestTreeDroppedVersion(t *testing.T) {
	bin := t.TempDir()
	script := "#!/bin/sh\necho \"E: Version '6.12.1-1' for 'linux-image-6.12.1-amd64' was not found\" >&2\nexit 100\n"
	if err := os.WriteFile(filepath.Join(bin, "apt-get"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	t.Setenv(EnvDeb, "")
	_, err := tree(t.Context(), t.TempDir(), Lock{"linux-image-6.12.1-amd64", "6.12.1-1", strings.Repeat("00", 32)})
	for _, want := range []string{"was not found", "apt-get update", "make kernel-pin", EnvDeb} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v lacks %q", err, want)
		}
	}
}

func TestUntar(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []tar.Header{
		{Name: "./boot/vmlinuz-1", Typeflag: tar.TypeReg, Size: 1},
		{Name: "./usr/lib/modules/1/a.ko", Typeflag: tar.TypeReg, Size: 1},
		{Name: "./boot/../../../etc/cron.d/x", Typeflag: tar.TypeReg, Size: 1},
		{Name: "./usr/share/doc/x", Typeflag: tar.TypeReg, Size: 1},
		{Name: "./lib/modules/1/build", Typeflag: tar.TypeSymlink, Linkname: "/etc"},
	} {
		h.Mode = 0o4755
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			w.Write([]byte("x"))
		}
	}
	w.Close()
	root := filepath.Join(t.TempDir(), "root")
	if err := untar(&b, root); err != nil {
		t.Fatal(err)
	}
	var got []string
	filepath.WalkDir(filepath.Dir(root), func(p string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(root, p)
			got = append(got, rel)
		}
		return nil
	})
	if d := cmp.Diff([]string{"boot/vmlinuz-1", "lib/modules/1/a.ko"}, got); d != "" {
		t.Errorf("files (-want +got):\n%s", d)
	}
}

func FuzzUntar(f *testing.F) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	w.WriteHeader(&tar.Header{Name: "./boot/a", Typeflag: tar.TypeReg, Size: 1, Mode: 0o644})
	w.Write([]byte("x"))
	w.Close()
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1<<16 {
			return
		}
		dir := t.TempDir()
		untar(bytes.NewReader(b), filepath.Join(dir, "root"))
		es, _ := os.ReadDir(dir)
		for _, e := range es {
			if e.Name() != "root" {
				t.Errorf("wrote outside: %s", e.Name())
			}
		}
	})
}
