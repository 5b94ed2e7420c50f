package edit

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"ballast/configs/schema"
	"ballast/configs/syntax"
)

// head is the first line of a block as somebody asks for it.
type head struct {
	words  []string // the keyword first, without a number
	number int      // of url[2]; 0: none
	k      *schema.Keyword
}

func (h *head) String() string { return headline(h.words, h.number) }

// target is where words lead: to the blocks that there are, from there on
// through blocks that are missing, and to a line in the last of them.
type target struct {
	scopes  []*scope // the innermost ones that there are; several of blocks that add up
	missing []head
	rest    []string // the line
	cond    string   // its condition
	needs   *head    // words of this head are missing: it is all that is left
}

// block is the schema's name of the block that the line belongs into.
func (t *target) block() string {
	if n := len(t.missing); n > 0 {
		return t.missing[n-1].k.Opens
	}
	return t.scopes[0].block
}

// title names that block for a message.
func (t *target) title() string {
	if n := len(t.missing); n > 0 {
		return printed(t.missing[n-1].String())
	}
	return t.scopes[0].title()
}

// selector splits "url[2]".
func selector(word string) (name string, number int) {
	if s, ok := strings.CutSuffix(word, "]"); ok {
		if i := strings.LastIndexByte(s, '['); i > 0 {
			if n, err := strconv.Atoi(s[i+1:]); err == nil && n > 0 && n < 1<<20 {
				return s[:i], n
			}
		}
	}
	return word, 0
}

// condition tells whether a word is one.
func condition(w string) bool {
	return len(w) > 1 && w[0] == '@' && w != "@^" && !strings.ContainsAny(w, " \t\"{}#!")
}

// heads are the first lines of a block, each as words. A block has several when
// it has alternatives.
func (d *Doc) heads(s *syntax.Span) [][]string {
	if !s.Alternatives {
		return [][]string{d.words(s)}
	}
	var out [][]string
	for _, l := range strings.Split(d.text[s.Start:s.Open], "\n") {
		for _, in := range syntax.Outline(l, 0, len(l)) {
			var w []string
			for _, x := range syntax.Words(l[in.Head:in.Stop]) {
				w = append(w, x.Text)
			}
			out = append(out, w)
		}
	}
	return out
}

// same compares two words: addresses by what they mean.
func same(a, b string) bool {
	if a == b {
		return true
	}
	if !strings.Contains(a, ":") || !strings.Contains(b, ":") {
		return false
	}
	x, err1 := netip.ParseAddr(a)
	y, err2 := netip.ParseAddr(b)
	return err1 == nil && err2 == nil && x == y
}

func sameWords(a, b []string) bool { return slices.EqualFunc(a, b, same) }

// headIs tells whether a block has a head: its keyword, and the words behind
// it that tell such blocks apart.
func (d *Doc) headIs(s *syntax.Span, k *schema.Keyword, words []string) bool {
	name := d.keyword(s)
	if !s.Alternatives && name != words[0] && (k.Together || !slices.Contains(k.Aliases, name) && k.Name != name) {
		return false
	}
	for _, have := range d.heads(s) {
		if len(have) == 0 || !k.Same(have[0], words[0]) {
			continue
		}
		if !k.Repeats || k.Key == 0 {
			return true
		}
		if n, _ := k.HeadWords(have); n+1 <= len(have) && sameWords(have[1:n+1], words[1:]) {
			return true
		}
	}
	return false
}

// blocks finds the blocks of a head in a scope.
func (s *scope) blocks(h *head) (out []int) {
	for i := range s.spans {
		b := &s.spans[i]
		// Most of thousands of blocks differ in their first argument.
		if len(h.words) > 1 && h.k.Repeats && h.k.Key != 0 && !strings.Contains(h.words[1], ":") && !strings.ContainsAny(h.words[1], "#!\\\"") &&
			!b.Alternatives && !strings.Contains(s.d.text[b.Head:b.Stop], h.words[1]) {
			continue
		}
		if b.Kind == syntax.SpanBlock && s.d.headIs(b, h.k, h.words) {
			out = append(out, i)
		}
	}
	return out
}

// enter goes from a scope into a block. There may be several when they add up,
// and none.
func (s *scope) enter(h *head) ([]*scope, error) {
	found := s.blocks(h)
	if h.number > 0 {
		if h.number > len(found)+1 || h.number == len(found)+1 && len(found) > 0 && h.k.Repeats && h.k.Key != 0 && h.k.Name != "virtual_server" {
			return nil, wrong("", "there are %d blocks %s in %s, not %d", len(found), headline(h.words, 0), s.title(), h.number)
		}
		if h.number > len(found) {
			return nil, nil
		}
		found = found[h.number-1 : h.number]
	}
	if len(found) > 1 && h.k.Repeats {
		return nil, s.several(h, found)
	}
	if len(found) > 0 && !h.k.Repeats && len(h.words) > 1 {
		// There is one such block, whatever stands in its head.
		b := &s.spans[found[0]]
		if !slices.ContainsFunc(s.d.heads(b), func(w []string) bool { return len(w) > 0 && sameWords(w[1:], h.words[1:]) }) {
			return nil, &Error{Line: s.d.line(b.Start), Text: "there is " + printed(s.d.text[b.Head:b.Stop]) + " already, and one " + h.words[0] + " only",
				Fix: "write " + h.words[0] + " alone for it, or rename " + h.words[0] + " to " + printed(headline(h.words[1:], 0))}
		}
	}
	var out []*scope
	for _, i := range found {
		number := h.number
		if number == 0 && len(found) > 1 {
			number = len(out) + 1
		}
		out = append(out, s.inside(&s.spans[i], h.k.Opens, headline(h.words, number)))
	}
	return out, nil
}

// several says that a head is not enough to tell blocks apart.
func (s *scope) several(h *head, found []int) error {
	var lines []string
	for n, i := range found {
		if n == 8 {
			lines = append(lines, "…")
			break
		}
		lines = append(lines, fmt.Sprintf("%s in line %d", headline(h.words, n+1), s.d.line(s.spans[i].Start)))
	}
	return wrong("say which one: "+strings.Join(lines, ", "), "there are %d blocks %s in %s", len(found), printed(headline(h.words, 0)), s.title())
}

// step goes down one level, in all scopes.
func step(scopes []*scope, h *head) (out []*scope, err error) {
	for _, s := range scopes {
		in, err := s.enter(h)
		if err != nil {
			return nil, err
		}
		out = append(out, in...)
	}
	return out, nil
}

// at finds the blocks of a path, which must be there.
func (d *Doc) at(at Path) ([]*scope, error) {
	t, err := d.walk(at, nil)
	if err != nil {
		return nil, err
	}
	if len(t.missing) > 0 {
		return nil, t.scopes[0].absent(&t.missing[0])
	}
	return t.scopes, nil
}

// absent says that there is no such block, and what there is.
func (s *scope) absent(h *head) error {
	var have []string
	for i := range s.spans {
		b := &s.spans[i]
		if b.Kind != syntax.SpanBlock || schema.Lookup(s.block, s.d.keyword(b)) != h.k {
			continue
		}
		if have = append(have, printed(s.d.text[b.Head:b.Stop])); len(have) == 9 {
			have[8] = "…"
			break
		}
	}
	fix := ""
	switch {
	case len(have) > 0 && len(h.words) > 1:
		if near := schema.NearestOf(headline(h.words, 0), have); near != "" {
			fix = "did you mean " + near + "?"
		} else {
			fix = "there is " + strings.Join(have, ", ")
		}
	case len(have) > 0:
		fix = "there is " + strings.Join(have, ", ")
	}
	return wrong(fix, "there is no %s in %s", printed(h.String()), s.title())
}

// walk follows a path and then words as far as they name blocks.
func (d *Doc) walk(at Path, words []string) (*target, error) {
	t := &target{scopes: []*scope{d.root()}}
	down := func(h head) error {
		if len(t.missing) == 0 {
			in, err := step(t.scopes, &h)
			if err != nil {
				return err
			}
			if len(in) > 0 {
				t.scopes = in
				return nil
			}
		}
		t.missing = append(t.missing, h)
		return nil
	}
	for _, element := range at {
		w, ok := Split(element)
		if !ok || len(w) == 0 {
			return nil, wrong("", "%q names no block", printed(element))
		}
		name, number := selector(w[0])
		k := schema.Lookup(t.block(), name)
		if k == nil || k.Opens == "" {
			if err := t.opaque(w); err != nil {
				return nil, err
			}
			continue
		}
		w[0] = name
		if err := down(head{w, number, k}); err != nil {
			return nil, err
		}
	}
	for len(words) > 0 {
		if t.cond == "" && condition(words[0]) {
			t.cond, words = words[0], words[1:]
			continue
		}
		name, number := selector(words[0])
		k := schema.Lookup(t.block(), name)
		if k == nil || k.Opens == "" {
			break
		}
		line := append([]string{name}, words[1:]...)
		n, ok := k.HeadWords(line)
		h := head{line[:n+1], number, k}
		if !ok {
			t.needs, t.rest = &h, words
			return t, nil
		}
		for _, w := range line[1 : n+1] {
			if w == "" || strings.ContainsAny(w, "\n\r\"") {
				return nil, wrong("", "%q cannot be in the name of a block", printed(w))
			}
		}
		if err := down(h); err != nil {
			return nil, err
		}
		words = words[n+1:]
	}
	t.rest = words
	return t, nil
}

// opaque enters a block that the schema does not know, by its words.
func (t *target) opaque(w []string) error {
	if len(t.missing) == 0 {
		for _, s := range t.scopes {
			for i := range s.spans {
				if b := &s.spans[i]; b.Kind == syntax.SpanBlock && sameWords(s.d.words(b), w) {
					t.scopes = []*scope{s.inside(b, unknown, headline(w, 0))}
					return nil
				}
			}
		}
	}
	return t.unknown(w)
}

// Enter is the path of a block, from words that may go down several levels. A
// block that is not there is made when create says so.
func (d *Doc) Enter(at Path, words []string, create bool) (Path, error) {
	t, err := d.walk(at, words)
	switch {
	case err != nil:
		return nil, err
	case t.needs != nil:
		return nil, t.incomplete()
	case t.cond != "":
		return nil, wrong("leave it out", "a condition names no block")
	case len(t.rest) > 0:
		if k := schema.Lookup(t.block(), t.rest[0]); k != nil {
			return nil, wrong("write set "+k.Usage(), "%s is a line and no block", printed(t.rest[0]))
		}
		return nil, t.unknown(t.rest)
	}
	if len(t.missing) > 0 {
		if !create {
			return nil, t.scopes[0].absent(&t.missing[0])
		}
		if err := d.set(t); err != nil {
			return nil, err
		}
	}
	path := slices.Clone(t.scopes[0].path)
	for i := range t.missing {
		path = append(path, t.missing[i].String())
	}
	return path, nil
}

// incomplete says which words of a head are missing.
func (t *target) incomplete() error {
	h := t.needs
	fix := "write " + h.k.Name + " " + strings.TrimSuffix(strings.TrimSpace(strings.TrimSuffix(h.k.Grammar(), "{ … }")), " ")
	if len(t.missing) == 0 {
		var have []string
		for _, s := range t.scopes {
			for i := range s.spans {
				if b := &s.spans[i]; b.Kind == syntax.SpanBlock && schema.Lookup(s.block, s.d.keyword(b)) == h.k {
					have = append(have, printed(s.d.text[b.Head:b.Stop]))
				}
			}
		}
		if len(have) > 8 {
			have = append(have[:8], "…")
		}
		if len(have) > 0 {
			fix += "; there is " + strings.Join(have, ", ")
		}
	}
	return wrong(fix, "%s is not complete", printed(headline(h.words, 0)))
}
