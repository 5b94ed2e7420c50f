package crash

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"ballast/configs/printable"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

// Bounds of what is kept.
const (
	MaxRecords = 10
	maxPart    = 128 << 10
	maxParts   = 8
)

// Store is the folder with the records. Its methods may be called from any goroutine.
type Store struct {
	dir string

	mu   sync.Mutex
	list []status.Crash // nil: to be read
}

// Open makes the folder.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("crash records: %w", err)
	}
	return &Store{dir: dir}, nil
}

const suffix = ".json"

func (s *Store) path(n int) string { return filepath.Join(s.dir, strconv.Itoa(n)+suffix) }

// numbers are those of the records, oldest first.
func (s *Store) numbers() (out []int) {
	list, _ := os.ReadDir(s.dir)
	for _, e := range list {
		name, ok := strings.CutSuffix(e.Name(), suffix)
		if n, err := strconv.Atoi(name); ok && err == nil && n > 0 {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out
}

// Add keeps a record under the next number, durably, and drops the oldest.
func (s *Store) Add(r status.CrashReport) (status.CrashReport, error) {
	have := s.numbers()
	r.Number = 1
	if len(have) > 0 {
		r.Number = have[len(have)-1] + 1
	}
	r.Parts = slices.Clone(r.Parts[:min(len(r.Parts), maxParts)])
	r.Bytes = 0
	for i, p := range r.Parts {
		if n := len(p.Text) - maxPart; n > 0 {
			p.Text = "(the beginning is left out)\n" + p.Text[n:]
		}
		r.Parts[i].Text = showable(p.Text)
		r.Bytes += len(r.Parts[i].Text)
	}
	r.Summary = printable.Line(r.Summary)
	if err := s.write(r); err != nil {
		return r, err
	}
	for len(have) >= MaxRecords {
		os.Remove(s.path(have[0]))
		have = have[1:]
	}
	return r, nil
}

// showable makes a text safe for a terminal, line by line: memory that nobody
// cleared may hold anything.
func showable(text string) string {
	var b strings.Builder
	for line := range strings.Lines(strings.ToValidUTF8(text, "?")) {
		b.WriteString(printable.Line(strings.TrimRight(strings.ReplaceAll(line, "\t", "    "), "\r\n")))
		b.WriteByte('\n')
	}
	return b.String()
}

func (s *Store) write(r status.CrashReport) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = nil
	b, err := json.Marshal(r)
	if err == nil {
		err = ipc.WriteDurable(s.path(r.Number), b)
	}
	if err != nil {
		return fmt.Errorf("crash record %d: %w", r.Number, err)
	}
	return nil
}

// ErrUnknown is the error of a number that no record has.
var ErrUnknown = errors.New("there is no such crash record")

// Get reads one record.
func (s *Store) Get(n int) (r status.CrashReport, err error) {
	b, err := os.ReadFile(s.path(n))
	if errors.Is(err, fs.ErrNotExist) {
		return r, fmt.Errorf("%w: %d; \"show crash\" lists them", ErrUnknown, n)
	}
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil {
		return r, fmt.Errorf("crash record %d: %w", n, err)
	}
	r.Number = n
	return r, nil
}

// List returns the records without their texts, newest first. One that cannot be
// read says so.
func (s *Store) List() []status.Crash {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.list != nil {
		return slices.Clone(s.list)
	}
	out := []status.Crash{}
	for _, n := range slices.Backward(s.numbers()) {
		r, err := s.Get(n)
		if err != nil {
			r.Crash = status.Crash{Number: n, Summary: err.Error()}
		}
		out = append(out, r.Crash)
	}
	s.list = out
	return slices.Clone(out)
}

// Seen marks a record as read by somebody who looks after the box.
func (s *Store) Seen(n int) error {
	r, err := s.Get(n)
	if err != nil || r.Seen {
		return err
	}
	r.Seen = true
	return s.write(r)
}

// Collect takes what pstore has into the store and out of pstore, and returns
// what is new. A record is deleted there only when it is kept here.
func (s *Store) Collect(pstore string, about func(*status.CrashReport)) (added []status.CrashReport, err error) {
	dumps, err := readDumps(pstore)
	errs := []error{err}
	for _, f := range group(dumps) {
		r := status.CrashReport{Parts: f.parts}
		r.Time = f.at
		r.Kind, r.Summary = Summary(f.parts)
		about(&r)
		r, err := s.Add(r)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		added = append(added, r)
		for _, file := range f.files {
			if err := os.Remove(file); err != nil {
				errs = append(errs, fmt.Errorf("pstore: %w", err))
			}
		}
	}
	return added, errors.Join(errs...)
}
