// Package store keeps the generations of a director's configuration on its
// data disk: each one's text, who committed it and why, and the script files
// that it calls.
//
// Layout under its folder:
//
//	generations/00000012   one generation: header, text, checksum
//	blobs/<sha256>         content of script files, shared by generations
//	running                which generation runs and whether it is confirmed, the next free number,
//	                       the working set of files
//
// Every file is written beside its place, flushed and renamed, so that a power
// cut leaves the old file or the new one. Each carries a checksum over itself,
// so that one that a dying disk tore is found out and never believed. A
// generation runs only when the pointer names it: one that was stored but not
// applied by all services before the power went is not what boots.
package store

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

// Limits of a store.
const (
	Keep     = 100      // generations kept besides the running one
	MaxText  = 32 << 20 // bytes of one configuration
	MaxFile  = 8 << 20  // bytes of one script file
	MaxFiles = 1024     // script files of one generation
	// MaxFilesTotal bounds all of them together, in bytes: they lie in the
	// memory of the box too, which counts towards the limit of conf.
	MaxFilesTotal = 64 << 20
	maxHeader     = 4 << 20   // bytes of the header line
	maxTotal      = 256 << 20 // bytes of all texts; older ones go first
	keepAtLeast   = 5         // whatever their size
	headerMagic   = "ballast generation 1\n"
	pointerMagic  = "ballast running 1\n"
)

// ErrDamaged is wrapped by the error of a read that found a torn or altered file.
var ErrDamaged = errors.New("damaged on disk")

// ErrNone is wrapped by the error of a read of something that is not stored.
var ErrNone = errors.New("not stored; \"show history\" lists those that are")

// FileRef is one script file of a generation.
type FileRef struct {
	Path string `json:"path"`
	Mode uint32 `json:"mode"` // permission bits
	Size int    `json:"size"`
	Sum  string `json:"sum"` // SHA-256 of the content, in hex
}

// Meta is what is known of a generation besides its text.
type Meta struct {
	Generation uint64    `json:"generation"`
	Time       time.Time `json:"time"`
	Source     string    `json:"source"` // as status.Conf.Source
	Author     string    `json:"author,omitempty"`
	Comment    string    `json:"comment,omitempty"`
	Files      []FileRef `json:"files,omitempty"` // sorted by path
	Length     int       `json:"length"`          // bytes of the text
	// Reverted is set when it was put back because nobody confirmed another one:
	// what happened, as people are told.
	Reverted string `json:"reverted,omitempty"`
	Txn      string `json:"txn,omitempty"` // the commit of a pair of boxes by which it came
	// Firmware stored it, whoever wrote the text. Put sets it.
	Firmware Firmware `json:"firmware,omitzero"`
}

// Generation is a whole generation.
type Generation struct {
	Meta
	Text string
}

type pointer struct {
	Running uint64    `json:"running"`
	Next    uint64    `json:"next"`
	Files   []FileRef `json:"files,omitempty"`
	Pending *Pending  `json:"pending,omitempty"` // never altered, only replaced
}

// Store is an open store. Its methods may be called from any goroutine.
type Store struct {
	fs  FS
	dir string

	mu     sync.Mutex
	ptr    pointer
	metas  map[uint64]Meta
	notes  map[string][]byte // as far as they were read
	faults []string

	firmware     Firmware
	newer        map[uint64]bool // generations of a form that is not known
	newerPointer error           // "running" is of one; nil: it is not
}

// Open reads the store in dir and makes it where it is missing. A damaged
// pointer or generation is not an error: see Faults. An error means that the
// disk cannot be used at all.
func Open(fs FS, dir string) (*Store, error) {
	s := &Store{fs: fs, dir: dir, metas: map[uint64]Meta{}, notes: map[string][]byte{}, newer: map[uint64]bool{}}
	for _, d := range []string{dir, s.path("generations"), s.path("blobs")} {
		if err := fs.MkdirAll(d); err != nil {
			return nil, fmt.Errorf("configuration store: %w", err)
		}
		if err := s.sweep(d); err != nil {
			return nil, fmt.Errorf("configuration store: %w", err)
		}
	}
	if f, err := fs.Open(s.path("running")); err == nil {
		f.Close()
	} else { // a new store: its folders outlive a power cut when those above them were flushed
		for _, d := range []string{dir, filepath.Dir(dir)} {
			if err := fs.SyncDir(d); err != nil {
				return nil, fmt.Errorf("configuration store: %w", err)
			}
		}
	}
	names, err := fs.List(s.path("generations"))
	if err != nil {
		return nil, fmt.Errorf("configuration store: %w", err)
	}
	var newest uint64
	for _, name := range names {
		n, err := strconv.ParseUint(name, 10, 64)
		if err != nil || n == 0 {
			continue
		}
		newest = max(newest, n)
		m, err := s.header(n)
		var later *newerError
		if errors.As(err, &later) {
			s.newer[n] = true
			continue
		}
		if err != nil {
			s.faults = append(s.faults, err.Error())
			continue
		}
		s.metas[n] = m
	}
	if err := s.readPointer(newest); err != nil {
		s.faults = append(s.faults, err.Error())
	}
	s.ptr.Next = max(s.ptr.Next, newest+1)
	return s, nil
}

func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

func (s *Store) genPath(n uint64) string {
	return s.path("generations", fmt.Sprintf("%08d", n))
}

// sweep removes what a power cut left half-written.
func (s *Store) sweep(dir string) error {
	names, err := s.fs.List(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasSuffix(name, tmpSuffix) {
			s.fs.Remove(filepath.Join(dir, name)) // still there: swept next time
		}
	}
	return nil
}

// readPointer loads the pointer. Without a good one the newest generation
// counts as running: its checksum still guards it.
func (s *Store) readPointer(newest uint64) error {
	b, err := readAll(s.fs, s.path("running"), maxHeader)
	if err == nil {
		first, _, _ := strings.Cut(string(b[:min(len(b), 64)]), "\n")
		if f := formatOf(first, pointerMagic); f > Format {
			s.newerPointer = &newerError{f}
			return s.readOwnPointer(newest)
		}
		var body []byte
		if body, err = unseal(b, pointerMagic); err == nil {
			err = json.Unmarshal(body, &s.ptr)
		}
		if p := s.ptr.Pending; p != nil && p.Generation != s.ptr.Running {
			s.ptr.Pending = nil // an older release, which knows no marks, made another one run
		}
	} else if newest == 0 {
		return nil // a new store
	}
	if err == nil {
		return nil
	}
	s.ptr = pointer{Running: newest}
	if m, ok := s.metas[newest]; ok {
		s.ptr.Files = m.Files
	}
	return fmt.Errorf("pointer to the running generation: %w", err)
}

// readOwnPointer is readPointer where "running" is that of a newer firmware. The
// newest generation that can be read counts as running, unless this firmware has
// stored something after that one did.
func (s *Store) readOwnPointer(newest uint64) error {
	var readable uint64
	for n := range s.metas {
		readable = max(readable, n)
	}
	b, err := readAll(s.fs, s.path(ownPointer), maxHeader)
	var body []byte
	if err == nil {
		body, err = unseal(b, pointerMagic)
	}
	if err == nil && json.Unmarshal(body, &s.ptr) == nil && s.ptr.Next > newest {
		return nil
	}
	s.ptr = pointer{Running: readable}
	if m, ok := s.metas[readable]; ok {
		s.ptr.Files = m.Files
	}
	return nil
}

// pointerPath is where the pointer of this firmware lies. Called with mu held.
func (s *Store) pointerPath() string {
	if s.newerPointer != nil {
		return s.path(ownPointer)
	}
	return s.path("running")
}

// seal puts the magic line before body and its checksum after it.
func seal(magic string, body ...[]byte) [][]byte {
	out := append([][]byte{[]byte(magic)}, body...)
	return append(out, checksum(out...))
}

// checksum is the line that ends a sealed file: two checksums of different
// polynomials, for which processors have instructions. They find what a disk did
// to a file; that nobody else did anything to it is not theirs to tell, and a
// SHA-256 of a configuration of 10,000 virtual servers is a third of what a commit
// of one changed weight takes where the processor has none for that.
func checksum(pieces ...[]byte) []byte {
	var a, b uint32
	for _, p := range pieces {
		a, b = crc32.Update(a, crc32.IEEETable, p), crc32.Update(b, castagnoli, p)
	}
	return fmt.Appendf(nil, "\ncrc32 %08x%08x\n", a, b)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// bytesOf are the bytes of a text, to be read only: a configuration has
// megabytes.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

// What a sealed file ends with; earlier releases wrote a SHA-256.
const (
	sealLen    = len("\ncrc32 ") + 16 + len("\n")
	oldSealLen = len("\nsha256 ") + 2*sha256.Size + len("\n")
)

// unseal returns the body of a sealed file.
func unseal(b []byte, magic string) ([]byte, error) {
	if !bytes.HasPrefix(b, []byte(magic)) {
		return nil, fmt.Errorf("%w: no header", ErrDamaged)
	}
	if cut := len(b) - sealLen; cut >= len(magic) && bytes.Equal(b[cut:], checksum(b[:cut])) {
		return b[len(magic):cut], nil
	}
	if cut := len(b) - oldSealLen; cut >= len(magic) && bytes.HasPrefix(b[cut:], []byte("\nsha256 ")) {
		if sum := sha256.Sum256(b[:cut]); string(b[cut:]) == "\nsha256 "+hex.EncodeToString(sum[:])+"\n" {
			return b[len(magic):cut], nil
		}
	}
	return nil, fmt.Errorf("%w: checksum does not match", ErrDamaged)
}

// header reads only the header of a generation; its checksum is left for Load.
func (s *Store) header(n uint64) (Meta, error) {
	f, err := s.fs.Open(s.genPath(n))
	if err != nil {
		return Meta{}, fmt.Errorf("generation %d: %w", n, err)
	}
	defer f.Close()
	r := bufio.NewReader(f)
	magic, err := r.ReadString('\n')
	if later := formatOf(magic, headerMagic); err == nil && later > Format {
		return Meta{}, fmt.Errorf("generation %d: %w", n, &newerError{later})
	}
	if err != nil || magic != headerMagic {
		return Meta{}, fmt.Errorf("generation %d: %w: no header", n, ErrDamaged)
	}
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		if err == nil {
			break
		}
		if !errors.Is(err, bufio.ErrBufferFull) || len(line) > maxHeader {
			return Meta{}, fmt.Errorf("generation %d: %w: header cut short", n, ErrDamaged)
		}
	}
	var m Meta
	if err := json.Unmarshal(line, &m); err != nil || m.Generation != n {
		return Meta{}, fmt.Errorf("generation %d: %w: header is not its own", n, ErrDamaged)
	}
	return m, nil
}

// Faults lists what Open found damaged.
func (s *Store) Faults() []string { return s.faults }

// Running is the number of the running generation, 0 for none.
func (s *Store) Running() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ptr.Running
}

// Newest is the highest number given out so far.
func (s *Store) Newest() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ptr.Next - 1
}

// List returns the generations whose headers can be read, newest first.
func (s *Store) List() []Meta {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Meta, 0, len(s.metas))
	for _, m := range s.metas {
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b Meta) int { return int(int64(b.Generation) - int64(a.Generation)) })
	return out
}

// Unfinished lists generations newer than the running one: stored, but the
// power went before every service had applied them. Newest first.
func (s *Store) Unfinished() []uint64 {
	var out []uint64
	running := s.Running()
	for _, m := range s.List() {
		if m.Generation > running {
			out = append(out, m.Generation)
		}
	}
	return out
}

// Previous is the generation before the running one, 0 for none.
func (s *Store) Previous() uint64 {
	running := s.Running()
	for _, m := range s.List() {
		if m.Generation < running {
			return m.Generation
		}
	}
	return 0
}

// Load reads a generation and verifies it.
func (s *Store) Load(n uint64) (Generation, error) {
	b, err := readAll(s.fs, s.genPath(n), MaxText+maxHeader+1024)
	if err != nil {
		if s.known(n) {
			return Generation{}, fmt.Errorf("generation %d: %w", n, err)
		}
		return Generation{}, fmt.Errorf("generation %d: %w", n, ErrNone)
	}
	line, _, _ := strings.Cut(string(b[:min(len(b), 64)]), "\n")
	if later := formatOf(line, headerMagic); later > Format {
		return Generation{}, fmt.Errorf("generation %d: %w", n, &newerError{later})
	}
	body, err := unseal(b, headerMagic)
	if err != nil {
		return Generation{}, fmt.Errorf("generation %d: %w", n, err)
	}
	head, text, ok := strings.Cut(string(body), "\n")
	var g Generation
	if !ok || json.Unmarshal([]byte(head), &g.Meta) != nil || g.Generation != n || g.Length != len(text) {
		return Generation{}, fmt.Errorf("generation %d: %w: header is not its own", n, ErrDamaged)
	}
	g.Text = text
	return g, nil
}

func (s *Store) known(n uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.metas[n]
	return ok
}

// Put stores a generation under the next free number, which it returns. It
// does not run yet: see SetRunning. g.Files are to be refs that the store gave.
func (s *Store) Put(g Generation) (uint64, error) {
	if len(g.Text) > MaxText {
		return 0, fmt.Errorf("configuration of %d bytes is larger than %d", len(g.Text), MaxText)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	g.Generation, g.Length, g.Firmware = s.ptr.Next, len(g.Text), s.firmware
	head, err := json.Marshal(g.Meta)
	if err != nil {
		return 0, fmt.Errorf("store generation: %w", err)
	}
	// The number is spent even when the write fails: the file may be there.
	s.ptr.Next++
	if err := s.write(s.genPath(g.Generation), seal(headerMagic, append(head, '\n'), bytesOf(g.Text)), g.Files); err != nil {
		return 0, fmt.Errorf("store generation %d: %w", g.Generation, err)
	}
	s.metas[g.Generation] = g.Meta
	return g.Generation, nil
}

// SetRunning makes a stored generation the one that boots, and its files the
// working set. It needs no confirmation. Generations beyond the limits go.
func (s *Store) SetRunning(n uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.setRunning(n, nil)
}

// setRunning is SetRunning with a mark. Called with mu held.
func (s *Store) setRunning(n uint64, mark *Pending) error {
	m, ok := s.metas[n]
	if !ok {
		return fmt.Errorf("generation %d: %w", n, ErrNone)
	}
	p := s.ptr
	p.Running, p.Files, p.Pending = n, m.Files, mark
	if err := s.writePointer(p); err != nil {
		return err
	}
	s.prune()
	return nil
}

// Reserve gives out a number that no generation will have: for a
// configuration that is published but not stored.
func (s *Store) Reserve() (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.ptr.Next
	s.ptr.Next++
	return n, s.writePointer(s.ptr)
}

// Drop forgets a generation that is not running.
func (s *Store) Drop(n uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n == s.ptr.Running || n == s.back() {
		return fmt.Errorf("generation %d is running, or what runs may go back to it", n)
	}
	// Its number must not be given out again, so the counter goes to the disk first.
	if err := s.writePointer(s.ptr); err != nil {
		return err
	}
	delete(s.metas, n)
	if err := s.fs.Remove(s.genPath(n)); err != nil {
		return fmt.Errorf("drop generation %d: %w", n, err)
	}
	return s.fs.SyncDir(s.path("generations"))
}

// writePointer stores p and, when that worked, adopts it.
func (s *Store) writePointer(p pointer) error {
	b, err := json.Marshal(p)
	if err == nil {
		err = s.write(s.pointerPath(), seal(pointerMagic, b), p.Files)
	}
	if err != nil {
		return fmt.Errorf("store pointer to generation %d: %w", p.Running, err)
	}
	s.ptr = p
	return nil
}

// write is writeAtomic that makes room on a full disk: the oldest generations
// go, but never what runs, the one before it, nor the contents of files. Called
// with mu held.
func (s *Store) write(path string, data [][]byte, files []FileRef) error {
	for {
		err := writeAtomic(s.fs, path, data)
		if !errors.Is(err, syscall.ENOSPC) || !s.dropOldest(files) {
			return err
		}
	}
}

// dropOldest forgets the oldest generation, with the contents that only it
// named, and reports whether there was one.
func (s *Store) dropOldest(files []FileRef) bool {
	var oldest, previous uint64
	for n := range s.metas {
		if n < s.ptr.Running {
			previous = max(previous, n)
			if (oldest == 0 || n < oldest) && n != s.back() {
				oldest = n
			}
		}
	}
	if oldest == 0 || oldest == previous || s.fs.Remove(s.genPath(oldest)) != nil {
		return false
	}
	gone := s.metas[oldest].Files
	delete(s.metas, oldest)
	if s.keepsBlobs() {
		gone = nil
	}
	used := s.used(files)
	for _, r := range gone {
		if !used[r.Sum] {
			s.fs.Remove(s.path("blobs", r.Sum))
		}
	}
	s.fs.SyncDir(s.path("generations")) // no more than the room is at stake
	return true
}

// prune removes what is beyond the limits. What cannot be removed stays until
// the next time: space is no reason to fail a commit that has happened.
func (s *Store) prune() {
	var old []Meta
	for _, m := range s.metas {
		if m.Generation < s.ptr.Running {
			old = append(old, m)
		}
	}
	slices.SortFunc(old, func(a, b Meta) int { return int(int64(b.Generation) - int64(a.Generation)) })
	total := s.metas[s.ptr.Running].Length
	for i, m := range old {
		total += m.Length
		if i < Keep && (total <= maxTotal || i < keepAtLeast) || m.Generation == s.back() {
			continue
		}
		if s.fs.Remove(s.genPath(m.Generation)) == nil {
			delete(s.metas, m.Generation)
		}
	}
	s.pruneBlobs()
}
