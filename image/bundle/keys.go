package bundle

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// Hash is a SHA-256 sum; in JSON it is hexadecimal.
type Hash [sha256.Size]byte

func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText implements encoding.TextMarshaler.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (h *Hash) UnmarshalText(b []byte) error {
	if n := hex.DecodedLen(len(b)); n != len(h) || len(b)%2 != 0 {
		return fmt.Errorf("a hash of %d characters: want %d", len(b), hex.EncodedLen(len(h)))
	}
	if _, err := hex.Decode(h[:], b); err != nil {
		return fmt.Errorf("a hash: %w", err)
	}
	return nil
}

// Key is a public key whose bundles a box takes.
type Key struct {
	Public ed25519.PublicKey
	Name   string // for people
}

// Line is the key as layout.KeysFile has it.
func (k Key) Line() string {
	return strings.TrimSpace("ed25519 " + base64.StdEncoding.EncodeToString(k.Public) + " " + k.Name)
}

// String names the key: by its name, if it has one, and the beginning of its hash.
func (k Key) String() string {
	sum := sha256.Sum256(k.Public)
	return strings.TrimSpace(k.Name + " " + "SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:])[:16])
}

// ParseKeys reads keys, one a line; empty lines and those that begin with "#"
// are none.
func ParseKeys(text []byte) ([]Key, error) {
	var keys []Key
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.SplitN(line, " ", 3)
		if f[0] != "ed25519" || len(f) < 2 {
			return nil, fmt.Errorf("keys, line %d: want: ed25519 BASE64 NAME", n)
		}
		b, err := base64.StdEncoding.DecodeString(f[1])
		if err != nil || len(b) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("keys, line %d: the key is not %d bytes in base64: copy the whole line", n, ed25519.PublicKeySize)
		}
		k := Key{Public: b}
		if len(f) == 3 {
			k.Name = strings.TrimSpace(f[2])
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, errors.New("there is no key in it: want lines as: ed25519 BASE64 NAME")
	}
	return keys, nil
}

// signature is a signature as it is in the stream.
type signature struct {
	key ed25519.PublicKey
	sig []byte
}

const signatureSize = ed25519.PublicKeySize + ed25519.SignatureSize

// ErrUntrusted is of a bundle that nobody signed whom the box trusts, or that
// was changed after he did.
var ErrUntrusted = errors.New("nothing of it is used")

// trusted are those keys by which the manifest is signed.
func trusted(manifest []byte, sigs []signature, keys []Key) ([]Key, error) {
	message := append([]byte(domain), manifest...)
	var by []Key
	var broken, others, wanted []string
	for _, k := range keys {
		wanted = append(wanted, k.String())
	}
	for _, s := range sigs {
		known := false
		for _, k := range keys {
			if !k.Public.Equal(s.key) {
				continue
			}
			known = true
			if ed25519.Verify(k.Public, message, s.sig) {
				by = append(by, k)
			} else {
				broken = append(broken, k.String())
			}
		}
		if !known {
			others = append(others, Key{Public: s.key}.String())
		}
	}
	switch {
	case len(by) > 0:
		return by, nil
	case len(broken) > 0:
		return nil, fmt.Errorf("its signature by %s does not fit: it was damaged or changed after it was signed: %w: fetch it again", strings.Join(broken, ", "), ErrUntrusted)
	}
	return nil, fmt.Errorf("it is signed by %s, and this box trusts %s: %w: take a bundle of the maker of this firmware",
		strings.Join(others, ", "), strings.Join(wanted, ", "), ErrUntrusted)
}
