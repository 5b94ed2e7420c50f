package edit

import (
	"slices"
	"strings"

	"ballast/configs/schema"
	"ballast/configs/syntax"
)

// Rename gives a block another head: to is the new name alone, "VI_2", or the
// whole head. What refers to it elsewhere stays as it is.
func (d *Doc) Rename(at Path, words, to []string) error {
	p, _, head, err := d.block(at, words, to)
	if err != nil {
		return err
	}
	if p.span.Alternatives {
		return &Error{Line: d.line(p.span.Start), Text: "the block has a first line for each box", Fix: "edit the text"}
	}
	line, err := written(head, nil)
	if err != nil {
		return err
	}
	if sameWords(d.words(p.span), head) {
		return nil
	}
	d.one(splice{p.span.Head, p.span.Stop, line})
	return nil
}

// Copy puts a copy of a block behind it, under another head.
func (d *Doc) Copy(at Path, words, to []string) error {
	p, _, head, err := d.block(at, words, to)
	if err != nil {
		return err
	}
	b := p.span
	line, err := written(head, nil)
	if err != nil {
		return err
	}
	if _, first := d.indent(b.Start); !first || b.Alternatives || b.Unclosed {
		return &Error{Line: d.line(b.Start), Text: "the block does not stand on lines of its own", Fix: "edit the text"}
	}
	next, ok := d.quiet(b.End, len(d.text))
	if !ok {
		return &Error{Line: d.line(b.End), Text: "other words stand behind the block on its last line", Fix: "edit the text"}
	}
	indent, _ := d.indent(b.Start)
	text := indent + d.text[b.Start:b.Head] + line + d.text[b.Stop:b.End]
	if p.s.own == nil {
		text = d.newline() + text
	}
	if d.text[next-1] == '\n' {
		text += d.newline()
	} else {
		text = d.newline() + text
	}
	d.one(splice{next, next, text})
	return nil
}

// block finds one block for Rename and Copy, and the head that it shall have.
func (d *Doc) block(at Path, words, to []string) (p place, k *schema.Keyword, head []string, err error) {
	found, err := d.find(at, words, false)
	if err != nil {
		return p, nil, nil, err
	}
	if len(found) != 1 || found[0].span.Kind != syntax.SpanBlock {
		return p, nil, nil, wrong("", "%s is no block", printed(strings.Join(words, " ")))
	}
	p = found[0]
	name := d.keyword(p.span)
	k = schema.Lookup(p.s.block, name)
	if k == nil || len(k.Args) == 0 {
		return p, nil, nil, wrong("", "a block %s has no name", printed(name))
	}
	head = slices.Clone(to)
	if len(to) == 0 || schema.Lookup(p.s.block, to[0]) != k {
		head = append([]string{name}, to...)
	}
	n, ok := k.HeadWords(head)
	if !ok || n+1 != len(head) {
		return p, nil, nil, wrong("write "+strings.TrimSuffix(k.Usage(), " { … }"), "%q is no head of a block", printed(strings.Join(head, " ")))
	}
	line, err := written(head, nil)
	if err != nil {
		return p, nil, nil, err
	}
	t := &target{scopes: []*scope{p.s}}
	if !parameter(line) {
		if err := t.verify(t.above(), line, true); err != nil {
			return p, nil, nil, err
		}
	}
	h := headOf(k, head)
	for _, i := range p.s.blocks(&h) {
		if p.s.spans[i].Start != p.span.Start {
			return p, nil, nil, &Error{Line: d.line(p.s.spans[i].Start), Text: "there is a block " + printed(headline(head, 0)) + " already", Fix: "take another name"}
		}
	}
	return p, k, head, nil
}

func headOf(k *schema.Keyword, words []string) head { return head{words: words, k: k} }

// Insert moves a statement in front of another one of its block, or behind it:
// the order of addresses, routes and urls counts.
func (d *Doc) Insert(at Path, words []string, before bool, other []string) error {
	what, err := d.find(at, words, false)
	if err != nil {
		return err
	}
	// The other one is named as it would be in that place: "insert
	// virtual_ipaddress A before B".
	context := words[:max(0, len(words)-1)]
	where, err := d.find(at, other, false)
	for ; err != nil && len(context) > 0; context = context[:len(context)-1] {
		var again error
		if where, again = d.find(at, slices.Concat(context, other), false); again == nil {
			err = nil
		}
	}
	if err != nil {
		return err
	}
	if len(what) != 1 || len(where) != 1 {
		return wrong("name one statement, and one that it goes to", "what moves, and where to, is not clear")
	}
	a, b := what[0], where[0]
	if a.s.from != b.s.from || a.s.to != b.s.to {
		return wrong("", "%s and %s are not in one block", printed(strings.Join(words, " ")), printed(strings.Join(other, " ")))
	}
	if a.span.Start == b.span.Start {
		return nil
	}
	own := func(s *syntax.Span) (from, to int, ok bool) {
		_, first := d.indent(s.Start)
		next, last := d.quiet(s.End, len(d.text))
		from = d.lineStart(s.Start)
		if up, _ := d.comment(from); up >= a.s.from {
			from = up
		}
		return from, next, first && last && d.text[next-1] == '\n'
	}
	from, to, ok1 := own(a.span)
	target, behind, ok2 := own(b.span)
	if !ok1 || !ok2 {
		return &Error{Line: d.line(a.span.Start), Text: "a statement that moves has lines of its own", Fix: "edit the text"}
	}
	if !before {
		target = behind
	}
	text := d.text[from:to]
	if target <= from {
		d.apply(splice{target, target, text}, splice{from, to, ""})
	} else if target >= to {
		d.apply(splice{from, to, ""}, splice{target, target, text})
	}
	return nil
}
