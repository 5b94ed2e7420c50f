package edit

import (
	"strings"

	"ballast/configs/syntax"
)

// unit is by how much the text indents one level.
func (d *Doc) unit() string {
	rest := d.text
	for n := 0; n < 1000 && rest != ""; n++ {
		line := rest
		if i := strings.IndexByte(rest, '\n'); i >= 0 {
			line, rest = rest[:i], rest[i+1:]
		} else {
			rest = ""
		}
		body := strings.TrimLeft(line, " \t")
		if body == "" || len(body) == len(line) || body[0] == '#' || body[0] == '!' {
			continue
		}
		if line[0] == '\t' {
			return "\t"
		}
		if n := len(line) - len(body); n <= 8 {
			return strings.Repeat(" ", n)
		}
	}
	return "    "
}

// indent is the white space in front of a statement that begins its line; ok is
// false where something else stands there.
func (d *Doc) indent(at int) (string, bool) {
	s := d.text[d.lineStart(at):at]
	return s, strings.Trim(s, " \t") == ""
}

// margin is the white space that the line of a place begins with.
func (d *Doc) margin(at int) string {
	line := d.text[d.lineStart(at):at]
	return line[:len(line)-len(strings.TrimLeft(line, " \t"))]
}

// below is the indentation of the statements of a scope.
func (s *scope) below() string {
	for i := len(s.spans) - 1; i >= 0; i-- {
		if in, ok := s.d.indent(s.spans[i].Start); ok {
			return in
		}
	}
	if s.own == nil {
		return ""
	}
	return s.d.margin(s.own.Start) + s.d.unit()
}

// quiet tells whether nothing but blanks and a comment stand between a place and
// the end of its line, and gives where the next line begins.
func (d *Doc) quiet(at, to int) (next int, ok bool) {
	end := to
	if i := strings.IndexByte(d.text[at:to], '\n'); i >= 0 {
		end = at + i
	}
	rest := strings.TrimLeft(d.text[at:end], " \t\f\v\r")
	if rest != "" && rest[0] != '#' && rest[0] != '!' {
		return 0, false
	}
	return min(end+1, to), end < to || to == len(d.text)
}

// newline is how the text ends its lines.
func (d *Doc) newline() string {
	if i := strings.IndexByte(d.text, '\n'); i > 0 && d.text[i-1] == '\r' {
		return "\r\n"
	}
	return "\n"
}

// lines puts an indentation in front of each line.
func (d *Doc) lines(text, indent string) string {
	return indent + strings.ReplaceAll(text, "\n", d.newline()+indent)
}

// open is the error of a scope in which nothing can be put behind a statement:
// it is a block whose } is missing, and would take it in.
func (s *scope) open(behind int) error {
	if behind < 0 {
		behind = len(s.spans) - 1
	}
	if behind < 0 || !s.spans[behind].Unclosed {
		return nil
	}
	b := &s.spans[behind]
	return &Error{Line: s.d.line(b.Start), Text: printed(s.d.text[b.Head:b.Stop]) + " is not closed", Fix: "edit the text: the } of this block is missing"}
}

// insert is the change that puts a statement behind the last one of a scope, or
// behind the one with a number. text has lines without the scope's indentation.
func (s *scope) insert(text string, behind int) splice {
	d, nl := s.d, s.d.newline()
	in := s.below()
	if behind >= 0 || s.own != nil && len(s.spans) > 0 {
		i := behind
		if i < 0 {
			i = len(s.spans) - 1
		}
		at := s.spans[i].End
		next, ok := d.quiet(at, s.to)
		switch {
		case ok && d.text[next-1] == '\n':
			return splice{next, next, d.lines(text, in) + nl}
		case ok: // the end of a text without an end of its last line
			return splice{next, next, nl + d.lines(text, in)}
		case s.own != nil && !strings.Contains(d.text[s.from:s.to], "\n"):
			return s.spread(text)
		case i == len(s.spans)-1 && s.own != nil && !s.own.Unclosed:
			// The closing brace follows on the line.
			return splice{at, s.to, nl + d.lines(text, in) + nl + d.margin(s.own.Start)}
		}
		return splice{at, at, nl + d.lines(text, in) + nl + in}
	}
	if s.own == nil {
		at := len(d.text)
		switch {
		case d.text == "" || d.text == "\xef\xbb\xbf":
			return splice{at, at, d.lines(text, in) + nl}
		case !strings.HasSuffix(d.text, "\n"):
			return splice{at, at, nl + nl + d.lines(text, in)}
		}
		return splice{at, at, nl + d.lines(text, in) + nl}
	}
	// An empty block.
	if next, ok := d.quiet(s.from, s.to); ok && next > 0 && d.text[next-1] == '\n' {
		return splice{next, next, d.lines(text, in) + nl}
	}
	return s.spread(text)
}

// spread writes a block of one line out, with a statement more.
func (s *scope) spread(text string) splice {
	d, nl := s.d, s.d.newline()
	outer := d.margin(s.own.Start)
	in := outer + d.unit()
	var b strings.Builder
	b.WriteString(nl)
	for i := range s.spans {
		b.WriteString(in + d.text[s.spans[i].Start:s.spans[i].End] + nl)
	}
	b.WriteString(d.lines(text, in) + nl + outer)
	return splice{s.from, s.to, b.String()}
}

// remove is the change that takes a statement out, with its line where it has
// one for itself.
func (s *scope) remove(b *syntax.Span) splice {
	d := s.d
	from, to := b.Start, b.End
	start := d.lineStart(from)
	next, ok := d.quiet(to, len(d.text))
	if _, first := d.indent(from); !first || !ok {
		// It shares its line.
		if !first {
			for from > s.from && (d.text[from-1] == ' ' || d.text[from-1] == '\t') {
				from--
			}
			return splice{from, to, ""}
		}
		for to < len(d.text) && (d.text[to] == ' ' || d.text[to] == '\t') {
			to++
		}
		return splice{from, to, ""}
	}
	from, to = start, next
	after := strings.TrimLeft(d.text[to:d.lineEnd(to)], " \t\r")
	ends := to >= len(d.text) || strings.Trim(after, "\r\n") == "" || after[0] == '}'
	if ends || after[0] == '#' || after[0] == '!' {
		// The comment right above is about this statement and no other.
		// One that the text begins with may be about the whole of it.
		if up, _ := d.comment(start); up >= s.from && up > 0 {
			from = up
		}
	}
	if above := d.lineStart(max(from-1, 0)); ends && from > s.from && from > above && strings.Trim(d.text[above:from], " \t\r\n") == "" && above >= s.from {
		from = above // one empty line of the two that would meet
	}
	if to == len(d.text) && !strings.HasSuffix(d.text, "\n") && from > 0 && d.text[from-1] == '\n' {
		if from--; from > 0 && d.text[from-1] == '\r' {
			from--
		}
	}
	return splice{from, to, ""}
}

// above is where something stands above a statement and its comment. A comment
// that the text begins with stays above: it may be about the whole of it.
func (d *Doc) above(b *syntax.Span) int {
	start := d.lineStart(b.Start)
	if up, _ := d.comment(start); up > 0 {
		return up
	}
	return start
}

// comment finds the comment lines right above a line: where they begin, and how
// many they are.
func (d *Doc) comment(start int) (from, count int) {
	from = start
	for from > 0 {
		up := d.lineStart(from - 1)
		if line := strings.TrimLeft(d.text[up:from], " \t"); line == "" || line[0] != '#' && line[0] != '!' {
			break
		}
		from = up
		count++
	}
	return from, count
}
