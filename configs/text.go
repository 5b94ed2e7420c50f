package configs

import (
	"slices"
	"strings"
	"sync"

	"ballast/configs/bind"
	"ballast/configs/internal/lazy"
	"ballast/configs/syntax"
)

// ownKinds are the blocks of the appliance, which a keepalived.conf from
// elsewhere does not have.
var ownKinds = []string{"system", "interface", "bond", "vlan", "route", "mark", "heartbeat", "peer", "snmp", "netboot", "firewall"}

// span is one statement at top level: a line, or a block with its braces.
type span struct {
	kind       string // first word, after a condition
	start, end int    // bytes, with the comment lines right above and the end of the line
}

var definitionLine = lazy.Regexp(`^(?:@\S+[ \t]+)?\$([A-Za-z0-9_]+)=`)

// matters tells the bytes by which spans finds its way through a block.
var matters = [256]bool{'"': true, '\\': true, '#': true, '!': true, '$': true, '{': true, '}': true}

// spans finds the statements of the top level. It reads quotes, comments and
// braces as the parser does, and nothing else.
func spans(text string) []span {
	var out []span
	depth, quoted, cur := 0, false, -1 // cur: index of the open statement
	comments := -1                     // start of the comment lines right above
	for at := 0; at < len(text); {
		end := strings.IndexByte(text[at:], '\n')
		next := len(text)
		if end >= 0 {
			next = at + end + 1
		}
		line := text[at:next]
		body := strings.TrimSpace(line)
		switch {
		case body == "":
			comments = -1
		case depth == 0 && (body[0] == '#' || body[0] == '!'):
			if comments < 0 {
				comments = at
			}
			at = next
			continue
		}
		quoted = false
		word := true // a statement may start here
		for i := 0; i < len(line); i++ {
			c := line[i]
			if depth > 0 && !matters[c] {
				continue
			}
			switch {
			case c == '"':
				quoted = !quoted
			case quoted:
			case c == '\\' && i+1 < len(line) && (line[i+1] == '#' || line[i+1] == '!'):
				i++
			case c == '#' || c == '!':
				i = len(line)
				continue
			case c == '$' && i+1 < len(line) && line[i+1] == '{' && strings.IndexByte(line[i:min(i+256, len(line))], '}') > 0:
				i += strings.IndexByte(line[i:], '}')
			case c == '{':
				depth++
				continue
			case c == '}':
				if depth > 0 {
					depth--
				}
				if depth == 0 {
					if cur >= 0 {
						out[cur].end = at + i + 1
					}
					word = true
					cur = -1
				}
				continue
			}
			if depth == 0 && word && c != ' ' && c != '\t' && c != '\r' && c != '\n' && c != '\f' && c != '\v' {
				word = false
				start := at + i
				if strings.TrimSpace(line[:i]) == "" {
					start = at // whole lines keep their indent
					if comments >= 0 {
						start = comments
					}
				}
				out = append(out, span{kind: firstWord(line[i:]), start: start, end: next})
				cur = len(out) - 1
			}
		}
		if body != "" {
			comments = -1
		}
		at = next
	}
	// A block whose closing brace ends its line takes the rest of the line along.
	for i := range out {
		rest := text[out[i].end:]
		nl := strings.IndexByte(rest, '\n')
		if nl < 0 {
			nl = len(rest) - 1
		}
		tail := strings.TrimSpace(rest[:nl+1])
		if out[i].end > 0 && text[out[i].end-1] != '\n' && (tail == "" || tail[0] == '#' || tail[0] == '!') {
			out[i].end += nl + 1
		}
	}
	return out
}

// defines is the name of the parameter that a statement of text defines.
func (s span) defines(text string) string {
	if !strings.HasPrefix(s.kind, "$") {
		return ""
	}
	if m := definitionLine().FindStringSubmatch(strings.TrimSpace(text[s.start:s.end])); m != nil {
		return m[1]
	}
	return ""
}

// firstWord is the keyword of a statement, behind "@id".
func firstWord(s string) string {
	w, rest := word(s)
	if strings.HasPrefix(w, "@") {
		if next, _ := word(rest); next != "" {
			return next
		}
	}
	return w
}

// word is the first word of a line, and what follows it.
func word(s string) (w, rest string) {
	apart := func(c byte) bool {
		switch c {
		case ' ', '\t', '\r', '\n', '\f', '\v', '{', '}', '"':
			return true
		}
		return false
	}
	i := 0
	for i < len(s) && apart(s[i]) {
		i++
	}
	j := i
	for j < len(s) && !apart(s[j]) {
		j++
	}
	return s[i:j], s[j:]
}

// outline is what Merge has to know of a text.
type outline struct {
	text    string
	have    map[string]bool // kinds of statements
	defined map[string]bool // parameters
	// parts are the definitions and the blocks of the appliance.
	parts []span
}

func outlineOf(text string) *outline {
	o := &outline{text: text, have: map[string]bool{}, defined: map[string]bool{}}
	for _, s := range spans(text) {
		o.have[s.kind] = true
		name := s.defines(text)
		if name != "" {
			o.defined[name] = true
		}
		if name != "" || slices.Contains(ownKinds, s.kind) {
			o.parts = append(o.parts, s)
		}
	}
	return o
}

// Merger does what Merge does, and remembers what it found in the last two
// texts: what is merged today runs tomorrow, and both differ little from what
// came before. The zero value is ready. Its methods may be called from any
// goroutine.
type Merger struct {
	mu                 sync.Mutex
	running, candidate *outline
}

// outlineFrom is the outline of a text, from one that is known where that helps.
func outlineFrom(text string, known ...*outline) *outline {
	for _, o := range known {
		if o != nil && o.text == text {
			return o
		}
	}
	for _, o := range known {
		if next := o.edited(text); next != nil {
			return next
		}
	}
	return outlineOf(text)
}

// Merge is the function Merge.
func (m *Merger) Merge(running, candidate string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.running = outlineFrom(running, m.running, m.candidate)
	m.candidate = outlineFrom(candidate, m.candidate, m.running)
	return merge(m.running, m.candidate)
}

// edited is the outline of a text that differs from o's in virtual servers
// only; nil: it does not, or o is nil.
func (o *outline) edited(text string) *outline {
	if o == nil {
		return nil
	}
	e, ok := syntax.Edited(o.text, text, bind.Apart)
	if !ok {
		return nil
	}
	next := &outline{text: text, have: o.have, defined: o.defined, parts: slices.Clone(o.parts)}
	for i := range next.parts {
		switch p := &next.parts[i]; {
		case p.end <= e.From:
		case p.start >= e.To:
			p.start += e.Until - e.To
			p.end += e.Until - e.To
		default:
			return nil
		}
	}
	return next
}

// Merge gives the text that runs when candidate replaces running: candidate,
// plus those blocks of the appliance (system, interface, bond, vlan, route,
// mark) of running whose kind candidate has none of, with the comments right
// above them and the definitions that they use. Merging twice changes nothing.
func Merge(running, candidate string) string {
	return merge(outlineOf(running), outlineOf(candidate))
}

func merge(was, is *outline) string {
	running, candidate, have, defined := was.text, is.text, is.have, is.defined
	var blocks []string
	definitions := map[string][]string{}
	var order []string
	for _, s := range was.parts {
		part := strings.TrimRight(running[s.start:s.end], " \t\r\n")
		if name := s.defines(running); name != "" {
			if definitions[name] == nil {
				order = append(order, name)
			}
			definitions[name] = append(definitions[name], part)
		}
		if slices.Contains(ownKinds, s.kind) && !have[s.kind] {
			blocks = append(blocks, part)
		}
	}
	if len(blocks) == 0 {
		return candidate
	}
	var b strings.Builder
	b.WriteString(candidate)
	if candidate != "" && !strings.HasSuffix(candidate, "\n") {
		b.WriteByte('\n')
	}
	text := strings.Join(blocks, "\n")
	// A definition may use another one: go over them until nothing is added.
	used := map[string]bool{}
	for again := true; again; {
		again = false
		for _, name := range order {
			if !used[name] && !defined[name] && uses(text, name) {
				used[name], again = true, true
				text += "\n" + strings.Join(definitions[name], "\n")
			}
		}
	}
	for _, name := range order {
		if used[name] {
			b.WriteString(strings.Join(definitions[name], "\n") + "\n")
		}
	}
	for _, s := range blocks {
		b.WriteString(s)
		b.WriteByte('\n')
	}
	return b.String()
}

func uses(text, name string) bool {
	if strings.Contains(text, "${"+name+"}") {
		return true
	}
	for rest := text; ; {
		_, after, ok := strings.Cut(rest, "$"+name)
		if !ok {
			return false
		}
		if after == "" || strings.ContainsRune(" \t,)\r\n", rune(after[0])) {
			return true
		}
		rest = after
	}
}
