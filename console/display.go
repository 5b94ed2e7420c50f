package console

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"ballast/configs/model"
	"ballast/configs/printable"
	"ballast/console/fullscreen"
)

// display is what is known of the terminal of a session.
type display struct {
	term string // TERM as the client told it; empty: not known

	mu            sync.Mutex
	columns, rows int           // as the client told them; 0: not known
	width, length int           // as the user set them; -1: as the client tells
	resized       chan struct{} // gets one token when the size changes
}

func newDisplay(term string, columns, rows int) *display {
	return &display{term: term, columns: columns, rows: rows, width: -1, length: -1, resized: make(chan struct{}, 1)}
}

// resize takes over a new size that the client tells.
func (s *display) resize(columns, rows int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.columns, s.rows = columns, rows
	select {
	case s.resized <- struct{}{}:
	default:
	}
}

// set takes over what the user sets.
func (s *display) set(what string, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if what == "width" {
		s.width = n
		if n == 0 {
			s.width = -1
		}
		return
	}
	s.length = n
}

// size is the number of columns, of rows, and of rows of a page: 0 is no paging.
func (s *display) size() (columns, rows, page int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	columns, rows = s.columns, s.rows
	if s.width > 0 {
		columns = s.width
	}
	if s.length > 0 {
		rows = s.length
	}
	switch {
	case s.length >= 0:
		page = s.length
	case !s.dumb():
		page = s.rows
	}
	if page > 0 {
		page = max(page, 3)
	}
	return columns, rows, page
}

// dumb tells that nobody promises more than plain characters: a serial line,
// a program that drives the session.
func (s *display) dumb() bool { return s.term == "" || s.term == "dumb" || s.term == "unknown" }

// known tells whether the terminal can show a whole screen: by its name, or
// because the user has told its length.
func (s *display) known() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.dumb() || s.length > 0
}

// marksPaste tells whether the terminal is of a kind that can mark what is
// pasted, or leaves the request aside.
func (s *display) marksPaste() bool {
	return slices.ContainsFunc([]string{"xterm", "screen", "tmux", "rxvt", "putty", "alacritty", "foot", "kitty", "vte", "wezterm", "konsole", "gnome"},
		func(kind string) bool { return strings.HasPrefix(s.term, kind) })
}

// setTerminal does the commands "terminal width" and "terminal length".
func (t *terminal) setTerminal(what string, n int) {
	t.display.set(what, n)
	columns, _, _ := t.display.size()
	t.edit.SetWidth(columns)
}

// resize takes over the size that the client tells.
func (t *terminal) resize(columns, rows int) {
	t.display.resize(columns, rows)
	columns, _, _ = t.display.size()
	t.edit.SetWidth(columns)
}

// fullScreen edits a text on the whole screen.
func (t *terminal) fullScreen(ctx context.Context, text string, check func(context.Context, string) ([]model.Problem, error)) (result string, changed bool, err error) {
	columns, rows, _ := t.display.size()
	if !t.display.known() || columns < fullscreen.MinColumns || rows < fullscreen.MinRows {
		return "", false, fmt.Errorf("a screen of %d by %d at least is needed, and a terminal that is known; here it is %q with %d by %d. "+
			"On a serial line tell its size: terminal width 80; terminal length 24", fullscreen.MinColumns, fullscreen.MinRows, t.display.term, columns, rows)
	}
	on := fullscreen.Screen{Keys: t.edit.Keys(), Out: t.out, Resized: t.display.resized, Paste: t.display.marksPaste(),
		Size: func() (int, int) { columns, rows, _ := t.display.size(); return columns, rows }}
	t.idle.Reset(t.console.idleTime())
	err = t.keyboard(func() error {
		result, changed, err = fullscreen.Edit(ctx, on, text, func(ctx context.Context, text string) (list []fullscreen.Problem, err error) {
			problems, err := check(ctx, text)
			for _, p := range problems {
				one := fullscreen.Problem{Line: p.Line, Text: p.String()}
				if p.File != "candidate" { // of a file that is included
					one.Line = 0
				}
				list = append(list, one)
			}
			return list, err
		})
		return err
	})
	return result, changed, err
}

// show prints what a command says, by pages when the screen is too small for it.
func (t *terminal) show(ctx context.Context, text string, paged bool) {
	if t.edit != nil {
		// A configuration is shown as it was committed, and somebody may have pasted
		// anything. A session without a terminal gets it as it is.
		text = printable.Text(text)
	}
	if paged && t.display != nil {
		if _, _, rows := t.display.size(); rows > 0 {
			// What ends the paging ends the session too: the next line finds out.
			t.keyboard(func() error { return t.edit.Page(ctx, text, rows) })
			return
		}
	}
	fmt.Fprint(t.out, text)
}
