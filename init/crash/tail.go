package crash

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"ballast/services/ipc/status"
)

// Tail keeps the last lines of the journal that matter on the data disk: what
// is left of a run that a reset ends, which no pstore has. It never waits for the
// disk: lines that come faster are dropped.
type Tail struct {
	queue   chan status.LogLine
	stop    chan struct{} // closed by Close
	done    chan struct{} // closed when no file is open any more
	dropped atomic.Int64
}

const (
	tailFile = "tail"
	tailSize = 32 << 10 // of each of two files
	tailSlow = time.Second
)

// NewTail takes lines from now on, and writes them when Open has told where.
func NewTail() *Tail { return &Tail{queue: make(chan status.LogLine, 512), stop: make(chan struct{})} }

// Add takes a line: warnings and worse of everybody, and notices of init.
func (t *Tail) Add(l status.LogLine) {
	const warning, notice = 4, 5
	if l.Priority > warning && (l.Service != "init" || l.Priority > notice) {
		return
	}
	select {
	case t.queue <- l:
	default:
		t.dropped.Add(1)
	}
}

// Last reads what the run before left in a folder.
func Last(dir string) string {
	text := ""
	for _, name := range []string{tailFile + ".1", tailFile} {
		if b, err := readTail(filepath.Join(dir, name), tailSize+4096); err == nil {
			text += string(b)
		}
	}
	return text
}

// Open begins anew in a folder and writes until Close. Call Last before.
func (t *Tail) Open(dir string) error {
	if err := os.Remove(filepath.Join(dir, tailFile+".1")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("tail of the journal: %w", err)
	}
	path := filepath.Join(dir, tailFile)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("tail of the journal: %w", err)
	}
	t.done = make(chan struct{})
	go t.write(f, path)
	return nil
}

// Close writes what is queued and leaves the disk alone from then on: it is about
// to be unmounted. It waits for a disk that does not answer for a second.
func (t *Tail) Close() {
	if t.done == nil {
		return
	}
	close(t.stop)
	select {
	case <-t.done:
	case <-time.After(tailSlow):
	}
}

func (t *Tail) write(f *os.File, path string) {
	defer close(t.done)
	defer func() { f.Close() }()
	size := 0
	synced := time.Now()
	for {
		var l status.LogLine
		select {
		case l = <-t.queue:
		case <-t.stop:
			if len(t.queue) == 0 {
				return
			}
			l = <-t.queue
		}
		n, err := fmt.Fprintf(f, "%s %-8s %s\n", l.Time.UTC().Format("2006-01-02 15:04:05.000Z"), l.Service, l.Text)
		if d := t.dropped.Swap(0); d > 0 {
			fmt.Fprintf(f, "(%d lines were too many)\n", d)
		}
		size += n
		// What a reset follows must be on the disk; a storm of lines may wait.
		if err == nil && len(t.queue) == 0 || time.Since(synced) > tailSlow {
			f.Sync()
			synced = time.Now()
		}
		if size < tailSize {
			continue
		}
		if os.Rename(path, path+".1") != nil {
			return // the disk is read-only, or gone
		}
		next, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
		if err != nil {
			return
		}
		f.Close()
		f, size = next, 0
	}
}
