package monitor

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestLook(t *testing.T) {
	env := func(list ...string) func(string) string {
		return func(name string) string {
			for _, e := range list {
				if v, ok := strings.CutPrefix(e, name+"="); ok {
					return v
				}
			}
			return ""
		}
	}
	for _, tc := range []struct {
		term        string
		env         func(string) string
		mono, ascii bool
	}{
		{"xterm-256color", nil, false, false}, {"vt100", nil, true, true}, {"vt220", env("LANG=de_DE.UTF-8"), true, false}, {"xterm-mono", nil, true, false},
		{"xterm", env("NO_COLOR=1"), true, false}, {"xterm", env("LANG=C"), false, true}, {"xterm", env("LANG=C", "LC_ALL=C.utf8"), false, false},
		{"linux", env("LC_CTYPE=en_US.ISO-8859-1"), false, true},
	} {
		if mono, ascii := Look(tc.term, tc.env); mono != tc.mono || ascii != tc.ascii {
			t.Errorf("%s: mono %v, ascii %v", tc.term, mono, ascii)
		}
	}
	for _, term := range []string{"", "dumb", "unknown"} {
		if err := Run(t.Context(), Screen{Term: term}, Options{}); !errors.Is(err, ErrTerminal) || !strings.Contains(err.Error(), "--once") {
			t.Errorf("on %q: %v", term, err)
		}
	}
}

func TestOurs(t *testing.T) {
	for in, want := range map[string]string{
		"a\x1b[>4;2mb\x1b[1mc":               "ab\x1b[1mc",
		"\x1b[?2026$p\x1b[?2027$p\x1b[?25l":  "\x1b[?25l",
		"\x1b[=1;1u\x1b[?u\x1b[<u\x1b[2;3Hx": "\x1b[2;3Hx",
		"\x1b[?1049h\x1b[?2026hx\x1b[?2026l": "\x1b[?1049hx",
		"\x1b[":                              "\x1b[",
		"":                                   "",
	} {
		if got := string(ours([]byte(in))); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// A reader that was given up takes no key any more.
func TestKeysAreGivenBack(t *testing.T) {
	keys := make(chan byte, 10)
	k := NewKeys(keys)
	keys <- 27
	keys <- '['
	keys <- 'A'
	buf := make([]byte, 8)
	if n, err := k.Read(buf); string(buf[:n]) != "\x1b[A" || err != nil {
		t.Errorf("%q, %v", buf[:n], err)
	}
	read := make(chan error, 1)
	go func() { _, err := k.Read(buf); read <- err }()
	k.Stop()
	if err := <-read; err != io.EOF {
		t.Error(err)
	}
	keys <- 'x'
	if _, err := k.Read(buf); err != io.EOF || len(keys) != 1 {
		t.Errorf("a key was taken: %v", err)
	}
	close(keys)
	if _, err := NewKeys(closed()).Read(buf); err != io.EOF {
		t.Error(err)
	}
}

func closed() <-chan byte {
	c := make(chan byte)
	close(c)
	return c
}

// stuck is a terminal that stops reading after some bytes until it is freed.
type stuck struct {
	mu   sync.Mutex
	got  bytes.Buffer
	most int
	full chan struct{} // closed when it stops
	free chan struct{}
	once sync.Once
}

func (s *stuck) Write(p []byte) (int, error) {
	s.mu.Lock()
	s.got.Write(p)
	n := s.got.Len()
	s.mu.Unlock()
	if n > s.most {
		s.once.Do(func() { close(s.full) })
		<-s.free
	}
	return len(p), nil
}

// counted counts what is asked for.
type counted struct {
	fake
	mu sync.Mutex
	n  int
}

func (c *counted) Fetch(ctx context.Context, q Query) Data {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	c.at = c.at.Add(time.Second)
	return c.fake.Fetch(ctx, q)
}

// While a terminal does not read, nothing piles up for it, and the end of the
// session does not wait for it.
func TestTerminalThatDoesNotRead(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	out := &stuck{most: 500, full: make(chan struct{}), free: make(chan struct{})}
	defer close(out.free)
	src := &counted{fake: *pair()}
	keys := make(chan byte)
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, Screen{In: NewKeys(keys), Out: out, Term: "xterm"}, Options{Source: src, Host: "lb1"})
	}()
	<-out.full
	cancel()
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the view waits for a terminal that does not read")
	}
	src.mu.Lock()
	defer src.mu.Unlock()
	if src.n > 5 {
		t.Errorf("%d fetches for a terminal that does not read", src.n)
	}
}

// A resize reaches the view, and a key ends it with the terminal in order.
func TestRun(t *testing.T) {
	out := &stuck{most: 1 << 30}
	keys, sizes := make(chan byte, 1), make(chan [2]int, 1)
	src := &resized{fake: *pair(), tall: make(chan struct{})}
	sizes <- [2]int{100, 50}
	done := make(chan error, 1)
	go func() {
		done <- Run(t.Context(), Screen{In: NewKeys(keys), Out: out, Resized: sizes, Term: "xterm", Width: 80, Height: 24}, Options{Source: src, Host: "lb1"})
	}()
	<-src.tall
	keys <- 'q'
	if err := <-done; err != nil {
		t.Error(err)
	}
	text := out.got.String()
	for _, on := range []string{"\x1b[?1049", "\x1b[?25"} {
		if strings.LastIndex(text, on) < 0 || strings.Count(text, "\x1b[?1049h") != strings.Count(text, "\x1b[?1049l") {
			t.Errorf("the terminal is not as before: %q", text[max(0, len(text)-100):])
		}
	}
	if strings.LastIndex(text, "\x1b[?25h") < strings.LastIndex(text, "\x1b[?25l") {
		t.Error("the cursor stays hidden")
	}
}

// resized tells when more is asked for than a screen of 24 lines shows.
type resized struct {
	fake
	tall chan struct{}
	once sync.Once
}

func (r *resized) Fetch(ctx context.Context, q Query) Data {
	if q.Page.Limit > 40 {
		r.once.Do(func() { close(r.tall) })
	}
	return r.fake.Fetch(ctx, q)
}
