// Package line edits one line on a terminal: cursor keys, history, completion.
// What it writes are plain characters, backspace and carriage return, no
// escape sequence, so that a serial line with the dumbest terminal shows the
// same as a modern one.
package line

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"unicode/utf8"

	"ballast/configs/printable"
)

// Errors that end a line without one.
var (
	ErrInterrupted = errors.New("interrupted") // Ctrl-C
	ErrEnd         = io.EOF                    // Ctrl-D on an empty line, or the other end is gone
)

// maxLine bounds a line in bytes; what is typed beyond it is dropped.
const maxLine = 4096

// maxHistory bounds the lines that are remembered.
const maxHistory = 500

// Editor reads lines from a terminal in raw mode. Its methods are for one
// goroutine, but SetWidth.
type Editor struct {
	in  <-chan byte
	out io.Writer

	// Complete lists how the last word of the text before the cursor can go
	// on, and where it begins. nil: no completion.
	Complete func(before string) (start int, words []string, helps []string)

	mu    sync.Mutex // guards width
	width int

	history []string
	prompt  string
	buf     []rune
	pos     int
	shown   int // columns of the last drawing, so that it can be wiped
	cursor  int // column of the cursor
	pasteCR bool
}

// New returns an editor that takes bytes from in (closed: the end) and draws on out.
func New(in <-chan byte, out io.Writer) *Editor { return &Editor{in: in, out: out, width: 80} }

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

// byte waits for the next byte.
func (e *Editor) byte(ctx context.Context) (byte, error) {
	select {
	case b, ok := <-e.in:
		if !ok {
			return 0, ErrEnd
		}
		return b, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// Keys.
const (
	ctrlA, ctrlB, ctrlC, ctrlD, ctrlE, ctrlF = 1, 2, 3, 4, 5, 6
	ctrlK, ctrlL, ctrlN, ctrlP, ctrlU, ctrlW = 11, 12, 14, 16, 21, 23
	bell, backspace, tab, lf, cr, esc, del   = 7, 8, 9, 10, 13, 27, 127
)

// ReadLine shows prompt and returns the line without its end. An empty line is
// not remembered.
func (e *Editor) ReadLine(ctx context.Context, prompt string) (string, error) {
	e.prompt, e.buf, e.pos, e.shown, e.cursor = prompt, nil, 0, 0, 0
	at := len(e.history) // where in the history; the end is the new line
	var fresh []rune     // the new line while older ones are shown
	recall := func(to int) {
		if to < 0 || to > len(e.history) {
			return
		}
		if at == len(e.history) {
			fresh = e.buf
		}
		if at = to; at == len(e.history) {
			e.buf = fresh
		} else {
			e.buf = []rune(e.history[at])
		}
		e.pos = len(e.buf)
	}
	e.draw()
	for {
		b, err := e.byte(ctx)
		if err != nil {
			return "", err
		}
		if b == lf && e.pasteCR { // CR LF of a pasted text is one end of line
			e.pasteCR = false
			continue
		}
		e.pasteCR = b == cr
		switch b {
		case cr, lf:
			e.pos = len(e.buf)
			e.draw()
			e.write("\r\n")
			line := string(e.buf)
			e.remember(line)
			return line, nil
		case ctrlC:
			e.write("^C\r\n")
			return "", ErrInterrupted
		case ctrlD:
			if len(e.buf) == 0 {
				e.write("\r\n")
				return "", ErrEnd
			}
			e.remove(e.pos, e.pos+1)
		case backspace, del:
			e.remove(e.pos-1, e.pos)
		case ctrlA:
			e.pos = 0
		case ctrlE:
			e.pos = len(e.buf)
		case ctrlB:
			e.pos = max(0, e.pos-1)
		case ctrlF:
			e.pos = min(len(e.buf), e.pos+1)
		case ctrlK:
			e.remove(e.pos, len(e.buf))
		case ctrlU:
			e.remove(0, e.pos)
		case ctrlW:
			e.remove(e.wordStart(), e.pos)
		case ctrlL:
			e.write("\r\n")
			e.shown, e.cursor = 0, 0
		case ctrlP:
			recall(at - 1)
		case ctrlN:
			recall(at + 1)
		case tab:
			e.complete(false)
		case '?':
			// Help, except inside quotes and after a comment word, where it is
			// text.
			if e.Complete != nil && !strings.Contains(string(e.buf), "\"") && !strings.Contains(string(e.buf), " com") {
				e.write("?\r\n")
				e.complete(true)
			} else {
				e.insert([]rune{'?'})
			}
		case esc:
			key, err := e.escape(ctx)
			if err != nil {
				return "", err
			}
			switch key {
			case 'A':
				recall(at - 1)
			case 'B':
				recall(at + 1)
			case 'C':
				e.pos = min(len(e.buf), e.pos+1)
			case 'D':
				e.pos = max(0, e.pos-1)
			case 'H':
				e.pos = 0
			case 'F':
				e.pos = len(e.buf)
			case '3':
				e.remove(e.pos, e.pos+1)
			}
		default:
			if b >= ' ' {
				r, err := e.runeFrom(ctx, b)
				if err != nil {
					return "", err
				}
				e.insert([]rune{r})
			}
		}
		if len(e.in) == 0 { // while a paste pours in, drawing can wait
			e.draw()
		}
	}
}

func (e *Editor) remember(line string) {
	if strings.TrimSpace(line) == "" || (len(e.history) > 0 && e.history[len(e.history)-1] == line) {
		return
	}
	if len(e.history) >= maxHistory {
		e.history = e.history[1:]
	}
	e.history = append(e.history, line)
}

// escape reads the rest of a key that sends an escape sequence and returns the
// letter or number that tells which.
func (e *Editor) escape(ctx context.Context) (byte, error) {
	b, err := e.byte(ctx)
	if err != nil || (b != '[' && b != 'O') {
		return 0, err
	}
	first := byte(0)
	for range 16 { // no key's sequence is longer
		b, err = e.byte(ctx)
		if err != nil {
			return 0, err
		}
		if b >= '@' && b <= '~' {
			if b != '~' {
				return b, nil
			}
			switch first {
			case '1', '7':
				return 'H', nil
			case '4', '8':
				return 'F', nil
			}
			return first, nil
		}
		if first == 0 {
			first = b
		}
	}
	return 0, nil
}

// runeFrom reads the rest of a UTF-8 character that begins with b.
func (e *Editor) runeFrom(ctx context.Context, b byte) (rune, error) {
	p := []byte{b}
	for !utf8.FullRune(p) {
		c, err := e.byte(ctx)
		if err != nil {
			return 0, err
		}
		p = append(p, c)
	}
	r, _ := utf8.DecodeRune(p)
	if !printable.Rune(r) {
		r = utf8.RuneError
	}
	return r, nil
}

func (e *Editor) insert(rs []rune) {
	if len(string(e.buf))+len(string(rs)) > maxLine {
		e.write("\a")
		return
	}
	e.buf = append(e.buf[:e.pos:e.pos], append(rs, e.buf[e.pos:]...)...)
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

func (e *Editor) wordStart() int {
	i := e.pos
	for i > 0 && e.buf[i-1] == ' ' {
		i--
	}
	for i > 0 && e.buf[i-1] != ' ' {
		i--
	}
	return i
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
		common := commonPrefix(words)
		if len(words) == 1 {
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
	e.shown, e.cursor = 0, 0
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

func (e *Editor) write(s string) { io.WriteString(e.out, s) } // a terminal that is gone shows as the end of its input

// draw shows prompt and line again. A line that is wider than the terminal is
// shown in part, around the cursor, so that it never wraps.
func (e *Editor) draw() {
	room := max(1, e.columns()-1-utf8.RuneCountInString(e.prompt))
	from := 0
	if e.pos >= room {
		from = e.pos - room + 1
	}
	part := e.buf[from:min(len(e.buf), from+room)]
	text := e.prompt + string(part)
	n := utf8.RuneCountInString(e.prompt) + len(part)
	at := utf8.RuneCountInString(e.prompt) + e.pos - from
	var b strings.Builder
	b.WriteString("\r" + text)
	if e.shown > n {
		b.WriteString(strings.Repeat(" ", e.shown-n))
		b.WriteString(strings.Repeat("\b", e.shown-n))
	}
	b.WriteString(strings.Repeat("\b", n-at))
	e.shown, e.cursor = n, at
	e.write(b.String())
}

// ReadText reads lines until a line that holds only ".", or Ctrl-D at the
// start of a line, echoing what comes. Ctrl-C gives up. At most limit bytes.
func (e *Editor) ReadText(ctx context.Context, limit int) (string, error) {
	var text strings.Builder
	var line []byte
	echoed := 0 // how much of line is on the screen
	afterCR := false
	for {
		b, err := e.byte(ctx)
		if errors.Is(err, ErrEnd) {
			text.Write(line)
			return text.String(), nil
		}
		if err != nil {
			return "", err
		}
		if b == lf && afterCR {
			afterCR = false
			continue
		}
		afterCR = b == cr
		switch b {
		case ctrlC:
			e.write("^C\r\n")
			return "", ErrInterrupted
		case ctrlD:
			if len(line) == 0 {
				e.write("\r\n")
				return text.String(), nil
			}
			continue
		case backspace, del:
			if n := len(line); n > 0 {
				_, size := utf8.DecodeLastRune(line)
				line = line[:n-size]
				if echoed > len(line) {
					echoed = len(line)
					e.write("\b \b")
				}
			}
			continue
		case cr, lf:
			e.write("\r\n")
			if string(line) == "." {
				return text.String(), nil
			}
			text.Write(line)
			text.WriteByte('\n')
			line, echoed = line[:0], 0
		default:
			line = append(line, b)
			// What is pasted may come from anywhere: it is shown by whole characters.
			for echoed < len(line) && utf8.FullRune(line[echoed:]) {
				_, size := utf8.DecodeRune(line[echoed:])
				e.write(printable.Text(string(line[echoed : echoed+size])))
				echoed += size
			}
		}
		if text.Len()+len(line) > limit {
			return "", errors.New("the text is too long")
		}
	}
}
