package bundle

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"ballast/image/layout"
)

var update = flag.Bool("update", false, "write the golden file anew")

// key is a key of the tests: made of one byte, so that the golden file stays.
func key(b byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{b}, ed25519.SeedSize))
}

func public(k ed25519.PrivateKey, name string) Key {
	return Key{Public: k.Public().(ed25519.PublicKey), Name: name}
}

var (
	maker   = key(1)
	other   = key(2)
	trust   = []Key{public(maker, "maker")}
	anImage = layout.Identity{Version: "1.2.3", Build: 1_700_000_000, Board: "qemu", Kernel: "6.12.117+deb12-amd64"}
)

// someParts are a slot of three chunks and a part that only an installation needs.
func someParts() []File {
	fw := bytes.Repeat([]byte("firmware"), 2*ChunkSize/8+1000)
	return []File{{SlotConfig, []byte("set x=1\n")}, {Firmware, fw}, {BootCode, bytes.Repeat([]byte{0x90}, 440)}}
}

func write(t testing.TB, parts []File, keys ...ed25519.PrivateKey) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, Manifest{Identity: anImage, ConfigFormat: 1}, parts, keys...); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// readAll returns what came out of a bundle, also when it ended with an error.
func readAll(r io.Reader, keys []Key) (parts []File, err error) {
	b, err := Open(r, keys)
	if err != nil {
		return nil, err
	}
	for {
		p, err := b.Next()
		if errors.Is(err, io.EOF) {
			return parts, nil
		}
		if err != nil {
			return parts, err
		}
		data, err := io.ReadAll(p)
		parts = append(parts, File{p.Name, data})
		if err != nil {
			return parts, err
		}
	}
}

func TestRoundTrip(t *testing.T) {
	want := someParts()
	file := write(t, want, maker)
	for name, r := range map[string]io.Reader{
		"at once":     bytes.NewReader(file),
		"in halves":   iotest.HalfReader(bytes.NewReader(file)),
		"with an end": iotest.DataErrReader(bytes.NewReader(file)),
	} {
		got, err := readAll(r, trust)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !slices.EqualFunc(want, got, func(a, b File) bool { return a.Name == b.Name && bytes.Equal(a.Data, b.Data) }) {
			t.Errorf("%s: %d parts came back, and they are others", name, len(got))
		}
	}
	b, err := Open(bytes.NewReader(file), trust)
	if err != nil {
		t.Fatal(err)
	}
	if b.Manifest.Identity != anImage || b.Manifest.Size() != int64(len(file)-len(b.Head)) || !bytes.HasPrefix(file, b.Head) {
		t.Errorf("manifest: %+v, a head of %d bytes", b.Manifest, len(b.Head))
	}
	if len(b.SignedBy) != 1 || b.SignedBy[0].Name != "maker" {
		t.Errorf("signed by %v", b.SignedBy)
	}
}

// What is behind the last part is not read: an ssh client may still hold its
// end open.
func TestReadsNoFurther(t *testing.T) {
	file := write(t, someParts(), maker)
	r := bytes.NewReader(append(file, "more"...))
	b, err := Open(r, trust)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = b.Next() // skips what is not read
	}
	if !errors.Is(err, io.EOF) || r.Len() != 4 {
		t.Errorf("%v, %d bytes left, want 4", err, r.Len())
	}
	if _, err := b.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v", err)
	}
}

func TestGolden(t *testing.T) {
	got := write(t, []File{{SlotConfig, []byte("set x=1\n")}, {Firmware, []byte("firmware")}}, maker, other)
	const name = "testdata/two-keys.bundle"
	if *update {
		if err := os.WriteFile(name, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("the form has changed: firmware in the field cannot read it. If that is meant, raise Format and run with -update")
	}
}

func TestKeys(t *testing.T) {
	both := write(t, someParts(), maker, other)
	for _, c := range []struct {
		name string
		keys []Key
		want string // of the error
	}{
		{"the first", trust, ""},
		{"the second: the old key is retired", []Key{public(other, "new")}, ""},
		{"both", []Key{public(other, "new"), trust[0]}, ""},
		{"a third", []Key{public(key(3), "third")}, "this box trusts third SHA256:"},
		{"none", nil, "is signed by"},
	} {
		_, err := Open(bytes.NewReader(both), c.keys)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !errors.Is(err, ErrUntrusted)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	// One signature that is right is enough, whatever is wrong with another one.
	damaged := bytes.Clone(both)
	damaged[bytes.Index(both, maker.Public().(ed25519.PublicKey))+ed25519.PublicKeySize] ^= 1
	if b, err := Open(bytes.NewReader(damaged), []Key{trust[0], public(other, "new")}); err != nil || len(b.SignedBy) != 1 || b.SignedBy[0].Name != "new" {
		t.Errorf("one of two signatures is damaged: %v", err)
	}
	line := trust[0].Line()
	ks, err := ParseKeys([]byte("# ours\n\n" + line + "\n"))
	if err != nil || len(ks) != 1 || ks[0].Line() != line {
		t.Errorf("%q came back as %v, %v", line, ks, err)
	}
	for text, want := range map[string]string{
		"":                     "no key",
		"rsa AAAA x":           "line 1: want: ed25519",
		"\ned25519":            "line 2: want: ed25519",
		"ed25519 AAAA x":       "not 32 bytes",
		"ed25519 %%% x":        "not 32 bytes",
		line + "\ned25519 A x": "line 2",
	} {
		if _, err := ParseKeys([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// Every byte counts: none may be another one, and none may be missing.
func TestChanged(t *testing.T) {
	parts := []File{{SlotConfig, []byte("set x=1\n")}, {Firmware, bytes.Repeat([]byte("fw"), 50)}}
	file := write(t, parts, maker)
	for i := range file {
		b := bytes.Clone(file)
		b[i] ^= 0x20
		got, err := readAll(bytes.NewReader(b), trust)
		if err == nil {
			t.Errorf("byte %d of %d changed: no error", i, len(file))
		}
		for j, f := range got {
			if !bytes.HasPrefix(parts[j].Data, f.Data) {
				t.Errorf("byte %d changed: %q came out of %s", i, f.Data, f.Name)
			}
		}
		if _, err := readAll(bytes.NewReader(file[:i]), trust); !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), "broke off in") {
			t.Errorf("cut at %d: %v", i, err)
		}
	}
}

// A chunk whose hash is wrong stays in, and so does all behind it.
func TestNothingUnverified(t *testing.T) {
	parts := someParts()
	file := write(t, parts, maker)
	at := bytes.Index(file, []byte("set x=1\n")) + 8 + ChunkSize + 7
	file[at] ^= 1
	got, err := readAll(bytes.NewReader(file), trust)
	if !errors.Is(err, ErrUntrusted) || !strings.Contains(err.Error(), "fw.efi, bytes 1048576 to 2097152") {
		t.Errorf("error %v", err)
	}
	if len(got) != 2 || !bytes.Equal(got[1].Data, parts[1].Data[:ChunkSize]) {
		t.Errorf("%d parts came out, the last with %d bytes: want 2 and one chunk", len(got), len(got[len(got)-1].Data))
	}
	b, err := Open(bytes.NewReader(file), trust)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = b.Next() // a skipped part is checked as well
	}
	if !errors.Is(err, ErrUntrusted) {
		t.Errorf("skipped: %v", err)
	}
	if _, again := b.Next(); !errors.Is(again, ErrUntrusted) {
		t.Errorf("after the fault: %v", again)
	}
}

// A maker's mistake is found though it is signed.
func TestManifestFaults(t *testing.T) {
	good := func() Manifest {
		m, _, err := Peek(bytes.NewReader(write(t, someParts(), maker)))
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	for want, change := range map[string]func(*Manifest){
		"format 2":                  func(m *Manifest) { m.Format = 2 },
		`version "a b"`:             func(m *Manifest) { m.Version = "a b" },
		`board ""`:                  func(m *Manifest) { m.Board = "" },
		"at most 64 characters":     func(m *Manifest) { m.Kernel = strings.Repeat("k", 65) },
		"none below 0":              func(m *Manifest) { m.MinBuild = -1 },
		"chunks of 0 bytes":         func(m *Manifest) { m.ChunkSize = 0 },
		"chunks of 16777216 bytes":  func(m *Manifest) { m.ChunkSize = 16 << 20 },
		"1 parts":                   func(m *Manifest) { m.Parts = m.Parts[:1] },
		"begins with":               func(m *Manifest) { m.Parts[0], m.Parts[1] = m.Parts[1], m.Parts[0] },
		"cannot be the name":        func(m *Manifest) { m.Parts[2].Name = "esp/../x" },
		"part FW.EFI is there":      func(m *Manifest) { m.Parts[2].Name = "FW.EFI" },
		"part fw.efi of -1 bytes":   func(m *Manifest) { m.Parts[1].Size = -1 },
		"100663297 bytes: want 1":   func(m *Manifest) { m.Parts[1].Size = MaxPart + 1 },
		"has 4 chunks: want 3":      func(m *Manifest) { m.Parts[1].Chunks = append(m.Parts[1].Chunks, Hash{}) },
		`"esp/a..b" cannot be the`:  func(m *Manifest) { m.Parts[2].Name = "esp/a..b" },
		"part boot.img is there":    func(m *Manifest) { m.Parts = append(m.Parts, m.Parts[2]); m.Parts[2].Name = "BOOT.IMG" },
		"has 2 chunks: want 3":      func(m *Manifest) { m.Parts[1].Chunks = m.Parts[1].Chunks[:2] },
		"slot.cfg of 65537 bytes":   func(m *Manifest) { m.Parts[0].Size = 65537 },
		"17 parts: want 2 to 16":    func(m *Manifest) { m.Parts = append(m.Parts, make([]Part, 14)...) },
		"cannot be the name of a p": func(m *Manifest) { m.Parts[2].Name = "/etc/passwd" },
	} {
		m := good()
		change(&m)
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Open(bytes.NewReader(head(b, []ed25519.PrivateKey{maker})), trust); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	m := good()
	m.Parts[1].SHA256 = m.Parts[0].SHA256
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	file := head(b, []ed25519.PrivateKey{maker})
	for _, p := range someParts() {
		file = append(file, p.Data...)
	}
	if _, err := readAll(bytes.NewReader(file), trust); err == nil || !strings.Contains(err.Error(), "fw.efi is not what was signed as a whole") {
		t.Errorf("%v: every chunk is right, the whole is not", err)
	}
	for name, c := range map[string]struct{ head, want string }{
		"no bundle":       {"#!/bin/sh\nexec something else", "this is no bundle"},
		"a later one":     {"ballast-bundle 2\nand more", "unknown here"},
		"a huge manifest": {magic + "\xff\xff\xff\xff", "4294967295 bytes"},
		"no signature":    {magic + "\x00\x00\x00\x02{}\x00", "0 signatures"},
		"hundreds":        {magic + "\x00\x00\x00\x02{}\xff", "255 signatures"},
	} {
		if _, err := Open(strings.NewReader(c.head), trust); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	if err := Write(io.Discard, Manifest{Identity: anImage}, someParts()); err == nil {
		t.Error("written without a key")
	}
}

func TestPolicy(t *testing.T) {
	running := anImage
	for _, c := range []struct {
		name   string
		change func(*Manifest)
		words  Words
		want   string // empty: allowed
	}{
		{"newer", func(m *Manifest) { m.Version, m.Build = "1.3.0", m.Build+60 }, Words{}, ""},
		{"another of the same commit", func(m *Manifest) { m.Version += "-dirty" }, Words{}, ""},
		{"the same", func(*Manifest) {}, Words{}, `1.2.3 runs already: add the word "again"`},
		{"the same again", func(*Manifest) {}, Words{Again: true}, ""},
		{"older", func(m *Manifest) { m.Version, m.Build = "1.2.2", m.Build-60 }, Words{}, `1.2.2 of 2023-11-14 22:12 is older than 1.2.3 of 2023-11-14 22:13, which runs: add the word "older"`},
		{"older, told to", func(m *Manifest) { m.Build -= 60 }, Words{Older: true}, ""},
		{"older, the wrong word", func(m *Manifest) { m.Build -= 60 }, Words{Again: true}, `"older"`},
		{"another board", func(m *Manifest) { m.Board = "generic-x86_64" }, Words{Older: true, Again: true}, "for board generic-x86_64, this box is a qemu: take ballast-qemu.bundle"},
		{"a step between", func(m *Manifest) { m.Build, m.MinBuild = m.Build+600, m.Build+300 }, Words{Older: true}, "upgrade to a firmware of 2023-11-14 22:18 or later first"},
		{"least build reached", func(m *Manifest) { m.Build, m.MinBuild = m.Build+600, m.Build }, Words{}, ""},
		{"unknown form", func(m *Manifest) { m.Format = 9 }, Words{Older: true, Again: true}, "format 9"},
	} {
		m := Manifest{Format: Format, Identity: running}
		c.change(&m)
		err := Policy(running, m, c.words)
		var r *Refusal
		if c.want == "" && err != nil || c.want != "" && (!errors.As(err, &r) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	if err := Policy(layout.Identity{}, Manifest{Format: Format, Identity: running}, Words{}); err == nil {
		t.Error("a firmware without an identity takes everything")
	}
}

// FuzzOpen reads bundles of strangers: nothing comes out that was not signed.
func FuzzOpen(f *testing.F) {
	parts := []File{{SlotConfig, []byte("set x=1\n")}, {Firmware, bytes.Repeat([]byte("firmware"), 9)}}
	whole := write(f, parts, maker, other)
	f.Add(whole)
	f.Add(whole[:len(whole)-1])
	f.Add([]byte(magic + "\x00\x00\x00\x02{}\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		Peek(bytes.NewReader(b))
		got, err := readAll(bytes.NewReader(b), trust)
		for i, p := range got {
			if !bytes.HasPrefix(parts[i].Data, p.Data) || err == nil && !bytes.Equal(parts[i].Data, p.Data) {
				t.Errorf("%s: %q came out", p.Name, p.Data)
			}
		}
		if err == nil && len(got) != len(parts) {
			t.Errorf("%d parts and no error", len(got))
		}
	})
}

// FuzzManifest is what a maker may have signed.
func FuzzManifest(f *testing.F) {
	m, _, err := Peek(bytes.NewReader(write(f, someParts(), maker)))
	if err != nil {
		f.Fatal(err)
	}
	b, err := json.Marshal(m)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < 2 || len(b) > MaxManifest {
			return
		}
		r, err := Open(bytes.NewReader(head(b, []ed25519.PrivateKey{maker})), trust)
		if err != nil {
			return
		}
		if err := r.Manifest.check(); err != nil {
			t.Errorf("taken, though %v", err)
		}
		for err == nil {
			_, err = r.Next()
		}
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("no part came: %v", err)
		}
	})
}
