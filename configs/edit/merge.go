package edit

import (
	"slices"
	"strings"

	"ballast/configs/schema"
	"ballast/configs/syntax"
)

// Merge brings the statements of another text in: blocks with the same head are
// merged statement by statement, a line takes the place of the one that there
// is, or is added where it repeats. Nothing is judged: that is for a check.
func (d *Doc) Merge(text string) error {
	was, top := d.text, d.top
	err := d.merge(text)
	if err != nil {
		d.text, d.top = was, top
	}
	return err
}

func (d *Doc) merge(text string) error {
	other := &Doc{text: strings.TrimPrefix(text, "\xef\xbb\xbf")}
	root := other.root()
	// Blocks that are there, by their identity. Each is merged as a text of its
	// own, so that a large configuration is put together once.
	have := map[string]*slot{}
	var slots, fresh []*slot
	s := d.root()
	for i := range s.spans {
		b := &s.spans[i]
		id, ok := s.identity(b)
		if !ok || b.Kind != syntax.SpanBlock || b.Unclosed || b.Alternatives {
			continue
		}
		// The first one counts where two are called the same; of those that add
		// up, the last one has the last word.
		if k := schema.Lookup("", d.keyword(b)); have[id] == nil || !k.Repeats {
			x := &slot{from: b.Start, to: b.End, text: d.text[b.Start:b.End]}
			have[id] = x
			slots = append(slots, x)
		}
	}
	var lines []int
	for i := range root.spans {
		b := &root.spans[i]
		if b.Kind != syntax.SpanBlock {
			lines = append(lines, i)
			continue
		}
		id, ok := root.identity(b)
		if x := have[id]; ok && x != nil {
			if err := x.merge(other.text[b.Start:b.End]); err != nil {
				return err
			}
			continue
		}
		if !ok && s.holds(other.text[b.Start:b.End]) {
			continue
		}
		x := &slot{from: -1, text: root.verbatim(b)}
		if fresh = append(fresh, x); ok && !b.Unclosed && !b.Alternatives {
			have[id] = x
		}
	}
	var changes []splice
	for _, x := range slots {
		if x.text != d.text[x.from:x.to] {
			changes = append(changes, splice{x.from, x.to, x.text})
		}
	}
	if len(changes) > 0 {
		d.apply(changes...)
	}
	for _, i := range lines {
		if err := d.mergeOne(nil, root, i); err != nil {
			return err
		}
	}
	if len(fresh) > 0 {
		if err := d.root().open(-1); err != nil {
			return err
		}
		var b strings.Builder
		for _, x := range fresh {
			if b.Len() > 0 {
				b.WriteString("\n\n")
			}
			b.WriteString(x.text)
		}
		d.one(d.root().insert(strings.ReplaceAll(b.String(), "\r\n", "\n"), -1))
	}
	return nil
}

// holds tells whether a statement is there word for word.
func (s *scope) holds(text string) bool {
	text = strings.ReplaceAll(text, "\r\n", "\n")
	return slices.ContainsFunc(s.spans, func(o syntax.Span) bool {
		return strings.ReplaceAll(s.d.text[o.Start:o.End], "\r\n", "\n") == text
	})
}

// slot is a block of the text that others are merged into.
type slot struct {
	from, to int
	text     string
}

// merge brings in a block with the same head.
func (x *slot) merge(block string) error {
	if x.text == block {
		return nil
	}
	in, from := New(x.text), New(block)
	mine, theirs := in.root(), from.root()
	i := slices.IndexFunc(mine.spans, func(b syntax.Span) bool { return b.Kind == syntax.SpanBlock })
	if i < 0 || len(theirs.spans) == 0 {
		return nil
	}
	b := &theirs.spans[0]
	k := schema.Lookup("", from.keyword(b))
	if k == nil {
		return nil
	}
	if err := in.mergeBlock([]int{i}, theirs.inside(b, k.Opens, "")); err != nil {
		return err
	}
	if words := from.words(b); !k.Repeats && len(words) > 1 && !sameWords(words, in.words(&in.root().spans[i])) {
		own := in.root().spans[i]
		in.one(splice{own.Head, own.Stop, from.text[b.Head:b.Stop]})
	}
	x.text = in.text
	return nil
}

// verbatim is a statement with the comment lines right above.
func (s *scope) verbatim(b *syntax.Span) string {
	start := b.Start
	if _, first := s.d.indent(start); first {
		if up, n := s.d.comment(s.d.lineStart(start)); n > 0 && up >= s.from {
			start = up
		}
	}
	return strings.TrimRight(s.d.text[start:b.End], " \t\r\n")
}

// identity is what tells a block from others of its scope. ok is false for one
// that is merged with no other.
func (s *scope) identity(b *syntax.Span) (string, bool) {
	words := s.d.words(b)
	if len(words) == 0 {
		return "", false
	}
	k := schema.Lookup(s.block, words[0])
	if k == nil || k.Opens == "" || b.Cond != "" {
		return "", false
	}
	n, ok := k.HeadWords(words)
	if !ok || n+1 > len(words) {
		return "", false
	}
	id := k.Name
	if k.Together || k.Repeats && k.Key == 0 {
		id = words[0]
	}
	if !k.Repeats {
		return id, true
	}
	for _, w := range words[1 : n+1] {
		id += "\x00" + w
	}
	switch {
	case k.Name == "virtual_server":
		id += "\x00" + protocol(s.inside(b, k.Opens, ""))
	case k.Name == "url":
		id += "\x00" + s.inside(b, k.Opens, "").value("path")
	case k.Name == "garp_group" || k.Name == "host":
		return "", false
	}
	return id, true
}

// protocol is that of a virtual server: two of the same address may differ in
// it.
func protocol(s *scope) string {
	p := strings.ToUpper(s.value("protocol"))
	if p == "" {
		p = "UDP"
	}
	return p
}

// value is the first argument of the last line of a keyword.
func (s *scope) value(name string) string {
	for i := len(s.spans) - 1; i >= 0; i-- {
		if s.d.keyword(&s.spans[i]) == name {
			if w := s.d.words(&s.spans[i]); len(w) > 1 {
				return w[1]
			}
		}
	}
	return ""
}

// scopeAt finds a scope by the numbers of the statements that lead to it: they
// stay the same while only that scope is edited.
func (d *Doc) scopeAt(path []int) *scope {
	s := d.root()
	for _, i := range path {
		b := &s.spans[i]
		opens := unknown
		if k := schema.Lookup(s.block, d.keyword(b)); k != nil && k.Opens != "" {
			opens = k.Opens
		}
		s = s.inside(b, opens, d.text[b.Head:b.Stop])
	}
	return s
}

// mergeBlock merges the statements of a block into the one at path.
func (d *Doc) mergeBlock(path []int, from *scope) error {
	for i := range from.spans {
		if err := d.mergeOne(path, from, i); err != nil {
			return err
		}
	}
	return nil
}

// mergeOne merges one statement.
func (d *Doc) mergeOne(path []int, from *scope, i int) error {
	b := &from.spans[i]
	s := d.scopeAt(path)
	own := strings.ReplaceAll(from.d.text[b.Start:b.End], "\r\n", "\n")
	name := from.d.keyword(b)
	k := schema.Lookup(from.block, name)
	switch {
	case b.Kind == syntax.SpanBlock && i < len(s.spans) && d.text[s.spans[i].Start:s.spans[i].End] == own:
		return nil // it stands in the same place, word for word
	case b.Kind == syntax.SpanBlock:
		if id, ok := from.identity(b); ok {
			nth := 0 // of blocks that only their order tells apart
			for j := 0; j < i; j++ {
				if o, ok := from.identity(&from.spans[j]); ok && o == id && from.spans[j].Kind == syntax.SpanBlock {
					nth++
				}
			}
			for j := range s.spans {
				o, ok := s.identity(&s.spans[j])
				if !ok || o != id || s.spans[j].Kind != syntax.SpanBlock || s.spans[j].Unclosed {
					continue
				}
				if k.Repeats && k.Key == 0 && nth > 0 {
					nth--
					continue
				}
				return d.mergeBlock(append(slices.Clone(path), j), from.inside(b, k.Opens, ""))
			}
		}
	case b.Kind == syntax.SpanLine && (k != nil && k.Opens == "" || from.entry(name)):
		t := &target{scopes: []*scope{s}, cond: b.Cond}
		return t.put(k, from.d.words(b), from.d.text[b.Head:b.Stop], true)
	case b.Kind == syntax.SpanDefinition:
		head, _, _ := strings.Cut(from.d.text[b.Head:b.Stop], "=")
		for j := range s.spans {
			o := &s.spans[j]
			have, _, _ := strings.Cut(d.text[o.Head:o.Stop], "=")
			if o.Kind == syntax.SpanDefinition && have == head && o.Cond == b.Cond {
				d.one(splice{o.Start, o.End, own})
				return nil
			}
		}
		if first := slices.IndexFunc(s.spans, func(o syntax.Span) bool { return o.Kind != syntax.SpanDefinition }); first >= 0 && s.own == nil {
			at := d.above(&s.spans[first])
			d.one(splice{at, at, own + d.newline()})
			return nil
		}
	}
	// Anything else is there word for word, or is added.
	if s.holds(own) {
		return nil
	}
	if err := s.open(-1); err != nil {
		return err
	}
	d.one(s.insert(outdent(from, b), -1))
	return nil
}

// outdent is a statement without the indentation of its block.
func outdent(s *scope, b *syntax.Span) string {
	text := strings.ReplaceAll(s.verbatim(b), "\r\n", "\n")
	indent, ok := s.d.indent(b.Start)
	if !ok || indent == "" {
		return text
	}
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = strings.TrimPrefix(lines[i], indent)
	}
	return strings.Join(lines, "\n")
}
