package image

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"ballast/image/bundle"
	"ballast/image/layout"
)

// MinBuild is the oldest firmware that may upgrade to this one in one step
// (bundle.Manifest). It is raised when something is removed without which an
// older firmware cannot be left in one step.
const MinBuild = 0

// KeyFile is where the maker's key is unless told otherwise.
func KeyFile() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("image: %w: name the signing key: make image KEY=FILE", err)
	}
	return filepath.Join(dir, "ballast", "firmware.key"), nil
}

// SigningKeys are the keys in files that commas separate; none is KeyFile. The
// first one is made when it is not there yet, and log says so.
func SigningKeys(files string, log io.Writer) ([]ed25519.PrivateKey, error) {
	var keys []ed25519.PrivateKey
	if files == "" {
		name, err := KeyFile()
		if err != nil {
			return nil, err
		}
		files = name
	}
	for i, name := range strings.Split(files, ",") {
		k, err := readKey(name)
		if i == 0 && errors.Is(err, fs.ErrNotExist) {
			if k, err = makeKey(name); err == nil {
				fmt.Fprintf(log, "%s: made a new key to sign firmware with, %s.\n"+
					"  Keep a copy where nobody else reads it: boxes that run this firmware take upgrades only from who has it.\n", name, trustedKey(k))
			}
		}
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	return keys, nil
}

func readKey(name string) (ed25519.PrivateKey, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("image: signing key: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, fmt.Errorf("image: signing key %s: it is no PEM file with a PRIVATE KEY: openssl genpkey -algorithm ed25519 makes one", name)
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("image: signing key %s: %w", name, err)
	}
	key, ok := k.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("image: signing key %s: it is a %T: want an ed25519 key: openssl genpkey -algorithm ed25519 makes one", name, k)
	}
	return key, nil
}

func makeKey(name string) (ed25519.PrivateKey, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("image: signing key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("image: signing key: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return nil, fmt.Errorf("image: signing key: %w", err)
	}
	return key, writeFile(name, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
}

// trustedKey is the public half, called by its hash alone: two people with the
// same key make the same image.
func trustedKey(k ed25519.PrivateKey) bundle.Key {
	return bundle.Key{Public: k.Public().(ed25519.PublicKey)}
}

// trustedKeys is layout.KeysFile for an image whose bundles keys sign. trust
// has the lines of further keys: the next one of this maker, for example.
func trustedKeys(keys []ed25519.PrivateKey, trust []byte) ([]byte, error) {
	text := ""
	for _, k := range keys {
		text += trustedKey(k).Line() + "\n"
	}
	if len(trust) > 0 {
		more, err := bundle.ParseKeys(trust)
		if err != nil {
			return nil, fmt.Errorf("image: further keys to trust: %w", err)
		}
		for _, k := range more {
			text += k.Line() + "\n"
		}
	}
	return []byte(text), nil
}

// BuildTime orders the firmwares that are made from the sources at root: the
// BUILD variable of the environment, else the time of the newest commit, else 0.
func BuildTime(ctx context.Context, root string) (int64, error) {
	if v := os.Getenv("BUILD"); v != "" {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil || n < 0 {
			return 0, fmt.Errorf("image: BUILD=%s: want seconds since 1970", v)
		}
		return n, nil
	}
	out, err := git(ctx, root, "log", "-1", "--format=%ct")
	if err != nil {
		return 0, nil // sources without their history
	}
	n, err := strconv.ParseInt(out, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("image: time of the newest commit: %w", err)
	}
	return n, nil
}

// Bundle writes the signed upgrade of a firmware.
func Bundle(w io.Writer, id layout.Identity, parts []bundle.File, keys ...ed25519.PrivateKey) error {
	return bundle.Write(w, bundle.Manifest{Identity: id, ConfigFormat: layout.ConfigFormat, MinBuild: MinBuild}, parts, keys...)
}

// BundleFile is the name of a board's bundle in Options.Out.
func BundleFile(board string) string { return "ballast-" + board + ".bundle" }
