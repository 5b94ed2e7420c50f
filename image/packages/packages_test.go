package packages

import (
	"archive/tar"
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseLock(t *testing.T) {
	sum := strings.Repeat("0a", 32)
	tests := []struct {
		name, text, err string
		want            []Package
	}{
		{"good", "# why\n\na-b 1:2-3 " + sum + " # x\nfirmware-x 1 " + sum + " non-free-firmware\n", "",
			[]Package{{"a-b", "1:2-3", sum, ""}, {"firmware-x", "1", sum, "non-free-firmware"}}},
		{"path in the name", "../x 1 " + sum, ":1: package", nil},
		{"option as a name", "-o 1 " + sum, ":1: package", nil},
		{"option as a version", "ab -o6 " + sum, ":1: version", nil},
		{"short hash", "ab 1 " + sum[1:], ":1: sha256", nil},
		{"component", "ab 1 " + sum + " ../x", ":1: component", nil},
		{"two words", "ab 1\n", ":1: want NAME", nil},
		{"twice", "ab 1 " + sum + "\nab 2 " + sum, ":2: ab is there twice", nil},
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

func TestLocked(t *testing.T) {
	ps, err := Locked()
	if err != nil || len(ps) == 0 {
		t.Fatal(ps, err)
	}
	if _, err := Get("no-such"); err == nil || !strings.Contains(err.Error(), "make packages-pin") {
		t.Errorf("error %v, want one that names the way out", err)
	}
	// What Repin writes of the same packages is the same lock.
	same := map[string]Package{}
	for _, p := range ps {
		same[p.Name] = p
	}
	again, err := ParseLock(Repin(lockText, same))
	if d := cmp.Diff(ps, again); err != nil || d != "" {
		t.Errorf("%v (-want +got):\n%s", err, d)
	}
}

func TestRepin(t *testing.T) {
	sum := strings.Repeat("0a", 32)
	got := Repin("# head\n\nab 1 "+sum+" # why\ncd 1 "+sum+"\n", map[string]Package{"ab": {"ab", "2", sum, ""}})
	want := "# head\n\nab                     2                        " + sum + " # why\ncd 1 " + sum + "\n"
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// A .deb whose hash is not the pinned one must not get into the cache.
func TestTreeRefusesAnotherBuild(t *testing.T) {
	deb := filepath.Join(t.TempDir(), "k.deb")
	if err := os.WriteFile(deb, []byte("something else"), 0o644); err != nil {
		t.Fatal(err)
	}
	cache := t.TempDir()
	t.Setenv(EnvCache, cache)
	u := Unpacked{Kind: "x", Pin: "make x-pin", Deb: deb}
	_, err := u.Tree(t.Context(), Package{Name: "ab", Version: "1", SHA256: strings.Repeat("00", 32)})
	if err == nil || !strings.Contains(err.Error(), "make x-pin") {
		t.Errorf("error %v, want one that names the way out", err)
	}
	if left, _ := filepath.Glob(filepath.Join(cache, "x", "*")); len(left) != 1 { // the lock
		t.Errorf("left behind: %v", left)
	}
}

// A kept copy is taken by its hash, another one of that name is not.
func TestKeptDeb(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{"ab_1_all.deb": "one", "ab_2_all.deb": "two", "cd_1_all.deb": "one"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv(EnvDebs, dir)
	sum, err := hashFile(filepath.Join(dir, "ab_2_all.deb"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := Unpacked{}.deb(t.Context(), t.TempDir(), Package{Name: "ab", Version: "1", SHA256: sum})
	if err != nil || filepath.Base(got) != "ab_2_all.deb" {
		t.Error(got, err)
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
		{Name: "./lib/b", Typeflag: tar.TypeSymlink, Linkname: "modules"},
		{Name: "./lib/fifo", Typeflag: tar.TypeFifo},
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
	leaveDoc := func(name string, link bool) (string, bool) {
		return strings.TrimPrefix(name, "usr/"), !strings.Contains(name, "doc")
	}
	if err := Untar(&b, root, leaveDoc); err != nil {
		t.Fatal(err)
	}
	var got []string
	filepath.WalkDir(filepath.Dir(root), func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(root, p)
			got = append(got, rel)
		}
		return nil
	})
	if d := cmp.Diff([]string{"boot/vmlinuz-1", "etc/cron.d/x", "lib/b", "lib/modules/1/a.ko"}, got); d != "" {
		t.Errorf("files (-want +got):\n%s", d)
	}
}

// A file whose name leads through a link out of the folder is refused.
func TestUntarThroughLink(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	out := t.TempDir()
	w.WriteHeader(&tar.Header{Name: "./a", Typeflag: tar.TypeSymlink, Linkname: out, Mode: 0o777})
	w.WriteHeader(&tar.Header{Name: "./a/x", Typeflag: tar.TypeReg, Size: 1, Mode: 0o644})
	w.Write([]byte("x"))
	w.Close()
	if err := Untar(&b, filepath.Join(t.TempDir(), "root"), nil); err == nil {
		t.Error("no error")
	}
	if _, err := os.Stat(filepath.Join(out, "x")); err == nil {
		t.Error("written outside")
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
		Untar(bytes.NewReader(b), filepath.Join(dir, "root"), nil)
		es, _ := os.ReadDir(dir)
		for _, e := range es {
			if e.Name() != "root" {
				t.Errorf("wrote outside: %s", e.Name())
			}
		}
	})
}
