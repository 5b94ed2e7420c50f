// Package format lays out a configuration text: one indentation, one blank
// between words, the { of a block at the end of the line that opens it and its }
// on a line of its own. It changes blanks and ends of lines and nothing else:
// the text means the same to the parser, its comments are all there, and a text
// that was laid out stays as it is.
package format

import (
	"strings"
	"sync"

	"ballast/configs/schema"
	"ballast/configs/syntax"
)

const (
	unit = "    "
	// deepest bounds the indentation, and so by how much a text can grow.
	deepest = 16
	// longest is about what keepalived reads of a line. A line that gets longer by
	// its layout stays as it is.
	longest = 1000

	blanks = " \t\f\v\r"
	mark   = "\xef\xbb\xbf" // byte order mark
)

// verbatim are keywords behind which blanks count: commands, and patterns.
var verbatim = sync.OnceValue(func() map[string]bool {
	m := map[string]bool{"regex": true}
	for _, k := range schema.Keywords() {
		for _, a := range k.Args {
			if a.Kind != schema.KindCmd {
				continue
			}
			m[k.Name] = true
			for _, n := range k.Aliases {
				m[n] = true
			}
		}
	}
	return m
})

// kind of a line.
type kind uint8

const (
	unread     kind = iota // the parser does not read it: it stays byte by byte
	empty                  // nothing but blanks
	plain                  // words, or a brace, that no condition or parameter touches
	special                // a line that stays one line
	definition             // $NAME=VALUE
	body                   // a further line of a definition
)

// line is one line of the result.
type line struct {
	kind kind
	code string // without its comment
	note string // its comment
	was  string // as it stood, from its first word on
	id   string // of a special line with a condition
	rest string // what follows the condition
}

// Format lays out a text.
func Format(text string) string {
	if rest, ok := strings.CutPrefix(text, mark); ok && !strings.HasPrefix(rest, mark) {
		text = rest // the parser reads over one of them
	}
	r := reader{
		// A number of ${_RANDOM} is made from the number of its line: where there is
		// one, no line may come or go.
		fixed: strings.Contains(text, "${_RANDOM"),
		lines: make([]line, 0, strings.Count(text, "\n")+1),
	}
	size := len(text)
	for text != "" {
		s, rest, _ := strings.Cut(text, "\n")
		r.read(s)
		text = rest
	}
	p := printer{fixed: r.fixed}
	p.out.Grow(size + size/4)
	for i := range r.lines {
		p.print(&r.lines[i])
	}
	return p.out.String()
}

// reader turns the text into lines, splits those that hold more than one and
// joins a { to the line before it.
type reader struct {
	lines []line
	fixed bool
	def   bool // within a definition of several lines
}

func (r *reader) add(l line) { r.lines = append(r.lines, l) }

func (r *reader) read(s string) {
	if len(s) > syntax.MaxLine || strings.IndexByte(s, 0) >= 0 {
		r.add(line{kind: unread, was: s})
		return
	}
	s = strings.Trim(s, blanks)
	at, open := syntax.CommentAt(s)
	l := line{code: strings.TrimRight(s[:at], blanks), note: s[at:], was: s}
	if r.def {
		l.kind = body
		r.def = strings.HasSuffix(l.code, `\`)
		r.add(l)
		return
	}
	if s == "" {
		r.add(line{kind: empty})
		return
	}
	if l.code == "" {
		l.kind = special
		r.add(l)
		return
	}
	l.rest = l.code
	if l.code[0] == '@' {
		if i := strings.IndexAny(l.code, blanks); i > 0 {
			l.id, l.rest = l.code[:i], strings.TrimLeft(l.code[i:], blanks)
		}
	}
	if isDefinition(l.rest) {
		l.kind, r.def = definition, strings.HasSuffix(l.rest, `\`)
		r.add(l)
		return
	}
	pieces, ok := split(l.code)
	if !ok || open >= 0 || r.fixed || len(s) > longest {
		l.kind = special
		l.code = spaced(l.code)
		r.add(l)
		return
	}
	for i, piece := range pieces {
		next := line{kind: plain, code: spaced(piece)}
		if i == len(pieces)-1 {
			next.note = l.note // it follows this one
		}
		if i == 0 && piece == "{" && r.join(next.note) {
			continue
		}
		if len(pieces) == 1 {
			next.was = s
		}
		r.add(next)
	}
}

// join puts a { at the end of the words before it.
func (r *reader) join(note string) bool {
	i := len(r.lines) - 1
	for i >= 0 && r.lines[i].kind == empty {
		i--
	}
	if i < 0 {
		return false
	}
	last := &r.lines[i]
	if last.kind != plain || strings.ContainsAny(last.code[len(last.code)-1:], "{}") || last.note != "" && note != "" ||
		len(last.code)+len(last.note)+len(note) > longest {
		return false
	}
	last.code += " {"
	last.note += note
	last.was = ""
	r.lines = r.lines[:i+1]
	return true
}

// isDefinition tells whether a line is $NAME=VALUE.
func isDefinition(s string) bool {
	if s == "" || s[0] != '$' {
		return false
	}
	i := 1
	for i < len(s) && (s[i] == '_' || s[i] >= '0' && s[i] <= '9' || s[i] >= 'a' && s[i] <= 'z' || s[i] >= 'A' && s[i] <= 'Z') {
		i++
	}
	return i > 1 && i < len(s) && s[i] == '='
}

// split cuts a line into one line each of: words with the { behind them, words,
// and }. ok is false where the pieces would mean something else on lines of
// their own: what a condition, a sequence or an include holds good for is the
// whole line, and what stands for a parameter may have a brace in it too.
func split(s string) (pieces []string, ok bool) {
	if strings.ContainsAny(s, `$\`) || strings.IndexByte("@~", s[0]) >= 0 || strings.HasPrefix(s, "include") {
		return nil, false
	}
	add := func(piece string) bool {
		if piece = strings.Trim(piece, blanks); piece == "" {
			return true
		}
		if strings.IndexByte("@~", piece[0]) >= 0 || strings.HasPrefix(piece, "include") {
			return false
		}
		pieces = append(pieces, piece)
		return true
	}
	start, quoted := 0, false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{':
			if words := strings.Trim(s[start:i], blanks); words != "" {
				if !add(words + " {") {
					return nil, false
				}
			} else {
				pieces = append(pieces, "{")
			}
			start = i + 1
		case c == '}':
			if !add(s[start:i]) {
				return nil, false
			}
			pieces = append(pieces, "}")
			start = i + 1
		}
	}
	return pieces, add(s[start:])
}

// spaced puts one blank between words, outside of "…". Behind a keyword whose
// blanks count, and where ' or \ may make them count, they stay.
func spaced(s string) string {
	if strings.HasPrefix(s, "~") || strings.ContainsAny(s, `'\`) {
		return s
	}
	if !strings.ContainsAny(s, "\t\f\v\r") && !strings.Contains(s, "  ") {
		return s
	}
	id, rest := "", s
	if s[0] == '@' {
		if i := strings.IndexAny(s, blanks); i > 0 {
			id, rest = s[:i]+" ", strings.TrimLeft(s[i:], blanks)
		}
	}
	if i := strings.IndexAny(rest, blanks); i > 0 && verbatim()[rest[:i]] {
		return id + rest[:i] + " " + strings.TrimLeft(rest[i:], blanks)
	}
	var b strings.Builder
	b.Grow(len(s))
	b.WriteString(id)
	quoted, blank := false, false
	for i := 0; i < len(rest); i++ {
		c := rest[i]
		if !quoted && strings.IndexByte(blanks, c) >= 0 {
			blank = true
			continue
		}
		if blank {
			b.WriteByte(' ')
			blank = false
		}
		if c == '"' {
			quoted = !quoted
		}
		b.WriteByte(c)
	}
	return b.String()
}

// printer prints lines with their indentation.
type printer struct {
	out   strings.Builder
	fixed bool

	depth  int
	inner  int  // open braces of a definition
	blank  bool // an empty line came
	opened bool // the line before opened a block

	// Of conditions in a row, "@a x {" and "@b y {" open one block and not two:
	// each counts for itself, and the first one counts for what follows.
	run   map[string]int // depth, by condition
	first string
}

func (p *printer) print(l *line) {
	switch l.kind {
	case unread:
		p.gap(false)
		p.out.WriteString(l.was)
		p.out.WriteByte('\n')
		p.opened = false
		return
	case empty:
		if p.fixed {
			p.out.WriteByte('\n')
			return
		}
		p.blank = true
		return
	case body:
		leading, net := braces(l.code)
		p.text(l, p.depth+1+max(p.inner-leading, 0))
		p.inner = max(p.inner+net, 0)
		return
	case definition:
		p.settle()
		p.gap(false)
		p.text(l, p.depth)
		p.inner, p.opened = 0, false
		return
	}
	if l.code == "" {
		p.gap(false)
		p.text(l, p.depth)
		p.opened = false
		return
	}
	if l.id == "" {
		p.settle()
	} else {
		if p.run == nil {
			p.run, p.first = map[string]int{}, l.id
		}
		if _, ok := p.run[l.id]; !ok {
			p.run[l.id] = p.depth
		}
	}
	depth := p.depth
	if l.id != "" {
		depth = p.run[l.id]
	}
	leading, net := braces(l.rest)
	if l.kind == plain {
		leading, net = braces(l.code)
	}
	p.gap(leading > 0)
	p.text(l, max(depth-leading, 0))
	p.opened = net > 0
	if depth = max(depth+net, 0); l.id != "" {
		p.run[l.id] = depth
	} else {
		p.depth = depth
	}
}

// settle ends a row of conditions.
func (p *printer) settle() {
	if p.run != nil {
		p.depth = p.run[p.first]
		p.run = nil
	}
}

// gap prints one empty line where there were some, but not where a block begins
// or ends.
func (p *printer) gap(closes bool) {
	if p.blank && !p.opened && !closes && p.out.Len() > 0 {
		p.out.WriteByte('\n')
	}
	p.blank = false
}

func (p *printer) text(l *line, depth int) {
	depth = min(depth, deepest)
	long := depth*len(unit)+len(l.code)+len(l.note) >= longest
	if long && l.was != "" {
		p.out.WriteString(l.was)
		p.out.WriteByte('\n')
		return
	}
	if !long && l.code+l.note != "" {
		for range depth {
			p.out.WriteString(unit)
		}
	}
	p.out.WriteString(l.code)
	if l.note != "" {
		if l.code != "" {
			p.out.WriteByte(' ')
		}
		p.out.WriteString(l.note)
	}
	p.out.WriteByte('\n')
}

// braces counts the braces of a line as the parser does: how many blocks it
// closes before it does anything else, and how many more it opens than closes.
func braces(s string) (leading, net int) {
	if strings.HasPrefix(s, "~") {
		if i := strings.IndexByte(s, ')'); i > 0 {
			s = s[i+1:]
		}
	}
	quoted, begun := false, false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			quoted, begun = !quoted, true
		case quoted:
		case c == '$' && i+1 < len(s) && s[i+1] == '{':
			begun = true
			if end := strings.IndexByte(s[i:], '}'); end > 0 {
				i += end
			}
		case c == '{':
			net++
			begun = true
		case c == '}':
			if net--; !begun {
				leading++
			}
		case strings.IndexByte(blanks, c) < 0:
			begun = true
		}
	}
	return leading, net
}
