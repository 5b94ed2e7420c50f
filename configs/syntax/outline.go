package syntax

import "strings"

// SpanKind is what a statement is, as far as its text tells.
type SpanKind uint8

// Kinds of spans.
const (
	SpanLine       SpanKind = iota // a line without a block
	SpanBlock                      // a line with a block
	SpanDefinition                 // $NAME=VALUE, with all its lines
	SpanSequence                   // ~SEQ(…) or ~LST(…), with the block it may open
	SpanInclude                    // include FILE
	SpanFault                      // what no configuration holds: a { without a line before it, a NUL byte
)

// Span is a statement of a text and the bytes that it takes.
type Span struct {
	Kind       SpanKind
	Start, End int // from its condition or its first word to behind its last word or its }
	Head, Stop int // its own words, without condition and brace
	// Cond is the condition of the text line that it begins on: "@lb1",
	// "@^lb1" or empty. A second statement of that line has it as well.
	Cond string
	// Alternatives are further first lines of a block, of other conditions:
	// "@lb1 real_server … {" and below it "@lb2 real_server … {", one block.
	Alternatives bool
	Open, Close  int  // of a block: behind its { and at its }
	Unclosed     bool // the } is missing; Close is where the text ends
}

// outliner goes over a text line by line, as reader does, and notes where the
// statements of one level are.
type outliner struct {
	text  string
	out   []Span
	depth int
	cur   int // the open block of this level, in out
	line  int // the statement that a { would belong to, in out; -1: none
	cond  string

	alternate string // condition of the line that ended in the last {; empty: none
	opened    int    // depth behind that {
}

// Outline finds the statements of one level in text[from:to], which is a whole
// text or what stands between the braces of a block. What stands inside their
// blocks is passed over; Outline of that finds it. No text has a fault for it:
// what it does not understand is in no span, or in one of SpanFault.
func Outline(text string, from, to int) []Span {
	o := outliner{text: text[:to], line: -1}
	at, begin := from, from == 0 || text[from-1] == '\n'
	if from == 0 && strings.HasPrefix(text, "\xef\xbb\xbf") {
		at = 3
	}
	for at < to {
		end, next := to, to
		if i := strings.IndexByte(o.text[at:], '\n'); i >= 0 {
			end, next = at+i, at+i+1
		}
		if begin {
			next = o.wholeLine(at, end, next)
		} else {
			o.pieces(at, end)
		}
		at, begin = next, true
		o.cond = ""
	}
	if o.depth > 0 {
		b := &o.out[o.cur]
		b.Close, b.End, b.Unclosed = to, to, true
	}
	return o.out
}

// wholeLine takes the line text[at:end] and gives where the next one begins: a
// definition may take several.
func (o *outliner) wholeLine(at, end, next int) int {
	line := o.text[at:end]
	if strings.IndexByte(line, 0) >= 0 || len(line) > MaxLine {
		o.add(Span{Kind: SpanFault, Start: at, End: end, Head: at, Stop: end})
		return next
	}
	for at < end && isBlank(o.text[at]) {
		at++
	}
	if at == end {
		return next
	}
	switch o.text[at] {
	case '#', '!':
		return next
	case '@':
		stop := at
		for stop < end && !isBlank(o.text[stop]) {
			stop++
		}
		rest := stop
		for rest < end && isBlank(o.text[rest]) {
			rest++
		}
		if cut, _ := comment(o.text[at:end]); at+cut <= rest {
			end = at + len(strings.TrimRight(o.text[at:at+cut], " \t\f\v\r"))
			o.add(Span{Kind: SpanFault, Start: at, End: end, Head: at, Stop: end})
			return next
		}
		o.cond = o.text[at:stop]
		if o.alternative(rest, end) {
			return next
		}
		return o.special(at, rest, end, next)
	}
	return o.special(at, at, end, next)
}

// alternative tells whether a line with a condition is a further first line of
// the block that the line above has opened.
func (o *outliner) alternative(at, end int) bool {
	cut, _ := comment(o.text[at:end])
	s := strings.TrimRight(o.text[at:at+cut], " \t\f\v\r")
	if !strings.HasSuffix(s, "{") || strings.Count(s, "{") != 1 || strings.Contains(s, "}") {
		return false
	}
	if o.alternate != "" && o.alternate != o.cond && o.opened == o.depth {
		if o.depth == 1 {
			o.out[o.cur].Alternatives = true
			o.out[o.cur].Open = at + len(s)
		}
		return true
	}
	return false
}

// special does the lines that are read before their braces count. start is
// where the statement begins with its condition, at without.
func (o *outliner) special(start, at, end, next int) int {
	line := o.text[at:end]
	if o.cond == "" && line[0] != '$' && line[0] != '~' && !strings.HasPrefix(line, "include") {
		o.piecesFrom(start, at, end)
		o.alternate = ""
		return next
	}
	cut, _ := comment(line)
	line = strings.TrimRight(line[:cut], " \t\f\v\r")
	if _, value, is := definition(line); is {
		stop := at + len(line)
		for more := strings.HasSuffix(value, `\`); more && next < len(o.text); {
			from := next
			stop, next = len(o.text), len(o.text)
			if i := strings.IndexByte(o.text[from:], '\n'); i >= 0 {
				stop, next = from+i, from+i+1
			}
			cut, _ := comment(o.text[from:stop])
			body := strings.TrimRight(o.text[from:from+cut], " \t\f\v\r")
			stop, more = from+len(body), strings.HasSuffix(body, `\`)
		}
		o.add(Span{Kind: SpanDefinition, Start: start, End: stop, Head: at, Stop: stop})
		return next
	}
	if strings.HasPrefix(line, "~SEQ(") || strings.HasPrefix(line, "~SEQx(") || strings.HasPrefix(line, "~LST(") {
		head := len(o.out)
		o.line = -1
		if o.depth == 0 {
			o.out = append(o.out, Span{Kind: SpanSequence, Start: start, Head: at, Cond: o.cond, Stop: at + len(line), End: at + len(line)})
		}
		if i := strings.IndexByte(line, ')'); i >= 0 {
			o.sequence(at+i+1, end, head)
		}
		return next
	}
	if f := words(unescape(line), 1); strings.HasPrefix(line, "include") && len(f) > 0 && !f[0].Quoted && isInclude(f[0].Text) {
		o.add(Span{Kind: SpanInclude, Start: start, End: at + len(line), Head: at, Stop: at + len(line)})
		return next
	}
	depth := o.depth
	o.piecesFrom(start, at, end)
	o.alternate = ""
	if o.cond != "" && o.depth == depth+1 && strings.HasSuffix(line, "{") {
		o.alternate, o.opened = o.cond, o.depth
	}
	return next
}

// isInclude tells whether a keyword is include or one of its variants.
func isInclude(s string) bool {
	variant, is := strings.CutPrefix(s, "include")
	return is && len(variant) <= 1 && strings.Contains("rmwba", variant)
}

// sequence counts the braces of what a sequence repeats. Its statements are one
// span, with the block that it may leave open.
func (o *outliner) sequence(at, end, head int) {
	was := o.depth
	o.braces(at, end)
	switch {
	case was == 0 && o.depth > 0:
		o.cur, o.line = head, -1
		o.out[head].Open = o.out[head].Stop
	case was > 0 && o.depth == 0:
		o.out[o.cur].Close, o.out[o.cur].End = end, end
	}
}

// braces follows the depth without looking at statements.
func (o *outliner) braces(at, end int) {
	o.scan(at, end, func(i int) {
		if o.text[i] == '{' {
			o.depth++
		} else if o.depth > 0 {
			o.depth--
		}
	})
}

func (o *outliner) add(s Span) {
	if o.depth == 0 {
		s.Cond = o.cond
		o.out = append(o.out, s)
		o.line = -1
	}
	o.alternate = ""
}

func (o *outliner) pieces(at, end int) { o.piecesFrom(-1, at, end) }

// scan calls brace for each brace of a line that is one, and gives where the
// line ends without its comment.
func (o *outliner) scan(at, end int, brace func(i int)) int {
	text, quoted := o.text, false
	for i := at; i < end; i++ {
		switch c := text[i]; {
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '\\' && i+1 < end && (text[i+1] == '#' || text[i+1] == '!'):
			i++
		case c == '#' || c == '!':
			return i
		case c == '$' && i+1 < end && text[i+1] == '{':
			if n := braceEnd(text[i:end]); n > 0 {
				i += n
			}
		case c == '{' || c == '}':
			brace(i)
		}
	}
	return end
}

// piecesFrom takes the statements of a line from at on. start is where the
// first of them begins with its condition; -1: it has none.
func (o *outliner) piecesFrom(start, at, end int) {
	from := at
	flush := func(to int) {
		a, b := from, to
		for a < b && isBlank(o.text[a]) {
			a++
		}
		for b > a && isBlank(o.text[b-1]) {
			b--
		}
		if a == b || o.depth > 0 {
			return
		}
		s := Span{Start: a, End: b, Head: a, Stop: b, Cond: o.cond}
		if start >= 0 {
			s.Start, start = start, -1
		}
		o.line = len(o.out)
		o.out = append(o.out, s)
	}
	stop := o.scan(at, end, func(i int) {
		flush(i)
		from, start = i+1, -1
		switch {
		case o.text[i] == '{' && o.depth == 0:
			if o.line < 0 {
				o.line = len(o.out)
				o.out = append(o.out, Span{Kind: SpanFault, Start: i, Head: i, Stop: i + 1, Cond: o.cond})
			} else {
				o.out[o.line].Kind = SpanBlock
			}
			o.cur, o.line = o.line, -1
			o.out[o.cur].Open = i + 1
			o.depth = 1
		case o.text[i] == '{':
			o.depth++
		case o.depth > 0:
			if o.depth--; o.depth == 0 {
				o.out[o.cur].Close, o.out[o.cur].End = i, i+1
			}
		default:
			o.line = -1 // a } too many
		}
	})
	flush(stop)
}

// Words splits a statement as the parser does, without what a parameter stands
// for.
func Words(statement string) []Word { return words(unescape(statement), 1) }
