// Package edit changes a configuration text as a tree: set, delete, annotate,
// rename, merge, and what completion offers. It touches the bytes that a change
// is about and no others: comments, conditions, parameters, includes, and lines
// that nobody understands stay as they are.
package edit

import (
	"fmt"
	"slices"
	"strings"

	"ballast/configs/schema"
	"ballast/configs/syntax"
)

// Path names a block from the outermost one in, by the first line of each as it
// is written: "virtual_server 10.0.0.1 80", "real_server 10.0.0.2 80". Where a
// block holds several that are called the same, a number tells them apart:
// "url[2]".
type Path []string

// Doc is a configuration text that is edited.
type Doc struct {
	text string
	top  []syntax.Span // the outermost statements; nil: not known
}

// New makes a Doc of any text.
func New(text string) *Doc { return &Doc{text: text} }

// Text is the text.
func (d *Doc) Text() string { return d.text }

// Error says what is wrong with an edit. Nothing was changed.
type Error struct {
	Line int    // of the text that it is about; 0: none
	Text string // what is wrong
	Fix  string // what to write instead; may be empty
}

func (e *Error) Error() string {
	s := e.Text
	if e.Line > 0 {
		s += fmt.Sprintf(" (line %d)", e.Line)
	}
	if e.Fix != "" {
		s += "; " + e.Fix
	}
	return s
}

func wrong(fix, format string, args ...any) error {
	return &Error{Text: fmt.Sprintf(format, args...), Fix: fix}
}

// scope is the inside of a block, or the whole text.
type scope struct {
	d        *Doc
	block    string // as the schema calls it; unknown for a block that it does not know
	path     Path
	own      *syntax.Span // the block; nil: the whole text
	outer    *scope
	from, to int
	spans    []syntax.Span
}

// unknown is the name of blocks that the schema does not know: no keyword
// belongs into them.
const unknown = "?"

func (d *Doc) root() *scope {
	if d.top == nil {
		d.top = syntax.Outline(d.text, 0, len(d.text))
	}
	return &scope{d: d, to: len(d.text), spans: d.top}
}

// inside is the scope of a block.
func (s *scope) inside(b *syntax.Span, block, head string) *scope {
	in := &scope{d: s.d, block: block, own: b, outer: s, from: b.Open, to: b.Close, path: append(slices.Clone(s.path), head)}
	in.spans = syntax.Outline(s.d.text, b.Open, b.Close)
	return in
}

// title names the scope for a message.
func (s *scope) title() string {
	if len(s.path) == 0 {
		return "the configuration"
	}
	return printed(s.path[len(s.path)-1])
}

// list is the kind of lines that the block holds; empty: it has keywords.
func (s *scope) list() string {
	kind, _ := strings.CutPrefix(s.block, "list:")
	if kind == s.block {
		return ""
	}
	return kind
}

// entry tells whether a line without a keyword may start with a word.
func (s *scope) entry(word string) bool {
	return s.list() != "" || s.block == "virtual_server_group" && schema.Lookup(s.block, word) == nil && strings.ContainsAny(word, ".:")
}

// line is the line number of a place.
func (d *Doc) line(at int) int { return 1 + strings.Count(d.text[:at], "\n") }

// words are the words of a statement, without its condition.
func (d *Doc) words(s *syntax.Span) []string {
	var out []string
	for _, w := range syntax.Words(d.text[s.Head:s.Stop]) {
		out = append(out, w.Text)
	}
	return out
}

// keyword is the first word of a statement.
func (d *Doc) keyword(s *syntax.Span) string {
	head := d.text[s.Head:s.Stop]
	if i := strings.IndexAny(head, " \t\f\v\r\"\\"); i >= 0 {
		if head[i] == '"' || head[i] == '\\' {
			if w := syntax.Words(head); len(w) > 0 {
				return w[0].Text
			}
			return ""
		}
		return head[:i]
	}
	return head
}

// splice is one change: text takes the place of from…to.
type splice struct {
	from, to int
	text     string
}

// apply makes changes, which are in order and do not overlap.
func (d *Doc) apply(changes ...splice) {
	if len(changes) == 1 {
		d.one(changes[0])
		return
	}
	var b strings.Builder
	at := 0
	for _, c := range changes {
		b.WriteString(d.text[at:c.from])
		b.WriteString(c.text)
		at = c.to
	}
	b.WriteString(d.text[at:])
	d.text, d.top = b.String(), nil
}

// one makes a change. A change inside a block leaves the others where they are,
// so that a large text need not be looked through again.
func (d *Doc) one(c splice) {
	d.text = d.text[:c.from] + c.text + d.text[c.to:]
	i, _ := slices.BinarySearchFunc(d.top, c.from, func(s syntax.Span, at int) int { return s.End - at })
	if i >= len(d.top) || d.top[i].Kind != syntax.SpanBlock || d.top[i].Unclosed || c.from < d.top[i].Open || c.to > d.top[i].Close {
		d.top = nil
		return
	}
	grown := len(c.text) - (c.to - c.from)
	top := slices.Clone(d.top)
	top[i].Close += grown
	top[i].End += grown
	for j := i + 1; j < len(top); j++ {
		s := &top[j]
		s.Start, s.End, s.Head, s.Stop = s.Start+grown, s.End+grown, s.Head+grown, s.Stop+grown
		s.Open, s.Close = s.Open+grown, s.Close+grown
	}
	d.top = top
}

// Show is the text of a block with its first and last line, or the whole text.
func (d *Doc) Show(at Path) (string, error) {
	found, err := d.at(at)
	if err != nil {
		return "", err
	}
	if found[0].own == nil {
		return d.text, nil
	}
	var b strings.Builder
	for _, s := range found {
		from, to := s.own.Start, s.own.End
		if i := d.lineStart(from); strings.Trim(d.text[i:from], " \t") == "" {
			from = i
		}
		b.WriteString(d.text[from:to])
		b.WriteByte('\n')
	}
	return b.String(), nil
}

// lineStart is where the line of a place begins, lineEnd where the next one
// does.
func (d *Doc) lineStart(at int) int { return strings.LastIndexByte(d.text[:at], '\n') + 1 }

func (d *Doc) lineEnd(at int) int {
	if i := strings.IndexByte(d.text[at:], '\n'); i >= 0 {
		return at + i + 1
	}
	return len(d.text)
}
