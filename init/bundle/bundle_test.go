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
)

func TestCommand(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", dir)
	put := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
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
		{[]string{"verify", file, stranger}, 1, "this box trusts"},
		{[]string{"verify", cut, lines}, 1, "broke off"},
		{[]string{"verify", long, lines}, 1, "1 bytes follow"},
		{[]string{"verify", file, file}, 1, "keys, line 1"},
		{[]string{"verify", file}, 1, "no key here to trust"},
		{[]string{"verify", filepath.Join(dir, "none")}, 1, "open " + filepath.Join(dir, "none") + ": no such file or directory: give the path of a bundle"},
		{[]string{"verify", file, filepath.Join(dir, "none")}, 1, "no such file or directory\n"},
		{[]string{"inspect", filepath.Join(dir, "none")}, 1, "give the path of a bundle"},
		{[]string{"inspect", file}, 0, "upgrades  in one step from a firmware of 2020-09-13"},
		{[]string{"inspect", lines}, 1, "this is no bundle"},
		{[]string{"verify"}, 2, "usage"},
		{[]string{"help"}, 0, "usage"},
	} {
		var out bytes.Buffer
		if code := Main(c.args, bytes.NewReader(b.Bytes()), &out, &out); code != c.code || !strings.Contains(out.String(), c.want) {
			t.Errorf("%v: %d, %s; want %d, %q", c.args, code, out.String(), c.code, c.want)
		}
	}
	put("ballast/firmware.key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
	var out bytes.Buffer
	if code := Main([]string{"verify", file}, nil, &out, &out); code != 0 {
		t.Errorf("with the maker's own key: %d, %s", code, out.String())
	}
}
