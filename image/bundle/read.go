package bundle

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
)

// Reader reads a bundle from a stream. It hands out nothing that is not signed.
type Reader struct {
	Manifest Manifest
	SignedBy []Key  // those of the trusted keys
	Head     []byte // magic to signatures, as they came: with the parts behind it, it is the bundle again

	r     io.Reader
	next  int // index of the part that follows
	part  *PartReader
	chunk []byte // room for one
	err   error  // what ended the stream
}

// Open reads the head of a bundle and checks it against the keys that are
// trusted. It reads not a byte further.
func Open(r io.Reader, keys []Key) (*Reader, error) {
	b := &Reader{r: r}
	manifest, sigs, err := b.head()
	if err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	if b.SignedBy, err = trusted(manifest, sigs, keys); err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	// Signed; from here on it is our maker's word.
	if err := json.Unmarshal(manifest, &b.Manifest); err != nil {
		return nil, fmt.Errorf("bundle: manifest: %w: its maker has to make it again", err)
	}
	if err := b.Manifest.check(); err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	var longest int64
	for _, p := range b.Manifest.Parts {
		longest = max(longest, p.Size)
	}
	b.chunk = make([]byte, min(int64(b.Manifest.ChunkSize), longest))
	return b, nil
}

// Peek reads the head of a bundle without a key: what it says, which nobody
// has checked, and the keys that it says it is signed by.
func Peek(r io.Reader) (Manifest, []Key, error) {
	var m Manifest
	manifest, sigs, err := (&Reader{r: r}).head()
	if err != nil {
		return m, nil, fmt.Errorf("bundle: %w", err)
	}
	if err := json.Unmarshal(manifest, &m); err != nil {
		return m, nil, fmt.Errorf("bundle: manifest: %w: the file is damaged: fetch it again", err)
	}
	if err := m.check(); err != nil {
		return m, nil, fmt.Errorf("bundle: %w", err)
	}
	var keys []Key
	for _, s := range sigs {
		keys = append(keys, Key{Public: s.key})
	}
	return m, keys, nil
}

// head reads up to the first part, and believes none of it.
func (b *Reader) head() (manifest []byte, sigs []signature, err error) {
	line, err := b.take(len(magic), "its first line")
	if err != nil {
		return nil, nil, err
	}
	if string(line) != magic {
		if strings.HasPrefix(string(line), magicName) {
			return nil, nil, fmt.Errorf("%q: %w: upgrade to a firmware between first", line, ErrFormat)
		}
		return nil, nil, errors.New("this is no bundle: it does not begin with \"" + strings.TrimSpace(magic) + "\": give the file ballast-BOARD.bundle")
	}
	n, err := b.take(4, "the length of the manifest")
	if err != nil {
		return nil, nil, err
	}
	size := binary.BigEndian.Uint32(n)
	if size < 2 || size > MaxManifest {
		return nil, nil, fmt.Errorf("a manifest of %d bytes: want at most %d: the file is damaged", size, MaxManifest)
	}
	if manifest, err = b.take(int(size), "the manifest"); err != nil {
		return nil, nil, err
	}
	if n, err = b.take(1, "the number of signatures"); err != nil {
		return nil, nil, err
	}
	if n[0] < 1 || n[0] > MaxSignatures {
		return nil, nil, fmt.Errorf("%d signatures: want 1 to %d: the file is damaged", n[0], MaxSignatures)
	}
	for range n[0] {
		s, err := b.take(signatureSize, "a signature")
		if err != nil {
			return nil, nil, err
		}
		sigs = append(sigs, signature{key: s[:32], sig: s[32:]})
	}
	return manifest, sigs, nil
}

// take reads n bytes of the head.
func (b *Reader) take(n int, what string) ([]byte, error) {
	at := len(b.Head)
	b.Head = append(b.Head, make([]byte, n)...)
	if _, err := io.ReadFull(b.r, b.Head[at:]); err != nil {
		return nil, broke(err, what)
	}
	return b.Head[at : at+n : at+n], nil
}

// broke says where a stream ended that should not have.
func broke(err error, where string) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("the transfer broke off in %s: %w: fetch or send all of it again", where, io.ErrUnexpectedEOF)
	}
	return fmt.Errorf("read %s: %w", where, err)
}

// Next is the part that follows; what is left of the one before is read and
// checked. After the last it returns io.EOF and has read no byte behind it.
func (b *Reader) Next() (*PartReader, error) {
	if b.part != nil {
		if _, err := io.Copy(io.Discard, b.part); err != nil {
			return nil, err
		}
	}
	if b.err != nil {
		return nil, b.err
	}
	if b.next == len(b.Manifest.Parts) {
		b.part = nil
		return nil, io.EOF
	}
	b.part = &PartReader{Part: b.Manifest.Parts[b.next], b: b, sum: sha256.New()}
	b.next++
	return b.part, nil
}

// PartReader reads one part. Bytes come out of it only after the hash of their
// chunk was right.
type PartReader struct {
	Part
	b     *Reader
	done  int64  // bytes of the part that are read from the stream
	ready []byte // checked, not handed out yet
	chunk int    // index of the next one
	sum   hash.Hash
}

// Read implements io.Reader.
func (p *PartReader) Read(to []byte) (int, error) {
	if len(p.ready) == 0 {
		if err := p.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(to, p.ready)
	p.ready = p.ready[n:]
	return n, nil
}

// fill reads and checks the next chunk.
func (p *PartReader) fill() error {
	if p.b.part != p {
		return fmt.Errorf("bundle: %s is no longer the part that is read", p.Name)
	}
	if p.b.err != nil {
		return p.b.err
	}
	if p.done == p.Size {
		return io.EOF
	}
	c := p.b.chunk[:min(int64(len(p.b.chunk)), p.Size-p.done)]
	if n, err := io.ReadFull(p.b.r, c); err != nil {
		p.b.err = fmt.Errorf("bundle: %w", broke(err, fmt.Sprintf("%s, after %d of %d bytes", p.Name, p.done+int64(n), p.Size)))
		return p.b.err
	}
	if sha256.Sum256(c) != p.Chunks[p.chunk] {
		p.b.err = fmt.Errorf("bundle: %s, bytes %d to %d: they are not what was signed: %w: fetch it again", p.Name, p.done, p.done+int64(len(c)), ErrUntrusted)
		return p.b.err
	}
	p.sum.Write(c)
	p.chunk++
	p.done += int64(len(c))
	if p.done == p.Size && Hash(p.sum.Sum(nil)) != p.SHA256 {
		p.b.err = fmt.Errorf("bundle: %s is not what was signed as a whole: %w: its maker has to make it again", p.Name, ErrUntrusted)
		return p.b.err
	}
	p.ready = c
	return nil
}
