package bundle

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// File is a part for Write.
type File struct {
	Name string
	Data []byte
}

// Write makes a bundle of a firmware: m says everything but what follows from
// the parts. The same keys and parts give the same bytes.
func Write(w io.Writer, m Manifest, parts []File, keys ...ed25519.PrivateKey) error {
	if len(keys) == 0 || len(keys) > MaxSignatures {
		return fmt.Errorf("bundle: %d keys to sign with: want 1 to %d", len(keys), MaxSignatures)
	}
	m.Format, m.ChunkSize, m.Parts = Format, ChunkSize, nil
	for _, f := range parts {
		p := Part{Name: f.Name, Size: int64(len(f.Data)), SHA256: sha256.Sum256(f.Data)}
		for at := 0; at < len(f.Data); at += ChunkSize {
			p.Chunks = append(p.Chunks, sha256.Sum256(f.Data[at:min(at+ChunkSize, len(f.Data))]))
		}
		m.Parts = append(m.Parts, p)
	}
	if err := m.check(); err != nil {
		return fmt.Errorf("bundle: %w", err)
	}
	manifest, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("bundle: %w", err)
	}
	if len(manifest) > MaxManifest {
		return errors.New("bundle: the manifest is too long")
	}
	if _, err := w.Write(head(manifest, keys)); err != nil {
		return fmt.Errorf("bundle: %w", err)
	}
	for _, f := range parts {
		if _, err := w.Write(f.Data); err != nil {
			return fmt.Errorf("bundle: %w", err)
		}
	}
	return nil
}

// head is all before the parts.
func head(manifest []byte, keys []ed25519.PrivateKey) []byte {
	b := binary.BigEndian.AppendUint32([]byte(magic), uint32(len(manifest)))
	b = append(append(b, manifest...), byte(len(keys)))
	message := append([]byte(domain), manifest...)
	for _, k := range keys {
		b = append(b, k.Public().(ed25519.PublicKey)...)
		b = append(b, ed25519.Sign(k, message)...)
	}
	return b
}
