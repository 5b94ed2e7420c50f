package bundle

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ballast/image/bundle"
	"ballast/image/layout"
	"ballast/test/lesser"
)

func TestCommand(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", dir)
	put := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	other := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, ed25519.SeedSize))
	var b bytes.Buffer
	err := bundle.Write(&b, bundle.Manifest{Identity: layout.Identity{Version: "1.2", Build: 1_700_000_000, Board: "qemu", Kernel: "6.12"}, ConfigFormat: 1, MinBuild: 1_600_000_000},
		[]bundle.File{{Name: bundle.SlotConfig, Data: []byte("x")}, {Name: bundle.Firmware, Data: make([]byte, 3<<20)}}, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	file := put("good", b.Bytes())
	cut := put("cut", b.Bytes()[:b.Len()-1])
	empty := put("empty", nil)
	mangled := put("mangled", bytes.Replace(b.Bytes(), []byte(`{"format"`), []byte(`x"format"`), 1))
	long := put("long", append(bytes.Clone(b.Bytes()), 'x'))
	lines := put("keys", []byte(bundle.Key{Public: key.Public().(ed25519.PublicKey), Name: "maker"}.Line()))
	stranger := put("stranger", []byte(bundle.Key{Public: other.Public().(ed25519.PublicKey)}.Line()))
	secret := put("key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
	open := put("pub.pem", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}))
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"verify", file, lines}, 0, "1.2 of 2023-11-14 22:13 for qemu, signed by maker SHA256:"},
		{[]string{"verify", file, secret}, 0, "in order"},
		{[]string{"verify", file, open}, 0, "in order"},
		{[]string{"verify", "-", open}, 0, "in order"},
		{[]string{"verify", file, stranger}, 1, "take a bundle of the maker of this firmware (checked with the keys of " + stranger + ")"},
		{[]string{"verify", cut, lines}, 1, cut + ": bundle: the transfer broke off in fw.efi, after 3145727 of 3145728 bytes: unexpected EOF: fetch or send all of it again"},
		{[]string{"verify", empty, lines}, 1, empty + ": bundle: the transfer broke off in its first line: unexpected EOF: fetch or send all of it again"},
		{[]string{"verify", long, lines}, 1, long + ": 1 bytes follow the last part: a box would not look at them: fetch the file again"},
		{[]string{"verify", file, file}, 1, "keys, line 1"},
		{[]string{"verify", file}, 1, "no key here to trust: name a file with one"},
		{[]string{"verify", dir, lines}, 1, dir + " is a folder: give the path of a bundle"},
		{[]string{"verify", filepath.Join(file, "x"), lines}, 1, "not a directory: give the path of a bundle"},
		{[]string{"verify", filepath.Join(dir, "none")}, 1, "open " + filepath.Join(dir, "none") + ": no such file or directory: give the path of a bundle"},
		{[]string{"verify", file, filepath.Join(dir, "none")}, 1, "none: no such file or directory: name a file with them"},
		{[]string{"inspect", filepath.Join(dir, "none")}, 1, "give the path of a bundle"},
		{[]string{"inspect", file}, 0, "upgrades  in one step from a firmware of 2020-09-13"},
		{[]string{"inspect", lines}, 1, "this is no bundle"},
		{[]string{"inspect", mangled}, 1, mangled + ": bundle: manifest: invalid character 'x' looking for beginning of value: the file is damaged: fetch it again"},
		{[]string{"verify"}, 2, "ballast bundle: want verify FILE [KEY], or inspect FILE\nusage"},
		{[]string{"check", file}, 2, "ballast bundle: unknown command \"check\"\nusage"},
		{[]string{"help"}, 0, "usage"},
	} {
		var out bytes.Buffer
		if code := Main(c.args, bytes.NewReader(b.Bytes()), &out, &out); code != c.code || !strings.Contains(out.String(), c.want) {
			t.Errorf("%v: %d, %s; want %d, %q", c.args, code, out.String(), c.code, c.want)
		}
	}
	for _, name := range []string{file, lines} {
		if err := os.Chmod(name, 0); err != nil {
			t.Fatal(err)
		}
		lesser.Files(t, func() {
			var out bytes.Buffer
			if code := Main([]string{"verify", file, lines}, nil, &out, &out); code != 1 || !strings.Contains(out.String(), name+": permission denied: run this as a user who may read it") {
				t.Errorf("%s forbidden: %d, %s", name, code, out.String())
			}
		})
		if err := os.Chmod(name, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put("ballast/firmware.key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
	var out bytes.Buffer
	if code := Main([]string{"verify", file}, nil, &out, &out); code != 0 {
		t.Errorf("with the maker's own key: %d, %s", code, out.String())
	}
}
