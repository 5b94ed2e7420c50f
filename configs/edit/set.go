package edit

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	"ballast/configs/schema"
	"ballast/configs/syntax"
)

// opposites are keywords that undo one another: setting one takes the place of
// the other.
var opposites = map[string]string{"preempt": "nopreempt", "nopreempt": "preempt", "accept": "no_accept", "no_accept": "accept"}

// Set makes the text say words in a block: a line is replaced, or added where it
// repeats, and blocks that are missing are made. A condition may stand in front
// of a line: Set(at, "@lb1 priority 150"). What is there already is left alone.
func (d *Doc) Set(at Path, words []string) error {
	t, err := d.walk(at, words)
	if err != nil {
		return err
	}
	return d.set(t)
}

func (d *Doc) set(t *target) error {
	for i := range t.missing {
		h := &t.missing[i]
		line, err := written(h.words, nil)
		if err != nil {
			return err
		}
		if len(h.words) > 1 && !parameter(line) {
			if err := t.verify(slices.Concat((&target{scopes: t.scopes}).above(), t.missing[:i]), line, true); err != nil {
				return err
			}
		}
	}
	switch {
	case t.needs != nil:
		return t.incomplete()
	case len(t.rest) == 0:
		if t.cond != "" {
			return wrong("set the lines in it with the condition", "a condition counts for one line, not for a block")
		}
		if len(t.missing) == 0 {
			if t.scopes[0].own == nil {
				return wrong("write set KEYWORD …", "nothing is named")
			}
			return nil
		}
		return t.add("", -1)
	case strings.HasPrefix(t.rest[0], "$") || strings.HasPrefix(t.rest[0], "~"):
		return d.setRaw(t)
	}
	k := schema.Lookup(t.block(), t.rest[0])
	if len(t.missing) == 0 && t.scopes[0].block == unknown || k == nil && !entry(t.block(), t.rest[0]) {
		return t.unknown(t.rest)
	}
	line, err := t.check(t.rest, k)
	if err != nil {
		return err
	}
	if len(t.missing) > 0 {
		return t.add(line, -1)
	}
	return t.put(k, t.rest, line, false)
}

// entry is scope.entry by the name of the block.
func entry(block, word string) bool { return (&scope{block: block}).entry(word) }

// add puts a line behind a statement of the innermost block, in blocks that are
// made for it. line is empty for the blocks alone.
func (t *target) add(line string, behind int) error {
	s := t.scopes[len(t.scopes)-1]
	if err := s.open(behind); err != nil {
		return err
	}
	if line != "" && t.cond != "" {
		line = t.cond + " " + line
	}
	unit := s.d.unit()
	text := line
	for i := len(t.missing) - 1; i >= 0; i-- {
		first, _ := written(t.missing[i].words, nil)
		if text != "" {
			text = unit + strings.ReplaceAll(text, "\n", "\n"+unit) + "\n"
		}
		text = first + " {\n" + text + "}"
	}
	s.d.one(s.insert(text, behind))
	return nil
}

// hit is a statement that is there already.
type hit struct {
	s     *scope
	i     int
	words []string
}

func (h *hit) span() *syntax.Span { return &h.s.spans[h.i] }

func (h *hit) line() int { return h.s.d.line(h.span().Start) }

// text is the statement as it is written, with its condition.
func (h *hit) text() string { return h.s.d.text[h.span().Start:h.span().Stop] }

// shown is the text for a message.
func (h *hit) shown() string {
	if slices.Contains(secrets, h.words[0]) {
		return strings.TrimSpace(h.span().Cond + " " + h.words[0] + " ********")
	}
	return printed(h.text())
}

// hits are the lines of a keyword in all scopes of a target, in order. word
// tells apart what shares a row.
func (t *target) hits(k *schema.Keyword, word string) (out []hit) {
	for _, s := range t.scopes {
		for i := range s.spans {
			b := &s.spans[i]
			if b.Kind != syntax.SpanLine && b.Kind != syntax.SpanInclude {
				continue
			}
			name := s.d.keyword(b)
			if o := opposites[word]; o != "" && o == name && schema.Lookup(s.block, o) != nil {
				out = append(out, hit{s, i, s.d.words(b)})
				continue
			}
			if name != word && (k.Together || name != k.Name && !slices.Contains(k.Aliases, name)) {
				continue
			}
			out = append(out, hit{s, i, s.d.words(b)})
		}
	}
	return out
}

// with are the hits of a condition.
func with(hits []hit, cond string) (out []hit) {
	for _, h := range hits {
		if h.span().Cond == cond {
			out = append(out, h)
		}
	}
	return out
}

// put makes a block that is there say a line. lenient is for Merge: a line takes
// the place of one whose value comes from elsewhere.
func (t *target) put(k *schema.Keyword, words []string, line string, lenient bool) error {
	if k == nil || t.scopes[0].list() != "" {
		return t.putEntry(words, line)
	}
	all := t.hits(k, words[0])
	mine := with(all, t.cond)
	behind := func() error {
		if len(all) > 0 {
			last := all[len(all)-1]
			t.scopes = []*scope{last.s}
			return t.add(line, last.i)
		}
		return t.add(line, -1)
	}
	if k.Repeats {
		switch {
		case k.Key == schema.Each:
			return t.putEach(mine, words, line, behind)
		case k.Key == 0 || len(words) <= k.Key:
			for _, h := range mine {
				if sameWords(h.words[1:], words[1:]) {
					return nil
				}
			}
			return behind()
		}
		differs := func(h hit) bool {
			return len(h.words) <= k.Key || !sameWords(h.words[1:k.Key+1], words[1:k.Key+1])
		}
		mine = slices.DeleteFunc(mine, differs)
		if len(mine) == 0 {
			return behind()
		}
		all = slices.DeleteFunc(slices.Clone(all), differs)
	}
	if !lenient {
		if err := t.ambiguous(k, words, all, mine); err != nil {
			return err
		}
	}
	if len(mine) == 0 {
		return behind()
	}
	h := mine[len(mine)-1]
	if sameWords(h.words, words) {
		return nil
	}
	b := h.span()
	if !lenient && parameter(h.s.d.text[b.Head:b.Stop]) {
		return wrong("change the parameter: set "+definitionOf(h.words), "%s comes from a parameter: %s (line %d)", words[0], h.shown(), h.line())
	}
	from, text := b.Head, line
	if h.words[0] == words[0] && len(h.words) > 1 && len(words) > 1 {
		// What stands between the keyword and its value stays.
		if w := syntax.Words(h.s.d.text[b.Head:b.Stop]); !w[0].Quoted && !strings.Contains(h.s.d.text[b.Head:b.Head+w[1].Col-1], `\`) {
			from, text = b.Head+w[1].Col-1, strings.TrimPrefix(line, words[0]+" ")
		}
	}
	h.s.d.one(splice{from, b.Stop, text})
	return nil
}

// definitionOf names the parameter in words, for a hint.
func definitionOf(words []string) string {
	for _, w := range words {
		if i := strings.IndexByte(w, '$'); i >= 0 {
			name := strings.TrimPrefix(w[i+1:], "{")
			end := strings.IndexFunc(name, func(r rune) bool {
				return !(r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z')
			})
			if end >= 0 {
				name = name[:end]
			}
			return "$" + name + "=VALUE, or delete the line first"
		}
	}
	return "$NAME=VALUE"
}

// ambiguous says why a line cannot simply be set: its value depends on the box,
// or is made by something else than a line.
func (t *target) ambiguous(k *schema.Keyword, words []string, all, mine []hit) error {
	if len(mine) > 1 {
		return wrong("delete "+words[0]+" first", "%s stands %d times in %s: lines %s", words[0], len(mine), t.title(), places(mine))
	}
	if len(mine) > 0 {
		return nil
	}
	if t.cond == "" && len(all) > 0 {
		var have []string
		for _, h := range all {
			have = append(have, fmt.Sprintf("%s (line %d)", h.shown(), h.line()))
		}
		return wrong("write set "+all[0].span().Cond+" "+words[0]+" …, or delete these lines", "%s differs by box: %s", words[0], strings.Join(have, ", "))
	}
	for _, s := range t.scopes {
		for i := range s.spans {
			b := &s.spans[i]
			if text, how := s.made(b, k, words[0]); text != "" {
				if slices.Contains(secrets, k.Name) {
					text = "********"
				}
				return &Error{Line: s.d.line(b.Start), Text: fmt.Sprintf("%s comes from %s: %s", words[0], how, printed(text)), Fix: "edit the text there, or delete that line first"}
			}
		}
	}
	return nil
}

func places(hits []hit) string {
	var out []string
	for _, h := range hits {
		out = append(out, fmt.Sprint(h.line()))
	}
	return strings.Join(out, ", ")
}

// made tells whether a sequence or a definition of several lines makes a line
// of a keyword.
func (s *scope) made(b *syntax.Span, k *schema.Keyword, word string) (text, how string) {
	d := s.d
	is := func(line string) bool {
		for _, in := range syntax.Outline(line, 0, len(line)) {
			name := d.keyword(&syntax.Span{Head: 0, Stop: 0})
			if w := syntax.Words(line[in.Head:in.Stop]); len(w) > 0 {
				name = w[0].Text
			}
			if name == word || !k.Together && slices.Contains(append([]string{k.Name}, k.Aliases...), name) {
				return true
			}
		}
		return false
	}
	switch own := d.text[b.Head:b.Stop]; {
	case b.Kind == syntax.SpanSequence:
		if i := strings.IndexByte(own, ')'); i >= 0 && is(strings.TrimLeft(own[i+1:], " \t")) {
			return own, "a sequence"
		}
	case b.Kind == syntax.SpanLine && strings.HasPrefix(own, "$"):
		name := strings.Trim(own[1:], "{}")
		for _, def := range d.root().spans {
			if def.Kind != syntax.SpanDefinition {
				continue
			}
			head, body, _ := strings.Cut(d.text[def.Head:def.Stop], "=")
			if head != "$"+name {
				continue
			}
			for _, l := range strings.Split(body, "\n") {
				if is(strings.TrimSpace(strings.TrimSuffix(strings.TrimRight(l, " \t\r"), `\`))) {
					return own, "a parameter of several lines"
				}
			}
		}
	}
	return "", ""
}

// putEach adds the values that are missing.
func (t *target) putEach(mine []hit, words []string, line string, behind func() error) error {
	var missing []string
	for _, w := range words[1:] {
		if !slices.ContainsFunc(mine, func(h hit) bool {
			return slices.ContainsFunc(h.words[1:], func(o string) bool { return same(o, w) })
		}) && !slices.Contains(missing, w) {
			missing = append(missing, w)
		}
	}
	if len(missing) == 0 && len(words) > 1 {
		return nil
	}
	if len(mine) == 0 || len(words) == 1 {
		return behind()
	}
	values, err := written(append([]string{words[0]}, missing...), nil)
	if err != nil {
		return err
	}
	h := mine[len(mine)-1]
	b := h.span()
	if len(h.words) > 2 || k(h).Class != 'O' {
		h.s.d.one(splice{b.Stop, b.Stop, strings.TrimPrefix(values, words[0])})
		return nil
	}
	t.scopes = []*scope{h.s}
	return t.add(values, h.i)
}

// k is the row of a hit.
func k(h hit) *schema.Keyword { return schema.Lookup(h.s.block, h.words[0]) }

// setRaw sets a definition or a sequence, which are lines of their own kind.
func (d *Doc) setRaw(t *target) error {
	line := strings.Join(t.rest, " ")
	name, _, _ := strings.Cut(line, "=") // a value may be a secret
	found := syntax.Outline(line, 0, len(line))
	if len(found) != 1 || found[0].Kind != syntax.SpanDefinition && found[0].Kind != syntax.SpanSequence ||
		found[0].Start != 0 || found[0].End != len(line) || found[0].Open > 0 || strings.HasSuffix(line, `\`) || strings.ContainsFunc(line, unicode.IsControl) {
		return wrong("write $NAME=VALUE, or ~SEQ(NAME, FIRST, LAST) TEXT", "%q is no definition and no sequence of one line", printed(name+" …"))
	}
	if found[0].Kind == syntax.SpanSequence {
		if len(t.missing) == 0 {
			for _, s := range t.scopes {
				for i := range s.spans {
					if b := &s.spans[i]; b.Kind == syntax.SpanSequence && b.Cond == t.cond && d.text[b.Head:b.Stop] == line {
						return nil
					}
				}
			}
		}
		return t.add(line, -1)
	}
	if len(t.missing) > 0 || t.scopes[0].own != nil {
		return wrong("set it at the top level", "a parameter is defined for the whole configuration")
	}
	s := t.scopes[0]
	last, first := -1, -1
	for i := range s.spans {
		b := &s.spans[i]
		if b.Kind != syntax.SpanDefinition {
			if first < 0 {
				first = i
			}
			continue
		}
		last = i
		if have, _, _ := strings.Cut(d.text[b.Head:b.Stop], "="); have == name && b.Cond == t.cond {
			if strings.Contains(d.text[b.Head:b.Stop], "\n") {
				return &Error{Line: d.line(b.Start), Text: printed(name) + " is defined with several lines", Fix: "edit the text there, or delete " + printed(name) + " first"}
			}
			if d.text[b.Head:b.Stop] != line {
				d.one(splice{b.Head, b.Stop, line})
			}
			return nil
		}
	}
	if last < 0 && first >= 0 {
		// Above all that may use it.
		at := d.above(&s.spans[first])
		if t.cond != "" {
			line = t.cond + " " + line
		}
		d.one(splice{at, at, line + d.newline()})
		return nil
	}
	return t.add(line, last)
}
