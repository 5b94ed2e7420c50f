package syntax

import "strings"

// Edit says where a text differs from an older one: bytes From to To of that
// are bytes From to Until of it. All that stands there in either of them, from
// the beginning of a line on, is blocks that mean the same wherever they stand
// (see apart.go), empty lines and comments.
type Edit struct {
	From, To, Until int
	Was             int     // blocks in the older text, From to To
	Blocks          []Piece // in the text, From to Until
	Lines, WasLines int
}

// Piece is a block within an Edit.
type Piece struct {
	At, Size, Lines int // bytes of the text
	Line            int // of its first line, counted from the beginning of the Edit
	Col             int // of the keyword, from 1
}

// Edited compares two texts that are alike but for blocks of a keyword. ok is
// false where they differ in anything else. Neither is read but around that
// place.
func Edited(old, text, keyword string) (e Edit, ok bool) {
	prefix := same(old, text)
	if prefix == len(old) && prefix == len(text) {
		return Edit{From: prefix, To: prefix, Until: prefix}, true
	}
	suffix := sameEnd(old[prefix:], text[prefix:])
	from := blockAbove(text[:prefix], keyword)
	if from < 0 {
		return Edit{}, false
	}
	was, is := walk{text: old, at: from}, walk{text: text, at: from}
	grown := len(text) - len(old)
	for first := true; ; first = false {
		// The one that is behind goes on, until both stand behind the difference
		// at the same place of the common end.
		a, b := was.at, is.at-grown
		switch {
		case !first && a == b && is.at >= len(text)-suffix && was.settled() && is.settled():
			return Edit{From: from, To: was.at, Until: is.at, Was: len(was.blocks), Blocks: is.blocks, Lines: is.lines, WasLines: was.lines}, true
		case a <= b && was.at < len(old):
			ok = was.next(keyword)
		default:
			ok = is.next(keyword)
		}
		if !ok {
			return Edit{}, false
		}
	}
}

// blockAbove is where the last line begins that starts with the keyword; -1:
// there is none.
func blockAbove(text, keyword string) int {
	for end := len(text); ; {
		i := strings.LastIndexByte(text[:end], '\n') + 1
		line := text[i:]
		for line != "" && isBlank(line[0]) {
			line = line[1:]
		}
		if len(line) > len(keyword) && line[:len(keyword)] == keyword && isBlank(line[len(keyword)]) {
			return i
		}
		if i == 0 {
			return -1
		}
		end = i - 1
	}
}

// walk goes over blocks of a keyword and what may stand between them.
type walk struct {
	text   string
	at     int
	lines  int
	blocks []Piece
	behind bool // a block ends here
}

// settled tells whether what follows can be read without what came before.
func (w *walk) settled() bool { return w.behind || w.at == len(w.text) }

// next takes a block or a line; false where there is something else.
func (w *walk) next(keyword string) bool {
	rest := w.text[w.at:]
	if rest == "" {
		return false
	}
	if size, lines, col := apart(rest, keyword); size > 0 {
		w.blocks = append(w.blocks, Piece{At: w.at, Size: size, Lines: lines, Line: w.lines, Col: col})
		w.at += size
		w.lines += lines
		w.behind = true
		return true
	}
	size := strings.IndexByte(rest, '\n') + 1
	if size == 0 {
		size = len(rest)
	}
	line := strings.Trim(rest[:size], " \t\f\v\r\n")
	if size > MaxLine || line != "" && line[0] != '#' && line[0] != '!' || strings.IndexByte(line, 0) >= 0 {
		return false
	}
	w.at += size
	w.lines++
	w.behind = false
	return true
}

// stride is how many bytes are compared at once.
const stride = 4096

// same is how many bytes two texts have in common at their beginning.
func same(a, b string) int {
	n := min(len(a), len(b))
	i := 0
	for i+stride <= n && a[i:i+stride] == b[i:i+stride] {
		i += stride
	}
	for i < n && a[i] == b[i] {
		i++
	}
	return i
}

// sameEnd is how many bytes two texts have in common at their end.
func sameEnd(a, b string) int {
	n := min(len(a), len(b))
	i := 0
	for i+stride <= n && a[len(a)-i-stride:len(a)-i] == b[len(b)-i-stride:len(b)-i] {
		i += stride
	}
	for i < n && a[len(a)-i-1] == b[len(b)-i-1] {
		i++
	}
	return i
}
