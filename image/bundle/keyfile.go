package bundle

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"ballast/image/layout"
)

// openssl makes a key that every part of Ballast takes.
const openssl = "\"openssl genpkey -algorithm ed25519\" makes one"

// ReadKeys reads the keys of a file that a user names: lines as ParseKeys takes
// them, or keys in PEM, of which a private one stands for its public half.
func ReadKeys(name string) ([]Key, error) {
	text, err := os.ReadFile(name)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("keys to trust: %w: run this as a user who may read it", err)
	case err != nil:
		return nil, fmt.Errorf("keys to trust: %w: name a file with them", err)
	}
	keys, err := parseKeyFile(text)
	if err != nil {
		return nil, fmt.Errorf("keys to trust: %s: %w", name, err)
	}
	return keys, nil
}

// parseKeyFile is ReadKeys of what a file holds.
func parseKeyFile(text []byte) ([]Key, error) {
	block, rest := pem.Decode(text)
	if block == nil {
		keys, err := ParseKeys(text)
		if err != nil {
			err = fmt.Errorf("%w (a key in PEM will do as well: %s)", err, openssl)
		}
		return keys, err
	}
	var keys []Key
	for ; block != nil; block, rest = pem.Decode(rest) {
		k, err := pemKey(block)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", block.Type, err)
		}
		keys = append(keys, Key{Public: k})
	}
	return keys, nil
}

// pemKey is the public key of a block.
func pemKey(block *pem.Block) (ed25519.PublicKey, error) {
	var k any
	var err error
	switch block.Type {
	case "PUBLIC KEY":
		k, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "PRIVATE KEY":
		if k, err = x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
			if private, ok := k.(ed25519.PrivateKey); ok {
				k = private.Public()
			}
		}
	case "ENCRYPTED PRIVATE KEY":
		return nil, errors.New("it has a password: \"openssl pkey -in FILE -pubout\" makes the public one of it")
	default:
		return nil, errors.New("want a PUBLIC KEY or PRIVATE KEY of ed25519: " + openssl)
	}
	if err != nil {
		return nil, errors.New("it is damaged: copy the whole file again")
	}
	public, ok := k.(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("it is a %T: want an ed25519 key: %s", k, openssl)
	}
	return public, nil
}

// TrustedHere are the keys that count where the user names none, and the file
// they are of: his own, else those of the box on which this runs. None is no
// error.
func TrustedHere() (keys []Key, file string, err error) {
	places := []string{layout.KeysFile}
	if dir, err := os.UserConfigDir(); err == nil {
		places = []string{filepath.Join(dir, "ballast", "firmware.key"), layout.KeysFile}
	}
	for _, name := range places {
		keys, err := ReadKeys(name)
		if !errors.Is(err, fs.ErrNotExist) {
			return keys, name, err
		}
	}
	return nil, "", nil
}
