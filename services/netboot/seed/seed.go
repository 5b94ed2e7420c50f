// Package seed is what a box that boots over the network gets besides its
// firmware: configuration, script files, name and identity. The box that serves
// writes it, the unprivileged child of PID 1 on the box that boots reads it and
// lays it out as files, and PID 1 takes those files and nothing else.
package seed

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"ballast/configs/store"
)

// Format is the form that this package knows.
const Format = 1

// MaxSize is how long a seed may be: JSON has a third more than the files in it.
const MaxSize = store.MaxText + 2*store.MaxFilesTotal

// Seed is all that makes a box of the pair out of a blank one.
type Seed struct {
	Format int    `json:"format"`
	Name   string `json:"name"`   // whose @NAME lines are its own
	Config string `json:"config"` // of the pair, whole, with secrets
	Files  []File `json:"files,omitempty"`
	Keys   Keys   `json:"keys"`
	// Served tells people what this is a copy of.
	Server     string `json:"server"`
	Generation uint64 `json:"generation"`
}

// File is a script that the configuration calls.
type File struct {
	Path string `json:"path"`
	Data []byte `json:"data"`
}

// Keys are the identity of a box: PEM, PKCS 8, ed25519. They stay the same for
// as long as the server keeps them.
type Keys struct {
	SSH  []byte `json:"ssh"`  // host key of the console
	Peer []byte `json:"peer"` // for the other box of the pair
}

// Names in the folder that Lay makes; the first three are those of a seed that
// comes with an image.
const (
	ConfigFile = "config"
	HostFile   = "hostname"
	FilesDir   = "files"
	KeysDir    = "keys"    // one file for each service that has a key
	SSHKey     = "console" // of the service console
	PeerKey    = "peer"    // of the service peer
	OriginFile = "origin"  // one line for people: where it came from
	SourceFile = "source"  // URL of the folder that it came from
	maxKey     = 4 << 10   // bytes of a key
	maxName    = 64        // of a host name
	maxOrigin  = 200       // of the line
)

// MakeKeys makes an identity.
func MakeKeys() (Keys, error) {
	var k Keys
	for _, p := range []*[]byte{&k.SSH, &k.Peer} {
		_, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return k, fmt.Errorf("make a key: %w", err)
		}
		der, err := x509.MarshalPKCS8PrivateKey(private)
		if err != nil {
			return k, fmt.Errorf("make a key: %w", err)
		}
		*p = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	}
	return k, nil
}

// Public is the public half of one of the Keys.
func Public(key []byte) (ed25519.PublicKey, error) {
	block, rest := pem.Decode(key)
	if block == nil || block.Type != "PRIVATE KEY" || len(rest) > 0 || len(key) > maxKey {
		return nil, errors.New("it is no private key in PEM")
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("it is no private key in PKCS 8")
	}
	private, ok := k.(ed25519.PrivateKey)
	if !ok {
		return nil, errors.New("it is no ed25519 key")
	}
	return private.Public().(ed25519.PublicKey), nil
}

// blob is a public key as SSH writes it (RFC 8709, section 4).
func blob(key ed25519.PublicKey) []byte {
	var b []byte
	for _, part := range [][]byte{[]byte("ssh-ed25519"), key} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(part)))
		b = append(b, part...)
	}
	return b
}

// Line is a public key as a line of authorized_keys.
func Line(key ed25519.PublicKey) string {
	return "ssh-ed25519 " + base64.StdEncoding.EncodeToString(blob(key))
}

// Fingerprint is a public key as ssh shows it to its user.
func Fingerprint(key ed25519.PublicKey) string {
	sum := sha256.Sum256(blob(key))
	return "SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:])
}

// Encode is the seed as it travels.
func (s Seed) Encode() ([]byte, error) {
	s.Format = Format
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("seed: %w", err)
	}
	b, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("seed: %w", err)
	}
	if len(b) > MaxSize {
		return nil, fmt.Errorf("seed: %d bytes are more than %d: delete script files that are not used", len(b), MaxSize)
	}
	return b, nil
}

// Read reads a seed and judges it.
func Read(r io.Reader) (Seed, error) {
	b, err := io.ReadAll(io.LimitReader(r, MaxSize+1))
	switch {
	case err != nil:
		return Seed{}, fmt.Errorf("seed: %w", err)
	case len(b) > MaxSize:
		return Seed{}, fmt.Errorf("seed: it has more than %d bytes", MaxSize)
	}
	return Decode(b)
}

// Decode is Read of bytes.
func Decode(b []byte) (Seed, error) {
	var head struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return Seed{}, errors.New("seed: it is no JSON of a seed")
	}
	if head.Format != Format {
		return Seed{}, fmt.Errorf("seed: it has form %d, this firmware knows %d: serve the firmware that the server runs", head.Format, Format)
	}
	var s Seed
	if err := json.Unmarshal(b, &s); err != nil {
		return Seed{}, errors.New("seed: it is no JSON of a seed") // without the text, which holds secrets
	}
	if err := s.check(); err != nil {
		return Seed{}, fmt.Errorf("seed: %w", err)
	}
	return s, nil
}

// ValidName reports whether s can be the name of a host, for the kernel and by
// RFC 1123: at most 64 bytes of letters, digits, hyphens and dots.
func ValidName(s string) bool {
	return s != "" && len(s) <= maxName && s[0] != '-' && s[0] != '.' && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._") == ""
}

func (s Seed) check() error {
	switch {
	case !ValidName(s.Name):
		return fmt.Errorf("%.80q is no name of a box", s.Name)
	case !ValidName(s.Server):
		return fmt.Errorf("%.80q is no name of a server", s.Server)
	case s.Config == "" || len(s.Config) > store.MaxText:
		return fmt.Errorf("a configuration of %d bytes: want 1 to %d", len(s.Config), store.MaxText)
	case len(s.Files) > store.MaxFiles:
		return fmt.Errorf("%d files are more than %d", len(s.Files), store.MaxFiles)
	}
	for _, k := range []struct {
		name string
		key  []byte
	}{{SSHKey, s.Keys.SSH}, {PeerKey, s.Keys.Peer}} {
		if _, err := Public(k.key); err != nil {
			return fmt.Errorf("key of %s: %w", k.name, err)
		}
	}
	seen := map[string]bool{}
	total := 0
	for _, f := range s.Files {
		// conf says where scripts may lie; here it counts that they stay in the folder.
		if len(f.Path) > 512 || !path.IsAbs(f.Path) || path.Clean(f.Path) != f.Path || f.Path == "/" || strings.ContainsFunc(f.Path, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffd }) {
			return fmt.Errorf("%.80q is no path of a file", f.Path)
		}
		if seen[f.Path] {
			return fmt.Errorf("file %s is there twice", f.Path)
		}
		seen[f.Path] = true
		if len(f.Data) > store.MaxFile {
			return fmt.Errorf("file %s has %d bytes, more than %d", f.Path, len(f.Data), store.MaxFile)
		}
		if total += len(f.Data); total > store.MaxFilesTotal {
			return fmt.Errorf("the files have more than %d bytes together", store.MaxFilesTotal)
		}
	}
	return nil
}

// Lay writes the seed into a new folder. source is the URL of the folder that it
// came from.
func (s Seed) Lay(dir, source string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("seed: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("seed: %w", err)
	}
	defer root.Close()
	write := func(name string, b []byte, mode fs.FileMode) {
		if err != nil {
			return
		}
		if err = root.MkdirAll(path.Dir(name), 0o700); err == nil {
			err = root.WriteFile(name, b, mode)
		}
	}
	write(ConfigFile, []byte(s.Config), 0o600)
	write(HostFile, []byte(s.Name+"\n"), 0o600)
	write(path.Join(KeysDir, SSHKey), s.Keys.SSH, 0o600)
	write(path.Join(KeysDir, PeerKey), s.Keys.Peer, 0o600)
	write(SourceFile, []byte(source+"\n"), 0o600)
	write(OriginFile, fmt.Appendf(nil, "generation %d of %s\n", s.Generation, s.Server), 0o600)
	for _, f := range s.Files {
		write(path.Join(FilesDir, f.Path), f.Data, 0o700)
	}
	if err != nil {
		return fmt.Errorf("seed: %w", err)
	}
	return nil
}

// limits of what Take takes, by the first part of a name.
var limits = map[string]int64{ConfigFile: store.MaxText, HostFile: maxName + 1, OriginFile: maxOrigin, SourceFile: maxOrigin + 1, KeysDir: maxKey, FilesDir: store.MaxFile}

// Take moves what Lay laid out in from, by a process that is not trusted, to
// the new folder to: regular files of the names that a seed has, each no
// longer than it may be. It follows no link and parses nothing.
func Take(from, to string) (err error) {
	src, err := os.OpenRoot(from)
	if err != nil {
		return fmt.Errorf("seed: %w", err)
	}
	defer src.Close()
	if err := os.Mkdir(to, 0o700); err != nil {
		return fmt.Errorf("seed: %w", err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("seed: %w", err)
			os.RemoveAll(to)
		}
	}()
	files, total := 0, int64(0)
	return fs.WalkDir(src.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if p == "." {
			return nil
		}
		top, rest, _ := strings.Cut(p, "/")
		limit, known := limits[top]
		folder := top == KeysDir || top == FilesDir
		if !known || folder != (rest != "" || d.IsDir()) || top == KeysDir && rest != "" && rest != SSHKey && rest != PeerKey || len(p) > 600 {
			return fmt.Errorf("%.80q is no name of a seed", p)
		}
		if d.IsDir() {
			return os.Mkdir(filepath.Join(to, p), 0o700)
		}
		if files++; files > store.MaxFiles+8 {
			return errors.New("too many files")
		}
		n, err := takeFile(src, p, filepath.Join(to, p), limit)
		if total += n; err == nil && total > store.MaxText+store.MaxFilesTotal+64<<10 {
			err = errors.New("the files are too large together")
		}
		return err
	})
}

func takeFile(src *os.Root, name, to string, limit int64) (int64, error) {
	st, err := src.Lstat(name)
	if err != nil {
		return 0, err
	}
	if !st.Mode().IsRegular() || st.Size() > limit {
		return 0, fmt.Errorf("%.80q: want a file of at most %d bytes", name, limit)
	}
	in, err := src.Open(name)
	if err != nil {
		return 0, err
	}
	defer in.Close()
	if now, err := in.Stat(); err != nil || !os.SameFile(st, now) {
		return 0, fmt.Errorf("%.80q changes while it is read", name)
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(out, io.LimitReader(in, limit+1))
	if n > limit {
		err = fmt.Errorf("%.80q has more than %d bytes", name, limit)
	}
	return n, errors.Join(err, out.Chmod(0o600|st.Mode()&0o100), out.Close())
}
