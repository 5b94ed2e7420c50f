package store

import (
	"fmt"
	"strconv"
	"strings"
)

// Format is the form in which this firmware stores configurations, the number in
// the first line of its files. A firmware reads its own form and the older ones.
// What a newer one has left, of which it knows the number and nothing else, it
// neither reads nor touches: that firmware may come back.
const Format = 1

// newerError is of a file whose first line has a higher number.
type newerError struct{ format int }

func (e *newerError) Error() string {
	return fmt.Sprintf("it is of format %d, and this firmware knows %d: a newer one wrote it", e.format, Format)
}

// formatOf is the number in the first line of a file; 0: it is none of ours.
func formatOf(line, magic string) int {
	name := strings.TrimRight(strings.TrimSuffix(magic, "\n"), "0123456789")
	number, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), name)
	if !ok || number == "" || len(number) > 6 || number[0] == '0' || strings.Trim(number, "0123456789") != "" {
		return 0
	}
	n, _ := strconv.Atoi(number)
	return n
}

// ownPointer is the pointer of this firmware where "running" is that of a newer
// one, which stays as it is.
var ownPointer = fmt.Sprintf("running.%d", Format)

// Firmware is the one that stores a generation.
type Firmware struct {
	Version string `json:"version,omitempty"`
	Build   int64  `json:"build,omitempty"` // orders firmwares; 0: not known
}

// SetFirmware tells by which firmware the generations are stored from now on.
func (s *Store) SetFirmware(f Firmware) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.firmware = f
}

// Newer says what a newer firmware has left that this one cannot read; empty:
// nothing.
func (s *Store) Newer() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.newerPointer != nil:
		return fmt.Sprintf("a newer firmware stored the configuration in a form that this one cannot read (%v); it runs again when that firmware does", s.newerPointer)
	case len(s.newer) > 0:
		return fmt.Sprintf("%d generations were stored by a newer firmware, and this one cannot read them; they stay for when that firmware runs", len(s.newer))
	}
	return ""
}

// IsNewer reports whether a newer firmware than f stored generation n.
func (s *Store) IsNewer(n uint64, f Firmware) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, ok := s.metas[n]
	return s.newer[n] || ok && f.Build > 0 && m.Firmware.Build > f.Build
}

// keepsBlobs reports that contents must stay although nothing names them that
// can be read here. Called with mu held.
func (s *Store) keepsBlobs() bool { return s.newerPointer != nil || len(s.newer) > 0 }
