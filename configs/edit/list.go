package edit

import (
	"slices"
	"strings"

	"ballast/configs/syntax"
)

// element is one entry of a list, and the words that say it.
type element struct {
	hit   hit
	words []string
	from  int // of its words in the hit
	n     int // how many words the hit has
}

// split divides the words of a list line into entries, each with its place.
func split(kind string, words []string) (out [][2]int) {
	switch kind {
	case "word":
		for i := range words {
			out = append(out, [2]int{i, i + 1})
		}
		return out
	case "peer":
		for i := 0; i < len(words); {
			j := i + 1
			for j+1 < len(words) && (words[j] == "min_ttl" || words[j] == "max_ttl") {
				j += 2
			}
			out = append(out, [2]int{i, min(j, len(words))})
			i = j
		}
		return out
	}
	return [][2]int{{0, len(words)}}
}

// sameEntry tells whether two entries are about the same thing.
func sameEntry(kind string, a, b []string) bool {
	switch kind {
	case "route", "rule", "":
		return sameWords(a, b)
	case "address":
		x, _, _ := strings.Cut(a[0], "/")
		y, _, _ := strings.Cut(b[0], "/")
		return same(x, y)
	}
	return same(a[0], b[0])
}

// elements are the entries that the scopes of a target hold.
func (t *target) elements() (out []element) {
	for _, s := range t.scopes {
		for i := range s.spans {
			b := &s.spans[i]
			if b.Kind != syntax.SpanLine {
				continue
			}
			w := s.d.words(b)
			if len(w) == 0 || !s.entry(w[0]) {
				continue
			}
			h := hit{s, i, w}
			for _, e := range split(s.list(), w) {
				out = append(out, element{h, w[e[0]:e[1]], e[0], len(w)})
			}
		}
	}
	return out
}

// bounds are the bytes of an element.
func (e *element) bounds() (from, to int) {
	b := e.hit.span()
	text := e.hit.s.d.text[b.Head:b.Stop]
	w := syntax.Words(text)
	end := func(i int) int {
		if i == len(w)-1 {
			return len(text)
		}
		return len(strings.TrimRight(text[:w[i+1].Col-1], " \t\f\v"))
	}
	return b.Head + w[e.from].Col - 1, b.Head + end(e.from+len(e.words)-1)
}

// putEntry makes a list hold the entries of a line.
func (t *target) putEntry(words []string, line string) error {
	kind := t.scopes[0].list()
	parts := split(kind, words)
	if len(parts) == 0 {
		return nil
	}
	for _, p := range parts {
		entry := words[p[0]:p[1]]
		text, err := written(entry, nil)
		if err != nil {
			return err
		}
		if len(parts) == 1 {
			text = line
		}
		if err := t.putOne(kind, entry, text); err != nil {
			return err
		}
		// The text has changed.
		if len(parts) > 1 {
			path := t.scopes[len(t.scopes)-1].path
			scopes, err := t.scopes[0].d.at(path)
			if err != nil {
				return err
			}
			t.scopes = scopes
		}
	}
	return nil
}

func (t *target) putOne(kind string, entry []string, text string) error {
	all := t.elements()
	mine := slices.DeleteFunc(slices.Clone(all), func(e element) bool {
		return e.hit.span().Cond != t.cond || !sameEntry(kind, e.words, entry)
	})
	if len(mine) > 0 {
		e := mine[len(mine)-1]
		if sameWords(e.words, entry) || kind == "peer" && len(entry) == 1 {
			return nil
		}
		if parameter(e.hit.text()) {
			return wrong("delete the line first", "%s comes from a parameter: %s (line %d)", printed(entry[0]), e.hit.shown(), e.hit.line())
		}
		from, to := e.bounds()
		e.hit.s.d.one(splice{from, to, text})
		return nil
	}
	s := t.scopes[len(t.scopes)-1]
	if n := len(s.spans); (kind == "word" || kind == "peer") && n > 0 && t.cond == "" {
		last := &s.spans[n-1]
		single := !strings.Contains(s.d.text[s.from:s.to], "\n")
		if last.Kind == syntax.SpanLine && last.Cond == "" && (single || len(s.d.words(last)) > 1 && kind == "word") {
			s.d.one(splice{last.Stop, last.Stop, " " + text})
			return nil
		}
	}
	return t.add(text, -1)
}
