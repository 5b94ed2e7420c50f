// Package line edits one line on a terminal: cursor keys, history, completion;
// and shows long text by pages. What it writes are plain characters, backspace
// and carriage return, no escape sequence, so that a serial line with the
// dumbest terminal shows the same as a modern one. Only a terminal that is
// known to understand it is asked to mark what is pasted.
package line

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"unicode"
)

// Errors that end a line without one.
var (
	ErrInterrupted = errors.New("interrupted") // Ctrl-C
	ErrEnd         = io.EOF                    // Ctrl-D on an empty line, or the other end is gone
)

// maxLine bounds a line in bytes; what is typed beyond it is dropped.
const maxLine = 4096

// Editor reads lines from a terminal in raw mode. Its methods are for one
// goroutine, but SetWidth.
type Editor struct {
	keys *Keys
	out  io.Writer

	// Complete lists how the last word of the text before the cursor can go
	// on, and where it begins. nil: no completion.
	Complete func(before string) (start int, words []string, helps []string)
	// MarkPaste is set when the terminal understands that it shall mark what is
	// pasted: then a Tab or a question mark in it is text.
	MarkPaste bool

	mu    sync.Mutex // guards width
	width int

	history []string
	fresh   int // the last ones of it are new
	prompt  string
	buf     []rune
	pos     int
	shown   []rune // what the last drawing shows
	cursor  int    // column of the cursor
	drawn   bool   // shown is on the screen
	afterCR bool
	pasting bool
	killed  []rune // what Ctrl-Y brings back
	killing bool   // the last key killed too: what it killed belongs together
}

// New returns an editor that takes bytes from in (closed: the end) and draws on out.
func New(in <-chan byte, out io.Writer) *Editor {
	return &Editor{keys: NewKeys(in), out: out, width: 80}
}

// Keys reads the same keyboard key by key, while no line is read.
func (e *Editor) Keys() *Keys { return e.keys }

// SetWidth tells how many columns the terminal has. Values below 20 count as 80.
func (e *Editor) SetWidth(w int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if w < 20 || w > 10000 {
		w = 80
	}
	e.width = w
}

func (e *Editor) columns() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.width
}

// Control characters.
const (
	ctrlA, ctrlB, ctrlC, ctrlD, ctrlE, ctrlF, ctrlG        = 1, 2, 3, 4, 5, 6, 7
	ctrlK, ctrlL, ctrlN, ctrlP, ctrlR, ctrlS, ctrlU, ctrlW = 11, 12, 14, 16, 18, 19, 21, 23
	ctrlY, backspace, tab, lf, cr, esc, del                = 25, 8, 9, 10, 13, 27, 127
)

// What a terminal is told around a line in which pasted text shall be marked.
const markPaste, unmarkPaste = "\x1b[?2004h", "\x1b[?2004l"

// ReadLine shows prompt and returns the line without its end. An empty line is
// not remembered.
func (e *Editor) ReadLine(ctx context.Context, prompt string) (string, error) {
	if e.MarkPaste {
		e.write(markPaste)
		defer e.write(unmarkPaste)
	}
	line, err := e.read(ctx, prompt, true)
	if err == nil {
		e.remember(line)
	}
	return line, err
}

// ReadAnswer is ReadLine for what is no command: it is neither completed nor
// remembered.
func (e *Editor) ReadAnswer(ctx context.Context, prompt string) (string, error) {
	return e.read(ctx, prompt, false)
}

func (e *Editor) read(ctx context.Context, prompt string, command bool) (string, error) {
	e.prompt, e.buf, e.pos, e.killing = prompt, nil, 0, false
	e.forget()
	past := &recall{e: e, at: len(e.history)}
	e.draw()
	for {
		key, err := e.keys.Read(ctx)
		if err != nil {
			return "", err
		}
		newline := key.Code == Control && key.Rune == lf
		if newline && e.afterCR { // CR LF is one end of line
			e.afterCR = false
			continue
		}
		e.afterCR = key.Code == Control && key.Rune == cr
		switch {
		case (newline || e.afterCR) && !key.Alt:
			e.pos = len(e.buf)
			e.draw()
			e.write("\r\n")
			return string(e.buf), nil
		case e.pasting:
			e.pasted(key)
		case key.Code == Control && !key.Alt && key.Rune == ctrlC:
			e.write("^C\r\n")
			return "", ErrInterrupted
		case key.Code == Control && !key.Alt && key.Rune == ctrlD && len(e.buf) == 0:
			e.write("\r\n")
			return "", ErrEnd
		case key.Code == Control && !key.Alt && key.Rune == ctrlR && command:
			if err := e.search(ctx, past); err != nil {
				return "", err
			}
		default:
			e.do(key, past, command)
		}
		if !e.keys.more() { // while a paste pours in, drawing can wait
			e.draw()
		}
	}
}

// pasted takes a key of what is pasted: text, whatever it means when typed.
func (e *Editor) pasted(key Key) {
	switch {
	case key.Code == PasteEnds:
		e.pasting = false
	case key.Code == Text:
		e.insert([]rune{key.Rune})
	case key.Code == Control && key.Rune == tab:
		e.insert([]rune{' '})
	}
}

// DropPaste forgets what is left of a paste and tells how many lines that were. A
// command of it failed: what follows may rest on that.
func (e *Editor) DropPaste(ctx context.Context) (lines int) {
	text := false
	for e.pasting {
		key, err := e.keys.Read(ctx)
		if err != nil {
			return lines
		}
		newline := key.Code == Control && key.Rune == lf
		switch {
		case newline && e.afterCR:
		case newline || key.Code == Control && key.Rune == cr:
			if text {
				lines++
			}
			text = false
		case key.Code == PasteEnds:
			e.pasting = false
		case key.Code == Text && key.Rune != ' ':
			text = true
		}
		e.afterCR = key.Code == Control && key.Rune == cr
	}
	if text {
		lines++
	}
	return lines
}

// do does what a key means within the line.
func (e *Editor) do(key Key, past *recall, command bool) {
	killing := e.killing
	e.killing = false
	word := key.Alt || key.Ctrl
	switch key.Code {
	case Text:
		switch {
		case !key.Alt && key.Rune == '?' && command && e.asks():
			e.write("?\r\n")
			e.complete(true)
		case !key.Alt:
			e.insert([]rune{key.Rune})
		case key.Rune == 'b':
			e.pos = e.wordBefore()
		case key.Rune == 'f':
			e.pos = e.wordAfter()
		case key.Rune == 'd':
			e.kill(e.pos, e.wordAfter(), killing)
		case key.Rune == '<' && command:
			past.to(0)
		case key.Rune == '>' && command:
			past.to(len(e.history))
		}
	case Up, Down:
		if step := map[Code]int{Up: -1, Down: 1}[key.Code]; command {
			past.to(past.at + step)
		}
	case Left:
		if e.pos = e.charBefore(); word {
			e.pos = e.wordBefore()
		}
	case Right:
		if word {
			e.pos = e.wordAfter()
		} else {
			e.pos = e.charAfter()
		}
	case Home:
		e.pos = 0
	case End:
		e.pos = len(e.buf)
	case Delete:
		if word {
			e.kill(e.pos, e.wordAfter(), killing)
		} else {
			e.remove(e.pos, e.charAfter())
		}
	case PasteBegins:
		e.pasting = true
	case Control:
		e.control(key, past, command, killing)
	}
}

// asks tells whether a question mark asks for help: inside of quotes and after
// a comment word it is text.
func (e *Editor) asks() bool {
	return e.Complete != nil && !strings.Contains(string(e.buf), "\"") && !strings.Contains(string(e.buf), " com")
}

func (e *Editor) control(key Key, past *recall, command, killing bool) {
	if key.Alt {
		if key.Rune == backspace || key.Rune == del {
			e.kill(e.wordBefore(), e.pos, killing)
		}
		return
	}
	switch key.Rune {
	case ctrlD:
		e.remove(e.pos, e.charAfter())
	case backspace, del:
		e.remove(e.charBefore(), e.pos)
	case ctrlA:
		e.pos = 0
	case ctrlE:
		e.pos = len(e.buf)
	case ctrlB:
		e.pos = e.charBefore()
	case ctrlF:
		e.pos = e.charAfter()
	case ctrlK:
		e.kill(e.pos, len(e.buf), killing)
	case ctrlU:
		e.kill(0, e.pos, killing)
	case ctrlW:
		e.kill(e.wordStart(), e.pos, killing)
	case ctrlY:
		e.insert(e.killed)
	case ctrlL:
		e.write("\r\n")
		e.forget()
	case ctrlP:
		if command {
			past.to(past.at - 1)
		}
	case ctrlN:
		if command {
			past.to(past.at + 1)
		}
	case tab:
		if command {
			e.complete(false)
		}
	}
}

// search looks for a line of the history while it is typed. Enter does the line
// that is found, any other key goes on in it, Ctrl-C and Ctrl-G go back.
func (e *Editor) search(ctx context.Context, past *recall) error {
	prompt, was, pos := e.prompt, e.buf, e.pos
	var text []rune
	found, ok := past.at, true
	defer func() { e.prompt = prompt }()
	for {
		e.prompt = "(search) " + string(text) + ": "
		if !ok {
			e.prompt = "(not found) " + string(text) + ": "
		}
		if !e.keys.more() {
			e.draw()
		}
		key, err := e.keys.Read(ctx)
		if err != nil {
			return err
		}
		from, step := found, -1
		switch plain := !key.Alt; {
		case plain && key.Code == Text && len(text) < 40:
			text = append(text, key.Rune)
		case plain && key.Code == Control && (key.Rune == backspace || key.Rune == del) && len(text) > 0:
			text = text[:len(text)-1]
			from = len(e.history) - 1
		case plain && key.Code == Control && key.Rune == ctrlR:
			from = found - 1
		case plain && key.Code == Control && key.Rune == ctrlS:
			from, step = found+1, 1
		case plain && key.Code == Control && (key.Rune == ctrlG || key.Rune == ctrlC):
			past.to(len(e.history))
			e.buf, e.pos = was, pos
			return nil
		default:
			e.keys.unread(key)
			return nil
		}
		if len(text) == 0 {
			continue
		}
		var at int
		if at, ok = past.find(string(text), min(from, len(e.history)-1), step); ok {
			found = at
			past.show(at, string(text))
		} else {
			e.write("\a")
		}
	}
}

func (e *Editor) insert(rs []rune) {
	if len(string(e.buf))+len(string(rs)) > maxLine {
		e.write("\a")
		return
	}
	e.buf = append(e.buf[:e.pos:e.pos], append(rs[:len(rs):len(rs)], e.buf[e.pos:]...)...)
	e.pos += len(rs)
}

func (e *Editor) remove(from, to int) {
	from, to = max(0, from), min(len(e.buf), to)
	if from >= to {
		return
	}
	e.buf = append(e.buf[:from:from], e.buf[to:]...)
	e.pos = from
}

// kill removes what Ctrl-Y brings back. With more it goes with what the key
// before killed.
func (e *Editor) kill(from, to int, more bool) {
	e.killing = true
	if from >= to {
		return
	}
	part := append([]rune(nil), e.buf[from:to]...)
	switch {
	case !more:
		e.killed = part
	case from < e.pos: // towards the beginning
		e.killed = append(part, e.killed...)
	default:
		e.killed = append(e.killed, part...)
	}
	if len(e.killed) > maxLine {
		e.killed = e.killed[:maxLine]
	}
	e.remove(from, to)
}

// charBefore is where the character before the cursor begins, with its marks.
func (e *Editor) charBefore() int {
	i := max(0, e.pos-1)
	for i > 0 && Width(e.buf[i]) == 0 {
		i--
	}
	return i
}

// charAfter is where the character at the cursor ends.
func (e *Editor) charAfter() int {
	i := min(len(e.buf), e.pos+1)
	for i < len(e.buf) && Width(e.buf[i]) == 0 {
		i++
	}
	return i
}

// wordStart is where the word before the cursor begins, up to a blank.
func (e *Editor) wordStart() int {
	return e.before(func(r rune) bool { return r != ' ' })
}

// wordBefore and wordAfter go by words of letters and digits: through the parts of an
// address.
func (e *Editor) wordBefore() int { return e.before(inWord) }

func (e *Editor) wordAfter() int {
	i := e.pos
	for i < len(e.buf) && !inWord(e.buf[i]) {
		i++
	}
	for i < len(e.buf) && inWord(e.buf[i]) {
		i++
	}
	return i
}

func (e *Editor) before(in func(rune) bool) int {
	i := e.pos
	for i > 0 && !in(e.buf[i-1]) {
		i--
	}
	for i > 0 && in(e.buf[i-1]) {
		i--
	}
	return i
}

func inWord(r rune) bool {
	return r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r) || Width(r) == 0
}

// complete finishes the word before the cursor, or lists what it could be.
func (e *Editor) complete(help bool) {
	if e.Complete == nil {
		return
	}
	before := string(e.buf[:e.pos])
	start, words, helps := e.Complete(before)
	if start < 0 || start > len(before) {
		return
	}
	if !help {
		typed := before[start:]
		whole := insertable(words)
		common := commonPrefix(whole)
		if len(whole) == 1 {
			common += " "
		}
		if strings.HasPrefix(common, typed) && len(common) > len(typed) {
			e.insert([]rune(common[len(typed):]))
			return
		}
		if len(words) == 0 {
			e.write("\a")
			return
		}
		e.pos = len(e.buf)
		e.draw()
		e.write("\r\n")
	}
	var b strings.Builder
	for i, w := range words {
		b.WriteString("  " + w)
		if i < len(helps) && helps[i] != "" {
			b.WriteString(strings.Repeat(" ", max(1, 16-len(w))) + helps[i])
		}
		b.WriteString("\r\n")
	}
	e.write(b.String())
	e.forget()
}

// insertable are the words but those like "<NAME>", which only tell what can be
// typed.
func insertable(words []string) []string {
	return slices.DeleteFunc(slices.Clone(words), func(w string) bool { return strings.HasPrefix(w, "<") })
}

func commonPrefix(words []string) string {
	if len(words) == 0 {
		return ""
	}
	p := words[0]
	for _, w := range words[1:] {
		for !strings.HasPrefix(w, p) {
			p = p[:len(p)-1]
		}
	}
	return p
}
