package edit

import (
	"fmt"
	"slices"
	"strings"

	"ballast/configs/printable"
	"ballast/configs/schema"
	"ballast/configs/syntax"
)

// secrets are keywords whose values no message shows.
var secrets = []string{"auth_pass", "password", "key", "community", "smtp_password"}

// printed makes text fit for a message.
func printed(s string) string { return printable.Short(s, 60) }

// blank tells whether a word cannot stand without quotes.
func blank(w string) bool {
	if w == "" {
		return true
	}
	for i := 0; i < len(w); i++ {
		switch w[i] {
		case ' ', '\t', '\f', '\v':
			return true
		case '\\':
			if i+1 < len(w) && (w[i+1] == '#' || w[i+1] == '!') {
				i++ // it is written with its backslash
			}
		case '#', '!', '{', '}':
			return true
		case '$':
			if i+1 < len(w) && w[i+1] == '{' {
				if n := strings.IndexByte(w[i:], '}'); n > 0 {
					i += n
				}
			}
		}
	}
	return false
}

// whole tells whether a word with quotes is one as it is written: all that
// needs quotes has them.
func whole(w string) bool {
	var outside strings.Builder
	parts := strings.Split(w, `"`)
	if len(parts)%2 == 0 {
		return false
	}
	for i := 0; i < len(parts); i += 2 {
		outside.WriteString(parts[i])
	}
	return outside.Len() == 0 || !blank(outside.String())
}

// quoted writes one word as the text needs it. k is the keyword that it belongs
// to, nil where there is none.
func quoted(w string, k *schema.Keyword) (string, error) {
	for _, r := range w {
		if r < ' ' && r != '\t' || r == 0x7f {
			return "", wrong("write it on one line, without control characters", "%q cannot stand in a line", printed(w))
		}
	}
	if !strings.Contains(w, `"`) {
		if blank(w) {
			return `"` + w + `"`, nil
		}
		return w, nil
	}
	if whole(w) {
		return w, nil
	}
	// A command is split once more, and knows a backslash there.
	if k != nil && len(k.Args) > 0 && (k.Args[0].Kind == schema.KindCmd || k.Name == "regex") {
		s := `"` + strings.ReplaceAll(w, `"`, `\"`) + `"`
		if strings.Count(s, `"`)%2 == 0 {
			return s, nil
		}
	}
	return "", wrong("leave the quotes out", `%q holds a quote, which no word of a configuration can`, printed(w))
}

// written is a statement as the text needs it.
func written(words []string, k *schema.Keyword) (string, error) {
	out := make([]string, len(words))
	for i, w := range words {
		var err error
		if out[i], err = quoted(w, k); err != nil {
			if i > 0 && slices.Contains(secrets, words[0]) {
				err = wrong("leave quotes, control characters and ends of lines out", "%s: this cannot be written as a word", words[0])
			}
			return "", err
		}
	}
	s := strings.Join(out, " ")
	if len(s) > syntax.MaxLine/2 {
		return "", wrong("shorten it", "the line has %d bytes, which is too long", len(s))
	}
	found := syntax.Outline(s, 0, len(s))
	if len(found) != 1 || found[0].Start != 0 || found[0].End != len(s) || found[0].Cond != "" ||
		found[0].Kind != syntax.SpanLine && found[0].Kind != syntax.SpanInclude {
		return "", wrong(`put words with { } # ! into quotes`, "%q is not one line of a configuration", printed(words[0]+" …"))
	}
	return s, nil
}

// Split splits a command line into words as a console does: quotes keep blanks
// together, a backslash inside them takes the next character as it is. ok is
// false when a quote is not closed.
func Split(line string) (out []string, ok bool) {
	var word strings.Builder
	in, quote := false, false
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case quote && c == '\\' && i+1 < len(line):
			i++
			word.WriteByte(line[i])
		case c == '"':
			quote, in = !quote, true
		case !quote && (c == ' ' || c == '\t' || c == '\r' || c == '\n'):
			if in {
				out = append(out, word.String())
			}
			word.Reset()
			in = false
		default:
			word.WriteByte(c)
			in = true
		}
	}
	if in {
		out = append(out, word.String())
	}
	return out, !quote
}

// command writes a word for a command line, for Split.
func command(w string) string {
	if w != "" && !strings.ContainsAny(w, " \t\"\\;|#!") {
		return w
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(w) + `"`
}

// tokens are the words of a statement for command: a word in quotes without
// them, where it can be put into quotes again; anything else as it is written.
func tokens(statement string) []string {
	var out []string
	for i := 0; i < len(statement); {
		if c := statement[i]; c == ' ' || c == '\t' || c == '\f' || c == '\v' || c == '\r' {
			i++
			continue
		}
		j, quote := i, false
		for ; j < len(statement); j++ {
			c := statement[j]
			if c == '"' {
				quote = !quote
			} else if !quote && (c == ' ' || c == '\t' || c == '\f' || c == '\v' || c == '\r') {
				break
			}
		}
		w := statement[i:j]
		if inner := strings.TrimSuffix(strings.TrimPrefix(w, `"`), `"`); len(inner)+2 == len(w) && !strings.Contains(inner, `"`) {
			w = inner
		}
		out = append(out, w)
		i = j
	}
	return out
}

// headline is the first line of a block for a Path.
func headline(words []string, number int) string {
	out := make([]string, len(words))
	for i, w := range words {
		if out[i] = w; blank(w) {
			out[i] = `"` + w + `"`
		}
	}
	if number > 0 {
		out[0] += fmt.Sprintf("[%d]", number)
	}
	return strings.Join(out, " ")
}
