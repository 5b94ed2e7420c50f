package kernel

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ballast/image/packages"
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
	t.Setenv(packages.EnvCache, cache)
	l := Lock{"linux-image-6.12.1-amd64", "6.12.1-1", strings.Repeat("00", 32)}
	_, err := tree(t.Context(), l)
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
	t.Setenv(packages.EnvCache, t.TempDir())
	_, err := tree(t.Context(), Lock{"linux-image-6.12.1-amd64", "6.12.1-1", strings.Repeat("00", 32)})
	for _, want := range []string{"was not found", "apt-get update", "make kernel-pin", packages.EnvDebs} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v lacks %q", err, want)
		}
	}
}

func TestKeep(t *testing.T) {
	for _, tt := range []struct {
		name, to string
		link, ok bool
	}{
		{"boot/vmlinuz-1", "boot/vmlinuz-1", false, true},
		{"usr/lib/modules/1/a.ko", "lib/modules/1/a.ko", false, true},
		{"usr/share/doc/x", "", false, false},
		{"lib/modules/1/build", "", true, false},
	} {
		if to, ok := keep(tt.name, tt.link); ok != tt.ok || ok && to != tt.to {
			t.Errorf("%s: %s %v", tt.name, to, ok)
		}
	}
}
