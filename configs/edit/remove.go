package edit

import (
	"fmt"
	"slices"
	"strings"

	"ballast/configs/schema"
	"ballast/configs/syntax"
)

// Delete takes what words name out of a block: a line, a value of a line that
// holds several, all lines of a keyword, or a block. The comment right above
// goes along when it is about nothing else.
func (d *Doc) Delete(at Path, words []string) error {
	found, err := d.find(at, words, true)
	if err != nil {
		return err
	}
	// From the last one on, so that the places of the others stay.
	slices.SortStableFunc(found, func(a, b place) int { return b.change.from - a.change.from })
	done := len(d.text)
	for _, p := range found {
		c := p.change
		if c.to = min(c.to, done); c.from < c.to {
			d.one(c)
			done = c.from
		}
	}
	return nil
}

// place is something that words name: the statement, and the change that takes
// it out.
type place struct {
	s      *scope
	span   *syntax.Span
	change splice
}

// find is what words name in a block. It is an error when there is nothing.
func (d *Doc) find(at Path, words []string, values bool) ([]place, error) {
	if len(words) == 0 {
		return nil, wrong("name what is meant; \"top\" and the name of a block stands for the block", "nothing is named")
	}
	t, err := d.walk(at, words)
	if err != nil {
		return nil, err
	}
	if len(t.missing) > 0 {
		return nil, t.scopes[0].absent(&t.missing[0])
	}
	if t.needs != nil {
		return nil, t.incomplete()
	}
	var out []place
	one := func(s *scope, b *syntax.Span) { out = append(out, place{s, b, s.remove(b)}) }
	if len(t.rest) == 0 {
		for _, s := range t.scopes {
			if s.own == nil {
				return nil, wrong("", "nothing is named")
			}
			if t.cond == "" || s.own.Cond == t.cond {
				one(s.outer, s.own)
			}
		}
		if len(out) == 0 {
			return nil, wrong("", "there is no %s %s", t.cond, t.title())
		}
		return out, nil
	}
	word := t.rest[0]
	name, number := selector(word)
	switch k := schema.Lookup(t.block(), name); {
	case strings.HasPrefix(word, "$") || strings.HasPrefix(word, "~"):
		out = t.raw()
	case k != nil && t.scopes[0].list() == "":
		line := append([]string{name}, t.rest[1:]...)
		hits := t.hits(k, name)
		hits = slices.DeleteFunc(hits, func(h hit) bool { return !k.Same(h.words[0], name) || schema.Lookup(h.s.block, h.words[0]) != k })
		if number > 0 {
			if number > len(hits) {
				return nil, t.none(hits, line)
			}
			hits = hits[number-1 : number]
		}
		if out, err = t.lines(k, hits, line, values); err != nil {
			return nil, err
		}
		if len(out) == 0 {
			return nil, t.none(hits, line)
		}
	case entry(t.block(), name):
		out = t.entries()
	default:
		// What nobody knows can be deleted word for word.
		for _, s := range t.scopes {
			for i := range s.spans {
				b := &s.spans[i]
				w := d.words(b)
				if b.Cond == t.cond && len(w) >= len(t.rest) && len(w) > 0 && sameWords(w[:len(t.rest)], t.rest) {
					one(s, b)
				}
			}
		}
		if len(out) == 0 {
			return nil, t.unknown(t.rest)
		}
	}
	if len(out) == 0 {
		return nil, t.none(nil, t.rest)
	}
	return out, nil
}

// lines are the lines of a keyword that begin with words, under the target's
// condition.
func (t *target) lines(k *schema.Keyword, hits []hit, words []string, values bool) (out []place, err error) {
	mine := with(hits, t.cond)
	if t.cond == "" && len(mine) == 0 && len(hits) > 0 {
		var have []string
		for _, h := range hits {
			have = append(have, fmt.Sprintf("%s (line %d)", h.shown(), h.line()))
		}
		return nil, wrong("write the condition in front: delete "+hits[0].span().Cond+" "+words[0], "%s differs by box: %s", words[0], strings.Join(have, ", "))
	}
	left := slices.Clone(words[1:])
	for _, h := range mine {
		if k.Key == schema.Each && k.Repeats && len(words) > 1 && values {
			change, ok := h.without(words[1:], &left)
			if ok {
				out = append(out, place{h.s, h.span(), change})
			}
			continue
		}
		if len(h.words) >= len(words) && sameWords(h.words[1:len(words)], words[1:]) {
			out = append(out, place{h.s, h.span(), h.s.remove(h.span())})
		}
	}
	if k.Key == schema.Each && k.Repeats && values && len(left) > 0 {
		return nil, nil
	}
	return out, nil
}

// without takes values out of a line, and the line when none is left. left loses
// what was found.
func (h *hit) without(values []string, left *[]string) (splice, bool) {
	b := h.span()
	text := h.s.d.text[b.Head:b.Stop]
	w := syntax.Words(text)
	var keep []int
	for i := 1; i < len(w); i++ {
		j := slices.IndexFunc(values, func(v string) bool { return same(v, w[i].Text) })
		if j < 0 {
			keep = append(keep, i)
			continue
		}
		*left = slices.DeleteFunc(*left, func(v string) bool { return v == values[j] })
	}
	switch {
	case len(keep) == len(w)-1:
		return splice{}, false
	case len(keep) == 0:
		return h.s.remove(b), true
	}
	end := func(i int) int {
		if i == len(w)-1 {
			return len(text)
		}
		return len(strings.TrimRight(text[:w[i+1].Col-1], " \t\f\v"))
	}
	line := text[:end(0)]
	for _, i := range keep {
		line += text[end(i-1):end(i)]
	}
	return splice{b.Head, b.Stop, line}, true
}

// entries are the entries of a list that words name.
func (t *target) entries() (out []place) {
	kind := t.scopes[0].list()
	all := t.elements()
	for _, p := range split(kind, t.rest) {
		want := t.rest[p[0]:p[1]]
		var one []place
		for _, e := range all {
			if e.hit.span().Cond != t.cond {
				continue
			}
			if len(want) > len(e.words) || !sameWords(e.words[1:len(want)], want[1:]) {
				continue
			}
			if !same(e.words[0], want[0]) && (kind != "address" || strings.Contains(want[0], "/") || !sameEntry(kind, e.words, want)) {
				continue
			}
			s, b := e.hit.s, e.hit.span()
			if e.n == len(e.words) {
				one = append(one, place{s, b, s.remove(b)})
				continue
			}
			from, to := e.bounds()
			if e.from > 0 {
				for s.d.text[from-1] == ' ' || s.d.text[from-1] == '\t' {
					from--
				}
			} else {
				for to < b.Stop && (s.d.text[to] == ' ' || s.d.text[to] == '\t') {
					to++
				}
			}
			one = append(one, place{s, b, splice{from, to, ""}})
		}
		if len(one) == 0 {
			return nil
		}
		out = append(out, one...)
	}
	// All entries of one line go with the line.
	for i := 0; i < len(out); i++ {
		n, total := 0, 0
		for _, e := range all {
			if e.hit.span() == out[i].span {
				total++
			}
		}
		for _, p := range out {
			if p.span == out[i].span {
				n++
			}
		}
		if n == total && n > 1 {
			span, s := out[i].span, out[i].s
			out = slices.DeleteFunc(out, func(p place) bool { return p.span == span })
			out = append(out, place{s, span, s.remove(span)})
			i = -1
		}
	}
	return out
}

// raw are the definitions and sequences that words name.
func (t *target) raw() (out []place) {
	want := strings.Join(t.rest, " ")
	name, _, _ := strings.Cut(want, "=")
	for _, s := range t.scopes {
		for i := range s.spans {
			b := &s.spans[i]
			text := s.d.text[b.Head:b.Stop]
			have, _, _ := strings.Cut(text, "=")
			switch {
			case b.Cond != t.cond && t.cond != "":
			case b.Kind == syntax.SpanDefinition && have == name && (name == want || text == want),
				b.Kind == syntax.SpanSequence && text == want,
				b.Kind == syntax.SpanLine && text == want:
				out = append(out, place{s, b, s.remove(b)})
			}
		}
	}
	return out
}

// none says that nothing of the kind is there, and what is.
func (t *target) none(hits []hit, words []string) error {
	what := printed(strings.Join(words, " "))
	if len(words) > 1 && slices.Contains(secrets, words[0]) {
		what = words[0] + " with this value"
	}
	if t.cond != "" {
		what = t.cond + " " + what
	}
	var have []string
	seen := map[string]bool{}
	add := func(s string) {
		if !seen[s] && len(have) < 12 {
			seen[s] = true
			have = append(have, s)
		}
	}
	for _, h := range hits {
		add(h.shown())
	}
	if len(hits) == 0 {
		for _, s := range t.scopes {
			for i := range s.spans {
				b := &s.spans[i]
				if s.list() != "" || b.Kind == syntax.SpanBlock || b.Kind == syntax.SpanDefinition {
					text, _, _ := strings.Cut(s.d.text[b.Head:b.Stop], "=")
					add(printed(text))
				} else {
					add(printed(s.d.keyword(b)))
				}
			}
		}
	}
	fix := ""
	if near := schema.NearestOf(words[0], have); near != "" && near != words[0] {
		fix = "did you mean " + near + "?"
	} else if len(have) > 0 {
		fix = "there is " + strings.Join(have, ", ")
	}
	return wrong(fix, "there is no %s in %s", what, t.title())
}

// Annotate writes a comment above what words name, in place of the one that is
// there; an empty comment takes it away.
func (d *Doc) Annotate(at Path, words []string, comment string) error {
	found, err := d.find(at, words, false)
	if err != nil {
		return err
	}
	if len(found) > 1 {
		return wrong("say which one", "%s stands %d times", printed(strings.Join(words, " ")), len(found))
	}
	b := found[0].span
	indent, first := d.indent(b.Start)
	if !first {
		return &Error{Line: d.line(b.Start), Text: "other words stand in front of it on its line, so that no comment can stand above it", Fix: "write it on a line of its own"}
	}
	start := d.lineStart(b.Start)
	from, _ := d.comment(start)
	if from < found[0].s.from {
		from = start
	}
	var text strings.Builder
	if comment != "" {
		for _, l := range strings.Split(strings.TrimRight(comment, "\n"), "\n") {
			for _, r := range l {
				if r < ' ' && r != '\t' || r == 0x7f {
					return wrong("leave control characters out", "this is no comment")
				}
			}
			if len(l) > syntax.MaxLine/2 {
				return wrong("shorten it", "the comment has %d bytes on a line, which is too long", len(l))
			}
			text.WriteString(strings.TrimRight(indent+"# "+l, " \t") + d.newline())
		}
	}
	d.one(splice{from, start, text.String()})
	return nil
}
