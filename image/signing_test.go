package image

import (
	"bytes"
	"crypto/ed25519"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ballast/image/bundle"
	"ballast/image/layout"
)

// A key is made once, told of, kept from others, and used from then on.
func TestSigningKeys(t *testing.T) {
	name := filepath.Join(t.TempDir(), "sub", "firmware.key")
	var said strings.Builder
	made, err := SigningKeys(name, &said)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(said.String(), name) || !strings.Contains(said.String(), "made a new key") {
		t.Errorf("it says %q", said.String())
	}
	if fi, err := os.Stat(name); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v: want mode 0600", fi.Mode(), err)
	}
	said.Reset()
	again, err := SigningKeys(name, &said)
	if err != nil || said.Len() > 0 || !again[0].Equal(made[0]) {
		t.Errorf("the second time: %v, %q", err, said.String())
	}
	// The second of two is of somebody who should have it: it is not made.
	if _, err := SigningKeys(name+","+name+".old", io.Discard); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("a missing old key: %v", err)
	}
	for text, want := range map[string]string{
		"": "no PEM file", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n": "signing key",
	} {
		bad := filepath.Join(t.TempDir(), "bad.key")
		if err := os.WriteFile(bad, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := SigningKeys(bad, io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// What the image trusts opens what the maker signs, with either of two keys.
func TestTrustedKeys(t *testing.T) {
	one := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	two := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{2}, ed25519.SeedSize))
	text, err := trustedKeys([]ed25519.PrivateKey{one}, []byte("# next year\n"+trustedKey(two).Line()+" next\n"))
	if err != nil {
		t.Fatal(err)
	}
	keys, err := bundle.ParseKeys(text)
	if err != nil || len(keys) != 2 || keys[1].Name != "next" {
		t.Fatalf("%q: %v, %v", text, keys, err)
	}
	id := layout.Identity{Version: "1", Build: 2, Board: "qemu", Kernel: "6"}
	for _, k := range []ed25519.PrivateKey{one, two} {
		var b bytes.Buffer
		if err := Bundle(&b, id, []bundle.File{{Name: bundle.SlotConfig, Data: []byte("x")}, {Name: bundle.Firmware, Data: []byte("y")}}, k); err != nil {
			t.Fatal(err)
		}
		r, err := bundle.Open(&b, keys)
		if err != nil || r.Manifest.Identity != id || r.Manifest.ConfigFormat != layout.ConfigFormat {
			t.Errorf("%+v, %v", r, err)
		}
	}
	if _, err := trustedKeys(nil, []byte("rubbish")); err == nil {
		t.Error("rubbish is trusted")
	}
}

func TestBuildTime(t *testing.T) {
	if n, err := BuildTime(t.Context(), root); err != nil || n < 1_700_000_000 {
		t.Errorf("of this repository: %d, %v", n, err)
	}
	t.Setenv("BUILD", "17")
	if n, err := BuildTime(t.Context(), root); err != nil || n != 17 {
		t.Errorf("BUILD=17: %d, %v", n, err)
	}
	t.Setenv("BUILD", "x")
	if _, err := BuildTime(t.Context(), root); err == nil {
		t.Error("BUILD=x is taken")
	}
}
