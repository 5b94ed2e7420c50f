package line

import (
	"slices"
	"strings"

	"ballast/configs"
)

// Bounds of the lines that are remembered.
const (
	maxHistory      = 500
	maxHistoryBytes = 64 << 10
)

// secretWords are words of lines that may hold a secret.
var secretWords = []string{"pass", "key", "community", "secret", "token", "auth"}

// Secret tells whether a line may hold a secret: then it is not kept longer than its
// session. In doubt it is one.
func Secret(line string) bool {
	lower := strings.ToLower(line)
	_, link, found := strings.Cut(lower, "://")
	return slices.ContainsFunc(secretWords, func(w string) bool { return strings.Contains(lower, w) }) ||
		found && strings.Contains(link, "@") || configs.Mask(line) != line
}

// SetHistory makes lines, oldest first, what the cursor keys bring back.
func (e *Editor) SetHistory(lines []string) {
	e.history = nil
	for _, l := range lines {
		e.remember(l)
	}
	e.fresh = 0
}

// History lists the lines that were typed since SetHistory, oldest first,
// without those that may hold a secret.
func (e *Editor) History() []string {
	return slices.DeleteFunc(slices.Clone(e.history[len(e.history)-e.fresh:]), Secret)
}

// Bounded is as much of lines, oldest first, as is remembered.
func Bounded(lines []string) []string {
	bytes, from := 0, len(lines)
	for from > 0 && len(lines)-from < maxHistory && bytes+len(lines[from-1]) <= maxHistoryBytes {
		from--
		bytes += len(lines[from])
	}
	return lines[from:]
}

func (e *Editor) remember(line string) {
	if strings.TrimSpace(line) == "" || (len(e.history) > 0 && e.history[len(e.history)-1] == line) {
		return
	}
	e.history = Bounded(append(e.history, line))
	e.fresh = min(e.fresh+1, len(e.history))
}

// recall walks through the history for one line.
type recall struct {
	e     *Editor
	at    int    // where in the history; its end is the new line
	fresh []rune // the new line while older ones are shown
}

func (r *recall) to(at int) {
	if at < 0 || at > len(r.e.history) {
		return
	}
	if r.at == len(r.e.history) {
		r.fresh = r.e.buf
	}
	if r.at = at; at == len(r.e.history) {
		r.e.buf = r.fresh
	} else {
		r.e.buf = []rune(r.e.history[at])
	}
	r.e.pos = len(r.e.buf)
}

// find looks for text in the lines from at on, towards older ones (step -1) or
// newer ones.
func (r *recall) find(text string, at, step int) (int, bool) {
	for ; at >= 0 && at < len(r.e.history); at += step {
		if strings.Contains(r.e.history[at], text) {
			return at, true
		}
	}
	return 0, false
}

// show makes the line at the one that is edited, with the cursor at text.
func (r *recall) show(at int, text string) {
	r.to(at)
	r.e.pos = len([]rune(r.e.history[at][:strings.Index(r.e.history[at], text)]))
}
