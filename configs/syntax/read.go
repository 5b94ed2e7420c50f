package syntax

import (
	"fmt"
	"path"
	"strings"

	"ballast/configs/model"
)

// item is a line without braces, or one brace.
type item struct {
	kind byte // 't' text, '{', '}', 'a' a block left as text
	node *Node
	pos  model.Pos
}

// reader turns files into items: everything that keepalived does line by line.
type reader struct {
	opts     Options
	tree     *Tree
	items    []item
	problems []model.Problem
	last     model.Pos // last line read

	params map[string]param
	warned map[string]bool
	budget int // lines that expansion may still add
	grown  int // bytes that parameters made
	files  int
	stack  []string // files being read

	def      string   // name of the multi-line definition being read
	defLines []string // its body
	defSkip  bool     // it belongs to a condition that does not hold
	defPos   model.Pos
	over     bool // the budget was reported

	depth int  // open braces
	stray bool // there was a } too many

	slab slab
}

// param is a definition: one value, or the lines of a multi-line one.
type param struct {
	value string
	lines []string
}

func newReader(opts Options) *reader {
	return &reader{opts: opts, tree: &Tree{}, budget: MaxExpanded}
}

func (r *reader) problem(s model.Severity, pos model.Pos, fix, format string, args ...any) {
	r.problems = append(r.problems, model.Problem{
		Severity: s, File: pos.File, Line: pos.Line, Col: pos.Col,
		Text: fmt.Sprintf(format, args...), Fix: fix,
	})
}

// file reads one text, line by line.
func (r *reader) file(name, text string) {
	r.tree.Files, r.tree.Texts = append(r.tree.Files, name), append(r.tree.Texts, text)
	r.stack = append(r.stack, name)
	r.lines(name, strings.TrimPrefix(text, "\xef\xbb\xbf"), 1)
	r.stack = r.stack[:len(r.stack)-1]
}

// lines reads text, whose first line has number n.
func (r *reader) lines(name, text string, n int) {
	whole := len(text)
	for ; len(text) > 0; n++ {
		if r.opts.Apart != "" && r.depth == 0 && r.def == "" {
			if size, lines, col := apart(text, r.opts.Apart); size > 0 {
				pos := model.Pos{File: name, Line: n, Col: col}
				r.items = append(r.items, item{kind: 'a', pos: pos, node: &Node{Pos: pos, Block: true, Apart: text[:size], At: whole - len(text),
					Words: []Word{{Text: r.opts.Apart, Col: col}}}})
				r.tree.Lines += lines
				n += lines - 1
				r.last = model.Pos{File: name, Line: n, Col: 1}
				text = text[size:]
				continue
			}
		}
		line := text
		if i := strings.IndexByte(text, '\n'); i >= 0 {
			line, text = text[:i], text[i+1:]
		} else {
			text = ""
		}
		r.tree.Lines++
		pos := model.Pos{File: name, Line: n, Col: 1}
		r.last = pos
		switch {
		case strings.IndexByte(line, 0) >= 0:
			pos.Col = strings.IndexByte(line, 0) + 1
			r.problem(model.Error, pos, "delete the line, and see how the file came here: it may be cut or no text at all", "the line holds a NUL byte")
		case len(line) > MaxLine:
			r.problem(model.Error, pos, fmt.Sprintf("keep lines below %d bytes", 1024), "the line is %d bytes long, too long for a configuration", len(line))
		default:
			r.line(strings.TrimRight(line, "\r"), pos, 0)
		}
	}
}

// finish reports what was still open at the end of the text.
func (r *reader) finish() {
	if r.def != "" {
		r.problem(model.Error, r.defPos, "let the last line of the definition end without a backslash", "the definition of $%s goes on to the end of the file", r.def)
		r.endDefinition()
	}
}

// line does one line in keepalived's order: comment, condition, definition,
// sequence, parameters (and then from the start again), include, braces.
func (r *reader) line(s string, pos model.Pos, depth int) {
	if depth > 0 {
		if r.budget--; r.budget < 0 || r.grown > maxGrown {
			if !r.over {
				r.over = true
				r.problem(model.Error, pos, "write the lines out, or use fewer of them", "parameters and sequences make more than %d lines or %d MB", MaxExpanded, maxGrown>>20)
			}
			return
		}
	}
	cut, open := comment(s)
	if open >= 0 {
		p := pos
		p.Col += open
		r.problem(model.Error, p, `close it with " on the same line`, "the quote is not closed")
	}
	if cut < len(s) && depth == 0 {
		p := pos
		p.Col += cut
		r.tree.Comments = append(r.tree.Comments, Comment{Pos: p, Text: s[cut:]})
	}
	s = s[:cut]
	lead := 0
	for lead < len(s) && isBlank(s[lead]) {
		lead++
	}
	s = strings.TrimRight(s[lead:], " \t\f\v\r")
	pos.Col += lead

	if r.def != "" {
		body, more := strings.CutSuffix(s, `\`)
		r.defLines = append(r.defLines, strings.TrimRight(body, " \t"))
		if !more {
			r.endDefinition()
		}
		return
	}
	if s == "" {
		return
	}
	if s[0] == '@' {
		rest, skipped, ok := r.condition(s, pos)
		if !ok {
			// A definition that does not count may still go on over the next lines.
			if name, value, is := definition(rest); skipped && is && strings.HasSuffix(value, `\`) {
				r.def, r.defSkip, r.defPos = name, true, pos
			}
			return
		}
		pos.Col += len(s) - len(rest)
		s = rest
	}
	if s[0] == '$' {
		if name, value, ok := definition(s); ok {
			r.define(name, value, pos)
			return
		}
	}
	if s[0] == '~' && r.sequence(s, pos, depth) {
		return
	}
	if strings.IndexByte(s, '$') >= 0 {
		if p, ok := r.multi(s); ok {
			if depth >= MaxNesting {
				r.problem(model.Error, pos, "a definition must not use itself", "definitions are nested more than %d deep", MaxNesting)
				return
			}
			for _, l := range p.lines {
				r.line(l, pos, depth+1)
			}
			return
		}
		if t := r.substitute(s, pos); t != s {
			if depth >= MaxNesting {
				r.problem(model.Error, pos, "a definition must not use itself", "parameters are nested more than %d deep", MaxNesting)
				return
			}
			r.line(t, pos, depth+1)
			return
		}
	}
	if strings.HasPrefix(s, "include") && r.include(s, pos) {
		return
	}
	r.emit(s, pos)
}

// condition evaluates "@id rest" and "@^id rest". skipped tells a condition
// that does not hold from a broken one.
func (r *reader) condition(s string, pos model.Pos) (rest string, skipped, ok bool) {
	end := 1
	for end < len(s) && !isBlank(s[end]) {
		end++
	}
	id, not := strings.CutPrefix(s[1:end], "^")
	rest = strings.TrimLeft(s[end:], " \t\f\v\r")
	if id == "" || rest == "" {
		r.problem(model.Error, pos, "write \"@NAME rest of the line\", or \"@^NAME …\" for every other box", "the condition %s has no name or nothing after it", clip(s))
		return "", false, false
	}
	if (id == r.opts.ConfigID) == not {
		return rest, true, false
	}
	return rest, false, true
}

// emit splits a line at its braces and keeps the pieces.
func (r *reader) emit(s string, pos model.Pos) {
	s = unescape(s)
	start, quoted := 0, false
	flush := func(end int) {
		text := s[start:end]
		trim := 0
		for trim < len(text) && isBlank(text[trim]) {
			trim++
		}
		text = strings.TrimRight(text[trim:], " \t\f\v\r")
		if text == "" {
			return
		}
		p := pos
		p.Col += start + trim
		n := r.slab.node()
		n.Pos, n.Raw, n.Words = p, text, r.slab.words(text, p.Col)
		r.items = append(r.items, item{kind: 't', node: n, pos: p})
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '$' && i+1 < len(s) && s[i+1] == '{':
			// A parameter that nobody defined stays as it is: its braces are text.
			if end := braceEnd(s[i:]); end > 0 {
				i += end
			}
		case c == '{' || c == '}':
			flush(i)
			p := pos
			p.Col += i
			r.items = append(r.items, item{kind: c, pos: p})
			start = i + 1
			if c == '{' {
				r.depth++
			} else if r.depth--; r.depth < 0 {
				r.depth, r.stray = 0, true
			}
		}
	}
	flush(len(s))
}

// braceEnd finds the } of a parameter, near its ${; -1 when there is none.
func braceEnd(s string) int { return strings.IndexByte(s[:min(len(s), maxName)], '}') }

// clip shortens text of a stranger for a message.
func clip(s string) string {
	if len(s) > 40 {
		return fmt.Sprintf("%.40q…", s)
	}
	return fmt.Sprintf("%q", s)
}

func (r *reader) dir() string { return path.Dir(r.stack[len(r.stack)-1]) }
