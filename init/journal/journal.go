// Package journal keeps the last lines of every service in memory, and shows
// those that matter on the box's consoles. It is bounded in lines and bytes and
// never waits for a reader or a serial line: a service that writes without end
// loses its own oldest lines and nothing else.
package journal

import (
	"bytes"
	"fmt"
	"io"
	"sort"
	"strings"
	"sync"
	"time"

	"ballast/configs/printable"
	"ballast/services/ipc/status"
)

// Limits of one service's ring.
const (
	MaxLines = 2000
	MaxBytes = 256 << 10
	MaxLine  = 2048 // bytes; the rest of a longer line is dropped
)

// Severities of RFC 5424, section 6.2.1, that init itself uses.
const (
	Error   = 3
	Warning = 4
	Notice  = 5
	Info    = 6
)

// Journal is the rings of all services. Make it with New. Its methods may be
// called from any goroutine.
type Journal struct {
	mu    sync.Mutex
	rings map[string]*ring
	show  func(status.LogLine) // called with the lock held: must not block
	now   func() time.Time
}

type ring struct {
	lines []status.LogLine
	bytes int
}

// New returns an empty journal. show (nil: nothing) is called with each line
// in order and must not block.
func New(show func(status.LogLine)) *Journal {
	if show == nil {
		show = func(status.LogLine) {}
	}
	return &Journal{rings: map[string]*ring{}, show: show, now: time.Now}
}

// Print adds a line of init's own.
func (j *Journal) Print(priority int, format string, a ...any) {
	j.add("init", priority, fmt.Sprintf(format, a...))
}

func (j *Journal) add(service string, priority int, text string) {
	text = clean(text)
	j.mu.Lock()
	defer j.mu.Unlock()
	r := j.rings[service]
	if r == nil {
		r = &ring{}
		j.rings[service] = r
	}
	l := status.LogLine{Time: j.now(), Service: service, Priority: priority, Text: text}
	r.lines = append(r.lines, l)
	r.bytes += len(text)
	drop := 0
	for len(r.lines)-drop > MaxLines || r.bytes > MaxBytes && len(r.lines)-drop > 1 {
		r.bytes -= len(r.lines[drop].Text)
		r.lines[drop].Text = "" // let its bytes go before the slice does
		drop++
	}
	r.lines = r.lines[drop:]
	j.show(l)
}

// clean bounds a line and makes it safe for a terminal: a service may log what
// a stranger sent.
func clean(s string) string {
	if len(s) > MaxLine {
		s = strings.ToValidUTF8(s[:MaxLine], "") + " ..."
	}
	return printable.Line(s)
}

// Lines returns what a query asks for, oldest first. The service "kernel" is
// the kernel's own log.
func (j *Journal) Lines(q status.LogQuery) ([]status.LogLine, error) {
	if q.Lines < 0 {
		return nil, fmt.Errorf("log: %d lines: want 0 or more", q.Lines)
	}
	n := q.Lines
	if n == 0 {
		n = 200
	}
	var out []status.LogLine
	if q.Service == "kernel" {
		lines, err := Kernel()
		if err != nil {
			return nil, err
		}
		out = lines
	} else {
		j.mu.Lock()
		known := q.Service == ""
		for name, r := range j.rings {
			if q.Service == "" || q.Service == name {
				out = append(out, r.lines...)
				known = true
			}
		}
		names := make([]string, 0, len(j.rings))
		for name := range j.rings {
			names = append(names, name)
		}
		j.mu.Unlock()
		if !known {
			sort.Strings(names)
			return nil, fmt.Errorf("log: nothing of %q: there are kernel, %s", q.Service, strings.Join(names, ", "))
		}
		sort.SliceStable(out, func(a, b int) bool { return out[a].Time.Before(out[b].Time) })
	}
	if !q.After.IsZero() {
		i := sort.Search(len(out), func(i int) bool { return out[i].Time.After(q.After) })
		out = out[i:]
	}
	return append([]status.LogLine{}, out[max(0, len(out)-n):]...), nil
}

// Writer returns a writer for what a service prints: lines of a kernel-style
// priority and a text, as ipc.LogHandler writes them. A line without a priority
// comes from the Go runtime or a library: the one that tells of a crash is an
// error, the rest is for information. It is for one goroutine.
func (j *Journal) Writer(service string) io.Writer { return &writer{j: j, service: service} }

type writer struct {
	j       *Journal
	service string
	part    []byte // a line that has not ended yet
	skip    bool   // its end is not wanted
}

func (w *writer) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		line, rest, whole := bytes.Cut(b, []byte{'\n'})
		b = rest
		if !w.skip {
			room := MaxLine + 8 - len(w.part) // the priority and the mark that something is missing
			w.skip = len(line) > room
			w.part = append(w.part, line[:min(len(line), room)]...)
		}
		if whole {
			w.flush()
		}
	}
	return n, nil
}

func (w *writer) flush() {
	if len(w.part) > 0 {
		pri, text := Parse(string(w.part))
		w.j.add(w.service, pri, text)
	}
	w.part, w.skip = w.part[:0], false
}

// Parse splits a line into priority and text.
func Parse(line string) (priority int, text string) {
	if len(line) > 3 && line[0] == '<' && line[2] == '>' && '0' <= line[1] && line[1] <= '7' {
		return int(line[1] - '0'), line[3:]
	}
	for _, p := range []string{"panic: ", "fatal error: ", "SIGQUIT", "unexpected fault address"} {
		if strings.HasPrefix(line, p) {
			return Error, line
		}
	}
	return Info, line
}
