package fat

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// memory is a device.
type memory []byte

func (m memory) ReadAt(b []byte, at int64) (int, error) {
	if at < 0 || at > int64(len(m)) {
		return 0, io.EOF
	}
	n := copy(b, m[at:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (m memory) WriteAt(b []byte, at int64) (int, error) {
	if at < 0 || at+int64(len(b)) > int64(len(m)) {
		return 0, io.ErrShortWrite
	}
	return copy(m[at:], b), nil
}

const size = 40 << 20

func nosync() error { return nil }

// make writes a file system with some files.
func makeFS(t testing.TB, d memory, files map[string][]byte, order ...string) {
	t.Helper()
	w, err := Create(d, int64(len(d)), Options{Label: "TEST", Serial: 0x12345678, Time: time.Unix(1_700_000_000, 0)})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range order {
		f, err := w.Create(name, int64(len(files[name])))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(f, bytes.NewReader(files[name])); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Open(d, size); err == nil {
		t.Error("it can be read before it is whole")
	}
	if err := w.Close(nosync); err != nil {
		t.Fatal(err)
	}
}

func TestWriteRead(t *testing.T) {
	d := make(memory, size)
	files := map[string][]byte{
		"a.txt": []byte("a"), "EFI/BOOT/BOOTX64.EFI": bytes.Repeat([]byte("0123456789"), 100_000), "EFI/b": {}, "dir/file.x": bytes.Repeat([]byte{7}, 512),
	}
	makeFS(t, d, files, "a.txt", "EFI/BOOT/BOOTX64.EFI", "EFI/b", "dir/file.x")
	fs, err := Open(d, size)
	if err != nil {
		t.Fatal(err)
	}
	if fs.Serial != 0x12345678 {
		t.Errorf("serial %x", fs.Serial)
	}
	all, err := fs.Files()
	if diff := cmp.Diff([]string{"/a.txt", "/EFI/BOOT/BOOTX64.EFI", "/EFI/b", "/dir/file.x"}, all); err != nil || diff != "" {
		t.Error(err, diff)
	}
	for name, want := range files {
		f, err := fs.Open("/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if len(want) > 0 {
			at, err := f.Offset()
			if err != nil || !bytes.HasPrefix(d[at:], want[:min(len(want), 512)]) {
				t.Errorf("%s at %d: %v", name, at, err)
			}
		}
		if got, err := io.ReadAll(f); err != nil || !bytes.Equal(got, want) || f.Size != int64(len(want)) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	for _, name := range []string{"/b.txt", "/EFI", "/EFI/BOOT", "/a.txt/x", "/", "/dir/FILE.Y"} {
		if _, err := fs.Open(name); err == nil {
			t.Errorf("%s is a file", name)
		} else if !errors.Is(err, ErrNoFile) && name != "/" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := fs.Open("/DIR/File.X"); err == nil {
		t.Error("mixed letters are no name here")
	}
	if _, err := fs.Open("/DIR/FILE.X"); err != nil {
		t.Errorf("capitals are the same name: %v", err)
	}
}

func TestCreateRefuses(t *testing.T) {
	if _, err := Create(make(memory, 1<<20), 1<<20, Options{}); err == nil {
		t.Error("1 MiB is FAT32")
	}
	if _, err := plan(MinSize + 64*sector); err != nil {
		t.Error(err)
	}
	d := make(memory, size)
	w, err := Create(d, size, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"toolong12.x", "a.long", "", "a b", "a.", "Mixed.x", "ü"} {
		if _, err := w.Create(name, 1); err == nil {
			t.Errorf("%q is a name", name)
		}
	}
	if _, err := w.Create("big", size); err == nil {
		t.Error("a file larger than the disk")
	}
	f, err := w.Create("a", 4)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Create("b", 1); err == nil || !strings.Contains(err.Error(), "missing") {
		t.Errorf("a file that is not whole: %v", err)
	}
	if err := w.Close(nosync); err == nil {
		t.Error("a file that is not whole")
	}
	if _, err := f.Write([]byte("12345")); err == nil {
		t.Error("more than was announced")
	}
	if _, err := f.Write([]byte("1234")); err != nil {
		t.Error(err)
	}
	if _, err := w.Create("A", 1); err == nil {
		t.Error("the same name twice")
	}
}

// A file need not be contiguous, and a chain that leads nowhere is told.
func TestChain(t *testing.T) {
	d := make(memory, size)
	content := bytes.Repeat([]byte("abcdefgh"), 512) // of eight clusters
	makeFS(t, d, map[string][]byte{"f": content}, "f")
	fs, err := Open(d, size)
	if err != nil {
		t.Fatal(err)
	}
	at := func(c uint32) []byte { return d[fs.fat+int64(c)*4:][:4] }
	// Swap the third cluster with one far away.
	const far = 40_000
	copy(d[fs.offset(far):], d[fs.offset(5):fs.offset(6)])
	clear(d[fs.offset(5):fs.offset(6)])
	copy(at(4), []byte{0x40, 0x9c, 0, 0xf0}) // the upper four bits mean nothing
	copy(at(far), at(5))
	read := func() ([]byte, error) {
		f, err := fs.Open("f")
		if err != nil {
			return nil, err
		}
		return io.ReadAll(f)
	}
	if b, err := read(); err != nil || !bytes.Equal(b, content) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	for name, link := range map[string][]byte{"behind the end": {0xff, 0xff, 0xff, 1}, "free": {0, 0, 0, 0}, "early end": {0xff, 0xff, 0xff, 0x0f}} {
		copy(at(4), link)
		if _, err := read(); err == nil || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzOpen(f *testing.F) {
	d := make(memory, size)
	makeFS(f, d, map[string][]byte{"dir/file": []byte("content")}, "dir/file")
	// What a fuzzer can change: the boot sector, the table's beginning, the folders.
	fs, err := Open(d, size)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(d[:sector]), []byte(d[fs.fat:fs.fat+64]), []byte(d[fs.data:fs.data+4*fs.cluster]))
	f.Fuzz(func(t *testing.T, boot, table, folders []byte) {
		c := make(memory, 1<<20)
		copy(c[fs.fat:], table[:min(len(table), 4096)])
		copy(c[fs.data:], folders[:min(len(folders), 4096)])
		copy(c, boot[:min(len(boot), sector)])
		fs, err := Open(c, size)
		if err != nil {
			return
		}
		fs.Files()
		if f, err := fs.Open("dir/file"); err == nil {
			io.CopyN(io.Discard, f, 1<<20)
		}
	})
}

// Close makes it readable when all else is on the disk, and ends when that is
// there too. Both tables are the same.
func TestCloseOrder(t *testing.T) {
	d := make(memory, size)
	w, err := Create(d, size, Options{})
	if err != nil {
		t.Fatal(err)
	}
	f, err := w.Create("/a", 10_000)
	if err == nil {
		_, err = f.Write(make([]byte, 10_000))
	}
	if err != nil {
		t.Fatal(err)
	}
	var kept []bool // at each sync: whether it can be read
	err = w.Close(func() error {
		_, err := Open(d, size)
		kept = append(kept, err == nil)
		return nil
	})
	if diff := cmp.Diff([]bool{false, true}, kept); err != nil || diff != "" {
		t.Errorf("%v, %s", err, diff)
	}
	if a, b := d[w.fat:w.fat+w.fatSize], d[w.fat+w.fatSize:w.fat+2*w.fatSize]; !bytes.Equal(a, b) {
		t.Error("the tables differ")
	}
	if free := int64(w.clusters) + rootCluster - int64(w.next); free < 1 {
		t.Error("nothing is free")
	} else if _, err := w.take(free*w.cluster + 1); err == nil {
		t.Error("there is room for a cluster too many")
	}
	g, err := Open(d, size)
	if err != nil {
		t.Fatal(err)
	}
	file, err := g.Open("/a")
	if err != nil || file.Contiguous() != nil {
		t.Fatalf("%v, %v", err, file.Contiguous())
	}
	// The first cluster is followed by the third.
	copy(d[w.fat+4*int64(file.at):], []byte{byte(file.at + 2), 0, 0, 0})
	if err := file.Contiguous(); err == nil {
		t.Error("a file in pieces is taken for one")
	}
}
