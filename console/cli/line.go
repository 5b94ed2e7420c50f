package cli

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"ballast/configs/printable"
)

// MaxLine bounds one command line, in bytes.
const MaxLine = 4096

// statement is one command with its filters: "show log vrrp | match master".
type statement struct {
	words   []string
	filters [][]string
}

// parse splits a line into statements at ";", each into words and filters at
// "|". Quotes "…" keep blanks, ";" and "|" together; a backslash inside them
// takes the next character as it is. "#" or "!" at the start makes a comment.
func parse(line string) ([]statement, error) {
	if len(line) > MaxLine {
		return nil, fmt.Errorf("the command has %d bytes; at most %d are possible. A configuration or a file goes in with \"load\" and \"file put\"", len(line), MaxLine)
	}
	if t := strings.TrimSpace(line); strings.HasPrefix(t, "#") || strings.HasPrefix(t, "!") {
		return nil, nil
	}
	var out []statement
	segments := [][]string{nil}
	var word strings.Builder
	inWord, quoted, opened := false, false, 0
	endWord := func() {
		if inWord {
			last := len(segments) - 1
			segments[last] = append(segments[last], word.String())
		}
		word.Reset()
		inWord = false
	}
	endStatement := func() {
		endWord()
		if len(segments) > 1 || len(segments[0]) > 0 {
			out = append(out, statement{segments[0], segments[1:]})
		}
		segments = [][]string{nil}
	}
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case quoted && c == '\\' && i+1 < len(line):
			i++
			word.WriteByte(line[i])
		case c == '"':
			quoted, inWord, opened = !quoted, true, i
		case quoted:
			word.WriteByte(c)
		case c == ' ' || c == '\t' || c == '\r' || c == '\n':
			endWord()
		case c == ';':
			endStatement()
		case c == '|':
			endWord()
			segments = append(segments, nil)
		default:
			word.WriteByte(c)
			inWord = true
		}
	}
	if quoted {
		return nil, fmt.Errorf("the quote at character %d is not closed; a quote that is meant as such is written \\\" between quotes", utf8.RuneCountInString(line[:opened])+1)
	}
	endStatement()
	return out, nil
}

// filterNames are the filters that may follow "|".
var filterNames = []string{"compare", "count", "display", "except", "json", "last", "match", "no-more"}

// filterName resolves the name of a filter, which may be abbreviated, and what
// stands behind it.
func filterName(f []string) (name, rest string) {
	if len(f) == 0 {
		return "", ""
	}
	name, err := pick(f[0], filterNames)
	if err != nil {
		return "", ""
	}
	rest = strings.Join(f[1:], " ")
	if name == "display" && len(f) == 2 {
		rest, _ = pick(f[1], displayForms)
	}
	return name, rest
}

// displayForms are what "| display" can make of an answer.
var displayForms = []string{"json", "set"}

// apply runs one filter over text.
func apply(filter []string, text string) (string, error) {
	if len(filter) == 0 {
		return "", usagef("after | comes one of: %s", strings.Join(filterNames, ", "))
	}
	name, err := pick(filter[0], filterNames)
	if err != nil {
		return "", usagef("| %s %w", shown(filter[0]), err)
	}
	lines := strings.SplitAfter(text, "\n")
	if n := len(lines); n > 0 && lines[n-1] == "" {
		lines = lines[:n-1]
	}
	arg := strings.Join(filter[1:], " ")
	switch name {
	case "count", "json", "compare", "no-more":
		if arg != "" {
			return "", usagef("| %s takes nothing after it, not %q", name, shown(arg))
		}
		if name != "count" { // the command, or the terminal, saw to it
			return text, nil
		}
		return strconv.Itoa(len(lines)) + "\n", nil
	case "display":
		if _, form := filterName(filter); form != "set" && form != "json" {
			return "", usagef("| display wants a form: set, json")
		}
		return text, nil
	case "match", "except":
		if arg == "" {
			return "", usagef("| %s wants a text, for example: | %s eth0", name, name)
		}
		arg = strings.ToLower(arg)
		var b strings.Builder
		for _, l := range lines {
			if strings.Contains(strings.ToLower(l), arg) == (name == "match") {
				b.WriteString(l)
			}
		}
		return b.String(), nil
	}
	n, err := strconv.Atoi(arg)
	if err != nil || n < 1 {
		return "", usagef("| last wants a number of lines, for example: | last 20")
	}
	return strings.Join(lines[max(0, len(lines)-n):], ""), nil
}

// pick finds the one name that word abbreviates.
func pick(word string, names []string) (string, error) {
	var found []string
	for _, n := range names {
		if n == word {
			return n, nil
		}
		if word != "" && strings.HasPrefix(n, word) {
			found = append(found, n)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return "", fmt.Errorf("is not known here; possible: %s", strings.Join(names, ", "))
	}
	return "", fmt.Errorf("could be any of: %s", strings.Join(found, ", "))
}

// link reports whether a word is a URL.
func link(word string) bool {
	u, err := url.Parse(word)
	return err == nil && u.Scheme != "" && u.Host != ""
}

// redacted is a word without the password that a URL may hold. What is meant for
// one and can be read as none may hold it anywhere.
func redacted(word string) string {
	u, err := url.Parse(word)
	switch scheme, _, found := strings.Cut(word, "://"); {
	case err == nil && u.User != nil:
		return u.Redacted()
	case err != nil && found:
		return scheme + "://xxxxx"
	}
	return word
}

// shown makes what a user typed, or a service said, safe to show and to log.
func shown(s string) string { return printable.Short(printable.Line(s), 200) }

// usageError makes a command end with status 2.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }

func usagef(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

// sourceWords reads words of which some set something, and one may be the source
// of a firmware, as a URL may. unknown is the error about any other, twice that
// about a second source.
func sourceWords(args, words []string, sets map[string]*bool, unknown func(string) error, twice error) (source string, err error) {
	for _, a := range args {
		word := a
		if !link(a) {
			if word, err = pick(a, words); err != nil {
				return "", unknown(shown(redacted(a)))
			}
		}
		switch on, is := sets[word]; {
		case is:
			*on = true
		case source != "":
			return "", twice
		default:
			source = word
		}
	}
	return source, nil
}
