package monitor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/colorprofile"
)

// Screen is a terminal.
type Screen struct {
	In            io.Reader // keys; its end ends the view
	Out           io.Writer // "\n" goes to the begin of the next line
	Width, Height int       // 0: 80 by 24
	Resized       <-chan [2]int
	Term          string              // its TERM
	Getenv        func(string) string // nil: nothing is known
}

// ErrTerminal is why a terminal cannot show the view.
var ErrTerminal = errors.New("the terminal cannot show a full screen")

// able reports whether the terminal can place its cursor.
func able(term string) bool {
	switch term {
	case "", "dumb", "unknown", "network", "emacs":
		return false
	}
	return true
}

// Look says what a terminal can show: whether it has no colours, and whether it
// has only ASCII.
func Look(term string, getenv func(string) string) (mono, ascii bool) {
	if getenv == nil {
		getenv = func(string) string { return "" }
	}
	old := strings.HasPrefix(term, "vt") || strings.HasPrefix(term, "ansi") || strings.HasPrefix(term, "wy")
	mono = old || strings.HasSuffix(term, "-m") || strings.HasSuffix(term, "-mono") || getenv("NO_COLOR") != ""
	charset := getenv("LC_ALL")
	for _, name := range []string{"LC_CTYPE", "LANG"} {
		if charset == "" {
			charset = getenv(name)
		}
	}
	charset = strings.ReplaceAll(strings.ToLower(charset), "-", "")
	switch {
	case charset != "":
		ascii = !strings.Contains(charset, "utf8")
	default:
		ascii = old
	}
	return mono, ascii
}

// framesPerSecond bounds how often the screen is drawn.
const framesPerSecond = 20

// Run shows the view until the user leaves it or ctx ends.
func Run(ctx context.Context, s Screen, o Options) error {
	if !able(s.Term) {
		return fmt.Errorf("%w: TERM is %q; \"monitor --once\" shows one picture, \"show status\" the box on one page", ErrTerminal, s.Term)
	}
	if s.Width <= 0 || s.Height <= 0 {
		s.Width, s.Height = 80, 24
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	m := New(ctx, o)
	m.width, m.height = s.Width, s.Height
	p := tea.NewProgram(m, tea.WithContext(ctx), tea.WithInput(s.In), tea.WithOutput(&guard{ctx: ctx, w: s.Out}),
		tea.WithWindowSize(s.Width, s.Height), tea.WithFPS(framesPerSecond), tea.WithoutSignalHandler(), tea.WithColorProfile(colorprofile.ANSI),
		// What every terminal with a cursor understands, and no questions to it.
		tea.WithEnvironment([]string{"TERM=vt100", "SSH_TTY=none"}))
	// The program begins by telling itself the first size: later ones come after.
	sized := make(chan struct{})
	m.sized = sync.OnceFunc(func() { close(sized) })
	go func() {
		select {
		case <-sized:
		case <-ctx.Done():
			return
		}
		for {
			select {
			case size, ok := <-s.Resized:
				if !ok {
					return
				}
				p.Send(tea.WindowSizeMsg{Width: size[0], Height: size[1]})
			case <-ctx.Done():
				return
			}
		}
	}()
	_, err := p.Run()
	if errors.Is(err, tea.ErrProgramKilled) && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// guard writes to a terminal that may not read for a long time: the end of ctx
// ends the wait. Nothing is written ahead: while the terminal does not read, no
// frame is drawn and nothing is fetched.
type guard struct {
	ctx  context.Context
	w    io.Writer
	gone atomic.Bool // it did not even take what puts it back in order
}

// restoreBound is how long the terminal gets for what puts it back in order.
const restoreBound = time.Second

// Write implements io.Writer.
func (g *guard) Write(p []byte) (int, error) {
	if g.gone.Load() {
		return 0, g.ctx.Err()
	}
	done := make(chan error, 1)
	text := ours(p)
	go func() {
		_, err := g.w.Write(text)
		done <- err
	}()
	end := g.ctx.Done()
	var late <-chan time.Time
	for {
		select {
		case err := <-done:
			return len(p), err
		case <-end:
			end, late = nil, time.After(restoreBound)
		case <-late:
			g.gone.Store(true)
			return 0, g.ctx.Err()
		}
	}
}

// ours is p without what asks a terminal for its abilities, or switches those
// on that the view has no use for: an old one shows such sequences as text, and
// one whose connection is cut would be left with them. It is a copy: a write
// that was given up may still be reading it.
func ours(p []byte) []byte {
	out := make([]byte, 0, len(p))
	for len(p) > 0 {
		i := bytes.Index(p, []byte("\x1b["))
		if i < 0 {
			return append(out, p...)
		}
		out, p = append(out, p[:i]...), p[i:]
		n := 2
		for n < len(p) && (p[n] < 0x40 || p[n] > 0x7e) {
			n++
		}
		n = min(n+1, len(p))
		if !foreign(p[:n]) {
			out = append(out, p[:n]...)
		}
		p = p[n:]
	}
	return out
}

func foreign(seq []byte) bool {
	if len(seq) < 4 {
		return false
	}
	switch seq[2] {
	case '>', '<', '=':
		return true // keyboard protocols, names
	case '?':
		return bytes.ContainsRune(seq, '$') || seq[len(seq)-1] == 'u' || bytes.HasPrefix(seq[3:], []byte("2026")) || bytes.HasPrefix(seq[3:], []byte("2027"))
	}
	return false
}

// Keys is the keyboard of a session as a reader that can be given up: after
// Stop it takes no key any more.
type Keys struct {
	keys <-chan byte
	stop chan struct{}
}

// NewKeys makes it of the keys of a session.
func NewKeys(keys <-chan byte) *Keys { return &Keys{keys, make(chan struct{})} }

// Stop ends it.
func (k *Keys) Stop() { close(k.stop) }

// Read implements io.Reader.
func (k *Keys) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	select {
	case <-k.stop:
		return 0, io.EOF
	default:
	}
	select {
	case b, ok := <-k.keys:
		if !ok {
			return 0, io.EOF
		}
		p[0] = b
	case <-k.stop:
		return 0, io.EOF
	}
	// What belongs together comes together: a key may be several bytes.
	n := 1
	for n < len(p) {
		select {
		case b, ok := <-k.keys:
			if !ok {
				return n, nil
			}
			p[n] = b
			n++
			continue
		default:
		}
		break
	}
	return n, nil
}

// Once is one picture as text, for who has no terminal.
func Once(ctx context.Context, src Source, host string, width, height int, ascii bool) string {
	m := New(ctx, Options{Source: src, Host: host})
	m.look = look{none: true, ascii: ascii}
	m.width, m.height = width, height
	q := m.query()
	m.take(q, src.Fetch(ctx, q))
	// What is known now may leave more room than was asked for.
	lines := strings.Split(m.Picture(), "\n")
	lines = lines[:len(lines)-1] // no keys
	return strings.TrimRight(strings.Join(lines, "\n"), "\n") + "\n"
}
