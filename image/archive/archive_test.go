package archive

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
)

func TestBytes(t *testing.T) {
	a := New()
	a.File("/etc/hosts", []byte("127.0.0.1 localhost\n"), 0o644)
	a.Symlink("bin/sh", "/init")
	a.Dir("tmp", 0o1777)
	a.CharDev("dev/console", 0o600, 5, 1)
	a.File("empty", nil, 0o600)
	b, err := a.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	if len(b)%4 != 0 {
		t.Errorf("%d bytes: the next archive would not begin at a multiple of 4", len(b))
	}
	got, err := Read(b)
	if err != nil {
		t.Fatal(err)
	}
	want := []Entry{
		{Name: "bin", Mode: 0o40755, Data: nil},
		{Name: "bin/sh", Mode: 0o120777, Data: []byte("/init")},
		{Name: "dev", Mode: 0o40755},
		{Name: "dev/console", Mode: 0o20600, Device: [2]uint32{5, 1}},
		{Name: "empty", Mode: 0o100600},
		{Name: "etc", Mode: 0o40755},
		{Name: "etc/hosts", Mode: 0o100644, Data: []byte("127.0.0.1 localhost\n")},
		{Name: "tmp", Mode: 0o41777},
	}
	for i := range got {
		if len(got[i].Data) == 0 {
			got[i].Data = nil
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("entries (-want +got):\n%s", d)
	}
}

// The order in which files are added must not show in the result.
func TestDeterministic(t *testing.T) {
	names := []string{"a/b/c", "a/b", "z", "a/d", "lib/modules/x.ko.xz", "lib/modules/y.ko.xz"}
	build := func() []byte {
		a := New()
		for _, i := range rand.Perm(len(names)) {
			if names[i] == "a/b" {
				a.Dir(names[i], 0o700)
				continue
			}
			a.File(names[i], bytes.Repeat([]byte(names[i]), 1000), 0o644)
		}
		b, err := a.Zstd()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	want := build()
	for range 20 {
		if !bytes.Equal(want, build()) {
			t.Fatal("the same content gave different bytes")
		}
	}
	d, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	// The padding behind the frame is for the kernel; a decoder takes it for a bad frame.
	raw, err := d.DecodeAll(bytes.TrimRight(want, "\x00"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if es, err := Read(raw); err != nil || len(es) != 9 {
		t.Errorf("read back %d entries, %v; want 9", len(es), err)
	}
}

func TestMerge(t *testing.T) {
	base := New()
	base.File("bin/bb", []byte("old"), 0o755)
	base.File("etc/keep", []byte("kept"), 0o644)
	b, err := base.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	a := New()
	if err := a.Merge(b); err != nil {
		t.Fatal(err)
	}
	a.File("bin/bb", []byte("new"), 0o755)
	if d := cmp.Diff([]string{"bin", "bin/bb", "etc", "etc/keep"}, a.Names()); d != "" {
		t.Errorf("names (-want +got):\n%s", d)
	}
	out, err := a.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	es, err := Read(out)
	if err != nil {
		t.Fatal(err)
	}
	if string(es[1].Data) != "new" {
		t.Errorf("bin/bb holds %q, want what was added last", es[1].Data)
	}
	if err := a.Merge([]byte("not an archive, and longer than a header of one hundred and ten bytes, so that its magic number is looked at")); err == nil {
		t.Error("rubbish was merged")
	}
}

func TestBadNames(t *testing.T) {
	for _, name := range []string{"", "/", "../etc/passwd", "a/../../b", "a\x00b"} {
		a := New()
		a.File(name, nil, 0o644)
		if _, err := a.Bytes(); err == nil {
			t.Errorf("%q was taken for a name", name)
		}
	}
}

func FuzzRead(f *testing.F) {
	a := New()
	a.File("a/b", []byte("content"), 0o644)
	a.Symlink("l", "a/b")
	b, err := a.Bytes()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:len(b)/2])
	f.Add([]byte("070701"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1<<16 {
			return
		}
		New().Merge(b)
	})
}
