package bundle

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Whatever form a user keeps keys in is read, and of what is none he reads what
// he named, what is wrong with it and what would do.
func TestReadKeys(t *testing.T) {
	one, two := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)), ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, ed25519.SeedSize))
	ofRSA, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, der []byte, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	private := func(k any) string {
		der, err := x509.MarshalPKCS8PrivateKey(k)
		return block("PRIVATE KEY", der, err)
	}
	public := func(k any) string {
		der, err := x509.MarshalPKIXPublicKey(k)
		return block("PUBLIC KEY", der, err)
	}
	line := func(k ed25519.PrivateKey, name string) string {
		return Key{Public: k.Public().(ed25519.PublicKey), Name: name}.Line() + "\n"
	}
	key := func(k ed25519.PrivateKey, name string) Key {
		return Key{Public: k.Public().(ed25519.PublicKey), Name: name}
	}
	for _, c := range []struct {
		name, text string
		want       []Key
		err        string
	}{
		{"lines", "# ours\n" + line(one, "maker") + line(two, ""), []Key{key(one, "maker"), key(two, "")}, ""},
		{"private PEM", private(one), []Key{key(one, "")}, ""},
		{"public PEM", public(one.Public()), []Key{key(one, "")}, ""},
		{"text and two in PEM", "of the maker:\n" + public(one.Public()) + private(two), []Key{key(one, ""), key(two, "")}, ""},
		{"nothing", "", nil, "there is no key in it: want lines as: ed25519 BASE64 NAME (a key in PEM will do as well"},
		{"a key of SSH", "ssh-ed25519 AAAA me\n", nil, "keys, line 1: want: ed25519 BASE64 NAME (a key in PEM will do as well"},
		{"half a line", "ed25519 AAAA me\n", nil, "not 32 bytes in base64: copy the whole line"},
		{"RSA, private", private(ofRSA), nil, "PRIVATE KEY: it is a *rsa.PrivateKey: want an ed25519 key"},
		{"RSA, public", public(ofRSA.Public()), nil, "PUBLIC KEY: it is a *rsa.PublicKey: want an ed25519 key"},
		{"damaged, private", block("PRIVATE KEY", []byte{1}, nil), nil, "PRIVATE KEY: it is damaged: copy"},
		{"damaged, public", block("PUBLIC KEY", []byte{1}, nil), nil, "PUBLIC KEY: it is damaged: copy"},
		{"the second damaged", private(one) + block("PUBLIC KEY", []byte{1}, nil), nil, "PUBLIC KEY: it is damaged: copy"},
		{"with a password", block("ENCRYPTED PRIVATE KEY", []byte{1}, nil), nil, "it has a password: \"openssl pkey -in FILE -pubout\""},
		{"a certificate", block("CERTIFICATE", []byte{1}, nil), nil, "CERTIFICATE: want a PUBLIC KEY or PRIVATE KEY of ed25519"},
	} {
		t.Run(c.name, func(t *testing.T) {
			name := filepath.Join(t.TempDir(), "keys")
			if err := os.WriteFile(name, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := ReadKeys(name)
			if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.HasPrefix(err.Error(), "keys to trust: "+name+": ") || !strings.Contains(err.Error(), c.err)) {
				t.Errorf("error %v, want %q", err, c.err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	for name, want := range map[string]string{filepath.Join(t.TempDir(), "none"): "no such file or directory: name a file with them", t.TempDir(): "is a directory: name a file with them"} {
		if _, err := ReadKeys(name); err == nil || !strings.Contains(err.Error(), name+": "+want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

// The user's own key counts where he names none.
func TestTrustedHere(t *testing.T) {
	home := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", home)
	if keys, file, err := TrustedHere(); err != nil || len(keys) > 0 || file != "" {
		t.Errorf("without a key: %v of %q, %v", keys, file, err)
	}
	name := filepath.Join(home, "ballast", "firmware.key")
	k := Key{Public: make([]byte, 32), Name: "me"}
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(k.Line()), 0o600); err != nil {
		t.Fatal(err)
	}
	if keys, file, err := TrustedHere(); err != nil || file != name || len(keys) != 1 || keys[0].Name != "me" {
		t.Errorf("%v of %q, %v", keys, file, err)
	}
	if err := os.WriteFile(name, []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	if keys, _, err := TrustedHere(); err == nil || len(keys) > 0 {
		t.Errorf("a broken key is passed over: %v", keys)
	}
}
