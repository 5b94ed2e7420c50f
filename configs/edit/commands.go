package edit

import (
	"fmt"
	"strings"

	"ballast/configs/schema"
	"ballast/configs/syntax"
)

// Commands are the set commands that make a block, or the whole text, from
// nothing. What no command can say becomes a comment that names the line.
func (d *Doc) Commands(at Path) []string {
	found, err := d.at(at)
	if err != nil {
		return nil
	}
	var out []string
	for _, s := range found {
		// Path elements are as written; a command line has its own quotes.
		prefix := "set"
		for _, element := range s.path {
			words, _ := Split(element)
			for _, w := range words {
				prefix += " " + command(w)
			}
		}
		s.commands(prefix, &out)
		if len(s.spans) == 0 && s.own != nil {
			out = append(out, prefix)
		}
	}
	return out
}

func (s *scope) commands(prefix string, out *[]string) {
	d := s.d
	say := func(b *syntax.Span, why string) {
		*out = append(*out, fmt.Sprintf("# line %d %s: %s", d.line(b.Start), why, printed(strings.ReplaceAll(d.text[b.Start:b.Stop], "\n", " "))))
	}
	numbers := map[string]int{}
	counts := map[string]int{}
	key := func(b *syntax.Span, k *schema.Keyword) string {
		if k.Repeats && k.Key == 0 {
			return d.keyword(b)
		}
		return headline(d.words(b), 0)
	}
	for i := range s.spans {
		b := &s.spans[i]
		if k := schema.Lookup(s.block, d.keyword(b)); b.Kind == syntax.SpanBlock && k != nil && k.Repeats {
			counts[key(b, k)]++
		}
	}
	for i := range s.spans {
		b := &s.spans[i]
		line := prefix
		if b.Cond != "" {
			line += " " + command(b.Cond)
		}
		own := d.text[b.Head:b.Stop]
		name := d.keyword(b)
		k := schema.Lookup(s.block, name)
		switch {
		case b.Kind == syntax.SpanFault:
			say(b, "is not understood")
		case b.Kind == syntax.SpanDefinition && (strings.Contains(own, "\n") || s.own != nil), b.Kind == syntax.SpanSequence && b.Open > 0:
			say(b, "cannot be set by a command")
		case b.Kind == syntax.SpanDefinition || b.Kind == syntax.SpanSequence:
			*out = append(*out, line+" "+command(own))
		case b.Kind != syntax.SpanBlock && (k != nil && k.Opens == "" || s.entry(name)):
			for _, w := range tokens(own) {
				line += " " + command(w)
			}
			*out = append(*out, line)
		case b.Kind == syntax.SpanBlock && k != nil && k.Opens != "" && s.list() == "":
			if b.Cond != "" || b.Alternatives {
				say(b, "has a condition and a block, which no command can set")
				continue
			}
			words := d.words(b)
			n, ok := k.HeadWords(words)
			if !ok {
				say(b, "is not complete")
				continue
			}
			id := key(b, k)
			numbers[id]++
			words = words[:n+1]
			if counts[id] > 1 {
				words[0] = fmt.Sprintf("%s[%d]", name, numbers[id])
			}
			for _, w := range words {
				line += " " + command(w)
			}
			in := s.inside(b, k.Opens, headline(words, 0))
			if len(in.spans) == 0 {
				*out = append(*out, line)
			}
			in.commands(line, out)
		default:
			say(b, "is not understood")
		}
	}
}
