package notify

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"ballast/configs/printable"
	"ballast/services/ipc/status"
)

// Bounds of the journal: eight segments of half a MiB, some 20,000 entries.
const (
	segmentSize  = 512 << 10
	segmentCount = 8
	entryMax     = 8 << 10 // bytes of one line
	pendingMax   = 4096    // entries that wait to be written
)

// Pauses between two writes to the disk: the first entry after a quiet time is
// on it within a second; something that flaps for days costs a write a minute.
const (
	writeSoon = time.Second
	writeSlow = time.Minute
)

// Bounds of a query.
const (
	queryDefault = 200
	queryMax     = 20_000
)

// record is one line of a segment.
type record struct {
	Boot string `json:"boot,omitempty"` // of the kernel that ran then
	status.Entry
	Audit *status.AuditEntry `json:"audit,omitempty"` // of the audit log, whose records have no transition
}

// journal keeps the transitions of all services over reboots. With no folder
// it keeps them in memory.
type journal struct {
	dir   string
	boot  string
	log   *slog.Logger
	size  int64 // bounds, as above; tests have smaller ones
	count int
	soon  time.Duration
	slow  time.Duration

	mu      sync.Mutex
	marks   map[string]mark // newest entry of each service in this boot
	pending []record        // not on the disk yet
	memory  []record        // without a folder: all
	broken  string          // why it cannot be written
	kick    chan struct{}

	disk sync.Mutex // one reader or writer of the files at a time
}

func openJournal(data, boot string, log *slog.Logger) *journal {
	return openJournalIn(data, "journal", boot, log)
}

// openJournalIn opens the journal in a folder of that name.
func openJournalIn(data, name, boot string, log *slog.Logger) *journal {
	j := &journal{
		boot: boot, log: log, size: segmentSize, count: segmentCount, soon: writeSoon, slow: writeSlow,
		marks: map[string]mark{}, kick: make(chan struct{}, 1),
	}
	if data == "" {
		return j
	}
	j.dir = filepath.Join(data, name)
	if err := os.MkdirAll(j.dir, 0o700); err != nil {
		log.Warn(name + ": kept in memory only: " + err.Error())
		j.dir = ""
		return j
	}
	if err := j.mend(); err != nil {
		log.Warn("journal: " + err.Error())
	}
	for _, n := range j.segments() {
		j.read(n, func(r record) {
			if r.Boot == boot {
				j.marks[r.Service] = markOf(r.Transition)
			}
		})
	}
	return j
}

func (j *journal) path(n int) string { return filepath.Join(j.dir, fmt.Sprintf("%08d.log", n)) }

// segments are the numbers of the files, oldest first.
func (j *journal) segments() []int {
	list, _ := os.ReadDir(j.dir)
	var out []int
	for _, e := range list {
		if n, err := strconv.Atoi(strings.TrimSuffix(e.Name(), ".log")); err == nil && n > 0 && strings.HasSuffix(e.Name(), ".log") {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out
}

// mend drops the torn end that a power cut leaves: what does not end in a
// newline, and a last line that is no record.
func (j *journal) mend() error {
	all := j.segments()
	if len(all) == 0 {
		return nil
	}
	p := j.path(all[len(all)-1])
	b, err := os.ReadFile(p)
	if err != nil {
		return err
	}
	whole := wholeLines(b)
	if whole == len(b) {
		return nil
	}
	j.log.Info(fmt.Sprintf("journal: %d bytes of a line that was not written whole are dropped", len(b)-whole))
	return os.Truncate(p, int64(whole))
}

// wholeLines is how much of a segment is whole.
func wholeLines(b []byte) int {
	for n := bytes.LastIndexByte(b, '\n') + 1; n > 0; {
		start := bytes.LastIndexByte(b[:n-1], '\n') + 1
		if _, ok := parseRecord(b[start : n-1]); ok {
			return n
		}
		n = start
	}
	return 0
}

// parseRecord reads one line.
func parseRecord(line []byte) (r record, ok bool) {
	if len(line) == 0 || len(line) > entryMax || json.Unmarshal(line, &r) != nil {
		return record{}, false
	}
	return r, r.Service != "" && !r.Time.IsZero()
}

// read hands over the records of a segment; lines that are none are left out.
func (j *journal) read(n int, each func(record)) {
	f, err := os.Open(j.path(n))
	if err != nil {
		return
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	s.Buffer(make([]byte, 0, entryMax), entryMax*2)
	for s.Scan() {
		if r, ok := parseRecord(s.Bytes()); ok {
			each(r)
		}
	}
}

// take adds what is new in the ring of a service. Which that is comes from the
// journal itself, so that after a crash nothing is in it twice, and what was
// not written yet is added again as long as its service remembers it.
func (j *journal) take(service string, ring []status.Transition) (added int, missed uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	list, missed := news(ring, j.marks[service])
	if j.marks[service] == (mark{}) {
		missed = 0 // begins in the middle of things
	}
	for _, t := range list {
		r := record{Boot: j.boot, Entry: status.Entry{Service: service, Transition: t}}
		r.Reason, r.Object = oneLine(r.Reason, 1000), oneLine(r.Object, 300)
		j.add(r)
	}
	if len(list) == 0 {
		return 0, 0
	}
	j.marks[service] = markOf(list[len(list)-1])
	return len(list), missed
}

// note adds one transition of a service that has no ring.
func (j *journal) note(service string, t status.Transition) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if t.Time.IsZero() || t.Time.Year() > 9999 {
		t.Time = time.Now()
	}
	r := record{Boot: j.boot, Entry: status.Entry{Service: service, Transition: t}}
	for _, w := range []*string{&r.Object, &r.Kind, &r.From, &r.To} {
		*w = printable.Line(oneLine(*w, 300))
	}
	r.Reason = printable.Line(oneLine(r.Reason, 1000)) // it may hold words of the other box
	j.add(r)
}

// add has a record written soon. Called with mu held.
func (j *journal) add(r record) {
	if j.dir == "" {
		j.memory = append(j.memory, r)
	} else {
		j.pending = append(j.pending, r)
	}
	if n := len(j.memory) - queryMax/10; n > 0 {
		j.memory = slices.Delete(j.memory, 0, n)
	}
	if n := len(j.pending) - pendingMax; n > 0 { // a disk that cannot be written
		j.pending = slices.Delete(j.pending, 0, n)
	}
	select {
	case j.kick <- struct{}{}:
	default:
	}
}

// work writes until ctx ends, and then what is left.
func (j *journal) work(ctx context.Context) {
	if j.dir == "" {
		return
	}
	var last time.Time // of the last write
	pause := j.soon
	for ctx.Err() == nil {
		select {
		case <-j.kick:
		case <-ctx.Done():
		}
		// What comes soon after a write makes the pause longer; a quiet time as
		// long as the pause makes it short again.
		since := time.Since(last)
		if since > pause {
			pause = j.soon
		}
		select {
		case <-time.After(max(j.soon, pause-since)):
		case <-ctx.Done():
		}
		j.flush()
		last, pause = time.Now(), min(2*pause, j.slow)
	}
}

// flush writes what is pending with one write and one sync.
func (j *journal) flush() {
	j.disk.Lock()
	defer j.disk.Unlock()
	j.mu.Lock()
	list := j.pending
	j.pending = nil
	j.mu.Unlock()
	if len(list) == 0 || j.dir == "" {
		return
	}
	err := j.append(list)
	j.mu.Lock()
	defer j.mu.Unlock()
	if err == nil {
		if j.broken != "" {
			j.log.Info("journal: is written again")
		}
		j.broken = ""
		return
	}
	j.pending = append(list, j.pending...)
	select { // the next try comes by itself, in ever longer pauses
	case j.kick <- struct{}{}:
	default:
	}
	if j.broken == "" {
		j.log.Warn("journal: " + err.Error() + "; kept in memory until it can be written")
	}
	j.broken = err.Error()
}

func (j *journal) append(list []record) error {
	var b bytes.Buffer
	for _, r := range list {
		line, err := json.Marshal(r)
		if err != nil || len(line) > entryMax {
			continue // a time beyond the year 9999
		}
		b.Write(line)
		b.WriteByte('\n')
	}
	all := j.segments()
	last := 1
	if len(all) > 0 {
		last = all[len(all)-1]
		if st, err := os.Stat(j.path(last)); err == nil && st.Size()+int64(b.Len()) > j.size {
			last++
		}
	}
	f, err := os.OpenFile(j.path(last), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err == nil {
		_, err = f.Write(b.Bytes())
		if err == nil {
			err = f.Sync()
		}
		if err != nil { // half a batch would be there twice after the next try
			err = errors.Join(err, f.Truncate(st.Size()))
		}
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	all = j.segments()
	for len(all) > j.count {
		if err := os.Remove(j.path(all[0])); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil // it is written; the next time removes it
		}
		all = all[1:]
	}
	return nil
}

// query answers the verb "journal": the newest entries that match, oldest first.
func (j *journal) query(q status.JournalQuery) []status.Entry {
	limit := q.Limit
	if limit <= 0 {
		limit = queryDefault
	}
	limit = min(limit, queryMax)
	out := []status.Entry{}
	each := func(r record) {
		switch {
		case q.Service != "" && r.Service != q.Service,
			q.Object != "" && !strings.Contains(r.Object, q.Object),
			!q.After.IsZero() && !r.Time.After(q.After):
			return
		}
		if len(out) >= 2*limit { // a fresh half: the rest is let go
			out = append(out[:0:0], out[len(out)-limit:]...)
		}
		out = append(out, r.Entry)
	}
	j.all(each)
	return out[max(0, len(out)-limit):]
}

// all hands over every record, oldest first.
func (j *journal) all(each func(record)) {
	j.disk.Lock()
	defer j.disk.Unlock()
	if j.dir != "" {
		for _, n := range j.segments() {
			j.read(n, each)
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, r := range j.memory {
		each(r)
	}
	for _, r := range j.pending {
		each(r)
	}
}
